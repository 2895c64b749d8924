//! Timings of the kernels of the table of cases, at shapes of the network.

use super::measure::{KernelReport, kernels};
use super::roofline::Roofline;
use crate::base::Result;
use crate::engine::check::{Case, Net, Purpose, Rig, timed};
use crate::engine::exec::caps;
use crate::engine::gpu::Gpu;
use crate::engine::graph::DType;

/// The kernels of one case, forward and backward.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct CaseReport {
    /// The case's name.
    pub case: String,
    /// Its kernels, in order.
    pub kernels: Vec<KernelReport>,
}

/// Times the kernels that `wanted` picks by file: the median of `repeats` runs of each.
pub fn time_table(
    gpu: &Gpu,
    roofline: &Roofline,
    repeats: usize,
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<CaseReport>> {
    let mut reports = Vec::new();
    for case in timed() {
        let Case::Graph(case) = case else { continue };
        let build = |net: &mut Net| case.build(net);
        let rig = Rig::new(gpu, &caps(gpu), DType::F32, Purpose::Training, build)?;
        if !rig.program().describe().iter().any(|command| wanted(command.kernel)) {
            continue;
        }
        rig.fill(gpu)?;
        rig.program().run(gpu)?;
        let mut kernels = kernels(rig.program().time_commands(gpu, repeats)?, roofline);
        kernels.retain(|kernel| wanted(kernel.command.kernel));
        reports.push(CaseReport { case: case.name(), kernels });
    }
    Ok(reports)
}
