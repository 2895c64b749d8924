//! `u2seg predict`.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use indicatif::ProgressBar;

use super::args::PrecisionArg;
use super::flags::Given;
use super::signals;
use crate::base::files::{Claim, Paths, folder, safe_name};
use crate::base::{Error, Result, Stop};
use crate::dataset::{Fault, ImageFiles};
use crate::domain::{DomainPlan, Weighting};
use crate::engine::gpu::{Gpu, Renewal};
use crate::engine::tune;
use crate::imaging::{
    Extent, Finding, Known, LabelMap, Match, Volume, can_write, describe_folder, endings, is_whole,
    pair, peek, read_images, read_labels, stem,
};
use crate::net::Model;
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
    /// Model file, or the folder of a finished run; of several the mean probability counts.
    #[arg(short, long, num_args = 1.., required = true)]
    model: Vec<PathBuf>,
    /// An image, or a folder of images (CASE.nii.gz, or CASE_0000.nii.gz a channel).
    #[arg(short, long)]
    input: PathBuf,
    /// Mask file for one image, folder for several.
    #[arg(short, long)]
    output: PathBuf,
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
        folder.join(format!("{}.nii.gz", safe_name(class)))
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
        Ok(())
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
        let (gpu, _) = tune::tuned(gpu, self.tune, &workloads)?;
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
        let Some(Extent { shape, .. }) = first.and_then(|image| peek(image)) else { return false };
        let classes = plan.labels.classes.iter().filter(|_| self.save_probabilities);
        let mut maps = classes.map(|class| job.probability(&class.name));
        let mask = read_labels(&job.mask, &Known::any());
        mask.is_ok_and(|mask| mask.shape() == shape) && maps.all(|map| is_whole(&map, shape))
    }

    /// Checks that no output is an input and no two images have one output, and makes the folders.
    fn claim(&self, jobs: &[Job], plan: &DomainPlan) -> Result<Claim> {
        let mut paths = Paths::new();
        self.model.iter().for_each(|path| paths.reads(super::args::model_file(path)));
        for job in jobs {
            let images = job.images.as_ref();
            let images = images.map_or_else(|fault| vec![fault.path.clone()], Clone::clone);
            images.iter().flat_map(|path| pair(path)).for_each(|path| paths.reads(path));
            paths.writes(&job.mask, &images[0]);
            if self.save_probabilities {
                for class in &plan.labels.classes {
                    paths.writes(job.probability(&class.name), &images[0]);
                }
            }
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
        let volume = read_images(images, self.args.matching)?;
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
        labels.write(&in_folder(job.mask.clone())?)
    }
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
    let mut models = Vec::new();
    for path in &args.model {
        let model = Model::read(&super::args::model_file(path))?;
        let domain = model.domain(args.domain.as_deref())?;
        if let Some(chosen) = &model.chosen {
            note!("{}: {chosen}", path.display());
        }
        models.push((model, domain));
    }
    let (first, domain) = &models[0];
    let plan = &first.domains[*domain];
    let all = jobs(&args.input, &args.output, plan.channels)?;
    // nothing to segment at all is one mistake, not one an image
    if let Some(fault) = all.iter().find_map(|job| job.images.as_ref().err())
        && all.iter().all(|job| job.images.is_err())
    {
        return Err(fault.error());
    }
    let _claim = args.claim(&all, plan)?;
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
    args.segment_all(&ensemble, &Work { args, plan, stop }, &jobs, given)
}

/// The cases of a file or folder, in the order of their names.
fn jobs(input: &Path, output: &Path, channels: usize) -> Result<Vec<Job>> {
    if !input.is_dir() {
        return Ok(vec![single(input, output)?]);
    }
    if stem(output).is_some() && !output.is_dir() {
        return Err(Error::setting(
            "output",
            format!("the file {} for a folder of images", output.display()),
            "a folder",
            "Give a folder's name.",
        ));
    }
    let files = ImageFiles::list(input)?;
    let job = |case: &String| Job {
        images: files.pick(input, case, channels).whole(),
        mask: output.join(format!("{case}.nii.gz")),
        case: case.clone(),
    };
    let jobs: Vec<Job> = files.names().map(job).collect();
    if let Some((case, paths)) = files.twice().next() {
        return Err(Error::file(
            &paths[0],
            format!("a second image {case} beside it, {}", paths[1].display()),
            format!("one image for the mask {}", output.join(format!("{case}.nii.gz")).display()),
            "Rename one of them, or move it away.",
        ));
    }
    if !jobs.is_empty() {
        return Ok(jobs);
    }
    Err(match describe_folder(input) {
        Some(Finding { found, remedy }) => Error::file(input, found, IMAGES, remedy),
        None => {
            let remedy = "Point -i at a folder of NIfTI images.";
            Error::file(input, "no .nii, .nii.gz or .hdr file", IMAGES, remedy)
        }
    })
}

const IMAGES: &str = "images to segment (NIfTI-1)";

/// The job of one image, whose mask is a file, or goes into a folder under the image's name.
fn single(input: &Path, output: &Path) -> Result<Job> {
    if !input.exists() {
        let expected = "an image or a folder of images";
        return Err(Error::file(input, "no such file", expected, "Correct -i."));
    }
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
    let case = stem(input).or(name(input)).filter(|case| !case.is_empty());
    let case = case.unwrap_or_else(|| "mask".into());
    let ending = name(output).unwrap_or_default().to_lowercase();
    let mask = if !output.is_dir() && can_write(output) {
        output.to_path_buf()
    } else if !output.is_dir() && OTHERS.iter().any(|other| ending.ends_with(other)) {
        return Err(Error::setting(
            "output",
            output.display().to_string(),
            format!("a name that ends in {}, or a folder", endings()),
            "Correct the ending.",
        ));
    } else {
        output.join(format!("{case}.nii.gz"))
    };
    Ok(Job { images: Ok(vec![input.to_path_buf()]), mask, case })
}

/// Endings of images that masks are not written as.
const OTHERS: [&str; 10] =
    [".img", ".hdr", ".img.gz", ".hdr.gz", ".nrrd", ".mha", ".mhd", ".mgz", ".dcm", ".png"];
