//! `u2seg evaluate`.

use std::path::PathBuf;

use crate::error::Result;
use crate::infer::evaluate;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of predicted masks.
    #[arg(short, long)]
    predictions: PathBuf,
    /// Folder of true labels with the same file names.
    #[arg(short, long)]
    ground_truth: PathBuf,
    /// Where to write the summary as JSON with nnU-Net's keys.
    #[arg(short, long)]
    output: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let summary = evaluate(&args.predictions, &args.ground_truth)?;
    if let Some(path) = &args.output {
        summary.write(path)?;
    }
    println!("{}", summary.print_table(&[]));
    Ok(())
}
