//! Embeds every shader: generates tables of file name and source for `src/shader`, one of kernels and one of what they import.
//! Tells the tests which of them can run, so that the others are ignored by name, and the program which versions of wgpu and naga
//! it stands on.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    println!("cargo::rerun-if-changed=shaders");
    let root = std::env::var("CARGO_MANIFEST_DIR")?;
    versions(&Path::new(&root).join("Cargo.lock"))?;
    commit(Path::new(&root))?;
    embed(&Path::new(&root).join("shaders"), Path::new(&std::env::var("OUT_DIR")?))?;
    for (name, variable, default) in
        [("real_images", "U2SEG_DATA", "data"), ("golden_files", "U2SEG_GOLDEN", "golden")]
    {
        let folder = std::env::var_os(variable)
            .map_or_else(|| Path::new(&root).join("../shared").join(default), Into::into);
        switch(name, variable, folder.is_dir());
    }
    let python = std::env::var("U2SEG_PYTHON").unwrap_or("python3".into());
    for (name, code) in [
        ("bare_python", "import json"),
        ("python", "import numpy, safetensors.numpy"),
        ("pytorch", "import numpy, safetensors.torch"),
    ] {
        let run = std::process::Command::new(&python).args(["-c", code]).output();
        switch(name, "U2SEG_PYTHON", run.is_ok_and(|output| output.status.success()));
    }
    let chromium = std::env::var("U2SEG_CHROMIUM").unwrap_or("chromium".into());
    let run = std::process::Command::new(chromium).arg("--version").output();
    switch("chromium", "U2SEG_CHROMIUM", run.is_ok_and(|output| output.status.success()));
    let spirv_val = std::env::var("U2SEG_SPIRV_VAL").unwrap_or("spirv-val".into());
    let run = std::process::Command::new(spirv_val).arg("--version").output();
    switch("spirv_val", "U2SEG_SPIRV_VAL", run.is_ok_and(|output| output.status.success()));
    for (name, variable, default) in [
        ("swiftshader", "U2SEG_SWIFTSHADER", "/usr/lib/chromium/libvk_swiftshader.so"),
        (
            "validation_layer",
            "U2SEG_VALIDATION_LAYER",
            "/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json",
        ),
    ] {
        let file = std::env::var(variable).unwrap_or(default.into());
        switch(name, variable, Path::new(&file).is_file());
    }
    switch("without_gpu", "U2SEG_NO_GPU", std::env::var("U2SEG_NO_GPU").is_ok_and(|v| v == "1"));
    Ok(())
}

/// The versions of what talks to the GPU, for reports; unknown where this is built without its own lock file.
fn versions(lock: &Path) -> Outcome<()> {
    println!("cargo::rerun-if-changed={}", lock.display());
    let text = if lock.exists() { std::fs::read_to_string(lock)? } else { String::new() };
    for (name, variable) in [("wgpu", "U2SEG_WGPU_VERSION"), ("naga", "U2SEG_NAGA_VERSION")] {
        let entry = format!("name = \"{name}\"\nversion = \"");
        let found = text.replace("\r\n", "\n");
        let found = found.split_once(&entry).and_then(|(_, rest)| rest.split('"').next());
        println!("cargo::rustc-env={variable}={}", found.unwrap_or("of an unknown version"));
    }
    Ok(())
}

/// The commit that a clone was built at first, or that a package of cargo was made of; unknown elsewhere.
fn commit(root: &Path) -> Outcome<()> {
    let git = |words: &[&str]| {
        let output =
            std::process::Command::new("git").current_dir(root).args(words).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_string();
        Some(text).filter(|_| output.status.success())
    };
    let packaged = root.join(".cargo_vcs_info.json");
    let commit = if packaged.exists() {
        println!("cargo::rerun-if-changed={}", packaged.display());
        let text = std::fs::read_to_string(packaged)?;
        text.split_once("\"sha1\": \"").and_then(|(_, rest)| rest.get(..10)).map(String::from)
    } else if git(&["rev-parse", "--show-prefix"]).is_some_and(|prefix| prefix.is_empty()) {
        // of the first build of a branch: to build everything anew at each commit would cost more than it tells
        if let Some(head) = git(&["rev-parse", "--git-path", "HEAD"]) {
            println!("cargo::rerun-if-changed={}", root.join(head).display());
        }
        git(&["rev-parse", "--short=10", "HEAD"])
    } else {
        None
    };
    println!("cargo::rustc-env=U2SEG_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
    Ok(())
}

/// Writes both tables. Kernels are named by their files alone, so no two files in all folders may share a name.
fn embed(folder: &Path, out: &Path) -> Outcome<()> {
    let mut files = BTreeMap::new();
    collect(folder, &mut files)?;
    let (mut kernels, mut shared) = (String::new(), String::new());
    for (name, path) in &files {
        let is_shared = path.parent().is_some_and(|parent| parent.ends_with("shared"));
        let table = if is_shared { &mut shared } else { &mut kernels };
        writeln!(table, "    ({name:?}, include_str!({path:?})),")?;
    }
    std::fs::write(out.join("shaders.rs"), format!("&[\n{kernels}]\n"))?;
    std::fs::write(out.join("shared.rs"), format!("&[\n{shared}]\n"))?;
    Ok(())
}

fn collect(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Outcome<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|ending| ending == "wgsl") {
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| format!("{}: not a name in UTF-8", path.display()))?;
            if let Some(other) = files.insert(name.into(), path.clone()) {
                let (path, other) = (path.display(), other.display());
                return Err(format!("{path} and {other}: one name for two shaders").into());
            }
        }
    }
    Ok(())
}

/// A `cfg` for tests that follows an environment variable.
fn switch(name: &str, variable: &str, on: bool) {
    println!("cargo::rerun-if-env-changed={variable}");
    println!("cargo::rustc-check-cfg=cfg({name})");
    if on {
        println!("cargo::rustc-cfg={name}");
    }
}
