//! Builds a graph of a few operations, runs it on the adapter, and compares what it read with the f64 oracles.

use std::sync::Arc;

use half::f16;
use u2seg::low_level::activation::Activation;
use u2seg::low_level::exec::{Pool, Program, Store, caps};
use u2seg::low_level::gpu::Gpu;
use u2seg::low_level::graph::{
    Caps, DType, Gradients, Graph, Init, Layout, Packing, ParamSpec, Scope, Value,
};
use u2seg::low_level::ops;
use u2seg::low_level::oracle;
use u2seg::low_level::oracle::Tensor;
use u2seg::low_level::plan::{Plan, PlanRequest};
use u2seg::low_level::shader::{Choice, Tuning};
use u2seg::low_level::shape::Shape;

/// Uniform values in -1..1, the same for the same seed.
pub fn random(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // what f32 holds, so that both sides start from the same number
        f64::from(((state >> 40) as f32) / (1u32 << 23) as f32 - 1.0)
    };
    (0..count).map(|_| next()).collect()
}

/// A random tensor N, C, D, H, W.
pub fn tensor(n: usize, c: usize, spatial: [usize; 3], seed: u64) -> Tensor {
    let shape = Shape::new(n, c, spatial).unwrap();
    Tensor::new(shape, random(shape.elements(), seed)).unwrap()
}

/// Random class indices below `classes`.
pub fn labels(count: usize, classes: usize, seed: u64) -> Vec<u8> {
    let class = |v: &f64| (((v + 1.0) / 2.0 * classes as f64) as usize).min(classes - 1) as u8;
    random(count, seed).iter().map(class).collect()
}

fn singles(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}

/// An adapter, and how tensors are stored.
#[derive(Debug, Clone)]
pub struct Way {
    pub caps: Caps,
    pub dtype: DType,
}

/// The ways in which every case is planned: as for a GPU, as for an adapter on the CPU, in small bindings, with few groups
/// in a dimension, and with every tensor stored in f16. `voxels` is the size of the largest tensor: small bindings hold one
/// channel block of it.
pub fn plans(gpu: &Gpu, voxels: usize) -> Vec<(&'static str, Way)> {
    let own = Caps { software: false, tuning: Default::default(), ..caps(gpu) };
    let way = |caps| Way { caps, dtype: DType::F32 };
    let halves = |caps| Way { caps, dtype: DType::F16 };
    let small =
        |vector: u64| (voxels as u64 * vector).next_multiple_of(own.alignment) + 2 * own.alignment;
    let tight = Caps { max_binding: small(8), ..own.clone() };
    vec![
        ("gpu", way(own.clone())),
        ("software", way(Caps { software: true, ..own.clone() })),
        ("small bindings", way(Caps { max_binding: small(16), ..own.clone() })),
        ("few groups", way(Caps { max_groups: 48, ..own.clone() })),
        ("halves in small bindings", halves(tight)),
        ("halves on a CPU", halves(Caps { software: true, ..own })),
    ]
}

/// Runs a case for each of its [`plans`], then once for every further variant that a kernel of it has. `run` is told how the
/// case is planned, and says how many variants its kernels have at most.
pub fn every_plan(gpu: &Gpu, voxels: usize, mut run: impl FnMut(&str, &Way) -> usize) {
    let plans = plans(gpu, voxels);
    let most: Vec<usize> = plans.iter().map(|(name, caps)| run(name, caps)).collect();
    // the first two differ in what their adapters may run
    for ((name, caps), most) in plans.iter().zip(most).take(2) {
        for position in 1..most {
            let tuning = Tuning::at(position).into();
            let caps = Way { caps: Caps { tuning, ..caps.caps.clone() }, ..caps.clone() };
            run(&format!("{name}, variant {position}"), &caps);
        }
    }
}

/// Whether a plan of [`plans`] stores tensors in f16.
pub fn halves(way: &Way) -> bool {
    way.dtype == DType::F16
}

/// A tensor as a plan of [`plans`] stores it.
pub fn as_stored(caps: &Way, x: &Tensor) -> Tensor {
    if halves(caps) { x.map(|v| f16::from_f64(v).to_f64()) } else { x.clone() }
}

/// A graph under construction with the values of its inputs and parameters.
pub struct Rig<'a> {
    gpu: &'a Gpu,
    way: Way,
    /// Whether the plan may fuse what training does not.
    pub inference: bool,
    pub graph: Graph,
    inputs: Vec<(Value, Vec<f32>)>,
    words: Vec<(Value, Vec<u32>)>,
    params: Vec<(String, Vec<f32>)>,
    /// Tensors in f32 whatever the plan.
    singles: Vec<Value>,
}

/// What a run left in memory.
pub struct Ran {
    gpu: Gpu,
    halves: bool,
    graph: Graph,
    program: Program,
    store: Store,
    /// Variants of the kernel that has most.
    pub variants: usize,
    /// What the variant of every kernel that has several was taken from.
    pub choices: Vec<Arc<Choice>>,
}

impl<'a> Rig<'a> {
    pub fn new(gpu: &'a Gpu, way: &Way) -> Self {
        Self {
            gpu,
            way: way.clone(),
            inference: false,
            graph: Graph::new(),
            inputs: Vec::new(),
            words: Vec::new(),
            params: Vec::new(),
            singles: Vec::new(),
        }
    }

    /// An input whose gradient is wanted.
    pub fn input(&mut self, x: &Tensor) -> Value {
        self.input_as(x, Layout::new(x.shape.n, x.shape.c, x.shape.spatial()))
    }

    fn input_as(&mut self, x: &Tensor, layout: Layout) -> Value {
        let packed = layout.pack(&singles(&x.data)).unwrap();
        let value = self.graph.differentiable_input(format!("x{}", self.inputs.len()), layout);
        self.inputs.push((value, packed));
        value
    }

    /// Class indices.
    pub fn labels(&mut self, labels: &[u8]) -> Value {
        self.raw("labels", labels.iter().map(|l| u32::from(*l)).collect())
    }

    /// Raw words.
    pub fn raw(&mut self, name: &str, words: Vec<u32>) -> Value {
        let value = self.graph.input_words(name, words.len());
        self.words.push((value, words));
        value
    }

    /// Stores a tensor in f32 whatever the plan.
    pub fn in_f32(&mut self, value: Value) {
        self.singles.push(value);
    }

    /// A parameter.
    pub fn param(&mut self, name: &str, packing: Packing, values: &[f64]) -> Value {
        self.params.push((name.into(), singles(values)));
        let spec = ParamSpec {
            name: name.into(),
            dims: vec![values.len()],
            scope: Scope::Shared,
            packing,
            init: Init::Constant(0.0),
        };
        self.graph.param(spec, false)
    }

    /// Appends the backward pass from `y`, whose gradient is `dy`.
    pub fn backward(&mut self, y: Value, dy: &Tensor) -> Gradients {
        let layout = self.graph.layout(y).unwrap().clone();
        let seed = self.input_as(dy, layout);
        self.graph.backward(y, seed).unwrap()
    }

    /// The stored gradient of an input, kept.
    pub fn kept_gradient(&mut self, grads: &Gradients, x: Value) -> Value {
        let grad = grads.get(x).expect("no gradient reached the input");
        self.kept(grad)
    }

    /// The value itself or what stores it, kept.
    pub fn kept(&mut self, value: Value) -> Value {
        let stored = ops::materialise(&mut self.graph, value).unwrap();
        self.graph.keep(stored);
        stored
    }

    /// Plans and runs.
    pub fn run(mut self) -> Ran {
        let halves = halves(&self.way);
        self.singles.iter().for_each(|value| self.graph.store_in_f32(*value));
        let (dtype, inference) = (self.way.dtype, self.inference);
        let options =
            PlanRequest { tensors: dtype, inputs: dtype, inference, ..PlanRequest::default() };
        let plan = Plan::new(&self.graph, &self.way.caps, &options).unwrap();
        let store = Store::new(self.gpu, self.graph.params(), true).unwrap();
        let pool = Pool::new(self.gpu, [&plan]).unwrap();
        let program = Program::new(self.gpu, &plan, &[], (&store, &pool)).unwrap();
        for (value, data) in &self.inputs {
            // an input that nothing reads has no memory
            if program.value(*value).is_err() {
                continue;
            }
            if halves {
                let data: Vec<u16> = data.iter().map(|v| f16::from_f32(*v).to_bits()).collect();
                program.write(self.gpu, *value, &data).unwrap();
            } else {
                program.write(self.gpu, *value, data).unwrap();
            }
        }
        for (value, data) in &self.words {
            program.write(self.gpu, *value, data).unwrap();
        }
        for (name, values) in &self.params {
            store.write(self.gpu, u2seg::low_level::graph::Region::Weights, name, values).unwrap();
        }
        program.run(self.gpu).unwrap();
        let choices = plan.dispatches().filter_map(|d| d.choice.as_ref());
        let variants = choices.map(|choice| choice.candidates.len()).max().unwrap_or(1);
        let choices = plan.dispatches().filter_map(|d| d.choice.clone()).collect();
        Ran { gpu: self.gpu.clone(), halves, graph: plan.graph, program, store, variants, choices }
    }
}

impl Ran {
    /// A kept tensor in N, C, D, H, W order.
    pub fn tensor(&self, value: Value) -> Vec<f64> {
        let layout = self.graph.layout(value).unwrap();
        let mut packed: Vec<f32> = if self.graph.info(value).dtype == DType::F16 {
            let packed: Vec<u16> = self.program.read(&self.gpu, value).unwrap();
            packed.into_iter().map(|bits| f16::from_bits(bits).to_f32()).collect()
        } else {
            self.program.read(&self.gpu, value).unwrap()
        };
        packed.truncate(layout.words());
        let plain = layout.unpack(&packed).unwrap();
        let nonzero = |values: &[f32]| values.iter().filter(|v| **v != 0.0).count();
        assert_eq!(nonzero(&packed), nonzero(&plain), "padding lanes are not zero");
        plain.into_iter().map(f64::from).collect()
    }

    /// Kept words.
    pub fn words<T: bytemuck::Pod>(&self, value: Value) -> Vec<T> {
        self.program.read(&self.gpu, value).unwrap()
    }

    /// The gradient of a parameter in file order.
    pub fn grad(&self, name: &str) -> Vec<f64> {
        let position = self.store.position(name).unwrap();
        let all = self.store.read_all(&self.gpu, u2seg::low_level::graph::Region::Grads).unwrap();
        all[position].iter().map(|v| f64::from(*v)).collect()
    }
}

impl Ran {
    /// [`close`], or [`alike`] where tensors are stored in f16, with 500 times the tolerance.
    pub fn close(&self, what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
        if self.halves {
            alike(what, found, expected, 500.0 * tolerance);
        } else {
            close(what, found, expected, tolerance);
        }
    }
}

/// Fails where the error is more than `tolerance` in the mean square. Single values may be off by more: an activation's
/// derivative jumps where rounding to f16 changes a sign.
fn alike(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: count");
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let error = square(&mut found.iter().zip(expected).map(|(f, e)| f - e));
    let scale = square(&mut expected.iter().copied()).max(1e-6);
    let error = (error / scale).sqrt();
    assert!(error <= tolerance, "{what}: off by {error:.1e}: {found:?} where {expected:?} belong");
}

/// Fails where a value is off by more than `tolerance` of the largest expected one.
pub fn close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: count");
    let scale = expected.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let error = (f - e).abs() / scale;
        assert!(error <= tolerance, "{what}[{i}]: found {f}, expected {e} ({error:.1e})");
    }
}

/// What a value passes through before an operation reads it, or after an operation made it.
#[derive(Debug, Clone, Copy)]
pub struct Prep {
    pub norm: bool,
    pub act: bool,
    pub up: [usize; 3],
}

pub const PLAIN: Prep = Prep { norm: false, act: false, up: [1; 3] };
pub const ACT: Prep = Prep { act: true, ..PLAIN };
pub const NORM: Prep = Prep { norm: true, ..PLAIN };
pub const NORM_ACT: Prep = Prep { act: true, ..NORM };

const EPS: f64 = ops::EPS as f64;

/// A [`Prep`] with its affine parameters and the intermediate values of the oracle.
pub struct Stage {
    prep: Prep,
    name: String,
    gamma: Vec<f64>,
    beta: Vec<f64>,
    x: Tensor,
    normed: Tensor,
    /// The oracle's result.
    pub y: Tensor,
}

impl Stage {
    /// Runs the oracle forward.
    pub fn new(prep: Prep, name: &str, x: &Tensor, seed: u64) -> Self {
        let c = x.shape.c;
        let gamma: Vec<f64> = random(c, seed).iter().map(|v| 1.0 + 0.5 * v).collect();
        let gamma: Vec<f64> = gamma.iter().map(|v| f64::from(*v as f32)).collect();
        let beta = random(c, seed + 1);
        let normed = match prep.norm {
            true => oracle::instance_norm_forward(x, &gamma, &beta, EPS),
            false => x.clone(),
        };
        let acted = match prep.act {
            true => oracle::activation_forward(Activation::LeakyRelu, &normed),
            false => normed.clone(),
        };
        let y = oracle::upsample_forward(&acted, prep.up);
        Self { prep, name: name.into(), gamma, beta, x: x.clone(), normed, y }
    }

    /// Appends the operations.
    pub fn build(&self, rig: &mut Rig<'_>, x: Value) -> Value {
        let mut value = x;
        if self.prep.norm {
            let segments = rig.graph.layout(value).unwrap().segments.clone();
            let packing = Packing::Channels { segments };
            let gamma = rig.param(&format!("{}.gamma", self.name), packing.clone(), &self.gamma);
            let beta = rig.param(&format!("{}.beta", self.name), packing, &self.beta);
            value = ops::instance_norm(&mut rig.graph, value, gamma, beta).unwrap();
        }
        if self.prep.act {
            value = ops::activate(&mut rig.graph, value, Activation::LeakyRelu).unwrap();
        }
        ops::upsample(&mut rig.graph, value, self.prep.up).unwrap()
    }

    /// The oracle's gradient of the input, with those of gamma and beta.
    pub fn backward(&self, dy: &Tensor) -> (Tensor, Option<[Vec<f64>; 2]>) {
        let mut d = oracle::upsample_backward(self.normed.shape, self.prep.up, dy);
        if self.prep.act {
            d = oracle::activation_backward(Activation::LeakyRelu, &self.normed, &d);
        }
        if !self.prep.norm {
            return (d, None);
        }
        let (dx, dgamma, dbeta) = oracle::instance_norm_backward(&self.x, &self.gamma, EPS, &d);
        (dx, Some([dgamma, dbeta]))
    }

    /// Compares the gradients of gamma and beta.
    pub fn check_affine(&self, what: &str, ran: &Ran, expected: &Option<[Vec<f64>; 2]>) {
        if let Some([dgamma, dbeta]) = expected {
            ran.close(
                &format!("{what} dgamma"),
                &ran.grad(&format!("{}.gamma", self.name)),
                dgamma,
                1e-4,
            );
            ran.close(
                &format!("{what} dbeta"),
                &ran.grad(&format!("{}.beta", self.name)),
                dbeta,
                1e-4,
            );
        }
    }
}
