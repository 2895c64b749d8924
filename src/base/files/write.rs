//! Writing: a file is complete or absent.

use std::fs::Metadata;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::aside;
use super::name::folder;
use crate::base::{Error, Result};

/// Symbolic links in a row before they count as a loop; what Linux allows.
pub(super) const MAX_LINKS: u32 = 40;

/// Writes a file aside and renames it, so that a reader or a crash never meets half of it.
///
/// A symbolic link keeps pointing to its file, which is replaced.
///
/// # Errors
///
/// What [`write_with`] refuses.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, |file| file.write_all(bytes))
}

/// As [`write_atomically`], for contents that are made piece by piece.
///
/// # Errors
///
/// Where the path is a folder or a device, where `write` fails, or where the system refuses to create, write, sync or rename
/// the file. The path then holds what it held before, and nothing else is left behind.
pub fn write_with(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    write_keeping(path, None, write)
}

/// As [`write_with`]; what the path held before is kept under the name `earlier`, where that is given. At any moment one of the
/// two names has a whole file, once there was one.
///
/// # Errors
///
/// As [`write_with`].
pub fn write_keeping(
    path: &Path,
    earlier: Option<&Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let mut file = FileAside::begin(path)?;
    write(&mut file).map_err(|e| Error::io(path, e))?;
    file.take_name(earlier)
}

/// A file that is written aside, and takes its name once it is whole. Dropped before, it leaves nothing.
pub struct FileAside {
    path: PathBuf,
    target: PathBuf,
    file: BufWriter<NamedTempFile>,
}

impl FileAside {
    /// Begins beside the file that the path means.
    ///
    /// # Errors
    ///
    /// Where the path is a folder or a device, or where the system refuses to create a file there.
    pub fn begin(path: &Path) -> Result<Self> {
        let target = target(path)?;
        let aside = aside::create(folder(&target)).map_err(|e| Error::io(path, e))?;
        Ok(Self { path: path.to_path_buf(), target, file: BufWriter::new(aside) })
    }

    /// A file without a name in the same folder, for what must be kept until it can be written; it goes with its handle.
    ///
    /// # Errors
    ///
    /// Where the system refuses to create it.
    pub fn scratch(&self) -> Result<std::fs::File> {
        tempfile::tempfile_in(folder(&self.target)).map_err(|e| Error::io(&self.path, e))
    }

    /// Flushes, syncs and renames.
    ///
    /// # Errors
    ///
    /// Where the system refuses one of these. The path then holds what it held before.
    pub fn finish(self) -> Result<()> {
        self.take_name(None)
    }

    fn take_name(self, earlier: Option<&Path>) -> Result<()> {
        let Self { path, target, file } = self;
        let refuse = |e: io::Error| Error::io(&path, e);
        // a buffer that is dropped would hide that its last bytes found no room
        let aside = file.into_inner().map_err(|e| refuse(e.into_error()))?;
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let readable = std::fs::Permissions::from_mode(0o644);
            aside.as_file().set_permissions(readable).map_err(refuse)?;
        }
        aside.as_file().sync_all().map_err(refuse)?;
        if let Some(earlier) = earlier {
            match std::fs::rename(&target, earlier) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(refuse(e)),
                _ => {}
            }
        }
        aside.persist(&target).map_err(|e| refuse(e.error))?;
        sync_folder(folder(&target));
        Ok(())
    }
}

impl Write for FileAside {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Makes new names in a folder last through a crash. The files themselves are whole and safe by now, and some file systems cannot
/// sync folders.
pub(crate) fn sync_folder(folder: &Path) {
    if cfg!(unix) {
        let _ = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    }
}

/// The file that a path means: itself, or where its links lead, whether or not something is there.
fn target(path: &Path) -> Result<PathBuf> {
    let mut target = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        let found = match std::fs::symlink_metadata(&target) {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(target),
            Err(e) => return Err(Error::io(path, e)),
        };
        if !found.is_symlink() {
            regular(path, &found)?;
            return Ok(target);
        }
        let next = std::fs::read_link(&target).map_err(|e| Error::io(path, e))?;
        target = folder(&target).join(next);
    }
    Err(link_loop(path))
}

pub(super) fn link_loop(path: &Path) -> Error {
    let found = "symbolic links that lead in a circle";
    Error::file(path, found, "a file, or links to one", "Correct the links.")
}

/// An error where what is at a path must not be replaced by a file.
pub(super) fn regular(path: &Path, found: &Metadata) -> Result<()> {
    let what = match found.file_type() {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a folder",
        _ => "a device, pipe or socket",
    };
    Err(Error::file(path, what, "a regular file, or nothing yet", "Choose another output."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failure_leaves_the_earlier_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let broken = |file: &mut dyn Write| {
            file.write_all(&[7; 100_000])?;
            Err(io::Error::other("no more"))
        };
        let message = write_with(&path, broken).unwrap_err().to_string();
        assert!(message.contains("a.json") && message.contains("no more"), "{message}");
        assert!(names(folder.path()).is_empty());
        write_atomically(&path, b"first").unwrap();
        assert!(write_with(&path, broken).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        write_atomically(&path, b"second").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second");
        assert_eq!(names(folder.path()), ["a.json"]);
        assert!(write_atomically(&folder.path().join("none/a.json"), b"").is_err());
        assert!(write_atomically(&path.join("below"), b"").is_err());
    }

    #[test]
    fn the_file_before_is_kept_under_its_other_name() {
        let folder = tempfile::tempdir().unwrap();
        let (path, earlier) = (folder.path().join("last"), folder.path().join("previous"));
        let write = |bytes: &'static [u8]| {
            write_keeping(&path, Some(&earlier), |file| file.write_all(bytes)).unwrap();
        };
        write(b"one");
        assert!(!earlier.exists());
        write(b"two");
        write(b"three");
        let read = |path| std::fs::read(path).unwrap();
        assert_eq!((read(&path), read(&earlier)), (b"three".to_vec(), b"two".to_vec()));
        let broken = |_: &mut dyn Write| Err(io::Error::other("no more"));
        assert!(write_keeping(&path, Some(&earlier), broken).is_err());
        assert_eq!((read(&path), read(&earlier)), (b"three".to_vec(), b"two".to_vec()));
        assert_eq!(names(folder.path()), ["last", "previous"]);
    }

    #[test]
    fn folders_are_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_path_buf(), folder.path().join("."), "/".into(), "..".into()]
        {
            let message = write_atomically(&path, b"x").unwrap_err().to_string();
            assert!(message.contains("found a folder"), "{message}");
        }
        assert!(names(folder.path()).is_empty());
        assert!(write_atomically(Path::new(""), b"x").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_devices_are_refused_and_others_may_read() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        let deep = folder.path().join("deep");
        std::fs::create_dir(&deep).unwrap();
        symlink("deep/far", &link).unwrap();
        symlink("../file", deep.join("far")).unwrap();
        // a link to nothing yet, then to a file
        for bytes in [b"one", b"two"] {
            write_atomically(&link, bytes).unwrap();
            assert_eq!(std::fs::read(&file).unwrap(), bytes);
        }
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(names(&deep), ["far"]);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
        let to_device = folder.path().join("null");
        symlink("/dev/null", &to_device).unwrap();
        for path in [Path::new("/dev/null"), &to_device] {
            let message = write_atomically(path, b"x").unwrap_err().to_string();
            assert!(message.contains("found a device"), "{message}");
        }
        symlink("circle", folder.path().join("circle")).unwrap();
        let message =
            write_atomically(&folder.path().join("circle"), b"x").unwrap_err().to_string();
        assert!(message.contains("circle"), "{message}");
    }
}
