//! What is known of a model beside its weights, in a JSON file of the same name.

use std::collections::BTreeMap;
use std::path::Path;

use crate::base::files::read_json;

/// What a model was made of, and how good it is.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Card {
    /// What it segments, in a sentence.
    pub about: String,
    /// Kind of the images.
    pub modality: String,
    /// What it was trained on.
    pub data: String,
    /// Of the weights.
    pub licence: String,
    /// Scores of cases that it did not see.
    #[serde(default)]
    pub held_out: Option<HeldOut>,
}

/// Scores of cases that a model did not see.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct HeldOut {
    /// Mean over the classes and cases.
    pub dice: f64,
    /// Mean over the cases, by class.
    pub classes: BTreeMap<String, f64>,
    /// Their names.
    pub cases: Vec<String>,
}

impl Card {
    /// From JSON.
    pub(super) fn parse(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// The card beside a model's file; one that cannot be read is told in the log.
    pub fn beside(model: &Path) -> Option<Self> {
        let path = model.with_extension("json");
        if !path.is_file() {
            return None;
        }
        let card = read_json(&path, "what is known of a model", "Remove it, or correct it.");
        card.map_err(|e| log::warn!("{e}")).ok()
    }
}
