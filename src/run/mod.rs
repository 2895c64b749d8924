//! A run's folder: begun or gone on with, trained and validated, alone or with the other folds; what a run leaves to look at.

mod adapt;
mod choose;
mod claim;
mod crossval;
mod events;
mod folder;
mod log;
mod observer;
mod pictures;
mod progress;
mod readings;
mod record;
mod recovery;
mod report;
mod runs;
mod saved;
mod scores;
mod single;
mod validate;

pub use adapt::Adaptation;
pub use crossval::combine_folds;
pub use folder::{ADDED, CONFIG, MODEL, RunFolder, holds_runs, read_plan};
pub use observer::{CaseDone, Observer, Segmenting};
pub use report::{report, report_file};
pub use runs::{PreparedDomain, RunPlan, RunRequest, Runs};
pub use scores::{ChosenCleanUp, DomainScores};
pub use single::Run;
