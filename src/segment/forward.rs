//! The forward program of one domain.

use std::borrow::Cow;

use crate::base::{Error, Result};
use crate::engine::exec::{Pool, Program, Store, caps};
use crate::engine::gpu::Gpu;
use crate::engine::graph::{Caps, DType, Graph, Layout, Region, Value};
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

    /// Bytes of activations that it takes.
    ///
    /// # Errors
    ///
    /// As those of [`ForwardSpec::workload`], and where an adapter of these limits cannot run it.
    pub fn bytes(&self, caps: &Caps) -> Result<u64> {
        Ok(Planned::new(self, self.samples, caps)?.plan.slot_bytes())
    }
}

/// A domain's network for so many patches at a time, bound to its weights.
pub struct Batch {
    samples: usize,
    program: Program,
    image: Value,
    logits: Value,
    layout: Layout,
    logits_layout: Layout,
}

impl Batch {
    /// Patches that a run takes.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Where a run reads its patches: packed N, C/4, D, H, W.
    ///
    /// # Errors
    ///
    /// Where the program has no such memory.
    pub fn image(&self) -> Result<&wgpu::Buffer> {
        Ok(self.program.value(self.image)?.0)
    }

    /// Where a run leaves its logits: packed N, K/4, D, H, W, in f32.
    ///
    /// # Errors
    ///
    /// Where the program has no such memory.
    pub fn logits(&self) -> Result<&wgpu::Buffer> {
        Ok(self.program.value(self.logits)?.0)
    }

    /// The bound program.
    pub fn program(&self) -> &Program {
        &self.program
    }
}

/// A domain's network without gradients, bound to its weights.
pub struct Forward {
    gpu: Gpu,
    /// The largest first.
    batches: Vec<Batch>,
    bytes: u64,
}

/// A batch that is planned.
struct Planned {
    samples: usize,
    ends: ForwardGraph,
    plan: Plan,
}

impl Planned {
    fn new(spec: &ForwardSpec<'_>, samples: usize, caps: &Caps) -> Result<Self> {
        let ends = ForwardSpec { samples, ..*spec }.build()?;
        let plan = Plan::new(&ends.graph, caps, &PlanRequest::inference(spec.dtype))?;
        Ok(Self { samples, ends, plan })
    }

    fn bind(&self, gpu: &Gpu, store: &Store, pool: &Pool) -> Result<Batch> {
        let ForwardGraph { graph, image, logits } = &self.ends;
        Ok(Batch {
            samples: self.samples,
            program: Program::new(gpu, &self.plan, &[], store, pool)?,
            image: *image,
            logits: *logits,
            layout: graph.layout(*image)?.clone(),
            logits_layout: graph.layout(*logits)?.clone(),
        })
    }
}

impl Forward {
    /// Builds the program for the spec's batch and fills the weights by name, in file order.
    ///
    /// # Errors
    ///
    /// Where the network has no such domain or does not take such a patch, weights are missing, or the GPU fails.
    pub fn new<'a>(
        gpu: &Gpu,
        spec: &ForwardSpec<'_>,
        weights: impl Fn(&str) -> Result<Cow<'a, [f32]>>,
    ) -> Result<Self> {
        Self::sized(gpu, spec, &[spec.samples], weights)
    }

    /// The same with programs for half as many patches, and so on to one, in the same memory: for what is left over.
    ///
    /// # Errors
    ///
    /// As those of [`Forward::new`].
    pub fn up_to<'a>(
        gpu: &Gpu,
        spec: &ForwardSpec<'_>,
        weights: impl Fn(&str) -> Result<Cow<'a, [f32]>>,
    ) -> Result<Self> {
        let halved = |samples: &usize| Some(samples / 2).filter(|half| *half > 0);
        let samples: Vec<usize> = std::iter::successors(Some(spec.samples), halved).collect();
        Self::sized(gpu, spec, &samples, weights)
    }

    fn sized<'a>(
        gpu: &Gpu,
        spec: &ForwardSpec<'_>,
        samples: &[usize],
        weights: impl Fn(&str) -> Result<Cow<'a, [f32]>>,
    ) -> Result<Self> {
        let caps = caps(gpu);
        let planned = samples.iter().map(|samples| Planned::new(spec, *samples, &caps));
        let planned = planned.collect::<Result<Vec<_>>>()?;
        let Some(largest) = planned.first() else {
            return Err(Error::Internal("a forward program of no batch".into()));
        };
        let params = largest.ends.graph.params();
        let store = Store::new(gpu, params, false)?;
        for spec in params {
            store.write(gpu, Region::Weights, &spec.name, &weights(&spec.name)?)?;
        }
        let pool = Pool::new(gpu, planned.iter().map(|each| &each.plan))?;
        let batches = planned.iter().map(|each| each.bind(gpu, &store, &pool));
        let bytes = pool.bytes() + store.bytes();
        Ok(Self { gpu: gpu.clone(), batches: batches.collect::<Result<_>>()?, bytes })
    }

    /// Bytes of weights and activations.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The programs, that of the largest batch first.
    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// The program of the largest batch.
    pub fn program(&self) -> &Program {
        &self.batches[0].program
    }

    /// Logits N, K, D, H, W of an image N, C, D, H, W of the largest batch.
    ///
    /// # Errors
    ///
    /// Where there are more or fewer values than the program takes, or the GPU fails.
    pub fn run(&self, image: &[f32]) -> Result<Vec<f32>> {
        let Batch { program, image: input, logits, layout, logits_layout, .. } = &self.batches[0];
        program.write(&self.gpu, *input, &layout.pack(image)?)?;
        program.run(&self.gpu)?;
        logits_layout.unpack(&program.read(&self.gpu, *logits)?)
    }
}
