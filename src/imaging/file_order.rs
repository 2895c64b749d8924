//! Voxels from their canonical order into a file's own.

use std::io::{self, Write};
use std::ops::Range;

use bytemuck::Pod;
use ndarray::{ArrayView3, Axis, Slice};
use nifti::{Endianness, NiftiType};
use rayon::prelude::*;

use super::grid::{Grid, Order};
use crate::base::files::Effort;

/// A type of voxels that is written.
pub(super) trait Voxel: Copy + Send + Sync {
    const KIND: NiftiType;
    /// How hard packing such values is tried.
    const EFFORT: Effort;
    /// What its bytes are, in the order of the file.
    type Stored: Pod + Send;
    fn stored(self, order: Endianness) -> Self::Stored;
}

impl Voxel for u8 {
    const KIND: NiftiType = NiftiType::Uint8;
    const EFFORT: Effort = Effort::Little;
    type Stored = u8;
    fn stored(self, _: Endianness) -> u8 {
        self
    }
}

impl Voxel for i16 {
    const KIND: NiftiType = NiftiType::Int16;
    const EFFORT: Effort = Effort::Least;
    type Stored = u16;
    fn stored(self, order: Endianness) -> u16 {
        match order {
            Endianness::Little => (self as u16).to_le(),
            Endianness::Big => (self as u16).to_be(),
        }
    }
}

impl Voxel for f32 {
    const KIND: NiftiType = NiftiType::Float32;
    const EFFORT: Effort = Effort::Least;
    type Stored = u32;
    fn stored(self, order: Endianness) -> u32 {
        match order {
            Endianness::Little => self.to_bits().to_le(),
            Endianness::Big => self.to_bits().to_be(),
        }
    }
}

/// Bytes that a thread puts in order at a time.
const GROUP: usize = 1 << 22;

/// How the voxels of a file lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrangement {
    order: Order,
    endianness: Endianness,
}

impl Arrangement {
    pub(super) fn of(grid: &Grid) -> Self {
        Self { order: grid.order, endianness: grid.header.endianness }
    }

    /// Whether canonical planes along D follow one another in the file.
    pub(super) fn streams(&self) -> bool {
        self.order.axes[2] == 2 && !self.order.flips[2]
    }

    /// The file's axis along which D runs, and whether it runs against it.
    pub(super) fn depth(&self) -> (usize, bool) {
        (self.order.axes[2], self.order.flips[2])
    }

    /// Voxels along the file's axes i, j, k of a block of these canonical ones, D, H, W.
    pub(super) fn dims(&self, shape: [usize; 3]) -> [usize; 3] {
        let mut dims = [0; 3];
        (0..3).for_each(|world| dims[self.order.axes[world]] = shape[2 - world]);
        dims
    }

    /// The first and last voxel along the file's axes i, j, k of a box of these first and last canonical ones, D, H, W, of a
    /// volume of `shape`.
    pub(super) fn in_file(
        &self,
        [low, high]: [[usize; 3]; 2],
        shape: [usize; 3],
    ) -> [[usize; 3]; 2] {
        let mut found = [[0; 3]; 2];
        for world in 0..3 {
            let (axis, canonical) = (self.order.axes[world], 2 - world);
            let last = shape[canonical] - 1;
            let (low, high) = (low[canonical], high[canonical]);
            let flipped = self.order.flips[world];
            found[0][axis] = if flipped { last - high } else { low };
            found[1][axis] = if flipped { last - low } else { high };
        }
        found
    }

    /// Writes canonical values (D, H, W) as the file has them, i fastest; of the whole volume they are the file's, of a block
    /// a small file of their own.
    pub(super) fn write<T: Voxel>(
        &self,
        values: ArrayView3<'_, T>,
        to: &mut impl Write,
    ) -> io::Result<()> {
        let [i, j, k] = self.dims(sizes(&values));
        let planes = (GROUP / (i * j * size_of::<T>()).max(1)).max(1);
        let groups: Vec<_> = (0..k).step_by(planes).map(|at| at..(at + planes).min(k)).collect();
        for some in groups.chunks(rayon::current_num_threads()) {
            let ordered = some.par_iter().map(|group| self.planes(values, group.clone()));
            for group in ordered.collect::<Vec<_>>() {
                to.write_all(bytemuck::cast_slice(&group))?;
            }
        }
        Ok(())
    }

    /// Planes along the file's slowest axis.
    fn planes<T: Voxel>(&self, values: ArrayView3<'_, T>, k: Range<usize>) -> Vec<T::Stored> {
        let Order { axes, flips } = self.order;
        let slow = if axes[0] == 2 {
            0
        } else if axes[1] == 2 {
            1
        } else {
            2
        };
        let all = self.dims(sizes(&values))[2];
        let canonical = if flips[slow] { all - k.end..all - k.start } else { k };
        let values = values.slice_axis_move(Axis(2 - slow), Slice::from(canonical));
        let shape = sizes(&values);
        let dims = self.dims(shape);
        let strides = [1, dims[0], dims[0] * dims[1]];
        let place = |world: usize, index: usize| {
            let index = if flips[world] { shape[2 - world] - 1 - index } else { index };
            index * strides[axes[world]]
        };
        let mut stored = vec![bytemuck::Zeroable::zeroed(); values.len()];
        for (z, plane) in values.axis_iter(Axis(0)).enumerate() {
            for (y, row) in plane.axis_iter(Axis(0)).enumerate() {
                let start = place(2, z) + place(1, y);
                if axes[0] == 0 {
                    let own = &mut stored[start..start + shape[2]];
                    let values = row.iter().map(|value| value.stored(self.endianness));
                    match flips[0] {
                        false => own.iter_mut().zip(values).for_each(|(to, value)| *to = value),
                        true => own.iter_mut().rev().zip(values).for_each(|(to, v)| *to = v),
                    }
                } else {
                    for (x, value) in row.iter().enumerate() {
                        stored[start + place(0, x)] = value.stored(self.endianness);
                    }
                }
            }
        }
        stored
    }
}

fn sizes<T>(values: &ArrayView3<'_, T>) -> [usize; 3] {
    let (d, h, w) = values.dim();
    [d, h, w]
}
