//! Kernels that segment a volume slab by slab: windows cut out and their logits summed, planes resampled, classes decided. They
//! stand in no graph, since what they bind moves with the slab: a [`Call`] says what runs, whoever runs it binds the memory.

use super::common::WORKGROUP;
use crate::base::Result;
use crate::engine::graph::{Caps, fold};
use crate::engine::shader::KernelKey;

/// A kernel with its parameters and workgroups; memory is bound by the shader's names where it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// What runs.
    pub kernel: KernelKey,
    /// Members of the kernel's `params`, all of them; floats go as bits.
    pub params: Vec<(&'static str, Vec<u32>)>,
    /// Workgroups in x and y.
    pub groups: [u32; 2],
    /// Arithmetic operations or what takes as long, to bound submissions.
    pub flops: u64,
}

impl Call {
    /// A kernel over so many threads, each of which takes as long as `flops` operations.
    pub(super) fn new(
        kernel: KernelKey,
        caps: &Caps,
        threads: usize,
        flops: usize,
    ) -> Result<Self> {
        let groups = fold(threads.div_ceil(WORKGROUP), caps)?;
        let kernel = kernel.wide(caps.wide());
        Ok(Self { kernel, params: Vec::new(), groups, flops: (threads * flops) as u64 })
    }

    pub(super) fn words<const N: usize>(mut self, name: &'static str, words: [usize; N]) -> Self {
        self.params.push((name, words.map(|word| word as u32).to_vec()));
        self
    }

    fn signed(mut self, name: &'static str, [d, h, w]: [i64; 3], last: usize) -> Self {
        self.params.push((name, vec![d as u32, h as u32, w as u32, last as u32]));
        self
    }

    pub(super) fn float(mut self, name: &'static str, value: f32) -> Self {
        self.params.push((name, vec![value.to_bits()]));
        self
    }
}

fn four([d, h, w]: [usize; 3], last: usize) -> [usize; 4] {
    [d, h, w, last]
}

/// Slots of a ring of planes that a binding holds: the first, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    /// The first slot.
    pub first: usize,
    /// How many there are.
    pub count: usize,
}

/// Which voxel of a case lies below each voxel of a window, along D, H, W.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Voxels of the window.
    pub size: [usize; 3],
    /// Voxels of the case.
    pub case: [usize; 3],
    /// The case's voxel below the window's first one, were it not mirrored; below 0 where the case is smaller.
    pub first: [i64; 3],
    /// Axes along which the window is mirrored.
    pub mirror: [bool; 3],
}

impl Placed {
    fn step(&self) -> [i64; 3] {
        self.mirror.map(|mirror| if mirror { -1 } else { 1 })
    }

    /// The first voxel of the case that lies under the window, and how many do.
    pub fn under(&self) -> ([usize; 3], [usize; 3]) {
        let low = self.first.map(|first| first.max(0) as usize);
        let high = [0, 1, 2].map(|axis| {
            let end = self.first[axis] + self.size[axis] as i64;
            (end.max(0) as usize).min(self.case[axis])
        });
        (low, [0, 1, 2].map(|axis| high[axis].saturating_sub(low[axis])))
    }
}

/// Voxels along an axis that a thread makes: on a CPU all, since dividing an index is dear there.
fn chunk(caps: &Caps, size: usize) -> usize {
    if caps.software { size.max(1) } else { 4.min(size).max(1) }
}

/// A kernel whose threads take chunks along D.
fn columns(key: KernelKey, caps: &Caps, size: [usize; 3], chunk: usize) -> Result<Call> {
    let threads = size[0].div_ceil(chunk) * size[1] * size[2];
    Call::new(key, caps, threads, 64 * chunk)
}

/// Cuts four channels of a window out of the planes of a case: `window.wgsl`, bindings `image` and `out`.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Where the window lies.
    pub placed: Placed,
    /// Planes in the ring of planes.
    pub ring: usize,
    /// Which of them are bound.
    pub slots: Slots,
    /// Words from one to the next.
    pub pitch: usize,
    /// Channels of the case.
    pub channels: usize,
    /// Which four of them.
    pub block: usize,
    /// What lies beyond the case.
    pub outside: f32,
    /// The first vector in `out`.
    pub base: usize,
}

impl Cut {
    /// What runs.
    ///
    /// # Errors
    ///
    /// Where there are more workgroups than the adapter takes.
    pub fn call(&self, caps: &Caps) -> Result<Call> {
        let Self { placed, slots, .. } = self;
        let last = |axis: usize| placed.first[axis] + placed.size[axis] as i64 - 1;
        let start =
            [0, 1, 2].map(|axis| if placed.mirror[axis] { last(axis) } else { placed.first[axis] });
        let channels = (self.channels - 4 * self.block).min(4);
        let chunk = chunk(caps, placed.size[0]);
        let key = KernelKey::new("window.wgsl").set("CHANNELS", channels as u32);
        let call = columns(key, caps, placed.size, chunk)?
            .words("chunk", [chunk])
            .words("size", four(placed.size, self.base))
            .words("limit", four(placed.case, self.ring))
            .signed("start", start, 4 * self.block)
            .signed("step", placed.step(), 0)
            .words("slots", [slots.first, slots.count, self.pitch, 0]);
        Ok(call.float("outside", self.outside))
    }
}

/// Adds a block of a window's logits to weighted sums: `accumulate.wgsl`, bindings `logits`, `weights`, `sums` and `flags`.
#[derive(Debug, Clone, Copy)]
pub struct Accumulate {
    /// Where the window lies.
    pub placed: Placed,
    /// Planes in the ring of planes.
    pub ring: usize,
    /// Which of them are bound.
    pub slots: Slots,
    /// Vectors from one to the next.
    pub pitch: usize,
    /// Voxels of the case at or beyond these along all axes have no sum yet.
    pub fresh: [usize; 3],
    /// The first vector in `logits`; none where the block holds no class.
    pub base: Option<usize>,
    /// The lane that sums the weights, where it is in this block.
    pub weights: Option<usize>,
    /// What weights are multiplied by.
    pub share: f32,
}

impl Accumulate {
    /// What runs.
    ///
    /// # Errors
    ///
    /// Where there are more workgroups than the adapter takes.
    pub fn call(&self, caps: &Caps) -> Result<Call> {
        let Self { placed, slots, .. } = self;
        let (low, under) = placed.under();
        let start = [0, 1, 2].map(|axis| {
            let at = low[axis] as i64 - placed.first[axis];
            if placed.mirror[axis] { placed.size[axis] as i64 - 1 - at } else { at }
        });
        let key = KernelKey::new("accumulate.wgsl").set("LOGITS", u32::from(self.base.is_some()));
        let size = [placed.size[1], placed.size[2], placed.case[2], 0];
        let chunk = chunk(caps, under[0]);
        let call = columns(key, caps, under, chunk)?
            .words("chunk", [chunk])
            .words("under", four(under, self.ring))
            .words("first", four(low, self.pitch))
            .signed("start", start, self.base.unwrap_or(0))
            .signed("step", placed.step(), self.weights.unwrap_or(4))
            .words("fresh", four(self.fresh, 0))
            .words("size", size)
            .words("slots", [slots.first, slots.count]);
        Ok(call.float("share", self.share))
    }
}

/// Mean logits on a plane between two finished ones: `between_planes.wgsl`, bindings `low`, `high`, `low_weights`,
/// `high_weights` and `out`.
#[derive(Debug, Clone, Copy)]
pub struct BetweenPlanes {
    /// Voxels of a plane.
    pub voxels: usize,
    /// The lane that has the sums of weights.
    pub lane: usize,
    /// How much the higher plane counts, from 0 to 1.
    pub share: f32,
    /// The first vector in `out`.
    pub base: usize,
}

impl BetweenPlanes {
    /// What runs.
    ///
    /// # Errors
    ///
    /// Where there are more workgroups than the adapter takes.
    pub fn call(&self, caps: &Caps) -> Result<Call> {
        let call = Call::new(KernelKey::new("between_planes.wgsl"), caps, self.voxels, 96)?
            .words("voxels", [self.voxels])
            .words("lane", [self.lane])
            .words("base", [self.base]);
        Ok(call.float("t", self.share))
    }
}

/// Resamples vectors along one axis: `along.wgsl`, bindings `src`, `firsts`, `weights` and `out`.
#[derive(Debug, Clone, Copy)]
pub struct Along {
    /// What lies before the axis, its rows before, its rows after, and what lies behind it.
    pub outer: usize,
    /// Rows before.
    pub old: usize,
    /// Rows after.
    pub new: usize,
    /// Vectors from one row to the next.
    pub inner: usize,
    /// Old rows that a new one is made of.
    pub taps: usize,
    /// The first vector in `src` and in `out`.
    pub bases: [usize; 2],
}

impl Along {
    /// What runs.
    ///
    /// # Errors
    ///
    /// Where there are more workgroups than the adapter takes.
    pub fn call(&self, caps: &Caps) -> Result<Call> {
        let chunk = if caps.software { 16 } else { 1 };
        let threads = self.outer * self.new.div_ceil(chunk) * self.inner;
        let key = KernelKey::new("along.wgsl");
        Ok(Call::new(key, caps, threads, 32 * chunk * (1 + self.taps))?
            .words("chunk", [chunk])
            .words("outer", [self.outer])
            .words("old", [self.old])
            .words("new_rows", [self.new])
            .words("inner", [self.inner])
            .words("taps", [self.taps])
            .words("src_base", [self.bases[0]])
            .words("out_base", [self.bases[1]]))
    }
}

/// How the columns of scores lie to the voxels of an image's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Columns {
    /// A column a voxel.
    Same,
    /// So many columns about any four voxels of a word: 3 or 5.
    Few(u32),
    /// Any: each voxel reads its own two.
    Spread,
}

impl Columns {
    /// For voxels with these columns before them, in words of four.
    pub fn of(lows: &[u32]) -> Self {
        let span = |word: &[u32]| word.iter().max().zip(word.iter().min()).map(|(a, b)| a - b);
        match lows.chunks(4).filter_map(span).max().unwrap_or(0) {
            0..=1 => Self::Few(3),
            2..=3 => Self::Few(5),
            _ => Self::Spread,
        }
    }

    fn of_kernel(self, key: KernelKey) -> KernelKey {
        match self {
            Self::Same => key,
            Self::Few(columns) => key.tile("COLUMNS", columns),
            Self::Spread => key.section("SPREAD"),
        }
    }
}

/// Rows of packed class scores, a group of blocks of classes.
#[derive(Debug, Clone, Copy)]
pub struct Scored {
    /// Rows in all planes.
    pub rows: usize,
    /// Rows of a plane.
    pub height: usize,
    /// Words of four voxels in a row.
    pub words: usize,
    /// Columns that the scores have.
    pub columns: usize,
    /// How they lie to the voxels.
    pub kind: Columns,
    /// Blocks that are bound.
    pub blocks: usize,
    /// Classes in all.
    pub classes: usize,
    /// The first of those that are bound.
    pub first_class: usize,
}

/// Where scores are read for a decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Packed scores.
    Packed,
    /// Maps of four voxels a vector.
    Maps,
}

/// How labels are decided: `argmax.wgsl`, bindings `scores`, `places` (packed scores), `labels`, `values` (regions) and
/// `best` (several groups).
#[derive(Debug, Clone, Copy)]
pub struct Decide {
    /// The scores.
    pub scored: Scored,
    /// Where they are read.
    pub source: Source,
    /// The least score of a region, exclusive; none where classes exclude one another.
    pub threshold: Option<f32>,
    /// Whether the classes come in several groups.
    pub grouped: bool,
}

/// Rows of a thread that decides: on a CPU the places are dear.
fn rows(caps: &Caps) -> usize {
    if caps.software { 8 } else { 1 }
}

impl Scored {
    fn params(&self, call: Call) -> Call {
        call.words("rows", [self.rows])
            .words("words", [self.words])
            .words("height", [self.height])
            .words("columns", [self.columns])
            .words("blocks", [self.blocks])
            .words("base", [0])
            .words("classes", [self.classes])
            .words("first_class", [self.first_class])
    }
}

impl Decide {
    /// What runs.
    ///
    /// # Errors
    ///
    /// Where there are more workgroups than the adapter takes.
    pub fn call(&self, caps: &Caps) -> Result<Call> {
        let rows = rows(caps);
        let scored = &self.scored;
        let threads = scored.words * scored.rows.div_ceil(rows);
        let key = KernelKey::new("argmax.wgsl").set("ROWS", rows as u32);
        let key = match self.source {
            Source::Packed => scored.kind.of_kernel(key),
            Source::Maps => key.section("MAPS"),
        };
        let key = if self.threshold.is_some() { key.section("REGIONS") } else { key };
        let key = if self.grouped { key.section("MORE") } else { key };
        let call = Call::new(key, caps, threads, rows * scored.blocks * 128)?;
        let call = scored.params(call).words("row0", [0]);
        Ok(call.float("threshold", self.threshold.unwrap_or(0.0)))
    }
}

/// Maximum and sum of the softmax, group by group: `softmax_sums.wgsl`, bindings `scores`, `places` and `sums`.
#[derive(Debug, Clone, Copy)]
pub struct SoftmaxSums(pub Scored);

impl SoftmaxSums {
    /// What runs.
    ///
    /// # Errors
    ///
    /// Where there are more workgroups than the adapter takes.
    pub fn call(&self, caps: &Caps) -> Result<Call> {
        let key = self.0.kind.of_kernel(KernelKey::new("softmax_sums.wgsl"));
        let threads = self.0.rows * self.0.words;
        Ok(self.0.params(Call::new(key, caps, threads, self.0.blocks * 256)?))
    }
}

/// Probabilities as maps: `softmax.wgsl`, bindings `scores`, `places`, `maps` and `sums` (several groups).
#[derive(Debug, Clone, Copy)]
pub struct Probabilities {
    /// The scores.
    pub scored: Scored,
    /// Whether each class is a region of its own.
    pub regions: bool,
    /// Whether the classes come in several groups.
    pub grouped: bool,
    /// Whether they are added to what is there.
    pub add: bool,
    /// What the result is multiplied by.
    pub scale: f32,
}

impl Probabilities {
    /// What runs.
    ///
    /// # Errors
    ///
    /// Where there are more workgroups than the adapter takes.
    pub fn call(&self, caps: &Caps) -> Result<Call> {
        let scored = &self.scored;
        let rows = rows(caps);
        let key = KernelKey::new("softmax.wgsl").set("ROWS", rows as u32);
        let key = key.set("SIGMOID", u32::from(self.regions));
        let key = scored.kind.of_kernel(key);
        let key = if self.grouped { key.section("GROUPED") } else { key };
        let threads = scored.words * scored.rows.div_ceil(rows);
        let call = Call::new(key, caps, threads, rows * scored.blocks * 384)?;
        let call = scored
            .params(call)
            .words("row0", [0])
            .words("all_rows", [scored.rows])
            .words("add", [usize::from(self.add)]);
        Ok(call.float("scale", self.scale))
    }
}

/// Every kernel of this file in every specialisation.
pub fn slab_kernels() -> Vec<KernelKey> {
    let mut keys: Vec<_> =
        (1..=4).map(|count| KernelKey::new("window.wgsl").set("CHANNELS", count)).collect();
    keys.extend([0, 1].map(|on| KernelKey::new("accumulate.wgsl").set("LOGITS", on)));
    keys.push(KernelKey::new("between_planes.wgsl"));
    keys.push(KernelKey::new("along.wgsl"));
    let sections = |key: KernelKey, name: &'static str| [key.clone(), key.section(name)];
    for columns in [Columns::Same, Columns::Few(3), Columns::Few(5), Columns::Spread] {
        keys.push(columns.of_kernel(KernelKey::new("softmax_sums.wgsl")));
        for on in [0, 1] {
            let key = columns.of_kernel(KernelKey::new("softmax.wgsl").set("SIGMOID", on));
            keys.extend(sections(key, "GROUPED"));
        }
        let key = columns.of_kernel(KernelKey::new("argmax.wgsl"));
        keys.extend(sections(key, "REGIONS").into_iter().flat_map(|key| sections(key, "MORE")));
    }
    let maps = KernelKey::new("argmax.wgsl").section("MAPS");
    keys.extend(sections(maps, "REGIONS").into_iter().flat_map(|key| sections(key, "MORE")));
    keys
}
