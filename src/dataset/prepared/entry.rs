//! A prepared case as a folder: a Zarr group with the arrays `image` (C, D, H, W), `label` (D, H, W) and `points`, and what
//! drawing needs in the group's attributes.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::json;

use super::arrays::{Written, read};
use super::case::{Facts, Piece, Points, no_point};
use crate::base::files::{read_bytes, write_atomically};
use crate::base::{Error, Result};
use crate::imaging::{Prepared, VoxelBox};

/// Zarr's name for the description of a group or an array.
const GROUP: &str = "zarr.json";
const IMAGE: &str = "image";
const LABEL: &str = "label";
const POINTS: &str = "points";
/// Points of a chunk.
const POINTS_CHUNK: usize = 4096;

/// Where a prepared case is from, for those who look at the folder.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Origin {
    pub dataset: String,
    pub case: String,
}

/// What the group's attributes say.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct About {
    pub origin: Origin,
    pub facts: Facts,
    /// Sizes of the other files, by their paths within the folder.
    files: BTreeMap<String, u64>,
    /// CRC-32C of all of this with 0 here.
    crc32c: u32,
}

impl About {
    fn check(&self) -> Result<u32> {
        let json = serde_json::to_vec(&Self { crc32c: 0, ..self.clone() });
        Ok(crc32c::crc32c(&json.map_err(|e| Error::Internal(e.to_string()))?))
    }

    /// Bytes of all files but the group's description.
    pub fn bytes(&self) -> u64 {
        self.files.values().sum()
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Attributes {
    u2seg: About,
}

#[derive(serde::Deserialize)]
struct Group {
    attributes: Attributes,
}

/// A prepared case on disk.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    folder: PathBuf,
    pub about: About,
}

impl Entry {
    /// Finds a case in its folder; what its chunks hold is checked when they are read.
    ///
    /// # Errors
    ///
    /// Where files are missing, of other sizes than they were, or say something else.
    pub fn open(folder: &Path) -> Result<Self> {
        let entry = Self { folder: folder.to_path_buf(), about: Self::about(folder)? };
        entry.check_files()?;
        Ok(entry)
    }

    fn check_files(&self) -> Result<()> {
        for (name, size) in &self.about.files {
            let file = self.folder.join(name);
            let found = std::fs::metadata(&file).map_err(|e| Error::io(&file, e))?.len();
            if found != *size {
                return Err(damaged(&file, format!("{found} bytes"), format!("{size}")));
            }
        }
        Ok(())
    }

    /// What the attributes say.
    pub fn about(folder: &Path) -> Result<About> {
        let path = folder.join(GROUP);
        let expected = "the attributes of a prepared case";
        let bytes = read_bytes(&path, expected)?;
        let group: Group = serde_json::from_slice(&bytes)
            .map_err(|e| damaged(&path, e.to_string(), expected.into()))?;
        let about = group.attributes.u2seg;
        match about.check()? == about.crc32c {
            true => Ok(about),
            false => Err(damaged(&path, "a wrong checksum".into(), expected.into())),
        }
    }

    /// Writes a case into a folder that is there and empty, and makes it last through a crash.
    pub fn write(folder: &Path, case: &Prepared, origin: Origin) -> Result<About> {
        let label = case.label.as_deref();
        let label =
            label.ok_or_else(|| Error::Internal("a training case without labels".into()))?;
        let facts = Facts::of(case);
        let [d, h, w] = case.shape;
        Written::voxels(IMAGE, &[case.channels, d, h, w], &case.image).write(folder)?;
        Written::voxels(LABEL, &case.shape, label).write(folder)?;
        let points: Vec<u32> =
            [&case.annotated].into_iter().chain(&case.foreground).flatten().copied().collect();
        if !points.is_empty() {
            let shape = &[points.len()];
            let axes = &["point"];
            Written { name: POINTS, axes, shape, values: &points, chunk: POINTS_CHUNK }
                .write(folder)?;
        }
        let mut files = BTreeMap::new();
        settle(folder, folder, &mut files)?;
        let mut about = About { origin, facts, files, crc32c: 0 };
        about.crc32c = about.check()?;
        let attributes = Attributes { u2seg: about.clone() };
        let group = json!({"zarr_format": 3, "node_type": "group", "attributes": attributes});
        let group =
            serde_json::to_vec_pretty(&group).map_err(|e| Error::Internal(e.to_string()))?;
        write_atomically(&folder.join(GROUP), &group)?;
        Ok(about)
    }

    /// The point of a list.
    pub fn point(&self, of: Points, index: usize) -> Result<u32> {
        let facts = &self.about.facts;
        if index >= facts.points(of) {
            return Err(no_point(of, index));
        }
        let at = facts.first(of) + index;
        let found = read::<u32>(&self.folder, POINTS, std::slice::from_ref(&(at..at + 1)))?;
        self.check_files()?;
        let voxels = facts.voxels();
        let point = found.first().copied().filter(|point| (*point as usize) < voxels);
        let told = || format!("{found:?} as a voxel of {voxels}");
        point.ok_or_else(|| damaged(&self.folder.join(POINTS), told(), "one of them".into()))
    }

    /// The voxels of a box.
    pub fn read(&self, bounds: VoxelBox) -> Result<Piece> {
        let [d, h, w] = [0, 1, 2].map(|axis| bounds.low[axis]..bounds.high[axis]);
        let channels = 0..self.about.facts.channels;
        let image = [channels, d.clone(), h.clone(), w.clone()];
        let image = read(&self.folder, IMAGE, &image)?;
        let label = read(&self.folder, LABEL, &[d, h, w])?;
        // to Zarr a file that is not there is one of zeros
        self.check_files()?;
        Ok(Piece { bounds, image, label })
    }

    /// Reads everything, so that every checksum is compared.
    pub fn verify(&self) -> Result<()> {
        let facts = &self.about.facts;
        // a layer of chunks at a time
        for first in (0..facts.shape[0]).step_by(32) {
            let mut layer = VoxelBox::whole(facts.shape);
            (layer.low[0], layer.high[0]) = (first, (first + 32).min(facts.shape[0]));
            self.read(layer)?;
        }
        match facts.all_points() {
            0 => Ok(()),
            count => read::<u32>(&self.folder, POINTS, std::slice::from_ref(&(0..count))).map(drop),
        }
    }

    /// Notes that the case is used now.
    pub fn touch(&self) {
        let path = self.folder.join(GROUP);
        let touched = File::options().append(true).open(&path);
        let touched = touched.and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(e) = touched {
            log::debug!("{}: {e}; its last use is not noted", path.display());
        }
    }

    /// When a case was used last.
    pub fn used(folder: &Path) -> SystemTime {
        let modified = std::fs::metadata(folder.join(GROUP)).and_then(|found| found.modified());
        modified.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

fn damaged(path: &Path, found: String, expected: String) -> Error {
    Error::file(path, found, expected, "Remove the folder; it can be made anew.")
}

/// Makes all files below a folder last through a crash, and notes their sizes.
fn settle(root: &Path, folder: &Path, files: &mut BTreeMap<String, u64>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        if path.is_dir() {
            settle(root, &path, files)?;
            continue;
        }
        let refuse = |e| Error::io(&path, e);
        let file = File::options().append(true).open(&path).map_err(refuse)?;
        file.sync_all().map_err(refuse)?;
        let within = path.strip_prefix(root).unwrap_or(&path);
        let parts: Vec<_> = within.iter().map(|part| part.to_string_lossy()).collect();
        files.insert(parts.join("/"), file.metadata().map_err(refuse)?.len());
    }
    crate::base::files::sync_folder(folder);
    Ok(())
}
