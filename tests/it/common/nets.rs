//! Plans of every kind of network, as training and inference build them.

use std::collections::BTreeSet;

use u2seg::low_level::graph::{Caps, DType, Dispatch, Graph, Layout, Storage, Value, ValueInfo};
use u2seg::low_level::net;
use u2seg::low_level::net::{DomainAdapter, DomainNet, Downsample, Mode, NetConfig};
use u2seg::low_level::ops;
use u2seg::low_level::ops::{LossWeights, Optimizer};
use u2seg::low_level::plan::{Plan, shrink};
use u2seg::low_level::shader::{Cooperative, KernelKey, Tuning};
use u2seg::low_level::train::{DomainBatch, Footprint, SessionSettings, Targets, graphs};

/// A planned network.
pub struct Planned {
    pub name: String,
    pub graph: Graph,
    pub plan: Plan,
    /// Limits that it was planned for.
    pub caps: Caps,
    /// Updates that follow the plan.
    pub tail: Vec<Dispatch>,
}

fn configs() -> Vec<NetConfig> {
    let modes = [
        (Mode::Universal, DomainAdapter::Separable, Downsample::Full),
        (Mode::Universal, DomainAdapter::Separable, Downsample::Separable),
        (Mode::Universal, DomainAdapter::Series, Downsample::Full),
        (Mode::Universal, DomainAdapter::Parallel, Downsample::Full),
        (Mode::Shared, DomainAdapter::Separable, Downsample::Full),
        (Mode::Independent, DomainAdapter::Separable, Downsample::Full),
    ];
    let pools = [[0, 0, 0], [1, 2, 2], [3, 3, 3], [0, 3, 1], [6, 4, 5]];
    let domain = |pools| DomainNet { name: "A".into(), channels: 2, classes: 3, pools };
    modes
        .iter()
        .flat_map(|(mode, adapter, downsample)| {
            pools.map(|pools| NetConfig {
                mode: *mode,
                adapter: *adapter,
                downsample: *downsample,
                base: 8,
                domains: vec![domain(pools)],
            })
        })
        .collect()
}

/// Adapters: as a GPU and as a CPU, with the limits that every adapter has and with small ones, in f32 and in f16.
pub fn adapters() -> Vec<(&'static str, Caps)> {
    let all = Caps::default();
    let sharing =
        Caps { software: true, subgroups: true, subgroup_size: 8, int64: true, ..all.clone() };
    vec![
        ("gpu", all.clone()),
        ("software", Caps { software: true, ..all.clone() }),
        ("software with subgroups", sharing.clone()),
        ("small", Caps { max_binding: 1 << 20, max_groups: 512, ..all.clone() }),
        ("gpu in f16", Caps { vector_bytes: 8, ..all.clone() }),
        ("software in f16", Caps { vector_bytes: 8, ..sharing }),
        ("small in f16", Caps { max_binding: 1 << 20, max_groups: 512, vector_bytes: 8, ..all }),
    ]
}

fn image(graph: &mut Graph, config: &NetConfig, samples: usize) -> u2seg::low_level::graph::Value {
    let domain = &config.domains[0];
    let spatial = domain.pools.map(|pools| if pools > 3 { 1 << pools } else { 3 << pools });
    graph.input("image", Layout::new(samples, domain.channels, spatial))
}

fn training(config: &NetConfig, weights: LossWeights, caps: &Caps) -> (Graph, Plan) {
    let graph = training_graph(config, weights, caps);
    let plan = Plan::new(&graph, caps).unwrap();
    (graph, plan)
}

/// Plans of training with all recomputed that pays.
pub fn smallest() -> Vec<Planned> {
    let mut planned = Vec::new();
    for config in configs() {
        for (adapter, caps) in adapters().into_iter().filter(|(name, _)| name.starts_with("gpu")) {
            let graph = training_graph(&config, LossWeights::dice_ce(), &caps);
            let shrunk = shrink(&graph, &caps, 0).unwrap();
            let plan = Plan::new(&shrunk.graph, &caps).unwrap();
            let name = format!(
                "smallest {:?} {:?} pools {:?} on {adapter}",
                config.mode, config.adapter, config.domains[0].pools
            );
            assert_eq!(plan.slot_bytes(), shrunk.bytes, "{name}");
            assert!(plan.slot_bytes() <= Plan::new(&graph, &caps).unwrap().slot_bytes(), "{name}");
            planned.push(Planned { name, graph: shrunk.graph, plan, caps, tail: Vec::new() });
        }
    }
    planned
}

/// What planning the training of a dense network says where it cannot.
pub fn refused(pools: [usize; 3], caps: &Caps) -> String {
    let domain = DomainNet { name: "A".into(), channels: 2, classes: 3, pools };
    let config = NetConfig {
        mode: Mode::Independent,
        adapter: DomainAdapter::Separable,
        downsample: Downsample::Full,
        base: 8,
        domains: vec![domain],
    };
    let graph = training_graph(&config, LossWeights::dice_ce(), caps);
    Plan::new(&graph, caps).unwrap_err().to_string()
}

fn training_graph(config: &NetConfig, weights: LossWeights, caps: &Caps) -> Graph {
    let mut graph = Graph::sized_for(caps);
    let image = image(&mut graph, config, 2);
    let voxels = graph.layout(image).unwrap().voxels() * 2;
    let labels = graph.input_words("labels", voxels);
    let logits = net::network(&mut graph, config, 0, image).unwrap();
    let logits = ops::materialise(&mut graph, logits).unwrap();
    let scaled = caps.vector_bytes == 8;
    let loss = if scaled { ops::scaled_segmentation_loss } else { ops::segmentation_loss };
    let loss = loss(&mut graph, logits, labels, weights).unwrap();
    graph.keep(logits);
    graph.keep(loss);
    graph.backward(loss, loss).unwrap();
    graph.store_as_f16(|value, info| caps.vector_bytes == 8 && in_f16(value, info, logits));
    graph
}

/// As training and inference do: tensors, but not the logits.
fn in_f16(value: Value, info: &ValueInfo, logits: Value) -> bool {
    info.storage == Storage::Tensor && value != logits
}

fn inference(config: &NetConfig, caps: &Caps) -> (Graph, Plan) {
    let mut graph = Graph::forward_only(caps);
    let image = image(&mut graph, config, 1);
    let logits = net::network(&mut graph, config, 0, image).unwrap();
    let logits = ops::materialise(&mut graph, logits).unwrap();
    let p = ops::softmax(&mut graph, logits).unwrap();
    let best = ops::argmax(&mut graph, p).unwrap();
    graph.keep(p);
    graph.keep(best);
    graph.store_as_f16(|value, info| caps.vector_bytes == 8 && in_f16(value, info, logits));
    let plan = Plan::new(&graph, caps).unwrap();
    (graph, plan)
}

/// Training of regions and of partly labelled domains, as sessions plan it.
pub fn targeted() -> Vec<Planned> {
    let regions = vec![0, 0b001, 0b011, 0b100];
    let targets = [
        ("regions", Targets { regions: regions.clone(), partial: false }, LossWeights::dice_ce()),
        ("partial regions", Targets { regions, partial: true }, LossWeights::ce()),
        ("partial classes", Targets { partial: true, ..Targets::default() }, LossWeights::u2net()),
    ];
    let config = &configs()[1];
    let patch = config.domains[0].pools.map(|pools| 8 << pools);
    let mut planned = Vec::new();
    for (what, targets, loss) in targets {
        for (adapter, caps) in adapters() {
            let dtype = if caps.vector_bytes == 8 { DType::F16 } else { DType::F32 };
            let batch = DomainBatch { targets: targets.clone(), ..DomainBatch::new(2, patch) };
            let optimizer = Optimizer::adam();
            let footprint = Footprint { dtype, ..Footprint::default() };
            let settings = SessionSettings { footprint, ..SessionSettings::new(loss, optimizer) };
            let graph = graphs(config, &[batch], &settings, &caps).unwrap().remove(0);
            let plan = Plan::new(&graph, &caps).unwrap();
            let name = format!("training {what} on {adapter}");
            planned.push(Planned { name, graph, plan, caps, tail: Vec::new() });
        }
    }
    planned
}

/// Every mode, several pools, training with every loss and optimizer, and inference, for every adapter.
pub fn all() -> Vec<Planned> {
    let every = LossWeights { cross_entropy: 1.0, dice: 1.0, ..LossWeights::u2net() };
    let losses = [LossWeights::dice_ce(), LossWeights::u2net(), every];
    let optimizers = [Optimizer::adam(), Optimizer::Sgd { momentum: 0.9, weight_decay: 1e-4 }];
    let mut planned = Vec::new();
    for (index, config) in configs().iter().enumerate() {
        for (adapter, caps) in adapters() {
            // weights are bound whole: those of many pools need the binding that every adapter has
            if adapter.starts_with("small")
                && config.domains[0].pools.iter().any(|pools| *pools > 3)
            {
                continue;
            }
            let name = format!(
                "{:?} {:?} {:?} pools {:?} on {adapter}",
                config.mode, config.adapter, config.downsample, config.domains[0].pools
            );
            let loss = losses[index % losses.len()];
            let (graph, plan) = training(config, loss, &caps);
            let optimizer = optimizers[index % optimizers.len()];
            let mut tail = ops::optimizer_dispatch(&optimizer, 0, 4096, &caps).unwrap();
            if caps.vector_bytes == 8 {
                tail = tail.into_iter().map(|dispatch| dispatch.scaled()).collect();
                tail.extend(ops::loss_scale_dispatches(&[(0, 4096)], &caps).unwrap());
            }
            planned.push(Planned {
                name: format!("training {name}"),
                graph,
                plan,
                caps: caps.clone(),
                tail,
            });
            let (graph, plan) = inference(config, &caps);
            let tail = Vec::new();
            planned.push(Planned { name: format!("inference {name}"), graph, plan, caps, tail });
        }
    }
    planned
}

/// Training of one network for every further variant of its kernels.
pub fn variants() -> Vec<Planned> {
    let config = &configs()[2];
    let mut planned = Vec::new();
    for (software, vector_bytes) in [(false, 16), (true, 16), (false, 8)] {
        for position in 1.. {
            let tuning = Tuning::at(position).into();
            let cooperative = Cooperative { f32: 8, f16: 16 };
            let caps =
                Caps { software, vector_bytes, subgroups: true, cooperative, ..Caps::default() };
            let caps = Caps { tuning, ..caps };
            let (graph, plan) = training(config, LossWeights::dice_ce(), &caps);
            let taken = |d: &Dispatch| d.choice.as_ref().is_some_and(|c| c.taken == position);
            if !plan.dispatches().any(taken) {
                break;
            }
            let name = format!(
                "training with variant {position}, software {software}, vectors of {vector_bytes}"
            );
            planned.push(Planned { name, graph, plan, caps, tail: Vec::new() });
        }
    }
    planned
}

/// Every kernel that the plans of [`all`], [`targeted`] and [`variants`], and the making of patches ask for.
pub fn kernels() -> BTreeSet<KernelKey> {
    let planned = all().into_iter().chain(targeted()).chain(variants());
    let of = |p: Planned| {
        let dispatches = p.plan.dispatches().chain(&p.tail);
        dispatches.map(|dispatch| dispatch.kernel.clone()).collect::<Vec<_>>()
    };
    planned.flat_map(of).chain(u2seg::low_level::patch::patch_kernels()).collect()
}
