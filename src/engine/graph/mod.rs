//! Values, nodes, the `Op` trait, the builder, and reverse-mode differentiation that appends ordinary nodes.
//!
//! A value is either stored (a packed tensor, raw words, a parameter or its gradient) or *lazy*: a recipe ([`Load`]) that
//! its consumers apply while they read a stored tensor. Instance norm, LeakyReLU, nearest upsampling and concatenation
//! are lazy, forward and backward, so normalised, activated and upsampled tensors never exist in memory.

mod dispatch;
mod layout;
mod lowering;
mod op;
mod planned;
mod recompute;
mod value;

use std::collections::HashMap;

pub use dispatch::{Bind, Caps, Dispatch, FLOPS_PER_BYTE, Region, fold};
pub use layout::{DType, Layout, Packing};
pub use lowering::{BlockRun, CutAxis, Part, Portion};
pub use op::{Gradients, Lowering, MomentParts, Node, Op, Scratch, Sums};
pub use value::{Init, Load, ParamSpec, Scope, Storage, Value, ValueInfo};

use crate::base::{Error, Result};

/// A network of operations, forward and backward alike: what is computed, for every adapter and precision alike.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    values: Vec<ValueInfo>,
    params: Vec<ParamSpec>,
    param_values: Vec<Value>,
    param_grads: HashMap<usize, Value>,
    kept: Vec<Value>,
    /// First node of the backward pass.
    backward_start: Option<usize>,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// Operations in the order in which they run.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Every value, by id.
    pub fn values(&self) -> &[ValueInfo] {
        &self.values
    }

    /// Parameters in the order in which they were made.
    pub fn params(&self) -> &[ParamSpec] {
        &self.params
    }

    /// Values whose memory outlives the run, so that the host can read them.
    pub fn kept(&self) -> &[Value] {
        &self.kept
    }

    /// Keeps a value readable after a run.
    pub fn keep(&mut self, value: Value) {
        if !self.kept.contains(&value) {
            self.kept.push(value);
        }
    }

    /// What is known of a value of this graph.
    pub fn info(&self, value: Value) -> &ValueInfo {
        &self.values[value.0 as usize]
    }

    /// Layout of a tensor; an error for raw words.
    pub fn layout(&self, value: Value) -> Result<&Layout> {
        self.info(value).layout.as_ref().ok_or_else(|| {
            Error::shape(self.info(value).name.clone(), "expected a tensor, found raw words")
        })
    }

    fn push(&mut self, info: ValueInfo) -> Value {
        self.values.push(info);
        Value(self.values.len() as u32 - 1)
    }

    fn add(
        &mut self,
        name: String,
        storage: Storage,
        layout: Option<Layout>,
        words: usize,
    ) -> Value {
        self.push(ValueInfo {
            name,
            layout,
            dtype: DType::F32,
            in_f32: false,
            words,
            storage,
            needs_grad: false,
            producer: None,
        })
    }

    /// A tensor that a node will make.
    pub fn tensor(&mut self, name: impl Into<String>, layout: Layout) -> Value {
        let words = layout.words();
        self.add(name.into(), Storage::Tensor, Some(layout), words)
    }

    /// Raw words that a node will make.
    pub fn words(&mut self, name: impl Into<String>, words: usize) -> Value {
        self.add(name.into(), Storage::Words, None, words.max(4))
    }

    /// A tensor that the host writes.
    pub fn input(&mut self, name: impl Into<String>, layout: Layout) -> Value {
        let value = self.tensor(name, layout);
        self.values[value.0 as usize].storage = Storage::Input;
        value
    }

    /// Raw words that the host writes.
    pub fn input_words(&mut self, name: impl Into<String>, words: usize) -> Value {
        let value = self.words(name, words);
        self.values[value.0 as usize].storage = Storage::Input;
        value
    }

    /// An input whose gradient is wanted too, as tests do.
    pub fn differentiable_input(&mut self, name: impl Into<String>, layout: Layout) -> Value {
        let value = self.input(name, layout);
        self.values[value.0 as usize].needs_grad = true;
        value
    }

    /// A parameter; a frozen one gets no gradient.
    pub fn param(&mut self, spec: ParamSpec, frozen: bool) -> Value {
        let index = self.params.len();
        let value = self.add(spec.name.clone(), Storage::Param(index), None, spec.packing.words());
        self.values[value.0 as usize].needs_grad = !frozen;
        self.params.push(spec);
        self.param_values.push(value);
        value
    }

    /// Takes the gradient from the parameters that `which` picks. For use before [`Graph::backward`].
    pub fn freeze(&mut self, which: impl Fn(&ParamSpec) -> bool) {
        for (spec, value) in self.params.iter().zip(&self.param_values) {
            if which(spec) {
                self.values[value.0 as usize].needs_grad = false;
            }
        }
    }

    /// Specification of a parameter value.
    pub fn param_spec(&self, value: Value) -> Result<&ParamSpec> {
        match self.info(value).storage {
            Storage::Param(index) => Ok(&self.params[index]),
            _ => Err(Error::Internal(format!("{} is no parameter", self.info(value).name))),
        }
    }

    /// The value that receives a parameter's gradient; each parameter can be used once.
    pub fn param_grad(&mut self, param: Value) -> Result<Value> {
        let Storage::Param(index) = self.info(param).storage else {
            return Err(Error::Internal(format!("{} is no parameter", self.info(param).name)));
        };
        if self.param_grads.contains_key(&index) {
            return Err(Error::Internal(format!("{} is used twice", self.info(param).name)));
        }
        let name = format!("grad.{}", self.info(param).name);
        let words = self.info(param).words;
        let value = self.add(name, Storage::Grad(index), None, words);
        self.param_grads.insert(index, value);
        Ok(value)
    }

    /// Indices of the parameters that want a gradient.
    pub fn trained_params(&self) -> Vec<usize> {
        (0..self.params.len())
            .filter(|&index| self.info(self.param_values[index]).needs_grad)
            .collect()
    }

    /// A value formed by its consumers.
    pub fn lazy(&mut self, name: impl Into<String>, layout: Layout, loads: Vec<Load>) -> Value {
        self.add(name.into(), Storage::Lazy(loads), Some(layout), 0)
    }

    /// Appends an operation; its outputs want a gradient if an input does.
    pub fn node(&mut self, op: impl Op + 'static, inputs: Vec<Value>, outputs: Vec<Value>) {
        self.node_onto(op, inputs, outputs, None);
    }

    /// Appends an operation that adds its first output to `addend`.
    pub fn node_onto(
        &mut self,
        op: impl Op + 'static,
        inputs: Vec<Value>,
        outputs: Vec<Value>,
        addend: Option<Value>,
    ) {
        let needs_grad = inputs.iter().any(|input| self.info(*input).needs_grad);
        for output in &outputs {
            let info = &mut self.values[output.0 as usize];
            info.needs_grad = needs_grad;
            info.producer = Some(self.nodes.len());
        }
        self.nodes.push(Node::new(op, inputs, outputs, addend));
    }

    /// How to read a value: one load, or several for a concatenation.
    pub fn loads(&self, value: Value) -> Vec<Load> {
        match &self.info(value).storage {
            Storage::Lazy(loads) => loads.clone(),
            _ => vec![Load::plain(value)],
        }
    }

    /// The single load of a value; an error for a concatenation.
    pub fn load(&self, value: Value) -> Result<Load> {
        match <[Load; 1]>::try_from(self.loads(value)) {
            Ok([load]) => Ok(load),
            Err(_) => Err(Error::Internal(format!(
                "{} is a concatenation where one tensor is read",
                self.info(value).name
            ))),
        }
    }

    /// The concatenated values, or the value itself.
    pub fn parts(&self, value: Value) -> Vec<Value> {
        if self.loads(value).len() > 1
            && let Some(producer) = self.info(value).producer
        {
            return self.nodes[producer].inputs.clone();
        }
        vec![value]
    }

    /// Operands of the node that made a value.
    pub fn inputs_of(&self, value: Value) -> Result<Vec<Value>> {
        match self.info(value).producer {
            Some(producer) => Ok(self.nodes[producer].inputs.clone()),
            None => Err(Error::Internal(format!("{} has no producer", self.info(value).name))),
        }
    }

    /// Whether a value is a stored tensor.
    pub fn is_stored(&self, value: Value) -> bool {
        !matches!(self.info(value).storage, Storage::Lazy(_))
    }

    /// Stores a tensor in f32 whatever precision a plan stores others in.
    pub fn store_in_f32(&mut self, value: Value) {
        self.values[value.0 as usize].in_f32 = true;
    }

    /// Whether the graph has a backward pass.
    pub fn is_differentiated(&self) -> bool {
        self.backward_start.is_some()
    }

    /// Walks the nodes backwards from `output`, whose gradient is `grad`.
    pub fn backward(&mut self, output: Value, grad: Value) -> Result<Gradients> {
        if self.info(output).layout != self.info(grad).layout {
            let name = &self.info(output).name;
            return Err(Error::shape(
                "backward",
                format!("the gradient of {name} has another layout"),
            ));
        }
        self.backward_start = Some(self.nodes.len());
        let mut grads = Gradients::default();
        grads.set(output, grad);
        for index in (0..self.nodes.len()).rev() {
            let node = self.nodes[index].clone();
            let reached = node.outputs.iter().any(|output| grads.get(*output).is_some());
            let wanted = node.inputs.iter().any(|input| self.info(*input).needs_grad);
            if reached && wanted {
                node.op.backward(self, &node, &mut grads)?;
            }
        }
        Ok(grads)
    }
}
