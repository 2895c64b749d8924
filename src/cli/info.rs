//! `u2seg info`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::args::read_model;
use super::flags::Given;
use super::say::print_json;
use super::words::{axes, count, letters, list, mm, thousands};
use crate::base::Result;
use crate::domain::DomainPlan;
use crate::models::{Card, HeldOut, shipped_card};
use crate::net::{
    Chosen, DomainAdapter, DomainNet, Downsample, Mode, Model, NetConfig, PartCount, Trained,
    independent_count, part_counts,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg info hippocampus
  u2seg info runs/organs --parameters
  u2seg info --published")]
pub struct Args {
    /// Model file, checkpoint, the folder of a run, or a name of `u2seg models`
    #[arg(required_unless_present = "published")]
    model: Option<PathBuf>,
    /// Count the parameters of each part, shared and of each domain
    #[arg(long)]
    parameters: bool,
    /// Instead of a model: count the published network, in every mode
    ///
    /// Over its five domains; then networks that have fewer parameters, with separable down-samplers and one level shallower,
    /// which is under 1 % of five independent networks.
    #[arg(long, conflicts_with = "model")]
    published: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Report {
    network: NetConfig,
    parts: Vec<PartCount>,
    total: usize,
    independent: usize,
    ratio: f64,
}

impl Report {
    /// `alone` gives the domains as independent networks would see them.
    fn of(network: NetConfig, alone: Vec<DomainNet>) -> Result<Self> {
        let parts = part_counts(&network)?;
        let total = parts.iter().map(PartCount::total).sum();
        let independent = independent_count(&NetConfig { domains: alone, ..network.clone() })?;
        Ok(Self { network, parts, total, independent, ratio: total as f64 / independent as f64 })
    }

    fn title(&self) -> String {
        let NetConfig { mode, adapter, downsample, .. } = self.network;
        let title = match (mode, downsample) {
            (Mode::Universal, Downsample::Full) => format!("{mode:?} {adapter:?}"),
            (Mode::Universal, Downsample::Separable) => {
                format!("{mode:?} {adapter:?}, separable down-samplers")
            }
            (Mode::Independent | Mode::Shared, _) => format!("{mode:?}"),
        };
        title.to_lowercase()
    }

    /// The parameters of each part, shared and of each domain.
    fn print_counts(&self) -> Result<()> {
        let names = self.network.domains.iter();
        let names = names.map(|d| d.name.chars().take(13).collect::<String>());
        line("part", ["shared".into()].into_iter().chain(names).chain(["total".into()]))?;
        for part in &self.parts {
            row(part.part, part.shared, &part.domains)?;
        }
        let shared = self.parts.iter().map(|p| p.shared).sum();
        let domains: Vec<usize> = (0..self.network.domains.len())
            .map(|index| self.parts.iter().map(|p| p.domains[index]).sum())
            .collect();
        row("total", shared, &domains)?;
        say!(
            "independent networks for the same domains: {}; this one has {:.2} % of that",
            thousands(self.independent as u64),
            self.ratio * 100.0
        );
        Ok(())
    }

    /// A published network and its counts.
    fn print_published(&self) -> Result<()> {
        let NetConfig { base, domains, .. } = &self.network;
        say!("{}, base {base}, {}", self.title(), count(domains.len() as u64, "domain"));
        for DomainNet { name, channels, classes, pools } in domains {
            let channels = count(*channels as u64, "channel");
            say!("  {name}: {channels}, {classes} classes, pools {}", axes(*pools));
        }
        self.print_counts()?;
        say!("");
        Ok(())
    }
}

/// A model that a user asks about.
#[derive(serde::Serialize)]
struct Described {
    /// Where it is, in words.
    place: String,
    #[serde(flatten)]
    counts: Report,
    domains: Vec<DomainPlan>,
    trained: BTreeMap<String, Trained>,
    chosen: Option<Chosen>,
    card: Option<Card>,
}

impl Described {
    fn read(wanted: &Path) -> Result<Self> {
        let (model, file) = read_model(wanted)?;
        let domains = model.network.domains.clone();
        let counts = Report::of(model.network, domains)?;
        let (place, card) = match file {
            Some(file) => (file.display().to_string(), Card::beside(&file)),
            None => ("part of u2seg".into(), shipped_card(wanted)),
        };
        let Model { domains, trained, chosen, .. } = model;
        Ok(Self { place, counts, domains, trained, chosen, card })
    }

    fn print(&self, given: &Given) -> Result<()> {
        let NetConfig { base, domains, .. } = &self.counts.network;
        say!("{}", self.place);
        let domains = count(domains.len() as u64, "domain");
        let total = count(self.counts.total as u64, "parameter");
        say!("{}, {base} channels at the first level, {domains}, {total}", self.counts.title());
        if let Some(chosen) = &self.chosen {
            say!("{chosen}");
        }
        for domain in &self.domains {
            say!("\n{}", domain.name.escape_debug());
            for (what, text) in self.about(domain, given.verbose) {
                say!("  {what:<9} {text}");
            }
        }
        if let Some(Card { about, data, licence, .. }) = &self.card {
            say!("\n{about}\ntrained on {data}\nlicence {licence}");
        }
        Ok(())
    }

    /// What is known of a domain: what it is, and in words.
    fn about(&self, domain: &DomainPlan, verbose: bool) -> Vec<(&'static str, String)> {
        let trained = self.trained.get(&domain.name);
        let channels = match (trained, &self.card) {
            (Some(trained), _) => format!("{}, ", list(&trained.channels)),
            (None, Some(card)) => format!("{}, ", card.modality),
            (None, None) => String::new(),
        };
        let channels = channels.escape_debug();
        let images = format!(
            "{channels}{}, resampled to {} mm (D×H×W)",
            count(domain.channels as u64, "channel"),
            axes(domain.spacing.map(mm))
        );
        let classes =
            domain.labels.scored().iter().map(|class| class.name.escape_debug().to_string());
        let mut rows = vec![("images", images), ("classes", list(classes))];
        let patch = format!("{} voxels (D×H×W), batch {}", axes(domain.patch), domain.batch);
        rows.push(("patches", patch));
        if let Some(Trained { version, cases, steps, mirrored, .. }) = trained {
            let (cases, steps) = (count(*cases as u64, "case"), count(*steps, "step"));
            let mirrors = match mirrored.map(letters) {
                None => String::new(),
                Some(none) if none.is_empty() => "; patches not mirrored".into(),
                Some(axes) => format!("; patches mirrored along {axes}"),
            };
            let version = version.escape_debug();
            rows.push(("trained", format!("on {cases}, {steps}, by u2seg {version}{mirrors}")));
        }
        rows.extend(self.dice(trained).map(|dice| ("Dice", dice)));
        if verbose {
            rows.push(("pools", format!("{} (D×H×W)", axes(domain.pools))));
            rows.push(("intensity", format!("{:?}", domain.normalisation)));
            rows.push(("clean-up", count(domain.clean_up.len() as u64, "step")));
        }
        rows
    }

    /// Dice of held-out cases, in words: as the file says, else as its card does.
    fn dice(&self, trained: Option<&Trained>) -> Option<String> {
        let told = |mean: f64, cases: usize, classes: Vec<(&String, Option<f64>)>| {
            let classes = classes.into_iter().map(|(name, dice)| {
                let dice = dice.map_or("none".into(), |dice| format!("{dice:.3}"));
                format!("{} {dice}", name.escape_debug())
            });
            let cases = count(cases as u64, "held-out case");
            format!("{mean:.3} on {cases}: {}", list(classes))
        };
        let own = trained.and_then(|trained| trained.held_out.as_ref());
        let own = own.and_then(|scores| {
            let classes = scores.dice.iter().map(|(name, dice)| (name, *dice)).collect();
            Some(told(scores.mean()?, scores.cases, classes))
        });
        own.or_else(|| {
            let HeldOut { dice, classes, cases } = self.card.as_ref()?.held_out.as_ref()?;
            let classes = classes.iter().map(|(name, dice)| (name, Some(*dice))).collect();
            Some(told(*dice, cases.len(), classes))
        })
    }
}

fn row(name: &str, shared: usize, domains: &[usize]) -> Result<()> {
    let total = shared + domains.iter().sum::<usize>();
    line(
        name,
        [&[shared], domains, &[total]].concat().into_iter().map(|cell| thousands(cell as u64)),
    )
}

fn line(name: &str, cells: impl Iterator<Item = String>) -> Result<()> {
    let cells: String = cells.map(|cell| format!("{cell:>14}")).collect();
    say!("{name:<24}{cells}");
    Ok(())
}

/// The domains of the paper's main comparison, with the pools of independent networks.
fn published_domains() -> Vec<DomainNet> {
    [
        ("Heart", 1, 2, [4, 5, 5]),
        ("Liver", 1, 2, [5, 5, 5]),
        ("Hippocampus", 1, 3, [3, 3, 3]),
        ("Prostate", 2, 3, [2, 5, 5]),
        ("Pancreas", 1, 2, [4, 5, 5]),
    ]
    .map(|(name, channels, classes, pools)| DomainNet {
        name: name.into(),
        channels,
        classes,
        pools,
    })
    .to_vec()
}

/// Networks over several domains, which have the same pools on every axis for all.
fn published() -> Vec<NetConfig> {
    use Downsample::{Full, Separable};
    [
        (Mode::Shared, DomainAdapter::Separable, Full, 5),
        (Mode::Universal, DomainAdapter::Separable, Full, 5),
        (Mode::Universal, DomainAdapter::Series, Full, 5),
        (Mode::Universal, DomainAdapter::Parallel, Full, 5),
        (Mode::Universal, DomainAdapter::Separable, Separable, 5),
        (Mode::Universal, DomainAdapter::Separable, Separable, 4),
    ]
    .map(|(mode, adapter, downsample, pools)| {
        let mut domains = published_domains();
        domains.iter_mut().for_each(|domain| domain.pools = [pools; 3]);
        NetConfig { mode, adapter, downsample, base: 16, domains }
    })
    .to_vec()
}

pub fn run(args: &Args, given: &Given) -> Result<()> {
    let Some(model) = &args.model else {
        let reports = published().into_iter();
        let reports = reports.map(|network| Report::of(network, published_domains()));
        let reports = reports.collect::<Result<Vec<_>>>()?;
        return match args.json {
            true => print_json(&reports),
            false => reports.iter().try_for_each(Report::print_published),
        };
    };
    let model = Described::read(model)?;
    if args.json {
        return print_json(&model);
    }
    model.print(given)?;
    if args.parameters {
        say!("");
        model.counts.print_counts()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_counts_and_one_per_cent() {
        let reports: Vec<Report> = published()
            .into_iter()
            .map(|network| Report::of(network, published_domains()).unwrap())
            .collect();
        assert!(reports.iter().all(|report| report.independent == 134_508_692));
        let totals: Vec<usize> = reports.iter().map(|report| report.total).collect();
        assert_eq!(totals[..4], [33_152_724, 6_577_460, 38_009_124, 38_847_044]);
        assert!(totals[4] < totals[1] / 3, "{totals:?}");
        assert!(reports[5].ratio <= 0.01 && reports[4].ratio > 0.01, "{totals:?}");
        assert_eq!(reports[5].title(), "universal separable, separable down-samplers");
    }
}
