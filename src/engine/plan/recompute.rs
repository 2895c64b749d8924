//! Which values of the forward pass to make again in the backward pass, so that a plan fits a budget.
//!
//! Greedy: while the plan is too large, of the values that lie idle where most is in memory, the one that saves most for
//! its work is made again; once with sums among them and once without, since either may lead further. Afterwards those that turned
//! out not to be needed are kept after all.

use std::collections::{HashMap, HashSet};

use super::draft::Draft;
use super::memory::Memory;
use crate::base::Result;
use crate::engine::graph::{FLOPS_PER_BYTE, Graph, Value};

/// Arithmetic operations and bytes moved.
#[derive(Debug, Clone, Copy)]
struct Work {
    flops: u64,
    bytes: u64,
}

impl Work {
    fn cost(self) -> u64 {
        (self.bytes + self.flops / FLOPS_PER_BYTE).max(1)
    }
}

struct Search<'a> {
    graph: &'a Graph,
    /// Node and work of each value that can be made again.
    work: HashMap<Value, (usize, Work)>,
}

/// Makes as little as possible again for slots of at most `budget` bytes; where that cannot be, gives the smallest draft found.
/// The names are those of the values that are made again.
pub(super) fn shrink(draft: Draft, budget: u64) -> Result<(Draft, Vec<String>)> {
    let graph = draft.graph();
    let mut work = HashMap::new();
    for (value, node) in graph.recomputable() {
        let dispatches = draft.lower(node)?;
        let flops = dispatches.iter().map(|d| d.flops).sum();
        let bytes = dispatches.iter().map(|d| d.bytes).sum();
        work.insert(value, (node, Work { flops, bytes }));
    }
    let search = Search { graph, work };
    let mut found = Vec::new();
    for refused in [HashSet::new(), search.sums()] {
        let (mut chosen, bytes) = search.grow(budget, refused)?;
        search.prune(&mut chosen, budget.max(bytes))?;
        let cost: u64 = chosen.iter().map(|value| search.work[value].1.cost()).sum();
        found.push((bytes.max(budget), cost, chosen));
    }
    // the first of equals
    let best = found.into_iter().min_by_key(|(bytes, cost, _)| (*bytes, *cost));
    let chosen = best.map(|(.., chosen)| chosen).unwrap_or_default();
    let again = chosen.iter().map(|value| graph.info(*value).name.clone()).collect();
    Ok((draft.with(search.with(&chosen)?), again))
}

impl Search<'_> {
    /// Values that are made of several tensors. To make a sum again, all that it is made from must be there at once, where the
    /// sum may be all that is needed.
    fn sums(&self) -> HashSet<Value> {
        let tensors = |node: usize| {
            let reads = self.graph.reads(&self.graph.nodes()[node]).into_iter();
            reads.filter(|value| self.work.contains_key(value)).count()
        };
        let several = self.work.iter().filter(|(_, (node, _))| tensors(*node) > 1);
        several.map(|(value, _)| *value).collect()
    }

    /// The graph that makes these values again.
    fn with(&self, chosen: &[Value]) -> Result<Graph> {
        let mut order = chosen.to_vec();
        order.sort_by_key(|value| std::cmp::Reverse(self.work[value].0));
        let mut graph = self.graph.clone();
        order.into_iter().try_for_each(|value| graph.recompute(value))?;
        Ok(graph)
    }

    /// Values for the least memory on the way to the budget, and the bytes reached.
    fn grow(&self, budget: u64, mut refused: HashSet<Value>) -> Result<(Vec<Value>, u64)> {
        let mut chosen = Vec::new();
        let mut memory = Memory::of(self.graph);
        let mut graph = self.graph.clone();
        let mut best = (Vec::new(), memory.bytes());
        while best.1 > budget {
            let (time, peak) = memory.peak();
            let idle = self.idle(&graph, &memory, time);
            let fresh =
                idle.into_iter().filter(|(v, _)| !chosen.contains(v) && !refused.contains(v));
            let gain = |bytes: u64, value: &Value| {
                (u128::from(bytes) << 32) / u128::from(self.work[value].1.cost())
            };
            let next = fresh.max_by_key(|(value, bytes)| (gain(*bytes, value), *bytes, value.0));
            let Some((value, _)) = next else { break };
            chosen.push(value);
            let tried = self.with(&chosen)?;
            let with_it = Memory::of(&tried);
            if with_it.peak().1 > peak {
                // what it is made from takes more room than it
                refused.insert(value);
                chosen.pop();
                continue;
            }
            (graph, memory) = (tried, with_it);
            if memory.bytes() < best.1 {
                best = (chosen.clone(), memory.bytes());
            }
        }
        Ok(best)
    }

    /// Values in memory at a node that the forward pass is done with and the backward pass does not yet need, with their bytes.
    fn idle(&self, graph: &Graph, memory: &Memory, time: usize) -> Vec<(Value, u64)> {
        let mut waiting: HashSet<Value> = memory.live(time).map(|(value, _)| value).collect();
        waiting.retain(|value| self.work.contains_key(value));
        for (index, node) in graph.nodes().iter().enumerate() {
            let still_forward = graph.is_forward(index) && index >= time;
            if index == time || still_forward || (!graph.is_forward(index) && index < time) {
                graph.reads(node).iter().for_each(|value| {
                    waiting.remove(value);
                });
            }
        }
        let bytes = memory.live(time).filter(|(value, _)| waiting.contains(value));
        bytes.map(|(value, lifetime)| (value, lifetime.bytes)).collect()
    }

    /// Takes back what is not needed for `bytes`, the dearest first.
    fn prune(&self, chosen: &mut Vec<Value>, bytes: u64) -> Result<()> {
        let mut dearest = chosen.clone();
        dearest.sort_by_key(|value| (std::cmp::Reverse(self.work[value].1.cost()), value.0));
        for value in dearest {
            let fewer: Vec<Value> = chosen.iter().copied().filter(|v| *v != value).collect();
            if Memory::of(&self.with(&fewer)?).bytes() <= bytes {
                *chosen = fewer;
            }
        }
        Ok(())
    }
}
