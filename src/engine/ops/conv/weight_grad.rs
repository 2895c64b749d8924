//! Weight gradients of convolutions: partial sums, then their reduction.

use std::sync::Arc;

use super::super::common::{WORKGROUP, switches};
use super::super::load::{ChannelBlocks, Source, WeightSources};
use super::super::pointwise::PointwiseWeights;
use super::super::reduce::{partial_sums, reduce};
use super::super::subgroup::shared;
use super::spec::{ConvSpec, lanes, row_key, sizes, taps_key};
use super::weight_boxes::{ConvWeightSite, WeightBoxes};
use super::weight_tile::{ConvWeightTile, LineTile};
use crate::base::Result;
use crate::engine::graph::{CutAxis, Dispatch, Graph, Lowering, Op, Portion, Scratch, Value, fold};
use crate::engine::shader::{Choice, KernelKey};

/// Most words of partial weight gradients.
const PARTIAL_WORDS: usize = 8 << 20;

/// Appends the weight gradient of a convolution whose output's is `dy`.
pub fn weight_grad(
    graph: &mut Graph,
    x: Value,
    weight: Value,
    dy: Value,
    spec: ConvSpec,
) -> Result<()> {
    let out = graph.param_grad(weight)?;
    graph.node(ConvWeightGrad { spec }, vec![x, dy], vec![out]);
    Ok(())
}

/// How a weight gradient is shared out.
struct ConvWeightSplit {
    method: Method,
    /// Parts of a sample.
    per_sample: usize,
    choice: Arc<Choice>,
}

/// By voxels for a pointwise convolution, else by boxes or by lines.
enum Method {
    Voxels(PointwiseWeights),
    Boxes {
        boxes: WeightBoxes,
        /// Boxes of a part; the last may have fewer.
        each: usize,
    },
    Lines {
        tile: LineTile,
        /// Lines of a part; the last may run over.
        rows: usize,
    },
}

#[derive(Debug)]
struct ConvWeightGrad {
    spec: ConvSpec,
}

impl Op for ConvWeightGrad {
    fn name(&self) -> &'static str {
        "conv weight gradient"
    }

    fn scratch(&self, lowering: &Lowering<'_>) -> Result<Vec<Scratch>> {
        let [_, dy] = lowering.inputs()?;
        let samples = lowering.graph.layout(dy)?.n;
        partial_sums(lowering, self.split(lowering)?.per_sample * samples)
    }

    fn ends_in_sum(&self) -> bool {
        true
    }

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let [x, dy] = lowering.inputs()?;
        let grad = &Source::of(lowering.graph, dy)?;
        let samples = grad.layout.n;
        let split = self.split(lowering)?;
        let mut dispatches = Vec::new();
        let mut in_first = 0;
        for source in &Source::parts_of(lowering.graph, x)? {
            let blocks = source.layout.blocks();
            let outs = CutAxis::all(grad.layout.blocks(), grad.layout.voxels());
            let ins = CutAxis::all(blocks, source.stored_voxels());
            let sources = WeightSources { source, grad };
            for piece in lowering.cut(samples, [outs, ins]) {
                dispatches.push(self.dispatch(lowering, &sources, &split, piece, in_first)?);
            }
            in_first += blocks;
        }
        dispatches.extend(reduce(lowering, split.per_sample * samples)?);
        Ok(dispatches)
    }
}

impl ConvWeightGrad {
    fn split(&self, lowering: &Lowering<'_>) -> Result<ConvWeightSplit> {
        // an input of the network, which may be in f32 alone, makes no site of its own
        let lowering = lowering.of_activations();
        let ([x, dy], [out]) = (lowering.inputs()?, lowering.outputs()?);
        let grad = Source::of(lowering.graph, dy)?;
        let layout = &grad.layout;
        let read = lowering.graph.layout(x)?;
        let blocks = ChannelBlocks { ins: read.blocks(), outs: layout.blocks() };
        // one binding covers them all
        let room = PARTIAL_WORDS.min((lowering.caps.max_binding / 4) as usize);
        let most = (room / (lowering.graph.info(out).words * layout.n)).max(1);
        let load = switches(&grad.switches(KernelKey::new("conv_weight.wgsl")));
        if self.spec.is_pointwise() {
            let (weights, choice) =
                PointwiseWeights::choose(&lowering, layout, blocks, most, &load)?;
            let per_sample = weights.per_sample;
            return Ok(ConvWeightSplit { method: Method::Voxels(weights), per_sample, choice });
        }
        let caps = lowering.caps;
        let shape =
            ConvWeightSite { spec: self.spec, spatial: layout.spatial, blocks, lanes: lanes(read) };
        let ConvSpec { kernel: [kd, kh, kw], stride: [sd, sh, sw], .. } = self.spec;
        let ChannelBlocks { ins, outs } = blocks;
        let site = format!("{layout} {ins}>{outs} {kd}{kh}{kw} {sd}{sh}{sw}{load}");
        let (tile, choice) = lowering.choose("conv-weight", site, &shape.candidates(caps))?;
        let (method, per_sample) = match tile {
            ConvWeightTile::Boxes(boxes) => {
                let [each, per_sample] = boxes.split(layout, blocks, most, caps);
                (Method::Boxes { boxes, each }, per_sample)
            }
            ConvWeightTile::Lines(tile) => {
                let threads = tile.threads(&self.spec, blocks, caps) * layout.n;
                let lines = layout.spatial[0] * layout.spatial[1];
                let wanted = (caps.threads() / threads.max(1)).clamp(1, lines).min(most);
                // every part has the same number of lines
                let rows = lines.div_ceil(wanted);
                (Method::Lines { tile, rows }, lines.div_ceil(rows))
            }
        };
        Ok(ConvWeightSplit { method, per_sample, choice })
    }

    fn dispatch(
        &self,
        lowering: &Lowering<'_>,
        sources: &WeightSources<'_>,
        split: &ConvWeightSplit,
        piece: Portion<2>,
        in_first: usize,
    ) -> Result<Dispatch> {
        let ([x], [out], [partial]) =
            (lowering.inputs()?, lowering.outputs()?, lowering.scratch()?);
        let [outs, ins] = piece.runs;
        let WeightSources { source, grad } = sources;
        let per_sample = split.per_sample;
        let label = lowering.name(out).to_string();
        let dispatch = match &split.method {
            Method::Voxels(weights) => weights.dispatch(lowering, sources, piece, label)?,
            Method::Boxes { boxes, each } => {
                self.boxes(lowering, sources, piece, boxes, per_sample)?.param("each", *each)
            }
            Method::Lines { tile, rows } => {
                self.lines(lowering, sources, piece, *tile, per_sample)?.param("rows", *rows)
            }
        };
        let dispatch = dispatch
            .chosen(split.choice.clone())
            .bind("partial", lowering.whole(partial))
            .param("ins", ins.count)
            .param("outs", outs.count)
            .param("parts", per_sample * piece.samples)
            .param("per_sample", per_sample)
            .param("part_first", piece.n0 * per_sample)
            .param("all_outs", grad.layout.blocks())
            .param("all_ins", lowering.graph.layout(x)?.blocks())
            .param("out_first", outs.first)
            .param("in_first", in_first + ins.first)
            .param("src_blocks", source.layout.blocks())
            .param("grad_blocks", grad.layout.blocks());
        let dispatch = sources.bind(dispatch, lowering, piece.part(ins), piece.part(outs))?;
        let voxels = grad.layout.voxels() * piece.samples;
        let lanes = lanes(&source.layout) as usize;
        let flops = voxels * outs.count * ins.count * 8 * lanes * self.spec.taps();
        let bytes = sources.bytes(piece.samples, ins.count, outs.count);
        Ok(dispatch.work(flops as u64, bytes))
    }

    fn boxes(
        &self,
        lowering: &Lowering<'_>,
        sources: &WeightSources<'_>,
        piece: Portion<2>,
        boxes: &WeightBoxes,
        per_sample: usize,
    ) -> Result<Dispatch> {
        let [out] = lowering.outputs()?;
        let WeightSources { source, grad } = sources;
        let [outs, ins] = piece.runs.map(|run| run.count);
        let tiles = boxes.tiles(ChannelBlocks { ins, outs });
        let groups = fold(per_sample * piece.samples * tiles, lowering.caps)?;
        let key = boxes.key(sources.key("conv_weight_tiled.wgsl"));
        let dispatch = Dispatch::new(lowering.name(out), key, groups);
        let dispatch = boxes.params(dispatch, ins, grad.layout.spatial);
        Ok(sizes(dispatch, source.layout.spatial, grad.layout.spatial, self.spec.pad_lo))
    }

    fn lines(
        &self,
        lowering: &Lowering<'_>,
        sources: &WeightSources<'_>,
        piece: Portion<2>,
        tile: LineTile,
        per_sample: usize,
    ) -> Result<Dispatch> {
        let [out] = lowering.outputs()?;
        let label = lowering.name(out).to_string();
        let WeightSources { source, grad } = sources;
        let ConvSpec { kernel, stride, pad_lo, .. } = self.spec;
        let [outs, ins] = piece.runs.map(|run| run.count);
        let parts = per_sample * piece.samples;
        let threads = tile.threads(&self.spec, ChannelBlocks { ins, outs }, lowering.caps) * parts;
        let key = |file, vox| row_key(taps_key(sources.key(file), &self.spec), &self.spec, vox);
        let (key, vox, group) = match tile {
            LineTile::Direct { out, lines } => {
                let key = key("conv_weight.wgsl", 4)
                    .tile("KW", kernel[2] as u32)
                    .tile("SW", stride[2] as u32)
                    .tile("OUT", out as u32)
                    .tile("LINES", lines as u32)
                    .tile("CIN", lanes(&source.layout));
                (key, 4, WORKGROUP)
            }
            LineTile::Shared { out, vox } => {
                let group = shared(lowering.caps, &label)?;
                let key = key("conv_weight_subgroups.wgsl", vox)
                    .tile("SUB", group as u32)
                    .tile("SW", stride[2] as u32)
                    .tile("OUT", out as u32)
                    .tile("ROUNDS", (out * vox).div_ceil(group) as u32)
                    .tile("CIN", lanes(&source.layout));
                (key, vox, group)
            }
            LineTile::Winograd { out, vox } => {
                let group = shared(lowering.caps, &label)?;
                let key = key("conv_weight_winograd_subgroups.wgsl", vox)
                    .tile("SUB", group as u32)
                    .tile("PAIRS", (vox / 2) as u32)
                    .tile("OUT", out as u32)
                    .tile("ROUNDS", (out * vox / 2).div_ceil(group) as u32);
                (key, vox, group)
            }
        };
        let tasks = ins * kernel[0] * kernel[1];
        let groups = fold(threads.div_ceil(group), lowering.caps)?;
        let dispatch =
            Dispatch::new(label, key, groups).param("quads", grad.layout.spatial[2].div_ceil(vox));
        let dispatch = match tile {
            LineTile::Direct { .. } => dispatch,
            _ => dispatch.param("groups", tasks.div_ceil(group)),
        };
        Ok(sizes(dispatch, source.layout.spatial, grad.layout.spatial, pad_lo))
    }
}
