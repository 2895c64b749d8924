//! Embeds every shader: generates a table of file name and source for `src/shader`.

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
    Ok(())
}
