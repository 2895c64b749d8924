//! Where a network's parameters are: by part, shared and of each domain.

use super::{Downsample, Mode, NetConfig, parameters};
use crate::base::Result;
use crate::engine::graph::Scope;

/// Parameters of one kind of layer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PartCount {
    /// The part of the network.
    pub part: &'static str,
    /// Parameters that all domains share.
    pub shared: usize,
    /// In the order of the network's domains.
    pub domains: Vec<usize>,
}

impl PartCount {
    /// Shared and all domains' parameters.
    pub fn total(&self) -> usize {
        self.shared + self.domains.iter().sum::<usize>()
    }
}

/// The kinds of layers, as the reference's tensor names tell them apart.
fn part(name: &str) -> &'static str {
    let starts = |prefix: &str| name.starts_with(prefix);
    match () {
        () if starts("in_tr_list") => "input transition",
        () if starts("out_tr_list") => "output transition",
        () if starts("dSupers") => "deep supervision",
        () if name.contains(".adapOps.") => "adapters",
        () if name.contains(".pwise.") => "pointwise convolutions",
        () if name.contains(".op.") && !name.contains(".conv.") => "norms",
        () if starts("down_samps") => "down-samplers",
        () => "convolutions",
    }
}

/// Counts by part, in the order of first appearance.
pub fn part_counts(config: &NetConfig) -> Result<Vec<PartCount>> {
    let mut counts: Vec<PartCount> = Vec::new();
    for spec in parameters(config)? {
        let part = part(&spec.name);
        let index = counts.iter().position(|count| count.part == part).unwrap_or(counts.len());
        if index == counts.len() {
            counts.push(PartCount { part, shared: 0, domains: vec![0; config.domains.len()] });
        }
        let elements = spec.packing.elements();
        match &spec.scope {
            Scope::Shared => counts[index].shared += elements,
            Scope::Own(name) => {
                let domain = config.domains.iter().position(|d| d.name == *name).unwrap_or(0);
                counts[index].domains[domain] += elements;
            }
        }
    }
    Ok(counts)
}

/// Parameters of one independent network for each domain, each with its own pools.
pub fn independent_count(config: &NetConfig) -> Result<usize> {
    config
        .domains
        .iter()
        .map(|domain| {
            let one = NetConfig {
                mode: Mode::Independent,
                downsample: Downsample::Full,
                domains: vec![domain.clone()],
                ..config.clone()
            };
            Ok(super::parameter_count(&parameters(&one)?))
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::super::{DomainAdapter, DomainNet};
    use super::*;

    /// Five tasks of the Decathlon with these halvings along D, H, W.
    fn decathlon(pools: [[usize; 3]; 5]) -> NetConfig {
        let sizes = [(1, 2), (1, 2), (1, 3), (2, 3), (1, 2)].into_iter().zip(pools).enumerate();
        let domain = |(index, ((channels, classes), pools))| {
            let name = format!("d{index}");
            DomainNet { name, channels, classes, pools }
        };
        NetConfig {
            mode: Mode::Universal,
            adapter: DomainAdapter::Separable,
            downsample: Downsample::Full,
            base: 16,
            domains: sizes.map(domain).collect(),
        }
    }

    #[test]
    fn parts_are_those_of_the_published_code() {
        let config = decathlon([[5; 3]; 5]);
        let counts = part_counts(&config).unwrap();
        let of = |part: &str| counts.iter().find(|c| c.part == part).unwrap();
        assert_eq!(of("pointwise convolutions").total(), 1_138_864);
        assert_eq!(of("adapters").total(), 674_400);
        assert_eq!(of("down-samplers").shared, 4_714_976);
        assert_eq!(counts.iter().map(PartCount::total).sum::<usize>(), 6_577_460);
    }

    #[test]
    fn independent_networks_have_their_own_pools() {
        let config = decathlon([[4, 5, 5], [5; 3], [3; 3], [2, 5, 5], [4, 5, 5]]);
        assert_eq!(independent_count(&config).unwrap(), 134_508_692);
    }
}
