//! Claimed outputs against a model: whatever is accepted, no input changes and every output is a file of its own.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use u2seg::files::{Paths, safe_name, write_atomically};

/// What a small tree holds.
#[derive(Debug, Clone)]
enum Entry {
    File(PathBuf),
    Folder(PathBuf),
    /// At the first path, to the second, which may not be there.
    Symbolic(PathBuf, PathBuf),
    Hard(PathBuf, PathBuf),
}

/// Paths of few names, so that they meet often, with detours.
fn paths() -> impl Strategy<Value = PathBuf> {
    let part = prop_oneof![
        3 => Just("a"), 3 => Just("b"), 2 => Just("c"), 1 => Just("A"), 1 => Just("."), 1 => Just(".."),
        1 => Just("L"),
    ];
    // three folders below the top, so that `..` stays within
    prop::collection::vec(part, 1..4)
        .prop_map(|parts| Path::new("p/q/r").join(PathBuf::from_iter(parts)))
}

fn entries() -> impl Strategy<Value = Entry> {
    prop_oneof![
        4 => paths().prop_map(Entry::File),
        2 => paths().prop_map(Entry::Folder),
        2 => (paths(), paths()).prop_map(|(at, to)| Entry::Symbolic(at, to)),
        1 => (paths(), paths()).prop_map(|(at, to)| Entry::Hard(at, to)),
    ]
}

/// Makes what can be made; later entries may not fit earlier ones.
fn build(top: &Path, entries: &[Entry]) {
    std::fs::create_dir_all(top.join("p/q/r")).unwrap();
    for (index, entry) in entries.iter().enumerate() {
        let (Entry::File(at) | Entry::Folder(at) | Entry::Symbolic(at, _) | Entry::Hard(at, _)) =
            entry;
        let at = top.join(at);
        if let Some(parent) = at.parent() {
            let _ = std::fs::create_dir_all(parent);
        }
        let _ = match entry {
            Entry::File(_) => std::fs::write(&at, format!("input {index}")),
            Entry::Folder(_) => std::fs::create_dir(&at),
            Entry::Symbolic(_, to) => symlink(&top.join(to), &at),
            Entry::Hard(_, to) => std::fs::hard_link(top.join(to), &at),
        };
    }
}

#[cfg(unix)]
fn symlink(to: &Path, at: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(to, at)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    // other systems ask for a privilege
    Ok(())
}

/// Everything below a folder: files with their bytes, links with their targets.
fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap();
        if kind.is_symlink() {
            let target = path.read_link().unwrap();
            found.push((path, target.to_string_lossy().into_owned().into_bytes()));
        } else if kind.is_dir() {
            found.extend(tree(&path));
            found.push((path, Vec::new()));
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_claimed_never_harms_an_input(
        entries in prop::collection::vec(entries(), 0..8),
        reads in prop::collection::vec(paths(), 0..4),
        writes in prop::collection::vec(paths(), 1..4),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path();
        build(top, &entries);
        let reads: Vec<PathBuf> = reads.iter().map(|path| top.join(path)).collect();
        let writes: Vec<PathBuf> = writes.iter().map(|path| top.join(path)).collect();
        let before = tree(top);
        let held: Vec<Option<Vec<u8>>> = reads.iter().map(|path| std::fs::read(path).ok()).collect();
        let mut paths = Paths::new();
        reads.iter().for_each(|path| paths.reads(path));
        writes.iter().for_each(|path| paths.writes(path, "a case"));
        let Ok(claim) = paths.claim() else {
            prop_assert_eq!(tree(top), before, "a refusal changes nothing");
            return Ok(());
        };
        for (index, path) in writes.iter().enumerate() {
            write_atomically(path, format!("output {index}").as_bytes())
                .map_err(|e| TestCaseError::fail(e.to_string()))?;
        }
        for (path, bytes) in reads.iter().zip(held) {
            prop_assert_eq!(std::fs::read(path).ok(), bytes, "{}", path.display());
        }
        for (index, path) in writes.iter().enumerate() {
            let bytes = std::fs::read(path).map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(bytes, format!("output {index}").into_bytes(), "{}", path.display());
        }
        // a detour through a folder that was made for it ends with it
        drop(claim);
        let after = tree(top);
        let is_output = |entry: &&(PathBuf, Vec<u8>)| {
            entry.0.symlink_metadata().unwrap().is_file() && entry.1.starts_with(b"output")
        };
        prop_assert_eq!(after.iter().filter(is_output).count(), writes.len());
        // links stay as they were
        for (path, bytes) in before.iter().filter(|(path, _)| path.is_symlink()) {
            prop_assert!(after.contains(&(path.clone(), bytes.clone())));
        }
    }

    /// Inputs and outputs that plainly have nothing to do with each other are never refused.
    #[test]
    fn what_is_apart_is_accepted(names in prop::collection::btree_set("[a-z0-9/.% _]{0,12}", 1..8)) {
        let folder = tempfile::tempdir().unwrap();
        let mut paths = Paths::new();
        for name in &names {
            let input = folder.path().join("in").join(safe_name(name));
            std::fs::create_dir_all(folder.path().join("in")).unwrap();
            std::fs::write(&input, name).unwrap();
            paths.writes(folder.path().join("out/deep").join(safe_name(name)), &input);
            paths.reads(input);
        }
        let claim = paths.claim().map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert!(folder.path().join("out/deep").is_dir());
        drop(claim);
        prop_assert!(!folder.path().join("out").exists());
    }
}
