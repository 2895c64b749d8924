//! Norm and activation as a load.

use super::super::common::output_grad;
use super::super::elementwise::{accumulate, materialise};
use super::gradient::norm_grad;
use super::statistics::Statistics;
use crate::base::{Error, Result};
use crate::engine::activation::Activation;
use crate::engine::graph::{Dispatch, Gradients, Graph, Load, Lowering, Node, Op, Value};

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
    graph.node(Statistics, vec![x, gamma, beta], vec![coef]);
    let load = Load::Forward { source: x, norm: Some(coef), act: None, up: [1; 3] };
    let out = graph.lazy(format!("{name}.norm"), layout, vec![load]);
    graph.node(NormAct { act: None }, vec![x, gamma, beta, coef], vec![out]);
    Ok(out)
}

/// An activation, applied by whoever reads the result: added to a normalised value's load, or a load of a stored tensor.
pub fn activate(graph: &mut Graph, x: Value, act: Activation) -> Result<Value> {
    let single = graph.parts(x).len() == 1;
    let ready = single && matches!(graph.load(x)?, Load::Forward { act: None, up: [1, 1, 1], .. });
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
    let act = Some(act);
    let load = Load::Forward { source, norm, act, up: [1; 3] };
    let out = graph.lazy(format!("{}.act", graph.info(x).name), layout, vec![load]);
    graph.node(NormAct { act }, inputs, vec![out]);
    Ok(out)
}

/// Norm and activation as a load; inputs are the raw tensor and, where normed, gamma, beta and coefficients.
#[derive(Debug)]
struct NormAct {
    act: Option<Activation>,
}

impl Op for NormAct {
    fn name(&self) -> &'static str {
        "norm and activation"
    }

    fn backward(&self, graph: &mut Graph, node: &Node, grads: &mut Gradients) -> Result<()> {
        let da = output_grad(node, grads)?;
        let raw = node.inputs[0];
        let layout = graph.layout(raw)?.clone();
        let normed = node.inputs.len() > 1;
        if !normed && self.act.is_none() {
            return accumulate(graph, grads, raw, da);
        }
        let da = materialise(graph, da)?;
        let coef = normed.then(|| norm_grad(graph, node, da, self.act)).transpose()?;
        let load = Load::Gradient { upstream: da, raw, coef, act: self.act };
        let name = format!("d.{}", graph.info(raw).name);
        let dr = graph.lazy(name, layout, vec![load]);
        accumulate(graph, grads, raw, dr)
    }

    fn lower(&self, _: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        Ok(Vec::new())
    }
}
