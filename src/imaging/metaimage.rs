//! MetaImage files: `.mha` in one piece, and `.mhd` with the voxels in another file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nifti::{Endianness, NiftiType};

use super::grid::Grid;
use super::opened::{Body, Opened};
use super::source::{Coding, Source};
use super::text_header::{Lines, beside, numbers, sizes};
use super::voxels::Stored;
use crate::base::files::file_name;
use crate::base::{Error, Result};

const EXPECTED: &str = "a MetaImage of 2 to 4 axes";
const AGAIN: &str = "Save the image again, for example with 3D Slicer or SimpleITK.";
/// The last field of a header.
const LAST: &str = "elementdatafile";

/// Whether a file has a header of MetaImage.
pub(super) fn is(path: &Path, start: &[u8]) -> bool {
    let name = file_name(path).to_ascii_lowercase();
    let text = String::from_utf8_lossy(start).to_ascii_lowercase();
    let text = text.trim_start();
    // the fields have any order
    let named = name.ends_with(".mha") || name.ends_with(".mhd");
    text.starts_with("objecttype") || named && text.contains("ndims") && text.contains('=')
}

/// Opens a file. Of 4 axes the last one has channels.
pub(super) fn open(path: &Path) -> Result<Opened> {
    let header = Header::read(path)?;
    let dims = header.dims()?;
    let mut stored = Stored::unscaled(header.kind()?, header.endianness(), dims);
    stored.interleaved = header.channels()? > 1;
    let grid = header.grid([dims[0], dims[1], dims[2]])?;
    let source = header.source(stored.bytes())?;
    Opened::of_file(path, Body::File { source, single: true }, 0, stored, grid)
}

/// The files that an image lies in: itself, and the file of its voxels where that is another one.
pub(super) fn files(path: &Path) -> Vec<PathBuf> {
    let data = Header::read(path).ok().and_then(|header| header.data_file());
    [Some(path.to_path_buf()), data].into_iter().flatten().collect()
}

struct Header {
    path: PathBuf,
    fields: BTreeMap<String, String>,
    /// The byte behind it.
    end: u64,
}

impl Header {
    fn read(path: &Path) -> Result<Self> {
        let field = |line: &str| {
            let (name, value) = line.split_once('=')?;
            Some((name.trim().to_ascii_lowercase(), value.trim().to_string()))
        };
        let last = |line: &str| field(line).is_some_and(|(name, _)| name == LAST);
        let Lines { lines, end } = Lines::read(path, EXPECTED, last)?;
        let fields = lines.iter().filter_map(|line| field(line)).collect();
        Ok(Self { path: path.to_path_buf(), fields, end })
    }

    /// The first of the fields that is there.
    fn field(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.fields.get(*name)).map(String::as_str)
    }

    fn refuse(&self, found: impl Into<String>, expected: &str) -> Error {
        Error::file(&self.path, found, expected, AGAIN)
    }

    fn says(&self, names: &[&str]) -> bool {
        self.field(names).is_some_and(|value| value.to_ascii_lowercase().starts_with(['t', '1']))
    }

    fn axes(&self) -> Result<usize> {
        let text = self.field(&["ndims"]).unwrap_or_default();
        let axes = text.parse().ok().filter(|axes| (2..=4).contains(axes));
        axes.ok_or_else(|| self.refuse(format!("NDims {text:?}"), EXPECTED))
    }

    /// Numbers that follow one another in a voxel.
    fn channels(&self) -> Result<usize> {
        let text = self.field(&["elementnumberofchannels"]).unwrap_or("1");
        let count = text.parse().ok().filter(|count| (1..=1 << 16).contains(count));
        count.ok_or_else(|| self.refuse(format!("ElementNumberOfChannels {text:?}"), "1 or more"))
    }

    fn dims(&self) -> Result<[usize; 4]> {
        let (axes, channels) = (self.axes()?, self.channels()?);
        let text = self.field(&["dimsize"]).unwrap_or_default();
        let all = sizes(text).filter(|all| all.len() == axes);
        let all = all.ok_or_else(|| {
            let expected = format!("{axes} sizes of 1 voxel or more");
            self.refuse(format!("DimSize {text:?}"), &expected)
        })?;
        let size = |axis: usize| all.get(axis).copied().unwrap_or(1);
        if size(3) > 1 && channels > 1 {
            let found = format!("a fourth axis, and {channels} numbers a voxel");
            return Err(self.refuse(found, "one or the other"));
        }
        Ok([size(0), size(1), size(2), size(3) * channels])
    }

    fn kind(&self) -> Result<NiftiType> {
        let name = self.field(&["elementtype"]).unwrap_or_default().to_ascii_uppercase();
        Ok(match name.trim_end_matches("_ARRAY") {
            "MET_CHAR" => NiftiType::Int8,
            "MET_UCHAR" => NiftiType::Uint8,
            "MET_SHORT" => NiftiType::Int16,
            "MET_USHORT" => NiftiType::Uint16,
            // ITK has 4 bytes for a long
            "MET_INT" | "MET_LONG" => NiftiType::Int32,
            "MET_UINT" | "MET_ULONG" => NiftiType::Uint32,
            "MET_LONG_LONG" => NiftiType::Int64,
            "MET_ULONG_LONG" => NiftiType::Uint64,
            "MET_FLOAT" => NiftiType::Float32,
            "MET_DOUBLE" => NiftiType::Float64,
            _ => return Err(self.refuse(format!("ElementType {name:?}"), "numbers, as MET_SHORT")),
        })
    }

    fn endianness(&self) -> Endianness {
        let big = self.says(&["elementbyteordermsb", "binarydatabyteordermsb"]);
        if big { Endianness::Big } else { Endianness::Little }
    }

    /// Numbers of a field, so many of them.
    fn numbers(&self, names: &[&str], count: usize) -> Result<Option<Vec<f64>>> {
        let Some(text) = self.field(names) else { return Ok(None) };
        match numbers(text).filter(|found| found.len() == count) {
            Some(found) => Ok(Some(found)),
            None => {
                let found = format!("{} {text:?}", names[0]);
                Err(self.refuse(found, &format!("{count} numbers")))
            }
        }
    }

    fn grid(&self, dims: [usize; 3]) -> Result<Grid> {
        let axes = self.axes()?;
        let turn = self.numbers(&["transformmatrix", "rotation", "orientation"], axes * axes)?;
        let origin = self.numbers(&["offset", "position", "origin"], axes)?;
        let edges = self.numbers(&["elementspacing", "elementsize"], axes)?;
        let of = |list: &Option<Vec<f64>>, at: usize, other: f64| {
            list.as_ref().and_then(|list| list.get(at)).copied().unwrap_or(other)
        };
        // a row is the direction of an axis
        let step = |axis: usize| {
            let cosine = |world: usize| match axis.max(world) < axes {
                true => of(&turn, axis * axes + world, f64::from(axis == world)),
                false => f64::from(axis == world),
            };
            let edge = if axis < axes { of(&edges, axis, 1.0) } else { 1.0 };
            [0, 1, 2].map(|world| cosine(world) * edge)
        };
        let steps = [0, 1, 2].map(step);
        let origin = [0, 1, 2].map(|axis| if axis < axes { of(&origin, axis, 0.0) } else { 0.0 });
        Grid::from_lps(dims, steps, origin).ok_or_else(|| {
            let found = format!(
                "steps {steps:?} from {origin:?} (TransformMatrix, ElementSpacing, Offset)"
            );
            self.refuse(found, "directions that span the space, and a place in it")
        })
    }

    /// Where the voxels are, unless in this file or in several.
    fn data_file(&self) -> Option<PathBuf> {
        let name = self.field(&[LAST])?;
        let own = name.eq_ignore_ascii_case("local");
        (!own && !several(name)).then(|| beside(&self.path, name))
    }

    fn source(&self, bytes: u64) -> Result<Source> {
        let name = self.field(&[LAST]).unwrap_or_default();
        if name.is_empty() || several(name) {
            let found = format!("ElementDataFile {name:?}");
            return Err(self.refuse(found, "LOCAL, or the name of one file with the voxels"));
        }
        if self.field(&["binarydata"]).is_some() && !self.says(&["binarydata"]) {
            return Err(self.refuse("voxels written as text (BinaryData)", "binary voxels"));
        }
        let coding = if self.says(&["compresseddata"]) { Coding::Packed } else { Coding::Raw };
        let Some(file) = self.data_file() else {
            return Source::open_at(&self.path, self.end, coding);
        };
        let text = self.field(&["headersize"]).unwrap_or("0");
        let skip: i64 = text.parse().ok().filter(|skip| *skip >= -1).ok_or_else(|| {
            self.refuse(format!("HeaderSize {text:?}"), "a number of bytes from -1 on")
        })?;
        let size = std::fs::metadata(&file).map_or(0, |found| found.len());
        // -1 means the last bytes of the file
        let skip = u64::try_from(skip).unwrap_or(size.saturating_sub(bytes));
        Source::open_at(&file, skip, coding)
    }
}

/// Whether a name stands for several files.
fn several(name: &str) -> bool {
    name.to_ascii_uppercase().starts_with("LIST") || name.contains('%')
}
