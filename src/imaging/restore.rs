//! Scores on a domain's grid, back on the grid of the image.

use ndarray::Array4;

use super::prepare::Prepared;
use super::volume::{LabelMap, shaped};
use crate::base::Result;

impl Prepared {
    /// Scores (K, D, H, W on this grid) resampled linearly to the image's own grid, largest wins; background outside the crop.
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

    /// Scores of regions (R, D, H, W on this grid, above 0 where the region is) resampled linearly to the image's own grid;
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
