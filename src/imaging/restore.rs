//! From a domain's grid back to the grid of the image: where each voxel of the image lies between those of the domain, and the
//! way back in plain loops, which is what slabs on the GPU are held to.

use ndarray::Array4;

use super::grid::Grid;
use super::interpolation::{Interpolation, linear_taps, nearest_taps};
use super::prepare::Prepared;
use super::volume::{LabelMap, shaped};
use super::voxel_box::VoxelBox;
use crate::base::Result;

/// Where a voxel lies along an axis: between the voxel `low` and the next one, which counts `share`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tap {
    /// The voxel before.
    pub low: u32,
    /// How much the voxel behind it counts, from 0 to 1; 0 where there is none.
    pub share: f32,
}

impl Tap {
    /// The voxel behind, or the same where that does not count.
    pub fn high(&self) -> u32 {
        self.low + u32::from(self.share > 0.0)
    }

    /// Where each of `new` voxels lies among `old` ones along an axis of the same length. Scores know no cubics: where an image
    /// was resampled by these, they come back linearly.
    pub fn all(old: usize, new: usize, by: Interpolation) -> Vec<Self> {
        match by {
            Interpolation::Cubic | Interpolation::Linear => {
                let taps = linear_taps(old, new).into_iter();
                taps.map(|tap| Self { low: tap.low as u32, share: tap.t }).collect()
            }
            Interpolation::Nearest => {
                let taps = nearest_taps(old, new).into_iter();
                taps.map(|low| Self { low: low as u32, share: 0.0 }).collect()
            }
        }
    }
}

impl Prepared {
    /// The voxels of the image that it was made of.
    pub fn crop(&self) -> VoxelBox {
        self.crop
    }

    /// Where the image's voxels lie.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// Where the voxels of the crop lie among its own, along an axis D, H or W.
    pub fn taps_back(&self, axis: usize) -> Vec<Tap> {
        Tap::all(self.shape[axis], self.crop.shape()[axis], self.back[axis])
    }

    /// Scores (K, D, H, W on this grid) resampled to the image's own grid, largest wins; background outside the crop.
    pub fn restore(&self, scores: &[f32], classes: usize) -> Result<LabelMap> {
        let size = self.crop.shape();
        let voxels: usize = self.shape.iter().product();
        let mut best = vec![f32::NEG_INFINITY; size.iter().product()];
        let mut labels = vec![0u8; best.len()];
        for class in 0..classes {
            let score = self.on_crop(&scores[class * voxels..(class + 1) * voxels]);
            for (index, value) in score.into_iter().enumerate() {
                if value > best[index] {
                    best[index] = value;
                    labels[index] = class as u8;
                }
            }
        }
        self.label_map(&labels)
    }

    /// Scores of regions (R, D, H, W on this grid, above 0 where the region is) resampled to the image's own grid;
    /// where several are, the last one's value counts. 0 outside the crop.
    pub fn restore_regions(&self, scores: &[f32], values: &[u8]) -> Result<LabelMap> {
        let size = self.crop.shape();
        let voxels: usize = self.shape.iter().product();
        let mut labels = vec![0u8; size.iter().product()];
        for (score, value) in scores.chunks(voxels).zip(values) {
            let score = self.on_crop(score);
            let inside = labels.iter_mut().zip(score).filter(|(_, score)| *score > 0.0);
            inside.for_each(|(label, _)| *label = *value);
        }
        self.label_map(&labels)
    }

    /// Score maps on the image's own grid (K, D, H, W), `outside(k)` beyond the crop.
    pub fn restore_maps(
        &self,
        maps: &[f32],
        outside: impl Fn(usize) -> f32,
    ) -> Result<Array4<f32>> {
        let [d, h, w] = self.grid.shape();
        let maps = maps.chunks(self.shape.iter().product());
        let shape = (maps.len(), d, h, w);
        let mut all = Vec::with_capacity(maps.len() * d * h * w);
        for (class, map) in maps.enumerate() {
            all.resize((class + 1) * d * h * w, outside(class));
            self.paste(&self.on_crop(map), &mut all[class * d * h * w..]);
        }
        shaped(shape, all)
    }

    fn label_map(&self, cropped: &[u8]) -> Result<LabelMap> {
        let mut labels = vec![0; self.grid.shape().iter().product()];
        self.paste(cropped, &mut labels);
        LabelMap::from_vec(labels, self.grid.clone())
    }

    /// Puts values of the crop into a map of the image's own grid.
    fn paste<T: Copy>(&self, cropped: &[T], map: &mut [T]) {
        let rows = self.crop.rows(self.grid.shape()).zip(cropped.chunks(self.crop.shape()[2]));
        rows.for_each(|(row, values)| map[row].copy_from_slice(values));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voxels_lie_between_others_or_at_the_nearest() {
        let of = |by, old, new| -> Vec<(u32, f32)> {
            Tap::all(old, new, by).iter().map(|tap| (tap.low, tap.share)).collect()
        };
        let linear = [(0, 0.0), (0, 0.25), (0, 0.75), (1, 0.0)];
        assert_eq!(of(Interpolation::Linear, 2, 4), linear);
        assert_eq!(of(Interpolation::Cubic, 2, 4), linear);
        let nearest = [(0, 0.0), (0, 0.0), (1, 0.0), (1, 0.0)];
        assert_eq!(of(Interpolation::Nearest, 2, 4), nearest);
        // of two equally near ones the later
        assert_eq!(of(Interpolation::Nearest, 4, 2), [(1, 0.0), (3, 0.0)]);
        let taps = Tap::all(5, 9, Interpolation::Linear);
        assert!(taps.iter().all(|tap| tap.high() < 5 && tap.high() - tap.low <= 1));
    }
}
