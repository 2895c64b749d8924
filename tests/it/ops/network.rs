//! Directional derivatives through whole networks: what the loss changes by along a direction, against the gradient.

use u2seg::low_level::check::{labels, random};
use u2seg::low_level::graph::Region;
use u2seg::low_level::net::{DomainAdapter, DomainNet, Downsample, Mode, NetConfig};
use u2seg::low_level::ops::{LossWeights, Optimizer};
use u2seg::low_level::train::{
    DomainBatch, Losses, Outcome, Session, SessionSettings, Targets, Verdict,
};

use crate::common;

fn config(mode: Mode, adapter: DomainAdapter, pools: [usize; 3]) -> NetConfig {
    let domain = DomainNet { name: "A".into(), channels: 2, classes: 3, pools };
    NetConfig { mode, adapter, downsample: Downsample::Full, base: 4, domains: vec![domain] }
}

fn write(session: &Session, names: &[String], weights: &[Vec<f64>]) {
    for (name, values) in names.iter().zip(weights) {
        let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
        session.write(Region::Weights, name, &values).unwrap();
    }
}

fn doubles(tensors: Vec<Vec<f32>>) -> Vec<Vec<f64>> {
    tensors.into_iter().map(|t| t.into_iter().map(f64::from).collect()).collect()
}

/// Relative difference between the slope along a direction and what the gradient says. Of a partly labelled domain the second
/// sample lacks output 1.
fn slope_error(
    gpu: &u2seg::low_level::gpu::Gpu,
    config: &NetConfig,
    loss: LossWeights,
    targets: Targets,
) -> f64 {
    let (samples, patch) = (2, [8, 12, 8]);
    let settings = SessionSettings::new(loss, Optimizer::adam());
    let partial = targets.partial;
    let batch = DomainBatch { targets, ..DomainBatch::new(samples, patch) };
    let mut session = Session::new(gpu, config, &[batch], settings).unwrap();
    session.initialise(3).unwrap();
    let voxels = samples * patch.iter().product::<usize>();
    let image: Vec<f32> = random(2 * voxels, 5).iter().map(|v| *v as f32).collect();
    let mut truth = labels(voxels, 3, 6);
    if partial {
        session.set_unlabelled(0, &[[0; 8], [0b10, 0, 0, 0, 0, 0, 0, 0]]).unwrap();
        truth[voxels / 2..].iter_mut().filter(|l| **l == 1).for_each(|l| *l = 0);
    }
    session.gradients(0, &image, &truth).unwrap();
    let names: Vec<String> = session.store().params().iter().map(|p| p.spec.name.clone()).collect();
    let grads = doubles(session.read(Region::Grads).unwrap());
    let weights = doubles(session.read(Region::Weights).unwrap());
    // the gradient with every entry stretched on its own: the slope is large and each entry counts
    let direction: Vec<Vec<f64>> = grads
        .iter()
        .enumerate()
        .map(|(i, g)| {
            g.iter().zip(random(g.len(), 20 + i as u64)).map(|(g, r)| g * (1.0 + 0.8 * r)).collect()
        })
        .collect();
    let dot = |a: &[Vec<f64>], b: &[Vec<f64>]| -> f64 {
        a.iter().flatten().zip(b.iter().flatten()).map(|(x, y)| x * y).sum()
    };
    let length = dot(&direction, &direction).sqrt();
    let slope = dot(&grads, &direction) / length;
    // changes the loss by 6e-5: well above rounding, and few of the kinks on the way
    let step = 3e-5 / slope;
    let at = |sign: f64| {
        let moved: Vec<Vec<f64>> = weights
            .iter()
            .zip(&direction)
            .map(|(w, d)| w.iter().zip(d).map(|(w, d)| w + sign * step * d / length).collect())
            .collect();
        write(&session, &names, &moved);
        session.gradients(0, &image, &truth).unwrap();
        f64::from(session.losses(0).unwrap().total)
    };
    let measured = (at(1.0) - at(-1.0)) / (2.0 * step);
    (measured - slope).abs() / slope
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn directional_derivatives_of_whole_networks() {
    let gpu = common::gpu();
    let universal = |adapter| config(Mode::Universal, adapter, [2, 2, 1]);
    let thin = |adapter| NetConfig { downsample: Downsample::Separable, ..universal(adapter) };
    let lovasz = LossWeights { focal: 0.0, ..LossWeights::u2net() };
    let cases = [
        ("separable", universal(DomainAdapter::Separable), LossWeights::dice_ce()),
        ("separable, Lovász", universal(DomainAdapter::Separable), lovasz),
        ("separable down-samplers", thin(DomainAdapter::Separable), LossWeights::dice_ce()),
        ("series, separable down-samplers", thin(DomainAdapter::Series), LossWeights::ce()),
        ("series", universal(DomainAdapter::Series), LossWeights::dice_ce()),
        ("parallel", universal(DomainAdapter::Parallel), LossWeights::ce()),
        (
            "plain",
            config(Mode::Shared, DomainAdapter::Separable, [3, 2, 3]),
            LossWeights::dice_ce(),
        ),
        (
            "independent",
            config(Mode::Independent, DomainAdapter::Separable, [1, 1, 1]),
            LossWeights::ce(),
        ),
    ];
    for (name, config, loss) in cases {
        let error = slope_error(&gpu, &config, loss, Targets::default());
        println!("{name}: slope off by {error:.1e}");
        assert!(error < 2e-2, "{name}: the slope is off by {error:.1e}");
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn directional_derivatives_for_regions_and_partly_labelled_cases() {
    let gpu = common::gpu();
    let regions = vec![0b000, 0b011, 0b110];
    let config = config(Mode::Universal, DomainAdapter::Separable, [2, 2, 1]);
    for (name, targets, loss) in [
        ("regions", Targets { regions: regions.clone(), partial: false }, LossWeights::dice_ce()),
        ("partial regions", Targets { regions, partial: true }, LossWeights::dice_ce()),
        ("partial", Targets { partial: true, ..Targets::default() }, LossWeights::dice_ce()),
        (
            "partial, Lovász",
            Targets { partial: true, ..Targets::default() },
            LossWeights { focal: 0.0, ..LossWeights::u2net() },
        ),
    ] {
        let error = slope_error(&gpu, &config, loss, targets);
        println!("{name}: slope off by {error:.1e}");
        assert!(error < 2e-2, "{name}: the slope is off by {error:.1e}");
    }
}

/// A session of a region, of classes and of partly labelled classes: what is not labelled moves nothing, masks stay until set
/// again though domains share memory, and what cannot be is refused.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn sessions_of_regions_and_of_partly_labelled_cases() {
    let gpu = common::gpu();
    let net = |name: &str, classes| DomainNet {
        name: name.into(),
        channels: 2,
        classes,
        pools: [1, 1, 1],
    };
    let mut config = config(Mode::Universal, DomainAdapter::Separable, [1, 1, 1]);
    config.domains = vec![net("A", 1), net("B", 3), net("C", 3)];
    let batch = |targets| DomainBatch { targets, ..DomainBatch::new(1, [4, 6, 4]) };
    let one = Targets { regions: vec![0, 1], partial: true };
    let partial = Targets { partial: true, ..Targets::default() };
    let batches = [batch(one), batch(Targets::default()), batch(partial)];
    let settings = SessionSettings::new(LossWeights::dice_ce(), Optimizer::adam());
    let mut session = Session::new(&gpu, &config, &batches, settings).unwrap();
    session.initialise(3).unwrap();
    let image: Vec<f32> = random(2 * 96, 5).iter().map(|v| *v as f32).collect();
    let truth = labels(96, 2, 6);
    let losses = |session: &mut Session, domain| {
        session.step(domain, &image, &truth, 0.0).unwrap();
        session.losses(domain).unwrap()
    };
    let all = [losses(&mut session, 0), losses(&mut session, 1), losses(&mut session, 2)];
    assert!(all.iter().all(|l| l.total > 0.1), "{all:?}");
    session.set_unlabelled(0, &[[1, 0, 0, 0, 0, 0, 0, 0]]).unwrap();
    session.set_unlabelled(2, &[[0b100, 0, 0, 0, 0, 0, 0, 0]]).unwrap();
    for _ in 0..2 {
        let none = losses(&mut session, 0);
        assert!(none.total == 0.0 && none.terms.iter().all(|t| t.value == 0.0), "{none:?}");
        assert_eq!(losses(&mut session, 1), all[1]);
        let entropy = |losses: &Losses| losses.term("cross_entropy").unwrap().value;
        assert!(entropy(&losses(&mut session, 2)) < entropy(&all[2]));
    }
    session.set_unlabelled(0, &[[0; 8]]).unwrap();
    session.set_unlabelled(2, &[[0; 8]]).unwrap();
    assert_eq!(losses(&mut session, 0), all[0]);
    assert_eq!(losses(&mut session, 2), all[2]);
    assert!(session.set_unlabelled(1, &[[0; 8]]).is_err());
    assert!(session.set_unlabelled(2, &[[1, 0, 0, 0, 0, 0, 0, 0]]).is_err());
    assert!(session.set_unlabelled(2, &[[8, 0, 0, 0, 0, 0, 0, 0]]).is_err());
    assert!(session.set_unlabelled(2, &[[0; 8]; 2]).is_err());
    let refused = |targets, settings| {
        let batches = [batch(targets), batches[1].clone(), batches[2].clone()];
        Session::new(&gpu, &config, &batches, settings).map(|_| ()).unwrap_err().to_string()
    };
    assert!(refused(Targets::default(), settings).contains("at least 2"));
    let beyond = Targets { regions: vec![0, 0b10], partial: false };
    assert!(refused(beyond, settings).contains("1 regions"));
    let lovasz = SessionSettings { loss: LossWeights::u2net(), ..settings };
    assert!(refused(Targets { regions: vec![0, 1], partial: false }, lovasz).contains("dice-ce"));
}

/// Losses asked for behind two steps come in their order, with what each step left, though more was submitted since.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn losses_are_read_behind_later_steps() {
    let gpu = common::gpu();
    let config = config(Mode::Universal, DomainAdapter::Separable, [1, 1, 1]);
    let (samples, patch) = (1, [4, 6, 4]);
    let settings = SessionSettings::new(LossWeights::dice_ce(), Optimizer::adam());
    let image: Vec<f32> = random(2 * 96, 5).iter().map(|v| *v as f32).collect();
    let truth = labels(96, 3, 6);
    let start = || {
        let batch = DomainBatch::new(samples, patch);
        let session = Session::new(&gpu, &config, &[batch], settings).unwrap();
        session.initialise(3).unwrap();
        session
    };
    let mut session = start();
    let waited: Vec<Losses> = (0..3)
        .map(|_| {
            session.step(0, &image, &truth, 1e-2).unwrap();
            session.losses(0).unwrap()
        })
        .collect();
    assert_ne!(waited[0], waited[1]);
    // each step gives what became of the one before
    let mut session = start();
    let step = |session: &mut Session| session.step(0, &image, &truth, 1e-2).unwrap();
    let mut taken: Vec<_> = (0..3).map(|_| step(&mut session)).collect();
    taken.push(session.settle().unwrap());
    taken.push(session.settle().unwrap());
    let outcome = |losses: &Losses| Outcome { losses: losses.clone(), verdict: Verdict::Counted };
    let [a, b, c] = [0, 1, 2].map(|step| Some(outcome(&waited[step])));
    assert_eq!(taken, [None, a, b, c, None]);
}
