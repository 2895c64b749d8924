//! Plans of every kind of network, as training and inference build them.

use std::collections::BTreeSet;

use u2seg::low_level::check::{Case, Net, OPERATIONS, Operation, Purpose};
use u2seg::low_level::graph::{Caps, DType, Dispatch, Graph, Layout};
use u2seg::low_level::net;
use u2seg::low_level::net::{DomainAdapter, DomainNet, Downsample, Mode, NetConfig};
use u2seg::low_level::ops;
use u2seg::low_level::ops::{LossWeights, Optimizer};
use u2seg::low_level::plan::{Plan, PlanRequest};
use u2seg::low_level::shader::{Cooperative, KernelKey, Tuning};
use u2seg::low_level::train::{DomainBatch, Footprint, SessionSettings, Targets, workloads};

/// A planned network.
pub struct Planned {
    pub name: String,
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

/// An adapter, and how tensors are stored.
#[derive(Clone)]
pub struct Way {
    pub name: &'static str,
    pub caps: Caps,
    pub dtype: DType,
}

/// As a GPU and as a CPU, with the limits that every adapter has and with small ones, in f32 and in f16.
pub fn ways() -> Vec<Way> {
    let all = Caps::default();
    let sharing =
        Caps { software: true, subgroups: true, subgroup_size: 8, int64: true, ..all.clone() };
    let software = Caps { software: true, ..all.clone() };
    let small = Caps { max_binding: 1 << 20, max_groups: 512, ..all.clone() };
    let way = |name, caps: &Caps, dtype| Way { name, caps: caps.clone(), dtype };
    vec![
        way("gpu", &all, DType::F32),
        way("software", &software, DType::F32),
        way("software with subgroups", &sharing, DType::F32),
        way("small", &small, DType::F32),
        way("gpu in f16", &all, DType::F16),
        way("software in f16", &sharing, DType::F16),
        way("small in f16", &small, DType::F16),
    ]
}

fn image(graph: &mut Graph, config: &NetConfig, samples: usize) -> u2seg::low_level::graph::Value {
    let domain = &config.domains[0];
    let spatial = domain.pools.map(|pools| if pools > 3 { 1 << pools } else { 3 << pools });
    graph.input("image", Layout::new(samples, domain.channels, spatial))
}

fn training(config: &NetConfig, weights: LossWeights, caps: &Caps, dtype: DType) -> Plan {
    let graph = training_graph(config, weights);
    Plan::new(&graph, caps, &PlanRequest::training(dtype)).unwrap()
}

/// Plans of training with all recomputed that pays.
pub fn smallest() -> Vec<Planned> {
    let mut planned = Vec::new();
    for config in configs() {
        let graph = training_graph(&config, LossWeights::dice_ce());
        for Way { name: adapter, caps, dtype } in
            ways().into_iter().filter(|way| way.name.starts_with("gpu"))
        {
            let options = PlanRequest::training(dtype);
            let smallest = PlanRequest { budget: Some(0), ..options };
            let plan = Plan::new(&graph, &caps, &smallest).unwrap();
            let name = format!(
                "smallest {:?} {:?} pools {:?} on {adapter}",
                config.mode, config.adapter, config.domains[0].pools
            );
            let all = Plan::new(&graph, &caps, &options).unwrap();
            assert!(plan.slot_bytes() <= all.slot_bytes(), "{name}");
            planned.push(Planned { name, plan, caps, tail: Vec::new() });
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
    let graph = training_graph(&config, LossWeights::dice_ce());
    Plan::new(&graph, caps, &PlanRequest::default()).unwrap_err().to_string()
}

fn training_graph(config: &NetConfig, weights: LossWeights) -> Graph {
    let mut graph = Graph::new();
    let image = image(&mut graph, config, 2);
    let voxels = graph.layout(image).unwrap().voxels() * 2;
    let labels = graph.input_words("labels", voxels);
    let logits = net::network(&mut graph, config, 0, image).unwrap();
    let logits = ops::materialise(&mut graph, logits).unwrap();
    graph.store_in_f32(logits);
    let loss = ops::segmentation_loss(&mut graph, logits, labels, weights).unwrap();
    graph.keep(logits);
    graph.keep(loss);
    graph.backward(loss, loss).unwrap();
    graph
}

fn inference_graph(config: &NetConfig) -> Graph {
    let mut graph = Graph::new();
    let image = image(&mut graph, config, 1);
    let logits = net::network(&mut graph, config, 0, image).unwrap();
    let logits = ops::materialise(&mut graph, logits).unwrap();
    graph.store_in_f32(logits);
    let p = ops::softmax(&mut graph, logits).unwrap();
    let best = ops::argmax(&mut graph, logits).unwrap();
    graph.keep(p);
    graph.keep(best);
    graph
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
        for Way { name: adapter, caps, dtype } in ways() {
            let batch = DomainBatch { targets: targets.clone(), ..DomainBatch::new(2, patch) };
            let optimizer = Optimizer::adam();
            let footprint = Footprint { dtype, ..Footprint::default() };
            let settings = SessionSettings { footprint, ..SessionSettings::new(loss, optimizer) };
            let work = workloads(config, &[batch], &settings).unwrap().remove(0);
            let plan = Plan::new(&work.graph, &caps, &work.options).unwrap();
            let name = format!("training {what} on {adapter}");
            planned.push(Planned { name, plan, caps, tail: Vec::new() });
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
        let loss = losses[index % losses.len()];
        let (training, inference) = (training_graph(config, loss), inference_graph(config));
        for Way { name: adapter, caps, dtype } in ways() {
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
            let plan = Plan::new(&training, &caps, &PlanRequest::training(dtype)).unwrap();
            let optimizer = optimizers[index % optimizers.len()];
            let scales = dtype == DType::F16;
            let guarded = ops::Guarded { ranges: &[(0, 4096)], loss: None, scales };
            let mut tail = ops::guard_dispatches(&guarded, &caps).unwrap();
            tail.extend(ops::optimizer_dispatch(&optimizer, 0, 4096, &caps).unwrap());
            tail.extend(ops::average_dispatch(0, 4096, &caps).unwrap());
            planned.push(Planned {
                name: format!("training {name}"),
                plan,
                caps: caps.clone(),
                tail,
            });
            let plan = Plan::new(&inference, &caps, &PlanRequest::inference(dtype)).unwrap();
            let tail = Vec::new();
            planned.push(Planned { name: format!("inference {name}"), plan, caps, tail });
        }
    }
    planned
}

/// Training of one network for every further variant of its kernels.
pub fn variants() -> Vec<Planned> {
    let config = &configs()[2];
    let mut planned = Vec::new();
    for (software, dtype) in [(false, DType::F32), (true, DType::F32), (false, DType::F16)] {
        for position in 1.. {
            let tuning = Tuning::at(position).into();
            let cooperative = Cooperative { f32: 8, f16: 16 };
            let caps =
                Caps { software, subgroups: true, f16: true, cooperative, ..Caps::default() };
            let caps = Caps { tuning, ..caps };
            let plan = training(config, LossWeights::dice_ce(), &caps, dtype);
            let taken = |d: &Dispatch| d.choice.as_ref().is_some_and(|c| c.taken == position);
            if !plan.dispatches().any(taken) {
                break;
            }
            let name =
                format!("training with variant {position}, software {software}, in {dtype:?}");
            planned.push(Planned { name, plan, caps, tail: Vec::new() });
        }
    }
    planned
}

/// Kernels that the table of cases asks for, with each variant.
fn checked() -> BTreeSet<KernelKey> {
    let mut kernels = BTreeSet::new();
    for case in OPERATIONS.iter().flat_map(Operation::cases) {
        let Case::Graph(case) = case else { continue };
        let mut net = Net::new(Purpose::Training);
        case.build(&mut net).unwrap();
        for position in 0.. {
            let caps = Caps { tuning: Tuning::at(position).into(), ..Caps::default() };
            let plan = Plan::new(&net.graph, &caps, &PlanRequest::default()).unwrap();
            let taken = |d: &Dispatch| d.choice.as_ref().is_some_and(|c| c.taken == position);
            if position > 0 && !plan.dispatches().any(taken) {
                break;
            }
            kernels.extend(plan.dispatches().map(|dispatch| dispatch.kernel.clone()));
        }
    }
    kernels
}

/// Every kernel that the plans of [`all`], [`targeted`] and [`variants`], the making of patches, and the segmenting of slabs ask for; of files that none
/// of these runs, what the table of cases asks for.
pub fn kernels() -> BTreeSet<KernelKey> {
    let planned = all().into_iter().chain(targeted()).chain(variants());
    let of = |p: Planned| {
        let dispatches = p.plan.dispatches().chain(&p.tail);
        dispatches.map(|dispatch| dispatch.kernel.clone()).collect::<Vec<_>>()
    };
    let patches = u2seg::low_level::patch::patch_kernels();
    let slabs = [ops::slab::slab_kernels(), ops::uncertainty::uncertainty_kernels()].concat();
    let mut kernels: BTreeSet<KernelKey> =
        planned.flat_map(of).chain(patches).chain(slabs).collect();
    let files: BTreeSet<&str> = kernels.iter().map(|key| key.file).collect();
    kernels.extend(checked().into_iter().filter(|key| !files.contains(key.file)));
    kernels
}
