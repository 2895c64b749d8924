//! Classes that a sample does not label, merged into its background before the losses.

use super::super::common::{WORKGROUP, output_grad};
use super::super::elementwise::{accumulate, materialise};
use super::sums::{CLASS_WORDS, MAX_CLASSES};
use crate::base::{Error, Result};
use crate::engine::graph::{Dispatch, Gradients, Graph, Lowering, Node, Op, Value, fold};
use crate::engine::shader::KernelKey;

/// Logits (N, classes, D, H, W) in which the probability of the classes that a sample does not label is the background's:
/// they count for background in every loss of that sample, and no voxel of it may be labelled with one of them. `unlabelled` has
/// 8 words a sample, bit `k % 32` of word `k / 32` for class k; class 0 is always labelled. As logits, they are stored in f32.
pub fn merge_unlabelled(graph: &mut Graph, logits: Value, unlabelled: Value) -> Result<Value> {
    let logits = materialise(graph, logits)?;
    let layout = graph.layout(logits)?.clone();
    let words = graph.info(unlabelled).words;
    if layout.channels() > MAX_CLASSES
        || layout.segments.len() != 1
        || words < CLASS_WORDS * layout.n
    {
        return Err(Error::shape(
            "merged classes",
            format!("{words} words of unlabelled classes do not fit {layout}"),
        ));
    }
    let merged = graph.tensor("merged", layout);
    graph.store_in_f32(merged);
    graph.node(MergeUnlabelled, vec![logits, unlabelled], vec![merged]);
    Ok(merged)
}

#[derive(Debug)]
struct MergeUnlabelled;

impl Op for MergeUnlabelled {
    fn name(&self) -> &'static str {
        "merged classes"
    }

    fn backward(&self, graph: &mut Graph, node: &Node, grads: &mut Gradients) -> Result<()> {
        let dmerged = output_grad(node, grads)?;
        let dmerged = materialise(graph, dmerged)?;
        let (logits, unlabelled, merged) = (node.inputs[0], node.inputs[1], node.outputs[0]);
        let layout = graph.layout(logits)?.clone();
        let dlogits = graph.tensor("d.unmerged", layout);
        graph.node(MergeGrad, vec![logits, merged, dmerged, unlabelled], vec![dlogits]);
        accumulate(graph, grads, logits, dlogits)
    }

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let ([logits, unlabelled], [merged]) = (lowering.inputs()?, lowering.outputs()?);
        let tensors = [
            Bound { name: "logits", base: "src_base", value: logits },
            Bound { name: "merged", base: "out_base", value: merged },
        ];
        dispatches(lowering, "merge.wgsl", &tensors, unlabelled)
    }
}

/// The gradient of the merged logits to the logits.
#[derive(Debug)]
struct MergeGrad;

impl Op for MergeGrad {
    fn name(&self) -> &'static str {
        "merged classes gradient"
    }

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let [logits, merged, dmerged, unlabelled] = lowering.inputs()?;
        let [dlogits] = lowering.outputs()?;
        let tensors = [
            Bound { name: "logits", base: "src_base", value: logits },
            Bound { name: "merged", base: "y_base", value: merged },
            Bound { name: "dmerged", base: "d_base", value: dmerged },
            Bound { name: "dlogits", base: "out_base", value: dlogits },
        ];
        dispatches(lowering, "merge_grad.wgsl", &tensors, unlabelled)
    }
}

/// A tensor under its name, and the name of the offset in its binding.
struct Bound {
    name: &'static str,
    base: &'static str,
    value: Value,
}

/// Dispatches of a kernel over tensors of one layout, named after the operation.
fn dispatches(
    lowering: &Lowering<'_>,
    file: &'static str,
    tensors: &[Bound],
    unlabelled: Value,
) -> Result<Vec<Dispatch>> {
    let layout = lowering.graph.layout(tensors[0].value)?;
    let mut dispatches = Vec::new();
    for part in lowering.cut_samples(layout) {
        let voxels = part.samples * layout.voxels();
        let vectors = voxels * layout.blocks();
        let groups = fold(voxels.div_ceil(WORKGROUP), lowering.caps)?;
        let label = lowering.node.op.name();
        let mut dispatch = Dispatch::new(label, KernelKey::new(file), groups)
            .bind("unlabelled", lowering.whole(unlabelled))
            .param("samples", part.samples)
            .param("voxels", layout.voxels())
            .param("classes", layout.channels())
            .param("n0", part.n0)
            .work((vectors * 30) as u64, (vectors * 16 * tensors.len()) as u64);
        for Bound { name, base, value } in tensors {
            let (bind, first) = lowering.window(*value, part)?;
            dispatch = dispatch.bind(name, bind).param(base, first);
        }
        dispatches.push(dispatch);
    }
    Ok(dispatches)
}
