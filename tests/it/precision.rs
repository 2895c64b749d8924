//! The program in f16 and within a budget of memory.

use std::path::Path;

use crate::common::program::*;
use u2seg::low_level::imaging::{Known, read_labels};

fn state(run: &Path) -> serde_json::Value {
    let (_, metadata) = u2seg::low_level::net::read_tensors(&run.join("last.safetensors")).unwrap();
    serde_json::from_str(&metadata["state"]).unwrap()
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_killed_run_in_f16_goes_on_to_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls", 3, 90.0);
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let more = ["--steps", "70", "--base", "4", "--precision", "f16"];
    let output = u2seg(&strs(&train(&[&data], &whole, &more)));
    let stderr = text(&output.stderr);
    assert!(output.status.success() && stderr.contains("loss scale 65536"), "{stderr}");
    kill_after_checkpoint(&strs(&train(&[&data], &killed, &more)), &killed);
    assert!(!killed.join("model.safetensors").exists());
    let config = std::fs::read_to_string(killed.join("config.toml")).unwrap();
    assert!(config.contains("precision = \"f16\""), "{config}");
    succeed(&["train", "--continue", "--out", path(&killed)]);
    assert!(weights(&whole) == weights(&killed), "the weights differ");
    let [a, b] = [&whole, &killed].map(|run| state(run)["loss_scale"].clone());
    assert_eq!(a, b);
    assert_eq!((a["good"].as_u64(), a["skipped"].as_u64()), (Some(70), Some(0)), "{a}");
    // it learned, and the model serves both precisions
    let losses: Vec<f64> = log(&whole).iter().map(|line| line.2).collect();
    assert!(losses[losses.len() - 1] < 0.6 * losses[0], "{losses:?}");
    let images = data.join("imagesTr/case_00.nii.gz");
    let masks = ["f32", "f16"].map(|precision| {
        let out = folder.path().join(format!("{precision}.nii.gz"));
        let args = ["predict", "-m", path(&whole), "-i", path(&images), "-o", path(&out)];
        succeed(&[&args[..], &["--precision", precision]].concat());
        read_labels(&out, &Known::any()).unwrap().as_slice().to_vec()
    });
    let differing = masks[0].iter().zip(&masks[1]).filter(|(a, b)| a != b).count();
    assert!(differing * 1000 < masks[0].len(), "{differing} voxels differ");
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_budget_is_planned_trained_within_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls", 3, 90.0);
    let plan = |more: &[&str]| {
        let args = [&["plan", "--data", path(&data), "--json"][..], &SMALL, more].concat();
        serde_json::from_str::<serde_json::Value>(&succeed(&args)).unwrap()["memory"].clone()
    };
    let total = |memory: &serde_json::Value| -> u64 {
        let parts = ["parameters", "activations", "uniforms", "read_back"];
        parts.iter().map(|part| memory[*part].as_u64().unwrap()).sum()
    };
    let all = plan(&[]);
    assert_eq!(all["recomputed"], 0);
    assert!(!all["peak"].as_array().unwrap().is_empty());
    let budget = format!("{}KiB", total(&all) * 7 / 8 / 1024);
    let less = plan(&["--vram", &budget]);
    assert!(total(&less) <= total(&all) * 7 / 8 && less["recomputed"].as_u64() > Some(0), "{less}");
    assert!(total(&plan(&["--precision", "f16"])) < total(&all) * 7 / 8);
    // the same weights, whatever the budget
    let runs = [("plain", &[][..]), ("tight", &["--vram", &budget][..])].map(|(name, more)| {
        let run = folder.path().join(name);
        succeed(&strs(&train(&[&data], &run, &[&["--steps", "6"], more].concat())));
        run
    });
    assert!(weights(&runs[0]) == weights(&runs[1]), "the weights differ");
    let refused = folder.path().join("refused");
    let message = fail(&strs(&train(&[&data], &refused, &["--vram", "1MiB"])));
    for part in ["--vram", "1 MiB", "at least", "--precision f16", "--patch"] {
        assert!(message.contains(part), "{part:?} is missing in: {message}");
    }
    for bad in ["4", "lots", "-1GiB"] {
        let args = ["plan", "--data", path(&data), "--vram", bad];
        assert_eq!(u2seg(&args).status.code(), Some(2), "{bad}");
    }
    let table = succeed(&["bench", "--dry-run", "--config", "hippo", "--vram", "200MiB"]);
    assert!(table.contains("f16 recomp.") && table.contains("computed twice"), "{table}");
}
