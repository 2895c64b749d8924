//! Operations, the nodes that hold them, and the gradients that a backward pass has found.

use std::collections::HashMap;
use std::sync::Arc;

use super::Graph;
use super::dispatch::{Caps, Dispatch};
use super::layout::DType;
use super::value::Value;
use crate::base::{Error, Result};

/// A node of a planned graph and the adapter that it is lowered for.
#[derive(Debug)]
pub struct Lowering<'a> {
    /// The graph as it is planned.
    pub graph: &'a Graph,
    /// What is lowered.
    pub node: &'a Node,
    /// The adapter.
    pub caps: &'a Caps,
    /// The widest storage of the tensors that the node touches.
    pub dtype: DType,
    /// How the plan stores activations.
    pub activations: DType,
    /// Whether gradients of losses are multiplied by the loss scale.
    pub scaled: bool,
}

/// An operation on values. Building the graph asks for its gradient; a plan asks which working memory the variant that it chooses
/// needs, then for the dispatches. Both must come to the same choice, which [`Lowering::choose`] makes of site and adapter alone.
pub trait Op: std::fmt::Debug + Send + Sync {
    /// Name in the field's terms, for labels and messages.
    fn name(&self) -> &'static str;

    /// Appends the nodes that turn gradients of the outputs into gradients of the inputs. An operation of a backward pass has none.
    fn backward(&self, _: &mut Graph, _: &Node, _: &mut Gradients) -> Result<()> {
        Err(Error::Internal(format!("{}: second derivatives are not offered", self.name())))
    }

    /// Working memory of the dispatches, in the order of [`Node::scratch`].
    fn scratch(&self, _: &Lowering<'_>) -> Result<Vec<Scratch>> {
        Ok(Vec::new())
    }

    /// The dispatches that compute the outputs; none for a lazy value.
    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>>;

    /// Parts of each channel block of the only output whose moments the node's kernels can write to [`Node::moments`] along with it,
    /// 12 words a part: mean, summed squared deviation and count of each lane. None if they cannot.
    fn moment_parts(&self, _: &Lowering<'_>) -> Result<Option<MomentParts>> {
        Ok(None)
    }

    /// Whether the operation can do with such moments, which come along with its first input, as its only working memory.
    fn takes_moments(&self, _: &MomentParts, _: &Caps) -> bool {
        false
    }

    /// Whether the dispatches end with the sum of the rows of the first working memory as the only output, so that [`Node::sums`]
    /// may say where it is made.
    fn ends_in_sum(&self) -> bool {
        false
    }
}

/// Working memory that a variant needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scratch {
    /// For messages.
    pub name: String,
    /// 32-bit words.
    pub words: usize,
}

impl Scratch {
    /// So many words, for messages named `name`.
    pub fn new(name: impl Into<String>, words: usize) -> Self {
        Self { name: name.into(), words }
    }
}

/// Parts of a channel block, each with moments of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MomentParts {
    /// How many.
    pub count: usize,
    /// Voxels of each but the last, where they are in order; else each part tells its own count.
    pub voxels: Option<usize>,
}

/// Where the rows of partial sums that a node makes are added up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Sums {
    /// By the node.
    #[default]
    Here,
    /// By a later node.
    Later,
    /// By the node, with those of earlier nodes: their outputs, whose rows are the node's last working memory, in the same order.
    With(Vec<Value>),
}

/// An operation with its operands.
#[derive(Debug, Clone)]
pub struct Node {
    /// What is computed.
    pub op: Arc<dyn Op>,
    /// What it reads, some of it through lazy values.
    pub inputs: Vec<Value>,
    /// What it makes.
    pub outputs: Vec<Value>,
    /// An input to which the node adds its first output: they share memory, or the plan copies first.
    pub addend: Option<Value>,
    /// Working memory, which a plan adds: it lives while the node runs, and until a later node that has it, too.
    pub scratch: Vec<Value>,
    /// Where the moments of the output go along, which a plan adds: the working memory of a later node.
    pub moments: Option<Value>,
    /// Where its partial sums are added up, which a plan decides.
    pub sums: Sums,
}

impl Node {
    /// A node as a network has it, without what plans add.
    pub(super) fn new(
        op: impl Op + 'static,
        inputs: Vec<Value>,
        outputs: Vec<Value>,
        addend: Option<Value>,
    ) -> Self {
        let (scratch, moments, sums) = (Vec::new(), None, Sums::Here);
        Self { op: Arc::new(op), inputs, outputs, addend, scratch, moments, sums }
    }
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
