//! Softmax, argmax, and the segmentation losses with their gradient to the logits.

use super::load::{whole, window};
use super::sort::{Scan, Sort};
use super::{WORKGROUP, accumulate, materialise, output_grad};
use crate::engine::graph::{Caps, Dispatch, Gradients, Graph, Layout, Node, Op, Value, fold};
use crate::engine::shader::KernelKey;
use crate::{Error, Result};

/// Weights of the losses' sum; a weight of zero costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LossWeights {
    /// Mean cross-entropy over voxels.
    pub cross_entropy: f32,
    /// Focal loss, gamma 2, its factor constant for the gradient as in the reference.
    pub focal: f32,
    /// Soft Dice over the batch.
    pub dice: f32,
    /// Lovász-softmax over all classes of the whole batch.
    pub lovasz: f32,
    /// Whether the soft Dice counts class 0.
    pub dice_background: bool,
    /// Whether the Lovász-softmax leaves out label 10, as the published code does.
    #[serde(default = "as_published")]
    pub lovasz_leaves_out_10: bool,
}

/// What runs did whose settings do not say.
fn as_published() -> bool {
    true
}

impl LossWeights {
    /// The published loss without its peculiarity: Lovász-softmax plus focal.
    pub const fn u2net() -> Self {
        Self { cross_entropy: 0.0, focal: 1.0, dice: 0.0, lovasz: 1.0, ..Self::dice_ce() }
    }

    /// The published loss, which takes label 10 for no class in the Lovász-softmax.
    pub const fn published() -> Self {
        Self { lovasz_leaves_out_10: true, ..Self::u2net() }
    }

    /// Cross-entropy plus soft Dice of the foreground.
    pub const fn dice_ce() -> Self {
        Self {
            cross_entropy: 1.0,
            focal: 0.0,
            dice: 1.0,
            lovasz: 0.0,
            dice_background: false,
            lovasz_leaves_out_10: false,
        }
    }

    /// Cross-entropy alone.
    pub const fn ce() -> Self {
        Self { dice: 0.0, ..Self::dice_ce() }
    }
}

/// One loss of a sum: its share of the total is `weight` times `value`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossTerm {
    /// As in settings and logs, such as `cross_entropy`.
    pub name: &'static str,
    /// As in [`LossWeights`].
    pub weight: f32,
    /// The loss alone.
    pub value: f32,
}

/// Losses of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Losses {
    /// What is minimised.
    pub total: f32,
    /// The losses that it is the sum of; what costs something of its own is computed, else 0, where its weight is above 0.
    pub terms: Vec<LossTerm>,
}

impl Losses {
    /// A loss of the sum by its name.
    pub fn term(&self, name: &str) -> Option<&LossTerm> {
        self.terms.iter().find(|term| term.name == name)
    }
}

impl LossWeights {
    /// Whether regions, which may overlap, can be trained with it: every loss of the sum has a form for them.
    pub fn fits_regions(&self) -> bool {
        self.focal == 0.0 && self.lovasz == 0.0
    }

    /// Words of a loss's value that [`LossWeights::losses`] takes.
    pub const WORDS: usize = 5;

    /// What the first words of a loss's value say, in their order.
    pub fn losses(&self, words: &[f32; Self::WORDS]) -> Losses {
        let &[total, cross_entropy, focal, dice, lovasz] = words;
        let term = |name, weight, value| LossTerm { name, weight, value };
        let terms = vec![
            term("cross_entropy", self.cross_entropy, cross_entropy),
            term("focal", self.focal, focal),
            term("dice", self.dice, dice),
            term("lovasz", self.lovasz, lovasz),
        ];
        Losses { total, terms }
    }
}

/// Label that the published Lovász-softmax leaves out.
const LEFT_OUT: u32 = 10;
/// Added to both sides of the Dice ratio.
const SMOOTHING: f32 = 1e-5;
/// Most classes that the loss kernels take.
pub const MAX_CLASSES: usize = 256;

/// Sum of losses of logits (N, classes, D, H, W) and labels (N·D·H·W words). Returns a value whose first five words are
/// total, cross-entropy, focal, Dice and Lovász losses as f32.
pub fn segmentation_loss(
    graph: &mut Graph,
    logits: Value,
    labels: Value,
    weights: LossWeights,
) -> Result<Value> {
    loss(graph, logits, labels, (weights, false))
}

/// [`segmentation_loss`] whose gradient is multiplied by the loss scale, for gradients that pass through f16.
pub fn scaled_segmentation_loss(
    graph: &mut Graph,
    logits: Value,
    labels: Value,
    weights: LossWeights,
) -> Result<Value> {
    loss(graph, logits, labels, (weights, true))
}

fn loss(
    graph: &mut Graph,
    logits: Value,
    labels: Value,
    (weights, scaled): (LossWeights, bool),
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
    let loss = Loss::new(&layout, weights, scaled);
    let result = graph.words("loss", 8);
    let mut outputs = vec![result, graph.words("loss.dice", dice_words(&layout))];
    outputs.push(graph.words("loss.sums", columns(classes)));
    outputs.push(graph.words("loss.partials", loss.rows() * columns(classes)));
    if weights.lovasz != 0.0 {
        outputs.push(graph.words("lovasz.gradient", classes * total));
        outputs.push(graph.words("lovasz.partials", classes * loss.tiles()));
        outputs.push(graph.words("lovasz.classes", classes));
        outputs.push(graph.words("lovasz.counts", loss.tiles() + 1));
        for words in Sort::scratch(total).into_iter().chain(Scan::scratch(loss.tiles() + 1)) {
            outputs.push(graph.words("lovasz.sort", words));
        }
    }
    graph.node(loss, vec![logits, labels], outputs);
    Ok(result)
}

/// Class probabilities of each voxel (N, classes, D, H, W).
pub fn softmax(graph: &mut Graph, logits: Value) -> Result<Value> {
    per_voxel(graph, logits, "softmax.wgsl")
}

/// Index of the most likely class of each voxel, one word each (N·D·H·W).
pub fn argmax(graph: &mut Graph, logits: Value) -> Result<Value> {
    per_voxel(graph, logits, "argmax.wgsl")
}

fn per_voxel(graph: &mut Graph, logits: Value, file: &'static str) -> Result<Value> {
    let logits = materialise(graph, logits)?;
    let layout = graph.layout(logits)?.clone();
    if layout.channels() > MAX_CLASSES || layout.segments.len() != 1 {
        return Err(Error::shape(file, format!("classes of {layout}; at most {MAX_CLASSES}")));
    }
    let out = if file == "softmax.wgsl" {
        graph.tensor("probabilities", layout)
    } else {
        graph.words("labels", layout.n * layout.voxels())
    };
    graph.node(PerVoxel { file }, vec![logits], vec![out]);
    Ok(out)
}

/// Words that loss_finish.wgsl hands on to the gradient.
pub(super) fn dice_words(layout: &Layout) -> usize {
    8 * layout.blocks() + 4
}

/// Sums of a row of partial ones.
pub(super) fn columns(classes: usize) -> usize {
    3 + 3 * classes
}

/// Sample ranges of which each of some tensors fits one binding.
pub(super) fn sample_runs(
    graph: &Graph,
    tensors: &[Value],
    caps: &Caps,
) -> Result<Vec<(usize, usize)>> {
    let n = graph.layout(tensors[0])?.n;
    let fits = |value: &Value| graph.info(*value).words as u64 * 4 <= caps.max_binding;
    let all = tensors.iter().all(fits);
    Ok(if all { vec![(0, n)] } else { (0..n).map(|n| (n, 1)).collect() })
}

#[derive(Debug)]
struct PerVoxel {
    file: &'static str,
}

impl Op for PerVoxel {
    fn name(&self) -> &'static str {
        "softmax or argmax"
    }

    fn backward(&self, _: &mut Graph, _: &Node, _: &mut Gradients) -> Result<()> {
        Err(Error::Internal("losses differentiate the softmax themselves".into()))
    }

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let (logits, out) = (node.inputs[0], node.outputs[0]);
        let layout = graph.layout(logits)?;
        let per_sample = layout.blocks() * layout.voxels();
        let mut dispatches = Vec::new();
        for (n0, samples) in sample_runs(graph, &[logits], caps)? {
            let (from, base) = window(graph, logits, n0 * per_sample, samples * per_sample, caps)?;
            aligned(base)?;
            let groups = fold((samples * layout.voxels()).div_ceil(WORKGROUP), caps)?;
            let dispatch = Dispatch::new(self.file, KernelKey::new(self.file), groups)
                .bind("logits", from)
                .param("samples", samples)
                .param("voxels", layout.voxels())
                .param("classes", layout.channels())
                .work((samples * per_sample * 40) as u64, (samples * per_sample * 32) as u64);
            dispatches.push(if self.file == "softmax.wgsl" {
                let (to, base) = window(graph, out, n0 * per_sample, samples * per_sample, caps)?;
                aligned(base)?;
                dispatch.bind("probs", to)
            } else {
                dispatch.bind("labels", whole(graph, out)).param("first", n0 * layout.voxels())
            });
        }
        Ok(dispatches)
    }
}

/// The loss kernels take no offset into a binding.
pub(super) fn aligned(base: usize) -> Result<()> {
    if base == 0 {
        return Ok(());
    }
    Err(Error::shape(
        "loss",
        "logits of one sample do not start at an aligned offset; use a patch with a multiple of 16 voxels",
    ))
}

/// Voxels of a chunk of partial sums.
pub(super) const CHUNK: usize = 2048;
/// Sorted pairs of a tile of the Lovász kernels.
const TILE: usize = 2048;

/// The forward pass of the losses.
#[derive(Debug, Clone)]
struct Loss {
    weights: LossWeights,
    /// Whether the gradient is multiplied by the loss scale.
    scaled: bool,
    classes: usize,
    voxels: usize,
    samples: usize,
}

impl Loss {
    fn new(layout: &Layout, weights: LossWeights, scaled: bool) -> Self {
        let (classes, voxels, samples) = (layout.channels(), layout.voxels(), layout.n);
        Self { weights, scaled, classes, voxels, samples }
    }

    fn total(&self) -> usize {
        self.samples * self.voxels
    }

    /// Rows of partial sums, however the samples are bound.
    fn rows(&self) -> usize {
        self.samples * self.voxels.div_ceil(CHUNK)
    }

    fn tiles(&self) -> usize {
        self.total().div_ceil(TILE)
    }

    /// Dispatches of the Lovász-softmax: for each class keys, sort, count, scan and gradient.
    fn lovasz(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let [dldp, partials, lovasz, counts] = node.outputs[4..8] else {
            return Err(Error::Internal("the Lovász loss lacks its outputs".into()));
        };
        let scratch = &node.outputs[8..];
        let sort = Sort::new(self.total(), scratch)?;
        let scan =
            Scan::new(self.tiles() + 1, counts, &scratch[Sort::scratch(self.total()).len()..]);
        let at = |value| whole(graph, value);
        let tiles = self.tiles();
        let mut dispatches = Vec::new();
        for class in 0..self.classes {
            // two classes have the same errors: the second reuses the first's order, with the other foreground flag
            let reuse = self.classes == 2 && class == 1;
            let bit = if reuse { 30 } else { 31 };
            if !reuse {
                dispatches.extend(self.lovasz_keys(graph, node, &sort, class, caps)?);
                dispatches.extend(sort.lower(graph, caps)?);
            }
            let groups = fold(tiles + 1, caps)?;
            dispatches.push(
                Dispatch::new("lovász count", KernelKey::new("lovasz_count.wgsl"), groups)
                    .bind("payload", at(sort.payload))
                    .bind("counts", at(counts))
                    .param("count", self.total())
                    .param("tiles", tiles)
                    .param("bit", bit)
                    .work(self.total() as u64, (self.total() * 4) as u64),
            );
            dispatches.extend(scan.lower(graph, caps)?);
            let groups = fold(tiles, caps)?;
            dispatches.push(
                Dispatch::new("lovász gradient", KernelKey::new("lovasz_grad.wgsl"), groups)
                    .bind("keys", at(sort.keys))
                    .bind("payload", at(sort.payload))
                    .bind("before", at(counts))
                    .bind("dldp", at(dldp))
                    .bind("partials", at(partials))
                    .param("count", self.total())
                    .param("tiles", tiles)
                    .param("classes", self.classes)
                    .param("class_id", class)
                    .param("bit", bit)
                    .work((self.total() * 8) as u64, (self.total() * 16) as u64),
            );
        }
        let groups = fold(self.classes, caps)?;
        dispatches.push(
            Dispatch::new("lovász sums", KernelKey::new("lovasz_finish.wgsl"), groups)
                .bind("partials", at(partials))
                .bind("lovasz", at(lovasz))
                .param("classes", self.classes)
                .param("tiles", tiles),
        );
        Ok(dispatches)
    }

    /// The keys of a class's errors.
    fn lovasz_keys(
        &self,
        graph: &Graph,
        node: &Node,
        sort: &Sort,
        class: usize,
        caps: &Caps,
    ) -> Result<Vec<Dispatch>> {
        let (logits, labels) = (node.inputs[0], node.inputs[1]);
        let per_sample = graph.layout(logits)?.blocks() * self.voxels;
        let ignored = if self.weights.lovasz_leaves_out_10 { LEFT_OUT } else { u32::MAX };
        let mut dispatches = Vec::new();
        for (n0, samples) in sample_runs(graph, &[logits], caps)? {
            let vectors = samples * per_sample;
            let (from, base) = window(graph, logits, n0 * per_sample, vectors, caps)?;
            aligned(base)?;
            let groups = fold((samples * self.voxels).div_ceil(WORKGROUP), caps)?;
            dispatches.push(
                Dispatch::new("lovász keys", KernelKey::new("lovasz_keys.wgsl"), groups)
                    .bind("logits", from)
                    .bind("labels", whole(graph, labels))
                    .bind("keys", whole(graph, sort.keys))
                    .bind("payload", whole(graph, sort.payload))
                    .param("samples", samples)
                    .param("voxels", self.voxels)
                    .param("classes", self.classes)
                    .param("first", n0 * self.voxels)
                    .param("class_id", class)
                    .param("ignore", ignored as usize)
                    .work((vectors * 40) as u64, (vectors * 24) as u64),
            );
        }
        Ok(dispatches)
    }

    fn weighed(&self, dispatch: Dispatch) -> Dispatch {
        dispatch
            .param("classes", self.classes)
            .param("total", self.total())
            .param_f32("w_ce", self.weights.cross_entropy)
            .param_f32("w_focal", self.weights.focal)
            .param_f32("w_dice", self.weights.dice)
            .param_f32("w_lovasz", self.weights.lovasz)
    }
}

impl Op for Loss {
    fn name(&self) -> &'static str {
        "segmentation loss"
    }

    fn backward(&self, graph: &mut Graph, node: &Node, grads: &mut Gradients) -> Result<()> {
        output_grad(node, grads)?;
        let (logits, labels) = (node.inputs[0], node.inputs[1]);
        let layout = graph.layout(logits)?.clone();
        let dlogits = graph.tensor("d.logits", layout);
        let mut inputs = vec![logits, labels, node.outputs[1]];
        if self.weights.lovasz != 0.0 {
            inputs.push(node.outputs[4]);
        }
        graph.node(LossGrad(self.clone()), inputs, vec![dlogits]);
        accumulate(graph, grads, logits, dlogits)
    }

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let (logits, labels) = (node.inputs[0], node.inputs[1]);
        let &[result, dice, sums, partials, ..] = node.outputs.as_slice() else {
            return Err(Error::Internal("the loss lacks its outputs".into()));
        };
        let layout = graph.layout(logits)?;
        let per_sample = layout.blocks() * self.voxels;
        let at = |value| whole(graph, value);
        let mut dispatches = Vec::new();
        let mut row = 0;
        for (n0, samples) in sample_runs(graph, &[logits], caps)? {
            let chunks = (samples * self.voxels).div_ceil(CHUNK);
            let (from, base) = window(graph, logits, n0 * per_sample, samples * per_sample, caps)?;
            aligned(base)?;
            let groups = fold(chunks * layout.blocks(), caps)?;
            dispatches.push(
                Dispatch::new("loss sums", KernelKey::new("loss_partial.wgsl"), groups)
                    .bind("logits", from)
                    .bind("labels", at(labels))
                    .bind("partials", at(partials))
                    .param("samples", samples)
                    .param("voxels", self.voxels)
                    .param("classes", self.classes)
                    .param("first", n0 * self.voxels)
                    .param("row", row)
                    .param("chunks", chunks)
                    .param("chunk", CHUNK)
                    .work((samples * per_sample * 60) as u64, (samples * per_sample * 20) as u64),
            );
            row += chunks;
        }
        let mut lovasz = labels;
        if self.weights.lovasz != 0.0 {
            dispatches.extend(self.lovasz(graph, node, caps)?);
            lovasz = node.outputs[6];
        }
        let finish = finish(graph, [partials, lovasz, sums, dice, result], row)
            .param("include_background", self.weights.dice_background as usize);
        dispatches.push(self.weighed(finish));
        Ok(dispatches)
    }
}

/// The sum of rows of partial sums, without the weights of the losses.
pub(super) fn finish(
    graph: &Graph,
    [partials, lovasz, sums, dice, result]: [Value; 5],
    rows: usize,
) -> Dispatch {
    Dispatch::new("loss", KernelKey::new("loss_finish.wgsl"), [1, 1])
        .bind("partials", whole(graph, partials))
        .bind("lovasz", whole(graph, lovasz))
        .bind("sums", whole(graph, sums))
        .bind("dice", whole(graph, dice))
        .bind("result", whole(graph, result))
        .param("rows", rows)
        .param_f32("smoothing", SMOOTHING)
}

/// The gradient of the losses to the logits.
#[derive(Debug)]
struct LossGrad(Loss);

impl Op for LossGrad {
    fn name(&self) -> &'static str {
        "segmentation loss gradient"
    }

    fn backward(&self, _: &mut Graph, _: &Node, _: &mut Gradients) -> Result<()> {
        Err(Error::Internal("second derivatives are not offered".into()))
    }

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let (logits, labels, dice) = (node.inputs[0], node.inputs[1], node.inputs[2]);
        let dldp = node.inputs.get(3).copied().unwrap_or(labels);
        let out = node.outputs[0];
        let layout = graph.layout(logits)?;
        let per_sample = layout.blocks() * self.0.voxels;
        let mut dispatches = Vec::new();
        for (n0, samples) in sample_runs(graph, &[logits], caps)? {
            let (from, base) = window(graph, logits, n0 * per_sample, samples * per_sample, caps)?;
            aligned(base)?;
            let (to, out_base) = window(graph, out, n0 * per_sample, samples * per_sample, caps)?;
            let groups = fold((samples * self.0.voxels).div_ceil(WORKGROUP), caps)?;
            let dispatch = Dispatch::new("loss gradient", KernelKey::new("loss_grad.wgsl"), groups)
                .bind("logits", from)
                .bind("labels", whole(graph, labels))
                .bind("dice", whole(graph, dice))
                .bind("dldp", whole(graph, dldp))
                .bind("state", whole(graph, labels))
                .bind("dlogits", to)
                .param("samples", samples)
                .param("voxels", self.0.voxels)
                .param("first", n0 * self.0.voxels)
                .param("out_base", out_base)
                .param_f32("scale", 1.0)
                .work((samples * per_sample * 80) as u64, (samples * per_sample * 36) as u64);
            let dispatch = self.0.weighed(dispatch);
            dispatches.push(if self.0.scaled { dispatch.scaled() } else { dispatch });
        }
        Ok(dispatches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs from before the field was there left label 10 out.
    #[test]
    fn older_settings_leave_label_10_out() {
        let older =
            "cross_entropy = 0.0\nfocal = 1.0\ndice = 0.0\nlovasz = 1.0\ndice_background = false";
        assert_eq!(toml::from_str::<LossWeights>(older).unwrap(), LossWeights::published());
        for weights in [LossWeights::published(), LossWeights::u2net(), LossWeights::dice_ce()] {
            let text = toml::to_string(&weights).unwrap();
            assert!(text.contains("lovasz_leaves_out_10"), "{text}");
            assert_eq!(toml::from_str::<LossWeights>(&text).unwrap(), weights);
        }
    }
}
