//! `u2seg export`, `u2seg merge` and `u2seg import`.

use std::path::{Path, PathBuf};

use super::args::read_model;
use crate::base::Result;
use crate::base::files::{Claim, Paths, read_json};
use crate::domain::DomainPlan;
use crate::net::{import, read_tensors};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg export -m runs/organs --domain Spleen -o spleen.safetensors
  u2seg export -m hippocampus --domain Hippocampus -o hippocampus.safetensors
  u2seg predict -m spleen.safetensors -i scan.nii.gz -o mask.nii.gz")]
pub struct ExportArgs {
    /// Model file, the folder of a finished run, or a name of `u2seg models`
    #[arg(short, long)]
    model: PathBuf,
    /// Domain to cut out
    #[arg(long, value_name = "NAME")]
    domain: String,
    /// File of the new model
    #[arg(short, long, alias = "out", value_name = "FILE")]
    output: PathBuf,
}

/// Leave to write a model that is made from these files.
fn claim<'a>(
    inputs: impl IntoIterator<Item = &'a PathBuf>,
    made_from: &Path,
    output: &Path,
) -> Result<Claim> {
    let mut paths = Paths::new();
    inputs.into_iter().for_each(|input| paths.reads(input));
    paths.writes(output, made_from);
    paths.claim()
}

/// Cuts one domain out as a model of its own.
pub fn export(args: &ExportArgs) -> Result<()> {
    let (model, file) = read_model(&args.model)?;
    let _claim = claim(file.iter(), &args.model, &args.output)?;
    let domain = model.domain(Some(&args.domain))?;
    model.export(domain)?.write(&args.output)?;
    say!("{}", args.output.display());
    Ok(())
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg merge -m runs/organs --add runs/spleen/added.safetensors -o organs.safetensors
  u2seg merge -m organs.safetensors --add runs/liver -o more.safetensors
  u2seg info more.safetensors")]
pub struct MergeArgs {
    /// Model that receives the domains: a file, a run, or a name of `u2seg models`
    #[arg(short, long)]
    model: PathBuf,
    /// Model whose domains are added
    ///
    /// It must have been trained on the same shared weights, as `u2seg adapt` does.
    #[arg(long, value_name = "MODEL")]
    add: PathBuf,
    /// File of the new model
    #[arg(short, long, alias = "out", value_name = "FILE")]
    output: PathBuf,
}

/// Adds the domains of another model.
pub fn merge(args: &MergeArgs) -> Result<()> {
    let ((model, file), (other, added)) = (read_model(&args.model)?, read_model(&args.add)?);
    let _claim = claim(file.iter().chain(&added), &args.model, &args.output)?;
    let merged = model.merge(&other)?;
    merged.write(&args.output)?;
    let names: Vec<&str> = merged.domains.iter().map(|d| d.name.as_str()).collect();
    say!("{}: {}", args.output.display(), names.join(", "));
    Ok(())
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg import state.safetensors --plan runs/organs/plan.json -o model.safetensors
  u2seg info model.safetensors
  u2seg predict -m model.safetensors --domain Spleen -i scan.nii.gz -o mask.nii.gz")]
pub struct ImportArgs {
    /// State dict of the published network, as safetensors
    state: PathBuf,
    /// Plans of its domains in their order, as in a run's plan.json
    #[arg(long, value_name = "FILE")]
    plan: PathBuf,
    /// File of the new model
    #[arg(short, long, alias = "out", value_name = "FILE")]
    output: PathBuf,
}

/// Turns a state dict of the published network into a model.
pub fn import_state(args: &ImportArgs) -> Result<()> {
    let _claim = claim([&args.state, &args.plan], &args.state, &args.output)?;
    let (tensors, _) = read_tensors(&args.state)?;
    let remedy = "Start from the plan.json of a run on the same data.";
    let plans: Vec<DomainPlan> = read_json(&args.plan, "a list of plans, one a domain", remedy)?;
    plans.iter().try_for_each(|plan| plan.check(&args.plan))?;
    import(&args.state, tensors, plans)?.write(&args.output)?;
    say!("{}", args.output.display());
    Ok(())
}
