//! Where paths lead: what two of them share, whatever links, detours and letter cases they take.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::symlink_metadata;
use std::io::ErrorKind;
use std::path::{Component, MAIN_SEPARATOR, Path, PathBuf};

use file_id::FileId;

use super::name::folder;
use super::write::{MAX_LINKS, link_loop, regular};
use crate::base::{Error, Result};

/// What a path leads to: something that exists, and the names below it of what does not exist yet.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// A path without links and detours.
    pub existing: PathBuf,
    pub is_folder: bool,
    pub missing: Vec<OsString>,
    /// Whether the last link on the way asks for a folder, by `/` at its end.
    asks_folder: bool,
}

/// The same for two places exactly where a file written to one would be at the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    id: FileId,
    missing: Vec<OsString>,
}

impl Key {
    /// The keys of the folders above it that do not exist yet.
    pub fn missing_parents(&self) -> impl Iterator<Item = Key> + '_ {
        let above = |count: usize| Key { id: self.id, missing: self.missing[..count].to_vec() };
        (1..self.missing.len()).map(above)
    }
}

impl Place {
    /// The deepest folder that exists.
    pub fn folder(&self) -> &Path {
        if self.is_folder { &self.existing } else { folder(&self.existing) }
    }

    /// An error where no file can be written here; `path` led to it.
    pub fn check_writable(&self, path: &Path) -> Result<()> {
        let is_there = self.missing.is_empty() && self.is_folder;
        if (self.asks_folder || asks_folder(path)) && !is_there {
            let expected = "the name of a file at its end";
            return Err(Error::file(path, "the name of a folder", expected, "Add a name."));
        }
        if !self.missing.is_empty() {
            return Ok(());
        }
        let found = symlink_metadata(&self.existing).map_err(|e| Error::io(path, e))?;
        regular(path, &found)
    }
}

/// Finds places, and remembers folders.
#[derive(Debug, Default)]
pub(super) struct Finder {
    folders: HashMap<PathBuf, Place>,
    ids: HashMap<PathBuf, FileId>,
    /// Folders in which names of other letter case are the same.
    pub folding: HashMap<PathBuf, bool>,
}

impl Finder {
    pub fn place(&mut self, path: &Path) -> Result<Place> {
        let absolute = std::env::current_dir().map_err(|e| Error::io(path, e))?.join(path);
        let mut walk = Walk { path, links: 0 };
        let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            return walk.follow(start(), &absolute);
        };
        let folder = match self.folders.get(parent) {
            Some(known) => known.clone(),
            None => {
                let found = walk.follow(start(), parent)?;
                self.folders.insert(parent.to_path_buf(), found.clone());
                found
            }
        };
        walk.step(folder, name)
    }

    pub fn key(&mut self, place: &Place) -> Result<Key> {
        let id = self.id(&place.existing, place.is_folder)?;
        let folds = self.folding.get(place.folder()).copied().unwrap_or_default();
        let name = |name: &OsString| match name.to_str() {
            Some(text) if folds => text.to_lowercase().into(),
            _ => name.clone(),
        };
        Ok(Key { id, missing: place.missing.iter().map(name).collect() })
    }

    /// Keys of the existing folders above a place, the nearest first.
    pub fn folders_above(&mut self, place: &Place) -> Result<Vec<Key>> {
        let above = place.existing.ancestors().skip(usize::from(place.missing.is_empty()));
        above.map(|folder| Ok(Key { id: self.id(folder, true)?, missing: Vec::new() })).collect()
    }

    fn id(&mut self, path: &Path, is_folder: bool) -> Result<FileId> {
        if let Some(id) = self.ids.get(path) {
            return Ok(*id);
        }
        let id = file_id::get_file_id(path).map_err(|e| Error::io(path, e))?;
        if is_folder {
            self.ids.insert(path.to_path_buf(), id);
        }
        Ok(id)
    }
}

fn start() -> Place {
    Place { existing: PathBuf::new(), is_folder: true, missing: Vec::new(), asks_folder: false }
}

/// Whether only a folder can have this path.
fn asks_folder(path: &Path) -> bool {
    let text = path.as_os_str().as_encoded_bytes();
    let ends = |end: char| text.ends_with(&[end as u8]) || text.ends_with(&[end as u8, b'.']);
    path.file_name().is_none() || ends('/') || ends(MAIN_SEPARATOR)
}

/// The way along one path; `path` is for messages.
struct Walk<'a> {
    path: &'a Path,
    links: u32,
}

impl Walk<'_> {
    fn follow(&mut self, mut at: Place, path: &Path) -> Result<Place> {
        for component in path.components() {
            match component {
                Component::Prefix(_) | Component::RootDir => {
                    at.existing.push(component);
                    (at.is_folder, at.missing) = (true, Vec::new());
                }
                Component::CurDir => {}
                Component::ParentDir => {
                    self.check_folder(&at)?;
                    self.check_present(&at)?;
                    at.existing.pop();
                }
                Component::Normal(name) => at = self.step(at, name)?,
            }
        }
        Ok(at)
    }

    fn step(&mut self, mut at: Place, name: &OsStr) -> Result<Place> {
        self.check_folder(&at)?;
        at.asks_folder = false;
        if !at.missing.is_empty() {
            at.missing.push(name.to_os_string());
            return Ok(at);
        }
        let next = at.existing.join(name);
        let found = match symlink_metadata(&next) {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                at.missing.push(name.to_os_string());
                return Ok(at);
            }
            Err(e) => return Err(Error::io(self.path, e)),
        };
        if found.is_symlink() {
            self.links += 1;
            if self.links > MAX_LINKS {
                return Err(link_loop(self.path));
            }
            let target = std::fs::read_link(&next).map_err(|e| Error::io(&next, e))?;
            at = self.follow(at, &target)?;
            at.asks_folder |= asks_folder(&target);
            return Ok(at);
        }
        Ok(Place { existing: next, is_folder: found.is_dir(), ..at })
    }

    /// The system finds no way up from a folder that is not there.
    fn check_present(&self, at: &Place) -> Result<()> {
        if at.missing.is_empty() {
            return Ok(());
        }
        let missing = at.existing.join(PathBuf::from_iter(&at.missing));
        let found = format!("no folder {}", missing.display());
        Err(Error::file(self.path, found, "a folder before `..`", "Leave both out."))
    }

    fn check_folder(&self, at: &Place) -> Result<()> {
        if at.is_folder {
            return Ok(());
        }
        let found = format!("the file {} where a folder should be", at.existing.display());
        Err(Error::file(self.path, found, "folders above a file", "Choose another path."))
    }
}
