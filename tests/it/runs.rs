//! Runs from the library, without the program.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::common;
use crate::common::program::{dataset, log, weights};
use u2seg::low_level::dataset::Fold;
use u2seg::low_level::dataset::prepared::{Place, Progress};
use u2seg::low_level::domain::{PlanOptions, PresetChoice};
use u2seg::low_level::exec::caps;
use u2seg::low_level::gpu::Gpu;
use u2seg::low_level::run::{DomainScores, Observer, Run, RunRequest, Runs};
use u2seg::low_level::train;
use u2seg::low_level::train::{
    Checkpoint, DomainCases, Length, Preparing, Reading, RunConfig, Step, Trainer,
};
use u2seg::{Result, Stop};

fn options() -> PlanOptions {
    let mut options = PlanOptions::default();
    options.patch = Some([16; 3]);
    options.batch = Some(1);
    options
}

fn config(data: &[&Path], steps: u64) -> RunConfig {
    RunConfig {
        base: 4,
        length: Length::Steps(steps),
        checkpoint_every: 8,
        cache: Place::Nowhere,
        ..RunConfig::new(data.iter().map(|dir| dir.to_path_buf()).collect())
    }
}

/// Notes what it is told, and stops at a step.
#[derive(Default)]
struct Notes {
    stop: Option<u64>,
    steps: Vec<u64>,
    read: Vec<u64>,
    checkpoints: usize,
    scored: Vec<String>,
    finished: Vec<PathBuf>,
    combined: Vec<(String, usize)>,
}

impl Observer for Notes {
    fn step(&mut self, step: &Step) -> Result<ControlFlow<()>> {
        self.steps.push(step.number);
        let stops = self.stop == Some(step.number);
        Ok(if stops { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn losses(&mut self, reading: &Reading) -> Result<()> {
        let sum: f32 = reading.losses.terms.iter().map(|term| term.weight * term.value).sum();
        assert!((sum - reading.losses.total).abs() < 1e-5 * sum, "{reading:?}");
        self.read.push(reading.step);
        Ok(())
    }

    fn checkpoint(&mut self, file: &Path) -> Result<()> {
        assert!(file.exists());
        self.checkpoints += 1;
        Ok(())
    }

    fn validated(&mut self, scores: &DomainScores) -> Result<()> {
        self.scored.push(scores.domain.clone());
        Ok(())
    }

    fn finished(&mut self, folder: &Path) -> Result<()> {
        self.finished.push(folder.to_path_buf());
        Ok(())
    }

    fn combined(&mut self, scores: &DomainScores) -> Result<()> {
        let cases = scores.summary.metric_per_case.len();
        self.combined.push((scores.domain.clone(), cases));
        Ok(())
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_run_that_is_stopped_anywhere_goes_on_to_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("A"), folder.path().join("B"));
    dataset(&a, "A", 3, 90.0);
    dataset(&b, "B", 2, -90.0);
    let gpu = common::gpu();
    let mut config = config(&[&a, &b], 20);
    config.fold = Fold::HoldOut(vec!["case_02".into()]);
    let [whole, stopped] = ["whole", "stopped"].map(|name| folder.path().join(name));
    let mut notes = Notes::default();
    let mut run = Run::begin(&gpu, config.clone(), &options(), &whole, &mut ()).unwrap();
    assert!(run.train(&mut notes).unwrap());
    assert_eq!((notes.steps, notes.read), ((1..=20).collect(), vec![1, 5, 10, 15, 20]));
    assert_eq!((notes.checkpoints, run.steps()), (3, 20));

    let mut run = Run::begin(&gpu, config.clone(), &options(), &stopped, &mut ()).unwrap();
    let mut notes = Notes { stop: Some(10), ..Notes::default() };
    assert!(!run.train(&mut notes).unwrap());
    // what the last step left is read, too
    assert_eq!((run.steps(), notes.read.last()), (10, Some(&10)));
    let message = run.validate(&mut ()).unwrap_err().to_string();
    assert!(message.contains("10 steps"), "{message}");
    // in the same process, then from the folder
    notes.stop = Some(13);
    assert!(!run.train(&mut notes).unwrap());
    drop(run);
    let mut run = Run::open(&gpu, &stopped, &mut ()).unwrap();
    assert!(run.complete(&mut notes).unwrap());
    assert_eq!(notes.steps, (1..=20).collect::<Vec<_>>());
    assert!(weights(&whole) == weights(&stopped), "the weights differ");
    assert_eq!(log(&whole), log(&stopped));
    assert_eq!((notes.scored, notes.finished), (vec!["A".to_string()], vec![stopped]));
    // nobody begins over it
    let refused = Run::begin(&gpu, config, &options(), &whole, &mut ()).map(|_| ());
    assert!(refused.unwrap_err().to_string().contains("begun before"));
}

/// Steps of checkpoints, each with the last step of the log at its time.
#[derive(Default)]
struct Saved(Vec<(u64, u64)>);

impl Observer for Saved {
    fn checkpoint(&mut self, file: &Path) -> Result<()> {
        let (last, ..) = log(file.parent().unwrap()).pop().unwrap();
        self.0.push((Checkpoint::read(file)?.steps(), last));
        Ok(())
    }
}

/// One that minutes asked for came before the reading of its last step, which a crash then cost.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_checkpoint_comes_behind_the_readings_of_its_steps() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("A");
    dataset(&data, "A", 2, 90.0);
    let config = RunConfig { log_every: 1, checkpoint_minutes: Some(1e-9), ..config(&[&data], 4) };
    let (gpu, mut saved) = (common::gpu(), Saved::default());
    let out = folder.path().join("run");
    let mut run = Run::begin(&gpu, config, &options(), &out, &mut saved).unwrap();
    assert!(run.train(&mut saved).unwrap());
    assert_eq!(saved.0, [(1, 1), (2, 2), (3, 3), (4, 4)]);
}

/// The cases that a run on these settings trains on.
fn opened(gpu: &Gpu, config: &RunConfig) -> Arc<Vec<DomainCases>> {
    let (store, tell) = (config.store().unwrap(), &mut |_: &Progress| Ok(()));
    let mut preparing = Preparing { store: &store, tell, ahead: false, stop: Stop::default() };
    let planned = train::plan(config, &options(), &caps(gpu), &mut preparing).unwrap();
    let plans: Vec<_> = planned.into_iter().map(|domain| domain.plan).collect();
    Arc::new(train::open(config, &plans, &PresetChoice::None, &mut preparing).unwrap())
}

/// A process could end while a thread that read ahead was removing the temporary folder of the cases, of which the rest stayed.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn no_thread_holds_the_cases_of_a_trainer_that_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("A");
    dataset(&data, "A", 2, 90.0);
    let (gpu, config) = (common::gpu(), config(&[&data], 9));
    let cases = opened(&gpu, &config);
    // as many as show it nearly always
    for _ in 0..20 {
        let mut trainer = Trainer::new(&gpu, config.clone(), cases.clone()).unwrap();
        trainer.step().unwrap();
        drop(trainer);
        assert_eq!(Arc::strong_count(&cases), 1);
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_trainer_steps_by_hand_as_its_run_does() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("A");
    dataset(&data, "A", 2, 90.0);
    let (gpu, config) = (common::gpu(), config(&[&data], 9));
    let whole = folder.path().join("run");
    let mut run = Run::begin(&gpu, config.clone(), &options(), &whole, &mut ()).unwrap();
    assert!(run.train(&mut ()).unwrap());
    let (cases, checkpoint) = (opened(&gpu, &config), folder.path().join("half.safetensors"));
    let mut trainer = Trainer::new(&gpu, config.clone(), cases.clone()).unwrap();
    for number in 1..=4 {
        assert_eq!(trainer.step().unwrap().unwrap().number, number);
    }
    trainer.save(&checkpoint, None).unwrap();
    let mut trainer =
        Trainer::resume(&gpu, config, cases, Checkpoint::read(&checkpoint).unwrap()).unwrap();
    let mut read = Vec::new();
    while let Some(step) = trainer.step().unwrap() {
        read.extend(step.readings);
    }
    read.extend(trainer.settle().unwrap());
    assert!(trainer.is_finished() && trainer.steps() == 9);
    assert_eq!(read.iter().map(|reading| reading.step).collect::<Vec<_>>(), [5, 9]);
    assert_eq!(trainer.model().unwrap().weights, run.model().unwrap().weights);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn folds_are_cross_validated_and_a_stopped_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("A");
    dataset(&data, "A", 2, 90.0);
    let gpu = common::gpu();
    let request = |name: &str| RunRequest {
        config: config(&[&data], 3),
        options: options(),
        all_folds: true,
        out: folder.path().join(name),
        reads: Vec::new(),
    };
    let mut notes = Notes::default();
    assert!(Runs::new(request("whole")).unwrap().complete(&gpu, &mut notes).unwrap());
    let folds = ["fold_0", "fold_1"];
    let whole = folder.path().join("whole");
    assert_eq!(notes.finished, folds.map(|fold| whole.join(fold)));
    assert_eq!(notes.combined, [("A".to_string(), 2)]);
    assert!(whole.join("validation/A/summary.json").exists());
    // stopped in the first fold
    let mut notes = Notes { stop: Some(2), ..Notes::default() };
    assert!(!Runs::new(request("stopped")).unwrap().complete(&gpu, &mut notes).unwrap());
    let stopped = folder.path().join("stopped");
    let mut runs = Runs::open(&stopped).unwrap();
    assert_eq!(runs.list().len(), 2);
    assert!(runs.complete(&gpu, &mut ()).unwrap());
    for fold in folds {
        assert!(weights(&whole.join(fold)) == weights(&stopped.join(fold)), "{fold} differs");
    }
}
