//! What plans promise, on graphs of made-up operations: no kernel runs.

use super::{Plan, PlanRequest, Step};
use crate::base::Result;
use crate::engine::graph::{
    Caps, DType, Dispatch, Gradients, Graph, Layout, Lowering, MomentParts, Node, Op, Scratch,
    Sums, Value,
};
use crate::engine::shader::KernelKey;

/// An operation that needs working memory, by default none.
#[derive(Debug, Clone, Copy, Default)]
struct Fake {
    /// Words, on an adapter that computes on the CPU twice as many.
    scratch: usize,
    /// Parts of the moments that it can give along.
    moments: Option<usize>,
    /// Whether it takes moments.
    takes: bool,
    /// Whether it ends in a sum of its working memory's rows.
    sums: bool,
}

impl Op for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    /// The gradient of each input is made of that of the output, and of the input where working memory is needed.
    fn backward(&self, graph: &mut Graph, node: &Node, grads: &mut Gradients) -> Result<()> {
        let dy = grads.get(node.outputs[0]).unwrap();
        for input in &node.inputs {
            let reads = if self.scratch > 0 { vec![dy, *input] } else { vec![dy] };
            let onto = grads.get(*input);
            let dx = graph.tensor("dx", graph.layout(*input)?.clone());
            graph.node_onto(
                Self::default(),
                reads.into_iter().chain(onto).collect(),
                vec![dx],
                onto,
            );
            grads.set(*input, dx);
        }
        Ok(())
    }

    fn scratch(&self, lowering: &Lowering<'_>) -> Result<Vec<Scratch>> {
        let words = self.scratch * if lowering.caps.software { 2 } else { 1 };
        Ok((words > 0).then(|| Scratch::new("scratch", words)).into_iter().collect())
    }

    fn lower(&self, lowering: &Lowering<'_>) -> Result<Vec<Dispatch>> {
        let scratch = lowering.node.scratch.iter();
        let dispatch = Dispatch::new("fake", KernelKey::new("add.wgsl"), [1, 1]).work(1, 1);
        Ok(vec![scratch.fold(dispatch, |d, value| d.bind("scratch", lowering.whole(*value)))])
    }

    fn moment_parts(&self, _: &Lowering<'_>) -> Result<Option<MomentParts>> {
        Ok(self.moments.map(|count| MomentParts { count, voxels: None }))
    }

    fn takes_moments(&self, _: &MomentParts, _: &Caps) -> bool {
        self.takes
    }

    fn ends_in_sum(&self) -> bool {
        self.sums
    }
}

/// 256 words, 1 KiB in f32.
fn layout() -> Layout {
    Layout::new(1, 4, [1, 8, 8])
}

fn then(graph: &mut Graph, op: Fake, x: Value) -> Value {
    let y = graph.tensor("y", layout());
    graph.node(op, vec![x], vec![y]);
    y
}

fn plan(graph: &Graph, options: &PlanRequest) -> Plan {
    Plan::new(graph, &Caps::default(), options).unwrap()
}

#[test]
fn values_live_until_they_were_read_and_kept_ones_stay() {
    let mut graph = Graph::new();
    let mut values = vec![graph.input("x", layout())];
    for _ in 0..4 {
        values.push(then(&mut graph, Fake::default(), *values.last().unwrap()));
    }
    let chain = plan(&graph, &PlanRequest::default());
    // what is read and what is made, by turns
    assert_eq!(chain.slots, [1024, 1024]);
    let slot = |plan: &Plan, at: usize| plan.value_to_slot[&values[at]];
    for at in 0..4 {
        assert_ne!(slot(&chain, at), slot(&chain, at + 1));
    }
    graph.keep(values[1]);
    let kept = plan(&graph, &PlanRequest::default());
    assert_eq!(kept.slots, [1024; 3]);
    assert!([0, 2, 3, 4].iter().all(|at| slot(&kept, *at) != slot(&kept, 1)));
}

#[test]
fn working_memory_lives_for_its_node_alone() {
    let mut graph = Graph::new();
    let mut x = graph.input("x", layout());
    for _ in 0..3 {
        x = then(&mut graph, Fake { scratch: 1000, ..Fake::default() }, x);
    }
    let planned = plan(&graph, &PlanRequest::default());
    assert_eq!(planned.slots, [4000, 1024, 1024]);
    let scratch: Vec<Value> = planned.graph.nodes().iter().map(|node| node.scratch[0]).collect();
    assert!(scratch.iter().all(|value| planned.value_to_slot[value] == 0));
    // the plan's own: the network has none, and its values keep their ids
    assert!(graph.nodes().iter().all(|node| node.scratch.is_empty()));
    assert!(scratch.iter().all(|value| value.0 as usize >= graph.values().len()));
}

#[test]
fn one_graph_serves_every_adapter_and_precision() {
    let mut graph = Graph::new();
    let x = graph.input("x", layout());
    let y = then(&mut graph, Fake { scratch: 1000, ..Fake::default() }, x);
    let z = then(&mut graph, Fake::default(), y);
    graph.store_in_f32(z);
    let slots = |software, tensors, inputs| {
        let caps = Caps { software, ..Caps::default() };
        let options = PlanRequest { tensors, inputs, ..PlanRequest::default() };
        Plan::new(&graph, &caps, &options).unwrap().slots
    };
    assert_eq!(slots(false, DType::F32, DType::F32), [4000, 1024, 1024]);
    assert_eq!(slots(true, DType::F32, DType::F32), [8000, 1024, 1024]);
    // half of y; z takes the place of x, which is read no more
    assert_eq!(slots(false, DType::F16, DType::F32), [4000, 1024, 512]);
    // z, which stays in f32, takes the place of the working memory
    assert_eq!(slots(false, DType::F16, DType::F16), [4000, 512, 512]);
    assert_eq!(slots(false, DType::F32, DType::F32), [4000, 1024, 1024]);
}

/// A maker, something in between, and what takes the maker's moments.
fn normed(maker: Fake) -> Graph {
    let mut graph = Graph::new();
    let x = graph.differentiable_input("x", layout());
    let y = then(&mut graph, maker, x);
    let between = then(&mut graph, Fake::default(), y);
    let taker = Fake { takes: true, scratch: 500, ..Fake::default() };
    let z = graph.tensor("z", layout());
    graph.node(taker, vec![y, between], vec![z]);
    graph.keep(z);
    graph
}

#[test]
fn moments_come_along_in_f32_and_on_software_adapters_in_inference_alone() {
    let maker = Fake { moments: Some(10), ..Fake::default() };
    let graph = normed(maker);
    let taken = |graph: &Graph, software: bool, options: &PlanRequest| {
        let planned = Plan::new(graph, &Caps { software, ..Caps::default() }, options).unwrap();
        let nodes = planned.graph.nodes();
        let moments = nodes[0].moments;
        assert!(moments.is_none_or(|moments| nodes[2].scratch == [moments]));
        let maker = planned.graph.moments_from(&nodes[2]);
        assert_eq!(maker.and_then(|maker| maker.moments), moments);
        moments.map(|moments| planned.graph.info(moments).words)
    };
    let inference = PlanRequest::inference(DType::F32);
    let mut trained = normed(maker);
    let z = *trained.kept().first().unwrap();
    let dz = trained.input("dz", layout());
    trained.backward(z, dz).unwrap();
    for software in [false, true] {
        let elsewhere = (!software).then_some(10 * 12);
        assert_eq!(taken(&graph, software, &inference), Some(10 * 12));
        assert_eq!(taken(&graph, software, &PlanRequest::default()), elsewhere);
        assert_eq!(taken(&trained, software, &inference), elsewhere);
        assert_eq!(taken(&graph, software, &PlanRequest::inference(DType::F16)), None);
        assert_eq!(taken(&normed(Fake::default()), software, &inference), None);
    }
}

/// Five nodes with partial sums, the third of which another node reads.
#[test]
fn several_partial_sums_are_added_up_by_the_last_of_their_nodes() {
    let mut graph = Graph::new();
    let x = graph.differentiable_input("x", layout());
    let sums = Fake { scratch: 512, sums: true, ..Fake::default() };
    let made: Vec<Value> = (0..7).map(|_| then(&mut graph, sums, x)).collect();
    let y = then(&mut graph, Fake::default(), made[2]);
    made.iter().chain([&y]).for_each(|value| graph.keep(*value));
    let of = |software| {
        let caps = Caps { software, ..Caps::default() };
        Plan::new(&graph, &caps, &PlanRequest::default()).unwrap().graph.nodes().to_vec()
    };
    let nodes = of(false);
    let kinds: Vec<&Sums> = nodes.iter().map(|node| &node.sums).collect();
    let (first, second) = (vec![made[0], made[1], made[3]], vec![made[5]]);
    let (later, here) = (&Sums::Later, &Sums::Here);
    let (first, second) = (Sums::With(first), Sums::With(second));
    assert_eq!(kinds, [later, later, here, later, &first, later, &second, here]);
    // what was left lives until it is added up
    let left: Vec<Value> = [4, 0, 1, 3].iter().map(|node| nodes[*node].scratch[0]).collect();
    assert_eq!(nodes[4].scratch, left);
    assert!(of(true).iter().all(|node| node.sums == Sums::Here));
}

#[test]
fn moments_live_from_their_maker_to_their_reader() {
    let graph = normed(Fake { moments: Some(10), ..Fake::default() });
    let planned = plan(&graph, &PlanRequest::inference(DType::F32));
    let moments = planned.graph.nodes()[0].moments.unwrap();
    let slot = planned.value_to_slot[&moments];
    // nothing else has their memory in between
    let others = planned.value_to_slot.iter().filter(|(value, _)| **value != moments);
    assert!(others.into_iter().all(|(_, other)| *other != slot));
    assert_eq!(planned.slots, [1024, 1024, 1024, 480]);
}

/// A value whose gradient has two contributions, the second added to the first; with `needed` something else reads the first.
fn added(needed: bool) -> Graph {
    let mut graph = Graph::new();
    let x = graph.differentiable_input("x", layout());
    let (a, b) = (then(&mut graph, Fake::default(), x), then(&mut graph, Fake::default(), x));
    let y = graph.tensor("sum", layout());
    graph.node(Fake::default(), vec![a, b], vec![y]);
    let dy = graph.input("dy", layout());
    let grads = graph.backward(y, dy).unwrap();
    let total = grads.get(x).unwrap();
    if needed {
        let adds = graph.nodes().iter().find_map(|node| node.addend).unwrap();
        graph.keep(adds);
    }
    graph.keep(total);
    graph
}

#[test]
fn an_addend_shares_its_memory_unless_it_is_needed_afterwards() {
    for needed in [false, true] {
        let planned = plan(&added(needed), &PlanRequest::default());
        let node = planned.graph.nodes().iter().find(|node| node.addend.is_some()).unwrap();
        let (from, to) = (node.addend.unwrap(), node.outputs[0]);
        let shares = planned.value_to_slot[&from] == planned.value_to_slot[&to];
        let copies: Vec<&Step> =
            planned.steps.iter().filter(|step| matches!(step, Step::Copy { .. })).collect();
        assert_eq!(shares, !needed);
        match needed {
            false => assert!(copies.is_empty()),
            true => assert_eq!(copies, [&Step::Copy { from, to, words: 256 }]),
        }
    }
}

#[test]
fn within_a_budget_values_are_made_again_with_working_memory_of_their_own() {
    let mut graph = Graph::new();
    let x = graph.differentiable_input("x", layout());
    let mut y = x;
    for _ in 0..8 {
        y = then(&mut graph, Fake { scratch: 10, ..Fake::default() }, y);
    }
    let dy = graph.input("dy", layout());
    let grads = graph.backward(y, dy).unwrap();
    graph.keep(grads.get(x).unwrap());
    let all = plan(&graph, &PlanRequest::default());
    assert!(all.again.is_empty());
    let within = |budget| plan(&graph, &PlanRequest { budget: Some(budget), ..Default::default() });
    let same = within(all.slot_bytes());
    assert!(same.again.is_empty() && same.steps == all.steps);
    let smaller = within(all.slot_bytes() - 1024);
    assert!(!smaller.again.is_empty() && smaller.slot_bytes() <= all.slot_bytes() - 1024);
    let nodes = smaller.graph.nodes();
    let mut scratch: Vec<Value> = nodes.iter().flat_map(|node| node.scratch.clone()).collect();
    assert_eq!(scratch.len(), 8 + smaller.again.len());
    scratch.sort();
    scratch.dedup();
    assert_eq!(scratch.len(), 8 + smaller.again.len());
    // what cannot be kept to comes as small as can be
    let least = within(0);
    assert!(least.slot_bytes() <= smaller.slot_bytes());
}
