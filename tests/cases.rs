//! Inputs that once went wrong, each as a user would run it: what is right is one clear refusal or the right result.

#[path = "common/program.rs"]
mod program;

use std::path::PathBuf;

use program::*;
use serde_json::{Value, json};
use u2seg::data::{Grid, read_image, write_image, write_mask};

const SMALL_SHAPE: [usize; 3] = [8, 9, 10];
const VOXELS: usize = 8 * 9 * 10;

/// A folder that a test fills, and in which it runs the program.
struct Case(tempfile::TempDir);

/// What a run of the program came to.
struct Ran {
    args: Vec<String>,
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    /// The exit code, and parts of what was printed.
    fn said(self, code: i32, parts: &[&str]) -> Self {
        let Self { args, out, err, .. } = &self;
        assert_eq!(self.code, Some(code), "{args:?}\n{out}\n{err}");
        for part in parts {
            let found = out.contains(part) || err.contains(part);
            assert!(found, "{part:?} is missing after {args:?}:\n{out}\n{err}");
        }
        assert!(!err.contains("panicked"), "{err}");
        self
    }

    fn not(self, part: &str) -> Self {
        assert!(!self.out.contains(part) && !self.err.contains(part), "{}\n{}", self.out, self.err);
        self
    }
}

impl Case {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.at(name), bytes).unwrap();
    }

    /// A noisy image with a bright box.
    fn image(&self, name: &str) {
        // a name gives its image
        let seed = name.bytes().fold(0, |sum, byte| sum * 31 % 99_991 + u64::from(byte));
        let (values, _) = made(seed);
        write_image(&self.at(name), &values, &grid()).unwrap();
    }

    fn label(&self, name: &str) {
        write_mask(&self.at(name), &made(0).1, &grid()).unwrap();
    }

    fn mask(&self, name: &str, labels: &[u8]) {
        write_mask(&self.at(name), labels, &grid()).unwrap();
    }

    fn json(&self, name: &str, value: &Value) {
        self.write(name, value.to_string());
    }

    /// An nnU-Net folder of three cases; `more` goes into dataset.json.
    fn dataset(&self, more: &Value) {
        for case in 0..3 {
            self.image(&format!("imagesTr/case_{case}_0000.nii.gz"));
            self.label(&format!("labelsTr/case_{case}.nii.gz"));
        }
        let mut json = json!({
            "channel_names": {"0": "MRI"}, "labels": {"background": 0, "body": 1, "core": 2},
            "file_ending": ".nii.gz",
        });
        more.as_object().unwrap().iter().for_each(|(key, value)| json[key] = value.clone());
        self.json("dataset.json", &json);
    }

    fn run(&self, args: &str) -> Ran {
        let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/");
        let args: Vec<String> = args
            .split_whitespace()
            .map(|arg| match arg {
                "ONE" => format!("{data}model_1ch.safetensors"),
                "TWO" => format!("{data}model_2ch.safetensors"),
                other => other.to_string(),
            })
            .collect();
        let output = command(&strs(&args)).current_dir(self.0.path()).output().unwrap();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        Ran { args, code: output.status.code(), out, err }
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.at(name)).unwrap()
    }

    /// Files and folders below a folder.
    fn tree(&self, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.path().join(name)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(self.0.path()).unwrap();
                found.push(name.to_string_lossy().replace('\\', "/"));
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        found.sort();
        found
    }
}

fn grid() -> Grid {
    Grid::ras(SMALL_SHAPE, [1.0; 3])
}

/// Values and labels: body 1, core 2.
fn made(seed: u64) -> (Vec<f32>, Vec<u8>) {
    let inside = |index: usize, rim: usize| {
        let at = [index / 90, index / 10 % 9, index % 10];
        (0..3).all(|axis| (rim..SMALL_SHAPE[axis] - rim).contains(&at[axis]))
    };
    let label = |i: usize| u8::from(inside(i, 2)) + u8::from(inside(i, 3));
    let noise = |i: usize| ((i as u64 * 7919 + seed * 104_729) % 101) as f32 / 10.0;
    let labels: Vec<u8> = (0..VOXELS).map(label).collect();
    let values = labels.iter().enumerate().map(|(i, l)| noise(i) + 90.0 * f32::from(*l)).collect();
    (values, labels)
}

const QUICK: &str = "--base 4 --steps 2 --patch 8,8,8 --pools 1,1,1 --tune off";

#[test]
fn case_01_an_output_replaces_an_input() {
    let case = Case::new();
    case.image("scans/s1.nii.gz");
    let before = case.bytes("scans/s1.nii.gz");
    let mut outputs = vec!["scans", "./scans/../scans", "scans/."];
    if cfg!(unix) {
        #[cfg(unix)]
        std::os::unix::fs::symlink("scans", case.at("link")).unwrap();
        outputs.push("link");
    }
    for output in outputs {
        let ran = case.run(&format!("predict -m ONE -i scans -o {output}"));
        ran.said(1, &["s1.nii.gz: found the input scans/s1.nii.gz", "Choose another -o"]);
        let file = format!("predict -m ONE -i scans/s1.nii.gz -o {output}");
        case.run(&file).said(1, &["found the input scans/s1.nii.gz"]);
        case.run(&format!("{file}/s1.nii.gz")).said(1, &["found the input scans/s1.nii.gz"]);
    }
    std::fs::hard_link(case.at("scans/s1.nii.gz"), case.at("other/s1.nii.gz")).unwrap();
    case.run("predict -m ONE -i scans -o other").said(1, &["other/s1.nii.gz: found the input"]);
    assert_eq!(case.bytes("scans/s1.nii.gz"), before);
    // nothing was left behind, not even a folder
    case.run("predict -m ONE -i nothing -o new/folder").said(1, &["nothing: found no such file"]);
    case.write("broken.nii.gz", "no image");
    assert!(!case.0.path().join("new").exists());
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn case_01_a_failed_run_leaves_no_empty_folder() {
    let case = Case::new();
    case.write("in/broken.nii.gz", "no image");
    case.run("predict -m ONE -i in/broken.nii.gz -o new/folder").said(1, &["broken.nii.gz"]);
    assert!(!case.0.path().join("new").exists());
    case.dataset(&json!({}));
    case.write("labelsTr/case_1.nii.gz", "no label");
    case.run(&format!("train --data . --out runs/a {QUICK}")).said(1, &["case_1.nii.gz"]);
    assert!(!case.0.path().join("runs").exists());
}

/// A label beside its image, written with another affine.
fn misplaced(case: &Case) {
    case.dataset(&json!({}));
    let far = Grid::ras(SMALL_SHAPE, [1.0, 1.0, 2.0]);
    for index in 0..3 {
        let file = case.at(&format!("labelsTr/case_{index}.nii.gz"));
        write_mask(&file, &made(0).1, &far).unwrap();
    }
}

#[test]
fn case_02_a_label_has_another_affine() {
    let case = Case::new();
    misplaced(&case);
    let parts =
        ["labelsTr/case_0.nii.gz: found the same voxels up to 9.00 mm away", "--match by-index"];
    case.run("verify --data .").said(1, &parts).said(1, &["3 of 3 cases with errors"]);
    let ran = case.run("verify --data . --json").said(1, &[]);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(json[0]["cases"][2]["errors"][0].as_str().unwrap().contains("9.00 mm"));
    case.run("verify --data . --match by-index").said(0, &["3 cases, 0 with errors, 0 warnings"]);
    case.mask("p/case_0.nii.gz", &made(0).1);
    let evaluate = "evaluate -p p/case_0.nii.gz -g labelsTr/case_0.nii.gz";
    case.run(evaluate).said(1, &["p/case_0.nii.gz: found the same voxels", "--match by-index"]);
    case.run(&format!("{evaluate} --match by-index")).said(0, &["1.000"]);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn case_02_training_takes_the_labels_by_index_where_asked() {
    let case = Case::new();
    misplaced(&case);
    let train = format!("train --data . --out run --hold-out case_2 {QUICK}");
    case.run(&train).said(1, &["9.00 mm away", "--match by-index"]);
    case.run(&format!("{train} --match by-index")).said(0, &["model.safetensors"]);
    // the run keeps it
    case.run("train --continue --out run").said(0, &["model.safetensors"]);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn case_03_two_cases_have_one_base_name() {
    let case = Case::new();
    let mut training = Vec::new();
    for patient in ["patA", "patB", "patC"] {
        case.image(&format!("{patient}/imaging.nii.gz"));
        case.label(&format!("{patient}/segmentation.nii.gz"));
        training.push(json!({
            "image": format!("./{patient}/imaging.nii.gz"),
            "label": format!("./{patient}/segmentation.nii.gz"),
        }));
    }
    let describe = |training: &[Value]| {
        let labels = json!({"0": "background", "1": "body", "2": "core"});
        let modality = json!({"0": "MRI"});
        let json =
            json!({"name": "same", "modality": modality, "labels": labels, "training": training});
        case.json("dataset.json", &json);
    };
    describe(&training);
    let train = format!("train --data . --out run {QUICK}");
    let parts = ["3 cases called segmentation", "patA/segmentation", "patB/segmentation"];
    case.run(&format!("{train} --hold-out segmentation")).said(1, &parts);
    case.run(&format!("{train} --hold-out patA/segmentation patB/segmentation")).said(0, &[]);
    let masks = case.tree("run/validation");
    assert_eq!(masks.iter().filter(|file| file.ends_with(".nii.gz")).count(), 2, "{masks:?}");
    // one label listed twice is refused with both paths
    training.push(json!({"image": "patB/imaging.nii.gz", "label": "patA/segmentation.nii.gz"}));
    describe(&training);
    let parts = ["two cases called patA/segmentation", "patA/segmentation.nii.gz"];
    case.run("verify --data .").said(1, &parts);
    case.run(&format!("train --data . --out other {QUICK}")).said(1, &parts);
}

#[test]
fn case_04_predictions_are_missing() {
    let case = Case::new();
    for name in ["a", "b", "c"] {
        case.label(&format!("g/{name}.nii.gz"));
    }
    case.label("p/a.nii.gz");
    case.run("evaluate -p p -g g").said(1, &["b.nii.gz, c.nii.gz", "--allow-missing"]);
    let ran = case.run("evaluate -p p -g g --allow-missing -o s.json");
    ran.said(0, &["0.333", "2 of 3 predictions are missing"]);
    let json: Value = serde_json::from_slice(&case.bytes("s.json")).unwrap();
    assert_eq!(json["missing"]["files"].as_array().unwrap().len(), 2);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn case_05_an_ignore_label_is_trained_as_an_organ() {
    let case = Case::new();
    case.dataset(&json!({"labels": {"background": 0, "body": 1, "core": 2, "ignore": 3}}));
    let mut labels = made(0).1;
    labels[..300].fill(3);
    (0..3).for_each(|i| case.mask(&format!("labelsTr/case_{i}.nii.gz"), &labels));
    case.run("verify --data .").said(0, &["ignore 300", "3 ignore"]);
    case.run(&format!("train --data . --out run --hold-out case_2 {QUICK}")).said(0, &[]);
    let json: Value = serde_json::from_slice(&case.bytes("run/plan.json")).unwrap();
    assert_eq!(json[0]["labels"]["ignore"], 3);
    assert_eq!(json[0]["labels"]["classes"].as_array().unwrap().len(), 3);
}

#[test]
fn case_06_label_254_is_left_out_of_the_scores() {
    let case = Case::new();
    let (mut g, mut p) = (made(0).1, made(0).1);
    (g[0], p[1]) = (254, 254);
    case.mask("g/a.nii.gz", &g);
    case.mask("p/a.nii.gz", &p);
    // 1, 2 are right and 254 is wrong
    case.run("evaluate -p p -g g").said(0, &["class 254", "foreground         0.667"]);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn case_07_channel_files_are_counted() {
    let case = Case::new();
    for file in ["gap/a_0000", "gap/a_0002", "bare/a", "bare/a_0000", "more/a_0000", "more/a_0001"]
    {
        case.image(&format!("{file}.nii.gz"));
    }
    for file in ["none/a_0001", "mixed/a_0000", "mixed/a_0001", "mixed/b_0000"] {
        case.image(&format!("{file}.nii.gz"));
    }
    case.run("predict -m TWO -i gap -o o1").said(1, &["gap/a_0001.nii.gz: found no such file"]);
    case.run("predict -m TWO -i bare -o o2")
        .said(1, &["bare/a.nii.gz", "without a channel's number"]);
    case.run("predict -m ONE -i more -o o3").said(1, &["more/a_0001.nii.gz", "one too many"]);
    case.run("predict -m TWO -i none -o o4").said(1, &["a_0001.nii.gz: found 1 channel", "a_0000"]);
    case.run("predict -m TWO -i more -o o5").said(0, &["o5/a.nii.gz"]);
    // one case at fault costs that case alone
    let ran = case.run("predict -m TWO -i mixed -o o6");
    ran.said(1, &["mixed/b_0001.nii.gz: found no such file", "o6/a.nii.gz"]);
}

#[test]
fn case_07_channel_files_of_a_dataset_are_counted() {
    let case = Case::new();
    case.dataset(&json!({}));
    case.image("imagesTr/case_0_0001.nii.gz");
    case.run("verify --data .").said(1, &["case_0_0001.nii.gz: found 2 channel files"]);
    case.dataset(&json!({"channel_names": {"0": "T1", "1": "T2"}}));
    let parts =
        ["case_1_0001.nii.gz: found no such file", "case_2_0001.nii.gz: found no such file"];
    case.run("verify --data .").said(1, &parts).said(1, &["2 of 3 cases with errors"]);
}

#[test]
fn case_08_two_images_make_one_mask() {
    let case = Case::new();
    case.image("in/a.nii");
    case.image("in/a.nii.gz");
    let ran = case.run("predict -m ONE -i in -o out");
    ran.said(1, &["in/a.nii", "in/a.nii.gz", "out/a.nii.gz"]);
    assert!(!case.0.path().join("out").exists());
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn case_10_a_name_from_a_file_is_no_path() {
    for name in ["../../../evil", "/tmp/u2seg-evil", "T1/T2", "C:\\evil", ".."] {
        let case = Case::new();
        case.dataset(&json!({"name": name, "labels": {"background": 0, "../body": 1, "core": 2}}));
        case.run(&format!("train --data . --out OUT/a/b --fold 0 {QUICK}")).said(0, &[]);
        let masks = case.tree("OUT/a/b/validation");
        assert_eq!(masks.len(), 3, "a folder, a mask and a summary: {masks:?}");
        let images = "imagesTr/case_0_0000.nii.gz";
        let predict = format!("predict -m OUT/a/b -i {images} -o p/a/b --save-probabilities");
        case.run(&predict).said(0, &[]);
        let maps = case.tree("p/a/b/probabilities");
        assert_eq!(maps.iter().filter(|file| file.ends_with(".nii.gz")).count(), 3, "{maps:?}");
        let all = case.tree(".");
        assert!(!all.iter().any(|file| file.contains("evil") && !file.contains('%')), "{all:?}");
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn case_12_pairs_and_endings_in_capitals_have_masks_of_their_own() {
    let case = Case::new();
    case.image("C.NII");
    for name in ["a", "b"] {
        // a pair, by its parts: the magic, and voxels from the image file's start
        case.image(&format!("{name}.nii"));
        let bytes = case.bytes(&format!("{name}.nii"));
        let mut header = bytes[..348].to_vec();
        header[344..348].copy_from_slice(b"ni1\0");
        header[108..112].fill(0);
        case.write(&format!("{name}.HDR"), header);
        case.write(&format!("{name}.IMG"), &bytes[352..]);
        std::fs::remove_file(case.at(&format!("{name}.nii"))).unwrap();
    }
    for (input, mask) in [("a.IMG", "a"), ("b.HDR", "b"), ("C.NII", "C")] {
        let mask = format!("out/{mask}.nii.gz");
        case.run(&format!("predict -m ONE -i {input} -o out")).said(0, &[&mask]);
    }
    assert_eq!(case.tree("out").len(), 3);
    case.run("predict -m ONE -i . -o all")
        .said(0, &["all/a.nii.gz", "all/b.nii.gz", "all/C.nii.gz"]);
    case.run("predict -m ONE -i C.NII -o D.NII.GZ").said(0, &["D.NII.GZ"]);
    assert_eq!(read_image(&case.at("D.NII.GZ")).unwrap().shape, SMALL_SHAPE);
    case.run("predict -m ONE -i C.NII -o E.mha").said(1, &["-o", "E.mha", ".nii.gz"]);
}

#[test]
fn case_13_the_dataset_key_decides() {
    let case = Case::new();
    let files =
        json!({"images": ["./imagesTr/case_0_0000.nii.gz"], "label": "./labelsTr/case_0.nii.gz"});
    case.dataset(&json!({"dataset": {"first": files}}));
    case.run("verify --data .")
        .said(0, &["first: 8 x 9 x 10", "1 cases", "case_1.nii.gz belongs to no"]);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn case_20_huge_values_take_nobody_along() {
    let case = Case::new();
    let coarse = Grid::ras(SMALL_SHAPE, [1.7, 1.3, 0.6]);
    let odd = [f32::NAN, f32::INFINITY, f32::MIN, 3.4e38, 1e-42];
    for (index, value) in odd.into_iter().enumerate() {
        let mut values = made(0).0;
        values[index * 50] = value;
        write_image(&case.at(&format!("in/odd{index}.nii.gz")), &values, &coarse).unwrap();
    }
    for (name, value) in [("nan", f32::NAN), ("zero", 0.0), ("flat", 7.0)] {
        let file = case.at(&format!("in/{name}.nii.gz"));
        write_image(&file, &[value; VOXELS], &coarse).unwrap();
    }
    case.image("in/plain.nii.gz");
    case.write("in/broken.nii.gz", [0u8; 400]);
    let ran = case.run("predict -m ONE -i in -o out --tune off");
    let parts =
        ["odd0.nii.gz: 1 voxel", "count as 0", "zero.nii.gz: channel 0 is 0", "flat.nii.gz"];
    ran.said(1, &parts).said(1, &["1 of 10 images"]);
    assert_eq!(case.tree("out").len(), 9);
    case.dataset(&json!({}));
    std::fs::copy(case.at("in/odd3.nii.gz"), case.at("imagesTr/case_0_0000.nii.gz")).unwrap();
    write_mask(&case.at("labelsTr/case_0.nii.gz"), &made(0).1, &coarse).unwrap();
    let ran = case.run(&format!("train --data . --out run {QUICK}"));
    ran.said(0, &["case_0: 1 voxel is NaN, infinite or beyond"]);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn case_21_errors_in_a_batch_name_their_files() {
    let case = Case::new();
    for name in ["b", "c"] {
        case.image(&format!("in/{name}_0000.nii.gz"));
        case.image(&format!("in/{name}_0001.nii.gz"));
    }
    case.image("in/a.nii.gz");
    let ran = case.run("predict -m ONE -i in -o out");
    ran.said(1, &["in/b_0001.nii.gz", "in/c_0001.nii.gz", "out/a.nii.gz", "2 of 3 images"]);
    case.run("predict -m TWO -i in/a.nii.gz -o out").said(1, &["in/a.nii.gz: found 1 channel"]);
}

#[test]
fn case_22_evaluate_lists_no_255_numbers_and_loses_no_table() {
    let case = Case::new();
    let mut labels = made(0).1;
    labels[0] = 255;
    case.mask("p/a.nii.gz", &labels);
    case.label("g/a.nii.gz");
    case.run("evaluate -p p -g g").said(0, &["class 255"]).not("class 100");
    let values: Vec<f32> = made(0).1.iter().map(|l| [0.0, 205.0, 850.0][usize::from(*l)]).collect();
    write_image(&case.at("heart.nii.gz"), &values, &grid()).unwrap();
    let ran = case.run("evaluate -p heart.nii.gz -g g/a.nii.gz");
    ran.said(1, &["heart.nii.gz: found label values 850"]).not("dataset.json").not("17, 18");
    case.run("evaluate -p p/a.nii.gz -g g/a.nii.gz -o new/s.json").said(0, &["class 2"]);
    assert!(case.at("new/s.json").exists());
    // where it cannot be written, the table is there all the same, or nothing was computed
    case.write("file", "no folder");
    case.run("evaluate -p p -g g -o file/s.json").said(1, &["file"]);
}

#[test]
fn case_23_a_byte_order_mark_is_skipped() {
    let case = Case::new();
    case.dataset(&json!({}));
    let text = String::from_utf8(case.bytes("dataset.json")).unwrap();
    case.write("dataset.json", format!("\u{feff}{text}"));
    case.run("verify --data .").said(0, &["3 cases, 0 with errors"]);
    let wide = |units: Vec<u16>, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        units.into_iter().flat_map(bytes).collect()
    };
    let units: Vec<u16> = format!("\u{feff}{text}").encode_utf16().collect();
    for bytes in [wide(units.clone(), u16::to_le_bytes), wide(units.clone(), u16::to_be_bytes)] {
        case.write("dataset.json", bytes);
        case.run("verify --data .").said(0, &["3 cases, 0 with errors"]);
    }
}

#[test]
fn case_24_labels_with_gaps_and_regions_are_read_and_others_name_the_entry() {
    let case = Case::new();
    let verify = |labels: Value, order: Value| {
        case.dataset(&json!({"labels": labels, "regions_class_order": order}));
        case.run("verify --data .")
    };
    let regions = json!({"background": 0, "whole tumor": [1, 2], "core": [2]});
    verify(regions.clone(), json!([1, 2])).said(0, &["whole tumor", "0 with errors"]);
    verify(regions, Value::Null).said(1, &["without regions_class_order", "regions_class_order\""]);
    let gaps = json!({"background": 0, "a": 2, "b": 1, "c": 5});
    verify(gaps, Value::Null).said(0, &["5 (c) of dataset.json is in no case"]);
    let texts = json!({"background": "0", "body": "1", "core": "2"});
    verify(texts, Value::Null).said(0, &["0 with errors"]);
    let wrong = json!({"background": 0, "body": 1, "core": "two"});
    verify(wrong, Value::Null).said(1, &["\"core\": \"two\"", "dataset.json"]);
    let unknown = json!({"background": 0, "body": 1});
    verify(unknown, Value::Null).said(1, &["label values 2 (", "3 of 3 cases"]);
}

#[test]
fn case_25_verify_reads_every_case_of_every_folder() {
    let case = Case::new();
    case.dataset(&json!({}));
    std::fs::remove_file(case.at("imagesTr/case_1_0000.nii.gz")).unwrap();
    let bytes = case.bytes("labelsTr/case_2.nii.gz");
    case.write("labelsTr/case_2.nii.gz", &bytes[..7]);
    let ran = case.run("verify --data nowhere . nothing --fix-list leave.txt");
    let parts = [
        "nowhere: found no such folder",
        "nothing: found no such folder",
        "case_0: 8 x 9 x 10",
        "case_1_0000.nii.gz: found no such file",
        "case_2.nii.gz: found a gzip stream",
        "3 cases, 2 with errors",
    ];
    ran.said(1, &parts);
    let list = String::from_utf8(case.bytes("leave.txt")).unwrap();
    let cases: Vec<&str> = list.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(cases.len() == 2 && cases[0].ends_with("\tcase_1"), "{list}");
    case.run("verify --data . --exclude leave.txt").said(0, &["1 cases, 0 with errors"]);
    case.run("verify --data . --fix-list dataset.json").said(1, &["the input"]);
}

#[test]
fn case_25_warnings_are_counted() {
    let case = Case::new();
    case.dataset(&json!({}));
    std::fs::copy(case.at("imagesTr/case_1_0000.nii.gz"), case.at("imagesTr/case_0_0000.nii.gz"))
        .unwrap();
    case.mask("labelsTr/case_1.nii.gz", &[0; VOXELS]);
    write_image(&case.at("imagesTr/case_2_0000.nii.gz"), &[f32::NAN; VOXELS], &grid()).unwrap();
    for scan in ["p01_a", "p01_b"] {
        case.image(&format!("imagesTr/{scan}_0000.nii.gz"));
        case.label(&format!("labelsTr/{scan}.nii.gz"));
    }
    let ran = case.run("verify --data .");
    let parts = [
        "the images of case_0, case_1 are the same",
        "nothing is labelled",
        "720 voxels are NaN",
        "channel MRI is 0 everywhere",
        "p01_a, p01_b look like scans of one patient",
    ];
    let ran = ran.said(0, &parts);
    let printed = ran.out.matches("warning: ").count();
    let json: Value = serde_json::from_str(&case.run("verify --data . --json").out).unwrap();
    let count = |value: &Value| value["warnings"].as_array().unwrap().len();
    let cases = json[0]["cases"].as_array().unwrap().iter().map(count).sum::<usize>();
    assert_eq!(printed, cases + count(&json[0]), "{}", ran.out);
    assert!(ran.out.contains(&format!("{printed} warnings")), "{}", ran.out);
}

/// Each wrong file gets a sentence of its own, and the right remedy.
#[test]
fn case_26_every_wrong_file_has_its_own_remedy() {
    let case = Case::new();
    case.dataset(&json!({}));
    let image = "imagesTr/case_0_0000.nii.gz";
    let mut two = vec![0u8; 600];
    two[..4].copy_from_slice(&540i32.to_le_bytes());
    let mut dicom = vec![0u8; 400];
    dicom[128..132].copy_from_slice(b"DICM");
    for (bytes, found, remedy) in [
        (&b""[..], "an empty file", "again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS", "git lfs pull"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "HTML", "download"),
        (&two, "a NIfTI-2 file", "nibabel"),
        (&dicom, "a DICOM file", "dcm2niix"),
        (b"NRRD0004\ntype: short\n", "NRRD", "Convert"),
    ] {
        case.write(image, bytes);
        case.run("verify --data .").said(1, &[image, found, remedy, "1 of 3 cases"]);
    }
}

#[test]
fn case_26_every_wrong_folder_has_its_own_remedy() {
    let case = Case::new();
    let mut dicom = vec![0u8; 400];
    dicom[128..132].copy_from_slice(b"DICM");
    case.write("dicom/IM0001", &dicom);
    case.write("dicom/IM0002.dcm", &dicom);
    case.write("nrrd/a.nrrd", "NRRD0004");
    std::fs::create_dir(case.at("empty")).unwrap();
    for (folder, found) in
        [("dicom", "a DICOM folder (2 files)"), ("nrrd", ".nrrd files"), ("empty", "no .nii")]
    {
        case.run(&format!("predict -m ONE -i {folder} -o out")).said(1, &[folder, found]);
    }
    case.run("verify --data dicom").said(1, &["a DICOM folder (2 files)", "dcm2niix"]);
    case.run("verify --data empty").said(1, &["dataset.json: found no such file", "imagesTr"]);
    // an nnU-Net v1 folder, a Windows path, an image without a channel's number
    case.dataset(&json!({}));
    let listed = |image: &str| {
        json!({
            "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "body", "2": "core"},
            "training": [{"image": image, "label": "./labelsTr/case_0.nii.gz"}],
        })
    };
    case.json("dataset.json", &listed("./imagesTr/case_0.nii.gz"));
    case.run("verify --data .").said(1, &["an nnU-Net v1 folder", "nnUNetv2_convert_old"]);
    if !cfg!(windows) {
        case.json("dataset.json", &listed("imagesTr\\case_0_0000.nii.gz"));
        case.run("verify --data .").said(1, &["the Windows path", "with /"]);
    }
    case.dataset(&json!({}));
    std::fs::rename(case.at("imagesTr/case_0_0000.nii.gz"), case.at("imagesTr/case_0.nii.gz"))
        .unwrap();
    case.run("verify --data .").said(1, &["imagesTr/case_0.nii.gz", "case_0_0000", "Rename it"]);
    case.dataset(&json!({"file_ending": ".nrrd"}));
    case.run("verify --data .").said(1, &["file_ending \".nrrd\"", "Convert"]);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_fix_list_a_group_and_the_splits_of_nnunet_decide_what_is_trained_on() {
    let case = Case::new();
    case.dataset(&json!({"name": "D"}));
    for scan in ["p1_a", "p1_b", "p2_a"] {
        case.image(&format!("imagesTr/{scan}_0000.nii.gz"));
        case.label(&format!("labelsTr/{scan}.nii.gz"));
    }
    case.write("labelsTr/case_1.nii.gz", "broken");
    let train = |more: &str| {
        let run = case.0.path().join("run");
        if run.exists() {
            std::fs::remove_dir_all(&run).unwrap();
        }
        case.run(&format!("train --data . --out run {QUICK} {more}"))
    };
    train("").said(1, &["case_1.nii.gz"]);
    case.run("verify --data . --fix-list leave.txt").said(1, &[]);
    train("--exclude leave.txt").said(0, &["D: 5 cases, 0 held out"]);
    case.write("wrong.txt", "nobody\n");
    train("--exclude wrong.txt").said(1, &["--exclude", "nobody"]);
    let group = "--exclude leave.txt --group ^([a-z0-9]+)_";
    train(&format!("{group} --hold-out p1_b"))
        .said(0, &["3 cases, 2 held out", "p1_a is held out"]);
    train("--exclude leave.txt --group ^(p\\d)_").said(1, &["--group", "case_0"]);
    case.json(
        "splits_final.json",
        &json!([{"train": ["case_0", "p1_a"], "val": ["p2_a"]}, {"train": ["case_2"], "val": []}]),
    );
    train("--exclude leave.txt --fold 0").said(0, &["2 cases, 1 held out"]);
    train("--exclude leave.txt --fold 2").said(1, &["--fold", "less than 2"]);
    train(&format!("{group} --fold 0")).said(1, &["--group", "splits_final.json"]);
    case.json("splits_final.json", &json!([{"train": ["case_0", "gone"], "val": ["p2_a"]}]));
    train("--exclude leave.txt --fold 0").said(1, &["splits_final.json", "gone"]);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn runs_never_write_over_what_they_read() {
    let case = Case::new();
    for name in ["a/data", "b/data"] {
        let inner = Case(tempfile::tempdir_in(case.0.path()).unwrap());
        inner.dataset(&json!({"name": name.replace('/', "")}));
        std::fs::create_dir_all(case.at(name).parent().unwrap()).unwrap();
        std::fs::rename(inner.0.keep(), case.at(name)).unwrap();
    }
    // two networks of their own in one folder
    let both = format!("train --data a/data b/data --mode independent --out run {QUICK}");
    case.run(&both).said(1, &["--data", "a/data", "b/data", "Rename"]);
    // masks of a run where an image lies
    case.run(&format!("train --data a/data --out run --hold-out case_1 {QUICK}")).said(0, &[]);
    let model = case.bytes("run/model.safetensors");
    std::fs::remove_file(case.at("run/last.safetensors")).unwrap();
    let adapt = format!("adapt -m run --data b/data --out run {}", QUICK.replace("--base 4", ""));
    case.run(&adapt).said(1, &["model.safetensors"]);
    assert_eq!(case.bytes("run/model.safetensors"), model);
    case.run("export -m run --domain adata -o run/model.safetensors").said(1, &["the input"]);
    let mask = case.tree("run/validation").into_iter().find(|f| f.ends_with(".nii.gz")).unwrap();
    let listed = json!({
        "name": "adata", "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "b", "2": "c"},
        "training": [
            {"image": "imagesTr/case_0_0000.nii.gz", "label": "labelsTr/case_0.nii.gz"},
            {"image": format!("../../{mask}"), "label": "labelsTr/case_1.nii.gz"},
        ],
    });
    case.json("a/data/dataset.json", &listed);
    let before = case.bytes(&mask);
    let again = format!("train --data a/data --out run --hold-out case_1 {QUICK}");
    case.run(&again).said(1, &["the input", "--out"]);
    assert_eq!(case.bytes(&mask), before);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn tuning_is_not_ignored_where_runs_start_through_a_written_plan() {
    let case = Case::new();
    case.dataset(&json!({}));
    let quick = QUICK.replace("--tune off", "--tune quick");
    let run = |args: &str| {
        let args: Vec<&str> = args.split_whitespace().collect();
        let mut command = command(&args);
        command.current_dir(case.0.path()).env("U2SEG_CACHE", case.at("cache"));
        let output = command.env("RUST_LOG", "u2seg::tune=info").output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    run(&format!("plan --data . --out run {quick}"));
    assert!(!case.at("run/tuning.json").exists());
    let err = run("train --continue --out run");
    assert!(err.contains("tuning: Report"), "{err}");
    assert!(case.at("run/tuning.json").exists());
    // later starts keep what the first one found
    let err = run("train --continue --out run");
    assert!(!err.contains("tuning: Report"), "{err}");
    let err = run(&format!("train --data . --out folds --fold all {quick}"));
    assert_eq!(err.matches("tuning: Report").count(), 3, "{err}");
    (0..3).for_each(|fold| assert!(case.at(&format!("folds/fold_{fold}/tuning.json")).exists()));
}
