//! Concatenation over channels.

use crate::base::{Error, Result};
use crate::engine::graph::{Dispatch, Gradients, Graph, Layout, Lowering, Node, Op, Value};

/// Concatenation over channels; never stored.
pub fn concat(graph: &mut Graph, parts: &[Value]) -> Result<Value> {
    let first = parts.first().ok_or_else(|| Error::shape("concat", "nothing to concatenate"))?;
    let mut layout = Layout { segments: Vec::new(), ..graph.layout(*first)?.clone() };
    let mut loads = Vec::new();
    for part in parts {
        let other = graph.layout(*part)?;
        if (other.n, other.spatial) != (layout.n, layout.spatial) {
            return Err(Error::shape("concat", format!("{other} does not fit {layout}")));
        }
        layout.segments.extend(&other.segments);
        loads.push(graph.load(*part)?);
    }
    let out = graph.lazy("concat", layout, loads);
    graph.node(Concat, parts.to_vec(), vec![out]);
    Ok(out)
}

#[derive(Debug)]
struct Concat;

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn backward(&self, _: &mut Graph, _: &Node, _: &mut Gradients) -> Result<()> {
        // consumers give each part its gradient themselves
        Err(Error::Internal("a concatenation was differentiated as a whole".into()))
    }

    fn lower(&self, _: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        Ok(Vec::new())
    }
}
