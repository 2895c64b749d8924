//! Softmax and argmax, voxel by voxel.

use super::super::common::WORKGROUP;
use super::super::elementwise::materialise;
use super::sums::MAX_CLASSES;
use crate::base::{Error, Result};
use crate::engine::graph::{Dispatch, Gradients, Graph, Lowering, Node, Op, Value, fold};
use crate::engine::shader::KernelKey;

/// Class probabilities of each voxel as maps, four voxels of a sample a vector: classes, N, ceil(D·H·W / 4) vectors.
pub fn softmax(graph: &mut Graph, logits: Value) -> Result<Value> {
    per_voxel(graph, logits, PerVoxel::Softmax)
}

/// Index of the most likely class of each voxel, a byte each, four voxels of a sample a word: N, ceil(D·H·W / 4) words.
pub fn argmax(graph: &mut Graph, logits: Value) -> Result<Value> {
    per_voxel(graph, logits, PerVoxel::Argmax)
}

fn per_voxel(graph: &mut Graph, logits: Value, op: PerVoxel) -> Result<Value> {
    let logits = materialise(graph, logits)?;
    let layout = graph.layout(logits)?.clone();
    if layout.channels() > MAX_CLASSES || layout.segments.len() != 1 {
        let found = format!("classes of {layout}; at most {MAX_CLASSES}");
        return Err(Error::shape(op.name(), found));
    }
    let words = layout.n * layout.voxels().div_ceil(4);
    let out = match op {
        PerVoxel::Softmax => graph.words("probabilities", layout.channels() * words * 4),
        PerVoxel::Argmax => graph.words("labels", words),
    };
    graph.node(op, vec![logits], vec![out]);
    Ok(out)
}

#[derive(Debug, Clone, Copy)]
enum PerVoxel {
    Softmax,
    Argmax,
}

impl Op for PerVoxel {
    fn name(&self) -> &'static str {
        match self {
            Self::Softmax => "softmax",
            Self::Argmax => "argmax",
        }
    }

    fn backward(&self, _: &mut Graph, _: &Node, _: &mut Gradients) -> Result<()> {
        Err(Error::Internal("losses differentiate the softmax themselves".into()))
    }

    /// A sample is a row of as many columns as it has voxels.
    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let ([logits], [out]) = (lowering.inputs()?, lowering.outputs()?);
        let layout = lowering.graph.layout(logits)?;
        let file = match self {
            Self::Softmax => "softmax.wgsl",
            Self::Argmax => "argmax.wgsl",
        };
        let words = layout.voxels().div_ceil(4);
        let mut dispatches = Vec::new();
        for part in lowering.cut_samples(layout) {
            let (from, base) = lowering.window(logits, part)?;
            let work = (part.samples * layout.voxels() * layout.blocks()) as u64;
            let groups = fold((part.samples * words).div_ceil(WORKGROUP), lowering.caps)?;
            let dispatch = Dispatch::new(file, KernelKey::new(file), groups)
                .bind("scores", from)
                // a voxel is a column: no place is read
                .bind("places", from)
                .param("rows", part.samples)
                .param("words", words)
                .param("height", 1)
                .param("columns", layout.voxels())
                .param("blocks", layout.blocks())
                .param("base", base)
                .param("classes", layout.channels())
                .param("first_class", 0)
                .param("row0", part.n0)
                .work(work * 40, work * 32);
            dispatches.push(match self {
                Self::Softmax => dispatch
                    .bind("maps", lowering.whole(out))
                    .param("all_rows", layout.n)
                    .param("add", 0)
                    .param_f32("scale", 1.0),
                Self::Argmax => {
                    dispatch.bind("labels", lowering.whole(out)).param_f32("threshold", 0.0)
                }
            });
        }
        Ok(dispatches)
    }
}
