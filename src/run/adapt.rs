//! A run that adds a domain to a model.

use std::path::{Path, PathBuf};

use crate::base::{Error, Result};
use crate::dataset::Dataset;
use crate::domain::{PlanOptions, Unify};
use crate::models;
use crate::net::{Mode, NetConfig};
use crate::patch::Interpolation;
use crate::train::{Freeze, RunConfig, Start};

/// What a run takes over from the model that it adapts.
#[derive(Debug, Clone)]
pub struct Adaptation {
    file: PathBuf,
    network: NetConfig,
    /// The common patch, where the model's domains are resized to one.
    resized: Option<[usize; 3]>,
}

impl Adaptation {
    /// Of a model file, or of a model that is part of the program, by its name, for the domain of a dataset folder.
    ///
    /// # Errors
    ///
    /// Where the model shares nothing between domains, or has a domain of the dataset's name.
    pub fn new(file: &Path, data: &Path) -> Result<Self> {
        let old = models::read(file)?;
        if old.network.mode == Mode::Independent {
            return Err(Error::file(
                file,
                "a model of the independent mode, which shares nothing",
                "one of the shared or universal mode",
                "Train with `mode` universal.",
            ));
        }
        let name = Dataset::open(data)?.name;
        if old.domain(Some(&name)).is_ok() {
            return Err(Error::setting(
                "data",
                format!("a dataset named {name}, like a domain of the model"),
                "a name of its own",
                "Change \"name\" in dataset.json.",
            ));
        }
        let file = match models::is_shipped(file) {
            true => file.to_path_buf(),
            false => std::path::absolute(file).map_err(|e| Error::io(file, e))?,
        };
        let resized = old.domains.iter().find(|d| d.crop.is_some()).map(|d| d.patch);
        Ok(Self { file, network: old.network, resized })
    }

    /// The network that the domain joins.
    pub fn network(&self) -> &NetConfig {
        &self.network
    }

    /// Gives a run the model's network, starting from it, with these parameters standing still; the new domain has at most the
    /// model's depth.
    pub fn apply(&self, freeze: Freeze, config: &mut RunConfig, options: &mut PlanOptions) {
        let NetConfig { mode, adapter, downsample, base, .. } = self.network;
        (config.mode, config.adapter, config.downsample) = (mode, adapter, downsample);
        config.base = base;
        config.start = Some(Start { model: self.file.clone(), freeze });
        options.max_pools = Some(self.network.depth() - 1);
    }

    /// Resizes the new domain's patches to the common one where the model's domains are.
    pub fn resize_alike(&self, config: &mut RunConfig, options: &mut PlanOptions) {
        if let Some(patch) = self.resized {
            options.unify = Unify::Resize;
            config.augment.interpolation = Interpolation::Cubic;
            options.patch = options.patch.or(Some(patch));
        }
    }
}
