//! Held-out cases while a run trains: what is scored of them, the weights that are kept, and which of them a model gets; runs that
//! start from another model's weights, and runs that are made longer.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::common;
use crate::common::program::*;
use u2seg::Result;
use u2seg::low_level::dataset::Fold;
use u2seg::low_level::dataset::prepared::Place;
use u2seg::low_level::domain::PlanOptions;
use u2seg::low_level::exec::LossScale;
use u2seg::low_level::graph::Region;
use u2seg::low_level::net::{
    Chosen, DomainAdapter, DomainNet, Downsample, Mode, Model, NetConfig, read_tensors,
};
use u2seg::low_level::ops::{LossWeights, Optimizer, average_share};
use u2seg::low_level::run::{CaseDone, Observer, Run, Segmenting};
use u2seg::low_level::train::{
    DomainBatch, Length, PatchScores, RunConfig, Session, SessionSettings, Step, Targets,
    Validation,
};

fn options() -> PlanOptions {
    let mut options = PlanOptions::default();
    options.patch = Some([16; 3]);
    options.batch = Some(1);
    options
}

fn config(data: &[&Path], steps: u64, every: u64) -> RunConfig {
    RunConfig {
        base: 4,
        length: Length::Steps(steps),
        fold: Fold::Count(1),
        validation: Some(Validation { every: Some(every), patches: 3, ..Validation::default() }),
        checkpoint_every: 8,
        cache: Place::Nowhere,
        ..RunConfig::new(data.iter().map(|dir| dir.to_path_buf()).collect())
    }
}

/// Notes scores and the choice, and stops at a step.
#[derive(Default)]
struct Notes {
    stop: Option<u64>,
    scores: Vec<PatchScores>,
    chosen: Option<Chosen>,
    /// Cases that were segmented, at each time that some were about to be.
    segmented: Arc<Mutex<Vec<usize>>>,
}

impl Observer for Notes {
    fn step(&mut self, step: &Step) -> Result<ControlFlow<()>> {
        let stops = self.stop == Some(step.number);
        Ok(if stops { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn patches_scored(&mut self, scores: &[PatchScores]) -> Result<()> {
        self.scores.extend(scores.iter().cloned());
        Ok(())
    }

    fn segmenting(&mut self, work: &Segmenting) -> CaseDone {
        assert_eq!(work.cases, 1);
        let all = self.segmented.clone();
        all.lock().unwrap().push(0);
        Box::new(move || *all.lock().unwrap().last_mut().unwrap() += 1)
    }

    fn weights_chosen(&mut self, chosen: &Chosen) -> Result<()> {
        self.chosen = Some(chosen.clone());
        Ok(())
    }
}

/// The lines of a log that hold scores of held-out patches.
fn scores(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| !line["validation"].is_null()).collect()
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn held_out_patches_are_scored_and_a_stopped_run_ends_as_a_whole_one() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("A"), folder.path().join("B"));
    dataset(&a, "A", 3, 90.0);
    dataset(&b, "B", 3, -90.0);
    let gpu = common::gpu();
    let config = config(&[&a, &b], 40, 6);
    let whole = folder.path().join("whole");
    let mut notes = Notes::default();
    let mut run = Run::begin(&gpu, config.clone(), &options(), &whole, &mut notes).unwrap();
    assert!(run.complete(&mut notes).unwrap());
    // lets go of the folder
    drop(run);
    let steps: Vec<u64> = scores(&whole).iter().map(|l| l["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [6, 6, 12, 12, 18, 18, 24, 24, 30, 30, 36, 36]);
    // balls are learned: the log says what the observer is told
    let last = notes.scores.last().unwrap();
    assert!(last.domain == "B" && last.mean.unwrap() > 0.3, "{last:?}");
    let line = scores(&whole).pop().unwrap();
    let near = |value: &serde_json::Value, score: Option<f64>| {
        (value.as_f64().unwrap() - score.unwrap()).abs() < 1e-4
    };
    assert!(near(&line["validation"]["dice"]["ball"], last.dice[0].1), "{line}");
    assert!(near(&line["validation"]["smoothed"], last.smoothed), "{line}");
    // the weights of the model are the best of those on the whole held-out cases, and the file says so
    let chosen = notes.chosen.unwrap();
    let most = chosen.dice.values().copied().fold(0.0, f64::max);
    assert_eq!((chosen.dice[&chosen.weights], chosen.cases), (most, 2));
    assert!(chosen.dice.len() >= 2, "{chosen:?}");
    let page = u2seg::low_level::run::report(&whole).unwrap();
    assert!(page.runs[0].weights.contains(&chosen.called()), "{}", page.runs[0].weights);
    let compared = &page.runs[0].compared.rows;
    assert_eq!(compared.len(), chosen.dice.len());
    assert_eq!(compared[0].cells[0].text, format!("{} (chosen)", chosen.weights));
    // each of the weights that are compared and then the chosen ones, by the case of each domain
    let each = vec![1; 2 * (chosen.dice.len() + 1)];
    assert_eq!(*notes.segmented.lock().unwrap(), each);
    assert_eq!(Model::read(&whole.join("model.safetensors")).unwrap().chosen, Some(chosen));
    let best = read_tensors(&whole.join("best.safetensors")).unwrap().0;

    for stops in [vec![12], vec![7, 25]] {
        let stopped = folder.path().join(format!("{stops:?}"));
        let mut run =
            Some(Run::begin(&gpu, config.clone(), &options(), &stopped, &mut ()).unwrap());
        for stop in stops {
            let mut notes = Notes { stop: Some(stop), ..Notes::default() };
            let mut going = match run.take() {
                Some(run) => run,
                None => Run::open(&gpu, &stopped, &mut ()).unwrap(),
            };
            assert!(!going.train(&mut notes).unwrap());
        }
        let mut run = Run::open(&gpu, &stopped, &mut ()).unwrap();
        assert!(run.complete(&mut ()).unwrap());
        for file in ["model.safetensors", "best.safetensors"] {
            let [one, other] = [&whole, &stopped].map(|out| std::fs::read(out.join(file)).unwrap());
            assert!(one == other, "{file} differs");
        }
        let tensors = |out: &PathBuf| read_tensors(&out.join("last.safetensors")).unwrap().0;
        assert!(tensors(&whole) == tensors(&stopped), "the averages differ");
        assert_eq!((log(&whole), scores(&whole)), (log(&stopped), scores(&stopped)));
    }
    // the best weights are lost: the others are chosen of
    std::fs::write(whole.join("best.safetensors"), b"no model").unwrap();
    let mut notes = Notes::default();
    assert!(Run::open(&gpu, &whole, &mut ()).unwrap().complete(&mut notes).unwrap());
    assert!(!notes.chosen.unwrap().dice.contains_key("best"));
    assert!(!best.is_empty());
}

/// Twenty of forty cases chose weights that were worse than the last on all forty.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn weights_are_chosen_by_all_cases_of_a_fold() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("A");
    dataset(&data, "A", 23, 90.0);
    let gpu = common::gpu();
    let config = RunConfig { fold: Fold::Count(21), ..config(&[&data], 4, 2) };
    let out = folder.path().join("run");
    let mut run = Run::begin(&gpu, config, &options(), &out, &mut ()).unwrap();
    assert!(run.complete(&mut ()).unwrap());
    let chosen = Model::read(&out.join("model.safetensors")).unwrap().chosen.unwrap();
    assert_eq!(chosen.cases, 21, "{chosen:?}");
}

/// The network alone makes the logits that a step does, and an average is that of the weights of all updates.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_session_runs_forward_alone_and_averages_its_weights() {
    let domain = |name: &str, classes| DomainNet {
        name: name.into(),
        channels: 1,
        classes,
        pools: [1, 1, 1],
    };
    let network = NetConfig {
        mode: Mode::Universal,
        adapter: DomainAdapter::Separable,
        downsample: Downsample::Full,
        base: 4,
        domains: vec![domain("a", 3), domain("b", 2)],
    };
    let partial = Targets { partial: true, ..Targets::default() };
    let batches = [
        DomainBatch { targets: partial, ..DomainBatch::new(2, [8; 3]) },
        DomainBatch::new(1, [8; 3]),
    ];
    let sgd = Optimizer::Sgd { momentum: 0.9, weight_decay: 0.0 };
    let settings = SessionSettings {
        average: Some(0.999),
        ..SessionSettings::new(LossWeights::dice_ce(), sgd)
    };
    let gpu = common::gpu();
    let mut session = Session::new(&gpu, &network, &batches, settings).unwrap();
    session.initialise(3).unwrap();
    let image: Vec<f32> = (0..1024).map(|i| (i * 7919 % 613) as f32 / 300.0 - 1.0).collect();
    let labels: Vec<u8> = (0..1024).map(|i| u8::from(i % 5 == 0)).collect();
    session.gradients(0, &image, &labels).unwrap();
    let whole = session.logits(0).unwrap();
    // the backward pass took the memory of what it had no more need of
    session.upload(0, &session.pack(0, &image, &labels).unwrap()).unwrap();
    session.forward(0).unwrap();
    assert_eq!(session.logits(0).unwrap(), whole);
    assert_eq!(session.labels(0, 510..515).unwrap(), [1, 0, 0, 0, 0]);
    // the layout of a class that has a block of its own
    let packed = session.packed_logits(0, 4..8).unwrap();
    assert_eq!(packed[..3], [whole[1], whole[512 + 1], whole[1024 + 1]]);

    let name = "down_samps.0.op1.conv.weight";
    let at = session.store().position(name).unwrap();
    let mut expected: Vec<f64> = Vec::new();
    for step in 1..=6u64 {
        // shared weights are updated by both domains
        match step % 2 {
            0 => session.step(0, &image, &labels, 0.01).unwrap(),
            _ => session.step(1, &image[..512], &labels[..512], 0.01).unwrap(),
        };
        session.settle().unwrap();
        let weights = &session.read(Region::Weights).unwrap()[at];
        expected.resize(weights.len(), 0.0);
        let share = f64::from(average_share(0.999, step));
        for (mean, weight) in expected.iter_mut().zip(weights) {
            *mean += share * (f64::from(*weight) - *mean);
        }
    }
    let found = &session.read(Region::Average).unwrap()[at];
    let far = found.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs());
    assert!(far.fold(0.0, f64::max) < 1e-6);
    assert!(session.loss_scale().unwrap().is_none_or(|scale| scale == LossScale::ONE));
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_run_starts_from_a_model_says_what_is_held_out_and_is_made_longer() {
    let folder = tempfile::tempdir().unwrap();
    let (data, cores) = (folder.path().join("A"), folder.path().join("Cores"));
    dataset(&data, "A", 10, 90.0);
    let labels = serde_json::json!({"labels": {"background": 0, "body": 1, "core": 2}, "name": "A",
        "numTraining": 3});
    core_dataset(&cores, 3, labels, |_, _| {});
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    let small = ["--base", "4", "--batch", "1", "--tune", "off", "--steps", "4"];
    // one of ten is held out unless the user says otherwise
    let output =
        u2seg(&strs(&train(&[&data], &first, &[&small[..], &["--validate-every", "2"]].concat())));
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(
        stderr.contains("9 training cases, 1 held out") && stderr.contains("pseudo-Dice"),
        "{stderr}"
    );
    assert!(stderr.contains("the model has the"), "{stderr}");
    let steps: Vec<u64> = log(&first).iter().map(|line| line.0).collect();
    assert_eq!(steps, [1, 4]);
    let config = std::fs::read_to_string(first.join("config.toml")).unwrap();
    assert!(config.contains("fold = \"auto\"") && config.contains("every = 2"), "{config}");
    // predict says which weights it takes
    let image = data.join("imagesTr/case_00.nii.gz");
    let mask = folder.path().join("mask.nii.gz");
    let predict = u2seg(&["predict", "-m", path(&first), "-i", path(&image), "-o", path(&mask)]);
    let stderr = text(&predict.stderr);
    assert!(stderr.contains("of step") && stderr.contains("mean Dice"), "{stderr}");

    // a network with another class starts from it
    let more = ["--init", path(&first), "--fold", "none"];
    let output = u2seg(&strs(&train(&[&cores], &second, &[&small[..], &more].concat())));
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("nothing is held out"), "{stderr}");
    let list = stderr.lines().find(|line| line.contains("taken and extended")).unwrap();
    assert!(list.contains("out_tr_list.0"), "{list}");
    assert!(!second.join("best.safetensors").exists());
    let other = folder.path().join("other");
    let more = ["--init", path(&first), "--base", "8", "--mode", "shared"];
    let message = fail(&strs(&train(&[&cores], &other, &[&small[2..], &more].concat())));
    assert!(message.contains("no weight fits") && message.contains("base 4"), "{message}");

    // longer, in all, and not shorter
    let longer = |steps: &str| {
        ["train", "--continue", "--out", path(&first), "--steps", steps].map(String::from)
    };
    let message = fail(&strs(&longer("4")));
    assert!(message.contains("--steps: found 4; expected more than the 4"), "{message}");
    succeed(&strs(&longer("6")));
    assert_eq!(log(&first).last().unwrap().0, 6);
    let config = std::fs::read_to_string(first.join("config.toml")).unwrap();
    assert!(config.contains("steps = 6"), "{config}");
    // what nothing reads is refused
    for (file, text) in [("config.toml", "lerning_rate = 0.1\n"), ("plan.json", "")] {
        let whole = std::fs::read_to_string(first.join(file)).unwrap();
        let changed = match file {
            "config.toml" => format!("{text}{whole}"),
            _ => whole.replacen("\"batch\"", "\"bach\": 2, \"batch\"", 1),
        };
        std::fs::write(first.join(file), changed).unwrap();
        let message = fail(&["train", "--continue", "--out", path(&first)]);
        assert!(message.contains("the unknown entry"), "{message}");
        std::fs::write(first.join(file), whole).unwrap();
    }
}
