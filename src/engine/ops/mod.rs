//! The operations: shape inference, gradient, lowering to dispatches; one file an operation.
//!
//! Every convolution-like operation reads its input through a load (see [`crate::graph::Load`]), so instance norm, LeakyReLU,
//! upsampling and concatenation cost no pass of their own.

mod conv;
mod conv_grad;
mod conv_tile;
mod depthwise;
mod depthwise_tile;
mod elementwise;
pub(crate) mod load;
mod loss;
mod merge;
mod norm;
mod norm_parts;
mod optim;
mod pointwise;
mod pointwise_coop;
mod reduce;
mod region;
mod sort;

pub use conv::{ConvSpec, conv};
pub use depthwise::depthwise;
pub use elementwise::{add, concat, leaky_relu, materialise, upsample};
pub use loss::{
    LossTerm, LossWeights, Losses, MAX_CLASSES, argmax, scaled_segmentation_loss,
    segmentation_loss, softmax,
};
pub use merge::merge_unlabelled;
pub use norm::{EPS, instance_norm};
pub use optim::{GROWTH, Optimizer, loss_scale_dispatches, optimizer_dispatch};
pub use region::{MAX_REGIONS, RegionTargets, region_loss};

use crate::engine::graph::{Gradients, Graph, Node, Value};
use crate::engine::shader::KernelKey;
use crate::{Error, Result};

/// Slope of LeakyReLU below zero, as in the shaders.
pub const SLOPE: f32 = 0.01;

/// Below this many threads to keep busy, an adapter is a CPU: loads are dear, so that a thread does more with each.
pub(crate) const FEW_THREADS: usize = 4096;

/// Invocations of a workgroup, as in the shaders.
pub(crate) const WORKGROUP: usize = 64;

/// The items without repetitions, in order.
pub(crate) fn distinct<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut kept = Vec::new();
    for item in items {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

/// Switches that are on, for the site of a variant: what rides on a kernel changes what it costs.
pub(crate) fn switches(key: &KernelKey) -> String {
    let factor = |name: &str| ["UD", "UH", "UW"].iter().any(|up| name.ends_with(up));
    let on = key.overrides.iter().filter(|(name, value)| *value > u32::from(factor(name)));
    on.map(|(name, value)| match value {
        1 => format!(" {name}"),
        _ => format!(" {name}{value}"),
    })
    .collect()
}

/// The gradient of a node's first output, if anything wants it.
pub(crate) fn output_grad(node: &Node, grads: &Gradients) -> Result<Value> {
    node.outputs
        .first()
        .and_then(|output| grads.get(*output))
        .ok_or_else(|| Error::Internal(format!("{} has no output gradient", node.op.name())))
}

/// Adds a gradient, stored or lazy, to what a value has.
pub(crate) fn accumulate(
    graph: &mut Graph,
    grads: &mut Gradients,
    value: Value,
    grad: Value,
) -> Result<()> {
    if !graph.info(value).needs_grad {
        return Ok(());
    }
    let total = match grads.get(value) {
        Some(existing) => add(graph, existing, grad)?,
        None => grad,
    };
    grads.set(value, total);
    Ok(())
}

/// What a gradient kernel may add its result to: the stored gradient that a value already has.
pub(crate) fn addend(graph: &mut Graph, grads: &Gradients, value: Value) -> Result<Option<Value>> {
    grads.get(value).map(|existing| materialise(graph, existing)).transpose()
}
