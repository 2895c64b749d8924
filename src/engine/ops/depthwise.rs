//! Depthwise 3x3x3 convolution, stride 1, padding 1, with its gradients.

use std::sync::Arc;

use super::depthwise_tile::{Columns, March, QUAD};
use super::load::{
    Part, SOURCE, Source, WEIGHT_GRAD, WEIGHT_SOURCE, block_parts, fits, whole, window,
};
use super::norm::{bias_grad, give_moments};
use super::reduce::{reduce, scratch_words};
use super::{WORKGROUP, addend, materialise, output_grad, switches};
use crate::engine::graph::{
    Caps, Dispatch, Gradients, Graph, Layout, Node, Op, Packing, Value, fold,
};
use crate::engine::shader::{Choice, KernelKey};
use crate::{Error, Result};

const TAPS: usize = 27;

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

/// (n0, samples, first block, blocks) so that tensors with `all` blocks in total, of `blocks` wanted, fit bindings.
fn runs(n: usize, all: usize, blocks: usize, voxels: usize, caps: &Caps) -> Vec<Part> {
    if fits(n * all * voxels, caps) {
        return vec![Part { n0: 0, samples: n, b0: 0, blocks }];
    }
    let of = |n0: usize| {
        block_parts(blocks, voxels, caps).into_iter().map(move |(b0, blocks)| Part {
            n0,
            samples: 1,
            b0,
            blocks,
        })
    };
    (0..n).flat_map(of).collect()
}

/// A depthwise pass over one source: forward, or with `flip` the input gradient.
struct Pass {
    source: Source,
    weight: Value,
    bias: Option<Value>,
    out: Value,
    /// Where the moments of the output go too.
    moments: Option<Value>,
    /// First block of the source, of the output and of the weights for this pass.
    source_first: usize,
    out_first: usize,
    weight_first: usize,
    blocks: usize,
    onto: bool,
}

impl Pass {
    fn switched(&self, file: &'static str) -> KernelKey {
        let key = self.source.switches(KernelKey::new(file));
        key.set("FLIP", self.bias.is_none() as u32)
            .set("BIAS", self.bias.is_some() as u32)
            .set("ACC", self.onto as u32)
    }

    fn march(&self, out: &Layout, caps: &Caps) -> Result<(March, Arc<Choice>)> {
        let load = switches(&self.switched("depthwise.wgsl"));
        March::choose(out, self.blocks, &load, caps)
    }

    fn runs(&self, out: &Layout, caps: &Caps) -> Vec<Part> {
        let all = out.blocks().max(self.source.layout.blocks());
        runs(out.n, all, self.blocks, out.voxels(), caps)
    }

    fn lower(&self, graph: &Graph, caps: &Caps) -> Result<Vec<Dispatch>> {
        let out = graph.layout(self.out)?;
        let voxels = out.voxels();
        let [d, h, w] = out.spatial;
        let (march, choice) = self.march(out, caps)?;
        let March { rows, depth, group, .. } = march;
        let (quads, chunks) = (march.lanes(w), d.div_ceil(depth));
        let key = march.key(|file| self.switched(file));
        let name = graph.info(self.out).name.clone();
        self.runs(out, caps)
            .into_iter()
            .map(|part| {
                let threads = quads * h.div_ceil(rows) * chunks * part.blocks * part.samples;
                let first = part.n0 * out.blocks() + self.out_first + part.b0;
                let len = ((part.samples - 1) * out.blocks() + part.blocks) * voxels;
                let (bind, out_base) = window(graph, self.out, first * voxels, len, caps)?;
                let source = Part { b0: self.source_first + part.b0, ..part };
                let dispatch = Dispatch::new(
                    format!("depthwise {name}"),
                    key.clone(),
                    fold(threads.div_ceil(group), caps)?,
                )
                .chosen(choice.clone())
                .bind("weight", whole(graph, self.weight))
                .bind("bias", whole(graph, self.bias.unwrap_or(self.weight)))
                .bind("out", bind)
                .param("n", part.samples)
                .param("blocks", part.blocks)
                .param("d", d)
                .param("h", h)
                .param("w", w)
                .param("chunk", depth)
                .param("chunks", chunks)
                .param("quads", quads)
                .param("src_blocks", self.source.layout.blocks())
                .param("out_blocks", out.blocks())
                .param("weight_first", self.weight_first + part.b0)
                .param("out_base", out_base);
                let dispatch = match self.moments {
                    Some(moments) => {
                        let parts = march.moment_parts(out);
                        give_moments(graph, dispatch, (moments, parts), out)?
                            .param("out_first", first)
                    }
                    None => dispatch,
                };
                let work = part.samples * part.blocks * voxels;
                let bytes = self.source.bytes(part.samples, part.blocks) + (work * 16) as u64;
                let dispatch = self.source.bind(dispatch, &SOURCE, graph, source, caps)?;
                Ok(dispatch.work((work * TAPS * 8) as u64, bytes))
            })
            .collect()
    }
}

/// The forward passes of a node, one for each concatenated part of its input.
fn passes(graph: &Graph, node: &Node) -> Result<Vec<Pass>> {
    let (x, weight, bias) = (node.inputs[0], node.inputs[1], node.inputs[2]);
    let mut first = 0;
    let parts = graph.loads(x).into_iter().zip(graph.parts(x));
    parts
        .map(|(load, part)| {
            let layout = graph.layout(part)?.clone();
            let blocks = layout.blocks();
            first += blocks;
            Ok(Pass {
                source: Source { load, layout },
                weight,
                bias: Some(bias),
                out: node.outputs[0],
                moments: node.outputs.get(1).copied(),
                source_first: 0,
                out_first: first - blocks,
                weight_first: first - blocks,
                blocks,
                onto: false,
            })
        })
        .collect()
}

#[derive(Debug)]
struct Depthwise;

impl Op for Depthwise {
    fn name(&self) -> &'static str {
        "depthwise conv"
    }

    fn backward(&self, graph: &mut Graph, node: &Node, grads: &mut Gradients) -> Result<()> {
        let dy = output_grad(node, grads)?;
        let dy = if graph.loads(dy).len() == 1 { dy } else { materialise(graph, dy)? };
        let (x, weight, bias) = (node.inputs[0], node.inputs[1], node.inputs[2]);
        if graph.info(weight).needs_grad {
            weight_grad(graph, x, weight, dy)?;
        }
        if graph.info(bias).needs_grad {
            bias_grad(graph, bias, dy)?;
        }
        let mut first = 0;
        for part in graph.parts(x) {
            let layout = graph.layout(part)?.clone();
            let blocks = layout.blocks();
            if graph.info(part).needs_grad {
                let onto = addend(graph, grads, part)?;
                let dx = graph.tensor(format!("d.{}", graph.info(part).name), layout);
                let inputs = [dy, weight].into_iter().chain(onto).collect();
                graph.node_onto(DepthwiseInputGrad { first }, inputs, vec![dx], onto);
                grads.set(part, dx);
            }
            first += blocks;
        }
        Ok(())
    }

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let mut dispatches = Vec::new();
        for pass in passes(graph, node)? {
            dispatches.extend(pass.lower(graph, caps)?);
        }
        Ok(dispatches)
    }

    fn moment_parts(&self, graph: &Graph, node: &Node) -> Result<Option<usize>> {
        let out = graph.layout(node.outputs[0])?;
        let mut all = Vec::new();
        for pass in passes(graph, node)? {
            let (march, _) = pass.march(out, graph.caps())?;
            let whole = pass.runs(out, graph.caps()).len() == 1;
            all.push(march.moment_parts(out).filter(|_| whole));
        }
        let first = all.first().copied().flatten();
        Ok(first.filter(|_| all.iter().all(|parts| *parts == first)))
    }
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

    fn backward(&self, _: &mut Graph, _: &Node, _: &mut Gradients) -> Result<()> {
        Err(Error::Internal("second derivatives are not offered".into()))
    }

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let out = node.outputs[0];
        let pass = Pass {
            source: Source::of(graph, node.inputs[0])?,
            weight: node.inputs[1],
            bias: None,
            out,
            moments: None,
            source_first: self.first,
            out_first: 0,
            weight_first: self.first,
            blocks: graph.layout(out)?.blocks(),
            onto: node.addend.is_some(),
        };
        pass.lower(graph, caps)
    }
}

fn weight_grad(graph: &mut Graph, x: Value, weight: Value, dy: Value) -> Result<()> {
    let out = graph.param_grad(weight)?;
    let layout = graph.layout(dy)?.clone();
    let load = switches(&Source::of(graph, dy)?.switches(KernelKey::new("depthwise.wgsl")));
    let (Columns { rows, threads }, choice) = Columns::choose(&layout, &load, graph.caps())?;
    let lines = layout.spatial[1].div_ceil(rows);
    let columns = lines * layout.spatial[2].div_ceil(QUAD);
    let wanted = (threads / (layout.blocks() * layout.n)).clamp(1, columns);
    let each = columns.div_ceil(wanted);
    let per_sample = columns.div_ceil(each);
    let words = graph.info(weight).words;
    let name = graph.info(weight).name.clone();
    let parts = per_sample * layout.n;
    let partial = graph.words(format!("{name}.partial"), parts * words);
    let scratch = graph.words(format!("{name}.scratch"), scratch_words(parts, words));
    let node = DepthwiseWeightGrad { per_sample, each, rows, choice };
    graph.node(node, vec![x, dy], vec![out, partial, scratch]);
    Ok(())
}

#[derive(Debug)]
struct DepthwiseWeightGrad {
    per_sample: usize,
    /// Columns of each part.
    each: usize,
    rows: usize,
    choice: Arc<Choice>,
}

impl Op for DepthwiseWeightGrad {
    fn name(&self) -> &'static str {
        "depthwise weight gradient"
    }

    fn backward(&self, _: &mut Graph, _: &Node, _: &mut Gradients) -> Result<()> {
        Err(Error::Internal("second derivatives are not offered".into()))
    }

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let (x, out) = (node.inputs[0], node.outputs[0]);
        let grad = Source::of(graph, node.inputs[1])?;
        let mut dispatches = Vec::new();
        let mut first = 0;
        for (index, load) in graph.loads(x).into_iter().enumerate() {
            let layout = graph.layout(graph.parts(x)[index])?.clone();
            let source = Source { load, layout };
            let blocks = source.layout.blocks();
            let all = grad.layout.blocks();
            for part in runs(grad.layout.n, all, blocks, grad.layout.voxels(), caps) {
                dispatches.push(self.part(graph, node, (&source, &grad), (part, first), caps)?);
            }
            first += blocks;
        }
        let rows = self.per_sample * grad.layout.n;
        let values = [node.outputs[1], node.outputs[2], out];
        dispatches.extend(reduce(graph, values, rows, graph.info(out).words, caps)?);
        Ok(dispatches)
    }
}

impl DepthwiseWeightGrad {
    fn part(
        &self,
        graph: &Graph,
        node: &Node,
        (source, grad): (&Source, &Source),
        (part, first): (Part, usize),
        caps: &Caps,
    ) -> Result<Dispatch> {
        let [d, h, w] = grad.layout.spatial;
        let parts = self.per_sample * part.samples;
        let rows = self.rows;
        let key = source
            .upsampling(KernelKey::new("depthwise_weight.wgsl"))
            .set("NORM", source.coef().is_some() as u32)
            .set("ACT", source.act() as u32)
            .set("GNORM", grad.coef().is_some() as u32)
            .set("GACT", grad.act() as u32)
            .tile("ROWS", rows as u32)
            .tile("READ", rows as u32 + 2)
            .tile("GRADS", (rows * QUAD) as u32);
        let dispatch = Dispatch::new(
            graph.info(node.outputs[0]).name.clone(),
            key,
            fold((parts * part.blocks).div_ceil(WORKGROUP), caps)?,
        )
        .chosen(self.choice.clone())
        .bind("partial", whole(graph, node.outputs[1]))
        .param("blocks", part.blocks)
        .param("d", d)
        .param("h", h)
        .param("w", w)
        .param("quads", w.div_ceil(QUAD))
        .param("columns", self.each)
        .param("parts", parts)
        .param("per_sample", self.per_sample)
        .param("part_first", part.n0 * self.per_sample)
        .param("all_blocks", grad.layout.blocks())
        .param("block_first", first + part.b0)
        .param("src_blocks", source.layout.blocks())
        .param("grad_blocks", grad.layout.blocks());
        let dispatch = source.bind(dispatch, &WEIGHT_SOURCE, graph, part, caps)?;
        let of_grad = Part { b0: first + part.b0, ..part };
        let dispatch = grad.bind(dispatch, &WEIGHT_GRAD, graph, of_grad, caps)?;
        let work = part.samples * part.blocks * grad.layout.voxels();
        let bytes = source.bytes(part.samples, part.blocks) + grad.bytes(part.samples, part.blocks);
        Ok(dispatch.work((work * TAPS * 8) as u64, bytes))
    }
}
