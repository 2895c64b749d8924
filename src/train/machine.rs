//! What a run takes of the machine's main memory and of the disk, estimated before anything is prepared.

use super::batches::{AHEAD, AHEAD_BYTES};
use super::cases::{Preparing, planned_cases};
use super::config::RunConfig;
use super::footprint::Memory;
use crate::base::Result;
use crate::domain::{DomainPlan, PresetChoice};
use crate::engine::graph::Caps;
use crate::imaging;
use crate::patch::{PatchSize, Reach};

/// Bytes of a run outside of the GPU's memory, about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct MachineBytes {
    /// Main memory while cases are prepared, where some are not yet, and in training, whichever is more.
    pub host: u64,
    /// The disk, once all cases are prepared: at most, as images of noise take it.
    pub disk: u64,
    /// The part of that which is prepared already.
    pub prepared: u64,
}

/// A run as it is planned.
#[derive(Clone, Copy)]
pub struct Planned<'a> {
    /// Its settings.
    pub config: &'a RunConfig,
    /// The plan of each domain.
    pub domains: &'a [DomainPlan],
    /// What it takes of the GPU.
    pub memory: &'a Memory,
    /// Where it runs.
    pub caps: &'a Caps,
}

/// The program itself, with shaders and the graphics driver.
const PROGRAM: u64 = 160 << 20;

impl MachineBytes {
    /// Those of a planned run; what its cases hold is known then.
    ///
    /// # Errors
    ///
    /// Where a case cannot be read any more.
    pub fn of(
        run: &Planned<'_>,
        preset: &PresetChoice,
        preparing: &mut Preparing<'_>,
    ) -> Result<Self> {
        let mut bytes = Self::default();
        let (mut making, mut ahead) = (0, 0);
        for cases in planned_cases(run.config, run.domains, preset, preparing.store)? {
            let summaries = cases.summaries(preparing.tell)?;
            let domain = cases.domain;
            let size = PatchSize { crop: domain.crop_size(), patch: domain.patch };
            let reach = Reach::of(&size, domain.spacing, &run.config.augment);
            let voxel = 4 * domain.channels as u64 + 1;
            let voxels = |shape: [usize; 3]| shape.iter().product::<usize>() as u64;
            for summary in &summaries {
                let shape =
                    imaging::resampled_size(summary.cropped, summary.spacing, domain.spacing)?;
                bytes.disk += voxels(shape) * voxel;
                let drawn = voxels(reach.bounds(shape)) * voxel * domain.batch as u64;
                ahead = ahead.max(drawn);
            }
            let kept = cases.kept();
            if kept.cases < summaries.len() {
                making = making.max(cases.making());
            }
            bytes.prepared += kept.bytes;
        }
        let on_gpu = run.memory.total() + run.config.case_bytes();
        let training = (ahead * AHEAD as u64).min(AHEAD_BYTES.max(3 * ahead))
            + run.memory.read_back
            + if run.caps.software { on_gpu } else { 0 };
        bytes.host = PROGRAM + training.max(making);
        Ok(bytes)
    }
}
