//! Makes drawn patches on the GPU: one kernel takes a patch out of a case, further ones change its intensities. What they
//! make is what `patch::make_patch` makes in plain loops.

mod cache;
mod kernels;
mod scratch;
mod volumes;
mod work;

pub use cache::{Cache, Capacity};
pub use kernels::kernels as patch_kernels;

use rayon::prelude::*;

use cache::{Answer, Key, Places};
use scratch::{Scratch, Sizes, VECTOR};
use volumes::{Resident, Volumes};
use work::{Drawn, Work};

use crate::base::{Error, Result};
use crate::dataset::prepared::{CaseData, Facts, Piece};
use crate::engine::exec::{Command, submit};
use crate::engine::gpu::Gpu;
use crate::engine::graph::Caps;
use crate::engine::shape::LANES;
use crate::imaging::VoxelBox;
use crate::patch::draw::FRACTION_BITS;
use crate::patch::{Augment, Draw, MAX_EXTENT, PatchSize, Reach};

/// Where the voxels of a sample come from.
#[derive(Debug, Clone, PartialEq)]
enum Voxels {
    /// A case that is in GPU memory.
    Here,
    /// A case that goes there first, once others have left.
    Load(Vec<Key>, Piece),
    /// A box of a case that stays away.
    Box(Piece),
}

/// A sample of a batch to come.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    key: Key,
    draw: Draw,
    voxels: Voxels,
}

impl Sample {
    /// The case that it is of, by position.
    pub fn case(&self) -> usize {
        self.key.1
    }

    /// The voxel of the case that the patch is centred on, D, H, W.
    pub fn centre(&self) -> [i32; 3] {
        self.draw.spatial.centre.map(|at| at >> FRACTION_BITS)
    }

    /// Readies drawn samples (case and draw) of a domain, in the order in which they will be made.
    ///
    /// # Errors
    ///
    /// Where a case cannot be read.
    pub fn ready(
        domain: usize,
        source: &Source<'_>,
        drawn: Vec<(usize, Draw)>,
        cache: &mut Cache,
    ) -> Result<Vec<Self>> {
        let wanted = Wanted::ask(domain, source, drawn, cache);
        wanted.into_par_iter().map(|wanted| wanted.read(source)).collect()
    }

    /// Readies drawn samples (case and draw) of a domain, each with the box of its case that it reads: of sources that
    /// [`Patches::with_boxes`] was told of, in any order.
    ///
    /// # Errors
    ///
    /// Where a case cannot be read.
    pub fn boxed(
        domain: usize,
        source: &Source<'_>,
        drawn: Vec<(usize, Draw)>,
    ) -> Result<Vec<Self>> {
        let ready = |(index, draw): (usize, Draw)| {
            let case = source.cases[index];
            let bounds = draw.spatial.bounds(source.size.patch, case.facts().shape);
            Ok(Self { key: (domain, index), draw, voxels: Voxels::Box(case.read(bounds)?) })
        };
        drawn.into_par_iter().map(ready).collect()
    }
}

/// A sample whose voxels are not read.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    key: Key,
    draw: Draw,
    answer: Answer,
    /// The voxels that are read for it; none where the case is in GPU memory.
    bounds: Option<VoxelBox>,
    /// Bytes of those.
    bytes: u64,
}

impl Wanted {
    /// Finds out what has to be read for drawn samples (case and draw) of a domain, in the order in which they will be made.
    pub fn ask(
        domain: usize,
        source: &Source<'_>,
        drawn: Vec<(usize, Draw)>,
        cache: &mut Cache,
    ) -> Vec<Self> {
        let ask = |(index, draw): (usize, Draw)| {
            let facts = source.cases[index].facts();
            let answer = cache.ask((domain, index), &facts);
            let bounds = match answer {
                Answer::Here => None,
                Answer::Load(_) => Some(VoxelBox::whole(facts.shape)),
                Answer::Box => Some(draw.spatial.bounds(source.size.patch, facts.shape)),
            };
            let voxels = bounds.map_or(0, |bounds| bounds.shape().iter().product::<usize>());
            let bytes = (voxels * (4 * facts.channels + 1)) as u64;
            Self { key: (domain, index), draw, answer, bounds, bytes }
        };
        drawn.into_iter().map(ask).collect()
    }

    /// Bytes that reading it takes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads the voxels.
    ///
    /// # Errors
    ///
    /// Where the case cannot be read.
    pub fn read(self, source: &Source<'_>) -> Result<Sample> {
        let Self { key, draw, answer, bounds, .. } = self;
        let piece = bounds.map(|bounds| source.cases[key.1].read(bounds)).transpose()?;
        let voxels = match (answer, piece) {
            (Answer::Load(leave), Some(piece)) => Voxels::Load(leave, piece),
            (Answer::Box, Some(piece)) => Voxels::Box(piece),
            _ => Voxels::Here,
        };
        Ok(Sample { key, draw, voxels })
    }
}

/// Cases of a domain and the size of its patches.
#[derive(Clone)]
pub struct Source<'a> {
    /// The cases of a domain.
    pub cases: Vec<&'a dyn CaseData>,
    /// Of its patches.
    pub size: PatchSize,
}

impl<'a> Source<'a> {
    /// Patches of these cases.
    pub fn new<C: CaseData + 'a>(cases: impl IntoIterator<Item = &'a C>, size: PatchSize) -> Self {
        Self { cases: cases.into_iter().map(|case| case as &dyn CaseData).collect(), size }
    }
}

/// Where patches go: packed images [N, C/4, D, H, W, 4] and labels [N, D, H, W], a word each.
pub struct Target<'a> {
    /// The images of a batch.
    pub image: &'a wgpu::Buffer,
    /// Their labels.
    pub labels: &'a wgpu::Buffer,
}

/// Kernels, memory and the cached volumes of a run.
pub struct Patches {
    gpu: Gpu,
    caps: Caps,
    scratch: Scratch,
    capacity: Capacity,
    /// Cases of each domain.
    cases: Vec<usize>,
    volumes: Volumes,
    /// For boxes of cases that find no room.
    staging: Option<Resident>,
    /// Bytes of all cases that may find room.
    cacheable: u64,
}

impl Patches {
    /// Compiles the kernels and makes what a step needs, within the limits of `caps`, which may be narrower than the device's;
    /// `budget` bytes are for whole cases.
    pub fn new(
        gpu: &Gpu,
        caps: &Caps,
        sources: &[Source<'_>],
        augment: &Augment,
        budget: u64,
    ) -> Result<Self> {
        Self::with_boxes(gpu, caps, sources, &[], augment, budget)
    }

    /// As [`Patches::new`], with memory for [`Sample::boxed`] of further sources, which are not augmented.
    pub fn with_boxes(
        gpu: &Gpu,
        caps: &Caps,
        sources: &[Source<'_>],
        boxed: &[Source<'_>],
        augment: &Augment,
        budget: u64,
    ) -> Result<Self> {
        augment.check()?;
        let capacity = Capacity::new(gpu, caps, budget);
        let mut demand = Demand::of(sources, augment, &capacity)?;
        boxed.iter().try_for_each(|source| demand.add_boxes(source, &capacity))?;
        check_binding(demand.sizes.voxels, caps)?;
        let scratch = Scratch::new(gpu, augment, &demand.sizes)?;
        let staging = demand.staging.map(|p| Resident::new(gpu, p, |b| scratch.bind(gpu, b)));
        Ok(Self {
            gpu: gpu.clone(),
            caps: caps.clone(),
            staging: staging.transpose()?,
            scratch,
            capacity,
            cases: sources.iter().map(|s| s.cases.len()).collect(),
            volumes: Volumes::default(),
            cacheable: demand.cacheable,
        })
    }

    /// The bookkeeping for samples that are made from now on, every case still away.
    pub fn cache(&mut self) -> Cache {
        self.volumes = Volumes::default();
        Cache::new(self.capacity, self.cases.clone())
    }

    /// Bytes of GPU memory that are taken at most.
    pub fn bytes(&self) -> u64 {
        let staging = self.staging.as_ref().map_or(0, |volume| volume.places.bytes);
        self.scratch.bytes() + staging + self.cacheable.min(self.capacity.budget)
    }

    /// Bytes of the cases that are in GPU memory now.
    pub fn cached(&self) -> u64 {
        self.volumes.bytes()
    }

    /// Makes a sample of a source, the next of those that were readied, and puts it at position `at` of the batch.
    pub fn make(
        &mut self,
        source: &Source<'_>,
        sample: &Sample,
        at: usize,
        target: &Target<'_>,
    ) -> Result<()> {
        let Self { gpu, caps, scratch, capacity, volumes, staging, .. } = self;
        let facts = source.cases[sample.key.1].facts();
        let volume = match &sample.voxels {
            Voxels::Box(piece) => {
                let staging = staging.as_mut();
                let staging =
                    staging.ok_or_else(|| Error::Internal("no memory for boxes".into()))?;
                staging.put(gpu, piece)?;
                &*staging
            }
            Voxels::Here => volumes.get(sample.key)?,
            Voxels::Load(leave, piece) => {
                volumes.leave(gpu, leave)?;
                let places = capacity.places(facts.channels, facts.shape);
                let mut volume = Resident::new(gpu, places, |block| scratch.bind(gpu, block))?;
                volume.put(gpu, piece)?;
                volumes.keep(sample.key, volume);
                volumes.get(sample.key)?
            }
        };
        let drawn = Drawn { facts: &facts, volume, draw: &sample.draw, size: source.size.patch };
        if let Some(elastic) = &sample.draw.spatial.elastic {
            let vectors = elastic.coefficients.iter();
            let words: Vec<[f32; 4]> = vectors.map(|[d, h, w]| [*d, *h, *w, 0.0]).collect();
            gpu.upload(&scratch.control, 0, bytemuck::cast_slice(&words));
        }
        let voxels = drawn.size.iter().product::<usize>() as u64;
        let blocks = sample.draw.intensities.len().div_ceil(LANES);
        for block in 0..blocks {
            let mut commands = Work::commands(gpu, caps, scratch, &drawn, block)?;
            let copy = |from: &wgpu::Buffer, to: &wgpu::Buffer, position: usize, bytes: u64| {
                let (from, to) = (from.clone(), to.clone());
                Command::Copy { from, to, at: position as u64 * bytes, bytes }
            };
            let image = voxels * VECTOR;
            commands.push(copy(&scratch.image, target.image, at * blocks + block, image));
            if block == 0 {
                commands.push(copy(&scratch.labels, target.labels, at, voxels * 4));
            }
            submit(gpu, "patch", &commands)?;
        }
        Ok(())
    }
}

/// What the cases and the settings ask for.
struct Demand {
    /// Bytes of all cases that may lie in GPU memory as a whole.
    cacheable: u64,
    sizes: Sizes,
    /// The largest box, where not all cases find room.
    staging: Option<Places>,
}

impl Demand {
    fn of(sources: &[Source<'_>], augment: &Augment, capacity: &Capacity) -> Result<Self> {
        let sizes = Sizes { voxels: 1, coefficients: 1, blocks: Vec::new() };
        let mut demand = Self { cacheable: 0, sizes, staging: None };
        let mut reaches = Vec::new();
        for source in sources {
            let voxels = source.size.patch.iter().product::<usize>() as u64;
            demand.sizes.voxels = demand.sizes.voxels.max(voxels);
            for case in source.cases.iter().map(|case| case.facts()) {
                let reach = Reach::of(&source.size, case.spacing, augment);
                check_extent(&case, &reach)?;
                let sizes = &mut demand.sizes;
                sizes.coefficients = sizes.coefficients.max(reach.coefficients as u64);
                sizes.blocks.extend(blocks(case.channels));
                if capacity.holds(&case) {
                    demand.cacheable += capacity.places(case.channels, case.shape).bytes;
                }
                reaches.push((case, reach));
            }
        }
        let all = demand.cacheable <= capacity.budget;
        for (case, reach) in reaches.iter().filter(|(case, _)| !all || !capacity.holds(case)) {
            demand.add_box(case, reach, capacity)?;
        }
        demand.sort_blocks();
        Ok(demand)
    }

    fn sort_blocks(&mut self) {
        self.sizes.blocks.sort_unstable();
        self.sizes.blocks.dedup();
    }

    /// Adds patches of a source that are not augmented, each made of a box.
    fn add_boxes(&mut self, source: &Source<'_>, capacity: &Capacity) -> Result<()> {
        let voxels = source.size.patch.iter().product::<usize>() as u64;
        self.sizes.voxels = self.sizes.voxels.max(voxels);
        for case in source.cases.iter().map(|case| case.facts()) {
            let reach = Reach::of(&source.size, case.spacing, &Augment::none());
            check_extent(&case, &reach)?;
            self.sizes.blocks.extend(blocks(case.channels));
            self.add_box(&case, &reach, capacity)?;
        }
        self.sort_blocks();
        Ok(())
    }

    /// Adds memory for the box that a patch of a case reads.
    fn add_box(&mut self, case: &Facts, reach: &Reach, capacity: &Capacity) -> Result<()> {
        let places = capacity.places(case.channels, reach.bounds(case.shape));
        let places = self.staging.map_or(places, |other| other.union(&places));
        if !capacity.fits(&places) {
            return Err(too_large(case, reach));
        }
        self.staging = Some(places);
        Ok(())
    }
}

/// Channels of each block of a case.
fn blocks(channels: usize) -> impl Iterator<Item = usize> {
    (0..channels).step_by(LANES).map(move |first| (channels - first).min(LANES))
}

fn check_binding(voxels: u64, caps: &Caps) -> Result<()> {
    let most = caps.max_binding / VECTOR;
    if voxels <= most {
        return Ok(());
    }
    Err(Error::setting(
        "patch",
        format!("{voxels} voxels"),
        format!("at most {most}, which one binding holds"),
        "Use a smaller patch.",
    ))
}

fn check_extent(case: &Facts, reach: &Reach) -> Result<()> {
    let far = reach.voxels.iter().any(|v| *v > MAX_EXTENT as f64);
    if !far && case.shape.iter().all(|n| *n <= MAX_EXTENT) {
        return Ok(());
    }
    Err(Error::setting(
        "patch, spacing",
        format!("a case of {:?} voxels and patches that reach {:.0?}", case.shape, reach.voxels),
        format!("at most {MAX_EXTENT} on each axis"),
        "Use a smaller patch, a coarser spacing or a narrower augment.scale_range in config.toml.",
    ))
}

fn too_large(case: &Facts, reach: &Reach) -> Error {
    Error::setting(
        "patch",
        format!("patches that read {:?} voxels of a case", reach.bounds(case.shape)),
        "a box whose channels fit one binding of the device each",
        "Use a smaller patch, or a narrower augment.scale_range in config.toml.",
    )
}
