//! A small graph with its inputs, run once and compared.

use std::collections::BTreeSet;

use crate::engine::exec::{Pool, Program, Store};
use crate::engine::gpu::Gpu;
use crate::engine::graph::{
    Caps, Gradients, Graph, Init, Layout, Packing, ParamSpec, Region, Scope, Value,
};
use crate::engine::ops;
use crate::engine::oracle::Tensor;
use crate::engine::plan::{Plan, PlanRequest};
use crate::engine::shape::Shape;
use crate::{Error, Result};

/// Uniform values in -1..1 that f32 holds, the same for the same seed.
pub fn random(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        f64::from((state >> 40) as f32 / (1u32 << 23) as f32 - 1.0)
    };
    (0..count).map(|_| next()).collect()
}

/// A random tensor N, C, D, H, W.
pub fn tensor(n: usize, c: usize, spatial: [usize; 3], seed: u64) -> Result<Tensor> {
    let shape = Shape::new(n, c, spatial)?;
    Tensor::new(shape, random(shape.elements(), seed))
}

pub fn singles(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}

/// A tensor that was compared.
#[derive(Debug, Clone)]
pub struct Compared {
    pub what: String,
    /// Largest error of a value, of the largest expected.
    pub error: f64,
    pub tolerance: f64,
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Ran {
    pub compared: Vec<Compared>,
    pub kernels: BTreeSet<&'static str>,
    /// Variants of the kernel that has most.
    pub variants: usize,
}

/// The largest error of a value, of the largest expected; infinite where a value is no number.
pub fn error(found: &[f64], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let scale = expected.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    let each = found.iter().zip(expected).map(|(f, e)| match (f - e).abs() / scale {
        error if error.is_nan() => f64::INFINITY,
        error => error,
    });
    each.fold(0.0, f64::max)
}

/// Where a result lies.
enum Place {
    Tensor(Value),
    /// The first words of raw ones.
    Floats(Value),
    Classes(Value),
    Gradient(String),
}

struct Expected {
    what: String,
    place: Place,
    values: Vec<f64>,
    tolerance: f64,
}

/// A graph under construction, the values of its inputs and parameters, and what it should make.
pub struct Rig {
    caps: Caps,
    pub graph: Graph,
    inputs: Vec<(Value, Vec<f32>)>,
    words: Vec<(Value, Vec<u32>)>,
    params: Vec<(String, Vec<f32>)>,
    expected: Vec<Expected>,
}

impl Rig {
    pub fn new(caps: &Caps) -> Self {
        Self {
            caps: caps.clone(),
            graph: Graph::new(),
            inputs: Vec::new(),
            words: Vec::new(),
            params: Vec::new(),
            expected: Vec::new(),
        }
    }

    /// An input whose gradient is wanted.
    pub fn input(&mut self, x: &Tensor) -> Result<Value> {
        self.input_as(x, Layout::new(x.shape.n, x.shape.c, x.shape.spatial()))
    }

    fn input_as(&mut self, x: &Tensor, layout: Layout) -> Result<Value> {
        let packed = layout.pack(&singles(&x.data))?;
        let value = self.graph.differentiable_input(format!("x{}", self.inputs.len()), layout);
        self.inputs.push((value, packed));
        Ok(value)
    }

    pub fn labels(&mut self, labels: &[u8]) -> Value {
        self.raw("labels", labels.iter().map(|l| u32::from(*l)).collect())
    }

    /// Raw words.
    pub fn raw(&mut self, name: &str, words: Vec<u32>) -> Value {
        let value = self.graph.input_words(name, words.len());
        self.words.push((value, words));
        value
    }

    pub fn param(&mut self, name: &str, packing: Packing, values: &[f64]) -> Value {
        self.params.push((name.into(), singles(values)));
        let dims = vec![values.len()];
        let init = Init::Constant(0.0);
        let spec = ParamSpec { name: name.into(), dims, scope: Scope::Shared, packing, init };
        self.graph.param(spec, false)
    }

    /// Appends the backward pass from `y`, whose gradient is `dy`.
    pub fn backward(&mut self, y: Value, dy: &Tensor) -> Result<Gradients> {
        let layout = self.graph.layout(y)?.clone();
        let seed = self.input_as(dy, layout)?;
        self.graph.backward(y, seed)
    }

    fn expect(&mut self, what: impl Into<String>, place: Place, values: &[f64], tolerance: f64) {
        let (what, values) = (what.into(), values.to_vec());
        self.expected.push(Expected { what, place, values, tolerance });
    }

    /// Expects a value, stored for that where it is lazy.
    pub fn expect_tensor(
        &mut self,
        what: &str,
        value: Value,
        expected: &Tensor,
        tolerance: f64,
    ) -> Result<()> {
        let stored = ops::materialise(&mut self.graph, value)?;
        self.graph.keep(stored);
        self.expect(what, Place::Tensor(stored), &expected.data, tolerance);
        Ok(())
    }

    /// Expects the gradient of an input.
    pub fn expect_gradient_of(
        &mut self,
        grads: &Gradients,
        x: Value,
        expected: &Tensor,
        tolerance: f64,
    ) -> Result<()> {
        let grad =
            grads.get(x).ok_or_else(|| Error::Internal("an input has no gradient".into()))?;
        self.expect_tensor("the gradient of the input", grad, expected, tolerance)
    }

    pub fn expect_floats(&mut self, what: &str, value: Value, expected: &[f64], tolerance: f64) {
        self.graph.keep(value);
        self.expect(what, Place::Floats(value), expected, tolerance);
    }

    pub fn expect_classes(&mut self, what: &str, value: Value, expected: &[u8]) {
        self.graph.keep(value);
        let values: Vec<f64> = expected.iter().map(|class| f64::from(*class)).collect();
        self.expect(what, Place::Classes(value), &values, 1e-9);
    }

    /// Expects the gradient of a parameter.
    pub fn expect_gradient(&mut self, name: &str, expected: &[f64], tolerance: f64) {
        let what = format!("the gradient of {name}");
        self.expect(what, Place::Gradient(name.into()), expected, tolerance);
    }

    /// Plans, runs and compares.
    pub fn run(self, gpu: &Gpu) -> Result<Ran> {
        let plan = Plan::new(&self.graph, &self.caps, &PlanRequest::default())?;
        let store = Store::new(gpu, self.graph.params(), true)?;
        let pool = Pool::new(gpu, [&plan])?;
        let program = Program::new(gpu, &plan, &[], (&store, &pool))?;
        for (value, data) in &self.inputs {
            // an input that nothing reads has no memory
            if program.value(*value).is_ok() {
                program.write(gpu, *value, data)?;
            }
        }
        for (value, data) in &self.words {
            program.write(gpu, *value, data)?;
        }
        for (name, values) in &self.params {
            store.write(gpu, Region::Weights, name, values)?;
        }
        program.run(gpu)?;
        let compared = self.compare(gpu, &program, &store)?;
        let kernels = plan.dispatches().map(|dispatch| dispatch.kernel.file).collect();
        let choices = plan.dispatches().filter_map(|dispatch| dispatch.choice.as_ref());
        let variants = choices.map(|choice| choice.candidates.len()).max().unwrap_or(1);
        Ok(Ran { compared, kernels, variants })
    }

    fn compare(&self, gpu: &Gpu, program: &Program, store: &Store) -> Result<Vec<Compared>> {
        let doubles = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<_>>();
        let grads = store.read_all(gpu, Region::Grads)?;
        let compared = self.expected.iter().map(|expected| {
            let count = expected.values.len();
            let found = match &expected.place {
                Place::Tensor(value) => {
                    let layout = self.graph.layout(*value)?;
                    doubles(layout.unpack(&program.read::<f32>(gpu, *value)?)?)
                }
                Place::Floats(value) => {
                    doubles(program.read::<f32>(gpu, *value)?).into_iter().take(count).collect()
                }
                Place::Classes(value) => {
                    let words = program.read::<u32>(gpu, *value)?;
                    words.into_iter().take(count).map(f64::from).collect()
                }
                Place::Gradient(name) => {
                    let position = store.position(name);
                    let missing = || Error::Internal(format!("no parameter {name}"));
                    doubles(grads[position.ok_or_else(missing)?].clone())
                }
            };
            let (what, tolerance) = (expected.what.clone(), expected.tolerance);
            Ok(Compared { what, error: error(&found, &expected.values), tolerance })
        });
        compared.collect()
    }
}
