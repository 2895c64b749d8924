//! LeakyReLU, addition, nearest upsampling; and dispatches of more groups than one dimension holds.

use u2seg::low_level::activation::Activation;
use u2seg::low_level::exec::caps;
use u2seg::low_level::gpu::Gpu;
use u2seg::low_level::graph::{Caps, DType};
use u2seg::low_level::ops;
use u2seg::low_level::oracle;
use u2seg::low_level::oracle::Tensor;
use u2seg::low_level::plan::Plan;

use super::harness::*;
use crate::common;

/// `after(a + b)`, where `b` may be absent.
struct Case {
    n: usize,
    channels: usize,
    /// Size of the sum.
    spatial: [usize; 3],
    a: Prep,
    b: Option<Prep>,
    after: Prep,
}

fn stage(caps: &Way, case: &Case, prep: Prep, name: &str, seed: u64) -> (Tensor, Stage) {
    let size = std::array::from_fn(|a| case.spatial[a] / prep.up[a]);
    let x = as_stored(caps, &tensor(case.n, case.channels, size, seed));
    let stage = Stage::new(prep, name, &x, seed + 50);
    (x, stage)
}

fn run(gpu: &Gpu, caps: &Way, case: &Case, what: &str) -> usize {
    let mut sides = vec![stage(caps, case, case.a, "a", 1)];
    sides.extend(case.b.map(|b| stage(caps, case, b, "b", 2)));
    let first = sides[0].1.y.clone();
    let sum = sides[1..].iter().fold(first, |sum, side| oracle::add_forward(&sum, &side.1.y));
    let after = Stage::new(case.after, "after", &sum, 3);
    let dy = Tensor { shape: after.y.shape, data: random(after.y.data.len(), 4) };
    let dy = as_stored(caps, &dy);
    let (ds, after_affine) = after.backward(&dy);

    let mut rig = Rig::new(gpu, caps);
    let inputs: Vec<_> = sides.iter().map(|(x, _)| rig.input(x)).collect();
    let mut y = sides[0].1.build(&mut rig, inputs[0]);
    if let Some((_, b)) = sides.get(1) {
        let b = b.build(&mut rig, inputs[1]);
        y = ops::add(&mut rig.graph, y, b).unwrap();
    }
    let out = after.build(&mut rig, y);
    let grads = rig.backward(out, &dy);
    let y = rig.kept(out);
    let kept: Vec<_> = inputs.iter().map(|x| rig.kept_gradient(&grads, *x)).collect();
    let ran = rig.run();
    ran.close(&format!("{what} y"), &ran.tensor(y), &after.y.data, 2e-5);
    for ((_, stage), dx) in sides.iter().zip(kept) {
        let (expected, affine) = stage.backward(&ds);
        ran.close(&format!("{what} dx"), &ran.tensor(dx), &expected.data, 1e-4);
        stage.check_affine(what, &ran, &affine);
    }
    after.check_affine(what, &ran, &after_affine);
    ran.variants
}

fn check(test: &str, cases: &[Case]) {
    let gpu = common::gpu();
    for (index, case) in cases.iter().enumerate() {
        every_plan(&gpu, case.spatial.iter().product(), |plan, caps| {
            run(&gpu, caps, case, &format!("{test} {index} planned for {plan}:"))
        });
    }
}

const UP: Prep = Prep { up: [2, 2, 2], ..PLAIN };

fn one(n: usize, channels: usize, spatial: [usize; 3], a: Prep) -> Case {
    Case { n, channels, spatial, a, b: None, after: PLAIN }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn additions() {
    check(
        "add",
        &[
            Case { b: Some(PLAIN), ..one(1, 1, [1, 1, 1], PLAIN) },
            Case { b: Some(PLAIN), ..one(2, 5, [3, 5, 7], PLAIN) },
            Case { b: Some(NORM_ACT), ..one(2, 6, [4, 3, 6], NORM) },
            Case { b: Some(NORM_ACT), after: NORM_ACT, ..one(2, 9, [4, 6, 2], UP) },
            Case { b: Some(Prep { up: [1, 2, 2], ..NORM }), ..one(1, 4, [5, 4, 6], ACT) },
            Case { b: Some(PLAIN), after: ACT, ..one(3, 3, [9, 8, 7], PLAIN) },
        ],
    );
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn activations_and_norms() {
    check(
        "norm and activation",
        &[
            one(1, 1, [1, 1, 1], ACT),
            one(2, 5, [3, 5, 7], ACT),
            one(1, 2, [1, 1, 1], NORM),
            one(2, 5, [3, 5, 7], NORM),
            one(2, 4, [2, 1, 1], NORM_ACT),
            one(1, 6, [11, 13, 17], NORM_ACT),
            one(2, 3, [19, 21, 23], NORM),
            // many chunks a channel
            one(1, 9, [32, 31, 33], NORM_ACT),
        ],
    );
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn upsamplings() {
    check(
        "upsample",
        &[
            one(1, 1, [2, 2, 2], UP),
            one(2, 5, [6, 5, 9], Prep { up: [2, 1, 3], ..PLAIN }),
            one(2, 7, [3, 4, 6], Prep { up: [1, 2, 2], ..NORM_ACT }),
            one(1, 4, [4, 6, 8], Prep { up: [4, 2, 1], ..ACT }),
            Case { b: Some(UP), after: NORM_ACT, ..one(1, 4, [4, 6, 8], UP) },
        ],
    );
}

/// One thread a voxel: 2²² + 77 voxels take more than 65,535 groups of 64.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn more_groups_than_one_dimension_holds() {
    let gpu = common::gpu();
    let caps = Caps { software: false, ..caps(&gpu) };
    let n = (1 << 22) + 78;
    let x = tensor(1, 2, [1, 1, n / 2], 1);
    let mut rig = Rig::new(&gpu, &Way { caps: caps.clone(), dtype: DType::F32 });
    let value = rig.input(&x);
    let up = ops::upsample(&mut rig.graph, value, [1, 1, 2]).unwrap();
    let act = ops::activate(&mut rig.graph, up, Activation::LeakyRelu).unwrap();
    let dy = tensor(1, 2, [1, 1, n], 2);
    let grads = rig.backward(act, &dy);
    let dx = rig.kept_gradient(&grads, value);
    let y = rig.kept(act);
    let labels = ops::argmax(&mut rig.graph, y).unwrap();
    rig.graph.keep(labels);
    let plan = Plan::new(&rig.graph, &caps, &Default::default()).unwrap();
    let groups = plan.dispatches().map(|d| u64::from(d.groups[0]) * u64::from(d.groups[1]));
    let many = groups.filter(|groups| *groups > 65_535).count();
    assert!(many >= 2, "{many} dispatches of many groups");
    let ran = rig.run();
    let expected = oracle::upsample_forward(&x, [1, 1, 2]);
    let acted = oracle::activation_forward(Activation::LeakyRelu, &expected);
    close("y", &ran.tensor(y), &acted.data, 1e-6);
    let words: Vec<u32> = ran.words(labels);
    let classes: Vec<u32> = oracle::argmax(&acted).into_iter().map(u32::from).collect();
    assert!(words[..n] == classes[..], "argmax differs");
    let da = oracle::activation_backward(Activation::LeakyRelu, &expected, &dy);
    let expected = oracle::upsample_backward(x.shape, [1, 1, 2], &da);
    close("dx", &ran.tensor(dx), &expected.data, 1e-6);
}
