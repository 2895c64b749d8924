//! The table of cases: for each operation how its graph is built, what goes in, its oracle, and how far results may be off. Tests,
//! `u2seg doctor` and `u2seg bench --kernels` run this one table.

mod ahead;
mod case;
mod conv;
mod depthwise;
mod elementwise;
mod layer;
mod loss;
mod measure;
mod merge;
mod net;
mod plannings;
mod region;
mod rig;
mod runner;
mod slab;
mod stages;
mod uncertainty;
mod update;

use std::collections::{BTreeMap, BTreeSet};

pub use case::{Case, GraphCase};
pub use measure::{Compared, Tolerance};
pub use net::{Net, Purpose, Truth, as_stored, gradient_of, labels, random, tensor};
pub use plannings::{Planning, Variants, plannings};
pub use rig::{Ran, Rig};
pub use runner::{Picked, examine};
pub use update::Update;

use crate::engine::graph::Caps;

/// An operation, or several that go together, with its cases.
pub struct Operation {
    /// Its name in reports.
    pub name: &'static str,
    cases: fn() -> Vec<Case>,
}

macro_rules! table {
    ($($test:ident: $name:literal, $cases:expr;)*) => {
        /// The table.
        pub const OPERATIONS: &[Operation] = &[$(Operation { name: $name, cases: $cases }),*];

        #[cfg(test)]
        mod table {
            $(
                #[test]
                #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
                fn $test() {
                    super::tests::hold($name);
                }
            )*
        }
    };
}

// the name of a test, the name in reports, and the cases
table! {
    three_taps: "convolutions with three taps", conv::three_taps;
    strided_and_padded: "strided and padded convolutions", conv::strided_and_padded;
    pointwise: "pointwise convolutions", conv::pointwise;
    cooperative: "convolutions by cooperative matrices", conv::cooperative_matrices;
    factors_in_halves: "convolutions with factors in f16", conv::factors_in_halves;
    depthwise: "depthwise convolutions", depthwise::cases;
    additions: "additions", elementwise::additions;
    activations_and_norms: "activations and norms", elementwise::activations_and_norms;
    upsamplings: "upsamplings", elementwise::upsamplings;
    many_groups: "many groups", elementwise::many_groups;
    losses: "losses", loss::losses;
    probabilities_and_classes: "probabilities and classes", loss::probabilities_and_classes;
    losses_of_regions: "losses of regions", region::cases;
    merged_classes: "merged classes", merge::merged;
    losses_of_merged_classes: "losses of merged classes", merge::losses;
    windows: "windows of a volume", || slab_cases(slab::windows);
    resampled: "resampled planes and rows", || slab_cases(slab::resampled);
    decided: "labels and probabilities of slabs", || slab_cases(slab::decided);
    uncertain: "entropy and spread of probabilities", || slab_cases(uncertainty::uncertain);
    updates: "updates", || update::plain().into_iter().map(Case::Update).collect();
    scaled_updates: "updates with a loss scale", || update::scaled().into_iter().map(Case::Update).collect();
}

fn slab_cases(list: fn() -> Vec<slab::SlabCase>) -> Vec<Case> {
    list().into_iter().map(Case::Slab).collect()
}

/// Cases of the network's shapes, to be timed; no oracle looks at them.
pub fn timed() -> Vec<Case> {
    let lists = [conv::timed, depthwise::timed, elementwise::timed, loss::timed, region::timed];
    lists.iter().flat_map(|list| list()).collect()
}

/// How much of the table runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Every case in every variant, planned as for the adapter's own kind alone.
    Quick,
    /// Every case in every way that suits the adapter: those for adapters on the CPU on such adapters alone.
    Adapter,
    /// Every case in every way.
    All,
}

impl Extent {
    fn holds(self, planning: &Planning, own: &Caps) -> bool {
        match self {
            Self::All => true,
            Self::Adapter => own.software || !planning.caps.software,
            Self::Quick => planning.plain && planning.caps.software == own.software,
        }
    }
}

/// What one case found in one variant of its kernels.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Row {
    /// The operation's name.
    pub operation: &'static str,
    /// The case's name.
    pub case: String,
    /// What it was planned for.
    pub planning: String,
    /// Whether it ran without gradients.
    pub inference: bool,
    /// Position of the variant that every kernel took, where it has so many.
    pub variant: usize,
    /// Kernels that ran in it, file below `shaders/`.
    pub kernels: BTreeSet<&'static str>,
    /// Family and name of the variants that ran in it.
    pub variants: BTreeSet<String>,
    /// Whether tensors were stored in f16.
    pub halves: bool,
    /// Largest error of a value over what its tolerance allows: above 1 fails.
    pub share: f64,
    /// Largest error of a value, as its tolerance measures it.
    pub error: f64,
    /// What failed: a tensor with its error, or what the adapter said.
    pub failure: Option<String>,
    /// Arithmetic operations of its kernels.
    pub operations: u64,
    /// Bytes that its kernels must move.
    pub bytes: u64,
}

impl Row {
    /// Whether every value is as it should be.
    pub fn passed(&self) -> bool {
        self.failure.is_none()
    }

    fn take(&mut self, ran: Ran) {
        self.kernels = ran.kernels.into_iter().collect();
        let variants = ran.choices.iter();
        self.variants = variants.map(|c| format!("{} {}", c.family(), c.variant())).collect();
        (self.operations, self.bytes) = (ran.operations, ran.bytes);
        for compared in ran.compared {
            let share = compared.share();
            if share > 1.0 && share > self.share {
                let Compared { what, error, allowed } = &compared;
                self.failure =
                    Some(format!("{what} is off by {error:.1e}, {allowed:.0e} is allowed"));
            }
            self.share = self.share.max(share);
            self.error = self.error.max(compared.error);
        }
    }
}

/// One kernel over all rows.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct KernelSummary {
    /// Rows in which it ran.
    pub checks: usize,
    /// Rows that failed and in which it ran: it need not be the one that is wrong.
    pub failed: usize,
    /// Largest error of a row in which it ran on tensors in f32.
    pub error: f64,
    /// Largest share of what is allowed, of a row in which it ran.
    pub share: f64,
}

impl Operation {
    /// Its cases.
    pub fn cases(&self) -> Vec<Case> {
        (self.cases)()
    }
}

/// The rows by kernel.
pub fn by_kernel(rows: &[Row]) -> BTreeMap<&'static str, KernelSummary> {
    let mut kernels: BTreeMap<&'static str, KernelSummary> = BTreeMap::new();
    for row in rows {
        for kernel in &row.kernels {
            let summary = kernels.entry(kernel).or_default();
            summary.checks += 1;
            summary.failed += usize::from(!row.passed());
            summary.share = summary.share.max(row.share);
            if !row.halves {
                summary.error = summary.error.max(row.error);
            }
        }
    }
    kernels
}

#[cfg(test)]
mod tests;
