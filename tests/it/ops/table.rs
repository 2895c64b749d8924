//! The table of cases, a test an operation.

use std::collections::BTreeSet;
use std::io::Write;

use u2seg::low_level::check::{Case, Extent, Net, OPERATIONS, Operation, Purpose, Row};
use u2seg::low_level::exec::caps;
use u2seg::low_level::graph::Caps;
use u2seg::low_level::plan::{Plan, PlanRequest};

use crate::common;

fn operation(name: &str) -> &'static Operation {
    OPERATIONS.iter().find(|operation| operation.name == name).expect(name)
}

/// Runs an operation's cases in every way, fails with all rows that fail, and returns the rows.
fn run(name: &str) -> Vec<Row> {
    let gpu = common::gpu();
    let (mut rows, mut failed) = (Vec::new(), Vec::new());
    operation(name).examine(&gpu, Extent::All, &mut |row| {
        if let Some(why) = &row.failure {
            let Row { case, planning, inference, variant, .. } = &row;
            let at = format!("planned for {planning}, inference {inference}, variant {variant}");
            failed.push(format!("{case}; {at}: {why}"));
        }
        rows.push(row);
    });
    println!("{name}: {} checks", rows.len());
    assert!(failed.is_empty(), "{} of {} fail:\n{}", failed.len(), rows.len(), failed.join("\n"));
    rows
}

macro_rules! operations {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
            fn $test() {
                assert!(!run($name).is_empty());
            }
        )*

        const TESTED: &[&str] = &[$($name),*];
    };
}

operations! {
    convolutions_with_three_taps: "convolutions with three taps",
    strided_and_padded_convolutions: "strided and padded convolutions",
    pointwise_convolutions: "pointwise convolutions",
    depthwise_convolutions: "depthwise convolutions",
    additions: "additions",
    activations_and_norms: "activations and norms",
    upsamplings: "upsamplings",
    losses_and_their_gradients: "losses",
    probabilities_and_classes: "probabilities and classes",
    losses_of_regions_and_their_gradients: "losses of regions",
    merged_logits_and_their_gradient: "merged classes",
    losses_of_merged_classes: "losses of merged classes",
    updates_follow_the_oracles: "updates",
    a_step_whose_gradients_overflow_changes_nothing_but_the_loss_scale: "updates with a loss scale",
}

const COOPERATIVE: &str = "pointwise convolutions by cooperative matrices";
const MANY_GROUPS: &str = "many groups";

#[test]
fn every_operation_has_a_test() {
    let all: BTreeSet<&str> = OPERATIONS.iter().map(|operation| operation.name).collect();
    let tested = TESTED.iter().copied().chain([COOPERATIVE, MANY_GROUPS]);
    assert_eq!(all, tested.collect());
}

/// Says which kinds of matrices the adapter has not. f32 factors are also in the other cases, as every variant of tensors in f32.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn pointwise_convolutions_by_cooperative_matrices() {
    let gpu = common::gpu();
    let sides = caps(&gpu).cooperative;
    let rows = run(COOPERATIVE);
    for (bits, side) in [(32, sides.f32), (16, sides.f16)] {
        if side == 0 {
            let name = &gpu.report().name;
            // past the capture of tests that pass
            writeln!(
                std::io::stderr(),
                "pointwise_coop.wgsl and pointwise_weight_coop.wgsl with f{bits} factors are NOT RUN: {name} has no such matrices"
            )
            .unwrap();
            continue;
        }
        let part = format!("cooperative f{bits} SIDE={side} ");
        let tried: BTreeSet<&String> =
            rows.iter().flat_map(|row| &row.variants).filter(|name| name.contains(&part)).collect();
        // of both kernels 32 and 64 channels, two sizes of workgroups at least
        for family in ["pointwise ", "pointwise_weight "] {
            let tried = tried.iter().filter(|variant| variant.starts_with(family)).count();
            assert!(tried >= 4, "{family}{part}: {tried}");
        }
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn more_groups_than_one_dimension_holds() {
    let caps = Caps { software: false, ..caps(&common::gpu()) };
    let Case::Graph(case) = operation(MANY_GROUPS).cases().remove(0) else { panic!("a graph") };
    let mut net = Net::new(Purpose::Training);
    case.build(&mut net).unwrap();
    let plan = Plan::new(&net.graph, &caps, &PlanRequest::default()).unwrap();
    let groups = plan.dispatches().map(|d| u64::from(d.groups[0]) * u64::from(d.groups[1]));
    let many = groups.filter(|groups| *groups > 65_535).count();
    assert!(many >= 2, "{many} dispatches of many groups");
    run(MANY_GROUPS);
}
