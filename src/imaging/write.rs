//! Writing results on the grid of an input.

use std::path::{Path, PathBuf};

use ndarray::{ArrayView3, ArrayView4, Axis};
use rayon::prelude::*;

use super::dicom::write_segmentation;
use super::file_order::{Arrangement, Voxel};
use super::grid::Grid;
use super::output::{About, Output, is_dicom, takes_channels};
use super::segment::{Segment, slicer_keys};
use super::slabs::Slabs;
use super::volume::{LabelMap, Volume, check_shape};
use crate::base::{Error, Result};

/// Writes labels (D, H, W) as uint8 on the grid of an input: its size, orientation, affine and, of NIfTI-1 files, header and
/// extensions. The path ends in .nii, .nii.gz, .nrrd, .nhdr, .mha or .mhd; the file is written aside and renamed.
///
/// # Errors
///
/// Where the array has other sizes than the grid or the path another ending, or the file cannot be written whole.
pub fn write_mask(path: &Path, labels: ArrayView3<'_, u8>, grid: &Grid) -> Result<()> {
    write(path, labels, grid, "")
}

/// Writes float32 values (D, H, W) on the grid of an input, as [`write_mask`] does.
///
/// # Errors
///
/// As those of [`write_mask`].
pub fn write_image(path: &Path, values: ArrayView3<'_, f32>, grid: &Grid) -> Result<()> {
    write(path, values, grid, "")
}

/// Writes all channels of an image as [`write_image`] does one, as uint8 or int16 where all voxels are such numbers: less
/// space, the same values. Several channels go into a NIfTI file of 4 axes.
///
/// # Errors
///
/// As those of [`write_mask`], and where there are several channels and the format of the path takes one.
pub fn write_volume(path: &Path, volume: &Volume) -> Result<()> {
    let values = volume.data().view();
    let channels = volume.channels().len();
    if channels > 1 && !takes_channels(path) {
        let found = format!("{channels} channels for one file");
        let expected = "a channel a file, or a NIfTI file";
        return Err(Error::file(path, found, expected, "Rename the output."));
    }
    let within = |low: f32, high: f32| {
        let fits = |value: &f32| value.fract() == 0.0 && (low..=high).contains(value);
        volume.as_slice().par_iter().all(fits)
    };
    if within(0.0, 255.0) {
        write_all(path, values.mapv(|value| value as u8).view(), volume.grid(), "")
    } else if within(-32768.0, 32767.0) {
        write_all(path, values.mapv(|value| value as i16).view(), volume.grid(), "")
    } else {
        write_all(path, values, volume.grid(), "")
    }
}

/// Writes an image into one file with all channels, or into one file a channel; each as [`write_volume`] does.
///
/// # Errors
///
/// As those of [`write_volume`].
pub fn write_channels(paths: &[PathBuf], volume: &Volume) -> Result<()> {
    if let [path] = paths {
        return write_volume(path, volume);
    }
    for (path, channel) in paths.iter().zip(volume.data().outer_iter()) {
        let channel = channel.insert_axis(Axis(0)).to_owned();
        write_volume(path, &Volume::new(channel, volume.grid().clone())?)?;
    }
    Ok(())
}

impl LabelMap {
    /// Writes the labels on their grid; see [`write_mask`].
    ///
    /// # Errors
    ///
    /// As those of [`write_mask`].
    pub fn write(&self, path: &Path) -> Result<()> {
        write(path, self.data().view(), self.grid(), "")
    }

    /// Writes the labels on their grid with the names and colours of their classes, in formats that have room for them: in
    /// .nrrd files as 3D Slicer's segmentations, and of a DICOM series in .dcm files as a DICOM Segmentation.
    ///
    /// # Errors
    ///
    /// As those of [`write_mask`].
    pub fn write_segments(&self, path: &Path, segments: &[Segment]) -> Result<()> {
        let labels = self.data().view();
        if is_dicom(path) {
            return write_segmentation(path, labels, self.grid(), segments);
        }
        let keys = slicer_keys(segments, labels, &Arrangement::of(self.grid()));
        write(path, labels, self.grid(), &keys)
    }
}

fn write<T: Voxel>(path: &Path, values: ArrayView3<'_, T>, grid: &Grid, keys: &str) -> Result<()> {
    write_all(path, values.insert_axis(Axis(0)), grid, keys)
}

/// Writes volumes (C, D, H, W) one after another.
fn write_all<T: Voxel>(
    path: &Path,
    values: ArrayView4<'_, T>,
    grid: &Grid,
    keys: &str,
) -> Result<()> {
    check_shape("output", &values.shape()[1..], grid)?;
    let about = About { grid, kind: T::KIND, channels: values.len_of(Axis(0)), keys };
    let mut output = Output::begin(path, &about, T::EFFORT)?;
    let arrangement = Arrangement::of(grid);
    for volume in values.outer_iter() {
        arrangement.write(volume, &mut output).map_err(|e| Error::io(path, e))?;
    }
    output.finish()
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
    /// Begins an image on this grid. The path ends as that of [`write_mask`].
    ///
    /// # Errors
    ///
    /// Where the path has another ending, or no file can be made there.
    pub fn begin(path: &Path, grid: &Grid) -> Result<Self> {
        let about = About { grid, kind: f32::KIND, channels: 1, keys: "" };
        let output = Output::begin(path, &about, f32::EFFORT)?;
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
        self.output.finish()
    }
}

#[cfg(test)]
mod tests {
    use nifti::{Endianness, NiftiHeader};

    use super::super::label_values::Known;
    use super::super::read::{read_image, read_labels};
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
