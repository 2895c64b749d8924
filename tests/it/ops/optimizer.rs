//! Adam and SGD over several steps, on ranges of the parameter block, alone and with a dynamic loss scale.

use u2seg::low_level::exec::LossScale;
use u2seg::low_level::exec::{Pool, Program, Store, caps};
use u2seg::low_level::graph::{Caps, Graph, Init, Packing, ParamSpec, Region, Scope};
use u2seg::low_level::ops::{GROWTH, Optimizer, loss_scale_dispatches, optimizer_dispatch};
use u2seg::low_level::oracle;
use u2seg::low_level::oracle::{Adam, SgdNesterov, adam_step, sgd_nesterov_step};
use u2seg::low_level::plan::Plan;

use super::harness::{close, random};
use crate::common;

const COUNT: usize = 1003;
const STEPS: u64 = 4;
const LR: f64 = 0.01;

/// The oracle's parameters with their moments.
struct Expected {
    weights: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
}

impl Expected {
    fn new(weights: Vec<f64>) -> Self {
        Self { weights, m: vec![0.0; COUNT], v: vec![0.0; COUNT] }
    }

    fn step(&mut self, optimizer: &Optimizer, grad: &[f64], t: u64) {
        let (weights, m, v) = (&mut self.weights, &mut self.m, &mut self.v);
        match optimizer {
            Optimizer::Adam { betas, eps, weight_decay } => {
                let settings = Adam {
                    lr: LR,
                    betas: betas.map(f64::from),
                    eps: f64::from(*eps),
                    weight_decay: f64::from(*weight_decay),
                };
                adam_step(weights, grad, m, v, t as u32, &settings);
            }
            Optimizer::Sgd { momentum, weight_decay } => {
                let settings = SgdNesterov {
                    lr: LR,
                    momentum: f64::from(*momentum),
                    weight_decay: f64::from(*weight_decay),
                };
                sgd_nesterov_step(weights, grad, m, &settings);
            }
        }
    }
}

/// The oracle's weights after [`STEPS`] steps.
fn expected(optimizer: &Optimizer, start: &[f64]) -> Vec<f64> {
    let mut expected = Expected::new(start.to_vec());
    (1..=STEPS).for_each(|t| expected.step(optimizer, &random(COUNT, 10 + t), t));
    expected.weights
}

fn spec(name: &str) -> ParamSpec {
    ParamSpec {
        name: name.into(),
        dims: vec![COUNT],
        scope: Scope::Shared,
        packing: Packing::Channels { segments: vec![COUNT] },
        init: Init::Constant(0.0),
    }
}

fn singles(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}

fn run(gpu: &u2seg::low_level::gpu::Gpu, caps: &Caps, optimizer: &Optimizer, what: &str) {
    let specs = [spec("before"), spec("trained"), spec("after")];
    let store = Store::new(gpu, &specs, true).unwrap();
    let trained = store.get("trained").unwrap();
    let tail = optimizer_dispatch(optimizer, trained.start, trained.span, caps).unwrap();
    let graph = Graph::new();
    let plan = Plan::new(&graph, caps, &Default::default()).unwrap();
    let pool = Pool::new(gpu, [&plan]).unwrap();
    let program = Program::new(gpu, &plan, &tail, (&store, &pool)).unwrap();
    let start = random(COUNT, 1);
    for spec in &specs {
        store.write(gpu, Region::Weights, &spec.name, &singles(&start)).unwrap();
    }
    for t in 1..=STEPS {
        let grad = singles(&random(COUNT, 10 + t));
        for spec in &specs {
            store.write(gpu, Region::Grads, &spec.name, &grad).unwrap();
        }
        for command in 0..tail.len() {
            program.set_params(gpu, command, &optimizer.step_params(LR, t)).unwrap();
        }
        program.run(gpu).unwrap();
    }
    let found = store.read_all(gpu, Region::Weights).unwrap();
    let doubles = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
    close(what, &doubles(&found[1]), &expected(optimizer, &start), 2e-6);
    // the neighbours stay, bit for bit
    assert_eq!(found[0], singles(&start), "{what}: before the range");
    assert_eq!(found[2], singles(&start), "{what}: after the range");
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn updates_follow_the_oracles() {
    let gpu = common::gpu();
    let own = caps(&gpu);
    let optimizers = [
        Optimizer::adam(),
        Optimizer::Adam { betas: [0.8, 0.95], eps: 1e-3, weight_decay: 0.0 },
        Optimizer::Sgd { momentum: 0.9, weight_decay: 1e-2 },
        Optimizer::Sgd { momentum: 0.0, weight_decay: 0.0 },
    ];
    for optimizer in optimizers {
        for caps in [own.clone(), Caps { max_binding: 1024, ..own.clone() }] {
            run(&gpu, &caps, &optimizer, &format!("{optimizer:?} in {} bytes", caps.max_binding));
        }
    }
}

/// Gradients of step `t` as they come from a pass scaled by `scale`: those of some steps overflow.
fn scaled_gradients(t: u64, scale: f64) -> Vec<f64> {
    let mut grads: Vec<f64> = random(COUNT, 10 + t).iter().map(|g| g * scale).collect();
    let at = random(1, 90 + t)[0].abs() * (COUNT - 1) as f64;
    match t {
        2 => grads[0] = f64::INFINITY,
        3 => grads[COUNT - 1] = f64::NAN,
        6 => grads[at as usize] = f64::NEG_INFINITY,
        _ => {}
    }
    grads
}

/// Nine steps from a scale, of which three overflow; weights, moments and scale against the oracle after each.
fn run_scaled(
    gpu: &u2seg::low_level::gpu::Gpu,
    caps: &Caps,
    optimizer: &Optimizer,
    start: LossScale,
) {
    let what = format!("{optimizer:?} from {start:?} in {} bytes", caps.max_binding);
    let specs = [spec("before"), spec("trained"), spec("after")];
    let store = Store::new(gpu, &specs, true).unwrap();
    let place = store.get("trained").unwrap();
    let mut tail = loss_scale_dispatches(&[(place.start, place.span)], caps).unwrap();
    let first = tail.len();
    let updates = optimizer_dispatch(optimizer, place.start, place.span, caps).unwrap();
    tail.extend(updates.into_iter().map(|dispatch| dispatch.scaled()));
    let plan = Plan::new(&Graph::new(), caps, &Default::default()).unwrap();
    let pool = Pool::new(gpu, [&plan]).unwrap();
    let program = Program::new(gpu, &plan, &tail, (&store, &pool)).unwrap();
    let weights = random(COUNT, 1);
    store.write(gpu, Region::Weights, "trained", &singles(&weights)).unwrap();
    store.write_loss_scale(gpu, &start).unwrap();
    let mut expected = Expected::new(weights);
    let mut scale =
        oracle::LossScale { scale: start.scale.into(), good: start.good, skipped: start.skipped };
    // what lies beside the range is not looked at
    for name in ["before", "after"] {
        store.write(gpu, Region::Grads, name, &[f32::NAN; COUNT]).unwrap();
    }
    for t in 1..=9 {
        let grads = scaled_gradients(t, scale.scale);
        store.write(gpu, Region::Grads, "trained", &singles(&grads)).unwrap();
        for command in first..tail.len() {
            program.set_params(gpu, command, &optimizer.step_params(LR, t)).unwrap();
        }
        let read = |region| store.read_all(gpu, region).unwrap()[1].clone();
        let before = [Region::Weights, Region::Moment1, Region::Moment2].map(read);
        program.run(gpu).unwrap();
        let after = [Region::Weights, Region::Moment1, Region::Moment2].map(read);
        match scale.unscale(&grads, GROWTH as u32) {
            Some(grads) => {
                expected.step(optimizer, &grads, t);
                assert!(before != after, "{what}: step {t} changes nothing");
            }
            None => assert!(before == after, "{what}: step {t} changes something"),
        }
        let found: Vec<f64> = after[0].iter().map(|v| f64::from(*v)).collect();
        close(&format!("{what} step {t}"), &found, &expected.weights, 2e-6);
        let found = store.read_loss_scale(gpu).unwrap();
        let found = (f64::from(found.scale), found.good, found.skipped);
        assert_eq!(found, (scale.scale, scale.good, scale.skipped), "{what} step {t}");
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_step_whose_gradients_overflow_changes_nothing_but_the_loss_scale() {
    let gpu = common::gpu();
    let own = caps(&gpu);
    let growth = GROWTH as u32;
    let starts = [
        LossScale::default(),
        // grows in the first step, and at once after the last overflow but for it
        LossScale { scale: 4.0, good: growth - 1, skipped: 7 },
        // at the ends of its range
        LossScale { scale: 1.0, good: 0, skipped: 0 },
        LossScale { scale: (1 << 24) as f32, good: growth - 1, skipped: 0 },
    ];
    for optimizer in [Optimizer::adam(), Optimizer::Sgd { momentum: 0.9, weight_decay: 1e-2 }] {
        for start in starts {
            run_scaled(&gpu, &own, &optimizer, start);
        }
        run_scaled(&gpu, &Caps { max_binding: 1024, ..own.clone() }, &optimizer, starts[0]);
    }
}
