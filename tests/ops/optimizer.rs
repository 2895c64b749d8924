//! Adam and SGD over several steps, on ranges of the parameter block.

use u2seg::exec::{Pool, Program, Store, caps};
use u2seg::graph::{Caps, Graph, Init, Packing, ParamSpec, Region, Scope};
use u2seg::ops::{Optimizer, optimizer_dispatch};
use u2seg::plan::Plan;
use u2seg::reference::{Adam, SgdNesterov, adam_step, sgd_nesterov_step};

use super::common;
use super::harness::{close, random};

const COUNT: usize = 1003;
const STEPS: u64 = 4;
const LR: f64 = 0.01;

/// The oracle's weights after [`STEPS`] steps.
fn expected(optimizer: &Optimizer, start: &[f64]) -> Vec<f64> {
    let mut weights = start.to_vec();
    let (mut m, mut v) = (vec![0.0; COUNT], vec![0.0; COUNT]);
    for t in 1..=STEPS {
        let grad = random(COUNT, 10 + t);
        match optimizer {
            Optimizer::Adam { betas, eps, weight_decay } => {
                let settings = Adam {
                    lr: LR,
                    betas: betas.map(f64::from),
                    eps: f64::from(*eps),
                    weight_decay: f64::from(*weight_decay),
                };
                adam_step(&mut weights, &grad, &mut m, &mut v, t as u32, &settings);
            }
            Optimizer::Sgd { momentum, weight_decay } => {
                let settings = SgdNesterov {
                    lr: LR,
                    momentum: f64::from(*momentum),
                    weight_decay: f64::from(*weight_decay),
                };
                sgd_nesterov_step(&mut weights, &grad, &mut m, &settings);
            }
        }
    }
    weights
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

fn run(gpu: &u2seg::gpu::Gpu, caps: &Caps, optimizer: &Optimizer, what: &str) {
    let specs = [spec("before"), spec("trained"), spec("after")];
    let store = Store::new(gpu, &specs, true).unwrap();
    let trained = store.get("trained").unwrap();
    let tail = optimizer_dispatch(optimizer, trained.start, trained.span, caps).unwrap();
    let graph = Graph::new();
    let plan = Plan::new(&graph, caps).unwrap();
    let pool = Pool::new(gpu, [&plan]).unwrap();
    let program = Program::new(gpu, &graph, &plan, &tail, (&store, &pool)).unwrap();
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
