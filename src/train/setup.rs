//! What the settings of a run and the plans of its domains ask of a session.

use super::config::RunConfig;
use super::footprint::{Footprint, Memory};
use super::session::{Freeze, SessionSettings, workloads};
use super::targets::{DomainBatch, Targets};
use crate::base::Result;
use crate::domain::DomainPlan;
use crate::engine::graph::Caps;
use crate::engine::plan::Workload;
use crate::net::{DomainNet, NetConfig};

/// Bytes for each voxel of a patch in the making: two images of four channels, labels, and the box of a case around it.
const PATCH_VOXEL: u64 = 64;

/// Bytes that cases and patches take at most, told before any case is read.
pub fn reserved(config: &RunConfig, plans: &[DomainPlan]) -> u64 {
    let voxels = plans.iter().map(|d| d.patch.iter().product::<usize>()).max().unwrap_or(0);
    config.case_bytes() + voxels as u64 * PATCH_VOXEL
}

/// The network of these domains.
pub(super) fn network(config: &RunConfig, plans: &[DomainPlan]) -> NetConfig {
    let domain = |d: &DomainPlan| DomainNet {
        name: d.name.clone(),
        channels: d.channels,
        classes: d.labels.outputs(),
        pools: d.pools,
    };
    NetConfig {
        mode: config.mode,
        adapter: config.adapter,
        downsample: config.downsample,
        base: config.base,
        domains: plans.iter().map(domain).collect(),
    }
}

/// The batch of each domain.
pub(super) fn batches(plans: &[DomainPlan]) -> Vec<DomainBatch> {
    let batch = |d: &DomainPlan| {
        let targets = Targets { regions: d.labels.region_bits(), partial: d.labels.partial };
        DomainBatch { targets, ..DomainBatch::new(d.batch, d.patch) }
    };
    plans.iter().map(batch).collect()
}

/// How a session trains, where cases and patches take `reserved` bytes.
pub(super) fn settings(config: &RunConfig, reserved: u64) -> SessionSettings {
    SessionSettings {
        loss: config.loss,
        optimizer: config.optimizer,
        freeze: config.start.as_ref().map_or(Freeze::Nothing, |start| start.freeze),
        footprint: Footprint { dtype: config.dtype, vram: config.vram, reserved },
        average: config.average(),
    }
}

/// Memory that training these domains takes on an adapter.
///
/// # Errors
///
/// Where the budget of the settings is too small.
pub fn planned_memory(config: &RunConfig, plans: &[DomainPlan], caps: &Caps) -> Result<Memory> {
    let settings = settings(config, reserved(config, plans));
    Memory::planned(&network(config, plans), &batches(plans), &settings, caps)
}

/// The least that training these domains takes, with all recomputed that pays.
pub(super) fn least_memory(
    config: &RunConfig,
    plans: &[DomainPlan],
    caps: &Caps,
) -> Result<Memory> {
    let settings = settings(config, 0);
    Memory::least(&network(config, plans), &batches(plans), &settings, caps)
}

/// What training these domains runs: what is tuned.
pub fn planned_workloads(config: &RunConfig, plans: &[DomainPlan]) -> Result<Vec<Workload>> {
    workloads(&network(config, plans), &batches(plans), &settings(config, 0))
}
