//! The thread that draws the patches of each step.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use super::cases::DomainCases;
use super::config::RunConfig;
use super::domain_sampling::DomainSampler;
use crate::base::{Error, Result};
use crate::patch;
use crate::patch::{Cache, Sample};

/// A step's input, drawn.
pub(super) struct Batch {
    pub domain: usize,
    pub samples: Vec<Sample>,
}

/// Draws the batch of a domain's step.
fn batch(
    cases: &DomainCases,
    domain: usize,
    config: &RunConfig,
    step: u64,
    cache: &mut Cache,
) -> Result<Batch> {
    use rand::RngExt;
    let (count, source) = (cases.domain.batch, cases.source());
    let draw = |index: usize| -> Result<_> {
        let mut rng = patch::rng_for(config.seed, step, index as u64);
        let case = rng.random_range(0..source.cases.len());
        let focus = config.patch_sampling.focus(index, count, &mut rng);
        let augment = &config.augment;
        let draw = patch::draw_patch(source.cases[case], &source.size, focus, augment, &mut rng)?;
        Ok((case, draw))
    };
    let drawn = (0..count).map(draw).collect::<Result<_>>()?;
    Ok(Batch { domain, samples: Sample::ready(domain, &source, drawn, cache)? })
}

/// Draws batches from step `first` (from 0) on, a few ahead of the trainer, until the receiver is dropped.
pub(super) fn stream(
    domains: Arc<Vec<DomainCases>>,
    config: RunConfig,
    sampler: DomainSampler,
    first: u64,
    mut cache: Cache,
) -> Result<Receiver<Result<Batch>>> {
    let (sender, receiver) = sync_channel(3);
    let work = move || {
        for step in first.. {
            let domain = sampler.domain(step);
            let batch = batch(&domains[domain], domain, &config, step, &mut cache);
            if sender.send(batch).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new()
        .name("batches".into())
        .spawn(work)
        .map_err(|e| Error::Internal(format!("no thread for batches: {e}")))?;
    Ok(receiver)
}
