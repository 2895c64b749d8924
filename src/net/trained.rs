//! Where a model's domains come from, for people who meet the file later.

use std::collections::BTreeMap;

/// How a domain of a model was trained, and how well it did.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Trained {
    /// Version of u2seg.
    pub version: String,
    /// What the channels of its images are called, such as MRI or CT.
    pub channels: Vec<String>,
    /// Cases that it was trained on.
    pub cases: usize,
    /// Steps of the training, those of its other domains included.
    pub steps: u64,
    /// Axes D, H, W along which patches were mirrored at times; none where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirrored: Option<[bool; 3]>,
    /// What came of the cases that were held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOutScores>,
}

/// Scores of held-out cases.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct HeldOutScores {
    /// How many cases.
    pub cases: usize,
    /// Mean Dice of each class by its name; none where no case has it.
    pub dice: BTreeMap<String, Option<f64>>,
}

impl HeldOutScores {
    /// Mean over the classes that have a score.
    pub fn mean(&self) -> Option<f64> {
        let known: Vec<f64> = self.dice.values().flatten().copied().collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    }
}
