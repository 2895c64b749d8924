//! Softmax and argmax, voxel by voxel.

use super::super::common::WORKGROUP;
use super::super::elementwise::materialise;
use super::sums::{MAX_CLASSES, aligned};
use crate::base::{Error, Result};
use crate::engine::graph::{Dispatch, Gradients, Graph, Lowering, Node, Op, Value, fold};
use crate::engine::shader::KernelKey;

/// Class probabilities of each voxel (N, classes, D, H, W).
pub fn softmax(graph: &mut Graph, logits: Value) -> Result<Value> {
    per_voxel(graph, logits, PerVoxel::Softmax)
}

/// Index of the most likely class of each voxel, one word each (N·D·H·W).
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
    let out = match op {
        PerVoxel::Softmax => graph.tensor("probabilities", layout),
        PerVoxel::Argmax => graph.words("labels", layout.n * layout.voxels()),
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

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let ([logits], [out]) = (lowering.inputs()?, lowering.outputs()?);
        let layout = lowering.graph.layout(logits)?;
        let file = match self {
            Self::Softmax => "softmax.wgsl",
            Self::Argmax => "argmax.wgsl",
        };
        let mut dispatches = Vec::new();
        for part in lowering.cut_samples(layout) {
            let (from, base) = lowering.window(logits, part)?;
            aligned(base)?;
            let voxels = part.samples * layout.voxels();
            let work = (voxels * layout.blocks()) as u64;
            let groups = fold(voxels.div_ceil(WORKGROUP), lowering.caps)?;
            let dispatch = Dispatch::new(file, KernelKey::new(file), groups)
                .bind("logits", from)
                .param("samples", part.samples)
                .param("voxels", layout.voxels())
                .param("classes", layout.channels())
                .work(work * 40, work * 32);
            dispatches.push(match self {
                Self::Softmax => {
                    let (to, base) = lowering.window(out, part)?;
                    aligned(base)?;
                    dispatch.bind("probs", to)
                }
                Self::Argmax => dispatch
                    .bind("labels", lowering.whole(out))
                    .param("first", part.n0 * layout.voxels()),
            });
        }
        Ok(dispatches)
    }
}
