//! Holds the network, its gradients, losses and updates to the published network's numbers.
//!
//! Reads every `NAME.json` with `NAME.safetensors` in `U2SEG_GOLDEN` (default `../shared/golden`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use safetensors::SafeTensors;
use u2seg::low_level::gpu::Gpu;
use u2seg::low_level::graph::Region;
use u2seg::low_level::net::{DomainAdapter, DomainNet, Downsample, Mode, NetConfig};
use u2seg::low_level::ops::{LossWeights, Optimizer};
use u2seg::low_level::shader::Class;
use u2seg::low_level::train::{DomainBatch, Session, SessionSettings};

#[path = "it/common/mod.rs"]
mod common;

#[derive(serde::Deserialize)]
struct Manifest {
    mode: String,
    adapter: Option<String>,
    base_channels: usize,
    pools: [usize; 3],
    patch: [usize; 3],
    batch: usize,
    domains: Vec<Domain>,
    optimizer: Adam,
    parameters: usize,
    initial: Vec<Losses>,
    steps: Vec<Step>,
    float32_noise: Noise,
}

#[derive(serde::Deserialize)]
struct Domain {
    name: String,
    channels: usize,
    classes: usize,
}

#[derive(serde::Deserialize)]
struct Adam {
    lr: f64,
    weight_decay: f32,
    betas: [f32; 2],
    eps: f32,
}

#[derive(serde::Deserialize)]
struct Losses {
    lovasz: f64,
    focal: f64,
    total: f64,
    cross_entropy: f64,
}

#[derive(serde::Deserialize)]
struct Step {
    domain: usize,
    loss: f64,
}

#[derive(serde::Deserialize)]
struct Noise {
    logits: f64,
    gradient: f64,
    step_loss: f64,
    update: f64,
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    bytemuck::pod_collect_to_vec(file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).data())
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    norm(a.iter().zip(b).map(|(x, y)| f64::from(*x) - f64::from(*y)))
}

fn size(a: &[f32]) -> f64 {
    norm(a.iter().map(|v| f64::from(*v)))
}

/// What one (file, domain) pair showed.
struct Pair {
    line: String,
    /// Within the tight bounds of the gradient, as a whole and tensor by tensor.
    tight: bool,
    failures: Vec<String>,
}

struct File<'a> {
    name: String,
    manifest: Manifest,
    tensors: SafeTensors<'a>,
}

impl File<'_> {
    fn config(&self) -> NetConfig {
        let m = &self.manifest;
        NetConfig {
            mode: match m.mode.as_str() {
                "independent" => Mode::Independent,
                "shared" => Mode::Shared,
                "universal" => Mode::Universal,
                other => panic!("{}: mode {other}", self.name),
            },
            adapter: match m.adapter.as_deref() {
                None | Some("separable_adapter" | "separable") => DomainAdapter::Separable,
                Some("series_adapter" | "series") => DomainAdapter::Series,
                Some("parallel_adapter" | "parallel") => DomainAdapter::Parallel,
                Some(other) => panic!("{}: adapter {other}", self.name),
            },
            downsample: Downsample::Full,
            base: m.base_channels,
            domains: m
                .domains
                .iter()
                .map(|d| DomainNet {
                    name: d.name.clone(),
                    channels: d.channels,
                    classes: d.classes,
                    pools: m.pools,
                })
                .collect(),
        }
    }

    fn load(&self, session: &Session) {
        let mut count = 0;
        for stored in session.store().params() {
            let name = &stored.spec.name;
            let tensor = self.tensors.tensor(&format!("state.{name}"));
            let tensor = tensor.unwrap_or_else(|e| panic!("{}: {name}: {e}", self.name));
            assert_eq!(tensor.shape(), stored.spec.dims, "{name}");
            session
                .write(Region::Weights, name, &floats(&self.tensors, &format!("state.{name}")))
                .unwrap();
            count += stored.spec.packing.elements();
        }
        assert_eq!(count, self.manifest.parameters, "{}: parameter count", self.name);
    }

    fn batch(&self, domain: usize) -> (Vec<f32>, Vec<u8>) {
        let label = self.tensors.tensor(&format!("label.{domain}")).unwrap().data().to_vec();
        (floats(&self.tensors, &format!("image.{domain}")), label)
    }

    fn start(&self, session: &Session, domain: usize) -> Pair {
        let (image, label) = self.batch(domain);
        session.gradients(domain, &image, &label).unwrap();
        let noise = &self.manifest.float32_noise;
        let mut failures = Vec::new();
        let expected = floats(&self.tensors, &format!("logits.{domain}"));
        let logits = distance(&session.logits(domain).unwrap(), &expected) / size(&expected);
        if logits > f64::max(1e-4, 10.0 * noise.logits) {
            failures.push(format!("logits off by {logits:.1e}"));
        }
        let initial = &self.manifest.initial[domain];
        let losses = session.losses(domain).unwrap();
        let wanted = [initial.total, initial.cross_entropy, initial.focal, initial.lovasz];
        let value = |name| losses.term(name).unwrap().value;
        let found = [losses.total, value("cross_entropy"), value("focal"), value("lovasz")];
        let loss =
            found.iter().zip(wanted).map(|(f, w)| (f64::from(*f) - w).abs()).fold(0.0, f64::max);
        if loss > 1e-4 {
            failures.push(format!("start losses {found:?}, expected {wanted:?}"));
        }
        let (gradient, worst) = self.gradient(session, domain);
        if gradient > 5e-2 {
            failures.push(format!("gradient off by {gradient:.1e}"));
        }
        let tight = gradient <= f64::max(1e-3, 10.0 * noise.gradient) && worst.0 <= 1.0;
        let line = format!(
            "{} domain {domain}: logits {logits:.1e} (noise {:.1e}), start losses {loss:.1e}, gradient {gradient:.1e} (noise {:.1e}), worst tensor {} at {:.2} of its bound",
            self.name, noise.logits, noise.gradient, worst.1, worst.0
        );
        Pair { line, tight, failures }
    }

    /// Error of the whole gradient, and the worst tensor as a share of its bound.
    fn gradient(&self, session: &Session, domain: usize) -> (f64, (f64, String)) {
        let grads = session.read(Region::Grads).unwrap();
        let mut pairs = Vec::new();
        for (stored, found) in session.store().params().iter().zip(grads) {
            let name = &stored.spec.name;
            let key = format!("grad.{domain}.{name}");
            let touched = session.touched(domain).contains(&name.as_str());
            assert_eq!(touched, self.tensors.tensor(&key).is_ok(), "{key}");
            if touched {
                pairs.push((name.clone(), found, floats(&self.tensors, &key)));
            }
        }
        let error = norm(pairs.iter().map(|(_, f, e)| distance(f, e)));
        let whole = norm(pairs.iter().map(|(_, _, e)| size(e)));
        let largest = pairs.iter().map(|(_, _, e)| size(e)).fold(0.0, f64::max);
        let worst = pairs
            .iter()
            .map(|(name, f, e)| (distance(f, e) / (1e-2 * size(e) + 1e-3 * largest), name.clone()))
            .fold((0.0, String::new()), |a, b| if b.0 > a.0 { b } else { a });
        (error / whole, worst)
    }

    fn steps(&self, session: &mut Session, holds_update: bool) -> Pair {
        let m = &self.manifest;
        let mut failures = Vec::new();
        let mut worst = 0f64;
        for (index, step) in m.steps.iter().enumerate() {
            let (image, label) = self.batch(step.domain);
            session.step(step.domain, &image, &label, m.optimizer.lr).unwrap();
            let loss = f64::from(session.losses(step.domain).unwrap().total);
            worst = worst.max((loss - step.loss).abs() / step.loss.abs());
            if (loss - step.loss).abs() > f64::max(2e-3, 10.0 * m.float32_noise.step_loss) {
                failures.push(format!("step {index}: loss {loss}, expected {}", step.loss));
            }
        }
        let update = self.update(session);
        if holds_update && update > f64::max(5e-2, 10.0 * m.float32_noise.update) {
            failures.push(format!("update off by {update:.1e}"));
        }
        let line = format!(
            "{} steps: losses {worst:.1e} (noise {:.1e}), update {update:.1e} (noise {:.1e})",
            self.name, m.float32_noise.step_loss, m.float32_noise.update
        );
        Pair { line, tight: true, failures }
    }

    /// Error of `after - state` over the tensors whose gradient is more than rounding.
    fn update(&self, session: &Session) -> f64 {
        let weights = session.read(Region::Weights).unwrap();
        let mut largest = BTreeMap::new();
        for domain in 0..self.manifest.domains.len() {
            let sizes = session.store().params().iter().filter_map(|stored| {
                let key = format!("grad.{domain}.{}", stored.spec.name);
                self.tensors.tensor(&key).ok().map(|_| size(&floats(&self.tensors, &key)))
            });
            largest.insert(domain, sizes.fold(0.0, f64::max));
        }
        let (mut error, mut whole) = (Vec::new(), Vec::new());
        for (stored, found) in session.store().params().iter().zip(weights) {
            let name = &stored.spec.name;
            let counts = largest.iter().any(|(domain, largest)| {
                let key = format!("grad.{domain}.{name}");
                self.tensors.tensor(&key).is_ok()
                    && size(&floats(&self.tensors, &key)) > 1e-5 * largest
            });
            if counts {
                let after = floats(&self.tensors, &format!("after.{name}"));
                let state = floats(&self.tensors, &format!("state.{name}"));
                error.push(distance(&found, &after));
                whole.push(distance(&after, &state));
            }
        }
        norm(error.into_iter()) / norm(whole.into_iter())
    }

    fn check(&self, gpu: &Gpu) -> Vec<Pair> {
        let m = &self.manifest;
        let config = self.config();
        let batch = DomainBatch::new(m.batch, m.patch);
        let optimizer = Optimizer::Adam {
            betas: m.optimizer.betas,
            eps: m.optimizer.eps,
            weight_decay: m.optimizer.weight_decay,
        };
        let settings = SessionSettings::new(LossWeights::published(), optimizer);
        let batches = vec![batch; m.domains.len()];
        let mut session = Session::new(gpu, &config, &batches, settings).unwrap();
        self.load(&session);
        let mut pairs: Vec<Pair> =
            (0..m.domains.len()).map(|domain| self.start(&session, domain)).collect();
        self.load(&session);
        // Adam's first steps are as large for the smallest gradient as for any: one activation whose sign rounding decides, and the
        // whole update of a domain is another. With the kernels of software adapters no sign flips so.
        pairs.push(self.steps(&mut session, gpu.is_software()));
        pairs
    }
}

#[test]
#[cfg_attr(not(golden_files), ignore = "no golden files: set U2SEG_GOLDEN")]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn the_published_networks_numbers_are_reproduced() {
    let folder = common::folder("U2SEG_GOLDEN", "golden");
    let entries = std::fs::read_dir(&folder).unwrap();
    let mut manifests: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    manifests.retain(|path| path.extension().is_some_and(|e| e == "json"));
    manifests.sort();
    assert!(!manifests.is_empty(), "no manifests in {}", folder.display());
    let own = common::gpu();
    // what GPUs run, on whatever adapter is here, too
    let mut devices = vec![("", own.clone())];
    if own.is_software() {
        devices.push(("planned as for a GPU, ", own.planned_as(Class::Discrete).unwrap()));
    }
    for (how, gpu) in devices {
        hold(how, &gpu, &manifests);
    }
}

/// Holds one way of planning to all files.
fn hold(how: &str, gpu: &Gpu, manifests: &[PathBuf]) {
    let (mut failures, mut tight, mut all) = (Vec::new(), 0, 0);
    for path in manifests {
        let bytes = std::fs::read(path.with_extension("safetensors")).unwrap();
        let file = File {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            manifest: serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap(),
            tensors: SafeTensors::deserialize(&bytes).unwrap(),
        };
        let domains = file.manifest.domains.len();
        for (index, pair) in file.check(gpu).into_iter().enumerate() {
            println!("{how}{}", pair.line);
            failures.extend(pair.failures.into_iter().map(|f| format!("{}: {f}", file.name)));
            if index < domains {
                all += 1;
                tight += usize::from(pair.tight);
            }
        }
    }
    println!("{how}{tight} of {all} gradients within the tight bounds");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(tight * 4 >= all * 3, "only {tight} of {all} gradients are within the tight bounds");
}
