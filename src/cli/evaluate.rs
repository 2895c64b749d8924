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
    /// Labels that count as another, FROM=TO, such as 2=1 where tumours (2) were trained as the organ (1).
    #[arg(long, num_args = 1.., value_parser = merge)]
    merge: Vec<(u8, u8)>,
}

pub fn run(args: &Args) -> Result<()> {
    let summary = evaluate(&args.predictions, &args.ground_truth, &args.merge)?;
    if let Some(path) = &args.output {
        summary.write(path)?;
    }
    say!("{}", summary.print_table(&Default::default()));
    Ok(())
}

fn merge(text: &str) -> std::result::Result<(u8, u8), String> {
    let pair =
        text.split_once('=').and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    pair.ok_or_else(|| format!("expected two labels FROM=TO such as 2=1, found {text}"))
}
