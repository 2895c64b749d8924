//! `u2seg info`.

use std::path::PathBuf;

use crate::base::{Error, Result};
use crate::net::{
    DomainAdapter, DomainNet, Downsample, Mode, NetConfig, PartCount, independent_count,
    part_counts,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Model file or checkpoint, the folder of a finished run, or a name of `u2seg models`.
    #[arg(required_unless_present = "published")]
    model: Option<PathBuf>,
    /// The published network over its five domains, in every mode, instead of a model; then those that have fewer parameters:
    /// with separable down-samplers, and one level shallower, which is under 1 % of five independent networks.
    #[arg(long, conflicts_with = "model")]
    published: bool,
    /// Print JSON.
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

    fn print(&self) -> Result<()> {
        say!(
            "{}, base {}, {} domains",
            self.title(),
            self.network.base,
            self.network.domains.len()
        );
        for domain in &self.network.domains {
            say!(
                "  {}: {} channels, {} classes, pools {:?}",
                domain.name,
                domain.channels,
                domain.classes,
                domain.pools
            );
        }
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
            "independent networks for the same domains: {}; this one has {:.2} % of that\n",
            thousands(self.independent),
            self.ratio * 100.0
        );
        Ok(())
    }
}

fn row(name: &str, shared: usize, domains: &[usize]) -> Result<()> {
    let total = shared + domains.iter().sum::<usize>();
    line(name, [&[shared], domains, &[total]].concat().into_iter().map(thousands))
}

fn line(name: &str, cells: impl Iterator<Item = String>) -> Result<()> {
    let cells: String = cells.map(|cell| format!("{cell:>14}")).collect();
    say!("{name:<24}{cells}");
    Ok(())
}

fn thousands(count: usize) -> String {
    let digits = count.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(",")
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

pub fn run(args: &Args) -> Result<()> {
    let reports = match &args.model {
        Some(path) => {
            let network = super::args::read_model(path)?.0.network;
            let domains = network.domains.clone();
            vec![Report::of(network, domains)?]
        }
        None => published()
            .into_iter()
            .map(|network| Report::of(network, published_domains()))
            .collect::<Result<Vec<_>>>()?,
    };
    if args.json {
        let text =
            serde_json::to_string_pretty(&reports).map_err(|e| Error::Internal(e.to_string()))?;
        say!("{text}");
        return Ok(());
    }
    reports.iter().try_for_each(Report::print)
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
