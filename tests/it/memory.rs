//! Memory of training: planned and allocated, kept to a budget by computing twice, halved by f16.

use crate::common;
use u2seg::low_level::exec::{LossScale, caps};
use u2seg::low_level::gpu::Gpu;
use u2seg::low_level::graph::{DType, Region};
use u2seg::low_level::net::{DomainAdapter, DomainNet, Downsample, Mode, NetConfig};
use u2seg::low_level::ops::{GROWTH, LossWeights, Optimizer};
use u2seg::low_level::train::{DomainBatch, Footprint, Memory, Session, SessionSettings, Targets};

fn settings(footprint: Footprint) -> SessionSettings {
    SessionSettings { footprint, ..SessionSettings::new(LossWeights::dice_ce(), Optimizer::adam()) }
}

/// A network with a batch for each of its domains.
struct Net {
    config: NetConfig,
    batches: Vec<DomainBatch>,
}

fn domain(name: &str, pools: [usize; 3]) -> DomainNet {
    DomainNet { name: name.into(), channels: 1, classes: 3, pools }
}

fn net(mode: Mode, adapter: DomainAdapter, base: usize, domains: Vec<DomainNet>) -> Net {
    let batch =
        |d: &DomainNet| DomainBatch::new(2, if d.name == "A" { [16, 16, 16] } else { [8, 16, 24] });
    let batches = domains.iter().map(batch).collect();
    let config = NetConfig { mode, adapter, downsample: Downsample::Full, base, domains };
    Net { config, batches }
}

fn nets() -> Vec<(&'static str, Net)> {
    let (a, b) = (domain("A", [2, 2, 2]), domain("B", [1, 2, 3]));
    let separable = |base, domains| net(Mode::Universal, DomainAdapter::Separable, base, domains);
    let mut targeted = separable(8, vec![a.clone(), b.clone()]);
    targeted.batches[0].targets = Targets { regions: vec![0, 0b001, 0b110], partial: true };
    targeted.batches[1].targets.partial = true;
    vec![
        ("separable", separable(8, vec![a.clone()])),
        ("two domains", separable(8, vec![a.clone(), b])),
        ("series", net(Mode::Universal, DomainAdapter::Series, 4, vec![a.clone()])),
        ("parallel", net(Mode::Universal, DomainAdapter::Parallel, 4, vec![a.clone()])),
        ("independent", net(Mode::Independent, DomainAdapter::Separable, 8, vec![a])),
        ("regions, and partly labelled classes", targeted),
    ]
}

impl Net {
    fn session(&self, gpu: &Gpu, dtype: DType, vram: Option<u64>) -> Session {
        let footprint = Footprint { dtype, vram, reserved: 0 };
        let settings = settings(footprint);
        let session = Session::new(gpu, &self.config, &self.batches, settings).unwrap();
        session.initialise(5).unwrap();
        session
    }

    /// Memory of the plans that recompute nothing, and all that pays.
    fn memory(&self, gpu: &Gpu, dtype: DType) -> [Memory; 2] {
        let (config, batches, caps) = (&self.config, &self.batches, caps(gpu));
        let settings = settings(Footprint { dtype, ..Footprint::default() });
        [
            Memory::planned(config, batches, &settings, &caps).unwrap(),
            Memory::least(config, batches, &settings, &caps).unwrap(),
        ]
    }

    /// A step of a domain on images that depend on `t`: noise, brighter where the label is.
    fn step(&self, session: &mut Session, domain: usize, t: u64) {
        let DomainBatch { samples, patch, .. } = self.batches[domain];
        let voxels = samples * patch.iter().product::<usize>();
        let mut state = t.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        };
        let label = |i: usize| (i / 5 + i / 130) % 3;
        let labels: Vec<u8> = (0..voxels).map(|i| label(i) as u8).collect();
        let image: Vec<f32> = labels.iter().map(|l| f32::from(*l) - 1.0 + noise()).collect();
        session.step(domain, &image, &labels, 3e-3).unwrap();
    }
}

fn bits(session: &Session) -> Vec<Vec<u32>> {
    let regions = [Region::Weights, Region::Moment1, Region::Moment2];
    let tensors = regions.iter().flat_map(|region| session.read(*region).unwrap());
    tensors.map(|t| t.iter().map(|v| v.to_bits()).collect()).collect()
}

/// Trains twice, as it comes and with the least memory, each against what was planned, one against the other.
fn compare(gpu: &Gpu, name: &str, net: &Net, dtype: DType) {
    let planned = net.memory(gpu, dtype);
    assert!(planned[1].activations < planned[0].activations, "{name}: {planned:?}");
    assert!(planned[0].recomputed == 0 && planned[1].recomputed > 0, "{name}: {planned:?}");
    let mut results = planned.iter().map(|memory| {
        let before = gpu.allocated();
        let mut session = net.session(gpu, dtype, Some(memory.total()));
        assert_eq!(session.memory(), memory, "{name}");
        for t in 0..2 {
            (0..net.batches.len()).for_each(|domain| net.step(&mut session, domain, t));
        }
        // as a checkpoint does: a region at a time
        session.read(Region::Weights).unwrap();
        let allocated = (gpu.allocated() - before) as f64;
        let off = memory.total() as f64 / allocated - 1.0;
        println!("{name} {dtype:?}: {allocated} bytes, the plan is {:.2} % off", off * 100.0);
        assert!(off.abs() < 0.05, "{name}: {memory:?} but {allocated} bytes");
        // domains share memory: only the last one's loss is still there
        (session.losses(net.batches.len() - 1).unwrap(), bits(&session))
    });
    assert!(results.next() == results.next(), "{name} {dtype:?}: the weights differ");
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn plans_take_what_they_tell_and_computing_twice_changes_no_bit() {
    let gpu = common::gpu();
    for (name, net) in nets() {
        let elements = match name {
            "two domains" | "regions, and partly labelled classes" => {
                vec![DType::F32, DType::F16]
            }
            "separable" | "parallel" => vec![DType::F16],
            _ => vec![DType::F32],
        };
        elements.into_iter().for_each(|dtype| compare(&gpu, name, &net, dtype));
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_budget_is_kept_or_refused() {
    let gpu = common::gpu();
    let caps = caps(&gpu);
    for (name, net) in nets() {
        let [all, least] = net.memory(&gpu, DType::F32);
        let within = |vram| {
            let footprint = Footprint { vram: Some(vram), ..Footprint::default() };
            Memory::planned(&net.config, &net.batches, &settings(footprint), &caps)
        };
        for share in 0..=4 {
            let vram = all.total() - (all.total() - least.total()) * share / 4;
            let memory = within(vram).unwrap();
            assert!(memory.total() <= vram, "{name}: {memory:?} in {vram}");
            assert_eq!(memory.recomputed == 0, share == 0, "{name}: {memory:?} in {vram}");
        }
        let message = within(least.total() - 1).unwrap_err().to_string();
        assert!(message.contains("vram") && message.contains("`precision` f16"), "{message}");
        assert!(within(1).is_err(), "{name}");
        // what cases take is not there for the network
        let reserved = 1 << 20;
        let footprint =
            Footprint { vram: Some(all.total() + reserved), reserved, ..Footprint::default() };
        let planned = |f| Memory::planned(&net.config, &net.batches, &settings(f), &caps).unwrap();
        assert_eq!(planned(footprint).recomputed, 0, "{name}");
        assert!(
            planned(Footprint { reserved: reserved + 1, ..footprint }).recomputed > 0,
            "{name}"
        );
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn f16_learns_alike_in_less_memory() {
    let gpu = common::gpu();
    for (name, net) in nets() {
        let [[full, _], [half, _]] = [DType::F32, DType::F16].map(|e| net.memory(&gpu, e));
        // images, labels, logits and the partial sums of small tensors stay in f32
        assert!(half.activations * 10 < full.activations * 8, "{name}: {half:?} {full:?}");
    }
    let (_, net) = nets().swap_remove(0);
    let mut sessions = [DType::F32, DType::F16].map(|e| net.session(&gpu, e, None));
    let mut curves = [const { Vec::new() }; 2];
    for t in 0..24 {
        for (session, curve) in sessions.iter_mut().zip(&mut curves) {
            net.step(session, 0, t);
            curve.push(f64::from(session.losses(0).unwrap().total));
        }
    }
    let [a, b] = &curves;
    let off = a.iter().zip(b).map(|(a, b)| (a - b).abs() / a).fold(0.0, f64::max);
    println!("loss {:.4} to {:.4}, in f16 at most {off:.1e} off", a[0], a[23]);
    assert!((a[0] - b[0]).abs() < 2e-3 * a[0], "{} and {}", a[0], b[0]);
    assert!(a[23] < 0.8 * a[0] && off < 0.05, "{a:?} {b:?}");
    assert_eq!(sessions[1].loss_scale().unwrap().unwrap().skipped, 0);
    assert!(sessions[0].loss_scale().unwrap().is_none());
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_step_that_overflows_leaves_the_weights_and_halves_the_scale() {
    let gpu = common::gpu();
    let (_, net) = nets().swap_remove(1);
    let mut session = net.session(&gpu, DType::F16, None);
    net.step(&mut session, 0, 0);
    let before = bits(&session);
    let huge = LossScale { scale: 2f32.powi(40), good: 3, skipped: 0 };
    session.set_loss_scale(&huge).unwrap();
    net.step(&mut session, 0, 1);
    assert!(bits(&session) == before, "a step that overflowed changed something");
    let halved = LossScale { scale: 2f32.powi(39), good: 0, skipped: 1 };
    assert_eq!(session.loss_scale().unwrap().unwrap(), halved);
    // the other domain's step does not look at what that one left in the gradients
    session.set_loss_scale(&LossScale { good: GROWTH as u32 - 1, ..LossScale::default() }).unwrap();
    net.step(&mut session, 1, 2);
    assert!(bits(&session) != before, "a good step changed nothing");
    let doubled = LossScale { scale: 131072.0, good: 0, skipped: 0 };
    assert_eq!(session.loss_scale().unwrap().unwrap(), doubled);
}
