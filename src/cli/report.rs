//! What a report of a fault must say of where it happened.

use std::collections::BTreeMap;
use std::fmt;

use crate::base::host;
use crate::engine::gpu::{AdapterReport, Gpu};

/// Versions, system, adapter, and what the device was given of it.
#[derive(Debug, serde::Serialize)]
pub struct Report {
    /// Of this program, and of what talks to the GPU.
    versions: BTreeMap<&'static str, &'static str>,
    system: String,
    adapter: AdapterReport,
    /// Of the device, as wgpu names them.
    features: Vec<String>,
    /// Of the device, as wgpu names them.
    limits: BTreeMap<String, String>,
}

impl Report {
    /// Of an open device.
    pub fn of(gpu: &Gpu) -> Self {
        let versions = [
            ("u2seg", env!("CARGO_PKG_VERSION")),
            ("wgpu", env!("U2SEG_WGPU_VERSION")),
            ("naga", env!("U2SEG_NAGA_VERSION")),
        ];
        // wgpu has no list of its limits but this
        let limits = format!("{:#?}", gpu.limits());
        let limits =
            limits.lines().filter_map(|line| line.trim().trim_end_matches(',').split_once(": "));
        Self {
            versions: versions.into(),
            system: host::system(),
            adapter: gpu.report().clone(),
            features: gpu.device().features().iter_names().map(|(name, _)| name.into()).collect(),
            limits: limits.map(|(name, value)| (name.into(), value.into())).collect(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { versions, system, adapter: a, features, limits } = self;
        let versions: Vec<String> = versions.iter().map(|(of, v)| format!("{of} {v}")).collect();
        writeln!(f, "versions: {}", versions.join(", "))?;
        writeln!(f, "system: {system}")?;
        let [maker, device] = a.ids;
        writeln!(f, "device: {} ({}, {maker:04x}:{device:04x})", a.name, a.device_type)?;
        writeln!(f, "driver: {} {} {}", a.backend, a.driver, a.driver_info)?;
        writeln!(f, "memory: {} MiB, as told by {:?}", a.memory.bytes >> 20, a.memory.source)?;
        let features = if features.is_empty() { "none".into() } else { features.join(", ") };
        writeln!(f, "features: {features}")?;
        let subgroups = (a.subgroup_size > 0).then(|| a.subgroup_size.to_string());
        writeln!(f, "subgroups of {}", subgroups.as_deref().unwrap_or("no fixed size"))?;
        let limits: Vec<String> = limits.iter().map(|(of, v)| format!("{of} {v}")).collect();
        write!(f, "limits: {}", limits.join(", "))
    }
}
