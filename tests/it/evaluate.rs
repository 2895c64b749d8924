//! `u2seg evaluate`: nnU-Net's numbers on the same masks, and what it says of masks that cannot be scored as they are.

use std::path::{Path, PathBuf};

use crate::common::program::*;
use crate::common::volumes::{write_image, write_mask};
use serde_json::{Value, json};
use u2seg::low_level::imaging::Grid;

/// D, H, W of the masks that the tests make.
const SMALL_SHAPE: [usize; 3] = [6, 8, 10];

/// Folders `p` and `g`, and what is written into them.
struct Folders(tempfile::TempDir);

impl Folders {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["p", "g"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self(folder)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn mask(&self, name: &str, labels: &[u8]) {
        write_mask(&self.at(name), labels, &Grid::ras(SMALL_SHAPE, [2.0, 1.0, 1.0])).unwrap();
    }

    fn describe(&self, name: &str, labels: Value) {
        std::fs::write(self.at(name), json!({ "labels": labels }).to_string()).unwrap();
    }

    /// `-p p -g g` and more.
    fn args(&self, more: &[&str]) -> Vec<String> {
        let (p, g) = (self.at("p"), self.at("g"));
        let args = ["evaluate", "-p", path(&p), "-g", path(&g)];
        args.iter().chain(more).map(|arg| arg.to_string()).collect()
    }

    /// Table and summary.
    fn scored(&self, more: &[&str]) -> (String, Value) {
        let out = self.at("summary.json");
        let args = self.args(&[more, &["-o", path(&out)]].concat());
        let table = succeed(&strs(&args));
        (table, serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap())
    }

    fn refused(&self, more: &[&str]) -> String {
        fail(&strs(&self.args(more)))
    }

    /// Lines of stderr of what must fail.
    fn errors(&self, more: &[&str]) -> Vec<String> {
        let output = u2seg(&strs(&self.args(more)));
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
        text(&output.stderr).lines().filter(|l| l.starts_with("error: ")).map(Into::into).collect()
    }
}

/// Blocks of 20 voxels, one a value, the first at the start; 0 elsewhere.
fn blocks(values: &[u8]) -> Vec<u8> {
    let mut labels = vec![0; SMALL_SHAPE.iter().product()];
    for (block, value) in labels.chunks_mut(20).zip(values) {
        block.fill(*value);
    }
    labels
}

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

fn close(ours: &Value, theirs: &Value) -> bool {
    match (ours.as_f64(), theirs.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * b.abs().max(1.0),
        _ => ours.is_null() && theirs.is_null(),
    }
}

/// Holds every value of nnU-Net's to ours; how many there were.
fn compare(ours: &Value, theirs: &Value, place: &str) -> usize {
    let Some(theirs) = theirs.as_object() else {
        assert!(close(ours, theirs), "{place}: ours {ours}, nnU-Net's {theirs}");
        return 1;
    };
    let below = |(key, value): (&String, &Value)| {
        assert!(ours.get(key).is_some(), "{place}: no {key}");
        compare(&ours[key], value, &format!("{place} {key}"))
    };
    theirs.iter().map(below).sum()
}

/// tests/data/make_nnunet.py made the masks and had nnU-Net score them.
#[test]
fn means_of_counts_and_of_dice_equal_those_of_nnunet_absent_classes_included() {
    let file: Value = serde_json::from_str(include_str!("../data/nnunet.json")).unwrap();
    let shape: [usize; 3] = serde_json::from_value(file["shape"].clone()).unwrap();
    let grid = Grid::ras(shape, [1.0; 3]);
    let mut values = 0;
    for set in file["sets"].as_array().unwrap() {
        let name = set["name"].as_str().unwrap();
        let folders = Folders::new();
        std::fs::write(folders.at("dataset.json"), set["description"].to_string()).unwrap();
        for case in set["cases"].as_array().unwrap() {
            for (folder, key) in [("g", "reference"), ("p", "prediction")] {
                let digits = case[key].as_str().unwrap().bytes().map(|digit| digit - b'0');
                let file = format!("{folder}/{}.nii.gz", case["name"].as_str().unwrap());
                write_mask(&folders.at(&file), &digits.collect::<Vec<_>>(), &grid).unwrap();
            }
        }
        let (table, ours) = folders.scored(&[]);
        let theirs = &set["summary"];
        values += compare(&ours["mean"], &theirs["mean"], name);
        values += compare(&ours["foreground_mean"], &theirs["foreground_mean"], name);
        let (cases, others) = (&ours["metric_per_case"], &theirs["metric_per_case"]);
        assert_eq!(cases.as_array().unwrap().len(), others.as_array().unwrap().len());
        for (ours, theirs) in cases.as_array().unwrap().iter().zip(others.as_array().unwrap()) {
            let file = Path::new(ours["reference_file"].as_str().unwrap());
            let reference = theirs["reference_file"].as_str().unwrap();
            assert!(file.ends_with(reference), "{name}: {}", file.display());
            assert_eq!(
                ours["metrics"].as_object().unwrap().len(),
                theirs["metrics"].as_object().unwrap().len()
            );
            let place = format!("{name}, {reference},");
            values += compare(&ours["metrics"], &theirs["metrics"], &place);
        }
        // nnU-Net's foreground mean has no number where a class is in no case; the table has
        let in_no_case = theirs["foreground_mean"]["Dice"].is_null();
        assert_eq!(table.contains("In no case: never."), in_no_case, "{table}");
        assert!(
            table.lines().any(|l| l.starts_with("foreground  ") && l.contains("0.")),
            "{table}"
        );
    }
    assert_eq!(values, 8 * (2 + 1 + 4 * 2 + 3 + 1 + 4 * 3 + 2 + 1 + 5 * 2));
}

#[test]
fn predictions_that_are_missing_are_refused_or_empty() {
    let folders = Folders::new();
    let labels = blocks(&[1, 1, 2]);
    for name in ["a", "b", "c", "d", "e"] {
        folders.mask(&format!("g/{name}.nii.gz"), &labels);
    }
    folders.mask("p/a.nii.gz", &labels);
    folders.mask("p/b.nii.gz", &labels);
    let message = folders.refused(&[]);
    has(&message, &["3 of 5 references (c.nii.gz, d.nii.gz, e.nii.gz)", "--allow-missing"]);
    let (table, summary) = folders.scored(&["--allow-missing"]);
    assert!((summary["foreground_mean"]["Dice"].as_f64().unwrap() - 0.4).abs() < 1e-12);
    let missing = &summary["missing"];
    assert_eq!(missing["count_as"], "empty masks");
    assert_eq!(missing["files"].as_array().unwrap().len(), 3);
    assert!(missing["files"][0].as_str().unwrap().ends_with("c.nii.gz"));
    assert_eq!(missing["foreground_mean_without"]["Dice"], 1.0);
    assert_eq!(summary["metric_per_case"][4]["metrics"]["1"]["FN"], 40);
    has(&table, &["3 of 5 predictions are missing and count as empty masks", "Dice is 1.000."]);
    // nothing missing, nothing said
    for name in ["c", "d", "e"] {
        folders.mask(&format!("p/{name}.nii.gz"), &labels);
    }
    let (table, summary) = folders.scored(&["--allow-missing"]);
    assert!(summary.get("missing").is_none() && !table.contains("missing"), "{table}");
    folders.mask("p/a_seg.nii.gz", &labels);
    let message = folders.refused(&["--allow-missing"]);
    has(&message, &["predictions without a reference: 1 of 6 (a_seg.nii.gz)", "Rename"]);
}

#[test]
fn names_match_without_their_endings_once() {
    let folders = Folders::new();
    folders.mask("g/a.nii", &blocks(&[1]));
    folders.mask("p/A.nii.gz", &blocks(&[1]));
    std::fs::rename(folders.at("p/A.nii.gz"), folders.at("p/a.NII.GZ")).unwrap();
    assert_eq!(folders.scored(&[]).1["foreground_mean"]["Dice"], 1.0);
    folders.mask("p/a.nii", &blocks(&[1]));
    has(&folders.refused(&[]), &["a.NII.GZ: found the same name as a.nii"]);
}

#[test]
fn label_254_is_a_class_and_absent_labels_get_no_row() {
    let folders = Folders::new();
    let reference = [2, 41, 251, 252, 253, 254, 255];
    folders.mask("g/a.nii.gz", &blocks(&reference));
    folders.mask("p/a.nii.gz", &blocks(&[2, 41, 251, 252, 0, 0, 255, 0, 254]));
    let (table, summary) = folders.scored(&[]);
    assert!((summary["foreground_mean"]["Dice"].as_f64().unwrap() - 5.0 / 7.0).abs() < 1e-12);
    assert_eq!(summary["mean"]["254"]["Dice"], 0.0);
    assert_eq!(summary["mean"]["253"]["Dice"], 0.0);
    assert_eq!(summary["mean"].as_object().unwrap().len(), 7);
    assert_eq!(table.lines().count(), 9, "{table}");
}

#[test]
fn heart_labels_beyond_255_get_few_numbers_and_a_remedy() {
    let folders = Folders::new();
    let mut labels = vec![0.0; SMALL_SHAPE.iter().product()];
    let values = [205.0, 420.0, 500.0, 550.0, 600.0, 820.0, 850.0];
    for (block, value) in labels.chunks_mut(20).zip(values) {
        block.fill(value);
    }
    for name in ["p/a.nii.gz", "g/a.nii.gz"] {
        let grid = Grid::ras(SMALL_SHAPE, [2.0, 1.0, 1.0]);
        write_image(&folders.at(name), &labels, &grid).unwrap();
    }
    let errors = folders.errors(&[]);
    assert_eq!(errors.len(), 2, "{errors:?}");
    has(&errors[0], &["g/a.nii.gz", "420 (20 voxels)", "and 1 more", "0 to 255", "Renumber"]);
    has(&errors[1], &["p/a.nii.gz", "420 (20 voxels)"]);
    assert!(errors.iter().all(|error| error.len() < 300 && !error.contains("dataset.json")));
    // one file alone is told in one line
    folders.mask("g/a.nii.gz", &blocks(&[1]));
    let message = folders.refused(&[]);
    has(&message, &["p/a.nii.gz", "420 (20 voxels)"]);
}

#[test]
fn binary_masks_of_255_have_two_rows_and_merge_into_new_folders() {
    let folders = Folders::new();
    folders.mask("g/a.nii.gz", &blocks(&[1, 1]));
    folders.mask("p/a.nii.gz", &blocks(&[255, 255]));
    let (table, _) = folders.scored(&[]);
    assert_eq!(table.lines().count(), 4, "{table}");
    has(&table, &["class 1 ", "class 255 "]);
    let out = folders.at("nodir/deep/s.json");
    let table = succeed(&strs(&folders.args(&["--merge", "255=1", "-o", path(&out)])));
    has(&table, &["class 1         1  1.000"]);
    let json: Value = serde_json::from_slice(&std::fs::read(&out).unwrap()).unwrap();
    assert_eq!(json["foreground_mean"]["Dice"], 1.0);
    let message = folders.refused(&["--merge", "255=1", "255=2"]);
    has(&message, &["--merge: found 255=1 and 255=2"]);
}

#[test]
fn single_files_are_scored_but_not_with_folders() {
    let folders = Folders::new();
    folders.mask("g/truth.nii.gz", &blocks(&[1, 1]));
    folders.mask("p/a.nii", &blocks(&[1]));
    let (p, g) = (folders.at("p/a.nii"), folders.at("g/truth.nii.gz"));
    let table = succeed(&["evaluate", "-p", path(&p), "-g", path(&g)]);
    has(&table, &["class 1         1  0.667"]);
    let message = fail(&["evaluate", "-p", path(&p), "-g", path(&folders.at("g"))]);
    has(&message, &["g: found a folder; expected a single file, as", "both at files"]);
    let message = fail(&["evaluate", "-p", path(&folders.at("p/b.nii")), "-g", path(&g)]);
    has(&message, &["b.nii: found no such file"]);
}

/// Gives an unpacked file another affine: sform rows x, y, z.
fn set_affine(file: &Path, rows: [[f32; 4]; 3]) {
    let mut bytes = std::fs::read(file).unwrap();
    let rows: Vec<u8> = rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    bytes[280..280 + rows.len()].copy_from_slice(&rows);
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn the_same_array_under_another_affine_is_an_error_or_matched_by_index() {
    let folders = Folders::new();
    let labels = blocks(&[1, 1, 2]);
    folders.mask("g/a.nii", &labels);
    folders.mask("p/a.nii", &labels);
    let lps = [[-1.0, 0.0, 0.0, 90.0], [0.0, -1.0, 0.0, 80.0], [0.0, 0.0, 2.0, -40.0]];
    set_affine(&folders.at("p/a.nii"), lps);
    let message = folders.refused(&[]);
    has(&message, &["p/a.nii", " mm", "--match by-index"]);
    let (_, summary) = folders.scored(&["--match", "by-index"]);
    assert_eq!(summary["foreground_mean"]["Dice"], 1.0);
    // the same voxels stored the other way round lie at the same places
    let mut turned = labels.clone();
    turned.chunks_mut(SMALL_SHAPE[2]).for_each(<[u8]>::reverse);
    folders.mask("p/a.nii", &turned);
    let flipped = [[-1.0, 0.0, 0.0, 9.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]];
    set_affine(&folders.at("p/a.nii"), flipped);
    assert_eq!(folders.scored(&[]).1["foreground_mean"]["Dice"], 1.0);
}

#[test]
fn a_description_names_the_classes_and_knows_all_values() {
    let folders = Folders::new();
    folders.mask("g/a.nii.gz", &blocks(&[2, 5, 9]));
    folders.mask("p/a.nii.gz", &blocks(&[2, 0, 2]));
    let labels = json!({"background": 0, "liver": 2, "spleen": 5, "colon": 6, "ignore": 9});
    folders.describe("dataset.json", labels.clone());
    let (table, summary) = folders.scored(&[]);
    // the third block is ignored
    assert_eq!(summary["mean"]["2"]["Dice"], 1.0);
    assert_eq!(summary["mean"]["5"]["Dice"], 0.0);
    assert!(summary["mean"]["6"]["Dice"].is_null() && summary["mean"]["6"]["TP"] == 0.0);
    assert_eq!(summary["mean"]["6"]["TN"], 460.0);
    has(&table, &["liver ", "spleen ", "In no case: colon."]);
    assert!(!table.lines().any(|line| line.starts_with("colon")), "{table}");
    // which file is used is said
    let output = u2seg(&strs(&folders.args(&[])));
    has(&text(&output.stderr), &["labels as in ", "dataset.json", "--labels none"]);
    let (table, summary) = folders.scored(&["--labels", "none"]);
    assert!(table.contains("class 9") && summary["mean"].get("6").is_none(), "{table}");
    // the folder of the references goes first, a flag before both
    folders.describe("g/dataset.json", json!({"background": 0, "liver": 2, "rest": 5}));
    let message = folders.refused(&[]);
    has(&message, &["g/a.nii.gz", "9 (20 voxels)", "g/dataset.json"]);
    let file = folders.at("dataset.json");
    assert_eq!(folders.scored(&["--labels", path(&file)]).1["mean"]["5"]["n_ref"], 20.0);
    // merged values are known, and merged classes are not scored
    let (_, summary) = folders.scored(&["--merge", "9=0", "5=2"]);
    let keys: Vec<&String> = summary["mean"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["2"]);
    std::fs::write(folders.at("g/dataset.json"), "{").unwrap();
    has(&folders.refused(&[]), &["g/dataset.json", "--labels none"]);
}

#[test]
fn broken_files_are_named_in_one_go() {
    let folders = Folders::new();
    for name in ["a", "b", "c", "d"] {
        folders.mask(&format!("g/{name}.nii.gz"), &blocks(&[1]));
        folders.mask(&format!("p/{name}.nii.gz"), &blocks(&[1]));
    }
    std::fs::write(folders.at("p/b.nii.gz"), b"nothing").unwrap();
    let bytes = std::fs::read(folders.at("g/d.nii.gz")).unwrap();
    std::fs::write(folders.at("g/d.nii.gz"), &bytes[..bytes.len() / 2]).unwrap();
    let out = folders.at("new/summary.json");
    let errors = folders.errors(&["-o", path(&out)]);
    assert_eq!(errors.len(), 3, "{errors:?}");
    has(&errors[0], &["p/b.nii.gz"]);
    has(&errors[1], &["g/d.nii.gz"]);
    has(&errors[2], &["2 of 4 cases that cannot be scored"]);
    assert!(!folders.at("new").exists(), "nothing is left behind");
}

#[test]
fn the_output_is_checked_before_anything_is_computed() {
    let folders = Folders::new();
    folders.mask("g/a.nii.gz", &blocks(&[1]));
    folders.mask("p/a.nii.gz", &blocks(&[1]));
    folders.describe("dataset.json", json!({"background": 0, "ball": 1}));
    for input in ["g/a.nii.gz", "p/a.nii.gz", "dataset.json"] {
        let before = std::fs::read(folders.at(input)).unwrap();
        let message = folders.refused(&["-o", path(&folders.at(input))]);
        has(&message, &[input, "the input", "another -o"]);
        assert!(std::fs::read(folders.at(input)).unwrap() == before);
    }
    let message = folders.refused(&["-o", path(&folders.at("p"))]);
    has(&message, &["found a folder"]);
    let message = folders.refused(&["-o", path(&folders.at("dataset.json/summary.json"))]);
    has(&message, &["dataset.json"]);
    // beside the masks is fine, and does not become one
    succeed(&strs(&folders.args(&["-o", path(&folders.at("p/summary.json"))])));
    succeed(&strs(&folders.args(&["-o", path(&folders.at("p/summary.json"))])));
}
