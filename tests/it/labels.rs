//! What label values mean, from dataset.json to the masks and their scores, on runs that learn.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::common::program::*;
use serde_json::{Value, json};
use u2seg::low_level::imaging::{Known, read_labels};

/// Trains on all cases but one, which is scored; returns the folder of the run and its summary.
fn learn(folder: &Path, data: &Path, more: &[&str]) -> (PathBuf, Value) {
    let run = folder.join("run");
    let more = [&["--steps", "80", "--seed", "3", "--hold-out", "case_05"], more].concat();
    succeed(&strs(&train(&[data], &run, &more)));
    let name = data.file_name().unwrap();
    let summary = run.join("validation").join(name).join("summary.json");
    (run, serde_json::from_slice(&std::fs::read(summary).unwrap()).unwrap())
}

fn dice(summary: &Value, class: &str) -> f64 {
    summary["mean"][class]["Dice"].as_f64().unwrap_or_else(|| panic!("no {class}: {summary}"))
}

/// Values that the masks which a run's model predicts hold.
fn predicted(run: &Path, data: &Path) -> BTreeSet<u8> {
    let (model, images, out) = (run.to_path_buf(), data.join("imagesTr"), run.join("masks"));
    succeed(&["predict", "-m", path(&model), "-i", path(&images), "-o", path(&out)]);
    let mask = read_labels(&out.join("case_03.nii.gz"), &Known::any()).unwrap();
    mask.as_slice().iter().copied().collect()
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn values_with_gaps_are_trained_as_classes_and_written_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Gaps");
    let labels = json!({"labels": {"background": 0, "body": 2, "core": 5}});
    core_dataset(&data, 6, labels, |_, label| {
        label.iter_mut().for_each(|v| *v = [0, 2, 5][usize::from(*v)]);
    });
    let (run, summary) = learn(folder.path(), &data, &[]);
    assert!(dice(&summary, "2") > 0.8 && dice(&summary, "5") > 0.7, "{summary}");
    assert_eq!(predicted(&run, &data), BTreeSet::from([0, 2, 5]));
    // scored as files, by the same description
    let (masks, labels) = (run.join("masks"), data.join("labelsTr"));
    let table = succeed(&["evaluate", "-p", path(&masks), "-g", path(&labels)]);
    assert!(table.contains("body") && table.contains("core"), "{table}");
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn the_ignore_label_is_no_class_and_no_patch_is_wasted_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Scribbles");
    let labels = json!({"labels": {"background": 0, "body": 1, "core": 2, "ignore": 9}});
    // only every third slice is labelled in the cases to learn from
    core_dataset(&data, 6, labels, |seed, label| {
        let plane = SHAPE[1] * SHAPE[2];
        let hidden = |index: usize| seed < 5 && index / plane % 3 != 1;
        label.iter_mut().enumerate().filter(|(i, _)| hidden(*i)).for_each(|(_, v)| *v = 9);
    });
    let (run, summary) = learn(folder.path(), &data, &[]);
    assert!(dice(&summary, "1") > 0.75 && dice(&summary, "2") > 0.65, "{summary}");
    assert!(summary["mean"]["9"].is_null(), "{summary}");
    assert_eq!(predicted(&run, &data), BTreeSet::from([0, 1, 2]));
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn regions_are_trained_predicted_in_order_and_scored() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Regions");
    // in the order of names: all before core
    let labels = json!({
        "labels": {"all": [1, 2], "background": 0, "core": [2]}, "regions_class_order": [1, 2],
    });
    core_dataset(&data, 6, labels, |_, _| {});
    let (run, summary) = learn(folder.path(), &data, &[]);
    let keys: Vec<&String> = summary["mean"].as_object().unwrap().keys().collect();
    let all = dice(&summary, "(1, 2)");
    let core = keys.iter().find(|key| **key != "(1, 2)").unwrap();
    assert!(all > 0.8 && dice(&summary, core) > 0.7, "{summary}");
    assert_eq!(predicted(&run, &data), BTreeSet::from([0, 1, 2]));
    let message = fail(&strs(&train(&[&data], &folder.path().join("b"), &["--loss", "u2net"])));
    assert!(message.contains("--loss") && message.contains("overlap"), "{message}");
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn cases_without_the_core_train_beside_cases_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Partly");
    let case = |seed: u64| {
        let mut case = json!({
            "images": [format!("imagesTr/case_{seed:02}_0000.nii.gz")],
            "label": format!("labelsTr/case_{seed:02}.nii.gz"),
        });
        if seed.is_multiple_of(2) {
            case["unlabelled"] = json!(["core"]);
        }
        (format!("case_{seed:02}"), case)
    };
    let cases: serde_json::Map<String, Value> = (0..6).map(case).collect();
    let labels = json!({
        "labels": {"background": 0, "body": 1, "core": 2}, "dataset": cases,
    });
    // where the core is not labelled it is background
    core_dataset(&data, 6, labels, |seed, label| {
        label.iter_mut().filter(|v| seed.is_multiple_of(2) && **v == 2).for_each(|v| *v = 0);
    });
    let (run, summary) = learn(folder.path(), &data, &[]);
    assert!(dice(&summary, "1") > 0.8 && dice(&summary, "2") > 0.7, "{summary}");
    assert_eq!(predicted(&run, &data), BTreeSet::from([0, 1, 2]));
    // a case that lacks the core's labels is not scored on it
    let run = folder.path().join("other");
    let more = ["--steps", "2", "--hold-out", "case_04", "case_05"];
    succeed(&strs(&train(&[&data], &run, &more)));
    let file = run.join("validation/Partly/summary.json");
    let summary: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let cases = summary["metric_per_case"].as_array().unwrap();
    assert!(cases[0]["metrics"]["2"].is_null() && !cases[1]["metrics"]["2"].is_null());
    // files are scored alike
    let (masks, references) = (run.join("validation/Partly"), folder.path().join("references"));
    std::fs::create_dir(&references).unwrap();
    for case in ["case_04.nii.gz", "case_05.nii.gz"] {
        std::fs::copy(data.join("labelsTr").join(case), references.join(case)).unwrap();
    }
    let (description, out) = (data.join("dataset.json"), folder.path().join("scores.json"));
    let evaluate = ["evaluate", "-p", path(&masks), "-g", path(&references), "-o", path(&out)];
    succeed(&[&evaluate[..], &["--labels", path(&description)]].concat());
    let scores: Value = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
    assert_eq!(scores["mean"], summary["mean"]);
    // voxels of a class that is said to be unlabelled contradict each other
    let text = std::fs::read_to_string(data.join("dataset.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let lie = |change: &dyn Fn(&mut Value)| {
        let mut json = json.clone();
        change(&mut json);
        std::fs::write(data.join("dataset.json"), json.to_string()).unwrap();
        fail(&strs(&train(&[&data], &folder.path().join("b"), &["--steps", "2"])))
    };
    let message = lie(&|json| json["dataset"]["case_01"]["unlabelled"] = json!(["core"]));
    assert!(message.contains("case_01") && message.contains("unlabelled"), "{message}");
    let message = lie(&|json| json["dataset"]["case_01"]["unlabelled"] = json!(["tumour"]));
    assert!(message.contains("tumour") && message.contains("body, core"), "{message}");
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn label_254_is_a_stray_value_of_the_hippocampus_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (name, stray) in [("Task04_Hippocampus", true), ("Liver", false)] {
        let data = folder.path().join(name);
        let labels = json!({"labels": {"background": 0, "body": 1, "core": 2}});
        core_dataset(&data, 2, labels, |_, label| label[0] = 254);
        let run = folder.path().join(format!("{name} run"));
        let args = train(&[&data], &run, &["--steps", "2", "--hold-out", "case_01"]);
        if stray {
            succeed(&strs(&args));
            let stdout = succeed(&["verify", "--data", path(&data)]);
            assert!(stdout.contains("stray") && stdout.contains("2 warnings"), "{stdout}");
        } else {
            let message = fail(&strs(&args));
            assert!(message.contains("254 (1 voxel)"), "{message}");
        }
    }
}
