//! The table of cases: for each operation how its graph is built, what goes in, its oracle, and how far results may be off. Tests,
//! `u2seg doctor` and `u2seg bench --kernels` run this one table.

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
mod stages;
mod update;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use case::{Case, GraphCase};
pub use measure::{Compared, Tolerance};
pub use net::{Net, Purpose, Truth, as_stored, gradient_of, labels, random, tensor};
pub use plannings::{Planning, Variants, plannings};
pub use rig::{Ran, Rig};
pub use update::Update;

use crate::Result;
use crate::engine::exec::caps;
use crate::engine::gpu::Gpu;
use crate::engine::graph::{Caps, DType};
use crate::engine::shader::Tuning;

/// An operation, or several that go together, with its cases.
pub struct Operation {
    /// Its name in reports.
    pub name: &'static str,
    cases: fn() -> Vec<Case>,
}

/// The table.
pub const OPERATIONS: &[Operation] = &[
    Operation { name: "convolutions with three taps", cases: conv::three_taps },
    Operation { name: "strided and padded convolutions", cases: conv::strided_and_padded },
    Operation { name: "pointwise convolutions", cases: conv::pointwise },
    Operation {
        name: "pointwise convolutions by cooperative matrices",
        cases: conv::cooperative_matrices,
    },
    Operation { name: "depthwise convolutions", cases: depthwise::cases },
    Operation { name: "additions", cases: elementwise::additions },
    Operation { name: "activations and norms", cases: elementwise::activations_and_norms },
    Operation { name: "upsamplings", cases: elementwise::upsamplings },
    Operation { name: "many groups", cases: elementwise::many_groups },
    Operation { name: "losses", cases: loss::losses },
    Operation { name: "probabilities and classes", cases: loss::probabilities_and_classes },
    Operation { name: "losses of regions", cases: region::cases },
    Operation { name: "merged classes", cases: merge::merged },
    Operation { name: "losses of merged classes", cases: merge::losses },
    Operation { name: "updates", cases: || update::plain().map(Case::Update).into() },
    Operation {
        name: "updates with a loss scale",
        cases: || update::scaled().into_iter().map(Case::Update).collect(),
    },
];

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

/// Runs a case as it is; what its oracle says is made once for each way of storing tensors.
struct Runner<'a> {
    gpu: &'a Gpu,
    operation: &'static str,
    case: &'a Case,
    truths: HashMap<DType, Truth>,
}

impl Runner<'_> {
    fn run(&mut self, caps: &Caps, dtype: DType, purpose: Purpose) -> Result<Ran> {
        let case = match self.case {
            Case::Update(case) => return case.run(self.gpu, caps),
            Case::Graph(case) => case,
        };
        let truth = match self.truths.entry(dtype) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(case.truth(dtype)?),
        };
        let rig = Rig::new(self.gpu, caps, dtype, purpose, |net| case.build(net))?;
        rig.run(self.gpu, truth)
    }

    /// The row of a variant, and the names of all variants of its kernels.
    fn row(&mut self, planning: &Planning, variant: usize, purpose: Purpose) -> Examined {
        let mut row = Row {
            operation: self.operation,
            case: self.case.name(),
            planning: planning.name.clone(),
            inference: purpose == Purpose::Inference,
            variant,
            kernels: BTreeSet::new(),
            variants: BTreeSet::new(),
            halves: planning.dtype == DType::F16,
            share: 0.0,
            error: 0.0,
            failure: None,
            operations: 0,
            bytes: 0,
        };
        let tuning = Tuning::at(variant).into();
        let caps = Caps { tuning, ..planning.caps.clone() };
        let mut candidates = Vec::new();
        match self.run(&caps, planning.dtype, purpose) {
            Ok(ran) => {
                candidates.extend(ran.choices.iter().map(|choice| choice.candidates.clone()));
                row.take(ran);
            }
            Err(error) => {
                row.share = f64::INFINITY;
                row.failure = Some(error.to_string());
            }
        }
        Examined { row, candidates }
    }

    fn planning(&mut self, planning: &Planning, each: &mut impl FnMut(Row)) {
        let inference = matches!(self.case, Case::Graph(case) if case.inference());
        let mut purposes = vec![Purpose::Training];
        purposes.extend(inference.then_some(Purpose::Inference));
        let mut positions = vec![0];
        let mut next = 0;
        while next < positions.len() {
            for purpose in &purposes {
                let examined = self.row(planning, positions[next], *purpose);
                if next == 0 && *purpose == Purpose::Training {
                    positions.extend(examined.further(&planning.variants));
                }
                each(examined.row);
            }
            next += 1;
        }
    }
}

/// A row, with all variants that each of its kernels has.
struct Examined {
    row: Row,
    candidates: Vec<Vec<String>>,
}

impl Examined {
    /// Positions beyond the first that are to run, too.
    fn further(&self, variants: &Variants) -> BTreeSet<usize> {
        let wanted = |name: &String| match variants {
            Variants::First => false,
            Variants::All => true,
            Variants::Named(part) => name.contains(part.as_str()),
        };
        let all = self.candidates.iter().flat_map(|names| names.iter().enumerate());
        all.filter(|(position, name)| *position > 0 && wanted(name)).map(|(at, _)| at).collect()
    }
}

impl Operation {
    /// Its cases.
    pub fn cases(&self) -> Vec<Case> {
        (self.cases)()
    }

    /// Runs its cases; `each` is given every row as it is done. Failures are rows, not errors.
    pub fn examine(&self, gpu: &Gpu, extent: Extent, each: &mut impl FnMut(Row)) {
        let own = caps(gpu);
        for case in self.cases() {
            let plannings = case.plannings(&own);
            let truths = HashMap::new();
            let mut runner = Runner { gpu, operation: self.name, case: &case, truths };
            for planning in plannings.iter().filter(|planning| extent.holds(planning, &own)) {
                runner.planning(planning, each);
            }
        }
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
mod tests {
    use super::*;

    #[test]
    fn no_two_cases_have_one_name() {
        let mut names = BTreeSet::new();
        let cases = OPERATIONS.iter().flat_map(Operation::cases);
        for case in cases.chain(timed()) {
            assert!(names.insert(case.name()), "{}", case.name());
        }
    }

    /// What does not fit the adapter becomes a row that fails, with what the planner says.
    #[test]
    #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
    fn a_case_that_cannot_run_is_a_failed_row() {
        let gpu = crate::engine::gpu::testing::gpu();
        let case = OPERATIONS[0].cases().remove(0);
        let truths = HashMap::new();
        let mut runner = Runner { gpu: &gpu, operation: "first", case: &case, truths };
        let mut planning = case.plannings(&caps(&gpu)).remove(0);
        let good = runner.row(&planning, 0, Purpose::Training).row;
        assert!(good.passed() && good.error < 1e-4 && !good.kernels.is_empty(), "{good:?}");
        assert!(good.operations > 0 && good.bytes > 0);
        planning.caps = Caps { max_binding: 1, alignment: 1, ..planning.caps };
        let bad = runner.row(&planning, 0, Purpose::Training).row;
        assert!(!bad.passed() && bad.share > 1.0, "{bad:?}");
        let kernels = by_kernel(&[good, bad]);
        assert!(kernels.values().all(|summary| summary.checks == 1 && summary.failed == 0));
    }
}
