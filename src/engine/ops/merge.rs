//! Classes that a sample does not label, merged into its background before the losses.

use super::load::{whole, window};
use super::loss::{MAX_CLASSES, sample_runs};
use super::{WORKGROUP, accumulate, materialise, output_grad};
use crate::engine::graph::{Caps, Dispatch, Gradients, Graph, Node, Op, Value, fold};
use crate::engine::shader::KernelKey;
use crate::{Error, Result};

/// Words a sample of the bits of classes: bit `k % 32` of word `k / 32` is class k's.
pub(super) const CLASS_WORDS: usize = MAX_CLASSES / 32;

/// Logits (N, classes, D, H, W) in which the probability of the classes that a sample does not label is the background's:
/// they count for background in every loss of that sample, and no voxel of it may be labelled with one of them. `unlabelled` has
/// 8 words a sample, bit `k % 32` of word `k / 32` for class k; class 0 is always labelled.
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
    graph.node(Merge, vec![logits, unlabelled], vec![merged]);
    Ok(merged)
}

#[derive(Debug)]
struct Merge;

impl Op for Merge {
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

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let merged = node.outputs[0];
        let names = [("logits", "src_base", node.inputs[0]), ("merged", "out_base", merged)];
        lower(graph, ("merged classes", "merge.wgsl"), &names, node.inputs[1], caps)
    }
}

/// The gradient of the merged logits to the logits.
#[derive(Debug)]
struct MergeGrad;

impl Op for MergeGrad {
    fn name(&self) -> &'static str {
        "merged classes gradient"
    }

    fn backward(&self, _: &mut Graph, _: &Node, _: &mut Gradients) -> Result<()> {
        Err(Error::Internal("second derivatives are not offered".into()))
    }

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let [logits, merged, dmerged, unlabelled] = node.inputs[..] else {
            return Err(Error::Internal("the gradient of merged classes lacks inputs".into()));
        };
        let names = [
            ("logits", "src_base", logits),
            ("merged", "y_base", merged),
            ("dmerged", "d_base", dmerged),
            ("dlogits", "out_base", node.outputs[0]),
        ];
        lower(graph, ("merged classes gradient", "merge_grad.wgsl"), &names, unlabelled, caps)
    }
}

/// Dispatches of a kernel over tensors of one layout, each bound with an offset: (binding, offset, value).
fn lower(
    graph: &Graph,
    (label, file): (&str, &'static str),
    tensors: &[(&'static str, &'static str, Value)],
    unlabelled: Value,
    caps: &Caps,
) -> Result<Vec<Dispatch>> {
    let values: Vec<Value> = tensors.iter().map(|(_, _, value)| *value).collect();
    let layout = graph.layout(values[0])?;
    let per_sample = layout.blocks() * layout.voxels();
    let mut dispatches = Vec::new();
    for (n0, samples) in sample_runs(graph, &values, caps)? {
        let len = samples * per_sample;
        let groups = fold((samples * layout.voxels()).div_ceil(WORKGROUP), caps)?;
        let mut dispatch = Dispatch::new(label, KernelKey::new(file), groups)
            .bind("unlabelled", whole(graph, unlabelled))
            .param("samples", samples)
            .param("voxels", layout.voxels())
            .param("classes", layout.channels())
            .param("n0", n0)
            .work((len * 30) as u64, (len * 16 * values.len()) as u64);
        for (name, offset, value) in tensors {
            let (bind, base) = window(graph, *value, n0 * per_sample, len, caps)?;
            dispatch = dispatch.bind(name, bind).param(offset, base);
        }
        dispatches.push(dispatch);
    }
    Ok(dispatches)
}
