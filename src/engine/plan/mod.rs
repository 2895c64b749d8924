//! Schedule, lifetimes and memory slots of a graph: pure data, printable, the same on every machine with the same limits.
//!
//! A plan takes a graph for an adapter: it stores the tensors as it is asked, fuses nodes, asks operations for the working memory
//! of the variants that they choose ([`Draft`]), makes values again where memory is short, and gives every value its place.
//! Steps run in the order in which nodes were appended. Every stored value gets a whole buffer (a slot) for its lifetime,
//! because one buffer cannot be read and written in the same dispatch, not even in disjoint ranges.

mod draft;
mod memory;
mod recompute;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

pub use draft::{Draft, PlanRequest};

use crate::base::{Error, Result};
use crate::engine::graph::{Caps, Dispatch, Graph, Value};
use memory::Memory;

/// One step of a plan.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Runs a kernel.
    Run(Box<Dispatch>),
    /// Copies a value that is still needed before a kernel adds to it.
    Copy {
        /// The value that is still needed.
        from: Value,
        /// The value that the kernel adds to.
        to: Value,
        /// Words of each.
        words: usize,
    },
}

/// Steps and memory of one run of a graph.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The graph as it is planned, with the values that the plan added. Those of the network keep their ids.
    pub graph: Graph,
    /// What is run, in order.
    pub steps: Vec<Step>,
    /// Bytes of each slot, largest first.
    pub slots: Vec<u64>,
    /// Slot of each stored value that is not a parameter.
    pub value_to_slot: HashMap<Value, usize>,
    /// Names of the values that the backward pass makes again.
    pub again: Vec<String>,
}

/// A graph and how it is planned.
#[derive(Debug, Clone)]
pub struct Workload {
    /// What is computed.
    pub graph: Graph,
    /// As for [`Plan::new`].
    pub options: PlanRequest,
}

impl Plan {
    /// Plans a graph for an adapter. Where a budget cannot be kept, this is the smallest plan that was found.
    ///
    /// # Errors
    ///
    /// Where a channel block of a tensor, or a weight as a whole, exceeds what the adapter binds.
    pub fn new(graph: &Graph, caps: &Caps, options: &PlanRequest) -> Result<Self> {
        let draft = Draft::new(graph, caps, options)?.join_sums();
        let (draft, again) = match options.budget {
            Some(budget) => recompute::shrink(draft, budget)?,
            None => (draft, Vec::new()),
        };
        let memory = Memory::of(draft.graph());
        let mut steps = Vec::new();
        for (index, node) in draft.graph().nodes().iter().enumerate() {
            if let Some((from, to)) = memory.copies(node) {
                steps.push(copy(draft.graph(), from, to)?);
            }
            steps.extend(draft.lower(index)?.into_iter().map(Box::new).map(Step::Run));
        }
        let Memory { slots, value_to_slot, .. } = memory;
        Ok(Self { graph: draft.into_graph(), steps, slots, value_to_slot, again })
    }

    /// The values in memory where most is, the largest first, with their bytes.
    pub fn peak(&self) -> Vec<(Value, u64)> {
        let memory = Memory::of(&self.graph);
        let (time, _) = memory.peak();
        let mut values: Vec<_> = memory.live(time).map(|(value, l)| (value, l.bytes)).collect();
        values.sort_by_key(|(value, bytes)| (std::cmp::Reverse(*bytes), memory.rank(*value)));
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

/// A copy between values that lie in memory alike.
fn copy(graph: &Graph, from: Value, to: Value) -> Result<Step> {
    let (a, b) = (graph.info(from), graph.info(to));
    if (a.dtype, a.words) != (b.dtype, b.words) {
        return Err(Error::Internal(format!("{} is copied to {} of another kind", a.name, b.name)));
    }
    Ok(Step::Copy { from, to, words: b.words })
}
