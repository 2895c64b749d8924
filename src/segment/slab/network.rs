//! A domain's network in GPU memory, with what cutting its windows and summing its logits takes.

use std::borrow::Cow;
use std::sync::Arc;

use super::memory::{default_memory, for_batch, most_windows};
use super::resize::Resizer;
use crate::base::{Error, Result};
use crate::domain::{DomainPlan, Weighting};
use crate::engine::exec::{caps, storage};
use crate::engine::gpu::Gpu;
use crate::engine::graph::Caps;
use crate::engine::plan::Workload;
use crate::engine::shape::LANES;
use crate::imaging::{Prepared, Volume, prepare};
use crate::net::Model;
use crate::segment::forward::{Forward, ForwardSpec};
use crate::segment::options::PredictOptions;
use crate::segment::window::{gaussian, linear};

/// A domain's network, ready to run over windows.
pub struct Network {
    pub(super) gpu: Gpu,
    pub(super) caps: Caps,
    pub(super) domain: DomainPlan,
    pub(super) options: PredictOptions,
    pub(super) forward: Forward,
    /// How much each voxel of a window counts.
    pub(super) weights: wgpu::Buffer,
    pub(super) resizer: Option<Resizer>,
    /// The domain's own model, to build the network again where the device is lost.
    model: Arc<Model>,
}

/// A domain's plan, by position.
fn plan(model: &Model, domain: usize) -> Result<&DomainPlan> {
    model.domains.get(domain).ok_or_else(|| {
        let expected = format!("less than {}, the domains of the model", model.domains.len());
        Error::setting("domain", domain.to_string(), expected, "Choose another.")
    })
}

/// What the forward program of a domain computes: as many windows as are wanted, or as memory holds.
fn spec<'a>(
    gpu: &Gpu,
    model: &'a Model,
    domain: usize,
    options: &PredictOptions,
) -> Result<ForwardSpec<'a>> {
    let (network, patch) = (&model.network, plan(model, domain)?.patch);
    let one = ForwardSpec { network, domain, samples: 1, patch, dtype: options.dtype };
    let most = options.batch.unwrap_or(most_windows(gpu));
    if options.batch.is_some() || most == 1 {
        return Ok(ForwardSpec { samples: most, ..one });
    }
    let budget = for_batch(options.memory.unwrap_or(default_memory(gpu)));
    let fit = (budget / one.bytes(&caps(gpu))?.max(1)) as usize;
    // halves of it make up what is left over
    let samples = fit.clamp(1, most);
    Ok(ForwardSpec { samples: 1 << samples.ilog2(), ..one })
}

impl Network {
    /// Builds the forward programs of a domain of the model, by its position, and uploads its weights.
    ///
    /// # Errors
    ///
    /// Where the model has no such domain or lacks weights, the options cannot be used, or the GPU fails.
    pub fn new(gpu: &Gpu, model: &Model, domain: usize, options: &PredictOptions) -> Result<Self> {
        plan(model, domain)?;
        let own = Arc::new(model.export(domain)?);
        Self::of_own(gpu, own, options)
    }

    /// The same on another device, where this one's is lost.
    ///
    /// # Errors
    ///
    /// Where that GPU fails.
    pub fn again(&self, device: &Gpu) -> Result<Self> {
        let gpu = self.gpu.on_device_of(device);
        Self::of_own(&gpu, self.model.clone(), &self.options)
    }

    /// The only domain of a model.
    fn of_own(gpu: &Gpu, own: Arc<Model>, options: &PredictOptions) -> Result<Self> {
        options.check()?;
        let (model, domain) = (own.as_ref(), 0);
        let values = |name: &str| match model.weights.get(name) {
            Some(tensor) => Ok(Cow::Borrowed(tensor.values.as_slice())),
            None => Err(Error::Internal(format!("the model lacks {name}"))),
        };
        let plan = plan(model, domain)?;
        let forward = Forward::up_to(gpu, &spec(gpu, model, domain, options)?, values)?;
        let size = plan.crop_size();
        // a window that the adapter cannot hold is refused before it is made here
        let voxels = size.iter().product::<usize>() as u64;
        let weights = storage(gpu, "weights of a window", 4 * voxels)?;
        let counts = match options.weighting.unwrap_or(plan.weighting) {
            Weighting::Gaussian => gaussian(size),
            Weighting::Linear => linear(size),
        };
        gpu.upload(&weights, 0, bytemuck::cast_slice(&counts));
        let caps = caps(gpu);
        let resizer = Resizer::new(gpu, &caps, size, plan.patch)?;
        let (gpu, domain, options) = (gpu.clone(), plan.clone(), options.clone());
        Ok(Self { gpu, caps, domain, options, forward, weights, resizer, model: own })
    }

    /// What the largest forward program that [`Network::new`] builds runs: what is tuned.
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
        spec(gpu, model, domain, options)?.workload()
    }

    /// The domain's plan.
    pub fn domain(&self) -> &DomainPlan {
        &self.domain
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The volume on the domain's grid.
    ///
    /// # Errors
    ///
    /// Where it has other channels than the domain, or cannot be resampled to its spacing.
    pub fn prepare(&self, volume: &Volume) -> Result<Prepared> {
        let channels = volume.channels().len();
        let domain = self.domain();
        if channels != domain.channels {
            let taken = format!("domain {} takes {}", domain.name, domain.channels);
            let message = format!("the image has {channels} channels, {taken}");
            return Err(Error::shape("predict", message));
        }
        prepare(volume, None, domain.spacing, &domain.normalisation, domain.resampling)
    }

    /// Whether [`Network::prepare`] makes the same of a volume for another network of as many channels.
    pub fn prepares_as(&self, other: &Self) -> bool {
        let how = |d: &DomainPlan| (d.spacing, d.normalisation, d.resampling);
        how(&self.domain) == how(&other.domain)
    }

    /// Mirror images that the network sees of each window, the window itself among them.
    pub fn mirrors(&self) -> usize {
        1 << self.options.mirror.iter().filter(|mirror| **mirror).count()
    }

    /// Bytes by which slabs are sized.
    pub(super) fn memory(&self) -> u64 {
        self.options.memory.unwrap_or(default_memory(&self.gpu))
    }

    /// Classes, or regions.
    pub(super) fn classes(&self) -> usize {
        self.domain.labels.outputs()
    }

    /// Blocks of sums: those of the classes and of the sum of weights behind them.
    pub(super) fn blocks(&self) -> usize {
        self.classes() / LANES + 1
    }
}
