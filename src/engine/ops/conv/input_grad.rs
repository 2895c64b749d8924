//! Input gradients of convolutions.

use super::super::common::{WORKGROUP, switches};
use super::super::elementwise::part_grads;
use super::super::load::{ChannelBlocks, SOURCE, Source};
use super::super::pointwise::Product;
use super::super::subgroup::{SharedRow, Subgroup};
use super::shared::SharedConv;
use super::spec::{ConvSpec, taps_key};
use super::tile::{ConvCall, ConvMethod, ConvSite, ConvTile};
use crate::base::Result;
use crate::engine::graph::{
    CutAxis, Dispatch, Gradients, Graph, Layout, Lowering, Node, Op, Portion, Value,
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

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let ([dy], [out]) = (lowering.inputs()?, lowering.outputs()?);
        let source = Source::of(lowering.graph, dy)?;
        let dx = lowering.graph.layout(out)?;
        let ins = CutAxis::all(source.layout.blocks(), source.stored_voxels());
        let pieces = lowering.cut(dx.n, [CutAxis::all(dx.blocks(), dx.voxels()), ins]);
        pieces.iter().map(|piece| self.dispatch(lowering, &source, piece)).collect()
    }
}

impl ConvInputGrad {
    fn dispatch(
        &self,
        lowering: &Lowering<'_>,
        source: &Source,
        piece: &Portion<2>,
    ) -> Result<Dispatch> {
        let ([_, weight], [out]) = (lowering.inputs()?, lowering.outputs()?);
        let dx = lowering.graph.layout(out)?;
        let voxels = dx.voxels();
        let [outs, ins] = piece.runs;
        let (bind, out_base) = lowering.window(out, piece.part(outs))?;
        let onto = lowering.node.addend.is_some() || ins.first > 0;
        let key = |file| source.switches(KernelKey::new(file)).set("ACC", onto as u32);
        let dispatch = if self.spec.is_pointwise() {
            let blocks = ChannelBlocks { ins: ins.count, outs: outs.count };
            let loads = source.tensors();
            let product = Product { samples: piece.samples, voxels, blocks, loads };
            let key = |file| key(file).set("TRANSPOSE", 1).set("BIAS", 0);
            product
                .dispatch(lowering, format!("pointwise {}", lowering.name(out)), key)?
                .param("src_voxels", source.stored_voxels())
                .param("h", dx.spatial[1])
                .param("w", dx.spatial[2])
        } else {
            self.taps(lowering, source, piece, key("conv_input.wgsl"))?
        };
        let dispatch = dispatch
            .bind("bias", lowering.whole(weight))
            .bind("weight", lowering.whole(weight))
            .bind("out", bind)
            .param("n", piece.samples)
            .param("ins", ins.count)
            .param("outs", outs.count)
            .param("cols", self.cols)
            .param("weight_in", self.weight_in + outs.first)
            .param("weight_out", ins.first)
            .param("src_blocks", source.layout.blocks())
            .param("out_blocks", dx.blocks())
            .param("out_base", out_base);
        let stride = self.spec.stride.iter().product::<usize>();
        let smaller = voxels.min(source.layout.voxels() * stride);
        let steps = smaller * self.spec.taps() / stride;
        let flops = piece.samples * steps * outs.count * ins.count * 32;
        let bytes = source.bytes(piece.samples, ins.count)
            + (piece.samples * outs.count * voxels * 16) as u64;
        let dispatch = source.bind(dispatch, &SOURCE, lowering, piece.part(ins))?;
        Ok(dispatch.work(flops as u64, bytes))
    }

    fn taps(
        &self,
        lowering: &Lowering<'_>,
        source: &Source,
        piece: &Portion<2>,
        key: KernelKey,
    ) -> Result<Dispatch> {
        let [out] = lowering.outputs()?;
        let dx = lowering.graph.layout(out)?;
        let [outs, ins] = piece.runs;
        let site = ConvSite {
            spec: self.spec,
            transposed: true,
            samples: piece.samples,
            spatial: dx.spatial,
            blocks: ChannelBlocks { ins: ins.count, outs: outs.count },
            lanes: 4,
        };
        let key = taps_key(key, &self.spec);
        let (tile, choice) = site.choose(&switches(&key), lowering)?;
        let label = format!("conv input gradient {}", lowering.name(out));
        let call = ConvCall { lowering, piece, label, key, tile };
        let dispatch = match tile.method {
            ConvMethod::Winograd => {
                let key = call.key.clone().set("TRANSPOSE", 1).set("BIAS", 0);
                let pad = [0, 1, 2].map(|a| self.spec.kernel[a] - 1 - self.spec.pad_lo[a]);
                let [inner, outer] = [source.layout.spatial, dx.spatial];
                let conv = SharedConv { spec: self.spec, lanes: 4, pad, inner, outer };
                conv.dispatch(ConvCall { key, ..call })?
            }
            ConvMethod::Shared => self.sizes(self.shared(call, dx)?, &source.layout, dx),
            ConvMethod::Direct => self.sizes(self.direct(call, dx)?, &source.layout, dx),
        };
        Ok(dispatch.chosen(choice))
    }

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

    /// Gradients along W that `vox` neighbours need: how many, and how many before that of the first neighbour.
    fn row(&self, vox: usize) -> (usize, usize) {
        let ConvSpec { kernel: [_, _, kw], stride: [_, _, sw], pad_lo: [_, _, pw], .. } = self.spec;
        // those before w0/SW that the first voxel's last tap reaches
        let first = (kw - 1).saturating_sub(pw).div_ceil(sw);
        ((vox - 1 + pw + first * sw) / sw + 1, first)
    }

    fn shared(&self, call: ConvCall<'_>, dx: &Layout) -> Result<Dispatch> {
        let ConvSpec { stride: [sd, sh, sw], pad_lo: [_, _, pw], .. } = self.spec;
        let ConvTile { vox, out, .. } = call.tile;
        let (inputs, first) = self.row(vox);
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
        let (row, first) = self.row(vox);
        // each parity of D and H counts on its own
        let [d, h] = [0, 1].map(|axis| dx.spatial[axis].div_ceil(stride[axis]));
        let lattice = d * stride[0] * h.div_ceil(lines) * stride[1];
        let key = call
            .key
            .clone()
            .tile("VOX", vox as u32)
            .tile("OUT", out as u32)
            .tile("LINES", lines as u32)
            .tile("ROW", row as u32)
            .tile("FIRST", first as u32)
            .tile("KW", kernel[2] as u32)
            .tile("SW", stride[2] as u32)
            .tile("PW", pad_lo[2] as u32);
        let quads = dx.spatial[2].div_ceil(vox);
        let threads = quads * lattice * call.tiles() * call.piece.samples;
        ConvCall { key, ..call }.dispatch(threads.div_ceil(WORKGROUP), quads)
    }
}
