//! The voxel grid of an input file, and its relation to the canonical RAS axes.

use std::sync::Arc;

use nifti::{Endianness, NiftiHeader};

use super::dicom::Origin;

/// An input's own grid: what is needed to write a result back with its size, orientation, affine and header.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    pub(super) header: NiftiHeader,
    pub(super) extensions: Vec<(i32, Vec<u8>)>,
    /// Voxels along the input's axes i, j, k.
    pub dims: [usize; 3],
    /// Voxel indices (i, j, k, 1) to world millimetres, rows x, y, z.
    pub affine: [[f64; 4]; 3],
    /// How the input's axes run along the canonical ones.
    pub(super) order: Order,
    /// Of DICOM files, what a segmentation says of them.
    pub(super) origin: Option<Arc<Origin>>,
}

/// The axes of a file along three other axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    /// File axis of each other axis (x, y, z where these are the canonical ones).
    pub(super) axes: [usize; 3],
    /// Whether the file runs against that axis.
    pub(super) flips: [bool; 3],
}

impl Order {
    /// All 48, the file's own order first.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let flips = |bits: usize| [0, 1, 2].map(|axis| bits >> axis & 1 == 1);
        orders.into_iter().flat_map(move |axes| (0..8).map(move |b| Self { axes, flips: flips(b) }))
    }
}

/// Furthest in mm from the world's origin that a first voxel lies; beyond that it is a mistake of a header.
const FURTHEST: f64 = 1e9;

/// What turns RAS into LPS and back.
const LPS: [f64; 3] = [-1.0, -1.0, 1.0];

/// Smallest and largest voxel edge in mm that a file may have; others are mistakes of a header.
pub(super) const EDGES: [f64; 2] = [1e-6, 1e6];

impl Grid {
    pub(super) fn new(
        header: NiftiHeader,
        extensions: Vec<(i32, Vec<u8>)>,
        dims: [usize; 3],
    ) -> Self {
        let affine = affine(&header).map(|row| row.map(|v| v * millimetres(&header)));
        let order = orientation(&affine);
        Self { header, extensions, dims, affine, order, origin: None }
    }

    /// The grid of a file that has no NIfTI-1 header: its sizes along i, j, k, and where in the world (RAS) they lie.
    pub(super) fn placed(dims: [usize; 3], affine: [[f64; 4]; 3]) -> Self {
        let [i, j, k] = [0, 1, 2].map(|axis| length(column(&affine, axis)) as f32);
        let [srow_x, srow_y, srow_z] = affine.map(|row| row.map(|v| v as f32));
        let header = NiftiHeader {
            pixdim: [1.0, i, j, k, 1.0, 1.0, 1.0, 1.0],
            sform_code: 1,
            srow_x,
            srow_y,
            srow_z,
            xyzt_units: 2,
            endianness: Endianness::Little,
            ..NiftiHeader::default()
        };
        // the header has floats, which are not all that is known
        let order = orientation(&affine);
        Self { header, extensions: Vec::new(), dims, affine, order, origin: None }
    }

    /// The same of an image from DICOM files.
    pub(super) fn with_origin(self, origin: Arc<Origin>) -> Self {
        Self { origin: Some(origin), ..self }
    }

    /// Whether the image is from DICOM files, so that a DICOM segmentation can be written for it.
    pub fn is_dicom(&self) -> bool {
        self.origin.is_some()
    }

    /// As [`Grid::placed`], where the world is LPS, as DICOM, NRRD and ITK have it: steps along i, j, k and the place of the
    /// first voxel. None where the steps do not span the space, the place is no place of a scan, or a number is none.
    pub(super) fn from_lps(
        dims: [usize; 3],
        steps: [[f64; 3]; 3],
        origin: [f64; 3],
    ) -> Option<Self> {
        let row = |axis: usize| {
            let sign = LPS[axis];
            [
                steps[0][axis] * sign,
                steps[1][axis] * sign,
                steps[2][axis] * sign,
                origin[axis] * sign,
            ]
        };
        let affine = [0, 1, 2].map(row);
        let near = origin.iter().all(|place| place.abs() <= FURTHEST);
        (near && usable(&affine)).then(|| Self::placed(dims, affine))
    }

    /// Steps along i, j, k and the place of the first voxel in a world that is LPS.
    pub(super) fn lps(&self) -> ([[f64; 3]; 3], [f64; 3]) {
        // no zero becomes a negative one
        let turn = |place: [f64; 3]| [0, 1, 2].map(|axis| place[axis] * LPS[axis] + 0.0);
        let steps = [0, 1, 2].map(|axis| turn(column(&self.affine, axis)));
        (steps, turn(column(&self.affine, 3)))
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
        [2, 1, 0].map(|axis| self.dims[self.order.axes[axis]])
    }

    /// Canonical spacing in mm, D, H, W.
    pub fn spacing(&self) -> [f64; 3] {
        [2, 1, 0].map(|axis| length(column(&self.affine, self.order.axes[axis])))
    }

    /// Canonical voxel indices (x, y, z, 1) to world millimetres, rows x, y, z.
    pub fn canonical_affine(&self) -> [[f64; 4]; 3] {
        let Order { axes, flips } = self.order;
        self.affine.map(|row| {
            let mut out = [0.0, 0.0, 0.0, row[3]];
            for axis in 0..3 {
                let column = row[axes[axis]];
                out[axis] = if flips[axis] { -column } else { column };
                if flips[axis] {
                    out[3] += column * (self.dims[axes[axis]] - 1) as f64;
                }
            }
            out
        })
    }
}

/// A step along one file axis, x, y, z.
pub(super) fn column(affine: &[[f64; 4]; 3], axis: usize) -> [f64; 3] {
    affine.map(|row| row[axis])
}

pub(super) fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn length(a: [f64; 3]) -> f64 {
    dot(a, a).sqrt()
}

/// Directions of the file axes i, j, k in the world.
pub(super) fn directions(affine: &[[f64; 4]; 3]) -> [[f64; 3]; 3] {
    [0, 1, 2].map(|axis| {
        let step = column(affine, axis);
        step.map(|v| v / length(step))
    })
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

/// The place of the first voxel and its name in the header, where that alone keeps a form from being used and no other takes
/// its place.
pub(super) fn broken_offset(header: &NiftiHeader) -> Option<(&'static str, [f32; 3])> {
    let sform = [header.srow_x, header.srow_y, header.srow_z];
    let (offset, quatern) =
        (sform.map(|row| row[3]), [header.quatern_x, header.quatern_y, header.quatern_z]);
    let forms = [
        (
            "srow_x, srow_y, srow_z [3]",
            header.sform_code,
            sform.map(|row| row.map(f64::from)),
            offset,
        ),
        ("qoffset_x, qoffset_y, qoffset_z", header.qform_code, qform(header), quatern),
    ];
    let mut given = forms.into_iter().filter(|(_, code, ..)| *code > 0);
    if given.clone().any(|(_, _, affine, _)| usable(&affine)) {
        return None;
    }
    let centred = |affine: [[f64; 4]; 3]| affine.map(|[a, b, c, _]| [a, b, c, 0.0]);
    let broken = given.find(|(_, _, affine, _)| usable(&centred(*affine)));
    broken.map(|(name, _, _, offset)| (name, offset))
}

/// Finite, with three directions that span the space.
pub(super) fn usable(affine: &[[f64; 4]; 3]) -> bool {
    if !affine.iter().flatten().all(|v| v.is_finite()) {
        return false;
    }
    let [a, b, c] = directions(affine);
    let cross = [b[1] * c[2] - b[2] * c[1], b[2] * c[0] - b[0] * c[2], b[0] * c[1] - b[1] * c[0]];
    // NaN, of an axis without length, is not usable either
    dot(a, cross).abs() > 1e-3
}

/// Rotation from the quaternion, times voxel sizes, as in the NIfTI-1 standard (method 2).
fn qform(header: &NiftiHeader) -> [[f64; 4]; 3] {
    let [b, c, d] = [header.quatern_b, header.quatern_c, header.quatern_d].map(f64::from);
    let vector = b * b + c * c + d * d;
    // rounding leaves a half turn a little short, or a vector longer than 1: NIfTI's own library takes a for 0 then
    let half_turn = 1.0 - vector < 1e-7;
    let (a, vector) = if half_turn { (0.0, vector) } else { ((1.0 - vector).sqrt(), 1.0) };
    let [b, c, d] = [b, c, d].map(|v| v / vector.sqrt());
    let rotation = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ];
    let factor = if header.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
    let size = |axis: usize| f64::from(header.pixdim[axis]).abs();
    let offset = [header.quatern_x, header.quatern_y, header.quatern_z].map(f64::from);
    [0, 1, 2].map(|r| {
        let row = rotation[r];
        [row[0] * size(1), row[1] * size(2), row[2] * size(3) * factor, offset[r]]
    })
}

/// Alignments that differ by less are equal.
const TIE: f64 = 1e-4;

/// The order of file axes along x, y, z with the largest total alignment. Of several (rotations by 45°), the one whose
/// canonical axes x, y, z have the largest coordinates, one after another: the places decide, never how they are stored.
fn orientation(affine: &[[f64; 4]; 3]) -> Order {
    let units = directions(affine);
    let run = |order: &Order, world: usize| {
        let unit = units[order.axes[world]];
        if order.flips[world] { unit.map(|v| -v) } else { unit }
    };
    let alignment = |order: &Order| (0..3).map(|world| run(order, world)[world]).sum::<f64>();
    let best = Order::all().map(|order| alignment(&order)).fold(f64::NEG_INFINITY, f64::max);
    let coordinates = |order: &Order| [0, 1, 2].map(|world| run(order, world));
    let larger = |a: &Order, b: &Order| {
        let (a, b) = (coordinates(a), coordinates(b));
        let differ =
            a.iter().flatten().zip(b.iter().flatten()).find(|(a, b)| (*a - *b).abs() > TIE);
        differ.is_some_and(|(a, b)| a > b)
    };
    Order::all()
        .filter(|order| alignment(order) > best - TIE)
        .reduce(|best, order| if larger(&order, &best) { order } else { best })
        .unwrap_or(Order { axes: [0, 1, 2], flips: [false; 3] })
}
