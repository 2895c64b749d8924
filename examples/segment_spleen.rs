//! Trains on spleen CTs and segments one that it did not train on, with the public API only.
//!
//! `cargo run --release --example segment_spleen [-- --data Task09_Spleen] [--minutes 3] [--out runs/spleen]`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use u2seg::{
    Augment, Comparison, Connectivity, Dataset, Error, Fold, Gpu, Length, Observer, Overlay,
    PlanOptions, PredictOptions, Predictor, Reading, Result, Run, RunConfig, fill_holes,
    keep_largest, write_phantoms,
};

/// The value of the spleen in the labels.
const SPLEEN: u8 = 1;
/// Hounsfield units of soft tissue.
const SOFT_TISSUE: [f32; 2] = [-160.0, 240.0];

/// Trains a universal network on spleen CTs and segments one that it has not seen.
#[derive(Parser)]
struct Args {
    /// A Decathlon folder such as Task09_Spleen; without it the test images are used, or a phantom that is made here.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Minutes to train; by default 3 on an adapter that computes on the CPU, 600 steps on a GPU.
    #[arg(long)]
    minutes: Option<f64>,
    /// Folder for the run, the mask and the picture.
    #[arg(long, default_value = "runs/spleen")]
    out: PathBuf,
    /// Adapter: auto, an index, or part of a name.
    #[arg(long, default_value = "auto")]
    device: String,
}

fn main() -> ExitCode {
    env_logger::Builder::from_env(
        env_logger::Env::default().default_filter_or("warn,wgpu_hal=error"),
    )
    .init();
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The folder to train on, and the case to leave out.
fn choose(args: &Args) -> Result<(PathBuf, Option<String>)> {
    if let Some(data) = &args.data {
        println!("data: {}", data.display());
        return Ok((data.clone(), None));
    }
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data");
    let real =
        PathBuf::from(std::env::var("U2SEG_DATA").unwrap_or(default.into())).join("Task09_Spleen");
    if real.join("dataset.json").exists() {
        println!("data: real CTs in {}", real.display());
        return Ok((real, Some("spleen_2".into())));
    }
    let made = args.out.join("phantom");
    println!(
        "data: synthetic CT phantoms, made in {} (no real images found; give --data Task09_Spleen)",
        made.display()
    );
    write_phantoms(&made, 6, [32, 96, 112], [5.0, 3.0, 3.0])?;
    Ok((made, Some("phantom_5".into())))
}

/// Few cases have to stand for many: contrast agent brightens organs, thin slices are noisier.
fn augment() -> Augment {
    Augment {
        rotate_prob: 0.5,
        scale_prob: 0.5,
        shift_prob: 0.5,
        contrast_prob: 0.3,
        noise_prob: 0.5,
        noise_std: 0.3,
        ..Augment::default()
    }
}

/// Removes what an earlier call left, and nothing else that may lie there.
fn begin_anew(run: &Path) -> Result<()> {
    if !run.exists() {
        return Ok(());
    }
    if !run.join("config.toml").exists() {
        let remedy = "Choose another --out, or move the folder away.";
        return Err(Error::file(run, "a folder that is no run", "a run, or nothing yet", remedy));
    }
    std::fs::remove_dir_all(run).map_err(|e| Error::io(run, e))
}

/// Says now and then how training goes.
struct Lines;

impl Observer for Lines {
    fn losses(&mut self, reading: &Reading) -> Result<()> {
        if reading.step.is_multiple_of(50) {
            println!("step {} loss {:.4}", reading.step, reading.losses.total);
        }
        Ok(())
    }
}

fn run(args: &Args) -> Result<()> {
    let (dir, held_out) = choose(args)?;
    let gpu = Gpu::open(&args.device)?;
    println!("device: {}", gpu.report().name);
    let mut config = RunConfig::new(vec![dir]);
    config.length = match args.minutes {
        Some(minutes) => Length::Minutes(minutes),
        None if gpu.is_software() => Length::Minutes(3.0),
        None => Length::Steps(600),
    };
    config.fold = match held_out {
        Some(case) => Fold::HoldOut(vec![case]),
        None => Fold::Index(0),
    };
    config.augment = augment();
    // a coarse grid, where a patch holds the spleen with its surroundings, and a window that suits every CT:
    // a short training on few cases needs both
    let mut options = PlanOptions::default();
    options.spacing = Some([5.0, 4.0, 4.0]);
    options.patch = Some([16, 32, 32]);
    options.window = Some(SOFT_TISSUE);
    let run = args.out.join("run");
    begin_anew(&run)?;
    let length = config.length;
    let mut run = Run::begin(&gpu, config, &options, &run, &mut Lines)?;
    let cases = match run.domains()[0].cases.len() {
        1 => "1 case".to_string(),
        several => format!("{several} cases"),
    };
    let length = match length {
        Length::Steps(steps) => format!("{steps} steps"),
        Length::Minutes(minutes) => format!("{minutes} minutes"),
    };
    println!("training on {cases} for {length}");
    run.train(&mut Lines)?;
    let model = run.model()?;
    let cases = &run.domains()[0];
    let Some(case) = cases.held_out.first() else {
        return Err(Error::Internal("no case was left out".into()));
    };
    let (image, truth) = Dataset::load(&cases.dataset, case)?;
    let mut labels =
        Predictor::new(&gpu, &model, 0, &PredictOptions::default())?.segment(&image)?;
    keep_largest(&mut labels, SPLEEN, Connectivity::Full);
    fill_holes(&mut labels, SPLEEN);
    let scores = Comparison::of(&truth, &labels)?.scores(&SPLEEN.into(), 1.0);
    let mask = args.out.join(format!("{}.nii.gz", case.id));
    labels.write(&mask)?;
    let picture = args.out.join(format!("{}.png", case.id));
    let names = BTreeMap::from([(SPLEEN, "spleen".into())]);
    let view = Overlay {
        names: &names,
        truth: Some(&truth),
        prediction: Some(&labels),
        window: Some(SOFT_TISSUE),
        caption: &case.id,
        ..Overlay::of(&image)
    };
    view.write(&picture)?;
    println!("segmented {} after {} steps: Dice {:.3}", case.id, run.steps(), scores.dice);
    println!("mask: {}\npicture: {}", mask.display(), picture.display());
    Ok(())
}
