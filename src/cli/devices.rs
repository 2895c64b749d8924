//! `u2seg devices`.

use super::flags::Given;
use super::say::{self, print_json};
use crate::base::Result;
use crate::engine::gpu::{AdapterMemory, AdapterReport, MemorySource, adapters, no_adapter};
use crate::engine::shader::Cooperative;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg devices
  u2seg devices -v        # with drivers, limits and features
  u2seg devices --json")]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, given: &Given) -> Result<()> {
    let found = adapters();
    if args.json {
        return print_json(&found);
    }
    if found.is_empty() {
        return Err(no_adapter());
    }
    for (place, device) in found.iter().enumerate() {
        // `auto` takes the first: discrete before integrated before software
        let auto = if place == 0 { ", the one that auto takes" } else { "" };
        let class = if device.device_type == "cpu" { "software" } else { &device.device_type };
        say!("{}: {} ({class}{auto})", device.index, device.name);
        say!("   {}", memory(device));
        if device.device_type == "cpu" {
            say!("   computes on the CPU: right, but slow; for tests and small work");
        }
        if given.verbose {
            details(device)?;
        }
    }
    Ok(())
}

/// Driver, limits and features.
fn details(device: &AdapterReport) -> Result<()> {
    say!("   {}, driver {} {}", device.backend, device.driver, device.driver_info);
    say!(
        "   largest binding {}, largest buffer {}",
        say::bytes(device.max_binding_bytes),
        say::bytes(device.max_buffer_bytes)
    );
    say!(
        "   f16 {}, subgroups {}, cooperative matrices {}, timestamps {}",
        yes(device.f16),
        yes(device.subgroups),
        matrices(device.cooperative),
        yes(device.timestamps)
    );
    Ok(())
}

fn memory(device: &AdapterReport) -> String {
    let AdapterMemory { bytes, source } = device.memory;
    let has = match source {
        MemorySource::Driver => say::bytes(bytes),
        MemorySource::Host => format!("{} (the machine's)", say::bytes(bytes)),
        MemorySource::Class => format!("unknown, taken to be {}", say::bytes(bytes)),
    };
    format!("memory {has}; a run takes at most {} by default", say::bytes(device.budget()))
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
