//! The published network's state dict as a model: what its plan does not say is read from names and shapes.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::{DomainAdapter, DomainNet, Downsample, Mode, Model, NetConfig, Tensor, parameters};
use crate::base::{Error, Result};
use crate::domain::DomainPlan;

/// Mode and adapter by a tensor that only they have.
fn kind(tensors: &BTreeMap<String, Tensor>) -> Option<(Mode, DomainAdapter)> {
    let has = |name: &str| tensors.contains_key(&format!("down_blocks.0.op1.{name}"));
    if has("pwise.conv1.weight") {
        return Some((Mode::Universal, DomainAdapter::Separable));
    }
    if has("adapOps.0.op1.1.weight") {
        return Some((Mode::Universal, DomainAdapter::Series));
    }
    if has("adapOps.0.op1.weight") {
        return Some((Mode::Universal, DomainAdapter::Parallel));
    }
    let shared = tensors.contains_key("in_tr_list.1.op1.0.weight");
    let mode = if shared { Mode::Shared } else { Mode::Independent };
    has("conv.weight").then_some((mode, DomainAdapter::Separable))
}

/// Builds a model from a state dict and a plan for each domain; names and shapes are checked one by one.
pub fn import(
    path: &Path,
    tensors: BTreeMap<String, Tensor>,
    plans: Vec<DomainPlan>,
) -> Result<Model> {
    let refuse = |found: String, expected: &str| {
        Error::file(
            path,
            found,
            expected,
            "Save the state dict of the published network with safetensors.torch.save_file, and give a plan for each domain.",
        )
    };
    let (mode, adapter) =
        kind(&tensors).ok_or_else(|| refuse("no down_blocks.0.op1".into(), "a 3D U²-Net"))?;
    let first = tensors.get("in_tr_list.0.op1.0.weight");
    let base = first.and_then(|t| t.dims.first()).copied().unwrap_or(0);
    let domains = plans
        .iter()
        .map(|plan| DomainNet {
            name: plan.name.clone(),
            channels: plan.channels,
            classes: plan.labels.outputs(),
            pools: plan.pools,
        })
        .collect();
    let separable = tensors.keys().any(|name| name.starts_with("down_samps.0.op1.pwise."));
    let downsample = if separable { Downsample::Separable } else { Downsample::Full };
    let network = NetConfig { mode, adapter, downsample, base, domains };
    let known = parameters(&network).map_err(|e| e.about(path))?;
    let names: HashMap<&str, &[usize]> =
        known.iter().map(|spec| (spec.name.as_str(), spec.dims.as_slice())).collect();
    for (name, tensor) in &tensors {
        match names.get(name.as_str()) {
            Some(dims) if *dims == tensor.dims => {}
            Some(dims) => {
                return Err(refuse(
                    format!("{name} of shape {:?}", tensor.dims),
                    &format!("{dims:?} by the plan"),
                ));
            }
            None => return Err(refuse(name.to_string(), "no such tensor by the plan")),
        }
    }
    if let Some(spec) = known.iter().find(|spec| !tensors.contains_key(&spec.name)) {
        return Err(refuse(format!("no {}", spec.name), "every tensor of the plan"));
    }
    Ok(Model { network, domains: plans, weights: tensors, chosen: None, trained: BTreeMap::new() })
}
