//! The variants that a run uses, kept with it: others may round differently, and a run goes on bit for bit.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Identity, Mode, Report, drafts, tuned};
use crate::base::files::{read_json, write_atomically};
use crate::base::{Error, Result, Stop};
use crate::engine::exec::caps;
use crate::engine::gpu::Gpu;
use crate::engine::plan::Workload;

/// Adapter and variants of a run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Record {
    #[serde(flatten)]
    identity: Identity,
    /// The variant of every site of the run's graphs, also where it is the default.
    variants: BTreeMap<String, String>,
}

impl Record {
    /// What the workloads run on this device.
    pub fn of(gpu: &Gpu, workloads: &[Workload]) -> Result<Self> {
        // also what the cache knows of other shapes: nodes that are computed again may have theirs
        let mut variants = gpu.tuning().found().clone();
        for draft in drafts(workloads, &caps(gpu))? {
            for node in 0..draft.graph().nodes().len() {
                for choice in draft.lower(node)?.into_iter().filter_map(|d| d.choice) {
                    variants.insert(choice.site.clone(), choice.variant().to_string());
                }
            }
        }
        Ok(Self { identity: Identity::of(gpu), variants })
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(|e| Error::Internal(e.to_string()))?;
        write_atomically(path, &json)
    }

    /// The device as the run in this file uses it. On another adapter, or where the run has no such file, it is what the
    /// cache or the shipped table says.
    pub fn resume(gpu: &Gpu, path: &Path, workloads: &[Workload]) -> Result<(Gpu, Report)> {
        if !path.exists() {
            return tuned(gpu, Mode::Off, workloads, &Stop::default());
        }
        let remedy = "Restore it; or delete it, and the run goes on with the shipped variants.";
        let record: Self = read_json(path, "the variants of a run's kernels", remedy)?;
        if !record.identity.same_adapter(&Identity::of(gpu)) {
            log::warn!(
                "{}: the run began on {}; on {} it goes on with other kernels and rounds differently",
                path.display(),
                record.identity.adapter,
                gpu.report().name
            );
            return tuned(gpu, Mode::Cached, workloads, &Stop::default());
        }
        Ok((gpu.tuned(gpu.shipped()?.with(record.variants)), Report::default()))
    }
}
