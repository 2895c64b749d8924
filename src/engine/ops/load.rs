//! Turning a value's load into kernel switches and bindings.

use crate::base::Result;
use crate::engine::activation::Activation;
use crate::engine::graph::{Dispatch, Graph, Layout, Load, Lowering, Part, Value};
use crate::engine::shader::KernelKey;
use crate::engine::shape::LANES;

const VECTOR_BYTES: usize = LANES * 4;

/// Channel blocks that a kernel reads and makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelBlocks {
    pub ins: usize,
    pub outs: usize,
}

/// A load with its geometry.
#[derive(Debug, Clone)]
pub struct Source {
    pub load: Load,
    /// The tensor as the consumer sees it, after upsampling.
    pub layout: Layout,
}

impl Source {
    /// The single load of a value.
    pub fn of(graph: &Graph, value: Value) -> Result<Self> {
        Ok(Self { load: graph.load(value)?, layout: graph.layout(value)?.clone() })
    }

    /// The load of each concatenated part of a value.
    pub fn parts_of(graph: &Graph, value: Value) -> Result<Vec<Self>> {
        let parts = graph.loads(value).into_iter().zip(graph.parts(value));
        parts.map(|(load, part)| Ok(Self { load, layout: graph.layout(part)?.clone() })).collect()
    }

    /// The tensor that is read.
    pub fn main(&self) -> Value {
        match self.load {
            Load::Forward { source, .. } => source,
            Load::Gradient { upstream, .. } => upstream,
        }
    }

    fn aux(&self) -> Option<Value> {
        match self.load {
            Load::Gradient { raw, .. } => Some(raw),
            Load::Forward { .. } => None,
        }
    }

    /// Coefficients of the norm.
    pub fn coef(&self) -> Option<Value> {
        match self.load {
            Load::Forward { norm, .. } => norm,
            Load::Gradient { coef, .. } => coef,
        }
    }

    /// The activation that the load passes through, it or its derivative.
    pub fn act(&self) -> Option<Activation> {
        match self.load {
            Load::Forward { act, .. } | Load::Gradient { act, .. } => act,
        }
    }

    /// Whether the load is a gradient formed on the fly.
    pub fn is_grad(&self) -> bool {
        matches!(self.load, Load::Gradient { .. })
    }

    /// Upsampling factors D, H, W.
    pub fn up(&self) -> [usize; 3] {
        match self.load {
            Load::Forward { up, .. } => up,
            Load::Gradient { .. } => [1; 3],
        }
    }

    /// Vectors of one channel block in memory.
    pub fn stored_voxels(&self) -> usize {
        self.layout.voxels() / self.up().iter().product::<usize>()
    }

    /// Tensors that one load reads.
    pub fn tensors(&self) -> usize {
        if self.aux().is_some() && (self.act().is_some() || self.coef().is_some()) { 2 } else { 1 }
    }

    /// Bytes that reading `blocks` blocks of `samples` samples once moves, in f32; a plan counts f16 as what it is.
    pub fn bytes(&self, samples: usize, blocks: usize) -> u64 {
        (samples * blocks * self.stored_voxels() * VECTOR_BYTES * self.tensors()) as u64
    }

    /// Sets NORM, ACT, GRAD and the upsampling switches.
    pub fn switches(&self, key: KernelKey) -> KernelKey {
        let key = key
            .set("NORM", self.coef().is_some() as u32)
            .set("ACT", Activation::switch(self.act()));
        if self.is_grad() { key.set("GRAD", 1) } else { self.upsampling(key) }
    }

    /// Sets the upsampling switches where they differ from 1.
    pub fn upsampling(&self, key: KernelKey) -> KernelKey {
        let up = self.up();
        if up == [1; 3] {
            return key;
        }
        key.set("UD", up[0] as u32).set("UH", up[1] as u32).set("UW", up[2] as u32)
    }

    /// Binds a part of the source, its companion and its coefficients under the given names.
    pub fn bind(
        &self,
        dispatch: Dispatch,
        names: &SourceNames,
        lowering: &Lowering<'_>,
        part: Part,
    ) -> Result<Dispatch> {
        let (main, base) = lowering.window(self.main(), part)?;
        let mut dispatch = dispatch.bind(names.main, main).param(names.base, base);
        if let Some(aux) = names.aux {
            let (bind, base) = match self.aux() {
                Some(value) => lowering.window(value, part)?,
                None => (main, 0),
            };
            dispatch = dispatch.bind(aux, bind).param(names.aux_base, base);
        }
        let coef = self.coef().map_or(main, |value| lowering.whole(value));
        let first = part.n0 * self.layout.blocks() + part.blocks.first;
        Ok(dispatch.bind(names.coef, coef).param(names.first, first))
    }
}

/// What a weight gradient reads: the input, and the gradient of the output.
pub struct WeightSources<'a> {
    pub source: &'a Source,
    pub grad: &'a Source,
}

impl WeightSources<'_> {
    /// A kernel with the switches of both.
    pub fn key(&self, file: &'static str) -> KernelKey {
        let Self { source, grad } = self;
        source
            .upsampling(KernelKey::new(file))
            .set("NORM", source.coef().is_some() as u32)
            .set("ACT", Activation::switch(source.act()))
            .set("GNORM", grad.coef().is_some() as u32)
            .set("GACT", Activation::switch(grad.act()))
    }

    /// Binds a part of each.
    pub fn bind(
        &self,
        dispatch: Dispatch,
        lowering: &Lowering<'_>,
        source: Part,
        grad: Part,
    ) -> Result<Dispatch> {
        let dispatch = self.source.bind(dispatch, &WEIGHT_SOURCE, lowering, source)?;
        self.grad.bind(dispatch, &WEIGHT_GRAD, lowering, grad)
    }

    /// Bytes that reading so many blocks of each of `samples` samples moves.
    pub fn bytes(&self, samples: usize, source_blocks: usize, grad_blocks: usize) -> u64 {
        self.source.bytes(samples, source_blocks) + self.grad.bytes(samples, grad_blocks)
    }
}

/// Shader names of a load's bindings and parameters.
#[derive(Debug, Clone, Copy)]
pub struct SourceNames {
    pub main: &'static str,
    pub base: &'static str,
    pub aux: Option<&'static str>,
    pub aux_base: &'static str,
    pub coef: &'static str,
    pub first: &'static str,
}

/// The input of a convolution-like kernel.
pub const SOURCE: SourceNames = SourceNames {
    main: "src",
    base: "src_base",
    aux: Some("aux"),
    aux_base: "aux_base",
    coef: "coef",
    first: "coef_first",
};

/// The input of a weight-gradient kernel.
const WEIGHT_SOURCE: SourceNames = SourceNames { aux: None, ..SOURCE };

/// The output gradient of a weight-gradient kernel.
const WEIGHT_GRAD: SourceNames = SourceNames {
    main: "dy",
    base: "dy_base",
    aux: Some("raw"),
    aux_base: "raw_base",
    coef: "gcoef",
    first: "gcoef_first",
};
