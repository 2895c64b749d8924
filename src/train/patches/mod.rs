//! Makes drawn patches on the GPU: one kernel takes a patch out of a case, further ones change its intensities. What they
//! make is what `data::make_patch` makes in plain loops.

mod passes;
mod volumes;
mod work;

pub use passes::kernels as patch_kernels;
pub use volumes::{Capacity, Piece};

use passes::Passes;
use volumes::{Places, Volume, Volumes};

use crate::data::{Augment, Draw, MAX_EXTENT, PatchSize, Prepared, Reach};
use crate::error::{Error, Result};
use crate::exec::caps;
use crate::gpu::Gpu;
use crate::graph::Caps;

/// A sample of a batch to come.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// By position in the domain.
    pub case: usize,
    pub draw: Draw,
    /// What the patch reads of a case that is not in GPU memory as a whole.
    pub piece: Option<Piece>,
}

impl Sample {
    /// With the piece that a case beyond the capacity needs.
    pub fn new(
        index: usize,
        case: &Prepared,
        draw: Draw,
        size: &PatchSize,
        capacity: &Capacity,
    ) -> Result<Self> {
        let bounds = || draw.spatial.bounds(size.patch, case.shape);
        let piece = (!capacity.holds(case)).then(|| Piece::cut(case, bounds())).transpose()?;
        Ok(Self { case: index, draw, piece })
    }
}

/// Cases of a domain and the size of its patches.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub cases: &'a [Prepared],
    pub size: PatchSize,
}

/// Where patches go: packed images [N, C/4, D, H, W, 4] and labels [N, D, H, W], a word each.
pub struct Target<'a> {
    pub image: &'a wgpu::Buffer,
    pub labels: &'a wgpu::Buffer,
}

/// Kernels, memory and the cached volumes of a run.
pub struct Patches {
    gpu: Gpu,
    passes: Passes,
    volumes: Volumes,
    /// For boxes of cases that are too large for the cache.
    staging: Option<Volume>,
    /// Bytes of all that could be cached.
    cacheable: u64,
}

impl Patches {
    /// Compiles the kernels and makes what a step needs; `budget` bytes are for whole cases.
    pub fn new(gpu: &Gpu, sources: &[Source<'_>], augment: &Augment, budget: u64) -> Result<Self> {
        Self::within(gpu, &caps(gpu), sources, augment, budget)
    }

    /// As [`Patches::new`], within limits narrower than the device's.
    pub fn within(
        gpu: &Gpu,
        caps: &Caps,
        sources: &[Source<'_>],
        augment: &Augment,
        budget: u64,
    ) -> Result<Self> {
        augment.check()?;
        let capacity = Capacity::new(gpu, caps, budget);
        let mut cacheable = 0;
        let mut largest: Option<Places> = None;
        let mut coefficients = 1;
        for source in sources {
            for case in source.cases {
                let reach = Reach::of(&source.size, case.spacing, augment);
                coefficients = coefficients.max(reach.coefficients);
                check_extent(case, &reach)?;
                if capacity.holds(case) {
                    cacheable += capacity.places(case.channels, case.shape).bytes;
                    continue;
                }
                let places = capacity.places(case.channels, reach.bounds(case.shape));
                let places = largest.map_or(places, |other| other.union(&places));
                if !capacity.fits(&places) {
                    return Err(too_large(case, &reach));
                }
                largest = Some(places);
            }
        }
        let passes = Passes::new((gpu, caps), sources, augment, coefficients)?;
        let staging =
            largest.map(|places| Volume::new(gpu, places, |b| passes.bind(gpu, b))).transpose()?;
        let volumes = Volumes::new(capacity);
        Ok(Self { gpu: gpu.clone(), passes, volumes, staging, cacheable })
    }

    /// For the thread that cuts pieces.
    pub fn capacity(&self) -> Capacity {
        self.volumes.capacity
    }

    /// Bytes of GPU memory that are taken at most.
    pub fn bytes(&self) -> u64 {
        let staging = self.staging.as_ref().map_or(0, |volume| volume.places.bytes);
        self.passes.bytes() + staging + self.cacheable.min(self.volumes.capacity.budget())
    }

    /// Bytes of the cases that are cached now.
    pub fn cached(&self) -> u64 {
        self.volumes.used()
    }

    /// Makes a sample of a domain and puts it at position `at` of the batch.
    pub fn make(
        &mut self,
        (domain, source): (usize, &Source<'_>),
        sample: &Sample,
        at: usize,
        target: &Target<'_>,
    ) -> Result<()> {
        let Self { gpu, passes, volumes, staging, .. } = self;
        let case = &source.cases[sample.case];
        let volume = match &sample.piece {
            None => volumes.get(gpu, (domain, sample.case), case, |part| passes.bind(gpu, part))?,
            Some(piece) => {
                let staging = staging.as_mut();
                let staging =
                    staging.ok_or_else(|| Error::Internal("no memory for boxes".into()))?;
                staging.put(gpu, piece)?;
                &*staging
            }
        };
        passes.run(gpu, (case, volume), (&sample.draw, source.size.patch), at, target)
    }
}

fn check_extent(case: &Prepared, reach: &Reach) -> Result<()> {
    let far = reach.voxels.iter().any(|v| *v > MAX_EXTENT as f64);
    if !far && case.shape.iter().all(|n| *n <= MAX_EXTENT) {
        return Ok(());
    }
    Err(Error::flag(
        "--patch, --spacing",
        format!("a case of {:?} voxels and patches that reach {:.0?}", case.shape, reach.voxels),
        format!("at most {MAX_EXTENT} on each axis"),
        "Use a smaller patch, a coarser spacing or a narrower augment.scale_range in config.toml.",
    ))
}

fn too_large(case: &Prepared, reach: &Reach) -> Error {
    Error::flag(
        "--patch",
        format!("patches that read {:?} voxels of a case", reach.bounds(case.shape)),
        "a box whose channels fit one binding of the adapter each",
        "Use a smaller patch, or a narrower augment.scale_range in config.toml.",
    )
}
