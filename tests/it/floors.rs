//! Holds the modules to their floors: imports run downwards only.

use std::path::{Path, PathBuf};

/// Module, floor. A module may import modules of strictly lower floors.
const FLOORS: &[(&str, u32)] = &[
    ("error", 0),
    ("files", 0),
    ("paper", 0),
    ("shape", 0),
    ("shader", 1),
    ("gpu", 1),
    ("data", 1),
    ("graph", 2),
    ("domain", 2),
    ("ops", 3),
    ("reference", 3),
    ("plan", 4),
    ("nn", 4),
    ("exec", 5),
    ("tune", 6),
    ("train", 7),
    ("infer", 7),
    ("bench", 8),
    ("doctor", 8),
    ("cli", 9),
];

/// Names that `lib.rs` lifts to the crate's root, and where they come from.
const LIFTED: &[(&str, &str)] = &[("Error", "error"), ("Result", "error")];

fn floor(module: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// One import of a top-level module.
#[derive(Debug, PartialEq)]
struct Import {
    module: String,
    line: usize,
    in_test: bool,
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The text without line comments and with the same line breaks.
fn without_comments(text: &str) -> String {
    let code = |line: &str| line.find("//").map_or(line.len(), |at| at);
    text.lines().map(|line| format!("{}\n", &line[..code(line)])).collect()
}

/// First words of the items in `{a::b, c, d::{e, f}}`, given the text after the opening brace.
fn group_heads(text: &str) -> Vec<String> {
    let (mut depth, mut heads, mut word, mut fresh) = (1, Vec::new(), String::new(), true);
    for c in text.chars() {
        if is_word(c) && fresh && depth == 1 {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            heads.push(std::mem::take(&mut word));
            fresh = false;
        }
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            _ => {}
        }
    }
    heads
}

/// Every module named after `prefix` (`crate::`, say), in `use` lines and in paths.
fn imports(text: &str, prefix: &str) -> Vec<Import> {
    let code = without_comments(text);
    let tests_at = code.find("#[cfg(test)]\nmod ").unwrap_or(code.len());
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].chars().next_back().is_some_and(|c| is_word(c) || c == '$') {
            continue;
        }
        let rest = code[at + prefix.len()..].trim_start();
        let heads = match rest.strip_prefix('{') {
            Some(group) => group_heads(group),
            None => vec![rest.chars().take_while(|c| is_word(*c)).collect()],
        };
        for head in heads.into_iter().filter(|head| !head.is_empty()) {
            let lifted = LIFTED.iter().find(|(name, _)| *name == head);
            let module = lifted.map_or(head, |(_, module)| module.to_string());
            let line = code[..at].matches('\n').count() + 1;
            found.push(Import { module, line, in_test: at > tests_at });
        }
    }
    found
}

/// What is wrong with `module` importing this, if anything.
fn fault(module: &str, import: &Import) -> Option<String> {
    let target = import.module.as_str();
    // Two floors have a step of their own: `shape` and `files` stand on `error`, `gpu` compiles what `shader` specialises.
    if [("shape", "error"), ("files", "error"), ("gpu", "shader")].contains(&(module, target)) {
        return None;
    }
    if target == module || (target == "reference" && import.in_test) {
        return None;
    }
    let Some(to) = floor(target) else {
        return Some(format!("`{target}` is no module of the table of floors"));
    };
    let from = floor(module)?;
    if to >= from {
        return Some(format!("`{module}` (floor {from}) imports `{target}` (floor {to})"));
    }
    if module == "reference" && to > 0 {
        return Some(format!("`reference` may import floor 0 only, not `{target}`"));
    }
    None
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

#[test]
fn imports_run_downwards_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut faults = Vec::new();
    for path in rust_files(&source) {
        let text = std::fs::read_to_string(&path).unwrap();
        let relative = path.strip_prefix(&source).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_string_lossy();
        let module = first.trim_end_matches(".rs");
        let is_test_file = relative.components().any(|part| {
            let part = part.as_os_str();
            part == "tests" || part == "tests.rs"
        });
        let mut report = |line: usize, message: String| {
            faults.push(format!("src/{}:{line}: {message}", relative.display()));
        };
        match module {
            "lib" => {}
            "main" => {
                for import in imports(&text, "u2seg::").iter().chain(&imports(&text, "crate::")) {
                    if import.module != "cli" {
                        report(import.line, format!("`main` imports `{}`", import.module));
                    }
                }
            }
            _ if floor(module).is_none() => {
                report(1, format!("`{module}` is no module of the table of floors"));
            }
            _ => {
                for mut import in imports(&text, "crate::") {
                    import.in_test |= is_test_file;
                    if let Some(message) = fault(module, &import) {
                        report(import.line, message);
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "imports that do not run downwards:\n{}", faults.join("\n"));
}

#[test]
fn the_reader_sees_groups_paths_and_tests_but_no_comments() {
    let text = "//! See [`crate::cli`].\nuse crate::{\n    data::{io, nifti},\n    shape::Shape,\n};\n\
                fn f() -> crate::Result<()> { other_crate::x(); crate::gpu::open() } // crate::train\n\
                #[cfg(test)]\nmod tests {\n    use crate::reference::conv;\n}\n";
    let found: Vec<(String, usize, bool)> =
        imports(text, "crate::").into_iter().map(|i| (i.module, i.line, i.in_test)).collect();
    let expected = [
        ("data", 2, false),
        ("shape", 2, false),
        ("error", 6, false),
        ("gpu", 6, false),
        ("reference", 9, true),
    ];
    assert_eq!(found, expected.map(|(name, line, test)| (name.to_string(), line, test)));
}

#[test]
fn the_rules_refuse_upward_and_sideways_imports() {
    let import = |module: &str, in_test| Import { module: module.into(), line: 1, in_test };
    assert!(fault("graph", &import("shape", false)).is_none());
    assert!(fault("graph", &import("graph", false)).is_none());
    assert!(fault("graph", &import("domain", false)).is_some());
    assert!(fault("graph", &import("exec", true)).is_some());
    assert!(fault("ops", &import("reference", false)).is_some());
    assert!(fault("ops", &import("reference", true)).is_none());
    assert!(fault("gpu", &import("reference", true)).is_none());
    assert!(fault("reference", &import("shape", false)).is_none());
    assert!(fault("reference", &import("gpu", false)).is_some());
    assert!(fault("nn", &import("nonsense", false)).is_some());
}
