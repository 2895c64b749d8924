//! The folder of prepared cases: what is kept, who uses it, and what leaves when it grows too large.
//!
//! `cases/KEY` is a case. It is made below `making` and renamed, so that a case is whole or absent whenever a process dies.
//! `users` has a file for each process, locked while it lives, with the keys that it uses; `lock` is held while somebody adds
//! to these or takes cases away. `locks/KEY` is held by whoever makes a case, so that two processes do not make it twice.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::contents::Key;
use super::entry::{About, Entry, Origin};
use super::temporary::Temporary;
use crate::base::files::{CACHE_VARIABLE, Lock, cache_folder, sync_folder};
use crate::base::{Error, Result, locked};
use crate::imaging::Prepared;

/// Bytes that prepared cases may take where nobody says.
pub const DEFAULT_SIZE: u64 = 100 << 30;

/// Folder of prepared cases within a cache folder.
const FOLDER: &str = "prepared";
const CASES: &str = "cases";
const MAKING: &str = "making";
const USERS: &str = "users";
const LOCKS: &str = "locks";
const GATE: &str = "lock";
/// What is known of cases, and of the files of datasets.
pub(super) const SUMMARIES: &str = "summaries";
pub(super) const INDEX: &str = "index";

/// Where prepared cases are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Place {
    /// In the user's cache folder.
    #[default]
    Auto,
    /// Nowhere: in a temporary folder that goes away with the run.
    Nowhere,
    /// In this folder.
    Folder(PathBuf),
}

impl From<String> for Place {
    fn from(text: String) -> Self {
        match text.as_str() {
            "auto" => Self::Auto,
            "none" => Self::Nowhere,
            folder => Self::Folder(folder.into()),
        }
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        match place {
            Place::Auto => "auto".into(),
            Place::Nowhere => "none".into(),
            Place::Folder(folder) => folder.to_string_lossy().into_owned(),
        }
    }
}

/// A kept case.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Kept {
    /// Its key.
    pub key: Key,
    /// Name of the dataset and of the case; none where its description is damaged.
    pub origin: Option<(String, String)>,
    /// Voxels D, H, W.
    pub shape: [usize; 3],
    /// Millimetres D, H, W.
    pub spacing: [f64; 3],
    /// On disk.
    pub bytes: u64,
    /// When it was used last.
    pub used: SystemTime,
    /// Whether a living process uses it.
    pub in_use: bool,
}

/// The prepared cases of this machine or user, shared by processes.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    size: u64,
    /// Bytes of all cases, as far as this process knows; none before it looked.
    total: Mutex<Option<u64>>,
    /// Whether somebody was told that too much is in use.
    told: AtomicBool,
    /// What the session has noted as used.
    used: Mutex<BTreeSet<Key>>,
    session: Session,
    /// Goes away last.
    _temporary: Option<Temporary>,
}

impl Store {
    /// Opens the folder of a place, or makes it, for at most `size` bytes of cases.
    ///
    /// # Errors
    ///
    /// Where the folder cannot be made or written, or its file system has no locks.
    pub fn open(place: &Place, size: u64) -> Result<Self> {
        let mut temporary = None;
        let mut aside = || -> Result<PathBuf> {
            Ok(temporary.insert(Temporary::new(&std::env::temp_dir())?).folder().to_path_buf())
        };
        let root = match place {
            Place::Folder(folder) => folder.join(FOLDER),
            Place::Nowhere => aside()?,
            Place::Auto => match cache_folder() {
                Some(folder) => folder.join(FOLDER),
                None => {
                    log::warn!("no cache folder ({CACHE_VARIABLE}): prepared cases are not kept");
                    aside()?
                }
            },
        };
        for folder in [CASES, MAKING, USERS, LOCKS, SUMMARIES, INDEX] {
            let folder = root.join(folder);
            std::fs::create_dir_all(&folder).map_err(|e| unwritable(&folder, &e))?;
        }
        let session = Session::begin(&root)?;
        {
            // what processes left that were killed
            let _gate = Lock::wait(&root.join(GATE))?;
            session.all(&root)?;
        }
        let (total, used, told) = (Mutex::new(None), Mutex::default(), AtomicBool::new(false));
        Ok(Self { root, size, total, told, used, session, _temporary: temporary })
    }

    /// Where the cases are.
    pub fn folder(&self) -> &Path {
        &self.root
    }

    pub(super) fn within(&self, folder: &str) -> PathBuf {
        self.root.join(folder)
    }

    /// The folder of a case.
    fn case(&self, key: &Key) -> PathBuf {
        self.root.join(CASES).join(key.as_str())
    }

    /// Notes that this process uses these cases, kept or to be made: none of them leaves while it lives.
    pub(super) fn uses(&self, keys: &[Key]) -> Result<()> {
        let mut known = locked(&self.used);
        let new: Vec<Key> = keys.iter().filter(|key| !known.contains(key)).cloned().collect();
        if new.is_empty() {
            return Ok(());
        }
        let _gate = self.gate()?;
        self.session.add(&new)?;
        known.extend(new);
        Ok(())
    }

    fn gate(&self) -> Result<Lock> {
        Lock::wait(&self.root.join(GATE))
    }

    /// A kept case; none where it is not there. One that is damaged is told of, and counts as not there.
    pub(super) fn find(&self, key: &Key) -> Option<Entry> {
        let folder = self.case(key);
        if !folder.exists() {
            return None;
        }
        match Entry::open(&folder) {
            Ok(entry) => {
                entry.touch();
                Some(entry)
            }
            Err(error) => {
                log::warn!("a prepared case is damaged and is made anew: {error}");
                None
            }
        }
    }

    /// Bytes of a kept case.
    pub(super) fn bytes(&self, key: &Key) -> Option<u64> {
        Entry::about(&self.case(key)).ok().map(|about| about.bytes())
    }

    /// A case that is made unless it is there; another process that makes it is waited for. `sound` says whether one that is
    /// there may stay.
    pub(super) fn make(
        &self,
        key: &Key,
        sound: impl Fn(&Entry) -> bool,
        make: impl FnOnce() -> Result<(Prepared, Origin)>,
    ) -> Result<Entry> {
        let lock = Lock::wait(&self.root.join(LOCKS).join(key.as_str()))?;
        let entry = match self.find(key).filter(sound) {
            Some(entry) => Ok(entry),
            None => make().and_then(|(prepared, origin)| {
                let entry = self.keep(key, &prepared, origin)?;
                self.grown(entry.about.bytes());
                Ok(entry)
            }),
        };
        // whoever waits for the lock holds a file without a name then, and finds the case
        std::fs::remove_file(lock.path()).ok();
        entry
    }

    fn keep(&self, key: &Key, case: &Prepared, origin: Origin) -> Result<Entry> {
        let aside = self.session.aside()?;
        Entry::write(aside.path(), case, origin).map_err(|e| self.no_room(e))?;
        let folder = self.case(key);
        self.session.discard(&folder)?;
        match std::fs::rename(aside.path(), &folder) {
            Ok(()) => {
                // it has another name now
                let _ = aside.keep();
            }
            // somebody whose file system has no locks across machines made the same
            Err(_) if Entry::open(&folder).is_ok() => {}
            Err(e) => return Err(Error::io(&folder, e)),
        }
        sync_folder(&self.root.join(CASES));
        Entry::open(&folder)
    }

    /// A full disk, with what helps.
    fn no_room(&self, error: Error) -> Error {
        let told = error.to_string().to_lowercase();
        if !["no space left", "storage full", "not enough space", "quota"]
            .iter()
            .any(|part| told.contains(part))
        {
            return error;
        }
        Error::file(
            &self.root,
            "a full disk",
            "room for the prepared cases",
            "Free some (`u2seg cache clear`), or choose another folder (`--cache`).",
        )
    }

    /// Notes that so many bytes were added, and lets cases leave where they are too many.
    fn grown(&self, bytes: u64) {
        let mut total = locked(&self.total);
        let now = match *total {
            Some(total) => total + bytes,
            None => self.scan().iter().map(|(_, _, bytes)| bytes).sum(),
        };
        *total = Some(now);
        if now <= self.size {
            return;
        }
        match self.shrink(self.size) {
            Ok(left) => *total = Some(left),
            Err(error) => log::warn!("prepared cases that nobody uses stay: {error}"),
        }
    }

    /// All cases: key, last use, bytes.
    fn scan(&self) -> Vec<(Key, SystemTime, u64)> {
        let entries = std::fs::read_dir(self.root.join(CASES)).into_iter().flatten().flatten();
        let keys = entries.filter_map(|entry| Key::parse(&entry.file_name().to_string_lossy()));
        let look = |key: Key| {
            let folder = self.case(&key);
            let about = Entry::about(&folder);
            let bytes = about.as_ref().map_or_else(|_| size_of(&folder), About::bytes);
            (key, Entry::used(&folder), bytes)
        };
        keys.map(look).collect()
    }

    /// Takes the least recently used cases away until at most `size` bytes are left or all others are in use; what is left.
    fn shrink(&self, size: u64) -> Result<u64> {
        let _gate = self.gate()?;
        let used = self.session.all(&self.root)?;
        let mut cases = self.scan();
        cases.sort_by_key(|(_, used, _)| *used);
        let mut total: u64 = cases.iter().map(|(_, _, bytes)| bytes).sum();
        let (before, mut left) = (total, 0);
        for (key, _, bytes) in cases.iter().filter(|(key, ..)| !used.contains(key)) {
            if total <= size {
                break;
            }
            self.session.discard(&self.case(key))?;
            (total, left) = (total - bytes, left + 1);
        }
        if left > 0 {
            let [gone, now] = [before - total, total].map(|bytes| bytes >> 20);
            log::info!("{left} prepared cases of {gone} MiB left the cache, {now} MiB stay");
        }
        if total > size && size > 0 && !self.told.swap(true, Ordering::Relaxed) {
            log::warn!(
                "{}: {} MiB of prepared cases are in use, more than `cache_size` {} MiB",
                self.root.display(),
                total >> 20,
                size >> 20
            );
        }
        Ok(total)
    }

    /// All kept cases.
    ///
    /// # Errors
    ///
    /// Where the folder cannot be locked or read.
    pub fn list(&self) -> Result<Vec<Kept>> {
        let used = {
            let _gate = self.gate()?;
            self.session.all(&self.root)?
        };
        let kept = |(key, last, bytes): (Key, SystemTime, u64)| {
            let about = Entry::about(&self.case(&key)).ok();
            let facts = about.as_ref().map(|about| &about.facts);
            Kept {
                shape: facts.map(|facts| facts.shape).unwrap_or_default(),
                spacing: facts.map(|facts| facts.spacing).unwrap_or_default(),
                in_use: used.contains(&key),
                origin: about.map(|about| (about.origin.dataset, about.origin.case)),
                key,
                bytes,
                used: last,
            }
        };
        Ok(self.scan().into_iter().map(kept).collect())
    }

    /// Takes away all cases that no living process uses, and what is known of datasets; gives the bytes of the cases that
    /// went, and of those that stay.
    ///
    /// # Errors
    ///
    /// Where the folder cannot be locked, or something cannot be removed.
    pub fn clear(&self) -> Result<[u64; 2]> {
        let before: u64 = self.scan().iter().map(|(_, _, bytes)| bytes).sum();
        let left = self.shrink(0)?;
        for folder in [SUMMARIES, INDEX] {
            let folder = self.root.join(folder);
            for entry in std::fs::read_dir(&folder).map_err(|e| Error::io(&folder, e))? {
                let path = entry.map_err(|e| Error::io(&folder, e))?.path();
                match std::fs::remove_file(&path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::io(&path, e));
                    }
                    _ => {}
                }
            }
        }
        Ok([before.saturating_sub(left), left])
    }
}

fn unwritable(folder: &Path, e: &std::io::Error) -> Error {
    Error::file(
        folder,
        format!("that it cannot be made ({e})"),
        "a folder for prepared cases",
        "Choose another folder (`--cache`), or none.",
    )
}

/// Bytes of all files below a folder.
fn size_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |path: PathBuf| match path.is_dir() {
        true => size_of(&path),
        false => std::fs::metadata(&path).map_or(0, |found| found.len()),
    };
    entries.map(|entry| size(entry.path())).sum()
}

/// A process that uses the store, as the others see it.
#[derive(Debug)]
struct Session {
    /// Held while the process lives.
    lock: Lock,
    /// Keys that it uses, one a line.
    keys: PathBuf,
    /// Where it makes cases.
    making: PathBuf,
}

const LOCK: &str = "lock";

impl Session {
    fn begin(root: &Path) -> Result<Self> {
        let _gate = Lock::wait(&root.join(GATE))?;
        let users = root.join(USERS);
        let refuse = |e: std::io::Error| unwritable(&users, &e);
        let mut name = tempfile::Builder::new();
        let file = name.prefix("process-").tempfile_in(&users).map_err(refuse)?;
        let keys = file.into_temp_path().keep().map_err(|e| refuse(e.error))?;
        let making = root.join(MAKING).join(keys.file_name().unwrap_or_default());
        std::fs::create_dir_all(&making).map_err(|e| unwritable(&making, &e))?;
        Ok(Self { lock: Lock::wait(&keys.with_extension(LOCK))?, keys, making })
    }

    /// The caller holds the gate.
    fn add(&self, keys: &[Key]) -> Result<()> {
        let lines: String = keys.iter().map(|key| format!("{}\n", key.as_str())).collect();
        let refuse = |e| Error::io(&self.keys, e);
        let mut file = File::options().append(true).open(&self.keys).map_err(refuse)?;
        file.write_all(lines.as_bytes()).map_err(refuse)
    }

    /// Keys that living processes use; forgets those that ended, with what they left half made. The caller holds the gate.
    fn all(&self, root: &Path) -> Result<BTreeSet<Key>> {
        let mut used = BTreeSet::new();
        let users = root.join(USERS);
        for entry in std::fs::read_dir(&users).map_err(|e| Error::io(&users, e))? {
            let path = entry.map_err(|e| Error::io(&users, e))?.path();
            if path.extension().is_some_and(|extension| extension == LOCK) {
                continue;
            }
            let lock = path.with_extension(LOCK);
            let lives = path == self.keys || (lock.exists() && Lock::take(&lock)?.is_none());
            if lives {
                let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
                used.extend(text.lines().filter_map(Key::parse));
                continue;
            }
            std::fs::remove_file(&path).ok();
            std::fs::remove_file(&lock).ok();
        }
        let making = root.join(MAKING);
        for entry in std::fs::read_dir(&making).into_iter().flatten().flatten() {
            if !users.join(entry.file_name()).exists() {
                std::fs::remove_dir_all(entry.path()).ok();
            }
        }
        Ok(used)
    }

    /// A new folder for a case that is made.
    fn aside(&self) -> Result<tempfile::TempDir> {
        let folder = tempfile::Builder::new().prefix("case-").tempdir_in(&self.making);
        folder.map_err(|e| unwritable(&self.making, &e))
    }

    /// Takes a folder away as a whole: nobody finds half of it.
    fn discard(&self, folder: &Path) -> Result<()> {
        let aside = self.aside()?;
        match std::fs::rename(folder, aside.path().join("old")) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(folder, e)),
            _ => Ok(()),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.making).ok();
        std::fs::remove_file(&self.keys).ok();
        std::fs::remove_file(self.lock.path()).ok();
    }
}
