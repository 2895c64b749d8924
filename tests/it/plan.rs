//! Properties of plans: no value is overwritten before its last use, addends are kept or copied, bindings fit the adapter.

use std::collections::{HashMap, HashSet};

use crate::common::nets;
use crate::common::nets::Planned;
use u2seg::low_level::activation::Activation;
use u2seg::low_level::graph::{Bind, Caps, Dispatch, Graph, Layout, Storage, Value};
use u2seg::low_level::ops;
use u2seg::low_level::plan::{Plan, Step};
use u2seg::low_level::shader::{BindingKind, KernelKey, reflect};

/// Which value each slot holds while the steps run.
struct Memory<'a> {
    planned: &'a Planned,
    /// Values that a slot holds: more than one where a kernel added to what it received.
    holds: HashMap<usize, HashSet<Value>>,
    writers: HashMap<KernelKey, HashSet<String>>,
}

impl Memory<'_> {
    fn slot(&self, value: Value) -> Option<usize> {
        self.planned.plan.value_to_slot.get(&value).copied()
    }

    fn holds(&self, value: Value) -> bool {
        match self.slot(value) {
            Some(slot) => self.holds.get(&slot).is_some_and(|values| values.contains(&value)),
            None => true,
        }
    }

    fn name(&self, value: Value) -> &str {
        &self.planned.plan.graph.info(value).name
    }

    fn put(&mut self, value: Value, beside: Option<Value>) {
        if let Some(slot) = self.slot(value) {
            self.holds.insert(slot, std::iter::once(value).chain(beside).collect());
        }
    }

    /// Whether a kernel writes a binding, read from the shader.
    fn writes(&mut self, key: &KernelKey, name: &str) -> bool {
        let plain = key.plain();
        let written = self.writers.entry(plain.clone()).or_insert_with(|| {
            let bindings = reflect(&plain).unwrap().bindings;
            let storage =
                |b: &u2seg::low_level::shader::Binding| b.kind == BindingKind::ReadWriteStorage;
            bindings.into_iter().filter(storage).map(|b| b.name).collect()
        });
        written.contains(name)
    }
}

/// Runs a plan on paper.
fn simulate(planned: &Planned) {
    let graph = &planned.plan.graph;
    let mut memory = Memory { planned, holds: HashMap::new(), writers: HashMap::new() };
    for (index, info) in graph.values().iter().enumerate() {
        if info.storage == Storage::Input {
            memory.put(Value(index as u32), None);
        }
    }
    let mut began: HashSet<Value> = HashSet::new();
    for (number, step) in planned.plan.steps.iter().enumerate() {
        let at = format!("{}, step {number}", planned.name);
        let dispatch = match step {
            Step::Copy { from, to, .. } => {
                assert!(memory.holds(*from), "{at}: copies {}, which is gone", memory.name(*from));
                assert_ne!(memory.slot(*from), memory.slot(*to), "{at}: a copy onto itself");
                memory.put(*to, None);
                began.insert(*to);
                continue;
            }
            Step::Run(dispatch) => dispatch,
        };
        let values = dispatch.bindings.iter().filter_map(|(name, bind)| match bind {
            Bind::Value { value, .. } => Some((*name, *value)),
            Bind::Region { .. } => None,
        });
        let (written, read): (Vec<_>, Vec<_>) =
            values.partition(|(name, _)| memory.writes(&dispatch.kernel, name));
        for (name, value) in &read {
            assert!(
                memory.holds(*value),
                "{at} ({}): reads {} as {name}, which was overwritten",
                dispatch.label,
                memory.name(*value)
            );
            for (other, target) in &written {
                let same =
                    memory.slot(*value).is_some() && memory.slot(*value) == memory.slot(*target);
                assert!(
                    !same,
                    "{at} ({}): {name} and {other} share a buffer, one of them written",
                    dispatch.label
                );
            }
        }
        for (_, value) in written {
            let adds = dispatch.kernel.overrides.contains(&("ACC", 1));
            if adds && began.insert(value) && !memory.holds(value) {
                // the first piece adds to what the addend left in the shared buffer
                let addend = graph.nodes().iter().find(|n| n.outputs.first() == Some(&value));
                let addend = addend.and_then(|node| node.addend);
                assert!(
                    addend.is_some_and(|addend| memory.holds(addend)),
                    "{at} ({}): adds to {}, whose addend is gone",
                    dispatch.label,
                    memory.name(value)
                );
            }
            began.insert(value);
            memory.put(value, None);
        }
    }
    for kept in graph.kept() {
        assert!(
            memory.holds(*kept),
            "{}: {} was kept and is gone",
            planned.name,
            memory.name(*kept)
        );
    }
}

#[test]
fn no_value_is_overwritten_before_its_last_use() {
    let others = [nets::targeted(), nets::variants(), nets::smallest()];
    for planned in nets::all().iter().chain(others.iter().flatten()) {
        simulate(planned);
    }
}

#[test]
fn bindings_and_groups_fit_the_adapter() {
    for planned in nets::all().into_iter().chain(nets::targeted()) {
        let caps = &planned.caps;
        for dispatch in planned.plan.dispatches() {
            assert!(dispatch.groups.iter().all(|g| *g <= caps.max_groups), "{}", dispatch.label);
            for (name, bind) in &dispatch.bindings {
                let (Bind::Value { start, words, .. } | Bind::Region { start, words, .. }) = *bind;
                assert!(words as u64 * 4 <= caps.max_binding, "{} {name}", dispatch.label);
                assert_eq!(start as u64 * 4 % caps.alignment, 0, "{} {name}", dispatch.label);
                if let Bind::Value { value, .. } = bind {
                    let all = planned.plan.graph.info(*value).words;
                    assert!(start + words <= all, "{} {name}: {words} of {all}", dispatch.label);
                }
            }
        }
    }
}

/// Memory is reused: a plan needs less than its values together, and inference less than training.
/// In all networks and in every variant, those that no adapter at hand can run among them.
#[test]
fn dispatches_set_each_parameter_and_bind_each_variable_of_their_kernels() {
    let mut known = HashMap::new();
    for planned in nets::all().into_iter().chain(nets::targeted()).chain(nets::variants()) {
        for dispatch in planned.plan.dispatches().chain(&planned.tail) {
            let key = dispatch.kernel.plain();
            let interface = known.entry(key).or_insert_with_key(|key| reflect(key).unwrap());
            let what = format!("{}: {:?}", planned.name, dispatch.kernel);
            let members: HashSet<&str> =
                interface.params.iter().map(|member| member.name.as_str()).collect();
            let set: HashSet<&str> = dispatch.params.iter().map(|(name, _)| *name).collect();
            assert_eq!(set, members, "{what}");
            for variable in interface.bindings.iter().filter(|b| b.name != "params") {
                let bound = dispatch.bindings.iter().any(|(name, _)| *name == variable.name);
                assert!(bound, "{what}: {}", variable.name);
            }
        }
    }
}

#[test]
fn slots_are_shared() {
    let plans = nets::all();
    for pair in plans.chunks(2) {
        let [training, inference] = pair else { panic!("training and inference come in pairs") };
        let total = |p: &Planned| -> u64 {
            p.plan.value_to_slot.keys().map(|v| p.plan.graph.info(*v).words as u64 * 4).sum()
        };
        for planned in pair {
            assert!(planned.plan.slot_bytes() < total(planned), "{}", planned.name);
        }
        assert!(inference.plan.slot_bytes() < training.plan.slot_bytes(), "{}", training.name);
    }
}

/// The same graph gives the same plan, whatever the order of hash maps.
#[test]
fn plans_are_the_same_every_time() {
    for (a, b) in nets::all().iter().zip(nets::all()) {
        assert_eq!(a.plan.steps, b.plan.steps, "{}", a.name);
        assert_eq!(a.plan.slots, b.plan.slots, "{}", a.name);
        assert_eq!(a.plan.value_to_slot, b.plan.value_to_slot, "{}", a.name);
    }
}

/// A gradient that is added to while something else still needs it is copied first.
#[test]
fn an_addend_that_is_still_needed_is_copied() {
    let mut graph = Graph::new();
    let layout = Layout::new(1, 4, [4, 4, 4]);
    let x = graph.differentiable_input("x", layout.clone());
    let stored = ops::add(&mut graph, x, x).unwrap();
    let up = ops::upsample(&mut graph, stored, [2, 2, 2]).unwrap();
    let up = ops::materialise(&mut graph, up).unwrap();
    let dy = graph.input("dy", Layout { spatial: [8, 8, 8], ..layout });
    let grads = graph.backward(up, dy).unwrap();
    let dx = grads.get(x).unwrap();
    graph.keep(dx);
    let caps = Caps::default();
    let plan = Plan::new(&graph, &caps, &Default::default()).unwrap();
    let planned = Planned { name: "addend".into(), plan, caps, tail: Vec::new() };
    simulate(&planned);
}

/// A tensor whose one channel block exceeds a binding is refused with the remedy.
#[test]
fn a_block_beyond_a_binding_is_refused() {
    let mut graph = Graph::new();
    let x = graph.input("x", Layout::new(1, 4, [16, 16, 16]));
    let act = ops::activate(&mut graph, x, Activation::LeakyRelu).unwrap();
    let out = ops::materialise(&mut graph, act).unwrap();
    graph.keep(out);
    let caps = Caps { max_binding: 1 << 14, ..Caps::default() };
    let message = Plan::new(&graph, &caps, &Default::default()).unwrap_err().to_string();
    assert!(message.contains("use a smaller input"), "{message}");
}

/// Weights are bound whole: those beyond a binding are refused with the remedy.
#[test]
fn weights_beyond_a_binding_are_refused() {
    let caps = Caps { max_binding: 1 << 20, ..Caps::default() };
    let message = nets::refused([6, 4, 5], &caps);
    assert!(message.contains("use a smaller base width or fewer pools"), "{message}");
}

/// Separable convolutions give the moments of their norms along: on GPUs, and where subgroups of a software adapter share loads, there not
/// in training; nowhere in f16.
#[test]
fn moments_come_along_with_separable_convolutions() {
    let plans = nets::all();
    let passes = |what: &str| {
        let name = what.replace("NET", "Universal Separable Full pools [3, 3, 3]");
        let plan = &plans.iter().find(|p| p.name == name).unwrap().plan;
        let count = |file: &str| plan.dispatches().filter(|d| d.kernel.file == file).count();
        let along = plan.dispatches().filter(|d| d.kernel.sections.contains(&"MOMENTS")).count();
        // small tensors take one pass where workgroups add up
        let once = count("norm_once.wgsl");
        let read = count("norm_stats.wgsl") + count("norm_stats_whole.wgsl") + once;
        (read, count("norm_finish.wgsl") + once, along)
    };
    let (stats, norms, along) = passes("inference NET on gpu");
    assert!(norms > 0 && stats < norms / 2);
    assert!(stats + along >= norms, "{stats} and {along} of {norms}");
    assert_eq!(passes("training NET on gpu"), (stats, norms, along));
    let (stats, same, along) = passes("inference NET on software with subgroups");
    // the first convolution and those of stride 2 are dense
    assert_eq!((stats, same), (4, norms));
    assert!(along >= norms - 4, "{along} of {norms}");
    for what in [
        "inference NET on software in f16",
        "training NET on gpu in f16",
        "training NET on software with subgroups",
    ] {
        let (stats, norms, along) = passes(what);
        assert_eq!((stats, along), (norms, 0), "{what}");
    }
}

/// Tensors stored in f16 move half the bytes; what else a kernel moves stays.
#[test]
fn bytes_of_f16_are_counted_as_what_they_are() {
    let plans = nets::all();
    let of = |name: &str| plans.iter().find(|p| p.name == name).unwrap();
    let net = "training Universal Separable Full pools [3, 3, 3] on gpu";
    let (full, half) = (of(net), of(&format!("{net} in f16")));
    let mut halved = 0;
    // the moments of norms come along in f32 alone
    let moved = |dispatch: &&Dispatch| {
        !["norm_stats_whole.wgsl", "norm_once.wgsl", "norm_finish.wgsl"]
            .contains(&dispatch.kernel.file)
    };
    let [full, half] = [full, half].map(|p| p.plan.dispatches().filter(moved).collect::<Vec<_>>());
    assert_eq!(full.len(), half.len());
    for (a, b) in full.into_iter().zip(half) {
        assert_eq!((a.kernel.file, &a.label, a.flops), (b.kernel.file, &b.label, b.flops));
        assert!(
            b.bytes <= a.bytes && 2 * b.bytes >= a.bytes,
            "{}: {} {}",
            a.label,
            a.bytes,
            b.bytes
        );
        // every binding of a tensor is of f16, but where image or logits are read or written
        if b.kernel.file == "depthwise.wgsl" {
            assert_eq!(2 * b.bytes, a.bytes, "{}", a.label);
            halved += 1;
        }
        if b.kernel.halves.is_empty() {
            assert_eq!(a.bytes, b.bytes, "{}", a.label);
        }
    }
    assert!(halved > 20, "{halved} depthwise passes");
}
