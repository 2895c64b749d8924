//! What a run scores while it trains: patches of held-out cases, the same ones each time, and their pseudo-Dice.

use rayon::prelude::*;

use super::cases::DomainCases;
use super::config::RunConfig;
use super::session::Session;
use crate::base::{Error, Result};
use crate::engine::shape::LANES;
use crate::imaging::IGNORED;
use crate::patch;
use crate::patch::{Augment, Draw, Focus, PatchSize, Patches, Sample, Source, Target};

/// Bytes of logits that are read back at a time.
const READ_BACK: usize = 16 << 20;
/// Voxels that a thread counts at a time.
const RUN: usize = 1 << 14;

/// Voxels of a class over some patches: found and true, found alone, true alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    both: u64,
    found: u64,
    truth: u64,
}

impl Counts {
    fn add(&mut self, found: bool, truth: bool) {
        self.both += u64::from(found && truth);
        self.found += u64::from(found && !truth);
        self.truth += u64::from(!found && truth);
    }

    /// None where the class is nowhere, neither found nor true.
    fn dice(&self) -> Option<f64> {
        let all = 2 * self.both + self.found + self.truth;
        (all > 0).then(|| 2.0 * self.both as f64 / all as f64)
    }
}

fn sum(mut a: Vec<Counts>, b: Vec<Counts>) -> Vec<Counts> {
    for (a, b) in a.iter_mut().zip(b) {
        *a = Counts { both: a.both + b.both, found: a.found + b.found, truth: a.truth + b.truth };
    }
    a
}

/// The pseudo-Dice of a domain: of its held-out patches as if they were one image, as nnU-Net has it.
#[derive(Debug, Clone, PartialEq)]
pub struct PatchScores {
    /// Name of the domain.
    pub domain: String,
    /// Name and pseudo-Dice of every class but background, or every region; none of one that is in no patch, nor found in any.
    pub dice: Vec<(String, Option<f64>)>,
    /// The mean over those that have one; none where none has.
    pub mean: Option<f64>,
    /// The mean smoothed over the validations so far.
    pub smoothed: Option<f64>,
}

/// The held-out patches of a domain.
pub(super) struct HeldOut {
    domain: usize,
    size: PatchSize,
    /// Case and draw of each, as many as whole batches hold.
    drawn: Vec<(usize, Draw)>,
    batch: usize,
}

/// What the outputs of a domain's network stand for.
struct Outputs {
    /// Bits of the regions of each label index; empty where there are classes.
    regions: Vec<u32>,
    /// Outputs of the network.
    count: usize,
}

impl Outputs {
    /// Adds a voxel to the counts of the outputs, but for those that its case does not label.
    fn count(
        &self,
        counts: &mut [Counts],
        logits: impl Fn(usize) -> f32 + Copy,
        label: u32,
        lacks: &[u32; 8],
    ) {
        if label == u32::from(IGNORED) {
            return;
        }
        let labelled = |k: usize| lacks[k / 32] >> (k % 32) & 1 == 0;
        if !self.regions.is_empty() {
            let truth = self.regions.get(label as usize).copied().unwrap_or(0);
            for k in (0..self.count).filter(|k| labelled(*k)) {
                counts[k].add(logits(k) > 0.0, truth >> k & 1 == 1);
            }
            return;
        }
        // the lowest class of equals, as masks have it
        let larger = |best: usize, k: usize| if logits(k) > logits(best) { k } else { best };
        let (found, truth) = ((1..self.count).fold(0, larger), label as usize);
        let counted = |k: usize| (1..self.count).contains(&k) && labelled(k);
        if counted(found) {
            counts[found].add(true, found == truth);
        }
        if counted(truth) && found != truth {
            counts[truth].add(false, true);
        }
    }
}

/// The patches of a domain's held-out cases that `config` asks for; none where nothing is held out. Each case has one about as
/// often as any other, and every second patch is centred on foreground.
pub(super) fn draw(
    config: &RunConfig,
    domain: usize,
    cases: &DomainCases,
) -> Result<Option<HeldOut>> {
    let (Some(validation), false) = (&config.validation, cases.scored.is_empty()) else {
        return Ok(None);
    };
    let (batch, source) = (cases.domain.batch, cases.scored_source());
    let augment = Augment { interpolation: config.augment.interpolation, ..Augment::none() };
    let one = |index: usize| {
        let case = index % source.cases.len();
        let focus = if index.is_multiple_of(2) { Focus::Foreground } else { Focus::Anywhere };
        let mut rng = patch::rng_for(config.seed, u64::MAX, index as u64);
        let drawn = patch::draw_patch(source.cases[case], &source.size, focus, &augment, &mut rng)?;
        Ok((case, drawn))
    };
    let count = validation.patches.next_multiple_of(batch);
    let drawn = (0..count).map(one).collect::<Result<_>>()?;
    Ok(Some(HeldOut { domain, size: source.size, drawn, batch }))
}

/// What scoring patches takes of a training.
pub(super) struct Scoring<'a> {
    pub session: &'a mut Session,
    pub patches: &'a mut Patches,
    pub cases: &'a DomainCases,
}

impl HeldOut {
    /// Index of the domain.
    pub fn domain(&self) -> usize {
        self.domain
    }

    /// Batches of them.
    pub fn batches(&self) -> usize {
        self.drawn.len() / self.batch
    }

    /// Scores them with the weights as they are.
    pub fn score(&self, with: &mut Scoring<'_>) -> Result<PatchScores> {
        let labels = &with.cases.domain.labels;
        let outputs = Outputs { regions: labels.region_bits(), count: labels.outputs() };
        let mut counts = vec![Counts::default(); outputs.count];
        let source = with.cases.scored_source();
        for drawn in self.drawn.chunks(self.batch) {
            let samples = Sample::boxed(self.domain, &source, drawn.to_vec())?;
            self.run(with, &source, &samples)?;
            for (at, (case, _)) in drawn.iter().enumerate() {
                let lacks = &with.cases.scored_unlabelled[*case];
                counts = sum(counts, self.counts(with.session, &outputs, at, lacks)?);
            }
        }
        let first = outputs.count - labels.scored().len();
        let each = labels.scored().iter().zip(&counts[first..]);
        let dice: Vec<_> = each.map(|(class, c)| (class.name.clone(), c.dice())).collect();
        let known: Vec<f64> = dice.iter().filter_map(|(_, dice)| *dice).collect();
        let mean = (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64);
        Ok(PatchScores { domain: with.cases.domain.name.clone(), dice, mean, smoothed: None })
    }

    /// Runs the network on a batch.
    fn run(&self, with: &mut Scoring<'_>, source: &Source<'_>, samples: &[Sample]) -> Result<()> {
        let [image, labels] = with.session.inputs(self.domain)?;
        let target = Target { image, labels };
        for (at, sample) in samples.iter().enumerate() {
            with.patches.make(source, sample, at, &target)?;
        }
        with.session.forward(self.domain)
    }

    /// The counts of a patch of the batch that ran last.
    fn counts(
        &self,
        session: &Session,
        outputs: &Outputs,
        at: usize,
        lacks: &[u32; 8],
    ) -> Result<Vec<Counts>> {
        let layout = session.logits_layout(self.domain);
        let (voxels, blocks) = (layout.voxels(), layout.blocks());
        if layout.channels() != outputs.count || self.size.patch.iter().product::<usize>() != voxels
        {
            return Err(Error::Internal(format!("logits {layout} of {:?}", self.size)));
        }
        let step = (READ_BACK / (4 * LANES * blocks)).max(1);
        let mut counts = vec![Counts::default(); outputs.count];
        for from in (0..voxels).step_by(step) {
            let run = (from + step).min(voxels) - from;
            let read = |block: usize| {
                let first = ((at * blocks + block) * voxels + from) * LANES;
                session.packed_logits(self.domain, first..first + run * LANES)
            };
            let logits = (0..blocks).map(read).collect::<Result<Vec<_>>>()?;
            let first = at * voxels + from;
            let labels = session.labels(self.domain, first..first + run)?;
            counts = sum(counts, outputs.count_all(&logits, &labels, lacks));
        }
        Ok(counts)
    }
}

impl Outputs {
    /// The counts of some voxels: logits by block of four outputs, voxel and lane.
    fn count_all(&self, logits: &[Vec<f32>], labels: &[u32], lacks: &[u32; 8]) -> Vec<Counts> {
        let none = || vec![Counts::default(); self.count];
        let each = |(run, labels): (usize, &[u32])| {
            let mut counts = none();
            for (index, label) in labels.iter().enumerate() {
                let voxel = run * RUN + index;
                let logit = |k: usize| logits[k / LANES][voxel * LANES + k % LANES];
                self.count(&mut counts, logit, *label, lacks);
            }
            counts
        };
        labels.par_chunks(RUN).enumerate().map(each).reduce(none, sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(outputs: &Outputs, voxels: &[(&[f32], u32)], lacks: [u32; 8]) -> Vec<Counts> {
        let blocks = outputs.count.div_ceil(LANES);
        let block = |b: usize| {
            let lane = |(logits, _): &(&[f32], u32)| {
                [0, 1, 2, 3].map(|lane| logits.get(b * LANES + lane).copied().unwrap_or(0.0))
            };
            voxels.iter().flat_map(lane).collect::<Vec<f32>>()
        };
        let logits: Vec<_> = (0..blocks).map(block).collect();
        let labels: Vec<u32> = voxels.iter().map(|(_, label)| *label).collect();
        outputs.count_all(&logits, &labels, &lacks)
    }

    fn of(both: u64, found: u64, truth: u64) -> Counts {
        Counts { both, found, truth }
    }

    #[test]
    fn classes_are_counted_over_all_patches_and_what_is_ignored_is_not() {
        let outputs = Outputs { regions: Vec::new(), count: 6 };
        let is = |k: usize| {
            let mut logits = [0.0; 6];
            logits[k] = 1.0;
            logits
        };
        let (a, b, f) = (is(1), is(5), is(0));
        let voxels: [(&[f32], u32); 7] =
            [(&a, 1), (&a, 1), (&a, 5), (&b, 5), (&f, 5), (&b, 0), (&b, 255)];
        let found = counts(&outputs, &voxels, [0; 8]);
        assert_eq!((found[1], found[5]), (of(2, 1, 0), of(1, 1, 2)));
        assert_eq!(found[2], Counts::default());
        assert_eq!((found[1].dice(), found[2].dice()), (Some(4.0 / 5.0), None));
        // what a case does not label is neither right nor wrong there
        let mut lacks = [0; 8];
        lacks[0] = 1 << 5;
        let found = counts(&outputs, &voxels, lacks);
        assert_eq!((found[1], found[5]), (of(2, 1, 0), Counts::default()));
        // of equals the lowest, as in masks
        let even: [(&[f32], u32); 1] = [(&[0.5; 6], 3)];
        assert_eq!(counts(&outputs, &even, [0; 8])[3], of(0, 0, 1));
    }

    #[test]
    fn regions_overlap() {
        // index 1 is in the first region, index 2 in both
        let outputs = Outputs { regions: vec![0, 1, 3], count: 2 };
        let voxels: [(&[f32], u32); 4] =
            [(&[1.0, 1.0], 2), (&[1.0, -1.0], 2), (&[-1.0, 1.0], 1), (&[1.0, 1.0], 0)];
        let found = counts(&outputs, &voxels, [0; 8]);
        assert_eq!(found, [of(2, 1, 1), of(1, 2, 1)]);
    }
}
