//! Images and label maps in memory: arrays over a canonical RAS grid.

use std::borrow::Cow;

use ndarray::{Array, Array3, Array4, ArrayView, Dimension, StrideShape};
use rayon::prelude::*;

use super::grid::Grid;
use super::voxel_box::VoxelBox;
use crate::base::{Error, Result};

/// An image: channels over a canonical RAS grid. Every voxel is finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Volume {
    /// C, D, H, W in standard layout.
    data: Array4<f32>,
    grid: Grid,
    notes: Vec<Note>,
}

/// Something odd about an image that can be used all the same.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Note {
    /// So many voxels hold no number that could be a measurement, and count as 0.
    Replaced(usize),
    /// A channel has one value everywhere.
    Constant {
        /// Its position, from 0.
        channel: usize,
        /// The value.
        value: f32,
    },
}

/// Magnitudes above this are marks of missing voxels, not intensities.
const LARGEST: f32 = 1e30;

impl Note {
    /// In words, the channel by its name where there is one.
    pub fn describe(&self, channels: &[String]) -> String {
        match self {
            Self::Replaced(1) => {
                format!("1 voxel is NaN, infinite or beyond ±{LARGEST:e} and counts as 0")
            }
            Self::Replaced(count) => {
                format!("{count} voxels are NaN, infinite or beyond ±{LARGEST:e} and count as 0")
            }
            Self::Constant { channel, value } => {
                let name = channels.get(*channel).cloned().unwrap_or(channel.to_string());
                format!("channel {name} is {value} everywhere")
            }
        }
    }

    /// What is odd about an image, of which so many voxels were replaced.
    fn all(channels: &[f32], voxels: usize, replaced: usize) -> Vec<Self> {
        let replaced = (replaced > 0).then_some(Self::Replaced(replaced));
        let channels = channels.chunks(voxels).enumerate();
        let constant =
            channels.filter(|(_, values)| values.par_iter().all(|value| *value == values[0]));
        let constant =
            constant.map(|(channel, values)| Self::Constant { channel, value: values[0] });
        replaced.into_iter().chain(constant).collect()
    }
}

/// The value of a voxel, a number too small for a normal float as 0; none where it can be no measurement.
pub(super) fn intensity(value: f64) -> Option<f32> {
    let measured = value.is_finite() && value.abs() <= f64::from(LARGEST);
    let value = value as f32;
    measured.then_some(if value.is_subnormal() { 0.0 } else { value })
}

impl Volume {
    /// An image of an array C, D, H, W over a grid of D, H, W voxels. NaN, infinities and magnitudes above 1e30 become 0 and
    /// are counted in the notes. An array in standard layout is taken as it is, another one copied into it.
    ///
    /// # Errors
    ///
    /// Where the array has no voxels, or other sizes than the grid.
    pub fn new(data: Array4<f32>, grid: Grid) -> Result<Self> {
        let mut data = standard(data);
        let replace = |voxel: &mut f32| {
            let value = intensity(f64::from(*voxel));
            *voxel = value.unwrap_or(0.0);
            usize::from(value.is_none())
        };
        let voxels = data.as_slice_mut().unwrap_or_default();
        let replaced = voxels.par_iter_mut().map(replace).sum();
        Self::of(data, grid, replaced)
    }

    /// An image of the voxels of all channels, C, D, H, W, as [`intensity`] gives them.
    pub(super) fn from_intensities(data: Vec<f32>, grid: Grid, replaced: usize) -> Result<Self> {
        let [d, h, w] = grid.shape();
        let channels = data.len() / (d * h * w).max(1);
        Self::of(shaped((channels, d, h, w), data)?, grid, replaced)
    }

    /// `data` is in standard layout.
    fn of(data: Array4<f32>, grid: Grid, replaced: usize) -> Result<Self> {
        check_shape("image", &data.shape()[1..], &grid)?;
        if data.is_empty() {
            return Err(Error::shape("image", "an array without channels"));
        }
        let voxels = grid.shape().iter().product();
        let notes = Note::all(data.as_slice().unwrap_or_default(), voxels, replaced);
        Ok(Self { data, grid, notes })
    }

    /// The voxels, C, D, H, W, in standard layout.
    pub fn data(&self) -> &Array4<f32> {
        &self.data
    }

    /// The voxels alone, C, D, H, W, in standard layout.
    pub fn into_data(self) -> Array4<f32> {
        self.data
    }

    /// The voxels, W fastest, then H, D, C.
    pub fn as_slice(&self) -> &[f32] {
        self.data.as_slice().unwrap_or_default()
    }

    /// The voxels of each channel in turn, W fastest, then H, D.
    pub fn channels(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.as_slice().chunks_exact(self.shape().iter().product())
    }

    /// Voxels along D, H, W.
    pub fn shape(&self) -> [usize; 3] {
        self.grid.shape()
    }

    /// Millimetres along D, H, W.
    pub fn spacing(&self) -> [f64; 3] {
        self.grid.spacing()
    }

    /// Where the voxels lie, and how the input's file has them.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// What is odd about it, such as voxels without a number or a channel without contrast.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }
}

/// A label map over a canonical RAS grid: a value of a label file, or a label index, for each voxel.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelMap {
    /// D, H, W in standard layout.
    data: Array3<u8>,
    grid: Grid,
}

impl LabelMap {
    /// A label map of an array D, H, W over a grid of as many voxels. An array in standard layout is taken as it is, another
    /// one copied into it.
    ///
    /// # Errors
    ///
    /// Where the array has no voxels, or other sizes than the grid.
    pub fn new(data: Array3<u8>, grid: Grid) -> Result<Self> {
        let data = standard(data);
        check_shape("label map", data.shape(), &grid)?;
        Ok(Self { data, grid })
    }

    /// A label map of voxels, W fastest, then H, D.
    ///
    /// # Errors
    ///
    /// Where there are more or fewer than the grid has.
    pub fn from_vec(voxels: Vec<u8>, grid: Grid) -> Result<Self> {
        Self::new(shaped(grid.shape(), voxels)?, grid)
    }

    /// The labels of a box, on a grid of its size that lies anywhere.
    ///
    /// # Errors
    ///
    /// Where the box reaches beyond the map.
    pub fn cropped(&self, bounds: &VoxelBox) -> Result<Self> {
        let whole = self.shape();
        if (0..3).any(|axis| bounds.high[axis] > whole[axis]) {
            let found = format!("voxels up to {:?} of {whole:?} (D, H, W)", bounds.high);
            return Err(Error::shape("label map", found));
        }
        let labels = bounds.of(self.data.view()).to_owned();
        Self::new(labels, Grid::ras(bounds.shape(), self.spacing()))
    }

    /// The labels, D, H, W, in standard layout.
    pub fn data(&self) -> &Array3<u8> {
        &self.data
    }

    /// The labels alone, D, H, W, in standard layout.
    pub fn into_data(self) -> Array3<u8> {
        self.data
    }

    /// The labels, W fastest, then H, D.
    pub fn as_slice(&self) -> &[u8] {
        self.data.as_slice().unwrap_or_default()
    }

    /// The labels, W fastest, then H, D.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.data.as_slice_mut().unwrap_or_default()
    }

    /// Voxels along D, H, W.
    pub fn shape(&self) -> [usize; 3] {
        self.grid.shape()
    }

    /// Millimetres along D, H, W.
    pub fn spacing(&self) -> [f64; 3] {
        self.grid.spacing()
    }

    /// The grid that decides where the voxels lie: the file's own, or that of its image.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }
}

/// The array in standard layout, W fastest; copied only where it is in another.
fn standard<T: Clone, D: Dimension>(data: Array<T, D>) -> Array<T, D> {
    if data.is_standard_layout() { data } else { data.as_standard_layout().into_owned() }
}

/// The values of an array, the last axis fastest; copied only where they lie otherwise.
pub(crate) fn row_major<'a, T: Clone, D: Dimension>(array: ArrayView<'a, T, D>) -> Cow<'a, [T]> {
    match array.to_slice() {
        Some(values) => Cow::Borrowed(values),
        None => Cow::Owned(array.iter().cloned().collect()),
    }
}

/// Values as an array of this shape.
///
/// # Errors
///
/// Where there are more or fewer values.
pub(crate) fn shaped<T, D: Dimension>(
    shape: impl Into<StrideShape<D>>,
    values: Vec<T>,
) -> Result<Array<T, D>> {
    let count = values.len();
    let array = Array::from_shape_vec(shape, values);
    array.map_err(|e| Error::shape("array", format!("{count} values: {e}")))
}

/// Refuses an array D, H, W that is not of a grid's voxels.
pub(super) fn check_shape(what: &str, found: &[usize], grid: &Grid) -> Result<()> {
    let expected = grid.shape();
    if found == expected && !found.contains(&0) {
        return Ok(());
    }
    let found = format!("an array of {found:?} voxels for a grid of {expected:?} (D, H, W)");
    Err(Error::shape(what, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_any_layout_are_taken_in_their_order() {
        let grid = Grid::ras([2, 3, 4], [1.0; 3]);
        let plain = Array3::from_shape_fn((2, 3, 4), |(z, y, x)| (12 * z + 4 * y + x) as u8);
        let turned = Array3::from_shape_fn((4, 3, 2), |(x, y, z)| plain[[z, y, x]]);
        let turned = turned.reversed_axes();
        assert!(!turned.is_standard_layout());
        assert_eq!(*row_major(turned.view()), (0..24).collect::<Vec<u8>>());
        let map = LabelMap::new(turned, grid.clone()).unwrap();
        assert_eq!(map, LabelMap::from_vec((0..24).collect(), grid.clone()).unwrap());
        assert_eq!(map.as_slice(), (0..24).collect::<Vec<u8>>());
        let image = plain.map(|v| f32::from(*v)).insert_axis(ndarray::Axis(0));
        let image = Volume::new(image, grid).unwrap();
        assert_eq!(image.channels().len(), 1);
        assert!(
            image
                .channels()
                .all(|values| values.iter().zip(0u8..).all(|(v, i)| *v == f32::from(i)))
        );
    }

    #[test]
    fn other_sizes_than_the_grids_are_refused() {
        let grid = Grid::ras([2, 3, 4], [1.0; 3]);
        let message = LabelMap::new(Array3::zeros((4, 3, 2)), grid.clone()).unwrap_err();
        assert!(message.to_string().contains("[4, 3, 2]"), "{message}");
        assert!(LabelMap::from_vec(vec![0; 23], grid.clone()).is_err());
        assert!(LabelMap::from_vec(vec![0; 25], grid.clone()).is_err());
        assert!(Volume::new(Array4::zeros((0, 2, 3, 4)), grid.clone()).is_err());
        assert!(Volume::new(Array4::zeros((1, 2, 3, 5)), grid.clone()).is_err());
        assert!(Volume::new(Array4::zeros((3, 2, 3, 4)), grid).is_ok());
    }

    #[test]
    fn what_is_no_measurement_becomes_zero_and_is_told() {
        let grid = Grid::ras([1, 1, 4], [1.0; 3]);
        let voxels = vec![f32::NAN, 1e31, f32::MIN_POSITIVE / 2.0, 5.0];
        let image = Volume::new(shaped((1, 1, 1, 4), voxels).unwrap(), grid).unwrap();
        assert_eq!(image.as_slice(), [0.0, 0.0, 0.0, 5.0]);
        assert_eq!(image.notes(), [Note::Replaced(2)]);
    }
}
