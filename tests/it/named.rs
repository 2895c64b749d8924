//! Models by name: the shipped one, and those in a folder of models.

use std::path::Path;
use std::process::Output;

use sha2::{Digest as _, Sha256};

use crate::common::program::*;

/// Runs the program with a folder of models.
fn with_models(models: &Path, args: &[&str]) -> Output {
    command(args).env("U2SEG_MODELS", models).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn models_are_listed_found_and_fetched_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    let list = stdout(&with_models(&models, &["models"]));
    assert!(list.starts_with("hippocampus: ") && list.contains("part of u2seg"), "{list}");
    for part in ["Hippocampus: Anterior, Posterior", "Dice 0.8", "licence CC-BY-SA-4.0"] {
        assert!(list.contains(part), "{list}");
    }
    // a copy of the shipped one, fetched under another name
    let file = folder.path().join("mine.safetensors");
    let export = ["export", "-m", "hippocampus", "--domain", "Hippocampus", "-o", path(&file)];
    stdout(&with_models(&models, &export));
    let bytes = std::fs::read(&file).unwrap();
    let server = crate::fetch::server::Server::start(&bytes, &[]);
    let sum: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let url = server.at("other.safetensors");
    let there = stdout(&with_models(&models, &["fetch", &url, "--sha256", &sum]));
    assert_eq!(there.trim(), path(&models.join("other.safetensors")));
    std::fs::write(models.join("broken.safetensors"), b"no model").unwrap();
    let json = stdout(&with_models(&models, &["models", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let names: Vec<&str> =
        json.as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["broken", "other", "hippocampus"]);
    assert!(json[0]["error"].is_string() && json[1]["error"].is_null());
    assert_eq!(json[1]["domains"][0]["classes"][0], "Anterior");
    let told = |name: &str| -> serde_json::Value {
        let told = stdout(&with_models(&models, &["info", name, "--json"]));
        serde_json::from_str(&told).unwrap()
    };
    let (one, other) = (told("hippocampus"), told("other"));
    for part in ["network", "domains", "parts", "total"] {
        assert_eq!(one[part], other[part], "{part}");
    }
    // what is no model does not get there
    let server = crate::fetch::server::Server::start(b"no model", &[]);
    let sum: String = Sha256::digest(b"no model").iter().map(|b| format!("{b:02x}")).collect();
    let url = server.at("wrong.safetensors");
    let wrong = with_models(&models, &["fetch", &url, "--sha256", &sum]);
    assert!(!wrong.status.success() && !models.join("wrong.safetensors").exists());
    // a name that is none, and one that a run could not come back to
    let none = with_models(&models, &["info", "hipocampus"]);
    let message = text(&none.stderr);
    let part = "a name: broken, other, hippocampus. `u2seg models` lists";
    assert!(message.contains(part), "{message}");
    // of a file that is not there, and of a folder without a model
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    for wanted in [folder.path().join("none.safetensors"), empty] {
        let init = ["train", "--data", "x", "--out", "y", "--init", path(&wanted)];
        let adapt = ["adapt", "--data", "x", "--out", "y", "-m", path(&wanted)];
        for args in [&init[..], &adapt, &["info", path(&wanted)]] {
            let message = fail(args);
            assert!(message.contains("`u2seg models` lists"), "{message}");
        }
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn trainings_start_from_a_shipped_model_and_come_back_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    dataset(&data, "Balls", 3, 90.0);
    let [started, adapted] = ["started", "adapted"].map(|name| folder.path().join(name));
    let more = ["--steps", "2", "--base", "8", "--init", "hippocampus"];
    let ran = u2seg(&strs(&train(&[&data], &started, &more)));
    let message = text(&ran.stderr);
    assert!(ran.status.success() && message.contains("hippocampus: "), "{message}");
    let config = std::fs::read_to_string(started.join("config.toml")).unwrap();
    assert!(config.contains("init = \"hippocampus\""), "{config}");
    let args = ["adapt", "-m", "hippocampus", "--data", path(&data), "--out", path(&adapted)];
    let small = ["--patch", "16,16,16", "--steps", "2", "--tune", "off", "--cache", "none"];
    succeed(&[&args[..], &small].concat());
    // from wherever it goes on, the name stays that of the program's model
    let mut on = command(&["adapt", "--out", path(&adapted), "--continue", "--steps", "3"]);
    let on = on.current_dir(folder.path()).output().unwrap();
    assert!(on.status.success(), "{}", text(&on.stderr));
    let list = succeed(&["info", path(&adapted)]);
    assert!(list.contains("\nHippocampus\n") && list.contains("\nBalls\n"), "{list}");
}

#[test]
#[cfg_attr(not(real_images), ignore = "no real images: set U2SEG_DATA")]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn the_shipped_model_segments_what_it_never_saw() {
    let data = crate::common::data_dir().join("Task04_Hippocampus");
    let folder = tempfile::tempdir().unwrap();
    let (images, masks) = (folder.path().join("images"), folder.path().join("masks"));
    std::fs::create_dir(&images).unwrap();
    let held_out = include_str!("../../scripts/train_hippocampus.txt");
    let cases: Vec<&str> = held_out.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(cases.len(), 20);
    for case in &cases[..4] {
        let name = format!("{case}.nii.gz");
        std::fs::copy(data.join("imagesTr").join(&name), images.join(&name)).unwrap();
    }
    succeed(&["predict", "-m", "hippocampus", "-i", path(&images), "-o", path(&masks)]);
    let summary = folder.path().join("summary.json");
    let labels = folder.path().join("labels");
    std::fs::create_dir(&labels).unwrap();
    for case in &cases[..4] {
        let name = format!("{case}.nii.gz");
        std::fs::copy(data.join("labelsTr").join(&name), labels.join(&name)).unwrap();
    }
    succeed(&["evaluate", "-p", path(&masks), "-g", path(&labels), "-o", path(&summary)]);
    let summary: serde_json::Value =
        serde_json::from_slice(&std::fs::read(summary).unwrap()).unwrap();
    let dice = summary["foreground_mean"]["Dice"].as_f64().unwrap();
    assert!(dice > 0.85, "{dice}");
}
