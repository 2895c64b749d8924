//! What is made of a drawn patch, in the simplest loops: the oracle of the shaders `patch`, `blur`, `low_res`,
//! `lane_moments` and `intensity`, which make the patches that a network is trained on.

use super::augment::Interpolation;
use super::draw::{Draw, Elastic, FRACTION_BITS, Intensity, PatchSize, Spatial};
use crate::imaging::Prepared;

/// An image patch with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Patch {
    /// C, D, H, W.
    pub image: Vec<f64>,
    /// D, H, W.
    pub label: Vec<u8>,
}

/// Makes a drawn patch: its place in the case, then blur, low resolution, brightness, contrast, gamma, shift and noise of
/// each channel. Beyond the case it is `outside` with label 0.
pub fn make_patch(case: &Prepared, draw: &Draw, size: &PatchSize) -> Patch {
    let mut patch = take(case, draw, size.patch);
    let channels = patch.image.chunks_mut(patch.label.len()).zip(&draw.intensities);
    for (channel, (values, intensity)) in channels.enumerate() {
        if intensity.blur > 0.0 {
            (0..3).for_each(|axis| blur(values, size.patch, axis, intensity.blur));
        }
        if intensity.low_res {
            low_res(values, size.patch, draw);
        }
        change(values, intensity);
        if intensity.noise > 0.0 {
            for (voxel, v) in values.iter_mut().enumerate() {
                *v += f64::from(intensity.noise) * normal(voxel as u32, channel as u32, draw.seed);
            }
        }
    }
    patch
}

fn voxels(size: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    let [d, h, w] = size;
    (0..d).flat_map(move |z| (0..h).flat_map(move |y| (0..w).map(move |x| [z, y, x])))
}

impl Spatial {
    /// Position of a voxel of the patch in 2^-16 voxels of the case.
    pub fn position(&self, voxel: [usize; 3], patch: [usize; 3]) -> [i32; 3] {
        let shift = self.elastic.as_ref().map_or([0.0; 3], |e| e.at(voxel));
        [0, 1, 2].map(|axis| {
            let steps = (0..3)
                .map(|b| self.matrix[axis][b] * (2 * voxel[b] as i32 - (patch[b] as i32 - 1)));
            let moved = (shift[axis] * f64::from(1u32 << FRACTION_BITS) + 0.5).floor() as i32;
            self.centre[axis] + steps.sum::<i32>() + moved
        })
    }
}

impl Elastic {
    /// Displacement of a voxel of the patch.
    pub fn at(&self, voxel: [usize; 3]) -> [f64; 3] {
        let place = [0, 1, 2].map(|axis| {
            voxel[axis] as f64 * f64::from(self.step[axis]) + f64::from(self.origin[axis])
        });
        let weights = place.map(|g| spline(g.fract()));
        let mut sum = [0.0; 3];
        for [z, y, x] in voxels([4; 3]) {
            let at = [0, 1, 2].map(|axis| place[axis] as usize + [z, y, x][axis]);
            let index = (at[0] * self.shape[1] + at[1]) * self.shape[2] + at[2];
            let weight = weights[0][z] * weights[1][y] * weights[2][x];
            (0..3).for_each(|k| sum[k] += weight * f64::from(self.coefficients[index][k]));
        }
        sum
    }
}

/// Uniform cubic B-splines.
fn spline(t: f64) -> [f64; 4] {
    [
        (1.0 - t).powi(3) / 6.0,
        (3.0 * t.powi(3) - 6.0 * t * t + 4.0) / 6.0,
        (-3.0 * t.powi(3) + 3.0 * t * t + 3.0 * t + 1.0) / 6.0,
        t.powi(3) / 6.0,
    ]
}

/// Weights of the voxels from the one before the position on.
fn weights(interpolation: Interpolation, t: f64) -> [f64; 4] {
    match interpolation {
        Interpolation::Linear => [0.0, 1.0 - t, t, 0.0],
        Interpolation::Cubic => [
            ((-0.5 * t + 1.0) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1.0,
            ((-1.5 * t + 2.0) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ],
    }
}

/// The value at a position of a grid, given as whole voxels and fraction; beyond the edge lies the edge's voxel.
fn interpolate(
    interpolation: Interpolation,
    base: [i64; 3],
    fraction: [f64; 3],
    size: [usize; 3],
    value: impl Fn(usize) -> f64,
) -> f64 {
    let weights = fraction.map(|t| weights(interpolation, t));
    let mut sum = 0.0;
    for [z, y, x] in voxels([4; 3]) {
        let at = [0, 1, 2].map(|axis| {
            let index = base[axis] + [z, y, x][axis] as i64 - 1;
            index.clamp(0, size[axis] as i64 - 1) as usize
        });
        let index = (at[0] * size[1] + at[1]) * size[2] + at[2];
        sum += weights[0][z] * weights[1][y] * weights[2][x] * value(index);
    }
    sum
}

/// The voxels where the draw says: interpolated image, nearest label (of two equally near ones the later).
fn take(case: &Prepared, draw: &Draw, patch: [usize; 3]) -> Patch {
    let size = patch.iter().product();
    let plane: usize = case.shape.iter().product();
    let mut out =
        Patch { image: vec![f64::from(case.outside); case.channels * size], label: vec![0; size] };
    let unit = 1i32 << FRACTION_BITS;
    for (index, voxel) in voxels(patch).enumerate() {
        let position = draw.spatial.position(voxel, patch);
        let near = position.map(|p| i64::from((p + unit / 2) >> FRACTION_BITS));
        if (0..3).any(|axis| !(0..case.shape[axis] as i64).contains(&near[axis])) {
            continue;
        }
        let [z, y, x] = near.map(|n| n as usize);
        if let Some(label) = &case.label {
            out.label[index] = label[(z * case.shape[1] + y) * case.shape[2] + x];
        }
        let base = position.map(|p| i64::from(p >> FRACTION_BITS));
        let fraction = position.map(|p| f64::from(p & (unit - 1)) / f64::from(unit));
        for c in 0..case.channels {
            let value = |at| f64::from(case.image[c * plane + at]);
            out.image[c * size + index] =
                interpolate(draw.interpolation, base, fraction, case.shape, value);
        }
    }
    out
}

/// Weights of a Gaussian for 0, 1, 2, … voxels away, which cover three deviations.
pub fn gaussian(sigma: f32) -> Vec<f64> {
    let radius = (3.0 * sigma).ceil() as usize;
    let sigma = f64::from(sigma);
    let bell: Vec<f64> = (0..=radius).map(|d| (-0.5 * (d as f64 / sigma).powi(2)).exp()).collect();
    let total = bell[0] + 2.0 * bell[1..].iter().sum::<f64>();
    bell.into_iter().map(|w| w / total).collect()
}

/// Smooths along an axis; beyond the edge lies the edge's voxel.
fn blur(values: &mut [f64], size: [usize; 3], axis: usize, sigma: f32) {
    let taps = gaussian(sigma);
    let source = values.to_vec();
    let stride: usize = size[axis + 1..].iter().product();
    for (index, v) in values.iter_mut().enumerate() {
        let at = index / stride % size[axis];
        let reach = taps.len() as i64 - 1;
        *v = (-reach..=reach)
            .map(|o| {
                let near = (at as i64 + o).clamp(0, size[axis] as i64 - 1) as usize;
                taps[o.unsigned_abs() as usize] * source[index - at * stride + near * stride]
            })
            .sum();
    }
}

/// Voxels along D, H, W of a patch's low resolution.
pub fn low_res_size(size: [usize; 3], factor: f32) -> [usize; 3] {
    size.map(|n| ((n as f32 / factor).round() as usize).max(1))
}

/// Takes the nearest voxels of a coarser grid and interpolates between them.
fn low_res(values: &mut [f64], size: [usize; 3], draw: &Draw) {
    let low = low_res_size(size, draw.low_res_factor);
    // voxel j of the coarser grid is voxel floor((2j + 1) n / 2m)
    let near = |axis: usize, j: usize| (2 * j + 1) * size[axis] / (2 * low[axis]);
    let coarse: Vec<f64> = voxels(low)
        .map(|[z, y, x]| values[(near(0, z) * size[1] + near(1, y)) * size[2] + near(2, x)])
        .collect();
    for (v, voxel) in values.iter_mut().zip(voxels(size)) {
        // position (i + ½) m / n − ½ as a fraction over 2n
        let at = [0, 1, 2]
            .map(|axis| (2 * voxel[axis] as i64 + 1) * low[axis] as i64 - size[axis] as i64);
        let over = size.map(|n| 2 * n as i64);
        let base = [0, 1, 2].map(|axis| at[axis].div_euclid(over[axis]));
        let fraction =
            [0, 1, 2].map(|axis| at[axis].rem_euclid(over[axis]) as f64 / over[axis] as f64);
        *v = interpolate(draw.interpolation, base, fraction, low, |i| coarse[i]);
    }
}

/// Brightness, contrast (within the range of values), gamma (over that range) and shift.
fn change(values: &mut [f64], intensity: &Intensity) {
    let Intensity { brightness, contrast, gamma, shift, .. } = *intensity;
    values.iter_mut().for_each(|v| *v *= f64::from(brightness));
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if contrast != 1.0 {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let spread = |v: f64| ((v - mean) * f64::from(contrast) + mean).clamp(low, high);
        values.iter_mut().for_each(|v| *v = spread(*v));
    }
    if gamma != 1.0 && high - low > 1e-6 {
        let bend = |v: f64| ((v - low) / (high - low)).max(0.0).powf(f64::from(gamma));
        values.iter_mut().for_each(|v| *v = bend(*v) * (high - low) + low);
    }
    values.iter_mut().for_each(|v| *v += f64::from(shift));
}

/// Three hashed words of three words: PCG3D of Jarzynski and Olano, "Hash functions for GPU rendering", 2020.
fn pcg3d(v: [u32; 3]) -> [u32; 3] {
    let [mut x, mut y, mut z] = v.map(|n| n.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let mut mix = |shift: bool| {
        if shift {
            (x, y, z) = (x ^ x >> 16, y ^ y >> 16, z ^ z >> 16);
        }
        x = x.wrapping_add(y.wrapping_mul(z));
        y = y.wrapping_add(z.wrapping_mul(x));
        z = z.wrapping_add(x.wrapping_mul(y));
    };
    mix(false);
    mix(true);
    [x, y, z]
}

/// A normal number for each voxel and channel (Box–Muller); two channels share a hash.
fn normal(voxel: u32, channel: u32, seed: u32) -> f64 {
    let [a, b, _] = pcg3d([voxel, channel / 2, seed]);
    let unit = f64::from(1u32 << 24);
    let radius = (-2.0 * (f64::from((a >> 8) + 1) / unit).ln()).sqrt();
    let angle = std::f64::consts::TAU * f64::from(b >> 8) / unit;
    radius * if channel.is_multiple_of(2) { angle.cos() } else { angle.sin() }
}

#[cfg(test)]
mod tests {
    use super::super::augment::Augment;
    use super::super::draw::{Focus, draw_patch, rng_for};
    use super::*;
    use crate::imaging::{
        Grid, LabelMap, Normalisation, Resampling, Volume, prepare, resample_nearest,
    };

    fn case(shape: [usize; 3]) -> Prepared {
        let voxels: usize = shape.iter().product();
        let data: Vec<f32> = (0..voxels).map(|i| 1.0 + (i % 17) as f32).collect();
        let labels: Vec<u8> = (0..voxels).map(|i| u8::from(i % 50 == 7)).collect();
        let grid = Grid::ras(shape, [1.0; 3]);
        let [d, h, w] = shape;
        let data = ndarray::Array4::from_shape_vec((1, d, h, w), data).unwrap();
        let image = Volume::new(data, grid.clone()).unwrap();
        let label = LabelMap::from_vec(labels, grid).unwrap();
        prepare(&image, Some(&label), [1.0; 3], &Normalisation::ZScore, Resampling::Cubic).unwrap()
    }

    fn patch(case: &Prepared, size: [usize; 3], augment: &Augment, step: u64) -> Patch {
        let size = PatchSize::plain(size);
        let draw = draw_patch(
            case,
            &size,
            [Focus::Foreground, Focus::Anywhere][step as usize % 2],
            augment,
            &mut rng_for(3, step, 1),
        )
        .unwrap();
        make_patch(case, &draw, &size)
    }

    #[test]
    fn the_same_draw_gives_the_same_patch_and_another_one_differs() {
        let case = case([20, 30, 25]);
        let of = |step| patch(&case, [16; 3], &Augment::default(), step);
        assert_eq!(of(5), of(5));
        assert_ne!(of(5), of(6));
    }

    #[test]
    fn a_plain_patch_is_a_part_of_the_case() {
        let case = case([20, 9, 25]);
        for step in 0..20 {
            let size = PatchSize::plain([16, 16, 8]);
            let drawn = draw_patch(
                &case,
                &size,
                Focus::Foreground,
                &Augment::none(),
                &mut rng_for(1, step, 0),
            )
            .unwrap();
            let first = drawn.spatial.position([0, 0, 0], size.patch);
            assert!(drawn.spatial.on_voxels && first.iter().all(|p| p & 0xffff == 0));
            let patch = make_patch(&case, &drawn, &size);
            for (index, voxel) in voxels(size.patch).enumerate() {
                let at = [0, 1, 2].map(|a| voxel[a] as i32 + (first[a] >> 16));
                let inside = (0..3).all(|a| (0..case.shape[a] as i32).contains(&at[a]));
                let [z, y, x] = at.map(|v| v as usize);
                let expected = match (inside, case.label.as_ref()) {
                    (true, Some(label)) => {
                        let i = (z * case.shape[1] + y) * case.shape[2] + x;
                        (f64::from(case.image[i]), label[i])
                    }
                    _ => (f64::from(case.outside), 0),
                };
                assert_eq!((patch.image[index], patch.label[index]), expected);
            }
        }
    }

    #[test]
    fn a_mirrored_patch_is_the_plain_one_read_backwards() {
        let case = case([20, 30, 25]);
        for axis in 0..3 {
            let mut mirror = [0.0; 3];
            mirror[axis] = 1.0;
            let plain = patch(&case, [16, 12, 8], &Augment::none(), 4);
            let turned = patch(&case, [16, 12, 8], &Augment { mirror, ..Augment::none() }, 4);
            for (index, mut voxel) in voxels([16, 12, 8]).enumerate() {
                voxel[axis] = [16, 12, 8][axis] - 1 - voxel[axis];
                let other = (voxel[0] * 12 + voxel[1]) * 8 + voxel[2];
                assert_eq!(turned.label[index], plain.label[other]);
                assert_eq!(turned.image[index], plain.image[other]);
            }
        }
    }

    #[test]
    fn beyond_the_case_lies_air_where_bounds_are_fixed() {
        let mut case = case([6, 6, 6]);
        case.outside = -2.0;
        for rotate_prob in [0.0, 1.0] {
            let augment = Augment { rotate_prob, ..Augment::none() };
            let patch = patch(&case, [16; 3], &augment, 0);
            assert_eq!((patch.image[0], patch.label[0]), (-2.0, 0));
        }
    }

    #[test]
    fn a_resized_patch_covers_the_crop() {
        let case = case([24, 24, 24]);
        let size = PatchSize { crop: [24; 3], patch: [12; 3] };
        let drawn =
            draw_patch(&case, &size, Focus::Anywhere, &Augment::none(), &mut rng_for(0, 0, 0))
                .unwrap();
        let made = make_patch(&case, &drawn, &size);
        let label = case.label.as_ref().unwrap();
        assert_eq!(made.label, resample_nearest(label, [24; 3], [12; 3]));
    }

    #[test]
    fn a_shift_moves_every_voxel_alike() {
        let case = case([16, 16, 16]);
        let plain = patch(&case, [16; 3], &Augment::none(), 0);
        let augment = Augment { shift_prob: 1.0, shift_max: 0.5, ..Augment::none() };
        let shifted = patch(&case, [16; 3], &augment, 0);
        let by = shifted.image[0] - plain.image[0];
        assert!(by != 0.0 && by.abs() <= 0.5);
        assert!(plain.image.iter().zip(&shifted.image).all(|(a, b)| (b - a - by).abs() < 1e-5));
    }

    #[test]
    fn noise_is_normal_and_differs_by_channel_and_seed() {
        let numbers = |channel, seed| (0..20_000u32).map(move |i| normal(i, channel, seed));
        let moment = |p: i32| numbers(0, 7).map(|n| n.powi(p)).sum::<f64>() / 20_000.0;
        assert!(moment(1).abs() < 0.03 && (moment(2) - 1.0).abs() < 0.04);
        assert!(moment(3).abs() < 0.1 && (moment(4) - 3.0).abs() < 0.3);
        for (channel, seed) in [(1, 7), (2, 7), (0, 8)] {
            let joint = numbers(0, 7).zip(numbers(channel, seed)).map(|(a, b)| a * b);
            assert!((joint.sum::<f64>() / 20_000.0).abs() < 0.03, "{channel} {seed}");
        }
    }

    #[test]
    fn blur_and_low_resolution_keep_constants_and_smooth_the_rest() {
        let size = [7, 1, 9];
        let drawn = Draw {
            spatial: Spatial {
                centre: [0; 3],
                matrix: [[0; 3]; 3],
                on_voxels: true,
                elastic: None,
            },
            intensities: Vec::new(),
            low_res_factor: 2.0,
            interpolation: Interpolation::Cubic,
            seed: 0,
        };
        let mut flat = vec![3.0; 63];
        (0..3).for_each(|axis| blur(&mut flat, size, axis, 0.8));
        low_res(&mut flat, size, &drawn);
        assert!(flat.iter().all(|v| (v - 3.0).abs() < 1e-12));
        let mut point = vec![0.0; 63];
        point[31] = 1.0;
        (0..3).for_each(|axis| blur(&mut point, size, axis, 0.8));
        assert!((point.iter().sum::<f64>() - 1.0).abs() < 1e-12 && point[31] < 0.3);
        // a wave of two voxels is gone at half the resolution
        let mut wave: Vec<f64> = (0..64).map(|i| f64::from(i % 2)).collect();
        low_res(&mut wave, [1, 1, 64], &drawn);
        assert!(wave.iter().all(|v| (v - wave[0]).abs() < 1e-12));
    }

    #[test]
    fn foreground_patches_hold_foreground() {
        let case = case([40, 40, 40]);
        for step in 0..20 {
            assert!(patch(&case, [16; 3], &Augment::none(), 2 * step).label.contains(&1));
        }
    }
}
