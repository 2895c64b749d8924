//! Losses, gradients and weights that are not finite: steps are left out, runs stop, and nothing of it reaches a file.

use std::path::Path;

use crate::common;
use crate::common::program::*;
use u2seg::low_level::check::{labels, random};
use u2seg::low_level::graph::{DType, Region};
use u2seg::low_level::net::{
    DomainAdapter, DomainNet, Downsample, Mode, NetConfig, Tensor, read_tensors, write_tensors,
};
use u2seg::low_level::ops::{LossWeights, Optimizer};
use u2seg::low_level::train::{DomainBatch, Footprint, Session, SessionSettings, Verdict};

const PATCH: [usize; 3] = [4, 6, 4];

/// A network of two domains with a channel and three classes each.
fn session(optimizer: Optimizer, dtype: DType) -> Session {
    let domain =
        |name: &str| DomainNet { name: name.into(), channels: 1, classes: 3, pools: [1, 1, 1] };
    let config = NetConfig {
        mode: Mode::Universal,
        adapter: DomainAdapter::Separable,
        downsample: Downsample::Full,
        base: 4,
        domains: vec![domain("A"), domain("B")],
    };
    let footprint = Footprint { dtype, vram: None, reserved: 0 };
    let settings =
        SessionSettings { footprint, ..SessionSettings::new(LossWeights::dice_ce(), optimizer) };
    let batches = vec![DomainBatch::new(1, PATCH); 2];
    let session = Session::new(&common::gpu(), &config, &batches, settings).unwrap();
    session.initialise(7).unwrap();
    session
}

fn state(session: &Session) -> Vec<Vec<Vec<u32>>> {
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    let read = |region| session.read(region).unwrap().into_iter().map(bits).collect();
    [Region::Weights, Region::Moment1, Region::Moment2].map(read).into()
}

/// Domains, and whether the image of the step is broken.
fn train(session: &mut Session, steps: &[(usize, bool)]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    let mut good = 0;
    for (domain, broken) in steps {
        let mut image: Vec<f32> = random(96, 5 + good).iter().map(|v| *v as f32).collect();
        if *broken {
            image[17] = f32::NAN;
        } else {
            good += 1;
        }
        let outcome = session.step(*domain, &image, &labels(96, 3, 6), 1e-2).unwrap();
        verdicts.extend(outcome.map(|outcome| outcome.verdict));
    }
    verdicts.extend(session.settle().unwrap().map(|outcome| outcome.verdict));
    verdicts
}

/// A training with steps that are not finite ends in the bits of one without them: neither weights nor moments nor the number of
/// Adam's updates know of them, whichever domain they were of.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn steps_that_are_not_finite_leave_no_trace() {
    let broken = [
        (0, true),
        (0, false),
        (1, false),
        (0, true),
        (0, true),
        (1, false),
        (1, true),
        (0, false),
        (0, false),
        (0, true),
        (1, false),
    ];
    let good: Vec<_> = broken.iter().copied().filter(|(_, broken)| !broken).collect();
    for optimizer in [Optimizer::adam(), Optimizer::Sgd { momentum: 0.9, weight_decay: 1e-2 }] {
        let (mut with, mut without) =
            (session(optimizer, DType::F32), session(optimizer, DType::F32));
        let verdicts = train(&mut with, &broken);
        let told: Vec<bool> = verdicts.iter().map(|v| *v == Verdict::LeftOut).collect();
        assert_eq!(told, broken.map(|(_, broken)| broken));
        assert!(train(&mut without, &good).iter().all(|verdict| *verdict == Verdict::Counted));
        assert!(state(&with) == state(&without), "{optimizer:?}");
        assert_eq!(with.counts(), without.counts());
        assert_eq!(with.counts().iter().max(), Some(&6));
    }
}

/// In f16 the scale falls first; then such steps are left out as in f32, and none counts as an update.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn the_loss_scale_falls_before_a_step_is_given_up() {
    let mut session = session(Optimizer::adam(), DType::F16);
    let before = state(&session);
    let verdicts = train(&mut session, &[(0, true); 19]);
    assert_eq!(verdicts[..16], [Verdict::Rescaled; 16]);
    assert_eq!(verdicts[16..], [Verdict::LeftOut; 3]);
    assert!(state(&session) == before && session.counts().iter().all(|count| *count == 0));
    let scale = session.loss_scale().unwrap().unwrap();
    assert_eq!((scale.scale, scale.skipped), (1.0, 19));
    assert_eq!(train(&mut session, &[(0, false)]), [Verdict::Counted]);
    assert_eq!(session.counts().iter().max(), Some(&1));
}

fn with_rate(run: &Path, rate: &str) {
    let file = run.join("config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let lines = text.lines().map(|line| match line.starts_with("lr = ") {
        true => format!("lr = {rate}\n"),
        false => format!("{line}\n"),
    });
    std::fs::write(&file, lines.collect::<String>()).unwrap();
}

/// Once `--lr 1e30` overwrote the good checkpoint with NaN, wrote such a model and said that all was well.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_diverging_run_stops_and_keeps_its_last_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls", 3, 90.0);
    let run = folder.path().join("run");
    let message = fail(&strs(&train_args(&data, &run, &["--lr", "1e30", "--steps", "60"])));
    for part in ["--lr", "8 steps in a row", "Balls: case_0", "about voxel", "finite"] {
        assert!(message.contains(part), "{part:?} is missing in: {message}");
    }
    assert!(!run.join("model.safetensors").exists() && !run.join("last.safetensors").exists());
    let lines = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert!(last["skipped"].as_u64() >= Some(8), "{last}");
    assert!(last["left_out"][0]["case"].as_str().unwrap().starts_with("case_0"), "{last}");
    // a run that went well, then goes on at such a rate
    let run = folder.path().join("good");
    succeed(&strs(&train_args(&data, &run, &["--steps", "50"])));
    let [checkpoint, model] = ["last.safetensors", "model.safetensors"].map(|f| run.join(f));
    std::fs::remove_file(&model).unwrap();
    let config = std::fs::read_to_string(run.join("config.toml")).unwrap();
    std::fs::write(run.join("config.toml"), config.replace("steps = 50", "steps = 200")).unwrap();
    with_rate(&run, "1e30");
    let before = std::fs::read(&checkpoint).unwrap();
    let message = fail(&["train", "--continue", "--out", path(&run)]);
    assert!(message.contains("steps in a row"), "{message}");
    assert!(std::fs::read(&checkpoint).unwrap() == before && !model.exists());
    // a lower one goes on from it
    with_rate(&run, "1e-3");
    succeed(&["train", "--continue", "--out", path(&run)]);
    assert!(model.exists());
    let (tensors, _) = read_tensors(&run.join("last.safetensors")).unwrap();
    assert!(tensors.values().flat_map(|t| &t.values).all(|value| value.is_finite()));
}

fn train_args(data: &Path, run: &Path, more: &[&str]) -> Vec<String> {
    crate::common::program::train(
        &[data],
        run,
        &[&["--base", "4", "--batch", "1"][..], more].concat(),
    )
}

#[test]
fn tensors_that_are_not_finite_are_neither_written_nor_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let tensors = |value: f32| {
        let tensor = Tensor { dims: vec![3], values: vec![1.0, value, 2.0] };
        [("down.weight".to_string(), tensor)].into()
    };
    write_tensors(&file, &tensors(1.5), Default::default()).unwrap();
    let whole = std::fs::read(&file).unwrap();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = write_tensors(&file, &tensors(value), Default::default()).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("tensor down.weight") && error.contains("model.safetensors"),
            "{error}"
        );
        assert!(std::fs::read(&file).unwrap() == whole, "the file changed");
        let mut broken = whole.clone();
        let at = broken.len() - 8;
        broken[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let other = folder.path().join("broken.safetensors");
        std::fs::write(&other, broken).unwrap();
        let error = read_tensors(&other).unwrap_err().to_string();
        assert!(error.contains(" at 1 of tensor down.weight"), "{error}");
    }
}

/// Weights that are finite and far too large: once a mask without a voxel was written for them.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn results_that_are_not_finite_make_no_mask() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("Balls");
    dataset(&data, "Balls", 2, 90.0);
    let run = folder.path().join("run");
    succeed(&strs(&train_args(&data, &run, &["--steps", "1", "--fold", "none"])));
    let model = run.join("model.safetensors");
    let (mut tensors, metadata) = read_tensors(&model).unwrap();
    tensors.values_mut().flat_map(|tensor| &mut tensor.values).for_each(|value| *value *= 1e30);
    write_tensors(&model, &tensors, metadata).unwrap();
    let (image, mask) = (data.join("imagesTr/case_00.nii.gz"), folder.path().join("mask.nii.gz"));
    let args = ["predict", "-m", path(&model), "-i", path(&image), "-o", path(&mask)];
    let message = fail(&args);
    assert!(message.contains("case_00") && message.contains("not finite"), "{message}");
    assert!(!mask.exists());
}
