//! Named configurations, so that figures from different machines compare.

use crate::base::{Error, Result};
use crate::net::{DomainAdapter, DomainNet, Downsample, Mode, NetConfig};
use crate::train::{DomainBatch, Targets};

/// Names that [`Configuration::named`] knows.
///
/// | name | what |
/// |---|---|
/// | `hippo` | the universal network of one small domain |
/// | `hippo-plain` | the same of plain 3³ convolutions |
/// | `cube64` | a patch of 64³ |
/// | `paper` | five domains with the published patch of 128³ |
/// | `spleen-infer` | a large window, inference alone |
/// | `regions` | `hippo` with three overlapping regions, and beside it a domain whose cases lack the labels of a class |
pub const NAMES: [&str; 6] = ["hippo", "hippo-plain", "cube64", "paper", "spleen-infer", "regions"];

/// A network with the batch that it is timed on.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    /// What `--config` calls it.
    pub name: &'static str,
    /// The network.
    pub network: NetConfig,
    /// Samples and patch are those of every domain.
    pub batch: DomainBatch,
    /// What the labels of the domains after the first are, where they are not as the first's.
    pub others: Vec<Targets>,
    /// Whether training is timed too.
    pub train: bool,
}

fn domains(count: usize, classes: usize, pools: [usize; 3]) -> Vec<DomainNet> {
    (0..count)
        .map(|index| DomainNet { name: format!("domain{index}"), channels: 1, classes, pools })
        .collect()
}

impl Configuration {
    /// A batch for each domain of the network: every domain has its program, as in a real run; the first is timed, and the
    /// kernels of those with other targets, too.
    pub fn batches(&self) -> Vec<DomainBatch> {
        let mut batches = vec![self.batch.clone(); self.network.domains.len()];
        for (batch, targets) in batches.iter_mut().skip(1).zip(&self.others) {
            batch.targets = targets.clone();
        }
        batches
    }

    /// Domains whose labels mean the same as no earlier one's.
    pub fn distinct(&self) -> Vec<usize> {
        let batches = self.batches();
        (0..batches.len()).filter(|index| !batches[..*index].contains(&batches[*index])).collect()
    }

    /// A configuration by name; an error lists the names there are.
    pub fn named(name: &str) -> Result<Self> {
        let of = |name, mode, domains, (samples, patch), train| Self {
            name,
            network: NetConfig {
                mode,
                adapter: DomainAdapter::Separable,
                downsample: Downsample::Full,
                base: 16,
                domains,
            },
            batch: DomainBatch::new(samples, patch),
            others: Vec::new(),
            train,
        };
        let hippo = (2, [40, 56, 40]);
        match name {
            "hippo" => Ok(of("hippo", Mode::Universal, domains(1, 3, [3; 3]), hippo, true)),
            "hippo-plain" => {
                Ok(of("hippo-plain", Mode::Independent, domains(1, 3, [3; 3]), hippo, true))
            }
            "cube64" => {
                Ok(of("cube64", Mode::Universal, domains(1, 2, [4; 3]), (2, [64; 3]), true))
            }
            "paper" => Ok(of("paper", Mode::Universal, domains(5, 3, [5; 3]), (2, [128; 3]), true)),
            "spleen-infer" => {
                let batch = (1, [96, 160, 128]);
                Ok(of("spleen-infer", Mode::Universal, domains(1, 2, [4, 5, 5]), batch, false))
            }
            "regions" => {
                let mut own = of("regions", Mode::Universal, domains(2, 3, [3; 3]), hippo, true);
                // the whole, a part of it, and one across its border
                own.batch.targets.regions = vec![0b000, 0b001, 0b011, 0b101, 0b100];
                own.others = vec![Targets { regions: Vec::new(), partial: true }];
                Ok(own)
            }
            _ => Err(Error::setting("config", name, NAMES.join(", "), "Choose one of these.")),
        }
    }
}
