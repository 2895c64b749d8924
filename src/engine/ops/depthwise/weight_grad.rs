//! The weight gradient of the depthwise convolution: partial sums, then their reduction.

use super::super::common::switches;
use super::super::load::{Source, WeightSources};
use super::super::reduce::{partial_sums, reduce};
use super::tile::TAPS;
use super::weight_tile::ColumnSplit;
use crate::base::Result;
use crate::engine::graph::{
    BlockRun, CutAxis, Dispatch, Graph, Lowering, Op, Portion, Scratch, Value, fold,
};
use crate::engine::shader::KernelKey;

/// Appends the weight gradient of a depthwise convolution whose output's is `dy`.
pub fn weight_grad(graph: &mut Graph, x: Value, weight: Value, dy: Value) -> Result<()> {
    let out = graph.param_grad(weight)?;
    graph.node(DepthwiseWeightGrad, vec![x, dy], vec![out]);
    Ok(())
}

/// How the columns of an output gradient are shared out.
fn split(lowering: &Lowering<'_>, grad: &Source) -> Result<ColumnSplit> {
    let load = switches(&grad.switches(KernelKey::new("depthwise.wgsl")));
    ColumnSplit::choose(&grad.layout, &load, &lowering.of_activations())
}

#[derive(Debug)]
struct DepthwiseWeightGrad;

impl Op for DepthwiseWeightGrad {
    fn name(&self) -> &'static str {
        "depthwise weight gradient"
    }

    fn scratch(&self, lowering: &Lowering<'_>) -> Result<Vec<Scratch>> {
        let [_, dy] = lowering.inputs()?;
        let grad = Source::of(lowering.graph, dy)?;
        let split = split(lowering, &grad)?;
        partial_sums(lowering, split.per_sample * grad.layout.n)
    }

    fn ends_in_sum(&self) -> bool {
        true
    }

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let [x, dy] = lowering.inputs()?;
        let grad = &Source::of(lowering.graph, dy)?;
        let split = split(lowering, grad)?;
        let (samples, stored, voxels) = (grad.layout.n, grad.layout.blocks(), grad.layout.voxels());
        let mut dispatches = Vec::new();
        let mut first = 0;
        for source in &Source::parts_of(lowering.graph, x)? {
            let blocks = source.layout.blocks();
            let sources = WeightSources { source, grad };
            for piece in lowering.cut(samples, [CutAxis { blocks, stored, voxels }]) {
                dispatches.push(dispatch(lowering, &sources, &split, piece, first)?);
            }
            first += blocks;
        }
        dispatches.extend(reduce(lowering, split.per_sample * samples)?);
        Ok(dispatches)
    }
}

/// The dispatch for some blocks of a part of the input whose channels start at block `first`.
fn dispatch(
    lowering: &Lowering<'_>,
    sources: &WeightSources<'_>,
    split: &ColumnSplit,
    piece: Portion<1>,
    first: usize,
) -> Result<Dispatch> {
    let ([out], [partial]) = (lowering.outputs()?, lowering.scratch()?);
    let WeightSources { source, grad } = sources;
    let per_sample = split.per_sample;
    let [d, h, w] = grad.layout.spatial;
    let [run] = piece.runs;
    let parts = per_sample * piece.samples;
    let (key, groups) = split.key(|file| sources.key(file), parts, run.count);
    let dispatch = Dispatch::new(lowering.name(out), key, fold(groups, lowering.caps)?)
        .chosen(split.choice.clone())
        .bind("partial", lowering.whole(partial))
        .param("blocks", run.count)
        .param("d", d)
        .param("h", h)
        .param("w", w)
        .param("parts", parts)
        .param("per_sample", per_sample)
        .param("part_first", piece.n0 * per_sample)
        .param("all_blocks", grad.layout.blocks())
        .param("block_first", first + run.first)
        .param("src_blocks", source.layout.blocks())
        .param("grad_blocks", grad.layout.blocks());
    let dispatch = split.params(dispatch, grad.layout.spatial);
    let of_grad = piece.part(BlockRun { first: first + run.first, ..run });
    let dispatch = sources.bind(dispatch, lowering, piece.part(run), of_grad)?;
    let work = piece.samples * run.count * grad.layout.voxels();
    let bytes = sources.bytes(piece.samples, run.count, run.count);
    Ok(dispatch.work((work * TAPS * 8) as u64, bytes))
}
