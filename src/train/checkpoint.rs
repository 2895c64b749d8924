//! Where a training stands, with its weights and moments: written aside and renamed, read back bit for bit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::domain_sampling::LossHistory;
use super::learning_rate::LrState;
use super::session::Session;
use super::validations::{Best, Validations};
use crate::base::{Error, Result};
use crate::engine::exec::LossScale;
use crate::engine::graph::Region;
use crate::net::{Model, Tensor, parameters, read_tensors, write_tensors_keeping};

/// Where a training stands. Some fields are written under the names that they had first.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct State {
    /// Steps done.
    pub step: u64,
    /// Seconds of training before this start.
    pub seconds: f64,
    /// Updates of each parameter, in the order of the store.
    pub counts: Vec<u64>,
    /// What the next domains are chosen by.
    #[serde(default, rename = "losses")]
    pub loss_history: LossHistory,
    /// Where gradients pass through f16.
    #[serde(default)]
    pub loss_scale: Option<LossScale>,
    /// What the learning rate falls by.
    #[serde(default, rename = "falls")]
    pub lr: LrState,
    /// Steps so far that changed nothing.
    #[serde(default, skip_serializing_if = "none")]
    pub skipped: u64,
    /// Past and coming validations.
    #[serde(default, skip_serializing_if = "Validations::is_none")]
    pub validations: Validations,
    /// Seconds that they took.
    #[serde(default, skip_serializing_if = "no_time")]
    pub validating: f64,
}

fn no_time(seconds: &f64) -> bool {
    *seconds == 0.0
}

/// Steps and updates at most, so that none are lost where they are counted in f64.
const MOST: u64 = 1 << 53;

impl State {
    /// What is wrong with a state: a checkpoint is input, also one whose checksum is right.
    fn fault(&self) -> Option<String> {
        if let Some(count) = self.counts.iter().chain([&self.step]).find(|count| **count > MOST) {
            return Some(format!("{count} steps or updates"));
        }
        let times = [self.seconds, self.validating];
        if let Some(seconds) = times.iter().find(|s| !s.is_finite() || **s < 0.0) {
            return Some(format!("{seconds} seconds of training"));
        }
        let usable = |scale: &LossScale| scale.scale.is_finite() && scale.scale > 0.0;
        if let Some(scale) = self.loss_scale.filter(|scale| !usable(scale)) {
            return Some(format!("a loss scale of {}", scale.scale));
        }
        let faults = [self.loss_history.fault(), self.lr.fault(), self.validations.fault()];
        faults.into_iter().flatten().next()
    }
}

fn none(count: &u64) -> bool {
    *count == 0
}

/// What the names of averaged weights begin with.
const AVERAGE: &str = "average/";

/// Regions of a session that a checkpoint holds, and what the names of their tensors begin with.
fn regions(session: &Session) -> Vec<(&'static str, Region)> {
    let mut regions =
        vec![("", Region::Weights), ("moment1/", Region::Moment1), ("moment2/", Region::Moment2)];
    regions.extend(session.averages().then_some((AVERAGE, Region::Average)));
    regions
}

/// The tensors of a region under a prefix and the reference's names.
pub(super) fn tensors(
    session: &Session,
    prefix: &str,
    region: Region,
) -> Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for (stored, values) in session.store().params().iter().zip(session.read(region)?) {
        let dims = stored.spec.dims.clone();
        tensors.insert(format!("{prefix}{}", stored.spec.name), Tensor { dims, values });
    }
    Ok(tensors)
}

/// Writes a checkpoint of the network of `model`, whose weights are not read; the one before is kept under the name `earlier`,
/// where that is given.
pub(super) fn write(
    path: &Path,
    earlier: Option<&Path>,
    model: &Model,
    session: &Session,
    state: &State,
) -> Result<()> {
    let mut metadata = model.metadata()?;
    let json = serde_json::to_string(state).map_err(|e| Error::Internal(e.to_string()))?;
    metadata.insert("state".into(), json);
    let mut all = BTreeMap::new();
    for (prefix, region) in regions(session) {
        all.extend(tensors(session, prefix, region)?);
    }
    write_tensors_keeping(path, earlier, &all, metadata)
}

/// A checkpoint that was read whole.
pub struct Checkpoint {
    path: PathBuf,
    tensors: BTreeMap<String, Tensor>,
    state: State,
}

impl Checkpoint {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, is damaged or no checkpoint.
    pub fn read(path: &Path) -> Result<Self> {
        let (tensors, metadata) = read_tensors(path)?;
        let state =
            metadata.get("state").ok_or_else(|| refuse(path, "no training state".into()))?;
        let state: State = serde_json::from_str(state).map_err(|e| refuse(path, e.to_string()))?;
        if let Some(found) = state.fault() {
            return Err(refuse(path, found));
        }
        Ok(Self { path: path.to_path_buf(), tensors, state })
    }

    /// Steps done.
    pub fn steps(&self) -> u64 {
        self.state.step
    }

    /// Seconds of training.
    pub fn seconds(&self) -> f64 {
        self.state.seconds
    }

    /// The best weights before it, where held-out patches were scored.
    pub fn best(&self) -> Option<Best> {
        self.state.validations.best
    }

    /// The moving average of the weights as a model like `last`, that of the checkpoint's weights; none where none is kept.
    ///
    /// # Errors
    ///
    /// Where the checkpoint is not of this network.
    pub fn average(mut self, last: &Model) -> Result<Option<Model>> {
        let params = parameters(&last.network)?;
        if params.len() != self.state.counts.len() {
            let found = format!("counts of {} parameters", self.state.counts.len());
            return Err(refuse(&self.path, found));
        }
        let mut averaged = last.clone();
        for (spec, count) in params.iter().zip(&self.state.counts) {
            let Some(average) = self.tensors.remove(&format!("{AVERAGE}{}", spec.name)) else {
                return Ok(None);
            };
            // what was never updated stands still and has no average
            if *count > 0 {
                averaged.weights.insert(spec.name.clone(), average);
            }
        }
        Ok(Some(averaged))
    }

    /// Gives weights, moments and counts to a session of the same network.
    pub(super) fn restore(self, session: &mut Session) -> Result<State> {
        let Self { path, tensors, state } = self;
        let (counts, params) = (state.counts.len(), session.store().params().len());
        if counts != params {
            let found = format!("counts of {counts} parameters for a network of {params}");
            return Err(refuse(&path, found));
        }
        for stored in session.store().params() {
            for (prefix, region) in regions(session) {
                let name = format!("{prefix}{}", stored.spec.name);
                let tensor = tensors.get(&name);
                let tensor = tensor.ok_or_else(|| refuse(&path, format!("no tensor {name}")))?;
                session.write(region, &stored.spec.name, &tensor.values)?;
            }
        }
        session.set_counts(state.counts.clone())?;
        if let Some(scale) = &state.loss_scale {
            session.set_loss_scale(scale)?;
        }
        Ok(state)
    }
}

fn refuse(path: &Path, found: String) -> Error {
    let remedy = "Restore the file, or start a new run.";
    Error::file(path, found, "a checkpoint of this run", remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_keeps_the_names_that_it_was_first_written_under() {
        let text = r#"{"step":30,"seconds":1.5,"counts":[30,7],"losses":{"known":{"0":[0.5,1.0]},"current":[[0.25,1],[0.0,0]]},"loss_scale":{"scale":65536.0,"good":30,"skipped":0},"falls":{"count":1,"current":[0.5,2],"epochs":[0.75],"before":0.5}}"#;
        let state: State = serde_json::from_str(text).unwrap();
        assert_eq!(state.counts, [30, 7]);
        assert_ne!(state.lr, LrState::default());
        assert_ne!(state.loss_history, LossHistory::default());
        assert_eq!(serde_json::to_string(&state).unwrap(), text);
        // the first checkpoints held no more than this
        let text = r#"{"step":30,"seconds":1.5,"counts":[30,7]}"#;
        assert_eq!(serde_json::from_str::<State>(text).unwrap().step, 30);
    }
}
