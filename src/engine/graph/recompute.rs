//! Values of the forward pass that the backward pass makes again instead of keeping.

use std::collections::HashSet;

use super::{Graph, Load, Node, Storage, Value};
use crate::base::{Error, Result};

impl Graph {
    /// Stored values that a node reads, through lazy ones; none for a lazy node, whose consumers read. Working memory is not
    /// among them.
    pub fn reads(&self, node: &Node) -> Vec<Value> {
        if node.outputs.iter().all(|output| !self.is_stored(*output)) {
            return Vec::new();
        }
        let loads = node.inputs.iter().flat_map(|input| self.loads(*input));
        loads.flat_map(|load| load.sources()).collect()
    }

    /// Tensors of the forward pass that the backward pass reads and whose node can run again, with the index of that node.
    pub fn recomputable(&self) -> Vec<(Value, usize)> {
        let Some(start) = self.backward_start else { return Vec::new() };
        let read: HashSet<Value> =
            self.nodes[start..].iter().flat_map(|node| self.reads(node)).collect();
        let forward = self.nodes[..start].iter().enumerate();
        forward
            .filter_map(|(index, node)| Some((self.only_output(node)?, index)))
            .filter(|(value, _)| read.contains(value))
            .collect()
    }

    /// The output of a node that can run again.
    fn only_output(&self, node: &Node) -> Option<Value> {
        match (node.outputs.as_slice(), node.addend) {
            ([value], None) => {
                let tensor = self.info(*value).storage == Storage::Tensor;
                (tensor && !self.kept.contains(value)).then_some(*value)
            }
            _ => None,
        }
    }

    /// Whether a node belongs to the forward pass.
    pub fn is_forward(&self, node: usize) -> bool {
        self.backward_start.is_none_or(|start| node < start)
    }

    /// The first node from `start` on that reads a value.
    fn first_read(&self, value: Value, start: usize) -> Option<usize> {
        (start..self.nodes.len()).find(|index| self.reads(&self.nodes[*index]).contains(&value))
    }

    /// Has the backward pass make a value of [`Graph::recomputable`] again right before it first reads it. What the value is
    /// made from must then live until there. Of several values, take those that are made last first.
    pub fn recompute(&mut self, value: Value) -> Result<()> {
        let place = self.backward_start.and_then(|start| self.first_read(value, start));
        let producer = self.info(value).producer.filter(|index| {
            self.is_forward(*index) && self.only_output(&self.nodes[*index]) == Some(value)
        });
        let (Some(producer), Some(place)) = (producer, place) else {
            let name = &self.info(value).name;
            return Err(Error::Internal(format!("{name} cannot be made again")));
        };
        for info in &mut self.values {
            info.producer = info.producer.map(|p| if p >= place { p + 1 } else { p });
        }
        let mut info = self.info(value).clone();
        info.name = format!("{} again", info.name);
        info.producer = Some(place);
        let again = self.push(info);
        // its moments are known
        let maker = self.nodes[producer].clone();
        let mut node = Node { outputs: vec![again], moments: None, ..maker };
        for scratch in &mut node.scratch {
            *scratch = self.push(self.info(*scratch).clone());
        }
        self.nodes.insert(place, node);
        // values formed from the first one, formed from the second one instead
        let mut formed: Vec<(Value, Value)> = vec![(value, again)];
        for index in place + 1..self.nodes.len() {
            for place in 0..self.nodes[index].inputs.len() {
                let input = self.nodes[index].inputs[place];
                self.form_again(input, (value, again), &mut formed);
            }
            for input in &mut self.nodes[index].inputs {
                if let Some((_, new)) = formed.iter().find(|(old, _)| old == input) {
                    *input = *new;
                }
            }
        }
        Ok(())
    }

    /// Adds a lazy value that reads `from` to `formed`, with a copy that reads `to`.
    fn form_again(
        &mut self,
        lazy: Value,
        (from, to): (Value, Value),
        formed: &mut Vec<(Value, Value)>,
    ) {
        let Storage::Lazy(loads) = &self.info(lazy).storage else { return };
        let reads = loads.iter().any(|load| load.sources().contains(&from));
        if !reads || formed.iter().any(|(old, _)| *old == lazy) {
            return;
        }
        let loads = loads.iter().map(|load| load.instead(from, to)).collect();
        let mut info = self.info(lazy).clone();
        info.storage = Storage::Lazy(loads);
        let new = self.push(info);
        formed.push((lazy, new));
    }
}

impl Load {
    /// The load with one source replaced.
    fn instead(&self, from: Value, to: Value) -> Self {
        let new = |value: Value| if value == from { to } else { value };
        match *self {
            Self::Forward { source, norm, act, up } => {
                Self::Forward { source: new(source), norm: norm.map(new), act, up }
            }
            Self::Gradient { upstream, raw, coef, act } => {
                Self::Gradient { upstream: new(upstream), raw: new(raw), coef: coef.map(new), act }
            }
        }
    }
}
