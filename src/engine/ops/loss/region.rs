//! Losses of regions that may overlap, each output channel a sigmoid of its own, with their gradient to the logits.

use super::super::common::{WORKGROUP, output_grad};
use super::super::elementwise::{accumulate, materialise};
use super::sums::{CHUNK, CLASS_WORDS, finish, loss_sums, loss_values, summing};
use super::weights::LossWeights;
use crate::base::{Error, Result};
use crate::engine::graph::{
    Dispatch, Gradients, Graph, Layout, Lowering, Node, Op, Part, Scratch, Value, fold,
};
use crate::engine::shader::KernelKey;

/// Most regions: a bit each.
pub const MAX_REGIONS: usize = 32;

/// What the voxels of a batch say of regions.
#[derive(Debug, Clone, Copy)]
pub struct RegionTargets {
    /// A label index a voxel (N·D·H·W words); one beyond the table is ignored.
    pub labels: Value,
    /// Bits of the regions that each label index belongs to.
    pub table: Value,
    /// Label indices in the table.
    pub entries: usize,
    /// 8 words a sample, bit r of the first: the sample does not label region r.
    pub unlabelled: Option<Value>,
}

/// Binary cross-entropy and soft Dice of logits (N, regions, D, H, W). Returns a value whose first words are what
/// [`LossWeights::losses`] takes, 0 for losses that regions have not.
pub fn region_loss(
    graph: &mut Graph,
    logits: Value,
    targets: RegionTargets,
    weights: LossWeights,
) -> Result<Value> {
    if !weights.fits_regions() {
        return Err(Error::setting(
            "loss",
            "a focal or Lovász loss for regions",
            "dice-ce or ce",
            "Regions overlap and are trained with these alone.",
        ));
    }
    let logits = materialise(graph, logits)?;
    let layout = graph.layout(logits)?.clone();
    let (regions, total) = (layout.channels(), layout.n * layout.voxels());
    let words = |value: Value| graph.info(value).words;
    let masks = targets.unlabelled.is_none_or(|value| words(value) >= CLASS_WORDS * layout.n);
    let fits = words(targets.labels) >= total && words(targets.table) >= targets.entries && masks;
    if regions > MAX_REGIONS || layout.segments.len() != 1 || !fits {
        return Err(Error::shape(
            "region loss",
            format!("{regions} regions, their table or labels do not fit {layout}"),
        ));
    }
    let (partial, entries) = (targets.unlabelled.is_some(), targets.entries);
    let values = loss_values(graph, &layout);
    let mut inputs = vec![logits, targets.labels, targets.table];
    inputs.extend(targets.unlabelled);
    let loss = RegionLoss { weights, partial, entries, layout };
    graph.node(loss, inputs, vec![values.result, values.dice]);
    Ok(values.result)
}

/// The forward pass of the losses.
#[derive(Debug, Clone)]
struct RegionLoss {
    weights: LossWeights,
    /// Whether samples may lack the labels of some regions.
    partial: bool,
    entries: usize,
    /// Of the logits.
    layout: Layout,
}

impl RegionLoss {
    /// A dispatch with what both passes read of some samples: inputs are logits, labels, table and what is unlabelled.
    fn reading(
        &self,
        lowering: &Lowering<'_>,
        mut dispatch: Dispatch,
        inputs: &[Value],
        part: Part,
    ) -> Result<Dispatch> {
        let [logits, labels, table, ..] = *inputs else {
            return Err(Error::Internal("the region loss lacks its inputs".into()));
        };
        let unlabelled = inputs.get(3).copied().unwrap_or(labels);
        let (from, base) = lowering.window(logits, part)?;
        dispatch.kernel = dispatch.kernel.set("PARTIAL", self.partial as u32);
        Ok(dispatch
            .bind("logits", from)
            .bind("labels", lowering.whole(labels))
            .bind("table", lowering.whole(table))
            .bind("unlabelled", lowering.whole(unlabelled))
            .param("samples", part.samples)
            .param("voxels", self.layout.voxels())
            .param("regions", self.layout.channels())
            .param("entries", self.entries)
            .param("first", part.n0 * self.layout.voxels())
            .param("src_base", base))
    }
}

impl Op for RegionLoss {
    fn name(&self) -> &'static str {
        "region loss"
    }

    fn backward(&self, graph: &mut Graph, node: &Node, grads: &mut Gradients) -> Result<()> {
        output_grad(node, grads)?;
        let logits = node.inputs[0];
        let dlogits = graph.tensor("d.logits", self.layout.clone());
        // what the losses handed on comes first, since the mask may be missing
        let inputs = std::iter::once(node.outputs[1]).chain(node.inputs.iter().copied()).collect();
        graph.node(RegionGrad(self.clone()), inputs, vec![dlogits]);
        accumulate(graph, grads, logits, dlogits)
    }

    fn scratch(&self, _: &Lowering<'_>) -> Result<Vec<Scratch>> {
        Ok(loss_sums(&self.layout))
    }

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let ([_, labels], [_, partials]) = (lowering.inputs()?, lowering.scratch()?);
        let (blocks, voxels) = (self.layout.blocks(), self.layout.voxels());
        let mut dispatches = Vec::new();
        let mut row = 0;
        for part in lowering.cut_samples(&self.layout) {
            let chunks = (part.samples * voxels).div_ceil(CHUNK);
            let groups = fold(chunks * blocks, lowering.caps)?;
            let key = summing(lowering, "region_partial.wgsl");
            let dispatch = Dispatch::new("region loss sums", key, groups);
            let vectors = (part.samples * blocks * voxels) as u64;
            dispatches.push(
                self.reading(lowering, dispatch, &lowering.node.inputs, part)?
                    .bind("partials", lowering.whole(partials))
                    .param("row", row)
                    .param("chunks", chunks)
                    .param("chunk", CHUNK)
                    .work(vectors * 80, vectors * 20),
            );
            row += chunks;
        }
        // no Lovász loss of classes is read
        let finish = self.weights.set(finish(lowering, labels, row)?);
        dispatches.push(
            finish
                .param("include_background", 1)
                .param("classes", self.layout.channels())
                .param("total", self.layout.n * voxels * self.layout.channels()),
        );
        Ok(dispatches)
    }
}

/// The gradient of the losses to the logits.
#[derive(Debug)]
struct RegionGrad(RegionLoss);

impl Op for RegionGrad {
    fn name(&self) -> &'static str {
        "region loss gradient"
    }

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let ([dice, _, labels], [out]) = (lowering.inputs()?, lowering.outputs()?);
        let layout = &self.0.layout;
        let mut dispatches = Vec::new();
        for part in lowering.cut_samples(layout) {
            let voxels = part.samples * layout.voxels();
            let groups = fold(voxels.div_ceil(WORKGROUP), lowering.caps)?;
            let key = KernelKey::new("region_grad.wgsl");
            let dispatch = Dispatch::new("region loss gradient", key, groups);
            let (to, out_base) = lowering.window(out, part)?;
            let vectors = (voxels * layout.blocks()) as u64;
            let dispatch = self
                .0
                .reading(lowering, dispatch, &lowering.node.inputs[1..], part)?
                .bind("dice", lowering.whole(dice))
                .bind("state", lowering.whole(labels))
                .bind("dlogits", to)
                .param("out_base", out_base)
                .param_f32("w_ce", self.0.weights.cross_entropy)
                .param_f32("scale", 1.0)
                .work(vectors * 80, vectors * 36);
            dispatches.push(if lowering.scaled { dispatch.scaled() } else { dispatch });
        }
        Ok(dispatches)
    }
}
