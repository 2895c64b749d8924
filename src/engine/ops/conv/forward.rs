//! The convolution: shape inference and the forward kernels.

use super::super::common::{WORKGROUP, output_grad, switches};
use super::super::elementwise::single;
use super::super::load::{ChannelBlocks, SOURCE, Source};
use super::super::norm::{bias_grad, give_group_moments};
use super::super::pointwise::Product;
use super::coop_conv::CooperativeConv;
use super::input_grad::input_grads;
use super::shared::SharedConv;
use super::site::{ConvMethod, ConvSite, ConvTile, Geometry};
use super::spec::{ConvSpec, lanes, row_key, sizes, taps_key};
use super::split::{SplitSum, Target};
use super::staged::StagedConv;
use super::tile::{ConvCall, working_memory};
use super::weight_grad::weight_grad;
use crate::base::{Error, Result};
use crate::engine::graph::{
    CutAxis, Dispatch, Gradients, Graph, Layout, Lowering, MomentParts, Node, Op, Packing, Portion,
    Scratch, Value,
};
use crate::engine::shader::KernelKey;

/// Vectors that a thread of `conv.wgsl` loads together, at most.
const MOST_INPUTS: usize = 15;

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
        let dy = single(graph, output_grad(node, grads)?)?;
        let (x, weight, bias) = (node.inputs[0], node.inputs[1], node.inputs[2]);
        if graph.info(weight).needs_grad {
            weight_grad(graph, x, weight, dy, self.spec)?;
        }
        if graph.info(bias).needs_grad {
            bias_grad(graph, bias, dy)?;
        }
        input_grads(graph, grads, node, dy, self.spec)
    }

    fn scratch(&self, lowering: &Lowering<'_>) -> Result<Vec<Scratch>> {
        let mut sites = Vec::new();
        for part in self.parts(lowering)?.iter().filter(|_| !self.spec.is_pointwise()) {
            for piece in part.pieces(lowering)? {
                sites.push(part.site(lowering, &piece)?);
            }
        }
        working_memory(lowering, &sites)
    }

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let mut dispatches = Vec::new();
        for part in self.parts(lowering)? {
            for piece in part.pieces(lowering)? {
                dispatches.extend(match self.spec.is_pointwise() {
                    true => vec![part.pointwise(lowering, &piece)?],
                    false => part.taps(lowering, &piece)?,
                });
            }
        }
        Ok(dispatches)
    }

    fn moment_parts(&self, lowering: &Lowering<'_>) -> Result<Option<MomentParts>> {
        match self.parts(lowering)?.last() {
            Some(last) if self.spec.is_pointwise() => last.moment_parts(lowering),
            _ => Ok(None),
        }
    }
}

impl Conv {
    /// The concatenated parts of a node's input, each added to the last.
    fn parts(&self, lowering: &Lowering<'_>) -> Result<Vec<ConvPart>> {
        let [x, weight, bias] = lowering.inputs()?;
        let [y] = lowering.outputs()?;
        let cols = lowering.graph.layout(x)?.blocks();
        let sources = Source::parts_of(lowering.graph, x)?;
        let count = sources.len();
        let mut weight_in = 0;
        let parts = sources.into_iter().enumerate().map(|(index, source)| {
            let before = weight_in;
            weight_in += source.layout.blocks();
            let last = index + 1 == count;
            let (spec, onto) = (self.spec, index > 0);
            ConvPart { spec, source, weight, bias, y, last, weight_in: before, cols, onto }
        });
        Ok(parts.collect())
    }
}

/// One concatenated part going through the convolution.
struct ConvPart {
    spec: ConvSpec,
    source: Source,
    weight: Value,
    bias: Value,
    y: Value,
    /// Whether it completes the output.
    last: bool,
    weight_in: usize,
    cols: usize,
    onto: bool,
}

impl ConvPart {
    /// Cuts output and input blocks.
    fn pieces(&self, lowering: &Lowering<'_>) -> Result<Vec<Portion<2>>> {
        let y = lowering.graph.layout(self.y)?;
        let ins = CutAxis::all(self.source.layout.blocks(), self.source.stored_voxels());
        Ok(lowering.cut(y.n, [CutAxis::all(y.blocks(), y.voxels()), ins]))
    }

    /// Where a piece of the output lies.
    fn target(&self, lowering: &Lowering<'_>, piece: &Portion<2>) -> Result<Target> {
        let (bind, base) = lowering.window(self.y, piece.part(piece.runs[0]))?;
        Ok(Target { bind, base, blocks: lowering.graph.layout(self.y)?.blocks() })
    }

    /// Bindings and parameters that all kernels share.
    fn common(
        &self,
        lowering: &Lowering<'_>,
        dispatch: Dispatch,
        piece: &Portion<2>,
        target: Target,
    ) -> Result<Dispatch> {
        let y = lowering.graph.layout(self.y)?;
        let [outs, ins] = piece.runs;
        let dispatch = target
            .bind(dispatch)
            .bind("weight", lowering.whole(self.weight))
            .bind("bias", lowering.whole(self.bias))
            .param("n", piece.samples)
            .param("ins", ins.count)
            .param("outs", outs.count)
            .param("cols", self.cols)
            .param("weight_in", self.weight_in + ins.first)
            .param("weight_out", outs.first)
            .param("src_blocks", self.source.layout.blocks());
        let dispatch = self.source.bind(dispatch, &SOURCE, lowering, piece.part(ins))?;
        let lanes = if ins.count == 1 { lanes(&self.source.layout) as usize } else { 4 };
        let outputs = piece.samples * outs.count * y.voxels();
        let flops = outputs * ins.count * 8 * lanes * self.spec.taps();
        let bytes = self.source.bytes(piece.samples, ins.count) + (outputs * 16) as u64;
        Ok(dispatch.work(flops as u64, bytes))
    }

    fn key(&self, file: &'static str, piece: &Portion<2>) -> KernelKey {
        let onto = self.onto || piece.runs[1].first > 0;
        self.source.switches(KernelKey::new(file)).set("BIAS", !onto as u32).set("ACC", onto as u32)
    }

    /// The parts in which a single product gives its moments along.
    fn moment_parts(&self, lowering: &Lowering<'_>) -> Result<Option<MomentParts>> {
        let y = lowering.graph.layout(self.y)?;
        match self.pieces(lowering)?.as_slice() {
            [piece] => self.product(y, piece).moment_parts(lowering, |file| self.key(file, piece)),
            _ => Ok(None),
        }
    }

    fn product(&self, y: &Layout, piece: &Portion<2>) -> Product {
        let [outs, ins] = piece.runs;
        Product {
            samples: piece.samples,
            voxels: y.voxels(),
            blocks: ChannelBlocks { ins: ins.count, outs: outs.count },
            loads: self.source.tensors(),
            transposed: false,
        }
    }

    fn pointwise(&self, lowering: &Lowering<'_>, piece: &Portion<2>) -> Result<Dispatch> {
        let y = lowering.graph.layout(self.y)?;
        let label = format!("pointwise {}", lowering.name(self.y));
        let product = self.product(y, piece);
        let mut dispatch = product.dispatch(lowering, label, |file| self.key(file, piece))?;
        if self.last
            && let Some(moments) = lowering.node.moments
        {
            dispatch = give_group_moments(lowering, dispatch, moments);
        }
        let dispatch = dispatch
            .param("src_voxels", self.source.stored_voxels())
            .param("h", y.spatial[1])
            .param("w", y.spatial[2]);
        self.common(lowering, dispatch, piece, self.target(lowering, piece)?)
    }

    /// The site of a piece, and the kernel with its switches.
    fn site(&self, lowering: &Lowering<'_>, piece: &Portion<2>) -> Result<(ConvSite, KernelKey)> {
        let [outs, ins] = piece.runs;
        let site = ConvSite {
            geometry: Geometry { spec: self.spec, transposed: false },
            samples: piece.samples,
            spatial: lowering.graph.layout(self.y)?.spatial,
            blocks: ChannelBlocks { ins: ins.count, outs: outs.count },
            lanes: lanes(&self.source.layout),
            loads: self.source.tensors(),
        };
        Ok((site, taps_key(self.key("conv.wgsl", piece), &self.spec)))
    }

    /// The dispatch of a piece, or that of its parts and their sum.
    fn taps(&self, lowering: &Lowering<'_>, piece: &Portion<2>) -> Result<Vec<Dispatch>> {
        let (site, key) = self.site(lowering, piece)?;
        let (tile, choice) = site.choose(&switches(&key), lowering)?;
        let label = format!("conv {}", lowering.name(self.y));
        let sum = SplitSum { first: piece.runs[0].first, ..site.partial(tile.splits()) };
        let (bias, target) = (lowering.whole(self.bias), self.target(lowering, piece)?);
        let dispatches = sum.dispatches(lowering, key, bias, target, |key, target| {
            let call = ConvCall { lowering, piece, label: label.clone(), key, tile };
            self.common(lowering, self.call(call)?, piece, target)
        })?;
        Ok(dispatches.into_iter().map(|dispatch| dispatch.chosen(choice.clone())).collect())
    }

    fn call(&self, call: ConvCall<'_>) -> Result<Dispatch> {
        let (inner, outer) =
            (self.source.layout.spatial, call.lowering.graph.layout(self.y)?.spatial);
        let (spec, pad, lanes) = (self.spec, self.spec.pad_lo, lanes(&self.source.layout));
        match call.tile.method {
            ConvMethod::Shared | ConvMethod::Winograd => {
                SharedConv { spec, lanes, pad, inner, outer }.dispatch(call)
            }
            ConvMethod::Staged(group) => {
                let geometry = Geometry { spec, transposed: false };
                let conv = StagedConv { geometry, lanes, made: outer };
                Ok(sizes(conv.dispatch(call, group)?, inner, outer, pad))
            }
            ConvMethod::Cooperative(matrices) => {
                CooperativeConv { spec, pad, inner, outer }.dispatch(call, matrices)
            }
            ConvMethod::Direct => self.direct(call),
        }
    }

    fn direct(&self, call: ConvCall<'_>) -> Result<Dispatch> {
        let y = call.lowering.graph.layout(self.y)?;
        let ConvSpec { kernel, stride, pad_lo, .. } = self.spec;
        let ConvTile { vox, lines, out, .. } = call.tile;
        let quads = y.spatial[2].div_ceil(vox);
        let rows = y.spatial[0] * y.spatial[1].div_ceil(lines);
        let chunks = (quads * rows).div_ceil(WORKGROUP);
        let groups = chunks * call.tiles() * call.piece.samples;
        let in_row = (vox - 1) * stride[2] + kernel[2];
        // a CPU has its inputs at once
        let waits = !call.lowering.caps.software && !call.lowering.caps.short_kernels;
        let together = waits && lines * in_row * kernel[1] <= MOST_INPUTS;
        let batch = if together { kernel[1] } else { 1 };
        let key = row_key(call.key.clone(), &self.spec, vox)
            .tile("OUT", out as u32)
            .tile("LINES", lines as u32)
            .tile("CIN", lanes(&self.source.layout))
            .tile("BATCH", batch as u32)
            .tile("KW", kernel[2] as u32)
            .tile("SW", stride[2] as u32);
        let call = ConvCall { key, ..call };
        let dispatch = call.dispatch(groups, quads)?.param("chunks", chunks);
        Ok(sizes(dispatch, self.source.layout.spatial, y.spatial, pad_lo))
    }
}
