//! `u2seg cache`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::say::bytes;
use super::train::place;
use crate::base::Result;
use crate::dataset::prepared::{DEFAULT_SIZE, Kept, Place, Store};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg cache list
  u2seg cache clear
  u2seg cache list --cache /fast/prepared")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
    /// Folder that `u2seg train --cache` named
    #[arg(long, value_name = "FOLDER", value_parser = place, default_value = "auto", global = true)]
    cache: Place,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the datasets whose prepared cases are kept, and the space that they take
    List,
    /// Remove all prepared cases that no running program uses
    Clear,
}

/// Prepared cases of a dataset at one spacing.
struct Group {
    cases: usize,
    in_use: usize,
    bytes: u64,
    used: SystemTime,
}

/// Words for a time that has passed.
fn ago(time: SystemTime) -> String {
    let passed = time.elapsed().unwrap_or(Duration::ZERO).as_secs();
    let (count, unit) = match passed {
        0..3600 => (passed / 60, "minutes"),
        3600..172_800 => (passed / 3600, "hours"),
        _ => (passed / 86_400, "days"),
    };
    format!("{count} {unit} ago")
}

fn groups(kept: &[Kept]) -> BTreeMap<(String, String), Group> {
    let mut groups = BTreeMap::new();
    for case in kept {
        let key = match &case.origin {
            Some((dataset, _)) => (dataset.clone(), format!("{:.3?} mm", case.spacing)),
            None => ("damaged".into(), String::new()),
        };
        let none = Group { cases: 0, in_use: 0, bytes: 0, used: SystemTime::UNIX_EPOCH };
        let group = groups.entry(key).or_insert(none);
        group.cases += 1;
        group.in_use += usize::from(case.in_use);
        group.bytes += case.bytes;
        group.used = group.used.max(case.used);
    }
    groups
}

pub fn run(args: &Args) -> Result<()> {
    let store = Store::open(&args.cache, DEFAULT_SIZE)?;
    match args.action {
        Action::List => {
            let kept = store.list()?;
            for ((dataset, spacing), group) in groups(&kept) {
                let in_use = match group.in_use {
                    0 => String::new(),
                    count => format!(", {count} in use"),
                };
                say!(
                    "{dataset}: {} cases{}{spacing}, {}, last used {}{in_use}",
                    group.cases,
                    if spacing.is_empty() { "" } else { " at " },
                    bytes(group.bytes),
                    ago(group.used)
                );
            }
            let all = kept.iter().map(|case| case.bytes).sum();
            say!("{} cases, {} in {}", kept.len(), bytes(all), store.folder().display());
        }
        Action::Clear => {
            let [gone, left] = store.clear()?;
            say!("removed {}; {} are in use and stay", bytes(gone), bytes(left));
        }
    }
    Ok(())
}
