//! `u2seg convert`.

use std::path::PathBuf;

use super::args::MaskFormat;
use super::flags::Given;
use super::say;
use crate::base::files::{Claim, Paths, file_name, safe_name};
use crate::base::{Error, Result};
use crate::dataset::{Conversion, DatasetForm, LabelDescription, holds_dataset};
use crate::imaging::{
    Known, Match, Reference, Segment, can_write, case_name, dicom_folders, files_of, has_ending,
    masks_by_stem, peek, read_labels, read_labels_on, read_series, segments_of, takes_channels,
    write_channels, written_files,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg convert scan.zip scan.nii.gz                                     # a DICOM series
  u2seg convert mask.nii.gz mask.dcm -f dicom-seg --source scan.zip
  u2seg convert mask.dcm mask.nii.gz --source scan.zip
  u2seg convert Task09_Spleen Dataset009_Spleen                          # a dataset, for nnU-Net v2")]
pub struct Args {
    /// An image, a DICOM series, a folder of either, or a dataset folder
    ///
    /// A series is a folder, or a .zip or .tar.gz of it.
    input: PathBuf,
    /// File to write, or a folder
    ///
    /// The name of a file tells its format. A dataset goes to a new folder.
    output: PathBuf,
    /// Format of the files in a folder [default: nifti]
    ///
    /// dicom-seg writes masks as DICOM Segmentations of the series that --source names.
    #[arg(short, long, value_enum)]
    format: Option<MaskFormat>,
    /// Which series to convert, where a folder has several
    #[arg(long, value_name = "NUMBER|UID")]
    series: Option<String>,
    /// For masks: the DICOM series that was segmented
    ///
    /// The mask gets its planes, of which DICOM segmentations leave some out.
    #[arg(long, value_name = "SERIES")]
    source: Option<PathBuf>,
    /// For masks: the dataset.json that names their classes
    ///
    /// The names go into .nrrd and DICOM segmentations. A DICOM segmentation has names of its own.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// Form of the new dataset; by default the other one
    #[arg(long, value_enum, value_name = "FORM")]
    to: Option<DatasetForm>,
}

impl Args {
    /// Refuses flags that would do nothing for a dataset, or for these images.
    fn check(&self, dataset: bool, jobs: &[Job]) -> Result<()> {
        let masks = self.labels.is_some() || self.format == Some(MaskFormat::DicomSeg);
        let masks = masks || MaskFormat::of(&self.output) == Some(MaskFormat::DicomSeg);
        let segmented = jobs.iter().any(|job| job.segments.is_some());
        let masks = masks || segmented;
        let idle = [
            ("format", dataset && self.format.is_some()),
            ("series", (dataset || segmented && self.source.is_none()) && self.series.is_some()),
            ("labels", dataset && self.labels.is_some()),
            ("source", (dataset || !masks) && self.source.is_some()),
            ("to", !dataset && self.to.is_some()),
        ];
        let Some((name, _)) = idle.iter().find(|(_, is)| *is) else { return Ok(()) };
        let found = format!("a flag that does nothing for {}", self.input.display());
        let expected = match *name {
            "to" => "the folder of a Decathlon or nnU-Net v2 dataset, with its dataset.json",
            "source" => "a mask: a DICOM segmentation, one to be written, or one with `labels`",
            _ => "an image, a series or a mask",
        };
        Err(Error::setting(*name, found, expected, format!("Leave `{name}` out.")))
    }
}

pub fn run(args: &Args, given: &Given) -> Result<()> {
    if holds_dataset(&args.input) {
        args.check(true, &[])?;
        return dataset(args);
    }
    let jobs = jobs(args)?;
    args.check(false, &jobs)?;
    let _claim = claim(args, &jobs)?;
    let bar = say::bar(Some(jobs.len() as u64), say::CASES);
    let mut failed = 0;
    for job in &jobs {
        match args.convert(job) {
            Ok(files) => files
                .iter()
                .try_for_each(|file| super::say::write_line(format_args!("{}", file.display())))?,
            // the other images must not suffer from one that is broken
            Err(error) if jobs.len() > 1 => {
                failed += 1;
                note!("error: {}", given.told(error));
            }
            Err(error) => return Err(error),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if failed == 0 {
        return Ok(());
    }
    let found = format!("{failed} of {} images that could not be converted", jobs.len());
    let remedy = "See the errors above; the other images are written.";
    Err(Error::file(&args.input, found, "readable images", remedy))
}

/// Converts a dataset's folder.
fn dataset(args: &Args) -> Result<()> {
    let conversion = Conversion::plan(&args.input, &args.output, args.to)?;
    let mut paths = Paths::new();
    conversion.reads().iter().for_each(|file| paths.reads(file));
    for (file, from) in conversion.writes() {
        paths.writes(file, from);
    }
    let _claim = paths.claim()?;
    let bar = say::bar(Some(conversion.cases() as u64), say::CASES);
    conversion.run(&mut || bar.inc(1))?;
    bar.finish_and_clear();
    say!("{}", args.output.display());
    Ok(())
}

/// An image and the file that it becomes.
struct Job {
    input: PathBuf,
    output: PathBuf,
    /// The classes that a DICOM segmentation names; none of other images.
    segments: Option<Vec<Segment>>,
}

impl Job {
    /// In a folder the output is named by the case.
    fn new(input: PathBuf, output: impl FnOnce(bool) -> PathBuf) -> Self {
        let segments = if input.is_dir() { None } else { segments_of(&input) };
        Self { output: output(segments.is_some()), input, segments }
    }

    /// The files that an image becomes: one, or one a channel where the format takes one.
    fn files(&self, channels: usize) -> Vec<PathBuf> {
        if channels == 1 || takes_channels(&self.output) {
            return vec![self.output.clone()];
        }
        let (name, stem) = (file_name(&self.output), case_name(&self.output));
        let ending = name.get(stem.len()..).unwrap_or_default();
        let file = |channel| self.output.with_file_name(format!("{stem}_{channel:04}{ending}"));
        (0..channels).map(file).collect()
    }
}

impl Args {
    fn ending(&self, segmented: bool) -> &'static str {
        match (self.format.unwrap_or(MaskFormat::Nifti), segmented || self.labels.is_some()) {
            (MaskFormat::DicomSeg, _) => ".dcm",
            (MaskFormat::Nrrd, true) => ".seg.nrrd",
            (format, _) => format.image_ending(),
        }
    }

    /// Whether the output is a mask with named classes.
    fn makes_mask(&self, job: &Job) -> bool {
        let dicom = MaskFormat::of(&job.output) == Some(MaskFormat::DicomSeg);
        dicom || self.labels.is_some() || job.segments.is_some()
    }

    fn convert(&self, job: &Job) -> Result<Vec<PathBuf>> {
        if self.makes_mask(job) {
            return self.mask(job);
        }
        let one = [job.input.clone()];
        let volume = read_series(&one, Match::default(), self.series.as_deref())?;
        for note in volume.notes() {
            log::warn!("{}: {}", job.input.display(), note.describe(&[]));
        }
        let channels = volume.channels().len();
        let files = job.files(channels);
        write_channels(&files, &volume)?;
        Ok(files)
    }

    /// Converts a mask, with the names of its classes.
    fn mask(&self, job: &Job) -> Result<Vec<PathBuf>> {
        let segments = self.segments(job)?;
        let labels = match &self.source {
            None => read_labels(&job.input, &Known::any())?,
            Some(source) => {
                let one = [source.clone()];
                let image = read_series(&one, Match::default(), self.series.as_deref())?;
                let on = Reference { grid: image.grid(), path: source };
                read_labels_on(&job.input, &Known::any(), &on, Match::default())?
            }
        };
        labels.write_segments(&job.output, &segments)?;
        Ok(vec![job.output.clone()])
    }

    fn segments(&self, job: &Job) -> Result<Vec<Segment>> {
        let Some(file) = &self.labels else {
            let named = job.segments.clone();
            return named.ok_or_else(|| {
                let remedy = "Give `labels` the dataset.json that names the classes.";
                let expected = "names of its classes";
                Error::file(&job.output, "a mask without names", expected, remedy)
            });
        };
        let classes = LabelDescription::read(file)?.labels.classes;
        let named = classes.iter().filter(|class| class.value > 0);
        Ok(named.map(|class| Segment::new(&class.name, class.value)).collect())
    }
}

/// What is converted into what.
fn jobs(args: &Args) -> Result<Vec<Job>> {
    let Args { input, output, .. } = args;
    if !input.exists() {
        let expected = "an image, a folder of images or a dataset";
        return Err(Error::file(input, "no such file", expected, "Correct the first path."));
    }
    let inside = |case: String, input| {
        let file = |segmented| format!("{}{}", safe_name(&case), args.ending(segmented));
        Job::new(input, |segmented| output.join(file(segmented)))
    };
    let images: Vec<(String, PathBuf)> = if input.is_dir() {
        let stems = masks_by_stem(input)?;
        let files = stems
            .into_iter()
            .flat_map(|(stem, files)| files.into_iter().map(move |file| (stem.clone(), file)));
        files.collect()
    } else {
        Vec::new()
    };
    let several = match input.is_dir() && images.is_empty() && args.series.is_none() {
        true => dicom_folders(input)?,
        false => Vec::new(),
    };
    if images.is_empty() && several.len() < 2 {
        let named = !output.is_dir() && (can_write(output) || MaskFormat::of(output).is_some());
        if !named && has_ending(output) && !output.is_dir() {
            let expected = format!("a name that ends in {}, or a folder", MaskFormat::endings());
            let found = output.display().to_string();
            return Err(Error::setting("output", found, expected, "Correct the ending."));
        }
        // a folder of one folder or archive stands for what is in it
        let input = several.first().unwrap_or(input).clone();
        return Ok(vec![match named {
            true => Job::new(input, |_| output.clone()),
            false => inside(case_name(&input), input),
        }]);
    }
    if has_ending(output) && !output.is_dir() {
        let found = format!("the file {} for a folder of images", output.display());
        return Err(Error::setting("output", found, "a folder", "Give a folder's name."));
    }
    let folders = several.into_iter().map(|folder| (case_name(&folder), folder));
    let all = images.into_iter().chain(folders);
    Ok(all.map(|(case, input)| inside(case, input)).collect())
}

fn claim(args: &Args, jobs: &[Job]) -> Result<Claim> {
    let mut paths = Paths::new();
    args.labels.iter().chain(&args.source).for_each(|file| paths.reads(file));
    for job in jobs {
        files_of(&job.input).iter().for_each(|file| paths.reads(file));
        let channels = peek(&job.input, args.series.as_deref()).map_or(1, |extent| extent.channels);
        let files =
            if args.makes_mask(job) { vec![job.output.clone()] } else { job.files(channels) };
        let written = files.iter().flat_map(|file| written_files(file));
        written.for_each(|file| paths.writes(file, &job.input));
    }
    paths.claim()
}
