//! `u2seg info`.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::nn::{
    Adapter, DomainNet, Downsample, Mode, Model, NetConfig, PartCount, independent_count,
    part_counts,
};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Model file or checkpoint, or the folder of a finished run.
    #[arg(required_unless_present = "published")]
    model: Option<PathBuf>,
    /// The published network over its five domains, in every mode, instead of a model.
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
        let mode = format!("{:?}", self.network.mode).to_lowercase();
        match self.network.mode {
            Mode::Universal => format!("{mode} {:?}", self.network.adapter).to_lowercase(),
            Mode::Independent | Mode::Shared => mode,
        }
    }

    fn print(&self) {
        println!(
            "{}, base {}, {} domains",
            self.title(),
            self.network.base,
            self.network.domains.len()
        );
        for domain in &self.network.domains {
            println!(
                "  {}: {} channels, {} classes, pools {:?}",
                domain.name, domain.channels, domain.classes, domain.pools
            );
        }
        print!("{:<24}{:>14}", "part", "shared");
        for domain in &self.network.domains {
            print!("{:>14}", domain.name.chars().take(13).collect::<String>());
        }
        println!("{:>14}", "total");
        for part in &self.parts {
            row(part.part, part.shared, &part.domains);
        }
        let shared = self.parts.iter().map(|p| p.shared).sum();
        let domains: Vec<usize> = (0..self.network.domains.len())
            .map(|index| self.parts.iter().map(|p| p.domains[index]).sum())
            .collect();
        row("total", shared, &domains);
        println!(
            "independent networks for the same domains: {}; this one has {:.2} % of that\n",
            thousands(self.independent),
            self.ratio * 100.0
        );
    }
}

fn row(name: &str, shared: usize, domains: &[usize]) {
    print!("{name:<24}{:>14}", thousands(shared));
    for count in domains {
        print!("{:>14}", thousands(*count));
    }
    println!("{:>14}", thousands(shared + domains.iter().sum::<usize>()));
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

/// Networks over several domains, which have five pools an axis for all.
fn published() -> Vec<NetConfig> {
    let mut domains = published_domains();
    for domain in &mut domains {
        domain.pools = [5; 3];
    }
    [
        (Mode::Shared, Adapter::Separable),
        (Mode::Universal, Adapter::Separable),
        (Mode::Universal, Adapter::Series),
        (Mode::Universal, Adapter::Parallel),
    ]
    .map(|(mode, adapter)| NetConfig {
        mode,
        adapter,
        downsample: Downsample::Full,
        base: 16,
        domains: domains.clone(),
    })
    .to_vec()
}

pub fn run(args: &Args) -> Result<()> {
    let reports = match &args.model {
        Some(path) => {
            let network = Model::read(&super::model_file(path))?.network;
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
        println!("{text}");
        return Ok(());
    }
    for report in &reports {
        report.print();
    }
    Ok(())
}
