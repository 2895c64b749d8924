//! Which intensities are black and white.

use crate::imaging::{LabelMap, percentile};

/// The window of abdominal CT, in Hounsfield units.
pub const SOFT_TISSUE: [f32; 2] = [-160.0, 240.0];
/// Of lungs, where what is outlined is mostly air.
const LUNG: [f32; 2] = [-1350.0, 150.0];
/// Of bone, where what is outlined is mostly that.
const BONE: [f32; 2] = [-500.0, 1300.0];

/// Values that percentiles are taken of, about.
const SAMPLE: usize = 1_000_000;

/// The intensities of an image (D, H, W) shown as black and white: for CT by what is outlined; else the 1st and 99th percentile.
pub(super) fn of(image: &[f32], labels: Option<&LabelMap>) -> [f32; 2] {
    let values = sorted(image.iter().step_by(image.len() / SAMPLE + 1).copied());
    let [low, high] = [1.0, 99.0].map(|percent| percentile(&values, percent));
    // air at the low end and bone at the high end: a CT
    if (-1100.0..=-700.0).contains(&low) && (50.0..=3100.0).contains(&high) {
        return labels.map_or(SOFT_TISSUE, |labels| of_ct(image, labels));
    }
    let top = values.last().copied().unwrap_or(low);
    if high > low { [low, high] } else { [low, top.max(low + 1.0)] }
}

/// The window of a CT by the median of what is outlined.
fn of_ct(image: &[f32], labels: &LabelMap) -> [f32; 2] {
    let count = labels.as_slice().iter().filter(|label| **label != 0).count();
    let pairs = image.iter().zip(labels.as_slice());
    let inside = pairs.filter(|(_, label)| **label != 0).map(|(value, _)| *value);
    let inside = sorted(inside.step_by(count / SAMPLE + 1));
    match inside.get(inside.len() / 2) {
        Some(..-500.0) => LUNG,
        Some(250.0..) => BONE,
        _ => SOFT_TISSUE,
    }
}

fn sorted(values: impl Iterator<Item = f32>) -> Vec<f32> {
    let mut values: Vec<f32> = values.collect();
    values.sort_unstable_by(f32::total_cmp);
    values
}
