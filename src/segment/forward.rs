//! The forward program of one domain.

use crate::base::Result;
use crate::engine::exec::{Pool, Program, Store, caps};
use crate::engine::gpu::Gpu;
use crate::engine::graph::{DType, Graph, Layout, Region, Value};
use crate::engine::ops;
use crate::engine::plan::{Plan, PlanRequest, Workload};
use crate::net;
use crate::net::NetConfig;

/// What a forward program computes.
#[derive(Debug, Clone, Copy)]
pub struct ForwardSpec<'a> {
    /// The network.
    pub network: &'a NetConfig,
    /// Which of its domains, from 0.
    pub domain: usize,
    /// Patches at a time.
    pub samples: usize,
    /// Voxels of a patch along D, H, W.
    pub patch: [usize; 3],
    /// How activations are stored; logits are f32.
    pub dtype: DType,
}

/// The graph of a forward program, and its ends.
struct ForwardGraph {
    graph: Graph,
    image: Value,
    logits: Value,
}

impl ForwardSpec<'_> {
    fn build(&self) -> Result<ForwardGraph> {
        let mut graph = Graph::new();
        let channels = self.network.domain(self.domain)?.channels;
        let image = graph.input("image", Layout::new(self.samples, channels, self.patch));
        let logits = net::network(&mut graph, self.network, self.domain, image)?;
        let logits = ops::materialise(&mut graph, logits)?;
        graph.store_in_f32(logits);
        graph.keep(logits);
        Ok(ForwardGraph { graph, image, logits })
    }

    /// What such a program runs: what is tuned.
    ///
    /// # Errors
    ///
    /// Where the network has no such domain, or does not take such a patch.
    pub fn workload(&self) -> Result<Workload> {
        Ok(Workload { graph: self.build()?.graph, options: PlanRequest::inference(self.dtype) })
    }
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
    /// Builds the program and fills the weights by name, in file order.
    ///
    /// # Errors
    ///
    /// Where the network has no such domain or does not take such a patch, weights are missing, or the GPU fails.
    pub fn new<'a>(
        gpu: &Gpu,
        spec: &ForwardSpec<'_>,
        weights: impl Fn(&str) -> Result<std::borrow::Cow<'a, [f32]>>,
    ) -> Result<Self> {
        let caps = caps(gpu);
        let ForwardGraph { graph, image, logits } = spec.build()?;
        let layout = graph.layout(image)?.clone();
        let plan = Plan::new(&graph, &caps, &PlanRequest::inference(spec.dtype))?;
        let store = Store::new(gpu, graph.params(), false)?;
        for spec in graph.params() {
            store.write(gpu, Region::Weights, &spec.name, &weights(&spec.name)?)?;
        }
        let pool = Pool::new(gpu, [&plan])?;
        let program = Program::new(gpu, &plan, &[], &store, &pool)?;
        let logits_layout = graph.layout(logits)?.clone();
        let bytes = pool.bytes() + store.bytes();
        Ok(Self { gpu: gpu.clone(), program, image, logits, layout, logits_layout, bytes })
    }

    /// Bytes of weights and activations.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bound program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Logits N, K, D, H, W of an image N, C, D, H, W.
    ///
    /// # Errors
    ///
    /// Where there are more or fewer values than the program takes, or the GPU fails.
    pub fn run(&self, image: &[f32]) -> Result<Vec<f32>> {
        self.program.write(&self.gpu, self.image, &self.layout.pack(image)?)?;
        self.program.run(&self.gpu)?;
        self.logits_layout.unpack(&self.program.read(&self.gpu, self.logits)?)
    }
}
