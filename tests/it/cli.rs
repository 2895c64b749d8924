//! The program as a user runs it: training, resuming, segmenting, scoring, and what it says of bad input.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::program::*;
use crate::common::volumes::{volume, write_image, write_mask};
use u2seg::low_level::imaging::{Grid, Known, Volume, read_labels};

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn train_predict_evaluate() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls", 5, 90.0);
    let run = folder.path().join("run");
    let more = ["--steps", "60", "--hold-out", "case_04", "--seed", "3"];
    let stdout = succeed(&strs(&train(&[&data], &run, &more)));
    assert!(stdout.contains("model.safetensors") && stdout.contains("ball"), "{stdout}");
    for file in [
        "model.safetensors",
        "config.toml",
        "plan.json",
        "log.jsonl",
        "progress.png",
        "run.json",
        "report.html",
        "validation/Balls/summary.json",
        "validation/Balls/case_04.png",
    ] {
        assert!(run.join(file).exists(), "{file}");
    }
    let page = std::fs::read_to_string(run.join("report.html")).unwrap();
    let told = [
        "case_04",
        "data:image/jpeg;base64,",
        "Learning rate",
        "u2seg train --data",
        "--hold-out case_04",
    ];
    told.iter().for_each(|told| assert!(page.contains(told), "{told}"));
    let model = run.join("model.safetensors");
    let (images, masks) = (data.join("imagesTr"), folder.path().join("masks"));
    let stdout = succeed(&[
        "predict",
        "--preview",
        "-m",
        path(&model),
        "-i",
        path(&images),
        "-o",
        path(&masks),
    ]);
    assert_eq!(stdout.lines().count(), 5, "{stdout}");
    assert!(std::fs::read(masks.join("case_03.png")).unwrap().starts_with(b"\x89PNG"));
    let stdout = succeed(&["report", path(&masks)]);
    assert_eq!(stdout.trim(), path(&masks.join("report.html")));
    let page = std::fs::read_to_string(masks.join("report.html")).unwrap();
    let told = [
        "case_03",
        "data:image/jpeg;base64,",
        "Volume of each case, ml",
        "u2seg predict --preview",
    ];
    told.iter().for_each(|told| assert!(page.contains(told), "{told}"));
    let summary = folder.path().join("summary.json");
    let labels = data.join("labelsTr");
    let stdout =
        succeed(&["evaluate", "-p", path(&masks), "-g", path(&labels), "-o", path(&summary)]);
    assert!(stdout.to_lowercase().contains("dice"), "{stdout}");
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&summary).unwrap()).unwrap();
    let dice = json["foreground_mean"]["Dice"].as_f64().unwrap();
    assert!(dice > 0.8, "Dice {dice} after 60 steps on bright balls");
    // one image to one file, on its own grid
    let one = folder.path().join("one.nii.gz");
    let image = images.join("case_00.nii.gz");
    succeed(&["predict", "-m", path(&model), "-i", path(&image), "-o", path(&one)]);
    let (a, b) = (
        read_labels(&one, &Known::any()),
        read_labels(&masks.join("case_00.nii.gz"), &Known::any()),
    );
    assert_eq!(a.unwrap().as_slice(), b.unwrap().as_slice());
    // counting the model's parameters
    let stdout = succeed(&["info", path(&model)]);
    assert!(stdout.contains("Balls"), "{stdout}");
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn two_domains_both_learn_and_the_log_tells_them_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("A"), folder.path().join("B"));
    dataset(&a, "Bright", 3, 90.0);
    dataset(&b, "Dark", 3, -90.0);
    let run = folder.path().join("run");
    succeed(&strs(&train(&[&a, &b], &run, &["--steps", "90"])));
    let log = log(&run);
    for domain in ["Bright", "Dark"] {
        let losses: Vec<f64> = log.iter().filter(|l| l.1 == domain).map(|l| l.2).collect();
        let (first, last) = (losses[0], losses[losses.len() - 1]);
        assert!(last < 0.6 * first, "{domain}: loss from {first} to {last}");
    }
    let model = run.join("model.safetensors");
    let (image, out) = (a.join("imagesTr/case_00.nii.gz"), folder.path().join("mask.nii"));
    let predict = ["predict", "-m", path(&model), "-i", path(&image), "-o", path(&out)];
    let message = fail(&predict);
    assert!(message.contains("--domain") && message.contains("Bright"), "{message}");
    succeed(&[&predict[..], &["--domain", "Dark"]].concat());
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_case_may_be_held_out_of_one_of_two_domains() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("A"), folder.path().join("B"));
    dataset(&a, "Bright", 3, 90.0);
    dataset(&b, "Dark", 4, -90.0);
    for (mode, validation) in [("universal", "validation"), ("independent", "B/validation")] {
        let run = folder.path().join(mode);
        let more = ["--steps", "2", "--hold-out", "case_03", "--mode", mode];
        succeed(&strs(&train(&[&a, &b], &run, &more)));
        assert!(run.join(validation).join("Dark/summary.json").exists());
        assert!(!run.join("validation/Bright").exists() && !run.join("A/validation").exists());
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn the_same_seed_gives_the_same_weights_and_another_one_others() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls", 3, 90.0);
    let runs: Vec<_> = [("a", "7"), ("b", "7"), ("c", "8")]
        .iter()
        .map(|(name, seed)| {
            let run = folder.path().join(name);
            succeed(&strs(&train(&[&data], &run, &["--steps", "6", "--seed", seed])));
            weights(&run)
        })
        .collect();
    assert!(runs[0] == runs[1], "two runs of one seed differ");
    assert!(runs[0] != runs[2], "two seeds give the same weights");
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_plan_names_its_memory_and_can_be_edited() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls", 3, 90.0);
    let args = [&["plan", "--data", path(&data), "--json"][..], &SMALL[..]].concat();
    let json: serde_json::Value = serde_json::from_str(&succeed(&args)).unwrap();
    let memory = &json["memory"];
    let parts = ["parameters", "activations", "uniforms", "read_back"];
    let planned: u64 = parts.iter().map(|part| memory[*part].as_u64().unwrap()).sum();
    assert_eq!(json["domains"][0]["patch"], serde_json::json!([16, 16, 16]));
    let run = folder.path().join("run");
    succeed(
        &[&["plan", "--data", path(&data), "--out", path(&run), "--steps", "2"][..], &SMALL[..]]
            .concat(),
    );
    let output = u2seg(&["train", "--continue", "--out", path(&run)]);
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    // what the trainer took is what was planned
    let taken = stderr.split(" MiB of GPU memory").next().unwrap().rsplit(' ').next().unwrap();
    let mib = (planned as f64 / f64::from(1 << 20)).round() as u64;
    assert_eq!(taken.parse::<u64>().unwrap(), mib, "{stderr}");
    // edited: half the patch
    let plan = run.join("plan.json");
    let edited = std::fs::read_to_string(&plan).unwrap().replace("16", "8");
    for file in ["last.safetensors", "model.safetensors"] {
        std::fs::remove_file(run.join(file)).unwrap();
    }
    std::fs::write(&plan, edited).unwrap();
    let stderr = text(&u2seg(&["train", "--continue", "--out", path(&run)]).stderr);
    assert!(stderr.contains("patches of 8×8×8 voxels"), "{stderr}");
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_plan_is_one_screen_and_follows_the_budget() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls, of which the name is longer than a terminal has room for", 3, 90.0);
    let plan = |more: &[&str]| succeed(&[&["plan", "--data", path(&data)][..], more].concat());
    let screen = plan(&["--vram", "1GiB", "--fold", "all"]);
    assert!(screen.lines().count() < 24, "{screen}");
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    for part in ["limited by", "median case", " of 1.00 GiB", "10,000 steps (--budget standard)"] {
        assert!(screen.contains(part), "{part:?} is missing in {screen}");
    }
    let details = ["classes background, ball", "largest where most is in memory"];
    assert!(details.iter().all(|part| !screen.contains(part)), "{screen}");
    let verbose = plan(&["--verbose"]);
    assert!(details.iter().all(|part| verbose.contains(part)), "{verbose}");
    let json = |more: &[&str]| -> serde_json::Value {
        serde_json::from_str(&plan(&[&["--json"], more].concat())).unwrap()
    };
    let steps = |json: &serde_json::Value| json["length"]["steps"].as_u64();
    assert_eq!(steps(&json(&["--budget", "quick"])), Some(1000));
    assert_eq!(steps(&json(&["--budget", "quick", "--vram", "1GiB"])), Some(1000));
    let thorough = json(&["--budget", "thorough"]);
    assert_eq!(steps(&thorough), Some(50_000));
    assert!(thorough["vram"].as_u64() > Some(0), "{thorough}");
    let short = json(&["--budget", "thorough", "--steps", "7"]);
    assert_eq!((steps(&short), &short["budget"]), (Some(7), &serde_json::json!("thorough")));
    let args = ["plan", "--data", path(&data), "--recipe", "u2net"];
    let message = fail(&[&args[..], &["--budget", "quick"]].concat());
    assert!(message.contains("--budget: found quick under the recipe u2net"), "{message}");
    // kept with the run
    let run = folder.path().join("run");
    succeed(&["plan", "--data", path(&data), "--out", path(&run), "--budget", "thorough"]);
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    assert!(config.contains("budget = \"thorough\""), "{config}");
    let software = u2seg(&["devices"]).stdout;
    if text(&software).lines().nth(1).is_some_and(|line| line.trim().starts_with("cpu")) {
        let usual = json(&[]);
        assert_eq!((steps(&usual), &usual["budget"]), (Some(1000), &serde_json::json!("quick")));
        assert!(usual["vram"].is_null(), "{usual}");
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_killed_run_goes_on_to_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("A"), folder.path().join("B"));
    dataset(&a, "Bright", 3, 90.0);
    dataset(&b, "Dark", 2, -90.0);
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    // from step 100 on, the domains of the first steps' losses are chosen
    let more = ["--steps", "120", "--base", "4", "--schedule", "loss"];
    let quick = |out: &Path| train(&[&a, &b], out, &more);
    succeed(&strs(&quick(&whole)));
    kill_after_checkpoint(&strs(&quick(&killed)), &killed);
    assert!(!killed.join("model.safetensors").exists());
    // starting over by mistake is refused and leaves the checkpoint
    let message = fail(&strs(&quick(&killed)));
    assert!(message.contains("--continue"), "{message}");
    succeed(&["train", "--continue", "--out", path(&killed)]);
    assert!(weights(&whole) == weights(&killed), "the weights differ");
    let steps: Vec<u64> = log(&killed).iter().map(|line| line.0).collect();
    let whole: Vec<u64> = log(&whole).iter().map(|line| line.0).collect();
    assert_eq!(steps, whole, "the log of a resumed run has each reading once");
}

/// A dataset with one thing wrong, what is run on it, and what the message must hold.
fn damaged(folder: &Path, damage: impl Fn(&Path)) -> PathBuf {
    let data = folder.join("Damaged");
    if data.exists() {
        std::fs::remove_dir_all(&data).unwrap();
    }
    dataset(&data, "Balls", 2, 90.0);
    damage(&data);
    data
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn bad_datasets_get_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let check = |damage: &dyn Fn(&Path), more: &[&str], parts: &[&str]| {
        let data = damaged(folder.path(), damage);
        let message = fail(&strs(&train(&[&data], &run, &[&["--steps", "2"], more].concat())));
        for part in parts {
            assert!(message.contains(part), "{part:?} is missing in: {message}");
        }
        assert!(!run.join("model.safetensors").exists());
    };
    let image = |data: &Path| data.join("imagesTr/case_01.nii.gz");
    let label = |data: &Path| data.join("labelsTr/case_01.nii.gz");
    check(
        &|data| {
            let bytes = std::fs::read(image(data)).unwrap();
            std::fs::write(image(data), &bytes[..bytes.len() / 2]).unwrap();
        },
        &[],
        &["case_01.nii.gz", "ends or breaks early", "again"],
    );
    check(
        &|data| {
            let grid = Grid::ras([4, 5, 6], [1.0; 3]);
            write_mask(&label(data), &[0; 120], &grid).unwrap();
        },
        &[],
        &["labelsTr", "shape [4, 5, 6]", "imagesTr", "Resample"],
    );
    check(
        &|data| {
            let grid = Grid::ras(SHAPE, [1.0; 3]);
            write_mask(&label(data), &vec![9; SHAPE.iter().product()], &grid).unwrap();
        },
        &[],
        &["case_01.nii.gz", "label values 9", "dataset.json"],
    );
    check(
        &|data| {
            let file = data.join("dataset.json");
            let json = std::fs::read_to_string(&file).unwrap();
            std::fs::write(file, json.replace(r#""0":"MR""#, r#""0":"T1","1":"T2""#)).unwrap();
        },
        &[],
        &["1 channels", "T1, T2", "missing modality"],
    );
    check(&|data| std::fs::remove_file(image(data)).unwrap(), &[], &["case_01", "no such file"]);
    check(
        &|data| std::fs::remove_file(data.join("dataset.json")).unwrap(),
        &[],
        &["dataset.json", "no such file", "--data"],
    );
    check(
        &|data| std::fs::write(data.join("dataset.json"), "{").unwrap(),
        &[],
        &["dataset.json", "valid JSON"],
    );
    check(&|_| {}, &["--pools", "7,4,4"], &["--patch", "at most 6 pools"]);
    check(&|_| {}, &["--patch", "15,16,16", "--pools", "1,2,2"], &["patch", "15"]);
    check(&|_| {}, &["--window", "240,-160"], &["--window", "larger upper bound"]);
    check(&|_| {}, &["--patch", "64,64,64"], &["--patch", "larger than every image", "Damaged"]);
    check(&|_| {}, &["--schedule", "1,2"], &["--schedule", "one a domain"]);
    check(&|_| {}, &["--hold-out", "nobody"], &["--hold-out", "nobody"]);
    check(&|_| {}, &["--lr", "0"], &["--lr"]);
    check(&|_| {}, &["--device", "no such adapter"], &["no such adapter"]);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn bad_predictions_leave_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls", 2, 90.0);
    let run = folder.path().join("run");
    succeed(&strs(&train(&[&data], &run, &["--steps", "2"])));
    let model = run.join("model.safetensors");
    let images = data.join("imagesTr");
    std::fs::write(images.join("case_00.nii.gz"), b"nothing").unwrap();
    let masks = folder.path().join("masks");
    let output = u2seg(&["predict", "-m", path(&model), "-i", path(&images), "-o", path(&masks)]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("case_00.nii.gz") && stderr.contains("1 of 2"), "{stderr}");
    assert!(masks.join("case_01.nii.gz").exists() && !masks.join("case_00.nii.gz").exists());
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let message = fail(&["predict", "-m", path(&model), "-i", path(&empty), "-o", path(&masks)]);
    assert!(message.contains("empty") && message.contains("images to segment"), "{message}");
    let message = fail(&[
        "predict",
        "-m",
        path(&data.join("dataset.json")),
        "-i",
        path(&images),
        "-o",
        path(&masks),
    ]);
    assert!(message.contains("dataset.json"), "{message}");
    let message = fail(&["evaluate", "-p", path(&empty), "-g", path(&data.join("labelsTr"))]);
    assert!(message.contains("empty") || message.contains("case_00"), "{message}");
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_cohort_is_split_continued_mirrored_and_averaged() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls", 3, 90.0);
    let models: Vec<PathBuf> = ["1", "2"]
        .iter()
        .map(|seed| {
            let run = folder.path().join(seed);
            succeed(&strs(&train(&[&data], &run, &["--steps", "30", "--seed", seed])));
            run
        })
        .collect();
    let images = data.join("imagesTr");
    let predict = |models: &[&Path], out: &Path, more: &[&str]| {
        let models: Vec<&str> = models.iter().map(|m| path(m)).collect();
        let args = [&["predict", "-i", path(&images), "-o", path(out), "-m"], &models[..], more];
        succeed(&args.concat())
    };
    // two parts make the whole, and a second call finds nothing left
    let parts = folder.path().join("parts");
    let one = predict(&[&models[0]], &parts, &["--num-parts", "2"]);
    assert_eq!(one.lines().count(), 2, "{one}");
    let rest = predict(&[&models[0]], &parts, &["--num-parts", "2", "--part-id", "1"]);
    assert_eq!(rest.lines().count(), 1, "{rest}");
    std::fs::remove_file(parts.join("case_01.nii.gz")).unwrap();
    let left = predict(&[&models[0]], &parts, &["--continue"]);
    assert!(left.lines().count() == 1 && left.contains("case_01"), "{left}");
    assert_eq!(predict(&[&models[0]], &parts, &["--continue"]), "");
    // probabilities of one model agree with its mask, and add up to 1
    let sure = folder.path().join("sure");
    predict(&[&models[0]], &sure, &["--save-probabilities"]);
    let mask = |folder: &Path| read_labels(&folder.join("case_02.nii.gz"), &Known::any()).unwrap();
    assert_eq!(mask(&sure).data(), mask(&parts).data());
    let map = |folder: &Path, class: &str| {
        let file = folder.join("probabilities/case_02").join(format!("{class}.nii.gz"));
        u2seg::low_level::imaging::read_image(&file).unwrap().as_slice().to_vec()
    };
    let (back, ball) = (map(&sure, "background"), map(&sure, "ball"));
    assert!(back.iter().zip(&ball).all(|(a, b)| (a + b - 1.0).abs() < 1e-5));
    assert!(ball.iter().zip(mask(&sure).as_slice()).all(|(p, l)| (*p > 0.5) == (*l == 1)));
    // the mean of two models lies between them
    let (other, both) = (folder.path().join("other"), folder.path().join("both"));
    predict(&[&models[1]], &other, &["--save-probabilities"]);
    predict(&[&models[0], &models[1]], &both, &["--save-probabilities"]);
    let mean = ball.iter().zip(map(&other, "ball")).map(|(a, b)| (a + b) / 2.0);
    assert!(map(&both, "ball").iter().zip(mean).all(|(a, b)| (a - b).abs() < 1e-5));
    // averaged over mirror images, a mirrored image gives the mirrored answer
    let image = u2seg::low_level::imaging::read_image(&images.join("case_02.nii.gz")).unwrap();
    let mirror = |values: &mut [f32], [_, h, w]: [usize; 3]| {
        values.chunks_mut(h * w).for_each(|plane| plane.chunks_mut(w).for_each(<[f32]>::reverse));
    };
    let averaged = |image: &Volume, name: &str| {
        let out = folder.path().join(name).join("case_02.nii.gz");
        std::fs::create_dir(out.parent().unwrap()).unwrap();
        let file = folder.path().join(format!("{name}.nii.gz"));
        write_image(&file, image.as_slice(), image.grid()).unwrap();
        let args = ["predict", "-m", path(&models[0]), "-i", path(&file), "-o", path(&out)];
        let more = ["--mirror", "D,H,W", "--weighting", "linear", "--save-probabilities"];
        let output = u2seg(&[&args[..], &more].concat());
        let told = text(&output.stderr);
        assert!(output.status.success(), "{told}");
        // these networks saw no mirrored patches, which is told
        assert!(told.contains("mirrored no patch along D, H, W"), "{told}");
        let maps = out.with_file_name("probabilities").join(name);
        u2seg::low_level::imaging::read_image(&maps.join("ball.nii.gz"))
            .unwrap()
            .as_slice()
            .to_vec()
    };
    let plain = averaged(&image, "plain");
    let mut values = image.as_slice().to_vec();
    mirror(&mut values, image.shape());
    let mut mirrored = averaged(&volume(1, values, image.grid()), "mirrored");
    mirror(&mut mirrored, image.shape());
    let far = plain.iter().zip(&mirrored).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(far < 1e-3, "off by {far}");
    assert_ne!(plain, ball);
}

#[test]
fn without_an_adapter_the_remedy_is_named() {
    // a loader that is pointed at no driver finds none; other systems have no such switch
    if !cfg!(target_os = "linux") {
        eprintln!(
            "ignored: without_an_adapter (only the Vulkan loader can be told to find nothing)"
        );
        return;
    }
    for args in [vec!["devices"], vec!["predict", "-m", "m", "-i", "i", "-o", "o"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_u2seg"))
            .args(&args)
            .env("VK_DRIVER_FILES", "/nonexistent.json")
            .env("VK_ICD_FILENAMES", "/nonexistent.json")
            .output()
            .unwrap();
        let stderr = text(&output.stderr);
        assert!(!output.status.success(), "{stderr}");
        if args[0] == "devices" {
            assert!(stderr.contains("mesa-vulkan-drivers"), "{stderr}");
        }
    }
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in
        [&["train"][..], &["nonsense"], &["train", "--data", "x", "--out", "y", "--mode", "z"]]
    {
        let output = u2seg(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
    for args in [&["--help"][..], &["train", "--help"], &["--version"]] {
        assert_eq!(u2seg(args).status.code(), Some(0), "{args:?}");
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn devices_lists_what_scripts_need() {
    let json: serde_json::Value = serde_json::from_str(&succeed(&["devices", "--json"])).unwrap();
    let first = &json.as_array().unwrap()[0];
    for key in [
        "index",
        "name",
        "backend",
        "device_type",
        "driver",
        "max_binding_bytes",
        "max_buffer_bytes",
        "f16",
        "subgroups",
        "cooperative",
        "timestamps",
    ] {
        assert!(!first[key].is_null(), "{key}");
    }
}
