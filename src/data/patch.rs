//! Patches of prepared cases, foreground-biased, with augmentation; everything drawn from a seed, a step and an index.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::preprocess::Prepared;
use super::resample::{resample_cubic, resample_nearest};

/// An image patch with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// C, D, H, W.
    pub image: Vec<f32>,
    /// D, H, W.
    pub label: Vec<u8>,
}

/// Probabilities and ranges of random changes to a patch.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Augment {
    pub rotate_prob: f32,
    /// Largest angle about the D, H, W axes in radians.
    pub rotate_max: [f32; 3],
    pub scale_prob: f32,
    pub scale_range: [f32; 2],
    /// Probability of mirroring along D, H, W.
    pub mirror: [f32; 3],
    /// Of adding a constant.
    #[serde(default)]
    pub shift_prob: f32,
    /// Largest constant, in units of the normalised image.
    #[serde(default)]
    pub shift_max: f32,
    pub noise_prob: f32,
    /// Largest standard deviation, in units of the normalised image.
    pub noise_std: f32,
    pub brightness_prob: f32,
    pub brightness_range: [f32; 2],
    pub contrast_prob: f32,
    pub contrast_range: [f32; 2],
    pub gamma_prob: f32,
    pub gamma_range: [f32; 2],
}

impl Default for Augment {
    fn default() -> Self {
        let angle = 0.35;
        Self {
            rotate_prob: 0.3,
            rotate_max: [angle; 3],
            scale_prob: 0.3,
            scale_range: [0.85, 1.2],
            mirror: [0.0; 3],
            shift_prob: 0.0,
            shift_max: 0.5,
            noise_prob: 0.1,
            noise_std: 0.1,
            brightness_prob: 0.15,
            brightness_range: [0.75, 1.25],
            contrast_prob: 0.15,
            contrast_range: [0.75, 1.25],
            gamma_prob: 0.3,
            gamma_range: [0.7, 1.5],
        }
    }
}

impl Augment {
    /// As in the published training: turned about the depth axis, scaled, mirrored from left to right.
    pub fn u2net() -> Self {
        Self {
            rotate_prob: 0.3,
            rotate_max: [std::f32::consts::PI, 0.0, 0.0],
            scale_prob: 0.5,
            scale_range: [0.75, 1.25],
            mirror: [0.0, 0.0, 0.3],
            ..Self::none()
        }
    }

    /// No changes.
    pub fn none() -> Self {
        Self {
            rotate_prob: 0.0,
            scale_prob: 0.0,
            mirror: [0.0; 3],
            shift_prob: 0.0,
            noise_prob: 0.0,
            brightness_prob: 0.0,
            contrast_prob: 0.0,
            gamma_prob: 0.0,
            ..Self::default()
        }
    }
}

/// The generator of one sample: the same for the same seed, step and index, so that resuming needs no saved state.
pub fn rng_for(seed: u64, step: u64, index: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    rng.set_stream(index + 1);
    rng
}

/// What a patch is centred near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Focus {
    Anywhere,
    /// A voxel of a random class that the case has.
    Foreground,
    /// A voxel of the class with the fewest voxels in the case.
    Smallest,
}

/// Where a patch comes from: centre in voxels of the case, and the inverse map of its axes.
struct Frame {
    centre: [f32; 3],
    /// Patch offset to case offset, rows D, H, W.
    matrix: [[f32; 3]; 3],
    plain: bool,
}

/// Cuts a patch (D, H, W), anywhere inside where the case lacks what it should be near. Beyond the case it is `outside`
/// with label 0.
pub fn sample(
    case: &Prepared,
    patch: [usize; 3],
    focus: Focus,
    augment: &Augment,
    rng: &mut ChaCha8Rng,
) -> Patch {
    let centre = centre(case, patch, focus, rng);
    let frame = frame(case, centre, augment, rng);
    let mut out =
        if frame.plain { cut(case, patch, &frame) } else { interpolate(case, patch, &frame) };
    for axis in 0..3 {
        if rng.random::<f32>() < augment.mirror[axis] {
            mirror(&mut out, patch, axis);
        }
    }
    for channel in out.image.chunks_mut(patch.iter().product()) {
        intensities(channel, augment, rng);
    }
    out
}

/// A patch of size `from` resized to `to`: cubic image, nearest label.
pub fn resize(patch: &Patch, from: [usize; 3], to: [usize; 3]) -> Patch {
    let channels = patch.image.chunks(from.iter().product());
    Patch {
        image: channels.flat_map(|channel| resample_cubic(channel, from, to)).collect(),
        label: resample_nearest(&patch.label, from, to),
    }
}

fn centre(case: &Prepared, patch: [usize; 3], focus: Focus, rng: &mut ChaCha8Rng) -> [f32; 3] {
    let classes: Vec<&Vec<u32>> = match (focus, case.smallest) {
        (Focus::Anywhere, _) => Vec::new(),
        (Focus::Smallest, Some(class)) => vec![&case.foreground[class]],
        (Focus::Smallest, None) => Vec::new(),
        (Focus::Foreground, _) => case.foreground.iter().filter(|p| !p.is_empty()).collect(),
    };
    let point = if !classes.is_empty() {
        let class = classes[rng.random_range(0..classes.len())];
        let v = class[rng.random_range(0..class.len())] as usize;
        let [_, h, w] = case.shape;
        Some([v / (h * w), v / w % h, v % w])
    } else {
        None
    };
    [0, 1, 2].map(|axis| {
        let (size, want) = (case.shape[axis], patch[axis]);
        if size <= want {
            // the whole axis fits: shift it a little within the patch
            let slack = ((want - size) / 2).min(want / 8) as f32;
            let shift = slack * (2.0 * rng.random::<f32>() - 1.0);
            return ((size as f32 - 1.0) / 2.0 + shift).floor() + 0.5 * ((want + 1) % 2) as f32;
        }
        let half = (want as f32 - 1.0) / 2.0;
        let last = size as f32 - 1.0 - half;
        let at = match point {
            Some(p) => p[axis] as f32 + want as f32 / 4.0 * (2.0 * rng.random::<f32>() - 1.0),
            None => half + (last - half) * rng.random::<f32>(),
        };
        (at.clamp(half, last) - half).round() + half
    })
}

fn frame(case: &Prepared, centre: [f32; 3], augment: &Augment, rng: &mut ChaCha8Rng) -> Frame {
    let mut matrix = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    let mut plain = true;
    if rng.random::<f32>() < augment.scale_prob {
        let [lo, hi] = augment.scale_range;
        let zoom = 1.0 / (lo + (hi - lo) * rng.random::<f32>());
        for (axis, row) in matrix.iter_mut().enumerate() {
            row[axis] *= zoom;
        }
        plain = false;
    }
    if rng.random::<f32>() < augment.rotate_prob {
        for axis in 0..3 {
            let angle = augment.rotate_max[axis] * (2.0 * rng.random::<f32>() - 1.0);
            matrix = product(&rotation(axis, angle), &matrix);
        }
        plain = false;
        // rotate in millimetres, not voxels
        for (row, line) in matrix.iter_mut().enumerate() {
            for (column, v) in line.iter_mut().enumerate() {
                *v *= (case.spacing[column] / case.spacing[row]) as f32;
            }
        }
    }
    Frame { centre, matrix, plain }
}

fn rotation(axis: usize, angle: f32) -> [[f32; 3]; 3] {
    let (a, b) = ((axis + 1) % 3, (axis + 2) % 3);
    let mut m = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
    (m[a][a], m[a][b], m[b][a], m[b][b]) = (angle.cos(), -angle.sin(), angle.sin(), angle.cos());
    m
}

fn product(a: &[[f32; 3]; 3], b: &[[f32; 3]; 3]) -> [[f32; 3]; 3] {
    [0, 1, 2].map(|i| [0, 1, 2].map(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

fn empty(case: &Prepared, voxels: usize) -> Patch {
    Patch { image: vec![case.outside; case.channels * voxels], label: vec![0; voxels] }
}

/// Copies without interpolation.
fn cut(case: &Prepared, patch: [usize; 3], frame: &Frame) -> Patch {
    let first = [0, 1, 2].map(|a| (frame.centre[a] - (patch[a] as f32 - 1.0) / 2.0).round() as i64);
    let [d, h, w] = case.shape;
    let voxels = d * h * w;
    let size: usize = patch.iter().product();
    let mut out = empty(case, size);
    let lo = (-first[2]).clamp(0, patch[2] as i64) as usize;
    let hi = (w as i64 - first[2]).clamp(lo as i64, patch[2] as i64) as usize;
    for z in 0..patch[0] {
        let sz = first[0] + z as i64;
        for y in 0..patch[1] {
            let sy = first[1] + y as i64;
            if lo == hi || !(0..d as i64).contains(&sz) || !(0..h as i64).contains(&sy) {
                continue;
            }
            let from = ((sz as usize * h + sy as usize) * w) + (first[2] + lo as i64) as usize;
            let to = (z * patch[1] + y) * patch[2] + lo;
            let count = hi - lo;
            for c in 0..case.channels {
                let source = &case.image[c * voxels + from..][..count];
                out.image[c * size + to..][..count].copy_from_slice(source);
            }
            if let Some(label) = &case.label {
                out.label[to..to + count].copy_from_slice(&label[from..from + count]);
            }
        }
    }
    out
}

/// Trilinear image, nearest label.
fn interpolate(case: &Prepared, patch: [usize; 3], frame: &Frame) -> Patch {
    let [d, h, w] = case.shape;
    let voxels = d * h * w;
    let size: usize = patch.iter().product();
    let mut out = empty(case, size);
    let half = patch.map(|n| (n as f32 - 1.0) / 2.0);
    let limits = [d, h, w].map(|n| n as f32);
    let mut index = 0;
    for z in 0..patch[0] {
        for y in 0..patch[1] {
            for x in 0..patch[2] {
                let o = [z as f32 - half[0], y as f32 - half[1], x as f32 - half[2]];
                let p = [0, 1, 2].map(|a| {
                    let m = &frame.matrix[a];
                    frame.centre[a] + m[0] * o[0] + m[1] * o[1] + m[2] * o[2]
                });
                if (0..3).all(|a| p[a] > -0.5 && p[a] < limits[a] - 0.5) {
                    let (corners, weights, near) = corners(p, case.shape);
                    for c in 0..case.channels {
                        let source = &case.image[c * voxels..(c + 1) * voxels];
                        out.image[c * size + index] = corners
                            .iter()
                            .zip(weights)
                            .map(|(i, weight)| source[*i] * weight)
                            .sum();
                    }
                    if let Some(label) = &case.label {
                        out.label[index] = label[near];
                    }
                }
                index += 1;
            }
        }
    }
    out
}

/// Eight neighbours with their weights, and the nearest voxel.
fn corners(p: [f32; 3], [d, h, w]: [usize; 3]) -> ([usize; 8], [f32; 8], usize) {
    let clamp = |v: f32, n: usize| (v.max(0.0) as usize).min(n - 1);
    let base = p.map(f32::floor);
    let t = [0, 1, 2].map(|a| p[a] - base[a]);
    let lo = [clamp(base[0], d), clamp(base[1], h), clamp(base[2], w)];
    let hi = [clamp(base[0] + 1.0, d), clamp(base[1] + 1.0, h), clamp(base[2] + 1.0, w)];
    let mut indices = [0; 8];
    let mut weights = [0.0; 8];
    for corner in 0..8 {
        let bit = [corner >> 2 & 1, corner >> 1 & 1, corner & 1];
        let at = [0, 1, 2].map(|a| if bit[a] == 1 { hi[a] } else { lo[a] });
        indices[corner] = (at[0] * h + at[1]) * w + at[2];
        weights[corner] = (0..3).map(|a| if bit[a] == 1 { t[a] } else { 1.0 - t[a] }).product();
    }
    let near = [clamp(p[0].round(), d), clamp(p[1].round(), h), clamp(p[2].round(), w)];
    (indices, weights, (near[0] * h + near[1]) * w + near[2])
}

fn mirror(patch: &mut Patch, size: [usize; 3], axis: usize) {
    let inner: usize = size[axis + 1..].iter().product();
    let block = size[axis] * inner;
    fn flip<T>(data: &mut [T], block: usize, inner: usize) {
        for chunk in data.chunks_mut(block) {
            chunk.reverse();
            chunk.chunks_mut(inner).for_each(<[T]>::reverse);
        }
    }
    flip(&mut patch.image, block, inner);
    flip(&mut patch.label, block, inner);
}

fn intensities(values: &mut [f32], augment: &Augment, rng: &mut impl Rng) {
    let mut draw = |prob: f32, [lo, hi]: [f32; 2]| {
        let (chance, at) = (rng.random::<f32>(), rng.random::<f32>());
        (chance < prob).then_some(lo + (hi - lo) * at)
    };
    let noise = draw(augment.noise_prob, [0.0, augment.noise_std]);
    let brightness = draw(augment.brightness_prob, augment.brightness_range);
    let contrast = draw(augment.contrast_prob, augment.contrast_range);
    let gamma = draw(augment.gamma_prob, augment.gamma_range);
    let shift = draw(augment.shift_prob, [-augment.shift_max, augment.shift_max]);
    if let Some(factor) = brightness {
        values.iter_mut().for_each(|v| *v *= factor);
    }
    let bounds = values.iter().fold((f32::MAX, f32::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
    let (lo, hi) = bounds;
    if let Some(factor) = contrast {
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        values.iter_mut().for_each(|v| *v = ((*v - mean) * factor + mean).clamp(lo, hi));
    }
    if let Some(power) = gamma
        && hi - lo > 1e-6
    {
        let range = hi - lo;
        values.iter_mut().for_each(|v| *v = ((*v - lo) / range).max(0.0).powf(power) * range + lo);
    }
    if let Some(constant) = shift {
        values.iter_mut().for_each(|v| *v += constant);
    }
    if let Some(std) = noise {
        for v in values {
            // the sum of four uniforms is near enough to normal for noise
            let sum: f32 = (0..4).map(|_| rng.random::<f32>()).sum::<f32>() - 2.0;
            *v += std * sum * 1.732;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::grid::Grid;
    use super::super::nifti::{LabelVolume, Volume};
    use super::super::preprocess::{Normalisation, prepare};
    use super::*;

    fn case(shape: [usize; 3]) -> Prepared {
        let voxels: usize = shape.iter().product();
        let data: Vec<f32> = (0..voxels).map(|i| 1.0 + (i % 17) as f32).collect();
        let labels: Vec<u8> = (0..voxels).map(|i| u8::from(i % 50 == 7)).collect();
        let grid = Grid::ras(shape, [1.0; 3]);
        let image = Volume { channels: 1, shape, spacing: [1.0; 3], data, grid: grid.clone() };
        let label = LabelVolume { shape, spacing: [1.0; 3], data: labels, grid };
        prepare(&image, Some(&label), [1.0; 3], &Normalisation::ZScore).unwrap()
    }

    #[test]
    fn the_same_draw_gives_the_same_patch_and_another_one_differs() {
        let case = case([20, 30, 25]);
        let of = |step| {
            sample(&case, [16; 3], Focus::Foreground, &Augment::default(), &mut rng_for(3, step, 1))
        };
        assert_eq!(of(5), of(5));
        assert_ne!(of(5), of(6));
    }

    #[test]
    fn plain_patches_match_interpolated_ones_without_change() {
        let case = case([20, 9, 25]);
        for step in 0..20 {
            let mut rng = rng_for(1, step, 0);
            let focus = [Focus::Foreground, Focus::Anywhere][step as usize % 2];
            let centre = centre(&case, [16, 16, 8], focus, &mut rng);
            let mut frame = frame(&case, centre, &Augment::none(), &mut rng);
            let plain = cut(&case, [16, 16, 8], &frame);
            frame.plain = false;
            let interpolated = interpolate(&case, [16, 16, 8], &frame);
            assert_eq!(plain.label, interpolated.label);
            let close =
                plain.image.iter().zip(&interpolated.image).all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(close, "step {step}");
        }
    }

    #[test]
    fn beyond_the_case_lies_air_where_bounds_are_fixed() {
        let mut case = case([6, 6, 6]);
        case.outside = -2.0;
        let mut augment = Augment { rotate_prob: 1.0, ..Augment::none() };
        for _ in 0..2 {
            let patch = sample(&case, [16; 3], Focus::Anywhere, &augment, &mut rng_for(1, 0, 0));
            assert_eq!((patch.image[0], patch.label[0]), (-2.0, 0));
            augment.rotate_prob = 0.0;
        }
    }

    #[test]
    fn a_shift_moves_every_voxel_alike() {
        let case = case([16, 16, 16]);
        let of = |augment| sample(&case, [16; 3], Focus::Anywhere, &augment, &mut rng_for(1, 0, 0));
        let plain = of(Augment::none());
        let shifted = of(Augment { shift_prob: 1.0, shift_max: 0.5, ..Augment::none() });
        let by = shifted.image[0] - plain.image[0];
        assert!(by != 0.0 && by.abs() <= 0.5);
        assert!(plain.image.iter().zip(&shifted.image).all(|(a, b)| (b - a - by).abs() < 1e-5));
    }

    #[test]
    fn foreground_patches_hold_foreground() {
        let case = case([40, 40, 40]);
        for step in 0..20 {
            let patch = sample(
                &case,
                [16; 3],
                Focus::Foreground,
                &Augment::none(),
                &mut rng_for(2, step, 0),
            );
            assert!(patch.label.contains(&1));
        }
    }
}
