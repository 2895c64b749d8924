//! What the fields of a NIfTI-1 header say: each is checked before anything is done with it.

use std::path::Path;

use nifti::{Endianness, NiftiHeader, NiftiType};

use super::grid::broken_offset;
use super::source::Source;
use crate::base::{Error, Result};

/// What helps where a header contradicts itself.
const AGAIN: &str = "The header is broken; save the image again.";

/// Sizes of i, j, k and the number of volumes; axes past the fourth must be 1, save a fifth in place of the fourth.
pub(super) fn dimensions(path: &Path, header: &NiftiHeader) -> Result<[usize; 4]> {
    let count = usize::from(header.dim[0]);
    let size = |axis: usize| if axis <= count { usize::from(header.dim[axis]) } else { 1 };
    let all: Vec<usize> = (1..8).map(size).collect();
    // sizes are signed in the file
    let sensible = (2..=7).contains(&count) && all.iter().all(|n| (1..=0x7fff).contains(n));
    let volumes = all[3..].iter().fold(1, |product: usize, n| product.saturating_mul(*n));
    if !sensible || all[3..].iter().filter(|n| **n > 1).count() > 1 {
        return Err(Error::file(
            path,
            format!("dimensions {:?} (dim)", header.dim.map(|n| n as i16)),
            "a 3D image, or a 4D one with a channel in each volume",
            "Save each channel or time point as a volume of its own.",
        ));
    }
    Ok([all[0], all[1], all[2], volumes])
}

/// The type of voxels, whose size in bits the header must give as it is.
pub(super) fn kind(path: &Path, header: &NiftiHeader) -> Result<NiftiType> {
    use NiftiType::{Float32, Float64, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64};
    let kind = match header.data_type() {
        Ok(
            k @ (Uint8 | Uint16 | Uint32 | Uint64 | Int8 | Int16 | Int32 | Int64 | Float32
            | Float64),
        ) => k,
        other => {
            return Err(Error::file(
                path,
                other.map_or(format!("data type {} (datatype)", header.datatype), |k| {
                    format!("voxels of type {k:?} (datatype)")
                }),
                "integers of 8 to 64 bits or floats of 32 or 64",
                "Convert the image to float32, or split its components into channels.",
            ));
        }
    };
    let bits = 8 * kind.size_of();
    if usize::try_from(header.bitpix).ok() != Some(bits) {
        let found = format!("{} bits a voxel (bitpix)", header.bitpix);
        return Err(Error::file(path, found, format!("{bits} for voxels of type {kind:?}"), AGAIN));
    }
    Ok(kind)
}

/// Furthest that voxels may begin: no extensions reach so far.
const FURTHEST: u64 = 1 << 28;

/// Where the voxels begin in their file.
pub(super) fn offset(path: &Path, header: &NiftiHeader, single: bool) -> Result<u64> {
    let offset = header.vox_offset;
    if !(0.0..=FURTHEST as f32).contains(&offset) {
        return Err(Error::file(
            path,
            format!("voxels that begin at byte {offset} (vox_offset)"),
            format!("a place in the file, up to byte {FURTHEST}"),
            AGAIN,
        ));
    }
    Ok((offset as u64).max(if single { 348 } else { 0 }))
}

/// Refuses a scale that is no number, where there is one.
pub(super) fn check_scale(path: &Path, header: &NiftiHeader) -> Result<()> {
    let (slope, inter) = (header.scl_slope, header.scl_inter);
    let (name, found) = match () {
        () if !slope.is_finite() => ("scl_slope", slope),
        // a slope of 0 means that there is no scale
        () if slope != 0.0 && !inter.is_finite() => ("scl_inter", inter),
        () => return Ok(()),
    };
    let expected = "a number by which voxels are scaled";
    let remedy = "Save the image again, with scl_slope 1 and scl_inter 0 where it has no scale.";
    Err(Error::file(path, format!("{name} {found}"), expected, remedy))
}

/// Refuses voxels that are turned and sized as they should be, but whose place is no number.
pub(super) fn check_place(path: &Path, header: &NiftiHeader) -> Result<()> {
    let Some((name, offset)) = broken_offset(header) else { return Ok(()) };
    let found = format!("{name} {offset:?}");
    let expected = "where in the world the first voxel lies";
    let remedy = "Correct sform and qform of the header.";
    Err(Error::file(path, found, expected, remedy))
}

/// Bytes of extensions that are kept at most, so that a packed file of little unpacks to little.
const MOST: usize = 1 << 24;

/// The extensions between the header and the voxels, of which a broken one ends the list.
pub(super) fn extensions(
    source: &mut Source,
    header: &NiftiHeader,
    end: u64,
) -> Result<Vec<(i32, Vec<u8>)>> {
    let word = |bytes: &[u8], at: usize| -> Option<i32> {
        let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(match header.endianness {
            Endianness::Little => i32::from_le_bytes(bytes),
            Endianness::Big => i32::from_be_bytes(bytes),
        })
    };
    let mut found = Vec::new();
    let mut at = 352;
    if source.head(0)?.get(348).copied().unwrap_or(0) == 0 {
        return Ok(found);
    }
    while at as u64 + 8 <= end {
        let head = source.head(at + 8)?;
        let (Some(size), Some(code)) = (word(head, at), word(head, at + 4)) else { break };
        let next = at + size.max(0) as usize;
        if size < 8 || next as u64 > end.min(source.most()) {
            break;
        }
        if next > MOST {
            let found = format!("an extension of {size} bytes at byte {at} (esize)");
            let expected = format!("at most {MOST} bytes of extensions");
            return Err(Error::file(&source.path, found, expected, AGAIN));
        }
        let Some(data) = source.head(next)?.get(at + 8..next) else { break };
        found.push((code, data.to_vec()));
        at = next;
    }
    Ok(found)
}
