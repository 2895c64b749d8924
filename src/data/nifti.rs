//! Reading NIfTI-1 files to canonical RAS.

use std::io::Read;
use std::path::{Path, PathBuf};

use nifti::{Endianness, NiftiHeader, NiftiType};

use super::grid::Grid;
use crate::error::{Error, Result};

/// An image: channels over a canonical RAS grid.
#[derive(Debug, Clone)]
pub struct Volume {
    pub channels: usize,
    /// D, H, W = z, y, x.
    pub shape: [usize; 3],
    /// Millimetres, D, H, W.
    pub spacing: [f64; 3],
    /// C, D, H, W.
    pub data: Vec<f32>,
    /// The input's own grid.
    pub grid: Grid,
}

/// A label map over a canonical RAS grid.
#[derive(Debug, Clone)]
pub struct LabelVolume {
    /// D, H, W = z, y, x.
    pub shape: [usize; 3],
    /// Millimetres, D, H, W.
    pub spacing: [f64; 3],
    pub data: Vec<u8>,
    /// The input's own grid.
    pub grid: Grid,
}

/// Most bytes that a volume may unpack to.
const MAX_BYTES: u64 = 16 << 30;

fn bytes(path: &Path) -> Result<Vec<u8>> {
    let raw = std::fs::read(path).map_err(|e| Error::io(path, e))?;
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

/// The image file of a header file, if the path is one of a pair.
fn partner(path: &Path) -> Option<Vec<PathBuf>> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let stem = name.strip_suffix(".hdr").or_else(|| name.strip_suffix(".hdr.gz"))?;
    Some(vec![
        path.with_file_name(format!("{stem}.img")),
        path.with_file_name(format!("{stem}.img.gz")),
    ])
}

/// The header file of an image file, if the path is one of a pair and the header is there.
fn header_file(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let stem = name.strip_suffix(".img").or_else(|| name.strip_suffix(".img.gz"))?;
    [".hdr", ".hdr.gz"]
        .iter()
        .map(|end| path.with_file_name(format!("{stem}{end}")))
        .find(|p| p.exists())
}

/// A parsed file: header, extensions, and the bytes of the voxels.
struct Raw {
    header: NiftiHeader,
    extensions: Vec<(i32, Vec<u8>)>,
    voxels: Vec<u8>,
    kind: NiftiType,
    /// Voxels along i, j, k, and volumes.
    dims: [usize; 4],
}

fn header(path: &Path, data: &[u8]) -> Result<NiftiHeader> {
    let refuse = |found: String| {
        Error::file(
            path,
            found,
            "a NIfTI-1 file (.nii, .nii.gz or .hdr/.img)",
            "Convert the image to NIfTI-1.",
        )
    };
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
    let sensible = (2..=7).contains(&count) && !all.contains(&0);
    let volumes: usize = all[3..].iter().product();
    if !sensible || all[3..].iter().filter(|n| **n > 1).count() > 1 {
        return Err(Error::file(
            path,
            format!("dimensions {:?}", &header.dim[..]),
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
    let header_of_pair = header_file(path);
    let path = header_of_pair.as_deref().unwrap_or(path);
    let data = bytes(path)?;
    let header = header(path, &data)?;
    let dims = dimensions(path, &header)?;
    let kind = kind(path, &header)?;
    let wanted = dims
        .iter()
        .try_fold(kind.size_of(), |product, n| product.checked_mul(*n))
        .unwrap_or(usize::MAX);
    let single = header.magic == *b"n+1\0";
    let start = if single {
        (header.vox_offset.max(348.0)) as usize
    } else {
        header.vox_offset.max(0.0) as usize
    };
    let extensions = extensions(&data, &header, if single { start } else { data.len() });
    let (source, voxels) = if single {
        (path.to_path_buf(), data)
    } else {
        let candidates = partner(path).unwrap_or_default();
        let image = candidates.iter().find(|p| p.exists()).cloned().ok_or_else(|| {
            Error::file(
                path,
                "a header without its .img file",
                "NAME.hdr beside NAME.img",
                "Put both files into one folder.",
            )
        })?;
        let voxels = bytes(&image)?;
        (image, voxels)
    };
    match voxels.get(start..start.saturating_add(wanted)) {
        Some(voxels) => Ok(Raw { voxels: voxels.to_vec(), header, extensions, kind, dims }),
        None => Err(Error::file(
            source,
            format!("{} bytes of voxels", voxels.len().saturating_sub(start)),
            format!("{wanted} bytes for {}x{}x{}x{} voxels", dims[0], dims[1], dims[2], dims[3]),
            "The file is cut off; copy or download it again.",
        )),
    }
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
    let mut at = 352;
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

fn decode(raw: &Raw) -> Vec<f64> {
    macro_rules! each {
        ($t:ty) => {{
            raw.voxels
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

/// Volumes of a file in canonical order, and its grid.
fn read(path: &Path) -> Result<(Vec<Vec<f64>>, Grid)> {
    let raw = load(path)?;
    let mut values = decode(&raw);
    let odd = values.iter_mut().filter(|v| !v.is_finite()).map(|v| *v = 0.0).count();
    if odd > 0 {
        log::warn!("{}: {odd} voxels are not finite and count as 0", path.display());
    }
    let [i, j, k, volumes] = raw.dims;
    let grid = Grid::new(raw.header, raw.extensions, [i, j, k]);
    let size = i * j * k;
    let canonical = (0..volumes)
        .map(|volume| {
            let source = &values[volume * size..(volume + 1) * size];
            let mut target = vec![0.0; size];
            grid.each(|to, from| target[to] = source[from]);
            target
        })
        .collect();
    Ok((canonical, grid))
}

/// Reads a 3D image, or a 4D one with a channel in each volume.
pub fn read_image(path: &Path) -> Result<Volume> {
    let (volumes, grid) = read(path)?;
    Ok(Volume {
        channels: volumes.len(),
        shape: grid.shape(),
        spacing: grid.spacing(),
        data: volumes.into_iter().flatten().map(|v| v as f32).collect(),
        grid,
    })
}

/// Reads an image whose channels lie in one file (3D or 4D) or in a file each.
pub fn read_images(paths: &[PathBuf]) -> Result<Volume> {
    let Some((first, rest)) = paths.split_first() else {
        return Err(Error::Internal("an image without files".into()));
    };
    let mut volume = read_image(first)?;
    for path in rest {
        let other = read_image(path)?;
        check_same_grid((&volume.grid, first), (&other.grid, path))?;
        volume.channels += other.channels;
        volume.data.extend(other.data);
    }
    Ok(volume)
}

/// Reads a label map of integers or of floats that are whole numbers. Values in `stray` count as background; others that
/// are not in `allowed` are an error.
pub fn read_labels(path: &Path, allowed: &[u8], stray: &[u8]) -> Result<LabelVolume> {
    let (mut volumes, grid) = read(path)?;
    if volumes.len() != 1 {
        return Err(Error::file(
            path,
            format!("{} volumes", volumes.len()),
            "a 3D label map",
            "Save the labels as one volume.",
        ));
    }
    let mut unknown = std::collections::BTreeMap::<String, usize>::new();
    let mut strays = 0;
    let mut data = Vec::with_capacity(volumes[0].len());
    for value in volumes.swap_remove(0) {
        let label = value.round();
        let known = (value - label).abs() <= 1e-3 && (0.0..=255.0).contains(&label);
        if known && allowed.contains(&(label as u8)) {
            data.push(label as u8);
            continue;
        }
        if known && stray.contains(&(label as u8)) {
            strays += 1;
        } else {
            let whole = (value - label).abs() <= 1e-3;
            *unknown.entry(format!("{}", if whole { label } else { value })).or_default() += 1;
        }
        data.push(0);
    }
    if !unknown.is_empty() {
        let some: Vec<String> = unknown
            .iter()
            .take(5)
            .map(|(value, count)| format!("{value} ({count} voxels)"))
            .collect();
        return Err(Error::file(
            path,
            format!("label values {}", some.join(", ")),
            format!("the values {allowed:?} of dataset.json"),
            "Correct the labels, or list the values in dataset.json.",
        ));
    }
    if strays > 0 {
        log::warn!(
            "{}: {strays} voxels with stray labels {stray:?} count as background",
            path.display()
        );
    }
    Ok(LabelVolume { shape: grid.shape(), spacing: grid.spacing(), data, grid })
}

/// An error where two files have different canonical shapes; a warning where their voxels lie at different places.
pub fn check_same_grid((a, path_a): (&Grid, &Path), (b, path_b): (&Grid, &Path)) -> Result<()> {
    if a.shape() != b.shape() {
        return Err(Error::file(
            path_b,
            format!("shape {:?} (D, H, W)", b.shape()),
            format!("{:?}, that of {}", a.shape(), path_a.display()),
            "Resample one of the files to the other's grid.",
        ));
    }
    if !a.same_place(b) {
        log::warn!(
            "{} and {} have different affines; the voxels are taken to match",
            path_a.display(),
            path_b.display()
        );
    }
    Ok(())
}
