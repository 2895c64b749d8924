//! Voxels that come in another order than the file's, kept on disk until all are there.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};

use ndarray::ArrayView3;

use super::file_order::{Arrangement, Voxel};

/// Bytes of planes that are kept in memory before they become a slab on disk.
const PENDING: usize = 1 << 24;

/// Slabs of canonical planes along D, each stored as a small file of its own would be: then a plane of the file is a run of
/// bytes of each slab that it cuts, whatever the orientation.
pub(super) struct Slabs<T: Voxel> {
    arrangement: Arrangement,
    /// Of the whole volume, D, H, W.
    shape: [usize; 3],
    file: BufWriter<File>,
    /// Planes along D of each slab.
    depths: Vec<usize>,
    /// Planes that are not yet a slab.
    pending: Vec<T>,
}

/// Where a slab lies.
struct Slab {
    /// Its first byte on disk.
    start: u64,
    /// Voxels along the file's axes i, j, k.
    dims: [usize; 3],
    /// Its first voxel along them.
    first: [usize; 3],
}

impl<T: Voxel> Slabs<T> {
    /// For a volume of D, H, W voxels.
    pub(super) fn new(file: File, arrangement: Arrangement, shape: [usize; 3]) -> Self {
        let (file, depths) = (BufWriter::new(file), Vec::new());
        Self { arrangement, shape, file, depths, pending: Vec::new() }
    }

    /// The next planes along D.
    pub(super) fn add(&mut self, planes: ArrayView3<'_, T>) -> io::Result<()> {
        self.pending.extend(planes.iter());
        if self.pending.len() * size_of::<T>() >= PENDING { self.store() } else { Ok(()) }
    }

    fn store(&mut self) -> io::Result<()> {
        let [_, h, w] = self.shape;
        let depth = self.pending.len() / (h * w);
        if depth == 0 {
            return Ok(());
        }
        let planes = ArrayView3::from_shape([depth, h, w], self.pending.as_slice());
        self.arrangement.write(planes.map_err(io::Error::other)?, &mut self.file)?;
        self.depths.push(depth);
        self.pending.clear();
        Ok(())
    }

    /// Writes the volume in the order of its file.
    pub(super) fn write(mut self, to: &mut impl Write) -> io::Result<()> {
        self.store()?;
        let slabs = self.slabs();
        let mut stored = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        let [i, j, k] = self.arrangement.dims(self.shape);
        let size = size_of::<T>();
        let (mut plane, mut piece) = (vec![0; i * j * size], Vec::new());
        for k in 0..k {
            for slab in slabs.iter().filter(|slab| slab.cuts(k)) {
                piece.resize(slab.dims[0] * slab.dims[1] * size, 0);
                let at = (k - slab.first[2]) * piece.len();
                stored.seek(SeekFrom::Start(slab.start + at as u64))?;
                stored.read_exact(&mut piece)?;
                let row = slab.dims[0] * size;
                for (y, values) in piece.chunks(row.max(1)).enumerate() {
                    let start = ((slab.first[1] + y) * i + slab.first[0]) * size;
                    plane[start..start + row].copy_from_slice(values);
                }
            }
            to.write_all(&plane)?;
        }
        Ok(())
    }

    fn slabs(&self) -> Vec<Slab> {
        let [d, h, w] = self.shape;
        let (axis, flipped) = self.arrangement.depth();
        let mut planes = 0;
        let slab = |depth: &usize| {
            let mut first = [0; 3];
            first[axis] = if flipped { d - planes - depth } else { planes };
            let start = (planes * h * w * size_of::<T>()) as u64;
            planes += depth;
            Slab { start, dims: self.arrangement.dims([*depth, h, w]), first }
        };
        self.depths.iter().map(slab).collect()
    }
}

impl Slab {
    /// Whether a plane of the file has voxels of it.
    fn cuts(&self, k: usize) -> bool {
        (self.first[2]..self.first[2] + self.dims[2]).contains(&k)
    }
}

#[cfg(test)]
mod tests {
    use super::super::grid::{Grid, Order};
    use super::super::volume::shaped;
    use super::*;

    /// Visits every voxel of a file of `dims` voxels along i, j, k: index in canonical D, H, W order, index in the file's
    /// order (i fastest).
    fn each(order: &Order, dims: [usize; 3], mut visit: impl FnMut(usize, usize)) {
        let [w, h, d] = order.axes.map(|axis| dims[axis]);
        let strides = [1, dims[0], dims[0] * dims[1]];
        let place = |axis: usize, index: usize, size: usize| {
            let index = if order.flips[axis] { size - 1 - index } else { index };
            index * strides[order.axes[axis]]
        };
        let all = (0..d * h * w).map(|at| [at / (h * w), at / w % h, at % w]);
        for (canonical, [z, y, x]) in all.enumerate() {
            visit(canonical, place(2, z, d) + place(1, y, h) + place(0, x, w));
        }
    }

    #[test]
    fn planes_come_back_in_the_order_of_any_file() {
        let shape = [5, 3, 4];
        let values = shaped(shape, (0..60).map(|v| v as f32).collect()).unwrap();
        for order in Order::all() {
            let mut grid = Grid::ras(shape, [1.0; 3]);
            grid.order = order;
            let arrangement = Arrangement::of(&grid);
            let file = tempfile::tempfile().unwrap();
            let mut slabs = Slabs::new(file, arrangement, shape);
            for planes in [0..1, 1..3, 3..4, 4..5] {
                slabs.add(values.slice(ndarray::s![planes.clone(), .., ..])).unwrap();
                if planes.start < 3 {
                    slabs.store().unwrap();
                }
            }
            assert_eq!(slabs.depths, [1, 2]);
            let (mut found, mut expected) = (Vec::new(), vec![0u8; 240]);
            slabs.write(&mut found).unwrap();
            each(&order, arrangement.dims(shape), |canonical, file| {
                expected[4 * file..][..4].copy_from_slice(&(canonical as f32).to_le_bytes());
            });
            assert_eq!(found, expected, "{order:?}");
            let mut whole = Vec::new();
            arrangement.write(values.view(), &mut whole).unwrap();
            assert_eq!(whole, expected, "{order:?}");
        }
    }
}
