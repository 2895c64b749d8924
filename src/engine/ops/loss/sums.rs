//! What the losses of classes and of regions have in common: rows of partial sums, and what becomes of them.

use super::super::common::WORKGROUP;
use super::weights::{LossWeights, VOXEL_LOSSES};
use crate::base::{Error, Result};
use crate::engine::graph::{Dispatch, Graph, Layout, Lowering, Scratch, Value};
use crate::engine::shader::KernelKey;

/// Most classes that the loss kernels take.
pub const MAX_CLASSES: usize = 256;

/// Words a sample of the bits of classes: bit `k % 32` of word `k / 32` is class k's.
pub const CLASS_WORDS: usize = MAX_CLASSES / 32;

/// The bits of these classes, or regions, below [`MAX_CLASSES`].
pub fn class_bits(classes: impl IntoIterator<Item = usize>) -> [u32; CLASS_WORDS] {
    let mut words = [0; CLASS_WORDS];
    classes.into_iter().for_each(|k| words[k / 32] |= 1 << (k % 32));
    words
}

/// Voxels of a chunk of partial sums.
pub const CHUNK: usize = 2048;

/// Added to both sides of the Dice ratio.
const SMOOTHING: f32 = 1e-5;

/// What losses give: their values, and what the gradient needs of them.
pub struct LossValues {
    /// Total and single losses as f32.
    pub result: Value,
    /// What loss_finish.wgsl hands on to the gradient.
    pub dice: Value,
}

/// Makes room for the values of losses of logits of this layout.
pub fn loss_values(graph: &mut Graph, layout: &Layout) -> LossValues {
    let result = graph.words("loss", LossWeights::WORDS.next_multiple_of(4));
    LossValues { result, dice: graph.words("loss.dice", 8 * layout.blocks() + 4) }
}

/// Sums of a row of partial ones: the losses of single voxels, what is left out, three of each output.
fn columns(outputs: usize) -> usize {
    VOXEL_LOSSES + 1 + 3 * outputs
}

/// A kernel that sums, with many lanes where lanes abound, so that none walks far.
pub fn summing(lowering: &Lowering<'_>, file: &'static str) -> KernelKey {
    let key = KernelKey::new(file);
    if lowering.caps.software { key } else { key.group(4 * WORKGROUP) }
}

/// The working memory of the sums, with a row for each chunk of each sample, however the samples are bound.
pub fn loss_sums(layout: &Layout) -> Vec<Scratch> {
    let (columns, rows) = (columns(layout.channels()), layout.n * layout.voxels().div_ceil(CHUNK));
    vec![Scratch::new("loss.sums", columns), Scratch::new("loss.partials", rows * columns)]
}

/// The sum of rows of partial sums, without the weights of the losses: result and what the gradient needs. The Lovász losses of the
/// classes are read from `lovasz`.
pub fn finish(lowering: &Lowering<'_>, lovasz: Value, rows: usize) -> Result<Dispatch> {
    let ([result, dice], [sums, partials]) = (lowering.outputs()?, lowering.scratch()?);
    let key = summing(lowering, "loss_finish.wgsl");
    Ok(Dispatch::new("loss", key, [1, 1])
        .bind("partials", lowering.whole(partials))
        .bind("lovasz", lowering.whole(lovasz))
        .bind("sums", lowering.whole(sums))
        .bind("dice", lowering.whole(dice))
        .bind("result", lowering.whole(result))
        .param("rows", rows)
        .param_f32("smoothing", SMOOTHING))
}

/// The loss kernels take no offset into a binding.
pub fn aligned(base: usize) -> Result<()> {
    if base == 0 {
        return Ok(());
    }
    Err(Error::shape(
        "loss",
        "logits of one sample do not start at an aligned offset; use an input with a multiple of 16 voxels",
    ))
}
