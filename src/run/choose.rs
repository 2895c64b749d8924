//! Which weights of a training become the run's model: those of the last step, their moving average, or the best by held-out
//! patches, whichever segments whole held-out cases best.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use super::folder::{BEST, CHECKPOINT};
use super::observer::{Observer, Segmenting};
use super::scores::key;
use crate::base::{Error, Result, Stop, locked};
use crate::dataset::Case;
use crate::engine::gpu::{Gpu, Renewal};
use crate::imaging::{LabelMap, Volume};
use crate::net::{Chosen, Model};
use crate::score::ClassKey;
use crate::score::metrics::Comparison;
use crate::segment::{CaseWork, Ensemble, PredictOptions, Predictor};
use crate::train::{Checkpoint, DomainCases};

/// Held-out cases of a domain that weights are compared by, at most: a fold of five of any Decathlon task. Twenty of forty cases
/// chose weights that were worse than the last on all forty.
const COMPARED: usize = 100;

/// Weights that a training left.
struct Candidate {
    name: &'static str,
    step: u64,
    model: Model,
}

/// The weights of a training at its end: the last ones, and where patches of held-out cases were scored meanwhile their average
/// and the best.
fn candidates(folder: &Path) -> Result<Vec<Candidate>> {
    let file = folder.join(CHECKPOINT);
    let last = Model::read(&file)?;
    let checkpoint = Checkpoint::read(&file)?;
    let (step, best) = (checkpoint.steps(), checkpoint.best());
    let Some(best) = best else {
        return Ok(vec![Candidate { name: "last", step, model: last }]);
    };
    let average = checkpoint.average(&last)?;
    let mut all = vec![Candidate { name: "last", step, model: last }];
    all.extend(average.map(|model| Candidate { name: "average", step, model }));
    if best.step != step {
        match Model::read(&folder.join(BEST)) {
            Ok(model) => all.push(Candidate { name: "best", step: best.step, model }),
            Err(error) => log::warn!("{error} The best weights are not compared with the last"),
        }
    }
    Ok(all)
}

/// The weights of a finished training that segment the whole held-out cases of its domains best, with what was compared.
///
/// # Errors
///
/// Where the GPU fails, a file or a case cannot be read, and [`Error::Stopped`] where somebody asks to stop.
pub(super) fn choose(
    gpu: &Gpu,
    folder: &Path,
    domains: &[DomainCases],
    observer: &mut dyn Observer,
) -> Result<Model> {
    let mut all = candidates(folder)?;
    if all.len() == 1 {
        return all
            .pop()
            .map(|last| last.model)
            .ok_or_else(|| Error::Internal("no weights".into()));
    }
    let mut best: Option<(f64, Candidate)> = None;
    let mut dice = BTreeMap::new();
    let mut cases = 0;
    for candidate in all {
        let scores = scores(gpu, &candidate, domains, observer)?;
        cases = scores.len();
        let mean = scores.iter().sum::<f64>() / (cases as f64).max(1.0);
        log::info!("{} weights, of step {}: mean Dice {mean:.4}", candidate.name, candidate.step);
        dice.insert(candidate.name.to_string(), mean);
        // of equals the first
        if best.as_ref().is_none_or(|(most, _)| mean > *most) {
            best = Some((mean, candidate));
        }
    }
    let (_, Candidate { name, step, model }) =
        best.ok_or_else(|| Error::Internal("no weights to choose of".into()))?;
    Ok(Model { chosen: Some(Chosen { weights: name.into(), step, cases, dice }), ..model })
}

/// The mean Dice of each held-out case in which something is, of at most [`COMPARED`] a domain.
fn scores(
    gpu: &Gpu,
    Candidate { name, model, .. }: &Candidate,
    domains: &[DomainCases],
    observer: &mut dyn Observer,
) -> Result<Vec<f64>> {
    let (mut all, stop) = (Vec::new(), observer.stop());
    for cases in domains.iter().filter(|cases| !cases.held_out.is_empty()) {
        let index = model.domain(Some(&cases.domain.name))?;
        let options = PredictOptions::default();
        let (_, predictor) =
            Renewal::default().run(gpu, |gpu| Predictor::new(gpu, model, index, &options))?;
        let step = cases.held_out.len().div_ceil(COMPARED);
        let compared: Vec<Case> = cases.held_out.iter().step_by(step).cloned().collect();
        let scores = Mutex::new(vec![None; compared.len()]);
        let jobs: Vec<Job<'_>> =
            compared.iter().enumerate().map(|(at, case)| Job { at, case }).collect();
        let work = Work { cases, scores: &scores, stop: &stop };
        let mut done = observer.segmenting(&Segmenting {
            domain: cases.domain.name.clone(),
            compared: Some((*name).into()),
            cases: compared.len(),
        });
        let mut outcome = Ok(());
        Ensemble::new(vec![predictor])?.segment_all(&work, &jobs, &mut |_, scored| {
            done();
            outcome = scored;
            outcome.is_ok()
        });
        outcome?;
        all.extend(locked(&scores).iter().flatten());
    }
    Ok(all)
}

/// A case by its place among those that are compared.
struct Job<'a> {
    at: usize,
    case: &'a Case,
}

/// What is done with each case before and after the network.
struct Work<'a> {
    cases: &'a DomainCases,
    /// By the places of the cases, however they follow each other; none where nothing can be scored.
    scores: &'a Mutex<Vec<Option<f64>>>,
    stop: &'a Stop,
}

impl<'a> CaseWork for Work<'a> {
    type Job = Job<'a>;
    /// The true labels, as masks hold them.
    type Kept = LabelMap;

    fn stop(&self) -> Stop {
        self.stop.clone()
    }

    fn read(&self, job: &Job<'a>) -> Result<(Volume, LabelMap)> {
        let (image, mut truth) = self.cases.dataset.load(job.case)?;
        self.cases.domain.labels.canonical(truth.as_mut_slice());
        Ok((image, truth))
    }

    fn about(&self, job: &Job<'a>, error: Error) -> Error {
        error.about(&job.case.images[0])
    }

    fn write(&self, job: &Job<'a>, truth: LabelMap, mut mask: LabelMap) -> Result<()> {
        let labels = &self.cases.domain.labels;
        if !labels.regions {
            labels.decode(mask.as_mut_slice());
        }
        let first = labels.outputs() - labels.scored().len();
        let labelled = labels.scored().iter().enumerate();
        let labelled =
            labelled.filter(|(index, _)| self.cases.has_labels_of(job.case, first + index));
        let keys: Vec<ClassKey> = labelled.map(|(_, class)| key(labels, class)).collect();
        let compared = Comparison::of(&truth, &mask)?.ignoring(labels.ignore);
        let dice: Vec<f64> = compared.dice(&keys).into_iter().flatten().collect();
        let mean = (!dice.is_empty()).then(|| dice.iter().sum::<f64>() / dice.len() as f64);
        if let Some(place) = locked(self.scores).get_mut(job.at) {
            *place = mean;
        }
        Ok(())
    }
}
