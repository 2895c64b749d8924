//! When each stored value is needed, and which slot holds it then. Times are node indices.

use std::collections::HashMap;

use crate::engine::graph::{Graph, Node, Storage, Value};

/// First and last node of a value, shared by values that share memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime {
    pub first: usize,
    pub last: usize,
    pub bytes: u64,
}

/// The memory of a graph's stored values.
pub(super) struct Memory {
    /// Values that own memory.
    pub lifetimes: HashMap<Value, Lifetime>,
    /// Values in the memory of another.
    root: HashMap<Value, Value>,
    /// What comes first among equals: the network's values in order, the working memory of a node after its outputs.
    ranks: HashMap<Value, (Value, usize)>,
    /// Bytes of each slot, largest first.
    pub slots: Vec<u64>,
    pub value_to_slot: HashMap<Value, usize>,
}

impl Memory {
    /// Lifetimes and slots of a graph as it stands.
    pub fn of(graph: &Graph) -> Self {
        let last = last_uses(graph);
        let mut memory = Self {
            lifetimes: HashMap::new(),
            root: HashMap::new(),
            ranks: HashMap::new(),
            slots: Vec::new(),
            value_to_slot: HashMap::new(),
        };
        for (index, info) in graph.values().iter().enumerate() {
            if info.storage == Storage::Input {
                let value = Value(index as u32);
                let end = last.get(&value).copied().unwrap_or(0);
                let bytes = bytes(graph, value);
                memory.lifetimes.insert(value, Lifetime { first: 0, last: end, bytes });
            }
        }
        for (index, node) in graph.nodes().iter().enumerate() {
            memory.add(graph, index, node, &last);
        }
        memory.assign();
        memory
    }

    fn add(&mut self, graph: &Graph, index: usize, node: &Node, last: &HashMap<Value, usize>) {
        if let Some(output) = node.outputs.last() {
            let ranked = node.scratch.iter().enumerate();
            self.ranks.extend(ranked.map(|(place, value)| (*value, (*output, place + 1))));
        }
        let made = node.outputs.iter().chain(&node.moments).chain(&node.scratch);
        for (place, output) in made.enumerate() {
            // working memory that an earlier node wrote to is there already
            if !in_slots(graph, *output) || self.lifetimes.contains_key(output) {
                continue;
            }
            let end = last.get(output).copied().unwrap_or(index);
            let addend = node
                .addend
                .filter(|addend| place == 0 && can_share(graph, node, *addend, index, last));
            if let Some(addend) = addend {
                let owner = self.root.get(&addend).copied().unwrap_or(addend);
                self.root.insert(*output, owner);
                if let Some(lifetime) = self.lifetimes.get_mut(&owner) {
                    lifetime.last = lifetime.last.max(end);
                }
                continue;
            }
            let bytes = bytes(graph, *output);
            self.lifetimes.insert(*output, Lifetime { first: index, last: end, bytes });
        }
    }

    /// The node at which most is in memory, and the bytes then.
    pub fn peak(&self) -> (usize, u64) {
        let times = self.lifetimes.values().map(|l| l.first);
        let most = times.map(|time| (self.live(time).map(|(_, l)| l.bytes).sum::<u64>(), time));
        // the earliest of equals
        let most = most.max_by_key(|(bytes, time)| (*bytes, std::cmp::Reverse(*time)));
        most.map_or((0, 0), |(bytes, time)| (time, bytes))
    }

    /// What is in memory while a node runs.
    pub fn live(&self, time: usize) -> impl Iterator<Item = (Value, Lifetime)> {
        let alive = move |l: &&Lifetime| l.first <= time && time <= l.last;
        self.lifetimes.iter().filter(move |(_, l)| alive(l)).map(|(value, l)| (*value, *l))
    }

    /// Bytes of all slots.
    pub fn bytes(&self) -> u64 {
        self.slots.iter().sum()
    }

    /// What must be copied before a node runs: an addend that it cannot share memory with.
    pub fn copies(&self, node: &Node) -> Option<(Value, Value)> {
        let out = *node.outputs.first()?;
        node.addend.filter(|_| !self.root.contains_key(&out)).map(|addend| (addend, out))
    }

    /// Place of a value among those that are alike.
    pub fn rank(&self, value: Value) -> (Value, usize) {
        self.ranks.get(&value).copied().unwrap_or((value, 0))
    }

    /// Largest value first, each into the tightest slot that is free for its whole lifetime; of several orders among equals,
    /// the one that takes least.
    fn assign(&mut self) {
        let mut values: Vec<(Value, Lifetime)> =
            self.lifetimes.iter().map(|(v, l)| (*v, *l)).collect();
        values.sort_by_key(|(value, _)| self.rank(*value));
        let orders: [fn(&Lifetime) -> usize; 4] = [
            |l| l.first,
            |l| usize::MAX - (l.last - l.first),
            |l| usize::MAX - l.last,
            |l| l.last - l.first,
        ];
        let assigned = orders.map(|order| {
            let mut values = values.clone();
            values.sort_by_key(|(_, l)| (std::cmp::Reverse(l.bytes), order(l)));
            place(&values)
        });
        // the first of equals
        let best = assigned.into_iter().min_by_key(|(slots, _)| slots.iter().sum::<u64>());
        (self.slots, self.value_to_slot) = best.unwrap_or_default();
        for (value, owner) in &self.root {
            if let Some(slot) = self.value_to_slot.get(owner).copied() {
                self.value_to_slot.insert(*value, slot);
            }
        }
    }
}

/// A slot for each value, in order: the tightest that is free, else a new one. Gives the bytes of the slots.
fn place(values: &[(Value, Lifetime)]) -> (Vec<u64>, HashMap<Value, usize>) {
    let mut slots: Vec<u64> = Vec::new();
    let mut busy: Vec<Vec<Lifetime>> = Vec::new();
    let mut places = HashMap::new();
    for (value, lifetime) in values {
        let free = (0..slots.len()).rev().find(|slot| {
            busy[*slot].iter().all(|l| l.last < lifetime.first || lifetime.last < l.first)
        });
        let slot = free.unwrap_or_else(|| {
            slots.push(lifetime.bytes);
            busy.push(Vec::new());
            slots.len() - 1
        });
        busy[slot].push(*lifetime);
        places.insert(*value, slot);
    }
    (slots, places)
}

fn bytes(graph: &Graph, value: Value) -> u64 {
    (graph.info(value).words * 4) as u64
}

fn in_slots(graph: &Graph, value: Value) -> bool {
    matches!(graph.info(value).storage, Storage::Tensor | Storage::Words | Storage::Input)
}

fn last_uses(graph: &Graph) -> HashMap<Value, usize> {
    let mut last = HashMap::new();
    for (index, node) in graph.nodes().iter().enumerate() {
        for value in graph.reads(node).iter().chain(&node.scratch) {
            last.insert(*value, index);
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
    node: &Node,
    addend: Value,
    index: usize,
    last: &HashMap<Value, usize>,
) -> bool {
    let times_read = graph.reads(node).iter().filter(|value| **value == addend).count();
    graph.info(addend).storage == Storage::Tensor
        && graph.info(addend).dtype == graph.info(node.outputs[0]).dtype
        && last.get(&addend).is_none_or(|end| *end <= index)
        && times_read <= 1
}
