//! Model files: weights under the reference's tensor names, with domains and plan in the metadata.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};

use super::{DomainNet, NetConfig};
use crate::base::files::write_atomically;
use crate::base::{Error, Result};
use crate::domain::DomainPlan;

/// A tensor in file order.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Sizes, the slowest first.
    pub dims: Vec<usize>,
    /// The numbers, the last axis fastest.
    pub values: Vec<f32>,
}

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

fn le_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// What a tensor holds that is no finite number, in words.
fn not_finite(name: &str, values: &[f32]) -> Option<String> {
    let at = values.iter().position(|value| !value.is_finite())?;
    Some(format!("{} at {at} of tensor {name}", values[at]))
}

/// Writes tensors and metadata as safetensors, aside and renamed.
///
/// # Errors
///
/// Where the file cannot be written, or a number is not finite; what was there stays then.
pub fn write_tensors(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    let bytes: Vec<Vec<u8>> = tensors.values().map(|t| le_bytes(&t.values)).collect();
    let mut views = Vec::new();
    for ((name, tensor), data) in tensors.iter().zip(&bytes) {
        if let Some(found) = not_finite(name, &tensor.values) {
            let remedy = "Nothing was written. Train anew with a lower `lr`.";
            return Err(Error::file(path, found, "finite numbers to write", remedy));
        }
        let view = TensorView::new(Dtype::F32, tensor.dims.clone(), data)
            .map_err(|e| Error::Internal(format!("{name}: {e}")))?;
        views.push((name.clone(), view));
    }
    let file = serialize(views, Some(metadata)).map_err(|e| Error::Internal(e.to_string()))?;
    write_atomically(path, &file)
}

/// Reads f32 tensors and metadata of a safetensors file.
///
/// # Errors
///
/// Where the file cannot be read, is no safetensors file of f32, or holds a number that is not finite.
pub fn read_tensors(path: &Path) -> Result<(BTreeMap<String, Tensor>, HashMap<String, String>)> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let refuse = |found: String| {
        Error::file(
            path,
            found,
            "a model of this program (safetensors)",
            "Give model.safetensors or last.safetensors of a run.",
        )
    };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| refuse(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| refuse(e.to_string()))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.tensors() {
        if view.dtype() != Dtype::F32 {
            return Err(refuse(format!("tensor {name} of type {:?}", view.dtype())));
        }
        let values: Vec<f32> =
            view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        if let Some(found) = not_finite(&name, &values) {
            return Err(refuse(found));
        }
        tensors.insert(name, Tensor { dims: view.shape().to_vec(), values });
    }
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
}

impl Model {
    /// Metadata that makes the file self-contained.
    pub fn metadata(&self) -> Result<HashMap<String, String>> {
        let json =
            |value: serde_json::Result<String>| value.map_err(|e| Error::Internal(e.to_string()));
        Ok(HashMap::from([
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
