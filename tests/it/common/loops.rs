//! Segmentation in plain loops, as slabs on the GPU are held to: windows cut and summed on the CPU, whole maps resampled, classes
//! decided voxel by voxel. The network alone runs on the GPU, a window at a time.

use std::borrow::Cow;

use ndarray::{Array4, ArrayViewMut1, Axis};
use u2seg::low_level::domain::{DomainPlan, Weighting};
use u2seg::low_level::gpu::Gpu;
use u2seg::low_level::imaging::{
    LabelMap, Prepared, Volume, prepare, resample_cubic, resample_linear,
};
use u2seg::low_level::net::Model;
use u2seg::low_level::segment::window::{gaussian, linear, positions};
use u2seg::low_level::segment::{Forward, ForwardSpec, PredictOptions};

/// A domain of a model, segmenting in loops.
pub struct Loops {
    domain: DomainPlan,
    forward: Forward,
    weights: Vec<f32>,
    options: PredictOptions,
    /// The one mirror image that is looked at; else all.
    only: Option<usize>,
}

impl Loops {
    pub fn new(gpu: &Gpu, model: &Model, domain: usize, options: &PredictOptions) -> Self {
        let plan = model.domains[domain].clone();
        let values = |name: &str| Ok(Cow::Borrowed(model.weights[name].values.as_slice()));
        let (network, patch, dtype) = (&model.network, plan.patch, options.dtype);
        let spec = ForwardSpec { network, domain, samples: 1, patch, dtype };
        let forward = Forward::new(gpu, &spec, values).unwrap();
        let weights = match options.weighting.unwrap_or(plan.weighting) {
            Weighting::Linear => linear(plan.crop_size()),
            _ => gaussian(plan.crop_size()),
        };
        Self { domain: plan, forward, weights, options: options.clone(), only: None }
    }

    /// The same by a single mirror image, by position among all.
    pub fn by_mirror(self, only: usize) -> Self {
        Self { only: Some(only), ..self }
    }

    pub fn prepare(&self, volume: &Volume) -> Prepared {
        let plan = &self.domain;
        prepare(volume, None, plan.spacing, &plan.normalisation, plan.resampling).unwrap()
    }

    /// Class indices, or values of regions.
    pub fn raw_labels(&self, volume: &Volume) -> LabelMap {
        let case = self.prepare(volume);
        let logits = self.logits(&case);
        let labels = &self.domain.labels;
        match labels.regions {
            true => case.restore_regions(&logits, &labels.written()).unwrap(),
            false => case.restore(&logits, labels.outputs()).unwrap(),
        }
    }

    /// K, D, H, W.
    pub fn probabilities(&self, volume: &Volume) -> Array4<f32> {
        let case = self.prepare(volume);
        let logits = self.logits(&case);
        let regions = self.domain.labels.regions;
        let outside = |k: usize| if k == 0 && !regions { 0.0 } else { f32::NEG_INFINITY };
        let mut all = case.restore_maps(&logits, outside).unwrap();
        match regions {
            true => all.mapv_inplace(|x| 1.0 / (1.0 + (-x).exp())),
            false => all.lanes_mut(Axis(0)).into_iter().for_each(softmax),
        }
        all
    }

    /// Weighted mean logits, K, D, H, W of the case.
    pub fn logits(&self, case: &Prepared) -> Vec<f32> {
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
            let logits = self.window(&window);
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
        sums
    }

    /// Logits of one window (C, D, H, W) of the voxels that a patch covers, resized to what the network sees and back.
    fn window(&self, image: &[f32]) -> Vec<f32> {
        let DomainPlan { patch, crop, .. } = self.domain;
        let Some(crop) = crop else { return self.mirrored(image) };
        let channels = image.chunks(crop.iter().product());
        let image: Vec<f32> = channels.flat_map(|map| resample_cubic(map, crop, patch)).collect();
        let logits = self.mirrored(&image);
        let classes = logits.chunks(patch.iter().product());
        classes.flat_map(|map| resample_linear(map, patch, crop)).collect()
    }

    /// Logits of what the network sees (C, D, H, W), averaged over its mirror images.
    fn mirrored(&self, image: &[f32]) -> Vec<f32> {
        let patch = self.domain.patch;
        let mut mean = self.forward.run(image).unwrap();
        let mirrors: Vec<usize> = (0..3).filter(|axis| self.options.mirror[*axis]).collect();
        let all = if self.only.is_some() { 1 } else { 1usize << mirrors.len() };
        let others = self.only.map_or(1..all, |only| only..only + usize::from(only > 0));
        if self.only.is_some_and(|only| only > 0) {
            mean.fill(0.0);
        }
        for chosen in others {
            let axes = || (0..mirrors.len()).filter(|bit| chosen >> bit & 1 == 1);
            let mut mirrored = image.to_vec();
            axes().for_each(|bit| mirror(&mut mirrored, patch, mirrors[bit]));
            let mut logits = self.forward.run(&mirrored).unwrap();
            axes().for_each(|bit| mirror(&mut logits, patch, mirrors[bit]));
            mean.iter_mut().zip(logits).for_each(|(sum, value)| *sum += value);
        }
        mean.iter_mut().for_each(|value| *value /= all as f32);
        mean
    }
}

/// Mean probabilities of several networks, K, D, H, W.
pub fn mean(members: &[Loops], volume: &Volume) -> Array4<f32> {
    let mut each = members.iter().map(|member| member.probabilities(volume));
    let first = each.next().unwrap();
    each.fold(first, |sum, more| sum + more) / members.len() as f32
}

/// What probabilities decide: class indices, or values of regions.
pub fn decided(probabilities: &Array4<f32>, domain: &DomainPlan) -> Vec<u8> {
    let values = domain.labels.written();
    let decide = |voxel: ndarray::ArrayView1<'_, f32>| {
        let (mut best, mut label) = (f32::NEG_INFINITY, 0);
        for (class, p) in voxel.iter().enumerate() {
            if domain.labels.regions && *p > 0.5 {
                label = values[class];
            } else if !domain.labels.regions && *p > best {
                (best, label) = (*p, class as u8);
            }
        }
        label
    };
    probabilities.lanes(Axis(0)).into_iter().map(decide).collect()
}

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
