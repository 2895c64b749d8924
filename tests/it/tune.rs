//! Tuning from the command line: the cache, the record of a run, and going on with other kernels in the cache.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::common::program;
use crate::common::program::{dataset, path, strs, text, train, weights};
use u2seg::low_level::exec::caps;
use u2seg::low_level::gpu::{Gpu, Use};
use u2seg::low_level::graph::Caps;

/// Trains with a cache folder of its own.
fn run(data: &Path, out: &Path, cache: &Path, more: &[&str]) -> Output {
    let args = train(&[data], out, more);
    let output = program::command(&strs(&args)).env("U2SEG_CACHE", cache).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    output
}

fn variants(file: &Path) -> BTreeMap<String, String> {
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    serde_json::from_value(json["variants"].clone()).unwrap()
}

fn record(out: &Path) -> BTreeMap<String, String> {
    variants(&out.join("tuning.json"))
}

fn cached(cache: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> = std::fs::read_dir(cache.join("tuning"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.pop().unwrap()
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn what_was_found_is_kept_and_a_damaged_cache_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let (data, cache) = (dir.path().join("data"), dir.path().join("cache"));
    dataset(&data, "Balls", 3, 120.0);
    let out = |name: &str| dir.path().join(name);
    run(&data, &out("off"), &cache, &["--steps", "1", "--tune", "off"]);
    assert!(!cache.join("tuning").exists());
    let output = run(&data, &out("quick"), &cache, &["--steps", "1", "--tune", "quick"]);
    let told = text(&output.stderr);
    let line = told.lines().find(|line| line.starts_with("tuning: ")).expect(&told);
    assert!(line.contains(" shapes timed in ") && line.contains(" % less)"), "{line}");
    let found = variants(&cached(&cache));
    assert!(!found.is_empty());
    let off = record(&out("off"));
    let quick = record(&out("quick"));
    for (site, variant) in &off {
        assert_eq!(&quick[site], found.get(site).unwrap_or(variant), "{site}");
    }
    let output = run(&data, &out("cached"), &cache, &["--steps", "1"]);
    assert!(!text(&output.stderr).contains("tuning: "), "nothing is timed");
    assert_eq!(record(&out("cached")), quick);
    let file = cached(&cache);
    std::fs::write(&file, "{ \"adapter\": ").unwrap();
    let output = run(&data, &out("damaged"), &cache, &["--steps", "1"]);
    assert!(text(&output.stderr).contains(path(&file)), "{}", text(&output.stderr));
    assert_eq!(record(&out("damaged")), off);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_run_goes_on_bit_for_bit_with_the_kernels_that_it_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let (data, cache) = (dir.path().join("data"), dir.path().join("cache"));
    dataset(&data, "Balls", 3, 120.0);
    let (whole, parted) = (dir.path().join("whole"), dir.path().join("parted"));
    run(&data, &whole, &cache, &["--steps", "1", "--tune", "quick"]);
    // the cache as another adapter's: other variants of the norms, which add up in another order
    let file = cached(&cache);
    let mut json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for (site, variant) in record(&whole) {
        let other = match site.split(' ').next() {
            Some("norm_stats" | "norm_grad") if variant.starts_with("lanes") => {
                variant.replace("lanes", "tree")
            }
            Some("norm_stats" | "norm_grad") => variant.replace("tree WG=256", "tree WG=64"),
            _ => variant,
        };
        json["variants"][site] = other.into();
    }
    std::fs::write(&file, json.to_string()).unwrap();
    run(&data, &parted, &cache, &["--steps", "4"]);
    let began = record(&parted);
    assert_ne!(began, record(&whole));
    let first = weights(&parted);
    // as if the run was stopped after its start: without a checkpoint it begins again, with the kernels that it began with
    for file in ["last.safetensors", "model.safetensors", "log.jsonl"] {
        std::fs::remove_file(parted.join(file)).unwrap();
    }
    std::fs::remove_dir_all(&cache).unwrap();
    let args = ["train", "--continue", "--out", path(&parted)];
    let output = program::command(&args).env("U2SEG_CACHE", &cache).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(record(&parted), began);
    assert!(weights(&parted) == first, "the weights differ");
}

/// On the adapter at hand every kernel is as it should be, with all that it offers and with what every adapter has; each row of the
/// summary names a kernel, and the report what an issue needs.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn the_doctor_finds_the_adapter_well() {
    let device = std::env::var("U2SEG_DEVICE").unwrap_or("auto".into());
    let args = ["doctor", "--quick", "--device", &device];
    let output = program::command(&args).output().unwrap();
    let table = text(&output.stdout);
    assert!(output.status.success(), "{table}{}", text(&output.stderr));
    for kernel in ["conv.wgsl", "norm_stats_whole.wgsl", "radix_scatter.wgsl", "adam.wgsl"] {
        assert!(table.contains(kernel), "{kernel}: {table}");
    }
    assert!(table.contains(" 0 failed"), "{table}");
    let (_, report) = table.rsplit_once("Report, for an issue:\n```").expect("a report");
    let version = format!("u2seg {}", env!("CARGO_PKG_VERSION"));
    for part in
        [&version, "wgpu 30", "driver: ", "max_buffer_size ", "features: ", "checks, 0 failed"]
    {
        assert!(report.contains(part), "{part}: {report}");
    }
}

/// A device with the limits that every WebGPU adapter has, and no feature, is what the doctor examines then.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_portable_device_has_only_what_every_adapter_has() {
    let device = std::env::var("U2SEG_DEVICE").unwrap_or("auto".into());
    let gpu = Gpu::open_with(&device, Use::Portable).unwrap();
    let caps = caps(&gpu);
    let expected = Caps {
        memory: caps.memory,
        class: caps.class,
        software: caps.software,
        short_kernels: caps.short_kernels,
        tuning: caps.tuning.clone(),
        ..Caps::default()
    };
    assert_eq!(caps, expected);
    assert!(gpu.device().features().is_empty());
}
