//! What several operations need.

use crate::base::{Error, Result};
use crate::engine::graph::{Gradients, Node, Value};
use crate::engine::shader::KernelKey;

/// Below this many threads to keep busy, an adapter is a CPU: loads are dear, so that a thread does more with each.
pub const FEW_THREADS: usize = 4096;

/// Invocations of a workgroup, as in the shaders.
pub const WORKGROUP: usize = 64;

/// The items without repetitions, in order.
pub fn distinct<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    let mut kept = Vec::new();
    for item in items {
        if !kept.contains(&item) {
            kept.push(item);
        }
    }
    kept
}

/// Switches that are on, for the site of a variant: what rides on a kernel changes what it costs.
pub fn switches(key: &KernelKey) -> String {
    let factor = |name: &str| ["UD", "UH", "UW"].iter().any(|up| name.ends_with(up));
    let on = key.overrides.iter().filter(|(name, value)| *value > u32::from(factor(name)));
    on.map(|(name, value)| match value {
        1 => format!(" {name}"),
        _ => format!(" {name}{value}"),
    })
    .collect()
}

/// The gradient of a node's first output, if anything wants it.
pub fn output_grad(node: &Node, grads: &Gradients) -> Result<Value> {
    node.outputs
        .first()
        .and_then(|output| grads.get(*output))
        .ok_or_else(|| Error::Internal(format!("{} has no output gradient", node.op.name())))
}
