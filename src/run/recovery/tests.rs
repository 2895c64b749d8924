//! The device is lost, or memory refused, at calls of a short training and a short prediction.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::*;
use crate::base::{Error, GpuFault, Stop, locked};
use crate::dataset::prepared::Place;
use crate::dataset::write_phantoms;
use crate::domain::{DomainPlan, PlanOptions};
use crate::engine::gpu::testing::gpu;
use crate::engine::gpu::{Faults, Gpu};
use crate::engine::plan::Workload;
use crate::engine::tune;
use crate::imaging::{LabelMap, Volume, read_image};
use crate::net::{Model, read_tensors};
use crate::segment::{CaseWork, Ensemble, PredictOptions, Predictor};
use crate::train::{self, Length, RunConfig};

const STEPS: u64 = 7;

/// Made-up CTs, and runs on them.
struct Rig {
    folder: tempfile::TempDir,
}

/// What a run leaves: names and bits of weights and moments, and the steps of the log.
type Left = (Vec<(String, Vec<u32>)>, Vec<u64>);

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_phantoms(&folder.path().join("data"), 2, [16, 24, 24], [5.0, 6.0, 6.0]).unwrap();
        Self { folder }
    }

    fn config(&self) -> RunConfig {
        RunConfig {
            base: 4,
            length: Length::Steps(STEPS),
            checkpoint_every: 3,
            log_every: 1,
            cache: Place::Nowhere,
            tune: tune::Mode::Off,
            ..RunConfig::new(vec![self.folder.path().join("data")])
        }
    }

    /// What a training draws up for the tuner.
    fn workloads(&self) -> Vec<Workload> {
        let run = self.train(&gpu(), "run").unwrap();
        let plans: Vec<DomainPlan> = run.domains().iter().map(|d| d.domain.clone()).collect();
        train::planned_workloads(run.config(), &plans).unwrap()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Begins and trains a run.
    fn train(&self, gpu: &Gpu, name: &str) -> Result<Run> {
        let options =
            PlanOptions { patch: Some([16; 3]), batch: Some(1), ..PlanOptions::default() };
        let mut run = Run::begin(gpu, self.config(), &options, &self.at(name), &mut ())?;
        assert!(run.train(&mut ())?);
        Ok(run)
    }

    fn left(&self, name: &str) -> Left {
        let (tensors, _) = read_tensors(&self.at(name).join("last.safetensors")).unwrap();
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
        let tensors = tensors.into_iter().map(|(name, tensor)| (name, bits(tensor.values)));
        let log = std::fs::read_to_string(self.at(name).join("log.jsonl")).unwrap();
        let step = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["step"].as_u64().unwrap()
        };
        (tensors.collect(), log.lines().map(step).collect())
    }
}

fn failing(faults: &str) -> Gpu {
    gpu().failing(Arc::new(Faults::parse(faults).unwrap()))
}

/// Some of the numbers up to `last`, or all where `U2SEG_FAULT_CASES` is `all`.
fn sample(last: u64) -> Vec<u64> {
    match std::env::var("U2SEG_FAULT_CASES").as_deref() {
        Ok("all") => (1..=last).collect(),
        Ok(count) => spread(last, count.parse().unwrap()),
        Err(_) => spread(last, 6),
    }
}

fn spread(last: u64, count: u64) -> Vec<u64> {
    (0..count).map(|at| 1 + at * (last - 1) / (count - 1).max(1)).collect()
}

/// At whatever call the device is lost, the run ends with the same weights and moments and a log of each step once; where it is
/// lost for good, as the last checkpoint is written, the run stops, and goes on from the one before later.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_training_survives_the_loss_of_its_device_at_any_call() {
    let rig = Rig::new();
    let whole = failing("");
    rig.train(&whole, "whole").unwrap();
    let expected = rig.left("whole");
    assert!(expected.1.iter().copied().eq(1..=STEPS), "{:?}", expected.1);
    let (calls, _) = whole.faults().calls();
    let cases = sample(calls);
    for n in &cases {
        let name = format!("loss{n}");
        rig.train(&failing(&format!("loss@{n}")), &name).unwrap_or_else(|e| panic!("{n}: {e}"));
        assert!(rig.left(&name) == expected, "the loss at call {n} of {calls} left a trace");
        std::fs::remove_dir_all(rig.at(&name)).unwrap();
    }
    log::info!("{} losses of the device at one of {calls} calls", cases.len());
    // three losses in all, each after a checkpoint that the one before had not
    let third = calls / 4;
    let faults = format!("loss@{},loss@{},loss@{}", third, 3 * third, 5 * third);
    rig.train(&failing(&faults), "thrice").unwrap();
    assert!(rig.left("thrice") == expected);
    let error = rig.train(&failing(&format!("loss@{}+", calls - 10)), "for good").err().unwrap();
    assert!(error.is_lost() && error.to_string().contains("4 devices were lost"), "{error}");
    let checkpoint = rig.at("for good").join("last.safetensors");
    assert!(checkpoint.exists() && !rig.at("for good").join("model.safetensors").exists());
    assert!(Run::open(&gpu(), &rig.at("for good"), &mut ()).unwrap().train(&mut ()).unwrap());
    assert!(rig.left("for good") == expected);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_buffer_that_finds_no_memory_is_named_with_what_would_fit() {
    let rig = Rig::new();
    let whole = failing("");
    rig.train(&whole, "whole").unwrap();
    let (_, buffers) = whole.faults().calls();
    let mut remedies = 0;
    for n in sample(buffers) {
        let name = format!("memory{n}");
        let error = rig.train(&failing(&format!("memory@{n}")), &name).err().unwrap();
        assert!(error.is_fault(GpuFault::OutOfMemory), "{n} of {buffers}: {error}");
        let text = error.to_string();
        assert!(text.contains("out of memory: ") && text.contains(" MiB that "), "{text}");
        remedies += usize::from(text.contains("`precision` f16") && text.contains("`patch` ["));
    }
    assert!(remedies > 0);
}

/// Tuning takes minutes; who asks it to stop does not wait for its end.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn tuning_hears_a_wish_to_stop() {
    let workloads = Rig::new().workloads();
    let stop = Stop::default();
    stop.ask(2);
    let (gpu, mode) = (gpu(), tune::Mode::Full);
    let error = tune::tuned(&gpu, mode, &workloads, &stop).err().unwrap();
    assert!(matches!(error, Error::Stopped), "{error}");
}

/// A device that is lost while kernels are tuned refuses none of them.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_loss_in_tuning_is_a_loss() {
    let workloads = Rig::new().workloads();
    for n in [1, 40, 90, 150] {
        let gpu = failing(&format!("loss@{n}"));
        let error =
            tune::tuned(&gpu, tune::Mode::Full, &workloads, &Stop::default()).err().unwrap();
        assert!(error.is_lost(), "{n}: {error}");
    }
}

/// Segments phantoms and keeps the masks.
struct Masks {
    files: Vec<PathBuf>,
    made: Mutex<Vec<Vec<u8>>>,
}

impl CaseWork for Masks {
    type Job = PathBuf;
    type Kept = ();

    fn read(&self, job: &PathBuf) -> Result<(Volume, ())> {
        Ok((read_image(job)?, ()))
    }

    fn about(&self, job: &PathBuf, error: Error) -> Error {
        error.about(job)
    }

    fn write(&self, _: &PathBuf, (): (), labels: LabelMap) -> Result<()> {
        locked(&self.made).push(labels.as_slice().to_vec());
        Ok(())
    }
}

impl Masks {
    fn of(data: &Path) -> Self {
        let file = |n: usize| data.join(format!("imagesTr/phantom_{n}.nii.gz"));
        Self { files: (0..2).map(file).collect(), made: Mutex::default() }
    }

    /// What was told of each image.
    fn segment(&self, gpu: &Gpu, model: &Model) -> Result<Vec<Result<()>>> {
        let predictor = |gpu: &Gpu| Predictor::new(gpu, model, 0, &PredictOptions::default());
        let (_, predictor) = Renewal::default().run(gpu, predictor)?;
        let ensemble = Ensemble::new(vec![predictor])?;
        let mut told = Vec::new();
        ensemble.segment_all(self, &self.files, &mut |_, outcome| {
            told.push(outcome);
            true
        });
        Ok(told)
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_prediction_survives_the_loss_of_its_device_and_blames_no_image() {
    let rig = Rig::new();
    rig.train(&gpu(), "run").unwrap();
    let model = Model::read(&rig.at("run").join("model.safetensors")).unwrap();
    let (data, whole) = (rig.at("data"), failing(""));
    let expected = Masks::of(&data);
    assert!(expected.segment(&whole, &model).unwrap().iter().all(Result::is_ok));
    let (calls, _) = whole.faults().calls();
    for n in sample(calls) {
        let masks = Masks::of(&data);
        let told = masks.segment(&failing(&format!("loss@{n}")), &model).unwrap();
        assert!(told.len() == 2 && told.iter().all(Result::is_ok), "{n} of {calls}: {told:?}");
        assert!(*locked(&masks.made) == *locked(&expected.made), "{n} of {calls}");
    }
    // lost for good with the second image: that is the last thing told, and no image is named
    let masks = Masks::of(&data);
    let mut told = masks.segment(&failing(&format!("loss@{}+", calls - 2)), &model).unwrap();
    let error = told.pop().unwrap().unwrap_err();
    assert!(error.is_lost() && !error.to_string().contains("phantom_"), "{error}");
    assert!(told.iter().all(Result::is_ok) && locked(&masks.made).len() == told.len());
}
