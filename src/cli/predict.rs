//! `u2seg predict`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use indicatif::ProgressBar;

use super::PrecisionArg;
use crate::data::{Match, read_images, write_image, write_mask};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::Caps;
use crate::infer::{Ensemble, Forward, Predictor, Weighting, Windows};
use crate::nn::Model;
use crate::tune;

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
    /// Leave out images whose mask is there already.
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
    /// How the variants of kernels are chosen; others may round differently.
    #[arg(long, value_enum, default_value = "cached")]
    tune: tune::Mode,
    /// Adapter: auto, an index of `u2seg devices`, or part of a name.
    #[arg(long, default_value = "auto")]
    device: String,
}

/// Images of one case, and the mask to write.
struct Job {
    images: Vec<PathBuf>,
    mask: PathBuf,
    case: String,
}

impl Args {
    fn check(&self) -> Result<()> {
        if !(self.step_size > 0.0 && self.step_size <= 1.0) {
            return Err(Error::flag(
                "--step-size",
                self.step_size.to_string(),
                "above 0 and at most 1",
                "0.5 is usual.",
            ));
        }
        if self.part_id >= self.num_parts {
            return Err(Error::flag(
                "--part-id",
                self.part_id.to_string(),
                format!("less than --num-parts, which is {}", self.num_parts),
                "Parts count from 0.",
            ));
        }
        Ok(())
    }

    fn windows(&self) -> Windows {
        Windows {
            step: self.step_size,
            weighting: self.weighting.map(|weighting| match weighting {
                WeightingArg::Gaussian => Weighting::Gaussian,
                WeightingArg::Linear => Weighting::Linear,
            }),
            mirror: [Axis::D, Axis::H, Axis::W]
                .iter()
                .enumerate()
                .filter(|(_, axis)| self.mirror.contains(axis))
                .map(|(index, _)| index)
                .collect(),
        }
    }

    /// Writes the mask last: where it is, the case is done.
    fn segment(&self, ensemble: &Ensemble, classes: &[String], job: &Job) -> Result<()> {
        let volume = read_images(&job.images, Match::default())?;
        for note in &volume.notes {
            log::warn!("{}: {note}", job.images[0].display());
        }
        if !self.save_probabilities {
            return write_mask(&job.mask, &ensemble.segment(&volume)?, &volume.grid);
        }
        let probabilities = ensemble.probabilities(&volume)?;
        let parent = job.mask.parent().unwrap_or(Path::new("."));
        let folder = parent.join("probabilities").join(&job.case);
        create(&folder)?;
        let voxels: usize = volume.shape.iter().product();
        for (class, map) in classes.iter().zip(probabilities.chunks(voxels)) {
            let file = class.replace(['/', '\\'], "_");
            write_image(&folder.join(format!("{file}.nii.gz")), map, &volume.grid)?;
        }
        let labels = ensemble.labels(&probabilities, volume.shape)?;
        write_mask(&job.mask, &labels, &volume.grid)
    }
}

pub fn run(args: &Args) -> Result<()> {
    args.check()?;
    let mut models = Vec::new();
    for path in &args.model {
        let model = Model::read(&super::model_file(path))?;
        let domain = model.domain(args.domain.as_deref())?;
        models.push((model, domain));
    }
    let (first, domain) = &models[0];
    let plan = &first.domains[*domain];
    let all = jobs(&args.input, &args.output, plan.channels)?;
    let mine = all.into_iter().skip(args.part_id).step_by(args.num_parts);
    let jobs: Vec<Job> = mine.filter(|job| !(args.resume && job.mask.exists())).collect();
    if jobs.is_empty() {
        eprintln!("nothing is left to do");
        return Ok(());
    }
    let gpu = Gpu::open(&args.device)?;
    let graphs = |caps: &Caps| {
        let of = |(model, domain): &(Model, usize)| {
            let batch = (1, model.domains[*domain].patch);
            Forward::graph((&model.network, *domain), batch, args.precision.into(), caps)
        };
        models.iter().map(of).collect()
    };
    let (gpu, _) = tune::tuned(&gpu, args.tune, &graphs)?;
    let members = models
        .iter()
        .map(|(model, domain)| {
            Predictor::stored(&gpu, (model, *domain), args.windows(), args.precision.into())
        })
        .collect::<Result<Vec<_>>>()?;
    let ensemble = Ensemble::new(members)?;
    let bar = ProgressBar::new(jobs.len() as u64);
    let mut failed = 0;
    for job in &jobs {
        match args.segment(&ensemble, &plan.labels.names(), job) {
            Ok(()) => say!("{}", job.mask.display()),
            // the other images must not suffer from one that is broken
            Err(error) if jobs.len() > 1 => {
                failed += 1;
                eprintln!("error: {error}");
            }
            Err(error) => return Err(error),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if failed > 0 {
        return Err(Error::file(
            &args.input,
            format!("{failed} of {} images that could not be segmented", jobs.len()),
            "readable images",
            "See the errors above; the other masks are written.",
        ));
    }
    Ok(())
}

/// The cases of a file or folder, in the order of their names.
fn jobs(input: &Path, output: &Path, channels: usize) -> Result<Vec<Job>> {
    if !input.is_dir() {
        if !input.exists() {
            return Err(Error::file(
                input,
                "no such file",
                "an image or a folder of images",
                "Correct -i.",
            ));
        }
        let case = stem(input).unwrap_or_else(|| "mask".into());
        let name = output.to_string_lossy();
        let mask = if name.ends_with(".nii") || name.ends_with(".nii.gz") {
            output.to_path_buf()
        } else {
            create(output)?;
            output.join(format!("{case}.nii.gz"))
        };
        return Ok(vec![Job { images: vec![input.to_path_buf()], mask, case }]);
    }
    let entries = std::fs::read_dir(input).map_err(|e| Error::io(input, e))?;
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io(input, e))?.path();
        if let Some(stem) = stem(&path) {
            files.insert(stem, path);
        }
    }
    let mut cases: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for (stem, path) in &files {
        // nnU-Net numbers channels from CASE_0000; without that one, the number belongs to the name
        let numbered = stem
            .rsplit_once('_')
            .filter(|(_, n)| n.len() == 4 && n.parse::<u32>().is_ok())
            .filter(|(id, _)| files.contains_key(&format!("{id}_0000")));
        let id = numbered.map_or(stem.clone(), |(id, _)| id.to_string());
        cases.entry(id).or_default().push(path.clone());
    }
    if cases.is_empty() {
        return Err(Error::file(
            input,
            "no .nii, .nii.gz or .hdr file",
            "images to segment",
            "Point -i at a folder of NIfTI images.",
        ));
    }
    for files in cases.values_mut() {
        files.sort();
        if files.len() != 1 && files.len() != channels {
            return Err(Error::file(
                &files[0],
                format!("{} channel files", files.len()),
                format!("{channels}, as the domain has"),
                "Add the missing modality.",
            ));
        }
    }
    create(output)?;
    let job = |(case, images): (String, Vec<PathBuf>)| Job {
        images,
        mask: output.join(format!("{case}.nii.gz")),
        case,
    };
    Ok(cases.into_iter().map(job).collect())
}

fn create(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))
}

fn stem(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy().into_owned();
    let endings = [".nii.gz", ".nii", ".hdr.gz", ".hdr"];
    let stem = endings.iter().find_map(|ending| name.strip_suffix(ending))?;
    (!stem.starts_with('.')).then(|| stem.to_string())
}
