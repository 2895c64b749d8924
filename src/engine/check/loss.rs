//! Softmax, argmax and the losses of classes with their gradient to the logits.

use super::case::{Case, GraphCase};
use super::measure::Tolerance;
use super::net::{Net, Truth, as_stored, labels, tensor};
use super::plannings::{Planning, plannings};
use crate::base::{Error, Result};
use crate::engine::graph::{Caps, DType, Value};
use crate::engine::ops;
use crate::engine::ops::{LossTerm, LossWeights};
use crate::engine::oracle;
use crate::engine::oracle::Tensor;
use crate::engine::shape::Shape;

/// Name of the weighted sum of losses.
pub(super) const TOTAL: &str = "the total loss";

/// How far a loss may be off.
pub(super) const LOSS: Tolerance = Tolerance::OfEach { share: 2e-5, floor: 1e-2 };
/// How far the gradient of the logits may be off.
pub(super) const GRADIENT: Tolerance = Tolerance::OfLargest(2e-4);

const NONE: LossWeights = LossWeights { cross_entropy: 0.0, ..LossWeights::ce() };

/// Logits and labels.
#[derive(Clone)]
struct Logits {
    n: usize,
    classes: usize,
    spatial: [usize; 3],
    /// What the logits are multiplied by.
    scale: f64,
    /// Rounds logits to multiples of this, so that errors tie; 0 leaves them.
    step: f64,
    /// Label written over some voxels.
    odd_label: Option<u8>,
    /// Every how manieth voxel is written over with it.
    every: usize,
}

fn logits(n: usize, classes: usize, spatial: [usize; 3]) -> Logits {
    Logits { n, classes, spatial, scale: 3.0, step: 0.0, odd_label: None, every: 10 }
}

impl Logits {
    fn name(&self) -> String {
        let Self { n, classes, spatial: [d, h, w], .. } = self;
        let mut name = format!("{n}x{classes}x{d}x{h}x{w}");
        if self.scale != 3.0 {
            name += &format!(" times {}", self.scale);
        }
        if self.step > 0.0 {
            name += &format!(" in steps of {}", self.step);
        }
        if let Some(label) = self.odd_label {
            name += &format!(", each {}th label {label}", self.every);
        }
        name
    }

    fn voxels(&self) -> usize {
        self.spatial.iter().product()
    }

    fn vectors(&self) -> usize {
        self.voxels() * self.classes.div_ceil(4)
    }

    fn shape(&self) -> Result<Shape> {
        Shape::new(self.n, self.classes, self.spatial)
    }

    fn values(&self, dtype: DType) -> Result<Tensor> {
        let x = tensor(self.n, self.classes, self.spatial, 7)?;
        let mut x = x.map(|v| f64::from((v * self.scale) as f32));
        if self.step > 0.0 {
            for (i, v) in x.data.iter_mut().enumerate() {
                // an odd offset between classes keeps p and 1-p apart, which tie in exact arithmetic alone
                let offset = 0.1875 * (i / self.voxels() % self.classes) as f64;
                *v = (*v / self.step).round() * self.step + offset;
            }
        }
        Ok(as_stored(dtype, &x))
    }

    fn labels(&self) -> Vec<u8> {
        let mut labels = labels(self.n * self.voxels(), self.classes, 8);
        if let Some(odd) = self.odd_label {
            labels.iter_mut().step_by(self.every).for_each(|label| *label = odd);
        }
        labels
    }

    /// In small bindings a sample has to start where a binding may.
    fn fits(&self, planning: &Planning) -> bool {
        let step = if planning.dtype == DType::F16 { 32 } else { 16 };
        !planning.is_small() || self.n == 1 || self.voxels().is_multiple_of(step)
    }
}

/// Losses by name and the gradient of their weighted sum.
pub(super) struct Expectation {
    /// Those that are compared.
    pub values: Vec<(&'static str, f64)>,
    pub gradient: Tensor,
}

impl Expectation {
    /// Of the classes that `labels` name. A loss without weight may cost nothing and then reads zero: it is not compared.
    pub fn of_classes(x: &Tensor, labels: &[u8], w: &LossWeights) -> Result<Self> {
        let (mut total, mut values) = (0.0, Vec::new());
        let mut gradient = Tensor::zeros(x.shape);
        for term in terms(w).filter(|term| term.weight != 0.0) {
            let weight = f64::from(term.weight);
            let (loss, d) = match term.name {
                "cross_entropy" => oracle::cross_entropy(x, labels),
                "focal" => oracle::focal(x, labels),
                "dice" => oracle::soft_dice(x, labels, w.dice_background),
                "lovasz" => oracle::lovasz_softmax(x, labels, w.lovasz_leaves_out_10.then_some(10)),
                other => return Err(Error::Internal(format!("{other} has no oracle"))),
            };
            total += weight * loss;
            values.push((term.name, loss));
            gradient = oracle::add_forward(&gradient, &d.map(|v| v * weight));
        }
        values.push((TOTAL, total));
        Ok(Self { values, gradient })
    }

    pub fn expect(&self, truth: &mut Truth) {
        self.values.iter().for_each(|(name, value)| truth.expect(name, &[*value], LOSS));
    }
}

/// The losses of a sum, as the words after their total have them.
fn terms(w: &LossWeights) -> impl Iterator<Item = LossTerm> {
    w.losses(&[0.0; LossWeights::WORDS]).terms.into_iter()
}

/// Has the words of a loss compared.
pub(super) fn output_losses(net: &mut Net, loss: Value, w: &LossWeights) {
    net.float(TOTAL, loss, 0);
    terms(w).enumerate().for_each(|(index, term)| net.float(term.name, loss, index + 1));
}

/// A mixture of weights in words.
pub(super) fn mixture(w: &LossWeights) -> String {
    let named = terms(w).filter(|term| term.weight != 0.0);
    let named: Vec<String> = named.map(|term| format!("{} {}", term.weight, term.name)).collect();
    let background = if w.dice_background { " with background" } else { "" };
    let left_out = if w.lovasz_leaves_out_10 { " without label 10" } else { "" };
    format!("{}{background}{left_out}", named.join(" + "))
}

struct LossCase {
    logits: Logits,
    weights: LossWeights,
}

impl GraphCase for LossCase {
    fn name(&self) -> String {
        format!("{} of {}", mixture(&self.weights), self.logits.name())
    }

    fn vectors(&self) -> usize {
        self.logits.vectors()
    }

    /// The sort's arrays span a whole batch, but small bindings are about the logits.
    fn plannings(&self, own: &Caps) -> Vec<Planning> {
        let mut plannings = plannings(own, self.vectors());
        let sorts = self.weights.lovasz != 0.0;
        plannings.retain(|p| self.logits.fits(p) && !(sorts && p.is_small()));
        plannings
    }

    fn build(&self, net: &mut Net) -> Result<()> {
        let shape = self.logits.shape()?;
        let (x, target) =
            (net.input("logits", shape), net.words("labels", shape.n * shape.voxels()));
        let loss = ops::segmentation_loss(&mut net.graph, x, target, self.weights)?;
        net.differentiate_loss(loss)?;
        output_losses(net, loss, &self.weights);
        Ok(())
    }

    fn truth(&self, dtype: DType) -> Result<Truth> {
        let (x, labels) = (self.logits.values(dtype)?, self.logits.labels());
        let losses = Expectation::of_classes(&x, &labels, &self.weights)?;
        let mut truth = Truth::new(dtype);
        truth.input("logits", &x);
        truth.labels("labels", &labels);
        losses.expect(&mut truth);
        truth.expect_gradient("logits", &losses.gradient.data, GRADIENT);
        Ok(truth)
    }
}

/// Probabilities and classes.
struct Scores(Logits);

impl GraphCase for Scores {
    fn name(&self) -> String {
        format!("probabilities and classes of {}", self.0.name())
    }

    fn vectors(&self) -> usize {
        self.0.vectors()
    }

    fn plannings(&self, own: &Caps) -> Vec<Planning> {
        let mut plannings = plannings(own, self.vectors());
        plannings.retain(|p| self.0.fits(p));
        plannings
    }

    fn build(&self, net: &mut Net) -> Result<()> {
        let x = net.input("logits", self.0.shape()?);
        let p = ops::softmax(&mut net.graph, x)?;
        let best = ops::argmax(&mut net.graph, x)?;
        net.maps("the probabilities", p, x)?;
        net.classes("the classes", best, x)?;
        Ok(())
    }

    fn truth(&self, dtype: DType) -> Result<Truth> {
        let x = self.0.values(dtype)?;
        let p = oracle::softmax_forward(&x);
        let mut truth = Truth::new(dtype);
        truth.input("logits", &x);
        truth.expect("the probabilities", &p.data, Tolerance::OfLargest(2e-6));
        truth.expect_classes("the classes", &oracle::argmax(&x));
        Ok(truth)
    }
}

fn all_logits() -> Vec<Logits> {
    vec![
        logits(1, 2, [1, 1, 1]),
        logits(1, 2, [3, 5, 7]),
        logits(2, 3, [4, 5, 6]),
        logits(2, 5, [3, 3, 9]),
        logits(1, 11, [4, 7, 5]),
        Logits { scale: 60.0, ..logits(2, 4, [3, 4, 5]) },
        // two classes: the errors of equal differences are then equal in f32 as in f64
        Logits { step: 0.5, scale: 2.0, ..logits(2, 2, [6, 7, 8]) },
        Logits { scale: 0.0, ..logits(1, 2, [5, 6, 7]) },
        Logits { odd_label: Some(10), ..logits(2, 3, [4, 5, 7]) },
        Logits { odd_label: Some(10), ..logits(1, 12, [4, 5, 7]) },
        Logits { odd_label: Some(77), ..logits(1, 4, [5, 5, 5]) },
        Logits { odd_label: Some(255), every: 1, ..logits(2, 3, [4, 4, 5]) },
        logits(2, 3, [4, 4, 5]),
        logits(3, 6, [4, 3, 4]),
        // several tiles of the sort and of the scan
        logits(2, 3, [17, 19, 23]),
    ]
}

fn mixtures() -> Vec<LossWeights> {
    vec![
        LossWeights { cross_entropy: 1.0, ..NONE },
        LossWeights { focal: 1.0, ..NONE },
        LossWeights { dice: 1.0, ..NONE },
        LossWeights { dice: 1.0, dice_background: true, ..NONE },
        LossWeights { lovasz: 1.0, ..NONE },
        LossWeights { lovasz: 1.0, lovasz_leaves_out_10: true, ..NONE },
        LossWeights { cross_entropy: 0.5, focal: 2.0, dice: 0.25, lovasz: 1.5, ..NONE },
    ]
}

/// Every loss, alike.
pub(super) const EVERY: LossWeights =
    LossWeights { cross_entropy: 1.0, dice: 1.0, ..LossWeights::u2net() };

fn loss(logits: Logits, weights: LossWeights) -> Case {
    Case::Graph(Box::new(LossCase { logits, weights }))
}

pub fn losses() -> Vec<Case> {
    let mixed = |logits: Logits| mixtures().into_iter().map(move |w| loss(logits.clone(), w));
    let mut cases: Vec<Case> = all_logits().into_iter().flat_map(mixed).collect();
    for plain in [logits(2, 3, [17, 19, 23]), logits(1, 6, [5, 3, 4])] {
        cases.push(loss(Logits { odd_label: Some(255), every: 11, ..plain }, EVERY));
    }
    cases
}

pub fn probabilities_and_classes() -> Vec<Case> {
    all_logits().into_iter().map(|logits| Case::Graph(Box::new(Scores(logits)))).collect()
}

/// Shapes of the network, to be timed.
pub fn timed() -> Vec<Case> {
    vec![
        loss(logits(2, 3, [40, 56, 40]), LossWeights::dice_ce()),
        loss(logits(2, 3, [40, 56, 40]), LossWeights::u2net()),
    ]
}
