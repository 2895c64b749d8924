//! The sums that the gradient of a norm takes, and what follows from them.

use super::super::common::switches;
use super::super::elementwise::materialise;
use super::parts::{ChannelParts, NormPass};
use crate::base::{Error, Result};
use crate::engine::activation::Activation;
use crate::engine::graph::{
    Dispatch, Graph, Load, Lowering, Node, Op, Portion, Scratch, Value, fold,
};
use crate::engine::shader::KernelKey;

/// Appends the gradients of gamma and beta of a node that norms and activates (raw tensor, gamma, beta, coefficients), and gives
/// the coefficients with which loads form the gradient before both from the one after, `da`.
pub fn norm_grad(
    graph: &mut Graph,
    node: &Node,
    da: Value,
    act: Option<Activation>,
) -> Result<Value> {
    let &[raw, gamma, beta, coef] = node.inputs.as_slice() else {
        return Err(Error::Internal("a norm takes a tensor, gamma, beta, coefficients".into()));
    };
    let layout = graph.layout(raw)?.clone();
    let name = graph.info(raw).name.clone();
    let gcoef = graph.words(format!("{name}.gcoef"), layout.n * layout.blocks() * 20);
    let dgamma = affine_grad(graph, gamma)?;
    let dbeta = affine_grad(graph, beta)?;
    let sums = ChannelSums { normed: true, act };
    graph.node(sums, vec![da, raw, coef], vec![gcoef, dgamma, dbeta]);
    Ok(gcoef)
}

/// Where an affine parameter's gradient goes: nowhere that counts if it is frozen.
fn affine_grad(graph: &mut Graph, param: Value) -> Result<Value> {
    if graph.info(param).needs_grad {
        return graph.param_grad(param);
    }
    let (name, words) = (graph.info(param).name.clone(), graph.info(param).words);
    Ok(graph.words(format!("unused.{name}"), words))
}

/// The gradient of a bias: the sum of the output gradient over samples and voxels.
pub fn bias_grad(graph: &mut Graph, bias: Value, dy: Value) -> Result<()> {
    let (da, raw, act) = match graph.load(dy)? {
        // the norm that follows takes the mean out of its gradient: the sum is zero, and the block starts as zeros
        Load::Gradient { coef: Some(_), .. } => {
            graph.param_grad(bias)?;
            return Ok(());
        }
        Load::Gradient { upstream, raw, act, .. } => (upstream, raw, act),
        Load::Forward { .. } => {
            let dy = materialise(graph, dy)?;
            (dy, dy, None)
        }
    };
    let grad = graph.param_grad(bias)?;
    graph.node(ChannelSums { normed: false, act }, vec![da, raw], vec![grad]);
    Ok(())
}

/// The two sums of the norm's gradient over each channel: inputs are the gradient after activation, the raw tensor and the
/// coefficients, outputs those of the gradient, and the gradients of gamma and beta. Without a norm the first sum alone is meant,
/// the gradient of a bias.
#[derive(Debug)]
struct ChannelSums {
    normed: bool,
    act: Option<Activation>,
}

/// Where the second pass of [`ChannelSums`] writes to.
struct Sums {
    gcoef: Value,
    dgamma: Value,
    dbeta: Value,
    partial: Value,
}

impl ChannelSums {
    fn switches(&self, key: KernelKey) -> KernelKey {
        key.set("NORM", self.normed as u32).set("ACT", Activation::switch(self.act))
    }

    fn parts(&self, lowering: &Lowering<'_>) -> Result<ChannelParts> {
        let [_, raw] = lowering.inputs()?;
        let load = switches(&self.switches(KernelKey::new("norm_grad.wgsl")));
        ChannelParts::choose(NormPass::Gradient, lowering.graph.layout(raw)?, &load, lowering)
    }

    fn sums(&self, lowering: &Lowering<'_>) -> Result<Sums> {
        if self.normed {
            let ([gcoef, dgamma, dbeta], [partial]) = (lowering.outputs()?, lowering.scratch()?);
            return Ok(Sums { gcoef, dgamma, dbeta, partial });
        }
        let ([dbeta], [gcoef, dgamma, partial]) = (lowering.outputs()?, lowering.scratch()?);
        Ok(Sums { gcoef, dgamma, dbeta, partial })
    }

    /// What reads the tensors, some of their blocks: the first pass or the only one, without what it writes.
    fn reading(
        &self,
        lowering: &Lowering<'_>,
        parts: &ChannelParts,
        piece: &Portion<1>,
        groups: usize,
    ) -> Result<Dispatch> {
        let [da, raw] = lowering.inputs()?;
        let voxels = lowering.graph.layout(da)?.voxels();
        let [run] = piece.runs;
        let (da_bind, da_base) = lowering.window(da, piece.part(run))?;
        let (r_bind, r_base) = lowering.window(raw, piece.part(run))?;
        let coef = if self.normed { lowering.whole(lowering.node.inputs[2]) } else { r_bind };
        Ok(Dispatch::new(
            format!("norm gradient {}", lowering.name(raw)),
            self.switches(parts.key()),
            fold(groups, lowering.caps)?,
        )
        .chosen(parts.choice.clone())
        .bind("da", da_bind)
        .bind("r", r_bind)
        .bind("coef", coef)
        .param("voxels", voxels)
        .param("da_base", da_base)
        .param("r_base", r_base)
        .work((run.count * voxels * 24) as u64, (run.count * voxels * 32) as u64))
    }

    /// The first pass: partial sums of some blocks.
    fn partial(
        &self,
        lowering: &Lowering<'_>,
        parts: &ChannelParts,
        piece: &Portion<1>,
        chunk: usize,
    ) -> Result<Dispatch> {
        let [run] = piece.runs;
        Ok(self
            .reading(lowering, parts, piece, run.count * parts.chunks)?
            .bind("partial", lowering.whole(self.sums(lowering)?.partial))
            .param("blocks", run.count)
            .param("chunk", chunk)
            .param("chunks", parts.chunks)
            .param("first", run.first))
    }

    /// What the only pass and the second of two write, and of how many.
    fn finishing(&self, lowering: &Lowering<'_>, dispatch: Dispatch) -> Result<Dispatch> {
        let [da] = lowering.inputs()?;
        let Sums { gcoef, dgamma, dbeta, .. } = self.sums(lowering)?;
        let layout = lowering.graph.layout(da)?;
        Ok(dispatch
            .bind("gcoef", lowering.whole(gcoef))
            .bind("dgamma", lowering.whole(dgamma))
            .bind("dbeta", lowering.whole(dbeta))
            .param("samples", layout.n)
            .param("channel_blocks", layout.blocks()))
    }

    /// The second pass.
    fn finish(&self, lowering: &Lowering<'_>, parts: &ChannelParts) -> Result<Dispatch> {
        let [da, raw] = lowering.inputs()?;
        let layout = lowering.graph.layout(da)?;
        let partial = self.sums(lowering)?.partial;
        let coef = if self.normed { lowering.node.inputs[2] } else { partial };
        // samples side by side, where lanes are many
        let rows = if lowering.caps.software { 1 } else { layout.n.next_power_of_two().min(4) };
        let key = KernelKey::new("norm_grad_finish.wgsl").set("NORM", self.normed as u32);
        let key = if rows == 1 { key } else { key.tile("ROWS", rows as u32) };
        let label = format!("norm gradient sums {}", lowering.name(raw));
        let dispatch = Dispatch::new(label, key, fold(layout.blocks(), lowering.caps)?)
            .bind("partial", lowering.whole(partial))
            .bind("coef", lowering.whole(coef))
            .param("voxels", layout.voxels())
            .param("parts", parts.sums);
        self.finishing(lowering, dispatch)
    }
}

impl Op for ChannelSums {
    fn name(&self) -> &'static str {
        "instance norm gradient"
    }

    fn scratch(&self, lowering: &Lowering<'_>) -> Result<Vec<Scratch>> {
        let ([_, raw], [out]) = (lowering.inputs()?, lowering.outputs()?);
        let layout = lowering.graph.layout(raw)?;
        let words = self.parts(lowering)?.words(layout);
        if self.normed {
            return Ok(vec![Scratch::new(format!("{}.gmoments", lowering.name(raw)), words)]);
        }
        let name = lowering.name(out);
        let name = name.strip_prefix("grad.").unwrap_or(name);
        Ok(vec![
            Scratch::new(format!("{name}.unused"), 4),
            Scratch::new(format!("{name}.unused2"), layout.blocks() * 4),
            Scratch::new(format!("{name}.sums"), words),
        ])
    }

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let [da] = lowering.inputs()?;
        let layout = lowering.graph.layout(da)?;
        let parts = self.parts(lowering)?;
        let pieces = lowering.cut_flat(layout, layout.voxels());
        let Some(chunk) = parts.chunk() else {
            let only = pieces.iter().map(|piece| {
                let reading = self.reading(lowering, &parts, piece, layout.blocks())?;
                self.finishing(lowering, reading)
            });
            return only.collect();
        };
        let dispatches = pieces.iter().map(|piece| self.partial(lowering, &parts, piece, chunk));
        let mut dispatches = dispatches.collect::<Result<Vec<_>>>()?;
        dispatches.push(self.finish(lowering, &parts)?);
        Ok(dispatches)
    }
}
