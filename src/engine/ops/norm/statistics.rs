//! Mean, scale, shift and 1/std of each sample and channel block.

use super::super::common::WORKGROUP;
use super::parts::{ChannelParts, NormPass, WALK};
use crate::base::{Error, Result};
use crate::engine::graph::{
    Caps, Dispatch, Gradients, Graph, Lowering, MomentParts, Node, Op, Portion, Scratch, Value,
    fold,
};
use crate::engine::shader::KernelKey;

/// Added to the variance, as in the reference.
pub const EPS: f32 = 1e-5;

/// Statistics of a tensor, from itself in parts or from moments that come along with it; inputs are the tensor, gamma and beta.
#[derive(Debug)]
pub struct Statistics;

impl Op for Statistics {
    fn name(&self) -> &'static str {
        "instance norm statistics"
    }

    fn backward(&self, _: &mut Graph, _: &Node, _: &mut Gradients) -> Result<()> {
        Ok(()) // the gradient passes through NormAct
    }

    fn scratch(&self, lowering: &Lowering<'_>) -> Result<Vec<Scratch>> {
        let [x] = lowering.inputs()?;
        let parts = Self::parts(lowering)?;
        let name = format!("{}.moments", lowering.name(x));
        Ok(vec![Scratch::new(name, parts.words(lowering.graph.layout(x)?))])
    }

    fn takes_moments(&self, parts: &MomentParts, caps: &Caps) -> bool {
        caps.software || finish_lanes(parts).is_some()
    }

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let ([x], [moments]) = (lowering.inputs()?, lowering.scratch()?);
        let layout = lowering.graph.layout(x)?;
        if let Some(maker) = lowering.graph.moments_from(lowering.node) {
            let parts = maker.op.moment_parts(&Lowering { node: maker, ..*lowering })?;
            let no_parts = || Error::Internal(format!("{} has no moments", lowering.name(x)));
            let parts = parts.ok_or_else(no_parts)?;
            let lanes = finish_lanes(&parts).unwrap_or(WORKGROUP);
            let finish = finish(lowering, Moments::Along { lanes }, parts.count)?;
            return Ok(vec![finish.param("chunk", parts.voxels.unwrap_or(0))]);
        }
        let parts = Self::parts(lowering)?;
        let pieces = lowering.cut_flat(layout, layout.voxels());
        let Some(chunk) = parts.chunk() else {
            return pieces.iter().map(|piece| once(lowering, &parts, piece)).collect();
        };
        let mut dispatches = Vec::new();
        for piece in &pieces {
            let partial = first_pass(lowering, &parts, piece)?;
            dispatches.push(partial.bind("partial", lowering.whole(moments)).param("chunk", chunk));
        }
        let finish = finish(lowering, Moments::Parts { whole: parts.is_whole() }, parts.chunks)?;
        dispatches.push(finish.param("chunk", chunk));
        Ok(dispatches)
    }
}

impl Statistics {
    fn parts(lowering: &Lowering<'_>) -> Result<ChannelParts> {
        let [x] = lowering.inputs()?;
        ChannelParts::choose(NormPass::Statistics, lowering.graph.layout(x)?, "", lowering)
    }
}

/// What reads the tensor, some of its blocks: the first pass or the only one, without what it writes.
fn reading(
    lowering: &Lowering<'_>,
    parts: &ChannelParts,
    piece: &Portion<1>,
    label: &str,
) -> Result<Dispatch> {
    let [x] = lowering.inputs()?;
    let voxels = lowering.graph.layout(x)?.voxels();
    let [run] = piece.runs;
    let (bind, base) = lowering.window(x, piece.part(run))?;
    let work = (run.count * voxels * 16) as u64;
    let groups = fold(run.count * parts.chunks, lowering.caps)?;
    Ok(Dispatch::new(format!("{label} {}", lowering.name(x)), parts.key(), groups)
        .chosen(parts.choice.clone())
        .bind("x", bind)
        .param("blocks", run.count)
        .param("voxels", voxels)
        .param("base", base)
        .param("first", run.first)
        .work(work, work))
}

/// The first of two passes.
fn first_pass(
    lowering: &Lowering<'_>,
    parts: &ChannelParts,
    piece: &Portion<1>,
) -> Result<Dispatch> {
    Ok(reading(lowering, parts, piece, "statistics")?.param("chunks", parts.chunks))
}

/// The only pass.
fn once(lowering: &Lowering<'_>, parts: &ChannelParts, piece: &Portion<1>) -> Result<Dispatch> {
    let ([x, gamma, beta], [coef]) = (lowering.inputs()?, lowering.outputs()?);
    Ok(reading(lowering, parts, piece, "norm")?
        .bind("gamma", lowering.whole(gamma))
        .bind("beta", lowering.whole(beta))
        .bind("coef", lowering.whole(coef))
        .param("channel_blocks", lowering.graph.layout(x)?.blocks())
        .param_f32("eps", EPS))
}

/// Lanes that merge moments which come along, so that none walks far on its own; none where no workgroup has enough.
fn finish_lanes(parts: &MomentParts) -> Option<usize> {
    let vectors = if parts.voxels.is_some() { 2 } else { 3 };
    [WORKGROUP, 4 * WORKGROUP]
        .into_iter()
        .find(|lanes| parts.count.div_ceil(*lanes) * vectors <= WALK)
}

/// Has a kernel write the moments of its output along.
pub fn give_moments(lowering: &Lowering<'_>, mut dispatch: Dispatch, moments: Value) -> Dispatch {
    dispatch.kernel = dispatch.kernel.section("MOMENTS");
    dispatch.bind("moments", lowering.whole(moments))
}

/// The same where a workgroup adds up what its lanes made.
pub fn give_group_moments(
    lowering: &Lowering<'_>,
    mut dispatch: Dispatch,
    moments: Value,
) -> Dispatch {
    if lowering.caps.subgroups && !lowering.caps.software {
        dispatch.kernel = dispatch.kernel.section("SUBGROUPS");
    }
    give_moments(lowering, dispatch, moments)
}

/// What the second pass merges.
enum Moments {
    /// Those that another node's kernels wrote, by so many lanes.
    Along { lanes: usize },
    /// Those of the first pass, of each workgroup or of each lane.
    Parts { whole: bool },
}

/// The second pass: `chunks` parts of each channel block merged.
fn finish(lowering: &Lowering<'_>, of: Moments, chunks: usize) -> Result<Dispatch> {
    let ([x, gamma, beta], [coef]) = (lowering.inputs()?, lowering.outputs()?);
    let [moments] = lowering.scratch()?;
    let layout = lowering.graph.layout(x)?;
    let all = layout.n * layout.blocks();
    let key = KernelKey::new("norm_finish.wgsl");
    let key = match of {
        Moments::Along { lanes } => key.set("COUNTED", 1).tile("LANES", lanes as u32),
        Moments::Parts { whole } => key.set("WHOLE", whole as u32),
    };
    Ok(Dispatch::new(format!("norm {}", lowering.name(x)), key, fold(all, lowering.caps)?)
        .bind("partial", lowering.whole(moments))
        .bind("gamma", lowering.whole(gamma))
        .bind("beta", lowering.whole(beta))
        .bind("coef", lowering.whole(coef))
        .param("blocks", all)
        .param("channel_blocks", layout.blocks())
        .param("voxels", layout.voxels())
        .param("chunks", chunks)
        .param_f32("eps", EPS))
}
