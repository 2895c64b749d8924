//! Instance norm with affine parameters: statistics are two small kernels, the norm itself rides on every load.

use super::load::{block_parts, fits, whole, window};
use super::norm_parts::{Parts, Pass};
use super::{accumulate, materialise, output_grad, switches};
use crate::engine::graph::{
    Bind, Caps, Dispatch, Gradients, Graph, Layout, Load, Node, Op, Value, fold,
};
use crate::engine::shader::KernelKey;
use crate::{Error, Result};

/// Added to the variance, as in the reference.
pub const EPS: f32 = 1e-5;

/// Instance norm over D, H, W of each sample and channel, with biased variance. `gamma` and `beta` have a value a channel.
/// The result is lazy; its statistics are computed here.
pub fn instance_norm(graph: &mut Graph, x: Value, gamma: Value, beta: Value) -> Result<Value> {
    let x = materialise(graph, x)?;
    let layout = graph.layout(x)?.clone();
    for param in [gamma, beta] {
        if graph.info(param).words != layout.blocks() * 4 {
            return Err(Error::shape(
                "instance norm",
                format!("{} does not fit {layout}", graph.info(param).name),
            ));
        }
    }
    let name = graph.info(x).name.clone();
    let coef = graph.words(format!("{name}.coef"), layout.n * layout.blocks() * 16);
    match graph.moment_parts(x)? {
        Some(parts) => {
            let words = layout.n * layout.blocks() * parts * 12;
            let moments = graph.words(format!("{name}.moments"), words);
            graph.give_moments(x, moments);
            graph.node(GivenStatistics { parts }, vec![x, gamma, beta, moments], vec![coef]);
        }
        None => {
            let parts = Parts::choose(Pass::Statistics, &layout, "", graph.caps())?;
            let partial = graph.words(format!("{name}.moments"), parts.words(&layout));
            graph.node(Statistics { parts }, vec![x, gamma, beta], vec![coef, partial]);
        }
    }
    let load = Load::Forward { source: x, norm: Some(coef), act: false, up: [1; 3] };
    let out = graph.lazy(format!("{name}.norm"), layout, vec![load]);
    graph.node(NormAct { act: false }, vec![x, gamma, beta, coef], vec![out]);
    Ok(out)
}

/// Adds the activation to a normalised value's load, or loads a stored tensor through it.
pub(super) fn norm_act(graph: &mut Graph, x: Value, act: bool) -> Result<Value> {
    let single = graph.parts(x).len() == 1;
    let ready = single && matches!(graph.load(x)?, Load::Forward { act: false, up: [1, 1, 1], .. });
    let x = if ready { x } else { materialise(graph, x)? };
    let Load::Forward { source, norm, .. } = graph.load(x)? else {
        return Err(Error::Internal("a gradient is activated".into()));
    };
    // a node on the raw tensor itself, so that its gradient takes norm and activation in one load
    let inputs = match norm {
        None => vec![x],
        Some(_) => graph.inputs_of(x)?,
    };
    let layout = graph.layout(x)?.clone();
    let load = Load::Forward { source, norm, act, up: [1; 3] };
    let out = graph.lazy(format!("{}.act", graph.info(x).name), layout, vec![load]);
    graph.node(NormAct { act }, inputs, vec![out]);
    Ok(out)
}

/// Mean, scale, shift and 1/std of each sample and channel block.
#[derive(Debug)]
struct Statistics {
    parts: Parts,
}

impl Op for Statistics {
    fn name(&self) -> &'static str {
        "instance norm statistics"
    }

    fn backward(&self, _: &mut Graph, _: &Node, _: &mut Gradients) -> Result<()> {
        Ok(()) // the gradient passes through NormAct
    }

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let &[x, gamma, beta] = node.inputs.as_slice() else {
            return Err(Error::Internal("statistics take a tensor, gamma and beta".into()));
        };
        let (coef, partial) = (node.outputs[0], node.outputs[1]);
        let layout = graph.layout(x)?;
        let (voxels, all) = (layout.voxels(), layout.n * layout.blocks());
        let (chunk, chunks) = (self.parts.chunk(), self.parts.chunks);
        let mut dispatches = Vec::new();
        for (b0, blocks) in flat(all, voxels, caps) {
            let (bind, base) = window(graph, x, b0 * voxels, blocks * voxels, caps)?;
            dispatches.push(
                Dispatch::new(
                    format!("statistics {}", graph.info(x).name),
                    self.parts.key(),
                    fold(blocks * chunks, caps)?,
                )
                .chosen(self.parts.choice.clone())
                .bind("x", bind)
                .bind("partial", whole(graph, partial))
                .param("blocks", blocks)
                .param("voxels", voxels)
                .param("chunk", chunk)
                .param("chunks", chunks)
                .param("base", base)
                .param("first", b0)
                .work((blocks * voxels * 16) as u64, (blocks * voxels * 16) as u64),
            );
        }
        let values = [x, gamma, beta, partial, coef];
        let whole = self.parts.is_whole() as u32;
        let finish = finish(graph, values, ("WHOLE", whole), chunks, caps)?;
        dispatches.push(finish.param("chunk", chunk));
        Ok(dispatches)
    }
}

/// The same from the moments that the tensor's own node gave along, in this many parts.
#[derive(Debug)]
struct GivenStatistics {
    parts: usize,
}

impl Op for GivenStatistics {
    fn name(&self) -> &'static str {
        "instance norm statistics"
    }

    fn backward(&self, _: &mut Graph, _: &Node, _: &mut Gradients) -> Result<()> {
        Ok(()) // the gradient passes through NormAct
    }

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let &[x, gamma, beta, moments] = node.inputs.as_slice() else {
            return Err(Error::Internal("statistics take a tensor, gamma, beta, moments".into()));
        };
        let values = [x, gamma, beta, moments, node.outputs[0]];
        // the counts come with the parts
        let finish = finish(graph, values, ("COUNTED", 1), self.parts, caps)?;
        Ok(vec![finish.param("chunk", 0)])
    }
}

/// Has a kernel give the moments of its output along, in `parts` that the graph made room for.
pub(super) fn give_moments(
    graph: &Graph,
    mut dispatch: Dispatch,
    (moments, parts): (Value, Option<usize>),
    out: &Layout,
) -> Result<Dispatch> {
    let words = parts.map(|parts| out.n * out.blocks() * parts * 12);
    if words != Some(graph.info(moments).words) {
        let name = &graph.info(moments).name;
        return Err(Error::Internal(format!("{name} is planned for other kernels")));
    }
    dispatch.kernel = dispatch.kernel.section("MOMENTS");
    Ok(dispatch.bind("moments", whole(graph, moments)))
}

/// The second pass: `chunks` parts of each channel block merged.
fn finish(
    graph: &Graph,
    [x, gamma, beta, partial, coef]: [Value; 5],
    (switch, on): (&'static str, u32),
    chunks: usize,
    caps: &Caps,
) -> Result<Dispatch> {
    let layout = graph.layout(x)?;
    let all = layout.n * layout.blocks();
    Ok(Dispatch::new(
        format!("norm {}", graph.info(x).name),
        KernelKey::new("norm_finish.wgsl").set(switch, on),
        fold(all, caps)?,
    )
    .bind("partial", whole(graph, partial))
    .bind("gamma", whole(graph, gamma))
    .bind("beta", whole(graph, beta))
    .bind("coef", whole(graph, coef))
    .param("blocks", all)
    .param("channel_blocks", layout.blocks())
    .param("voxels", layout.voxels())
    .param("chunks", chunks)
    .param_f32("eps", EPS))
}

fn flat(all: usize, voxels: usize, caps: &Caps) -> Vec<(usize, usize)> {
    if fits(all * voxels, caps) { vec![(0, all)] } else { block_parts(all, voxels, caps) }
}

/// Norm and activation as a load; inputs are the raw tensor and, where normed, gamma, beta and coefficients.
#[derive(Debug)]
struct NormAct {
    act: bool,
}

impl Op for NormAct {
    fn name(&self) -> &'static str {
        "norm and activation"
    }

    fn backward(&self, graph: &mut Graph, node: &Node, grads: &mut Gradients) -> Result<()> {
        let da = output_grad(node, grads)?;
        let raw = node.inputs[0];
        let layout = graph.layout(raw)?.clone();
        let name = graph.info(raw).name.clone();
        let normed = node.inputs.len() > 1;
        if !normed && !self.act {
            return accumulate(graph, grads, raw, da);
        }
        let da = materialise(graph, da)?;
        let gcoef = if normed {
            let (gamma, beta, coef) = (node.inputs[1], node.inputs[2], node.inputs[3]);
            let gcoef = graph.words(format!("{name}.gcoef"), layout.n * layout.blocks() * 20);
            let sums = ChannelSums::of(graph, raw, true, self.act)?;
            let partial = graph.words(format!("{name}.gmoments"), sums.parts.words(&layout));
            let dgamma = affine_grad(graph, gamma)?;
            let dbeta = affine_grad(graph, beta)?;
            graph.node(sums, vec![da, raw, coef], vec![gcoef, dgamma, dbeta, partial]);
            Some(gcoef)
        } else {
            None
        };
        let load = Load::Gradient { upstream: da, raw, coef: gcoef, act: self.act };
        let dr = graph.lazy(format!("d.{name}"), layout, vec![load]);
        accumulate(graph, grads, raw, dr)
    }

    fn lower(&self, _: &Graph, _: &Node, _: &Caps) -> Result<Vec<Dispatch>> {
        Ok(Vec::new())
    }
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
pub(super) fn bias_grad(graph: &mut Graph, bias: Value, dy: Value) -> Result<()> {
    let layout = graph.layout(dy)?.clone();
    let (da, raw, act) = match graph.load(dy)? {
        // the norm that follows takes the mean out of its gradient: the sum is zero, and the block starts as zeros
        Load::Gradient { coef: Some(_), .. } => {
            graph.param_grad(bias)?;
            return Ok(());
        }
        Load::Gradient { upstream, raw, act, .. } => (upstream, raw, act),
        Load::Forward { .. } => {
            let dy = materialise(graph, dy)?;
            (dy, dy, false)
        }
    };
    let grad = graph.param_grad(bias)?;
    let name = graph.info(bias).name.clone();
    let words = layout.blocks() * 4;
    let gcoef = graph.words(format!("{name}.unused"), 4);
    let dgamma = graph.words(format!("{name}.unused2"), words);
    let sums = ChannelSums::of(graph, raw, false, act)?;
    let partial = graph.words(format!("{name}.sums"), sums.parts.words(&layout));
    graph.node(sums, vec![da, raw, raw], vec![gcoef, dgamma, grad, partial]);
    Ok(())
}

/// The two sums of the norm's gradient over each channel, and what follows from them.
#[derive(Debug)]
struct ChannelSums {
    normed: bool,
    act: bool,
    parts: Parts,
}

impl ChannelSums {
    fn of(graph: &Graph, raw: Value, normed: bool, act: bool) -> Result<Self> {
        let load = switches(&Self::switches(KernelKey::new("norm_grad.wgsl"), normed, act));
        let parts = Parts::choose(Pass::Gradient, graph.layout(raw)?, &load, graph.caps())?;
        Ok(Self { normed, act, parts })
    }

    fn switches(key: KernelKey, normed: bool, act: bool) -> KernelKey {
        key.set("NORM", normed as u32).set("ACT", act as u32)
    }
}

impl Op for ChannelSums {
    fn name(&self) -> &'static str {
        "instance norm gradient"
    }

    fn backward(&self, _: &mut Graph, _: &Node, _: &mut Gradients) -> Result<()> {
        Err(Error::Internal("second derivatives are not offered".into()))
    }

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let (da, raw, coef) = (node.inputs[0], node.inputs[1], node.inputs[2]);
        let &[gcoef, dgamma, dbeta, partial] = node.outputs.as_slice() else {
            return Err(Error::Internal("norm gradient has four outputs".into()));
        };
        let layout = graph.layout(da)?;
        let (voxels, all) = (layout.voxels(), layout.n * layout.blocks());
        let (chunk, chunks) = (self.parts.chunk(), self.parts.chunks);
        let key = Self::switches(self.parts.key(), self.normed, self.act);
        let mut dispatches = Vec::new();
        for (b0, blocks) in flat(all, voxels, caps) {
            let (da_bind, da_base) = window(graph, da, b0 * voxels, blocks * voxels, caps)?;
            let (r_bind, r_base) = window(graph, raw, b0 * voxels, blocks * voxels, caps)?;
            let coef_bind: Bind = if self.normed { whole(graph, coef) } else { r_bind };
            dispatches.push(
                Dispatch::new(
                    format!("norm gradient {}", graph.info(raw).name),
                    key.clone(),
                    fold(blocks * chunks, caps)?,
                )
                .chosen(self.parts.choice.clone())
                .bind("da", da_bind)
                .bind("r", r_bind)
                .bind("coef", coef_bind)
                .bind("partial", whole(graph, partial))
                .param("blocks", blocks)
                .param("voxels", voxels)
                .param("chunk", chunk)
                .param("chunks", chunks)
                .param("da_base", da_base)
                .param("r_base", r_base)
                .param("first", b0)
                .work((blocks * voxels * 24) as u64, (blocks * voxels * 32) as u64),
            );
        }
        let coef_bind = if self.normed { whole(graph, coef) } else { whole(graph, partial) };
        dispatches.push(
            Dispatch::new(
                format!("norm gradient sums {}", graph.info(raw).name),
                KernelKey::new("norm_grad_finish.wgsl").set("NORM", self.normed as u32),
                fold(layout.blocks(), caps)?,
            )
            .bind("partial", whole(graph, partial))
            .bind("coef", coef_bind)
            .bind("gcoef", whole(graph, gcoef))
            .bind("dgamma", whole(graph, dgamma))
            .bind("dbeta", whole(graph, dbeta))
            .param("samples", layout.n)
            .param("channel_blocks", layout.blocks())
            .param("voxels", voxels)
            .param("parts", self.parts.sums),
        );
        Ok(dispatches)
    }
}
