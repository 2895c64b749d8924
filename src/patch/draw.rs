//! How a patch is taken from a case, drawn at random: plain data that follows from a seed, a step and an index, so that a
//! resumed run needs no saved generator. What is made of it is said in `make.rs`, in the simplest loops.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::augment::{Augment, Interpolation};
use crate::base::Result;
use crate::dataset::prepared::{CaseData, Facts, Points};
use crate::imaging::VoxelBox;

/// Fractional bits of positions: they are integers, so that every adapter takes the same voxels.
pub const FRACTION_BITS: u32 = 16;
/// Voxels on an axis of a case and from a patch's centre to its farthest voxel, so that positions fit 32 bits.
pub const MAX_EXTENT: usize = 16_000;

/// Voxels of a case that a patch covers, and the voxels that it becomes, D, H, W.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatchSize {
    /// Voxels of the case that the patch covers.
    pub crop: [usize; 3],
    /// Voxels that it becomes.
    pub patch: [usize; 3],
}

impl PatchSize {
    /// A patch of the case's own voxels.
    pub fn plain(patch: [usize; 3]) -> Self {
        Self { crop: patch, patch }
    }
}

/// What a patch is centred near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Focus {
    /// Any voxel; of a case with ignored voxels, one that somebody labelled.
    Anywhere,
    /// A voxel of a random class that the case has.
    Foreground,
    /// A voxel of the class with the fewest voxels in the case.
    Smallest,
}

/// A drawn patch.
#[derive(Debug, Clone, PartialEq)]
pub struct Draw {
    /// Where its voxels lie.
    pub spatial: Spatial,
    /// One a channel.
    pub intensities: Vec<Intensity>,
    /// How many times coarser the low resolution is.
    pub low_res_factor: f32,
    /// How the image is read between voxels.
    pub interpolation: Interpolation,
    /// Of the noise.
    pub seed: u32,
}

/// Where the voxels of a patch lie in its case.
#[derive(Debug, Clone, PartialEq)]
pub struct Spatial {
    /// Of the patch, in 2^-16 voxels of the case.
    pub centre: [i32; 3],
    /// Way along the case's axis (row) for half a step along the patch's axis (column), in 2^-16 voxels of the case.
    pub matrix: [[i32; 3]; 3],
    /// Whether every position is a voxel of the case: nothing to interpolate.
    pub on_voxels: bool,
    /// How the patch is deformed.
    pub elastic: Option<Elastic>,
}

/// A smooth field of displacements: uniform cubic B-splines over a coarse grid.
///
/// It stands for white noise (uniform, −1 to 1) smoothed by a Gaussian of deviation σ and multiplied by α. A cubic B-spline
/// over knots h apart has the variance h² / 3 of a Gaussian of σ = h / √3, which gives the grid. The noise has a variance of
/// ⅓ before and (2 σ √π)⁻³ / 3 after smoothing; B-splines leave (151 / 315)³ of the coefficients' variance on average over
/// a cell, which gives the coefficients.
#[derive(Debug, Clone, PartialEq)]
pub struct Elastic {
    /// Coefficients along D, H, W.
    pub shape: [usize; 3],
    /// Grid place of the patch's first voxel.
    pub origin: [f32; 3],
    /// Grid cells from voxel to voxel of the patch.
    pub step: [f32; 3],
    /// Displacements along D, H, W in voxels of the case.
    pub coefficients: Vec<[f32; 3]>,
}

/// Changes of one channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Intensity {
    /// Deviation of a Gaussian in voxels; 0 for none.
    pub blur: f32,
    /// Whether the channel has the low resolution.
    pub low_res: bool,
    /// Factor of all values.
    pub brightness: f32,
    /// Factor of the distances to the mean.
    pub contrast: f32,
    /// Exponent over the range of values.
    pub gamma: f32,
    /// What is added.
    pub shift: f32,
    /// Standard deviation of the noise.
    pub noise: f32,
}

impl Intensity {
    /// No change.
    pub const NONE: Self = Self {
        blur: 0.0,
        low_res: false,
        brightness: 1.0,
        contrast: 1.0,
        gamma: 1.0,
        shift: 0.0,
        noise: 0.0,
    };

    /// Whether mean, least and largest value matter.
    pub fn needs_moments(&self) -> bool {
        self.contrast != 1.0 || self.gamma != 1.0
    }

    /// Whether values change where they are.
    pub fn is_pointwise(&self) -> bool {
        Self { blur: 0.0, low_res: false, ..*self } != Self::NONE
    }
}

/// The generator of one sample: the same for the same seed, step and index.
pub fn rng_for(seed: u64, step: u64, index: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    rng.set_stream(index + 1);
    rng
}

/// Draws a patch of a case, anywhere inside where the case lacks what it should be near.
///
/// # Errors
///
/// Where a point of the case cannot be read.
pub fn draw_patch(
    case: &dyn CaseData,
    size: &PatchSize,
    focus: Focus,
    augment: &Augment,
    rng: &mut ChaCha8Rng,
) -> Result<Draw> {
    let facts = case.facts();
    let point = point(case, &facts, focus, rng)?;
    let centre = centre(facts.shape, size.crop, point, rng);
    Ok(Draw {
        spatial: spatial(facts.spacing, centre, size, augment, rng),
        intensities: (0..facts.channels).map(|_| intensity(augment, rng)).collect(),
        low_res_factor: between(augment.low_res_factor, rng.random()),
        interpolation: augment.interpolation,
        seed: rng.random(),
    })
}

fn between([low, high]: [f32; 2], share: f32) -> f32 {
    low + (high - low) * share
}

/// The voxel that a patch is centred near, D, H, W; none where it may lie anywhere.
fn point(
    case: &dyn CaseData,
    facts: &Facts,
    focus: Focus,
    rng: &mut ChaCha8Rng,
) -> Result<Option<[usize; 3]>> {
    let some = |of: &Points| facts.points(*of) > 0;
    let lists: Vec<Points> = match (focus, facts.smallest) {
        (Focus::Foreground, Some(_)) => {
            (0..facts.foreground.len()).map(Points::Class).filter(some).collect()
        }
        (Focus::Smallest, Some(class)) => vec![Points::Class(class)],
        // where voxels are ignored, a patch far from all others would teach nothing
        _ => [Points::Annotated].into_iter().filter(some).collect(),
    };
    if lists.is_empty() {
        return Ok(None);
    }
    let list = lists[rng.random_range(0..lists.len())];
    let index = case.point(list, rng.random_range(0..facts.points(list)))? as usize;
    let [_, h, w] = facts.shape;
    Ok(Some([index / (h * w), index / w % h, index % w]))
}

fn centre(
    shape: [usize; 3],
    crop: [usize; 3],
    point: Option<[usize; 3]>,
    rng: &mut ChaCha8Rng,
) -> [f32; 3] {
    [0, 1, 2].map(|axis| {
        let (size, want) = (shape[axis], crop[axis]);
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

type Matrix = [[f64; 3]; 3];
const IDENTITY: Matrix = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

fn spatial(
    spacing: [f64; 3],
    centre: [f32; 3],
    size: &PatchSize,
    augment: &Augment,
    rng: &mut ChaCha8Rng,
) -> Spatial {
    let mut matrix = IDENTITY;
    let mut on_voxels = size.crop == size.patch;
    if rng.random::<f32>() < augment.scale_prob {
        let zoom = 1.0 / f64::from(between(augment.scale_range, rng.random()));
        (0..3).for_each(|axis| matrix[axis][axis] *= zoom);
        on_voxels = false;
    }
    if rng.random::<f32>() < augment.rotate_prob {
        for axis in 0..3 {
            let angle = augment.rotate_max[axis] * (2.0 * rng.random::<f32>() - 1.0);
            matrix = product(&rotation(axis, f64::from(angle)), &matrix);
        }
        // rotate in millimetres, not voxels
        for (row, line) in matrix.iter_mut().enumerate() {
            for (column, v) in line.iter_mut().enumerate() {
                *v *= spacing[column] / spacing[row];
            }
        }
        on_voxels = false;
    }
    let ratio = [0, 1, 2].map(|axis| size.crop[axis] as f64 / size.patch[axis] as f64);
    let mirrored = augment.mirror.map(|prob| rng.random::<f32>() < prob);
    let elastic = (rng.random::<f32>() < augment.elastic_prob)
        .then(|| elastic(size.patch, ratio, &matrix, augment, rng));
    let sign = mirrored.map(|m| if m { -1.0 } else { 1.0 });
    Spatial {
        centre: centre.map(|v| fixed(f64::from(v))),
        matrix: [0, 1, 2]
            .map(|row| [0, 1, 2].map(|b| fixed(matrix[row][b] * ratio[b] * sign[b] / 2.0))),
        on_voxels: on_voxels && elastic.is_none(),
        elastic,
    }
}

fn fixed(voxels: f64) -> i32 {
    (voxels * f64::from(1u32 << FRACTION_BITS)).round() as i32
}

fn rotation(axis: usize, angle: f64) -> Matrix {
    let (a, b) = ((axis + 1) % 3, (axis + 2) % 3);
    let mut m = IDENTITY;
    (m[a][a], m[a][b], m[b][a], m[b][b]) = (angle.cos(), -angle.sin(), angle.sin(), angle.cos());
    m
}

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    [0, 1, 2].map(|i| [0, 1, 2].map(|j| (0..3).map(|k| a[i][k] * b[k][j]).sum()))
}

/// Largest coefficient of a field of strength α and smoothness σ: uniform ones have a third of its square as variance.
fn amplitude(alpha: f64, sigma: f64) -> f64 {
    let smoothed = (2.0 * sigma * std::f64::consts::PI.sqrt()).powf(-1.5);
    alpha * smoothed / (151.0f64 / 315.0).powf(1.5)
}

/// Coefficients of a field over a patch, where a cell has `1 / step` voxels.
fn coefficients(patch: [usize; 3], step: [f64; 3]) -> [usize; 3] {
    // four splines reach a place of the last cell; one more for rounding, one for the origin within the first cell
    [0, 1, 2].map(|axis| ((patch[axis] - 1) as f64 * step[axis]).floor() as usize + 6)
}

fn elastic(
    patch: [usize; 3],
    ratio: [f64; 3],
    matrix: &Matrix,
    augment: &Augment,
    rng: &mut ChaCha8Rng,
) -> Elastic {
    let alpha = f64::from(between(augment.elastic_alpha, rng.random()));
    let sigma = f64::from(between(augment.elastic_sigma, rng.random()));
    let step = ratio.map(|voxels| voxels / (sigma * 3f64.sqrt()));
    let origin = [0; 3].map(|_| rng.random::<f32>());
    let shape = coefficients(patch, step);
    let amplitude = amplitude(alpha, sigma);
    let coefficients = (0..shape.iter().product())
        .map(|_| {
            let u = [0; 3].map(|_| amplitude * (2.0 * rng.random::<f64>() - 1.0));
            // the patch is deformed, then rotated and scaled
            [0, 1, 2].map(|row| (0..3).map(|k| matrix[row][k] * u[k]).sum::<f64>() as f32)
        })
        .collect();
    Elastic { shape, origin, step: step.map(|s| s as f32), coefficients }
}

fn intensity(augment: &Augment, rng: &mut ChaCha8Rng) -> Intensity {
    let mut drawn = |prob: f32, range: [f32; 2]| {
        let (chance, share) = (rng.random::<f32>(), rng.random::<f32>());
        (chance < prob).then(|| between(range, share))
    };
    Intensity {
        blur: drawn(augment.blur_prob, augment.blur_sigma).unwrap_or(0.0),
        low_res: drawn(augment.low_res_prob, [0.0; 2]).is_some(),
        brightness: drawn(augment.brightness_prob, augment.brightness_range).unwrap_or(1.0),
        contrast: drawn(augment.contrast_prob, augment.contrast_range).unwrap_or(1.0),
        gamma: drawn(augment.gamma_prob, augment.gamma_range).unwrap_or(1.0),
        shift: drawn(augment.shift_prob, [-augment.shift_max, augment.shift_max]).unwrap_or(0.0),
        noise: drawn(augment.noise_prob, [0.0, augment.noise_std]).unwrap_or(0.0),
    }
}

/// The voxels from `low` to `high` (positions) and those that interpolation reads around them.
fn around(low: f64, high: f64, voxels: usize) -> [usize; 2] {
    let last = (voxels - 1) as f64;
    let first = (low.floor() - 1.0).clamp(0.0, last);
    [first as usize, (high.floor() + 2.0).clamp(first, last) as usize + 1]
}

impl Spatial {
    /// The voxels of a case that a patch of so many voxels (D, H, W) reads.
    pub fn bounds(&self, patch: [usize; 3], case: [usize; 3]) -> VoxelBox {
        let unit = f64::from(1u32 << FRACTION_BITS);
        let ranges = [0, 1, 2].map(|axis| {
            let row = self.matrix[axis];
            let affine: f64 =
                (0..3).map(|b| f64::from(row[b]).abs() * (patch[b] - 1) as f64).sum::<f64>();
            // B-splines stay within their coefficients
            let field = self.elastic.iter().flat_map(|e| &e.coefficients);
            let shift = field.map(|u| f64::from(u[axis]).abs()).fold(0.0, f64::max);
            let (at, reach) = (f64::from(self.centre[axis]) / unit, affine / unit + shift);
            around(at - reach, at + reach, case[axis])
        });
        VoxelBox { low: ranges.map(|[low, _]| low), high: ranges.map(|[_, high]| high) }
    }
}

/// What the draws of a case can ask for at most.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reach {
    /// Voxels from the centre along D, H, W.
    pub voxels: [f64; 3],
    /// Coefficients of a field of displacements.
    pub coefficients: usize,
}

impl Reach {
    /// The most that patches of this size reach in cases of this spacing.
    pub fn of(size: &PatchSize, spacing: [f64; 3], augment: &Augment) -> Self {
        let scaled = augment.scale_prob > 0.0;
        let zoom = if scaled { 1.0 / f64::from(augment.scale_range[0]).min(1.0) } else { 1.0 };
        let mut half = size.crop.map(|n| n as f64 / 2.0 * zoom);
        let mut coefficients_needed = 1;
        if augment.elastic_prob > 0.0 {
            let [alpha, sigma] =
                [augment.elastic_alpha[1], augment.elastic_sigma[0]].map(f64::from);
            half = half.map(|v| v + amplitude(alpha, sigma) * zoom);
            let ratio = [0, 1, 2].map(|axis| size.crop[axis] as f64 / size.patch[axis] as f64);
            let step = ratio.map(|voxels| voxels / (sigma * 3f64.sqrt()));
            coefficients_needed = coefficients(size.patch, step).iter().product();
        }
        if augment.rotate_prob > 0.0 && augment.rotate_max.iter().any(|angle| *angle > 0.0) {
            let millimetres = [0, 1, 2].map(|axis| half[axis] * spacing[axis]);
            let diagonal = millimetres.iter().map(|v| v * v).sum::<f64>().sqrt();
            half = spacing.map(|s| diagonal / s);
        }
        Self { voxels: half, coefficients: coefficients_needed }
    }

    /// Voxels along D, H, W of the largest box that a patch reads of a case.
    pub fn bounds(&self, case: [usize; 3]) -> [usize; 3] {
        // [`Spatial::bounds`] adds up to four voxels to the positions between low and high
        [0, 1, 2].map(|axis| ((2.0 * self.voxels[axis]).ceil() as usize + 5).min(case[axis]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displacements_are_as_strong_and_smooth_as_smoothed_noise() {
        let (alpha, sigma) = (700.0f32, 4.0f32);
        let augment =
            Augment { elastic_alpha: [alpha; 2], elastic_sigma: [sigma; 2], ..Augment::none() };
        let patch = [40; 3];
        let mut rng = rng_for(5, 0, 0);
        let (mut square, mut product_of_neighbours, mut count) = (0.0, 0.0, 0.0);
        let apart = 4;
        for _ in 0..12 {
            let e = elastic(patch, [1.0; 3], &IDENTITY, &augment, &mut rng);
            let at = |i: [usize; 3]| e.at(i)[0];
            for z in (0..40).step_by(3) {
                for y in (0..40).step_by(3) {
                    for x in 0..40 - apart {
                        let (a, b) = (at([z, y, x]), at([z, y, x + apart]));
                        square += a * a;
                        product_of_neighbours += a * b;
                        count += 1.0;
                    }
                }
            }
        }
        let std = (square / count).sqrt();
        let smoothed = (2.0 * f64::from(sigma) * std::f64::consts::PI.sqrt()).powf(-1.5);
        let expected = f64::from(alpha) * smoothed / 3f64.sqrt();
        assert!((std / expected - 1.0).abs() < 0.08, "{std} where {expected}");
        // smoothed noise is correlated by exp(-d² / 4σ²)
        let correlation = product_of_neighbours / square;
        let gaussian = (-(apart as f64).powi(2) / (4.0 * f64::from(sigma).powi(2))).exp();
        assert!((correlation - gaussian).abs() < 0.04, "{correlation} where {gaussian}");
    }
}
