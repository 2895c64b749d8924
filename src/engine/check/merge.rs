//! Unlabelled classes merged into background: the operation alone, and before each loss.

use super::case::{Case, GraphCase};
use super::loss::{EVERY, Expectation, GRADIENT, mixture, output_losses};
use super::measure::Tolerance;
use super::net::{Net, Truth, UPSTREAM, as_stored, labels, tensor};
use super::plannings::{Planning, plannings};
use crate::base::Result;
use crate::engine::graph::{Caps, DType, Value};
use crate::engine::ops;
use crate::engine::ops::LossWeights;
use crate::engine::oracle;
use crate::engine::oracle::Tensor;
use crate::engine::shape::Shape;

/// Logits, and the unlabelled classes of each sample.
#[derive(Clone)]
struct Classes {
    classes: usize,
    spatial: [usize; 3],
    unlabelled: Vec<Vec<usize>>,
}

/// What the oracle has for minus infinity, in f32.
const NOTHING: f64 = -1e30f32 as f64;

impl Classes {
    fn name(&self) -> String {
        let Self { classes, spatial: [d, h, w], unlabelled } = self;
        format!("{}x{classes}x{d}x{h}x{w} without {unlabelled:?}", unlabelled.len())
    }

    fn voxels(&self) -> usize {
        self.spatial.iter().product()
    }

    fn shape(&self) -> Result<Shape> {
        Shape::new(self.unlabelled.len(), self.classes, self.spatial)
    }

    fn logits(&self, dtype: DType) -> Result<Tensor> {
        let x = tensor(self.unlabelled.len(), self.classes, self.spatial, 7)?;
        Ok(as_stored(dtype, &x.map(|v| f64::from((v * 3.0) as f32))))
    }

    fn masks(&self) -> Vec<[u32; 8]> {
        self.unlabelled.iter().map(|classes| ops::class_bits(classes.iter().copied())).collect()
    }

    /// Labels of the classes that a sample has; some voxels are ignored.
    fn labels(&self) -> Vec<u8> {
        let mut all = labels(self.unlabelled.len() * self.voxels(), self.classes, 8);
        for (labels, classes) in all.chunks_mut(self.voxels()).zip(&self.unlabelled) {
            for label in labels.iter_mut().filter(|l| classes.contains(&usize::from(**l))) {
                *label = 0;
            }
        }
        all.iter_mut().step_by(9).for_each(|l| *l = 255);
        all
    }

    /// Merged logits are in f32: they do not fit the bindings that just hold a sample in f16.
    fn plannings(&self, own: &Caps) -> Vec<Planning> {
        let mut plannings = plannings(own, self.voxels() * self.classes.div_ceil(4));
        plannings.retain(|p| !p.is_small() || p.dtype == DType::F32);
        plannings
    }

    /// Logits, and merged ones.
    fn build(&self, net: &mut Net) -> Result<Value> {
        let x = net.input("logits", self.shape()?);
        let words = net.words("unlabelled", self.masks().concat().len());
        let merged = ops::merge_unlabelled(&mut net.graph, x, words)?;
        net.in_f32(merged);
        Ok(merged)
    }
}

/// The operation alone, and what softmax makes of it.
struct Merge(Classes);

impl GraphCase for Merge {
    fn name(&self) -> String {
        format!("merged classes of {}", self.0.name())
    }

    fn vectors(&self) -> usize {
        self.0.voxels() * self.0.classes.div_ceil(4)
    }

    fn plannings(&self, own: &Caps) -> Vec<Planning> {
        self.0.plannings(own)
    }

    fn build(&self, net: &mut Net) -> Result<()> {
        let merged = self.0.build(net)?;
        let p = ops::softmax(&mut net.graph, merged)?;
        net.differentiate(merged)?;
        net.output("the merged logits", merged)?;
        net.maps("the probabilities", p, merged)?;
        Ok(())
    }

    fn truth(&self, dtype: DType) -> Result<Truth> {
        let (x, masks, shape) = (self.0.logits(dtype)?, self.0.masks(), self.0.shape()?);
        let y = oracle::merge_forward(&x, &masks);
        let dy = as_stored(dtype, &tensor(shape.n, shape.c, self.0.spatial, 9)?);
        let p = oracle::softmax_forward(&y);
        let dx = oracle::merge_backward(&x, &masks, &dy);
        let mut truth = Truth::new(dtype);
        truth.input("logits", &x);
        truth.words("unlabelled", masks.concat());
        truth.input(UPSTREAM, &dy);
        let y = y.map(|v| if v == -1e30 { NOTHING } else { v });
        truth.expect("the merged logits", &y.data, Tolerance::Absolute(4e-6));
        // exactly zero where nothing is labelled
        truth.expect("the probabilities", &p.data, Tolerance::OfEach { share: 2e-5, floor: 0.0 });
        truth.expect_gradient("logits", &dx.data, Tolerance::OfLargest(1e-5));
        Ok(truth)
    }
}

/// Losses of merged classes.
struct MergedLoss {
    classes: Classes,
    weights: LossWeights,
}

impl GraphCase for MergedLoss {
    fn name(&self) -> String {
        format!("{} of merged classes, {}", mixture(&self.weights), self.classes.name())
    }

    fn vectors(&self) -> usize {
        self.classes.voxels() * self.classes.classes.div_ceil(4)
    }

    /// The sort's arrays span a whole batch, and samples must start where a binding may.
    fn plannings(&self, own: &Caps) -> Vec<Planning> {
        let mut plannings = self.classes.plannings(own);
        let fits = self.weights.lovasz == 0.0 && self.classes.voxels().is_multiple_of(16);
        let one = self.classes.unlabelled.len() == 1;
        plannings.retain(|p| !p.is_small() || one || fits);
        plannings
    }

    fn build(&self, net: &mut Net) -> Result<()> {
        let merged = self.classes.build(net)?;
        let target = net.words("labels", self.classes.unlabelled.len() * self.classes.voxels());
        let loss = ops::segmentation_loss(&mut net.graph, merged, target, self.weights)?;
        net.differentiate_loss(loss)?;
        output_losses(net, loss, &self.weights);
        Ok(())
    }

    fn truth(&self, dtype: DType) -> Result<Truth> {
        let (x, masks) = (self.classes.logits(dtype)?, self.classes.masks());
        let labels = self.classes.labels();
        let losses =
            Expectation::of_classes(&oracle::merge_forward(&x, &masks), &labels, &self.weights)?;
        let dx = oracle::merge_backward(&x, &masks, &losses.gradient);
        let mut truth = Truth::new(dtype);
        truth.input("logits", &x);
        truth.words("unlabelled", masks.concat());
        truth.labels("labels", &labels);
        losses.expect(&mut truth);
        truth.expect_gradient("logits", &dx.data, GRADIENT);
        Ok(truth)
    }
}

fn classes(classes: usize, spatial: [usize; 3], unlabelled: &[&[usize]]) -> Classes {
    let unlabelled = unlabelled.iter().map(|classes| classes.to_vec()).collect();
    Classes { classes, spatial, unlabelled }
}

fn all_classes() -> Vec<Classes> {
    vec![
        classes(2, [1, 1, 1], &[&[]]),
        classes(2, [3, 5, 7], &[&[1]]),
        classes(3, [4, 4, 6], &[&[2], &[1]]),
        // a class that no sample labels
        classes(6, [4, 4, 4], &[&[3, 5], &[], &[1, 3]]),
        // classes of several words and blocks
        classes(70, [2, 4, 4], &[&[31, 32, 33, 69], &[1, 2, 64]]),
        classes(3, [17, 16, 23], &[&[1], &[]]),
        classes(6, [7, 8, 9], &[&[], &[5]]),
    ]
}

pub fn merged() -> Vec<Case> {
    all_classes().into_iter().map(|classes| Case::Graph(Box::new(Merge(classes)))).collect()
}

pub fn losses() -> Vec<Case> {
    let none = LossWeights { cross_entropy: 0.0, ..LossWeights::ce() };
    let weights = [
        LossWeights::ce(),
        LossWeights { focal: 1.0, ..none },
        LossWeights { dice: 1.0, ..none },
        LossWeights { lovasz: 1.0, ..none },
        LossWeights { cross_entropy: 0.5, dice: 2.0, ..LossWeights::u2net() },
        EVERY,
    ];
    let each = |classes: Classes| {
        weights.map(|weights| -> Case {
            Case::Graph(Box::new(MergedLoss { classes: classes.clone(), weights }))
        })
    };
    all_classes().into_iter().flat_map(each).collect()
}
