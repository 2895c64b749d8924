//! Input gradients of convolutions.

use super::super::common::{WORKGROUP, switches};
use super::super::elementwise::part_grads;
use super::super::load::{ChannelBlocks, SOURCE, Source};
use super::super::pointwise::Product;
use super::super::subgroup::{SharedRow, Subgroup};
use super::coop_conv::CooperativeConv;
use super::shared::SharedConv;
use super::site::{ConvMethod, ConvSite, ConvTile, Geometry, Row};
use super::spec::{ConvSpec, taps_key};
use super::split::Target;
use super::staged::StagedConv;
use super::tile::{ConvCall, working_memory};
use crate::base::Result;
use crate::engine::graph::{
    CutAxis, Dispatch, Gradients, Graph, Layout, Lowering, Node, Op, Portion, Scratch, Value,
};
use crate::engine::shader::KernelKey;

/// Appends the gradient of each concatenated part of a convolution's input that wants one.
pub fn input_grads(
    graph: &mut Graph,
    grads: &mut Gradients,
    node: &Node,
    dy: Value,
    spec: ConvSpec,
) -> Result<()> {
    let (x, weight) = (node.inputs[0], node.inputs[1]);
    let cols = graph.layout(x)?.blocks();
    let op = |weight_in| ConvInputGrad { spec, weight_in, cols };
    part_grads(graph, grads, x, &[dy, weight], op)
}

#[derive(Debug)]
struct ConvInputGrad {
    spec: ConvSpec,
    weight_in: usize,
    cols: usize,
}

impl Op for ConvInputGrad {
    fn name(&self) -> &'static str {
        "conv input gradient"
    }

    fn scratch(&self, lowering: &Lowering<'_>) -> Result<Vec<Scratch>> {
        if self.spec.is_pointwise() {
            return Ok(Vec::new());
        }
        let call = self.call(lowering)?;
        let sites = call.pieces()?.iter().map(|piece| call.site(piece)).collect::<Vec<_>>();
        working_memory(lowering, &sites)
    }

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let call = self.call(lowering)?;
        let mut dispatches = Vec::new();
        for piece in call.pieces()? {
            dispatches.extend(match self.spec.is_pointwise() {
                true => vec![call.pointwise(&piece)?],
                false => call.taps(&piece)?,
            });
        }
        Ok(dispatches)
    }
}

impl ConvInputGrad {
    fn call<'a>(&'a self, lowering: &'a Lowering<'a>) -> Result<InputGradCall<'a>> {
        let ([dy, weight], [out]) = (lowering.inputs()?, lowering.outputs()?);
        let source = Source::of(lowering.graph, dy)?;
        let dx = lowering.graph.layout(out)?;
        Ok(InputGradCall { grad: self, lowering, source, dx, weight, out })
    }
}

/// An input gradient about to be lowered.
struct InputGradCall<'a> {
    grad: &'a ConvInputGrad,
    lowering: &'a Lowering<'a>,
    /// The output gradient.
    source: Source,
    dx: &'a Layout,
    weight: Value,
    out: Value,
}

impl InputGradCall<'_> {
    fn pieces(&self) -> Result<Vec<Portion<2>>> {
        let Self { lowering, source, dx, .. } = self;
        let ins = CutAxis::all(source.layout.blocks(), source.stored_voxels());
        Ok(lowering.cut(dx.n, [CutAxis::all(dx.blocks(), dx.voxels()), ins]))
    }

    fn key(&self, file: &'static str, piece: &Portion<2>) -> KernelKey {
        let onto = self.lowering.node.addend.is_some() || piece.runs[1].first > 0;
        self.source.switches(KernelKey::new(file)).set("ACC", onto as u32)
    }

    /// Where a piece of the gradient lies.
    fn target(&self, piece: &Portion<2>) -> Result<Target> {
        let (bind, base) = self.lowering.window(self.out, piece.part(piece.runs[0]))?;
        Ok(Target { bind, base, blocks: self.dx.blocks() })
    }

    /// Bindings and parameters that all kernels share.
    fn common(&self, dispatch: Dispatch, piece: &Portion<2>, target: Target) -> Result<Dispatch> {
        let Self { grad, lowering, source, dx, .. } = self;
        let [outs, ins] = piece.runs;
        let dispatch = target
            .bind(dispatch)
            .bind("bias", lowering.whole(self.weight))
            .bind("weight", lowering.whole(self.weight))
            .param("n", piece.samples)
            .param("ins", ins.count)
            .param("outs", outs.count)
            .param("cols", grad.cols)
            .param("weight_in", grad.weight_in + outs.first)
            .param("weight_out", ins.first)
            .param("src_blocks", source.layout.blocks());
        let stride = grad.spec.stride.iter().product::<usize>();
        let smaller = dx.voxels().min(source.layout.voxels() * stride);
        let steps = smaller * grad.spec.taps() / stride;
        let flops = piece.samples * steps * outs.count * ins.count * 32;
        let bytes = source.bytes(piece.samples, ins.count)
            + (piece.samples * outs.count * dx.voxels() * 16) as u64;
        let dispatch = source.bind(dispatch, &SOURCE, lowering, piece.part(ins))?;
        Ok(dispatch.work(flops as u64, bytes))
    }

    fn pointwise(&self, piece: &Portion<2>) -> Result<Dispatch> {
        let Self { lowering, source, dx, .. } = self;
        let [outs, ins] = piece.runs;
        let blocks = ChannelBlocks { ins: ins.count, outs: outs.count };
        let (samples, voxels, loads) = (piece.samples, dx.voxels(), source.tensors());
        let product = Product { samples, voxels, blocks, loads, transposed: true };
        let key = |file| self.key(file, piece).set("TRANSPOSE", 1).set("BIAS", 0);
        let label = format!("pointwise {}", lowering.name(self.out));
        let dispatch = product
            .dispatch(lowering, label, key)?
            .param("src_voxels", source.stored_voxels())
            .param("h", dx.spatial[1])
            .param("w", dx.spatial[2]);
        self.common(dispatch, piece, self.target(piece)?)
    }

    /// The site of a piece, and the kernel with its switches.
    fn site(&self, piece: &Portion<2>) -> (ConvSite, KernelKey) {
        let [outs, ins] = piece.runs;
        let site = ConvSite {
            geometry: self.grad.geometry(),
            samples: piece.samples,
            spatial: self.dx.spatial,
            blocks: ChannelBlocks { ins: ins.count, outs: outs.count },
            lanes: 4,
            loads: self.source.tensors(),
        };
        (site, taps_key(self.key("conv_input.wgsl", piece), &self.grad.spec))
    }

    /// The dispatch of a piece, or that of its parts and their sum.
    fn taps(&self, piece: &Portion<2>) -> Result<Vec<Dispatch>> {
        let lowering = self.lowering;
        let (site, key) = self.site(piece);
        let (tile, choice) = site.choose(&switches(&key), lowering)?;
        let label = format!("conv input gradient {}", lowering.name(self.out));
        let sum = site.partial(tile.splits());
        let (bias, target) = (lowering.whole(self.weight), self.target(piece)?);
        let dispatches = sum.dispatches(lowering, key, bias, target, |key, target| {
            let call = ConvCall { lowering, piece, label: label.clone(), key, tile };
            self.common(self.tile(call)?, piece, target)
        })?;
        Ok(dispatches.into_iter().map(|dispatch| dispatch.chosen(choice.clone())).collect())
    }

    fn tile(&self, call: ConvCall<'_>) -> Result<Dispatch> {
        let Self { grad, source, dx, .. } = self;
        let spec = grad.spec;
        // the convolution that it is where the strides are 1
        let pad = [0, 1, 2].map(|a| spec.kernel[a] - 1 - spec.pad_lo[a]);
        let [inner, outer] = [source.layout.spatial, dx.spatial];
        let transposed = || call.key.clone().set("TRANSPOSE", 1).set("BIAS", 0);
        match call.tile.method {
            ConvMethod::Winograd => {
                let key = transposed();
                let conv = SharedConv { spec, lanes: 4, pad, inner, outer };
                conv.dispatch(ConvCall { key, ..call })
            }
            ConvMethod::Cooperative(matrices) => {
                let key = transposed();
                let conv = CooperativeConv { spec, pad, inner, outer };
                conv.dispatch(ConvCall { key, ..call }, matrices)
            }
            ConvMethod::Staged(group) => {
                let conv = StagedConv { geometry: grad.geometry(), lanes: 4, made: dx.spatial };
                Ok(grad.sizes(conv.dispatch(call, group)?, &source.layout, dx))
            }
            ConvMethod::Shared => Ok(grad.sizes(grad.shared(call, dx)?, &source.layout, dx)),
            ConvMethod::Direct => Ok(grad.sizes(grad.direct(call, dx)?, &source.layout, dx)),
        }
    }
}

impl ConvInputGrad {
    /// Sizes of what is read and made, as the convolution has them.
    fn sizes(&self, dispatch: Dispatch, dy: &Layout, dx: &Layout) -> Dispatch {
        let [od, oh, ow] = dy.spatial;
        dispatch
            .param("od", od)
            .param("oh", oh)
            .param("ow", ow)
            .param("id", dx.spatial[0])
            .param("ih", dx.spatial[1])
            .param("iw", dx.spatial[2])
            .param("pd", self.spec.pad_lo[0])
            .param("ph", self.spec.pad_lo[1])
    }

    fn geometry(&self) -> Geometry {
        Geometry { spec: self.spec, transposed: true }
    }

    fn shared(&self, call: ConvCall<'_>, dx: &Layout) -> Result<Dispatch> {
        let ConvSpec { stride: [sd, sh, sw], pad_lo: [_, _, pw], .. } = self.spec;
        let ConvTile { vox, out, .. } = call.tile;
        let Row { inputs, first } = self.geometry().row(vox);
        // each parity of D and H counts on its own
        let [planes, height] = [dx.spatial[0].div_ceil(sd), dx.spatial[1].div_ceil(sh)];
        let group = Subgroup::new(height, call.lowering.caps, &call.label)?;
        let row = SharedRow { inputs, columns: out * 4, stride: sh };
        let key = group
            .key(call.key.clone(), "conv_input_subgroups.wgsl", row)
            .tile("VOX", vox as u32)
            .tile("OUT", out as u32)
            .tile("FIRST", first as u32)
            .tile("SW", sw as u32)
            .tile("PW", pw as u32);
        let quads = dx.spatial[2].div_ceil(vox);
        let runs = call.piece.samples * planes * height.div_ceil(group.run) * quads;
        let groups = group.groups(runs) * sd * sh * call.tiles();
        Ok(ConvCall { key, ..call }.dispatch(groups, quads)?.param("planes", planes))
    }

    fn direct(&self, call: ConvCall<'_>, dx: &Layout) -> Result<Dispatch> {
        let ConvSpec { kernel, stride, pad_lo, .. } = self.spec;
        let ConvTile { vox, lines, out, .. } = call.tile;
        let Row { inputs, first } = self.geometry().row(vox);
        // each parity of D and H counts on its own
        let [d, h] = [0, 1].map(|axis| dx.spatial[axis].div_ceil(stride[axis]));
        let lattice = d * stride[0] * h.div_ceil(lines) * stride[1];
        let key = call
            .key
            .clone()
            .tile("VOX", vox as u32)
            .tile("OUT", out as u32)
            .tile("LINES", lines as u32)
            .tile("ROW", inputs as u32)
            .tile("FIRST", first as u32)
            .tile("KW", kernel[2] as u32)
            .tile("SW", stride[2] as u32)
            .tile("PW", pad_lo[2] as u32);
        let quads = dx.spatial[2].div_ceil(vox);
        let threads = quads * lattice * call.tiles() * call.piece.samples;
        ConvCall { key, ..call }.dispatch(threads.div_ceil(WORKGROUP), quads)
    }
}
