//! What values are, and how consumers form them while they read.

use super::layout::{DType, Layout, Packing};
use crate::engine::activation::Activation;

/// A copyable id of a value of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub u32);

/// Whether a parameter serves every network of a family or one, by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Every network of the family.
    Shared,
    /// The network of this name.
    Own(String),
}

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Kaiming normal with this fan in and the gain of ReLU.
    Kaiming {
        /// Inputs that an output is summed over.
        fan_in: usize,
    },
    /// One number everywhere.
    Constant(f32),
}

/// A parameter tensor: name and shape as in files, packing as in GPU memory.
#[derive(Debug, Clone)]
pub struct ParamSpec {
    /// As in files, each once in a graph.
    pub name: String,
    /// Sizes of the axes in files, such as (Cout, Cin, kD, kH, kW).
    pub dims: Vec<usize>,
    /// Whose it is.
    pub scope: Scope,
    /// How it lies in GPU memory.
    pub packing: Packing,
    /// What it is before training.
    pub init: Init,
}

/// How a consumer forms a value while it reads a stored tensor.
#[derive(Debug, Clone, PartialEq)]
pub enum Load {
    /// `act(norm(source))`, read through indices divided by `up` (D, H, W); `norm` are coefficients.
    Forward {
        /// The stored tensor.
        source: Value,
        /// Coefficients of the norm.
        norm: Option<Value>,
        /// The activation, after the norm.
        act: Option<Activation>,
        /// Factors of upsampling along D, H, W.
        up: [usize; 3],
    },
    /// Gradient of `raw`, from the gradient `upstream` of `act(norm(raw))`; `coef` are coefficients of the norm's gradient.
    Gradient {
        /// The gradient after norm and activation.
        upstream: Value,
        /// The tensor before them.
        raw: Value,
        /// Coefficients of the norm's gradient.
        coef: Option<Value>,
        /// The activation.
        act: Option<Activation>,
    },
}

impl Load {
    /// A stored tensor as it is.
    pub fn plain(source: Value) -> Self {
        Self::Forward { source, norm: None, act: None, up: [1; 3] }
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
    /// A parameter, by index into those of the graph.
    Param(usize),
    /// The gradient of a parameter.
    Grad(usize),
    /// Formed by consumers; several loads are a concatenation over channels.
    Lazy(Vec<Load>),
}

/// What is known of a value.
#[derive(Debug, Clone)]
pub struct ValueInfo {
    /// For labels and messages.
    pub name: String,
    /// Layout of tensors, also of lazy ones.
    pub layout: Option<Layout>,
    /// How the elements of a stored tensor lie in memory: in f32, unless a plan says otherwise.
    pub dtype: DType,
    /// Whether a tensor is stored in f32 whatever a plan does with others.
    pub in_f32: bool,
    /// 32-bit words in memory; 0 where lazy.
    pub words: usize,
    /// Where it lives.
    pub storage: Storage,
    /// Whether a backward pass makes its gradient.
    pub needs_grad: bool,
    pub(super) producer: Option<usize>,
}
