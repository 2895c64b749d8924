//! A case's graph, its data by name, and what its oracle makes of them.

use half::f16;

use super::measure::{Expected, Tolerance};
use crate::base::{Error, Result};
use crate::engine::graph::{
    DType, Gradients, Graph, Init, Layout, Packing, ParamSpec, Scope, Value,
};
use crate::engine::ops;
use crate::engine::oracle::Tensor;
use crate::engine::shape::Shape;

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

/// Values as memory takes them.
pub(super) fn singles(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}

/// A random tensor N, C, D, H, W.
pub fn tensor(n: usize, c: usize, spatial: [usize; 3], seed: u64) -> Result<Tensor> {
    let shape = Shape::new(n, c, spatial)?;
    Tensor::new(shape, random(shape.elements(), seed))
}

/// Random class indices below `classes`.
pub fn labels(count: usize, classes: usize, seed: u64) -> Vec<u8> {
    let label = |v: &f64| (((v + 1.0) / 2.0 * classes as f64) as usize).min(classes - 1) as u8;
    random(count, seed).iter().map(label).collect()
}

/// A tensor as memory of this kind holds it.
pub fn as_stored(dtype: DType, x: &Tensor) -> Tensor {
    match dtype {
        DType::F32 => x.clone(),
        DType::F16 => x.map(|v| f16::from_f64(v).to_f64()),
    }
}

/// What a graph is run for. Kernels may do more at once where no gradient follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The backward pass follows.
    Training,
    /// It is all.
    Inference,
}

/// Samples whose voxels are stored by fours, and the voxels of each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Samples {
    pub count: usize,
    pub voxels: usize,
}

/// How an output lies in memory.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Tensor(Value),
    /// One of raw words.
    Float(Value, usize),
    /// A byte a voxel, four voxels of a sample a word.
    Classes(Value, Samples),
    /// Of each class a map, four voxels of a sample a vector.
    Maps(Value, Samples),
}

/// A graph under construction, with the names of what goes in and what comes out.
pub struct Net {
    /// The graph.
    pub graph: Graph,
    purpose: Purpose,
    pub(super) tensors: Vec<(String, Value)>,
    pub(super) words: Vec<(String, Value)>,
    pub(super) outputs: Vec<(String, Place)>,
}

/// Name of the gradient that comes into the graph's result.
pub const UPSTREAM: &str = "upstream";

/// Name of the gradient of an input or parameter.
pub fn gradient_of(name: &str) -> String {
    format!("the gradient of {name}")
}

impl Net {
    /// An empty one.
    pub fn new(purpose: Purpose) -> Self {
        let graph = Graph::new();
        let (tensors, words, outputs) = (Vec::new(), Vec::new(), Vec::new());
        Self { graph, purpose, tensors, words, outputs }
    }

    /// An input whose gradient is wanted, N, C, D, H, W.
    pub fn input(&mut self, name: &str, shape: Shape) -> Value {
        self.input_as(name, Layout::new(shape.n, shape.c, shape.spatial()))
    }

    fn input_as(&mut self, name: &str, layout: Layout) -> Value {
        let value = self.graph.differentiable_input(name, layout);
        self.tensors.push((name.into(), value));
        value
    }

    /// Raw words that the host writes.
    pub fn words(&mut self, name: &str, count: usize) -> Value {
        let value = self.graph.input_words(name, count);
        self.words.push((name.into(), value));
        value
    }

    /// A parameter.
    pub fn param(&mut self, name: &str, packing: Packing) -> Value {
        let dims = vec![packing.elements()];
        let init = Init::Constant(0.0);
        let spec = ParamSpec { name: name.into(), dims, scope: Scope::Shared, packing, init };
        self.graph.param(spec, false)
    }

    /// Stores a tensor in f32 whatever the plan.
    pub fn in_f32(&mut self, value: Value) {
        self.graph.store_in_f32(value);
    }

    /// Has a tensor compared; returns what is stored for that where it is lazy.
    pub fn output(&mut self, name: &str, value: Value) -> Result<Value> {
        let stored = ops::materialise(&mut self.graph, value)?;
        self.graph.keep(stored);
        self.outputs.push((name.into(), Place::Tensor(stored)));
        Ok(stored)
    }

    /// Has an f32 among raw words compared.
    pub fn float(&mut self, name: &str, value: Value, index: usize) {
        self.graph.keep(value);
        self.outputs.push((name.into(), Place::Float(value, index)));
    }

    fn samples(&self, of: Value) -> Result<Samples> {
        let layout = self.graph.layout(of)?;
        Ok(Samples { count: layout.n, voxels: layout.voxels() })
    }

    /// Has the class indices of a tensor's voxels compared, as [`ops::argmax`] stores them.
    pub fn classes(&mut self, name: &str, value: Value, of: Value) -> Result<()> {
        self.graph.keep(value);
        self.outputs.push((name.into(), Place::Classes(value, self.samples(of)?)));
        Ok(())
    }

    /// Has maps of a tensor's classes compared, as [`ops::softmax`] stores them.
    pub fn maps(&mut self, name: &str, value: Value, of: Value) -> Result<()> {
        self.graph.keep(value);
        self.outputs.push((name.into(), Place::Maps(value, self.samples(of)?)));
        Ok(())
    }

    /// Appends the backward pass from a tensor, whose gradient is the input `UPSTREAM`; nothing in inference.
    pub fn differentiate(&mut self, y: Value) -> Result<()> {
        if self.purpose == Purpose::Inference {
            return Ok(());
        }
        let inputs = self.tensors.clone();
        let layout = self.graph.layout(y)?.clone();
        let upstream = self.input_as(UPSTREAM, layout);
        let grads = self.graph.backward(y, upstream)?;
        self.gradients(&inputs, &grads)
    }

    /// Appends the backward pass from a loss; nothing in inference.
    pub fn differentiate_loss(&mut self, loss: Value) -> Result<()> {
        if self.purpose == Purpose::Inference {
            return Ok(());
        }
        let inputs = self.tensors.clone();
        let grads = self.graph.backward(loss, loss)?;
        self.gradients(&inputs, &grads)
    }

    fn gradients(&mut self, inputs: &[(String, Value)], grads: &Gradients) -> Result<()> {
        for (name, value) in inputs {
            let missing = || Error::Internal(format!("{name} has no gradient"));
            let grad = grads.get(*value).ok_or_else(missing)?;
            self.output(&gradient_of(name), grad)?;
        }
        Ok(())
    }

    pub(super) fn purpose(&self) -> Purpose {
        self.purpose
    }
}

/// What goes into a case by name, and what its oracle makes of it. Tensors are N, C, D, H, W; parameters as in files.
#[derive(Debug, Clone)]
pub struct Truth {
    dtype: DType,
    pub(super) tensors: Vec<(String, Vec<f64>)>,
    pub(super) words: Vec<(String, Vec<u32>)>,
    pub(super) params: Vec<(String, Vec<f64>)>,
    pub(super) expected: Vec<Expected>,
}

impl Truth {
    /// Of nothing yet; tensors are stored so.
    pub fn new(dtype: DType) -> Self {
        let (tensors, words, params) = (Vec::new(), Vec::new(), Vec::new());
        Self { dtype, tensors, words, params, expected: Vec::new() }
    }

    /// The first where tensors are in f32, the second where they are in f16.
    pub(super) fn rounding(&self, singles: f64, halves: f64) -> f64 {
        match self.dtype {
            DType::F32 => singles,
            DType::F16 => halves,
        }
    }

    /// Values of an input.
    pub fn input(&mut self, name: &str, x: &Tensor) {
        self.tensors.push((name.into(), x.data.clone()));
    }

    /// Raw words.
    pub fn words(&mut self, name: &str, words: Vec<u32>) {
        self.words.push((name.into(), words));
    }

    /// Class indices, a word each.
    pub fn labels(&mut self, name: &str, labels: &[u8]) {
        self.words(name, labels.iter().map(|l| u32::from(*l)).collect());
    }

    /// Values of a parameter.
    pub fn param(&mut self, name: &str, values: &[f64]) {
        self.params.push((name.into(), values.to_vec()));
    }

    /// Expects an output.
    pub fn expect(&mut self, name: &str, values: &[f64], tolerance: Tolerance) {
        let (what, values) = (name.into(), values.to_vec());
        self.expected.push(Expected { what, values, tolerance, gradient: false });
    }

    /// Expects the gradient of an input or parameter.
    pub fn expect_gradient(&mut self, name: &str, values: &[f64], tolerance: Tolerance) {
        let (what, values) = (gradient_of(name), values.to_vec());
        self.expected.push(Expected { what, values, tolerance, gradient: true });
    }

    /// Expects class indices exactly.
    pub fn expect_classes(&mut self, name: &str, classes: &[u8]) {
        let values: Vec<f64> = classes.iter().map(|class| f64::from(*class)).collect();
        self.expect(name, &values, Tolerance::Absolute(0.0));
    }
}
