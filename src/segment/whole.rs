//! A whole image through networks: slabs collected, and finished.

use std::sync::Arc;

use ndarray::{Array3, Array4, Axis, s};

use super::clean_up::clean_up;
use super::collect::Collect;
use super::maps::{Asked, Map, Maps};
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
    maps: Option<Maps<'_>>,
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
    maps: Option<Maps<'_>>,
    clock: &mut Clock,
) -> Result<LabelMap> {
    let (Some(network), Some(case)) = (networks.first(), cases.first()) else {
        return Err(Error::Internal("an ensemble of no networks".into()));
    };
    let asked = maps.as_ref().map_or_else(Asked::default, |maps| maps.asked);
    let each = networks.iter().zip(cases);
    let sweeps = each.map(|(network, case)| Sweep::new(network, case, asked.disagreement));
    let mut slabs = Slabs::new(sweeps.collect::<Result<Vec<_>>>()?, asked)?;
    let regions = network.domain().labels.regions;
    let mut collect = Collect::new(case.grid(), case.crop(), regions, maps);
    slabs.run(&mut collect, clock)?;
    collect.into_labels()
}

/// Maps of networks on a volume's own grid.
struct Filled {
    /// Of all classes, K, D, H, W; as many as are asked for.
    probabilities: Array4<f32>,
    entropy: Array3<f32>,
    disagreement: Array4<f32>,
}

fn filled(networks: &[&Network], volume: &Volume, asked: Asked) -> Result<Filled> {
    let cases = prepare(networks, volume)?;
    let classes = networks.first().map_or(0, |network| network.domain().labels.outputs());
    let [d, h, w] = volume.shape();
    let maps = |asked: bool| Array4::zeros((if asked { classes } else { 0 }, d, h, w));
    let mut all = Filled {
        probabilities: maps(asked.probabilities),
        entropy: Array3::zeros((d, h, w)),
        disagreement: maps(asked.disagreement),
    };
    let mut next = [vec![0; classes], vec![0], vec![0; classes]];
    let mut take = |map: Map, planes: Array3<f32>| {
        let (kind, class, mut whole) = match map {
            Map::Probability(class) => (0, class, all.probabilities.index_axis_mut(Axis(0), class)),
            Map::Entropy => (1, 0, all.entropy.view_mut()),
            Map::Disagreement(class) => (2, class, all.disagreement.index_axis_mut(Axis(0), class)),
        };
        let next = &mut next[kind][class];
        let first = *next;
        *next += planes.dim().0;
        whole.slice_mut(s![first..*next, .., ..]).assign(&planes);
        Ok(())
    };
    let maps = Maps { asked, take: &mut take };
    segment(networks, &borrowed(&cases), Some(maps), &mut Clock::start())?;
    Ok(all)
}

/// Mean probabilities of networks on a volume's own grid, K, D, H, W.
pub fn probabilities(networks: &[&Network], volume: &Volume) -> Result<Array4<f32>> {
    let asked = Asked { probabilities: true, ..Asked::default() };
    Ok(filled(networks, volume, asked)?.probabilities)
}

/// How sure networks are of a volume's voxels, on its own grid.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Uncertainty {
    /// Entropy of the mean probabilities as a share of the largest that there is, D, H, W: of classes −Σ p ln p / ln K, of regions
    /// the mean of their binary entropies over ln 2.
    pub entropy: Array3<f32>,
    /// The standard deviation of each class's or region's probability over all predictions, K, D, H, W: those of each model, and
    /// of each mirror image that it sees. None of a single prediction, which nothing disagrees with.
    pub disagreement: Option<Array4<f32>>,
}

/// Entropy and disagreement on a volume's own grid.
pub fn uncertainty(networks: &[&Network], volume: &Volume) -> Result<Uncertainty> {
    let several = predictions(networks) > 1;
    let asked = Asked { entropy: true, disagreement: several, ..Asked::default() };
    let Filled { entropy, disagreement, .. } = filled(networks, volume, asked)?;
    Ok(Uncertainty { entropy, disagreement: several.then_some(disagreement) })
}

/// Predictions that networks make of each voxel: one a mirror image.
pub fn predictions(networks: &[&Network]) -> usize {
    networks.iter().map(|network| network.mirrors()).sum()
}

/// Cleans classes up as a plan says and turns them into label values; those of regions are theirs already.
pub fn finish(domain: &DomainPlan, classes: &mut LabelMap) {
    if !domain.labels.regions {
        clean_up(classes, &domain.clean_up);
        domain.labels.decode(classes.as_mut_slice());
    }
}
