//! What the headers of files tell: how large an image is, and which files of a folder are masks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::dicom::segmentations_in;
use super::formats::open;
use super::names::{by_stem, case_name};
use super::opened::Opened;
use crate::base::Result;

/// What a header says of an image's size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extent {
    /// D, H, W of the canonical axes.
    pub shape: [usize; 3],
    /// Voxels of a channel.
    pub voxels: usize,
    /// Channels.
    pub channels: usize,
    /// Cubic millimetres of a voxel.
    pub voxel_volume: f64,
}

/// Reads the size of an image from its header; none where there is no header that says it, which reading the image explains.
/// Of several DICOM series the one of this number or UID.
pub fn peek(path: &Path, series: Option<&str>) -> Option<Extent> {
    let Opened { stored, grid, .. } = open(path, series).ok()?;
    Some(Extent {
        shape: grid.shape(),
        voxels: stored.voxels(),
        channels: stored.dims[3],
        voxel_volume: grid.spacing().iter().product(),
    })
}

/// Whether a file is one image or map of this shape (D, H, W), whole to its last voxel and the checksum behind it.
pub fn is_whole(path: &Path, shape: [usize; 3]) -> bool {
    let opened = open(path, None).ok();
    let fits = |file: &Opened| file.grid.shape() == shape && file.stored.dims[3] == 1;
    opened.filter(fits).is_some_and(|file| file.read_through().is_ok())
}

/// As [`by_stem`], with the DICOM segmentations of a folder that holds no DICOM images.
pub fn masks_by_stem(folder: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let mut stems = by_stem(folder)?;
    for file in segmentations_in(folder)? {
        stems.entry(case_name(&file)).or_default().push(file);
    }
    Ok(stems)
}

#[cfg(test)]
mod tests {
    use super::super::{Grid, write_mask};
    use super::*;

    #[test]
    fn a_header_tells_the_size() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.nii", "a.nii.gz"] {
            let path = folder.path().join(name);
            let grid = Grid::ras([3, 4, 5], [2.0, 1.0, 0.5]);
            write_mask(&path, ndarray::Array3::zeros((3, 4, 5)).view(), &grid).unwrap();
            let expected = Extent { shape: [3, 4, 5], voxels: 60, channels: 1, voxel_volume: 1.0 };
            assert_eq!(peek(&path, None), Some(expected));
        }
        std::fs::write(folder.path().join("b.nii"), b"no image").unwrap();
        assert_eq!(peek(&folder.path().join("b.nii"), None), None);
        assert_eq!(peek(folder.path(), None), None);
    }
}
