//! The names of images: their endings, and the halves of a pair of NIfTI-1.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::files::{file_name, folder};
use crate::base::{Error, Result};

/// Endings of images, the longer ones first.
pub(super) const ENDINGS: [&str; 11] = [
    ".seg.nrrd",
    ".nii.gz",
    ".hdr.gz",
    ".img.gz",
    ".nrrd",
    ".nhdr",
    ".nii",
    ".hdr",
    ".img",
    ".mha",
    ".mhd",
];

/// The name without its ending, and that ending in small letters.
fn split(name: &str) -> Option<(&str, &'static str)> {
    let small = name.to_ascii_lowercase();
    let ending = ENDINGS.into_iter().find(|ending| small.ends_with(ending))?;
    Some((&name[..name.len() - ending.len()], ending))
}

/// The name of an image without its ending (`.nii`, `.hdr` and `.img`, packed or not, `.nrrd`, `.seg.nrrd`, `.nhdr`, `.mha`,
/// `.mhd`), in whatever case; None of files that end otherwise.
pub fn stem(path: &Path) -> Option<String> {
    split(&file_name(path)).map(|(stem, _)| stem.to_string())
}

/// Whether a name ends as those of images do, also of formats that are not written.
pub fn has_ending(path: &Path) -> bool {
    let name = file_name(path).to_ascii_lowercase();
    stem(path).is_some() || [".mgz", ".dcm", ".png"].iter().any(|ending| name.ends_with(ending))
}

/// What the image of a path is called: a file's or an archive's name without its ending, the name of a folder.
pub fn case_name(path: &Path) -> String {
    const ARCHIVES: [&str; 5] = [".tar.gz", ".tgz", ".tar", ".zip", ".dcm"];
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let name = match file_name(path) {
        // of a path such as `.` the system knows the name
        name if name.is_empty() => file_name(&whole),
        name => name,
    };
    let small = name.to_ascii_lowercase();
    let archive = ARCHIVES.iter().find(|ending| small.ends_with(*ending) && !path.is_dir());
    let case = match archive {
        Some(ending) => name[..name.len() - ending.len()].to_string(),
        None => split(&name).map_or(name.clone(), |(stem, _)| stem.to_string()),
    };
    if case.is_empty() { "mask".into() } else { case }
}

/// Whether a name is that of the image file of a pair.
pub(super) fn is_image(path: &Path) -> bool {
    split(&file_name(path)).is_some_and(|(_, ending)| ending.starts_with(".img"))
}

/// The images of a folder by their names without the ending, each list in order; the image file of a pair is left out where
/// its header is there. Files whose name starts with a dot are left out.
pub fn by_stem(folder: &Path) -> Result<BTreeMap<String, Vec<PathBuf>>> {
    let mut stems: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        if let Some(stem) = stem(&path).filter(|stem| !stem.starts_with('.')) {
            stems.entry(stem).or_default().push(path);
        }
    }
    for paths in stems.values_mut() {
        paths.sort();
        let images: Vec<PathBuf> = paths
            .iter()
            .filter(|path| !is_image(path))
            .filter_map(|path| halves(path).image)
            .collect();
        paths.retain(|path| !images.contains(path));
    }
    Ok(stems)
}

/// The files on disk that reading this path touches: the path, and its other half where there is one.
pub(super) fn pair(path: &Path) -> Vec<PathBuf> {
    let Halves { header, image } = halves(path);
    [Some(header), image].into_iter().flatten().collect()
}

/// The files of an image.
pub(super) struct Halves {
    /// The file that holds the header; without it, an image file stands for itself.
    pub header: PathBuf,
    /// Of a pair, the file that holds the voxels.
    pub image: Option<PathBuf>,
}

/// The files that this one is, or is a half of.
pub(super) fn halves(path: &Path) -> Halves {
    let own = path.to_path_buf();
    let name = file_name(path);
    match split(&name) {
        Some((stem, ending)) if ending.starts_with(".hdr") => {
            Halves { image: half(path, stem, [".img", ".img.gz"]), header: own }
        }
        Some((stem, ending)) if ending.starts_with(".img") => {
            match half(path, stem, [".hdr", ".hdr.gz"]) {
                Some(header) => Halves { header, image: Some(own) },
                None => Halves { header: own, image: None },
            }
        }
        _ => Halves { header: own, image: None },
    }
}

/// The file beside `path` with one of the endings, whatever their case; the first ending and small letters go first.
fn half(path: &Path, stem: &str, endings: [&str; 2]) -> Option<PathBuf> {
    let plain = endings.map(|ending| path.with_file_name(format!("{stem}{ending}")));
    if let Some(found) = plain.into_iter().find(|file| file.is_file()) {
        return Some(found);
    }
    let entries = std::fs::read_dir(folder(path)).ok()?;
    let mut found: Vec<(usize, String)> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().to_string_lossy().into_owned();
            let (other, ending) = split(&name)?;
            let rank = endings.iter().position(|wanted| *wanted == ending)?;
            (other == stem).then_some((rank, name))
        })
        .collect();
    found.sort();
    found.first().map(|(_, name)| path.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_endings_whatever_their_case() {
        let of = |name: &str| stem(Path::new(name));
        for name in ["x/a.nii", "a.NII.GZ", "a.Nii.gz", "a.hdr", "a.HDR.gz", "a.img", "a.IMG.GZ"] {
            assert_eq!(of(name).as_deref(), Some("a"), "{name}");
        }
        assert_eq!(of("a.b.nii.gz").as_deref(), Some("a.b"));
        assert_eq!(of(".nii").as_deref(), Some(""));
        for name in ["a.gz", "a.json", "nii", "a.nii.txt", ""] {
            assert_eq!(of(name), None, "{name}");
        }
    }

    #[test]
    fn both_halves_of_a_pair_are_touched() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["a.hdr", "a.img", "b.HDR", "b.Img.gz", "c.img", "d.hdr", "e.nii.gz", "b.nii"] {
            std::fs::write(at(name), b"").unwrap();
        }
        let check = |name: &str, files: &[&str]| {
            let expected: Vec<_> = files.iter().map(|file| at(file)).collect();
            assert_eq!(pair(&at(name)), expected, "{name}");
        };
        check("a.hdr", &["a.hdr", "a.img"]);
        check("a.img", &["a.hdr", "a.img"]);
        check("b.HDR", &["b.HDR", "b.Img.gz"]);
        check("b.Img.gz", &["b.HDR", "b.Img.gz"]);
        check("c.img", &["c.img"]);
        check("d.hdr", &["d.hdr"]);
        check("e.nii.gz", &["e.nii.gz"]);
        check("absent.nii", &["absent.nii"]);
    }
}
