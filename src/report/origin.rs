//! How something came about: which command made it, with which versions, on which device.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::page::Pair;
use crate::base::host;
use crate::engine::gpu::Gpu;

/// When, by what and on what something is computed, as files keep it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// When it began, in UTC.
    pub began: String,
    /// The command as a shell takes it; none where no command asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The folder that it ran in, to which paths of the command are relative.
    pub folder: String,
    /// Of this program, and of what talks to the GPU.
    pub versions: BTreeMap<String, String>,
    /// The system, its kernel and the processor's kind.
    pub system: String,
    /// What computed it.
    pub device: Device,
}

/// A device, as its driver says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// discrete, integrated, virtual, cpu or other.
    pub kind: String,
    /// vulkan, metal or dx12.
    pub backend: String,
    /// The driver and its version.
    pub driver: String,
    /// Bytes of its memory.
    pub memory: u64,
}

impl Origin {
    /// Of work that begins now on a device, asked for by a command if by any.
    pub fn of(gpu: &Gpu, command: Option<String>) -> Self {
        let report = gpu.report();
        let versions = [
            ("u2seg", env!("CARGO_PKG_VERSION")),
            ("wgpu", env!("U2SEG_WGPU_VERSION")),
            ("naga", env!("U2SEG_NAGA_VERSION")),
        ];
        let folder = std::env::current_dir().unwrap_or_default();
        Self {
            began: host::now(),
            command,
            folder: folder.display().to_string(),
            versions: versions.map(|(of, version)| (of.into(), version.into())).into(),
            system: host::system(),
            device: Device {
                name: report.name.clone(),
                kind: report.device_type.clone(),
                backend: report.backend.clone(),
                driver: format!("{} {}", report.driver, report.driver_info).trim().into(),
                memory: report.memory.bytes,
            },
        }
    }

    /// Versions, system and device for a page.
    pub fn pairs(&self) -> Vec<Pair> {
        let Device { name, kind, backend, driver, memory } = &self.device;
        let versions: Vec<String> =
            self.versions.iter().map(|(of, version)| format!("{of} {version}")).collect();
        vec![
            Pair::new("Versions", versions.join(", ")),
            Pair::new("System", &self.system),
            Pair::new("Device", format!("{name} ({kind}, {backend})")),
            Pair::new("Driver", driver),
            Pair::new("Device memory", bytes(*memory)),
        ]
    }

    /// The command for a page, with where and when it ran.
    pub fn told(&self) -> Option<Pair> {
        let command = self.command.as_ref()?;
        Some(Pair::new(format!("{}, in {}", self.began, self.folder), command))
    }
}

/// Bytes in the unit that reads best.
pub fn bytes(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    match mib {
        ..0.95 => format!("{} KiB", bytes.div_ceil(1 << 10)),
        0.95..1000.0 => format!("{mib:.0} MiB"),
        _ => format!("{:.2} GiB", mib / 1024.0),
    }
}
