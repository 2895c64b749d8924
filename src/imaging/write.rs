//! Writing results as NIfTI-1 on the grid of an input.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ndarray::ArrayView3;

use super::file_order::{Arrangement, Voxel};
use super::grid::Grid;
use super::header;
use super::slabs::Slabs;
use super::volume::{LabelMap, check_shape};
use crate::base::files::{FileAside, GzipWriter, file_name};
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

/// A file that is being written: aside, packed on all cores where its name says so.
enum Output {
    Plain(FileAside),
    Packed(GzipWriter<FileAside>),
}

impl Output {
    /// Begins with all that comes before the voxels.
    fn begin<T: Voxel>(path: &Path, grid: &Grid) -> Result<Self> {
        let Some(format) = Format::of(path) else {
            return Err(Error::file(path, "another ending", endings(), "Rename the output."));
        };
        let start = header::start(path, grid, T::KIND)?;
        let file = FileAside::begin(path)?;
        let mut output = match format {
            Format::Nifti => Self::Plain(file),
            Format::PackedNifti => {
                let packer = GzipWriter::new(file, T::EFFORT);
                Self::Packed(packer.map_err(|e| Error::io(path, e))?)
            }
        };
        output.write_all(&start).map_err(|e| Error::io(path, e))?;
        Ok(output)
    }

    /// A file beside it for what cannot be written yet.
    fn scratch(&self) -> Result<std::fs::File> {
        match self {
            Self::Plain(file) => file.scratch(),
            Self::Packed(packer) => packer.get_ref().scratch(),
        }
    }

    fn finish(self, path: &Path) -> Result<()> {
        match self {
            Self::Plain(file) => file.finish(),
            Self::Packed(packer) => packer.finish().map_err(|e| Error::io(path, e))?.finish(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Packed(packer) => packer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Packed(packer) => packer.flush(),
        }
    }
}

fn write<T: Voxel>(path: &Path, values: ArrayView3<'_, T>, grid: &Grid) -> Result<()> {
    check_shape("output", values.shape(), grid)?;
    let mut output = Output::begin::<T>(path, grid)?;
    let arrangement = Arrangement::of(grid);
    arrangement.write(values, &mut output).map_err(|e| Error::io(path, e))?;
    output.finish(path)
}

/// A float32 image on the grid of an input that is written piece by piece, as [`write_image`] does it. The memory that it
/// takes does not grow with the image. Dropped before [`ImageWriter::finish`], it leaves nothing.
///
/// A file whose slowest axis runs as D does is packed as the planes come; any other one is kept in a file without a name
/// beside it, as large as the unpacked image, and packed at the end.
pub struct ImageWriter {
    path: PathBuf,
    output: Output,
    arrangement: Arrangement,
    /// D, H, W.
    shape: [usize; 3],
    /// Planes along D that came.
    planes: usize,
    /// None where planes go into the file as they come.
    slabs: Option<Slabs<f32>>,
}

impl ImageWriter {
    /// Begins an image on this grid. The path ends in .nii or .nii.gz.
    ///
    /// # Errors
    ///
    /// Where the path has another ending, or no file can be made there.
    pub fn begin(path: &Path, grid: &Grid) -> Result<Self> {
        let output = Output::begin::<f32>(path, grid)?;
        let arrangement = Arrangement::of(grid);
        let slabs = match arrangement.streams() {
            true => None,
            false => Some(Slabs::new(output.scratch()?, arrangement, grid.shape())),
        };
        let (path, shape) = (path.to_path_buf(), grid.shape());
        Ok(Self { path, output, arrangement, shape, planes: 0, slabs })
    }

    /// The next planes along D: values D, H, W, with the grid's H and W.
    ///
    /// # Errors
    ///
    /// Where these are other sizes than the grid's or more planes than it has, or the file takes no more.
    pub fn add(&mut self, planes: ArrayView3<'_, f32>) -> Result<()> {
        let [d, h, w] = self.shape;
        let (count, rows, columns) = planes.dim();
        if (rows, columns) != (h, w) || count > d - self.planes {
            let found = format!("{:?} voxels after {} planes", planes.shape(), self.planes);
            return Err(Error::shape("output", format!("{found} of {:?} (D, H, W)", self.shape)));
        }
        self.planes += count;
        let added = match &mut self.slabs {
            Some(slabs) => slabs.add(planes),
            None => self.arrangement.write(planes, &mut self.output),
        };
        added.map_err(|e| Error::io(&self.path, e))
    }

    /// Completes the file, which takes its name now.
    ///
    /// # Errors
    ///
    /// Where planes are missing, or the file cannot be written whole.
    pub fn finish(mut self) -> Result<()> {
        if self.planes < self.shape[0] {
            let found = format!("{} planes of {:?} (D, H, W)", self.planes, self.shape);
            return Err(Error::shape("output", found));
        }
        if let Some(slabs) = self.slabs {
            slabs.write(&mut self.output).map_err(|e| Error::io(&self.path, e))?;
        }
        self.output.finish(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use nifti::{Endianness, NiftiHeader};

    use super::super::label_values::Known;
    use super::super::nifti::{read_image, read_labels};
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
