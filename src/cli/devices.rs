//! `u2seg devices`.

use super::say;
use crate::base::{Error, Result};
use crate::engine::gpu::{AdapterMemory, AdapterReport, MemorySource, adapters, no_adapter};
use crate::engine::shader::Cooperative;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let found = adapters();
    if args.json {
        let text =
            serde_json::to_string_pretty(&found).map_err(|e| Error::Internal(e.to_string()))?;
        say!("{text}");
        return Ok(());
    }
    if found.is_empty() {
        return Err(no_adapter());
    }
    for a in found {
        say!("{}: {}", a.index, a.name);
        say!("   {} {}, driver {} {}", a.device_type, a.backend, a.driver, a.driver_info);
        say!("   {}", memory(&a));
        say!(
            "   binding {} MiB, buffer {} MiB, f16 {}, subgroups {}, cooperative matrices {}, timestamps {}",
            a.max_binding_bytes >> 20,
            a.max_buffer_bytes >> 20,
            yes(a.f16),
            yes(a.subgroups),
            matrices(a.cooperative),
            yes(a.timestamps)
        );
    }
    Ok(())
}

fn memory(adapter: &AdapterReport) -> String {
    let AdapterMemory { bytes, source } = adapter.memory;
    let has = match source {
        MemorySource::Driver => say::bytes(bytes),
        MemorySource::Host => format!("{} (the machine's)", say::bytes(bytes)),
        MemorySource::Class => format!("not told, taken as {}", say::bytes(bytes)),
    };
    format!("memory {has}, of it {} for a run by default", say::bytes(adapter.budget()))
}

fn matrices(sides: Cooperative) -> String {
    let named = [("f32", sides.f32), ("f16", sides.f16)];
    let named = named.into_iter().filter(|(_, side)| *side > 0);
    let named: Vec<String> = named.map(|(of, side)| format!("{side}x{side} {of}")).collect();
    if named.is_empty() { "no".into() } else { named.join(" and ") }
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}
