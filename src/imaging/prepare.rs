//! From a volume to what the network sees: crop, resample, clip, normalise.

use ndarray::{ArrayView3, Axis};

use super::grid::Grid;
use super::interpolation::{Interpolation, Resampling};
use super::normalise::Normalisation;
use super::resample::{nearest, resample};
use super::volume::{LabelMap, Volume};
use super::voxel_box::VoxelBox;
use crate::base::{Error, Result};

/// Label index of voxels that nobody labelled, in memory: no class, hence in no loss, statistic or score.
pub const IGNORED: u8 = 255;

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
    /// Indices of voxels that somebody labelled, thinned; none where all are labelled.
    pub annotated: Vec<u32>,
    /// Voxel indices of each foreground class, thinned where there are many.
    pub foreground: Vec<Vec<u32>>,
    /// Which of these has the fewest voxels, of those that the case has.
    pub smallest: Option<usize>,
    /// What each axis D, H, W of scores is resampled by on the way back to the image's own grid.
    pub back: [Interpolation; 3],
    /// The voxels of the image that it was made of.
    pub(super) crop: VoxelBox,
    /// Where the image's voxels lie.
    pub(super) grid: Grid,
}

/// Voxel indices kept of each class.
const MAX_POINTS: usize = 10_000;
/// Voxels of a case after resampling, at most.
pub const MAX_VOXELS: usize = 1 << 30;
/// Voxels that a case may have after resampling however few it had, and how many times as many a larger one may have: what an
/// image takes follows from its size.
const PLENTY: usize = 1 << 24;
const GROWTH: usize = 64;
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

/// Sizes D, H, W after resampling from a spacing to another; an error where these are absurd.
pub fn resampled_size(old: [usize; 3], from: [f64; 3], to: [f64; 3]) -> Result<[usize; 3]> {
    let refuse = |found: String, expected: &str| {
        let remedy = "Choose a coarser spacing, or correct the voxel sizes of the image.";
        Err(Error::setting("spacing", found, expected, remedy))
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
    let product = |sizes: [usize; 3]| sizes.iter().fold(1, |p: usize, n| p.saturating_mul(*n));
    // one axis grows before another shrinks
    let most = product([0, 1, 2].map(|axis| new[axis].max(old[axis])));
    let found = || format!("{to:?} mm, which makes {new:?} voxels of {old:?} that are {from:?} mm");
    if product(new) > MAX_VOXELS || most > 8 * MAX_VOXELS {
        return refuse(found(), "at most 2^30 voxels");
    }
    if product(new) > PLENTY.max(product(old).saturating_mul(GROWTH)) {
        return refuse(found(), "at most 2^24 voxels, or 64 times as many as the image has");
    }
    Ok(new)
}

/// Crops to the non-zero box, resamples to `spacing` (images as `resampling` says, labels to the nearest voxel), clips and
/// normalises.
///
/// # Errors
///
/// Where labels have another shape than the image, or the spacing makes too many voxels.
pub fn prepare(
    image: &Volume,
    label: Option<&LabelMap>,
    spacing: [f64; 3],
    normalisation: &Normalisation,
    resampling: Resampling,
) -> Result<Prepared> {
    if let Some(label) = label.filter(|label| label.shape() != image.shape()) {
        let found = format!("labels of {:?} voxels", label.shape());
        return Err(Error::shape(
            "prepare",
            format!("{found} for an image of {:?}", image.shape()),
        ));
    }
    let crop = nonzero_box(image);
    let new = resampled_size(crop.shape(), image.spacing(), spacing)?;
    let by = resampling.axes(image.spacing(), spacing);
    let mut data = Vec::new();
    for channel in image.data().axis_iter(Axis(0)) {
        let mut values = resample(crop.of(channel), new, by).into_raw_vec_and_offset().0;
        normalisation.apply(&mut values);
        // a single channel is not copied
        if data.is_empty() { data = values } else { data.extend(values) }
    }
    let label = label.map(|label| nearest(crop.of(label.data().view()), new));
    let (foreground, smallest) = label.as_deref().map(points).unwrap_or_default();
    Ok(Prepared {
        channels: image.channels().len(),
        shape: new,
        spacing,
        image: data,
        outside: normalisation.outside(),
        annotated: label.as_deref().map(annotated).unwrap_or_default(),
        label,
        foreground,
        smallest,
        back: Resampling::back(by),
        crop,
        grid: image.grid().clone(),
    })
}

impl Prepared {
    /// A map of this grid (D, H, W) on the image's own one within the crop, interpolated as [`Prepared::back`] says.
    pub(super) fn on_crop(&self, map: &[f32]) -> Vec<f32> {
        let map = ArrayView3::from_shape(self.shape, map);
        let map = map.map(|map| resample(map, self.crop.shape(), self.back));
        map.map(|map| map.into_raw_vec_and_offset().0).unwrap_or_default()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(shape: [usize; 3], spacing: [f64; 3], data: Vec<f32>) -> Volume {
        Volume::from_intensities(data, Grid::ras(shape, spacing), 0).unwrap()
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
        let prepared = prepare(
            &image,
            Some(&label),
            [1.0, 1.0, 1.0],
            &Normalisation::ZScore,
            Resampling::Cubic,
        )
        .unwrap();
        assert_eq!(prepared.shape, [24, 22, 18]);
        let small = prepared.label.clone().unwrap();
        let scores: Vec<f32> =
            (0..3u8).flat_map(|k| small.iter().map(move |l| f32::from(*l == k))).collect();
        assert_eq!(prepared.restore(&scores, 3).unwrap(), label);
    }

    #[test]
    fn a_stack_of_slices_is_resampled_in_plane_and_by_whole_slices() {
        let shape = [4, 12, 12];
        let data = (0..576).map(|i| 1.0 + (i / 144) as f32 * 10.0 + (i % 12) as f32).collect();
        let image = volume(shape, [6.0, 1.0, 1.0], data);
        let fixed = Normalisation::Fixed { lower: 0.0, upper: 100.0, mean: 0.0, std: 1.0 };
        let of = |resampling| prepare(&image, None, [3.0, 2.0, 2.0], &fixed, resampling).unwrap();
        let stack = of(Resampling::NearestAcross);
        assert_eq!((stack.shape, stack.back[0]), ([8, 6, 6], Interpolation::Nearest));
        let planes: Vec<&[f32]> = stack.image.chunks(36).collect();
        for (plane, slice) in planes.iter().zip([0, 0, 1, 1, 2, 2, 3, 3]) {
            assert_eq!(*plane, planes[2 * slice]);
        }
        let cubic = of(Resampling::Cubic).image;
        assert!(cubic[72..108] != cubic[108..144]);
        // back on its own grid each slice is that of the same place
        let scores: Vec<f32> = (0..8).flat_map(|z| [z as f32; 36]).collect();
        let back = stack.on_crop(&scores);
        let expected: Vec<f32> = [1.0, 3.0, 5.0, 7.0].into_iter().flat_map(|z| [z; 144]).collect();
        assert_eq!(back, expected);
        assert_eq!(of(Resampling::LinearAcross).back, [Interpolation::Linear; 3]);
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
            let message = prepare(&image, None, spacing, &Normalisation::ZScore, Resampling::Cubic)
                .unwrap_err();
            assert!(message.to_string().contains(part), "{spacing:?}: {message}");
        }
        assert_eq!(resampled_size([9, 9, 9], [1.0; 3], [1e9; 3]).unwrap(), [1, 1, 1]);
        // a few voxels do not become a gigabyte, and thick slices become thin
        let message = resampled_size([4; 3], [100.0; 3], [1.0; 3]).unwrap_err().to_string();
        assert!(message.contains("64 times as many"), "{message}");
        let thin = resampled_size([30, 512, 512], [10.0, 0.8, 0.8], [1.0; 3]).unwrap();
        assert_eq!(thin, [300, 410, 410]);
    }

    #[test]
    fn constant_and_empty_images_become_zero() {
        for value in [0.0, 7.0] {
            for kind in [Normalisation::ZScore, Normalisation::Published] {
                let image = volume([4, 4, 4], [1.0; 3], vec![value; 64]);
                let prepared = prepare(&image, None, [1.0; 3], &kind, Resampling::Cubic).unwrap();
                assert!(prepared.image.iter().all(|v| v.abs() < 1e-5));
            }
        }
    }
}
