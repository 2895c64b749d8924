//! `u2seg predict`.

mod jobs;

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use self::jobs::{Job, Wanted, jobs, wrong_channels};
use super::args::{MaskFormat, PrecisionArg, TunedDeviceArgs, positive};
use super::command::typed;
use super::flags::Given;
use super::preview;
use super::say;
use super::signals;
use super::statistics::Statistics;
use super::words::letters;
use crate::base::files::{Claim, Paths, folder};
use crate::base::{Error, Result, Stop};
use crate::dataset::Fault;
use crate::domain::{DomainPlan, Weighting};
use crate::engine::gpu::{Gpu, Renewal};
use crate::engine::tune;
use crate::imaging::{
    Extent, Known, LabelMap, Match, Segment, Volume, check_series, files_of, holds_segmentation,
    is_whole, peek, read_labels, read_series, written_files,
};
use crate::net::Model;
use crate::report::{Origin, PREDICTION, PredictionRecord};
use crate::segment::{CaseWork, Ensemble, MapFile, PredictOptions, Predictor, finish};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WeightingArg {
    /// By a Gaussian about the window's centre.
    Gaussian,
    /// By one minus the distance to the centre, as published.
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
#[command(after_help = "\
Examples:
  u2seg predict -m hippocampus -i scan.nii.gz -o mask.nii.gz
  u2seg predict -m runs/organs --domain Spleen -i images -o masks --preview
  u2seg predict -m fold_0 fold_1 fold_2 -i series.zip -o mask.dcm --mirror D,H,W")]
pub struct Args {
    /// Model file, the folder of a run, or a name of `u2seg models`
    ///
    /// Give several models to average their probabilities.
    #[arg(short, long, num_args = 1.., required = true)]
    model: Vec<PathBuf>,
    /// Image, DICOM series, or a folder of either
    ///
    /// Images are NIfTI, NRRD or MetaImage; in a folder CASE.nii.gz, or CASE_0000.nii.gz and so on for each channel. A series is
    /// a folder, or a .zip or .tar.gz of it.
    #[arg(short, long, help_heading = "Data")]
    input: PathBuf,
    /// Which series to segment, where a folder has several
    #[arg(long, value_name = "NUMBER|UID", help_heading = "Data")]
    series: Option<String>,
    /// Mask file for one image, folder for several
    #[arg(short, long, alias = "out", help_heading = "Output")]
    output: PathBuf,
    /// Format of the masks
    ///
    /// By default as the name of the mask file ends, else NIfTI.
    #[arg(short, long, value_enum, help_heading = "Output")]
    format: Option<MaskFormat>,
    /// Domain of the images, where the model has several
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// Step between windows, as a share of the patch
    ///
    /// Above 0 and at most 1. Smaller steps take longer and are a little more accurate.
    #[arg(long, default_value_t = 0.5, value_name = "SHARE")]
    step_size: f32,
    /// How to weight the voxels of overlapping windows
    ///
    /// By default as the domain's plan says: gaussian, or linear with the recipe u2net.
    #[arg(long, value_enum, value_name = "WAY")]
    weighting: Option<WeightingArg>,
    /// Average over mirrored images along these axes, such as D,H,W
    ///
    /// For networks that were trained on mirrored patches. Two axes take four times as long, three eight times.
    #[arg(long, value_enum, value_delimiter = ',', ignore_case = true, value_name = "AXES")]
    mirror: Vec<Axis>,
    /// Also write the probability of each class
    ///
    /// As float32 volumes, to probabilities/CASE/CLASS.nii.gz.
    #[arg(long, help_heading = "Output")]
    save_probabilities: bool,
    /// Also write how sure the networks are of each voxel
    ///
    /// As float32 volumes: the entropy of the mean probabilities, from 0 (sure) to 1 (all classes equally likely), to
    /// uncertainty/CASE/entropy.nii.gz, and for each class the standard deviation of its probability over models and mirrored
    /// images, to uncertainty/CASE/disagreement/CLASS.nii.gz.
    #[arg(long, help_heading = "Output")]
    uncertainty: bool,
    /// Also write what the masks measure, as JSON and CSV
    ///
    /// To statistics.json and statistics.csv beside the masks, a row a class of a case: voxels, volume in ml, connected
    /// components, mean and standard deviation of each channel of the image as its files hold it.
    #[arg(long, help_heading = "Output")]
    statistics: bool,
    /// Also write a picture of each mask, CASE.png
    ///
    /// Three planes through the largest part of the mask, with its classes outlined.
    #[arg(long, help_heading = "Output")]
    preview: bool,
    /// How to match the channel files of an image
    #[arg(
        long = "match",
        value_enum,
        default_value = "by-place",
        value_name = "WAY",
        help_heading = "Data"
    )]
    matching: Match,
    /// Leave out images whose results are there already
    ///
    /// Files count that are whole and have the image's shape.
    #[arg(long = "continue", help_heading = "Output")]
    resume: bool,
    /// Split the images into this many parts, and do one of them
    #[arg(long, default_value_t = 1, value_parser = positive::<usize>, value_name = "COUNT", help_heading = "Data")]
    num_parts: usize,
    /// Part to do, from 0
    #[arg(long, default_value_t = 0, value_name = "PART", help_heading = "Data")]
    part_id: usize,
    /// Store activations in 32 or 16 bits
    #[arg(long, value_enum, default_value = "f32", value_name = "TYPE", help_heading = "Memory")]
    precision: PrecisionArg,
    /// Limit GPU memory, such as 4G
    ///
    /// By default what the device has. Large images are segmented in slabs that fit.
    #[arg(long, value_name = "SIZE", value_parser = super::args::size, help_heading = "Memory")]
    vram: Option<u64>,
    #[command(flatten)]
    device: TunedDeviceArgs,
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

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            input: &self.input,
            output: &self.output,
            ending: self.format.unwrap_or(MaskFormat::Nifti).ending(),
            series: self.series.is_some(),
            probabilities: self.save_probabilities,
            uncertainty: self.uncertainty,
            predictions: self.predictions(),
        }
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

    /// Predictions of each voxel that the result is the mean of: of each model one a mirror image.
    fn predictions(&self) -> usize {
        let mirrored = self.options().mirror.iter().filter(|mirror| **mirror).count();
        self.model.len() << mirrored
    }

    /// Tells of mirror images such as a network never saw, which its probabilities are then averaged with.
    fn warn_of_mirrors(&self, models: &[(Model, usize)]) {
        for (path, (model, domain)) in self.model.iter().zip(models) {
            let trained = model.trained.get(&model.domains[*domain].name);
            let Some(mirrored) = trained.and_then(|trained| trained.mirrored) else { continue };
            let asked = self.options().mirror;
            let unseen = letters([0, 1, 2].map(|axis| asked[axis] && !mirrored[axis]));
            if !unseen.is_empty() {
                log::warn!(
                    "{}: its training mirrored no patch along {unseen}, so --mirror may make masks worse",
                    path.display()
                );
            }
        }
    }

    /// The networks of the models' domains, with the variants of kernels that `--tune` says.
    fn ensemble(&self, gpu: &Gpu, models: &[(Model, usize)], stop: &Stop) -> Result<Ensemble> {
        let options = self.options();
        let workload =
            |(model, domain): &(Model, usize)| Predictor::workload(gpu, model, *domain, &options);
        let workloads = models.iter().map(workload).collect::<Result<Vec<_>>>()?;
        let (gpu, report) = tune::tuned(gpu, self.device.tune, &workloads, stop)?;
        if report.timed > 0 {
            note!("{report}");
        }
        let member =
            |(model, domain): &(Model, usize)| Predictor::new(&gpu, model, *domain, &options);
        Ensemble::new(models.iter().map(member).collect::<Result<Vec<_>>>()?)
    }

    /// The device, and the networks on it.
    fn open(&self, models: &[(Model, usize)], stop: &Stop) -> Result<(Gpu, Ensemble)> {
        let gpu = Gpu::open(&self.device.device)?;
        let _compiling = say::Cleared(say::spinner("compiling kernels"));
        let opened = Renewal::default().run(&gpu, |gpu| self.ensemble(gpu, models, stop));
        let (_, ensemble) = opened.map_err(|e| match (&e, self.model.as_slice()) {
            // a patch that the adapter does not hold is the model's
            (Error::Shape { .. }, [model]) => e.about(model),
            _ => e,
        })?;
        Ok((gpu, ensemble))
    }

    /// Segments what can be segmented, and tells of the rest.
    fn segment_all(
        &self,
        ensemble: &Ensemble,
        work: &Work<'_>,
        jobs: &[Job],
        given: &Given,
    ) -> Result<()> {
        let bar = say::bar(Some(jobs.len() as u64), say::CASES);
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

    /// Whether all that is asked for is there, whole and of the image's shape. Statistics that lack are made of the mask.
    fn is_done(&self, job: &Job, plan: &DomainPlan, statistics: Option<&Statistics>) -> bool {
        let first = job.images.as_ref().ok().and_then(|images| images.first());
        let Some(Extent { shape, .. }) =
            first.and_then(|image| peek(image, self.series.as_deref()))
        else {
            return false;
        };
        let maps = job.maps(&self.wanted(), plan);
        let drawn = !self.preview || preview::file(&job.mask).is_file();
        if !(drawn && maps.iter().all(|map| is_whole(&map.file, shape))) {
            return false;
        }
        if MaskFormat::of(&job.mask) == Some(MaskFormat::DicomSeg) {
            let measured = statistics.is_none_or(|statistics| statistics.knows(&job.mask));
            return measured && holds_segmentation(&job.mask);
        }
        let mask = read_labels(&job.mask, &Known::any()).ok();
        let mask = mask.filter(|mask| mask.shape() == shape);
        mask.is_some_and(|mask| {
            statistics.is_none_or(|statistics| self.is_measured(job, plan, statistics, &mask))
        })
    }

    /// Whether the statistics of a mask that is there are there too, or can be made.
    fn is_measured(
        &self,
        job: &Job,
        plan: &DomainPlan,
        statistics: &Statistics,
        mask: &LabelMap,
    ) -> bool {
        let measure = |images: &Vec<PathBuf>| {
            let image = read_series(images, self.matching, self.series.as_deref())?;
            statistics.add(&job.case, &job.mask, &plan.labels, &image, mask)
        };
        statistics.fits(&job.mask, &plan.labels, mask)
            || job.images.as_ref().is_ok_and(|images| measure(images).is_ok())
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
            job.maps(&self.wanted(), plan)
                .iter()
                .for_each(|map| paths.writes(&map.file, &images[0]));
        }
        if self.input.is_dir() {
            paths.writes(self.output.join(PREDICTION), &self.input);
        }
        if let Some(job) = jobs.first().filter(|_| self.statistics) {
            Statistics::files(&job.mask).iter().for_each(|file| paths.writes(file, &self.input));
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
    statistics: Option<&'a Statistics>,
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

    fn maps(&self, job: &Job) -> Result<Vec<MapFile>> {
        let maps = job.maps(&self.args.wanted(), self.plan).into_iter();
        maps.map(|map| Ok(MapFile { file: in_folder(map.file)?, ..map })).collect()
    }

    fn write(&self, job: &Job, (): (), mut labels: LabelMap) -> Result<()> {
        finish(self.plan, &mut labels);
        labels.write_segments(&in_folder(job.mask.clone())?, &segments(self.plan))?;
        let Args { preview, matching, series, .. } = self.args;
        if !preview && self.statistics.is_none() {
            return Ok(());
        }
        // its files are read again, since the image was let go for the network
        let images = job.images.as_ref().map_err(Fault::error)?;
        let image = read_series(images, *matching, series.as_deref())?;
        if let Some(statistics) = self.statistics {
            statistics.add(&job.case, &job.mask, &self.plan.labels, &image, &labels)?;
        }
        if *preview {
            preview::write(self.plan, &image, &job.mask, &labels)?;
        }
        Ok(())
    }
}

/// The classes of masks as other programs show them.
fn segments(plan: &DomainPlan) -> Vec<Segment> {
    let classes = plan.labels.classes.iter().filter(|class| class.value > 0);
    classes.map(|class| Segment::new(&class.name, class.value)).collect()
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
    let all = jobs(&args.wanted(), plan.channels)?;
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
    let beside = all.first().filter(|_| args.statistics);
    let statistics = beside.map(|job| Statistics::beside(&job.mask)).transpose()?;
    let mine = all.into_iter().skip(args.part_id).step_by(args.num_parts);
    let left = |job: &Job| !(args.resume && args.is_done(job, plan, statistics.as_ref()));
    let jobs: Vec<Job> = mine.filter(left).collect();
    if jobs.is_empty() {
        note!("nothing is left to do");
        return statistics.map_or(Ok(()), Statistics::write);
    }
    if args.uncertainty && args.predictions() == 1 {
        note!(
            "One model without --mirror makes one prediction of each voxel: its entropy is written, and no disagreement, which takes several."
        );
    }
    args.warn_of_mirrors(&models);
    let (gpu, ensemble) = args.open(&models, stop)?;
    if args.input.is_dir() {
        args.record(&gpu, plan)?;
    }
    let work = Work { args, plan, statistics: statistics.as_ref(), stop };
    let segmented = args.segment_all(&ensemble, &work, &jobs, given);
    // what was measured is kept, whatever became of the other images
    let written = statistics.map_or(Ok(()), Statistics::write);
    segmented.and(written)
}
