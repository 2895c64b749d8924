//! What `u2seg predict` segments, and where the results go.

use std::path::{Path, PathBuf};

use crate::base::files::{folder, safe_name};
use crate::base::{Error, Result};
use crate::cli::args::MaskFormat;
use crate::dataset::{Fault, ImageFiles};
use crate::domain::DomainPlan;
use crate::imaging::{Finding, case_name, describe_folder, dicom_folders, has_ending, stem};
use crate::score::{ENTROPY, PROBABILITIES, UNCERTAINTY};
use crate::segment::{Map, MapFile};

/// What is segmented, and what is written.
pub(super) struct Wanted<'a> {
    pub input: &'a Path,
    pub output: &'a Path,
    /// How a mask's name ends in a folder of them.
    pub ending: &'static str,
    /// Whether a DICOM series is chosen.
    pub series: bool,
    pub probabilities: bool,
    pub uncertainty: bool,
    /// Predictions of each voxel that the result is the mean of.
    pub predictions: usize,
}

/// Images of one case, or why they cannot be used, and the mask to write.
pub(super) struct Job {
    pub images: std::result::Result<Vec<PathBuf>, Fault>,
    pub mask: PathBuf,
    pub case: String,
}

impl Job {
    /// The maps that go beside the mask.
    pub fn maps(&self, wanted: &Wanted<'_>, plan: &DomainPlan) -> Vec<MapFile> {
        let ending = MaskFormat::of(&self.mask).map_or(".nii.gz", MaskFormat::image_ending);
        // in folders of their own, where `evaluate` takes none of them for a mask
        let file = |kind: &str, below: &str, name: &str| {
            let folder = folder(&self.mask).join(kind).join(safe_name(&self.case)).join(below);
            folder.join(format!("{name}{ending}"))
        };
        let mut maps = Vec::new();
        if wanted.probabilities {
            let classes = plan.labels.classes.iter().enumerate();
            maps.extend(classes.map(|(index, class)| MapFile {
                map: Map::Probability(index),
                file: file(PROBABILITIES, "", &safe_name(&class.name)),
            }));
        }
        if wanted.uncertainty {
            let entropy = file(UNCERTAINTY, "", ENTROPY);
            maps.push(MapFile { map: Map::Entropy, file: entropy });
        }
        if wanted.uncertainty && wanted.predictions > 1 {
            // background is left out; where classes exclude one another it is what they leave
            let first = plan.labels.outputs() - plan.labels.scored().len();
            let classes = plan.labels.scored().iter().enumerate();
            maps.extend(classes.map(|(index, class)| MapFile {
                map: Map::Disagreement(first + index),
                file: file(UNCERTAINTY, "disagreement", &safe_name(&class.name)),
            }));
        }
        maps
    }
}

/// The cases of a file or folder, in the order of their names.
pub(super) fn jobs(wanted: &Wanted<'_>, channels: usize) -> Result<Vec<Job>> {
    let Wanted { input, output, .. } = *wanted;
    if !input.is_dir() {
        return Ok(vec![single(wanted, input)?]);
    }
    let files = ImageFiles::list(input)?;
    let series = if files.names().next().is_none() { dicom_folders(input)? } else { Vec::new() };
    match series.as_slice() {
        // a folder of one folder or archive stands for what is in it
        [only] => return Ok(vec![single(wanted, only)?]),
        [_, ..] if wanted.series => return Ok(vec![single(wanted, input)?]),
        _ => {}
    }
    if has_ending(output) && !output.is_dir() {
        return Err(Error::setting(
            "output",
            format!("the file {} for a folder of images", output.display()),
            "a folder",
            "Give a folder's name.",
        ));
    }
    let mask = |case: &str| output.join(format!("{case}{}", wanted.ending));
    if !series.is_empty() {
        let job = |folder: PathBuf| {
            let case = case_name(&folder);
            Job { mask: mask(&case), images: Ok(vec![folder]), case }
        };
        return Ok(series.into_iter().map(job).collect());
    }
    let job = |case: &String| Job {
        images: files.pick(input, case, channels).whole(),
        mask: mask(case),
        case: case.clone(),
    };
    let jobs: Vec<Job> = files.names().map(job).collect();
    if let Some((case, paths)) = files.twice().next() {
        return Err(Error::file(
            &paths[0],
            format!("a second image {case} beside it, {}", paths[1].display()),
            format!("one image for the mask {}", mask(case).display()),
            "Rename one of them, or move it away.",
        ));
    }
    if !jobs.is_empty() {
        return Ok(jobs);
    }
    Err(match describe_folder(input) {
        Some(Finding { found, remedy }) => Error::file(input, found, IMAGES, remedy),
        None => {
            let remedy = "Point -i at a folder of images, or of a DICOM series.";
            Error::file(input, "no .nii, .nii.gz, .hdr, .nrrd or .mha file", IMAGES, remedy)
        }
    })
}

const IMAGES: &str = "images to segment";

/// The job of one image, whose mask is a file, or goes into a folder under the image's name.
fn single(wanted: &Wanted<'_>, input: &Path) -> Result<Job> {
    let output = wanted.output;
    if !input.exists() {
        let expected = "an image or a folder of images";
        return Err(Error::file(input, "no such file", expected, "Correct -i."));
    }
    let case = case_name(input);
    let mask = if !output.is_dir() && MaskFormat::of(output).is_some() {
        output.to_path_buf()
    } else if !output.is_dir() && has_ending(output) {
        return Err(Error::setting(
            "output",
            output.display().to_string(),
            format!("a name that ends in {}, or a folder", MaskFormat::endings()),
            "Correct the ending.",
        ));
    } else {
        output.join(format!("{case}{}", wanted.ending))
    };
    Ok(Job { images: Ok(vec![input.to_path_buf()]), mask, case })
}

/// Whether the first channel of a case is in the folder of one of them.
fn first_channel(image: &Path, case: &str) -> bool {
    let first = format!("{case}_0000");
    let entries = std::fs::read_dir(folder(image)).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| stem(&entry.path()).as_ref() == Some(&first))
}

/// Refuses images of other channels than the domain takes.
pub(super) fn wrong_channels(images: &[PathBuf], found: usize, plan: &DomainPlan) -> Error {
    let count = |n: usize| if n == 1 { "1 channel".to_string() } else { format!("{n} channels") };
    let files: Vec<String> = images.iter().map(|path| path.display().to_string()).collect();
    let found = match images.len() {
        1 => count(found),
        _ => format!("{} in {}", count(found), files.join(", ")),
    };
    let remedy = match ImageFiles::numbered(&images[0]).filter(|_| images.len() == 1) {
        Some((case, _)) if first_channel(&images[0], &case) => {
            format!("Point -i at the folder: {case}_0000 and on are then taken together.")
        }
        Some((case, _)) => format!("Channels count from {case}_0000, which is not beside it."),
        None => "Give all channels in one file, or CASE_0000, CASE_0001 and on.".into(),
    };
    let expected = format!("{}, as domain {} takes", count(plan.channels), plan.name);
    Error::file(&images[0], found, expected, remedy)
}
