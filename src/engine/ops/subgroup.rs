//! Kernels whose subgroups share what each invocation loaded.

use crate::base::{Error, Result};
use crate::engine::graph::Caps;
use crate::engine::shader::KernelKey;

/// Lanes of a subgroup where all have as many, so that a workgroup can be one of them.
pub fn fixed(caps: &Caps) -> Option<usize> {
    let lanes = caps.subgroup_size;
    ((4..=64).contains(&lanes) && lanes.is_power_of_two()).then_some(lanes as usize)
}

/// Lanes of a subgroup on adapters that compute on the CPU, where loads are so dear that its invocations share what each of them loaded
/// wherever they can.
pub fn sharing(caps: &Caps) -> Option<usize> {
    fixed(caps).filter(|_| caps.software)
}

/// What [`sharing`] says, where a tile was chosen that needs it.
pub fn shared(caps: &Caps, name: &str) -> Result<usize> {
    sharing(caps).ok_or_else(|| Error::Internal(format!("{name}: no subgroups to share loads")))
}

/// What the kernels that share loads ride on.
pub struct Subgroup {
    /// Its invocations.
    pub lanes: usize,
    /// Those that are neighbours along H.
    pub run: usize,
}

/// The row that a subgroup loads.
#[derive(Debug, Clone, Copy)]
pub struct SharedRow {
    /// Inputs along W.
    pub inputs: usize,
    /// Weights of a tap.
    pub columns: usize,
    /// Stride along H.
    pub stride: usize,
}

impl Subgroup {
    /// For `height` lines of what the kernel `name` makes.
    pub fn new(height: usize, caps: &Caps, name: &str) -> Result<Self> {
        let lanes = shared(caps, name)?;
        Ok(Self { lanes, run: shared_run(height, lanes) })
    }

    /// Workgroups for so many runs of lines.
    pub fn groups(&self, runs: usize) -> usize {
        runs.div_ceil(self.lanes / self.run)
    }

    /// The key of such a kernel; three taps along H are a given.
    pub fn key(&self, mut key: KernelKey, file: &'static str, row: SharedRow) -> KernelKey {
        key.file = file;
        key.overrides.retain(|(name, _)| !["KH", "SH"].contains(name));
        let Self { lanes, run } = self;
        key.tile("SUB", *lanes as u32)
            .tile("ROW", row.inputs as u32)
            .tile("ROUNDS", row.columns.div_ceil(*lanes) as u32)
            .tile("RUN", *run as u32)
            .tile("RUNS", (lanes / run) as u32)
            .tile("CHUNKS", row.inputs.div_ceil(*run) as u32)
            .tile("EDGES", 3 - row.stride as u32)
            .tile("SH", row.stride as u32)
    }
}

/// Neighbours along H that share rows of three, of the lanes of a subgroup: of the counts that divide these, the one that wastes
/// least, where two rows more than its own cost a run as much as its own do.
fn shared_run(height: usize, lanes: usize) -> usize {
    let counts = (0..=lanes.ilog2()).rev().map(|power| 1 << power);
    counts.min_by_key(|run| height.div_ceil(*run) * (run + 2)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_fill_the_lines() {
        assert_eq!([56, 28, 7, 3, 1].map(|height| shared_run(height, 8)), [8, 8, 8, 4, 1]);
        assert_eq!(shared_run(100, 64), 16);
        assert_eq!(shared_run(9, 64), 16);
    }
}
