//! Boxes of voxels.

use ndarray::{ArrayView3, s};
use rayon::prelude::*;

/// A half-open box `[low, high)` of voxels, D, H, W.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoxelBox {
    /// First voxel along D, H, W.
    pub low: [usize; 3],
    /// One past the last voxel along D, H, W.
    pub high: [usize; 3],
}

impl VoxelBox {
    /// All voxels of a volume of this shape (D, H, W).
    pub fn whole(shape: [usize; 3]) -> Self {
        Self { low: [0; 3], high: shape }
    }

    /// The smallest box that holds every voxel of a volume (D, H, W) for which `inside(index)` is true; `None` where there is
    /// none. Planes are looked through on all cores.
    pub fn around(shape: [usize; 3], inside: impl Fn(usize) -> bool + Sync) -> Option<Self> {
        let plane = |z: usize| {
            let rows = (0..shape[1]).filter_map(|y| {
                let row = (z * shape[1] + y) * shape[2];
                let first = (0..shape[2]).find(|x| inside(row + x))?;
                let last = (first..shape[2]).rev().find(|x| inside(row + x)).unwrap_or(first);
                Some(Self { low: [z, y, first], high: [z + 1, y + 1, last + 1] })
            });
            rows.reduce(|a, b| a.joined(&b))
        };
        (0..shape[0]).into_par_iter().filter_map(plane).reduce_with(|a, b| a.joined(&b))
    }

    /// The smallest box that holds both.
    pub fn joined(&self, other: &Self) -> Self {
        Self {
            low: [0, 1, 2].map(|axis| self.low[axis].min(other.low[axis])),
            high: [0, 1, 2].map(|axis| self.high[axis].max(other.high[axis])),
        }
    }

    /// The box's part of a volume (D, H, W), where it lies.
    pub fn of<'a, T>(&self, values: ArrayView3<'a, T>) -> ArrayView3<'a, T> {
        let [d, h, w] = [0, 1, 2].map(|axis| self.low[axis]..self.high[axis]);
        values.slice_move(s![d, h, w])
    }

    /// The box with `margin` voxels more on every side, as far as a volume of this shape goes.
    pub fn grown(&self, margin: usize, shape: [usize; 3]) -> Self {
        Self {
            low: self.low.map(|at| at.saturating_sub(margin)),
            high: [0, 1, 2].map(|axis| (self.high[axis] + margin).min(shape[axis])),
        }
    }

    /// Voxels along D, H, W.
    pub fn shape(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.high[axis] - self.low[axis])
    }

    /// The box's rows along W in order, as ranges of indices in a volume of this shape.
    pub fn rows(&self, shape: [usize; 3]) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let Self { low, high } = *self;
        (low[0]..high[0]).flat_map(move |z| {
            (low[1]..high[1]).map(move |y| {
                let row = (z * shape[1] + y) * shape[2];
                row + low[2]..row + high[2]
            })
        })
    }

    /// The values of a volume of this shape in the box.
    pub fn crop<T: Copy>(&self, values: &[T], shape: [usize; 3]) -> Vec<T> {
        let mut cropped = Vec::with_capacity(self.shape().iter().product());
        self.rows(shape).for_each(|row| cropped.extend_from_slice(&values[row]));
        cropped
    }
}
