//! An image whose header was read, and whose voxels come next; of whatever format.

use std::path::{Path, PathBuf};

use nifti::{Endianness, NiftiType};

use super::dicom::{Frames, Mask};
use super::grid::{EDGES, Grid, Order};
use super::segment::Segment;
use super::sniff;
use super::source::Source;
use super::voxels::{self, Bytes, Convert, Stored};
use crate::base::{Error, Result};

/// An image whose header was read, and whose voxels come next.
pub(super) struct Opened {
    /// The file or folder that was asked for.
    pub path: PathBuf,
    body: Body,
    pub stored: Stored,
    pub grid: Grid,
}

/// Where the voxels are.
pub(super) enum Body {
    /// In a file, at a byte of it. Of a header in another file, what else lies there may explain a fault.
    File { source: Source, single: bool },
    /// In the frames of a DICOM series.
    Frames(Box<Frames>),
    /// Labels of a DICOM segmentation.
    Mask(Box<Mask>),
}

impl Bytes for Body {
    fn fill(&mut self, room: &mut [u8]) -> Result<usize> {
        match self {
            Self::File { source, .. } => source.fill(room),
            Self::Frames(frames) => frames.fill(room),
            Self::Mask(mask) => Ok(mask.fill(room)),
        }
    }

    fn check(&mut self) -> Result<()> {
        match self {
            Self::File { source, .. } => source.check(),
            Self::Frames(_) | Self::Mask(_) => Ok(()),
        }
    }
}

impl Opened {
    /// Of voxels in a file, of which they begin at byte `start`.
    pub fn of_file(
        path: &Path,
        body: Body,
        start: u64,
        stored: Stored,
        grid: Grid,
    ) -> Result<Self> {
        let mut opened = Self { path: path.to_path_buf(), body, stored, grid };
        opened.check_edges()?;
        opened.begin(start)?;
        Ok(opened)
    }

    /// Of a DICOM series.
    pub fn of_frames(path: &Path, frames: Frames, stored: Stored, grid: Grid) -> Result<Self> {
        let body = Body::Frames(Box::new(frames));
        let opened = Self { path: path.to_path_buf(), body, stored, grid };
        opened.check_edges()?;
        Ok(opened)
    }

    /// Of a DICOM segmentation.
    pub fn of_mask(path: &Path, mask: Mask) -> Result<Self> {
        let Some(grid) = mask.grid() else {
            let remedy = "Export the segmentation again.";
            return Err(Error::file(path, "planes without a place", "planes of an image", remedy));
        };
        let [i, j, k] = grid.dims;
        let stored = Stored::unscaled(NiftiType::Uint8, Endianness::Little, [i, j, k, 1]);
        let opened =
            Self { path: path.to_path_buf(), body: Body::Mask(Box::new(mask)), stored, grid };
        opened.check_edges()?;
        Ok(opened)
    }

    /// The classes that a DICOM segmentation names; none of other images.
    pub fn segments(&self) -> Option<&[Segment]> {
        match &self.body {
            Body::Mask(mask) => Some(mask.segments()),
            _ => None,
        }
    }

    /// Over all planes of another grid, where a DICOM segmentation has left out some of them.
    pub fn over(self, on: &Grid) -> Result<Self> {
        match self.body {
            Body::Mask(mut mask) => {
                mask.lay_on(on);
                Self::of_mask(&self.path, *mask)
            }
            body => Ok(Self { body, ..self }),
        }
    }

    fn check_edges(&self) -> Result<()> {
        let [least, most] = EDGES;
        let spacing = self.grid.spacing();
        if spacing.iter().all(|edge| (least..=most).contains(edge)) {
            return Ok(());
        }
        Err(Error::file(
            &self.path,
            format!("voxels of {spacing:?} mm (D, H, W)"),
            format!("edges of {least:e} to {most:e} mm"),
            "Correct the voxel sizes in its header (of NIfTI pixdim, sform and xyzt_units).",
        ))
    }

    /// The file that holds the voxels, and its bytes.
    fn place(&self) -> (&Path, u64) {
        match &self.body {
            Body::File { source, .. } => (&source.path, source.size()),
            Body::Frames(frames) => (&self.path, frames.size()),
            Body::Mask(mask) => (&self.path, mask.size()),
        }
    }

    /// Goes to the first voxel. More voxels than the file can hold are refused before there is memory for them.
    fn begin(&mut self, start: u64) -> Result<()> {
        let wanted = self.stored.bytes();
        let Body::File { source, .. } = &mut self.body else { return Ok(()) };
        if source.most().saturating_sub(start) < wanted {
            let found = source.total()?.map(|all| all.saturating_sub(start));
            return Err(self.short(found));
        }
        source.skip(start)
    }

    /// Refuses a small file that would become a large image.
    pub fn check_density(&self) -> Result<()> {
        let voxels = (self.stored.voxels() as u64).saturating_mul(self.stored.dims[3] as u64);
        let (path, size) = self.place();
        let kept = voxels.saturating_mul(size_of::<f32>() as u64);
        if kept <= ROOMY.max(size.saturating_mul(DENSE)) {
            return Ok(());
        }
        Err(Error::file(
            path,
            format!("{voxels} voxels in {size} packed bytes"),
            "an image that is not blank",
            "If it is as it should be, unpack it (gunzip) and use the .nii file.",
        ))
    }

    pub fn read<C: Convert>(
        mut self,
        order: &Order,
        convert: &C,
        kept: &mut [C::Kept],
    ) -> Result<C::Told> {
        let read = voxels::read(&mut self.body, &self.stored, order, convert, kept)?;
        read.map_err(|found| self.short(Some(found)))
    }

    /// Reads all voxels, and the checksum behind packed ones, and keeps nothing of them.
    pub fn read_through(mut self) -> Result<()> {
        let (mut room, all) = (vec![0; 1 << 20], self.stored.bytes());
        let mut read = 0;
        while read < all {
            let wanted = room.len().min(usize::try_from(all - read).unwrap_or(usize::MAX));
            let found = self.body.fill(&mut room[..wanted])?;
            read += found as u64;
            if found < wanted {
                return Err(self.short(Some(read)));
            }
        }
        self.body.check()
    }

    /// Of a file that ends after so many bytes of voxels; none where it goes on for long, but cannot hold what it should.
    fn short(&self, found: Option<u64>) -> Error {
        let (path, most) = match &self.body {
            Body::File { source, single } => {
                let start = source.start();
                // a cut off label map may be nothing but background
                let blank = !start.is_empty() && start.iter().all(|byte| *byte == 0);
                if !single
                    && !blank
                    && let Some(error) = sniff::explain(&source.path, start)
                {
                    return error;
                }
                (&source.path, source.most())
            }
            Body::Frames(frames) => (&self.path, frames.size()),
            Body::Mask(mask) => (&self.path, mask.size()),
        };
        let ([i, j, k, volumes], wanted) = (self.stored.dims, self.stored.bytes());
        Error::file(
            path,
            match found {
                Some(found) => format!("{found} bytes of voxels"),
                None => format!("at most {most} bytes of voxels"),
            },
            format!("{wanted} bytes for {i}x{j}x{k}x{volumes} voxels"),
            "The file is cut off; copy or download it again.",
        )
    }
}

/// Bytes of intensities that an image may become whatever its file's size, and how many a byte of a larger one may become:
/// beyond that it is blank, or made to fill the memory.
const ROOMY: u64 = 1 << 30;
const DENSE: u64 = 1 << 10;
