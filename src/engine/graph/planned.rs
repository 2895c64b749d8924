//! What a plan adds to its own copy of a graph: how tensors are stored, working memory, moments that come along, sums made together.

use super::Graph;
use super::layout::DType;
use super::op::{Node, Scratch, Sums};
use super::value::{Storage, Value};

impl Graph {
    /// Stores tensors made by nodes as `tensors` and those that the host writes as `inputs`, but for those of
    /// [`Graph::store_in_f32`].
    pub(in crate::engine) fn store(&mut self, tensors: DType, inputs: DType) {
        for info in &mut self.values {
            let dtype = match info.storage {
                Storage::Tensor if !info.in_f32 => tensors,
                Storage::Input if !info.in_f32 => inputs,
                _ => DType::F32,
            };
            if let (DType::F16, Some(layout)) = (dtype, &info.layout) {
                info.dtype = dtype;
                info.words = dtype.words(layout);
            }
        }
    }

    /// Gives a node working memory.
    pub(in crate::engine) fn add_scratch(&mut self, node: usize, scratch: Scratch) -> Value {
        let value = self.words(scratch.name, scratch.words);
        self.nodes[node].scratch.push(value);
        value
    }

    /// Has the node that made a tensor write its moments along.
    pub(in crate::engine) fn give_moments(&mut self, producer: usize, moments: Value) {
        self.nodes[producer].moments = Some(moments);
    }

    /// Has the last of some nodes add up the partial sums of all. Each has one working memory and one output.
    pub(in crate::engine) fn join_sums(&mut self, nodes: &[usize]) {
        let Some((last, earlier)) = nodes.split_last() else { return };
        let (mut outputs, mut rows): (Vec<Value>, Vec<Value>) = Default::default();
        for node in earlier {
            let node = &mut self.nodes[*node];
            outputs.extend(&node.outputs);
            rows.extend(&node.scratch);
            node.sums = Sums::Later;
        }
        let last = &mut self.nodes[*last];
        last.scratch.extend(rows);
        last.sums = Sums::With(outputs);
    }

    /// Index of the node that makes a value.
    pub(in crate::engine) fn producer(&self, value: Value) -> Option<usize> {
        self.info(value).producer
    }

    /// The node that makes a node's first input and, as a plan had it, writes its moments along.
    pub(in crate::engine) fn moments_from(&self, node: &Node) -> Option<&Node> {
        let maker = &self.nodes[self.producer(*node.inputs.first()?)?];
        maker.moments.filter(|moments| node.scratch.contains(moments)).map(|_| maker)
    }
}
