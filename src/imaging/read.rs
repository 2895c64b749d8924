//! Reading images and label maps of every format to canonical RAS.

use std::path::{Path, PathBuf};

use bytemuck::Zeroable;
use rayon::prelude::*;

use super::formats::{open, open_image};
use super::grid::Order;
use super::label_values::{Known, LabelValues};
use super::opened::Opened;
use super::place::{Match, Reference, order_on};
use super::segment::Segment;
use super::volume::{LabelMap, Volume, intensity};
use super::voxels::Convert;
use crate::base::{Error, Result, host};

/// Room for so many values. The system promises more memory than there is and ends the program later, so what is free is looked
/// at where it matters.
fn zeroed<T: Zeroable>(count: usize, path: &Path) -> Result<Vec<T>> {
    let bytes = count.saturating_mul(size_of::<T>()) as u64;
    let free = if bytes > MATTERS { host::free_memory() } else { 0 };
    let room = if free > 0 && bytes > free {
        Err(format!("memory of {} MiB", free >> 20))
    } else {
        bytemuck::allocation::try_zeroed_vec(count).map_err(|()| "what memory holds".into())
    };
    room.map_err(|expected| {
        let found = format!("{count} voxels, which take {} MiB", bytes >> 20);
        Error::file(path, found, expected, "Resample or cut the image.")
    })
}

/// Bytes of one image from which on it matters how much memory is free.
const MATTERS: u64 = 1 << 28;
/// Voxels that become intensities; tells how many are none, and become 0.
struct Intensities;

impl Convert for Intensities {
    type Kept = f32;
    type Told = usize;

    fn convert(&self, value: f64, odd: &mut usize) -> f32 {
        intensity(value).unwrap_or_else(|| {
            *odd += 1;
            0.0
        })
    }

    fn join(&self, odd: usize, more: usize) -> usize {
        odd + more
    }
}

/// The classes that a DICOM segmentation names; none of what is none.
pub fn segments_of(path: &Path) -> Option<Vec<Segment>> {
    open(path, None).ok().and_then(|opened| opened.segments().map(<[Segment]>::to_vec))
}

/// Reads a 3D image, or a 4D one with a channel in each volume: a file of NIfTI-1, NRRD, MetaImage or DICOM, or a folder or
/// an archive of a DICOM series. Every voxel is finite: NaN, infinities and magnitudes above 1e30 become 0 and are counted in
/// the notes. Errors name the file and say what it is where it is no such image.
pub fn read_image(path: &Path) -> Result<Volume> {
    read_images(&[path.to_path_buf()], Match::default())
}

/// Reads an image whose channels lie in one file (3D or 4D) or in a file each. The first file's grid decides; errors
/// where the others do not match it. Nothing is held but the channels and some megabytes of each file.
pub fn read_images(paths: &[PathBuf], matching: Match) -> Result<Volume> {
    read_series(paths, matching, None)
}

/// As [`read_images`], where a folder or archive of DICOM files may hold several series: the one of this UID or number.
///
/// # Errors
///
/// As those of [`read_images`]; where there are several series and none is chosen, they are listed.
pub fn read_series(paths: &[PathBuf], matching: Match, series: Option<&str>) -> Result<Volume> {
    let Some((first, rest)) = paths.split_first() else {
        return Err(Error::Internal("an image without files".into()));
    };
    let opened = open_image(first, series)?;
    opened.check_density()?;
    let grid = opened.grid.clone();
    let mut files = vec![(opened, grid.order)];
    for path in rest {
        let other = open_image(path, series)?;
        other.check_density()?;
        let order = order_on(&other.grid, path, &Reference { grid: &grid, path: first }, matching)?;
        files.push((other, order));
    }
    let voxels = |(file, _): &(Opened, Order)| file.stored.voxels() * file.stored.dims[3];
    let mut data = zeroed(files.iter().map(voxels).sum(), first)?;
    let mut left = data.as_mut_slice();
    let mut jobs = Vec::new();
    for file in files {
        let (channels, others) = left.split_at_mut(voxels(&file));
        jobs.push((file, channels));
        left = others;
    }
    let odd = read_all(jobs)?;
    Volume::from_intensities(data, grid, odd)
}

/// As [`read_image`], in the canonical order of another file's grid, which it takes: that of a mask, or of its reference.
///
/// # Errors
///
/// As those of [`read_image`], and where the voxels do not match.
pub fn read_image_on(path: &Path, on: &Reference<'_>, matching: Match) -> Result<Volume> {
    let file = open(path, None)?;
    let order = order_on(&file.grid, path, on, matching)?;
    let mut data = zeroed(file.stored.voxels() * file.stored.dims[3], path)?;
    let odd = file.read(&order, &Intensities, &mut data)?;
    Volume::from_intensities(data, on.grid.clone(), odd)
}

/// Reads several files at the same time, each into its channels; counts the voxels that are no intensities.
fn read_all(jobs: Vec<((Opened, Order), &mut [f32])>) -> Result<usize> {
    let read = |((file, order), channels): ((Opened, Order), &mut [f32])| {
        file.read(&order, &Intensities, channels)
    };
    let counts: Vec<Result<usize>> = jobs.into_par_iter().map(read).collect();
    // of several errors that of the first file
    counts.into_iter().sum()
}

/// Reads a label map of integers or of floats that are whole numbers, in its own canonical order. Errors where it holds
/// values that are not known, or several volumes. A DICOM segmentation, which leaves out planes without labels, ends where its
/// labels do.
pub fn read_labels(path: &Path, known: &Known) -> Result<LabelMap> {
    let file = open(path, None)?;
    let grid = file.grid.clone();
    LabelMap::from_vec(labels(file, known, &grid.order)?, grid)
}

/// As [`read_labels`], in the canonical order of another file's grid, which it takes: its image's, or its reference's.
/// Errors where the voxels do not match.
pub fn read_labels_on(
    path: &Path,
    known: &Known,
    on: &Reference<'_>,
    matching: Match,
) -> Result<LabelMap> {
    let file = open(path, None)?.over(on.grid)?;
    let order = order_on(&file.grid, path, on, matching)?;
    LabelMap::from_vec(labels(file, known, &order)?, on.grid.clone())
}

/// As [`read_labels`]; a DICOM segmentation has all planes of another file where it lies on some of them.
///
/// # Errors
///
/// As those of [`read_labels`].
pub fn read_labels_over(path: &Path, known: &Known, other: &Path) -> Result<LabelMap> {
    let mut file = open(path, None)?;
    if file.segments().is_some()
        && let Ok(other) = open(other, None)
    {
        file = file.over(&other.grid)?;
    }
    let grid = file.grid.clone();
    LabelMap::from_vec(labels(file, known, &grid.order)?, grid)
}

fn labels(file: Opened, known: &Known, order: &Order) -> Result<Vec<u8>> {
    let volumes = file.stored.dims[3];
    if volumes != 1 {
        return Err(Error::file(
            &file.path,
            format!("{volumes} volumes"),
            "a 3D label map",
            "Save the labels as one volume.",
        ));
    }
    let mut data = zeroed(file.stored.voxels(), &file.path)?;
    let path = file.path.clone();
    let unknown = file.read(order, &LabelValues::new(known), &mut data)?;
    if unknown.is_empty() { Ok(data) } else { Err(known.error(&path, &unknown)) }
}
