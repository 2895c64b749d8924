//! What a domain is: name, channels, classes, spacing, patch, normalisation; and how a plan for one follows from data, or
//! from what was published.

mod growth;
mod inference;
mod plan;
mod planning;
mod preset;
mod written;

pub use growth::{Growth, Limit, MOST_POOLS, PatchChoice, settled};
pub use inference::{CleanUp, CleanUpStep, Weighting};
pub use plan::DomainPlan;
pub use planning::{DEFAULT_BATCH, DEFAULT_VOXELS, PlanOptions, Recipe, Unify};
pub use preset::{DescribedLabels, PRESETS, Preset, PresetChoice, described_labels};
