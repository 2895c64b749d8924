//! Schedule, lifetimes and memory slots of a graph: pure data, printable, the same on every machine with the same limits.
//!
//! Steps run in the order in which nodes were appended. Every stored value gets a whole buffer (a slot) for its lifetime,
//! because one buffer cannot be read and written in the same dispatch, not even in disjoint ranges.

mod memory;
mod recompute;

use std::collections::HashMap;

use crate::engine::graph::{Bind, Caps, DType, Dispatch, Graph, Node, Storage, Value};
use crate::{Error, Result};
use memory::Memory;
pub use recompute::{Shrunk, shrink};

/// One step of a plan.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Run(Box<Dispatch>),
    /// Copies a value that is still needed before a kernel adds to it.
    Copy {
        from: Value,
        to: Value,
        words: usize,
    },
}

/// Steps and memory of one run of a graph.
#[derive(Debug, Clone)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Bytes of each slot, largest first.
    pub slots: Vec<u64>,
    /// Slot of each stored value that is not a parameter.
    pub value_to_slot: HashMap<Value, usize>,
}

impl Plan {
    /// Plans a graph for an adapter's limits.
    pub fn new(graph: &Graph, caps: &Caps) -> Result<Self> {
        let memory = Memory::of(graph);
        let mut steps = Vec::new();
        for node in graph.nodes() {
            if let Some((from, to)) = memory.copies(node) {
                steps.push(copy(graph, from, to)?);
            }
            steps.extend(lower(graph, node, caps)?.into_iter().map(Box::new).map(Step::Run));
        }
        Ok(Self { steps, slots: memory.slots, value_to_slot: memory.value_to_slot })
    }

    /// The values in memory where most is, the largest first, with their bytes.
    pub fn peak(graph: &Graph) -> Vec<(Value, u64)> {
        let memory = Memory::of(graph);
        let (time, _) = memory.peak();
        let mut values: Vec<_> = memory.live(time).map(|(value, l)| (value, l.bytes)).collect();
        values.sort_by_key(|(value, bytes)| (std::cmp::Reverse(*bytes), value.0));
        values
    }

    /// Bytes of all slots: the activations' peak.
    pub fn slot_bytes(&self) -> u64 {
        self.slots.iter().sum()
    }

    /// Bytes of the buffer that holds the dispatches' settings.
    pub fn uniform_bytes(&self, caps: &Caps) -> u64 {
        self.dispatches().count() as u64 * caps.uniform_alignment.max(LEAST_UNIFORM)
    }

    /// The dispatches in order.
    pub fn dispatches(&self) -> impl Iterator<Item = &Dispatch> {
        self.steps.iter().filter_map(|step| match step {
            Step::Run(dispatch) => Some(dispatch.as_ref()),
            Step::Copy { .. } => None,
        })
    }
}

/// Bytes of the settings of most kernels.
const LEAST_UNIFORM: u64 = 64;

/// The dispatches of a node, with its tensors as they are stored.
pub fn lower(graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
    let caps = Caps { vector_bytes: vector_bytes(graph, node), ..caps.clone() };
    let dispatches = node.op.lower(graph, node, &caps)?.into_iter();
    dispatches
        .map(|dispatch| {
            check_bindings(graph, &dispatch, &caps)?;
            let mut dispatch = stored_as_is(graph, dispatch);
            dispatch.kernel.wide = caps.wide();
            Ok(dispatch)
        })
        .collect()
}

/// Smaller limits than any adapter's serve to test how tensors are split: weights are not held to those.
const LEAST_BINDING: u64 = 1 << 20;

/// Tensors are bound in pieces, weights and partial sums whole: those may not exceed a binding.
fn check_bindings(graph: &Graph, dispatch: &Dispatch, caps: &Caps) -> Result<()> {
    for (_, bind) in &dispatch.bindings {
        if let Bind::Value { value, words, .. } = bind
            && *words as u64 * 4 > caps.max_binding.max(LEAST_BINDING)
        {
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let found = format!(
                "takes {:.1} MiB, more than the {:.1} MiB that this adapter binds; use a smaller base width or fewer pools",
                mib(*words as u64 * 4),
                mib(caps.max_binding)
            );
            return Err(Error::shape(graph.info(*value).name.clone(), found));
        }
    }
    Ok(())
}

/// A copy between values that lie in memory alike.
fn copy(graph: &Graph, from: Value, to: Value) -> Result<Step> {
    let (a, b) = (graph.info(from), graph.info(to));
    if (a.dtype, a.words) != (b.dtype, b.words) {
        return Err(Error::Internal(format!("{} is copied to {} of another kind", a.name, b.name)));
    }
    Ok(Step::Copy { from, to, words: b.words })
}

/// Bytes of a vector of the tensors that a node touches, the largest of all.
fn vector_bytes(graph: &Graph, node: &Node) -> usize {
    let tensors = graph.reads(node).into_iter().chain(node.outputs.iter().copied());
    tensors
        .map(|value| graph.info(value))
        .filter(|info| info.layout.is_some() && !matches!(info.storage, Storage::Lazy(_)))
        .map(|info| info.dtype.vector_bytes())
        .max()
        .unwrap_or(DType::F32.vector_bytes())
}

/// Tells the kernel which of its bindings hold f16, and counts their bytes as what they are.
fn stored_as_is(graph: &Graph, mut dispatch: Dispatch) -> Dispatch {
    let mut halves = Vec::new();
    let mut tensors = Vec::new();
    for (name, bind) in &dispatch.bindings {
        let Bind::Value { value, words, .. } = *bind else { continue };
        let info = graph.info(value);
        if info.dtype == DType::F16 {
            halves.push(*name);
        }
        if info.layout.is_some() && !tensors.contains(&(*bind, info.dtype, words)) {
            tensors.push((*bind, info.dtype, words));
        }
    }
    if halves.is_empty() {
        return dispatch;
    }
    let bytes: usize = tensors.iter().map(|(.., words)| words * 4).sum();
    let in_f32 = |(_, dtype, words): &(Bind, DType, usize)| words * 64 / dtype.vector_bytes();
    let all: usize = tensors.iter().map(in_f32).sum();
    dispatch.bytes = (dispatch.bytes as u128 * bytes as u128 / all.max(1) as u128) as u64;
    dispatch.kernel = dispatch.kernel.halves(halves);
    dispatch
}
