//! Which predicted mask belongs to which reference.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::words::listed;
use crate::base::files::file_name;
use crate::base::{Error, Result};
use crate::imaging::{describe_folder, masks_by_stem};

/// A reference and what was predicted for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskPair {
    /// The true labels.
    pub reference: PathBuf,
    /// Where there is no such file, the name that one would have.
    pub prediction: PathBuf,
    /// Whether nothing was predicted.
    pub missing: bool,
}

/// Pairs two files, or the files of two folders by their names without `.nii.gz` and the like; in the order of the names.
///
/// # Errors
///
/// Where one is a folder and the other a file; where two files of a folder have one name; where a prediction has no
/// reference; and, unless `allow_missing`, where a reference has no prediction.
pub fn pair_masks(
    predictions: &Path,
    references: &Path,
    allow_missing: bool,
) -> Result<Vec<MaskPair>> {
    for (path, what) in [(predictions, "predicted masks"), (references, "references")] {
        if !path.exists() {
            let expected = format!("a folder of {what}, or a single file");
            return Err(Error::file(path, "no such file", expected, "Correct -p or -g."));
        }
    }
    match (predictions.is_dir(), references.is_dir()) {
        (true, true) => pair_folders(predictions, references, allow_missing),
        (false, false) => Ok(vec![MaskPair {
            reference: references.to_path_buf(),
            prediction: predictions.to_path_buf(),
            missing: false,
        }]),
        (folder, _) => {
            let (one, other) =
                if folder { (predictions, references) } else { (references, predictions) };
            let expected = format!("a single file, as {} is", other.display());
            let remedy = "Point -p and -g both at folders, or both at files.";
            Err(Error::file(one, "a folder", expected, remedy))
        }
    }
}

fn pair_folders(predictions: &Path, references: &Path, allow: bool) -> Result<Vec<MaskPair>> {
    let truths = masks(references, "ground_truth")?;
    let predicted = masks(predictions, "predictions")?;
    let only = |these: &BTreeMap<String, PathBuf>, others: &BTreeMap<String, PathBuf>| {
        let alone = these.iter().filter(|(stem, _)| !others.contains_key(*stem));
        alone.map(|(_, path)| file_name(path)).collect::<Vec<String>>()
    };
    let extra = only(&predicted, &truths);
    let missing = only(&truths, &predicted);
    if !extra.is_empty() {
        let mut found = format!(
            "predictions without a reference: {} of {} ({})",
            extra.len(),
            predicted.len(),
            listed(&extra)
        );
        if !missing.is_empty() {
            found += &format!(", and references without a prediction: {}", listed(&missing));
        }
        return Err(Error::file(
            predictions,
            found,
            format!("the names of the references in {}", references.display()),
            "Rename the predictions as their references, add the references, or move the predictions away.",
        ));
    }
    if !missing.is_empty() && !allow {
        return Err(Error::file(
            predictions,
            format!(
                "no prediction for {} of {} references ({})",
                missing.len(),
                truths.len(),
                listed(&missing)
            ),
            format!("a mask for each reference in {}", references.display()),
            "Predict them, or count them as empty masks with `allow_missing`.",
        ));
    }
    let pairs = truths.into_iter().map(|(stem, reference)| match predicted.get(&stem) {
        Some(prediction) => MaskPair { reference, prediction: prediction.clone(), missing: false },
        None => {
            let prediction = predictions.join(file_name(&reference));
            MaskPair { reference, prediction, missing: true }
        }
    });
    Ok(pairs.collect())
}

/// The masks of a folder by their names without the ending.
fn masks(folder: &Path, setting: &str) -> Result<BTreeMap<String, PathBuf>> {
    let mut named = masks_by_stem(folder)?;
    named.values_mut().for_each(|files| files.retain(|file| !file.is_dir()));
    named.retain(|_, files| !files.is_empty());
    if named.is_empty() {
        let other = describe_folder(folder);
        let found = other.as_ref().map_or("no .nii or .nii.gz file", |other| &other.found);
        let remedy = other.as_ref().map_or_else(
            || format!("Point `{setting}` at a folder of masks."),
            |other| other.remedy.clone(),
        );
        return Err(Error::file(folder, found, "masks to score", remedy));
    }
    let mut masks = BTreeMap::new();
    for (stem, mut files) in named {
        if let Some(other) = files.get(1) {
            return Err(Error::file(
                &files[0],
                format!("the same name as {}", file_name(other)),
                "a single mask for each case",
                "Move one of the two away.",
            ));
        }
        masks.insert(stem, files.swap_remove(0));
    }
    Ok(masks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(predictions: &[&str], references: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, files) in [("p", predictions), ("g", references)] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            for file in files {
                std::fs::write(folder.path().join(name).join(file), b"").unwrap();
            }
        }
        folder
    }

    fn paired(predictions: &[&str], references: &[&str], allow: bool) -> Result<Vec<String>> {
        let folder = folders(predictions, references);
        let pairs = pair_masks(&folder.path().join("p"), &folder.path().join("g"), allow)?;
        let name = |pair: &MaskPair| {
            let names = [&pair.prediction, &pair.reference].map(|path| file_name(path));
            format!("{}{}", names.join(" "), if pair.missing { " missing" } else { "" })
        };
        Ok(pairs.iter().map(name).collect())
    }

    #[test]
    fn names_are_compared_without_their_endings() {
        let files = ["b.nii", "a.NII.GZ", ".hidden.nii.gz", "notes.txt", "c.hdr", "c.img"];
        let pairs = paired(&files, &["a.nii", "b.nii.gz", "c.nii.gz"], false).unwrap();
        assert_eq!(pairs, ["a.NII.GZ a.nii", "b.nii b.nii.gz", "c.hdr c.nii.gz"]);
    }

    #[test]
    fn what_lacks_a_partner_is_listed() {
        let message = |p: &[&str], g: &[&str], allow| paired(p, g, allow).unwrap_err().to_string();
        let many: Vec<String> = (0..14).map(|n| format!("case_{n:02}.nii.gz")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let text = message(&many[..2], &many, false);
        assert!(text.contains("12 of 14 references (case_02.nii.gz, "), "{text}");
        assert!(text.contains("case_11.nii.gz and 2 more)"), "{text}");
        assert!(text.contains("`allow_missing`"), "{text}");
        let pairs = paired(&many[..2], &many, true).unwrap();
        assert_eq!(pairs.len(), 14);
        assert_eq!(pairs[2], "case_02.nii.gz case_02.nii.gz missing");
        let text = message(&["a.nii", "b_seg.nii"], &["a.nii", "b.nii"], true);
        assert!(text.contains("1 of 2 (b_seg.nii), and"), "{text}");
        assert!(text.contains("without a prediction: b.nii;"), "{text}");
        let text = message(&["a.nii", "a.nii.gz"], &["a.nii"], false);
        assert!(text.contains("a.nii: found the same name as a.nii.gz"), "{text}");
        let text = message(&[], &["a.nii"], true);
        assert!(text.contains("no .nii or .nii.gz file"), "{text}");
    }
}
