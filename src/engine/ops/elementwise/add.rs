//! Sums of two tensors, lazy values written out, and gradients added up.

use std::fmt::{Display, Formatter};

use super::super::common::{WORKGROUP, output_grad, switches};
use super::super::load::{Source, SourceNames};
use crate::base::{Error, Result};
use crate::engine::activation::Activation;
use crate::engine::graph::{
    Bind, BlockRun, Caps, CutAxis, Dispatch, Gradients, Graph, Lowering, Node, Op, Part, Portion,
    Value, fold,
};
use crate::engine::shader::KernelKey;

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

pub(super) fn store(graph: &mut Graph, x: Value) -> Result<Value> {
    let layout = graph.layout(x)?.clone();
    let name = format!("{}.stored", graph.info(x).name);
    let out = graph.tensor(name, layout);
    graph.node(Add, vec![x], vec![out]);
    Ok(out)
}

/// A value of one load: itself, or what a kernel writes out of a concatenation.
pub(in crate::engine::ops) fn single(graph: &mut Graph, x: Value) -> Result<Value> {
    if graph.loads(x).len() == 1 { Ok(x) } else { store(graph, x) }
}

/// Adds a gradient, stored or lazy, to what a value has.
pub(in crate::engine::ops) fn accumulate(
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
pub(super) fn addend(graph: &mut Graph, grads: &Gradients, value: Value) -> Result<Option<Value>> {
    grads.get(value).map(|existing| materialise(graph, existing)).transpose()
}

/// Appends the gradient of each concatenated part of `x` that wants one, by an operation on `reads` for the part whose channels
/// start at a block.
pub(in crate::engine::ops) fn part_grads<O: Op + 'static>(
    graph: &mut Graph,
    grads: &mut Gradients,
    x: Value,
    reads: &[Value],
    op: impl Fn(usize) -> O,
) -> Result<()> {
    let mut first = 0;
    for part in graph.parts(x) {
        let layout = graph.layout(part)?.clone();
        let blocks = layout.blocks();
        if graph.info(part).needs_grad {
            let onto = addend(graph, grads, part)?;
            let dx = graph.tensor(format!("d.{}", graph.info(part).name), layout);
            let inputs = reads.iter().copied().chain(onto).collect();
            graph.node_onto(op(first), inputs, vec![dx], onto);
            grads.set(part, dx);
        }
        first += blocks;
    }
    Ok(())
}

/// Sum of one or two loads, stored.
#[derive(Debug)]
struct Add;

/// How the kernel knows one of the two.
struct Operand {
    names: SourceNames,
    norm: &'static str,
    act: &'static str,
    grad: &'static str,
    up: [&'static str; 3],
}

const A: Operand = Operand {
    names: SourceNames {
        main: "a",
        base: "a_base",
        aux: Some("aaux"),
        aux_base: "aaux_base",
        coef: "acoef",
        first: "first",
    },
    norm: "ANORM",
    act: "AACT",
    grad: "AGRAD",
    up: ["AUD", "AUH", "AUW"],
};
const B: Operand = Operand {
    names: SourceNames {
        main: "b",
        base: "b_base",
        aux: Some("baux"),
        aux_base: "baux_base",
        coef: "bcoef",
        first: "first",
    },
    norm: "BNORM",
    act: "BACT",
    grad: "BGRAD",
    up: ["BUD", "BUH", "BUW"],
};

impl Operand {
    fn switches(&self, key: KernelKey, source: &Source) -> KernelKey {
        let key = key
            .set(self.norm, source.coef().is_some() as u32)
            .set(self.act, Activation::switch(source.act()))
            .set(self.grad, source.is_grad() as u32);
        let up = self.up.iter().zip(source.up());
        up.fold(key, |key, (name, factor)| key.set(name, factor as u32))
    }
}

/// Vectors from which on a large GPU is busy with a thread for two.
const MANY: usize = 1 << 19;

/// Voxels that a thread of the sum walks over, and invocations of its workgroup.
#[derive(Debug, Clone, Copy)]
struct Walk {
    run: usize,
    group: usize,
}

impl Display for Walk {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "run={} WG={}", self.run, self.group)
    }
}

impl Walk {
    /// Those that can pay for so many vectors, the default first: long runs where loads are dear, short ones where threads would be
    /// too few to keep an adapter busy.
    fn all(vectors: usize, caps: &Caps) -> Vec<Self> {
        let runs = match (caps.software, vectors >= MANY) {
            (true, _) => [16, 4, 64],
            (false, true) => [2, 1, 4],
            (false, false) => [1, 2, 4],
        };
        let wide = Self { run: runs[0], group: 4 * WORKGROUP };
        let usual = runs.map(|run| Self { run, group: WORKGROUP });
        usual.into_iter().chain((!caps.software).then_some(wide)).collect()
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

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let [out] = lowering.outputs()?;
        let source = |value: &Value| Source::of(lowering.graph, *value);
        let sources = lowering.node.inputs.iter().map(source).collect::<Result<Vec<_>>>()?;
        let layout = lowering.graph.layout(out)?;
        let pieces = lowering.cut(layout.n, [CutAxis::all(layout.blocks(), layout.voxels())]);
        pieces.iter().map(|piece| dispatch(lowering, &sources, piece)).collect()
    }
}

fn dispatch(lowering: &Lowering<'_>, sources: &[Source], piece: &Portion<1>) -> Result<Dispatch> {
    let [out] = lowering.outputs()?;
    let layout = lowering.graph.layout(out)?;
    let voxels = layout.voxels();
    let [run] = piece.runs;
    let part = piece.part(run);
    let operands = || sources.iter().zip([&A, &B]);
    let two = KernelKey::new("add.wgsl").set("TWO", (sources.len() > 1) as u32);
    let key = operands().fold(two, |key, (source, operand)| operand.switches(key, source));
    // the blocks of all samples, or of one
    let count = piece.samples * run.count;
    let shape = format!("{count}x{voxels}{}", switches(&key));
    let (walk, choice) =
        lowering.choose("add", shape, &Walk::all(count * voxels, lowering.caps))?;
    let per_block = voxels.div_ceil(8 * walk.run) * 8;
    let groups = fold((count * per_block).div_ceil(walk.group), lowering.caps)?;
    let (to, out_base) = lowering.window(out, part)?;
    let mut dispatch = Dispatch::new("add", key.group(walk.group), groups)
        .chosen(choice)
        .bind("out", to)
        .param("run", walk.run)
        .param("per_block", per_block)
        .param("out_base", out_base)
        .param("blocks", count)
        .param("voxels", voxels)
        .param("h", layout.spatial[1])
        .param("w", layout.spatial[2]);
    let mut bytes = (count * voxels * 16) as u64;
    for ((source, operand), stored) in operands().zip(["a_voxels", "b_voxels"]) {
        bytes += source.bytes(piece.samples, run.count);
        let sized = dispatch.param(stored, source.stored_voxels());
        dispatch = source.bind(sized, &operand.names, lowering, part)?;
    }
    if let [only] = sources {
        let unused = unread(lowering, only, part)?;
        dispatch = dispatch.bind("b", unused).bind("baux", unused).bind("bcoef", unused);
        let places = ["b_base", "b_voxels", "baux_base"];
        dispatch = places.iter().fold(dispatch, |dispatch, name| dispatch.param(name, 0));
    }
    Ok(dispatch.work((count * voxels * 4) as u64, bytes))
}

/// Something readable to fill a binding that the kernel does not look at.
fn unread(lowering: &Lowering<'_>, source: &Source, part: Part) -> Result<Bind> {
    match source.coef() {
        Some(coef) => Ok(lowering.whole(coef)),
        None => {
            let block = Part { samples: 1, blocks: BlockRun { count: 1, ..part.blocks }, ..part };
            Ok(lowering.window(source.main(), block)?.0)
        }
    }
}
