//! What training would take with other settings, told where the adapter has not the memory.

use super::config::RunConfig;
use super::footprint::{Memory, size};
use super::setup::{least_memory, planned_memory, reserved};
use crate::domain::DomainPlan;
use crate::engine::graph::{Caps, DType};

/// A remedy in settings, and what training takes with it.
struct Remedy {
    settings: String,
    bytes: u64,
}

/// The settings with which training would take less memory, each alone, by exact plans.
pub(super) fn remedy(config: &RunConfig, plans: &[DomainPlan], caps: &Caps) -> String {
    let total = |config: &RunConfig, plans: &[DomainPlan]| {
        let memory = planned_memory(config, plans, caps).ok()?;
        Some(memory.total() + reserved(config, plans))
    };
    let Some(now) = total(config, plans) else { return smaller() };
    let with = |settings: String, bytes: Option<u64>| Some(Remedy { settings, bytes: bytes? });
    let mut remedies = Vec::new();
    if config.dtype == DType::F32 {
        let halves = RunConfig { dtype: DType::F16, ..config.clone() };
        remedies.extend(with("`precision` f16".into(), total(&halves, plans)));
    }
    let least = least_memory(config, plans, caps).map(|m: Memory| m.total()).ok();
    let least = least.map(|bytes| bytes + reserved(config, plans));
    let vram = least.map(size).unwrap_or_default();
    remedies.extend(with(format!("`vram` {vram} (tensors computed twice)"), least));
    let single = changed(plans, |plan| plan.batch = 1);
    remedies.extend(with("`batch` 1".into(), total(config, &single)));
    let halved = changed(plans, halve);
    let patch: Vec<String> = halved.iter().map(|plan| format!("{:?}", plan.patch)).collect();
    remedies.extend(with(format!("`patch` {}", patch.join(" and ")), total(config, &halved)));
    remedies.retain(|remedy| remedy.bytes < now);
    if remedies.is_empty() {
        return smaller();
    }
    let told = remedies
        .iter()
        .map(|Remedy { settings, bytes }| format!("{} with {settings}", size(*bytes)));
    let told = told.collect::<Vec<_>>().join(", ");
    format!("Training takes {}; it takes {told}", size(now))
}

fn smaller() -> String {
    "Use a smaller `base`".into()
}

fn changed(plans: &[DomainPlan], change: impl Fn(&mut DomainPlan)) -> Vec<DomainPlan> {
    let mut plans = plans.to_vec();
    plans.iter_mut().for_each(change);
    plans
}

/// Halves a patch along the longest axis that the pools can halve once more.
fn halve(plan: &mut DomainPlan) {
    let fits = |axis: &usize| plan.patch[*axis].is_multiple_of(2 << plan.pools[*axis]);
    let longest = (0..3).filter(fits).max_by_key(|axis| plan.patch[*axis]);
    if let Some(axis) = longest.filter(|_| plan.crop.is_none()) {
        plan.patch[axis] /= 2;
    }
}
