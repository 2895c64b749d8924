//! Images and masks of plain values.

use std::path::Path;

use ndarray::{Array4, ArrayView3};
use u2seg::Result;
use u2seg::low_level::imaging::{self, Grid, Volume};

/// The values D, H, W as an array of the grid's shape, or of one that does not fit it.
fn array<'a, T>(values: &'a [T], grid: &Grid) -> ArrayView3<'a, T> {
    let fits = grid.shape().iter().product::<usize>() == values.len();
    let shape = if fits { grid.shape() } else { [1, 1, values.len()] };
    ArrayView3::from_shape(shape, values).unwrap()
}

pub fn write_mask(path: &Path, labels: &[u8], grid: &Grid) -> Result<()> {
    imaging::write_mask(path, array(labels, grid), grid)
}

pub fn write_image(path: &Path, values: &[f32], grid: &Grid) -> Result<()> {
    imaging::write_image(path, array(values, grid), grid)
}

/// An image of the values C, D, H, W.
pub fn volume(channels: usize, values: Vec<f32>, grid: &Grid) -> Volume {
    let [d, h, w] = grid.shape();
    Volume::new(Array4::from_shape_vec((channels, d, h, w), values).unwrap(), grid.clone()).unwrap()
}
