//! LeakyReLU, addition, nearest upsampling, concatenation. Only additions are ever stored.

use super::load::{Part, Source, SourceNames, block_parts, fits, whole, window};
use super::{WORKGROUP, accumulate, addend, output_grad, switches};
use crate::engine::graph::{Caps, Dispatch, Gradients, Graph, Layout, Load, Node, Value, fold};
use crate::engine::shader::KernelKey;
use crate::{Error, Result};

/// LeakyReLU with slope [`super::SLOPE`], applied by whoever reads the result.
pub fn leaky_relu(graph: &mut Graph, x: Value) -> Result<Value> {
    super::norm::norm_act(graph, x, true)
}

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
    let x = if readable { x } else { store(graph, x)? };
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

/// `a + b`, each read through its load.
pub fn add(graph: &mut Graph, a: Value, b: Value) -> Result<Value> {
    if graph.layout(a)? != graph.layout(b)? {
        return Err(Error::shape(
            "add",
            format!("{} and {} differ", graph.layout(a)?, graph.layout(b)?),
        ));
    }
    let (a, b) = (single(graph, a)?, single(graph, b)?);
    let layout = graph.layout(a)?.clone();
    let name = format!("{}+{}", graph.info(a).name, graph.info(b).name);
    let out = graph.tensor(name, layout);
    graph.node(Add, vec![a, b], vec![out]);
    Ok(out)
}

/// A stored tensor with this value: itself, or what a kernel writes out.
pub fn materialise(graph: &mut Graph, x: Value) -> Result<Value> {
    if graph.is_stored(x) { Ok(x) } else { store(graph, x) }
}

fn store(graph: &mut Graph, x: Value) -> Result<Value> {
    let layout = graph.layout(x)?.clone();
    let name = format!("{}.stored", graph.info(x).name);
    let out = graph.tensor(name, layout);
    graph.node(Add, vec![x], vec![out]);
    Ok(out)
}

fn single(graph: &mut Graph, x: Value) -> Result<Value> {
    if graph.loads(x).len() == 1 { Ok(x) } else { store(graph, x) }
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

    fn lower(&self, _: &Graph, _: &Node, _: &Caps) -> Result<Vec<Dispatch>> {
        Ok(Vec::new())
    }
}

use crate::engine::graph::Op;

#[derive(Debug)]
struct UpsampleGrad {
    factors: [usize; 3],
}

impl Op for UpsampleGrad {
    fn name(&self) -> &'static str {
        "upsample gradient"
    }

    fn backward(&self, _: &mut Graph, _: &Node, _: &mut Gradients) -> Result<()> {
        Err(Error::Internal("second derivatives are not offered".into()))
    }

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let (dy, out) = (node.inputs[0], node.outputs[0]);
        let layout = graph.layout(out)?;
        let big = graph.layout(dy)?.voxels();
        let key = KernelKey::new("upsample_grad.wgsl")
            .set("ACC", node.addend.is_some() as u32)
            .set("UD", self.factors[0] as u32)
            .set("UH", self.factors[1] as u32)
            .set("UW", self.factors[2] as u32);
        let [d, h, w] = layout.spatial;
        flat_parts(layout, big, caps)
            .into_iter()
            .map(|(b0, blocks)| {
                let (from, dy_base) = window(graph, dy, b0 * big, blocks * big, caps)?;
                let voxels = layout.voxels();
                let (to, out_base) = window(graph, out, b0 * voxels, blocks * voxels, caps)?;
                let groups = fold((blocks * voxels).div_ceil(WORKGROUP), caps)?;
                Ok(Dispatch::new("upsample gradient", key.clone(), groups)
                    .bind("dy", from)
                    .bind("out", to)
                    .param("blocks", blocks)
                    .param("d", d)
                    .param("h", h)
                    .param("w", w)
                    .param("dy_base", dy_base)
                    .param("out_base", out_base)
                    .work((blocks * big * 4) as u64, (blocks * (big + voxels) * 16) as u64))
            })
            .collect()
    }
}

/// Runs of (sample, block) pairs whose tensors of `voxels` vectors a block fit a binding each.
pub(super) fn flat_parts(layout: &Layout, voxels: usize, caps: &Caps) -> Vec<(usize, usize)> {
    let all = layout.n * layout.blocks();
    let voxels = voxels.max(layout.voxels());
    if fits(all * voxels, caps) { vec![(0, all)] } else { block_parts(all, voxels, caps) }
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

    fn lower(&self, _: &Graph, _: &Node, _: &Caps) -> Result<Vec<Dispatch>> {
        Ok(Vec::new())
    }
}

/// Sum of one or two loads, stored.
#[derive(Debug)]
struct Add;

const A: SourceNames = SourceNames {
    main: "a",
    base: "a_base",
    aux: Some("aaux"),
    aux_base: "aaux_base",
    coef: "acoef",
    first: "first",
};
const B: SourceNames = SourceNames {
    main: "b",
    base: "b_base",
    aux: Some("baux"),
    aux_base: "baux_base",
    coef: "bcoef",
    first: "first",
};

/// Voxels that a thread of the sum walks over, and invocations of its workgroup.
#[derive(Debug, Clone, Copy)]
struct Walk {
    run: usize,
    group: usize,
}

impl std::fmt::Display for Walk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "run={} WG={}", self.run, self.group)
    }
}

impl Walk {
    /// Those that can pay, the default first: long runs where loads are dear.
    fn all(caps: &Caps) -> Vec<Self> {
        let runs = if caps.software { [16, 4, 64] } else { [1, 2, 4] };
        let wide = Self { run: runs[0], group: 4 * WORKGROUP };
        let usual = runs.map(|run| Self { run, group: WORKGROUP });
        usual.into_iter().chain((!caps.software).then_some(wide)).collect()
    }
}

impl Add {
    fn switches(key: KernelKey, source: &Source, names: [&'static str; 6]) -> KernelKey {
        let [norm, act, grad, ud, uh, uw] = names;
        let up = source.up();
        key.set(norm, source.coef().is_some() as u32)
            .set(act, source.act() as u32)
            .set(grad, source.is_grad() as u32)
            .set(ud, up[0] as u32)
            .set(uh, up[1] as u32)
            .set(uw, up[2] as u32)
    }
}

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn backward(&self, graph: &mut Graph, node: &Node, grads: &mut Gradients) -> Result<()> {
        let ds = output_grad(node, grads)?;
        let ds = materialise(graph, ds)?;
        for input in &node.inputs {
            if graph.parts(*input).len() > 1 {
                return Err(Error::Internal("a stored concatenation was differentiated".into()));
            }
            accumulate(graph, grads, *input, ds)?;
        }
        Ok(())
    }

    fn lower(&self, graph: &Graph, node: &Node, caps: &Caps) -> Result<Vec<Dispatch>> {
        let out = node.outputs[0];
        let loads = graph.loads(node.inputs[0]);
        if loads.len() > 1 {
            return Err(Error::Internal("a concatenation is stored".into()));
        }
        let a = Source::of(graph, node.inputs[0])?;
        let b = node.inputs.get(1).map(|b| Source::of(graph, *b)).transpose()?;
        let layout = graph.layout(out)?;
        let voxels = layout.voxels();
        let mut key = KernelKey::new("add.wgsl").set("TWO", b.is_some() as u32);
        key = Self::switches(key, &a, ["ANORM", "AACT", "AGRAD", "AUD", "AUH", "AUW"]);
        if let Some(b) = &b {
            key = Self::switches(key, b, ["BNORM", "BACT", "BGRAD", "BUD", "BUH", "BUW"]);
        }
        let whole_sample = fits(layout.vectors(), caps);
        let samples = if whole_sample { 1 } else { layout.n };
        let per = layout.n / samples;
        let mut dispatches = Vec::new();
        for n0 in (0..layout.n).step_by(per) {
            let parts = if whole_sample {
                vec![(0, layout.blocks())]
            } else {
                block_parts(layout.blocks(), voxels, caps)
            };
            for (b0, blocks) in parts {
                let part = Part { n0, samples: per, b0, blocks };
                let start = (n0 * layout.blocks() + b0) * voxels;
                let count = if whole_sample { per * layout.blocks() } else { blocks };
                let (to, out_base) = window(graph, out, start, count * voxels, caps)?;
                let shape = format!("{count}x{voxels}{}", switches(&key));
                let (Walk { run, group }, choice) = caps.choose("add", shape, &Walk::all(caps))?;
                let per_block = voxels.div_ceil(8 * run) * 8;
                let groups = fold((count * per_block).div_ceil(group), caps)?;
                let mut dispatch = Dispatch::new("add", key.clone().group(group), groups)
                    .chosen(choice)
                    .bind("out", to)
                    .param("run", run)
                    .param("per_block", per_block)
                    .param("out_base", out_base)
                    .param("blocks", count)
                    .param("voxels", voxels)
                    .param("h", layout.spatial[1])
                    .param("w", layout.spatial[2])
                    .param("a_voxels", a.stored_voxels());
                dispatch = a.bind(dispatch, &A, graph, part, caps)?;
                let mut bytes = a.bytes(per, blocks) + (count * voxels * 16) as u64;
                dispatch = match &b {
                    Some(b) => {
                        bytes += b.bytes(per, blocks);
                        b.bind(
                            dispatch.param("b_voxels", b.stored_voxels()),
                            &B,
                            graph,
                            part,
                            caps,
                        )?
                    }
                    None => {
                        let unused = whole_or_main(graph, &a, part, caps)?;
                        let empty = ["b_base", "b_voxels", "baux_base"];
                        let dispatch =
                            empty.iter().fold(dispatch, |dispatch, name| dispatch.param(name, 0));
                        dispatch.bind("b", unused).bind("baux", unused).bind("bcoef", unused)
                    }
                };
                dispatches.push(dispatch.work((count * voxels * 4) as u64, bytes));
            }
        }
        Ok(dispatches)
    }
}

/// Something readable to fill a binding that the kernel does not look at.
fn whole_or_main(
    graph: &Graph,
    source: &Source,
    part: Part,
    caps: &Caps,
) -> Result<crate::engine::graph::Bind> {
    if let Some(coef) = source.coef() {
        return Ok(whole(graph, coef));
    }
    let start = (part.n0 * source.layout.blocks() + part.b0) * source.stored_voxels();
    Ok(window(graph, source.main(), start, source.stored_voxels(), caps)?.0)
}
