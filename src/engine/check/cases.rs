//! The cases: every kernel at odd, strided, concatenated and upsampled shapes.

use super::rig::{Compared, Ran, Rig, error, random, singles, tensor};
use super::stages::{NORM_ACT, PLAIN, Prep, Stage, UP};
use crate::Result;
use crate::engine::exec::{Pool, Program, Store};
use crate::engine::gpu::Gpu;
use crate::engine::graph::{Caps, Graph, Init, Packing, ParamSpec, Region, Scope, Value};
use crate::engine::ops;
use crate::engine::ops::{ConvSpec, LossWeights, Optimizer, RegionTargets, optimizer_dispatch};
use crate::engine::oracle;
use crate::engine::oracle::{RegionLabels, Tensor};
use crate::engine::plan::Plan;

const FORWARD: f64 = 2e-5;
const BACKWARD: f64 = 1e-4;

/// What reads the parts.
#[derive(Debug, Clone, Copy)]
enum Layer {
    Conv {
        spec: ConvSpec,
        out: usize,
    },
    Depthwise,
    /// Of two parts of the same channels.
    Sum,
}

/// A layer over prepared parts, which it reads as a concatenation; its result goes through `after`.
struct LayerCase {
    name: &'static str,
    n: usize,
    /// Channels and preparation of each part.
    parts: Vec<(usize, Prep)>,
    spatial: [usize; 3],
    layer: Layer,
    after: Prep,
}

/// One row of the table.
pub struct Check(Kind);

enum Kind {
    Layer(LayerCase),
    Loss {
        name: &'static str,
        n: usize,
        classes: usize,
        spatial: [usize; 3],
        weights: LossWeights,
    },
    /// Losses of regions; the second sample lacks the first region.
    Regions {
        name: &'static str,
        regions: usize,
        spatial: [usize; 3],
    },
    /// Losses of classes; the second sample lacks the last class.
    Merged {
        name: &'static str,
        classes: usize,
        spatial: [usize; 3],
    },
    Update {
        name: &'static str,
        optimizer: Optimizer,
    },
}

/// All cases.
pub fn all() -> Result<Vec<Check>> {
    let conv = |name, parts: &[(usize, Prep)], out, spatial, spec| LayerCase {
        name,
        n: 2,
        parts: parts.to_vec(),
        spatial,
        layer: Layer::Conv { spec, out },
        after: NORM_ACT,
    };
    let other = |name, parts: &[(usize, Prep)], spatial, layer| LayerCase {
        name,
        n: 2,
        parts: parts.to_vec(),
        spatial,
        layer,
        after: NORM_ACT,
    };
    let (same, point) = (ConvSpec::same(), ConvSpec::pointwise());
    let down = ConvSpec::down([2; 3]);
    let layers = vec![
        conv("conv 3x3x3", &[(6, NORM_ACT)], 10, [5, 4, 6], same),
        conv("conv 3x3x3, wide", &[(20, NORM_ACT)], 36, [3, 5, 17], same),
        conv("conv 3x3x3, concatenated", &[(6, UP), (5, NORM_ACT)], 9, [4, 6, 8], same),
        LayerCase { after: PLAIN, ..conv("conv 3x3x3, bare", &[(1, PLAIN)], 8, [7, 9, 11], same) },
        conv("conv, stride 2", &[(4, NORM_ACT)], 8, [5, 7, 9], down),
        conv("conv, stride 1,2,2", &[(9, NORM_ACT)], 6, [3, 8, 6], ConvSpec::down([1, 2, 2])),
        conv("pointwise", &[(16, NORM_ACT)], 16, [9, 10, 11], point),
        LayerCase { after: PLAIN, ..conv("pointwise, bare", &[(33, PLAIN)], 3, [3, 5, 7], point) },
        conv("pointwise, 64 channels and more", &[(70, UP), (66, NORM_ACT)], 75, [4, 6, 4], point),
        other("depthwise", &[(9, NORM_ACT)], [7, 6, 9], Layer::Depthwise),
        other("depthwise, concatenated", &[(6, UP), (5, NORM_ACT)], [4, 6, 8], Layer::Depthwise),
        LayerCase { after: PLAIN, ..other("sum", &[(6, PLAIN), (6, UP)], [4, 6, 8], Layer::Sum) },
        other("sum and norm", &[(5, NORM_ACT), (5, PLAIN)], [9, 17, 19], Layer::Sum),
    ];
    let every = LossWeights { cross_entropy: 1.0, dice: 1.0, ..LossWeights::u2net() };
    let loss = |name, n, classes, spatial| Kind::Loss { name, n, classes, spatial, weights: every };
    let sgd = Optimizer::Sgd { momentum: 0.9, weight_decay: 1e-2 };
    let others = [
        loss("losses, 3 classes", 2, 3, [17, 19, 23]),
        loss("losses, 6 classes", 1, 6, [5, 3, 4]),
        Kind::Regions { name: "losses, 3 regions", regions: 3, spatial: [9, 11, 23] },
        Kind::Regions { name: "losses, 9 regions", regions: 9, spatial: [5, 3, 4] },
        Kind::Merged { name: "losses, classes unlabelled", classes: 6, spatial: [7, 8, 9] },
        Kind::Update { name: "Adam", optimizer: Optimizer::adam() },
        Kind::Update { name: "SGD", optimizer: sgd },
    ];
    Ok(layers.into_iter().map(Kind::Layer).chain(others).map(Check).collect())
}

impl Check {
    pub fn name(&self) -> &'static str {
        match &self.0 {
            Kind::Layer(case) => case.name,
            Kind::Loss { name, .. }
            | Kind::Regions { name, .. }
            | Kind::Merged { name, .. }
            | Kind::Update { name, .. } => name,
        }
    }

    /// Runs the case as it is lowered for `caps`.
    pub fn run(&self, gpu: &Gpu, caps: &Caps) -> Result<Ran> {
        match &self.0 {
            Kind::Layer(case) => case.rig(caps)?.run(gpu),
            Kind::Loss { n, classes, spatial, weights, .. } => {
                let x = tensor(*n, *classes, *spatial, 7)?.map(|v| f64::from((v * 3.0) as f32));
                loss_rig(caps, &x, weights)?.run(gpu)
            }
            Kind::Regions { regions, spatial, .. } => {
                regions_rig(caps, *regions, *spatial)?.run(gpu)
            }
            Kind::Merged { classes, spatial, .. } => merged_rig(caps, *classes, *spatial)?.run(gpu),
            Kind::Update { optimizer, .. } => update(gpu, caps, optimizer),
        }
    }
}

/// Weight and bias of a layer, and their names' packings.
struct Weights {
    weight: Vec<f64>,
    bias: Vec<f64>,
    packing: Packing,
    segments: Vec<usize>,
}

impl LayerCase {
    fn weights(&self) -> Option<Weights> {
        let ins: Vec<usize> = self.parts.iter().map(|part| part.0).collect();
        let (packing, segments) = match self.layer {
            Layer::Conv { spec, out } => {
                (Packing::Matrix { out, ins, taps: spec.taps() }, vec![out])
            }
            Layer::Depthwise => (Packing::Depthwise { segments: ins.clone(), taps: 27 }, ins),
            Layer::Sum => return None,
        };
        let weight = random(packing.elements(), 100);
        let bias = random(segments.iter().sum(), 101);
        Some(Weights { weight, bias, packing, segments })
    }

    fn stages(&self) -> Result<Vec<Stage>> {
        let parts = self.parts.iter().enumerate();
        let stage = |(i, (channels, prep)): (usize, &(usize, Prep))| {
            let size = std::array::from_fn(|axis| self.spatial[axis] / prep.up[axis]);
            let x = tensor(self.n, *channels, size, 10 + i as u64)?;
            Ok(Stage::new(*prep, &format!("part{i}"), &x, 20 + 2 * i as u64))
        };
        parts.map(stage).collect()
    }

    /// The graph and what it should make.
    fn rig(&self, caps: &Caps) -> Result<Rig> {
        let (stages, weights) = (self.stages()?, self.weights());
        let mut rig = Rig::new(caps);
        let inputs = stages.iter().map(|stage| rig.input(stage.x())).collect::<Result<Vec<_>>>()?;
        let values = stages
            .iter()
            .zip(&inputs)
            .map(|(stage, x)| stage.build(&mut rig, *x))
            .collect::<Result<Vec<_>>>()?;
        let y = self.build(&mut rig, &values, weights.as_ref())?;
        let parts: Vec<&Tensor> = stages.iter().map(|stage| &stage.y).collect();
        let x = concatenated(&parts);
        let made = self.forward(&x, &parts, weights.as_ref());
        let after = Stage::new(self.after, "after", &made, 3);
        let out = after.build(&mut rig, y)?;
        let dy = Tensor { shape: after.y.shape, data: random(after.y.data.len(), 4) };
        let grads = rig.backward(out, &dy)?;
        let dr = after.backward(&mut rig, &dy);
        rig.expect_tensor("the result", out, &after.y, FORWARD)?;
        let own = self.backward(&mut rig, &x, weights.as_ref(), &dr);
        for ((stage, input), own) in stages.iter().zip(inputs).zip(own) {
            let dx = stage.backward(&mut rig, &own);
            rig.expect_gradient_of(&grads, input, &dx, BACKWARD)?;
        }
        Ok(rig)
    }

    fn build(&self, rig: &mut Rig, parts: &[Value], weights: Option<&Weights>) -> Result<Value> {
        let Some(w) = weights else { return ops::add(&mut rig.graph, parts[0], parts[1]) };
        let x = match parts {
            [one] => *one,
            many => ops::concat(&mut rig.graph, many)?,
        };
        let weight = rig.param("layer.weight", w.packing.clone(), &w.weight);
        let bias = Packing::Channels { segments: w.segments.clone() };
        let bias = rig.param("layer.bias", bias, &w.bias);
        match self.layer {
            Layer::Conv { spec, .. } => ops::conv(&mut rig.graph, x, weight, bias, spec),
            _ => ops::depthwise(&mut rig.graph, x, weight, bias),
        }
    }

    fn forward(&self, x: &Tensor, parts: &[&Tensor], weights: Option<&Weights>) -> Tensor {
        match (self.layer, weights) {
            (Layer::Conv { spec, out }, Some(w)) => {
                oracle::conv_forward(x, &w.weight, &w.bias, &oracle_spec(&spec), out)
            }
            (Layer::Depthwise, Some(w)) => oracle::depthwise_forward(x, &w.weight, &w.bias),
            _ => oracle::add_forward(parts[0], parts[1]),
        }
    }

    /// The oracle's gradient of each part; those of the weights are expected of the rig.
    fn backward(
        &self,
        rig: &mut Rig,
        x: &Tensor,
        weights: Option<&Weights>,
        dr: &Tensor,
    ) -> Vec<Tensor> {
        let (dx, dw, db) = match (self.layer, weights) {
            (Layer::Conv { spec, .. }, Some(w)) => {
                oracle::conv_backward(x, &w.weight, &oracle_spec(&spec), dr)
            }
            (Layer::Depthwise, Some(w)) => oracle::depthwise_backward(x, &w.weight, dr),
            _ => return vec![dr.clone(), dr.clone()],
        };
        rig.expect_gradient("layer.weight", &dw, BACKWARD);
        // a norm behind it takes the mean out: what is left is rounding
        if !self.after.norm {
            rig.expect_gradient("layer.bias", &db, BACKWARD);
        }
        let mut left = dx;
        let mut own = Vec::new();
        for (channels, _) in &self.parts[..self.parts.len() - 1] {
            let (part, rest) = oracle::concat_backward(*channels, &left);
            own.push(part);
            left = rest;
        }
        own.push(left);
        own
    }
}

fn oracle_spec(spec: &ConvSpec) -> oracle::ConvSpec {
    let ConvSpec { kernel, stride, pad_lo, pad_hi } = *spec;
    oracle::ConvSpec { kernel, stride, pad_lo, pad_hi }
}

fn concatenated(parts: &[&Tensor]) -> Tensor {
    let first = parts[0].clone();
    parts[1..].iter().fold(first, |all, part| oracle::concat_forward(&all, part))
}

/// All losses of classes with their gradient, probabilities and classes.
fn loss_rig(caps: &Caps, x: &Tensor, w: &LossWeights) -> Result<Rig> {
    let labels = labels(x.data.len() / x.shape.c, x.shape.c);
    let (losses, gradient) = losses(x, &labels, w);
    let mut rig = Rig::new(caps);
    let value = rig.input(x)?;
    let target = rig.labels(&labels);
    let loss = ops::segmentation_loss(&mut rig.graph, value, target, *w)?;
    rig.expect_floats("the losses", loss, &losses, FORWARD);
    let grads = rig.graph.backward(loss, loss)?;
    rig.expect_gradient_of(&grads, value, &gradient, 2e-4)?;
    let p = ops::softmax(&mut rig.graph, value)?;
    rig.expect_tensor("the probabilities", p, &oracle::softmax_forward(x), FORWARD)?;
    let best = ops::argmax(&mut rig.graph, value)?;
    rig.expect_classes("the classes", best, &oracle::argmax(x));
    Ok(rig)
}

/// Labels below `classes`, every eleventh ignored.
fn labels(count: usize, classes: usize) -> Vec<u8> {
    let label = |v: &f64| (((v + 1.0) / 2.0 * classes as f64) as usize).min(classes - 1) as u8;
    let mut labels: Vec<u8> = random(count, 8).iter().map(label).collect();
    labels.iter_mut().step_by(11).for_each(|label| *label = 255);
    labels
}

/// The weighted sum of the losses of classes and each of them, and the gradient of the sum.
fn losses(x: &Tensor, labels: &[u8], w: &LossWeights) -> (Vec<f64>, Tensor) {
    let parts = [
        (w.cross_entropy, oracle::cross_entropy(x, labels)),
        (w.focal, oracle::focal(x, labels)),
        (w.dice, oracle::soft_dice(x, labels, w.dice_background)),
        (w.lovasz, oracle::lovasz_softmax(x, labels, None)),
    ];
    let mut losses = vec![0.0];
    let mut gradient = Tensor::zeros(x.shape);
    for (weight, (loss, d)) in parts {
        losses[0] += f64::from(weight) * loss;
        losses.push(loss);
        gradient = oracle::add_forward(&gradient, &d.map(|v| v * f64::from(weight)));
    }
    (losses, gradient)
}

/// Words of a batch of two samples, of which the second lacks output `k`.
fn second_lacks(k: usize) -> Vec<[u32; 8]> {
    let mut mask = [0; 8];
    mask[k / 32] = 1 << (k % 32);
    vec![[0; 8], mask]
}

/// The losses of overlapping regions with their gradient.
fn regions_rig(caps: &Caps, regions: usize, spatial: [usize; 3]) -> Result<Rig> {
    let x = tensor(2, regions, spatial, 7)?.map(|v| f64::from((v * 3.0) as f32));
    let table: Vec<u32> = (0..8).map(|label| (label * 0x2b) & ((1 << regions) - 1)).collect();
    let (labels, unlabelled) = (labels(x.data.len() / regions, table.len()), second_lacks(0));
    let truth = RegionLabels { labels: &labels, table: &table, unlabelled: &unlabelled };
    let (ce, dce) = oracle::binary_cross_entropy(&x, &truth);
    let (dice, ddice) = oracle::region_dice(&x, &truth);
    let mut rig = Rig::new(caps);
    let value = rig.input(&x)?;
    let targets = RegionTargets {
        labels: rig.labels(&labels),
        table: rig.raw("table", table.clone()),
        entries: table.len(),
        unlabelled: Some(rig.raw("unlabelled", unlabelled.concat())),
    };
    let weights = LossWeights::dice_ce();
    let loss = ops::region_loss(&mut rig.graph, value, targets, weights)?;
    rig.expect_floats("the losses", loss, &[ce + dice, ce, 0.0, dice], FORWARD);
    let grads = rig.graph.backward(loss, loss)?;
    rig.expect_gradient_of(&grads, value, &oracle::add_forward(&dce, &ddice), 2e-4)?;
    Ok(rig)
}

/// All losses of classes of which some are unlabelled, with their gradient.
fn merged_rig(caps: &Caps, classes: usize, spatial: [usize; 3]) -> Result<Rig> {
    let x = tensor(2, classes, spatial, 7)?.map(|v| f64::from((v * 3.0) as f32));
    let mut labels = labels(x.data.len() / classes, classes);
    let (half, last) = (labels.len() / 2, classes - 1);
    labels[half..].iter_mut().filter(|l| usize::from(**l) == last).for_each(|l| *l = 0);
    let unlabelled = second_lacks(last);
    let w = LossWeights { cross_entropy: 1.0, dice: 1.0, ..LossWeights::u2net() };
    let y = oracle::merge_forward(&x, &unlabelled);
    let (losses, dy) = losses(&y, &labels, &w);
    let mut rig = Rig::new(caps);
    let (value, target) = (rig.input(&x)?, rig.labels(&labels));
    let words = rig.raw("unlabelled", unlabelled.concat());
    let merged = ops::merge_unlabelled(&mut rig.graph, value, words)?;
    let p = ops::softmax(&mut rig.graph, merged)?;
    rig.expect_tensor("the probabilities", p, &oracle::softmax_forward(&y), FORWARD)?;
    let loss = ops::segmentation_loss(&mut rig.graph, merged, target, w)?;
    rig.expect_floats("the losses", loss, &losses, FORWARD);
    let grads = rig.graph.backward(loss, loss)?;
    let dx = oracle::merge_backward(&x, &unlabelled, &dy);
    rig.expect_gradient_of(&grads, value, &dx, 2e-4)?;
    Ok(rig)
}

const COUNT: usize = 1003;
const STEPS: u64 = 3;
const RATE: f64 = 0.01;

/// Some updates of one parameter.
fn update(gpu: &Gpu, caps: &Caps, optimizer: &Optimizer) -> Result<Ran> {
    let packing = Packing::Channels { segments: vec![COUNT] };
    let init = Init::Constant(0.0);
    let (name, scope) = ("trained".to_string(), Scope::Shared);
    let spec = ParamSpec { name, dims: vec![COUNT], scope, packing, init };
    let store = Store::new(gpu, [&spec], true)?;
    let stored = store.get(&spec.name)?;
    let tail = optimizer_dispatch(optimizer, stored.start, stored.span, caps)?;
    let graph = Graph::new();
    let plan = Plan::new(&graph, caps, &Default::default())?;
    let pool = Pool::new(gpu, [&plan])?;
    let program = Program::new(gpu, &plan, &tail, (&store, &pool))?;
    let mut weights = random(COUNT, 1);
    let (mut m, mut v) = (vec![0.0; COUNT], vec![0.0; COUNT]);
    store.write(gpu, Region::Weights, &spec.name, &singles(&weights))?;
    for t in 1..=STEPS {
        let grad = random(COUNT, 10 + t);
        store.write(gpu, Region::Grads, &spec.name, &singles(&grad))?;
        for command in 0..tail.len() {
            program.set_params(gpu, command, &optimizer.step_params(RATE, t))?;
        }
        program.run(gpu)?;
        match optimizer {
            Optimizer::Adam { betas, eps, weight_decay } => {
                let settings = oracle::Adam {
                    lr: RATE,
                    betas: betas.map(f64::from),
                    eps: f64::from(*eps),
                    weight_decay: f64::from(*weight_decay),
                };
                oracle::adam_step(&mut weights, &grad, &mut m, &mut v, t as u32, &settings);
            }
            Optimizer::Sgd { momentum, weight_decay } => {
                let settings = oracle::SgdNesterov {
                    lr: RATE,
                    momentum: f64::from(*momentum),
                    weight_decay: f64::from(*weight_decay),
                };
                oracle::sgd_nesterov_step(&mut weights, &grad, &mut m, &settings);
            }
        }
    }
    let found: Vec<f64> =
        store.read_all(gpu, Region::Weights)?.concat().into_iter().map(f64::from).collect();
    let (what, tolerance) = ("the weights".to_string(), 2e-6);
    let compared = vec![Compared { what, error: error(&found, &weights), tolerance }];
    let kernels = tail.iter().map(|dispatch| dispatch.kernel.file).collect();
    Ok(Ran { compared, kernels, variants: 1 })
}
