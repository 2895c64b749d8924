//! Directional derivatives through whole networks: what the loss changes by along a direction, against the gradient.

use u2seg::graph::Region;
use u2seg::nn::{Adapter, DomainNet, Downsample, Mode, NetConfig};
use u2seg::ops::{LossWeights, Optimizer};
use u2seg::train::{DomainBatch, Freeze, Session, SessionSettings};

use super::common;
use super::harness::{labels, random};

fn config(mode: Mode, adapter: Adapter, pools: [usize; 3]) -> NetConfig {
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

/// Relative difference between the slope along a direction and what the gradient says.
fn slope_error(gpu: &u2seg::gpu::Gpu, config: &NetConfig, loss: LossWeights) -> f64 {
    let (samples, patch) = (2, [8, 12, 8]);
    let settings = SessionSettings { loss, optimizer: Optimizer::adam(), freeze: Freeze::Nothing };
    let session = Session::new(gpu, config, &[DomainBatch { samples, patch }], settings).unwrap();
    session.initialise(3).unwrap();
    let voxels = samples * patch.iter().product::<usize>();
    let image: Vec<f32> = random(2 * voxels, 5).iter().map(|v| *v as f32).collect();
    let truth = labels(voxels, 3, 6);
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
    // changes the loss by 2e-4: well above rounding, and few of the kinks on the way
    let step = 1e-4 / slope;
    let at = |sign: f64| {
        let moved: Vec<Vec<f64>> = weights
            .iter()
            .zip(&direction)
            .map(|(w, d)| w.iter().zip(d).map(|(w, d)| w + sign * step * d / length).collect())
            .collect();
        write(&session, &names, &moved);
        session.gradients(0, &image, &truth).unwrap();
        f64::from(session.losses(0).unwrap()[0])
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
        ("separable", universal(Adapter::Separable), LossWeights::dice_ce()),
        ("separable, Lovász", universal(Adapter::Separable), lovasz),
        ("separable down-samplers", thin(Adapter::Separable), LossWeights::dice_ce()),
        ("series, separable down-samplers", thin(Adapter::Series), LossWeights::ce()),
        ("series", universal(Adapter::Series), LossWeights::dice_ce()),
        ("parallel", universal(Adapter::Parallel), LossWeights::ce()),
        ("plain", config(Mode::Shared, Adapter::Separable, [3, 2, 3]), LossWeights::dice_ce()),
        (
            "independent",
            config(Mode::Independent, Adapter::Separable, [1, 1, 1]),
            LossWeights::ce(),
        ),
    ];
    for (name, config, loss) in cases {
        let error = slope_error(&gpu, &config, loss);
        println!("{name}: slope off by {error:.1e}");
        assert!(error < 2e-2, "{name}: the slope is off by {error:.1e}");
    }
}

/// Losses asked for behind two steps come in their order, with what each step left, though more was submitted since.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn losses_are_read_behind_later_steps() {
    let gpu = common::gpu();
    let config = config(Mode::Universal, Adapter::Separable, [1, 1, 1]);
    let (samples, patch) = (1, [4, 6, 4]);
    let (loss, optimizer) = (LossWeights::dice_ce(), Optimizer::adam());
    let settings = SessionSettings { loss, optimizer, freeze: Freeze::Nothing };
    let image: Vec<f32> = random(2 * 96, 5).iter().map(|v| *v as f32).collect();
    let truth = labels(96, 3, 6);
    let start = || {
        let batch = DomainBatch { samples, patch };
        let session = Session::new(&gpu, &config, &[batch], settings).unwrap();
        session.initialise(3).unwrap();
        session
    };
    let mut session = start();
    let waited: Vec<[f32; 5]> = (0..3)
        .map(|_| {
            session.step(0, &image, &truth, 1e-2).unwrap();
            session.losses(0).unwrap()
        })
        .collect();
    assert_ne!(waited[0], waited[1]);
    let mut session = start();
    session.step(0, &image, &truth, 1e-2).unwrap();
    session.ask_losses(0).unwrap();
    session.step(0, &image, &truth, 1e-2).unwrap();
    session.ask_losses(0).unwrap();
    session.step(0, &image, &truth, 1e-2).unwrap();
    // two are under way: a third has no room until one is taken
    assert!(session.ask_losses(0).is_err());
    let taken: Vec<_> = (0..3).map(|_| session.take_losses().unwrap()).collect();
    assert_eq!(taken, [Some(waited[0]), Some(waited[1]), None]);
}
