//! NIfTI-1 files.

use std::path::Path;

use nifti::NiftiHeader;

use super::fields;
use super::grid::Grid;
use super::names;
use super::opened::{Body, Opened};
use super::sniff;
use super::source::Source;
use super::voxels::Stored;
use crate::base::{Error, Result};

/// Opens a file, or the pair of a header and an image file.
pub(super) fn open(path: &Path) -> Result<Opened> {
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
    Opened::of_file(path, Body::File { source, single }, start, stored, grid)
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
