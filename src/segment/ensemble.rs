//! Several networks for the same images, which advance together along D.

use std::sync::Arc;

use ndarray::Array4;

use super::maps::Maps;
use super::predict::Predictor;
use super::slab::{Clock, Network};
use super::whole::{Uncertainty, borrowed, finish, prepare, probabilities, segment, uncertainty};
use crate::base::{Error, Result};
use crate::domain::DomainPlan;
use crate::engine::gpu::Gpu;
use crate::imaging::{LabelMap, Prepared, Volume};

/// Several networks for the same images, such as those of the folds; they may differ in spacing and patch.
pub struct Ensemble {
    members: Vec<Predictor>,
}

impl Ensemble {
    /// At least one network; all with the same classes and channels.
    ///
    /// # Errors
    ///
    /// Where there is none, or they differ in classes or channels.
    pub fn new(members: Vec<Predictor>) -> Result<Self> {
        let Some(first) = members.first().map(Predictor::domain) else {
            return Err(Error::Internal("an ensemble of no networks".into()));
        };
        let same = |d: &DomainPlan| {
            let (a, b) = (&d.labels, &first.labels);
            (a.regions, &a.classes) == (b.regions, &b.classes) && d.channels == first.channels
        };
        if let Some(other) = members.iter().map(Predictor::domain).find(|d| !same(d)) {
            return Err(Error::setting(
                "model",
                format!("labels {} and {}", first.labels.described(), other.labels.described()),
                "models with the same channels and classes",
                "Leave one out.",
            ));
        }
        Ok(Self { members })
    }

    fn networks(&self) -> Vec<&Network> {
        self.members.iter().map(Predictor::network).collect()
    }

    /// The device of the networks.
    pub(super) fn gpu(&self) -> &Gpu {
        self.members[0].network().gpu()
    }

    /// The same networks on another device, where theirs is lost.
    pub(super) fn again(&self, device: &Gpu) -> Result<Self> {
        let members = self.members.iter().map(|member| member.again(device));
        Ok(Self { members: members.collect::<Result<_>>()? })
    }

    /// The plan of the first network.
    pub fn domain(&self) -> &DomainPlan {
        self.members[0].domain()
    }

    /// Mean probabilities of all classes, or of each region, on the volume's own grid: K, D, H, W. Background is certain beyond
    /// the box of the volume's non-zero voxels.
    ///
    /// # Errors
    ///
    /// As those of [`Ensemble::segment`].
    pub fn probabilities(&self, volume: &Volume) -> Result<Array4<f32>> {
        probabilities(&self.networks(), volume)
    }

    /// How sure the networks are of each voxel, on the volume's own grid. Beyond the box of the volume's non-zero voxels, where
    /// background is certain, it is 0.
    ///
    /// # Errors
    ///
    /// As those of [`Ensemble::segment`].
    pub fn uncertainty(&self, volume: &Volume) -> Result<Uncertainty> {
        uncertainty(&self.networks(), volume)
    }

    /// Label values of a volume on its own grid: of the mean probabilities the likeliest class, cleaned up as the first
    /// network's plan says; of regions the last one that is likelier than not.
    ///
    /// # Errors
    ///
    /// Where the volume has other channels than the networks or cannot be resampled to their spacings, or the GPU fails.
    pub fn segment(&self, volume: &Volume) -> Result<LabelMap> {
        let mut labels = self.run(&self.prepare(volume)?, None, &mut Clock::start())?;
        finish(self.domain(), &mut labels);
        Ok(labels)
    }

    /// The volume as each network sees it.
    pub(super) fn prepare(&self, volume: &Volume) -> Result<Vec<Arc<Prepared>>> {
        prepare(&self.networks(), volume)
    }

    /// Class indices of what was prepared, or values of regions, without clean-up; `maps` takes what is asked for beside them.
    pub(super) fn run(
        &self,
        cases: &[Arc<Prepared>],
        maps: Option<Maps<'_>>,
        clock: &mut Clock,
    ) -> Result<LabelMap> {
        segment(&self.networks(), &borrowed(cases), maps, clock)
    }
}
