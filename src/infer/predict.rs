//! Sliding-window inference of one domain of a model.

use std::borrow::Cow;

use super::forward::Forward;
use super::window::{gaussian, positions};
use crate::data::{Prepared, Volume, prepare};
use crate::domain::Domain;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::nn::Model;

/// A domain's network, ready to segment.
pub struct Predictor {
    domain: Domain,
    forward: Forward,
    weights: Vec<f32>,
    /// Step between windows as a share of the patch.
    pub step: f32,
}

impl Predictor {
    /// Builds the forward program of a domain and uploads its weights.
    pub fn new(gpu: &Gpu, model: &Model, domain: usize) -> Result<Self> {
        let plan =
            model.domains.get(domain).ok_or_else(|| Error::Internal("no such domain".into()))?;
        let weights = |name: &str| match model.weights.get(name) {
            Some(tensor) => Ok(Cow::Borrowed(tensor.values.as_slice())),
            None => Err(Error::Internal(format!("the model lacks {name}"))),
        };
        let forward = Forward::new(gpu, (&model.network, domain), (1, plan.patch), weights)?;
        let weights = gaussian(plan.patch);
        Ok(Self { domain: plan.clone(), forward, weights, step: 0.5 })
    }

    /// The domain's plan.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Labels of a volume on its canonical grid, D, H, W.
    pub fn segment(&self, volume: &Volume) -> Result<Vec<u8>> {
        if volume.channels != self.domain.channels {
            return Err(Error::shape(
                "predict",
                format!(
                    "the image has {} channels, domain {} takes {}",
                    volume.channels, self.domain.name, self.domain.channels
                ),
            ));
        }
        let case = prepare(volume, None, self.domain.spacing, &self.domain.normalisation)?;
        let logits = self.logits(&case)?;
        Ok(case.restore(&logits, self.domain.classes.len()))
    }

    /// Weighted mean logits (K, D, H, W) of all windows over a prepared case.
    pub fn logits(&self, case: &Prepared) -> Result<Vec<f32>> {
        let classes = self.domain.classes.len();
        let patch = self.domain.patch;
        let voxels: usize = case.shape.iter().product();
        let size: usize = patch.iter().product();
        let mut sums = vec![0.0f32; classes * voxels];
        let mut weights = vec![0.0f32; voxels];
        for first in positions(case.shape, patch, self.step) {
            let rows = rows(case.shape, patch, first);
            let mut window = vec![case.outside; case.channels * size];
            for channel in 0..case.channels {
                for row in &rows {
                    let source = &case.image[channel * voxels + row.case..][..row.count];
                    window[channel * size + row.patch..][..row.count].copy_from_slice(source);
                }
            }
            let logits = self.forward.run(&window)?;
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
