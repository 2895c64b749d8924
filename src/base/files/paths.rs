//! What a command reads and writes, checked before anything is computed.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::aside;
use super::name::folder;
use super::owner::{FolderLock, check_free};
use super::place::{Finder, Key, Place};
use crate::base::{Error, Result};

/// The files of one command. Nothing that it reads may be written over, and nothing that it writes may be written twice, by
/// whatever links, detours or letter cases the paths lead to one place.
#[derive(Debug)]
pub struct Paths {
    setting: String,
    reads: Vec<PathBuf>,
    writes: Vec<Output>,
    owned: Vec<PathBuf>,
}

#[derive(Debug)]
struct Output {
    path: PathBuf,
    made_from: PathBuf,
}

/// Leave to write what was claimed; the folders are there, and no other process owns one of them. Folders that were made for it
/// and are empty in the end go away.
#[derive(Debug)]
#[must_use = "others may write there once it is dropped, and empty folders go away with it"]
pub struct Claim {
    made: Vec<PathBuf>,
    locks: Vec<FolderLock>,
}

impl Default for Paths {
    fn default() -> Self {
        Self::new()
    }
}

impl Paths {
    /// Of work whose setting `output` says where it writes.
    pub fn new() -> Self {
        Self::of_setting("output")
    }

    /// Of work whose setting `setting` says where it writes; messages name it.
    pub fn of_setting(setting: impl Into<String>) -> Self {
        Self { setting: setting.into(), reads: Vec::new(), writes: Vec::new(), owned: Vec::new() }
    }

    /// A file that must not be written over. A folder stands for everything in it.
    pub fn reads(&mut self, path: impl AsRef<Path>) {
        self.reads.push(path.as_ref().to_path_buf());
    }

    /// A file that will be written, and for messages the input, or words, that it is made from.
    pub fn writes(&mut self, path: impl AsRef<Path>, made_from: impl AsRef<Path>) {
        let (path, made_from) = (path.as_ref().to_path_buf(), made_from.as_ref().to_path_buf());
        self.writes.push(Output { path, made_from });
    }

    /// A folder of outputs that no other process may write in meanwhile.
    pub fn owns(&mut self, folder: impl AsRef<Path>) {
        self.owned.push(folder.as_ref().to_path_buf());
    }

    /// Makes the folders of everything that will be written, checks that it can be, takes the locks of the folders that are
    /// owned, and removes what dead processes left half written there.
    ///
    /// # Errors
    ///
    /// Where another process owns one of the folders; where two outputs, or an output and an input, are one place or one lies
    /// below the other; where an output is a folder or a device, or lies below a file; where a folder cannot be made or written
    /// in. Folders made till then are removed.
    pub fn claim(&self) -> Result<Claim> {
        let mut finder = Finder::default();
        let places: Vec<Place> =
            self.writes.iter().map(|output| finder.place(&output.path)).collect::<Result<_>>()?;
        let mut proven = HashSet::new();
        for (output, place) in self.writes.iter().zip(&places) {
            place.check_writable(&output.path)?;
            if proven.insert(place.folder().to_path_buf()) {
                let folds = self.prove(place.folder(), &output.path)?;
                finder.folding.insert(place.folder().to_path_buf(), folds);
            }
        }
        self.check_overlaps(&mut finder, &places)?;
        let mut claim = Claim { made: Vec::new(), locks: Vec::new() };
        let mut prepared = HashSet::new();
        for (output, place) in self.writes.iter().zip(&places) {
            let parent = folder(&output.path);
            let folders = place.missing.split_last().map_or(&[][..], |(_, folders)| folders);
            let target = place.folder().join(PathBuf::from_iter(folders));
            // a link among the outputs of a folder leads to another one
            if !prepared.insert((parent.to_path_buf(), target.clone())) {
                continue;
            }
            claim.make(place).map_err(|e| self.no_folder(parent, &e))?;
            if proven.insert(target.clone()) {
                self.prove(&target, &output.path)?;
            }
        }
        proven.iter().for_each(|folder| aside::sweep(folder));
        let targets: HashSet<PathBuf> = prepared.into_iter().map(|(_, target)| target).collect();
        claim.locks = self.lock(&targets)?;
        Ok(claim)
    }

    /// The locks of the folders that are owned; refuses outputs in folders that others own.
    fn lock(&self, targets: &HashSet<PathBuf>) -> Result<Vec<FolderLock>> {
        let real = |folder: &PathBuf| folder.canonicalize().unwrap_or_else(|_| folder.clone());
        let owned: HashSet<PathBuf> = self.owned.iter().map(real).collect();
        let foreign = targets.iter().filter(|folder| !owned.contains(&real(folder)));
        foreign.into_iter().try_for_each(|folder| check_free(folder))?;
        let locks = self.owned.iter().map(|folder| FolderLock::take(folder));
        Ok(locks.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn check_overlaps(&self, finder: &mut Finder, places: &[Place]) -> Result<()> {
        let keys: Vec<Key> = places.iter().map(|place| finder.key(place)).collect::<Result<_>>()?;
        let mut written: HashMap<&Key, &Output> = HashMap::new();
        for (output, key) in self.writes.iter().zip(&keys) {
            if let Some(other) = written.insert(key, output) {
                return Err(self.twice(output, other));
            }
        }
        let mut read_folders = HashMap::new();
        for path in &self.reads {
            let place = finder.place(path)?;
            let key = finder.key(&place)?;
            let place_above = key.missing_parents().find_map(|above| written.get(&above));
            if let Some(output) = written.get(&key).or(place_above) {
                return Err(self.over(output, path));
            }
            if place.is_folder {
                read_folders.insert(key, path);
            }
        }
        for (index, output) in self.writes.iter().enumerate() {
            let (place, key) = (&places[index], &keys[index]);
            if let Some(other) = key.missing_parents().find_map(|above| written.get(&above)) {
                return Err(self.below(output, &other.path));
            }
            // every file lies below some folders; only those that are read matter
            if read_folders.is_empty() {
                continue;
            }
            let above = finder.folders_above(place)?;
            let above = above.into_iter().chain(key.missing_parents());
            if let Some(path) = above.into_iter().find_map(|above| read_folders.get(&above)) {
                return Err(self.over(output, path));
            }
        }
        Ok(())
    }

    /// Writes a file into a folder and removes it; whether names of other letter case are the same there.
    fn prove(&self, folder: &Path, output: &Path) -> Result<bool> {
        let probe = aside::create(folder).map_err(|e| {
            let found = format!("a folder that takes no files ({})", e.kind());
            let expected = format!("room for {}", output.display());
            let remedy = format!("Choose another `{}`, or let u2seg write there.", self.setting);
            Error::file(folder, found, expected, remedy)
        })?;
        let name = probe.path().file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let folds = probe.path().with_file_name(name).exists();
        probe.close().map_err(|e| Error::io(folder, e))?;
        Ok(folds)
    }

    fn over(&self, output: &Output, read: &Path) -> Error {
        let expected =
            format!("another place for what is made from {}", output.made_from.display());
        let remedy = format!("Choose another `{}`.", self.setting);
        Error::file(&output.path, format!("the input {}", read.display()), expected, remedy)
    }

    fn twice(&self, output: &Output, other: &Output) -> Error {
        let [one, two] = [other, output].map(|output| output.made_from.display());
        let found = if other.path == output.path {
            format!("what is made from {one} and what is made from {two}")
        } else {
            let path = other.path.display();
            format!("what is made from {two}, and as {path} what is made from {one}")
        };
        let remedy = format!("Rename one of the inputs, or choose another `{}`.", self.setting);
        Error::file(&output.path, found, "a place for each", remedy)
    }

    fn below(&self, output: &Output, other: &Path) -> Error {
        let found = format!("a place below the output {}", other.display());
        let remedy = format!("Choose another `{}`.", self.setting);
        Error::file(&output.path, found, "a folder above each output", remedy)
    }

    fn no_folder(&self, folder: &Path, error: &std::io::Error) -> Error {
        let found = format!("no folder, and none can be made ({})", error.kind());
        let remedy = format!("Choose another `{}`.", self.setting);
        Error::file(folder, found, "a folder for the output", remedy)
    }
}

impl Claim {
    /// Makes the missing folders above a place.
    fn make(&mut self, place: &Place) -> std::io::Result<()> {
        let Some((_, folders)) = place.missing.split_last() else { return Ok(()) };
        let mut path = place.existing.clone();
        for name in folders {
            path.push(name);
            self.make_one(&path)?;
        }
        Ok(())
    }

    fn make_one(&mut self, path: &Path) -> std::io::Result<()> {
        match std::fs::create_dir(path) {
            Ok(()) => self.made.push(path.to_path_buf()),
            Err(e) if e.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // their files go before the folders
        self.locks.clear();
        // the deepest were made last; the system keeps those that hold something
        for folder in self.made.iter().rev() {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path) {
        std::fs::create_dir_all(folder(path)).unwrap();
        std::fs::write(path, b"x").unwrap();
    }

    fn entries(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn claim(reads: &[&Path], writes: &[&Path]) -> Result<Claim> {
        let mut paths = Paths::new();
        reads.iter().for_each(|path| paths.reads(path));
        writes.iter().enumerate().for_each(|(i, path)| paths.writes(path, format!("case {i}")));
        paths.claim()
    }

    fn refused(reads: &[&Path], writes: &[&Path]) -> String {
        claim(reads, writes).unwrap_err().to_string()
    }

    #[test]
    fn an_input_is_never_an_output() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&at("in/s1.nii.gz"));
        write(&at("in/s2.nii.gz"));
        let input = at("in/s1.nii.gz");
        for name in ["in/s1.nii.gz", "in/./s1.nii.gz", "in/../in/s1.nii.gz"] {
            let message = refused(&[&input, &at("in/s2.nii.gz")], &[&at("out/a"), &at(name)]);
            assert!(message.contains(&format!("found the input {}", input.display())), "{message}");
            assert!(message.contains("made from case 1. Choose another `output`."), "{message}");
        }
        assert_eq!(entries(folder.path()), ["in"]);
        drop(claim(&[&input], &[&at("in/s3.nii.gz"), &at("in/s2.nii.gz")]).unwrap());
        // an input that is not there yet, or a folder of inputs
        assert!(refused(&[&at("later")], &[&at("later")]).contains("the input"));
        assert!(refused(&[&at("later/in")], &[&at("later")]).contains("the input"));
        assert!(refused(&[&at("later")], &[&at("later/out")]).contains("the input"));
        assert!(refused(&[&at("in")], &[&at("in/deep/out")]).contains("the input"));
        drop(claim(&[&at("in")], &[&at("in2/out")]).unwrap());
        assert_eq!(entries(folder.path()), ["in"]);
    }

    #[test]
    fn an_owned_folder_takes_no_files_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut owner = Paths::new();
        owner.writes(at("run/a"), "case");
        owner.owns(at("run"));
        let held = owner.claim().unwrap();
        assert!(refused(&[], &[&at("run/b")]).contains("a run that process"));
        drop(claim(&[], &[&at("run/masks/b")]).unwrap());
        assert!(owner.claim().is_err());
        drop(held);
        // the folder went with its owner
        assert!(entries(folder.path()).is_empty());
        drop(claim(&[], &[&at("run/b")]).unwrap());
    }

    #[test]
    fn two_outputs_are_never_one() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let message = refused(&[], &[&at("out/a"), &at("out/b"), &at("out/a")]);
        assert!(message.contains("from case 0 and what is made from case 2"), "{message}");
        let message = refused(&[], &[&at("out/a"), &at("out/./a")]);
        assert!(message.contains("case 0") && message.contains("case 1"), "{message}");
        let message = refused(&[], &[&at("out/a/b"), &at("out/a")]);
        assert!(message.contains("a place below the output"), "{message}");
        assert!(entries(folder.path()).is_empty());
        // they differ exactly where the file system says so
        let cases = claim(&[], &[&at("Mask.nii"), &at("mask.nii")]);
        write(&at("probe"));
        assert_eq!(cases.is_err(), at("PROBE").exists());
    }

    #[test]
    fn outputs_are_no_folders_and_lie_below_no_files() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&at("file"));
        std::fs::create_dir(at("sub")).unwrap();
        for name in ["sub", "sub/.", "sub/.."] {
            assert!(refused(&[], &[&at("new2/a"), &at(name)]).contains("found a folder"), "{name}");
        }
        for name in ["new/", "new/.", "file/", "file/."] {
            let message = refused(&[], &[&at("new2/a"), &at(name)]);
            assert!(message.contains("found the name of a folder"), "{message}");
        }
        // the system would find no `new` to go up from, and making it may be in another output's way
        for name in ["new/..", "new/../a", "sub/new/../../a"] {
            let message = refused(&[], &[&at("new2/a"), &at(name)]);
            assert!(message.contains("found no folder"), "{message}");
        }
        for name in ["file/a", "file/a/b", "file/../a"] {
            let message = refused(&[], &[&at("new2/a"), &at(name)]);
            assert!(message.contains("file where a folder should be"), "{message}");
        }
        assert_eq!(entries(folder.path()), ["file", "sub"]);
    }

    #[test]
    fn folders_are_made_and_empty_ones_go_away() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("mine")).unwrap();
        let outputs = [at("a/b/c/file"), at("a/d/file"), at("mine/file"), at("mine/../e/file")];
        let outputs: Vec<&Path> = outputs.iter().map(PathBuf::as_path).collect();
        let kept = claim(&[], &outputs).unwrap();
        for output in &outputs {
            assert!(super::folder(output).is_dir());
        }
        super::super::write_atomically(outputs[1], b"x").unwrap();
        super::super::write_atomically(outputs[3], b"x").unwrap();
        drop(kept);
        assert_eq!(entries(folder.path()), ["a", "e", "mine"]);
        assert_eq!(entries(&at("a")), ["d"]);
        assert!(entries(&at("mine")).is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&at("in/s1"));
        symlink("in", at("to_folder")).unwrap();
        symlink("../in/s1", at("in/to_file")).unwrap();
        symlink(at("new/far"), at("dangling")).unwrap();
        symlink("newer", at("to_newer")).unwrap();
        std::fs::hard_link(at("in/s1"), at("hard")).unwrap();
        let input = at("in/s1");
        for name in ["to_folder/s1", "in/to_file", "hard", "to_folder/../to_folder/to_file"] {
            assert!(refused(&[&input], &[&at(name)]).contains("the input"), "{name}");
            assert!(refused(&[&at(name)], &[&input]).contains("the input"), "{name}");
        }
        assert!(refused(&[], &[&at("dangling"), &at("new/far")]).contains("case 0"));
        assert!(refused(&[], &[&at("to_newer/a"), &at("newer/a")]).contains("case 0"));
        // `..` of a linked folder is the folder above its target
        symlink("in/deep/deeper", at("to_deeper")).unwrap();
        std::fs::create_dir_all(at("in/deep/deeper")).unwrap();
        assert!(refused(&[&input], &[&at("to_deeper/../../s1")]).contains("the input"));
        drop(claim(&[&input], &[&at("to_deeper/../s1")]).unwrap());
        let claimed = claim(&[&input], &[&at("dangling"), &at("to_newer/a")]).unwrap();
        super::super::write_atomically(&at("dangling"), b"far").unwrap();
        super::super::write_atomically(&at("to_newer/a"), b"a").unwrap();
        drop(claimed);
        assert_eq!(std::fs::read(at("new/far")).unwrap(), b"far");
        assert_eq!(std::fs::read(at("newer/a")).unwrap(), b"a");
        symlink("newest/", at("to_newest")).unwrap();
        assert!(refused(&[], &[&at("to_newest")]).contains("the name of a folder"));
        drop(claim(&[], &[&at("to_newest/a")]).unwrap());
        symlink("round", at("round")).unwrap();
        assert!(refused(&[], &[&at("round")]).contains("circle"));
        symlink("/dev/null", at("null")).unwrap();
        assert!(refused(&[], &[&at("null")]).contains("a device"));
    }

    #[cfg(unix)]
    #[test]
    fn folders_that_take_no_files_are_found_at_once() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o555)).unwrap();
        if std::fs::write(closed.join("x"), b"").is_ok() {
            // permissions do not bind the superuser, but there no file can be made
            let message = refused(&[], &[Path::new("/proc/u2seg/new/out")]);
            assert!(message.contains("takes no files"), "{message}");
            return;
        }
        for name in ["a", "new/a"] {
            let message = refused(&[], &[&folder.path().join("new/b"), &closed.join(name)]);
            assert!(message.contains("takes no files (permission denied)"), "{message}");
        }
        assert_eq!(entries(folder.path()), ["closed"]);
    }

    #[test]
    fn ten_thousand_files_are_no_burden() {
        let folder = tempfile::tempdir().unwrap();
        let mut paths = Paths::new();
        for index in 0..10_000 {
            let input = folder.path().join(format!("in_{index}"));
            if index % 10 == 0 {
                std::fs::write(&input, b"x").unwrap();
            }
            paths.writes(folder.path().join(format!("out/{}/mask_{index}", index % 50)), &input);
            paths.reads(input);
        }
        let start = std::time::Instant::now();
        drop(paths.claim().unwrap());
        assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
        assert!(!folder.path().join("out").exists());
    }
}
