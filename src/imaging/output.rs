//! Files that are being written: their formats, what comes before their voxels, and how these are packed.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::ZlibEncoder;
use nifti::{Endianness, NiftiType};

use super::grid::{Grid, length};
use super::header;
use super::text_header::written;
use crate::base::files::{Effort, FileAside, GzipWriter, file_name, write_atomically};
use crate::base::{Error, Result};

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Nifti,
    PackedNifti,
    Nrrd,
    /// With the voxels in another file.
    DetachedNrrd,
    MetaImage,
    DetachedMetaImage,
}

impl Format {
    /// Every format with the ending of its files' names, the longer ones first.
    const ALL: [(&str, Self); 6] = [
        (".nii.gz", Self::PackedNifti),
        (".nii", Self::Nifti),
        (".nrrd", Self::Nrrd),
        (".nhdr", Self::DetachedNrrd),
        (".mha", Self::MetaImage),
        (".mhd", Self::DetachedMetaImage),
    ];

    /// By the ending of its name, in whatever case, and the name without it.
    fn of(path: &Path) -> Option<(Self, String)> {
        let name = file_name(path);
        let small = name.to_ascii_lowercase();
        let (ending, format) = Self::ALL.into_iter().find(|(e, _)| small.ends_with(e))?;
        Some((format, name[..name.len() - ending.len()].to_string()))
    }
}

/// Endings under which masks and images can be written, as a message lists them.
pub fn endings() -> String {
    let [rest @ .., last] = Format::ALL.map(|(ending, _)| ending);
    format!("{} or {last}", rest.join(", "))
}

/// Whether a mask or an image can be written under this name.
pub fn can_write(path: &Path) -> bool {
    Format::of(path).is_some()
}

/// Whether a file of this name takes several channels.
pub fn takes_channels(path: &Path) -> bool {
    let format = Format::of(path).map(|(format, _)| format);
    matches!(format, Some(Format::Nifti | Format::PackedNifti))
}

/// Whether a name is that of a DICOM file.
pub(super) fn is_dicom(path: &Path) -> bool {
    file_name(path).to_ascii_lowercase().ends_with(".dcm")
}

/// The files that writing under this name may write: itself, and the one that its voxels may be in.
pub fn written_files(path: &Path) -> Vec<PathBuf> {
    let data: &[&str] = match Format::of(path).map(|(format, _)| format) {
        Some(Format::DetachedNrrd) => &[".raw.gz"],
        Some(Format::DetachedMetaImage) => &[".raw", ".zraw"],
        _ => &[],
    };
    let stem = Format::of(path).map(|(_, stem)| stem).unwrap_or_default();
    let data = data.iter().map(|ending| path.with_file_name(format!("{stem}{ending}")));
    [path.to_path_buf()].into_iter().chain(data).collect()
}

/// What stands before the voxels of a file.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub grid: &'a Grid,
    pub kind: NiftiType,
    /// Volumes that follow one another; more than one only where [`takes_channels`] says so.
    pub channels: usize,
    /// Keys and values of other programs, a line each, where the format has room for them.
    pub keys: &'a str,
}

/// A file that is being written: aside, packed where its name says so, of NIfTI and NRRD on all cores.
pub(super) struct Output {
    path: PathBuf,
    body: Body,
    /// A header that is written at the end: the size of the packed voxels stands in it, or it is a file of its own.
    header: Option<Late>,
}

enum Body {
    Plain(FileAside),
    Packed(GzipWriter<FileAside>),
    /// Packed into a file without a name, and what it goes into.
    Zlib(ZlibEncoder<BufWriter<File>>, FileAside),
}

/// A header that is written at the end.
struct Late {
    /// With [`SIZE`] in the place of the size.
    text: String,
    /// Whether the voxels are in another file.
    detached: bool,
}

impl Output {
    /// Begins with all that comes before the voxels.
    pub(super) fn begin(path: &Path, about: &About<'_>, effort: Effort) -> Result<Self> {
        let Some((format, stem)) = Format::of(path) else {
            return Err(Error::file(path, "another ending", endings(), "Rename the output."));
        };
        let refuse = |e| Error::io(path, e);
        let beside = |ending: &str| {
            let name = format!("{stem}{ending}");
            FileAside::begin(&path.with_file_name(&name)).map(|file| (file, name))
        };
        let packed = |file| GzipWriter::new(file, effort).map(Body::Packed).map_err(refuse);
        let whole = effort == Effort::Little;
        let (mut body, start, header) = match format {
            Format::Nifti | Format::PackedNifti => {
                let start = header::start(path, about.grid, about.kind, about.channels)?;
                let file = FileAside::begin(path)?;
                let plain = format == Format::Nifti;
                (if plain { Body::Plain(file) } else { packed(file)? }, start, None)
            }
            Format::Nrrd => {
                let mut file = FileAside::begin(path)?;
                file.write_all(nrrd(about, None).as_bytes()).map_err(refuse)?;
                (packed(file)?, Vec::new(), None)
            }
            Format::DetachedNrrd => {
                let (file, name) = beside(".raw.gz")?;
                let text = nrrd(about, Some(&name));
                (packed(file)?, Vec::new(), Some(Late { text, detached: true }))
            }
            Format::MetaImage if whole => {
                let late = Late { text: metaimage(about, whole, "LOCAL"), detached: false };
                (zlib(FileAside::begin(path)?)?, Vec::new(), Some(late))
            }
            Format::MetaImage => {
                let start = metaimage(about, whole, "LOCAL");
                (Body::Plain(FileAside::begin(path)?), start.into_bytes(), None)
            }
            Format::DetachedMetaImage => {
                let (file, name) = beside(if whole { ".zraw" } else { ".raw" })?;
                let late = Late { text: metaimage(about, whole, &name), detached: true };
                (if whole { zlib(file)? } else { Body::Plain(file) }, Vec::new(), Some(late))
            }
        };
        body.write_all(&start).map_err(refuse)?;
        Ok(Self { path: path.to_path_buf(), body, header })
    }

    /// A file beside it for what cannot be written yet.
    pub(super) fn scratch(&self) -> Result<File> {
        match &self.body {
            Body::Plain(file) | Body::Zlib(_, file) => file.scratch(),
            Body::Packed(packer) => packer.get_ref().scratch(),
        }
    }

    pub(super) fn finish(self) -> Result<()> {
        let Self { path, body, header } = self;
        let refuse = |e| Error::io(&path, e);
        let mut late = header;
        match body {
            Body::Plain(file) => file.finish()?,
            Body::Packed(packer) => packer.finish().map_err(refuse)?.finish()?,
            Body::Zlib(packer, mut file) => {
                let scratch = packer.finish().map_err(refuse)?.into_inner();
                let mut scratch = scratch.map_err(|e| refuse(e.into_error()))?;
                let size = scratch.stream_position().map_err(refuse)?;
                scratch.seek(SeekFrom::Start(0)).map_err(refuse)?;
                if let Some(Late { text, detached }) = &mut late {
                    *text = text.replacen(SIZE, &size.to_string(), 1);
                    if !*detached {
                        file.write_all(text.as_bytes()).map_err(refuse)?;
                    }
                }
                io::copy(&mut scratch, &mut file).map_err(refuse)?;
                file.finish()?;
            }
        }
        match late {
            // after the voxels: a header without them is never there
            Some(Late { text, detached: true }) => write_atomically(&path, text.as_bytes()),
            _ => Ok(()),
        }
    }
}

fn zlib(file: FileAside) -> Result<Body> {
    let packer = ZlibEncoder::new(BufWriter::new(file.scratch()?), Compression::new(2));
    Ok(Body::Zlib(packer, file))
}

impl Write for Body {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Packed(packer) => packer.write(bytes),
            Self::Zlib(packer, _) => packer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Packed(packer) => packer.flush(),
            Self::Zlib(packer, _) => packer.flush(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.body.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.body.flush()
    }
}

/// The header of an NRRD file, whose voxels follow it or lie in the file `data`.
fn nrrd(about: &About<'_>, data: Option<&str>) -> String {
    let About { grid, kind, keys, .. } = about;
    let (steps, origin) = grid.lps();
    let vector = |v: [f64; 3]| format!("({})", written(&v, ","));
    let name = match kind {
        NiftiType::Uint8 => "unsigned char",
        NiftiType::Int16 => "short",
        NiftiType::Int32 => "int",
        _ => "float",
    };
    let endian = if grid.header.endianness == Endianness::Big { "big" } else { "little" };
    let [i, j, k] = grid.dims;
    let mut text = format!(
        "NRRD0005\ntype: {name}\ndimension: 3\nspace: left-posterior-superior\nsizes: {i} {j} {k}\n\
         space directions: {}\nkinds: domain domain domain\nendian: {endian}\nencoding: gzip\n\
         space origin: {}\n",
        steps.map(vector).join(" "),
        vector(origin)
    );
    if let Some(data) = data {
        text += &format!("data file: {data}\n");
    }
    text += keys;
    // the empty line comes before the voxels
    if data.is_none() { text + "\n" } else { text }
}

/// Stands for the size of the packed voxels until it is known.
const SIZE: &str = "SIZE";

/// The header of a MetaImage, whose voxels lie in the file `data`, or LOCAL.
fn metaimage(about: &About<'_>, packed: bool, data: &str) -> String {
    let About { grid, kind, .. } = about;
    let (steps, origin) = grid.lps();
    let edges = steps.map(length);
    let cosines: Vec<f64> = (0..3).flat_map(|axis| steps[axis].map(|v| v / edges[axis])).collect();
    let name = match kind {
        NiftiType::Uint8 => "MET_UCHAR",
        NiftiType::Int16 => "MET_SHORT",
        NiftiType::Int32 => "MET_INT",
        _ => "MET_FLOAT",
    };
    let yes = |is: bool| if is { "True" } else { "False" };
    let size = if packed { format!("CompressedDataSize = {SIZE}\n") } else { String::new() };
    let [i, j, k] = grid.dims;
    format!(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = {}\n\
         CompressedData = {}\n{size}TransformMatrix = {}\nOffset = {}\nCenterOfRotation = 0 0 0\n\
         ElementSpacing = {}\nDimSize = {i} {j} {k}\nElementType = {name}\n\
         ElementDataFile = {data}\n",
        yes(grid.header.endianness == Endianness::Big),
        yes(packed),
        written(&cosines, " "),
        written(&origin, " "),
        written(&edges, " "),
    )
}
