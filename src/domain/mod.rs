//! What a domain is: name, channels, classes, spacing, patch, normalisation; and how a plan for one follows from data, or
//! from what was published.

mod plan;
mod preset;

use crate::data::Normalisation;

pub use plan::{DEFAULT_VOXELS, PlanOptions, Recipe, Unify};
pub use preset::{PRESETS, Preset, PresetChoice};

/// A domain's plan: plain and editable.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Domain {
    pub name: String,
    /// Image channels.
    pub channels: usize,
    /// Names of all classes, background first.
    pub classes: Vec<String>,
    /// Millimetres, D, H, W.
    pub spacing: [f64; 3],
    /// Voxels that the network sees, D, H, W; divisible by 2^pools.
    pub patch: [usize; 3],
    /// Voxels of the case that a patch covers, where they are resized to `patch`; otherwise they are `patch`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<[usize; 3]>,
    /// Halvings of D, H, W.
    pub pools: [usize; 3],
    /// Samples a step.
    pub batch: usize,
    pub normalisation: Normalisation,
    /// The published plan that this one follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// Class of each label value in the files, where several are merged; without it each value is a class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class_of_label: Vec<u8>,
    /// How much the voxels of a window count when a volume is segmented.
    #[serde(default)]
    pub weighting: Weighting,
    /// What is done to predicted masks, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clean_up: Vec<CleanUp>,
}

/// Clean-up of one class of a predicted mask.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CleanUp {
    pub class: u8,
    pub steps: Vec<Step>,
}

/// One clean-up step, applied by `infer::postprocess`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Dilation, then erosion, this many voxels far (diamond neighbourhood).
    Closing(usize),
    /// Keep the largest component.
    Largest,
    /// Keep the largest component, and the second where it has at least this fraction of the largest.
    LargestTwo(f64),
    /// Fill background that the class encloses.
    FillHoles,
}

/// How much the voxels of a window count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weighting {
    /// A Gaussian about the centre.
    #[default]
    Gaussian,
    /// One minus the distance to the centre, as published.
    Linear,
}

impl Domain {
    /// Voxels of the case that a patch covers, D, H, W.
    pub fn extent(&self) -> [usize; 3] {
        self.cut.unwrap_or(self.patch)
    }

    /// Turns label values of the files into classes.
    pub fn merge(&self, labels: &mut [u8]) {
        if self.class_of_label.is_empty() {
            return;
        }
        for label in labels {
            *label = self.class_of_label.get(usize::from(*label)).copied().unwrap_or(*label);
        }
    }
}
