//! Times the 3D U²-Net in burn on configurations of `u2seg bench`: same network, loss, batch, patch and optimizer.
//!
//! Prints one JSON object a line, as `torch_u2net.py` does: configuration, variant, the median milliseconds of a
//! forward pass without gradients and of a training step (cross-entropy, Adam), each synchronised, and the loss before
//! the first update and before the last. Weights, image and labels are those of `torch_u2net.py --weights fixed`, so
//! that the losses of both can be compared.

mod net;

use std::time::Instant;

use burn::optim::{AdamConfig, GradientsParams, decay::WeightDecayConfig};
use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use burn::tensor::{DeviceKind, Int, Tensor, TensorData};
use net::{Shape, U2Net};

const USAGE: &str = "usage: burn_u2net [--config hippo|hippo-plain|cube64]... [--device wgpu|flex] [--repeats N]";

/// A configuration of `u2seg bench`.
struct Configuration {
    name: &'static str,
    net: Shape,
    batch: usize,
    patch: [usize; 3],
}

fn configuration(name: &str) -> Option<Configuration> {
    let of = |name, universal, classes, pools, patch| {
        let net = Shape { universal, classes, pools };
        Some(Configuration { name, net, batch: 2, patch })
    };
    match name {
        "hippo" => of("hippo", true, 3, [3; 3], [40, 56, 40]),
        "hippo-plain" => of("hippo-plain", false, 3, [3; 3], [40, 56, 40]),
        "cube64" => of("cube64", true, 2, [4; 3], [64; 3]),
        _ => None,
    }
}

struct Args {
    configurations: Vec<Configuration>,
    device: String,
    repeats: usize,
}

fn arguments() -> Result<Args, String> {
    let (mut configurations, mut device, mut repeats) = (Vec::new(), "wgpu".to_string(), 5);
    let mut words = std::env::args().skip(1).peekable();
    while let Some(flag) = words.next() {
        match flag.as_str() {
            "--config" => {
                while let Some(name) = words.next_if(|word| !word.starts_with("--")) {
                    configurations
                        .push(configuration(&name).ok_or(format!("no configuration {name}"))?);
                }
            }
            "--device" => device = words.next().ok_or("--device needs a name")?,
            "--repeats" => {
                let count = words.next().and_then(|word| word.parse().ok()).filter(|n| *n > 0);
                repeats = count.ok_or("--repeats needs a positive number")?;
            }
            _ => return Err(format!("unknown argument {flag}")),
        }
    }
    if configurations.is_empty() {
        configurations.extend(configuration("hippo"));
    }
    Ok(Args { configurations, device, repeats })
}

fn open(name: &str) -> Result<Device, String> {
    match name {
        "wgpu" => Ok(Device::wgpu(DeviceKind::DefaultDevice)),
        "flex" => Ok(Device::flex()),
        _ => Err(format!("no device {name}")),
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let half = times.len() / 2;
    if times.len() % 2 == 1 { times[half] } else { (times[half - 1] + times[half]) / 2.0 }
}

/// Images and labels of `u2seg bench`.
fn data(c: &Configuration, device: &Device) -> (Tensor<5>, Tensor<5, Int>) {
    let [d, h, w] = c.patch;
    let voxels = c.batch * d * h * w;
    let image: Vec<f32> = (0..voxels).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
    let labels: Vec<i32> = (0..voxels).map(|i| (i / 97 % c.net.classes) as i32).collect();
    let shape = [c.batch, 1, d, h, w];
    (
        Tensor::from_data(TensorData::new(image, shape), device),
        Tensor::from_data(TensorData::new(labels, shape), device),
    )
}

fn cross_entropy(logits: Tensor<5>, labels: Tensor<5, Int>) -> Tensor<1> {
    log_softmax(logits, 1).gather(1, labels).mean().neg()
}

/// Milliseconds of a call that ends when the device has done its work.
fn time<T>(device: &Device, call: impl FnOnce() -> T) -> Result<(f64, T), String> {
    let start = Instant::now();
    let value = call();
    device.sync().map_err(|e| e.to_string())?;
    Ok((start.elapsed().as_secs_f64() * 1e3, value))
}

fn measure(c: &Configuration, args: &Args) -> Result<serde_json::Value, String> {
    let plain = open(&args.device)?;
    let device = plain.clone().autodiff();
    let (image, labels) = data(c, &device);
    let mut net = U2Net::new(&c.net, &device);
    let parameters = net.num_params();
    let decay = WeightDecayConfig { penalty: 5e-4 };
    let mut optimizer =
        AdamConfig::new().with_epsilon(1e-8).with_weight_decay(Some(decay)).init();
    let (mut steps, mut losses) = (Vec::new(), Vec::new());
    for index in 0..args.repeats + 2 {
        let (ms, (next, loss)) = time(&device, || {
            let loss = cross_entropy(net.forward(image.clone()), labels.clone());
            let grads = GradientsParams::from_grads(loss.backward(), &net);
            (optimizer.step(1e-3, net, grads), loss)
        })?;
        net = next;
        losses.push(loss.into_scalar::<f32>());
        eprintln!("step {index}: {ms:.0} ms, loss {:.6}", losses[index]);
        steps.push(ms);
    }
    let start_s = steps[0] / 1e3;
    let net = U2Net::new(&c.net, &plain);
    let (image, _) = data(c, &plain);
    let mut forwards = Vec::new();
    for _ in 0..args.repeats + 2 {
        forwards.push(time(&plain, || net.forward(image.clone()))?.0);
    }
    Ok(serde_json::json!({
        "config": c.name,
        "variant": format!("burn 0.22.1 {}", args.device),
        "parameters": parameters,
        "step_ms": median(steps.split_off(2)),
        "forward_ms": median(forwards.split_off(2)),
        "start_s": start_s,
        "loss": losses.first(),
        "last_loss": losses.last(),
    }))
}

fn main() {
    let done = arguments().map_err(|error| format!("{error}\n{USAGE}")).and_then(|args| {
        for configuration in &args.configurations {
            println!("{}", measure(configuration, &args)?);
        }
        Ok(())
    });
    if let Err(error) = done {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
