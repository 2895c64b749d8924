//! What a NIfTI-1 file has before its voxels, as it is written.

use std::path::Path;

use nifti::{Endianness, NiftiHeader, NiftiType};

use super::grid::Grid;
use crate::base::{Error, Result};

/// What comes before the voxels: the header of the input for voxels of this kind, so many of them in each place, and its
/// extensions.
pub(super) fn start(path: &Path, grid: &Grid, kind: NiftiType, channels: usize) -> Result<Vec<u8>> {
    let wide = |_| {
        let found = format!("{:?} voxels along its axes", grid.dims);
        Error::file(path, found, format!("at most {} along each", u16::MAX), "Cut the image.")
    };
    let mut dim = [1; 8];
    dim[0] = if channels > 1 { 4 } else { 3 };
    for (axis, count) in grid.dims.iter().chain([&channels]).enumerate() {
        dim[axis + 1] = u16::try_from(*count).map_err(wide)?;
    }
    let extended: usize = grid.extensions.iter().map(|(_, data)| 8 + data.len()).sum();
    let mut offset = 352 + extended;
    if offset > 1 << f32::MANTISSA_DIGITS {
        // the header has a float for it
        offset = offset.next_multiple_of(256);
    }
    let header = NiftiHeader {
        sizeof_hdr: 348,
        dim,
        datatype: kind as i16,
        bitpix: 8 * kind.size_of() as i16,
        vox_offset: offset as f32,
        scl_slope: 1.0,
        scl_inter: 0.0,
        ..grid.header.clone()
    };
    let mut bytes = Bytes::new(header.endianness);
    bytes.header(&header);
    bytes.bytes.extend([u8::from(extended > 0), 0, 0, 0]);
    for (code, data) in &grid.extensions {
        bytes.put((8 + data.len() as i32).to_le_bytes());
        bytes.put(code.to_le_bytes());
        bytes.text(data, data.len());
    }
    bytes.bytes.resize(offset, 0);
    Ok(bytes.bytes)
}

/// Bytes in the order of a header.
struct Bytes {
    order: Endianness,
    bytes: Vec<u8>,
}

impl Bytes {
    fn new(order: Endianness) -> Self {
        Self { order, bytes: Vec::new() }
    }

    /// A number, given in little-endian order.
    fn put<const N: usize>(&mut self, mut number: [u8; N]) {
        if self.order == Endianness::Big {
            number.reverse();
        }
        self.bytes.extend(number);
    }

    fn short(&mut self, value: i16) {
        self.put(value.to_le_bytes());
    }

    fn long(&mut self, value: i32) {
        self.put(value.to_le_bytes());
    }

    fn float(&mut self, value: f32) {
        self.put(value.to_le_bytes());
    }

    /// A field of text, filled up with zeros.
    fn text(&mut self, text: &[u8], length: usize) {
        let end = self.bytes.len() + length;
        self.bytes.extend(text.iter().take(length));
        self.bytes.resize(end, 0);
    }

    /// The 348 bytes of a header, field by field as in the NIfTI-1 standard.
    fn header(&mut self, h: &NiftiHeader) {
        self.long(h.sizeof_hdr);
        self.text(&h.data_type, 10);
        self.text(&h.db_name, 18);
        self.long(h.extents);
        self.short(h.session_error);
        self.bytes.extend([h.regular, h.dim_info]);
        h.dim.iter().for_each(|size| self.put(size.to_le_bytes()));
        [h.intent_p1, h.intent_p2, h.intent_p3].into_iter().for_each(|value| self.float(value));
        let kinds = [h.intent_code, h.datatype, h.bitpix, h.slice_start];
        kinds.into_iter().for_each(|value| self.short(value));
        h.pixdim.iter().for_each(|size| self.float(*size));
        [h.vox_offset, h.scl_slope, h.scl_inter].into_iter().for_each(|value| self.float(value));
        self.short(h.slice_end);
        self.bytes.extend([h.slice_code, h.xyzt_units]);
        // a result has a range of its own
        self.float(0.0);
        self.float(0.0);
        self.float(h.slice_duration);
        self.float(h.toffset);
        self.long(h.glmax);
        self.long(h.glmin);
        self.text(&h.descrip, 80);
        self.text(&h.aux_file, 24);
        self.short(h.qform_code);
        self.short(h.sform_code);
        let quaternion = [h.quatern_b, h.quatern_c, h.quatern_d];
        let offset = [h.quatern_x, h.quatern_y, h.quatern_z];
        quaternion.into_iter().chain(offset).for_each(|value| self.float(value));
        let rows = [h.srow_x, h.srow_y, h.srow_z];
        rows.into_iter().flatten().for_each(|value| self.float(value));
        self.text(&h.intent_name, 16);
        self.text(b"n+1\0", 4);
    }
}
