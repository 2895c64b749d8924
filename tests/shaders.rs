//! Every shader is valid alone, on every backend, and within the portable limits; and so is every kernel that plans ask for.

#[path = "common/nets.rs"]
mod nets;

use std::collections::BTreeSet;

use rayon::prelude::*;
use u2seg::shader::{KernelKey, source, sources, validate};

fn check(keys: Vec<KernelKey>) {
    let failures: Vec<String> = keys
        .into_par_iter()
        .filter_map(|key| validate(&key).err().map(|error| format!("{key:?}: {error}")))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_shader_is_valid_at_its_defaults() {
    let keys = sources().iter().map(|(file, _)| KernelKey::new(file));
    check(keys.flat_map(|key| [key.clone().wide(true), key]).collect());
}

#[test]
fn every_kernel_that_plans_ask_for_is_valid() {
    let planned: Vec<_> =
        nets::all().into_iter().chain(nets::targeted()).chain(nets::variants()).collect();
    let keys: BTreeSet<KernelKey> = planned
        .iter()
        .flat_map(|p| p.plan.dispatches().chain(&p.tail))
        .map(|dispatch| dispatch.kernel.clone())
        .chain(u2seg::train::patch_kernels())
        .collect();
    println!("{} kernels of {} plans", keys.len(), planned.len());
    let used: BTreeSet<&str> = keys.iter().map(|key| key.file).collect();
    for (file, _) in sources().iter().filter(|(file, _)| !file.starts_with("bench_")) {
        assert!(used.contains(file), "{file} is in no plan");
    }
    check(keys.into_iter().collect());
}

/// A header says what a kernel computes and what it binds.
#[test]
fn every_shader_has_a_header() {
    for (file, _) in sources() {
        let text = source(file).unwrap();
        let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("//")).collect();
        assert!(header.len() >= 2, "{file}: a header with the formula and the bindings");
    }
}
