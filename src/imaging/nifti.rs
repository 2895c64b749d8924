//! Reading NIfTI-1 files to canonical RAS.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use nifti::{Endianness, NiftiHeader, NiftiType};

use super::grid::{EDGES, Grid, Order};
use super::names;
use super::place::{Match, Reference, order_on};
use super::sniff;
use super::volume::{LabelMap, Volume, intensity};
use crate::base::files::read_bytes;
use crate::base::{Error, Result};

/// Most bytes that a volume may unpack to.
const MAX_BYTES: u64 = 16 << 30;

fn bytes(path: &Path) -> Result<Vec<u8>> {
    let raw = match read_bytes(path, sniff::EXPECTED) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            let remedy = "Correct the path, or restore the file.";
            return Err(Error::file(path, "no such file", sniff::EXPECTED, remedy));
        }
        raw => raw?,
    };
    if !raw.starts_with(&[0x1f, 0x8b]) {
        return Ok(raw);
    }
    let mut unpacked = Vec::new();
    let mut left = raw.as_slice();
    // members one after another; what follows the last, such as padding of an archive, is none
    while left.starts_with(&[0x1f, 0x8b]) {
        let mut member = flate2::bufread::GzDecoder::new(left);
        member.by_ref().take(MAX_BYTES).read_to_end(&mut unpacked).map_err(|e| {
            let found = format!("a gzip stream that ends or breaks early ({e})");
            Error::file(path, found, "a whole .nii.gz file", "Copy or download the file again.")
        })?;
        left = member.into_inner();
    }
    Ok(unpacked)
}

/// A parsed file: header, extensions, and the bytes of the voxels.
struct Raw {
    header: NiftiHeader,
    extensions: Vec<(i32, Vec<u8>)>,
    /// The file that holds the voxels, from `start` on.
    bytes: Vec<u8>,
    start: usize,
    kind: NiftiType,
    /// Voxels along i, j, k, and volumes.
    dims: [usize; 4],
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

/// Sizes of i, j, k and the number of volumes; axes past the fourth must be 1, save a fifth in place of the fourth.
fn dimensions(path: &Path, header: &NiftiHeader) -> Result<[usize; 4]> {
    let count = usize::from(header.dim[0]);
    let size = |axis: usize| if axis <= count { usize::from(header.dim[axis]) } else { 1 };
    let all: Vec<usize> = (1..8).map(size).collect();
    // sizes are signed in the file
    let sensible = (2..=7).contains(&count) && all.iter().all(|n| (1..=0x7fff).contains(n));
    let volumes = all[3..].iter().fold(1, |product: usize, n| product.saturating_mul(*n));
    if !sensible || all[3..].iter().filter(|n| **n > 1).count() > 1 {
        return Err(Error::file(
            path,
            format!("dimensions {:?}", header.dim.map(|n| n as i16)),
            "a 3D image, or a 4D one with a channel in each volume",
            "Save each channel or time point as a volume of its own.",
        ));
    }
    Ok([all[0], all[1], all[2], volumes])
}

fn kind(path: &Path, header: &NiftiHeader) -> Result<NiftiType> {
    use NiftiType::{Float32, Float64, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64};
    let kind = header.data_type();
    match kind {
        Ok(
            k @ (Uint8 | Uint16 | Uint32 | Uint64 | Int8 | Int16 | Int32 | Int64 | Float32
            | Float64),
        ) => Ok(k),
        other => Err(Error::file(
            path,
            other.map_or(format!("data type {}", header.datatype), |k| {
                format!("voxels of type {k:?}")
            }),
            "integers of 8 to 64 bits or floats of 32 or 64",
            "Convert the image to float32, or split its components into channels.",
        )),
    }
}

fn load(path: &Path) -> Result<Raw> {
    let names::Halves { header: header_file, image: image_file } = names::halves(path);
    let data = bytes(&header_file)?;
    let header = header(&header_file, &data)?;
    let single = header.magic == *b"n+1\0";
    let dims = dimensions(&header_file, &header)?;
    let kind = kind(&header_file, &header)?;
    let start = offset(&header_file, &header, single)?;
    let extensions = extensions(&data, &header, if single { start } else { data.len() });
    let (source, bytes) = if single {
        (header_file, data)
    } else {
        let Some(image) = image_file else { return Err(sniff::no_image(path)) };
        let voxels = bytes(&image)?;
        (image, voxels)
    };
    let wanted = dims
        .iter()
        .try_fold(kind.size_of(), |product, n| product.checked_mul(*n))
        .unwrap_or(usize::MAX);
    if bytes.len().saturating_sub(start) >= wanted {
        return Ok(Raw { header, extensions, bytes, start, kind, dims });
    }
    // a cut off label map may be nothing but background
    let blank = !bytes.is_empty() && bytes.iter().all(|byte| *byte == 0);
    if let Some(error) = sniff::explain(&source, &bytes).filter(|_| !single && !blank) {
        return Err(error);
    }
    Err(Error::file(
        source,
        format!("{} bytes of voxels", bytes.len().saturating_sub(start)),
        format!("{wanted} bytes for {}x{}x{}x{} voxels", dims[0], dims[1], dims[2], dims[3]),
        "The file is cut off; copy or download it again.",
    ))
}

/// Where the voxels begin in their file.
fn offset(path: &Path, header: &NiftiHeader, single: bool) -> Result<usize> {
    let offset = header.vox_offset;
    if !offset.is_finite() || offset < 0.0 {
        return Err(Error::file(
            path,
            format!("voxels that begin at byte {offset}"),
            "a place in the file (vox_offset)",
            "The header is broken; save the image again.",
        ));
    }
    Ok((offset as usize).max(if single { 348 } else { 0 }))
}

fn extensions(data: &[u8], header: &NiftiHeader, end: usize) -> Vec<(i32, Vec<u8>)> {
    let word = |at: usize| -> Option<i32> {
        let bytes = data.get(at..at + 4)?.try_into().ok()?;
        Some(match header.endianness {
            Endianness::Little => i32::from_le_bytes(bytes),
            Endianness::Big => i32::from_be_bytes(bytes),
        })
    };
    let mut found = Vec::new();
    let (mut at, end) = (352, end.min(data.len()));
    if data.get(348).copied().unwrap_or(0) == 0 {
        return found;
    }
    while at + 8 <= end {
        let (Some(size), Some(code)) = (word(at), word(at + 4)) else { break };
        let next = at + size.max(0) as usize;
        if size < 8 || next > end {
            break;
        }
        found.push((code, data[at + 8..next].to_vec()));
        at = next;
    }
    found
}

/// All values as the header scales them, volume after volume, i fastest.
fn decode(raw: &Raw) -> Vec<f64> {
    let count = raw.dims.iter().product::<usize>() * raw.kind.size_of();
    let voxels = &raw.bytes[raw.start..raw.start + count];
    macro_rules! each {
        ($t:ty) => {{
            voxels
                .as_chunks::<{ size_of::<$t>() }>()
                .0
                .iter()
                .map(|b| match raw.header.endianness {
                    Endianness::Little => <$t>::from_le_bytes(*b) as f64,
                    Endianness::Big => <$t>::from_be_bytes(*b) as f64,
                })
                .collect()
        }};
    }
    let mut values: Vec<f64> = match raw.kind {
        NiftiType::Uint8 => each!(u8),
        NiftiType::Int8 => each!(i8),
        NiftiType::Uint16 => each!(u16),
        NiftiType::Int16 => each!(i16),
        NiftiType::Uint32 => each!(u32),
        NiftiType::Int32 => each!(i32),
        NiftiType::Uint64 => each!(u64),
        NiftiType::Int64 => each!(i64),
        NiftiType::Float32 => each!(f32),
        _ => each!(f64),
    };
    let (slope, inter) = (f64::from(raw.header.scl_slope), f64::from(raw.header.scl_inter));
    if slope.is_finite() && inter.is_finite() && slope != 0.0 && (slope, inter) != (1.0, 0.0) {
        values.iter_mut().for_each(|v| *v = *v * slope + inter);
    }
    values
}

/// The values of a file in its own order, and its grid.
struct Decoded {
    values: Vec<f64>,
    volumes: usize,
    grid: Grid,
}

fn read(path: &Path) -> Result<Decoded> {
    let raw = load(path)?;
    let values = decode(&raw);
    let [i, j, k, volumes] = raw.dims;
    let grid = Grid::new(raw.header, raw.extensions, [i, j, k]);
    let [least, most] = EDGES;
    if grid.spacing().iter().any(|edge| !(least..=most).contains(edge)) {
        return Err(Error::file(
            path,
            format!("voxels of {:?} mm (D, H, W)", grid.spacing()),
            format!("edges of {least:e} to {most:e} mm"),
            "Correct the voxel sizes (pixdim, sform) or the unit of length (xyzt_units) of its header.",
        ));
    }
    Ok(Decoded { values, volumes, grid })
}

/// Appends all volumes in `order`; counts the voxels that are no intensities and become 0.
fn append(data: &mut Vec<f32>, stored: &Decoded, order: &Order) -> usize {
    let size: usize = stored.grid.dims.iter().product();
    let mut odd = 0;
    for values in stored.values.chunks(size) {
        let start = data.len();
        data.resize(start + size, 0.0);
        let target = &mut data[start..];
        order.each(stored.grid.dims, |to, from| match intensity(values[from]) {
            Some(value) => target[to] = value,
            None => odd += 1,
        });
    }
    odd
}

/// Reads a 3D image, or a 4D one with a channel in each volume. Every voxel is finite: NaN, infinities and magnitudes
/// above 1e30 become 0 and are counted in the notes. Errors name the file and say what it is where it is no NIfTI-1 image.
pub fn read_image(path: &Path) -> Result<Volume> {
    read_images(&[path.to_path_buf()], Match::default())
}

/// Reads an image whose channels lie in one file (3D or 4D) or in a file each. The first file's grid decides; errors
/// where the others do not match it.
pub fn read_images(paths: &[PathBuf], matching: Match) -> Result<Volume> {
    let Some((first, rest)) = paths.split_first() else {
        return Err(Error::Internal("an image without files".into()));
    };
    let stored = read(first)?;
    let mut data = Vec::new();
    let mut odd = append(&mut data, &stored, &stored.grid.order);
    let grid = stored.grid;
    for path in rest {
        let other = read(path)?;
        let order = order_on(&other.grid, path, &Reference { grid: &grid, path: first }, matching)?;
        odd += append(&mut data, &other, &order);
    }
    Volume::from_intensities(data, grid, odd)
}

/// The label values that a file may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// In any order.
    pub values: Vec<u8>,
    /// Where that is said, such as `dataset.json`, for messages.
    pub source: String,
}

impl Known {
    /// All that a label can be: 0 to 255.
    pub fn any() -> Self {
        Self { values: (0..=255).collect(), source: String::new() }
    }

    /// The values, runs of three and more shortened: `0 to 3, 254`.
    fn list(&self) -> String {
        let mut values = self.values.clone();
        values.sort_unstable();
        values.dedup();
        let runs = values.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
            [first, .., last] if run.len() > 3 => format!("{first} to {last}"),
            run => run.iter().map(u8::to_string).collect::<Vec<_>>().join(", "),
        });
        runs.collect::<Vec<_>>().join(", ")
    }

    fn error(&self, path: &Path, unknown: &BTreeMap<String, usize>) -> Error {
        let mut counted: Vec<_> = unknown.iter().collect();
        // names order 10 before 9
        let number = |text: &str| text.parse().unwrap_or(f64::NAN);
        counted.sort_by(|a, b| number(a.0).total_cmp(&number(b.0)));
        let voxels = |count: usize| if count == 1 { "voxel" } else { "voxels" };
        let some = counted.iter().take(5).map(|(v, n)| format!("{v} ({n} {})", voxels(**n)));
        let mut found = format!("label values {}", some.collect::<Vec<_>>().join(", "));
        if counted.len() > 5 {
            found += &format!(" and {} more", counted.len() - 5);
        }
        let (list, source) = (self.list(), &self.source);
        let expected = match source.as_str() {
            "" => format!("whole numbers, {list}"),
            _ => format!("the values {list} of {source}"),
        };
        let remedy = if unknown.keys().any(|value| number(value).fract() != 0.0) {
            "Save the labels as integers; resample label maps to the nearest voxel.".into()
        } else if unknown.keys().any(|value| !(0.0..=255.0).contains(&number(value))) {
            "Renumber the labels from 0 to 255.".into()
        } else if source.is_empty() {
            "Correct the labels.".into()
        } else {
            format!("Correct the labels, or list their values in {source}.")
        };
        Error::file(path, found, expected, remedy)
    }
}

/// Reads a label map of integers or of floats that are whole numbers, in its own canonical order. Errors where it holds
/// values that are not known, or several volumes.
pub fn read_labels(path: &Path, known: &Known) -> Result<LabelMap> {
    let stored = read(path)?;
    let data = labels(&stored, path, known, &stored.grid.order)?;
    LabelMap::from_vec(data, stored.grid)
}

/// As [`read_labels`], in the canonical order of another file's grid, which it takes: its image's, or its reference's.
/// Errors where the voxels do not match.
pub fn read_labels_on(
    path: &Path,
    known: &Known,
    on: &Reference<'_>,
    matching: Match,
) -> Result<LabelMap> {
    let stored = read(path)?;
    let order = order_on(&stored.grid, path, on, matching)?;
    let data = labels(&stored, path, known, &order)?;
    LabelMap::from_vec(data, on.grid.clone())
}

fn labels(stored: &Decoded, path: &Path, known: &Known, order: &Order) -> Result<Vec<u8>> {
    if stored.volumes != 1 {
        return Err(Error::file(
            path,
            format!("{} volumes", stored.volumes),
            "a 3D label map",
            "Save the labels as one volume.",
        ));
    }
    let mut allowed = [false; 256];
    known.values.iter().for_each(|value| allowed[usize::from(*value)] = true);
    let mut unknown = BTreeMap::<String, usize>::new();
    let mut data = vec![0; stored.values.len()];
    order.each(stored.grid.dims, |to, from| {
        let value = stored.values[from];
        let label = value.round();
        let whole = (value - label).abs() <= 1e-3;
        if whole && (0.0..=255.0).contains(&label) && allowed[label as usize] {
            data[to] = label as u8;
        } else {
            *unknown.entry(written(if whole { label } else { value })).or_default() += 1;
        }
    });
    if unknown.is_empty() { Ok(data) } else { Err(known.error(path, &unknown)) }
}

/// A label value as a person writes it.
fn written(value: f64) -> String {
    if value.is_finite() && value != 0.0 && !(1e-4..1e15).contains(&value.abs()) {
        let short = value as f32;
        return if short.is_normal() { format!("{short:e}") } else { format!("{value:e}") };
    }
    // voxels of float32 have digits enough at this length
    let rounded = format!("{value:.4}");
    if rounded.contains('.') {
        return rounded.trim_end_matches('0').trim_end_matches('.').to_string();
    }
    rounded
}
