//! Sliding-window inference: one domain of a model, and ensembles of models.

use std::borrow::Cow;

use super::clean_up::clean_up;
use super::forward::Forward;
use super::window::{gaussian, linear, positions};
use crate::domain::{DomainPlan, Weighting};
use crate::engine::gpu::Gpu;
use crate::engine::graph::DType;
use crate::imaging::{Prepared, Volume, prepare, resample_cubic, resample_linear};
use crate::net::Model;
use crate::{Error, Result};

/// How a volume is covered.
#[derive(Debug, Clone, PartialEq)]
pub struct Windows {
    /// Step between windows as a share of the patch, above 0 and at most 1.
    pub step: f32,
    /// How much the voxels of a window count; otherwise as the domain's plan says.
    pub weighting: Option<Weighting>,
    /// Axes (0 to 2: D, H, W) along which windows are also mirrored; logits are averaged over all combinations.
    pub mirror: Vec<usize>,
}

impl Default for Windows {
    fn default() -> Self {
        Self { step: 0.5, weighting: None, mirror: Vec::new() }
    }
}

/// A domain's network, ready to segment.
pub struct Predictor {
    domain: DomainPlan,
    forward: Forward,
    weights: Vec<f32>,
    windows: Windows,
}

impl Predictor {
    /// Builds the forward program of a domain and uploads its weights.
    pub fn new(gpu: &Gpu, model: &Model, domain: usize) -> Result<Self> {
        Self::with(gpu, model, domain, Windows::default())
    }

    /// As [`Predictor::new`], with windows of one's own.
    pub fn with(gpu: &Gpu, model: &Model, domain: usize, windows: Windows) -> Result<Self> {
        Self::stored(gpu, (model, domain), windows, DType::F32)
    }

    /// As [`Predictor::with`], with activations stored as `element`.
    pub fn stored(
        gpu: &Gpu,
        (model, domain): (&Model, usize),
        windows: Windows,
        dtype: DType,
    ) -> Result<Self> {
        let plan =
            model.domains.get(domain).ok_or_else(|| Error::Internal("no such domain".into()))?;
        let weights = |name: &str| match model.weights.get(name) {
            Some(tensor) => Ok(Cow::Borrowed(tensor.values.as_slice())),
            None => Err(Error::Internal(format!("the model lacks {name}"))),
        };
        let batch = (1, plan.patch);
        let forward = Forward::stored(gpu, (&model.network, domain), batch, weights, dtype)?;
        let weights = match windows.weighting.unwrap_or(plan.weighting) {
            Weighting::Gaussian => gaussian(plan.extent()),
            Weighting::Linear => linear(plan.extent()),
        };
        Ok(Self { domain: plan.clone(), forward, weights, windows })
    }

    /// The domain's plan.
    pub fn domain(&self) -> &DomainPlan {
        &self.domain
    }

    fn prepare(&self, volume: &Volume) -> Result<Prepared> {
        if volume.channels != self.domain.channels {
            return Err(Error::shape(
                "predict",
                format!(
                    "the image has {} channels, domain {} takes {}",
                    volume.channels, self.domain.name, self.domain.channels
                ),
            ));
        }
        prepare(volume, None, self.domain.spacing, &self.domain.normalisation)
    }

    /// Label values of a volume on its canonical grid, D, H, W, cleaned up as the domain's plan says.
    pub fn segment(&self, volume: &Volume) -> Result<Vec<u8>> {
        let mut labels = self.raw_labels(volume)?;
        finish(&self.domain, &mut labels, volume.shape)?;
        Ok(labels)
    }

    /// Classes of a volume on its canonical grid, D, H, W, without clean-up; label values where there are regions.
    pub fn raw_labels(&self, volume: &Volume) -> Result<Vec<u8>> {
        let case = self.prepare(volume)?;
        let logits = self.logits(&case)?;
        let labels = &self.domain.labels;
        Ok(match labels.regions {
            true => case.restore_regions(&logits, &labels.written()),
            false => case.restore(&logits, labels.outputs()),
        })
    }

    /// Probabilities of all classes, or of each region, on the volume's canonical grid: K, D, H, W. Background is certain beyond
    /// the crop.
    pub fn probabilities(&self, volume: &Volume) -> Result<Vec<f32>> {
        let case = self.prepare(volume)?;
        let logits = self.logits(&case)?;
        let voxels: usize = case.shape.iter().product();
        let regions = self.domain.labels.regions;
        let mut all = Vec::new();
        for (class, map) in logits.chunks(voxels).enumerate() {
            let background = class == 0 && !regions;
            all.extend(case.restore_map(map, if background { 0.0 } else { f32::NEG_INFINITY }));
        }
        match regions {
            true => all.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp())),
            false => softmax(&mut all, self.domain.labels.outputs()),
        }
        Ok(all)
    }

    /// Weighted mean logits (K, D, H, W) of all windows over a prepared case.
    pub fn logits(&self, case: &Prepared) -> Result<Vec<f32>> {
        let classes = self.domain.labels.outputs();
        let patch = self.domain.extent();
        let voxels: usize = case.shape.iter().product();
        let size: usize = patch.iter().product();
        let mut sums = vec![0.0f32; classes * voxels];
        let mut weights = vec![0.0f32; voxels];
        for first in positions(case.shape, patch, self.windows.step) {
            let rows = rows(case.shape, patch, first);
            let mut window = vec![case.outside; case.channels * size];
            for channel in 0..case.channels {
                for row in &rows {
                    let source = &case.image[channel * voxels + row.case..][..row.count];
                    window[channel * size + row.patch..][..row.count].copy_from_slice(source);
                }
            }
            let logits = self.window(&window)?;
            for row in &rows {
                let weight = &self.weights[row.patch..][..row.count];
                for (sum, w) in weights[row.case..][..row.count].iter_mut().zip(weight) {
                    *sum += w;
                }
                for class in 0..classes {
                    let source = &logits[class * size + row.patch..][..row.count];
                    let target = &mut sums[class * voxels + row.case..][..row.count];
                    for ((sum, value), w) in target.iter_mut().zip(source).zip(weight) {
                        *sum += value * w;
                    }
                }
            }
        }
        for class in sums.chunks_mut(voxels) {
            class.iter_mut().zip(&weights).for_each(|(sum, w)| *sum /= w.max(f32::MIN_POSITIVE));
        }
        Ok(sums)
    }

    /// Logits of one window (C, D, H, W) of the domain's extent, resized to what the network sees and back.
    fn window(&self, image: &[f32]) -> Result<Vec<f32>> {
        let DomainPlan { patch, cut, .. } = self.domain;
        let Some(cut) = cut else { return self.mirrored(image) };
        let resize = |maps: &[f32], [from, to]: [[usize; 3]; 2], cubic: bool| -> Vec<f32> {
            let maps = maps.chunks(from.iter().product());
            let each = |map| match cubic {
                true => resample_cubic(map, from, to),
                false => resample_linear(map, from, to),
            };
            maps.flat_map(each).collect()
        };
        let logits = self.mirrored(&resize(image, [cut, patch], true))?;
        Ok(resize(&logits, [patch, cut], false))
    }

    /// Logits of what the network sees (C, D, H, W), averaged over its mirror images.
    fn mirrored(&self, image: &[f32]) -> Result<Vec<f32>> {
        let patch = self.domain.patch;
        let mut mean = self.forward.run(image)?;
        let all = 1usize << self.windows.mirror.len();
        for chosen in 1..all {
            let axes: Vec<usize> = (0..self.windows.mirror.len())
                .filter(|bit| chosen >> bit & 1 == 1)
                .map(|bit| self.windows.mirror[bit])
                .collect();
            let mut mirrored = image.to_vec();
            axes.iter().for_each(|axis| mirror(&mut mirrored, patch, *axis));
            let mut logits = self.forward.run(&mirrored)?;
            axes.iter().for_each(|axis| mirror(&mut logits, patch, *axis));
            mean.iter_mut().zip(logits).for_each(|(sum, value)| *sum += value);
        }
        mean.iter_mut().for_each(|value| *value /= all as f32);
        Ok(mean)
    }
}

/// Several networks for the same images, such as those of the folds; they may differ in spacing and patch.
pub struct Ensemble {
    members: Vec<Predictor>,
}

impl Ensemble {
    /// At least one network; all with the same classes and channels.
    pub fn new(members: Vec<Predictor>) -> Result<Self> {
        let Some(first) = members.first().map(Predictor::domain) else {
            return Err(Error::Internal("an ensemble of no networks".into()));
        };
        let same = |d: &DomainPlan| {
            let (a, b) = (&d.labels, &first.labels);
            (a.regions, &a.classes) == (b.regions, &b.classes) && d.channels == first.channels
        };
        if let Some(other) = members.iter().map(Predictor::domain).find(|d| !same(d)) {
            return Err(Error::setting(
                "model",
                format!("labels {} and {}", first.labels.described(), other.labels.described()),
                "models with the same channels and classes",
                "Leave one out.",
            ));
        }
        Ok(Self { members })
    }

    /// Mean probabilities of all classes on the volume's canonical grid: K, D, H, W.
    pub fn probabilities(&self, volume: &Volume) -> Result<Vec<f32>> {
        let mut members = self.members.iter();
        let mut sum = match members.next() {
            Some(first) => first.probabilities(volume)?,
            None => return Err(Error::Internal("an ensemble of no networks".into())),
        };
        for member in members {
            let more = member.probabilities(volume)?;
            sum.iter_mut().zip(more).for_each(|(sum, value)| *sum += value);
        }
        let share = 1.0 / self.members.len() as f32;
        sum.iter_mut().for_each(|value| *value *= share);
        Ok(sum)
    }

    /// The value of the likeliest class of each voxel, D, H, W, cleaned up as the first network's plan says; of regions that of
    /// the last one that is likelier than not.
    pub fn labels(&self, probabilities: &[f32], shape: [usize; 3]) -> Result<Vec<u8>> {
        let voxels: usize = shape.iter().product();
        let domain = &self.members[0].domain;
        let mut labels = vec![0u8; voxels];
        if domain.labels.regions {
            for (value, map) in domain.labels.written().iter().zip(probabilities.chunks(voxels)) {
                let inside = labels.iter_mut().zip(map).filter(|(_, p)| **p > 0.5);
                inside.for_each(|(label, _)| *label = *value);
            }
            return Ok(labels);
        }
        for (voxel, label) in labels.iter_mut().enumerate() {
            let mut best = f32::NEG_INFINITY;
            for (class, map) in probabilities.chunks(voxels).enumerate() {
                if map[voxel] > best {
                    (best, *label) = (map[voxel], class as u8);
                }
            }
        }
        finish(domain, &mut labels, shape)?;
        Ok(labels)
    }

    /// Label values of a volume on its canonical grid, D, H, W.
    pub fn segment(&self, volume: &Volume) -> Result<Vec<u8>> {
        match self.members.as_slice() {
            // without averaging, logits need not be stored on the volume's own grid
            [one] => one.segment(volume),
            _ => self.labels(&self.probabilities(volume)?, volume.shape),
        }
    }
}

/// Cleans classes up as a plan says and turns them into label values; those of regions are theirs already.
pub fn finish(domain: &DomainPlan, classes: &mut [u8], shape: [usize; 3]) -> Result<()> {
    if !domain.labels.regions {
        clean_up(classes, shape, &domain.clean_up)?;
        domain.labels.decode(classes);
    }
    Ok(())
}

/// Softmax over K of values K, V in place.
fn softmax(values: &mut [f32], classes: usize) {
    let voxels = values.len() / classes;
    for voxel in 0..voxels {
        let at = |class: usize| class * voxels + voxel;
        let largest = (0..classes).map(|k| values[at(k)]).fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for k in 0..classes {
            values[at(k)] = (values[at(k)] - largest).exp();
            sum += values[at(k)];
        }
        (0..classes).for_each(|k| values[at(k)] /= sum);
    }
}

/// Mirrors maps of a window's size (any number of them) along an axis, in place.
fn mirror(maps: &mut [f32], size: [usize; 3], axis: usize) {
    let inner: usize = size[axis + 1..].iter().product();
    for chunk in maps.chunks_mut(size[axis] * inner) {
        chunk.reverse();
        chunk.chunks_mut(inner).for_each(<[f32]>::reverse);
    }
}

/// A run of voxels along W that window and case share.
struct Row {
    case: usize,
    patch: usize,
    count: usize,
}

/// Where a case is smaller than the window it sits in the middle of it.
fn rows(shape: [usize; 3], patch: [usize; 3], first: [usize; 3]) -> Vec<Row> {
    let inset = [0, 1, 2].map(|axis| patch[axis].saturating_sub(shape[axis]) / 2);
    let count = [0, 1, 2].map(|axis| patch[axis].min(shape[axis]));
    let mut rows = Vec::new();
    for z in 0..count[0] {
        for y in 0..count[1] {
            rows.push(Row {
                case: ((first[0] + z) * shape[1] + first[1] + y) * shape[2] + first[2],
                patch: ((inset[0] + z) * patch[1] + inset[1] + y) * patch[2] + inset[2],
                count: count[2],
            });
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirroring_twice_changes_nothing_and_once_reverses_the_axis() {
        let size = [2, 3, 4];
        let maps: Vec<f32> = (0..48).map(|i| i as f32).collect();
        for axis in 0..3 {
            let mut once = maps.clone();
            mirror(&mut once, size, axis);
            let last = [12, 8, 3][axis];
            assert_eq!((once[0], once[24]), (last as f32, (24 + last) as f32));
            mirror(&mut once, size, axis);
            assert_eq!(once, maps);
        }
    }

    #[test]
    fn impossible_classes_have_no_probability() {
        let mut values = vec![0.0, 1.0, f32::NEG_INFINITY, 1.0];
        softmax(&mut values, 2);
        assert_eq!(values, [1.0, 0.5, 0.0, 0.5]);
    }
}
