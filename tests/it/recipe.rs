//! Recipes, published plans, patches resized to a common one, and cross-validation.

use std::path::Path;

use crate::common::program::*;
use crate::common::volumes::{write_image, write_mask};
use u2seg::low_level::domain::{CleanUpStep, DomainPlan, Weighting};
use u2seg::low_level::imaging::{Grid, Known, read_image, read_labels};
use u2seg::low_level::net::Model;
use u2seg::low_level::ops::{LossWeights, Optimizer};
use u2seg::low_level::patch::Interpolation;
use u2seg::low_level::train::{Length, LrSchedule, RunConfig};

fn plans(run: &Path) -> Vec<DomainPlan> {
    serde_json::from_slice(&std::fs::read(run.join("plan.json")).unwrap()).unwrap()
}

fn plan(data: &[&Path], out: &Path, more: &[&str]) -> (RunConfig, Vec<DomainPlan>) {
    let data: Vec<&str> = data.iter().map(|dir| path(dir)).collect();
    succeed(&[&["plan", "--out", path(out)], more, &["--data"], &data].concat());
    (RunConfig::read(&out.join("config.toml")).unwrap(), plans(out))
}

fn summary(file: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn the_published_recipe_fills_what_flags_leave_open() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Task04_Hippocampus");
    dataset(&data, "mine", 2, 90.0);
    let of = |name: &str, more: &[&str]| plan(&[&data], &folder.path().join(name), more);
    let (config, domains) = of("u2net", &["--recipe", "u2net"]);
    assert_eq!(config.lr_schedule, LrSchedule::plateau(300));
    assert_eq!((config.lr, config.loss), (3e-4, LossWeights::published()));
    let d = &domains[0];
    assert_eq!((d.patch, d.pools, d.batch), ([40, 56, 40], [3, 3, 3], 9));
    assert_eq!((d.preset.as_deref(), d.weighting), (Some("hippocampus"), Weighting::Linear));
    assert_eq!(d.clean_up[0].steps, [CleanUpStep::ClosingEdges(1), CleanUpStep::LargestTwo(0.1)]);
    // flags come first
    let more = ["--recipe", "u2net", "--lr", "0.01", "--loss", "ce", "--optimizer", "sgd"];
    let plan = ["--steps", "7", "--batch", "3", "--patch", "16,16,16", "--spacing", "1,1,2"];
    let (config, domains) = of("flags", &[&more[..], &plan].concat());
    assert_eq!(
        (config.lr, config.loss, config.length),
        (0.01, LossWeights::ce(), Length::Steps(7))
    );
    let sgd = |weight_decay| Optimizer::Sgd { momentum: 0.99, weight_decay };
    assert_eq!(config.optimizer, sgd(5e-4));
    let (config, _) = of("decay", &[&more[..], &["--weight-decay", "3e-5"]].concat());
    assert_eq!(config.optimizer, sgd(3e-5));
    let d = &domains[0];
    assert_eq!((d.patch, d.batch, d.spacing), ([16; 3], 3, [1.0, 1.0, 2.0]));
    // without a preset the data decides, by default too
    for more in [&["--recipe", "u2net", "--preset", "none"][..], &[]] {
        let d = &of(&format!("none{}", more.len()), more).1[0];
        assert!(d.preset.is_none() && d.clean_up.is_empty() && d.batch == 2, "{d:?}");
    }
    let (config, domains) = of("named", &["--preset", "prostate"]);
    assert_eq!((config.lr, domains[0].patch), (3e-2, [20, 192, 192]));
    // dense convolutions want smaller steps
    assert_eq!(of("dense", &["--mode", "independent"]).0.lr, 1e-2);
    let other = folder.path().join("B");
    dataset(&other, "B", 2, 90.0);
    let two = ["plan", "--data", path(&data), path(&other), "--preset", "liver"];
    assert!(fail(&two).contains("2 datasets"));
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn tumours_of_the_liver_count_as_liver() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Task03_Liver");
    dataset(&data, "Liver", 2, 90.0);
    let json = std::fs::read_to_string(data.join("dataset.json")).unwrap();
    let json = json.replace(r#""1":"ball""#, r#""1":"liver","2":"cancer""#);
    std::fs::write(data.join("dataset.json"), json).unwrap();
    // half of the ball is a tumour
    let file = data.join("labelsTr/case_01.nii.gz");
    let mut label = read_labels(&file, &Known::any()).unwrap();
    let ball = label.as_slice().iter().filter(|l| **l == 1).count();
    let half = label.as_slice().len() / 2;
    label.as_mut_slice()[half..].iter_mut().filter(|l| **l == 1).for_each(|l| *l = 2);
    write_mask(&file, label.as_slice(), label.grid()).unwrap();
    let run = folder.path().join("run");
    let more = ["--recipe", "u2net", "--steps", "2", "--hold-out", "case_01"];
    succeed(&strs(&train(&[&data], &run, &more)));
    let model = Model::read(&run.join("model.safetensors")).unwrap();
    assert_eq!(model.domains[0].labels.names(), ["background", "liver"]);
    assert_eq!(
        model.domains[0].clean_up[0].steps,
        [CleanUpStep::ClosingEdges(1), CleanUpStep::Largest]
    );
    let json = summary(&run.join("validation/Liver/summary.json"));
    assert_eq!(json["metric_per_case"][0]["metrics"]["1"]["n_ref"], ball);
    assert!(json["mean"]["2"].is_null());
    // scoring files does the same where asked
    let mask = run.join("validation/Liver/case_01.nii.gz");
    let labels = data.join("labelsTr/case_01.nii.gz");
    let evaluate = ["evaluate", "-p", path(&mask), "-g", path(&labels)];
    let out = folder.path().join("summary.json");
    succeed(&[&evaluate[..], &["--merge", "2=1", "254=0", "-o", path(&out)]].concat());
    assert_eq!(summary(&out)["mean"]["1"], json["mean"]["1"]);
    assert!(summary(&out)["mean"]["2"].is_null());
}

/// Plateaus come at once, and checkpoints often.
fn hurry(run: &Path, steps: u64) {
    let file = run.join("config.toml");
    let mut config = RunConfig::read(&file).unwrap();
    config.checkpoint_every = 7;
    config.length = Length::Steps(steps);
    config.log_every = 1;
    let least = 1e-5;
    let (epoch, window, improvement, factor) = (6, 2, 100.0, 0.5);
    config.lr_schedule = LrSchedule::Plateau { epoch, window, improvement, factor, least };
    config.write(&file).unwrap();
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn the_rate_halves_on_plateaus_also_across_a_restart_and_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("A"), folder.path().join("B"));
    dataset(&a, "A", 2, 90.0);
    dataset(&b, "B", 2, -90.0);
    let rates = |run: &Path| -> Vec<(u64, f64)> {
        let text = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
        let line = |line: &str| -> serde_json::Value { serde_json::from_str(line).unwrap() };
        let lines = text.lines().map(line);
        lines.map(|l| (l["step"].as_u64().unwrap(), l["lr"].as_f64().unwrap())).collect()
    };
    let more = ["--recipe", "u2net", "--base", "4", "--patch", "16,16,16", "--batch", "1"];
    let [whole, broken] = ["whole", "broken"].map(|name| {
        let run = folder.path().join(name);
        plan(&[&a, &b], &run, &more);
        run
    });
    hurry(&whole, 1000);
    succeed(&["train", "--continue", "--out", path(&whole)]);
    // stopped amid an epoch, after the first halving
    hurry(&broken, 22);
    succeed(&["train", "--continue", "--out", path(&broken)]);
    hurry(&broken, 1000);
    succeed(&["train", "--continue", "--out", path(&broken)]);
    assert!(weights(&whole) == weights(&broken), "the weights differ");
    assert_eq!(rates(&whole), rates(&broken));
    let at = |step: u64| rates(&whole).iter().find(|(s, _)| *s >= step).unwrap().1;
    let expected = (3e-4, 3e-4, 1.5e-4, 1.5e-4, 7.5e-5);
    assert_eq!((at(1), at(18), at(19), at(24), at(25)), expected);
    // 3e-4 / 2^5 is under 1e-5: the fifth halving, at the end of epoch 7, is the last
    assert_eq!(rates(&whole).last().unwrap().0, 42);
    assert!(whole.join("progress.png").exists());
    // TensorBoard reads a file of each start
    let entries = std::fs::read_dir(&broken).unwrap().map(|e| e.unwrap().file_name());
    let events = entries.filter(|n| n.to_string_lossy().starts_with("events.out.tfevents."));
    assert_eq!(events.count(), 2);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn patches_are_resized_to_a_common_one_and_masks_back() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("A"), folder.path().join("B"));
    dataset(&a, "A", 3, 90.0);
    dataset(&b, "B", 2, -90.0);
    let run = folder.path().join("run");
    // voxels of their own twice as coarse: a cut covers the image and is smaller than the patch
    let resize = ["--unify", "resize", "--patch", "16,16,16", "--spacing", "1.5,2,2"];
    let more = ["--steps", "120", "--hold-out", "case_02"];
    succeed(&strs(&train(&[&a, &b], &run, &[&resize[..], &more].concat())));
    let model = Model::read(&run.join("model.safetensors")).unwrap();
    let interpolation =
        |run: &Path| RunConfig::read(&run.join("config.toml")).unwrap().augment.interpolation;
    assert_eq!(interpolation(&run), Interpolation::Cubic);
    for d in &model.domains {
        assert_eq!(d.patch, [16; 3]);
        assert!(d.crop.is_some_and(|crop| crop != d.patch), "{d:?}");
    }
    let json = summary(&run.join("validation/A/summary.json"));
    let dice = json["foreground_mean"]["Dice"].as_f64().unwrap();
    assert!(dice > 0.7, "Dice {dice} of resized patches");
    // a mask, and probabilities, on the image's own grid
    let (image, out) = (b.join("imagesTr/case_00.nii.gz"), folder.path().join("mask.nii.gz"));
    let args = ["predict", "-m", path(&run), "-i", path(&image), "-o", path(&out)];
    let more = ["--domain", "B", "--mirror", "W", "--step-size", "0.7", "--save-probabilities"];
    succeed(&[&args[..], &more].concat());
    assert_eq!(read_labels(&out, &Known::any()).unwrap().shape(), SHAPE);
    let maps = folder.path().join("probabilities/case_00");
    assert_eq!(read_image(&maps.join("ball.nii.gz")).unwrap().shape(), SHAPE);
    // a new domain is resized as the old ones are
    let c = folder.path().join("C");
    dataset(&c, "C", 2, 60.0);
    let new = folder.path().join("new");
    let args = ["adapt", "-m", path(&run), "--data", path(&c), "--out", path(&new), "--steps", "2"];
    succeed(&args);
    let plan = &plans(&new)[0];
    assert_eq!((plan.patch, plan.pools), ([16; 3], model.domains[0].pools));
    assert!(plan.crop.is_some() && interpolation(&new) == Interpolation::Cubic);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn all_folds_are_trained_and_scored_together() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("A"), folder.path().join("B"));
    dataset(&a, "A", 3, 90.0);
    dataset(&b, "B", 2, -90.0);
    let run = folder.path().join("run");
    let more = ["--steps", "2", "--fold", "all", "--base", "4"];
    let stdout = succeed(&strs(&train(&[&a, &b], &run, &more)));
    assert!(stdout.contains("A, all folds"), "{stdout}");
    let cases = |domain: &str| -> Vec<String> {
        let json = summary(&run.join("validation").join(domain).join("summary.json"));
        let cases = json["metric_per_case"].as_array().unwrap();
        let name = |case: &serde_json::Value| {
            let file = case["reference_file"].as_str().unwrap();
            Path::new(file).file_name().unwrap().to_string_lossy().into_owned()
        };
        let mut names: Vec<String> = cases.iter().map(name).collect();
        names.sort();
        names
    };
    assert_eq!(cases("A"), ["case_00.nii.gz", "case_01.nii.gz", "case_02.nii.gz"]);
    assert_eq!(cases("B"), ["case_00.nii.gz", "case_01.nii.gz"]);
    let models: Vec<_> = (0..3).map(|i| run.join(format!("fold_{i}/model.safetensors"))).collect();
    assert!(models.iter().all(|model| model.exists()) && !run.join("fold_3").exists());
    // what was planned and not begun is begun by --continue
    for file in ["model.safetensors", "last.safetensors", "log.jsonl"] {
        std::fs::remove_file(run.join("fold_2").join(file)).unwrap();
    }
    succeed(&["train", "--continue", "--out", path(&run)]);
    assert!(models[2].exists());
    // the folds' networks vote
    let (image, out) = (a.join("imagesTr/case_00.nii.gz"), folder.path().join("mask.nii.gz"));
    let args = ["predict", "-i", path(&image), "-o", path(&out), "--domain", "A", "-m"];
    succeed(&[&args[..], &models.iter().map(|m| path(m)).collect::<Vec<_>>()].concat());
    assert_eq!(
        read_labels(&out, &Known::any()).unwrap().grid().dims,
        Grid::ras(SHAPE, [1.0; 3]).dims
    );
    // a fold that no dataset has
    let args = train(&[&a, &b], &folder.path().join("x"), &["--steps", "2", "--fold", "4"]);
    let message = fail(&strs(&args));
    assert!(message.contains("--fold") && message.contains("less than 3"), "{message}");
    // one network a dataset
    let alone = folder.path().join("alone");
    let more = ["--steps", "1", "--fold", "all", "--base", "4", "--mode", "independent"];
    succeed(&strs(&train(&[&a, &b], &alone, &more)));
    assert!(alone.join("A/validation/A/summary.json").exists());
    assert!(alone.join("B/fold_1/model.safetensors").exists());
}

/// An nnU-Net v2 raw folder with two channels and three classes: the ball's halves.
fn raw_dataset(dir: &Path, name: &str, count: u64) {
    let (images, labels) = (dir.join("imagesTr"), dir.join("labelsTr"));
    std::fs::create_dir_all(&images).unwrap();
    std::fs::create_dir_all(&labels).unwrap();
    let grid = Grid::ras(SHAPE, [1.0; 3]);
    for seed in 0..count {
        let (image, mut label) = case(seed + 1, 90.0);
        let half = label.len() / 2;
        label[half..].iter_mut().filter(|l| **l == 1).for_each(|l| *l = 2);
        let second: Vec<f32> =
            image.iter().zip(&label).map(|(v, l)| v - 60.0 * f32::from(*l)).collect();
        for (channel, values) in [image, second].iter().enumerate() {
            write_image(&images.join(format!("c_{seed}_{channel:04}.nii.gz")), values, &grid)
                .unwrap();
        }
        write_mask(&labels.join(format!("c_{seed}.nii.gz")), &label, &grid).unwrap();
    }
    let json = serde_json::json!({
        "name": name,
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "lower": 1, "upper": 2},
        "numTraining": count,
        "file_ending": ".nii.gz",
    });
    std::fs::write(dir.join("dataset.json"), json.to_string()).unwrap();
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn domains_may_differ_in_channels_and_classes() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("A"), folder.path().join("B"));
    dataset(&a, "One", 2, 90.0);
    raw_dataset(&b, "Two", 3);
    let run = folder.path().join("run");
    let more = ["--steps", "90", "--hold-out", "c_2", "--schedule", "1,4"];
    succeed(&strs(&train(&[&a, &b], &run, &more)));
    let json = summary(&run.join("validation/Two/summary.json"));
    for class in ["1", "2"] {
        let dice = json["mean"][class]["Dice"].as_f64().unwrap();
        assert!(dice > 0.5, "Dice {dice} of class {class}");
    }
    // most steps are of the second
    let second = log(&run).iter().filter(|line| line.1 == "Two").count();
    assert!(second * 2 > log(&run).len(), "{second} of {}", log(&run).len());
    let masks = folder.path().join("masks");
    let images = b.join("imagesTr");
    let args = ["predict", "-m", path(&run), "-i", path(&images), "-o", path(&masks)];
    assert_eq!(succeed(&[&args[..], &["--domain", "Two"]].concat()).lines().count(), 3);
    let message = fail(&[&args[..], &["--domain", "One"]].concat());
    assert!(message.contains("2 channel files"), "{message}");
    // a plan that does not fit its data
    let plan = run.join("plan.json");
    let edited =
        std::fs::read_to_string(&plan).unwrap().replace(r#""channels": 2"#, r#""channels": 1"#);
    std::fs::write(&plan, edited).unwrap();
    let message = fail(&["train", "--continue", "--out", path(&run)]);
    assert!(message.contains("2 channels: T1, T2") && message.contains("plan.json"), "{message}");
}
