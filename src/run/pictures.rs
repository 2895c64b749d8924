//! What a validation leaves to look at: a picture of each held-out case beside its mask, and pictures and scores in TensorBoard's
//! files. A picture that cannot be made costs a warning, never the scores.

use std::collections::BTreeMap;
use std::path::Path;

use super::events::Events;
use super::folder::picture_file;
use super::scores::DomainScores;
use crate::base::Result;
use crate::base::canvas::write_png;
use crate::dataset::{Case, Labels};
use crate::imaging::{LabelMap, Volume};
use crate::picture::{Overlay, value_names};
use crate::score::summary::CaseScores;

/// Pictures of the held-out cases of a run.
pub(super) struct Pictures {
    /// None where the file could not be made.
    events: Option<Events>,
    /// Steps that the network was trained for.
    step: u64,
}

/// A held-out case with its masks, in the values that files hold.
pub(super) struct Scored<'a> {
    pub case: &'a Case,
    pub image: &'a Volume,
    pub truth: LabelMap,
    pub mask: &'a LabelMap,
    pub scores: &'a CaseScores,
}

impl Pictures {
    /// Of the run in a folder after so many steps.
    pub fn begin(out: &Path, step: u64) -> Self {
        Self {
            events: kept(Events::create_for_validation(out, step), "TensorBoard gets no pictures"),
            step,
        }
    }

    /// Draws a case of a domain into the folder of its masks.
    pub fn add(&mut self, domain: &str, labels: &Labels, folder: &Path, mut scored: Scored<'_>) {
        // what nobody labelled is no class
        for voxel in scored.truth.as_mut_slice() {
            if labels.ignore == Some(*voxel) {
                *voxel = 0;
            }
        }
        let id = &scored.case.id;
        let caption = match mean_dice(scored.scores) {
            Some(dice) => format!("{id}  Dice {dice:.3}"),
            None => id.clone(),
        };
        let view = Overlay {
            truth: Some(&scored.truth),
            prediction: Some(scored.mask),
            names: &value_names(labels),
            caption: &caption,
            ..Overlay::of(scored.image)
        };
        let file = picture_file(folder, scored.case);
        let drawn = view.draw().and_then(|picture| {
            write_png(&file, &picture)?;
            let events = self.events.as_mut();
            events.map_or(Ok(()), |events| {
                events.picture(self.step, &format!("overlay/{domain}/{id}"), &picture)
            })
        });
        kept(drawn, "a case has no picture");
    }

    /// Adds the mean Dice of the classes of a domain, under their names.
    pub fn scores(&mut self, scores: &DomainScores) {
        let name = |class| scores.names.get(class).cloned().unwrap_or_default();
        let tag = |class| format!("validation_dice/{}/{}", scores.domain, name(class));
        let mean = &scores.summary.mean;
        let scalars: BTreeMap<String, f32> =
            mean.iter().map(|(class, mean)| (tag(class), mean.dice as f32)).collect();
        let scalars: Vec<_> = scalars.into_iter().filter(|(_, dice)| !dice.is_nan()).collect();
        if let Some(events) = &mut self.events {
            let added = events.add(self.step, &scalars).and_then(|()| events.sync());
            kept(added, "TensorBoard gets no scores");
        }
    }
}

/// Mean Dice of the classes of a case that have one.
fn mean_dice(scores: &CaseScores) -> Option<f64> {
    let dice: Vec<f64> =
        scores.metrics.values().map(|scores| scores.dice).filter(|dice| !dice.is_nan()).collect();
    (!dice.is_empty()).then(|| dice.iter().sum::<f64>() / dice.len() as f64)
}

/// What came of it, if anything; else a warning that says what is missed.
fn kept<T>(outcome: Result<T>, missed: &str) -> Option<T> {
    outcome.inspect_err(|error| log::warn!("{missed}: {error}")).ok()
}
