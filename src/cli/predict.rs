//! `u2seg predict`.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use indicatif::ProgressBar;

use super::args::{MaskFormat, PrecisionArg};
use super::command::typed;
use super::flags::Given;
use super::preview;
use super::signals;
use crate::base::files::{Claim, Paths, folder, safe_name};
use crate::base::{Error, Result, Stop};
use crate::dataset::{Fault, ImageFiles};
use crate::domain::{DomainPlan, Weighting};
use crate::engine::gpu::{Gpu, Renewal};
use crate::engine::tune;
use crate::imaging::{
    Extent, Finding, Known, LabelMap, Match, Segment, Volume, case_name, check_series,
    describe_folder, dicom_folders, files_of, has_ending, holds_segmentation, is_whole, peek,
    read_labels, read_series, stem, written_files,
};
use crate::net::Model;
use crate::report::{Origin, PREDICTION, PredictionRecord};
use crate::segment::{CaseWork, Ensemble, PredictOptions, Predictor, finish};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WeightingArg {
    /// A Gaussian about the window's centre.
    Gaussian,
    /// One minus the distance to the centre, as published.
    Linear,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Axis {
    /// Inferior to superior.
    D,
    /// Posterior to anterior.
    H,
    /// Left to right.
    W,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Model file, the folder of a finished run, or a name of `u2seg models`; of several the mean probability counts.
    #[arg(short, long, num_args = 1.., required = true)]
    model: Vec<PathBuf>,
    /// An image (NIfTI, NRRD, MetaImage), a DICOM series (its folder, or a .zip or .tar.gz of it), or a folder of images
    /// (CASE.nii.gz, or CASE_0000.nii.gz a channel) or of DICOM folders.
    #[arg(short, long)]
    input: PathBuf,
    /// Of a folder with several DICOM series, the one to segment: its number or its UID.
    #[arg(long, value_name = "NUMBER|UID")]
    series: Option<String>,
    /// Mask file for one image, folder for several.
    #[arg(short, long)]
    output: PathBuf,
    /// Format of the masks; by default as the name of the mask file ends, else NIfTI.
    #[arg(short, long, value_enum)]
    format: Option<MaskFormat>,
    /// Domain of the images, where the model has several.
    #[arg(long)]
    domain: Option<String>,
    /// Step between windows as a share of the patch, above 0 and at most 1.
    #[arg(long, default_value_t = 0.5)]
    step_size: f32,
    /// How much the voxels of a window count; by default as the domain's plan says (linear under the recipe u2net).
    #[arg(long, value_enum)]
    weighting: Option<WeightingArg>,
    /// Average over mirror images along these axes, such as D,H,W; for networks that saw mirrored patches.
    #[arg(long, value_enum, value_delimiter = ',', ignore_case = true)]
    mirror: Vec<Axis>,
    /// Also write the probability of each class as float32 volumes, to probabilities/CASE/CLASS.nii.gz.
    #[arg(long)]
    save_probabilities: bool,
    /// Also write a picture beside each mask, CASE.png: three planes through the largest part of the mask, its classes outlined.
    #[arg(long)]
    preview: bool,
    /// How the channel files of an image are matched.
    #[arg(long = "match", value_enum, default_value = "by-place")]
    matching: Match,
    /// Leave out images of which all that is asked for is there already, whole and of the image's shape.
    #[arg(long = "continue")]
    resume: bool,
    /// Split the images into this many parts, of which this call does one.
    #[arg(long, default_value_t = 1)]
    num_parts: usize,
    /// The part to do, from 0.
    #[arg(long, default_value_t = 0)]
    part_id: usize,
    /// How activations are stored.
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionArg,
    /// GPU memory by which slabs and batches of windows are sized, such as 4GiB; by default by the adapter.
    #[arg(long, value_name = "BYTES", value_parser = super::args::size)]
    vram: Option<u64>,
    /// How the variants of kernels are chosen; others may round differently.
    #[arg(long, value_enum, default_value = "cached")]
    tune: tune::Mode,
    /// Adapter: auto, an index of `u2seg devices`, or part of a name.
    #[arg(long, default_value = "auto")]
    device: String,
}

/// Images of one case, or why they cannot be used, and the mask to write.
struct Job {
    images: std::result::Result<Vec<PathBuf>, Fault>,
    mask: PathBuf,
    case: String,
}

impl Job {
    /// Where the probability of a class goes.
    fn probability(&self, class: &str) -> PathBuf {
        let folder = folder(&self.mask).join("probabilities").join(safe_name(&self.case));
        let ending = MaskFormat::of(&self.mask).map_or(".nii.gz", MaskFormat::image_ending);
        folder.join(format!("{}{ending}", safe_name(class)))
    }
}

impl Args {
    fn check(&self) -> Result<()> {
        self.options().check()?;
        if self.part_id >= self.num_parts {
            return Err(Error::setting(
                "part_id",
                self.part_id.to_string(),
                format!("less than --num-parts, which is {}", self.num_parts),
                "Parts count from 0.",
            ));
        }
        self.check_format()
    }

    /// Refuses a mask file whose name ends as another format's.
    fn check_format(&self) -> Result<()> {
        let named = MaskFormat::of(&self.output).filter(|_| !self.output.is_dir());
        match (self.format, named) {
            (Some(format), Some(named)) if format != named => Err(Error::setting(
                "format, output",
                format!("{} and {}", format.ending(), self.output.display()),
                "one format",
                "Leave `format` out, or give a name that ends as its files do.",
            )),
            _ => Ok(()),
        }
    }

    /// How a mask's name ends that lies in a folder of them.
    fn ending(&self) -> &'static str {
        self.format.unwrap_or(MaskFormat::Nifti).ending()
    }

    fn options(&self) -> PredictOptions {
        PredictOptions {
            step_size: self.step_size,
            weighting: self.weighting.map(|weighting| match weighting {
                WeightingArg::Gaussian => Weighting::Gaussian,
                WeightingArg::Linear => Weighting::Linear,
            }),
            mirror: [Axis::D, Axis::H, Axis::W].map(|axis| self.mirror.contains(&axis)),
            dtype: self.precision.into(),
            memory: self.vram,
            ..PredictOptions::default()
        }
    }

    /// The networks of the models' domains, with the variants of kernels that `--tune` says.
    fn ensemble(&self, gpu: &Gpu, models: &[(Model, usize)]) -> Result<Ensemble> {
        let options = self.options();
        let workload =
            |(model, domain): &(Model, usize)| Predictor::workload(gpu, model, *domain, &options);
        let workloads = models.iter().map(workload).collect::<Result<Vec<_>>>()?;
        let (gpu, report) = tune::tuned(gpu, self.tune, &workloads)?;
        if report.timed > 0 {
            note!("{report}");
        }
        let member =
            |(model, domain): &(Model, usize)| Predictor::new(&gpu, model, *domain, &options);
        Ensemble::new(models.iter().map(member).collect::<Result<Vec<_>>>()?)
    }

    /// Segments what can be segmented, and tells of the rest.
    fn segment_all(
        &self,
        ensemble: &Ensemble,
        work: &Work<'_>,
        jobs: &[Job],
        given: &Given,
    ) -> Result<()> {
        let bar = ProgressBar::new(jobs.len() as u64);
        let (mut failed, mut written, mut only) = (0, 0, Ok(()));
        ensemble.segment_all(work, jobs, &mut |index, outcome| {
            match outcome {
                Ok(()) => {
                    written += 1;
                    only = tell(&jobs[index].mask);
                }
                Err(Error::Stopped) => only = Err(Error::Stopped),
                // the other images must not suffer from one that is broken
                Err(error) if jobs.len() > 1 && !error.is_lost() => {
                    failed += 1;
                    note!("error: {}", given.told(error));
                }
                Err(error) => only = Err(error),
            }
            bar.inc(1);
            only.is_ok()
        });
        bar.finish_and_clear();
        if let Err(Error::Stopped) = only {
            let name = signals::name(work.stop);
            note!(
                "{name}: stopped; of {} images {written} are written. The same command with --continue does the others",
                jobs.len()
            );
        }
        only?;
        if failed == 0 {
            return Ok(());
        }
        Err(Error::file(
            &self.input,
            format!("{failed} of {} images that could not be segmented", jobs.len()),
            "readable images",
            "See the errors above; the other masks are written.",
        ))
    }

    /// Whether all that is asked for is there, whole and of the image's shape.
    fn is_done(&self, job: &Job, plan: &DomainPlan) -> bool {
        let first = job.images.as_ref().ok().and_then(|images| images.first());
        let Some(Extent { shape, .. }) =
            first.and_then(|image| peek(image, self.series.as_deref()))
        else {
            return false;
        };
        let classes = plan.labels.classes.iter().filter(|_| self.save_probabilities);
        let mut maps = classes.map(|class| job.probability(&class.name));
        let mask = match MaskFormat::of(&job.mask) {
            Some(MaskFormat::DicomSeg) => holds_segmentation(&job.mask),
            _ => read_labels(&job.mask, &Known::any()).is_ok_and(|mask| mask.shape() == shape),
        };
        let drawn = !self.preview || preview::file(&job.mask).is_file();
        drawn && mask && maps.all(|map| is_whole(&map, shape))
    }

    /// Notes beside the masks how they are made.
    fn record(&self, gpu: &Gpu, plan: &DomainPlan) -> Result<()> {
        std::fs::create_dir_all(&self.output).map_err(|e| Error::io(&self.output, e))?;
        let record = PredictionRecord {
            origin: Origin::of(gpu, Some(typed())),
            models: self.model.iter().map(|model| model.display().to_string()).collect(),
            domain: plan.name.clone(),
            labels: plan.labels.clone(),
        };
        record.write(&self.output)
    }

    /// Checks that no output is an input and no two images have one output, and makes the folders.
    fn claim(&self, jobs: &[Job], plan: &DomainPlan, models: &[PathBuf]) -> Result<Claim> {
        let mut paths = Paths::new();
        models.iter().for_each(|path| paths.reads(path));
        for job in jobs {
            let images = job.images.as_ref();
            let images = images.map_or_else(|fault| vec![fault.path.clone()], Clone::clone);
            images.iter().flat_map(|path| files_of(path)).for_each(|path| paths.reads(path));
            written_files(&job.mask).iter().for_each(|file| paths.writes(file, &images[0]));
            if self.preview {
                paths.writes(preview::file(&job.mask), &images[0]);
            }
            if self.save_probabilities {
                for class in &plan.labels.classes {
                    paths.writes(job.probability(&class.name), &images[0]);
                }
            }
        }
        if self.input.is_dir() {
            paths.writes(self.output.join(PREDICTION), &self.input);
        }
        paths.claim()
    }
}

/// A file whose folder is there: a call for another part of the images may have taken it away again, empty as it was.
fn in_folder(file: PathBuf) -> Result<PathBuf> {
    let folder = folder(&file);
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    Ok(file)
}

fn tell(mask: &Path) -> Result<()> {
    say!("{}", mask.display());
    Ok(())
}

/// What is done with each image before and after the network.
struct Work<'a> {
    args: &'a Args,
    plan: &'a DomainPlan,
    stop: &'a Stop,
}

impl CaseWork for Work<'_> {
    type Job = Job;
    type Kept = ();

    fn stop(&self) -> Stop {
        self.stop.clone()
    }

    fn read(&self, job: &Job) -> Result<(Volume, ())> {
        let images = job.images.as_ref().map_err(Fault::error)?;
        let volume = read_series(images, self.args.matching, self.args.series.as_deref())?;
        if MaskFormat::of(&job.mask) == Some(MaskFormat::DicomSeg) && !volume.grid().is_dicom() {
            return Err(Error::file(
                &images[0],
                "an image that is not from DICOM files",
                "a DICOM series, whose slices a DICOM segmentation names",
                "Segment the series itself, or choose another `format`.",
            ));
        }
        for note in volume.notes() {
            log::warn!("{}: {}", images[0].display(), note.describe(&[]));
        }
        let channels = volume.channels().len();
        if channels != self.plan.channels {
            return Err(wrong_channels(images, channels, self.plan));
        }
        Ok((volume, ()))
    }

    fn about(&self, job: &Job, error: Error) -> Error {
        match job.images.as_ref().map(|images| images.first()) {
            Ok(Some(image)) => error.about(image),
            _ => error,
        }
    }

    fn probabilities(&self, job: &Job) -> Result<Vec<PathBuf>> {
        let classes = self.plan.labels.classes.iter().filter(|_| self.args.save_probabilities);
        classes.map(|class| in_folder(job.probability(&class.name))).collect()
    }

    fn write(&self, job: &Job, (): (), mut labels: LabelMap) -> Result<()> {
        finish(self.plan, &mut labels);
        labels.write_segments(&in_folder(job.mask.clone())?, &segments(self.plan))?;
        let images = job.images.as_ref().map_err(Fault::error)?;
        if self.args.preview {
            preview::write(self.plan, images, self.args.matching, &job.mask, &labels)?;
        }
        Ok(())
    }
}

/// The classes of masks as other programs show them.
fn segments(plan: &DomainPlan) -> Vec<Segment> {
    let classes = plan.labels.classes.iter().filter(|class| class.value > 0);
    classes.map(|class| Segment::new(&class.name, class.value)).collect()
}

/// Whether the first channel of a case is in the folder of one of them.
fn first_channel(image: &Path, case: &str) -> bool {
    let first = format!("{case}_0000");
    let entries = std::fs::read_dir(folder(image)).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| stem(&entry.path()).as_ref() == Some(&first))
}

fn wrong_channels(images: &[PathBuf], found: usize, plan: &DomainPlan) -> Error {
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

pub fn run(args: &Args, given: &Given, stop: &Stop) -> Result<()> {
    args.check()?;
    signals::listen(stop)?;
    let (mut models, mut files) = (Vec::new(), Vec::new());
    for path in &args.model {
        let (model, file) = super::args::read_model(path)?;
        files.extend(file);
        let domain = model.domain(args.domain.as_deref())?;
        if let Some(chosen) = &model.chosen {
            note!("{}: {chosen}", path.display());
        }
        models.push((model, domain));
    }
    let (first, domain) = &models[0];
    let plan = &first.domains[*domain];
    let all = jobs(args, plan.channels)?;
    // nothing to segment at all is one mistake, not one an image
    if let Some(fault) = all.iter().find_map(|job| job.images.as_ref().err())
        && all.iter().all(|job| job.images.is_err())
    {
        return Err(fault.error());
    }
    let _claim = args.claim(&all, plan, &files)?;
    if let [Job { images: Ok(images), .. }] = all.as_slice() {
        // a choice of series is asked for before anything is computed
        images.iter().try_for_each(|image| check_series(image, args.series.as_deref()))?;
    }
    let mine = all.into_iter().skip(args.part_id).step_by(args.num_parts);
    let jobs: Vec<Job> = mine.filter(|job| !(args.resume && args.is_done(job, plan))).collect();
    if jobs.is_empty() {
        note!("nothing is left to do");
        return Ok(());
    }
    let gpu = Gpu::open(&args.device)?;
    let (_, ensemble) =
        Renewal::default().run(&gpu, |gpu| args.ensemble(gpu, &models)).map_err(|e| {
            match (&e, args.model.as_slice()) {
                // a patch that the adapter does not hold is the model's
                (Error::Shape { .. }, [model]) => e.about(model),
                _ => e,
            }
        })?;
    if args.input.is_dir() {
        args.record(&gpu, plan)?;
    }
    args.segment_all(&ensemble, &Work { args, plan, stop }, &jobs, given)
}

/// The cases of a file or folder, in the order of their names.
fn jobs(args: &Args, channels: usize) -> Result<Vec<Job>> {
    let Args { input, output, .. } = args;
    if !input.is_dir() {
        return Ok(vec![single(args, input)?]);
    }
    let files = ImageFiles::list(input)?;
    let series = if files.names().next().is_none() { dicom_folders(input)? } else { Vec::new() };
    match series.as_slice() {
        // a folder of one folder or archive stands for what is in it
        [only] => return Ok(vec![single(args, only)?]),
        [_, ..] if args.series.is_some() => return Ok(vec![single(args, input)?]),
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
    let mask = |case: &str| output.join(format!("{case}{}", args.ending()));
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
fn single(args: &Args, input: &Path) -> Result<Job> {
    let output = &args.output;
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
        output.join(format!("{case}{}", args.ending()))
    };
    Ok(Job { images: Ok(vec![input.to_path_buf()]), mask, case })
}
