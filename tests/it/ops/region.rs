//! Losses of overlapping regions with their gradient to the logits.

use u2seg::low_level::gpu::Gpu;
use u2seg::low_level::ops;
use u2seg::low_level::ops::{LossWeights, RegionTargets};
use u2seg::low_level::oracle;
use u2seg::low_level::oracle::{RegionLabels, Tensor};

use super::harness::*;
use crate::common;

struct Case {
    n: usize,
    regions: usize,
    spatial: [usize; 3],
    /// What the logits are multiplied by.
    scale: f64,
    /// Labels that count; the table has a row for each.
    entries: usize,
    /// Every how manieth voxel is ignored; 0 for none.
    ignored: usize,
    /// Bits of the unlabelled regions of each sample, where the domain is partial.
    unlabelled: Vec<u32>,
}

fn case(n: usize, regions: usize, spatial: [usize; 3]) -> Case {
    Case { n, regions, spatial, scale: 3.0, entries: 5, ignored: 0, unlabelled: Vec::new() }
}

fn cases() -> Vec<Case> {
    vec![
        case(1, 1, [1, 1, 1]),
        case(1, 1, [3, 5, 7]),
        case(2, 3, [4, 5, 6]),
        case(2, 3, [17, 19, 23]),
        Case { ignored: 7, ..case(2, 3, [4, 4, 5]) },
        Case { ignored: 1, ..case(2, 3, [4, 4, 5]) },
        Case { ignored: 5, entries: 9, ..case(1, 7, [4, 5, 7]) },
        Case { scale: 60.0, ..case(2, 5, [3, 4, 5]) },
        Case { entries: 40, ..case(1, 32, [4, 3, 4]) },
        Case { unlabelled: vec![0, 0b010], ignored: 4, ..case(2, 3, [4, 4, 5]) },
        Case { unlabelled: vec![0b11_1000, 0b10_0001, 0b10_0111], ..case(3, 6, [4, 4, 4]) },
        Case { unlabelled: vec![u32::MAX; 2], ..case(2, 2, [2, 4, 4]) },
        Case { unlabelled: vec![0x8000_0001], entries: 33, ..case(1, 32, [4, 4, 4]) },
    ]
}

impl Case {
    fn voxels(&self) -> usize {
        self.spatial.iter().product()
    }

    fn labels(&self) -> Vec<u8> {
        let mut labels = labels(self.n * self.voxels(), self.entries, 8);
        if self.ignored > 0 {
            labels.iter_mut().step_by(self.ignored).for_each(|l| *l = 255);
        }
        labels
    }

    /// Background in no region, the others in some, bit by bit at random.
    fn table(&self) -> Vec<u32> {
        let bits = random(32 * self.entries, 9);
        let word = |bits: &[f64]| {
            let set = |(r, v): (usize, &f64)| u32::from(r < self.regions && *v > 0.0) << r;
            bits.iter().enumerate().map(set).fold(0, |all, bit| all | bit)
        };
        let words = bits.chunks(32).map(word);
        std::iter::once(0).chain(words).take(self.entries).collect()
    }

    fn masks(&self) -> Vec<[u32; 8]> {
        self.unlabelled.iter().map(|bits| [*bits, 0, 0, 0, 0, 0, 0, 0]).collect()
    }
}

fn plans_of(gpu: &Gpu, case: &Case) -> Vec<(&'static str, Way)> {
    plans(gpu, case.voxels() * case.regions.div_ceil(4))
}

/// Weighted losses (total first, then as the result has them) and the gradient of the total.
fn expected(x: &Tensor, truth: &RegionLabels<'_>, w: &LossWeights) -> ([f64; 5], Tensor) {
    let (ce, dce) = oracle::binary_cross_entropy(x, truth);
    let (dice, ddice) = oracle::region_dice(x, truth);
    let (a, b) = (f64::from(w.cross_entropy), f64::from(w.dice));
    let gradient = oracle::add_forward(&dce.map(|v| v * a), &ddice.map(|v| v * b));
    ([a * ce + b * dice, ce, 0.0, dice, 0.0], gradient)
}

fn check(gpu: &Gpu, caps: &Way, case: &Case, w: LossWeights, what: &str) {
    let x =
        tensor(case.n, case.regions, case.spatial, 7).map(|v| f64::from((v * case.scale) as f32));
    let x = as_stored(caps, &x);
    let (labels, table, unlabelled) = (case.labels(), case.table(), case.masks());
    let truth = RegionLabels { labels: &labels, table: &table, unlabelled: &unlabelled };
    let (losses, gradient) = expected(&x, &truth, &w);
    let mut rig = Rig::new(gpu, caps);
    let value = rig.input(&x);
    let partial = !unlabelled.is_empty();
    let targets = RegionTargets {
        labels: rig.labels(&labels),
        table: rig.raw("table", table.clone()),
        entries: table.len(),
        unlabelled: partial.then(|| rig.raw("unlabelled", unlabelled.concat())),
    };
    let loss = ops::region_loss(&mut rig.graph, value, targets, w).unwrap();
    rig.graph.keep(loss);
    let grads = rig.graph.backward(loss, loss).unwrap();
    let dx = rig.kept_gradient(&grads, value);
    let ran = rig.run();
    let found: Vec<f32> = ran.words(loss);
    for (found, expected) in found.iter().zip(losses) {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= 2e-5 * expected.abs().max(1e-2), "{what}: {found} {losses:?}");
    }
    ran.close(&format!("{what} gradient"), &ran.tensor(dx), &gradient.data, 2e-4);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn losses_of_regions_and_their_gradients() {
    let gpu = common::gpu();
    let alone = LossWeights { cross_entropy: 0.0, ..LossWeights::dice_ce() };
    let mixed = LossWeights { cross_entropy: 0.5, dice: 2.0, ..LossWeights::ce() };
    for (index, case) in cases().iter().enumerate() {
        for (plan, caps) in plans_of(&gpu, case) {
            for (mix, w) in [LossWeights::ce(), alone, mixed].into_iter().enumerate() {
                let what = format!("region loss {mix} of case {index} planned for {plan}");
                check(&gpu, &caps, case, w, &what);
            }
        }
    }
}

#[test]
fn losses_that_cannot_train_regions_are_refused() {
    let mut graph = u2seg::low_level::graph::Graph::new();
    let logits = graph.input("logits", u2seg::low_level::graph::Layout::new(1, 3, [4, 4, 4]));
    let targets = RegionTargets {
        labels: graph.input_words("labels", 64),
        table: graph.input_words("table", 4),
        entries: 4,
        unlabelled: None,
    };
    let refused = ops::region_loss(&mut graph, logits, targets, LossWeights::u2net());
    let message = refused.unwrap_err().to_string();
    assert!(message.starts_with("loss: ") && message.contains("dice-ce or ce"), "{message}");
    let short = RegionTargets { entries: 5, ..targets };
    assert!(ops::region_loss(&mut graph, logits, short, LossWeights::ce()).is_err());
}
