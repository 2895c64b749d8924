//! `u2seg predict`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;

use crate::data::{read_images, write_mask};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::infer::Predictor;
use crate::nn::Model;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Model file, or the folder of a finished run.
    #[arg(short, long)]
    model: PathBuf,
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
    /// Adapter: auto, an index of `u2seg devices`, or part of a name.
    #[arg(long, default_value = "auto")]
    device: String,
}

pub fn run(args: &Args) -> Result<()> {
    if !(args.step_size > 0.0 && args.step_size <= 1.0) {
        return Err(Error::flag(
            "--step-size",
            args.step_size.to_string(),
            "above 0 and at most 1",
            "0.5 is usual.",
        ));
    }
    let model = Model::read(&super::model_file(&args.model))?;
    let domain = model.domain(args.domain.as_deref())?;
    let jobs = jobs(&args.input, &args.output, model.domains[domain].channels)?;
    let gpu = Gpu::open(&args.device)?;
    let mut predictor = Predictor::new(&gpu, &model, domain)?;
    predictor.step = args.step_size;
    let bar = ProgressBar::new(jobs.len() as u64);
    let mut failed = 0;
    for (images, mask) in &jobs {
        let done = read_images(images)
            .and_then(|volume| Ok((predictor.segment(&volume)?, volume.grid)))
            .and_then(|(labels, grid)| write_mask(mask, &labels, &grid));
        match done {
            Ok(()) => println!("{}", mask.display()),
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

/// Image files of each case with the mask to write.
fn jobs(input: &Path, output: &Path, channels: usize) -> Result<Vec<(Vec<PathBuf>, PathBuf)>> {
    if !input.is_dir() {
        if !input.exists() {
            return Err(Error::file(
                input,
                "no such file",
                "an image or a folder of images",
                "Correct -i.",
            ));
        }
        let name = output.to_string_lossy();
        if name.ends_with(".nii") || name.ends_with(".nii.gz") {
            return Ok(vec![(vec![input.to_path_buf()], output.to_path_buf())]);
        }
        let stem = stem(input).unwrap_or_else(|| "mask".into());
        create(output)?;
        return Ok(vec![(vec![input.to_path_buf()], output.join(format!("{stem}.nii.gz")))]);
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
    Ok(cases.into_iter().map(|(id, files)| (files, output.join(format!("{id}.nii.gz")))).collect())
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
