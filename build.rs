//! Embeds every shader: generates a table of file name and source for `src/shader`. Tells the tests which of them can run, so
//! that the others are ignored by name.

use std::fmt::Write;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=shaders");
    let root = std::env::var("CARGO_MANIFEST_DIR")?;
    let mut names: Vec<String> = std::fs::read_dir(Path::new(&root).join("shaders"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".wgsl"))
        .collect();
    names.sort();
    let mut table = String::from("&[\n");
    for name in names {
        writeln!(table, "    ({name:?}, include_str!({:?})),", format!("{root}/shaders/{name}"))?;
    }
    table.push_str("]\n");
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("shaders.rs"), table)?;
    for (name, variable, default) in
        [("real_images", "U2SEG_DATA", "data"), ("golden_files", "U2SEG_GOLDEN", "golden")]
    {
        let folder = std::env::var_os(variable)
            .map_or_else(|| Path::new(&root).join("../shared").join(default), Into::into);
        switch(name, variable, folder.is_dir());
    }
    let python = std::env::var("U2SEG_PYTHON").unwrap_or("python3".into());
    for (name, code) in [
        ("python", "import numpy, safetensors.numpy"),
        ("pytorch", "import numpy, safetensors.torch"),
    ] {
        let run = std::process::Command::new(&python).args(["-c", code]).output();
        switch(name, "U2SEG_PYTHON", run.is_ok_and(|output| output.status.success()));
    }
    switch("without_gpu", "U2SEG_NO_GPU", std::env::var("U2SEG_NO_GPU").is_ok_and(|v| v == "1"));
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
