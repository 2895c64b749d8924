//! What the labels of a domain mean to its loss, and what the loss reads beside them.

use crate::base::{Error, Result};
use crate::engine::exec::Program;
use crate::engine::gpu::Gpu;
use crate::engine::graph::{Graph, Value};
use crate::engine::ops;
use crate::engine::ops::{LossWeights, RegionTargets};

/// What the labels of a domain are. By default classes, all of them labelled in every case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// Bits of the regions that each label index belongs to; empty where labels are classes.
    pub regions: Vec<u32>,
    /// Whether some cases lack the labels of some classes or regions.
    pub partial: bool,
}

/// What a domain's step is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainBatch {
    /// Patches.
    pub samples: usize,
    /// Voxels of a patch, D, H, W.
    pub patch: [usize; 3],
    /// What their labels mean.
    pub targets: Targets,
}

impl DomainBatch {
    /// A batch of classes that are all labelled.
    pub fn new(samples: usize, patch: [usize; 3]) -> Self {
        Self { samples, patch, targets: Targets::default() }
    }
}

/// What a domain's loss is made of.
pub(super) struct LossInputs {
    /// N, classes or regions, D, H, W.
    pub logits: Value,
    /// N, D, H, W, a word each.
    pub labels: Value,
    pub weights: LossWeights,
}

/// The loss of a domain as its graph has it.
pub(super) struct Loss {
    /// Total and single losses.
    pub result: Value,
    pub given: Given,
}

/// Words of the classes or regions that a sample does not label.
const MASK_WORDS: usize = 8;

/// What the loss reads beside image and labels. Domains share memory, so that it is written before every run.
#[derive(Default)]
pub(super) struct Given {
    table: Option<(Value, Vec<u32>)>,
    unlabelled: Option<Unlabelled>,
}

struct Unlabelled {
    value: Value,
    outputs: usize,
    /// Class 0 is background, which every case labels.
    background: bool,
    words: Vec<u32>,
}

impl Targets {
    /// Appends the loss of the logits of some samples.
    pub(super) fn loss(
        &self,
        graph: &mut Graph,
        LossInputs { logits, labels, weights }: LossInputs,
    ) -> Result<Loss> {
        let layout = graph.layout(logits)?;
        let (samples, outputs) = (layout.n, layout.channels());
        let mut given = Given::default();
        let unlabelled =
            self.partial.then(|| graph.input_words("unlabelled", MASK_WORDS * samples));
        given.unlabelled = unlabelled.map(|value| Unlabelled {
            value,
            outputs,
            background: self.regions.is_empty(),
            words: vec![0; MASK_WORDS * samples],
        });
        if !self.regions.is_empty() {
            self.check_regions(outputs)?;
            let (table, entries) =
                (graph.input_words("regions", self.regions.len()), self.regions.len());
            given.table = Some((table, self.regions.clone()));
            let targets = RegionTargets { labels, table, entries, unlabelled };
            let result = ops::region_loss(graph, logits, targets, weights)?;
            return Ok(Loss { result, given });
        }
        if outputs < 2 {
            return Err(Error::shape("loss", "one class: at least 2 are needed, or regions"));
        }
        let merged = unlabelled.map(|words| ops::merge_unlabelled(graph, logits, words));
        let logits = merged.transpose()?.unwrap_or(logits);
        let result = ops::segmentation_loss(graph, logits, labels, weights)?;
        Ok(Loss { result, given })
    }

    fn check_regions(&self, outputs: usize) -> Result<()> {
        let most = ops::MAX_REGIONS;
        let bits = self.regions.iter().fold(0, |all, bits| all | bits);
        if outputs > most || u64::from(bits) >> outputs != 0 {
            return Err(Error::shape(
                "regions",
                format!("bits {bits:#b} for {outputs} regions; at most {most}, a bit each"),
            ));
        }
        Ok(())
    }
}

impl Given {
    /// Writes what the next run reads.
    pub fn write(&self, gpu: &Gpu, program: &Program) -> Result<()> {
        if let Some((value, words)) = &self.table {
            program.write(gpu, *value, words)?;
        }
        if let Some(unlabelled) = &self.unlabelled {
            program.write(gpu, unlabelled.value, &unlabelled.words)?;
        }
        Ok(())
    }

    /// Sets which classes or regions each sample does not label, from the next run on.
    pub fn set_unlabelled(&mut self, samples: &[[u32; MASK_WORDS]]) -> Result<()> {
        let unlabelled = self.unlabelled.as_mut().ok_or_else(|| {
            Error::Internal("unlabelled classes of a domain whose cases label all".into())
        })?;
        let beyond = |k: usize| k >= unlabelled.outputs || k == 0 && unlabelled.background;
        let bad = (0..32 * MASK_WORDS)
            .filter(|k| beyond(*k))
            .find(|k| samples.iter().any(|mask| mask[k / 32] >> (k % 32) & 1 == 1));
        if let Some(k) = bad {
            return Err(Error::shape(
                "unlabelled",
                format!(
                    "number {k} of {} outputs, of which background is labelled",
                    unlabelled.outputs
                ),
            ));
        }
        let words = &mut unlabelled.words;
        if samples.len() * MASK_WORDS != words.len() {
            return Err(Error::shape(
                "unlabelled",
                format!("{} samples where {} belong", samples.len(), words.len() / MASK_WORDS),
            ));
        }
        *words = samples.concat();
        Ok(())
    }
}
