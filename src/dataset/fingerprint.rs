//! What a plan needs to know of a dataset.

use rayon::prelude::*;

use super::cases::Dataset;
use super::prepared::Summary;
use crate::imaging::percentile;

/// Shapes, spacings and intensities of the training cases.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct Fingerprint {
    /// Shape of each case after cropping to its non-zero box, D, H, W.
    pub shapes: Vec<[usize; 3]>,
    /// Millimetres, D, H, W.
    pub spacings: Vec<[f64; 3]>,
    /// 0.5th and 99.5th percentile, mean and standard deviation of the first channel inside the labels.
    pub foreground: [f32; 4],
    /// Whether the first channel is a CT.
    pub is_ct: bool,
}

/// An edge as it was meant: headers hold 0.8 in 32 bits, which is 0.800000011920929.
fn as_meant(edge: f64) -> f64 {
    (edge as f32).to_string().parse().unwrap_or(edge)
}

impl Fingerprint {
    /// Of what the cases of a dataset hold.
    pub fn of(dataset: &Dataset, cases: &[Summary]) -> Self {
        let shapes = cases.iter().map(|case| case.cropped).collect();
        let spacings = cases.iter().map(|case| case.spacing).collect();
        let mut values: Vec<f32> =
            cases.iter().flat_map(|case| &case.foreground).copied().collect();
        values.par_sort_unstable_by(f32::total_cmp);
        let count = values.len().max(1) as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
        let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / count;
        let foreground = [
            percentile(&values, 0.5),
            percentile(&values, 99.5),
            mean as f32,
            variance.sqrt() as f32,
        ];
        let is_ct = dataset.channels.first().is_some_and(|name| name.eq_ignore_ascii_case("ct"));
        Self { shapes, spacings, foreground, is_ct }
    }

    /// Median of each axis over the cases.
    pub fn median_spacing(&self) -> [f64; 3] {
        [0, 1, 2].map(|axis| {
            let mut values: Vec<f64> = self.spacings.iter().map(|s| s[axis]).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().map_or(1.0, as_meant)
        })
    }

    /// Sizes of all cases along an axis after resampling to a spacing, ascending.
    fn sizes(&self, axis: usize, spacing: f64) -> Vec<f64> {
        let cases = self.shapes.iter().zip(&self.spacings);
        let mut sizes: Vec<f64> =
            cases.map(|(shape, old)| shape[axis] as f64 * old[axis] / spacing).collect();
        sizes.sort_by(f64::total_cmp);
        sizes
    }

    /// Median shape after resampling to a spacing, D, H, W.
    pub fn median_shape(&self, spacing: [f64; 3]) -> [usize; 3] {
        [0, 1, 2].map(|axis| {
            let sizes = self.sizes(axis, spacing[axis]);
            sizes.get(sizes.len() / 2).map_or(1, |size| size.round().max(1.0) as usize)
        })
    }

    /// Largest extent along each axis after resampling to a spacing, D, H, W.
    pub fn largest_shape(&self, spacing: [f64; 3]) -> [usize; 3] {
        [0, 1, 2].map(|axis| {
            let sizes = self.sizes(axis, spacing[axis]);
            sizes.last().map_or(1, |size| size.round().max(1.0) as usize)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_spacing_is_written_as_people_write_it() {
        let spacings = vec![[5.0, f64::from(0.8f32), 0.976_562_5]];
        let fingerprint =
            Fingerprint { shapes: vec![[9; 3]], spacings, foreground: [0.0; 4], is_ct: true };
        assert_eq!(fingerprint.median_spacing(), [5.0, 0.8, 0.976_562_5]);
    }
}
