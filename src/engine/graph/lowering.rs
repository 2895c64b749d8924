//! What operations ask while they are lowered, and the one way in which tensors are cut to fit the bindings of an adapter.

use std::fmt::Display;
use std::sync::Arc;

use super::dispatch::Bind;
use super::layout::{DType, Layout};
use super::op::{Lowering, Node};
use super::value::Value;
use crate::base::{Error, Result};
use crate::engine::shader::Choice;

/// Consecutive channel blocks, or other units that a tensor is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRun {
    /// The first.
    pub first: usize,
    /// How many.
    pub count: usize,
}

impl BlockRun {
    /// Covers `all` units in runs of at most `most`.
    pub fn cover(all: usize, most: usize) -> impl Iterator<Item = Self> {
        let most = most.max(1);
        (0..all).step_by(most).map(move |first| Self { first, count: most.min(all - first) })
    }
}

/// Channel blocks of some tensors of one layout along which a kernel's work is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutAxis {
    /// Those that the kernel covers.
    pub blocks: usize,
    /// Those of a sample in memory, at most.
    pub stored: usize,
    /// Vectors of a block in memory, at most.
    pub voxels: usize,
}

impl CutAxis {
    /// All blocks of a tensor.
    pub fn all(blocks: usize, voxels: usize) -> Self {
        Self { blocks, stored: blocks, voxels }
    }
}

/// What one dispatch covers: samples and a run along each axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Portion<const AXES: usize> {
    /// The first sample.
    pub n0: usize,
    /// How many samples.
    pub samples: usize,
    /// The blocks along each axis.
    pub runs: [BlockRun; AXES],
}

/// Samples and channel blocks of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The first sample.
    pub n0: usize,
    /// How many samples.
    pub samples: usize,
    /// The channel blocks.
    pub blocks: BlockRun,
}

impl<const AXES: usize> Portion<AXES> {
    /// These channel blocks of the piece's samples.
    pub fn part(&self, blocks: BlockRun) -> Part {
        Part { n0: self.n0, samples: self.samples, blocks }
    }
}

/// The first of some values.
fn first<const N: usize>(values: &[Value], what: &str, of: &Node) -> Result<[Value; N]> {
    let missing = || Error::Internal(format!("{} lacks its {what}", of.op.name()));
    values.first_chunk().copied().ok_or_else(missing)
}

impl Lowering<'_> {
    /// The first inputs of the node.
    pub fn inputs<const N: usize>(&self) -> Result<[Value; N]> {
        first(&self.node.inputs, "inputs", self.node)
    }

    /// The first outputs of the node.
    pub fn outputs<const N: usize>(&self) -> Result<[Value; N]> {
        first(&self.node.outputs, "outputs", self.node)
    }

    /// The first working memory of the node.
    pub fn scratch<const N: usize>(&self) -> Result<[Value; N]> {
        first(&self.node.scratch, "working memory", self.node)
    }

    /// Name of a value.
    pub fn name(&self, value: Value) -> &str {
        &self.graph.info(value).name
    }

    /// The variant for a site, of those that it has, the default first; one for tensors in f16 is a site of its own.
    pub fn choose<T: Display + Clone>(
        &self,
        family: &str,
        shape: impl Display,
        candidates: &[T],
    ) -> Result<(T, Arc<Choice>)> {
        let halves = if self.dtype == DType::F16 { " f16" } else { "" };
        self.caps.tuning.choose(family, format!("{shape}{halves}"), candidates)
    }

    /// The same node as one of tensors that are stored like the plan's activations.
    pub fn of_activations(&self) -> Self {
        Self { dtype: self.activations, ..*self }
    }

    /// The whole of a value.
    pub fn whole(&self, value: Value) -> Bind {
        Bind::Value { value, start: 0, words: self.graph.info(value).words }
    }

    /// Binds a part of a stored tensor, whole if that fits one binding; gives the index of the part's first vector within.
    pub fn window(&self, value: Value, part: Part) -> Result<(Bind, usize)> {
        let info = self.graph.info(value);
        let layout = self.graph.layout(value)?;
        let (blocks, voxels) = (layout.blocks(), layout.voxels());
        let start = (part.n0 * blocks + part.blocks.first) * voxels;
        let len = ((part.samples - 1) * blocks + part.blocks.count) * voxels;
        if info.words as u64 * 4 <= self.caps.max_binding {
            return Ok((self.whole(value), start));
        }
        let vector = info.dtype.vector_bytes();
        let step = (self.caps.alignment as usize).div_ceil(vector).max(1);
        let first = start / step * step;
        let words = (start + len - first) * vector / 4;
        if words as u64 * 4 > self.caps.max_binding {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let found = format!(
                "one channel block takes {:.1} MiB, more than the {:.1} MiB that this device binds; use a smaller input",
                mib(words as u64 * 4),
                mib(self.caps.max_binding)
            );
            return Err(Error::shape(info.name.clone(), found));
        }
        Ok((Bind::Value { value, start: first * vector / 4, words }, start - first))
    }

    /// Cuts `samples` samples and channel blocks along each axis so that every tensor's share fits a binding: not at all where
    /// whole tensors fit, else sample by sample in runs of blocks.
    pub fn cut<const AXES: usize>(
        &self,
        samples: usize,
        axes: [CutAxis; AXES],
    ) -> Vec<Portion<AXES>> {
        let vector = self.dtype.vector_bytes();
        let bytes = |axis: &CutAxis| (samples * axis.stored * axis.voxels * vector) as u64;
        if axes.iter().all(|axis| bytes(axis) <= self.caps.max_binding) {
            let runs = axes.map(|axis| BlockRun { first: 0, count: axis.blocks });
            return vec![Portion { n0: 0, samples, runs }];
        }
        // a run may begin between two offsets that can be bound
        let room = self.caps.max_binding.saturating_sub(self.caps.alignment) as usize;
        let mut products = vec![[BlockRun { first: 0, count: 0 }; AXES]];
        for (place, axis) in axes.iter().enumerate() {
            let runs = BlockRun::cover(axis.blocks, room / (axis.voxels * vector));
            let runs: Vec<BlockRun> = runs.collect();
            let with = |product: [BlockRun; AXES]| {
                runs.iter().map(move |run| {
                    let mut product = product;
                    product[place] = *run;
                    product
                })
            };
            products = products.into_iter().flat_map(with).collect();
        }
        let of = |n0| products.iter().map(move |runs| Portion { n0, samples: 1, runs: *runs });
        (0..samples).flat_map(of).collect()
    }

    /// Cuts stored tensors of one layout into whole samples, for kernels that read all channels of a voxel.
    pub fn cut_samples(&self, layout: &Layout) -> Vec<Part> {
        let blocks = BlockRun { first: 0, count: layout.blocks() };
        let sample = CutAxis::all(1, layout.blocks() * layout.voxels());
        self.cut(layout.n, [sample]).iter().map(|piece| piece.part(blocks)).collect()
    }

    /// Cuts the channel blocks of all samples of stored tensors, counted through; `voxels` are those of the larger tensor's blocks.
    pub fn cut_flat(&self, layout: &Layout, voxels: usize) -> Vec<Portion<1>> {
        self.cut(1, [CutAxis::all(layout.n * layout.blocks(), voxels)])
    }
}
