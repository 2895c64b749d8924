//! The voxels of a series, slice by slice as they are wanted: float32 in little-endian order, scaled as the files say.

use std::borrow::Cow;
use std::path::PathBuf;

use dicom_core::value::Value;
use dicom_dictionary_std::{tags, uids};
use dicom_object::DefaultDicomObject;
use dicom_pixeldata::PixelDecoder;
use tempfile::TempDir;

use super::rle;
use super::slice::{Part, Slice, object, told};
use crate::base::{Error, Result};

/// Bytes that a slice may unpack to whatever its file's size, and how many for each byte of it.
const ROOMY: usize = 1 << 26;
const DENSE: u64 = 1 << 10;

/// Slices in the order of the image, of which the next bytes are taken.
pub struct Frames {
    slices: Vec<Slice>,
    /// The next slice.
    next: usize,
    /// The last file that was read.
    current: Option<Current>,
    /// Voxels of the slice before, and how many of their bytes were taken.
    voxels: Vec<u8>,
    taken: usize,
    size: u64,
    /// What an archive was unpacked into.
    _unpacked: Option<TempDir>,
}

/// A file whose frames are taken.
struct Current {
    path: PathBuf,
    /// Without its voxels, where they are not packed.
    object: DefaultDicomObject,
    /// Those voxels, of all frames.
    raw: Option<Vec<u8>>,
}

impl Frames {
    pub(super) fn new(slices: Vec<Slice>, unpacked: Option<TempDir>) -> Self {
        let mut files: Vec<&PathBuf> = slices.iter().map(|slice| &slice.item).collect();
        files.dedup();
        let size = |file: &&PathBuf| std::fs::metadata(file).map_or(0, |found| found.len());
        let size = files.iter().map(size).sum();
        let (current, voxels) = (None, Vec::new());
        Self { slices, next: 0, current, voxels, taken: 0, size, _unpacked: unpacked }
    }

    /// Bytes of the files.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next bytes: as many as there is room for, where there are so many.
    pub fn fill(&mut self, room: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < room.len() {
            if self.taken == self.voxels.len() {
                let Some(slice) = self.slices.get(self.next).cloned() else { break };
                self.next += 1;
                self.voxels = self.decode(&slice)?;
                self.taken = 0;
            }
            let left = &self.voxels[self.taken..];
            let count = left.len().min(room.len() - filled);
            room[filled..filled + count].copy_from_slice(&left[..count]);
            filled += count;
            self.taken += count;
        }
        Ok(filled)
    }

    fn decode(&mut self, slice: &Slice) -> Result<Vec<u8>> {
        if self.current.as_ref().is_none_or(|current| current.path != slice.item) {
            self.current = None;
            self.current = Some(Current::read(slice)?);
        }
        let Some(current) = &self.current else {
            return Err(Error::Internal("a DICOM file that is lost".into()));
        };
        let form = Form::of(&current.object, slice)?;
        let stored = current.stored(slice, &form)?;
        Ok(form.scaled(&stored, slice))
    }
}

fn refuse(slice: &Slice, found: impl Into<String>, expected: &str) -> Error {
    let remedy = "Convert the series, for example with dcm2niix, or export it again.";
    Error::file(&slice.shown, found, expected, remedy)
}

/// How the voxels of a file are stored.
struct Form {
    /// Bits of a voxel in the file, bits that count, and the highest of them.
    allocated: u32,
    used: u32,
    high: u32,
    signed: bool,
    /// Voxels of a slice.
    voxels: usize,
}

impl Form {
    fn of(object: &DefaultDicomObject, slice: &Slice) -> Result<Self> {
        let part = Part(object);
        let number = |tag| part.whole(tag).and_then(|value| u32::try_from(value).ok());
        let allocated = number(tags::BITS_ALLOCATED).unwrap_or(0);
        let used = number(tags::BITS_STORED).unwrap_or(allocated);
        let high = number(tags::HIGH_BIT).unwrap_or(used.saturating_sub(1));
        let fits = matches!(allocated, 8 | 16 | 32) && (1..=allocated).contains(&used);
        if !fits || high >= allocated || high + 1 < used {
            let found = format!("{used} of {allocated} bits a voxel, up to bit {high}");
            return Err(refuse(slice, found, "8, 16 or 32 bits"));
        }
        let signed = number(tags::PIXEL_REPRESENTATION) == Some(1);
        let voxels = slice.size[0] * slice.size[1];
        let form = Self { allocated, used, high, signed, voxels };
        let size = std::fs::metadata(&slice.item).map_or(0, |found| found.len());
        if form.bytes() > ROOMY && form.bytes() as u64 > size.saturating_mul(DENSE) {
            let found = format!("{voxels} voxels in a file of {size} bytes");
            return Err(refuse(slice, found, "an image that is not blank"));
        }
        Ok(form)
    }

    /// Bytes of a slice.
    fn bytes(&self) -> usize {
        self.voxels * self.allocated as usize / 8
    }

    /// What the stored numbers stand for.
    fn scaled(&self, stored: &[u8], slice: &Slice) -> Vec<u8> {
        let unused = 32 - self.used;
        let shift = self.high + 1 - self.used;
        let mut values = Vec::with_capacity(4 * self.voxels);
        for bytes in stored.chunks_exact(self.allocated as usize / 8) {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            // bits beyond those that count may hold overlays
            let bits = (u32::from_le_bytes(word) >> shift) << unused;
            let number = match self.signed {
                true => f64::from(bits.cast_signed() >> unused),
                false => f64::from(bits >> unused),
            };
            let value = number * slice.scale.slope + slice.scale.intercept;
            values.extend((value as f32).to_le_bytes());
        }
        values
    }
}

impl Current {
    fn read(slice: &Slice) -> Result<Self> {
        let mut object = object(&slice.item, &slice.shown, true)?;
        let raw = match object.get(tags::PIXEL_DATA).map(|element| element.value()) {
            Some(Value::Primitive(value)) => Some(value.to_bytes().into_owned()),
            _ => None,
        };
        if raw.is_some() {
            object.remove_element(tags::PIXEL_DATA);
        }
        Ok(Self { path: slice.item.clone(), object, raw })
    }

    /// The bytes of a slice, in little-endian order.
    fn stored(&self, slice: &Slice, form: &Form) -> Result<Cow<'_, [u8]>> {
        let short = |count: usize| {
            let found = format!("{count} bytes of voxels");
            refuse(slice, found, &format!("{} bytes in each slice", form.bytes()))
        };
        if let Some(bytes) = &self.raw {
            let start = form.bytes().saturating_mul(slice.frame as usize);
            let own = bytes.get(start..start.saturating_add(form.bytes()));
            let own = own.ok_or_else(|| short(bytes.len().saturating_sub(start)))?;
            return Ok(Cow::Borrowed(own));
        }
        let packed = self.object.get(tags::PIXEL_DATA).map(|element| element.value());
        let Some(Value::PixelSequence(pieces)) = packed else {
            return Err(refuse(slice, "a file without voxels (PixelData)", "an image"));
        };
        if self.object.meta().transfer_syntax() == uids::RLE_LOSSLESS {
            let frame = self.packed_frame(pieces.fragments(), slice)?;
            let unpacked = rle::unpack(&frame, form.voxels, form.allocated as usize / 8);
            let expected = "one segment for each byte of a voxel, as long as the slice";
            return unpacked.map(Cow::Owned).map_err(|found| refuse(slice, found, expected));
        }
        if let Some(size) = pieces.fragments().iter().find_map(|piece| jpeg_size(piece))
            && size != slice.size
        {
            let found = format!("a packed image of {size:?} rows and columns");
            return Err(refuse(slice, found, &format!("{:?}", slice.size)));
        }
        let mut data = self.unpacked(slice)?;
        if data.len() < form.bytes() {
            return Err(short(data.len()));
        }
        data.truncate(form.bytes());
        Ok(Cow::Owned(data))
    }

    /// The packed bytes of a slice: a piece a frame, or all pieces of the only frame.
    fn packed_frame<'a>(&self, pieces: &'a [Vec<u8>], slice: &Slice) -> Result<Cow<'a, [u8]>> {
        let frames = Part(&self.object).whole(tags::NUMBER_OF_FRAMES).unwrap_or(1);
        match pieces.get(slice.frame as usize) {
            _ if frames == 1 => Ok(Cow::Owned(pieces.concat())),
            Some(piece) if frames == pieces.len() as i64 => Ok(Cow::Borrowed(piece)),
            _ => {
                let found = format!("{} packed pieces of {frames} frames", pieces.len());
                Err(refuse(slice, found, "a piece for each frame"))
            }
        }
    }

    /// A slice as the crates unpack it.
    fn unpacked(&self, slice: &Slice) -> Result<Vec<u8>> {
        let expected = "voxels that are raw, or packed by RLE or JPEG";
        if let Some(packing) = unread_packing(self.object.meta().transfer_syntax()) {
            return Err(refuse(slice, format!("voxels packed by {packing}"), expected));
        }
        // what unpacks may not be proof against every mistake of a file
        let unpack = || self.object.decode_pixel_data_frame(slice.frame);
        let unpacked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(unpack));
        let unpacked = unpacked
            .map_err(|_| refuse(slice, "voxels that cannot be unpacked", "packed voxels"))?
            .map_err(|e| refuse(slice, told(&e), expected))?;
        Ok(unpacked.data().to_vec())
    }
}

/// What voxels are packed by that nothing here unpacks.
fn unread_packing(syntax: &str) -> Option<&'static str> {
    let number = syntax.trim_end_matches('\0').strip_prefix("1.2.840.10008.1.2.4.")?;
    match number.parse().ok()? {
        80 | 81 => Some("JPEG-LS"),
        90..=95 => Some("JPEG 2000"),
        100..=108 => Some("a format of films (MPEG)"),
        110..=112 => Some("JPEG XL"),
        201..=205 => Some("high-throughput JPEG 2000"),
        _ => None,
    }
}

/// Rows and columns that a piece of JPEG says it has; none of what is no JPEG.
fn jpeg_size(piece: &[u8]) -> Option<[usize; 2]> {
    let mut at = 2;
    if !piece.starts_with(&[0xff, 0xd8]) {
        return None;
    }
    loop {
        let [0xff, marker, high, low] = *piece.get(at..at + 4)?.first_chunk()? else { return None };
        // frames begin so, but for tables of codes and of arithmetic
        if (0xc0..=0xcf).contains(&marker) && ![0xc4, 0xc8, 0xcc].contains(&marker) {
            let size: [u8; 4] = piece.get(at + 5..at + 9)?.try_into().ok()?;
            let [a, b, c, d] = size.map(usize::from);
            return Some([a << 8 | b, c << 8 | d]);
        }
        at += 2 + (usize::from(high) << 8 | usize::from(low));
    }
}

#[cfg(test)]
mod tests {
    use dicom_dictionary_std::uids;

    use super::unread_packing;

    #[test]
    fn what_is_not_unpacked_has_a_name() {
        for (syntax, name) in [
            (uids::JPEG2000_LOSSLESS, Some("JPEG 2000")),
            (uids::JPEGLS_LOSSLESS, Some("JPEG-LS")),
            (uids::JPEG_BASELINE8_BIT, None),
            (uids::JPEG_LOSSLESS_SV1, None),
            (uids::RLE_LOSSLESS, None),
            (uids::EXPLICIT_VR_LITTLE_ENDIAN, None),
        ] {
            assert_eq!(unread_packing(syntax), name, "{syntax}");
        }
    }
}
