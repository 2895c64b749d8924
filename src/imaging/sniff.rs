//! What a file or folder is that is no NIfTI-1 image, and what to do about it.

use std::collections::BTreeMap;
use std::path::Path;

use super::names::{ENDINGS, stem};
use crate::base::Error;
use crate::base::files::{file_name, lost_link, stand_in};

/// What reading expects.
pub(super) const EXPECTED: &str =
    "a NIfTI-1 file (.nii, .nii.gz or .hdr/.img), NRRD, MetaImage or DICOM";
const DICOM: &str = "Convert the series, for example with `convert` or dcm2niix.";
const OTHER: &str = "Convert it to NIfTI-1, for example with ITK-SNAP, 3D Slicer or SimpleITK.";

pub(super) fn no_header(path: &Path) -> Error {
    Error::file(
        path,
        "an .img file without its .hdr",
        "NAME.img beside NAME.hdr",
        "Put both files into one folder.",
    )
}

pub(super) fn no_image(path: &Path) -> Error {
    Error::file(
        path,
        "a header without its .img file",
        "NAME.hdr beside NAME.img",
        "Put both files into one folder.",
    )
}

/// What was found instead of NIfTI files, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What is there.
    pub found: String,
    /// What to do about it.
    pub remedy: String,
}

/// What unpacked bytes are that are no NIfTI-1 file; None where they may be one, or nothing is known of them.
pub(super) fn explain(path: &Path, data: &[u8]) -> Option<Error> {
    let (found, remedy) = kind(path, data)?;
    Some(Error::file(path, found, EXPECTED, remedy))
}

fn kind(path: &Path, data: &[u8]) -> Option<(&'static str, &'static str)> {
    if let Some(finding) = stand_in(data) {
        return Some(finding);
    }
    let name = file_name(path).to_ascii_lowercase();
    let start = &data[..data.len().min(512)];
    let text = String::from_utf8_lossy(start).to_ascii_lowercase();
    let text = text.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    let word =
        start.first_chunk().map(|bytes| [i32::from_le_bytes(*bytes), i32::from_be_bytes(*bytes)]);
    let size = |wanted: i32| word.is_some_and(|sizes| sizes.contains(&wanted));
    Some(match start {
        _ if size(540) => (
            "a NIfTI-2 file",
            "Convert it to NIfTI-1, in Python with nibabel: nib.save(nib.Nifti1Image.from_image(nib.load(\"in.nii\")), \"out.nii\").",
        ),
        _ if size(348) && data.len() >= 348 => {
            let magic = &data[344..348];
            if magic == b"n+1\0" || magic == b"ni1\0" {
                return None;
            }
            (
                "an Analyze 7.5 header, without NIfTI's magic",
                "Analyze does not say which side is left: convert it to NIfTI-1 with the program that wrote it.",
            )
        }
        _ if data.get(128..132) == Some(b"DICM") => ("a DICOM file", DICOM),
        [b'N', b'R', b'R', b'D', b'0', b'0', b'0', ..] => ("an NRRD file", OTHER),
        _ if text.contains("objecttype =") => ("a MetaImage header", OTHER),
        [b'P', b'K', 3, 4, ..] => ("a ZIP archive", "Unpack it and use the images inside."),
        _ if [".mgz", ".mgh"].iter().any(|ending| name.ends_with(ending)) => {
            ("a FreeSurfer image", "Convert it with FreeSurfer: mri_convert in.mgz out.nii.gz.")
        }
        _ if text.starts_with(['{', '[']) && is_text(start) => {
            ("a JSON file", "Point at the image instead.")
        }
        _ if is_text(start) => ("a plain text file", "Point at the image instead."),
        _ => return None,
    })
}

fn is_text(start: &[u8]) -> bool {
    // the cut may split a letter
    let readable = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return false,
    };
    !readable.is_empty()
        && readable.chars().all(|c| !c.is_control() || matches!(c, '\t' | '\r' | '\n'))
}

/// What lies in a folder without NIfTI files; None of an empty folder or one of unknown files.
pub fn describe_folder(dir: &Path) -> Option<Finding> {
    let mut counts = BTreeMap::<&str, usize>::new();
    let (mut folders, mut series, mut dicom) = (0, 0, 0);
    for entry in std::fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if holds_images(&path) {
                folders += 1;
            } else if holds_dicom(&path) {
                series += 1;
            }
            continue;
        }
        let name = file_name(&path).to_ascii_lowercase();
        let ending = OTHERS.iter().find(|(ending, _)| name.ends_with(ending));
        if let Some((ending, _)) = ending {
            *counts.entry(ending).or_default() += 1;
        } else if !name.starts_with('.') && (name.ends_with(".dcm") || is_dicom(&path)) {
            dicom += 1;
        }
    }
    let files = |count: usize| format!("{count} {}", if count == 1 { "file" } else { "files" });
    if dicom > 0 {
        let found = format!("a DICOM folder ({})", files(dicom));
        return Some(Finding { found, remedy: DICOM.into() });
    }
    if let Some((ending, count)) = counts.into_iter().max_by_key(|(_, count)| *count) {
        let remedy = OTHERS.iter().find(|(other, _)| *other == ending).map_or(OTHER, |(_, r)| *r);
        let found = format!("no image, but {ending} files ({count})");
        return Some(Finding { found, remedy: remedy.into() });
    }
    if series > 0 {
        let folders = if series == 1 { "folder" } else { "folders" };
        let found = format!("no image, but {series} DICOM {folders}");
        return Some(Finding { found, remedy: DICOM.into() });
    }
    (folders > 0).then(|| Finding {
        found: format!(
            "no image, but {folders} {} with some",
            if folders == 1 { "folder" } else { "folders" }
        ),
        remedy: "Point at the folder that holds the images themselves.".into(),
    })
}

/// Endings of other formats and what to do about them.
const OTHERS: [(&str, &str); 6] = [
    (".mgz", "Convert with FreeSurfer: mri_convert in.mgz out.nii.gz."),
    (".mgh", "Convert with FreeSurfer: mri_convert in.mgh out.nii.gz."),
    (".zip", "Unpack first."),
    (".tar", "Unpack first."),
    (".tar.gz", "Unpack first."),
    (".tgz", "Unpack first."),
];

fn holds_images(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.take(1000).any(|entry| stem(&entry.path()).is_some())
}

/// Whether some of its files are DICOM files; the first ones tell.
fn holds_dicom(dir: &Path) -> bool {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.take(20).any(|entry| {
        let path = entry.path();
        file_name(&path).to_ascii_lowercase().ends_with(".dcm") || is_dicom(&path)
    })
}

/// DICOM files often have no ending; the first bytes tell. Only files are opened: a pipe would block.
fn is_dicom(path: &Path) -> bool {
    use std::io::Read;
    if !path.is_file() {
        return false;
    }
    let mut start = [0; 132];
    let whole = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    whole.is_ok() && start.ends_with(b"DICM")
}

/// What lies in `folder` in the place of a NIfTI image of this stem, with or without the number of a first channel: a
/// link that leads nowhere, a file of another format, or a folder of DICOM files. None where nothing of the kind does.
pub fn instead(folder: &Path, stem: &str) -> Option<Finding> {
    let stems = [stem.to_string(), format!("{stem}_0000")];
    let lost = |stem: &String| {
        ENDINGS.iter().find_map(|ending| {
            let name = format!("{stem}{ending}");
            let (found, remedy) = lost_link(&folder.join(&name))?;
            Some(Finding { found: format!("{name}, {found}"), remedy: remedy.into() })
        })
    };
    let other = |stem: &String| {
        OTHERS.iter().find_map(|(ending, remedy)| {
            let names = [ending.to_string(), ending.to_uppercase(), format!(".nii{ending}")];
            let name = names
                .into_iter()
                .map(|ending| format!("{stem}{ending}"))
                .find(|name| folder.join(name).is_file())?;
            let found = format!("no image, but {name}");
            Some(Finding { found, remedy: (*remedy).into() })
        })
    };
    let series = |stem: &String| {
        let found = format!("no image, but {stem}, a folder of DICOM files");
        holds_dicom(&folder.join(stem)).then(|| Finding { found, remedy: DICOM.into() })
    };
    let first = stems.iter().find_map(lost).or_else(|| stems.iter().find_map(other));
    first.or_else(|| stems.iter().find_map(series))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_sentence() {
        let header = |size: [u8; 4], magic: &[u8; 4]| {
            let mut bytes = vec![0u8; 352];
            bytes[..4].copy_from_slice(&size);
            bytes[344..348].copy_from_slice(magic);
            bytes
        };
        let mut dicom = vec![0u8; 200];
        dicom[128..132].copy_from_slice(b"DICM");
        let (zeros, mut nothing) = (vec![0u8; 600], vec![0u8; 400]);
        nothing[3] = 1;
        let cases: [(&str, &[u8], &str); 21] = [
            ("a.nii", b"", "an empty file"),
            (
                "a.nii",
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
                "git lfs pull",
            ),
            ("a.nii", &zeros, "a file of zeros"),
            ("a.nii.gz", b"/annex/objects/MD5E-s7--0.nii.gz", "datalad get"),
            ("a.nii.gz", b"\n<!DOCTYPE html><html>", "a web page"),
            ("a.nii.gz", b"\xef\xbb\xbf<html lang=de>", "a web page"),
            ("a.nii", &header(540i32.to_le_bytes(), b"\0\0\0\0"), "a NIfTI-2 file"),
            ("a.nii", &header(540i32.to_be_bytes(), b"\0\0\0\0"), "a NIfTI-2 file"),
            ("a.hdr", &header(348i32.to_le_bytes(), b"\0\0\0\0"), "Analyze 7.5"),
            ("a.hdr", &header(348i32.to_be_bytes(), b"\0\0\0\0"), "Analyze 7.5"),
            ("a.nii", &dicom, "dcm2niix"),
            ("a.nrrd", b"NRRD0004\ntype: short\n\x01\x02", "an NRRD file"),
            ("a.mha", b"ObjectType = Image\nNDims = 3\n", "a MetaImage header"),
            ("a.nii.gz", b"PK\x03\x04\x14\0", "a ZIP archive"),
            ("A.MGZ", &nothing, "mri_convert"),
            ("dataset.json", b"{\"name\": 1}", "a JSON file"),
            ("a.nii", "Grüße\n".as_bytes(), "a plain text file"),
            ("a.nii", &header(348i32.to_le_bytes(), b"n+1\0"), ""),
            ("a.hdr", &header(348i32.to_be_bytes(), b"ni1\0"), ""),
            ("a.nii", &nothing, ""),
            ("a.nii", &[0xff, 0xfe, 0x80], ""),
        ];
        for (name, bytes, part) in cases {
            let message = explain(Path::new(name), bytes).map(|error| error.to_string());
            match message {
                None => assert_eq!(part, "", "{name}"),
                Some(message) => {
                    assert!(!part.is_empty() && message.contains(part), "{name}: {message}");
                    assert!(message.contains(name) && message.contains(EXPECTED), "{message}");
                }
            }
        }
    }

    #[test]
    fn folders_are_described() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let found = || describe_folder(dir).map(|finding| finding.found).unwrap_or_default();
        let put = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).unwrap();
        assert_eq!(found(), "");
        put("notes.txt", b"");
        assert_eq!(found(), "");
        std::fs::create_dir(dir.join("a")).unwrap();
        put("a/x.nii.gz", b"");
        assert_eq!(found(), "no image, but 1 folder with some");
        let mut dicom = vec![0u8; 200];
        dicom[128..132].copy_from_slice(b"DICM");
        std::fs::create_dir(dir.join("b")).unwrap();
        put("b/IM0001", &dicom);
        assert_eq!(found(), "no image, but 1 DICOM folder");
        put("a.MGZ", b"");
        put("b.mgz", b"");
        put("b.zip", b"");
        assert_eq!(found(), "no image, but .mgz files (2)");
        put("IM0001", &dicom);
        assert_eq!(found(), "a DICOM folder (1 file)");
        put("IM0002.DCM", b"");
        assert_eq!(found(), "a DICOM folder (2 files)");
        assert!(describe_folder(&dir.join("none")).is_none());
    }

    #[test]
    fn what_lies_in_the_place_of_an_image_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        for sub in ["c", "d_0000", "e"] {
            std::fs::create_dir(dir.join(sub)).unwrap();
        }
        for name in ["a.mgz", "b_0000.MGH", "c/IM1.dcm", "d_0000/IM1.dcm", "e/x", "f.nii.zip"] {
            std::fs::write(dir.join(name), b"").unwrap();
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink("gone", dir.join("g_0000.nii.gz")).unwrap();
        for (stem, found, remedy) in [
            ("a", "no image, but a.mgz", "mri_convert"),
            ("b", "no image, but b_0000.MGH", "mri_convert"),
            ("b_0000", "no image, but b_0000.MGH", "mri_convert"),
            ("c", "no image, but c, a folder of DICOM files", "dcm2niix"),
            ("d", "no image, but d_0000, a folder of DICOM files", "dcm2niix"),
            ("f", "no image, but f.nii.zip", "Unpack"),
            ("g", "g_0000.nii.gz, a link to gone, which is not there", "datalad get"),
        ] {
            if stem == "g" && !cfg!(unix) {
                continue;
            }
            let finding = instead(dir, stem).unwrap();
            assert_eq!(finding.found, found);
            assert!(finding.remedy.contains(remedy), "{finding:?}");
        }
        assert!(["e", "none"].iter().all(|stem| instead(dir, stem).is_none()));
        assert!(instead(&dir.join("none"), "a").is_none());
    }
}
