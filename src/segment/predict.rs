//! Sliding-window inference: one domain of a model.

use ndarray::Array4;

use super::options::PredictOptions;
use super::slab::{Clock, Network, Sweep};
use super::whole::{Uncertainty, finish, probabilities, segment, uncertainty};
use crate::base::Result;
use crate::domain::DomainPlan;
use crate::engine::gpu::Gpu;
use crate::engine::plan::Workload;
use crate::imaging::{LabelMap, Prepared, Volume};
use crate::net::Model;

/// A domain's network, ready to segment.
pub struct Predictor {
    network: Network,
}

impl Predictor {
    /// Builds the forward programs of a domain of the model, by its position, and uploads its weights.
    ///
    /// # Errors
    ///
    /// Where the model has no such domain or lacks weights, the options cannot be used, or the GPU fails.
    pub fn new(gpu: &Gpu, model: &Model, domain: usize, options: &PredictOptions) -> Result<Self> {
        Ok(Self { network: Network::new(gpu, model, domain, options)? })
    }

    /// The same on another device, where this one's is lost.
    pub(super) fn again(&self, device: &Gpu) -> Result<Self> {
        Ok(Self { network: self.network.again(device)? })
    }

    /// What the largest forward program that [`Predictor::new`] builds runs: what is tuned.
    ///
    /// # Errors
    ///
    /// Where the model has no such domain.
    pub fn workload(
        gpu: &Gpu,
        model: &Model,
        domain: usize,
        options: &PredictOptions,
    ) -> Result<Workload> {
        Network::workload(gpu, model, domain, options)
    }

    /// The domain's plan.
    pub fn domain(&self) -> &DomainPlan {
        self.network.domain()
    }

    pub(super) fn network(&self) -> &Network {
        &self.network
    }

    /// Label values of a volume on its own grid, cleaned up as the domain's plan says.
    ///
    /// # Errors
    ///
    /// Where the volume has other channels than the domain or cannot be resampled to its spacing, or the GPU fails.
    pub fn segment(&self, volume: &Volume) -> Result<LabelMap> {
        let mut labels = self.raw_labels(volume)?;
        finish(self.domain(), &mut labels);
        Ok(labels)
    }

    /// Class indices of a volume on its own grid, without clean-up; label values where there are regions.
    ///
    /// # Errors
    ///
    /// As those of [`Predictor::segment`].
    pub fn raw_labels(&self, volume: &Volume) -> Result<LabelMap> {
        self.raw_labels_of(&self.network.prepare(volume)?)
    }

    /// Class indices of what was prepared of a volume, on that volume's grid, without clean-up; label values where there are
    /// regions.
    ///
    /// # Errors
    ///
    /// Where the GPU fails.
    pub fn raw_labels_of(&self, case: &Prepared) -> Result<LabelMap> {
        let mut clock = Clock::start();
        let labels = segment(&[&self.network], &[case], None, &mut clock)?;
        log::info!("{}", clock.told());
        Ok(labels)
    }

    /// Probabilities of all classes, or of each region, on the volume's own grid: K, D, H, W. Background is certain beyond the
    /// box of the volume's non-zero voxels.
    ///
    /// # Errors
    ///
    /// As those of [`Predictor::segment`].
    pub fn probabilities(&self, volume: &Volume) -> Result<Array4<f32>> {
        probabilities(&[&self.network], volume)
    }

    /// How sure the network is of each voxel, on the volume's own grid; 0 beyond the box of the volume's non-zero voxels.
    ///
    /// # Errors
    ///
    /// As those of [`Predictor::segment`].
    pub fn uncertainty(&self, volume: &Volume) -> Result<Uncertainty> {
        uncertainty(&[&self.network], volume)
    }

    /// Weighted mean logits (K, D, H, W) of all windows over a prepared case.
    ///
    /// # Errors
    ///
    /// Where the GPU fails.
    pub fn logits(&self, case: &Prepared) -> Result<Vec<f32>> {
        Sweep::new(&self.network, case, false)?.logits()
    }
}
