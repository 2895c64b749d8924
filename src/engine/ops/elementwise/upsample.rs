//! Nearest-neighbour upsampling.

use super::super::common::{WORKGROUP, output_grad};
use super::add::{addend, materialise};
use crate::base::{Error, Result};
use crate::engine::graph::{Dispatch, Gradients, Graph, Load, Lowering, Node, Op, Value, fold};
use crate::engine::shader::KernelKey;

/// Nearest-neighbour upsampling by a factor for each of D, H, W; never stored.
pub fn upsample(graph: &mut Graph, x: Value, factors: [usize; 3]) -> Result<Value> {
    if factors.contains(&0) {
        return Err(Error::shape("upsample", format!("factors {factors:?} must be at least 1")));
    }
    if factors == [1; 3] {
        return Ok(x);
    }
    let readable =
        graph.parts(x).len() == 1 && matches!(graph.load(x)?, Load::Forward { up: [1, 1, 1], .. });
    let x = if readable { x } else { super::add::store(graph, x)? };
    let Load::Forward { source, norm, act, .. } = graph.load(x)? else {
        return Err(Error::Internal("a gradient is upsampled".into()));
    };
    let mut layout = graph.layout(x)?.clone();
    for (size, factor) in layout.spatial.iter_mut().zip(factors) {
        *size *= factor;
    }
    let name = format!("{}.up", graph.info(x).name);
    let out = graph.lazy(name, layout, vec![Load::Forward { source, norm, act, up: factors }]);
    graph.node(Upsample { factors }, vec![x], vec![out]);
    Ok(out)
}

#[derive(Debug)]
struct Upsample {
    factors: [usize; 3],
}

impl Op for Upsample {
    fn name(&self) -> &'static str {
        "upsample"
    }

    fn backward(&self, graph: &mut Graph, node: &Node, grads: &mut Gradients) -> Result<()> {
        let dy = output_grad(node, grads)?;
        let dy = materialise(graph, dy)?;
        let x = node.inputs[0];
        let onto = addend(graph, grads, x)?;
        let layout = graph.layout(x)?.clone();
        let dx = graph.tensor(format!("d.{}", graph.info(x).name), layout);
        let inputs = std::iter::once(dy).chain(onto).collect();
        graph.node_onto(UpsampleGrad { factors: self.factors }, inputs, vec![dx], onto);
        grads.set(x, dx);
        Ok(())
    }

    fn lower(&self, _: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        Ok(Vec::new())
    }
}

#[derive(Debug)]
struct UpsampleGrad {
    factors: [usize; 3],
}

impl Op for UpsampleGrad {
    fn name(&self) -> &'static str {
        "upsample gradient"
    }

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let ([dy], [out]) = (lowering.inputs()?, lowering.outputs()?);
        let layout = lowering.graph.layout(out)?;
        let (voxels, big) = (layout.voxels(), lowering.graph.layout(dy)?.voxels());
        let key = KernelKey::new("upsample_grad.wgsl")
            .set("ACC", lowering.node.addend.is_some() as u32)
            .set("UD", self.factors[0] as u32)
            .set("UH", self.factors[1] as u32)
            .set("UW", self.factors[2] as u32);
        let [d, h, w] = layout.spatial;
        lowering
            .cut_flat(layout, big)
            .into_iter()
            .map(|piece| {
                let [run] = piece.runs;
                let (from, dy_base) = lowering.window(dy, piece.part(run))?;
                let (to, out_base) = lowering.window(out, piece.part(run))?;
                let groups = fold((run.count * voxels).div_ceil(WORKGROUP), lowering.caps)?;
                let flops = (run.count * big * 4) as u64;
                Ok(Dispatch::new("upsample gradient", key.clone(), groups)
                    .bind("dy", from)
                    .bind("out", to)
                    .param("blocks", run.count)
                    .param("d", d)
                    .param("h", h)
                    .param("w", w)
                    .param("dy_base", dy_base)
                    .param("out_base", out_base)
                    .work(flops, (run.count * (big + voxels) * 16) as u64))
            })
            .collect()
    }
}
