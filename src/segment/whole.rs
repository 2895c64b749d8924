//! A whole image through networks: slabs collected, and finished.

use std::sync::Arc;

use ndarray::{Array3, Array4, s};

use super::clean_up::clean_up;
use super::collect::{Collect, TakeMaps};
use super::slab::{Clock, Network, Slabs, Sweep};
use crate::base::{Error, Result};
use crate::domain::DomainPlan;
use crate::imaging::{LabelMap, Prepared, Volume};

/// The volume as each network sees it; networks that see it alike share it, such as those of folds.
pub fn prepare(networks: &[&Network], volume: &Volume) -> Result<Vec<Arc<Prepared>>> {
    let mut cases: Vec<Arc<Prepared>> = Vec::new();
    for (at, network) in networks.iter().enumerate() {
        let alike = networks[..at].iter().position(|other| other.prepares_as(network));
        cases.push(match alike {
            Some(other) => cases[other].clone(),
            None => Arc::new(network.prepare(volume)?),
        });
    }
    Ok(cases)
}

/// What is shared, borrowed.
pub fn borrowed(cases: &[Arc<Prepared>]) -> Vec<&Prepared> {
    cases.iter().map(Arc::as_ref).collect()
}

/// Class indices of an image without clean-up, or values of regions, from what was prepared of it for each network; `maps` takes
/// the mean probabilities.
pub fn segment(
    networks: &[&Network],
    cases: &[&Prepared],
    maps: Option<TakeMaps<'_>>,
    clock: &mut Clock,
) -> Result<LabelMap> {
    segment_by_slabs(networks, cases, maps, clock).map_err(|error| {
        let remedy = "Take less at a time (`vram`), or store activations in f16 (`precision` f16).";
        error.with_memory_remedy(|| remedy.into())
    })
}

fn segment_by_slabs(
    networks: &[&Network],
    cases: &[&Prepared],
    maps: Option<TakeMaps<'_>>,
    clock: &mut Clock,
) -> Result<LabelMap> {
    let (Some(network), Some(case)) = (networks.first(), cases.first()) else {
        return Err(Error::Internal("an ensemble of no networks".into()));
    };
    let sweeps = networks.iter().zip(cases).map(|(network, case)| Sweep::new(network, case));
    let mut slabs = Slabs::new(sweeps.collect::<Result<Vec<_>>>()?, maps.is_some())?;
    let regions = network.domain().labels.regions;
    let mut collect = Collect::new(case.grid(), case.crop(), regions, maps);
    slabs.run(&mut collect, clock)?;
    collect.into_labels()
}

/// Mean probabilities of networks on a volume's own grid, K, D, H, W.
pub fn probabilities(networks: &[&Network], volume: &Volume) -> Result<Array4<f32>> {
    let cases = prepare(networks, volume)?;
    let classes = networks.first().map_or(0, |network| network.domain().labels.outputs());
    let [d, h, w] = volume.shape();
    let mut all = Array4::zeros((classes, d, h, w));
    let mut next = vec![0; classes];
    let mut take = |class: usize, planes: Array3<f32>| {
        let first = next[class];
        next[class] += planes.dim().0;
        all.slice_mut(s![class, first..next[class], .., ..]).assign(&planes);
        Ok(())
    };
    segment(networks, &borrowed(&cases), Some(&mut take), &mut Clock::start())?;
    Ok(all)
}

/// Cleans classes up as a plan says and turns them into label values; those of regions are theirs already.
pub fn finish(domain: &DomainPlan, classes: &mut LabelMap) {
    if !domain.labels.regions {
        clean_up(classes, &domain.clean_up);
        domain.labels.decode(classes.as_mut_slice());
    }
}
