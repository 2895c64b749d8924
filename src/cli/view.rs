//! `u2seg view`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::evaluate::{NONE, nearby};
use crate::base::files::Paths;
use crate::base::{Error, Result};
use crate::dataset::LabelDescription;
use crate::imaging::{
    Known, LabelMap, Match, Reference, Segment, Volume, case_name, files_of, read_images,
    read_labels_on, segments_of,
};
use crate::picture::{Layout, MAX_SLICES, Overlay, Plane, value_names};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum PlaneArg {
    /// Across the body, from head to foot.
    Axial,
    /// From front to back.
    Coronal,
    /// From right to left.
    Sagittal,
}

impl From<PlaneArg> for Plane {
    fn from(plane: PlaneArg) -> Self {
        match plane {
            PlaneArg::Axial => Self::Axial,
            PlaneArg::Coronal => Self::Coronal,
            PlaneArg::Sagittal => Self::Sagittal,
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg view scan.nii.gz mask.nii.gz
  u2seg view scan.nii.gz mask.nii.gz -r reference.nii.gz -o compared.png
  u2seg view scan.nii.gz mask.nii.gz --slices 12 --plane coronal")]
pub struct Args {
    /// Image to draw
    image: PathBuf,
    /// Mask to outline, each class in its colour
    mask: Option<PathBuf>,
    /// PNG to write; by default the image's name in the current folder
    #[arg(short, long, alias = "out", value_name = "PNG")]
    output: Option<PathBuf>,
    /// Reference mask to outline too, in greens beside the mask's reds
    #[arg(short, long, value_name = "MASK", requires = "mask")]
    reference: Option<PathBuf>,
    /// Draw this many slices, instead of three planes
    ///
    /// They are spread over what the mask covers. The three planes go through the largest part of the mask.
    #[arg(long, value_name = "N")]
    slices: Option<usize>,
    /// Plane of the slices
    #[arg(long, value_enum, default_value = "axial", requires = "slices")]
    plane: PlaneArg,
    /// Intensities shown as black and white, such as -160,240
    ///
    /// By default CT is shown as soft tissue, lungs or bone, whichever is outlined, and other images from their 1st to their
    /// 99th percentile.
    #[arg(long, value_name = "LOWER,UPPER", value_parser = super::args::window, allow_hyphen_values = true)]
    window: Option<[f32; 2]>,
    /// Channel to draw, from 0
    #[arg(long, default_value_t = 0)]
    channel: usize,
    /// The dataset.json with the names of the classes
    ///
    /// By default the names of a DICOM segmentation, else a file beside the mask or the image, or in the folder above. With `none`
    /// values stand for names.
    #[arg(long, value_name = "FILE|none")]
    labels: Option<PathBuf>,
    /// How to match the masks with the image
    #[arg(long = "match", value_enum, default_value = "by-place", value_name = "WAY")]
    matching: Match,
}

pub fn run(args: &Args) -> Result<()> {
    args.check()?;
    let output = args.output()?;
    let description = args.description();
    let _claim = args.paths(&output, description.as_deref()).claim()?;
    let names = match (args.own_names(), &description) {
        (Some(names), _) => names,
        (None, Some(file)) => args.names(file)?,
        (None, None) => BTreeMap::new(),
    };
    let image = read_images(std::slice::from_ref(&args.image), args.matching)?;
    args.check_channel(&image)?;
    let read = |path: &Option<PathBuf>| path.as_deref().map(|p| args.labels(p, &image)).transpose();
    let (mask, reference) = (read(&args.mask)?, read(&args.reference)?);
    let caption = case_name(&args.image);
    let view = Overlay {
        channel: args.channel,
        truth: reference.as_ref(),
        prediction: mask.as_ref(),
        names: &names,
        window: args.window,
        caption: &caption,
        layout: args.layout(),
        ..Overlay::of(&image)
    };
    view.write(&output)?;
    say!("{}", output.display());
    Ok(())
}

impl Args {
    fn check(&self) -> Result<()> {
        if let Some(slices) = self.slices.filter(|slices| !(1..=MAX_SLICES).contains(slices)) {
            return Err(Error::setting(
                "slices",
                slices.to_string(),
                format!("1 to {MAX_SLICES}"),
                "Ask for another number of them.",
            ));
        }
        match self.window {
            Some([low, high]) if !(low < high && low.is_finite() && high.is_finite()) => {
                Err(Error::setting(
                    "window",
                    format!("{low},{high}"),
                    "two numbers of which the second is larger",
                    "Give black first, then white.",
                ))
            }
            _ => Ok(()),
        }
    }

    fn check_channel(&self, image: &Volume) -> Result<()> {
        let channels = image.channels().len();
        if self.channel < channels {
            return Ok(());
        }
        let there = if channels == 1 { "1 channel".into() } else { format!("{channels} channels") };
        Err(Error::setting(
            "channel",
            self.channel.to_string(),
            format!("less than {channels}, since {} has {there}", self.image.display()),
            "Channels count from 0.",
        ))
    }

    /// Where the picture goes.
    fn output(&self) -> Result<PathBuf> {
        let Some(output) = &self.output else {
            return Ok(format!("{}.png", case_name(&self.image)).into());
        };
        let png = output.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png"));
        if png {
            return Ok(output.clone());
        }
        let found = output.display().to_string();
        Err(Error::setting("output", found, "a name that ends in .png", "Correct the ending."))
    }

    fn layout(&self) -> Layout {
        match self.slices {
            Some(slices) => Layout::Sheet { plane: self.plane.into(), slices },
            None => Layout::Planes,
        }
    }

    /// The description that a flag names, or that lies with the masks or the image.
    fn description(&self) -> Option<PathBuf> {
        match &self.labels {
            Some(file) if file.as_os_str() == NONE => None,
            Some(file) => Some(file.clone()),
            None => {
                let masks = self.reference.iter().chain(&self.mask);
                let mask = self.mask.as_ref()?;
                let near = masks.chain([&self.image]).find_map(|path| nearby(path));
                near.filter(|_| mask.exists())
            }
        }
    }

    /// The names that a segmentation has of its own, where no flag says others; the reference's count.
    fn own_names(&self) -> Option<BTreeMap<u8, String>> {
        let masks = self.mask.iter().chain(&self.reference).filter(|_| self.labels.is_none());
        let files = masks.filter(|path| path.is_file());
        let segments: Vec<Segment> = files.filter_map(|path| segments_of(path)).flatten().collect();
        let names = segments.into_iter().map(|segment| (segment.value, segment.name));
        Some(names.collect()).filter(|names: &BTreeMap<_, _>| !names.is_empty())
    }

    /// The names in a description. One that was merely found is no reason to draw nothing.
    fn names(&self, file: &Path) -> Result<BTreeMap<u8, String>> {
        match LabelDescription::read(file) {
            Ok(description) => Ok(value_names(&description.labels)),
            Err(error) if self.labels.is_none() => {
                log::warn!("classes have no names: {error}");
                Ok(BTreeMap::new())
            }
            Err(error) => Err(error),
        }
    }

    fn labels(&self, path: &Path, image: &Volume) -> Result<LabelMap> {
        let on = Reference { grid: image.grid(), path: &self.image };
        read_labels_on(path, &Known::any(), &on, self.matching)
    }

    fn paths(&self, output: &Path, description: Option<&Path>) -> Paths {
        let mut paths = Paths::new();
        let files = [Some(&self.image), self.mask.as_ref(), self.reference.as_ref()];
        files
            .into_iter()
            .flatten()
            .flat_map(|path| files_of(path))
            .for_each(|file| paths.reads(file));
        description.iter().for_each(|file| paths.reads(file));
        paths.writes(output, &self.image);
        paths
    }
}
