//! A folder that grows from an archive. No name leads out of it, nothing in it is a link, and nothing is written twice.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::base::files::safe_name;
use crate::base::{Error, Result};
use crate::fetch::limits::{Limits, check_room};
use crate::fetch::progress::{Progress, Stage, Watch};

/// Folders within one another at most.
const DEEPEST: usize = 32;
/// Bytes copied at a time.
const CHUNK: usize = 1 << 17;
/// Bytes after which the disk is looked at again.
const LOOK: u64 = 64 << 20;
const REMEDY: &str =
    "Nothing was unpacked. Ask whoever made the archive, or unpack it by hand where you trust it.";

/// The folder and what went into it.
pub(super) struct Tree<'a, 'b> {
    archive: &'a Path,
    root: &'a Path,
    limits: &'a Limits,
    watch: &'a mut Watch<'b>,
    files: u64,
    bytes: u64,
    looked: u64,
    total: Option<u64>,
}

impl<'a, 'b> Tree<'a, 'b> {
    /// An empty folder.
    pub(super) fn new(
        archive: &'a Path,
        root: &'a Path,
        limits: &'a Limits,
        watch: &'a mut Watch<'b>,
    ) -> Result<Self> {
        std::fs::create_dir(root).map_err(|e| Error::io(root, e))?;
        Ok(Self { archive, root, limits, watch, files: 0, bytes: 0, looked: 0, total: None })
    }

    /// Bytes that will come in all, as far as the archive says.
    pub(super) fn expect(&mut self, bytes: u64) -> Result<()> {
        self.total = Some(bytes);
        self.limits.check_bytes(bytes, &self.of())?;
        check_room(self.root, bytes, "files to unpack")
    }

    /// Files that will come in all.
    pub(super) fn expect_files(&self, files: u64) -> Result<()> {
        self.limits.check_files(files, &self.of())
    }

    fn of(&self) -> String {
        self.archive.display().to_string()
    }

    /// An archive that is not unpacked, and why.
    pub(super) fn refuse(&self, found: impl Into<String>) -> Error {
        Error::file(self.archive, found, "files and folders that stay in one place", REMEDY)
    }

    /// An archive that cannot be read.
    pub(super) fn broken(&self, why: impl std::fmt::Display) -> Error {
        let found = format!("an archive that cannot be read ({why})");
        Error::file(self.archive, found, "a whole tar, tar.gz or zip", "Fetch it again.")
    }

    /// Makes a folder.
    pub(super) fn folder(&mut self, name: &str) -> Result<()> {
        match self.parts(name)? {
            Some(parts) => self.make(name, &parts).map(|_| ()),
            None => Ok(()),
        }
    }

    /// Writes a file of a size that the archive tells.
    pub(super) fn file(&mut self, name: &str, size: u64, content: &mut dyn Read) -> Result<()> {
        let Some(parts) = self.parts(name)? else { return Ok(()) };
        let Some((last, folders)) = parts.split_last() else {
            return Err(self.refuse(format!("a file in the place of the folder itself, {name:?}")));
        };
        let path = self.make(name, folders)?.join(last);
        self.count()?;
        self.limits.check_bytes(self.bytes.saturating_add(size), &self.of())?;
        let file = File::options().write(true).create_new(true).open(&path);
        let mut file = file.map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists if path.is_dir() => {
                self.refuse(format!("a file over the folder {name:?}"))
            }
            ErrorKind::AlreadyExists => self.refuse(format!("a second file {name:?}")),
            _ => Error::io(&path, e),
        })?;
        let written = self.copy(&path, &mut file, content)?;
        if written != size {
            return Err(self.broken(format_args!("{written} of {size} bytes of {name:?}")));
        }
        file.sync_all().map_err(|e| Error::io(&path, e))
    }

    fn copy(&mut self, path: &Path, file: &mut File, content: &mut dyn Read) -> Result<u64> {
        let (mut written, mut chunk) = (0, vec![0; CHUNK]);
        loop {
            let (done, total) = (self.bytes, self.total);
            (self.watch)(Progress { stage: Stage::Unpacking, done, total })?;
            let count = match content.read(&mut chunk) {
                Ok(0) => return Ok(written),
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.broken(e)),
            };
            written += count as u64;
            self.bytes += count as u64;
            self.limits.check_bytes(self.bytes, &self.of())?;
            if self.bytes - self.looked >= LOOK {
                self.looked = self.bytes;
                check_room(self.root, LOOK, "files to unpack")?;
            }
            file.write_all(&chunk[..count]).map_err(|e| Error::io(path, e))?;
        }
    }

    fn count(&mut self) -> Result<()> {
        self.files += 1;
        self.limits.check_files(self.files, &self.of())
    }

    /// Makes the folders of a name that are not there yet.
    fn make(&mut self, name: &str, folders: &[String]) -> Result<PathBuf> {
        let mut path = self.root.to_path_buf();
        for folder in folders {
            path.push(folder);
            match std::fs::create_dir(&path) {
                Ok(()) => self.count()?,
                Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                    return Err(self.refuse(format!("a folder over a file, {name:?}")));
                }
                Err(e) => return Err(Error::io(&path, e)),
            }
        }
        Ok(path)
    }

    /// The parts of a name; none of what macOS adds to archives for itself.
    fn parts(&self, name: &str) -> Result<Option<Vec<String>>> {
        let refuse = |what: &str| Err(self.refuse(format!("{what}, {name:?}")));
        if name.starts_with('/') {
            return refuse("a path from the root");
        }
        let mut parts = Vec::new();
        for part in name.split('/') {
            match part {
                "" | "." => continue,
                ".." => return refuse("a path that leads out of the folder"),
                _ if !plain(part) => {
                    return refuse("a name that systems take for more than a name");
                }
                _ => parts.push(part.to_string()),
            }
        }
        if parts.len() > DEEPEST {
            return refuse("more than 32 folders within one another");
        }
        let macs = |part: &String| part == "__MACOSX" || part.starts_with("._");
        Ok((!parts.iter().any(macs)).then_some(parts))
    }
}

/// Whether every system takes a part of a path for a plain name, or this one does where others do not.
fn plain(part: &str) -> bool {
    let harmless = |c: char| !c.is_control() && c != '\\';
    part.chars().all(harmless) && (cfg!(not(windows)) || safe_name(part) == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("tree");
        let (limits, mut watch) = (Limits { bytes: 10, files: 8 }, |_| Ok(()));
        let mut tree = Tree::new(Path::new("a.tar"), &root, &limits, &mut watch).unwrap();
        tree.file("./a//b.txt", 3, &mut &b"abc"[..]).unwrap();
        tree.folder("a/c/").unwrap();
        tree.file("__MACOSX/a", 900, &mut &b""[..]).unwrap();
        tree.file("a/._b.txt", 900, &mut &b""[..]).unwrap();
        tree.folder("./").unwrap();
        let deep = "d/".repeat(33);
        for (name, part) in [
            ("../x", "leads out"),
            ("a/../../x", "leads out"),
            ("/etc/x", "from the root"),
            ("a\\..\\x", "more than a name"),
            ("a/\0", "more than a name"),
            ("a\nb", "more than a name"),
            (&deep, "32 folders"),
            ("a/b.txt/c", "over a file"),
            ("a/b.txt", "a second file"),
            ("a/c", "over the folder"),
            ("./", "the folder itself"),
        ] {
            let message = tree.file(name, 1, &mut &b"x"[..]).unwrap_err().to_string();
            assert!(message.contains(part), "{name:?}: {message}");
        }
        let message = tree.file("long", 8, &mut &b"12345678"[..]).unwrap_err().to_string();
        assert!(message.contains("max_size"), "{message}");
        // one that says less than it has
        let message = tree.file("sly", 1, &mut &[0; 9][..]).unwrap_err().to_string();
        assert!(message.contains("max_size"), "{message}");
        let message = tree.file("short", 2, &mut &b"1"[..]).unwrap_err().to_string();
        assert!(message.contains("max_size") || message.contains("1 of 2 bytes"), "{message}");
        let entries = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(entries, 1, "nothing beside the folder");
        let many = (0..9).find_map(|at| tree.folder(&format!("f{at}")).err()).unwrap().to_string();
        assert!(many.contains("max_files"), "{many}");
    }
}
