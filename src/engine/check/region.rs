//! Losses of overlapping regions with their gradient to the logits.

use super::case::{Case, GraphCase};
use super::loss::{Expectation, GRADIENT, TOTAL, mixture, output_losses};
use super::net::{Net, Truth, as_stored, labels, random, tensor};
use crate::base::Result;
use crate::engine::graph::DType;
use crate::engine::ops;
use crate::engine::ops::{LossWeights, RegionTargets};
use crate::engine::oracle;
use crate::engine::oracle::{RegionLabels, Tensor};
use crate::engine::shape::Shape;

/// Logits, labels and what the labels mean.
#[derive(Clone)]
struct Regions {
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

fn regions(n: usize, regions: usize, spatial: [usize; 3]) -> Regions {
    let unlabelled = Vec::new();
    Regions { n, regions, spatial, scale: 3.0, entries: 5, ignored: 0, unlabelled }
}

impl Regions {
    fn name(&self) -> String {
        let Self { n, regions, spatial: [d, h, w], entries, .. } = self;
        let mut name = format!("{n}x{regions}x{d}x{h}x{w} of {entries} labels");
        if self.scale != 3.0 {
            name += &format!(" times {}", self.scale);
        }
        if self.ignored > 0 {
            name += &format!(", each {}th ignored", self.ignored);
        }
        if !self.unlabelled.is_empty() {
            name += &format!(", unlabelled {:x?}", self.unlabelled);
        }
        name
    }

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

struct RegionCase {
    regions: Regions,
    weights: LossWeights,
}

/// Weighted losses as the result has them and the gradient of their sum.
fn losses(x: &Tensor, labels: &RegionLabels<'_>, w: &LossWeights) -> Expectation {
    let (ce, dce) = oracle::binary_cross_entropy(x, labels);
    let (dice, ddice) = oracle::region_dice(x, labels);
    let (a, b) = (f64::from(w.cross_entropy), f64::from(w.dice));
    let gradient = oracle::add_forward(&dce.map(|v| v * a), &ddice.map(|v| v * b));
    let total = a * ce + b * dice;
    let values = vec![
        (TOTAL, total),
        ("cross_entropy", ce),
        ("focal", 0.0),
        ("dice", dice),
        ("lovasz", 0.0),
    ];
    Expectation { values, gradient }
}

impl GraphCase for RegionCase {
    fn name(&self) -> String {
        format!("{} of regions, {}", mixture(&self.weights), self.regions.name())
    }

    fn vectors(&self) -> usize {
        self.regions.voxels() * self.regions.regions.div_ceil(4)
    }

    fn build(&self, net: &mut Net) -> Result<()> {
        let Regions { n, regions, spatial, entries, .. } = self.regions;
        let x = net.input("logits", Shape::new(n, regions, spatial)?);
        let labels = net.words("labels", n * self.regions.voxels());
        let table = net.words("table", entries);
        let masks = self.regions.masks();
        let partial = !masks.is_empty();
        let unlabelled = partial.then(|| net.words("unlabelled", masks.concat().len()));
        let targets = RegionTargets { labels, table, entries, unlabelled };
        let loss = ops::region_loss(&mut net.graph, x, targets, self.weights)?;
        net.differentiate_loss(loss)?;
        output_losses(net, loss, &self.weights);
        Ok(())
    }

    fn truth(&self, dtype: DType) -> Result<Truth> {
        let Regions { n, regions, spatial, scale, .. } = self.regions;
        let x = tensor(n, regions, spatial, 7)?.map(|v| f64::from((v * scale) as f32));
        let x = as_stored(dtype, &x);
        let (labels, table) = (self.regions.labels(), self.regions.table());
        let unlabelled = self.regions.masks();
        let known = RegionLabels { labels: &labels, table: &table, unlabelled: &unlabelled };
        let losses = losses(&x, &known, &self.weights);
        let mut truth = Truth::new(dtype);
        truth.input("logits", &x);
        truth.labels("labels", &labels);
        truth.words("table", table);
        truth.words("unlabelled", unlabelled.concat());
        losses.expect(&mut truth);
        truth.expect_gradient("logits", &losses.gradient.data, GRADIENT);
        Ok(truth)
    }
}

fn all_regions() -> Vec<Regions> {
    vec![
        regions(1, 1, [1, 1, 1]),
        regions(1, 1, [3, 5, 7]),
        regions(2, 3, [4, 5, 6]),
        regions(2, 3, [17, 19, 23]),
        Regions { ignored: 7, ..regions(2, 3, [4, 4, 5]) },
        Regions { ignored: 1, ..regions(2, 3, [4, 4, 5]) },
        Regions { ignored: 5, entries: 9, ..regions(1, 7, [4, 5, 7]) },
        Regions { scale: 60.0, ..regions(2, 5, [3, 4, 5]) },
        Regions { entries: 40, ..regions(1, 32, [4, 3, 4]) },
        Regions { unlabelled: vec![0, 0b010], ignored: 4, ..regions(2, 3, [4, 4, 5]) },
        Regions { unlabelled: vec![0b11_1000, 0b10_0001, 0b10_0111], ..regions(3, 6, [4, 4, 4]) },
        Regions { unlabelled: vec![u32::MAX; 2], ..regions(2, 2, [2, 4, 4]) },
        Regions { unlabelled: vec![0x8000_0001], entries: 33, ..regions(1, 32, [4, 4, 4]) },
    ]
}

fn row(regions: Regions, weights: LossWeights) -> Case {
    Case::Graph(Box::new(RegionCase { regions, weights }))
}

pub fn cases() -> Vec<Case> {
    let alone = LossWeights { cross_entropy: 0.0, ..LossWeights::dice_ce() };
    let mixed = LossWeights { cross_entropy: 0.5, dice: 2.0, ..LossWeights::ce() };
    let weights = [LossWeights::ce(), alone, mixed];
    let each = |regions: Regions| weights.map(|w| row(regions.clone(), w));
    let mut cases: Vec<Case> = all_regions().into_iter().flat_map(each).collect();
    for plain in [regions(2, 3, [9, 11, 23]), regions(2, 9, [5, 3, 4])] {
        let lacking = Regions { unlabelled: vec![0, 1], ignored: 11, entries: 8, ..plain };
        cases.push(row(lacking, LossWeights::dice_ce()));
    }
    cases
}

/// A shape of the network, to be timed.
pub fn timed() -> Vec<Case> {
    vec![row(regions(2, 3, [40, 56, 40]), LossWeights::dice_ce())]
}
