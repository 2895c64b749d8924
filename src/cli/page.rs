//! `u2seg report`.

use std::path::PathBuf;

use crate::base::files::Paths;
use crate::base::{Error, Result};
use crate::run::{report, report_file};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg report runs/organs
  u2seg report masks -o masks.html
  u2seg report runs/folds        # all folds of a cross-validation")]
pub struct Args {
    /// Folder of a run, of its folds, or of masks that `u2seg predict` wrote
    #[arg(value_name = "RUN|PREDICTIONS")]
    folder: PathBuf,
    /// Page to write; by default report.html in that folder
    #[arg(short, long, alias = "out", value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    if !args.folder.is_dir() {
        let found = if args.folder.exists() { "a file" } else { "no such folder" };
        let remedy = "Name the folder that `train` or `predict` wrote.";
        let expected = "the folder of a run, or of masks";
        return Err(Error::file(&args.folder, found, expected, remedy));
    }
    let output = args.output.clone().unwrap_or_else(|| report_file(&args.folder));
    let html = output.extension().is_some_and(|ending| {
        ["html", "htm"].iter().any(|other| ending.eq_ignore_ascii_case(other))
    });
    if !html {
        let found = output.display().to_string();
        return Err(Error::setting(
            "output",
            found,
            "a name that ends in .html",
            "Correct the ending.",
        ));
    }
    let mut paths = Paths::new();
    paths.writes(&output, &args.folder);
    let _claim = paths.claim()?;
    report(&args.folder)?.write(&output)?;
    say!("{}", output.display());
    Ok(())
}
