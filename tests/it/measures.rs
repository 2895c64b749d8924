//! What is measured of masks, and of how sure they are: `predict --statistics` and `--uncertainty`, and what `evaluate` makes of it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::common::program::*;
use crate::common::volumes::{write_image, write_mask};
use u2seg::low_level::imaging::{Grid, Known, read_image, read_labels};

fn read_json(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn map(file: &Path) -> Vec<f32> {
    read_image(file).unwrap().as_slice().to_vec()
}

/// Two real cases in a folder, whose first is of these names.
fn cases(folder: &Path) -> (PathBuf, [&'static str; 2]) {
    let images = folder.join("images");
    std::fs::create_dir(&images).unwrap();
    let names = ["hippocampus_003", "hippocampus_004"];
    for name in names.map(|name| format!("{name}.nii.gz")) {
        let image = crate::common::data_dir().join("Task04_Hippocampus/imagesTr").join(&name);
        std::fs::copy(image, images.join(&name)).unwrap();
    }
    (images, names)
}

#[test]
#[cfg_attr(not(real_images), ignore = "no real images: set U2SEG_DATA")]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn statistics_are_those_of_the_images_and_complete_whatever_is_continued() {
    let folder = tempfile::tempdir().unwrap();
    let (images, names) = cases(folder.path());
    let out = folder.path().join("out");
    let run = |more: &[&str]| {
        let args = ["predict", "-m", "hippocampus", "-i", path(&images), "-o", path(&out)];
        succeed(&[&args[..], &["--statistics"], more].concat())
    };
    // two parts write one file
    run(&["--num-parts", "2"]);
    run(&["--num-parts", "2", "--part-id", "1"]);
    let [json, csv] = ["statistics.json", "statistics.csv"].map(|name| out.join(name));
    let told = read_json(&json);
    assert_eq!(told["cases"].as_array().unwrap().len(), 2);
    for (case, name) in told["cases"].as_array().unwrap().iter().zip(names) {
        let mask = read_labels(&out.join(format!("{name}.nii.gz")), &Known::any()).unwrap();
        let image = map(&images.join(format!("{name}.nii.gz")));
        for (class, value) in case["classes"].as_array().unwrap().iter().zip([1, 2]) {
            let own = image.iter().zip(mask.as_slice()).filter(|(_, label)| **label == value);
            let own: Vec<f64> = own.map(|(v, _)| f64::from(*v)).collect();
            assert!(own.len() > 100 && class["voxels"] == own.len(), "{class}");
            let mean = own.iter().sum::<f64>() / own.len() as f64;
            let squares: f64 = own.iter().map(|v| (v - mean).powi(2)).sum();
            let close = |key: &str, expected: f64| {
                let found = class["intensity"][0][key].as_f64().unwrap();
                assert!((found - expected).abs() < 1e-6 * expected, "{key} {found}, {expected}");
            };
            close("mean", mean);
            close("std", (squares / own.len() as f64).sqrt());
            let volume = class["volume_ml"].as_f64().unwrap();
            let expected = own.len() as f64 * mask.spacing().iter().product::<f64>() / 1000.0;
            assert!((volume - expected).abs() < 1e-9);
        }
    }
    let table = std::fs::read_to_string(&csv).unwrap();
    assert_eq!(table.lines().count(), 5, "{table}");
    assert!(table.starts_with("case,class,label,voxels,volume_ml,components,mean_0,std_0\n"));
    // of masks that are there what lacks is made anew, also where a mask is another than the one that was measured
    std::fs::remove_file(&json).unwrap();
    assert_eq!(run(&["--continue"]), "");
    assert_eq!((read_json(&json), std::fs::read_to_string(&csv).unwrap()), (told.clone(), table));
    let mask = out.join(format!("{}.nii.gz", names[1]));
    std::fs::copy(out.join(format!("{}.nii.gz", names[0])), out.join("spare.nii.gz")).unwrap();
    let labels = read_labels(&mask, &Known::any()).unwrap();
    let emptied = vec![0; labels.as_slice().len()];
    write_mask(&mask, &emptied, labels.grid()).unwrap();
    run(&["--continue"]);
    let again = read_json(&json);
    assert_eq!(again["cases"][0], told["cases"][0]);
    assert_eq!(again["cases"][1]["classes"][0]["voxels"], 0);
    assert!(again["cases"][1]["classes"][0]["intensity"][0]["mean"].is_null());
    let page = succeed(&["report", path(&out)]);
    let page = std::fs::read_to_string(page.trim()).unwrap();
    assert!(page.contains("Measures of each class") && page.contains("Connected parts"));
    // what is no such file is not written over, and costs nothing
    std::fs::write(&json, "[]").unwrap();
    let args = ["predict", "-m", "hippocampus", "-i", path(&images), "-o", path(&out)];
    let message = fail(&[&args[..], &["--statistics"]].concat());
    assert!(message.contains("statistics.json") && message.contains("Move the file"), "{message}");
}

#[test]
#[cfg_attr(not(real_images), ignore = "no real images: set U2SEG_DATA")]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn uncertainty_goes_with_the_probabilities_and_is_scored() {
    let folder = tempfile::tempdir().unwrap();
    let (images, names) = cases(folder.path());
    let [out, plain] = ["out", "plain"].map(|name| folder.path().join(name));
    let run = |out: &Path, more: &[&str]| {
        let args = ["predict", "-m", "hippocampus", "-i", path(&images), "-o", path(out)];
        let output = u2seg(&[&args[..], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    run(&out, &["--uncertainty", "--save-probabilities", "--mirror", "W"]);
    run(&plain, &["--mirror", "W"]);
    let file =
        |kind: &str, name: &str| out.join(kind).join(names[0]).join(format!("{name}.nii.gz"));
    let mask = |folder: &Path| {
        let file = folder.join(format!("{}.nii.gz", names[0]));
        read_labels(&file, &Known::any()).unwrap()
    };
    assert_eq!(mask(&out).as_slice(), mask(&plain).as_slice());
    let classes = ["background", "Anterior", "Posterior"];
    let probabilities = classes.map(|class| map(&file("probabilities", class)));
    let entropy = map(&file("uncertainty", "entropy"));
    assert_eq!(entropy.len(), mask(&out).as_slice().len());
    for (at, found) in entropy.iter().enumerate() {
        let terms = probabilities.iter().map(|map| f64::from(map[at]));
        let expected: f64 =
            terms.filter(|p| *p > 0.0).map(|p| -p * p.ln()).sum::<f64>() / 3f64.ln();
        assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} for {expected}");
    }
    let spread = map(&file("uncertainty", "disagreement/Anterior"));
    let largest = spread.iter().copied().fold(0.0, f32::max);
    assert!(largest > 0.01 && largest <= 0.5, "{largest}");
    assert!(!file("uncertainty", "disagreement/background").exists());
    // a single prediction says that nothing disagrees with it
    let alone = folder.path().join("alone");
    let message = run(&alone, &["--uncertainty"]);
    assert!(message.contains("no disagreement"), "{message}");
    let maps = alone.join("uncertainty").join(names[0]);
    assert!(maps.join("entropy.nii.gz").exists() && !maps.join("disagreement").exists());
    // maps are no masks, and tell how sure these are
    let truth = folder.path().join("truth");
    std::fs::create_dir(&truth).unwrap();
    let data = crate::common::data_dir().join("Task04_Hippocampus");
    for name in names.map(|name| format!("{name}.nii.gz")) {
        std::fs::copy(data.join("labelsTr").join(&name), truth.join(&name)).unwrap();
    }
    let (labels, summary) = (data.join("dataset.json"), out.join("summary.json"));
    let args = ["evaluate", "-p", path(&out), "-g", path(&truth), "-o", path(&summary)];
    let table = succeed(&[&args[..], &["--labels", path(&labels)]].concat());
    assert!(table.contains("ECE") && table.contains("Without the"), "{table}");
    let told = read_json(&summary);
    let ece = told["calibration"]["foreground"]["ECE"].as_f64().unwrap();
    assert!(ece > 0.0 && ece < 0.1, "{ece}");
    let retained = told["uncertainty"]["retained"].as_array().unwrap();
    let dice = |at: usize| retained[at]["Dice"].as_f64().unwrap();
    assert!(dice(9) > dice(19), "{retained:?}");
    let page = succeed(&["report", path(&out)]);
    let page = std::fs::read_to_string(page.trim()).unwrap();
    assert!(page.contains("Reliability of the probabilities") && page.contains("all together"));
    let table =
        succeed(&[&args[..], &["--labels", path(&labels), "--probabilities", "none"]].concat());
    assert!(!table.contains("ECE"), "{table}");
}

/// D, H, W of masks without a GPU.
const SHAPE: [usize; 3] = [4, 5, 6];

/// Masks of two cases with probabilities and entropies, each voxel's by its place.
fn made_up(folder: &Path) -> Vec<(Vec<u8>, Vec<u8>, Vec<f32>)> {
    let grid = Grid::ras(SHAPE, [20.0, 1.0, 1.0]);
    let json = json!({"labels": {"background": 0, "liver": 1, "ignore": 9}});
    for name in ["p", "g"] {
        std::fs::create_dir(folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("g/dataset.json"), json.to_string()).unwrap();
    let mut cases = Vec::new();
    for case in 0..2usize {
        let voxels: usize = SHAPE.iter().product();
        // the last plane along D lies further off than the box about the foreground
        let inside = |i: usize| i < voxels / 2;
        let probability: Vec<f32> = (0..voxels)
            .map(|i| if inside(i) { ((i * 37 + case * 11) % 100) as f32 / 100.0 } else { 0.0 })
            .collect();
        let truth: Vec<u8> = (0..voxels)
            .map(|i| match i % 17 {
                3 if inside(i) => 9,
                _ => u8::from(inside(i) && (i * 29 + case) % 100 < (i * 37 + case * 11) % 100),
            })
            .collect();
        let prediction: Vec<u8> = probability.iter().map(|p| u8::from(*p > 0.5)).collect();
        write_mask(&folder.join(format!("p/c{case}.nii.gz")), &prediction, &grid).unwrap();
        write_mask(&folder.join(format!("g/c{case}.nii.gz")), &truth, &grid).unwrap();
        let term = |p: f32| if p > 0.0 { -p * p.log2() } else { 0.0 };
        let entropy: Vec<f32> = probability.iter().map(|p| term(*p) + term(1.0 - p)).collect();
        for (name, values) in [("probabilities", &probability), ("uncertainty", &entropy)] {
            let below = folder.join("p").join(name).join(format!("c{case}"));
            std::fs::create_dir_all(&below).unwrap();
            let file = if name == "uncertainty" { "entropy" } else { "liver" };
            write_image(&below.join(format!("{file}.nii.gz")), values, &grid).unwrap();
        }
        cases.push((truth, prediction, probability));
    }
    cases
}

#[test]
fn calibration_and_dice_without_uncertain_voxels_are_those_of_the_definitions() {
    let folder = tempfile::tempdir().unwrap();
    let cases = made_up(folder.path());
    let [p, g, out] = ["p", "g", "summary.json"].map(|name| folder.path().join(name));
    let args = ["evaluate", "-p", path(&p), "-g", path(&g), "-o", path(&out)];
    let table = succeed(&args);
    assert!(table.contains("Calibration error (ECE)"), "{table}");
    let told = read_json(&out);
    // planes 0 and 1 have foreground; the box, 10 mm larger, reaches one plane of 20 mm further
    let near = |i: &usize| *i < 3 * 30;
    let mut bins = vec![(0.0, 0.0, 0.0); 15];
    let mut voxels = 0.0;
    for (truth, _, probability) in &cases {
        for i in (0..truth.len()).filter(near).filter(|i| truth[*i] != 9) {
            let bin = &mut bins[((f64::from(probability[i]) * 15.0) as usize).min(14)];
            voxels += 1.0;
            *bin = (bin.0 + 1.0, bin.1 + f64::from(probability[i]), bin.2 + f64::from(truth[i]));
        }
    }
    let ece: f64 = bins.iter().map(|(_, p, hits)| (p - hits).abs()).sum::<f64>() / voxels;
    let calibration = &told["calibration"]["classes"]["1"];
    assert_eq!(calibration["voxels"], voxels);
    assert!((calibration["ECE"].as_f64().unwrap() - ece).abs() < 1e-12, "{calibration}");
    assert_eq!(told["calibration"]["cases"], 2);
    // those of at most half of the largest entropy
    let mut dice = 0.0;
    for (truth, prediction, probability) in &cases {
        let term = |p: f32| if p > 0.0 { -p * p.log2() } else { 0.0 };
        let kept = |i: &usize| {
            truth[*i] != 9 && term(probability[*i]) + term(1.0 - probability[*i]) <= 0.5
        };
        let kept: Vec<usize> = (0..truth.len()).filter(kept).collect();
        let count = |of: &dyn Fn(usize) -> bool| kept.iter().filter(|i| of(**i)).count() as f64;
        let both = count(&|i| truth[i] == 1 && prediction[i] == 1);
        dice += 2.0 * both / (count(&|i| truth[i] == 1) + count(&|i| prediction[i] == 1)) / 2.0;
    }
    let half = &told["uncertainty"]["retained"][9];
    assert_eq!(half["entropy_up_to"], 0.5);
    assert!((half["Dice"].as_f64().unwrap() - dice).abs() < 1e-12, "{half} for {dice}");
    let all = told["uncertainty"]["retained"][19]["Dice"].as_f64().unwrap();
    assert!((all - told["foreground_mean"]["Dice"].as_f64().unwrap()).abs() < 1e-12);
    // elsewhere, of no case, and of a folder that has none
    let elsewhere = folder.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let wanted = [&args[..], &["--probabilities", path(&elsewhere)]].concat();
    assert!(fail(&wanted).contains("no probabilities/CASE/CLASS"));
    std::fs::create_dir(elsewhere.join("probabilities")).unwrap();
    assert!(fail(&wanted).contains("no probabilities/CASE/CLASS"));
    let message = fail(&[&args[..], &["--probabilities", path(&p), "--labels", "none"]].concat());
    assert!(message.contains("--labels describes"), "{message}");
    // a map of another image is refused by its name
    let file = p.join("probabilities/c0/liver.nii.gz");
    write_image(&file, &[0.0; 8], &Grid::ras([2; 3], [1.0; 3])).unwrap();
    let refused = u2seg(&args);
    let message = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    assert!(message.contains("liver.nii.gz: found shape [2, 2, 2]"), "{message}");
}
