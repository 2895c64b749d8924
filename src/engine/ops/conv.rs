//! Convolution with 1 or 3 taps, stride 1 or 2 per axis and any padding; shape inference and the forward kernels.

use super::conv_grad::{input_grads, weight_grad};
use super::conv_tile::{Kernel, Shape, Subgroup, Tile};
use super::load::{Part, SOURCE, Source, block_parts, fits, whole, window};
use super::norm::{bias_grad, give_moments};
use super::pointwise::Product;
use super::{WORKGROUP, output_grad, switches};
use crate::engine::graph::{
    Caps, Dispatch, Gradients, Graph, Layout, Node, Op, Packing, Value, fold,
};
use crate::engine::shader::KernelKey;
use crate::{Error, Result};

/// Geometry of a convolution; every array is D, H, W.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvSpec {
    /// Taps: 1 or 3.
    pub kernel: [usize; 3],
    /// Stride: 1 or 2.
    pub stride: [usize; 3],
    /// Zeros before the first voxel.
    pub pad_lo: [usize; 3],
    /// Zeros after the last voxel.
    pub pad_hi: [usize; 3],
}

impl ConvSpec {
    /// 3x3x3, stride 1, padding 1.
    pub fn same() -> Self {
        Self { kernel: [3; 3], stride: [1; 3], pad_lo: [1; 3], pad_hi: [1; 3] }
    }

    /// 1x1x1.
    pub fn pointwise() -> Self {
        Self { kernel: [1; 3], stride: [1; 3], pad_lo: [0; 3], pad_hi: [0; 3] }
    }

    /// The reference's down-sampler: 3x3x3 with zeros (0, 1) where the stride is 2 and (1, 1) where it is 1.
    pub fn down(stride: [usize; 3]) -> Self {
        let pad_lo = stride.map(|s| if s == 2 { 0 } else { 1 });
        Self { kernel: [3; 3], stride, pad_lo, pad_hi: [1; 3] }
    }

    /// Number of taps.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    pub(super) fn is_pointwise(&self) -> bool {
        *self == Self::pointwise()
    }

    /// Output size of an input of this size.
    pub fn output(&self, input: [usize; 3]) -> Result<[usize; 3]> {
        let mut output = [0; 3];
        for axis in 0..3 {
            let (kernel, stride) = (self.kernel[axis], self.stride[axis]);
            if ![1, 3].contains(&kernel) || ![1, 2].contains(&stride) {
                return Err(Error::shape("conv", format!("{self:?} is not supported")));
            }
            let padded = input[axis] + self.pad_lo[axis] + self.pad_hi[axis];
            if padded < kernel || self.pad_lo[axis] >= kernel {
                return Err(Error::shape("conv", format!("{self:?} on an input of {input:?}")));
            }
            output[axis] = (padded - kernel) / stride + 1;
        }
        Ok(output)
    }
}

/// `conv(x) + bias`; `x` may be lazy or a concatenation. Weight (Cout, Cin, kD, kH, kW), bias (Cout).
pub fn conv(
    graph: &mut Graph,
    x: Value,
    weight: Value,
    bias: Value,
    spec: ConvSpec,
) -> Result<Value> {
    let layout = graph.layout(x)?.clone();
    let weight_spec = graph.param_spec(weight)?;
    let Packing::Matrix { out, ins, taps } = weight_spec.packing.clone() else {
        return Err(Error::shape("conv", format!("{} is no conv weight", weight_spec.name)));
    };
    if ins != layout.segments || taps != spec.taps() {
        return Err(Error::shape(
            "conv",
            format!("{} with inputs {ins:?} and {taps} taps meets {layout}", weight_spec.name),
        ));
    }
    let name = weight_spec.name.trim_end_matches(".weight").to_string();
    let y = Layout::new(layout.n, out, spec.output(layout.spatial)?);
    let y = graph.tensor(name, y);
    graph.node(Conv { spec }, vec![x, weight, bias], vec![y]);
    Ok(y)
}

#[derive(Debug)]
struct Conv {
    spec: ConvSpec,
}

impl Op for Conv {
    fn name(&self) -> &'static str {
        "conv"
    }

    fn backward(&self, graph: &mut Graph, node: &Node, grads: &mut Gradients) -> Result<()> {
        let dy = output_grad(node, grads)?;
        let (x, weight, bias) = (node.inputs[0], node.inputs[1], node.inputs[2]);
        if graph.info(weight).needs_grad {
            weight_grad(graph, x, weight, dy, self.spec)?;
        }
        if graph.info(bias).needs_grad {
            bias_grad(graph, bias, dy)?;
        }
        input_grads(graph, grads, x, weight, (dy, self.spec))
    }

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let mut dispatches = Vec::new();
        for call in self.calls(graph, node)? {
            dispatches.extend(call.lower(graph, caps)?);
        }
        Ok(dispatches)
    }

    fn moment_parts(&self, graph: &Graph, node: &Node) -> Result<Option<usize>> {
        match self.calls(graph, node)?.last() {
            Some(last) if self.spec.is_pointwise() => last.moment_parts(graph, graph.caps()),
            _ => Ok(None),
        }
    }
}

impl Conv {
    /// The concatenated parts of a node's input, each added to the last.
    fn calls(&self, graph: &Graph, node: &Node) -> Result<Vec<Forward>> {
        let x = node.inputs[0];
        let cols = graph.layout(x)?.blocks();
        let (loads, parts) = (graph.loads(x), graph.parts(x));
        let count = loads.len();
        let mut weight_in = 0;
        let calls = loads.into_iter().zip(parts).enumerate();
        calls
            .map(|(index, (load, part))| {
                let layout = graph.layout(part)?.clone();
                let blocks = layout.blocks();
                weight_in += blocks;
                Ok(Forward {
                    spec: self.spec,
                    source: Source { load, layout },
                    weight: node.inputs[1],
                    bias: node.inputs[2],
                    y: node.outputs[0],
                    moments: node.outputs.get(1).copied().filter(|_| index + 1 == count),
                    weight_in: weight_in - blocks,
                    cols,
                    onto: index > 0,
                })
            })
            .collect()
    }
}

/// One concatenated part going through the convolution.
struct Forward {
    spec: ConvSpec,
    source: Source,
    weight: Value,
    bias: Value,
    y: Value,
    /// Where the moments of the output go too.
    moments: Option<Value>,
    weight_in: usize,
    cols: usize,
    onto: bool,
}

/// Samples, output blocks and input blocks of one dispatch.
pub(super) struct Piece {
    pub n0: usize,
    pub samples: usize,
    pub outs: (usize, usize),
    pub ins: (usize, usize),
}

/// Covers a product of output and input blocks so that every tensor slice fits a binding.
pub(super) fn pieces(
    samples: usize,
    [outs, ins]: [usize; 2],
    [out_voxels, in_voxels]: [usize; 2],
    caps: &Caps,
) -> Vec<Piece> {
    if fits(samples * outs * out_voxels, caps) && fits(samples * ins * in_voxels, caps) {
        return vec![Piece { n0: 0, samples, outs: (0, outs), ins: (0, ins) }];
    }
    let mut pieces = Vec::new();
    for n0 in 0..samples {
        for out in block_parts(outs, out_voxels, caps) {
            for input in block_parts(ins, in_voxels, caps) {
                pieces.push(Piece { n0, samples: 1, outs: out, ins: input });
            }
        }
    }
    pieces
}

/// Lanes in use where a source has fewer than four channels.
pub(super) fn lanes(layout: &Layout) -> u32 {
    match layout.segments.as_slice() {
        [c @ 1..=2] => *c as u32,
        _ => 4,
    }
}

impl Forward {
    fn pieces(&self, y: &Layout, caps: &Caps) -> Vec<Piece> {
        let voxels = [y.voxels(), self.source.stored_voxels()];
        pieces(y.n, [y.blocks(), self.source.layout.blocks()], voxels, caps)
    }

    fn lower(&self, graph: &Graph, caps: &Caps) -> Result<Vec<Dispatch>> {
        let y = graph.layout(self.y)?;
        self.pieces(y, caps)
            .iter()
            .map(|piece| {
                if self.spec.is_pointwise() {
                    self.pointwise(graph, piece, caps)
                } else {
                    self.taps(graph, piece, caps)
                }
            })
            .collect()
    }

    /// Bindings and parameters that both kernels share.
    fn common(
        &self,
        graph: &Graph,
        dispatch: Dispatch,
        piece: &Piece,
        caps: &Caps,
    ) -> Result<Dispatch> {
        let y = graph.layout(self.y)?;
        let voxels = y.voxels();
        let start = (piece.n0 * y.blocks() + piece.outs.0) * voxels;
        let len = ((piece.samples - 1) * y.blocks() + piece.outs.1) * voxels;
        let (out, out_base) = window(graph, self.y, start, len, caps)?;
        let part =
            Part { n0: piece.n0, samples: piece.samples, b0: piece.ins.0, blocks: piece.ins.1 };
        let dispatch = dispatch
            .bind("weight", whole(graph, self.weight))
            .bind("bias", whole(graph, self.bias))
            .bind("out", out)
            .param("n", piece.samples)
            .param("ins", piece.ins.1)
            .param("outs", piece.outs.1)
            .param("cols", self.cols)
            .param("weight_in", self.weight_in + piece.ins.0)
            .param("weight_out", piece.outs.0)
            .param("src_blocks", self.source.layout.blocks())
            .param("out_blocks", y.blocks())
            .param("out_base", out_base);
        let dispatch = self.source.bind(dispatch, &SOURCE, graph, part, caps)?;
        let lanes = if piece.ins.1 == 1 { lanes(&self.source.layout) as usize } else { 4 };
        let flops =
            piece.samples * voxels * piece.outs.1 * piece.ins.1 * 8 * lanes * self.spec.taps();
        let bytes = self.source.bytes(piece.samples, piece.ins.1)
            + (piece.samples * piece.outs.1 * voxels * 16) as u64;
        Ok(dispatch.work(flops as u64, bytes))
    }

    fn key(&self, file: &'static str, piece: &Piece) -> KernelKey {
        let onto = self.onto || piece.ins.0 > 0;
        self.source.switches(KernelKey::new(file)).set("BIAS", !onto as u32).set("ACC", onto as u32)
    }

    /// The parts in which a single product gives its moments along.
    fn moment_parts(&self, graph: &Graph, caps: &Caps) -> Result<Option<usize>> {
        let y = graph.layout(self.y)?;
        match self.pieces(y, caps).as_slice() {
            [piece] => self.product(y, piece).moment_parts(|file| self.key(file, piece), caps),
            _ => Ok(None),
        }
    }

    fn product(&self, y: &Layout, piece: &Piece) -> Product {
        Product {
            samples: piece.samples,
            voxels: y.voxels(),
            outs: piece.outs.1,
            ins: piece.ins.1,
            loads: self.source.tensors(),
        }
    }

    fn pointwise(&self, graph: &Graph, piece: &Piece, caps: &Caps) -> Result<Dispatch> {
        let y = graph.layout(self.y)?;
        let label = format!("pointwise {}", graph.info(self.y).name);
        let mut dispatch =
            self.product(y, piece).dispatch(label, |file| self.key(file, piece), caps)?;
        if let Some(moments) = self.moments {
            let parts = self.moment_parts(graph, caps)?;
            dispatch = give_moments(graph, dispatch, (moments, parts), y)?;
        }
        let dispatch = dispatch
            .param("src_voxels", self.source.stored_voxels())
            .param("h", y.spatial[1])
            .param("w", y.spatial[2]);
        self.common(graph, dispatch, piece, caps)
    }

    fn taps(&self, graph: &Graph, piece: &Piece, caps: &Caps) -> Result<Dispatch> {
        let y = graph.layout(self.y)?;
        let shape = Shape {
            spec: self.spec,
            transposed: false,
            samples: piece.samples,
            spatial: y.spatial,
            ins: piece.ins.1,
            outs: piece.outs.1,
            lanes: lanes(&self.source.layout),
        };
        let key = taps_key(self.key("conv.wgsl", piece), &self.spec);
        let (tile, choice) = shape.choose(&switches(&key), caps)?;
        let name = format!("conv {}", graph.info(self.y).name);
        let dispatch = match tile.kernel {
            Kernel::Shared | Kernel::Winograd => {
                let [inner, outer] = [self.source.layout.spatial, y.spatial];
                let (pad, lanes) = (self.spec.pad_lo, shape.lanes);
                let pass = Pass { spec: self.spec, lanes, pad, inner, outer };
                pass.shared((name, key), tile, piece, caps)?
            }
            Kernel::Direct => self.direct(y, (name, key, tile), piece, caps)?,
        };
        self.common(graph, dispatch.chosen(choice), piece, caps)
    }

    fn direct(
        &self,
        y: &Layout,
        (name, key, tile): (String, KernelKey, Tile),
        piece: &Piece,
        caps: &Caps,
    ) -> Result<Dispatch> {
        let ConvSpec { kernel, stride, pad_lo, .. } = self.spec;
        let Tile { vox, lines, out, .. } = tile;
        let tiles = piece.outs.1.div_ceil(out);
        let quads = y.spatial[2].div_ceil(vox);
        let threads = quads * y.spatial[0] * y.spatial[1].div_ceil(lines) * tiles * piece.samples;
        let key = row_key(key, &self.spec, vox)
            .tile("OUT", out as u32)
            .tile("LINES", lines as u32)
            .tile("CIN", lanes(&self.source.layout))
            .tile("KW", kernel[2] as u32)
            .tile("SW", stride[2] as u32);
        let dispatch = Dispatch::new(name, key, fold(threads.div_ceil(WORKGROUP), caps)?)
            .param("tiles", tiles)
            .param("quads", quads);
        Ok(sizes(dispatch, self.source.layout.spatial, y.spatial, pad_lo))
    }
}

/// A convolution, or an input gradient as the convolution that it is where all strides are 1.
pub(super) struct Pass {
    pub spec: ConvSpec,
    /// Lanes in use of an input block.
    pub lanes: u32,
    /// Leading padding.
    pub pad: [usize; 3],
    /// Sizes of what is read and of what is made.
    pub inner: [usize; 3],
    pub outer: [usize; 3],
}

impl Pass {
    /// The dispatch of a kernel that shares loads, with the switches of a key.
    pub fn shared(
        &self,
        (name, key): (String, KernelKey),
        tile: Tile,
        piece: &Piece,
        caps: &Caps,
    ) -> Result<Dispatch> {
        let Tile { kernel, vox, out, .. } = tile;
        let ConvSpec { stride: [_, sh, sw], kernel: [_, _, kw], .. } = self.spec;
        let [depth, height, width] = self.outer;
        let group = Subgroup::new(height, caps, &name)?;
        let quads = width.div_ceil(vox);
        let groups = group.groups(piece.samples * depth * height.div_ceil(group.run) * quads);
        let tiles = piece.outs.1.div_ceil(out);
        let row = (vox - 1) * sw + kw;
        let key = match kernel {
            Kernel::Winograd => group
                .key(key, "conv_winograd_subgroups.wgsl", [row, out * 4, sh])
                .tile("PAIRS", (vox / 2) as u32),
            _ => group
                .key(key, "conv_subgroups.wgsl", [row, out * self.lanes as usize, sh])
                .tile("SW", sw as u32)
                .tile("CIN", self.lanes)
                .tile("TAPS", if self.lanes < 4 { 3 } else { 1 }),
        };
        let key = key.tile("VOX", vox as u32).tile("OUT", out as u32);
        let dispatch = Dispatch::new(name, key, fold(groups * tiles, caps)?)
            .param("tiles", tiles)
            .param("quads", quads);
        Ok(sizes(dispatch, self.inner, self.outer, self.pad))
    }
}

/// Sizes of what a convolution reads and makes.
pub(super) fn sizes(
    dispatch: Dispatch,
    inner: [usize; 3],
    outer: [usize; 3],
    [pd, ph, pw]: [usize; 3],
) -> Dispatch {
    let [id, ih, iw] = inner;
    let [od, oh, ow] = outer;
    dispatch
        .param("od", od)
        .param("oh", oh)
        .param("ow", ow)
        .param("id", id)
        .param("ih", ih)
        .param("iw", iw)
        .param("pd", pd)
        .param("ph", ph)
        .param("pw", pw)
}

/// Tap counts and strides of D and H as switches.
pub(super) fn taps_key(key: KernelKey, spec: &ConvSpec) -> KernelKey {
    key.set("KD", spec.kernel[0] as u32)
        .set("KH", spec.kernel[1] as u32)
        .set("SD", spec.stride[0] as u32)
        .set("SH", spec.stride[1] as u32)
}

/// The row of inputs that `vox` outputs along W need.
pub(super) fn row_key(key: KernelKey, spec: &ConvSpec, vox: usize) -> KernelKey {
    key.tile("VOX", vox as u32).tile("ROW", ((vox - 1) * spec.stride[2] + spec.kernel[2]) as u32)
}
