//! Every shader is valid alone, on every backend, and within the portable limits; and so is every kernel that plans ask for.

use std::collections::BTreeSet;
use std::process::Command;

use crate::common::nets;
use rayon::prelude::*;
use u2seg::low_level::shader::{
    KernelKey, needs, shared, source, sources, spirv, validate, vulkan_options,
};

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
    let keys = nets::kernels();
    println!("{} kernels", keys.len());
    let used: BTreeSet<&str> = keys.iter().map(|key| key.file).collect();
    for (file, _) in sources().iter().filter(|(file, _)| !file.starts_with("bench_")) {
        assert!(used.contains(file), "{file} is in no plan");
    }
    check(keys.into_iter().collect());
}

/// What Khronos' own validator says of a kernel as an adapter gets it.
fn complaint(key: &KernelKey, newest: bool) -> Option<String> {
    let code = spirv(key, &vulkan_options(newest)).unwrap();
    let target = if newest { "vulkan1.3" } else { "vulkan1.1" };
    let program = std::env::var("U2SEG_SPIRV_VAL").unwrap_or("spirv-val".into());
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    std::fs::write(file.path(), bytes).unwrap();
    let output = Command::new(program).args(["--target-env", target]).arg(file.path()).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    let valid = output.status.success() && said.trim().is_empty();
    (!valid).then(|| format!("{key:?} for {target}: {said}"))
}

/// Each as for the newest adapters, each file at its defaults as for older ones. Cooperative matrices are newer than the validator
/// of some distributions.
#[test]
#[cfg_attr(not(spirv_val), ignore = "no spirv-val: set U2SEG_SPIRV_VAL")]
fn every_kernel_is_valid_spirv() {
    let plain = sources().iter().map(|(file, _)| (KernelKey::new(file), false));
    let all = nets::kernels().into_iter().map(|key| (key, true)).chain(plain);
    let ways: Vec<(KernelKey, bool)> =
        all.filter(|(key, _)| !needs(key).unwrap().cooperative).collect();
    println!("{} modules", ways.len());
    let complaints: Vec<String> =
        ways.into_par_iter().filter_map(|(key, newest)| complaint(&key, newest)).collect();
    assert!(complaints.is_empty(), "{} complaints\n{}", complaints.len(), complaints.join("\n"));
}

/// A header says what a kernel computes and what it binds, or what a shared file asks for.
#[test]
fn every_shader_has_a_header() {
    for (file, text) in sources() {
        assert_eq!(source(file).unwrap(), *text);
    }
    for (file, text) in sources().iter().chain(shared()) {
        let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("//")).collect();
        assert!(header.len() >= 2, "{file}: a header with the formula and the bindings");
    }
}

/// What is shared serves at least two kernels, and says what it asks of them.
#[test]
fn shared_files_are_shared() {
    let imports = |text: &str, name: &str| {
        let line = format!("// import {name}");
        text.lines().any(|other| other == line)
    };
    for (file, text) in shared() {
        let name = file.strip_suffix(".wgsl").unwrap();
        let all = sources().iter().chain(shared());
        let users = all.filter(|(_, text)| imports(text, name)).count();
        assert!(users >= 2, "{file} is imported {users} times");
        assert!(text.contains("\n// Asks "), "{file}: what it asks of the importing file");
    }
}
