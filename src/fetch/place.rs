//! Where what is fetched goes: into a folder beside its place, then to its name in one step.

use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::download::{Download, archive, forget};
use super::http::shown;
use super::limits::Limits;
use super::progress::Watch;
use super::source::Source;
use super::unpack::{Kind, unpack};
use crate::base::files::{Claim, Paths, read_json, safe_name, sync_folder, write_atomically};
use crate::base::{Error, Result};

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The folder of an archive's files, or the file that is no archive.
    New(PathBuf),
    /// It was there already, whole.
    Before(PathBuf),
}

/// Ending of the folder that the work is done in.
const WORK: &str = ".fetching";
/// Folder for what is unpacked.
const TREE: &str = "tree";
/// File of a finished folder that says what it is.
const RECORD: &str = ".u2seg-fetched.json";

/// Says where a folder came from.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Record {
    url: String,
    digest: Digest,
}

/// Fetches a file into a folder; of an archive, its files, as a folder. `accept` looks at what came before it takes its name.
///
/// # Errors
///
/// Where something else has that name; where another process fetches it; where the server cannot be reached, sends something
/// else, or too much; where an archive holds what would leave its folder, or is no folder's. What came of a download that was
/// cut, or stopped by `watch`, stays for the next time.
pub fn fetch(
    source: &Source,
    folder: &Path,
    limits: &Limits,
    accept: &dyn Fn(&Path) -> Result<()>,
    watch: &mut Watch,
) -> Result<Fetched> {
    let place = source.place(folder);
    if let Some(before) = before(source, &place, accept, watch)? {
        return Ok(before);
    }
    let work = Work::begin(source, folder)?;
    // another process may have ended meanwhile
    if let Some(before) = before(source, &place, accept, watch)? {
        work.end()?;
        return Ok(before);
    }
    Download::open(source, limits, &work.folder)?.complete(watch)?;
    let whole = work.unpack(source, limits, watch)?;
    accept(&whole)?;
    std::fs::rename(&whole, &place).map_err(|e| Error::io(&place, e))?;
    sync_folder(folder);
    work.end()?;
    Ok(Fetched::New(place))
}

/// What has the name already: the same, or an error.
fn before(
    source: &Source,
    place: &Path,
    accept: &dyn Fn(&Path) -> Result<()>,
    watch: &mut Watch,
) -> Result<Option<Fetched>> {
    if std::fs::symlink_metadata(place).is_err() {
        return Ok(None);
    }
    let record = place.join(RECORD);
    let same = match record.is_file() {
        true => {
            let record: Record = read_json(&record, "what this folder is", "Move it away.")?;
            record.digest == source.digest
        }
        // put there by somebody else: a dataset where one was asked for, or the very file
        false if place.is_dir() => accept(place).is_ok(),
        false => place.is_file() && source.digest.of(place, watch)? == source.digest,
    };
    if same {
        return Ok(Some(Fetched::Before(place.to_path_buf())));
    }
    let found = if place.is_dir() { "another folder" } else { "another file" };
    Err(Error::file(
        place,
        found,
        format!("nothing yet, or what {} has", shown(&source.url)),
        "Move it away, or choose another `output`.",
    ))
}

/// The folder that the work is done in, with its lock.
struct Work {
    folder: PathBuf,
    claim: Option<Claim>,
}

impl Drop for Work {
    fn drop(&mut self) {
        // the lock lies in the folder
        self.claim = None;
        // one that holds what the next call goes on with stays
        let _ = std::fs::remove_dir(&self.folder);
    }
}

impl Work {
    fn begin(source: &Source, into: &Path) -> Result<Self> {
        let folder = into.join(format!("{}{WORK}", safe_name(&source.name)));
        let mut paths = Paths::new();
        paths.writes(archive(&folder), shown(&source.url));
        paths.owns(&folder);
        let claim = Some(paths.claim()?);
        let work = Self { folder, claim };
        work.clear()?;
        Ok(work)
    }

    /// Removes what was being unpacked when a process was killed.
    fn clear(&self) -> Result<()> {
        let tree = self.folder.join(TREE);
        match std::fs::remove_dir_all(&tree) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&tree, e)),
            _ => Ok(()),
        }
    }

    /// What takes the name in the end: the files of the archive, or the file itself.
    fn unpack(&self, source: &Source, limits: &Limits, watch: &mut Watch) -> Result<PathBuf> {
        let archive = archive(&self.folder);
        let kind = Kind::of(&archive)?;
        if kind == Kind::Plain {
            return Ok(archive);
        }
        let tree = self.folder.join(TREE);
        let unpacked = unpack(&archive, kind, &tree, limits, watch);
        if let Err(error) = unpacked {
            self.clear()?;
            return Err(error);
        }
        let whole = only_folder(&tree)?.unwrap_or(tree);
        let record = Record { url: shown(&source.url), digest: source.digest.clone() };
        let json = serde_json::to_vec(&record).map_err(|e| Error::Internal(e.to_string()))?;
        write_atomically(&whole.join(RECORD), &json)?;
        Ok(whole)
    }

    /// Removes what is not needed any more, and with it the folder.
    fn end(self) -> Result<()> {
        self.clear()?;
        forget(&self.folder)
    }
}

/// The folder that all files of a tree are in, where they are in one.
fn only_folder(tree: &Path) -> Result<Option<PathBuf>> {
    let entries = std::fs::read_dir(tree).map_err(|e| Error::io(tree, e))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths = paths.collect::<std::io::Result<Vec<_>>>().map_err(|e| Error::io(tree, e))?;
    Ok(match paths.as_slice() {
        [only] if only.is_dir() => Some(only.clone()),
        _ => None,
    })
}
