//! Other implementations than the adapter at hand: a second Vulkan, what a portable device offers, and Khronos' validation layer.
//! scripts/nightly.sh takes more of each.

use std::path::Path;
use std::process::{Command, Output};

use crate::common::program;
use crate::common::program::{dataset, log, path, strs, text, train};
use u2seg::low_level::dataset::prepared::Place;
use u2seg::low_level::domain::PlanOptions;
use u2seg::low_level::gpu::{Gpu, Use};
use u2seg::low_level::ops::Optimizer;
use u2seg::low_level::run::Run;
use u2seg::low_level::train::{Length, RunConfig};

/// Weight decay as published. Without it the first gradients of a scale that the next norm undoes are rounding alone, and Adam takes
/// their sign: such weights differ between implementations by twice the rate.
const DECAY: &str = "5e-4";

/// A training of two steps, both of which are logged, with a cache of its own, elsewhere than the other tests.
fn short(data: &Path, out: &Path, more: &[&str]) -> Command {
    let more = [&["--steps", "2", "--tune", "off", "--weight-decay", DECAY], more].concat();
    let args = train(&[data], out, &more);
    let mut command = program::command(&strs(&args));
    command.env("U2SEG_CACHE", out.with_extension("cache"));
    command
}

fn done(output: Output) {
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn losses(run: &Path) -> Vec<f64> {
    log(run).into_iter().map(|(_, _, loss)| loss).collect()
}

fn assert_alike(found: &[f64], expected: &[f64]) {
    assert!(!found.is_empty() && found.len() == expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4 * expected.abs(), "{found} instead of {expected}");
    }
}

/// Chromium's SwiftShader, a Vulkan that shares no code with the one at hand, trains to the same losses, within 4 GiB.
#[cfg(target_os = "linux")]
#[test]
#[cfg_attr(
    not(swiftshader),
    ignore = "no SwiftShader: set U2SEG_SWIFTSHADER to libvk_swiftshader.so"
)]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn swiftshader_trains_alike() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    dataset(&data, "Balls", 2, 1.0);
    let library = std::env::var("U2SEG_SWIFTSHADER");
    let library = library.unwrap_or("/usr/lib/chromium/libvk_swiftshader.so".into());
    let manifest = dir.path().join("icd.json");
    let icd = serde_json::json!({"library_path": library, "api_version": "1.1.0"});
    let json = serde_json::json!({"file_format_version": "1.0.0", "ICD": icd});
    std::fs::write(&manifest, json.to_string()).unwrap();
    let (here, there) = (dir.path().join("here"), dir.path().join("there"));
    done(short(&data, &here, &[]).output().unwrap());
    let plain = short(&data, &there, &["--device", "SwiftShader"]);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -v 4194304; exec \"$@\"", "sh"]).arg(plain.get_program());
    limited.args(plain.get_args());
    for (name, value) in plain.get_envs() {
        limited.env(name, value.unwrap());
    }
    limited.env("VK_ICD_FILENAMES", &manifest).env("VK_DRIVER_FILES", &manifest);
    done(limited.output().unwrap());
    assert_alike(&losses(&there), &losses(&here));
}

/// Trains from the library and returns the losses.
fn trained(gpu: &Gpu, data: &Path, out: &Path) -> Vec<f64> {
    let mut options = PlanOptions::default();
    options.patch = Some([16; 3]);
    options.batch = Some(1);
    let config = RunConfig {
        base: 4,
        length: Length::Steps(4),
        cache: Place::Nowhere,
        optimizer: Optimizer::adam().with_decay(DECAY.parse().unwrap()),
        ..RunConfig::new(vec![data.to_path_buf()])
    };
    let mut run = Run::begin(gpu, config, &options, out, &mut ()).unwrap();
    run.train(&mut ()).unwrap();
    losses(out)
}

/// The limits that every WebGPU adapter has are enough, and lead to the same.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn the_limits_that_every_adapter_has_are_enough_to_train() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    dataset(&data, "Balls", 2, 1.0);
    let device = std::env::var("U2SEG_DEVICE").unwrap_or("auto".into());
    let of = |how, name: &str| {
        let gpu = Gpu::open_with(&device, how).unwrap();
        trained(&gpu, &data, &dir.path().join(name))
    };
    assert_alike(&of(Use::Portable, "portable"), &of(Use::All, "all"));
}

/// Errors, warnings and hazards between dispatches that Khronos' layer finds in a run.
#[test]
#[cfg_attr(not(validation_layer), ignore = "no validation layer: Debian's vulkan-validationlayers")]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn the_validation_layer_has_nothing_to_say() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    dataset(&data, "Balls", 2, 1.0);
    let said = dir.path().join("messages.txt");
    let settings = dir.path().join("vk_layer_settings.txt");
    let lines = [
        "debug_action = VK_DBG_LAYER_ACTION_LOG_MSG",
        "report_flags = error,warn,info",
        "enables = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT",
        &format!("log_filename = {}", path(&said)),
    ];
    let lines = lines.map(|line| format!("khronos_validation.{line}\n"));
    std::fs::write(&settings, lines.concat()).unwrap();
    let layered = |mut command: Command| {
        command.env("VK_INSTANCE_LAYERS", "VK_LAYER_KHRONOS_validation");
        command.env("VK_LAYER_SETTINGS_PATH", dir.path());
        done(command.output().unwrap());
    };
    // the layer makes a cache of its own, and says so where it finds none yet
    layered(short(&data, &dir.path().join("first"), &[]));
    let watched = |command: Command| {
        layered(command);
        let messages = std::fs::read_to_string(&said).unwrap();
        // it tells once what it looks for
        assert!(messages.contains("SYNCHRONIZATION_VALIDATION"), "{messages}");
        let told = messages.lines().filter(|line| line.contains("msgNum"));
        let others = told.filter(|line| !line.contains("createinstance-status-message")).count();
        assert_eq!(others, 0, "{messages}");
    };
    let run = dir.path().join("run");
    watched(short(&data, &run, &["--precision", "f16"]));
    let (model, images) = (run.join("model.safetensors"), data.join("imagesTr"));
    let (model, images, masks) = (path(&model), path(&images), dir.path().join("masks"));
    watched(program::command(&["predict", "-m", model, "-i", images, "-o", path(&masks)]));
}
