//! The forward program of one domain.

use crate::Result;
use crate::engine::exec::{Pool, Program, Store, caps};
use crate::engine::gpu::Gpu;
use crate::engine::graph::{Caps, DType, Graph, Layout, Region, Storage, Value};
use crate::engine::ops;
use crate::engine::plan::Plan;
use crate::net;
use crate::net::NetConfig;

fn build(
    (network, domain): (&NetConfig, usize),
    (samples, patch): (usize, [usize; 3]),
    dtype: DType,
    caps: &Caps,
) -> Result<(Graph, Value, Value)> {
    let mut graph = Graph::forward_only(&caps.storing(dtype));
    let layout = Layout::new(samples, network.domain(domain)?.channels, patch);
    let image = graph.input("image", layout);
    let logits = net::network(&mut graph, network, domain, image)?;
    let logits = ops::materialise(&mut graph, logits)?;
    graph.keep(logits);
    graph.store_as_f16(|value, info| {
        dtype == DType::F16 && info.storage == Storage::Tensor && value != logits
    });
    Ok((graph, image, logits))
}

/// A domain's network without gradients, bound to its weights.
pub struct Forward {
    gpu: Gpu,
    program: Program,
    image: Value,
    logits: Value,
    layout: Layout,
    logits_layout: Layout,
    bytes: u64,
}

impl Forward {
    /// Builds the program for `samples` patches (D, H, W) and fills the weights by name, in file order.
    pub fn new<'a>(
        gpu: &Gpu,
        network: (&NetConfig, usize),
        batch: (usize, [usize; 3]),
        weights: impl Fn(&str) -> Result<std::borrow::Cow<'a, [f32]>>,
    ) -> Result<Self> {
        Self::stored(gpu, network, batch, weights, DType::F32)
    }

    /// As [`Forward::new`], with activations stored as `element`; logits are in f32.
    pub fn stored<'a>(
        gpu: &Gpu,
        network: (&NetConfig, usize),
        batch: (usize, [usize; 3]),
        weights: impl Fn(&str) -> Result<std::borrow::Cow<'a, [f32]>>,
        dtype: DType,
    ) -> Result<Self> {
        let caps = caps(gpu);
        let (graph, image, logits) = build(network, batch, dtype, &caps)?;
        let layout = graph.layout(image)?.clone();
        let plan = Plan::new(&graph, &caps)?;
        let store = Store::new(gpu, graph.params(), false)?;
        for spec in graph.params() {
            store.write(gpu, Region::Weights, &spec.name, &weights(&spec.name)?)?;
        }
        let pool = Pool::new(gpu, [&plan])?;
        let program = Program::new(gpu, &graph, &plan, &[], &store, &pool)?;
        let logits_layout = graph.layout(logits)?.clone();
        let bytes = pool.bytes() + store.bytes();
        Ok(Self { gpu: gpu.clone(), program, image, logits, layout, logits_layout, bytes })
    }

    /// The graph of such a program, for an adapter: what is tuned.
    pub fn graph(
        network: (&NetConfig, usize),
        batch: (usize, [usize; 3]),
        dtype: DType,
        caps: &Caps,
    ) -> Result<Graph> {
        Ok(build(network, batch, dtype, caps)?.0)
    }

    /// Bytes of weights and activations.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bound program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Logits N,K,D,H,W of an image N,C,D,H,W.
    pub fn run(&self, image: &[f32]) -> Result<Vec<f32>> {
        self.program.write(&self.gpu, self.image, &self.layout.pack(image)?)?;
        self.program.run(&self.gpu)?;
        self.logits_layout.unpack(&self.program.read(&self.gpu, self.logits)?)
    }
}
