//! Losses of regions that may overlap, each output channel a sigmoid of its own, with their gradient to the logits.

use super::load::{whole, window};
use super::loss::{CHUNK, LossWeights, columns, dice_words, finish, sample_runs};
use super::merge::CLASS_WORDS;
use super::{WORKGROUP, accumulate, materialise, output_grad};
use crate::engine::graph::{Caps, Dispatch, Gradients, Graph, Layout, Node, Op, Value, fold};
use crate::engine::shader::KernelKey;
use crate::{Error, Result};

/// Most regions of a domain: a bit each.
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

/// Binary cross-entropy and soft Dice of logits (N, regions, D, H, W). Returns a value whose first five words are total,
/// cross-entropy, 0, Dice and 0 as f32. With `scaled` the gradient is multiplied by the loss scale.
pub fn region_loss(
    graph: &mut Graph,
    logits: Value,
    targets: RegionTargets,
    weights: LossWeights,
    scaled: bool,
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
    let loss = RegionLoss::new(&layout, (weights, scaled), &targets);
    let outputs = vec![
        graph.words("loss", 8),
        graph.words("loss.dice", dice_words(&layout)),
        graph.words("loss.sums", columns(regions)),
        graph.words("loss.partials", loss.rows() * columns(regions)),
    ];
    let result = outputs[0];
    let mut inputs = vec![logits, targets.labels, targets.table];
    inputs.extend(targets.unlabelled);
    graph.node(loss, inputs, outputs);
    Ok(result)
}

/// The forward pass of the losses.
#[derive(Debug, Clone)]
struct RegionLoss {
    weights: LossWeights,
    /// Whether the gradient is multiplied by the loss scale.
    scaled: bool,
    /// Whether samples may lack the labels of some regions.
    partial: bool,
    entries: usize,
    regions: usize,
    voxels: usize,
    samples: usize,
}

impl RegionLoss {
    fn new(
        layout: &Layout,
        (weights, scaled): (LossWeights, bool),
        targets: &RegionTargets,
    ) -> Self {
        Self {
            weights,
            scaled,
            partial: targets.unlabelled.is_some(),
            entries: targets.entries,
            regions: layout.channels(),
            voxels: layout.voxels(),
            samples: layout.n,
        }
    }

    /// Rows of partial sums, however the samples are bound.
    fn rows(&self) -> usize {
        self.samples * self.voxels.div_ceil(CHUNK)
    }

    /// A dispatch with what both passes read of some samples: inputs are logits, labels, table and what is unlabelled.
    fn reading(
        &self,
        graph: &Graph,
        (label, file, groups): (&str, &'static str, [u32; 2]),
        inputs: &[Value],
        (n0, samples): (usize, usize),
        caps: &Caps,
    ) -> Result<Dispatch> {
        let [logits, labels, table, ..] = *inputs else {
            return Err(Error::Internal("the region loss lacks its inputs".into()));
        };
        let unlabelled = inputs.get(3).copied().unwrap_or(labels);
        let per_sample = graph.layout(logits)?.blocks() * self.voxels;
        let (from, base) = window(graph, logits, n0 * per_sample, samples * per_sample, caps)?;
        let key = KernelKey::new(file).set("PARTIAL", self.partial as u32);
        Ok(Dispatch::new(label, key, groups)
            .bind("logits", from)
            .bind("labels", whole(graph, labels))
            .bind("table", whole(graph, table))
            .bind("unlabelled", whole(graph, unlabelled))
            .param("samples", samples)
            .param("voxels", self.voxels)
            .param("regions", self.regions)
            .param("entries", self.entries)
            .param("first", n0 * self.voxels)
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
        let layout = graph.layout(logits)?.clone();
        let dlogits = graph.tensor("d.logits", layout);
        // what the losses handed on comes first, since the mask may be missing
        let inputs = std::iter::once(node.outputs[1]).chain(node.inputs.iter().copied()).collect();
        graph.node(RegionGrad(self.clone()), inputs, vec![dlogits]);
        accumulate(graph, grads, logits, dlogits)
    }

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let &[result, dice, sums, partials] = node.outputs.as_slice() else {
            return Err(Error::Internal("the region loss lacks its outputs".into()));
        };
        let logits = node.inputs[0];
        let blocks = graph.layout(logits)?.blocks();
        let mut dispatches = Vec::new();
        let mut row = 0;
        for (n0, samples) in sample_runs(graph, &[logits], caps)? {
            let chunks = (samples * self.voxels).div_ceil(CHUNK);
            let kernel = ("region loss sums", "region_partial.wgsl", fold(chunks * blocks, caps)?);
            let vectors = (samples * blocks * self.voxels) as u64;
            let dispatch = self.reading(graph, kernel, &node.inputs, (n0, samples), caps)?;
            dispatches.push(
                dispatch
                    .bind("partials", whole(graph, partials))
                    .param("row", row)
                    .param("chunks", chunks)
                    .param("chunk", CHUNK)
                    .work(vectors * 80, vectors * 20),
            );
            row += chunks;
        }
        // no loss of classes is read
        let finish = finish(graph, [partials, node.inputs[1], sums, dice, result], row);
        dispatches.push(
            finish
                .param("include_background", 1)
                .param("classes", self.regions)
                .param("total", self.samples * self.voxels * self.regions)
                .param_f32("w_ce", self.weights.cross_entropy)
                .param_f32("w_focal", 0.0)
                .param_f32("w_dice", self.weights.dice)
                .param_f32("w_lovasz", 0.0),
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

    fn backward(&self, _: &mut Graph, _: &Node, _: &mut Gradients) -> Result<()> {
        Err(Error::Internal("second derivatives are not offered".into()))
    }

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let Some((&dice, inputs)) = node.inputs.split_first() else {
            return Err(Error::Internal("the region gradient lacks its inputs".into()));
        };
        let (logits, labels) = (inputs[0], inputs[1]);
        let out = node.outputs[0];
        let per_sample = graph.layout(logits)?.blocks() * self.0.voxels;
        let mut dispatches = Vec::new();
        for (n0, samples) in sample_runs(graph, &[logits, out], caps)? {
            let groups = fold((samples * self.0.voxels).div_ceil(WORKGROUP), caps)?;
            let kernel = ("region loss gradient", "region_grad.wgsl", groups);
            let len = samples * per_sample;
            let (to, out_base) = window(graph, out, n0 * per_sample, len, caps)?;
            let dispatch = self
                .0
                .reading(graph, kernel, inputs, (n0, samples), caps)?
                .bind("dice", whole(graph, dice))
                .bind("state", whole(graph, labels))
                .bind("dlogits", to)
                .param("out_base", out_base)
                .param_f32("w_ce", self.0.weights.cross_entropy)
                .param_f32("w_dice", self.0.weights.dice)
                .param_f32("scale", 1.0)
                .work((len * 80) as u64, (len * 36) as u64);
            dispatches.push(if self.0.scaled { dispatch.scaled() } else { dispatch });
        }
        Ok(dispatches)
    }
}
