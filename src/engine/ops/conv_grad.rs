//! Input and weight gradients of convolutions.

use std::sync::Arc;

use super::conv::{ConvSpec, Pass, Piece, lanes, pieces, row_key, sizes, taps_key};
use super::conv_tile::{Kernel, Shape, Subgroup, Tile, WeightTile, shared};
use super::load::{Part, SOURCE, Source, WEIGHT_GRAD, WEIGHT_SOURCE, whole, window};
use super::pointwise::{Product, WeightSplit, WeightTile as PointwiseTile};
use super::reduce::{reduce, scratch_words};
use super::{WORKGROUP, addend, materialise, switches};
use crate::engine::graph::{Caps, Dispatch, Gradients, Graph, Layout, Node, Op, Value, fold};
use crate::engine::shader::{Choice, KernelKey};
use crate::{Error, Result};

/// Appends the gradient of each concatenated part that wants one.
pub(super) fn input_grads(
    graph: &mut Graph,
    grads: &mut Gradients,
    x: Value,
    weight: Value,
    (dy, spec): (Value, ConvSpec),
) -> Result<()> {
    let cols = graph.layout(x)?.blocks();
    let dy = single(graph, dy)?;
    let mut weight_in = 0;
    for part in graph.parts(x) {
        let layout = graph.layout(part)?.clone();
        let blocks = layout.blocks();
        if graph.info(part).needs_grad {
            let onto = addend(graph, grads, part)?;
            let dx = graph.tensor(format!("d.{}", graph.info(part).name), layout);
            let inputs = [dy, weight].into_iter().chain(onto).collect();
            graph.node_onto(ConvInputGrad { spec, weight_in, cols }, inputs, vec![dx], onto);
            grads.set(part, dx);
        }
        weight_in += blocks;
    }
    Ok(())
}

fn single(graph: &mut Graph, dy: Value) -> Result<Value> {
    if graph.loads(dy).len() == 1 { Ok(dy) } else { materialise(graph, dy) }
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

    fn backward(&self, _: &mut Graph, _: &Node, _: &mut Gradients) -> Result<()> {
        Err(Error::Internal("second derivatives are not offered".into()))
    }

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let source = Source::of(graph, node.inputs[0])?;
        let dx = graph.layout(node.outputs[0])?;
        let blocks = [dx.blocks(), source.layout.blocks()];
        pieces(dx.n, blocks, [dx.voxels(), source.stored_voxels()], caps)
            .iter()
            .map(|piece| self.piece(graph, node, &source, piece, caps))
            .collect()
    }
}

impl ConvInputGrad {
    fn piece(
        &self,
        graph: &Graph,
        node: &Node,
        source: &Source,
        piece: &Piece,
        caps: &Caps,
    ) -> Result<Dispatch> {
        let out = node.outputs[0];
        let dx = graph.layout(out)?;
        let voxels = dx.voxels();
        let start = (piece.n0 * dx.blocks() + piece.outs.0) * voxels;
        let len = ((piece.samples - 1) * dx.blocks() + piece.outs.1) * voxels;
        let (bind, out_base) = window(graph, out, start, len, caps)?;
        let onto = node.addend.is_some() || piece.ins.0 > 0;
        let name = graph.info(out).name.clone();
        let key = |file| source.switches(KernelKey::new(file)).set("ACC", onto as u32);
        let dispatch = if self.spec.is_pointwise() {
            let (outs, ins) = (piece.outs.1, piece.ins.1);
            let loads = source.tensors();
            let product = Product { samples: piece.samples, voxels, outs, ins, loads };
            let key = |file| key(file).set("TRANSPOSE", 1).set("BIAS", 0);
            product
                .dispatch(format!("pointwise {name}"), key, caps)?
                .bind("bias", whole(graph, node.inputs[1]))
                .param("src_voxels", source.stored_voxels())
                .param("h", dx.spatial[1])
                .param("w", dx.spatial[2])
        } else {
            let name = format!("conv input gradient {name}");
            self.taps(source, dx, (piece, key("conv_input.wgsl"), name), caps)?
                .bind("bias", whole(graph, node.inputs[1]))
        };
        let part =
            Part { n0: piece.n0, samples: piece.samples, b0: piece.ins.0, blocks: piece.ins.1 };
        let dispatch = dispatch
            .bind("weight", whole(graph, node.inputs[1]))
            .bind("out", bind)
            .param("n", piece.samples)
            .param("ins", piece.ins.1)
            .param("outs", piece.outs.1)
            .param("cols", self.cols)
            .param("weight_in", self.weight_in + piece.outs.0)
            .param("weight_out", piece.ins.0)
            .param("src_blocks", source.layout.blocks())
            .param("out_blocks", dx.blocks())
            .param("out_base", out_base);
        let smaller =
            voxels.min(source.layout.voxels() * self.spec.stride.iter().product::<usize>());
        let steps = smaller * self.spec.taps() / self.spec.stride.iter().product::<usize>();
        let flops = piece.samples * steps * piece.outs.1 * piece.ins.1 * 32;
        let bytes = source.bytes(piece.samples, piece.ins.1)
            + (piece.samples * piece.outs.1 * voxels * 16) as u64;
        Ok(source.bind(dispatch, &SOURCE, graph, part, caps)?.work(flops as u64, bytes))
    }

    fn taps(
        &self,
        source: &Source,
        dx: &Layout,
        (piece, key, name): (&Piece, KernelKey, String),
        caps: &Caps,
    ) -> Result<Dispatch> {
        let shape = Shape {
            spec: self.spec,
            transposed: true,
            samples: piece.samples,
            spatial: dx.spatial,
            ins: piece.ins.1,
            outs: piece.outs.1,
            lanes: 4,
        };
        let key = taps_key(key, &self.spec);
        let (tile, choice) = shape.choose(&switches(&key), caps)?;
        let dispatch = match tile.kernel {
            Kernel::Winograd => {
                let key = key.set("TRANSPOSE", 1).set("BIAS", 0);
                let pad = [0, 1, 2].map(|a| self.spec.kernel[a] - 1 - self.spec.pad_lo[a]);
                let [inner, outer] = [source.layout.spatial, dx.spatial];
                let pass = Pass { spec: self.spec, lanes: 4, pad, inner, outer };
                pass.shared((name, key), tile, piece, caps)?
            }
            Kernel::Shared => self.shared(dx, (piece, key, name, tile), caps)?,
            Kernel::Direct => self.direct(dx, (piece, key, name, tile), caps)?,
        };
        let [od, oh, ow] = source.layout.spatial;
        let dispatch = match tile.kernel {
            Kernel::Winograd => dispatch,
            _ => dispatch
                .param("od", od)
                .param("oh", oh)
                .param("ow", ow)
                .param("id", dx.spatial[0])
                .param("ih", dx.spatial[1])
                .param("iw", dx.spatial[2])
                .param("pd", self.spec.pad_lo[0])
                .param("ph", self.spec.pad_lo[1]),
        };
        Ok(dispatch.chosen(choice))
    }

    /// Gradients along W that `vox` neighbours need: how many, and how many before that of the first neighbour.
    fn row(&self, vox: usize) -> (usize, usize) {
        let ConvSpec { kernel: [_, _, kw], stride: [_, _, sw], pad_lo: [_, _, pw], .. } = self.spec;
        // those before w0/SW that the first voxel's last tap reaches
        let first = (kw - 1).saturating_sub(pw).div_ceil(sw);
        ((vox - 1 + pw + first * sw) / sw + 1, first)
    }

    fn shared(
        &self,
        dx: &Layout,
        (piece, key, name, tile): (&Piece, KernelKey, String, Tile),
        caps: &Caps,
    ) -> Result<Dispatch> {
        let ConvSpec { stride: [sd, sh, sw], pad_lo: [_, _, pw], .. } = self.spec;
        let Tile { vox, out, .. } = tile;
        let (row, first) = self.row(vox);
        // each parity of D and H counts on its own
        let [planes, height] = [dx.spatial[0].div_ceil(sd), dx.spatial[1].div_ceil(sh)];
        let group = Subgroup::new(height, caps, &name)?;
        let key = group
            .key(key, "conv_input_subgroups.wgsl", [row, out * 4, sh])
            .tile("VOX", vox as u32)
            .tile("OUT", out as u32)
            .tile("FIRST", first as u32)
            .tile("SW", sw as u32)
            .tile("PW", pw as u32);
        let quads = dx.spatial[2].div_ceil(vox);
        let tiles = piece.outs.1.div_ceil(out);
        let runs = piece.samples * planes * height.div_ceil(group.run) * quads;
        let groups = group.groups(runs) * sd * sh * tiles;
        Ok(Dispatch::new(name, key, fold(groups, caps)?)
            .param("tiles", tiles)
            .param("quads", quads)
            .param("planes", planes))
    }

    fn direct(
        &self,
        dx: &Layout,
        (piece, key, name, tile): (&Piece, KernelKey, String, Tile),
        caps: &Caps,
    ) -> Result<Dispatch> {
        let ConvSpec { kernel, stride, pad_lo, .. } = self.spec;
        let Tile { vox, lines, out, .. } = tile;
        let (kw, sw, pw) = (kernel[2], stride[2], pad_lo[2]);
        let (row, first) = self.row(vox);
        // each parity of D and H counts on its own
        let [d, h] = [0, 1].map(|axis| dx.spatial[axis].div_ceil(stride[axis]));
        let lattice = d * stride[0] * h.div_ceil(lines) * stride[1];
        let tiles = piece.outs.1.div_ceil(out);
        let key = key
            .tile("VOX", vox as u32)
            .tile("OUT", out as u32)
            .tile("LINES", lines as u32)
            .tile("ROW", row as u32)
            .tile("FIRST", first as u32)
            .tile("KW", kw as u32)
            .tile("SW", sw as u32)
            .tile("PW", pw as u32);
        let quads = dx.spatial[2].div_ceil(vox);
        let threads = quads * lattice * tiles * piece.samples;
        Ok(Dispatch::new(name, key, fold(threads.div_ceil(WORKGROUP), caps)?)
            .param("tiles", tiles)
            .param("quads", quads))
    }
}

/// Most words of partial weight gradients.
const PARTIAL_WORDS: usize = 8 << 20;

/// Appends the weight gradient: partial sums, then their reduction.
pub(super) fn weight_grad(
    graph: &mut Graph,
    x: Value,
    weight: Value,
    dy: Value,
    spec: ConvSpec,
) -> Result<()> {
    let dy = single(graph, dy)?;
    let out = graph.param_grad(weight)?;
    let (ins, outs) = (graph.layout(x)?.blocks(), graph.layout(dy)?.blocks());
    let layout = graph.layout(dy)?.clone();
    let lines = layout.spatial[0] * layout.spatial[1];
    let words = graph.info(weight).words;
    // one binding covers them all
    let caps = graph.caps();
    let room = PARTIAL_WORDS.min((caps.max_binding / 4) as usize);
    let most = (room / (words * layout.n)).max(1);
    let load = switches(&Source::of(graph, dy)?.switches(KernelKey::new("conv_weight.wgsl")));
    let (split, per_sample) = if spec.is_pointwise() {
        let size = (layout.n, layout.voxels());
        let split = WeightSplit::choose(size, (ins, outs), most, &load, caps)?;
        let per_sample = split.per_sample;
        (Split::Voxels(split), per_sample)
    } else {
        let lanes = lanes(graph.layout(x)?);
        let tiles = WeightTile::candidates(&spec, [ins, outs], lanes, caps);
        let ConvSpec { kernel: [kd, kh, kw], stride: [sd, sh, sw], .. } = spec;
        let shape = format!("{layout} {ins}>{outs} {kd}{kh}{kw} {sd}{sh}{sw}{load}");
        let (tile, choice) = caps.choose("conv-weight", shape, &tiles)?;
        let threads = tile.threads(&spec, [ins, outs], caps) * layout.n;
        let per_sample = (caps.threads() / threads.max(1)).clamp(1, lines).min(most);
        (Split::Lines(tile, choice), per_sample)
    };
    // every part has the same number of lines; the last may run over
    let rows = lines.div_ceil(per_sample);
    let per_sample = if spec.is_pointwise() { per_sample } else { lines.div_ceil(rows) };
    let name = graph.info(weight).name.clone();
    let parts = per_sample * layout.n;
    let partial = graph.words(format!("{name}.partial"), parts * words);
    let scratch = graph.words(format!("{name}.scratch"), scratch_words(parts, words));
    let node = ConvWeightGrad { spec, per_sample, rows, split };
    graph.node(node, vec![x, dy], vec![out, partial, scratch]);
    Ok(())
}

/// How a weight gradient is shared out: by voxels for a pointwise convolution, else by lines.
#[derive(Debug)]
enum Split {
    Voxels(WeightSplit),
    Lines(WeightTile, Arc<Choice>),
}

#[derive(Debug)]
struct ConvWeightGrad {
    spec: ConvSpec,
    per_sample: usize,
    rows: usize,
    split: Split,
}

impl Op for ConvWeightGrad {
    fn name(&self) -> &'static str {
        "conv weight gradient"
    }

    fn backward(&self, _: &mut Graph, _: &Node, _: &mut Gradients) -> Result<()> {
        Err(Error::Internal("second derivatives are not offered".into()))
    }

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let (x, out) = (node.inputs[0], node.outputs[0]);
        let grad = Source::of(graph, node.inputs[1])?;
        let samples = grad.layout.n;
        let mut dispatches = Vec::new();
        let mut in_first = 0;
        for (index, load) in graph.loads(x).into_iter().enumerate() {
            let layout = graph.layout(graph.parts(x)[index])?.clone();
            let source = Source { load, layout };
            let ins = source.layout.blocks();
            let voxels = [grad.layout.voxels(), source.stored_voxels()];
            for piece in pieces(samples, [grad.layout.blocks(), ins], voxels, caps) {
                dispatches.push(self.piece(
                    graph,
                    node,
                    (&source, &grad),
                    (&piece, in_first),
                    caps,
                )?);
            }
            in_first += ins;
        }
        let rows = self.per_sample * samples;
        let words = graph.info(out).words;
        let values = [node.outputs[1], node.outputs[2], out];
        dispatches.extend(reduce(graph, values, rows, words, caps)?);
        Ok(dispatches)
    }
}

impl ConvWeightGrad {
    fn piece(
        &self,
        graph: &Graph,
        node: &Node,
        (source, grad): (&Source, &Source),
        (piece, in_first): (&Piece, usize),
        caps: &Caps,
    ) -> Result<Dispatch> {
        let (outs, ins) = (piece.outs.1, piece.ins.1);
        let parts = self.per_sample * piece.samples;
        let key = source
            .upsampling(KernelKey::new("conv_weight.wgsl"))
            .set("NORM", source.coef().is_some() as u32)
            .set("ACT", source.act() as u32)
            .set("GNORM", grad.coef().is_some() as u32)
            .set("GACT", grad.act() as u32);
        let name = graph.info(node.outputs[0]).name.clone();
        let dispatch = match &self.split {
            Split::Voxels(split) => self.voxels(source, grad, (piece, key, name), split, caps)?,
            Split::Lines(tile, choice) => {
                self.lines(source, grad, (piece, key, name), *tile, caps)?.chosen(choice.clone())
            }
        };
        let dispatch = dispatch
            .bind("partial", whole(graph, node.outputs[1]))
            .param("ins", ins)
            .param("outs", outs)
            .param("parts", parts)
            .param("per_sample", self.per_sample)
            .param("part_first", piece.n0 * self.per_sample)
            .param("all_outs", grad.layout.blocks())
            .param("all_ins", graph.layout(node.inputs[0])?.blocks())
            .param("out_first", piece.outs.0)
            .param("in_first", in_first + piece.ins.0)
            .param("src_blocks", source.layout.blocks())
            .param("grad_blocks", grad.layout.blocks());
        let of = |(b0, blocks)| Part { n0: piece.n0, samples: piece.samples, b0, blocks };
        let dispatch = source.bind(dispatch, &WEIGHT_SOURCE, graph, of(piece.ins), caps)?;
        let dispatch = grad.bind(dispatch, &WEIGHT_GRAD, graph, of(piece.outs), caps)?;
        let voxels = grad.layout.voxels() * piece.samples;
        let lanes = lanes(&source.layout) as usize;
        let flops = voxels * outs * ins * 8 * lanes * self.spec.taps();
        let bytes = source.bytes(piece.samples, ins) + grad.bytes(piece.samples, outs);
        Ok(dispatch.work(flops as u64, bytes))
    }

    fn voxels(
        &self,
        source: &Source,
        grad: &Source,
        (piece, key, name): (&Piece, KernelKey, String),
        split: &WeightSplit,
        caps: &Caps,
    ) -> Result<Dispatch> {
        let (outs, ins) = (piece.outs.1, piece.ins.1);
        let (key, [tile_in, tile_out], group, runs) = match split.tile {
            PointwiseTile::Thread { blocks, .. } => {
                let [tile_in, tile_out] = [ins, outs].map(|most| blocks.min(most));
                let key = KernelKey { file: "pointwise_weight.wgsl", ..key }
                    .tile("OUT", tile_out as u32)
                    .tile("IN", tile_in as u32);
                (key, [tile_in, tile_out], WORKGROUP, self.per_sample / 8)
            }
            PointwiseTile::Cooperative(tile) => {
                let key = KernelKey { file: "pointwise_weight_coop.wgsl", ..key };
                (tile.set_weight(key), [tile.blocks(); 2], 1, self.per_sample)
            }
        };
        let (in_tiles, out_tiles) = (ins.div_ceil(tile_in), outs.div_ceil(tile_out));
        let tasks = self.per_sample * piece.samples * in_tiles * out_tiles;
        Ok(Dispatch::new(name, key, fold(tasks.div_ceil(group), caps)?)
            .chosen(split.choice.clone())
            .param("voxels", grad.layout.voxels())
            .param("run", grad.layout.voxels().div_ceil(runs))
            .param("in_tiles", in_tiles)
            .param("out_tiles", out_tiles)
            .param("src_voxels", source.stored_voxels())
            .param("h", grad.layout.spatial[1])
            .param("w", grad.layout.spatial[2]))
    }

    fn lines(
        &self,
        source: &Source,
        grad: &Source,
        (piece, key, name): (&Piece, KernelKey, String),
        tile: WeightTile,
        caps: &Caps,
    ) -> Result<Dispatch> {
        let ConvSpec { kernel, stride, pad_lo, .. } = self.spec;
        let key = taps_key(key, &self.spec);
        let threads = tile.threads(&self.spec, [piece.ins.1, piece.outs.1], caps)
            * self.per_sample
            * piece.samples;
        let (key, vox, group) = match tile {
            WeightTile::Direct { out, lines } => {
                let key = row_key(key, &self.spec, 4)
                    .tile("KW", kernel[2] as u32)
                    .tile("SW", stride[2] as u32)
                    .tile("OUT", out as u32)
                    .tile("LINES", lines as u32)
                    .tile("CIN", lanes(&source.layout));
                (key, 4, WORKGROUP)
            }
            WeightTile::Shared { out, vox } => {
                let group = shared(caps, &name)?;
                let key = KernelKey { file: "conv_weight_subgroups.wgsl", ..key };
                let key = row_key(key, &self.spec, vox)
                    .tile("SUB", group as u32)
                    .tile("SW", stride[2] as u32)
                    .tile("OUT", out as u32)
                    .tile("ROUNDS", (out * vox).div_ceil(group) as u32)
                    .tile("CIN", lanes(&source.layout));
                (key, vox, group)
            }
            WeightTile::Winograd { out, vox } => {
                let group = shared(caps, &name)?;
                let key = KernelKey { file: "conv_weight_winograd_subgroups.wgsl", ..key };
                let key = row_key(key, &self.spec, vox)
                    .tile("SUB", group as u32)
                    .tile("PAIRS", (vox / 2) as u32)
                    .tile("OUT", out as u32)
                    .tile("ROUNDS", (out * vox / 2).div_ceil(group) as u32);
                (key, vox, group)
            }
        };
        let tasks = piece.ins.1 * kernel[0] * kernel[1];
        let [od, oh, ow] = grad.layout.spatial;
        let dispatch = Dispatch::new(name, key, fold(threads.div_ceil(group), caps)?)
            .param("quads", ow.div_ceil(vox))
            .param("rows", self.rows);
        let dispatch = match tile {
            WeightTile::Direct { .. } => dispatch,
            _ => dispatch.param("groups", tasks.div_ceil(group)),
        };
        Ok(sizes(dispatch, source.layout.spatial, [od, oh, ow], pad_lo))
    }
}
