//! Sliding windows: where the patches lie in a volume, and how much each voxel of a patch counts.

/// Smallest weight, so that a voxel covered only by a patch's corner still gets that patch's answer.
pub const MIN_WEIGHT: f32 = 1e-4;

/// First voxels (D,H,W) of the patches that cover a volume, in row-major order.
///
/// Neighbouring patches lie at most `step` of a patch apart (0 < `step` ≤ 1; 0.5 is usual), evenly spread; the first
/// starts at 0 and the last ends with the volume. On an axis no longer than the patch there is one position, 0.
pub fn positions(shape: [usize; 3], patch: [usize; 3], step: f32) -> Vec<[usize; 3]> {
    let [d, h, w] = [0, 1, 2].map(|axis| axis_positions(shape[axis], patch[axis], step));
    let mut all = Vec::with_capacity(d.len() * h.len() * w.len());
    for &z in &d {
        for &y in &h {
            all.extend(w.iter().map(|&x| [z, y, x]));
        }
    }
    all
}

/// First voxels of the windows along one axis, as of [`positions`].
pub fn axis_positions(extent: usize, patch: usize, step: f32) -> Vec<usize> {
    let Some(room) = extent.checked_sub(patch).filter(|&room| room > 0) else { return vec![0] };
    // A step of at least one voxel; anything that is no sensible fraction counts as a whole patch.
    let fraction = if step > 0.0 && step <= 1.0 { f64::from(step) } else { 1.0 };
    let target = (patch as f64 * fraction).max(1.0);
    let intervals = (room as f64 / target).ceil().max(1.0);
    let actual = room as f64 / intervals;
    (0..=intervals as usize).map(|i| (actual * i as f64).round_ties_even() as usize).collect()
}

/// Gaussian weights of a patch (D,H,W): 1 at the centre, standard deviation an eighth of each side.
pub fn gaussian(patch: [usize; 3]) -> Vec<f32> {
    const SIGMA: f64 = 1.0 / 8.0;
    weights(patch, |offsets| {
        let exponent: f64 = [0, 1, 2]
            .iter()
            .map(|&axis| (offsets[axis] / (SIGMA * patch[axis] as f64)).powi(2))
            .sum();
        (-0.5 * exponent).exp()
    })
}

/// The published weights of a patch (D,H,W): 1 minus the distance to the centre in voxels, scaled so that the
/// corners lie at distance 1.
pub fn linear(patch: [usize; 3]) -> Vec<f32> {
    let corner = patch.map(|extent| (extent as f64 - 1.0) / 2.0);
    let farthest = corner.iter().map(|c| c * c).sum::<f64>().sqrt();
    weights(patch, |offsets| {
        let distance = offsets.iter().map(|o| o * o).sum::<f64>().sqrt();
        if farthest > 0.0 { 1.0 - distance / farthest } else { 1.0 }
    })
}

/// Evaluates a weight at every voxel's offset (D,H,W, voxels) to the patch centre.
fn weights(patch: [usize; 3], weight: impl Fn([f64; 3]) -> f64) -> Vec<f32> {
    let [d, h, w] = patch;
    let offset = |index: usize, extent: usize| index as f64 - (extent as f64 - 1.0) / 2.0;
    let mut values = Vec::with_capacity(d * h * w);
    for z in 0..d {
        for y in 0..h {
            for x in 0..w {
                let value = weight([offset(z, d), offset(y, h), offset(x, w)]) as f32;
                values.push(value.max(MIN_WEIGHT));
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_follow_the_even_spread() {
        // The rule's own examples: ceil((110 - 64) / 32) + 1 = 3 steps, 23 voxels apart.
        assert_eq!(axis_positions(110, 64, 0.5), [0, 23, 46]);
        assert_eq!(axis_positions(128, 64, 0.5), [0, 32, 64]);
        assert_eq!(axis_positions(65, 64, 0.5), [0, 1]);
        assert_eq!(axis_positions(64, 64, 0.5), [0]);
        assert_eq!(axis_positions(20, 64, 0.5), [0]);
        assert_eq!(axis_positions(6, 2, 1.0), [0, 2, 4]);
        assert_eq!(axis_positions(3, 1, 0.5), [0, 1, 2]);
    }

    #[test]
    fn every_voxel_is_covered_and_no_patch_sticks_out() {
        for extent in 1..70 {
            for patch in [1, 5, 16, 33] {
                for step in [0.25, 0.5, 0.7, 1.0] {
                    let starts = axis_positions(extent, patch, step);
                    let mut next = 0;
                    for &start in &starts {
                        assert!(start <= next && (start == 0 || start + patch <= extent));
                        next = start + patch;
                    }
                    assert!(next >= extent, "{extent} {patch} {step}: {starts:?}");
                }
            }
        }
        assert_eq!(positions([4, 8, 8], [4, 8, 4], 0.5), [[0, 0, 0], [0, 0, 2], [0, 0, 4]]);
    }

    #[test]
    fn senseless_steps_still_cover() {
        for step in [0.0, -1.0, 7.0, f32::NAN] {
            assert_eq!(axis_positions(12, 4, step), [0, 4, 8]);
        }
    }

    #[test]
    fn weights_are_positive_symmetric_and_peak_in_the_centre() {
        let patch = [3, 5, 7];
        for values in [gaussian(patch), linear(patch)] {
            assert_eq!(values.len(), 105);
            assert!(values.iter().all(|&v| (MIN_WEIGHT..=1.0).contains(&v)));
            assert_eq!(values[52], 1.0);
            assert!((0..105).all(|i| values[i] == values[104 - i]));
        }
        let line = linear([1, 1, 5]);
        assert_eq!(line, [MIN_WEIGHT, 0.5, 1.0, 0.5, MIN_WEIGHT]);
        let line = gaussian([1, 1, 9]);
        assert!((line[5] - (-0.5f32 * (8.0f32 / 9.0).powi(2)).exp()).abs() < 1e-6);
        assert_eq!(linear([1, 1, 1]), [1.0]);
    }
}
