//! The losses of classes that exclude one another, with their gradient to the logits.

use super::super::common::{WORKGROUP, output_grad};
use super::super::elementwise::{accumulate, materialise};
use super::lovasz::Lovasz;
use super::sums::{CHUNK, MAX_CLASSES, aligned, finish, loss_sums, loss_values, summing};
use super::weights::LossWeights;
use crate::base::{Error, Result};
use crate::engine::graph::{
    Dispatch, Gradients, Graph, Layout, Lowering, Node, Op, Part, Scratch, Value, fold,
};
use crate::engine::shader::KernelKey;

/// Sum of losses of logits (N, classes, D, H, W) and labels (N·D·H·W words). Returns a value whose first words are
/// what [`LossWeights::losses`] takes.
pub fn segmentation_loss(
    graph: &mut Graph,
    logits: Value,
    labels: Value,
    weights: LossWeights,
) -> Result<Value> {
    let logits = materialise(graph, logits)?;
    let layout = graph.layout(logits)?.clone();
    let (classes, total) = (layout.channels(), layout.n * layout.voxels());
    if classes > MAX_CLASSES || layout.segments.len() != 1 || graph.info(labels).words < total {
        return Err(Error::shape(
            "loss",
            format!("{classes} classes and labels do not fit {layout}"),
        ));
    }
    let loss = SegmentationLoss { weights, layout };
    let values = loss_values(graph, &loss.layout);
    let mut outputs = vec![values.result, values.dice];
    outputs.extend(loss.lovasz().map(|lovasz| lovasz.gradient(graph)));
    graph.node(loss, vec![logits, labels], outputs);
    Ok(values.result)
}

/// The forward pass of the losses.
#[derive(Debug, Clone)]
struct SegmentationLoss {
    weights: LossWeights,
    /// Of the logits.
    layout: Layout,
}

impl SegmentationLoss {
    fn lovasz(&self) -> Option<Lovasz<'_>> {
        let leaves_out_10 = self.weights.lovasz_leaves_out_10;
        (self.weights.lovasz != 0.0).then_some(Lovasz { logits: &self.layout, leaves_out_10 })
    }

    fn weighed(&self, dispatch: Dispatch) -> Dispatch {
        self.weights
            .set(dispatch)
            .param("classes", self.layout.channels())
            .param("total", self.layout.n * self.layout.voxels())
    }

    /// A row of sums for each chunk of some samples, from row `row` on.
    fn partial(
        &self,
        lowering: &Lowering<'_>,
        part: Part,
        row: usize,
        chunks: usize,
    ) -> Result<Dispatch> {
        let ([logits, labels], [_, partials]) = (lowering.inputs()?, lowering.scratch()?);
        let (voxels, blocks) = (self.layout.voxels(), self.layout.blocks());
        let (from, base) = lowering.window(logits, part)?;
        aligned(base)?;
        let groups = fold(chunks * blocks, lowering.caps)?;
        let vectors = (part.samples * blocks * voxels) as u64;
        Ok(Dispatch::new("loss sums", summing(lowering, "loss_partial.wgsl"), groups)
            .bind("logits", from)
            .bind("labels", lowering.whole(labels))
            .bind("partials", lowering.whole(partials))
            .param("samples", part.samples)
            .param("voxels", voxels)
            .param("classes", self.layout.channels())
            .param("first", part.n0 * voxels)
            .param("row", row)
            .param("chunks", chunks)
            .param("chunk", CHUNK)
            .work(vectors * 60, vectors * 20))
    }
}

impl Op for SegmentationLoss {
    fn name(&self) -> &'static str {
        "segmentation loss"
    }

    fn backward(&self, graph: &mut Graph, node: &Node, grads: &mut Gradients) -> Result<()> {
        output_grad(node, grads)?;
        let logits = node.inputs[0];
        let dlogits = graph.tensor("d.logits", self.layout.clone());
        let inputs = node.inputs.iter().chain(&node.outputs[1..]).copied().collect();
        graph.node(SegmentationGrad(self.clone()), inputs, vec![dlogits]);
        accumulate(graph, grads, logits, dlogits)
    }

    fn scratch(&self, _: &Lowering<'_>) -> Result<Vec<Scratch>> {
        let mut scratch = loss_sums(&self.layout);
        scratch.extend(self.lovasz().iter().flat_map(Lovasz::scratch));
        Ok(scratch)
    }

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let [_, labels] = lowering.inputs()?;
        let mut dispatches = Vec::new();
        let mut rows = 0;
        for part in lowering.cut_samples(&self.layout) {
            let chunks = (part.samples * self.layout.voxels()).div_ceil(CHUNK);
            dispatches.push(self.partial(lowering, part, rows, chunks)?);
            rows += chunks;
        }
        // a binding that is not read where there is no such loss
        let mut classes = labels;
        if let Some(lovasz) = self.lovasz() {
            let [_, _, dldp] = lowering.outputs()?;
            let scratch = &lowering.node.scratch[loss_sums(&self.layout).len()..];
            let (more, losses) = lovasz.lower(lowering, dldp, scratch)?;
            dispatches.extend(more);
            classes = losses;
        }
        let finish = finish(lowering, classes, rows)?
            .param("include_background", self.weights.dice_background as usize);
        dispatches.push(self.weighed(finish));
        Ok(dispatches)
    }
}

/// The gradient of the losses to the logits.
#[derive(Debug)]
struct SegmentationGrad(SegmentationLoss);

impl Op for SegmentationGrad {
    fn name(&self) -> &'static str {
        "segmentation loss gradient"
    }

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let ([logits, labels, dice], [out]) = (lowering.inputs()?, lowering.outputs()?);
        let dldp = lowering.node.inputs.get(3).copied().unwrap_or(labels);
        let layout = &self.0.layout;
        let voxels = layout.voxels();
        let mut dispatches = Vec::new();
        for part in lowering.cut_samples(layout) {
            let (from, base) = lowering.window(logits, part)?;
            aligned(base)?;
            let (to, out_base) = lowering.window(out, part)?;
            let groups = fold((part.samples * voxels).div_ceil(WORKGROUP), lowering.caps)?;
            let vectors = (part.samples * layout.blocks() * voxels) as u64;
            let dispatch = Dispatch::new("loss gradient", KernelKey::new("loss_grad.wgsl"), groups)
                .bind("logits", from)
                .bind("labels", lowering.whole(labels))
                .bind("dice", lowering.whole(dice))
                .bind("dldp", lowering.whole(dldp))
                .bind("state", lowering.whole(labels))
                .bind("dlogits", to)
                .param("samples", part.samples)
                .param("voxels", voxels)
                .param("first", part.n0 * voxels)
                .param("out_base", out_base)
                .param_f32("scale", 1.0)
                .work(vectors * 80, vectors * 36);
            let dispatch = self.0.weighed(dispatch);
            dispatches.push(if lowering.scaled { dispatch.scaled() } else { dispatch });
        }
        Ok(dispatches)
    }
}
