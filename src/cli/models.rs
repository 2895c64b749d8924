//! `u2seg models`.

use super::say::{self, bytes};
use crate::base::Result;
use crate::models::{Card, HeldOut, Listed, list};
use crate::net::Model;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg models                                              # what there is
  u2seg predict -m hippocampus -i scan.nii.gz -o mask.nii.gz
  u2seg fetch https://SERVER/liver.safetensors --sha256 …   # then: u2seg predict -m liver")]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A model as JSON.
#[derive(serde::Serialize)]
struct Entry {
    name: String,
    /// Null where it is part of the program.
    path: Option<String>,
    bytes: u64,
    domains: Vec<Domain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    card: Option<Card>,
}

#[derive(serde::Serialize)]
struct Domain {
    name: String,
    channels: usize,
    classes: Vec<String>,
}

fn domains(model: &Model) -> Vec<Domain> {
    let plans = model.domains.iter();
    let domain = |plan: &crate::domain::DomainPlan| Domain {
        name: plan.name.clone(),
        channels: plan.channels,
        classes: plan.labels.scored().iter().map(|class| class.name.clone()).collect(),
    };
    plans.map(domain).collect()
}

impl From<Listed> for Entry {
    fn from(listed: Listed) -> Self {
        let Listed { name, path, bytes, model, card } = listed;
        let path = path.map(|path| path.display().to_string());
        let (domains, error) = match model {
            Ok(model) => (domains(&model), None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        Self { name, path, bytes, domains, error, card }
    }
}

pub fn run(args: &Args) -> Result<()> {
    let entries: Vec<Entry> = list().into_iter().map(Entry::from).collect();
    if args.json {
        return say::print_json(&entries);
    }
    entries.iter().try_for_each(print)
}

fn print(entry: &Entry) -> Result<()> {
    let place = entry.path.as_deref().unwrap_or("part of u2seg");
    say!("{}: {}, {place}", entry.name, bytes(entry.bytes));
    if let Some(error) = &entry.error {
        say!("   cannot be used: {error}");
    }
    for Domain { name, channels, classes } in &entry.domains {
        let channels = match channels {
            1 => String::new(),
            _ => format!(" from {channels} channels"),
        };
        say!("   {name}: {}{channels}", classes.join(", "));
    }
    let Some(Card { about, modality, data, licence, held_out }) = &entry.card else {
        return Ok(());
    };
    say!("   {about} ({modality})");
    if let Some(HeldOut { dice, classes, cases }) = held_out {
        let classes = classes.iter().map(|(name, dice)| format!("{name} {dice:.3}"));
        let classes = classes.collect::<Vec<_>>().join(", ");
        say!("   Dice {dice:.3} on {} cases that it did not see: {classes}", cases.len());
    }
    say!("   trained on {data}");
    say!("   licence {licence}");
    Ok(())
}
