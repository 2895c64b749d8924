//! Images, labels and masks that are not as they should be.

use crate::common::volumes::{write_image, write_mask};
use serde_json::{Value, json};
use u2seg::low_level::imaging::Grid;

use super::rig::*;

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
    assert_eq!(case.tree("out").len(), 10, "nine masks, and how they came about");
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
    let ran = case.run("predict -m TWO -i in/b_0001.nii.gz -o out");
    ran.said(1, &["in/b_0001.nii.gz: found 1 channel", "Point -i at the folder"]);
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
