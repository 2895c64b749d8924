//! How large an image is, told by the first bytes of its file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;
use nifti::NiftiHeader;

use super::names;

/// What a header says of an image's size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extent {
    /// Voxels of a channel.
    pub voxels: usize,
    /// Channels.
    pub channels: usize,
    /// Cubic millimetres of a voxel; 0 where the header does not say.
    pub voxel_volume: f64,
}

/// Reads the size of an image from its header; none where there is no header that says it, which reading the image explains.
pub fn peek(path: &Path) -> Option<Extent> {
    const HEADER: u64 = 348;
    let header = names::halves(path).header;
    let mut start = Vec::new();
    let file = || File::open(&header).ok().filter(|_| header.is_file());
    file()?.take(HEADER).read_to_end(&mut start).ok()?;
    if start.starts_with(&[0x1f, 0x8b]) {
        start.clear();
        GzDecoder::new(file()?).take(HEADER).read_to_end(&mut start).ok()?;
    }
    let header = NiftiHeader::from_reader(start.as_slice()).ok()?;
    let axes = usize::from(header.dim[0]);
    let size = |axis: usize| if axis <= axes { usize::from(header.dim[axis]) } else { 1 };
    let product = |axes: std::ops::Range<usize>| {
        axes.map(size).try_fold(1, |product: usize, n| product.checked_mul(n))
    };
    let edges = header.pixdim[1..4].iter().map(|edge| f64::from(edge.abs()));
    Some(Extent {
        voxels: product(1..4)?,
        channels: product(4..8)?.max(1),
        voxel_volume: edges.product(),
    })
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
            let expected = Extent { voxels: 60, channels: 1, voxel_volume: 1.0 };
            assert_eq!(peek(&path), Some(expected));
        }
        std::fs::write(folder.path().join("b.nii"), b"no image").unwrap();
        assert_eq!(peek(&folder.path().join("b.nii")), None);
        assert_eq!(peek(folder.path()), None);
    }
}
