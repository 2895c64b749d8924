//! What the table's rows must hold to, beside what one test an operation asks.

use std::io::Write;

use super::plannings::HALF_FACTORS;
use super::runner::Subject;
use super::*;
use crate::engine::exec::caps;
use crate::engine::gpu::Gpu;
use crate::engine::gpu::testing::gpu;
use crate::engine::plan::{Plan, PlanRequest};
use crate::engine::shader::Tuning;

fn operation(name: &str) -> &'static Operation {
    OPERATIONS.iter().find(|operation| operation.name == name).expect(name)
}

/// Runs an operation's cases in every way, fails with all rows that fail, and returns the rows.
fn run(name: &str, gpu: &Gpu) -> Vec<Row> {
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    let operation = std::slice::from_ref(operation(name));
    let all = Picked { extent: Extent::All, part: "" };
    examine(operation, gpu, all, |of_case| {
        for row in &of_case {
            let Row { case, planning, inference, variant, failure, .. } = row;
            let Some(why) = failure else { continue };
            let at = format!("planned for {planning}, inference {inference}, variant {variant}");
            failed.push(format!("{case}; {at}: {why}"));
        }
        rows.extend(of_case);
        Ok(())
    })
    .unwrap();
    assert!(failed.is_empty(), "{} of {} fail:\n{}", failed.len(), rows.len(), failed.join("\n"));
    rows
}

const COOPERATIVE: &str = "convolutions by cooperative matrices";
const HALVES: &str = "convolutions with factors in f16";
const MANY_GROUPS: &str = "many groups";
const THREE_TAPS: &str = "convolutions with three taps";

/// The test of an operation.
pub fn hold(name: &str) {
    let gpu = gpu();
    let rows = run(name, &gpu);
    match name {
        COOPERATIVE => every_kind_of_matrices_ran(&gpu, &rows),
        HALVES => factors_in_halves_ran(&gpu, &rows),
        MANY_GROUPS => more_groups_than_one_dimension_holds(&gpu),
        THREE_TAPS => parts_were_summed(&rows),
        _ => assert!(!rows.is_empty()),
    }
}

/// Says which kinds of matrices the adapter has not. f32 factors are also in the other cases, as every variant of tensors in f32.
fn every_kind_of_matrices_ran(gpu: &Gpu, rows: &[Row]) {
    let sides = caps(gpu).cooperative;
    for (bits, side) in [(32, sides.f32), (16, sides.f16)] {
        if side == 0 {
            let name = &gpu.report().name;
            // past the capture of tests that pass
            writeln!(
                std::io::stderr(),
                "pointwise_coop.wgsl, pointwise_weight_coop.wgsl and conv_coop.wgsl with f{bits} factors are NOT RUN: {name} has no such matrices"
            )
            .unwrap();
            continue;
        }
        let part = format!("cooperative f{bits} SIDE={side} ");
        let tried: BTreeSet<&String> =
            rows.iter().flat_map(|row| &row.variants).filter(|name| name.contains(&part)).collect();
        // of all kernels 32 and 64 channels, two sizes of workgroups at least
        for family in ["pointwise ", "pointwise_weight ", "conv ", "conv-input "] {
            let tried = tried.iter().filter(|variant| variant.starts_with(family)).count();
            assert!(tried >= 4, "{family}{part}: {tried}");
        }
    }
}

/// Says where the adapter does not reckon in f16.
fn factors_in_halves_ran(gpu: &Gpu, rows: &[Row]) {
    if !caps(gpu).f16 {
        let name = &gpu.report().name;
        // past the capture of tests that pass
        writeln!(
            std::io::stderr(),
            "conv_staged.wgsl and conv_input_staged.wgsl with factors in f16 are NOT RUN: {name} does not reckon in f16"
        )
        .unwrap();
        return;
    }
    for family in ["conv ", "conv-input "] {
        let tried = rows.iter().flat_map(|row| &row.variants);
        let tried = tried.filter(|name| name.starts_with(family) && name.contains(HALF_FACTORS));
        assert!(tried.count() >= 12, "{family}");
    }
}

/// Some cases have channels enough to be cut along the input, with a bias, onto what is there, and into f16.
fn parts_were_summed(rows: &[Row]) {
    let summed = |row: &&Row| row.kernels.contains("conv_sum.wgsl");
    let concatenated = |row: &&Row| row.case.contains(" + ");
    assert!(rows.iter().filter(summed).count() >= 10);
    assert!(rows.iter().filter(summed).any(|row| concatenated(&row)));
}

fn more_groups_than_one_dimension_holds(gpu: &Gpu) {
    // the variant of additions that takes a thread for each voxel
    let tuning = Tuning::at(1).into();
    let caps = Caps { software: false, tuning, ..caps(gpu) };
    let Case::Graph(case) = operation(MANY_GROUPS).cases().remove(0) else { panic!("a graph") };
    let mut net = Net::new(Purpose::Training);
    case.build(&mut net).unwrap();
    let plan = Plan::new(&net.graph, &caps, &PlanRequest::default()).unwrap();
    let groups = plan.dispatches().map(|d| u64::from(d.groups[0]) * u64::from(d.groups[1]));
    let many = groups.filter(|groups| *groups > 65_535).count();
    assert!(many >= 2, "{many} dispatches of many groups");
}

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
    let gpu = gpu();
    let case = OPERATIONS[0].cases().remove(0);
    let mut planning = case.plannings(&caps(&gpu)).remove(0);
    let subject = Subject::new("first", case);
    let good = subject.row(&gpu, &planning, 0, Purpose::Training).row;
    assert!(good.passed() && good.error < 1e-4 && !good.kernels.is_empty(), "{good:?}");
    assert!(good.operations > 0 && good.bytes > 0);
    planning.caps = Caps { max_binding: 1, alignment: 1, ..planning.caps };
    let bad = subject.row(&gpu, &planning, 0, Purpose::Training).row;
    assert!(!bad.passed() && bad.share > 1.0, "{bad:?}");
    let kernels = by_kernel(&[good, bad]);
    assert!(kernels.values().all(|summary| summary.checks == 1 && summary.failed == 0));
}
