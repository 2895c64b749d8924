//! What decides a network's shape.

use crate::base::{Error, Result};

/// How domains share a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Plain 3³ convolutions, one domain.
    Independent,
    /// Plain 3³ convolutions shared by all domains; norms, first and last layer are a domain's own.
    Shared,
    /// Shared convolutions with an adapter for each domain.
    Universal,
}

/// A domain's own part of a unit in the universal mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DomainAdapter {
    /// Depthwise 3³ of the domain, then a shared pointwise convolution.
    Separable,
    /// Shared 3³, then x + conv1³(norm(x)) of the domain.
    Series,
    /// Shared 3³ plus the domain's conv1³ beside it.
    Parallel,
}

/// What halves the grid from a level to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Downsample {
    /// A shared strided 3³ convolution, as published.
    #[default]
    Full,
    /// Depthwise 3³ of the domain, then a shared strided pointwise convolution (universal mode).
    Separable,
}

/// Channels at most: of the first level, of an image, and outputs.
const MOST: usize = 1024;

/// A domain as the network sees it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DomainNet {
    /// The domain's name, which its tensors carry.
    pub name: String,
    /// Image channels.
    pub channels: usize,
    /// Classes with background, or regions: the outputs.
    pub classes: usize,
    /// Halvings of D, H, W: 0 to 6 each.
    pub pools: [usize; 3],
}

impl DomainNet {
    /// Levels of the U.
    pub fn depth(&self) -> usize {
        self.pools.iter().copied().max().unwrap_or(0) + 1
    }

    /// Stride from level `level` to the next, D, H, W.
    pub fn stride(&self, level: usize) -> [usize; 3] {
        self.pools.map(|pools| if level < pools { 2 } else { 1 })
    }
}

/// Shape of a network over its domains.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NetConfig {
    /// What domains share.
    pub mode: Mode,
    /// Used in the universal mode.
    pub adapter: DomainAdapter,
    /// How levels are reached.
    #[serde(default)]
    pub downsample: Downsample,
    /// Channels of the first level.
    pub base: usize,
    /// In the order of their indices.
    pub domains: Vec<DomainNet>,
}

impl NetConfig {
    /// A domain by index, after checking what the network needs of it.
    pub fn domain(&self, index: usize) -> Result<&DomainNet> {
        let domain =
            self.domains.get(index).ok_or_else(|| Error::Internal(format!("no domain {index}")))?;
        let refuse = |found: String, expected: &str| {
            let of = format!("{found} of domain {}", domain.name);
            Err(Error::shape("network", format!("{of}: {expected} is needed")))
        };
        for (what, count) in
            [("base", self.base), ("channels", domain.channels), ("classes", domain.classes)]
        {
            if !(1..=MOST).contains(&count) {
                return refuse(format!("{what} {count}"), &format!("1 to {MOST}"));
            }
        }
        if self.downsample == Downsample::Separable && self.mode != Mode::Universal {
            return Err(Error::setting(
                "downsample",
                format!("separable in the mode {:?}", self.mode),
                "full, or `mode` universal",
                "Only the universal mode has depthwise convolutions.",
            ));
        }
        if domain.pools.iter().any(|pools| *pools > 6) {
            return refuse(format!("pools {:?}", domain.pools), "at most 6 an axis");
        }
        Ok(domain)
    }

    /// Levels of the deepest domain.
    pub fn depth(&self) -> usize {
        self.domains.iter().map(DomainNet::depth).max().unwrap_or(1)
    }
}
