//! What a run tells those who follow it.

use std::ops::ControlFlow;
use std::path::Path;

use super::scores::DomainScores;
use crate::base::{Result, Stop};
use crate::dataset::prepared::Progress;
use crate::engine::tune;
use crate::net::Chosen;
use crate::train::{PatchScores, Reading, Step, Trainer};

/// Told that a case is done.
pub type CaseDone = Box<dyn FnMut() + Send>;

/// Held-out cases that are segmented.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segmenting {
    /// Their domain.
    pub domain: String,
    /// The weights that are compared by them (`last`, `average` or `best`); none where the chosen ones are scored.
    pub compared: Option<String>,
    /// How many cases there are.
    pub cases: usize,
}

/// Follows runs. Every method does nothing unless it is written; an error ends the run and is given back.
pub trait Observer {
    /// What asks the run to stop from elsewhere: steps end with a checkpoint, other work with [`Error::Stopped`](crate::Error::Stopped).
    fn stop(&self) -> Stop {
        Stop::default()
    }

    /// The command that asked for the runs, as a shell takes it, for their record.
    fn command(&self) -> Option<String> {
        None
    }

    /// Cases are read or prepared, before a run starts; an error stops it.
    fn preparing(&mut self, _progress: &Progress) -> Result<()> {
        Ok(())
    }

    /// Variants of kernels were timed, as a run's settings ask before it starts.
    fn tuned(&mut self, _report: &tune::Report) -> Result<()> {
        Ok(())
    }

    /// A run is about to take its first step, or the first after it was stopped.
    fn started(&mut self, _trainer: &Trainer) -> Result<()> {
        Ok(())
    }

    /// A step was submitted; after a break the run writes its checkpoint and stops.
    fn step(&mut self, _step: &Step) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }

    /// The losses of a step were read and logged.
    fn losses(&mut self, _reading: &Reading) -> Result<()> {
        Ok(())
    }

    /// Patches of held-out cases were scored and logged, those of each domain.
    fn patches_scored(&mut self, _scores: &[PatchScores]) -> Result<()> {
        Ok(())
    }

    /// A checkpoint was written to this file.
    fn checkpoint(&mut self, _file: &Path) -> Result<()> {
        Ok(())
    }

    /// The last step of this start is done, and its checkpoint written: the training is at its end, or was stopped.
    fn ended(&mut self, _trainer: &Trainer) -> Result<()> {
        Ok(())
    }

    /// Held-out cases are about to be segmented. What is given back is called after each of them, on another thread, and dropped
    /// after the last one.
    fn segmenting(&mut self, _work: &Segmenting) -> CaseDone {
        Box::new(|| ())
    }

    /// The weights of the model are chosen, where several were compared on whole held-out cases.
    fn weights_chosen(&mut self, _chosen: &Chosen) -> Result<()> {
        Ok(())
    }

    /// The held-out cases of a domain are scored.
    fn validated(&mut self, _scores: &DomainScores) -> Result<()> {
        Ok(())
    }

    /// The run in this folder is trained and validated.
    fn finished(&mut self, _folder: &Path) -> Result<()> {
        Ok(())
    }

    /// The folds of a cross-validation are finished: a domain's scores over the cases of all of them.
    fn combined(&mut self, _scores: &DomainScores) -> Result<()> {
        Ok(())
    }
}

/// Nobody.
impl Observer for () {}
