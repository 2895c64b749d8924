//! The voxel grid of an input file, and its relation to the canonical RAS axes.

use nifti::{Endianness, NiftiHeader};

/// An input's own grid: what is needed to write a result back with its size, orientation, affine and header.
#[derive(Debug, Clone)]
pub struct Grid {
    pub(super) header: NiftiHeader,
    pub(super) extensions: Vec<(i32, Vec<u8>)>,
    /// Voxels along the input's axes i, j, k.
    pub dims: [usize; 3],
    /// Voxel indices (i, j, k, 1) to world millimetres, rows x, y, z.
    pub affine: [[f64; 4]; 3],
    /// Input axis of each canonical axis x, y, z.
    axes: [usize; 3],
    /// Whether the input runs against the canonical axis.
    flips: [bool; 3],
}

impl Grid {
    pub(super) fn new(
        header: NiftiHeader,
        extensions: Vec<(i32, Vec<u8>)>,
        dims: [usize; 3],
    ) -> Self {
        let affine = affine(&header).map(|row| row.map(|v| v * millimetres(&header)));
        let (axes, flips) = orientation(&affine);
        Self { header, extensions, dims, affine, axes, flips }
    }

    /// A RAS grid of the given shape (D, H, W) and spacing in mm (D, H, W).
    pub fn ras(shape: [usize; 3], spacing: [f64; 3]) -> Self {
        let [d, h, w] = spacing.map(|s| s as f32);
        let header = NiftiHeader {
            pixdim: [1.0, w, h, d, 1.0, 1.0, 1.0, 1.0],
            sform_code: 1,
            srow_x: [w, 0.0, 0.0, 0.0],
            srow_y: [0.0, h, 0.0, 0.0],
            srow_z: [0.0, 0.0, d, 0.0],
            xyzt_units: 2,
            endianness: Endianness::Little,
            ..NiftiHeader::default()
        };
        Self::new(header, Vec::new(), [shape[2], shape[1], shape[0]])
    }

    /// Canonical shape D, H, W.
    pub fn shape(&self) -> [usize; 3] {
        [2, 1, 0].map(|axis| self.dims[self.axes[axis]])
    }

    /// Canonical spacing in mm, D, H, W.
    pub fn spacing(&self) -> [f64; 3] {
        [2, 1, 0].map(|axis| {
            let column = self.axes[axis];
            self.affine.iter().map(|row| row[column] * row[column]).sum::<f64>().sqrt()
        })
    }

    /// Visits every voxel: index in canonical D, H, W order, index in the file's order (i fastest).
    pub(super) fn each(&self, mut visit: impl FnMut(usize, usize)) {
        let [d, h, w] = self.shape();
        let strides = [1, self.dims[0], self.dims[0] * self.dims[1]];
        let place = |axis: usize, index: usize, size: usize| {
            let index = if self.flips[axis] { size - 1 - index } else { index };
            index * strides[self.axes[axis]]
        };
        let mut canonical = 0;
        for z in 0..d {
            for y in 0..h {
                let start = place(2, z, d) + place(1, y, h);
                for x in 0..w {
                    visit(canonical, start + place(0, x, w));
                    canonical += 1;
                }
            }
        }
    }

    /// Canonical voxel indices (x, y, z, 1) to world millimetres, rows x, y, z.
    pub fn canonical_affine(&self) -> [[f64; 4]; 3] {
        self.affine.map(|row| {
            let mut out = [0.0, 0.0, 0.0, row[3]];
            for axis in 0..3 {
                let column = row[self.axes[axis]];
                out[axis] = if self.flips[axis] { -column } else { column };
                if self.flips[axis] {
                    out[3] += column * (self.dims[self.axes[axis]] - 1) as f64;
                }
            }
            out
        })
    }

    /// Whether two grids put their canonical voxels at the same places, within a hundredth of a millimetre.
    pub fn same_place(&self, other: &Self) -> bool {
        let (a, b) = (self.canonical_affine(), other.canonical_affine());
        a.iter().flatten().zip(b.iter().flatten()).all(|(a, b)| (a - b).abs() < 1e-2)
    }
}

/// Millimetres in a header's unit of length; files without a unit mean millimetres.
fn millimetres(header: &NiftiHeader) -> f64 {
    match header.xyzt_units & 7 {
        1 => 1e3,
        3 => 1e-3,
        _ => 1.0,
    }
}

/// sform, else qform, else pixdim, as NIfTI-1 ranks them; unusable ones are passed over.
fn affine(header: &NiftiHeader) -> [[f64; 4]; 3] {
    let rows = |rows: [[f32; 4]; 3]| rows.map(|row| row.map(f64::from));
    let sform = rows([header.srow_x, header.srow_y, header.srow_z]);
    if header.sform_code > 0 && usable(&sform) {
        return sform;
    }
    if header.qform_code > 0 {
        let qform = qform(header);
        if usable(&qform) {
            return qform;
        }
    }
    let size = |axis: usize| {
        let step = f64::from(header.pixdim[axis + 1]).abs();
        if step.is_finite() && step > 0.0 { step } else { 1.0 }
    };
    [[size(0), 0.0, 0.0, 0.0], [0.0, size(1), 0.0, 0.0], [0.0, 0.0, size(2), 0.0]]
}

fn usable(affine: &[[f64; 4]; 3]) -> bool {
    let column = |j: usize| affine.iter().map(|row| row[j] * row[j]).sum::<f64>();
    affine.iter().flatten().all(|v| v.is_finite()) && (0..3).all(|j| column(j) > 1e-12)
}

/// Rotation from the quaternion, times voxel sizes, as in the NIfTI-1 standard (method 2).
fn qform(header: &NiftiHeader) -> [[f64; 4]; 3] {
    let [b, c, d] = [header.quatern_b, header.quatern_c, header.quatern_d].map(f64::from);
    let a = (1.0 - (b * b + c * c + d * d)).max(0.0).sqrt();
    let rotation = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    let factor = if header.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
    let [i, j, k] = [header.pixdim[1], header.pixdim[2], header.pixdim[3]].map(f64::from);
    let offset = [header.quatern_x, header.quatern_y, header.quatern_z].map(f64::from);
    [0, 1, 2].map(|r| {
        let row = rotation[r];
        [row[0] * i, row[1] * j, row[2] * k * factor, offset[r]]
    })
}

/// The assignment of input axes to x, y, z with the largest total alignment, and directions.
fn orientation(affine: &[[f64; 4]; 3]) -> ([usize; 3], [bool; 3]) {
    let norm = |j: usize| affine.iter().map(|row| row[j] * row[j]).sum::<f64>().sqrt();
    let alignment = |axes: &[usize; 3]| {
        (0..3).map(|world| (affine[world][axes[world]] / norm(axes[world])).abs()).sum::<f64>()
    };
    let candidates = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let mut best = candidates[0];
    for axes in candidates {
        if alignment(&axes) > alignment(&best) + 1e-9 {
            best = axes;
        }
    }
    (best, [0, 1, 2].map(|world| affine[world][best[world]] < 0.0))
}
