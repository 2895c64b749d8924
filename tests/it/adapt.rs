//! Adding a domain to a model, cutting one out, and weights that travel to and from the published network.

use std::path::Path;

use crate::common::program::*;
use u2seg::low_level::imaging::{Known, read_labels};
use u2seg::low_level::net::{Model, read_tensors, write_tensors};

fn predict(model: &Path, data: &Path, domain: &str, out: &Path) -> Vec<u8> {
    let image = data.join("imagesTr/case_00.nii.gz");
    let args =
        ["predict", "-m", path(model), "-i", path(&image), "-o", path(out), "--domain", domain];
    succeed(&args);
    read_labels(out, &Known::any()).unwrap().as_slice().to_vec()
}

fn adapt(model: &Path, data: &Path, out: &Path, more: &[&str]) -> String {
    let args = [
        &["adapt", "-m", path(model), "--data", path(data), "--out", path(out)][..],
        &["--patch", "16,16,16", "--batch", "2"],
        more,
    ];
    succeed(&args.concat())
}

fn shared_bits(model: &Model) -> Vec<(String, Vec<u32>)> {
    let shared = model.shared().unwrap();
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect();
    shared.iter().map(|(name, tensor)| (name.clone(), bits(&tensor.values))).collect()
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn adapting_adds_a_domain_and_leaves_the_old_ones_bit_identical() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let [a, b, c] = ["A", "B", "C"].map(|name| dir.join(name));
    dataset(&a, "Bright", 2, 90.0);
    dataset(&b, "Dark", 2, -90.0);
    dataset(&c, "Faint", 3, 60.0);
    let old = dir.join("old");
    succeed(&strs(&train(&[&a, &b], &old, &["--steps", "30"])));
    let before = predict(&old, &b, "Dark", &dir.join("before.nii.gz"));
    let new = dir.join("new");
    let stdout = adapt(&old, &c, &new, &["--steps", "60", "--hold-out", "case_02"]);
    assert!(stdout.contains("parameters of its own"), "{stdout}");
    assert_eq!(predict(&new, &b, "Dark", &dir.join("after.nii.gz")), before);
    let [old, merged] =
        [&old, &new].map(|run| Model::read(&run.join("model.safetensors")).unwrap());
    assert!(shared_bits(&old) == shared_bits(&merged), "shared weights changed");
    for (name, tensor) in &old.weights {
        assert!(merged.weights[name] == *tensor, "{name} changed");
    }
    let grown = merged.weights.keys().filter(|name| !old.weights.contains_key(*name));
    let added = Model::read(&new.join("domain.safetensors")).unwrap();
    assert_eq!(grown.count(), added.weights.len() - added.shared().unwrap().len());
    // the new domain learned
    let summary = std::fs::read(new.join("validation/Faint/summary.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    let dice = summary["foreground_mean"]["Dice"].as_f64().unwrap();
    assert!(dice > 0.6, "Dice {dice} of the new domain");

    // cut out and merged again: the same file
    let (alone, again) = (dir.join("alone.safetensors"), dir.join("again.safetensors"));
    succeed(&["export", "-m", path(&new), "--domain", "Faint", "-o", path(&alone)]);
    assert_eq!(Model::read(&alone).unwrap(), added);
    let one = dir.join("old/model.safetensors");
    succeed(&["merge", "-m", path(&one), "--add", path(&alone), "-o", path(&again)]);
    assert_eq!(Model::read(&again).unwrap(), merged);
    // a domain on other shared weights is refused by their hash
    let other = dir.join("other");
    succeed(&strs(&train(&[&c], &other, &["--steps", "2", "--seed", "9"])));
    let message = fail(&["merge", "-m", path(&one), "--add", path(&other), "-o", path(&again)]);
    assert!(message.contains("hash") && message.contains("u2seg adapt"), "{message}");
    // a second domain of the same name is refused
    let twice = dir.join("twice");
    let args =
        ["adapt", "-m", path(&new), "--data", path(&c), "--out", path(&twice), "--steps", "2"];
    let message = fail(&args);
    assert!(message.contains("Faint"), "{message}");
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn the_published_freezing_trains_the_samplers() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("A"), folder.path().join("B"));
    dataset(&a, "Bright", 2, 90.0);
    dataset(&b, "Dark", 2, -90.0);
    let (old, new) = (folder.path().join("old"), folder.path().join("new"));
    succeed(&strs(&train(&[&a], &old, &["--steps", "4"])));
    adapt(&old, &b, &new, &["--steps", "4", "--published"]);
    let [old, new] = [&old, &new].map(|run| Model::read(&run.join("model.safetensors")).unwrap());
    assert_eq!(new.domains.len(), 1);
    // biases before a norm have no gradient and stay in any case
    for (name, tensor) in new.shared().unwrap().into_iter().filter(|(n, _)| n.ends_with("weight")) {
        let block = name.starts_with("down_blocks.") || name.starts_with("up_blocks.");
        assert_eq!(old.weights[&name] == tensor, block, "{name}");
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn state_dicts_travel_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("A");
    dataset(&data, "Bright", 2, 90.0);
    for (mode, adapter, downsample) in [
        ("universal", "separable", "full"),
        ("universal", "separable", "separable"),
        ("universal", "series", "separable"),
        ("universal", "parallel", "full"),
        ("independent", "separable", "full"),
    ] {
        let run = folder.path().join(format!("{mode}-{adapter}-{downsample}"));
        let more =
            ["--steps", "2", "--mode", mode, "--adapter", adapter, "--downsample", downsample];
        succeed(&strs(&train(&[&data], &run, &more)));
        let file = run.join("model.safetensors");
        // what PyTorch saves: the same tensors, nothing about domains
        let (tensors, _) = read_tensors(&file).unwrap();
        let state = folder.path().join("state.safetensors");
        write_tensors(&state, &tensors, Default::default()).unwrap();
        let back = folder.path().join("back.safetensors");
        let plan = run.join("plan.json");
        succeed(&["import", path(&state), "--plan", path(&plan), "-o", path(&back)]);
        let (model, original) = (Model::read(&back).unwrap(), Model::read(&file).unwrap());
        assert_eq!(model.weights, original.weights);
        assert_eq!(
            (&model.network.mode, &model.domains),
            (&original.network.mode, &original.domains)
        );
        assert_eq!(model.network.downsample, original.network.downsample);
        let alone = folder.path().join("alone.safetensors");
        succeed(&["export", "-m", path(&back), "--domain", "Bright", "-o", path(&alone)]);
        assert_eq!(Model::read(&alone).unwrap(), model);
        assert!(succeed(&["info", path(&back), "--parameters"]).contains("independent networks"));
        // a tensor too few is named
        let name = "out_tr_list.0.conv1.bias";
        let fewer = tensors.into_iter().filter(|(n, _)| n != name).collect();
        write_tensors(&state, &fewer, Default::default()).unwrap();
        let message = fail(&["import", path(&state), "--plan", path(&plan), "-o", path(&back)]);
        assert!(message.contains(name), "{message}");
    }
}
