//! What a user sees of a run: a bar on a terminal and lines elsewhere, scores, and where the model is.

use std::ops::ControlFlow;
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};

use super::super::command::typed;
use super::super::preparation::PreparationBar;
use crate::base::{Result, Stop};
use crate::dataset::prepared::Progress;
use crate::engine::exec::LossScale;
use crate::engine::gpu::Gpu;
use crate::engine::tune;
use crate::net::Chosen;
use crate::run::{ChosenCleanUp, DomainScores, MODEL, Observer, report_file};
use crate::train::{DomainCases, Memory, PatchScores, Reading, Step, Trainer};

/// Follows runs on the terminal.
pub struct Watch {
    /// Name of the adapter.
    adapter: String,
    bar: ProgressBar,
    /// What is known of the domains of the run, for the bar.
    domains: Vec<Known>,
    /// Steps between lines where there is no terminal.
    lines: u64,
    /// What else to say of a finished run, by its folder.
    report: fn(&Path) -> Result<()>,
    preparation: PreparationBar,
    stop: Stop,
    /// Steps of the run that was trained last, and those that its checkpoint has; none before the first one.
    steps: u64,
    saved: Option<u64>,
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
        let adapter = gpu.report().name.clone();
        let (preparation, stop) = (PreparationBar::default(), stop.clone());
        let (bar, domains) = (ProgressBar::hidden(), Vec::new());
        Self { adapter, bar, domains, lines: 1, report, preparation, stop, steps: 0, saved: None }
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

impl Observer for Watch {
    fn stop(&self) -> Stop {
        self.stop.clone()
    }

    fn command(&self) -> Option<String> {
        Some(typed())
    }

    fn preparing(&mut self, progress: &Progress) -> Result<()> {
        self.stop.check()?;
        self.preparation.show(progress);
        Ok(())
    }

    fn tuned(&mut self, report: &tune::Report) -> Result<()> {
        note!("{report}");
        Ok(())
    }

    fn started(&mut self, trainer: &Trainer) -> Result<()> {
        self.steps = trainer.steps();
        self.saved = Some(self.steps).filter(|steps| *steps > 0);
        for cases in trainer.domains() {
            let d = &cases.domain;
            let preset = d.preset.as_ref().map(|name| format!("; planned as published for {name}"));
            let cut = d.crop.map(|crop| format!(" resized from {crop:?}"));
            note!(
                "{}: {} cases, {} held out; patch {:?}{}, batch {}, pools {:?}, spacing {:.3?} mm{}",
                d.name,
                cases.cases.len(),
                cases.held_out.len(),
                d.patch,
                cut.unwrap_or_default(),
                d.batch,
                d.pools,
                d.spacing,
                preset.unwrap_or_default()
            );
        }
        if trainer.domains().iter().all(|cases| cases.held_out.is_empty()) {
            note!(
                "nothing is held out: no case will be scored (--fold 0 or --hold-out 20% would hold some out)"
            );
        }
        let known =
            |cases: &DomainCases| Known { name: cases.domain.name.clone(), loss: None, dice: None };
        self.domains = trainer.domains().iter().map(known).collect();
        let memory = trainer.memory();
        note!(
            "{}: {} MiB of GPU memory{} and at most {} MiB for cases and patches, from step {}",
            self.adapter,
            memory.total() >> 20,
            recomputed(memory),
            trainer.patch_bytes().div_ceil(1 << 20),
            trainer.steps()
        );
        self.lines = trainer.config().interval() * 10;
        self.bar = ProgressBar::new(1000);
        let style = ProgressStyle::with_template(
            "{bar:30} {percent:>3} % {elapsed_precise}<{eta_precise} {msg}",
        );
        self.bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
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

    fn weights_chosen(&mut self, chosen: &Chosen) -> Result<()> {
        note!("the model has {chosen}");
        Ok(())
    }

    fn ended(&mut self, trainer: &Trainer) -> Result<()> {
        self.bar.finish_and_clear();
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
            say!("clean-up of {class}: {steps:?}, mean Dice {before:.4} to {after:.4}");
        }
        say!("{}\n{}", scores.domain, scores.table());
        Ok(())
    }

    fn finished(&mut self, folder: &Path) -> Result<()> {
        say!("{}", folder.join(MODEL).display());
        if report_file(folder).is_file() {
            note!("report: {}", report_file(folder).display());
        }
        (self.report)(folder)
    }

    fn combined(&mut self, scores: &DomainScores) -> Result<()> {
        say!("{}, all folds\n{}", scores.domain, scores.table());
        Ok(())
    }
}

/// Words for tensors that are made twice, if any are.
pub fn recomputed(memory: &Memory) -> String {
    match memory.recomputed {
        0 => String::new(),
        count => format!(" ({count} tensors computed twice)"),
    }
}
