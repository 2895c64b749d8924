//! Schedule, lifetimes and memory slots of a graph: pure data, printable, the same on every machine with the same limits.
//!
//! Steps run in the order in which nodes were appended. Every stored value gets a whole buffer (a slot) for its lifetime,
//! because one buffer cannot be read and written in the same dispatch, not even in disjoint ranges.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::graph::{Bind, Caps, Dispatch, Graph, Storage, Value};

/// One step of a plan.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Run(Dispatch),
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

/// First and last step index of a value, shared by values that share memory.
#[derive(Debug, Clone, Copy)]
struct Lifetime {
    first: usize,
    last: usize,
    bytes: u64,
}

impl Plan {
    /// Plans a graph for an adapter's limits.
    pub fn new(graph: &Graph, caps: &Caps) -> Result<Self> {
        let last = last_uses(graph);
        let mut root: HashMap<Value, Value> = HashMap::new();
        let mut lifetimes: HashMap<Value, Lifetime> = HashMap::new();
        for (index, info) in graph.values().iter().enumerate() {
            if info.storage == Storage::Input {
                let value = Value(index as u32);
                let end = last.get(&value).copied().unwrap_or(0);
                lifetimes
                    .insert(value, Lifetime { first: 0, last: end, bytes: bytes(graph, value) });
            }
        }
        let mut steps = Vec::new();
        for (index, node) in graph.nodes().iter().enumerate() {
            let onto = node.addend.map(|addend| (addend, node.outputs[0]));
            for output in &node.outputs {
                if !in_slots(graph, *output) {
                    continue;
                }
                let end = last.get(output).copied().unwrap_or(index);
                let shared = onto.filter(|(addend, out)| {
                    out == output && can_share(graph, node, *addend, index, &last)
                });
                if let Some((addend, _)) = shared {
                    let owner = root.get(&addend).copied().unwrap_or(addend);
                    root.insert(*output, owner);
                    if let Some(lifetime) = lifetimes.get_mut(&owner) {
                        lifetime.last = lifetime.last.max(end);
                    }
                    continue;
                }
                let bytes = bytes(graph, *output);
                lifetimes.insert(*output, Lifetime { first: index, last: end, bytes });
                if let Some((addend, out)) = onto
                    && out == *output
                {
                    steps.push(Step::Copy { from: addend, to: out, words: graph.info(out).words });
                }
            }
            for dispatch in node.op.lower(graph, node, caps)? {
                check_bindings(graph, &dispatch, caps)?;
                steps.push(Step::Run(dispatch));
            }
        }
        let (slots, mut value_to_slot) = assign(&lifetimes);
        for (value, owner) in root {
            if let Some(slot) = value_to_slot.get(&owner).copied() {
                value_to_slot.insert(value, slot);
            }
        }
        Ok(Self { steps, slots, value_to_slot })
    }

    /// Bytes of all slots: the activations' peak.
    pub fn slot_bytes(&self) -> u64 {
        self.slots.iter().sum()
    }

    /// The dispatches in order.
    pub fn dispatches(&self) -> impl Iterator<Item = &Dispatch> {
        self.steps.iter().filter_map(|step| match step {
            Step::Run(dispatch) => Some(dispatch),
            Step::Copy { .. } => None,
        })
    }
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

fn bytes(graph: &Graph, value: Value) -> u64 {
    (graph.info(value).words * 4) as u64
}

fn in_slots(graph: &Graph, value: Value) -> bool {
    matches!(graph.info(value).storage, Storage::Tensor | Storage::Words | Storage::Input)
}

/// Stored values that a node reads, through lazy ones.
fn reads(graph: &Graph, inputs: &[Value]) -> Vec<Value> {
    inputs
        .iter()
        .flat_map(|input| graph.loads(*input).iter().flat_map(|l| l.sources()).collect::<Vec<_>>())
        .collect()
}

fn last_uses(graph: &Graph) -> HashMap<Value, usize> {
    let mut last = HashMap::new();
    for (index, node) in graph.nodes().iter().enumerate() {
        // a lazy node reads nothing itself: whoever reads its output does
        if node.outputs.iter().all(|output| !graph.is_stored(*output)) {
            continue;
        }
        for value in reads(graph, &node.inputs) {
            last.insert(value, index);
        }
    }
    for kept in graph.kept() {
        last.insert(*kept, graph.nodes().len());
    }
    last
}

/// Whether a node may add into its addend's memory: nothing else reads the addend now or later.
fn can_share(
    graph: &Graph,
    node: &crate::graph::Node,
    addend: Value,
    index: usize,
    last: &HashMap<Value, usize>,
) -> bool {
    let times_read = reads(graph, &node.inputs).iter().filter(|value| **value == addend).count();
    graph.info(addend).storage == Storage::Tensor
        && last.get(&addend).is_none_or(|end| *end <= index)
        && times_read <= 1
}

/// Largest value first, each into the tightest slot that is free for its whole lifetime.
fn assign(lifetimes: &HashMap<Value, Lifetime>) -> (Vec<u64>, HashMap<Value, usize>) {
    let mut order: Vec<(Value, Lifetime)> = lifetimes.iter().map(|(v, l)| (*v, *l)).collect();
    order.sort_by_key(|(value, lifetime)| {
        (std::cmp::Reverse(lifetime.bytes), lifetime.first, value.0)
    });
    let mut slots: Vec<u64> = Vec::new();
    let mut busy: Vec<Vec<Lifetime>> = Vec::new();
    let mut places = HashMap::new();
    for (value, lifetime) in order {
        let free = (0..slots.len()).rev().find(|slot| {
            busy[*slot].iter().all(|l| l.last < lifetime.first || lifetime.last < l.first)
        });
        let slot = free.unwrap_or_else(|| {
            slots.push(lifetime.bytes);
            busy.push(Vec::new());
            slots.len() - 1
        });
        busy[slot].push(lifetime);
        places.insert(value, slot);
    }
    (slots, places)
}
