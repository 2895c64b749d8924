//! Sliding-window inference: one domain of a model, and ensembles of models.

use std::borrow::Cow;

use ndarray::{Array4, ArrayViewMut1, Axis};

use super::clean_up::clean_up;
use super::forward::{Forward, ForwardSpec};
use super::window::{gaussian, linear, positions};
use crate::base::{Error, Result};
use crate::domain::{DomainPlan, Weighting};
use crate::engine::gpu::Gpu;
use crate::engine::graph::DType;
use crate::engine::plan::Workload;
use crate::imaging::{
    Grid, LabelMap, Prepared, Volume, prepare, resample_cubic, resample_linear, row_major,
};
use crate::net::Model;

/// How volumes are segmented.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PredictOptions {
    /// Step between windows as a share of the patch, above 0 and at most 1.
    pub step_size: f32,
    /// How much the voxels of a window count; otherwise as the domain's plan says.
    pub weighting: Option<Weighting>,
    /// Axes D, H, W along which windows are also mirrored; logits are averaged over all combinations.
    pub mirror: [bool; 3],
    /// How activations are stored.
    pub dtype: DType,
}

impl Default for PredictOptions {
    fn default() -> Self {
        Self { step_size: 0.5, weighting: None, mirror: [false; 3], dtype: DType::F32 }
    }
}

impl PredictOptions {
    /// Refuses a step that leaves voxels out.
    ///
    /// # Errors
    ///
    /// Where the step is not above 0 and at most 1.
    pub fn check(&self) -> Result<()> {
        if self.step_size > 0.0 && self.step_size <= 1.0 {
            return Ok(());
        }
        let found = self.step_size.to_string();
        Err(Error::setting("step_size", found, "above 0 and at most 1", "0.5 is usual."))
    }
}

/// A domain's network, ready to segment.
pub struct Predictor {
    domain: DomainPlan,
    forward: Forward,
    /// How much each voxel of a window counts.
    weights: Vec<f32>,
    options: PredictOptions,
}

impl Predictor {
    /// Builds the forward program of a domain of the model, by its position, and uploads its weights.
    ///
    /// # Errors
    ///
    /// Where the model has no such domain or lacks weights, the options cannot be used, or the GPU fails.
    pub fn new(gpu: &Gpu, model: &Model, domain: usize, options: &PredictOptions) -> Result<Self> {
        options.check()?;
        let weights = |name: &str| match model.weights.get(name) {
            Some(tensor) => Ok(Cow::Borrowed(tensor.values.as_slice())),
            None => Err(Error::Internal(format!("the model lacks {name}"))),
        };
        let plan = plan(model, domain)?;
        let forward = Forward::new(gpu, &spec(model, domain, options)?, weights)?;
        let weights = match options.weighting.unwrap_or(plan.weighting) {
            Weighting::Gaussian => gaussian(plan.crop_size()),
            Weighting::Linear => linear(plan.crop_size()),
        };
        Ok(Self { domain: plan.clone(), forward, weights, options: options.clone() })
    }

    /// What the forward program that [`Predictor::new`] builds runs: what is tuned.
    ///
    /// # Errors
    ///
    /// Where the model has no such domain.
    pub fn workload(model: &Model, domain: usize, options: &PredictOptions) -> Result<Workload> {
        spec(model, domain, options)?.workload()
    }

    /// The domain's plan.
    pub fn domain(&self) -> &DomainPlan {
        &self.domain
    }

    fn prepare(&self, volume: &Volume) -> Result<Prepared> {
        let channels = volume.channels().len();
        if channels != self.domain.channels {
            return Err(Error::shape(
                "predict",
                format!(
                    "the image has {channels} channels, domain {} takes {}",
                    self.domain.name, self.domain.channels
                ),
            ));
        }
        prepare(
            volume,
            None,
            self.domain.spacing,
            &self.domain.normalisation,
            self.domain.resampling,
        )
    }

    /// Label values of a volume on its own grid, cleaned up as the domain's plan says.
    ///
    /// # Errors
    ///
    /// Where the volume has other channels than the domain or cannot be resampled to its spacing, or the GPU fails.
    pub fn segment(&self, volume: &Volume) -> Result<LabelMap> {
        let mut labels = self.raw_labels(volume)?;
        finish(&self.domain, &mut labels);
        Ok(labels)
    }

    /// Class indices of a volume on its own grid, without clean-up; label values where there are regions.
    ///
    /// # Errors
    ///
    /// As those of [`Predictor::segment`].
    pub fn raw_labels(&self, volume: &Volume) -> Result<LabelMap> {
        let case = self.prepare(volume)?;
        let logits = self.logits(&case)?;
        let labels = &self.domain.labels;
        match labels.regions {
            true => case.restore_regions(&logits, &labels.written()),
            false => case.restore(&logits, labels.outputs()),
        }
    }

    /// Probabilities of all classes, or of each region, on the volume's own grid: K, D, H, W. Background is certain beyond the
    /// box of the volume's non-zero voxels.
    ///
    /// # Errors
    ///
    /// As those of [`Predictor::segment`].
    pub fn probabilities(&self, volume: &Volume) -> Result<Array4<f32>> {
        let case = self.prepare(volume)?;
        let logits = self.logits(&case)?;
        let regions = self.domain.labels.regions;
        let outside = |k: usize| if k == 0 && !regions { 0.0 } else { f32::NEG_INFINITY };
        let mut all = case.restore_maps(&logits, outside)?;
        match regions {
            true => all.mapv_inplace(|x| 1.0 / (1.0 + (-x).exp())),
            false => all.lanes_mut(Axis(0)).into_iter().for_each(softmax),
        }
        Ok(all)
    }

    /// Weighted mean logits (K, D, H, W) of all windows over a prepared case.
    ///
    /// # Errors
    ///
    /// Where the GPU fails.
    pub fn logits(&self, case: &Prepared) -> Result<Vec<f32>> {
        let classes = self.domain.labels.outputs();
        let patch = self.domain.crop_size();
        let voxels: usize = case.shape.iter().product();
        let size: usize = patch.iter().product();
        let mut sums = vec![0.0f32; classes * voxels];
        let mut weights = vec![0.0f32; voxels];
        for first in positions(case.shape, patch, self.options.step_size) {
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

    /// Logits of one window (C, D, H, W) of the voxels that a patch covers, resized to what the network sees and back.
    fn window(&self, image: &[f32]) -> Result<Vec<f32>> {
        let DomainPlan { patch, crop, .. } = self.domain;
        let Some(crop) = crop else { return self.mirrored(image) };
        let channels = image.chunks(crop.iter().product());
        let image: Vec<f32> = channels.flat_map(|map| resample_cubic(map, crop, patch)).collect();
        let logits = self.mirrored(&image)?;
        let classes = logits.chunks(patch.iter().product());
        Ok(classes.flat_map(|map| resample_linear(map, patch, crop)).collect())
    }

    /// Logits of what the network sees (C, D, H, W), averaged over its mirror images.
    fn mirrored(&self, image: &[f32]) -> Result<Vec<f32>> {
        let patch = self.domain.patch;
        let mut mean = self.forward.run(image)?;
        let mirrors: Vec<usize> = (0..3).filter(|axis| self.options.mirror[*axis]).collect();
        let all = 1usize << mirrors.len();
        for chosen in 1..all {
            let axes = || (0..mirrors.len()).filter(|bit| chosen >> bit & 1 == 1);
            let mut mirrored = image.to_vec();
            axes().for_each(|bit| mirror(&mut mirrored, patch, mirrors[bit]));
            let mut logits = self.forward.run(&mirrored)?;
            axes().for_each(|bit| mirror(&mut logits, patch, mirrors[bit]));
            mean.iter_mut().zip(logits).for_each(|(sum, value)| *sum += value);
        }
        mean.iter_mut().for_each(|value| *value /= all as f32);
        Ok(mean)
    }
}

fn plan(model: &Model, domain: usize) -> Result<&DomainPlan> {
    model.domains.get(domain).ok_or_else(|| {
        let expected = format!("less than {}, the domains of the model", model.domains.len());
        Error::setting("domain", domain.to_string(), expected, "Choose another.")
    })
}

/// What the forward program of a domain computes: windows one by one.
fn spec<'a>(model: &'a Model, domain: usize, options: &PredictOptions) -> Result<ForwardSpec<'a>> {
    let (network, patch) = (&model.network, plan(model, domain)?.patch);
    Ok(ForwardSpec { network, domain, samples: 1, patch, dtype: options.dtype })
}

/// Several networks for the same images, such as those of the folds; they may differ in spacing and patch.
pub struct Ensemble {
    members: Vec<Predictor>,
}

impl Ensemble {
    /// At least one network; all with the same classes and channels.
    ///
    /// # Errors
    ///
    /// Where there is none, or they differ in classes or channels.
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

    /// Mean probabilities of all classes, or of each region, on the volume's own grid: K, D, H, W.
    ///
    /// # Errors
    ///
    /// As those of [`Predictor::segment`].
    pub fn probabilities(&self, volume: &Volume) -> Result<Array4<f32>> {
        let mut members = self.members.iter();
        let mut sum = match members.next() {
            Some(first) => first.probabilities(volume)?,
            None => return Err(Error::Internal("an ensemble of no networks".into())),
        };
        for member in members {
            sum += &member.probabilities(volume)?;
        }
        sum *= 1.0 / self.members.len() as f32;
        Ok(sum)
    }

    /// The value of the likeliest class of each voxel, cleaned up as the first network's plan says; of regions that of the
    /// last one that is likelier than not. `probabilities` are K, D, H, W on `grid`.
    ///
    /// # Errors
    ///
    /// Where the probabilities have other sizes than the grid.
    pub fn labels(&self, probabilities: &Array4<f32>, grid: &Grid) -> Result<LabelMap> {
        let domain = &self.members[0].domain;
        let values = row_major(probabilities.view());
        let voxels = grid.shape().iter().product();
        let mut labels = vec![0u8; voxels];
        if domain.labels.regions {
            for (value, map) in domain.labels.written().iter().zip(values.chunks(voxels)) {
                let inside = labels.iter_mut().zip(map).filter(|(_, p)| **p > 0.5);
                inside.for_each(|(label, _)| *label = *value);
            }
            return LabelMap::from_vec(labels, grid.clone());
        }
        for (voxel, label) in labels.iter_mut().enumerate() {
            let mut best = f32::NEG_INFINITY;
            for (class, map) in values.chunks(voxels).enumerate() {
                if map[voxel] > best {
                    (best, *label) = (map[voxel], class as u8);
                }
            }
        }
        let mut labels = LabelMap::from_vec(labels, grid.clone())?;
        finish(domain, &mut labels);
        Ok(labels)
    }

    /// Label values of a volume on its own grid.
    ///
    /// # Errors
    ///
    /// As those of [`Predictor::segment`].
    pub fn segment(&self, volume: &Volume) -> Result<LabelMap> {
        match self.members.as_slice() {
            // without averaging, logits need not be stored on the volume's own grid
            [one] => one.segment(volume),
            _ => self.labels(&self.probabilities(volume)?, volume.grid()),
        }
    }
}

/// Cleans classes up as a plan says and turns them into label values; those of regions are theirs already.
pub fn finish(domain: &DomainPlan, classes: &mut LabelMap) {
    if !domain.labels.regions {
        clean_up(classes, &domain.clean_up);
        domain.labels.decode(classes.as_mut_slice());
    }
}

/// Softmax of one voxel's values in place.
fn softmax(mut values: ArrayViewMut1<'_, f32>) {
    let largest = values.fold(f32::NEG_INFINITY, |most, value| most.max(*value));
    values.mapv_inplace(|value| (value - largest).exp());
    let sum = values.fold(0.0, |sum, value| sum + value);
    values.mapv_inplace(|value| value / sum);
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
struct SharedRow {
    case: usize,
    patch: usize,
    count: usize,
}

/// Where a case is smaller than the window it sits in the middle of it.
fn rows(shape: [usize; 3], patch: [usize; 3], first: [usize; 3]) -> Vec<SharedRow> {
    let inset = [0, 1, 2].map(|axis| patch[axis].saturating_sub(shape[axis]) / 2);
    let count = [0, 1, 2].map(|axis| patch[axis].min(shape[axis]));
    let mut rows = Vec::new();
    for z in 0..count[0] {
        for y in 0..count[1] {
            rows.push(SharedRow {
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
        let mut values = ndarray::array![[0.0, 1.0], [f32::NEG_INFINITY, 1.0]];
        values.lanes_mut(Axis(0)).into_iter().for_each(softmax);
        assert_eq!(values, ndarray::array![[1.0, 0.5], [0.0, 0.5]]);
    }
}
