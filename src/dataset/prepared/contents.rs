//! What files hold, by hash. An index of sizes, times and file numbers spares reading files again that nobody changed.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::files::{Lock, open_file, read_bytes, write_atomically};
use crate::base::{Error, Result, locked};
use crate::dataset::Case;
use crate::imaging::files_of;

/// A name for what follows from some contents: 32 hexadecimal digits of a BLAKE3 hash.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    /// Of parts, in their order.
    pub(super) fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = blake3::Hasher::new();
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self::end(&hash)
    }

    fn end(hash: &blake3::Hasher) -> Self {
        Self(hash.finalize().to_hex()[..32].to_string())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Of a name on disk.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let digits = name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit());
        digits.then(|| Self(name.to_string()))
    }
}

/// A file as it was when it was read.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
struct Seen {
    size: u64,
    /// Nanoseconds since 1970.
    modified: u64,
    /// Its number on its disk.
    id: String,
    /// When it was read, nanoseconds since 1970.
    read: u64,
    contents: Key,
}

/// Files may change within the grain of their time stamps after they are read: such a reading counts only once it is older
/// than this.
const SETTLED: Duration = Duration::from_secs(2);

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

impl Seen {
    fn now(path: &Path, found: &Metadata) -> Result<Self> {
        let read = nanoseconds(SystemTime::now());
        let contents = hash(path)?;
        Ok(Self { contents, read, ..Self::look(path, found)? })
    }

    /// All but the contents.
    fn look(path: &Path, found: &Metadata) -> Result<Self> {
        let refuse = |e| Error::io(path, e);
        let id = format!("{:?}", file_id::get_file_id(path).map_err(refuse)?);
        let modified = nanoseconds(found.modified().map_err(refuse)?);
        Ok(Self { size: found.len(), modified, id, read: 0, contents: Key(String::new()) })
    }

    /// Whether the file is as it was.
    fn holds(&self, now: &Self) -> bool {
        let settled = self.modified.saturating_add(SETTLED.as_nanos() as u64) < self.read;
        settled && (self.size, self.modified, &self.id) == (now.size, now.modified, &now.id)
    }
}

fn hash(path: &Path) -> Result<Key> {
    let refuse = |e| Error::io(path, e);
    let mut file = open_file(path, "a file of a case")?;
    let (mut hash, mut buffer) = (blake3::Hasher::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).map_err(refuse)? {
            0 => return Ok(Key::end(&hash)),
            count => hash.update(&buffer[..count]),
        };
    }
}

/// By path. One that is no Unicode cannot be written, and is read each time.
type Files = BTreeMap<String, Seen>;

/// Contents of the files of a dataset, kept in a file.
pub(super) struct Index {
    file: PathBuf,
    files: Mutex<Files>,
    /// Files whose contents were read.
    fresh: Mutex<Files>,
}

impl Index {
    /// Reads the index of a dataset folder, below `folder`. One that cannot be read is made anew.
    pub fn open(folder: &Path, dataset: &Path) -> Self {
        let dataset = dataset.canonicalize().unwrap_or_else(|_| dataset.to_path_buf());
        let name = Key::of([dataset.as_os_str().as_encoded_bytes()]);
        let file = folder.join(format!("{}.json", name.as_str()));
        let files = Mutex::new(read(&file));
        Self { file, files, fresh: Mutex::default() }
    }

    /// The contents of a case's files: images in their order, then the label.
    ///
    /// # Errors
    ///
    /// Where one cannot be read.
    pub fn case(&self, case: &Case) -> Result<Vec<Key>> {
        let files = case.images.iter().chain([&case.label]).flat_map(|path| files_of(path));
        files.map(|path| self.contents(&path)).collect()
    }

    /// The same where every file is as it was when it was read; nothing is read.
    pub fn known(&self, case: &Case) -> Option<Vec<Key>> {
        let known = |path: PathBuf| {
            let now = Seen::look(&path, &std::fs::metadata(&path).ok()?).ok()?;
            let at = std::path::absolute(&path).ok()?;
            let files = locked(&self.files);
            files
                .get(at.to_str()?)
                .filter(|seen| seen.holds(&now))
                .map(|seen| seen.contents.clone())
        };
        let files = case.images.iter().chain([&case.label]).flat_map(|path| files_of(path));
        files.map(known).collect()
    }

    fn contents(&self, path: &Path) -> Result<Key> {
        let refuse = |e| Error::io(path, e);
        let found = std::fs::metadata(path).map_err(refuse)?;
        if !found.is_file() {
            // a pipe would block
            return Err(refuse(std::io::ErrorKind::InvalidInput.into()));
        }
        let at = std::path::absolute(path).map_err(refuse)?;
        let Some(at) = at.to_str().map(String::from) else { return hash(path) };
        let now = Seen::look(path, &found)?;
        if let Some(seen) = locked(&self.files).get(&at).filter(|seen| seen.holds(&now)) {
            return Ok(seen.contents.clone());
        }
        let seen = Seen::now(path, &found)?;
        let contents = seen.contents.clone();
        locked(&self.files).insert(at.clone(), seen.clone());
        locked(&self.fresh).insert(at, seen);
        Ok(contents)
    }

    /// Adds what was read to the file, beside what other processes added.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub fn save(&self) -> Result<()> {
        let fresh = std::mem::take(&mut *locked(&self.fresh));
        if fresh.is_empty() {
            return Ok(());
        }
        let _lock = Lock::wait(&self.file.with_extension("lock"))?;
        let mut files = read(&self.file);
        files.extend(fresh);
        let json = serde_json::to_vec(&files).map_err(|e| Error::Internal(e.to_string()))?;
        write_atomically(&self.file, &json)
    }
}

fn read(file: &Path) -> Files {
    let Ok(bytes) = read_bytes(file, "an index of files") else { return Files::new() };
    serde_json::from_slice(&bytes).unwrap_or_else(|e| {
        log::warn!("{}: {e}; the files of the dataset are hashed again", file.display());
        Files::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(path: &Path) {
        let past = SystemTime::now() - Duration::from_secs(60);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(past).unwrap();
    }

    #[test]
    fn unchanged_files_are_not_read_again_and_changed_ones_are() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("a.nii"), b"one").unwrap();
        std::fs::write(at("b.nii"), b"two").unwrap();
        age(&at("a.nii"));
        let case = Case { images: vec![at("a.nii")], label: at("b.nii"), ..Case::default() };
        let index = Index::open(folder.path(), folder.path());
        let first = index.case(&case).unwrap();
        index.save().unwrap();
        let again = Index::open(folder.path(), folder.path());
        assert_eq!(again.case(&case).unwrap(), first);
        // only the one that was changed a moment ago
        let read: Vec<String> = locked(&again.fresh).keys().cloned().collect();
        assert_eq!(read, [at("b.nii").to_str().unwrap()]);
        // of the same size, and within the same second
        std::fs::write(at("b.nii"), b"2wo").unwrap();
        let other = Index::open(folder.path(), folder.path()).case(&case).unwrap();
        assert_eq!((&other[0], other[1] == first[1]), (&first[0], false));
        std::fs::remove_file(at("b.nii")).unwrap();
        assert!(again.case(&case).is_err());
    }

    #[test]
    fn a_broken_index_costs_only_reading() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.nii");
        std::fs::write(&file, b"one").unwrap();
        let case = Case { images: vec![file.clone()], label: file, ..Case::default() };
        let index = Index::open(folder.path(), folder.path());
        std::fs::write(&index.file, b"{").unwrap();
        let contents = Index::open(folder.path(), folder.path()).case(&case).unwrap();
        assert_eq!(contents, index.case(&case).unwrap());
    }
}
