//! Pictures inside a page.

use std::io::Cursor;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use image::{ImageFormat, ImageReader, Limits};

use crate::base::files::read_bytes;
use crate::base::{Error, Result};

/// Pixels down or across that a picture may have, more than those of three planes have.
const MOST: u32 = 4096;
/// Of JPEG: lines stay sharp, and a picture takes a quarter of what it takes as PNG.
const QUALITY: u8 = 88;

/// A PNG file as a URI that holds the picture itself, packed as JPEG, so that the pictures of hundreds of cases fit into a page.
///
/// # Errors
///
/// Where the file cannot be read or is no picture.
pub fn data_uri(path: &Path) -> Result<String> {
    const EXPECTED: &str = "a picture (PNG)";
    let bytes = read_bytes(path, EXPECTED)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png);
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MOST), Some(MOST));
    reader.limits(limits);
    let picture = reader.decode().map_err(|e| {
        let remedy = "Remove it, or have it drawn again.";
        Error::file(path, format!("no picture ({e})"), EXPECTED, remedy)
    })?;
    let mut jpeg = Vec::new();
    JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
        .encode_image(&picture.to_rgb8())
        .map_err(|e| Error::Internal(format!("JPEG of {}: {e}", path.display())))?;
    Ok(format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg)))
}
