//! NRRD files: `.nrrd` in one piece, and `.nhdr` with the voxels in another file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nifti::{Endianness, NiftiType};

use super::grid::Grid;
use super::opened::{Body, Opened};
use super::source::{Coding, Source};
use super::text_header::{Lines, beside, numbers, sizes};
use super::voxels::Stored;
use crate::base::{Error, Result};

const EXPECTED: &str = "an NRRD file of numbers on a grid (raw or gzip)";
const AGAIN: &str = "Save the image again, for example with 3D Slicer or SimpleITK.";

/// Whether a file begins as NRRD files do.
pub(super) fn is(start: &[u8]) -> bool {
    start.starts_with(b"NRRD000")
}

/// Opens a file: 2 or 3 axes of space, and one of channels before or behind them.
pub(super) fn open(path: &Path) -> Result<Opened> {
    let header = Header::read(path)?;
    let axes = header.axes()?;
    let (kind, size) = (header.kind()?, axes.dims[3]);
    let mut stored = Stored::unscaled(kind, header.endianness(kind)?, axes.dims);
    stored.interleaved = axes.channels_first && size > 1;
    let grid = header.grid(&axes)?;
    let (source, skip) = header.source(stored.bytes())?;
    Opened::of_file(path, Body::File { source, single: true }, skip, stored, grid)
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

/// Axes of space and of channels.
struct Axes {
    /// Voxels along i, j, k, and channels.
    dims: [usize; 4],
    channels_first: bool,
    /// Positions of the axes of space among all.
    space: Vec<usize>,
}

impl Header {
    fn read(path: &Path) -> Result<Self> {
        let Lines { lines, end } = Lines::read(path, EXPECTED, str::is_empty)?;
        let mut fields = BTreeMap::new();
        for line in lines.iter().skip(1).filter(|line| !line.starts_with('#')) {
            // keys and values of other programs have := between them
            match line.split_once(':') {
                Some((name, value)) if !value.starts_with('=') => {
                    fields.insert(name.trim().to_lowercase().replace(' ', ""), value.trim().into());
                }
                _ => {}
            }
        }
        Ok(Self { path: path.to_path_buf(), fields, end })
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    fn refuse(&self, found: impl Into<String>, expected: &str) -> Error {
        Error::file(&self.path, found, expected, AGAIN)
    }

    /// A field that must be there.
    fn needed(&self, name: &str) -> Result<&str> {
        self.field(name).ok_or_else(|| self.refuse(format!("no field {name:?}"), EXPECTED))
    }

    fn kind(&self) -> Result<NiftiType> {
        let name = self.needed("type")?.to_lowercase();
        Ok(match name.as_str() {
            "signed char" | "int8" | "int8_t" => NiftiType::Int8,
            "uchar" | "unsigned char" | "uint8" | "uint8_t" => NiftiType::Uint8,
            "short" | "short int" | "signed short" | "signed short int" | "int16" | "int16_t" => {
                NiftiType::Int16
            }
            "ushort" | "unsigned short" | "unsigned short int" | "uint16" | "uint16_t" => {
                NiftiType::Uint16
            }
            "int" | "signed int" | "int32" | "int32_t" => NiftiType::Int32,
            "uint" | "unsigned int" | "uint32" | "uint32_t" => NiftiType::Uint32,
            "longlong"
            | "long long"
            | "long long int"
            | "signed long long"
            | "signed long long int"
            | "int64"
            | "int64_t" => NiftiType::Int64,
            "ulonglong"
            | "unsigned long long"
            | "unsigned long long int"
            | "uint64"
            | "uint64_t" => NiftiType::Uint64,
            "float" => NiftiType::Float32,
            "double" => NiftiType::Float64,
            _ => return Err(self.refuse(format!("voxels of type {name:?}"), "numbers")),
        })
    }

    fn endianness(&self, kind: NiftiType) -> Result<Endianness> {
        match self.field("endian") {
            Some("little") => Ok(Endianness::Little),
            Some("big") => Ok(Endianness::Big),
            _ if kind.size_of() == 1 => Ok(Endianness::Little),
            other => {
                let found = format!("endian {:?}", other.unwrap_or_default());
                Err(self.refuse(found, "little or big"))
            }
        }
    }

    /// The words of a field that has one for each axis; vectors are in brackets.
    fn words(&self, name: &str) -> Option<Vec<String>> {
        let text = self.field(name)?.replace('(', " (");
        let mut words: Vec<String> = Vec::new();
        let mut open = false;
        for word in text.split_ascii_whitespace() {
            match words.last_mut().filter(|_| open) {
                Some(last) => last.push_str(word),
                None => words.push(word.into()),
            }
            open = words.last().is_some_and(|last| last.starts_with('(') && !last.ends_with(')'));
        }
        Some(words)
    }

    fn axes(&self) -> Result<Axes> {
        let told = self.needed("sizes")?;
        let refuse = |what: &str| self.refuse(format!("{what} {told:?}"), EXPECTED);
        let all = sizes(told).ok_or_else(|| refuse("sizes"))?;
        if self.field("dimension").and_then(|d| d.parse().ok()) != Some(all.len()) {
            let dimension = self.field("dimension").unwrap_or_default();
            let found = format!("{} sizes for a dimension of {dimension:?}", all.len());
            return Err(self.refuse(found, EXPECTED));
        }
        let directions = self.words("spacedirections");
        let kinds = self.words("kinds");
        let of_space = |axis: usize| match (&directions, &kinds) {
            (Some(directions), _) => directions.get(axis).is_some_and(|d| d.starts_with('(')),
            (None, Some(kinds)) => kinds
                .get(axis)
                .is_none_or(|kind| matches!(kind.as_str(), "domain" | "space" | "???" | "none")),
            (None, None) => axis < 3,
        };
        let space: Vec<usize> = (0..all.len()).filter(|axis| of_space(*axis)).collect();
        let others: Vec<usize> =
            (0..all.len()).filter(|axis| !of_space(*axis) && all[*axis] > 1).collect();
        let first = others.first().is_some_and(|axis| space.iter().all(|s| axis < s));
        let last = others.first().is_some_and(|axis| space.iter().all(|s| axis > s));
        if !(2..=3).contains(&space.len())
            || others.len() > 1
            || others.len() == 1 && !(first || last)
        {
            let found = format!("sizes {told:?} of which axes {space:?} (from 0) are of space");
            let expected = "2 or 3 axes of space, and one of channels before or behind them";
            return Err(self.refuse(found, expected));
        }
        let size = |at: usize| space.get(at).map_or(1, |axis| all[*axis]);
        let dims = [size(0), size(1), size(2), others.first().map_or(1, |axis| all[*axis])];
        Ok(Axes { dims, channels_first: first, space })
    }

    /// What a coordinate of the file's space is multiplied by in LPS.
    fn signs(&self) -> [f64; 3] {
        match self.field("space").unwrap_or_default().to_lowercase().as_str() {
            "right-anterior-superior" | "ras" | "right-anterior-superior-time" | "rast" => {
                [-1.0, -1.0, 1.0]
            }
            "left-anterior-superior" | "las" | "left-anterior-superior-time" | "last" => {
                [1.0, -1.0, 1.0]
            }
            // what says nothing of sides is taken for LPS, as ITK does
            _ => [1.0; 3],
        }
    }

    fn vector(&self, text: &str) -> Result<[f64; 3]> {
        let inner = text.trim().trim_start_matches('(').trim_end_matches(')').replace(',', " ");
        match numbers(&inner).as_deref() {
            Some([x, y, z]) => Ok([*x, *y, *z]),
            Some([x, y]) => Ok([*x, *y, 0.0]),
            _ => {
                Err(self
                    .refuse(format!("the vector {text:?}"), "2 or 3 numbers, such as (0.8,0,0)"))
            }
        }
    }

    fn grid(&self, axes: &Axes) -> Result<Grid> {
        let signs = self.signs();
        let turn = |v: [f64; 3]| [0, 1, 2].map(|axis| v[axis] * signs[axis]);
        let mut steps = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        let mut origin = [0.0; 3];
        let words = |name: &str| self.words(name).unwrap_or_default();
        let (directions, spacings, least) =
            (words("spacedirections"), words("spacings"), words("axismins"));
        let centres = [words("centers"), words("centerings")].concat();
        for (at, axis) in axes.space.iter().enumerate() {
            if let Some(direction) = directions.get(*axis) {
                steps[at] = turn(self.vector(direction)?);
            } else if let Some(spacing) = spacings.get(*axis).and_then(|s| s.parse::<f64>().ok()) {
                // of no spacing NRRD has NaN
                steps[at][at] = if spacing.is_finite() { spacing } else { 1.0 };
                let least = least.get(*axis).and_then(|text| text.parse::<f64>().ok());
                // the edge of the first voxel, unless its centre is said to lie there
                let node = centres.get(*axis).is_some_and(|centre| centre == "node");
                let inwards = if node { 0.0 } else { steps[at][at] / 2.0 };
                origin[at] =
                    least.filter(|value| value.is_finite()).map_or(0.0, |value| value + inwards);
            }
        }
        if let Some(text) = self.field("spaceorigin") {
            origin = turn(self.vector(text)?);
        }
        let [i, j, k, _] = axes.dims;
        Grid::from_lps([i, j, k], steps, origin).ok_or_else(|| {
            let found = format!("space directions {steps:?} from {origin:?}");
            self.refuse(found, "directions that span the space, and a place in it")
        })
    }

    fn data_name(&self) -> Option<&str> {
        self.field("datafile")
    }

    fn data_file(&self) -> Option<PathBuf> {
        self.data_name().map(|name| beside(&self.path, name))
    }

    /// The file of the voxels, and how many of its unpacked bytes come before them.
    fn source(&self, bytes: u64) -> Result<(Source, u64)> {
        let encoding = self.needed("encoding")?.to_lowercase();
        let coding = match encoding.as_str() {
            "raw" => Coding::Raw,
            "gzip" | "gz" => Coding::Packed,
            _ => return Err(self.refuse(format!("the encoding {encoding:?}"), "raw or gzip")),
        };
        let name = self.data_name().unwrap_or_default();
        if name.starts_with("LIST") || name.contains('%') {
            let found = format!("voxels in several files ({name})");
            return Err(self.refuse(found, "voxels in one file"));
        }
        let number = |name: &str| self.field(name).map_or(Some(0), |text| text.parse::<i64>().ok());
        let (lines, skip) = (number("lineskip"), number("byteskip"));
        let (Some(0), Some(skip)) = (lines, skip.filter(|skip| *skip >= -1)) else {
            let found = format!("line skip {lines:?}, byte skip {skip:?}");
            return Err(self.refuse(found, "no lines to skip, and bytes from -1 on"));
        };
        let (file, start) = match self.data_file() {
            Some(file) => (file, 0),
            None => (self.path.clone(), self.end),
        };
        let source = Source::open_at(&file, start, coding)?;
        // -1 means the last bytes of the file
        let skip = u64::try_from(skip).unwrap_or(source.size().saturating_sub(bytes));
        Ok((source, skip))
    }
}
