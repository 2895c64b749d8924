//! The depthwise convolution and its input gradient, which is the same pass with flipped taps.

use std::sync::Arc;

use super::super::common::{output_grad, switches};
use super::super::elementwise::{part_grads, single};
use super::super::load::{SOURCE, Source};
use super::super::norm::{bias_grad, give_group_moments, give_moments};
use super::tile::{March, RowLoads, TAPS};
use super::weight_grad::weight_grad;
use crate::base::{Error, Result};
use crate::engine::graph::{
    BlockRun, CutAxis, Dispatch, Gradients, Graph, Layout, Lowering, MomentParts, Node, Op,
    Packing, Portion, Value, fold,
};
use crate::engine::shader::{Choice, KernelKey};

/// Depthwise convolution of every channel with its own 3x3x3 taps. Weight (C, 1, 3, 3, 3), bias (C); `x` may be lazy or a
/// concatenation.
pub fn depthwise(graph: &mut Graph, x: Value, weight: Value, bias: Value) -> Result<Value> {
    let layout = graph.layout(x)?.clone();
    let spec = graph.param_spec(weight)?;
    if spec.packing != (Packing::Depthwise { segments: layout.segments.clone(), taps: TAPS }) {
        return Err(Error::shape("depthwise", format!("{} does not fit {layout}", spec.name)));
    }
    let name = spec.name.trim_end_matches(".weight").to_string();
    let y = graph.tensor(name, layout);
    graph.node(Depthwise, vec![x, weight, bias], vec![y]);
    Ok(y)
}

#[derive(Debug)]
struct Depthwise;

impl Op for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise conv"
    }

    fn backward(&self, graph: &mut Graph, node: &Node, grads: &mut Gradients) -> Result<()> {
        let dy = single(graph, output_grad(node, grads)?)?;
        let (x, weight, bias) = (node.inputs[0], node.inputs[1], node.inputs[2]);
        if graph.info(weight).needs_grad {
            weight_grad(graph, x, weight, dy)?;
        }
        if graph.info(bias).needs_grad {
            bias_grad(graph, bias, dy)?;
        }
        part_grads(graph, grads, x, &[dy, weight], |first| DepthwiseInputGrad { first })
    }

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let mut dispatches = Vec::new();
        for pass in passes(lowering)? {
            dispatches.extend(pass.lower(lowering)?);
        }
        Ok(dispatches)
    }

    fn moment_parts(&self, lowering: &Lowering<'_>) -> Result<Option<MomentParts>> {
        let [y] = lowering.outputs()?;
        let out = lowering.graph.layout(y)?;
        let mut all = Vec::new();
        for pass in passes(lowering)? {
            let (march, _) = pass.march(lowering, out)?;
            let whole = pass.pieces(lowering, out).len() == 1;
            all.push(march.moment_parts(out, lowering.caps).filter(|_| whole));
        }
        let first = all.first().copied().flatten();
        Ok(first.filter(|_| all.iter().all(|parts| *parts == first)))
    }
}

/// The forward passes of a node, one for each concatenated part of its input.
fn passes(lowering: &Lowering<'_>) -> Result<Vec<DepthwisePass>> {
    let ([x, weight, bias], [out]) = (lowering.inputs()?, lowering.outputs()?);
    let mut first = 0;
    let passes = Source::parts_of(lowering.graph, x)?.into_iter().map(|source| {
        let (blocks, before) = (source.layout.blocks(), first);
        first += blocks;
        DepthwisePass {
            source,
            weight,
            bias: Some(bias),
            out,
            source_first: 0,
            out_first: before,
            weight_first: before,
            blocks,
            onto: false,
        }
    });
    Ok(passes.collect())
}

/// Gradient of one concatenated part, whose channels start at block `first`.
#[derive(Debug)]
struct DepthwiseInputGrad {
    first: usize,
}

impl Op for DepthwiseInputGrad {
    fn name(&self) -> &'static str {
        "depthwise input gradient"
    }

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let ([dy, weight], [out]) = (lowering.inputs()?, lowering.outputs()?);
        let pass = DepthwisePass {
            source: Source::of(lowering.graph, dy)?,
            weight,
            bias: None,
            out,
            source_first: self.first,
            out_first: 0,
            weight_first: self.first,
            blocks: lowering.graph.layout(out)?.blocks(),
            onto: lowering.node.addend.is_some(),
        };
        pass.lower(lowering)
    }
}

/// A pass over one source: forward, or without a bias the input gradient.
struct DepthwisePass {
    source: Source,
    weight: Value,
    bias: Option<Value>,
    out: Value,
    /// First block of the source, of the output and of the weights for this pass.
    source_first: usize,
    out_first: usize,
    weight_first: usize,
    blocks: usize,
    onto: bool,
}

impl DepthwisePass {
    fn switched(&self, file: &'static str) -> KernelKey {
        let key = self.source.switches(KernelKey::new(file));
        key.set("FLIP", self.bias.is_none() as u32)
            .set("BIAS", self.bias.is_some() as u32)
            .set("ACC", self.onto as u32)
    }

    fn march(&self, lowering: &Lowering<'_>, out: &Layout) -> Result<(March, Arc<Choice>)> {
        let load = switches(&self.switched("depthwise.wgsl"));
        March::choose(out, self.blocks, &load, lowering)
    }

    fn pieces(&self, lowering: &Lowering<'_>, out: &Layout) -> Vec<Portion<1>> {
        let stored = out.blocks().max(self.source.layout.blocks());
        lowering.cut(out.n, [CutAxis { blocks: self.blocks, stored, voxels: out.voxels() }])
    }

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let out = lowering.graph.layout(self.out)?;
        let (march, choice) = self.march(lowering, out)?;
        let pieces = self.pieces(lowering, out).into_iter();
        pieces
            .map(|piece| Ok(self.dispatch(lowering, &march, piece)?.chosen(choice.clone())))
            .collect()
    }

    fn dispatch(
        &self,
        lowering: &Lowering<'_>,
        march: &March,
        piece: Portion<1>,
    ) -> Result<Dispatch> {
        let out = lowering.graph.layout(self.out)?;
        let [d, h, w] = out.spatial;
        let March { depth, group, .. } = *march;
        let (quads, chunks) = (march.lanes(w), d.div_ceil(depth));
        let [BlockRun { first: b0, count: blocks }] = piece.runs;
        let threads = march.threads(out.spatial);
        // workgroups of threads of one channel block, or of threads of all
        let groups = threads.div_ceil(group);
        let (own, all) = match march.loads {
            RowLoads::Own => (("groups", groups), groups * blocks * piece.samples),
            RowLoads::Shared { apart: true, .. } => {
                (("own", groups * group), groups * blocks * piece.samples)
            }
            RowLoads::Shared { .. } => {
                (("own", threads), (threads * blocks * piece.samples).div_ceil(group))
            }
        };
        let of = |first| piece.part(BlockRun { first, count: blocks });
        let (bind, out_base) = lowering.window(self.out, of(self.out_first + b0))?;
        let dispatch = Dispatch::new(
            format!("depthwise {}", lowering.name(self.out)),
            march.key(lowering.caps, |file| self.switched(file)),
            fold(all, lowering.caps)?,
        )
        .bind("weight", lowering.whole(self.weight))
        .bind("bias", lowering.whole(self.bias.unwrap_or(self.weight)))
        .bind("out", bind)
        .param("n", piece.samples)
        .param("blocks", blocks)
        .param("d", d)
        .param("h", h)
        .param("w", w)
        .param("chunk", depth)
        .param("chunks", chunks)
        .param("quads", quads)
        .param("src_blocks", self.source.layout.blocks())
        .param("out_blocks", out.blocks())
        .param("weight_first", self.weight_first + b0)
        .param("out_base", out_base)
        .param(own.0, own.1);
        let dispatch = match lowering.node.moments {
            Some(moments) => {
                let first = piece.n0 * out.blocks() + self.out_first + b0;
                let give = match march.loads {
                    RowLoads::Own => give_group_moments,
                    RowLoads::Shared { .. } => give_moments,
                };
                give(lowering, dispatch, moments).param("out_first", first)
            }
            None => dispatch,
        };
        let work = piece.samples * blocks * out.voxels();
        let bytes = self.source.bytes(piece.samples, blocks) + (work * 16) as u64;
        let source = of(self.source_first + b0);
        let dispatch = self.source.bind(dispatch, &SOURCE, lowering, source)?;
        Ok(dispatch.work((work * TAPS * 8) as u64, bytes))
    }
}
