//! Model files: weights under the reference's tensor names, with domains and plan in the metadata.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::NetConfig;
use super::tensor_file::{Tensor, read_tensors, tensors_of, write_tensors};
use super::trained::Trained;
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
    /// How these weights were chosen, where a run compared several; it stands in the file's metadata.
    pub chosen: Option<Chosen>,
    /// How each domain was trained, by its name, where that is known.
    pub trained: BTreeMap<String, Trained>,
}

/// Which weights of a training a model has, and what they were compared with on whole held-out cases.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Chosen {
    /// `last`, `average` for the moving average of the weights, or `best` for those of the best scores of held-out patches.
    pub weights: String,
    /// Steps that they had.
    pub step: u64,
    /// Held-out cases that were compared.
    pub cases: usize,
    /// Mean Dice of each of the weights that were compared, by name.
    pub dice: BTreeMap<String, f64>,
}

impl Chosen {
    /// The weights in words.
    pub fn called(&self) -> String {
        match self.weights.as_str() {
            "average" => "the moving average of the weights".into(),
            other => format!("the {other} weights"),
        }
    }
}

impl std::fmt::Display for Chosen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { weights, step, cases, dice } = self;
        write!(f, "{}, of step {step}", self.called())?;
        let others = dice.iter().filter(|(name, _)| *name != weights);
        let others: Vec<String> = others.map(|(name, dice)| format!("{name} {dice:.4}")).collect();
        if let Some(dice) = dice.get(weights) {
            let cases = if *cases == 1 {
                "1 held-out case".into()
            } else {
                format!("{cases} held-out cases")
            };
            write!(f, ": mean Dice {dice:.4} over {cases} ({})", others.join(", "))?;
        }
        Ok(())
    }
}

const FORMAT: &str = "u2seg 1";
/// The field of the metadata that holds [`Chosen`], where there is one.
const CHOSEN: &str = "chosen";

/// The field that holds [`Trained`] of the domains.
const TRAINED: &str = "trained";

/// What is wrong with plans beside their network: a model's plans are input as its weights are.
fn check_domains(network: &NetConfig, plans: &[DomainPlan]) -> std::result::Result<(), String> {
    let nets = &network.domains;
    if nets.is_empty() || nets.len() != plans.len() {
        return Err(format!("{} domains of the network and {} plans", nets.len(), plans.len()));
    }
    for (index, (net, plan)) in nets.iter().zip(plans).enumerate() {
        let differs = |field: &str, own: String, planned: String| {
            let of = format!("{field} {own} of the network's domain {}", net.name);
            Err(format!("{of}, and {planned} in its plan"))
        };
        if net.name != plan.name {
            return differs("name", format!("{:?}", net.name), format!("{:?}", plan.name));
        }
        if nets[..index].iter().any(|other| other.name == net.name) {
            return Err(format!("two domains with the name {:?}", net.name));
        }
        for (field, own, planned) in [
            ("channels", net.channels, plan.channels),
            ("classes", net.classes, plan.labels.outputs()),
        ] {
            if own != planned {
                return differs(field, own.to_string(), planned.to_string());
            }
        }
        if net.pools != plan.pools {
            return differs("pools", format!("{:?}", net.pools), format!("{:?}", plan.pools));
        }
    }
    Ok(())
}

impl Model {
    /// Metadata that makes the file self-contained.
    pub fn metadata(&self) -> Result<BTreeMap<String, String>> {
        let json =
            |value: serde_json::Result<String>| value.map_err(|e| Error::Internal(e.to_string()));
        let mut metadata = BTreeMap::from([
            ("format".to_string(), FORMAT.to_string()),
            ("network".to_string(), json(serde_json::to_string(&self.network))?),
            ("domains".to_string(), json(serde_json::to_string(&self.domains))?),
        ]);
        if let Some(chosen) = &self.chosen {
            metadata.insert(CHOSEN.to_string(), json(serde_json::to_string(chosen))?);
        }
        if !self.trained.is_empty() {
            metadata.insert(TRAINED.to_string(), json(serde_json::to_string(&self.trained))?);
        }
        Ok(metadata)
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

    /// A model from the bytes of its file; `path` is its name in messages.
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self> {
        let (tensors, metadata) = tensors_of(path, bytes)?;
        Self::from_parts(path, tensors, &metadata)
    }

    /// A model from a file's tensors and metadata; optimizer moments are left out.
    pub fn from_parts(
        path: &Path,
        mut tensors: BTreeMap<String, Tensor>,
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
        let unfit = |found: String| {
            let expected = "weights and plans that fit the model's network";
            Error::file(path, found, expected, "Give a model that this program wrote.")
        };
        check_domains(&network, &domains).map_err(unfit)?;
        // each domain has tensors of its own: told before a network is built for each
        if tensors.len() < domains.len() {
            return Err(unfit(format!("{} tensors for {} domains", tensors.len(), domains.len())));
        }
        let mut weights = BTreeMap::new();
        for spec in super::parameters(&network).map_err(|e| e.about(path))? {
            let found = match tensors.remove(&spec.name) {
                Some(tensor) if tensor.dims != spec.dims => {
                    format!("{} of shape {:?}", spec.name, tensor.dims)
                }
                Some(tensor) => {
                    weights.insert(spec.name, tensor);
                    continue;
                }
                None => format!("no tensor {}", spec.name),
            };
            return Err(unfit(found));
        }
        let chosen = metadata.get(CHOSEN).map(|text| serde_json::from_str(text));
        let chosen = chosen.transpose().map_err(|e| refuse(e.to_string()))?;
        let trained = metadata.get(TRAINED).map(|text| serde_json::from_str(text));
        let trained = trained.transpose().map_err(|e| refuse(e.to_string()))?.unwrap_or_default();
        Ok(Self { network, domains, weights, chosen, trained })
    }

    /// Index of a domain: by name, or the only one. Large and small letters tell names apart where nothing else does.
    pub fn domain(&self, name: Option<&str>) -> Result<usize> {
        let names: Vec<&str> = self.domains.iter().map(|d| d.name.as_str()).collect();
        let found = match name {
            Some(name) => {
                let exact = names.iter().position(|n| *n == name);
                exact.or_else(|| only(&names, |n| n.eq_ignore_ascii_case(name)))
            }
            None => only(&names, |_| true),
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

/// The place of the name that is meant, where it is one alone.
fn only(names: &[&str], meant: impl Fn(&str) -> bool) -> Option<usize> {
    let mut all = names.iter().enumerate().filter(|(_, name)| meant(name));
    let (first, second) = (all.next(), all.next());
    first.filter(|_| second.is_none()).map(|(index, _)| index)
}
