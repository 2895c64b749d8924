//! Named configurations, so that figures from different machines compare.

use crate::error::{Error, Result};
use crate::nn::{Adapter, DomainNet, Downsample, Mode, NetConfig};
use crate::train::DomainBatch;

/// Names that [`Configuration::named`] knows.
pub const NAMES: [&str; 5] = ["hippo", "hippo-plain", "cube64", "paper", "spleen-infer"];

/// A network with the batch that it is timed on.
#[derive(Debug, Clone, PartialEq)]
pub struct Configuration {
    pub name: &'static str,
    pub network: NetConfig,
    pub batch: DomainBatch,
    /// Whether training is timed too.
    pub train: bool,
}

fn domains(count: usize, classes: usize, pools: [usize; 3]) -> Vec<DomainNet> {
    (0..count)
        .map(|index| DomainNet { name: format!("domain{index}"), channels: 1, classes, pools })
        .collect()
}

impl Configuration {
    /// A batch for each domain of the network: every domain has its program, as in a real run; the first is timed.
    pub fn batches(&self) -> Vec<DomainBatch> {
        vec![self.batch; self.network.domains.len()]
    }

    /// A configuration by name; an error lists the names there are.
    pub fn named(name: &str) -> Result<Self> {
        let of = |name, mode, domains, (samples, patch), train| Self {
            name,
            network: NetConfig {
                mode,
                adapter: Adapter::Separable,
                downsample: Downsample::Full,
                base: 16,
                domains,
            },
            batch: DomainBatch { samples, patch },
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
            _ => Err(Error::flag("--config", name, NAMES.join(", "), "Choose one of these.")),
        }
    }
}
