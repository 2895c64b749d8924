//! Claimed outputs against a model: whatever is accepted, no input changes and every output is a file of its own.

use std::path::{Path, PathBuf};

use crate::common::program::*;
use proptest::prelude::*;
use u2seg::low_level::files::{Paths, safe_name, write_atomically};

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

/// Paths to masks, links to them, and folders of them.
fn mask_paths() -> impl Strategy<Value = PathBuf> {
    let folder = prop_oneof![Just("m"), Just("n"), Just("."), Just("m/../n"), Just("l")];
    let file = prop_oneof![
        3 => Just("a.nii"), 2 => Just("b.nii.gz"), 1 => Just("A.NII"), 1 => Just("new.json"), 1 => Just(""),
    ];
    (folder, file).prop_map(|(folder, file)| Path::new(folder).join(file))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60,
        max_shrink_iters: 50,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_command_writes_over_what_it_reads(
        links in prop::collection::vec((any::<bool>(), mask_paths(), mask_paths()), 0..5),
        [p, g, o] in [mask_paths(), mask_paths(), mask_paths()],
    ) {
        use u2seg::low_level::imaging::Grid;
        use crate::common::volumes::write_mask;
        let folder = tempfile::tempdir().unwrap();
        let top = folder.path();
        std::fs::create_dir_all(top.join("m")).unwrap();
        std::fs::create_dir_all(top.join("n")).unwrap();
        let _ = symlink(&top.join("m"), &top.join("l"));
        for (index, name) in ["m/a.nii", "n/a.nii", "m/b.nii.gz", "a.nii"].iter().enumerate() {
            let labels = [0, 1, 2, index as u8];
            write_mask(&top.join(name), &labels, &Grid::ras([1, 2, 2], [1.0; 3])).unwrap();
        }
        for (hard, at, to) in links {
            let (at, to) = (top.join(at), top.join(to));
            let _ = if hard { std::fs::hard_link(to, at) } else { symlink(&to, &at) };
        }
        let before = tree(top);
        let [p, g, o] = [p, g, o].map(|name| top.join(name));
        // what lies in folders within is not read
        let read = |path: &Path| match std::fs::read_dir(path) {
            Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
            Err(_) => vec![path.to_path_buf()],
        };
        let inputs: Vec<PathBuf> = read(&p).into_iter().chain(read(&g)).collect();
        let held: Vec<_> = inputs.iter().map(|path| std::fs::read(path).ok()).collect();
        let output = u2seg(&["evaluate", "-p", path(&p), "-g", path(&g), "-o", path(&o)]);
        prop_assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
        if !output.status.success() {
            prop_assert_eq!(tree(top), before, "a refusal changes nothing");
            return Ok(());
        }
        prop_assert_eq!(std::fs::read(&o).unwrap()[0], b'{');
        let is_mask = |path: &Path| !path.ends_with("new.json");
        for (path, bytes) in inputs.iter().zip(held).filter(|(path, _)| is_mask(path)) {
            prop_assert_eq!(std::fs::read(path).ok(), bytes, "{}", path.display());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 600,
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

/// A folder with a small model in it, of one domain.
fn model_folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model.safetensors");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/model_1ch.safetensors");
    std::fs::copy(data, &model).unwrap();
    (folder, model)
}

#[test]
fn a_model_is_not_written_over_what_it_is_made_from() {
    let (folder, model) = model_folder();
    let at = |name: &str| folder.path().join(name);
    std::fs::copy(&model, at("other")).unwrap();
    std::fs::write(at("plan.json"), "[]").unwrap();
    std::fs::create_dir(at("run")).unwrap();
    std::fs::copy(&model, at("run/model.safetensors")).unwrap();
    let before = tree(folder.path());
    let m = path(&model);
    let (other, plan, run) = (at("other"), at("plan.json"), at("run"));
    let (detour, inside) = (at("run/../other"), at("run/model.safetensors"));
    for args in [
        vec!["export", "-m", m, "--domain", "Base1", "-o", m],
        vec!["export", "-m", path(&run), "--domain", "Base1", "-o", path(&inside)],
        vec!["merge", "-m", m, "--add", path(&other), "-o", m],
        vec!["merge", "-m", m, "--add", path(&other), "-o", path(&detour)],
        vec!["import", m, "--plan", path(&plan), "-o", m],
        vec!["import", m, "--plan", path(&plan), "-o", path(&plan)],
    ] {
        let message = fail(&args);
        assert!(message.contains("found the input"), "{message}");
    }
    let message = fail(&["export", "-m", m, "--domain", "Base1", "-o", path(&run)]);
    assert!(message.contains("found a folder"), "{message}");
    // no folder stays behind a failure
    let new = at("new/deep/model.safetensors");
    let message = fail(&["export", "-m", m, "--domain", "None", "-o", path(&new)]);
    assert!(message.contains("--domain"), "{message}");
    assert_eq!(tree(folder.path()), before);
    succeed(&["export", "-m", m, "--domain", "Base1", "-o", path(&new)]);
    assert!(new.is_file());
}

#[cfg(unix)]
#[test]
fn links_and_devices_are_no_way_around() {
    let (folder, model) = model_folder();
    let (link, null) = (folder.path().join("link"), folder.path().join("null"));
    symlink(&model, &link).unwrap();
    symlink(Path::new("/dev/null"), &null).unwrap();
    let hard = folder.path().join("hard");
    std::fs::hard_link(&model, &hard).unwrap();
    let export = ["export", "-m", path(&model), "--domain", "Base1", "-o"];
    for (output, found) in [
        (path(&link), "found the input"),
        (path(&hard), "found the input"),
        (path(&null), "found a device"),
        ("/dev/null", "found a device"),
    ] {
        let message = fail(&[&export[..], &[output]].concat());
        assert!(message.contains(found), "{message}");
    }
    use std::os::unix::fs::FileTypeExt;
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
}

#[test]
fn a_plan_may_come_from_any_editor() {
    let (folder, model) = model_folder();
    let plan = folder.path().join("plan.json");
    let out = folder.path().join("out.safetensors");
    let import = ["import", path(&model), "--plan", path(&plan), "-o", path(&out)];
    let message = fail(&import);
    assert!(message.contains("found no such file; expected a list of plans"), "{message}");
    let utf16: Vec<u8> = "\u{feff}[]".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for bytes in [b"\xef\xbb\xbf[]".to_vec(), utf16] {
        std::fs::write(&plan, bytes).unwrap();
        // the file is read; that no plan is in it comes later
        let message = fail(&import);
        assert!(!message.contains("list of plans"), "{message}");
    }
}

/// Files of no more than 4096 bytes, as on a full disk, and a write beyond is an error.
#[cfg(target_os = "linux")]
fn limited(program: &Path, args: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new("sh");
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
    command.args(["-c", script, path(program)]).args(args);
    command
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    let (folder, model) = model_folder();
    let before = tree(folder.path());
    let out = folder.path().join("new/out.safetensors");
    let args = ["export", "-m", path(&model), "--domain", "Base1", "-o", path(&out)];
    let output = limited(Path::new(env!("CARGO_BIN_EXE_u2seg")), &args).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("out.safetensors") && stderr.contains("too large"), "{stderr}");
    assert_eq!(tree(folder.path()), before);
}

#[cfg(target_os = "linux")]
/// Where the test below runs itself again, with little room.
const LITTLE_ROOM: &str = "U2SEG_TEST_LITTLE_ROOM";

#[cfg(target_os = "linux")]
#[test]
fn every_writer_says_that_there_is_no_room() {
    use crate::common::volumes::{volume, write_image, write_mask};
    use std::collections::BTreeMap;
    use u2seg::Overlay;
    use u2seg::low_level::imaging::{Grid, LabelMap};
    use u2seg::low_level::score::metrics::Comparison;
    use u2seg::low_level::score::summary::{CaseScores, Summary};

    let names = ["a.nii", "a.nii.gz", "b.nii", "b.nii.gz", "c.png", "d.json", "e.txt"];
    let Some(folder) = std::env::var_os(LITTLE_ROOM).map(PathBuf::from) else {
        for earlier in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            if earlier {
                names
                    .iter()
                    .for_each(|name| std::fs::write(folder.path().join(name), name).unwrap());
            }
            let before = tree(folder.path());
            let this = std::env::current_exe().unwrap();
            let args = ["--exact", "files::every_writer_says_that_there_is_no_room", "--nocapture"];
            let output = limited(&this, &args).env(LITTLE_ROOM, folder.path()).output().unwrap();
            assert!(output.status.success(), "{}", text(&output.stderr));
            assert!(text(&output.stdout).contains("7 writers refused"));
            assert_eq!(tree(folder.path()), before);
        }
        return;
    };
    // noise, which does not pack
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let shape = [20, 24, 28];
    let labels: Vec<u8> = (0..20 * 24 * 28).map(|_| noise()).collect();
    let image: Vec<f32> = labels.iter().map(|v| f32::from(*v)).collect();
    let grid = Grid::ras(shape, [1.0; 3]);
    let nothing = LabelMap::from_vec(vec![0; labels.len()], grid.clone()).unwrap();
    let image = volume(1, image, &grid);
    let view = Overlay { prediction: Some(&nothing), caption: "noise", ..Overlay::of(&image) };
    let one = ndarray::Array3::from_elem([1; 3], 1);
    let scores = Comparison::new(one.view(), one.view(), [1.0; 3]).unwrap().scores(&1.into(), 1.0);
    let case = CaseScores {
        metrics: BTreeMap::from([(1.into(), scores)]),
        prediction_file: "p".into(),
        reference_file: "r".into(),
    };
    let summary = Summary::new(vec![case; 100]);
    let at = |index: usize| folder.join(names[index]);
    let results = [
        write_mask(&at(0), &labels, &grid),
        write_mask(&at(1), &labels, &grid),
        write_image(&at(2), image.as_slice(), &grid),
        write_image(&at(3), image.as_slice(), &grid),
        view.write(at(4)),
        summary.write(at(5)),
        // one byte too many, which only the last flush finds
        write_atomically(&at(6), &[b'x'; 4097]),
    ];
    let refused = results
        .iter()
        .zip(names)
        .filter(|(result, name)| result.as_ref().is_err_and(|e| e.to_string().contains(name)));
    println!("{} writers refused", refused.count());
    write_atomically(&folder.join("room"), &[b'x'; 4096]).unwrap();
    std::fs::remove_file(folder.join("room")).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn results_that_cannot_be_printed_are_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = command(&["info", "--published"]).stdout(full).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("error: stdout: found that it cannot be written"), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[cfg(unix)]
#[test]
fn a_link_among_outputs_of_a_folder_has_its_own_folder_made() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    symlink(&at("elsewhere/b"), &at("link")).unwrap();
    let mut paths = Paths::new();
    paths.writes(at("a"), "one");
    paths.writes(at("link"), "another");
    let _claim = paths.claim().unwrap();
    write_atomically(&at("link"), b"written").unwrap();
    assert_eq!(std::fs::read(at("elsewhere/b")).unwrap(), b"written");
}
