//! How much memory training takes, and plans that keep to a budget.

use rayon::prelude::*;

use crate::base::{Error, Result};
use crate::engine::exec::{Pool, region_words};
use crate::engine::graph::{Caps, DType, ParamSpec};
use crate::engine::plan::{Plan, PlanRequest, Workload};

/// How tensors are stored, and what memory there is for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Activations and their gradients; parameters, statistics and logits are in f32 in any case.
    pub dtype: DType,
    /// Bytes that training may take; without it nothing is computed twice.
    pub vram: Option<u64>,
    /// Bytes of those that go to cases and patches.
    pub reserved: u64,
}

/// Bytes that a session needs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Memory {
    /// Weights, gradients, both moments, and the moving average of weights where one is kept.
    pub parameters: u64,
    /// Activations, shared by all domains.
    pub activations: u64,
    /// Of those, what each domain uses.
    pub domains: Vec<u64>,
    /// Settings of the dispatches.
    pub uniforms: u64,
    /// What a checkpoint is read through: one of these regions of parameters.
    pub read_back: u64,
    /// The largest buffer of activations.
    pub largest: u64,
    /// Tensors that the backward pass makes again.
    pub recomputed: usize,
    /// The largest values in memory where the largest domain has most there.
    pub peak: Vec<PeakValue>,
}

/// A value that makes the peak.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PeakValue {
    /// Name of the tensor: of the layer that makes it, `d.` before that of a gradient.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// Values of the peak that are worth telling.
const PEAK_VALUES: usize = 16;

impl Memory {
    /// All of it.
    pub fn total(&self) -> u64 {
        self.parameters + self.activations + self.uniforms + self.read_back
    }
}

/// The plan of each domain.
pub(super) struct Fitted {
    pub plans: Vec<Plan>,
    pub memory: Memory,
}

/// What the plans of all domains have in common.
struct Common<'a> {
    workloads: &'a [Workload],
    params: &'a Params<'a>,
    caps: &'a Caps,
}

/// What a session keeps of its parameters.
pub(super) struct Params<'a> {
    pub specs: &'a [ParamSpec],
    /// Buffers of the size of all of them: weights, gradients and so on.
    pub regions: u64,
}

/// Attempts to meet a budget: domains share buffers, so that the sum may exceed what each keeps to.
const ATTEMPTS: usize = 6;

/// Plans the domains of a session within a budget.
pub(super) fn fit(
    workloads: &[Workload],
    params: &Params<'_>,
    footprint: Footprint,
    caps: &Caps,
) -> Result<Fitted> {
    let common = Common { workloads, params, caps };
    let as_they_are = common.plan(None)?;
    let Footprint { vram, reserved, .. } = footprint;
    let Some(all) = vram else { return Ok(as_they_are) };
    let vram = all.saturating_sub(reserved);
    if as_they_are.memory.total() <= vram {
        return Ok(as_they_are);
    }
    // the least that is told: a plan of fewer dispatches with a larger slot may take some bytes less, and is refused alike
    let smallest = common.plan(Some(0))?;
    if smallest.memory.total() > vram {
        return Err(refusal(footprint, all, &smallest.memory));
    }
    let rest = as_they_are.memory.total() - as_they_are.memory.activations;
    let mut room = vram.saturating_sub(rest);
    for _ in 0..ATTEMPTS {
        let fitted = common.plan(Some(room))?;
        let total = fitted.memory.total();
        if total <= vram {
            return Ok(fitted);
        }
        room = room.saturating_sub(total - vram);
    }
    Ok(smallest)
}

fn refusal(footprint: Footprint, all: u64, smallest: &Memory) -> Error {
    let remedy = match footprint.dtype {
        DType::F32 => "Store activations in f16 (`precision` f16), or use a smaller `patch`",
        DType::F16 => "Use a smaller `patch`",
    };
    Error::setting(
        "vram",
        size(all),
        format!(
            "at least {}, with all recomputed that pays",
            size(smallest.total() + footprint.reserved)
        ),
        format!("{remedy}, `batch` or `base`."),
    )
}

/// Plans with all recomputed that pays.
pub(super) fn smallest(workloads: &[Workload], params: &Params<'_>, caps: &Caps) -> Result<Fitted> {
    Common { workloads, params, caps }.plan(Some(0))
}

/// Bytes in the unit that reads best, rounded up.
pub(super) fn size(bytes: u64) -> String {
    let mib = bytes.div_ceil(1 << 20);
    if mib < 10 * 1024 { format!("{mib} MiB") } else { format!("{} GiB", mib.div_ceil(1024)) }
}

impl Common<'_> {
    /// Plans that keep to a budget of bytes each, where they can.
    fn plan(&self, budget: Option<u64>) -> Result<Fitted> {
        let plan = |Workload { graph, options }: &Workload| {
            Plan::new(graph, self.caps, &PlanRequest { budget, ..*options })
        };
        let plans = self.workloads.par_iter().map(plan).collect::<Result<Vec<_>>>()?;
        let region = 4 * region_words(self.params.specs) as u64;
        let slots = Pool::sizes(&plans);
        let memory = Memory {
            parameters: self.params.regions * region,
            activations: slots.iter().sum(),
            domains: plans.iter().map(Plan::slot_bytes).collect(),
            largest: slots.iter().copied().max().unwrap_or(0),
            uniforms: plans.iter().map(|plan| plan.uniform_bytes(self.caps)).sum(),
            read_back: region,
            recomputed: plans.iter().map(|plan| plan.again.len()).sum(),
            peak: peak(&plans),
        };
        Ok(Fitted { plans, memory })
    }
}

/// The largest values at the peak of the domain with the largest plan.
fn peak(plans: &[Plan]) -> Vec<PeakValue> {
    let Some(largest) = plans.iter().max_by_key(|plan| plan.slot_bytes()) else {
        return Vec::new();
    };
    let name = |value| largest.graph.info(value).name.clone();
    let values = largest.peak().into_iter().take(PEAK_VALUES);
    values.map(|(value, bytes)| PeakValue { name: name(value), bytes }).collect()
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_rounded_up() {
        assert_eq!(size(1), "1 MiB");
        assert_eq!(size(3 << 30), "3072 MiB");
        assert_eq!(size((20 << 30) + 1), "21 GiB");
    }
}
