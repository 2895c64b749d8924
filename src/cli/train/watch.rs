//! What a user sees of a run: a bar on a terminal and lines elsewhere, scores, and where the model is.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use indicatif::ProgressBar;

use super::super::command::{quoted, typed};
use super::super::preparation::{PreparationBar, segmentation_bar};
use super::super::say::{self, bytes};
use super::super::words::{axes, count, duration, list, mm};
use crate::base::{Result, Stop};
use crate::dataset::prepared::Progress;
use crate::engine::exec::LossScale;
use crate::engine::gpu::Gpu;
use crate::engine::tune;
use crate::net::Chosen;
use crate::run::{CaseDone, ChosenCleanUp, DomainScores, MODEL, Observer, Segmenting, report_file};
use crate::train::{DomainCases, Memory, PatchScores, Reading, Step, Trainer};

/// Follows runs on the terminal.
pub struct Watch {
    /// Name of the device.
    device: String,
    bar: ProgressBar,
    /// What is known of the domains of the run, for the bar.
    domains: Vec<Known>,
    /// Steps between lines where there is no terminal.
    lines: u64,
    /// What else to say of a finished run, by its folder.
    report: fn(&Path) -> Result<()>,
    preparation: PreparationBar,
    /// Shown while something without a measure goes on.
    waiting: ProgressBar,
    stop: Stop,
    /// When this start took its first step, and how long its steps took.
    since: Instant,
    seconds: f64,
    /// Of the last run: mean Dice of its held-out cases in each domain, and how many there were.
    scores: Vec<DomainDice>,
    /// Steps of the run that was trained last, and those that its checkpoint has; none before the first one.
    steps: u64,
    saved: Option<u64>,
}

/// The scores of a domain's held-out cases.
struct DomainDice {
    name: String,
    mean: f64,
    cases: usize,
}

/// The last loss of a domain and the last score of its held-out patches.
struct Known {
    name: String,
    loss: Option<f32>,
    dice: Option<f64>,
}

impl Known {
    fn told(&self) -> Option<String> {
        let dice = self.dice.map(|dice| format!(", Dice {dice:.3}")).unwrap_or_default();
        self.loss.map(|loss| format!("{} loss {loss:.3}{dice}", self.name))
    }
}

/// A score in words.
fn dice(score: Option<f64>) -> String {
    score.map_or_else(|| "none".into(), |score| format!("{score:.3}"))
}

impl Watch {
    /// Follows runs on this adapter until they are to stop; `report` has the last word on each, by its folder.
    pub fn new(gpu: &Gpu, stop: &Stop, report: fn(&Path) -> Result<()>) -> Self {
        Self {
            device: gpu.report().name.clone(),
            bar: ProgressBar::hidden(),
            domains: Vec::new(),
            lines: 1,
            report,
            preparation: PreparationBar::default(),
            waiting: ProgressBar::hidden(),
            stop: stop.clone(),
            since: Instant::now(),
            seconds: 0.0,
            scores: Vec::new(),
            steps: 0,
            saved: None,
        }
    }

    /// Where the run that was trained last stands, in words.
    pub fn place(&self) -> String {
        match (self.steps, self.saved) {
            (0, _) => "before its first step".into(),
            (steps, Some(saved)) if saved == steps => format!("after step {steps}, which is saved"),
            (steps, Some(saved)) => format!("after step {steps}; saved is step {saved}"),
            (steps, None) => format!("after step {steps}; none is saved"),
        }
    }
}

impl Watch {
    /// What came of a run, and what to type next.
    fn summary(&self, folder: &Path) {
        let losses = self.domains.iter().filter_map(|known| {
            let of =
                if self.domains.len() > 1 { format!(" ({})", known.name) } else { String::new() };
            known.loss.map(|loss| format!("{loss:.3}{of}"))
        });
        let losses = list(losses);
        if !losses.is_empty() {
            let (steps, time) = (count(self.steps, "step"), duration(self.seconds));
            note!("trained  {steps}, in this start {time}; last loss {losses}");
        }
        for DomainDice { name, mean, cases } in &self.scores {
            note!("Dice     {mean:.3} over {} of {name}", count(*cases as u64, "held-out case"));
        }
        if report_file(folder).is_file() {
            note!("report   {}", report_file(folder).display());
        }
        let domain = match self.domains.as_slice() {
            [first, _, ..] => format!(" --domain {}", quoted(&first.name)),
            _ => String::new(),
        };
        let run = quoted(&folder.display().to_string());
        note!("next     u2seg predict -m {run}{domain} -i IMAGES -o MASKS");
    }
}

/// A domain as a run begins: cases, patches, voxels.
fn about(cases: &DomainCases) -> String {
    let d = &cases.domain;
    let preset = d.preset.as_ref().map(|name| format!("; planned as published for {name}"));
    let resized = d.crop.map(|crop| format!(" resized from {}", axes(crop)));
    format!(
        "{}: {}, {} held out; patches of {} voxels (D×H×W){} at {} mm, batch {}, pools {}{}",
        d.name,
        count(cases.cases.len() as u64, "training case"),
        cases.held_out.len(),
        axes(d.patch),
        resized.unwrap_or_default(),
        axes(d.spacing.map(mm)),
        d.batch,
        axes(d.pools),
        preset.unwrap_or_default()
    )
}

impl Observer for Watch {
    fn stop(&self) -> Stop {
        self.stop.clone()
    }

    fn command(&self) -> Option<String> {
        Some(typed())
    }

    fn preparing(&mut self, progress: &Progress) -> Result<()> {
        self.stop.check()?;
        self.waiting.finish_and_clear();
        self.preparation.show(progress);
        // what comes after the last case has no measure: kernels are tuned and compiled
        if progress.done == progress.total {
            self.waiting = say::spinner("compiling kernels");
        }
        Ok(())
    }

    fn tuned(&mut self, report: &tune::Report) -> Result<()> {
        note!("{report}");
        Ok(())
    }

    fn started(&mut self, trainer: &Trainer) -> Result<()> {
        self.steps = trainer.steps();
        self.saved = Some(self.steps).filter(|steps| *steps > 0);
        self.waiting.finish_and_clear();
        (self.since, self.scores) = (Instant::now(), Vec::new());
        for cases in trainer.domains() {
            note!("{}", about(cases));
        }
        if trainer.domains().iter().all(|cases| cases.held_out.is_empty()) {
            note!(
                "nothing is held out, so nothing will be scored; --hold-out 10% would hold some cases out"
            );
        }
        let known =
            |cases: &DomainCases| Known { name: cases.domain.name.clone(), loss: None, dice: None };
        self.domains = trainer.domains().iter().map(known).collect();
        let memory = trainer.memory();
        note!(
            "{}: {} of GPU memory{}, and at most {} for cases and patches; from step {}",
            self.device,
            bytes(memory.total()),
            recomputed(memory),
            bytes(trainer.patch_bytes()),
            trainer.steps()
        );
        self.lines = trainer.config().interval() * 10;
        self.bar = say::bar(Some(1000), "{bar:20} {percent:>3} %, {eta_precise} to go; {wide_msg}");
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<ControlFlow<()>> {
        self.steps = step.number;
        Ok(ControlFlow::Continue(()))
    }

    fn checkpoint(&mut self, _file: &Path) -> Result<()> {
        self.saved = Some(self.steps);
        Ok(())
    }

    fn losses(&mut self, reading: &Reading) -> Result<()> {
        let Reading { step, domain, name, losses, seconds_per_step, progress, skipped, .. } =
            reading;
        if let Some(known) = self.domains.get_mut(*domain) {
            known.loss = Some(losses.total);
        }
        let left_out = if *skipped > 0 { format!(", {skipped} left out") } else { String::new() };
        if self.bar.is_hidden() {
            if step.is_multiple_of(self.lines) || *step == 1 || *progress >= 1.0 {
                note!(
                    "step {step} {name} loss {:.4} {seconds_per_step:.2} s/step{left_out}",
                    losses.total
                );
            }
        } else {
            let domains: Vec<String> = self.domains.iter().filter_map(Known::told).collect();
            self.bar.set_position((progress * 1000.0) as u64);
            self.bar.set_message(format!(
                "step {step}, {seconds_per_step:.2} s/step{left_out}; {}",
                domains.join("; ")
            ));
        }
        Ok(())
    }

    fn patches_scored(&mut self, scores: &[PatchScores]) -> Result<()> {
        for scores in scores {
            if let Some(known) = self.domains.iter_mut().find(|d| d.name == scores.domain) {
                known.dice = scores.mean;
            }
            if self.bar.is_hidden() {
                let classes = scores.dice.iter();
                let classes = classes.map(|(name, score)| format!("{name} {}", dice(*score)));
                note!(
                    "step {} {} pseudo-Dice {} ({}), smoothed {}",
                    self.steps,
                    scores.domain,
                    dice(scores.mean),
                    classes.collect::<Vec<_>>().join(", "),
                    dice(scores.smoothed)
                );
            }
        }
        Ok(())
    }

    fn segmenting(&mut self, work: &Segmenting) -> CaseDone {
        segmentation_bar(work)
    }

    fn weights_chosen(&mut self, chosen: &Chosen) -> Result<()> {
        note!("the model has {chosen}");
        Ok(())
    }

    fn ended(&mut self, trainer: &Trainer) -> Result<()> {
        self.bar.finish_and_clear();
        self.seconds = self.since.elapsed().as_secs_f64();
        let skipped = trainer.skipped();
        if let Some(LossScale { scale, .. }) = trainer.loss_scale()? {
            note!(
                "loss scale {scale}; gradients overflowed in {skipped} steps, which changed nothing"
            );
        } else if skipped > 0 {
            note!("loss or gradients were not finite in {skipped} steps, which changed nothing");
        }
        Ok(())
    }

    fn validated(&mut self, scores: &DomainScores) -> Result<()> {
        for ChosenCleanUp { class, steps, before, after } in &scores.clean_up {
            let steps = list(steps.iter().map(ToString::to_string));
            say!("clean-up of {class}: {steps}; mean Dice {before:.4} before, {after:.4} after");
        }
        say!("{}\n{}", scores.domain, scores.table());
        let (name, cases) = (scores.domain.clone(), scores.summary.metric_per_case.len());
        let mean = scores.summary.foreground_mean_of_occurring().dice;
        self.scores.push(DomainDice { name, mean, cases });
        Ok(())
    }

    fn finished(&mut self, folder: &Path) -> Result<()> {
        say!("{}", folder.join(MODEL).display());
        self.summary(folder);
        (self.report)(folder)
    }

    fn combined(&mut self, scores: &DomainScores) -> Result<()> {
        say!("{}, all folds\n{}", scores.domain, scores.table());
        Ok(())
    }
}

/// Words for activations that are made twice, if any are.
pub fn recomputed(memory: &Memory) -> String {
    match memory.recomputed {
        0 => String::new(),
        1 => " (1 activation is recomputed)".into(),
        count => format!(" ({count} activations are recomputed)"),
    }
}
