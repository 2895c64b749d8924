//! Runs the table: cases on all cores, so that kernels are compiled while others run, their rows in order.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::available_parallelism;

use super::ahead::in_order;
use super::case::Case;
use super::net::{Purpose, Truth};
use super::plannings::{Planning, Variants};
use super::rig::{Ran, Rig};
use super::{Extent, Operation, Row};
use crate::base::{Error, Result, locked};
use crate::engine::exec::caps;
use crate::engine::gpu::Gpu;
use crate::engine::graph::{Caps, DType};
use crate::engine::shader::Tuning;

/// Threads that compile and run: more would hold more memory than the last of them save time.
const MOST_THREADS: usize = 16;
/// Kernels that stay compiled though nothing uses them: those of a case's neighbours, which are often its own.
const KERNELS: usize = 128;
/// Vectors in a channel block of a case that runs with no other of its size beside it.
const LARGE: usize = 1 << 18;

/// A case, and what its oracle says for each way of storing tensors, made once.
pub(super) struct Subject {
    operation: &'static str,
    case: Case,
    singles: OnceLock<Result<Truth>>,
    halves: OnceLock<Result<Truth>>,
}

impl Subject {
    pub(super) fn new(operation: &'static str, case: Case) -> Self {
        Self { operation, case, singles: OnceLock::new(), halves: OnceLock::new() }
    }

    fn is_large(&self) -> bool {
        matches!(&self.case, Case::Graph(case) if case.vectors() > LARGE)
    }

    fn run(&self, gpu: &Gpu, caps: &Caps, dtype: DType, purpose: Purpose) -> Result<Ran> {
        let case = match &self.case {
            Case::Update(case) => return case.run(gpu, caps),
            Case::Slab(case) => return case.run(gpu, caps),
            Case::Graph(case) => case,
        };
        let known = match dtype {
            DType::F32 => &self.singles,
            DType::F16 => &self.halves,
        };
        let truth = known.get_or_init(|| case.truth(dtype)).as_ref();
        let truth = truth.map_err(|error| Error::Internal(error.to_string()))?;
        let rig = Rig::new(gpu, caps, dtype, purpose, |net| case.build(net))?;
        rig.run(gpu, truth)
    }

    /// The row of a variant, and the names of all variants of its kernels.
    pub(super) fn row(
        &self,
        gpu: &Gpu,
        planning: &Planning,
        variant: usize,
        purpose: Purpose,
    ) -> Examined {
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
        match self.run(gpu, &caps, planning.dtype, purpose) {
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

    /// The rows of a planning: of every variant, for every purpose.
    fn rows(&self, gpu: &Gpu, planning: &Planning) -> Vec<Row> {
        let inference = matches!(&self.case, Case::Graph(case) if case.inference());
        let mut purposes = vec![Purpose::Training];
        purposes.extend(inference.then_some(Purpose::Inference));
        let (mut rows, mut positions, mut next) = (Vec::new(), vec![0], 0);
        while next < positions.len() {
            for purpose in &purposes {
                let examined = self.row(gpu, planning, positions[next], *purpose);
                if next == 0 && *purpose == Purpose::Training {
                    positions.extend(examined.further(&planning.variants));
                }
                rows.push(examined.row);
                gpu.forget_kernels(KERNELS);
            }
            next += 1;
        }
        rows
    }
}

/// A row, with all variants that each of its kernels has.
pub(super) struct Examined {
    pub(super) row: Row,
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

/// A case as it is planned once.
struct Job {
    subject: Arc<Subject>,
    planning: Planning,
    /// Whether no other planning of the case follows.
    last: bool,
}

/// The jobs of an operation, case by case.
fn jobs(operation: &Operation, picked: &Picked<'_>, own: &Caps) -> impl Iterator<Item = Job> {
    let (name, own, extent) = (operation.name, own.clone(), picked.extent);
    let mut cases = operation.cases();
    cases.retain(|case| picked.holds(name, &case.name()));
    cases.into_iter().flat_map(move |case| {
        let mut plannings = case.plannings(&own);
        plannings.retain(|planning| extent.holds(planning, &own));
        let count = plannings.len();
        let subject = Arc::new(Subject::new(name, case));
        plannings.into_iter().zip(1..).map(move |(planning, number)| Job {
            subject: subject.clone(),
            planning,
            last: number == count,
        })
    })
}

/// What of the table runs.
#[derive(Debug, Clone, Copy)]
pub struct Picked<'a> {
    /// In which ways.
    pub extent: Extent,
    /// Only the cases whose name, or whose operation's, holds this.
    pub part: &'a str,
}

impl Picked<'_> {
    fn holds(&self, operation: &str, case: &str) -> bool {
        operation.contains(self.part) || case.contains(self.part)
    }
}

/// Runs the cases of operations; `each` is given all rows of a case when it is done, case by case. Failures are rows; the errors
/// are those of `each`, of which the first ends it.
pub fn examine(
    operations: &[Operation],
    gpu: &Gpu,
    picked: Picked<'_>,
    mut each: impl FnMut(Vec<Row>) -> Result<()>,
) -> Result<()> {
    let own = caps(gpu);
    let threads = available_parallelism().map_or(1, |cores| cores.get().min(MOST_THREADS));
    let large = Mutex::new(());
    let make = |job: Job| {
        let _alone = job.subject.is_large().then(|| locked(&large));
        (job.subject.rows(gpu, &job.planning), job.last)
    };
    let mut rows = Vec::new();
    let all = operations.iter().flat_map(|operation| jobs(operation, &picked, &own));
    in_order(all, threads, make, |(more, last)| {
        rows.extend(more);
        if last { each(std::mem::take(&mut rows)) } else { Ok(()) }
    })
}
