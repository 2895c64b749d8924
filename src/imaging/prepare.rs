//! From a volume to what the network sees, and back: crop, resample, clip, normalise.

use ndarray::Array4;

use super::grid::Grid;
use super::resample::{resample_cubic, resample_linear, resample_nearest};
use super::volume::{LabelMap, Volume, shaped};
use super::voxel_box::VoxelBox;
use crate::base::{Error, Result};

/// Label index of voxels that nobody labelled, in memory: no class, hence in no loss, statistic or score.
pub const IGNORED: u8 = 255;

/// How intensities become comparable.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum Normalisation {
    /// Clip to the 0.5th to 99.5th percentile of the non-zero voxels, subtract their mean, divide by their deviation.
    ZScore,
    /// Clip to fixed bounds, subtract a fixed mean, divide by a fixed deviation (CT, from the dataset's labels).
    Fixed {
        /// Smaller values become this one.
        lower: f32,
        /// Larger values become this one.
        upper: f32,
        /// What is subtracted.
        mean: f32,
        /// What is divided by.
        std: f32,
    },
    /// The published way: clip below −1024, then to the 2nd to 98th percentile; mean and deviation of positive voxels;
    /// voxels that are 0 stay 0.
    Published,
}

/// A case on its domain's grid.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Image channels.
    pub channels: usize,
    /// D, H, W on the domain's spacing.
    pub shape: [usize; 3],
    /// Millimetres, D, H, W.
    pub spacing: [f64; 3],
    /// C, D, H, W, normalised.
    pub image: Vec<f32>,
    /// What patches hold beyond the case: the lower bound where bounds are fixed (air in a CT), else 0, the mean.
    pub outside: f32,
    /// Label indices, D, H, W; absent for images without labels.
    pub label: Option<Vec<u8>>,
    /// Bits of the classes or regions whose labels the case lacks.
    pub unlabelled: [u32; 8],
    /// Indices of voxels that somebody labelled, thinned; none where all are labelled.
    pub annotated: Vec<u32>,
    /// Voxel indices of each foreground class, thinned where there are many.
    pub foreground: Vec<Vec<u32>>,
    /// Which of these has the fewest voxels, of those that the case has.
    pub smallest: Option<usize>,
    /// The voxels of the image that it was made of.
    crop: VoxelBox,
    /// Where the image's voxels lie.
    grid: Grid,
}

/// Voxel indices kept of each class.
const MAX_POINTS: usize = 10_000;
/// Voxels of a case after resampling, at most.
pub const MAX_VOXELS: usize = 1 << 30;
/// Voxels around the non-zero box.
const MARGIN: usize = 5;

/// The box of voxels that are not zero in some channel, with a margin; all of an empty volume.
pub fn nonzero_box(image: &Volume) -> VoxelBox {
    let shape = image.shape();
    let channels: Vec<&[f32]> = image.channels().collect();
    let nonzero = |index: usize| channels.iter().any(|values| values[index] != 0.0);
    let found = VoxelBox::around(shape, nonzero).unwrap_or(VoxelBox::whole(shape));
    found.grown(MARGIN, shape)
}

/// Value at a percentile of sorted values; 0 of none.
pub fn percentile(sorted: &[f32], percent: f64) -> f32 {
    if sorted.is_empty() {
        return 0.0;
    }
    let at = percent / 100.0 * (sorted.len() - 1) as f64;
    let (low, t) = (at.floor() as usize, at.fract() as f32);
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] * (1.0 - t) + sorted[high] * t
}

fn moments<'a>(values: impl Iterator<Item = &'a f32> + Clone) -> (f32, f32) {
    let count = values.clone().count().max(1) as f64;
    let mean = values.clone().map(|v| f64::from(*v)).sum::<f64>() / count;
    let variance = values.map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / count;
    (mean as f32, variance.sqrt() as f32)
}

/// Within bounds; whatever their order, and whether or not they are numbers, never a panic.
fn clip(value: f32, lower: f32, upper: f32) -> f32 {
    value.max(lower).min(upper)
}

/// How much values are multiplied by to have a deviation of 1; 0 where they differ by rounding alone.
fn scale(mean: f32, std: f32) -> f32 {
    if std > 1e-8 && std > 1e-6 * mean.abs() { 1.0 / std } else { 0.0 }
}

/// `(value - mean) * scale`, finite for whatever finite values.
fn standard(value: f32, mean: f32, scale: f32) -> f32 {
    let plain = (value - mean) * scale;
    if plain.is_finite() {
        return plain;
    }
    let wide = (f64::from(value) - f64::from(mean)) * f64::from(scale);
    let most = f64::from(f32::MAX);
    if wide.is_nan() { 0.0 } else { wide.clamp(-most, most) as f32 }
}

impl Normalisation {
    /// Whether a plan may have it.
    pub fn is_usable(&self) -> bool {
        match self {
            Self::ZScore | Self::Published => true,
            Self::Fixed { lower, upper, mean, std } => {
                let finite = [lower, upper, mean, std].into_iter().all(|v| v.is_finite());
                finite && lower <= upper && *std >= 0.0
            }
        }
    }

    fn outside(&self) -> f32 {
        match self {
            Self::Fixed { lower, mean, std, .. } => standard(*lower, *mean, scale(*mean, *std)),
            _ => 0.0,
        }
    }

    /// Normalises one channel in place; a constant one becomes zero. Finite values stay finite.
    pub fn apply(&self, values: &mut [f32]) {
        let (lower, upper, mean, std) = match self {
            Self::Fixed { lower, upper, mean, std } => (*lower, *upper, *mean, *std),
            Self::ZScore => {
                let mut sorted: Vec<f32> = values.iter().copied().filter(|v| *v != 0.0).collect();
                sorted.sort_by(f32::total_cmp);
                let (lower, upper) = (percentile(&sorted, 0.5), percentile(&sorted, 99.5));
                sorted.iter_mut().for_each(|v| *v = clip(*v, lower, upper));
                let (mean, std) = moments(sorted.iter());
                (lower.min(0.0), upper.max(0.0), mean, std)
            }
            Self::Published => {
                values.iter_mut().for_each(|v| *v = v.max(-1024.0));
                let mut sorted = values.to_vec();
                sorted.sort_by(f32::total_cmp);
                let (lower, upper) = (percentile(&sorted, 2.0), percentile(&sorted, 98.0));
                sorted.iter_mut().for_each(|v| *v = clip(*v, lower, upper));
                let (mean, std) = moments(sorted.iter().filter(|v| **v > 0.0));
                (lower, upper, mean, std)
            }
        };
        let scale = scale(mean, std);
        let zero = matches!(self, Self::Published);
        values.iter_mut().for_each(|v| {
            let clipped = clip(*v, lower, upper);
            *v = if zero && clipped == 0.0 { 0.0 } else { standard(clipped, mean, scale) };
        });
    }
}

/// Sizes D, H, W after resampling; an error where these are absurd.
fn resampled(old: [usize; 3], from: [f64; 3], to: [f64; 3]) -> Result<[usize; 3]> {
    let refuse = |found: String, expected: &str| {
        Err(Error::setting("spacing", found, expected, "Choose a coarser spacing."))
    };
    let sensible = |edge: &f64| edge.is_finite() && *edge > 0.0;
    if !from.iter().chain(&to).all(sensible) {
        return refuse(format!("{to:?} mm, of a case of {from:?} mm"), "edges above 0 mm");
    }
    let new = [0, 1, 2].map(|axis| {
        let ratio = from[axis] / to[axis];
        if (ratio - 1.0).abs() < 1e-3 {
            old[axis]
        } else {
            ((old[axis] as f64 * ratio).round() as usize).max(1)
        }
    });
    let product = |sizes: [usize; 3]| sizes.iter().try_fold(1, |p: usize, n| p.checked_mul(*n));
    // one axis grows before another shrinks
    let most = product([0, 1, 2].map(|axis| new[axis].max(old[axis])));
    if product(new).is_none_or(|n| n > MAX_VOXELS) || most.is_none_or(|n| n > 8 * MAX_VOXELS) {
        return refuse(
            format!("{to:?} mm, which makes {new:?} voxels of {old:?}"),
            "at most 2^30 voxels",
        );
    }
    Ok(new)
}

/// Crops to the non-zero box, resamples to `spacing` (cubic B-spline images, nearest labels), clips and normalises.
pub fn prepare(
    image: &Volume,
    label: Option<&LabelMap>,
    spacing: [f64; 3],
    normalisation: &Normalisation,
) -> Result<Prepared> {
    if let Some(label) = label.filter(|label| label.shape() != image.shape()) {
        let found = format!("labels of {:?} voxels", label.shape());
        return Err(Error::shape(
            "prepare",
            format!("{found} for an image of {:?}", image.shape()),
        ));
    }
    let crop = nonzero_box(image);
    let (shape, old) = (image.shape(), crop.shape());
    let new = resampled(old, image.spacing(), spacing)?;
    let mut data = Vec::new();
    for channel in image.channels() {
        let mut values = resample_cubic(&crop.crop(channel, shape), old, new);
        normalisation.apply(&mut values);
        data.extend(values);
    }
    let label = label.map(|l| resample_nearest(&crop.crop(l.as_slice(), shape), old, new));
    let (foreground, smallest) = label.as_deref().map(points).unwrap_or_default();
    Ok(Prepared {
        channels: image.channels().len(),
        shape: new,
        spacing,
        image: data,
        outside: normalisation.outside(),
        annotated: label.as_deref().map(annotated).unwrap_or_default(),
        unlabelled: [0; 8],
        label,
        foreground,
        smallest,
        crop,
        grid: image.grid().clone(),
    })
}

/// Voxels D, H, W that an image has once it is cropped and resampled to `spacing`; an error where they would be too many.
pub fn prepared_size(image: &Volume, spacing: [f64; 3]) -> Result<[usize; 3]> {
    resampled(nonzero_box(image).shape(), image.spacing(), spacing)
}

/// Voxels that are not to be ignored, thinned evenly; none where no voxel is.
fn annotated(label: &[u8]) -> Vec<u32> {
    if !label.contains(&IGNORED) {
        return Vec::new();
    }
    thinned((0..label.len() as u32).filter(|i| label[*i as usize] != IGNORED).collect())
}

fn thinned(all: Vec<u32>) -> Vec<u32> {
    let step = all.len().div_ceil(MAX_POINTS).max(1);
    all.into_iter().step_by(step).collect()
}

/// Voxels of each class from 1, thinned evenly, and the position of the class with the fewest.
fn points(label: &[u8]) -> (Vec<Vec<u32>>, Option<usize>) {
    let classes = label.iter().copied().filter(|l| *l != IGNORED).max().unwrap_or(0);
    let mut counts = Vec::new();
    let points = (1..=classes)
        .map(|class| {
            let all: Vec<u32> =
                (0..label.len() as u32).filter(|i| label[*i as usize] == class).collect();
            counts.push(all.len());
            thinned(all)
        })
        .collect();
    let present = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    (points, present.min_by_key(|(_, count)| **count).map(|(class, _)| class))
}

impl Prepared {
    /// Scores (K, D, H, W on this grid) resampled linearly to the image's own grid, largest wins; background outside the crop.
    pub fn restore(&self, scores: &[f32], classes: usize) -> Result<LabelMap> {
        let size = self.crop.shape();
        let voxels: usize = self.shape.iter().product();
        let mut best = vec![f32::NEG_INFINITY; size.iter().product()];
        let mut labels = vec![0u8; best.len()];
        for class in 0..classes {
            let score =
                resample_linear(&scores[class * voxels..(class + 1) * voxels], self.shape, size);
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
            let score = resample_linear(score, self.shape, size);
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
        let size = self.crop.shape();
        let [d, h, w] = self.grid.shape();
        let maps = maps.chunks(self.shape.iter().product());
        let shape = (maps.len(), d, h, w);
        let mut all = Vec::with_capacity(maps.len() * d * h * w);
        for (class, map) in maps.enumerate() {
            all.resize((class + 1) * d * h * w, outside(class));
            self.paste(&resample_linear(map, self.shape, size), &mut all[class * d * h * w..]);
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

    fn volume(shape: [usize; 3], spacing: [f64; 3], data: Vec<f32>) -> Volume {
        Volume::from_intensities(data, Grid::ras(shape, spacing), 0).unwrap()
    }

    #[test]
    fn beyond_a_ct_lies_its_lower_bound() {
        let ct = Normalisation::Fixed { lower: -160.0, upper: 240.0, mean: 40.0, std: 100.0 };
        assert_eq!((ct.outside(), Normalisation::ZScore.outside()), (-2.0, 0.0));
    }

    #[test]
    fn a_case_returns_to_its_own_grid() {
        let shape = [12, 30, 20];
        let mut data = vec![0.0; 12 * 30 * 20];
        let mut labels = vec![0u8; data.len()];
        for z in 3..9 {
            for y in 8..20 {
                for x in 7..15 {
                    let i = (z * 30 + y) * 20 + x;
                    data[i] = 1.0 + (x % 3) as f32;
                    labels[i] = u8::from(x > 10) + u8::from(y > 12);
                }
            }
        }
        let image = volume(shape, [2.0, 1.0, 1.0], data);
        let label = LabelMap::from_vec(labels, image.grid().clone()).unwrap();
        let prepared =
            prepare(&image, Some(&label), [1.0, 1.0, 1.0], &Normalisation::ZScore).unwrap();
        assert_eq!(prepared.shape, [24, 22, 18]);
        let small = prepared.label.clone().unwrap();
        let scores: Vec<f32> =
            (0..3u8).flat_map(|k| small.iter().map(move |l| f32::from(*l == k))).collect();
        assert_eq!(prepared.restore(&scores, 3).unwrap(), label);
    }

    #[test]
    fn whatever_finite_values_come_finite_ones_go() {
        let wild = [f32::MAX, f32::MIN, 0.0, 1e30, -1e30, f32::MIN_POSITIVE, 1e-30, -7.0, 7.0];
        let fixed = |lower, upper, mean, std| Normalisation::Fixed { lower, upper, mean, std };
        let kinds = [
            Normalisation::ZScore,
            Normalisation::Published,
            fixed(-160.0, 240.0, 40.0, 100.0),
            // what a plan that was edited by hand may hold
            fixed(1.0, -1.0, 0.0, 1e-7),
            fixed(f32::MIN, f32::MAX, f32::MIN, 1e-7),
            fixed(f32::NAN, f32::INFINITY, f32::NAN, f32::NAN),
            fixed(f32::NEG_INFINITY, f32::INFINITY, f32::INFINITY, 1.0),
        ];
        for kind in &kinds {
            assert!(kind.outside().is_finite(), "{kind:?}");
            for count in 0..=wild.len() {
                let mut values = wild[..count].to_vec();
                kind.apply(&mut values);
                assert!(values.iter().all(|v| v.is_finite()), "{kind:?}: {values:?}");
            }
        }
    }

    #[test]
    fn absurd_spacings_are_errors() {
        let image = volume([2, 2, 2], [1.0; 3], vec![1.0; 8]);
        for (spacing, part) in [
            ([1e-6, 1e-6, 1e6], "2^30"),
            ([1e-6; 3], "2^30"),
            ([1e-300; 3], "2^30"),
            ([1e-9, 1.0, 1e9], "2^30"),
            ([0.0, 1.0, 1.0], "above 0"),
            ([f64::NAN, 1.0, 1.0], "above 0"),
            ([-1.0, 1.0, 1.0], "above 0"),
        ] {
            let message = prepare(&image, None, spacing, &Normalisation::ZScore).unwrap_err();
            assert!(message.to_string().contains(part), "{spacing:?}: {message}");
        }
        assert_eq!(resampled([9, 9, 9], [1.0; 3], [1e9; 3]).unwrap(), [1, 1, 1]);
    }

    #[test]
    fn constant_and_empty_images_become_zero() {
        for value in [0.0, 7.0] {
            for kind in [Normalisation::ZScore, Normalisation::Published] {
                let image = volume([4, 4, 4], [1.0; 3], vec![value; 64]);
                let prepared = prepare(&image, None, [1.0; 3], &kind).unwrap();
                assert!(prepared.image.iter().all(|v| v.abs() < 1e-5));
            }
        }
    }
}
