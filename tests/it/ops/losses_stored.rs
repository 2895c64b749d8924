//! Holds oracles and shaders to the numbers of tests/data/losses.json, which tests/data/make_losses.py beside it writes with
//! formulas of its own.

use std::collections::BTreeMap;

use u2seg::low_level::gpu::Gpu;
use u2seg::low_level::ops;
use u2seg::low_level::ops::{LossWeights, RegionTargets};
use u2seg::low_level::oracle;
use u2seg::low_level::oracle::{RegionLabels, Tensor};
use u2seg::low_level::shape::Shape;

use super::harness::*;
use crate::common;

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    /// N, C, D, H, W.
    shape: [usize; 5],
    logits: Vec<f64>,
    labels: Vec<u8>,
    /// Classes or regions that each sample does not label.
    unlabelled: Vec<Vec<usize>>,
    /// Regions of each label index; none where labels are classes.
    regions: Vec<Vec<usize>>,
    losses: BTreeMap<String, Stored>,
}

#[derive(serde::Deserialize)]
struct Stored {
    value: f64,
    gradient: Vec<f64>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("../../data/losses.json")).unwrap()
}

impl Case {
    fn logits(&self) -> Tensor {
        let [n, c, d, h, w] = self.shape;
        Tensor::new(Shape::new(n, c, [d, h, w]).unwrap(), self.logits.clone()).unwrap()
    }

    fn masks(&self) -> Vec<[u32; 8]> {
        let mask = |classes: &Vec<usize>| {
            let mut words = [0; 8];
            classes.iter().for_each(|k| words[k / 32] |= 1 << (k % 32));
            words
        };
        self.unlabelled.iter().map(mask).collect()
    }

    fn partial(&self) -> bool {
        self.unlabelled.iter().any(|classes| !classes.is_empty())
    }

    fn table(&self) -> Vec<u32> {
        self.regions.iter().map(|members| members.iter().map(|r| 1 << r).sum()).collect()
    }

    /// Loss and gradient of the oracle.
    fn reference(&self, loss: &str) -> (f64, Tensor) {
        let (x, t, masks, table) = (self.logits(), &self.labels, self.masks(), self.table());
        let truth = RegionLabels { labels: t, table: &table, unlabelled: &masks };
        let y = oracle::merge_forward(&x, &masks);
        let (value, dy) = match (loss, self.regions.is_empty()) {
            ("cross_entropy", false) => return oracle::binary_cross_entropy(&x, &truth),
            ("dice", false) => return oracle::region_dice(&x, &truth),
            ("cross_entropy", true) => oracle::cross_entropy(&y, t),
            ("focal", true) => oracle::focal(&y, t),
            ("dice", true) => oracle::soft_dice(&y, t, false),
            ("lovasz", true) => oracle::lovasz_softmax(&y, t, None),
            other => panic!("{other:?}"),
        };
        (value, oracle::merge_backward(&x, &masks, &dy))
    }

    /// Loss and gradient of the shaders.
    fn shaders(&self, gpu: &Gpu, loss: &str) -> (f64, Vec<f64>) {
        let none = LossWeights { cross_entropy: 0.0, ..LossWeights::ce() };
        let (place, weights) = match loss {
            "cross_entropy" => (1, LossWeights::ce()),
            "focal" => (2, LossWeights { focal: 1.0, ..none }),
            "dice" => (3, LossWeights { dice: 1.0, ..none }),
            "lovasz" => (4, LossWeights { lovasz: 1.0, ..none }),
            other => panic!("{other}"),
        };
        let mut rig = Rig::new(gpu, &plans(gpu, 1)[0].1);
        let (x, labels) = (rig.input(&self.logits()), rig.labels(&self.labels));
        let unlabelled = self.partial().then(|| rig.raw("unlabelled", self.masks().concat()));
        let result = if self.regions.is_empty() {
            let merged = unlabelled.map(|words| ops::merge_unlabelled(&mut rig.graph, x, words));
            let merged = merged.map_or(x, Result::unwrap);
            ops::segmentation_loss(&mut rig.graph, merged, labels, weights)
        } else {
            let table = rig.raw("table", self.table());
            let targets = RegionTargets { labels, table, entries: self.regions.len(), unlabelled };
            ops::region_loss(&mut rig.graph, x, targets, weights)
        };
        let result = result.unwrap();
        rig.graph.keep(result);
        let grads = rig.graph.backward(result, result).unwrap();
        let dx = rig.kept_gradient(&grads, x);
        let ran = rig.run();
        (f64::from(ran.words::<f32>(result)[place]), ran.tensor(dx))
    }
}

#[test]
fn oracles_give_the_stored_losses() {
    for case in cases() {
        for (loss, stored) in &case.losses {
            let what = format!("{}, {loss}", case.name);
            let (value, gradient) = case.reference(loss);
            let error = (value - stored.value).abs();
            assert!(error <= 1e-9 * stored.value.abs().max(1e-3), "{what}: {value} {error:.1e}");
            close(&what, &gradient.data, &stored.gradient, 1e-9);
        }
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn shaders_give_the_stored_losses() {
    let gpu = common::gpu();
    for case in cases() {
        for (loss, stored) in &case.losses {
            let what = format!("{}, {loss}", case.name);
            let (value, gradient) = case.shaders(&gpu, loss);
            let error = (value - stored.value).abs();
            assert!(error <= 2e-5 * stored.value.abs().max(1e-2), "{what}: {value} {error:.1e}");
            close(&what, &gradient, &stored.gradient, 2e-4);
        }
    }
}
