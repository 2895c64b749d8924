//! Adam and SGD over several steps, on ranges of the parameter block, alone, with steps that are not finite, with a dynamic loss
//! scale, and with the moving average of what they update.

use super::measure::{Compared, Expected, Tolerance};
use super::net::{random, singles};
use super::plannings::{Planning, Variants};
use super::rig::Ran;
use crate::base::Result;
use crate::engine::exec::{LossScale, Pool, Program, Store};
use crate::engine::gpu::Gpu;
use crate::engine::graph::{Caps, DType, Dispatch, Graph, Init, Packing, ParamSpec, Region, Scope};
use crate::engine::ops::{
    GROWTH, Guarded, Optimizer, UpdateNumber, average_dispatch, average_params, average_share,
    guard_dispatches, optimizer_dispatch,
};
use crate::engine::oracle;
use crate::engine::plan::{Plan, PlanRequest};

const COUNT: usize = 1003;
const LR: f64 = 0.01;
const TOLERANCE: Tolerance = Tolerance::OfLargest(2e-6);

/// Parameters in the block: of three the middle one is updated.
const NAMES: [&str; 3] = ["before", "trained", "after"];

/// Updates of one parameter between two others.
pub struct Update {
    optimizer: Optimizer,
    /// Where a dynamic loss scale starts; without it is 1 and stays.
    scale: Option<LossScale>,
    /// Whether some steps overflow.
    overflows: bool,
    /// Decay of the moving average, where there is one.
    decay: Option<f32>,
}

/// The oracle's parameters with their moments.
struct Parameters {
    weights: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
    average: Vec<f64>,
}

impl Parameters {
    fn step(&mut self, case: &Update, grad: &[f64], t: u64) {
        self.update(&case.optimizer, grad, t);
        if let Some(decay) = case.decay {
            let share = f64::from(average_share(decay, t));
            oracle::average_step(&mut self.average, &self.weights, share);
        }
    }

    fn update(&mut self, optimizer: &Optimizer, grad: &[f64], t: u64) {
        let (weights, m, v) = (&mut self.weights, &mut self.m, &mut self.v);
        match optimizer {
            Optimizer::Adam { betas, eps, weight_decay } => {
                let settings = oracle::Adam {
                    lr: LR,
                    betas: betas.map(f64::from),
                    eps: f64::from(*eps),
                    weight_decay: f64::from(*weight_decay),
                };
                oracle::adam_step(weights, grad, m, v, t as u32, &settings);
            }
            Optimizer::Sgd { momentum, weight_decay } => {
                let settings = oracle::SgdNesterov {
                    lr: LR,
                    momentum: f64::from(*momentum),
                    weight_decay: f64::from(*weight_decay),
                };
                oracle::sgd_nesterov_step(weights, grad, m, &settings);
            }
        }
    }
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

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// Gradients of step `t` as they come from a pass scaled by `scale`: those of some steps overflow, the sixth's only in their squares.
fn scaled_gradients(t: u64, scale: f64) -> Vec<f64> {
    let mut grads: Vec<f64> = random(COUNT, 10 + t).iter().map(|g| g * scale).collect();
    let at = random(1, 90 + t)[0].abs() * (COUNT - 1) as f64;
    match t {
        2 => grads[0] = f64::INFINITY,
        3 => grads[COUNT - 1] = f64::NAN,
        4 => grads[at as usize] = f64::NEG_INFINITY,
        6 => grads[at as usize] = -2f64.powi(62),
        7 => grads[at as usize] = 2f64.powi(40),
        _ => {}
    }
    grads
}

/// The parameter block with the dispatches of an update.
struct Stepper<'a> {
    gpu: &'a Gpu,
    case: &'a Update,
    store: Store,
    program: Program,
    tail: Vec<Dispatch>,
    /// First dispatch of the update, and of the average.
    first: usize,
    averages: usize,
    /// Steps that counted, but for the last one, and whether that did.
    counted: u64,
    last: bool,
    /// Whether there was a step before.
    begun: bool,
    compared: Vec<Compared>,
}

impl<'a> Stepper<'a> {
    fn new(gpu: &'a Gpu, caps: &Caps, case: &'a Update) -> Result<Self> {
        let specs = NAMES.map(spec);
        let mut store = Store::new(gpu, &specs, true)?;
        let place = store.get("trained")?;
        let (start, span) = (place.start, place.span);
        let ranges = [(start, span)];
        let guarded = Guarded { ranges: &ranges, loss: None, scales: case.scale.is_some() };
        let mut tail = guard_dispatches(&guarded, caps)?;
        let first = tail.len();
        tail.extend(optimizer_dispatch(&case.optimizer, start, span, caps)?);
        let averages = tail.len();
        if case.decay.is_some() {
            store.keep_average(gpu)?;
            tail.extend(average_dispatch(start, span, caps)?);
        }
        let graph = Graph::new();
        let plan = Plan::new(&graph, caps, &PlanRequest::default())?;
        let pool = Pool::new(gpu, [&plan])?;
        let program = Program::passing(gpu, &plan, &tail, &store, &pool)?;
        store.write_loss_scale(gpu, &case.scale.unwrap_or(LossScale::ONE))?;
        let (counted, last, begun, compared) = (0, false, false, Vec::new());
        Ok(Self {
            gpu,
            case,
            store,
            program,
            tail,
            first,
            averages,
            counted,
            last,
            begun,
            compared,
        })
    }

    fn read(&self, region: Region) -> Result<Vec<Vec<f32>>> {
        self.store.read_all(self.gpu, region)
    }

    /// What an update may change.
    fn state(&self) -> Result<Vec<Vec<f32>>> {
        let average = self.case.decay.map(|_| Region::Average);
        let regions =
            [Region::Weights, Region::Moment1, Region::Moment2].into_iter().chain(average);
        regions.map(|region| Ok(self.read(region)?.swap_remove(1))).collect()
    }

    /// Compares the average with the oracle's, where there is one.
    fn compare_average(&mut self, what: String, expected: &Parameters) -> Result<()> {
        if self.case.decay.is_some() {
            let found = doubles(&self.read(Region::Average)?[1]);
            self.compare(what, &found, &expected.average, TOLERANCE);
        }
        Ok(())
    }

    fn compare(&mut self, what: String, found: &[f64], expected: &[f64], tolerance: Tolerance) {
        let expected = Expected { what, values: expected.to_vec(), tolerance, gradient: false };
        self.compared.push(expected.compare(found, DType::F32));
    }

    /// One step on gradients that are the same for all parameters, or of the trained one alone. As in training nobody but the GPU knows
    /// what became of the step before.
    fn step(&mut self, grad: &[f64], names: &[&str]) -> Result<()> {
        for name in names {
            self.store.write(self.gpu, Region::Grads, name, &singles(grad))?;
        }
        let after_skip = self.counted + 1;
        let usual = after_skip + u64::from(self.begun);
        self.begun = true;
        let number = UpdateNumber { usual, after_skip };
        let params = self.case.optimizer.step_params(LR, number);
        for command in self.first..self.averages {
            self.program.set_params(self.gpu, command, &params)?;
        }
        let params = self.case.decay.map(|decay| average_params(decay, number));
        for command in self.averages..self.tail.len() {
            self.program.set_params(self.gpu, command, params.as_deref().unwrap_or_default())?;
        }
        self.program.run(self.gpu)
    }

    /// Notes whether the last step counted.
    fn note(&mut self, counts: bool) {
        self.counted += u64::from(self.last);
        self.last = counts;
    }

    fn ran(self) -> Ran {
        Ran {
            compared: self.compared,
            kernels: self.tail.iter().map(|dispatch| dispatch.kernel.file).collect(),
            choices: Vec::new(),
            operations: self.tail.iter().map(|dispatch| dispatch.flops).sum(),
            bytes: self.tail.iter().map(|dispatch| dispatch.bytes).sum(),
        }
    }
}

impl Update {
    /// The case's name.
    pub fn name(&self) -> String {
        let optimizer = match self.optimizer {
            Optimizer::Adam { betas: [a, b], eps, weight_decay } => {
                format!("Adam, betas {a} and {b}, eps {eps}, decay {weight_decay}")
            }
            Optimizer::Sgd { momentum, weight_decay } => {
                format!("SGD, momentum {momentum}, decay {weight_decay}")
            }
        };
        let optimizer = match self.decay {
            Some(decay) => format!("{optimizer}, averaged with decay {decay}"),
            None => optimizer,
        };
        match self.scale {
            Some(LossScale { scale, good, .. }) => {
                format!("{optimizer}, overflowing from scale {scale} after {good} good steps")
            }
            None if self.overflows => format!("{optimizer}, overflowing"),
            None => optimizer,
        }
    }

    /// As the adapter is, and in small bindings.
    pub fn plannings(&self, own: &Caps) -> Vec<Planning> {
        let small = Caps { max_binding: 1024, ..own.clone() };
        let variants = Variants::First;
        let planning = |name: &str, caps: Caps, plain: bool| Planning {
            name: name.into(),
            caps,
            dtype: DType::F32,
            variants: variants.clone(),
            plain,
        };
        vec![planning("the adapter", own.clone(), true), planning("small bindings", small, false)]
    }

    /// Runs all steps.
    pub fn run(&self, gpu: &Gpu, caps: &Caps) -> Result<Ran> {
        let rig = Stepper::new(gpu, caps, self)?;
        let weights = random(COUNT, 1);
        for name in NAMES {
            rig.store.write(gpu, Region::Weights, name, &singles(&weights))?;
        }
        let zeros = || vec![0.0; COUNT];
        let expected = Parameters { weights, m: zeros(), v: zeros(), average: zeros() };
        match self.overflows {
            false => self.run_plain(rig, expected),
            true => self.run_overflowing(rig, expected),
        }
    }

    fn run_plain(&self, mut rig: Stepper<'_>, mut expected: Parameters) -> Result<Ran> {
        let start = expected.weights.clone();
        for t in 1..=4 {
            let grad = random(COUNT, 10 + t);
            rig.step(&grad, &NAMES)?;
            rig.note(true);
            expected.step(self, &grad, t);
            rig.compare_average(format!("the average of step {t}"), &expected)?;
        }
        let found = rig.read(Region::Weights)?;
        rig.compare("the weights".into(), &doubles(&found[1]), &expected.weights, TOLERANCE);
        for index in [0, 2] {
            // the neighbours stay, bit for bit
            let what = format!("the weights {} the range", NAMES[index]);
            rig.compare(what, &doubles(&found[index]), &start, Tolerance::Absolute(0.0));
        }
        Ok(rig.ran())
    }

    /// Nine steps, of which four overflow; weights, moments and scale after each.
    fn run_overflowing(&self, mut rig: Stepper<'_>, mut expected: Parameters) -> Result<Ran> {
        let LossScale { scale, good, skipped } = self.scale.unwrap_or(LossScale::ONE);
        let growth = if self.scale.is_some() { GROWTH as u32 } else { 0 };
        let mut counted = 0;
        let mut scale = oracle::DynamicScale { scale: scale.into(), good, skipped };
        // what lies beside the range is not looked at
        for name in ["before", "after"] {
            rig.store.write(rig.gpu, Region::Grads, name, &[f32::NAN; COUNT])?;
        }
        for t in 1..=9 {
            let grads = scaled_gradients(t, scale.scale);
            let before = rig.state()?;
            rig.step(&grads, &["trained"])?;
            let after = rig.state()?;
            let unscaled = scale.unscale(&grads, growth);
            let changes = [f64::from(u8::from(before != after))];
            let should = [f64::from(u8::from(unscaled.is_some()))];
            let exact = Tolerance::Absolute(0.0);
            rig.compare(format!("whether step {t} changes anything"), &changes, &should, exact);
            rig.note(unscaled.is_some());
            if let Some(grads) = unscaled {
                counted += 1;
                expected.step(self, &grads, counted);
            }
            rig.compare_average(format!("the average of step {t}"), &expected)?;
            let weights = doubles(&after[0]);
            rig.compare(format!("the weights of step {t}"), &weights, &expected.weights, TOLERANCE);
            let found = rig.store.read_loss_scale(rig.gpu)?;
            let found = [f64::from(found.scale), found.good.into(), found.skipped.into()];
            let right = [scale.scale, scale.good.into(), scale.skipped.into()];
            rig.compare(format!("the loss scale of step {t}"), &found, &right, exact);
        }
        Ok(rig.ran())
    }
}

const SGD: Optimizer = Optimizer::Sgd { momentum: 0.9, weight_decay: 1e-2 };

/// Updates alone.
pub fn plain() -> Vec<Update> {
    let alone = [
        Optimizer::adam(),
        Optimizer::Adam { betas: [0.8, 0.95], eps: 1e-3, weight_decay: 0.0 },
        SGD,
        Optimizer::Sgd { momentum: 0.0, weight_decay: 0.0 },
    ]
    .map(|optimizer| Update { optimizer, scale: None, overflows: false, decay: None });
    // shares of 1 and what follows, and at once those of a short average
    let averaged = [0.999, 0.3].map(|decay| Update {
        optimizer: Optimizer::adam(),
        scale: None,
        overflows: false,
        decay: Some(decay),
    });
    alone.into_iter().chain(averaged).collect()
}

/// Steps whose gradients overflow change nothing but the loss scale, where it moves.
pub fn scaled() -> Vec<Update> {
    let growth = GROWTH as u32;
    let starts = [
        LossScale::default(),
        // grows in the first step, and at once after the last overflow but for it
        LossScale { scale: 4.0, good: growth - 1, skipped: 7 },
        // at the ends of its range
        LossScale { scale: 1.0, good: 0, skipped: 0 },
        LossScale { scale: (1 << 24) as f32, good: growth - 1, skipped: 0 },
    ];
    let starts = starts.map(Some).into_iter().chain([None]);
    let each = |optimizer: Optimizer| {
        starts.clone().map(move |scale| Update { optimizer, scale, overflows: true, decay: None })
    };
    let averaged = [None, Some(LossScale::default())].map(|scale| Update {
        optimizer: SGD,
        scale,
        overflows: true,
        decay: Some(0.999),
    });
    [Optimizer::adam(), SGD].into_iter().flat_map(each).chain(averaged).collect()
}
