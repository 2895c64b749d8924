//! What a tensor stored in f16 holds.

use half::f16;
use u2seg::low_level::exec::{Pool, Program, Store, caps};
use u2seg::low_level::graph::{DType, Graph, Layout};
use u2seg::low_level::ops;
use u2seg::low_level::plan::{Plan, PlanRequest};

use crate::common;

/// Stores f32 values in f16 on the adapter, by adding zeros.
fn stored(values: &[f32]) -> Vec<u16> {
    let gpu = common::gpu();
    let caps = caps(&gpu);
    let mut graph = Graph::new();
    let layout = Layout::new(1, 4, [1, 1, values.len() / 4]);
    let (x, zero) = (graph.input("x", layout.clone()), graph.input("zero", layout.clone()));
    let sum = ops::add(&mut graph, x, zero).unwrap();
    graph.keep(sum);
    let options = PlanRequest { tensors: DType::F16, ..PlanRequest::default() };
    let plan = Plan::new(&graph, &caps, &options).unwrap();
    let store = Store::new(&gpu, graph.params(), false).unwrap();
    let pool = Pool::new(&gpu, [&plan]).unwrap();
    let program = Program::new(&gpu, &plan, &[], &store, &pool).unwrap();
    program.write(&gpu, x, values).unwrap();
    program.write(&gpu, zero, &vec![0.0f32; values.len()]).unwrap();
    program.run(&gpu).unwrap();
    let mut found: Vec<u16> = program.read(&gpu, sum).unwrap();
    found.truncate(values.len());
    found
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn values_round_to_f16_and_to_infinity_beyond_it() {
    let plain = [1.0, -1.0, 0.1, 65504.0, -65504.0, 6.1e-5, 3.0e-6, 1e-9, 1234.567, -0.3, 0.0, 7e4];
    let mut values = plain.to_vec();
    values.extend([-7e4, 1e30, -1e30, f32::INFINITY, f32::NEG_INFINITY, 3.4e38, f32::NAN, 2.0]);
    let found = stored(&values);
    for (value, bits) in values.iter().zip(found) {
        let found = f16::from_bits(bits).to_f32();
        if value.abs() <= 65504.0 {
            // rounded, not truncated by more than a unit in the last place; what is subnormal may be flushed
            let unit = (value.abs() / 1024.0).max(6.2e-5 / 1024.0);
            let flushed = value.abs() < 6.2e-5 && found == 0.0;
            assert!((found - value).abs() <= unit || flushed, "{value} is stored as {found}");
        } else {
            assert!(!found.is_finite(), "{value} is stored as {found}");
            assert!(value.is_nan() || found.is_sign_positive() == value.is_sign_positive());
        }
    }
}

#[test]
fn layouts_take_half_the_words_but_no_less_than_a_vector() {
    let layout = |channels, voxels| Layout::new(1, channels, [1, 1, voxels]);
    assert_eq!(DType::F32.words(&layout(8, 10)), 80);
    assert_eq!(DType::F16.words(&layout(8, 10)), 40);
    assert_eq!(DType::F16.words(&layout(4, 1)), 4);
    assert_eq!(DType::F16.words(&layout(4, 3)), 8);
}
