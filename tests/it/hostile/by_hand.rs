//! Hostile input that was found by hand or by a reader: one test a kind.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::common::program::{fail, path, text, u2seg};
use u2seg::low_level::dataset::Dataset;
use u2seg::low_level::net::{Model, read_tensors};
use u2seg::low_level::run::RunFolder;

fn seed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name)
}

/// What is said of a model whose network and plans were changed.
fn told(change: impl Fn(&mut serde_json::Value)) -> String {
    let file = seed("model/clean.safetensors");
    let (tensors, mut metadata) = read_tensors(&file).unwrap();
    let part = |metadata: &HashMap<String, String>, name: &str| -> serde_json::Value {
        serde_json::from_str(&metadata[name]).unwrap()
    };
    let mut both = serde_json::json!({
        "network": part(&metadata, "network"),
        "domains": part(&metadata, "domains"),
    });
    change(&mut both);
    for name in ["network", "domains"] {
        metadata.insert(name.into(), both[name].to_string());
    }
    Model::from_parts(&file, tensors, &metadata).unwrap_err().to_string()
}

#[test]
fn the_plan_of_a_model_is_checked_against_its_network() {
    let set = |pointer: &'static str, value: serde_json::Value| {
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        told(|both| both.pointer_mut(parent).unwrap()[field] = value.clone())
    };
    let huge = 1u64 << 62;
    for (pointer, value, part) in [
        ("/domains", serde_json::json!([]), "1 domains of the network and 0 plans"),
        ("/domains/0/name", "Other".into(), "name \"Toy\" of the network's domain Toy"),
        ("/domains/0/pools", [1, 1, 1].into(), "pools [0, 0, 0] of the network's domain Toy"),
        ("/network/domains/0/pools", [1, 1, 1].into(), "pools [1, 1, 1] of the network's"),
        ("/network/domains/0/classes", 0.into(), "classes 0 of the network's domain Toy"),
        ("/network/domains/0/channels", 2.into(), "channels 2 of the network's domain Toy"),
        ("/network/base", 0.into(), "base 0 of domain Toy: 1 to 1024 is needed"),
        ("/network/base", huge.into(), "base 4611686018427387904"),
        ("/domains/0/channels", huge.into(), "channels 4611686018427387904"),
        ("/domains/0/patch", [huge, 4, 4].into(), "patch [4611686018427387904, 4, 4]"),
        ("/domains/0/cut", [1_000_000_000, 4, 4].into(), "cut [1000000000, 4, 4]"),
        ("/domains/0/spacing", [1.0, 0.0, 1.0].into(), "spacing [1.0, 0.0, 1.0]"),
        ("/domains/0/clean_up/0/steps/0/closing", (1u64 << 63).into(), "closings 0 to 64"),
        ("/domains/0/normalisation/lower", 1e300.into(), "normalisation Fixed { lower: inf"),
        ("/domains/0/normalisation/lower", 1e9.into(), "normalisation Fixed { lower: 10000"),
    ] {
        let message = set(pointer, value);
        assert!(message.contains(part) && message.contains("clean.safetensors"), "{message}");
        assert!(!message.contains("internal"), "{message}");
    }
    let none = told(|both| {
        both["domains"] = serde_json::json!([]);
        both["network"]["domains"] = serde_json::json!([]);
    });
    assert!(none.contains("0 domains of the network"), "{none}");
    let twice = told(|both| {
        for part in ["/domains", "/network/domains"] {
            let list = both.pointer_mut(part).unwrap().as_array_mut().unwrap();
            list.push(list[0].clone());
        }
    });
    assert!(twice.contains("two domains with the name \"Toy\""), "{twice}");
}

#[test]
fn names_that_differ_in_case_are_told_apart() {
    let mut model = Model::read(&seed("model/separable.safetensors")).unwrap();
    assert_eq!(model.domain(Some("toy")).unwrap(), 0);
    let mut other = model.domains[0].clone();
    other.name = "toy".into();
    model.domains.push(other);
    for (name, index) in [("Toy", 0), ("toy", 1)] {
        assert_eq!(model.domain(Some(name)).unwrap(), index);
    }
    let message = model.domain(Some("TOY")).unwrap_err().to_string();
    assert!(message.contains("one of Toy, toy"), "{message}");
}

#[test]
fn settings_that_nothing_can_be_trained_with_name_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let good = std::fs::read_to_string(seed("config/separable.toml")).unwrap();
    let read = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        std::fs::write(folder.path().join("config.toml"), good.replace(from, to)).unwrap();
        RunFolder::read(folder.path()).map(|_| ()).map_err(|e| e.to_string())
    };
    assert_eq!(read("base = 1", "base = 2"), Ok(()));
    for (from, to, part) in [
        ("base = 1", "base = 0", "lr, base"),
        ("dice = 1.0", "dice = nan", "loss"),
        ("schedule = \"turns\"", "schedule = { weights = [nan] }", "schedule"),
        ("schedule = \"turns\"", "schedule = { weights = [1.0, 1.0] }", "schedule"),
        ("scale_prob = ", "scale_prob = 1", "augment.scale_prob"),
    ] {
        let message = read(from, to).unwrap_err();
        assert!(message.contains(part) && message.contains("config.toml"), "{message}");
    }
}

#[test]
fn a_description_is_not_larger_than_descriptions_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(folder.path().join("dataset.json")).unwrap();
    file.set_len(40 << 20).unwrap();
    let message = Dataset::open(folder.path()).unwrap_err().to_string();
    assert!(message.contains("dataset.json: found 40 MiB of text"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_pipe_is_nowhere_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let pipe = |file: &Path| {
        let made = std::process::Command::new("mkfifo").arg(file).status();
        assert!(made.unwrap().success());
    };
    pipe(&at("model.safetensors"));
    let model = at("model.safetensors");
    let told = fail(&["info", path(&model)]);
    assert!(told.contains("model.safetensors: found a pipe or a device"), "{told}");
    // as a label of a dataset whose cases lie in folders, and as a mask to score
    let data = at("data");
    for part in ["imagesTr", "labelsTr"] {
        std::fs::create_dir_all(data.join(part)).unwrap();
        pipe(&data.join(part).join(if part == "imagesTr" { "a_0000.nii.gz" } else { "a.nii.gz" }));
    }
    let description = r#"{"channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 1}}"#;
    std::fs::write(data.join("dataset.json"), description).unwrap();
    for args in [&["verify"][..], &["plan"], &["prepare"]] {
        let told = fail(&[args, &["--data", path(&data)]].concat());
        assert!(told.contains("a pipe or a device") || args[0] == "verify", "{told}");
    }
    let labels = data.join("labelsTr");
    let output = u2seg(&["evaluate", "-p", path(&labels), "-g", path(&labels)]);
    let told = text(&output.stderr);
    assert!(output.status.code() == Some(1) && told.contains("a pipe or a device"), "{told}");
}
