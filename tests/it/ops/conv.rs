//! Convolutions, dense and depthwise, with everything that rides on their loads.

use std::collections::BTreeSet;
use std::io::Write;

use u2seg::low_level::exec::caps;
use u2seg::low_level::gpu::Gpu;
use u2seg::low_level::graph::{Caps, DType, Packing, Value};
use u2seg::low_level::ops;
use u2seg::low_level::oracle;
use u2seg::low_level::oracle::Tensor;
use u2seg::low_level::shader::Tuning;

use super::harness::*;
use crate::common;

/// Taps and bias, in files' order.
enum Kind {
    Dense { spec: ops::ConvSpec, out: usize },
    Depthwise,
}

/// A convolution of a concatenation of prepared inputs; its result goes through `after`.
struct Case {
    n: usize,
    /// Channels and preparation of each concatenated part.
    parts: Vec<(usize, Prep)>,
    /// Size of the convolution's input.
    spatial: [usize; 3],
    kind: Kind,
    after: Prep,
    /// Whether a second convolution of the same input is added, so that gradients of the input add up.
    twice: bool,
}

fn oracle_spec(spec: &ops::ConvSpec) -> oracle::ConvSpec {
    let ops::ConvSpec { kernel, stride, pad_lo, pad_hi } = *spec;
    oracle::ConvSpec { kernel, stride, pad_lo, pad_hi }
}

/// Weight and bias of one convolution, and their gradients.
struct Weights {
    w: Vec<f64>,
    b: Vec<f64>,
    dw: Vec<f64>,
    db: Vec<f64>,
}

/// Everything that the oracle knows of a case.
struct Expected {
    raw: Vec<Tensor>,
    stages: Vec<Stage>,
    convs: Vec<Weights>,
    after: Stage,
    /// Gradient that comes in.
    dy: Tensor,
    dx: Vec<Tensor>,
    affine: Vec<Option<[Vec<f64>; 2]>>,
    after_affine: Option<[Vec<f64>; 2]>,
}

impl Kind {
    fn random(&self, channels: usize, seed: u64) -> Weights {
        let (w, b) = match self {
            Self::Dense { spec, out } => (out * channels * spec.taps(), *out),
            Self::Depthwise => (channels * 27, channels),
        };
        Weights { w: random(w, seed), b: random(b, seed + 1), dw: Vec::new(), db: Vec::new() }
    }

    fn forward(&self, x: &Tensor, c: &Weights) -> Tensor {
        match self {
            Self::Dense { spec, out } => {
                oracle::conv_forward(x, &c.w, &c.b, &oracle_spec(spec), *out)
            }
            Self::Depthwise => oracle::depthwise_forward(x, &c.w, &c.b),
        }
    }

    /// Gradient of the input; those of the weights go into `c`.
    fn backward(&self, x: &Tensor, c: &mut Weights, dy: &Tensor) -> Tensor {
        let (dx, dw, db) = match self {
            Self::Dense { spec, .. } => oracle::conv_backward(x, &c.w, &oracle_spec(spec), dy),
            Self::Depthwise => oracle::depthwise_backward(x, &c.w, dy),
        };
        (c.dw, c.db) = (dw, db);
        dx
    }

    fn build(&self, rig: &mut Rig<'_>, x: Value, name: &str, c: &Weights) -> Value {
        let segments = rig.graph.layout(x).unwrap().segments.clone();
        let (weight, outs) = match self {
            Self::Dense { spec, out } => {
                (Packing::Matrix { out: *out, ins: segments, taps: spec.taps() }, vec![*out])
            }
            Self::Depthwise => {
                (Packing::Depthwise { segments: segments.clone(), taps: 27 }, segments)
            }
        };
        let weight = rig.param(&format!("{name}.weight"), weight, &c.w);
        let bias = Packing::Channels { segments: outs };
        let bias = rig.param(&format!("{name}.bias"), bias, &c.b);
        match self {
            Self::Dense { spec, .. } => ops::conv(&mut rig.graph, x, weight, bias, *spec),
            Self::Depthwise => ops::depthwise(&mut rig.graph, x, weight, bias),
        }
        .unwrap()
    }
}

fn expect(case: &Case, caps: &Way) -> Expected {
    let mut raw = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    for (i, (channels, prep)) in case.parts.iter().enumerate() {
        let size = std::array::from_fn(|a| case.spatial[a] / prep.up[a]);
        raw.push(as_stored(caps, &tensor(case.n, *channels, size, 10 + i as u64)));
        stages.push(Stage::new(*prep, &format!("part{i}"), &raw[i], 20 + i as u64));
    }
    let x = stages[1..]
        .iter()
        .fold(stages[0].y.clone(), |all, part| oracle::concat_forward(&all, &part.y));
    let count = if case.twice { 2 } else { 1 };
    let mut convs: Vec<Weights> =
        (0..count).map(|i| case.kind.random(x.shape.c, 100 + 10 * i)).collect();
    let outs: Vec<Tensor> = convs.iter().map(|c| case.kind.forward(&x, c)).collect();
    let y = outs[1..].iter().fold(outs[0].clone(), |sum, y| oracle::add_forward(&sum, y));
    let after = Stage::new(case.after, "after", &y, 3);
    let dy = Tensor { shape: after.y.shape, data: random(after.y.data.len(), 4) };
    let dy = as_stored(caps, &dy);
    let (dr, after_affine) = after.backward(&dy);
    let grads: Vec<Tensor> = convs.iter_mut().map(|c| case.kind.backward(&x, c, &dr)).collect();
    let mut left = grads[1..].iter().fold(grads[0].clone(), |sum, g| oracle::add_forward(&sum, g));
    let (mut dx, mut affine) = (Vec::new(), Vec::new());
    for (i, stage) in stages.iter().enumerate() {
        let own = if i + 1 < stages.len() {
            let (own, rest) = oracle::concat_backward(stage.y.shape.c, &left);
            left = rest;
            own
        } else {
            left.clone()
        };
        let (d, a) = stage.backward(&own);
        dx.push(d);
        affine.push(a);
    }
    Expected { raw, stages, convs, after, dy, dx, affine, after_affine }
}

/// The inputs and the result.
fn build(rig: &mut Rig<'_>, case: &Case, e: &Expected) -> (Vec<Value>, Value) {
    let inputs: Vec<_> = e.raw.iter().map(|x| rig.input(x)).collect();
    let parts: Vec<_> =
        e.stages.iter().zip(&inputs).map(|(stage, x)| stage.build(rig, *x)).collect();
    let x = match parts.as_slice() {
        [one] => *one,
        many => ops::concat(&mut rig.graph, many).unwrap(),
    };
    let mut y = case.kind.build(rig, x, "conv0", &e.convs[0]);
    if let Some(second) = e.convs.get(1) {
        let other = case.kind.build(rig, x, "conv1", second);
        y = ops::add(&mut rig.graph, y, other).unwrap();
    }
    let out = e.after.build(rig, y);
    (inputs, out)
}

fn run(gpu: &Gpu, caps: &Way, case: &Case, e: &Expected, what: &str) -> Ran {
    let mut rig = Rig::new(gpu, caps);
    let (inputs, out) = build(&mut rig, case, e);
    let grads = rig.backward(out, &e.dy);
    let kept_y = rig.kept(out);
    let kept: Vec<_> = inputs.iter().map(|x| rig.kept_gradient(&grads, *x)).collect();
    let ran = rig.run();
    ran.close(&format!("{what} y"), &ran.tensor(kept_y), &e.after.y.data, 2e-5);
    for (i, c) in e.convs.iter().enumerate() {
        ran.close(&format!("{what} dw{i}"), &ran.grad(&format!("conv{i}.weight")), &c.dw, 1e-4);
        let db = ran.grad(&format!("conv{i}.bias"));
        if case.after.norm {
            // the norm takes the mean out: what is left is rounding
            let largest = c.dw.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let bound = if halves(caps) { 5e-3 } else { 1e-5 } * largest.max(1e-1);
            assert!(db.iter().all(|v| v.abs() <= bound), "{what} db{i}: {db:?}");
        } else {
            ran.close(&format!("{what} db{i}"), &db, &c.db, 1e-4);
        }
    }
    for (i, value) in kept.iter().enumerate() {
        ran.close(&format!("{what} dx{i}"), &ran.tensor(*value), &e.dx[i].data, 1e-4);
    }
    for (stage, affine) in e.stages.iter().zip(&e.affine) {
        stage.check_affine(what, &ran, affine);
    }
    e.after.check_affine(what, &ran, &e.after_affine);
    run_forward(gpu, caps, case, e, what);
    ran
}

/// The same without gradients, where kernels may give the moments of a norm along.
fn run_forward(gpu: &Gpu, caps: &Way, case: &Case, e: &Expected, what: &str) {
    if !case.after.norm || case.twice {
        return;
    }
    let mut rig = Rig::new(gpu, caps);
    rig.inference = true;
    let y = build(&mut rig, case, e).1;
    let kept = rig.kept(y);
    let ran = rig.run();
    ran.close(&format!("{what} y alone"), &ran.tensor(kept), &e.after.y.data, 2e-5);
}

fn check(cases: &[Case]) {
    let gpu = common::gpu();
    for (index, case) in cases.iter().enumerate() {
        let voxels = case.spatial.iter().product();
        let plans = plans(&gpu, voxels);
        let (plain, rounded) = (expect(case, &plans[0].1), expect(case, &plans[plans.len() - 1].1));
        every_plan(&gpu, voxels, |plan, caps| {
            let expected = if halves(caps) { &rounded } else { &plain };
            run(&gpu, caps, case, expected, &format!("case {index} planned for {plan}:")).variants
        });
    }
}

const UP: Prep = Prep { up: [2, 2, 2], ..NORM_ACT };
const UP_FLAT: Prep = Prep { up: [1, 2, 2], ..ACT };

fn dense(parts: &[(usize, Prep)], out: usize, spatial: [usize; 3], spec: ops::ConvSpec) -> Case {
    let kind = Kind::Dense { spec, out };
    Case { n: 1, parts: parts.to_vec(), spatial, kind, after: PLAIN, twice: false }
}

fn depthwise(parts: &[(usize, Prep)], spatial: [usize; 3]) -> Case {
    let kind = Kind::Depthwise;
    Case { n: 1, parts: parts.to_vec(), spatial, kind, after: PLAIN, twice: false }
}

fn spec(
    kernel: usize,
    stride: [usize; 3],
    pad_lo: [usize; 3],
    pad_hi: [usize; 3],
) -> ops::ConvSpec {
    ops::ConvSpec { kernel: [kernel; 3], stride, pad_lo, pad_hi }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn convolutions_with_three_taps() {
    let same = ops::ConvSpec::same();
    check(&[
        dense(&[(1, PLAIN)], 1, [1, 1, 1], same),
        dense(&[(5, PLAIN)], 7, [3, 5, 7], same),
        dense(&[(4, NORM_ACT)], 8, [4, 6, 9], same),
        dense(&[(3, ACT)], 2, [1, 1, 9], same),
        dense(&[(17, NORM)], 33, [2, 3, 5], same),
        Case { n: 2, after: NORM_ACT, ..dense(&[(6, NORM_ACT)], 10, [5, 4, 6], same) },
        Case { n: 3, after: ACT, ..dense(&[(2, PLAIN)], 5, [3, 3, 3], same) },
        Case { twice: true, after: NORM, ..dense(&[(9, NORM_ACT)], 6, [3, 4, 5], same) },
        Case { n: 2, ..dense(&[(6, UP), (5, NORM_ACT)], 9, [4, 6, 8], same) },
        Case {
            after: NORM_ACT,
            ..dense(&[(8, UP_FLAT), (3, PLAIN), (4, NORM)], 4, [3, 4, 6], same)
        },
        dense(&[(4, Prep { up: [3, 1, 2], ..PLAIN })], 4, [6, 5, 4], same),
        // several runs of eight lines
        Case { after: NORM_ACT, ..dense(&[(5, NORM_ACT)], 19, [2, 15, 19], same) },
        Case { after: ACT, ..dense(&[(2, PLAIN)], 18, [2, 17, 11], same) },
    ]);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn strided_and_padded_convolutions() {
    let down = ops::ConvSpec::down;
    check(&[
        dense(&[(5, NORM_ACT)], 6, [4, 6, 8], down([2, 2, 2])),
        Case { n: 2, after: NORM_ACT, ..dense(&[(4, NORM_ACT)], 8, [5, 7, 9], down([2, 2, 2])) },
        dense(&[(4, PLAIN)], 4, [3, 8, 6], down([1, 2, 2])),
        dense(&[(3, ACT)], 5, [6, 3, 5], down([2, 1, 1])),
        dense(&[(4, PLAIN)], 4, [4, 3, 11], down([1, 1, 2])),
        Case { twice: true, ..dense(&[(8, NORM_ACT)], 8, [8, 2, 2], down([2, 2, 2])) },
        dense(&[(2, PLAIN)], 3, [2, 2, 2], spec(3, [2; 3], [0; 3], [1; 3])),
        dense(&[(2, PLAIN)], 3, [3, 4, 5], spec(3, [1; 3], [1, 0, 2], [0, 2, 1])),
        dense(&[(3, PLAIN)], 4, [6, 5, 7], spec(3, [2, 1, 2], [2, 0, 0], [0, 0, 2])),
        dense(&[(3, PLAIN)], 2, [3, 3, 3], spec(3, [1; 3], [0; 3], [0; 3])),
        // several runs of eight lines, more output blocks than a tile has, strides along H alone and along W alone
        Case { n: 2, after: NORM_ACT, ..dense(&[(9, ACT)], 34, [3, 30, 13], down([2, 2, 2])) },
        dense(&[(6, NORM_ACT)], 9, [2, 31, 10], down([1, 2, 1])),
        dense(&[(5, UP)], 7, [4, 18, 22], down([2, 1, 2])),
        Case { after: NORM_ACT, ..dense(&[(1, PLAIN)], 18, [3, 8, 9], down([1, 2, 2])) },
    ]);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn pointwise_convolutions() {
    let one = ops::ConvSpec::pointwise();
    check(&[
        dense(&[(1, PLAIN)], 1, [1, 1, 1], one),
        dense(&[(3, NORM_ACT)], 5, [3, 5, 7], one),
        Case { n: 2, after: NORM_ACT, ..dense(&[(16, NORM_ACT)], 16, [4, 5, 6], one) },
        Case { n: 2, after: ACT, ..dense(&[(33, NORM)], 34, [3, 3, 5], one) },
        dense(&[(64, ACT)], 32, [2, 5, 9], one),
        Case { after: NORM_ACT, ..dense(&[(100, NORM_ACT)], 60, [2, 2, 2], one) },
        Case { n: 2, after: NORM_ACT, ..dense(&[(70, UP), (66, ACT)], 75, [4, 6, 4], one) },
        Case { twice: true, n: 2, ..dense(&[(12, NORM_ACT)], 20, [3, 4, 5], one) },
        Case { n: 2, after: NORM_ACT, ..dense(&[(10, UP), (7, NORM_ACT)], 9, [4, 2, 6], one) },
        dense(&[(5, Prep { up: [1, 2, 1], ..NORM })], 6, [3, 4, 5], one),
        dense(&[(6, PLAIN)], 7, [5, 6, 7], spec(1, [2; 3], [0; 3], [0; 3])),
        dense(&[(4, NORM_ACT)], 3, [4, 4, 4], spec(1, [1, 2, 1], [0; 3], [0; 3])),
    ]);
}

/// Positions of the variants whose names hold `part`, and their families with their names.
fn named(ran: &Ran, part: &str) -> (BTreeSet<usize>, BTreeSet<String>) {
    let all = ran.choices.iter().flat_map(|c| c.candidates.iter().enumerate().map(move |v| (c, v)));
    all.filter(|(_, (_, name))| name.contains(part))
        .map(|(choice, (position, name))| (position, format!("{} {name}", choice.family())))
        .unzip()
}

/// Says which kinds of matrices the adapter has not. f32 factors are also in the case tables, as every variant of tensors in f32.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn pointwise_convolutions_by_cooperative_matrices() {
    let gpu = common::gpu();
    let one = ops::ConvSpec::pointwise();
    let cases = [
        Case { n: 2, after: NORM_ACT, ..dense(&[(52, NORM_ACT)], 75, [5, 6, 7], one) },
        Case { n: 2, ..dense(&[(34, UP), (17, ACT)], 33, [4, 6, 10], one) },
        Case { twice: true, ..dense(&[(16, PLAIN)], 16, [3, 5, 9], one) },
    ];
    let sides = caps(&gpu).cooperative;
    for (bits, side, dtype) in [(32, sides.f32, DType::F32), (16, sides.f16, DType::F16)] {
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
        let own = caps(&gpu).subgroup_size;
        let mut tried = BTreeSet::new();
        // as many subgroups as jobs, and fewer
        for (index, subgroup_size) in BTreeSet::from([0, own, own / 2]).into_iter().enumerate() {
            for case in cases.iter().skip(index) {
                let own = Caps { software: false, subgroup_size, ..caps(&gpu) };
                let expected = expect(case, &Way { caps: own.clone(), dtype });
                let run = |position, what: &str| {
                    let caps = Caps { tuning: Tuning::at(position).into(), ..own.clone() };
                    run(&gpu, &Way { caps, dtype }, case, &expected, what)
                };
                let (positions, names) = named(&run(0, "the default:"), &part);
                assert!(!positions.is_empty());
                tried.extend(names);
                for position in positions {
                    let what = format!("{part}for {subgroup_size} lanes, variant {position}:");
                    run(position, &what);
                }
            }
        }
        // of both kernels 32 and 64 channels, two sizes of workgroups at least
        for family in ["pointwise ", "pointwise_weight "] {
            let tried = tried.iter().filter(|variant| variant.starts_with(family)).count();
            assert!(tried >= 4, "{family}{part}: {tried}");
        }
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn depthwise_convolutions() {
    check(&[
        depthwise(&[(1, PLAIN)], [1, 1, 1]),
        depthwise(&[(6, PLAIN)], [3, 5, 7]),
        Case { n: 2, after: NORM_ACT, ..depthwise(&[(9, NORM_ACT)], [5, 6, 9]) },
        Case { n: 3, after: ACT, ..depthwise(&[(4, NORM)], [9, 2, 3]) },
        depthwise(&[(8, ACT)], [1, 1, 13]),
        depthwise(&[(4, PLAIN)], [13, 1, 1]),
        Case { twice: true, ..depthwise(&[(5, NORM_ACT)], [4, 5, 6]) },
        Case { n: 2, after: NORM_ACT, ..depthwise(&[(6, UP), (5, NORM_ACT)], [4, 6, 8]) },
        depthwise(&[(3, UP_FLAT), (8, PLAIN)], [3, 6, 4]),
        // a line of exactly a subgroup of eight, and lines of several
        Case { n: 2, after: NORM_ACT, ..depthwise(&[(5, NORM_ACT)], [2, 7, 40]) },
        Case { after: NORM, ..depthwise(&[(4, ACT)], [3, 2, 131]) },
        depthwise(&[(3, UP)], [2, 4, 150]),
    ]);
}
