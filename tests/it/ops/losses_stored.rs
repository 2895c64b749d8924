//! Holds oracles and shaders to the numbers of tests/data/losses.json, which tests/data/make_losses.py beside it writes with
//! formulas of its own.

use std::collections::BTreeMap;

use u2seg::Result;
use u2seg::low_level::check::{GraphCase, Net, Purpose, Rig, Tolerance, Truth, plannings};
use u2seg::low_level::exec::caps;
use u2seg::low_level::gpu::Gpu;
use u2seg::low_level::graph::DType;
use u2seg::low_level::ops;
use u2seg::low_level::ops::{LossWeights, RegionTargets};
use u2seg::low_level::oracle;
use u2seg::low_level::oracle::{RegionLabels, Tensor};
use u2seg::low_level::shape::Shape;

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
        self.unlabelled.iter().map(|classes| ops::class_bits(classes.iter().copied())).collect()
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
}

/// A case with one of its losses, whose oracle are the stored numbers.
struct StoredLoss<'a> {
    case: &'a Case,
    loss: &'a str,
    stored: &'a Stored,
}

impl GraphCase for StoredLoss<'_> {
    fn name(&self) -> String {
        format!("{}, {}", self.case.name, self.loss)
    }

    fn vectors(&self) -> usize {
        1
    }

    fn build(&self, net: &mut Net) -> Result<()> {
        let none = LossWeights { cross_entropy: 0.0, ..LossWeights::ce() };
        let weights = match self.loss {
            "cross_entropy" => LossWeights::ce(),
            "focal" => LossWeights { focal: 1.0, ..none },
            "dice" => LossWeights { dice: 1.0, ..none },
            "lovasz" => LossWeights { lovasz: 1.0, ..none },
            other => panic!("{other}"),
        };
        let terms = weights.losses(&[0.0; LossWeights::WORDS]).terms;
        let place = 1 + terms.iter().position(|term| term.name == self.loss).unwrap();
        let case = self.case;
        let x = net.input("logits", case.logits().shape);
        let labels = net.words("labels", case.labels.len());
        let words = case.masks().concat().len();
        let unlabelled = case.partial().then(|| net.words("unlabelled", words));
        let result = if case.regions.is_empty() {
            let merged = match unlabelled {
                Some(words) => ops::merge_unlabelled(&mut net.graph, x, words)?,
                None => x,
            };
            ops::segmentation_loss(&mut net.graph, merged, labels, weights)?
        } else {
            let (table, entries) = (net.words("table", case.regions.len()), case.regions.len());
            let targets = RegionTargets { labels, table, entries, unlabelled };
            ops::region_loss(&mut net.graph, x, targets, weights)?
        };
        net.differentiate_loss(result)?;
        net.float("the loss", result, place);
        Ok(())
    }

    fn truth(&self, dtype: DType) -> Result<Truth> {
        let mut truth = Truth::new(dtype);
        truth.input("logits", &self.case.logits());
        truth.labels("labels", &self.case.labels);
        truth.words("unlabelled", self.case.masks().concat());
        truth.words("table", self.case.table());
        let share = Tolerance::OfEach { share: 2e-5, floor: 1e-2 };
        truth.expect("the loss", &[self.stored.value], share);
        truth.expect_gradient("logits", &self.stored.gradient, Tolerance::OfLargest(2e-4));
        Ok(truth)
    }
}

/// Fails where a value is off by more than `tolerance` of the largest expected one.
fn close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: count");
    let scale = expected.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let error = (f - e).abs() / scale;
        assert!(error <= tolerance, "{what}[{i}]: found {f}, expected {e} ({error:.1e})");
    }
}

/// Runs a case planned as for a GPU.
fn check(gpu: &Gpu, case: &StoredLoss<'_>) {
    let planning = &plannings(&caps(gpu), case.vectors())[0];
    let build = |net: &mut Net| case.build(net);
    let rig = Rig::new(gpu, &planning.caps, planning.dtype, Purpose::Training, build).unwrap();
    let ran = rig.run(gpu, &case.truth(DType::F32).unwrap()).unwrap();
    assert_eq!(ran.compared.len(), 2);
    for compared in ran.compared {
        assert!(compared.share() <= 1.0, "{}: {compared:?}", case.name());
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
            check(&gpu, &StoredLoss { case: &case, loss, stored });
        }
    }
}
