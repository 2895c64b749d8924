//! The pages in docs: the tutorial's commands run, links lead somewhere, commands and messages are those of the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::common::program::*;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The pages of the book.
fn pages() -> Vec<PathBuf> {
    let files = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|ending| ending == "md")).collect();
    pages.sort();
    pages
}

/// The text outside of code blocks, and the lines of the shell in them.
fn parts(text: &str) -> (String, Vec<String>) {
    let (mut prose, mut shell) = (String::new(), Vec::new());
    let mut inside: Option<String> = None;
    for line in text.lines() {
        match (&inside, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => inside = Some(language.to_string()),
            (Some(_), Some(_)) => inside = None,
            (Some(language), None) if language == "sh" => shell.push(line.to_string()),
            (Some(_), None) => {}
            (None, None) => prose += &format!("{line}\n"),
        }
    }
    assert!(inside.is_none(), "a code block without an end");
    (prose, shell)
}

/// What a heading is linked by.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &Path) -> BTreeSet<String> {
    let (prose, _) = parts(&read(page));
    let headings = prose.lines().filter_map(|line| line.strip_prefix('#'));
    headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// Targets of links and pictures, without those into the network.
fn links(page: &Path) -> Vec<String> {
    let link = regex::Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let (prose, _) = parts(&read(page));
    let found = link.captures_iter(&prose).map(|found| found[1].to_string());
    found.filter(|target| !target.contains("://")).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut all = pages();
    all.extend(["README.md", "CHANGELOG.md", "models/README.md"].map(|file| root().join(file)));
    let mut seen = 0;
    for page in &all {
        for link in links(page) {
            let (file, place) = link.split_once('#').unwrap_or((&link, ""));
            let folder = page.parent().unwrap();
            let target = if file.is_empty() { page.clone() } else { folder.join(file) };
            let shown = page.strip_prefix(root()).unwrap().display();
            assert!(target.exists(), "{shown}: {link} leads nowhere");
            // a book holds nothing of what lies outside its folder
            let book = root().join("docs").canonicalize().unwrap();
            let inside = |path: &Path| path.canonicalize().unwrap().starts_with(&book);
            assert!(!inside(page) || inside(&target), "{shown}: {link} leaves the book");
            assert!(
                place.is_empty() || anchors(&target).contains(place),
                "{shown}: {link} names no heading"
            );
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn the_summary_names_every_page_once() {
    let summary = root().join("docs/SUMMARY.md");
    let mut named = links(&summary);
    named.sort();
    let mut there: Vec<String> = pages()
        .iter()
        .map(|page| page.file_name().unwrap().to_str().unwrap().to_string())
        .filter(|name| name != "SUMMARY.md")
        .collect();
    there.sort();
    assert_eq!(named, there);
}

/// The flags of a command, as its help lists them.
fn flags(command: &str) -> BTreeSet<String> {
    let flag = regex::Regex::new(r"--?[a-zA-Z][a-z0-9-]*").unwrap();
    let help = succeed(&[command, "--help"]);
    let lines = help.lines().filter(|line| line.trim_start().starts_with('-'));
    lines.flat_map(|line| flag.find_iter(line).map(|found| found.as_str().to_string())).collect()
}

#[test]
fn commands_and_flags_of_the_pages_are_those_of_the_program() {
    let flag = regex::Regex::new(r"(?:^|\s)(--?[a-zA-Z][a-z0-9-]*)").unwrap();
    let mut files = pages();
    files.push(root().join("README.md"));
    let mut known = std::collections::BTreeMap::new();
    let mut seen = 0;
    for page in files {
        let text = read(&page);
        let (prose, shell) = parts(&text);
        // code in the running text, too
        let inline = prose.split('`').skip(1).step_by(2).map(str::to_string);
        let joined = shell.join("\n").replace("\\\n", " ");
        for line in joined.lines().map(str::to_string).chain(inline) {
            let line = line.split(" #").next().unwrap().trim();
            let Some(rest) = line.strip_prefix("u2seg ") else { continue };
            let Some(command) = rest.split_whitespace().next() else { continue };
            if command.starts_with('-') || command.chars().any(char::is_uppercase) {
                continue;
            }
            // what follows it is another program's
            let rest = rest.split(['|', '&', ';']).next().unwrap();
            let known = known.entry(command.to_string()).or_insert_with(|| flags(command));
            for found in flag.captures_iter(rest) {
                assert!(known.contains(&found[1]), "{}: {} in `{line}`", page.display(), &found[1]);
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen}");
}

/// All of the program's source, with texts as they are printed.
fn source(folder: &Path, all: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source(&path, all);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            *all += &read(&path);
        }
    }
}

#[test]
fn messages_of_the_troubleshooting_page_are_those_of_the_program() {
    let mut all = String::new();
    source(&root().join("src"), &mut all);
    let breaks = regex::Regex::new(r"\\\n\s*").unwrap();
    let all = breaks.replace_all(&all, "").replace("\\\"", "\"");
    let page = read(&root().join("docs/TROUBLESHOOTING.md"));
    let mut seen = 0;
    for line in page.lines() {
        // the first cell of a row: the message, whose names and numbers are left out
        let Some(message) = line.strip_prefix("| `").and_then(|rest| rest.split('`').next()) else {
            continue;
        };
        for part in message.split('…').map(str::trim).filter(|part| !part.is_empty()) {
            assert!(all.contains(part), "{part:?} of {message:?} is no message of the program");
        }
        seen += 1;
    }
    assert!(seen > 30, "{seen}");
}

/// A block of the tutorial, and what its test makes of it.
#[cfg(unix)]
#[derive(Debug, Default)]
struct Block {
    /// Words that the test replaces.
    replaced: Vec<(String, String)>,
    left_out: bool,
    commands: String,
    /// Files that the text after it says are there.
    makes: Vec<String>,
}

/// The page's blocks of shell commands, with the comments before and after each that are for this test.
#[cfg(unix)]
fn blocks(page: &str) -> Vec<Block> {
    let mut all: Vec<Block> = Vec::new();
    let (mut next, mut inside) = (Block::default(), false);
    for line in page.lines() {
        let comment = line.strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->"));
        match (line, comment) {
            ("```sh", _) => inside = true,
            ("```", _) if inside => {
                all.push(std::mem::take(&mut next));
                inside = false;
            }
            (line, _) if inside => next.commands += &format!("{line}\n"),
            (_, Some("leave out")) => next.left_out = true,
            (_, Some(comment)) => {
                match (comment.strip_prefix("makes "), comment.split_once(" => ")) {
                    (Some(files), _) => {
                        let last = all.last_mut().unwrap();
                        last.makes.extend(files.split_whitespace().map(str::to_string));
                    }
                    (None, Some((from, to))) => next.replaced.push((from.into(), to.into())),
                    (None, None) => panic!("a comment for no test: {comment}"),
                }
            }
            _ => {}
        }
    }
    all
}

/// A folder with some cases of a task, two of them as images without labels.
#[cfg(unix)]
fn some_cases(task: &str, labelled: usize, folder: &Path) {
    let from = crate::common::data_dir().join(task);
    let to = folder.join(task);
    let mut description: serde_json::Value =
        serde_json::from_str(&read(&from.join("dataset.json"))).unwrap();
    let cases = description["training"].as_array().unwrap().clone();
    for name in ["imagesTr", "labelsTr", "imagesTs"] {
        std::fs::create_dir_all(to.join(name)).unwrap();
    }
    let copy = |file: &str, to: &Path| std::fs::copy(from.join(file), to).map(drop).unwrap();
    for case in &cases[..labelled] {
        for file in ["image", "label"].map(|what| case[what].as_str().unwrap()) {
            copy(file, &to.join(file));
        }
    }
    for case in cases[labelled..].iter().take(2) {
        let file = case["image"].as_str().unwrap();
        copy(file, &to.join("imagesTs").join(Path::new(file).file_name().unwrap()));
    }
    description["training"] = cases[..labelled].into();
    std::fs::write(to.join("dataset.json"), description.to_string()).unwrap();
}

#[test]
#[cfg(unix)]
#[cfg_attr(not(real_images), ignore = "no real images: set U2SEG_DATA")]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn the_tutorial_runs_as_written() {
    let folder = tempfile::tempdir().unwrap();
    some_cases("Task04_Hippocampus", 12, folder.path());
    some_cases("Task09_Spleen", 2, folder.path());
    let program = Path::new(env!("CARGO_BIN_EXE_u2seg")).parent().unwrap();
    let others = std::env::var("PATH").unwrap();
    let blocks = blocks(&read(&root().join("docs/TUTORIAL.md")));
    assert!(blocks.len() > 10, "{blocks:?}");
    let left_out: Vec<&str> =
        blocks.iter().filter(|b| b.left_out).map(|b| b.commands.trim()).collect();
    // as the page says; and what it fetches is there to be fetched
    let tasks = succeed(&["fetch", "--list"]);
    for command in &left_out {
        let task = command.strip_prefix("u2seg fetch ");
        assert!(
            task.map_or(command.starts_with("tensorboard"), |task| tasks.contains(task)),
            "{command}"
        );
    }
    for block in blocks.iter().filter(|block| !block.left_out) {
        let mut commands = block.commands.clone();
        for (from, to) in &block.replaced {
            assert!(commands.contains(from.as_str()), "{from} is not in {commands}");
            commands = commands.replace(from.as_str(), to);
        }
        let output = std::process::Command::new("sh")
            .args(["-euc", &commands])
            .current_dir(folder.path())
            .env("PATH", format!("{}:{others}", program.display()))
            .env("U2SEG_CACHE", folder.path().join("cache"))
            .output()
            .unwrap();
        let told = text(&output.stderr);
        assert!(output.status.success(), "{commands}{told}");
        for file in &block.makes {
            assert!(folder.path().join(file).is_file(), "{commands}no {file}");
        }
    }
}
