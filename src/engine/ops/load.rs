//! Turning a value's load into kernel switches, bindings and window offsets.

use crate::engine::graph::{Bind, Caps, Dispatch, Graph, Layout, Load, Value};
use crate::engine::shader::KernelKey;
use crate::engine::shape::LANES;
use crate::{Error, Result};

const VECTOR_BYTES: usize = LANES * 4;

/// The whole of a value.
pub fn whole(graph: &Graph, value: Value) -> Bind {
    Bind::Value { value, start: 0, words: graph.info(value).words }
}

/// Binds vectors `start .. start+len` of a value, whole if that fits one binding; returns the index of `start` within.
pub fn window(
    graph: &Graph,
    value: Value,
    start: usize,
    len: usize,
    caps: &Caps,
) -> Result<(Bind, usize)> {
    if graph.info(value).words as u64 * 4 <= caps.max_binding {
        return Ok((whole(graph, value), start));
    }
    let vector = graph.info(value).dtype.vector_bytes();
    let step = (caps.alignment as usize).div_ceil(vector).max(1);
    let first = start / step * step;
    let words = (start + len - first) * vector / 4;
    if words as u64 * 4 > caps.max_binding {
        return Err(Error::shape(
            graph.info(value).name.clone(),
            format!(
                "one channel block takes {:.1} MiB, more than the {:.1} MiB that this adapter binds; use a smaller patch",
                mib(words as u64 * 4),
                mib(caps.max_binding)
            ),
        ));
    }
    Ok((Bind::Value { value, start: first * vector / 4, words }, start - first))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Samples and channel blocks that one dispatch covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    pub n0: usize,
    pub samples: usize,
    pub b0: usize,
    pub blocks: usize,
}

/// Whether a stored tensor of this many vectors fits one binding.
pub fn fits(vectors: usize, caps: &Caps) -> bool {
    (vectors * caps.vector_bytes) as u64 <= caps.max_binding
}

/// Covers `blocks` channel blocks of one sample in parts that fit a binding each.
pub fn block_parts(blocks: usize, block_vectors: usize, caps: &Caps) -> Vec<(usize, usize)> {
    let room = caps.max_binding.saturating_sub(caps.alignment) as usize;
    let most = (room / (block_vectors * caps.vector_bytes)).clamp(1, blocks);
    (0..blocks).step_by(most).map(|b0| (b0, most.min(blocks - b0))).collect()
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

    /// Whether the load passes through LeakyReLU or its derivative.
    pub fn act(&self) -> bool {
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
        if self.aux().is_some() && (self.act() || self.coef().is_some()) { 2 } else { 1 }
    }

    /// Bytes that reading `blocks` blocks of `samples` samples once moves, in f32; a plan counts f16 as what it is.
    pub fn bytes(&self, samples: usize, blocks: usize) -> u64 {
        (samples * blocks * self.stored_voxels() * VECTOR_BYTES * self.tensors()) as u64
    }

    /// Sets NORM, ACT, GRAD and the upsampling switches.
    pub fn switches(&self, key: KernelKey) -> KernelKey {
        let key = key.set("NORM", self.coef().is_some() as u32).set("ACT", self.act() as u32);
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

    /// Binds the source, its companion and its coefficients for `part`, under the given names.
    pub fn bind(
        &self,
        dispatch: Dispatch,
        names: &SourceNames,
        graph: &Graph,
        part: Part,
        caps: &Caps,
    ) -> Result<Dispatch> {
        let voxels = self.stored_voxels();
        let blocks = self.layout.blocks();
        let start = (part.n0 * blocks + part.b0) * voxels;
        let len = ((part.samples - 1) * blocks + part.blocks) * voxels;
        let (main, base) = window(graph, self.main(), start, len, caps)?;
        let mut dispatch = dispatch.bind(names.main, main).param(names.base, base);
        if let Some(aux) = names.aux {
            let (bind, base) = match self.aux() {
                Some(value) => window(graph, value, start, len, caps)?,
                None => (main, 0),
            };
            dispatch = dispatch.bind(aux, bind).param(names.aux_base, base);
        }
        let coef = self.coef().map_or(main, |value| whole(graph, value));
        Ok(dispatch.bind(names.coef, coef).param(names.first, part.n0 * blocks + part.b0))
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
pub const WEIGHT_SOURCE: SourceNames = SourceNames { aux: None, ..SOURCE };

/// The output gradient of a weight-gradient kernel.
pub const WEIGHT_GRAD: SourceNames = SourceNames {
    main: "dy",
    base: "dy_base",
    aux: Some("raw"),
    aux_base: "raw_base",
    coef: "gcoef",
    first: "gcoef_first",
};
