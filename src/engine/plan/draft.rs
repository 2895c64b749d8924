//! A graph made ready for an adapter: how its tensors are stored, which moments come along, the working memory of every node.

use std::collections::HashSet;

use crate::base::{Error, Result};
use crate::engine::graph::{
    Bind, Caps, DType, Dispatch, Graph, Lowering, MomentParts, Node, Scratch, Storage, Value,
};

/// How a graph is planned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlanRequest {
    /// How tensors that nodes make are stored; parameters, statistics, sums and what
    /// [`Graph::store_in_f32`] names are in f32 in any case.
    pub tensors: DType,
    /// How tensors that the host writes are stored.
    pub inputs: DType,
    /// Whether the gradients of losses are multiplied by the loss scale, so that they pass through f16.
    pub loss_scale: bool,
    /// Whether a graph without gradients may be fused to kernels that round otherwise than those whose results training repeats.
    pub inference: bool,
    /// Bytes of the slots above which the backward pass makes values of the forward pass again.
    pub budget: Option<u64>,
}

impl PlanRequest {
    /// Training with activations and their gradients stored so.
    pub fn training(tensors: DType) -> Self {
        Self { tensors, loss_scale: tensors == DType::F16, ..Self::default() }
    }

    /// Inference with activations stored so.
    pub fn inference(tensors: DType) -> Self {
        Self { tensors, inference: true, ..Self::default() }
    }
}

/// A graph with all that a plan adds to it, before anything has its place in memory.
#[derive(Debug, Clone)]
pub struct Draft {
    graph: Graph,
    caps: Caps,
    options: PlanRequest,
}

impl Draft {
    /// Takes a graph for an adapter: stores its tensors, fuses nodes, asks every operation for its working memory.
    pub fn new(graph: &Graph, caps: &Caps, options: &PlanRequest) -> Result<Self> {
        let mut draft = Self { graph: graph.clone(), caps: caps.clone(), options: *options };
        draft.graph.store(options.tensors, options.inputs);
        for index in 0..graph.nodes().len() {
            if draft.take_moments(index)? {
                continue;
            }
            let node = &draft.graph.nodes()[index];
            for scratch in node.op.scratch(&draft.lowering(node))? {
                draft.graph.add_scratch(index, scratch);
            }
        }
        Ok(draft)
    }

    /// Has partial sums of several nodes added up by one dispatch: adapters that run thousands of threads idle while each of many small ones
    /// begins and ends. Nodes that stand alone, as the tuner times them, are left as they are.
    pub fn join_sums(mut self) -> Self {
        if self.caps.software {
            return self;
        }
        let read: HashSet<Value> =
            self.graph.nodes().iter().flat_map(|node| &node.inputs).copied().collect();
        let (mut batch, mut words) = (Vec::new(), 0);
        for index in 0..self.graph.nodes().len() {
            let node = &self.graph.nodes()[index];
            let ([rows], [out]) = (&node.scratch[..], &node.outputs[..]) else { continue };
            if !node.op.ends_in_sum() || read.contains(out) {
                continue;
            }
            let own = self.graph.info(*rows).words;
            if batch.len() == JOINT || words + own > JOINT_WORDS {
                self.graph.join_sums(&batch);
                (batch, words) = (Vec::new(), 0);
            }
            batch.push(index);
            words += own;
        }
        self.graph.join_sums(&batch);
        self
    }

    /// The graph as it is planned. The values of the network keep their ids.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(super) fn into_graph(self) -> Graph {
        self.graph
    }

    /// The same with other nodes.
    pub(super) fn with(&self, graph: Graph) -> Self {
        Self { graph, ..self.clone() }
    }

    /// Has the kernels that make a node's first input write its moments along, where they can and nothing else is lost: then the
    /// node reads them instead of the tensor.
    fn take_moments(&mut self, index: usize) -> Result<bool> {
        let node = &self.graph.nodes()[index];
        let fuses = self.options.inference && !self.graph.is_differentiated();
        // kernels sum what they have before it is rounded to f16; software adapters train as the published numbers were found
        let along = fuses || !self.caps.software;
        if !along || self.options.tensors != DType::F32 {
            return Ok(false);
        }
        let Some(value) = node.inputs.first().copied() else { return Ok(false) };
        let Some(maker_at) = self.graph.producer(value) else { return Ok(false) };
        let maker = &self.graph.nodes()[maker_at];
        if maker.moments.is_some() || maker.outputs != [value] {
            return Ok(false);
        }
        let parts = maker.op.moment_parts(&self.lowering(maker))?;
        let parts = parts.filter(|parts| node.op.takes_moments(parts, &self.caps));
        let Some(MomentParts { count, .. }) = parts else { return Ok(false) };
        let layout = self.graph.layout(value)?;
        let words = layout.n * layout.blocks() * count * MOMENT_WORDS;
        let name = format!("{}.moments", self.graph.info(value).name);
        let moments = self.graph.add_scratch(index, Scratch::new(name, words));
        self.graph.give_moments(maker_at, moments);
        Ok(true)
    }

    fn lowering<'a>(&'a self, node: &'a Node) -> Lowering<'a> {
        Lowering {
            graph: &self.graph,
            node,
            caps: &self.caps,
            dtype: widest(&self.graph, node),
            activations: self.options.tensors,
            scaled: self.options.loss_scale,
        }
    }

    /// The dispatches of a node, by its index, with its tensors as they are stored.
    pub fn lower(&self, node: usize) -> Result<Vec<Dispatch>> {
        let node = &self.graph.nodes()[node];
        let dispatches = node.op.lower(&self.lowering(node))?.into_iter();
        dispatches
            .map(|dispatch| {
                check_bindings(&self.graph, &dispatch, &self.caps)?;
                let mut dispatch = stored_as_is(&self.graph, dispatch);
                dispatch.kernel.wide = self.caps.wide();
                Ok(dispatch)
            })
            .collect()
    }
}

/// Nodes whose partial sums one dispatch adds up, at most: two storage bindings each, of the eight that every adapter has.
const JOINT: usize = 4;

/// Words of the partial sums that wait for one dispatch, at most.
const JOINT_WORDS: usize = 4 << 20;

/// Words of the moments of one part of a channel block.
const MOMENT_WORDS: usize = 12;

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
                "takes {:.1} MiB, more than the {:.1} MiB that this device binds; use a smaller base width or fewer pools",
                mib(*words as u64 * 4),
                mib(caps.max_binding)
            );
            return Err(Error::shape(graph.info(*value).name.clone(), found));
        }
    }
    Ok(())
}

/// The widest storage of the tensors that a node touches.
fn widest(graph: &Graph, node: &Node) -> DType {
    let tensors = graph.reads(node).into_iter().chain(node.outputs.iter().copied());
    tensors
        .map(|value| graph.info(value))
        .filter(|info| info.layout.is_some() && !matches!(info.storage, Storage::Lazy(_)))
        .map(|info| info.dtype)
        .max_by_key(|dtype| dtype.vector_bytes())
        .unwrap_or_default()
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
