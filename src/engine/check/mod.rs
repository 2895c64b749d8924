//! Every variant of every kernel on the user's own adapter, against the f64 oracles.

mod cases;
mod rig;
mod stages;

use std::collections::{BTreeMap, BTreeSet};

use crate::Result;
use crate::engine::exec::caps;
use crate::engine::gpu::Gpu;
use crate::engine::graph::Caps;
use crate::engine::shader::Tuning;
use cases::Check;

/// What one case found in one variant of its kernels.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Row {
    pub case: &'static str,
    /// Position of the variant that every kernel took, where it has so many.
    pub variant: usize,
    /// Kernels that ran in it, file below `shaders/`.
    pub kernels: BTreeSet<&'static str>,
    /// Largest error of a value over what its tolerance allows: above 1 fails.
    pub share: f64,
    /// Largest error of a value, of the largest in its tensor.
    pub error: f64,
    /// What failed: a tensor with its error, or what the adapter said.
    pub failure: Option<String>,
}

impl Row {
    /// Whether every value is as it should be.
    pub fn passed(&self) -> bool {
        self.failure.is_none()
    }
}

/// One kernel over all rows.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct KernelSummary {
    pub checks: usize,
    /// Rows that failed and in which it ran: it need not be the one that is wrong.
    pub failed: usize,
    /// Largest error of a row in which it ran.
    pub error: f64,
}

/// Runs all cases in all variants; `each` hears of every row as it is done. Failures are rows, not errors.
pub fn examine(gpu: &Gpu, mut each: impl FnMut(&Row)) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for check in cases::all()? {
        let mut most = 1;
        let mut variant = 0;
        while variant < most {
            let caps = Caps { tuning: Tuning::at(variant).into(), ..caps(gpu) };
            let (row, variants) = examined(gpu, &caps, &check, variant);
            each(&row);
            rows.push(row);
            most = most.max(variants);
            variant += 1;
        }
    }
    Ok(rows)
}

fn examined(gpu: &Gpu, caps: &Caps, check: &Check, variant: usize) -> (Row, usize) {
    let mut row = Row {
        case: check.name(),
        variant,
        kernels: BTreeSet::new(),
        share: 0.0,
        error: 0.0,
        failure: None,
    };
    let ran = check.run(gpu, caps);
    let ran = match ran {
        Ok(ran) => ran,
        Err(error) => {
            row.share = f64::INFINITY;
            row.failure = Some(error.to_string());
            return (row, 1);
        }
    };
    row.kernels = ran.kernels;
    for compared in ran.compared {
        let share = compared.error / compared.tolerance;
        if share > 1.0 && share > row.share {
            let rig::Compared { what, error, tolerance } = &compared;
            row.failure = Some(format!("{what} is off by {error:.1e}, {tolerance:.0e} is allowed"));
        }
        row.share = row.share.max(share);
        row.error = row.error.max(compared.error);
    }
    (row, ran.variants)
}

/// The rows by kernel.
pub fn by_kernel(rows: &[Row]) -> BTreeMap<&'static str, KernelSummary> {
    let mut kernels: BTreeMap<&'static str, KernelSummary> = BTreeMap::new();
    for row in rows {
        for kernel in &row.kernels {
            let summary = kernels.entry(kernel).or_default();
            summary.checks += 1;
            summary.failed += usize::from(!row.passed());
            summary.error = summary.error.max(row.error);
        }
    }
    kernels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_of_the_largest_value_and_no_number_fails() {
        assert_eq!(rig::error(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
        assert!((rig::error(&[1.0, 3.0], &[1.0, 4.0]) - 0.25).abs() < 1e-12);
        assert_eq!(rig::error(&[f64::NAN], &[1.0]), f64::INFINITY);
        assert_eq!(rig::error(&[], &[1.0]), f64::INFINITY);
    }

    /// Capabilities that no plan fits make a row that fails, with what the planner says.
    #[test]
    #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
    fn a_case_that_cannot_run_is_a_failed_row() {
        let device = std::env::var("U2SEG_DEVICE").unwrap_or("auto".into());
        let gpu = Gpu::open(&device).unwrap();
        let check = cases::all().unwrap().remove(0);
        let good = examined(&gpu, &caps(&gpu), &check, 0).0;
        assert!(good.passed() && good.error < 1e-4 && !good.kernels.is_empty(), "{good:?}");
        let none = Caps { max_binding: 1, alignment: 1, ..caps(&gpu) };
        let bad = examined(&gpu, &none, &check, 0).0;
        assert!(!bad.passed() && bad.share > 1.0, "{bad:?}");
        let kernels = by_kernel(&[good, bad]);
        assert!(kernels.values().all(|summary| summary.checks == 1 && summary.failed == 0));
    }
}
