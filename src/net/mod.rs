//! The 3D U²-Net: blocks in the field's names, built from operations, under the reference's tensor names.

mod blocks;
mod compose;
mod config;
mod count;
mod import;
mod model;
mod tensor_file;
mod trained;

pub use compose::{hash, names_in};
pub use config::{DomainAdapter, DomainNet, Downsample, Mode, NetConfig};
pub use count::{PartCount, independent_count, part_counts};
pub use import::import;
pub use model::{Chosen, Model};
pub use tensor_file::{Tensor, read_tensors, write_tensors, write_tensors_keeping};
pub use trained::{HeldOutScores, Trained};

use crate::base::{Error, Result};
use crate::engine::graph::{Graph, Layout, Value};
use crate::engine::ops;

/// Appends the network of `domains[index]` for a batch of `n` samples of the given size; returns the logits, which may be
/// lazy. `image` is N,C,D,H,W with the domain's channels.
///
/// The tensor names carry `index`, as in the reference (`adapOps.{index}`, `in_tr_list.{index}`).
pub fn network(graph: &mut Graph, config: &NetConfig, index: usize, image: Value) -> Result<Value> {
    let domain = config.domain(index)?;
    let layout = graph.layout(image)?.clone();
    check_size(domain, &layout)?;
    let depth = domain.depth();
    let mut net = blocks::Blocks { graph, config, domain, index };
    let mut x = net.input_transition(image)?;
    let mut skips = Vec::new();
    for level in 0..depth {
        x = net.down_block(level, x)?;
        if level + 1 < depth {
            skips.push(x);
            x = net.down_sample(level, x)?;
        }
    }
    let mut deep: Option<Value> = None;
    for level in (0..depth - 1).rev() {
        let up = net.up_sample(level, x)?;
        x = net.up_block(level, up, skips[level])?;
        if level == 1 || level == 2 {
            deep = Some(net.deep_supervision(level, x, deep)?);
        }
    }
    let logits = net.output_transition(x)?;
    match deep {
        Some(deep) => ops::add(graph, logits, deep),
        None => Ok(logits),
    }
}

fn check_size(domain: &DomainNet, layout: &Layout) -> Result<()> {
    if layout.channels() != domain.channels {
        return Err(Error::shape(
            "network",
            format!(
                "domain {} has {} channels, the image {}",
                domain.name,
                domain.channels,
                layout.channels()
            ),
        ));
    }
    for axis in 0..3 {
        let step = 1 << domain.pools[axis];
        if !layout.spatial[axis].is_multiple_of(step) {
            return Err(Error::shape(
                "network",
                format!(
                    "patch {:?} of domain {} is not divisible by 2^pools of {:?}; use multiples of {step} on axis {axis}",
                    layout.spatial, domain.name, domain.pools
                ),
            ));
        }
    }
    Ok(())
}

/// The parameters of all domains in a fixed order, each name once.
pub fn parameters(config: &NetConfig) -> Result<Vec<crate::engine::graph::ParamSpec>> {
    let mut seen = std::collections::HashSet::new();
    let mut params = Vec::new();
    for (index, domain) in config.domains.iter().enumerate() {
        let mut graph = Graph::new();
        let spatial = domain.pools.map(|pools| 1 << pools);
        let image = graph.input("image", Layout::new(1, domain.channels, spatial));
        network(&mut graph, config, index, image)?;
        params.extend(graph.params().iter().filter(|p| seen.insert(p.name.clone())).cloned());
    }
    // shared parameters first, so that each update covers few ranges
    params.sort_by_key(|param| match &param.scope {
        crate::engine::graph::Scope::Shared => 0,
        crate::engine::graph::Scope::Own(name) => {
            1 + config.domains.iter().position(|d| d.name == *name).unwrap_or(0)
        }
    });
    Ok(params)
}

/// Values of all parameters, padding not counted.
pub fn parameter_count(params: &[crate::engine::graph::ParamSpec]) -> usize {
    params.iter().map(|param| param.packing.elements()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decathlon(mode: Mode, adapter: DomainAdapter) -> NetConfig {
        let domains = [
            ("heart", 1, 2),
            ("liver", 1, 2),
            ("hippocampus", 1, 3),
            ("prostate", 2, 3),
            ("pancreas", 1, 2),
        ]
        .iter()
        .map(|&(name, channels, classes)| DomainNet {
            name: name.into(),
            channels,
            classes,
            pools: [5, 5, 5],
        })
        .collect();
        NetConfig { mode, adapter, downsample: Downsample::Full, base: 16, domains }
    }

    fn count(config: &NetConfig) -> usize {
        parameter_count(&parameters(config).unwrap())
    }

    #[test]
    fn parameter_counts_are_those_of_the_published_code() {
        assert_eq!(count(&decathlon(Mode::Universal, DomainAdapter::Separable)), 6_577_460);
        assert_eq!(count(&decathlon(Mode::Universal, DomainAdapter::Series)), 38_009_124);
        assert_eq!(count(&decathlon(Mode::Universal, DomainAdapter::Parallel)), 38_847_044);
        assert_eq!(count(&decathlon(Mode::Shared, DomainAdapter::Separable)), 33_152_724);
        let mut one = decathlon(Mode::Independent, DomainAdapter::Separable);
        one.domains.truncate(1);
        assert_eq!(count(&one), 33_113_214);
    }

    #[test]
    fn an_indivisible_patch_is_refused() {
        let config = decathlon(Mode::Universal, DomainAdapter::Separable);
        let mut graph = Graph::new();
        let image = graph.input("image", Layout::new(1, 1, [32, 32, 40]));
        let error = network(&mut graph, &config, 0, image).unwrap_err().to_string();
        assert!(error.contains("multiples of 32"), "{error}");
    }
}
