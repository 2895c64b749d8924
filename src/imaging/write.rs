//! Writing results as NIfTI-1 on the grid of an input.

use std::io::{self, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use ndarray::ArrayView3;
use nifti::{Endianness, NiftiHeader, NiftiType};

use super::grid::Grid;
use super::volume::{LabelMap, check_shape, row_major};
use crate::base::files::{file_name, write_with};
use crate::base::{Error, Result};

/// Writes labels (D, H, W) as uint8 on the grid of an input: its size, orientation, affine, header and extensions. The path
/// ends in .nii or .nii.gz; the file is written aside and renamed.
///
/// # Errors
///
/// Where the array has other sizes than the grid or the path another ending, or the file cannot be written whole.
pub fn write_mask(path: &Path, labels: ArrayView3<'_, u8>, grid: &Grid) -> Result<()> {
    write(path, labels, grid)
}

/// Writes float32 values (D, H, W) on the grid of an input, as [`write_mask`] does.
///
/// # Errors
///
/// As those of [`write_mask`].
pub fn write_image(path: &Path, values: ArrayView3<'_, f32>, grid: &Grid) -> Result<()> {
    write(path, values, grid)
}

impl LabelMap {
    /// Writes the labels on their grid; see [`write_mask`].
    ///
    /// # Errors
    ///
    /// As those of [`write_mask`].
    pub fn write(&self, path: &Path) -> Result<()> {
        write(path, self.data().view(), self.grid())
    }
}

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Nifti,
    PackedNifti,
}

impl Format {
    /// Every format with the ending of its files' names.
    const ALL: [(&str, Self); 2] = [(".nii", Self::Nifti), (".nii.gz", Self::PackedNifti)];

    /// By the ending of its name, in whatever case.
    fn of(path: &Path) -> Option<Self> {
        let name = file_name(path).to_lowercase();
        Self::ALL.into_iter().find(|(ending, _)| name.ends_with(ending)).map(|(_, format)| format)
    }
}

/// Endings under which masks and images can be written, as a message lists them.
pub fn endings() -> String {
    Format::ALL.map(|(ending, _)| ending).join(" or ")
}

/// Whether a mask or an image can be written under this name.
pub fn can_write(path: &Path) -> bool {
    Format::of(path).is_some()
}

/// Voxels at a time between memory and file.
const CHUNK: usize = 1 << 16;

/// A type of voxels that is written.
trait Voxel: Copy + Default {
    const KIND: NiftiType;
    fn put(self, bytes: &mut Bytes);
}

impl Voxel for u8 {
    const KIND: NiftiType = NiftiType::Uint8;
    fn put(self, bytes: &mut Bytes) {
        bytes.put([self]);
    }
}

impl Voxel for f32 {
    const KIND: NiftiType = NiftiType::Float32;
    fn put(self, bytes: &mut Bytes) {
        bytes.float(self);
    }
}

fn write<T: Voxel>(path: &Path, values: ArrayView3<'_, T>, grid: &Grid) -> Result<()> {
    check_shape("output", values.shape(), grid)?;
    let Some(format) = Format::of(path) else {
        return Err(Error::file(path, "another ending", endings(), "Rename the output."));
    };
    let start = start(path, grid, T::KIND)?;
    let values = row_major(values);
    let mut own = vec![T::default(); values.len()];
    grid.each(|canonical, file| own[file] = values[canonical]);
    let contents = |file: &mut dyn Write| -> io::Result<()> {
        file.write_all(&start.bytes)?;
        let mut bytes = Bytes::new(grid.header.endianness);
        for chunk in own.chunks(CHUNK) {
            bytes.bytes.clear();
            chunk.iter().for_each(|value| value.put(&mut bytes));
            file.write_all(&bytes.bytes)?;
        }
        Ok(())
    };
    write_with(path, |file| match format {
        Format::Nifti => contents(file),
        Format::PackedNifti => {
            let mut packer = GzEncoder::new(file, Compression::fast());
            contents(&mut packer)?;
            packer.finish().map(drop)
        }
    })
}

/// What comes before the voxels: the header of the input for voxels of this kind, and its extensions.
fn start(path: &Path, grid: &Grid, kind: NiftiType) -> Result<Bytes> {
    let wide = |_| {
        let found = format!("{:?} voxels along its axes", grid.dims);
        Error::file(path, found, format!("at most {} along each", u16::MAX), "Cut the image.")
    };
    let mut dim = [1; 8];
    dim[0] = 3;
    for (axis, count) in grid.dims.iter().enumerate() {
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
    Ok(bytes)
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

#[cfg(test)]
mod tests {
    use super::super::nifti::{Known, read_image, read_labels};
    use super::super::volume::shaped;
    use super::*;

    #[test]
    fn headers_survive_in_both_byte_orders() {
        let folder = tempfile::tempdir().unwrap();
        for order in [Endianness::Little, Endianness::Big] {
            let mut grid = Grid::ras([2, 3, 4], [3.0, 2.0, 1.5]);
            grid.header.endianness = order;
            grid.header.set_description(b"a scan".as_slice()).unwrap();
            grid.header.qform_code = 2;
            grid.header.quatern_y = -7.5;
            grid.header.slice_end = 11;
            grid.header.toffset = 0.25;
            grid.header.cal_max = 100.0;
            grid.header.intent_name = *b"sixteen letters!";
            grid.extensions = vec![(6, b"a comment".to_vec())];
            let path = folder.path().join("image.nii");
            let values: Vec<f32> = (0..24).map(|v| v as f32 * 0.5).collect();
            let array = shaped([2, 3, 4], values.clone()).unwrap();
            write_image(&path, array.view(), &grid).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(bytes.len(), 352 + 17 + 96);
            let found = NiftiHeader::from_reader(bytes.as_slice()).unwrap();
            let expected = NiftiHeader {
                dim: [3, 4, 3, 2, 1, 1, 1, 1],
                datatype: 16,
                bitpix: 32,
                vox_offset: 369.0,
                scl_slope: 1.0,
                cal_max: 0.0,
                magic: *b"n+1\0",
                ..grid.header.clone()
            };
            assert_eq!(found, expected);
            let back = read_image(&path).unwrap();
            assert_eq!(back.as_slice(), values);
            assert_eq!(back.grid().extensions, grid.extensions);
        }
    }

    #[test]
    fn endings_have_any_case() {
        let folder = tempfile::tempdir().unwrap();
        let grid = Grid::ras([1, 2, 3], [1.0; 3]);
        for (name, packed) in [("A.NII", false), ("A.Nii.GZ", true), ("b.nii", false)] {
            let path = folder.path().join(name);
            let map = LabelMap::from_vec((0..6).collect(), grid.clone()).unwrap();
            map.write(&path).unwrap();
            assert_eq!(std::fs::read(&path).unwrap().starts_with(&[0x1f, 0x8b]), packed);
            assert_eq!(read_labels(&path, &Known::any()).unwrap().data(), map.data());
        }
        let wide = Grid::ras([1, 1, 70_000], [1.0; 3]);
        let wide = LabelMap::from_vec(vec![0; 70_000], wide).unwrap();
        let message = wide.write(&folder.path().join("w.nii")).unwrap_err();
        assert!(message.to_string().contains("at most 65535"), "{message}");
    }
}
