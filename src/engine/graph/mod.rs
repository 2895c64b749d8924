//! Values, nodes, the `Op` trait, the builder, and reverse-mode differentiation that appends ordinary nodes.
//!
//! A value is either stored (a packed tensor, raw words, a parameter or its gradient) or *lazy*: a recipe ([`Load`]) that
//! its consumers apply while they read a stored tensor. Instance norm, LeakyReLU, nearest upsampling and concatenation
//! are lazy, forward and backward, so normalised, activated and upsampled tensors never exist in memory.

mod dispatch;
mod layout;
mod recompute;

use std::collections::HashMap;
use std::sync::Arc;

pub use dispatch::{Bind, Caps, Dispatch, FLOPS_PER_BYTE, Region, fold};
pub use layout::{DType, Layout, Packing};

use crate::{Error, Result};

/// A copyable id of a value of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub u32);

/// Whether a parameter serves every domain or one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    Shared,
    Own(String),
}

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Kaiming normal with this fan in and the gain of ReLU.
    Kaiming {
        fan_in: usize,
    },
    Constant(f32),
}

/// A parameter tensor: name and shape as in files, packing as in GPU memory.
#[derive(Debug, Clone)]
pub struct ParamSpec {
    pub name: String,
    pub dims: Vec<usize>,
    pub scope: Scope,
    pub packing: Packing,
    pub init: Init,
}

/// How a consumer forms a value while it reads a stored tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Load {
    /// `act(norm(source))`, read through indices divided by `up` (D, H, W).
    Forward { source: Value, norm: Option<Value>, act: bool, up: [usize; 3] },
    /// Gradient of `raw`, from the gradient `upstream` of `act(norm(raw))`.
    Gradient { upstream: Value, raw: Value, coef: Option<Value>, act: bool },
}

impl Load {
    /// A stored tensor as it is.
    pub fn plain(source: Value) -> Self {
        Self::Forward { source, norm: None, act: false, up: [1; 3] }
    }

    /// Values that this load reads.
    pub fn sources(&self) -> Vec<Value> {
        match self {
            Self::Forward { source, norm, .. } => {
                std::iter::once(*source).chain(norm.iter().copied()).collect()
            }
            Self::Gradient { upstream, raw, coef, .. } => {
                [*upstream, *raw].into_iter().chain(coef.iter().copied()).collect()
            }
        }
    }
}

/// Where a value lives.
#[derive(Debug, Clone, PartialEq)]
pub enum Storage {
    /// A packed tensor made by a node.
    Tensor,
    /// Raw words made by a node: statistics, partial sums, losses.
    Words,
    /// Written by the host before a run.
    Input,
    /// A parameter, by index into [`Graph::params`].
    Param(usize),
    /// The gradient of a parameter.
    Grad(usize),
    /// Formed by consumers; several loads are a concatenation over channels.
    Lazy(Vec<Load>),
}

/// What is known of a value.
#[derive(Debug, Clone)]
pub struct ValueInfo {
    pub name: String,
    /// Layout of tensors, also of lazy ones.
    pub layout: Option<Layout>,
    /// How the elements of a stored tensor lie in memory.
    pub dtype: DType,
    /// 32-bit words in memory; 0 where lazy.
    pub words: usize,
    pub storage: Storage,
    pub needs_grad: bool,
    producer: Option<usize>,
}

/// An operation on values.
pub trait Op: std::fmt::Debug + Send + Sync {
    /// Name in the field's terms, for labels and messages.
    fn name(&self) -> &'static str;

    /// Appends the nodes that turn gradients of the outputs into gradients of the inputs.
    fn backward(&self, graph: &mut Graph, node: &Node, grads: &mut Gradients) -> Result<()>;

    /// The dispatches that compute the outputs; none for a lazy value.
    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>>;

    /// Parts of each channel block of the first output whose moments the node's kernels can give along, as a second output of
    /// 12 words a part: mean, summed squared deviation and count of each lane. None if they cannot.
    fn moment_parts(&self, _: &Graph, _: &Node) -> Result<Option<usize>> {
        Ok(None)
    }
}

/// An operation with its operands.
#[derive(Debug, Clone)]
pub struct Node {
    pub op: Arc<dyn Op>,
    pub inputs: Vec<Value>,
    pub outputs: Vec<Value>,
    /// An input to which the node adds its first output: they share memory, or the plan copies first.
    pub addend: Option<Value>,
}

/// Gradients found so far, by value.
#[derive(Debug, Default)]
pub struct Gradients {
    map: HashMap<Value, Value>,
}

impl Gradients {
    /// The gradient of a value, if anything contributed to it.
    pub fn get(&self, value: Value) -> Option<Value> {
        self.map.get(&value).copied()
    }

    /// Replaces the gradient of a value, by one that includes what was there.
    pub fn set(&mut self, value: Value, grad: Value) {
        self.map.insert(value, grad);
    }
}

/// A network of operations, forward and backward alike.
#[derive(Debug, Clone)]
pub struct Graph {
    caps: Caps,
    nodes: Vec<Node>,
    values: Vec<ValueInfo>,
    params: Vec<ParamSpec>,
    param_values: Vec<Value>,
    param_grads: HashMap<usize, Value>,
    kept: Vec<Value>,
    /// First node of the backward pass.
    backward_start: Option<usize>,
    /// Whether there will be none.
    forward_only: bool,
}

impl Default for Graph {
    fn default() -> Self {
        Self::new()
    }
}

impl Graph {
    /// An empty graph for any adapter.
    pub fn new() -> Self {
        Self::sized_for(&Caps::default())
    }

    /// An empty graph whose partial sums are sized for this adapter.
    pub fn sized_for(caps: &Caps) -> Self {
        Self {
            caps: caps.clone(),
            nodes: Vec::new(),
            values: Vec::new(),
            params: Vec::new(),
            param_values: Vec::new(),
            param_grads: HashMap::new(),
            kept: Vec::new(),
            backward_start: None,
            forward_only: false,
        }
    }

    /// An empty graph that is never differentiated: its kernels may round otherwise than those whose results training repeats.
    pub fn forward_only(caps: &Caps) -> Self {
        Self { forward_only: true, ..Self::sized_for(caps) }
    }

    /// What partial sums are sized for.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// Threads that keep the adapter busy.
    pub fn threads(&self) -> usize {
        self.caps.threads()
    }

    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub fn values(&self) -> &[ValueInfo] {
        &self.values
    }

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

    /// A tensor that a node will make.
    pub fn tensor(&mut self, name: impl Into<String>, layout: Layout) -> Value {
        self.push(ValueInfo {
            name: name.into(),
            words: layout.words(),
            layout: Some(layout),
            dtype: DType::F32,
            storage: Storage::Tensor,
            needs_grad: false,
            producer: None,
        })
    }

    /// Raw words that a node will make.
    pub fn words(&mut self, name: impl Into<String>, words: usize) -> Value {
        self.push(ValueInfo {
            name: name.into(),
            words: words.max(4),
            layout: None,
            dtype: DType::F32,
            storage: Storage::Words,
            needs_grad: false,
            producer: None,
        })
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
        let value = self.push(ValueInfo {
            name: spec.name.clone(),
            layout: None,
            dtype: DType::F32,
            words: spec.packing.words(),
            storage: Storage::Param(index),
            needs_grad: !frozen,
            producer: None,
        });
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
        let value = self.push(ValueInfo {
            name,
            layout: None,
            dtype: DType::F32,
            words,
            storage: Storage::Grad(index),
            needs_grad: false,
            producer: None,
        });
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
        self.push(ValueInfo {
            name: name.into(),
            layout: Some(layout),
            dtype: DType::F32,
            words: 0,
            storage: Storage::Lazy(loads),
            needs_grad: false,
            producer: None,
        })
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
        self.nodes.push(Node { op: Arc::new(op), inputs, outputs, addend });
    }

    /// What [`Op::moment_parts`] says of the node that made a tensor, once, in a graph without gradients. Tensors in f16 are
    /// not what their kernels sum.
    pub fn moment_parts(&self, value: Value) -> Result<Option<usize>> {
        let halves = self.caps.vector_bytes < DType::F32.vector_bytes();
        match self.info(value).producer.map(|index| &self.nodes[index]) {
            Some(node) if self.forward_only && !halves && node.outputs == [value] => {
                node.op.moment_parts(self, node)
            }
            _ => Ok(None),
        }
    }

    /// Has the node that made a tensor give its moments along.
    pub fn give_moments(&mut self, value: Value, moments: Value) {
        let Some(producer) = self.info(value).producer else { return };
        self.values[moments.0 as usize].producer = Some(producer);
        self.nodes[producer].outputs.push(moments);
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

    /// Stores the tensors and tensor inputs that `which` picks in f16, their arithmetic still in f32. For use once the graph
    /// is complete.
    pub fn store_as_f16(&mut self, which: impl Fn(Value, &ValueInfo) -> bool) {
        for (index, info) in self.values.iter_mut().enumerate() {
            let stored = matches!(info.storage, Storage::Tensor | Storage::Input);
            let picked = stored && which(Value(index as u32), info);
            if let (true, Some(layout)) = (picked, &info.layout) {
                info.dtype = DType::F16;
                info.words = DType::F16.words(layout);
            }
        }
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
        if self.forward_only {
            return Err(Error::Internal("a graph without gradients is differentiated".into()));
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
