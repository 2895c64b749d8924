//! Model files: weights under the reference's tensor names, with domains and plan in the metadata.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::tensor_file::{Tensor, read_tensors, write_tensors};
use super::{DomainNet, NetConfig};
use crate::base::{Error, Result};
use crate::domain::DomainPlan;

/// A self-contained model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// What is built of the weights.
    pub network: NetConfig,
    /// Plans in the order of the network's domains.
    pub domains: Vec<DomainPlan>,
    /// By the reference's names.
    pub weights: BTreeMap<String, Tensor>,
}

const FORMAT: &str = "u2seg 1";

impl Model {
    /// Metadata that makes the file self-contained.
    pub fn metadata(&self) -> Result<BTreeMap<String, String>> {
        let json =
            |value: serde_json::Result<String>| value.map_err(|e| Error::Internal(e.to_string()));
        Ok(BTreeMap::from([
            ("format".to_string(), FORMAT.to_string()),
            ("network".to_string(), json(serde_json::to_string(&self.network))?),
            ("domains".to_string(), json(serde_json::to_string(&self.domains))?),
        ]))
    }

    /// Writes the file aside and renames it.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_tensors(path, &self.weights, self.metadata()?)
    }

    /// Reads a model, or the model inside a checkpoint.
    pub fn read(path: &Path) -> Result<Self> {
        let (tensors, metadata) = read_tensors(path)?;
        Self::from_parts(path, tensors, &metadata)
    }

    /// A model from a file's tensors and metadata; optimizer moments are left out.
    pub fn from_parts(
        path: &Path,
        tensors: BTreeMap<String, Tensor>,
        metadata: &HashMap<String, String>,
    ) -> Result<Self> {
        let refuse = |found: String| {
            Error::file(
                path,
                found,
                format!("metadata of format `{FORMAT}`"),
                "Give a model that this program wrote.",
            )
        };
        let field =
            |name: &str| metadata.get(name).ok_or_else(|| refuse(format!("no field {name}")));
        if field("format")? != FORMAT {
            return Err(refuse(field("format")?.clone()));
        }
        let network: NetConfig =
            serde_json::from_str(field("network")?).map_err(|e| refuse(e.to_string()))?;
        let domains: Vec<DomainPlan> =
            serde_json::from_str(field("domains")?).map_err(|e| refuse(e.to_string()))?;
        domains.iter().try_for_each(|domain| domain.check(path))?;
        let fits = |(net, plan): (&DomainNet, &DomainPlan)| {
            (net.channels, net.classes) == (plan.channels, plan.labels.outputs())
        };
        if network.domains.len() != domains.len() || !network.domains.iter().zip(&domains).all(fits)
        {
            return Err(refuse("plans that do not fit the network".into()));
        }
        let mut weights = BTreeMap::new();
        for spec in super::parameters(&network)? {
            match tensors.get(&spec.name) {
                Some(tensor) if tensor.dims == spec.dims => {
                    weights.insert(spec.name, tensor.clone());
                }
                Some(tensor) => {
                    return Err(refuse(format!("{} of shape {:?}", spec.name, tensor.dims)));
                }
                None => return Err(refuse(format!("no tensor {}", spec.name))),
            }
        }
        Ok(Self { network, domains, weights })
    }

    /// Index of a domain: by name, or the only one.
    pub fn domain(&self, name: Option<&str>) -> Result<usize> {
        let names: Vec<&str> = self.domains.iter().map(|d| d.name.as_str()).collect();
        let found = match name {
            Some(name) => names.iter().position(|n| n.eq_ignore_ascii_case(name)),
            None if names.len() == 1 => Some(0),
            None => None,
        };
        found.ok_or_else(|| {
            Error::setting(
                "domain",
                name.unwrap_or("nothing"),
                format!("one of {}", names.join(", ")),
                "Name the domain that the images belong to.",
            )
        })
    }
}
