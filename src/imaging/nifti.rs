//! Reading NIfTI-1 files to canonical RAS.

use std::path::{Path, PathBuf};

use bytemuck::Zeroable;
use nifti::NiftiHeader;
use rayon::prelude::*;

use super::fields;
use super::grid::{EDGES, Grid, Order};
use super::label_values::{Known, LabelValues};
use super::names;
use super::place::{Match, Reference, order_on};
use super::sniff;
use super::source::Source;
use super::volume::{LabelMap, Volume, intensity};
use super::voxels::{self, Convert, Stored};
use crate::base::{Error, Result, host};

/// A file whose header was read, and whose voxels come next.
pub(super) struct Opened {
    /// The file that was asked for.
    path: PathBuf,
    /// The file that holds the voxels.
    source: Source,
    /// Whether that file holds the header, too.
    single: bool,
    pub stored: Stored,
    pub grid: Grid,
}

impl Opened {
    pub fn new(path: &Path) -> Result<Self> {
        let names::Halves { header: header_file, image: image_file } = names::halves(path);
        let mut source = Source::open(&header_file)?;
        let header = header(&header_file, source.head(0)?)?;
        let single = header.magic == *b"n+1\0";
        let dims = fields::dimensions(&header_file, &header)?;
        let kind = fields::kind(&header_file, &header)?;
        let start = fields::offset(&header_file, &header, single)?;
        fields::check_scale(&header_file, &header)?;
        fields::check_place(&header_file, &header)?;
        let end = if single { start } else { u64::MAX };
        let extensions = fields::extensions(&mut source, &header, end)?;
        if !single {
            let Some(image) = image_file else { return Err(sniff::no_image(path)) };
            source = Source::open(&image)?;
        }
        let stored = Stored::new(&header, kind, dims);
        let grid = Grid::new(header, extensions, [dims[0], dims[1], dims[2]]);
        let mut opened = Self { path: path.to_path_buf(), source, single, stored, grid };
        opened.check_edges()?;
        opened.begin(start)?;
        Ok(opened)
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
            "Correct the voxel sizes (pixdim, sform) or the unit of length (xyzt_units) of its header.",
        ))
    }

    /// Goes to the first voxel. More voxels than the file can hold are refused before there is memory for them.
    fn begin(&mut self, start: u64) -> Result<()> {
        if self.source.most().saturating_sub(start) < self.stored.bytes() {
            let found = self.source.total()?.map(|all| all.saturating_sub(start));
            return Err(self.short(found));
        }
        self.source.skip(start)
    }

    /// Refuses a small file that would become a large image.
    fn check_density(&self) -> Result<()> {
        let voxels = self.stored.voxels() as u64 * self.stored.dims[3] as u64;
        let (kept, size) = (voxels * size_of::<f32>() as u64, self.source.size());
        if kept <= ROOMY.max(size.saturating_mul(DENSE)) {
            return Ok(());
        }
        Err(Error::file(
            &self.source.path,
            format!("{voxels} voxels in {size} packed bytes"),
            "an image that is not blank",
            "If it is as it should be, unpack it (gunzip) and use the .nii file.",
        ))
    }

    fn read<C: Convert>(
        mut self,
        order: &Order,
        convert: &C,
        kept: &mut [C::Kept],
    ) -> Result<C::Told> {
        let read = voxels::read(&mut self.source, &self.stored, order, convert, kept)?;
        read.map_err(|found| self.short(Some(found)))
    }

    /// Reads all voxels, and the checksum behind packed ones, and keeps nothing of them.
    pub fn read_through(mut self) -> Result<()> {
        let (mut room, all) = (vec![0; 1 << 20], self.stored.bytes());
        let mut read = 0;
        while read < all {
            let wanted = room.len().min(usize::try_from(all - read).unwrap_or(usize::MAX));
            let found = self.source.fill(&mut room[..wanted])?;
            read += found as u64;
            if found < wanted {
                return Err(self.short(Some(read)));
            }
        }
        self.source.check()
    }

    /// Of a file that ends after so many bytes of voxels; none where it goes on for long, but cannot hold what it should.
    fn short(&self, found: Option<u64>) -> Error {
        let start = self.source.start();
        // a cut off label map may be nothing but background
        let blank = !start.is_empty() && start.iter().all(|byte| *byte == 0);
        if !self.single
            && !blank
            && let Some(error) = sniff::explain(&self.source.path, start)
        {
            return error;
        }
        let ([i, j, k, volumes], wanted) = (self.stored.dims, self.stored.bytes());
        Error::file(
            &self.source.path,
            match found {
                Some(found) => format!("{found} bytes of voxels"),
                None => format!("at most {} bytes of voxels", self.source.most()),
            },
            format!("{wanted} bytes for {i}x{j}x{k}x{volumes} voxels"),
            "The file is cut off; copy or download it again.",
        )
    }
}

fn header(path: &Path, data: &[u8]) -> Result<NiftiHeader> {
    if let Some(error) = sniff::explain(path, data) {
        return Err(error);
    }
    if names::is_image(path) && data.get(344..348) != Some(b"n+1\0") {
        return Err(sniff::no_header(path));
    }
    let refuse =
        |found: String| Error::file(path, found, sniff::EXPECTED, "Convert the image to NIfTI-1.");
    if data.len() < 348 {
        return Err(refuse(format!("{} bytes, less than a header of 348", data.len())));
    }
    let header = NiftiHeader::from_reader(data).map_err(|e| refuse(e.to_string()))?;
    if header.sizeof_hdr != 348 {
        return Err(refuse(format!("a header that claims {} bytes", header.sizeof_hdr)));
    }
    Ok(header)
}

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
/// Bytes of intensities that an image may become whatever its file's size, and how many a byte of a larger one may become:
/// beyond that it is blank, or made to fill the memory.
const ROOMY: u64 = 1 << 30;
const DENSE: u64 = 1 << 10;

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

/// Reads a 3D image, or a 4D one with a channel in each volume. Every voxel is finite: NaN, infinities and magnitudes
/// above 1e30 become 0 and are counted in the notes. Errors name the file and say what it is where it is no NIfTI-1 image.
pub fn read_image(path: &Path) -> Result<Volume> {
    read_images(&[path.to_path_buf()], Match::default())
}

/// Reads an image whose channels lie in one file (3D or 4D) or in a file each. The first file's grid decides; errors
/// where the others do not match it. Nothing is held but the channels and some megabytes of each file.
pub fn read_images(paths: &[PathBuf], matching: Match) -> Result<Volume> {
    let Some((first, rest)) = paths.split_first() else {
        return Err(Error::Internal("an image without files".into()));
    };
    let opened = Opened::new(first)?;
    opened.check_density()?;
    let grid = opened.grid.clone();
    let mut files = vec![(opened, grid.order)];
    for path in rest {
        let other = Opened::new(path)?;
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
/// values that are not known, or several volumes.
pub fn read_labels(path: &Path, known: &Known) -> Result<LabelMap> {
    let file = Opened::new(path)?;
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
    let file = Opened::new(path)?;
    let order = order_on(&file.grid, path, on, matching)?;
    LabelMap::from_vec(labels(file, known, &order)?, on.grid.clone())
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
