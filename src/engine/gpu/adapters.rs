//! Listing and choosing adapters.

use super::memory::AdapterMemory;
use crate::base::{Error, GpuFault, Result};
use crate::engine::shader::{Class, Cooperative};

/// What an adapter is and offers.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct AdapterReport {
    /// Position in [`adapters`].
    pub index: usize,
    /// As the driver says.
    pub name: String,
    /// vulkan, metal or dx12.
    pub backend: String,
    /// discrete, integrated, virtual, cpu or other.
    pub device_type: String,
    /// The driver's name.
    pub driver: String,
    /// The driver's version, as it says.
    pub driver_info: String,
    /// The maker's number and its number for the device: of PCI, where they have some.
    pub ids: [u32; 2],
    /// Bytes that one storage binding can cover.
    pub max_binding_bytes: u64,
    /// Bytes of the largest buffer.
    pub max_buffer_bytes: u64,
    /// Memory that the adapter has.
    pub memory: AdapterMemory,
    /// Whether shaders may compute in f16.
    pub f16: bool,
    /// Whether shaders may use 64-bit integers.
    pub int64: bool,
    /// Whether shaders may use subgroup operations.
    pub subgroups: bool,
    /// Invocations of every subgroup; zero where their number varies or there are none.
    pub subgroup_size: u32,
    /// Cooperative matrices that shaders may use.
    pub cooperative: Cooperative,
    /// Whether kernels can be timed on the GPU.
    pub timestamps: bool,
}

impl AdapterReport {
    /// Which of the shipped tables serves this adapter.
    pub fn class(&self) -> Class {
        class(&self.name, &self.backend, &self.device_type)
    }

    /// Whether its compiler takes the long kernels that were written for adapters on the CPU, as llvmpipe's does. SwiftShader's takes
    /// time and memory that grow much faster than a kernel's length, to minutes and gigabytes; others were not measured.
    pub fn takes_long_kernels(&self) -> bool {
        self.class() != Class::Software || self.name.contains("llvmpipe")
    }

    /// The same adapter with no more than these limits, and no feature.
    pub(super) fn portable(self, limits: &wgpu::Limits) -> Self {
        Self {
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            max_buffer_bytes: limits.max_buffer_size,
            f16: false,
            int64: false,
            subgroups: false,
            subgroup_size: 0,
            cooperative: Cooperative::default(),
            timestamps: false,
            ..self
        }
    }

    /// Bytes of memory that a program may take unless the user says otherwise: seven eighths of what the adapter has; on adapters
    /// that compute on the CPU an eighth of the machine's, at most 1 GiB.
    pub fn budget(&self) -> u64 {
        self.memory.budget()
    }
}

fn class(name: &str, backend: &str, device_type: &str) -> Class {
    match device_type {
        "cpu" => Class::Software,
        _ if backend.eq_ignore_ascii_case("metal") || name.contains("Apple") => Class::Apple,
        "integrated" => Class::Integrated,
        _ => Class::Discrete,
    }
}

fn all() -> Vec<(wgpu::Adapter, AdapterReport)> {
    let backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut adapters = pollster::block_on(instance.enumerate_adapters(backends));
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    adapters
        .into_iter()
        .enumerate()
        .map(|(index, adapter)| {
            let report = report(index, &adapter);
            (adapter, report)
        })
        .collect()
}

fn report(index: usize, adapter: &wgpu::Adapter) -> AdapterReport {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let subgroups = features.contains(wgpu::Features::SUBGROUP);
    let fixed = subgroups && info.subgroup_min_size == info.subgroup_max_size;
    let device_type = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "cpu",
        wgpu::DeviceType::Other => "other",
    };
    let backend = info.backend.to_string();
    let class = class(&info.name, &backend, device_type);
    AdapterReport {
        index,
        memory: AdapterMemory::of(adapter, class, info.device_type),
        name: info.name,
        backend,
        device_type: device_type.into(),
        driver: info.driver,
        driver_info: info.driver_info,
        ids: [info.vendor, info.device],
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        max_buffer_bytes: limits.max_buffer_size,
        f16: features.contains(wgpu::Features::SHADER_F16),
        int64: features.contains(wgpu::Features::SHADER_INT64),
        subgroups,
        subgroup_size: if fixed { info.subgroup_min_size } else { 0 },
        cooperative: cooperative(features, &adapter.cooperative_matrix_properties()),
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
    }
}

/// The largest square matrices, of those that shaders can name. They need the number of a subgroup, and f16 ones that type.
fn cooperative(
    features: wgpu::Features,
    offered: &[wgpu::CooperativeMatrixProperties],
) -> Cooperative {
    use wgpu::CooperativeScalarType::{F16, F32};
    let needed = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SUBGROUP;
    if !features.contains(needed) {
        return Cooperative::default();
    }
    let side = |factors| {
        let fits = |p: &&wgpu::CooperativeMatrixProperties| {
            let square = p.m_size == p.n_size && p.m_size == p.k_size;
            square && p.ab_type == factors && p.cr_type == F32 && !p.saturating_accumulation
        };
        let sides = offered.iter().filter(fits).map(|p| p.m_size);
        sides.filter(|side| [8, 16].contains(side)).max().unwrap_or(0)
    };
    let halves = features.contains(wgpu::Features::SHADER_F16);
    Cooperative { f32: side(F32), f16: if halves { side(F16) } else { 0 } }
}

/// Every adapter: discrete before integrated before virtual before software.
pub fn adapters() -> Vec<AdapterReport> {
    all().into_iter().map(|(_, report)| report).collect()
}

/// What to say where [`adapters`] finds none.
pub fn no_adapter() -> Error {
    Error::gpu(
        GpuFault::NoAdapter,
        "no Vulkan, Metal or DX12 device; install your GPU's driver, or a software one (Debian/Ubuntu: apt-get install mesa-vulkan-drivers)",
    )
}

pub(super) fn choose(selector: &str) -> Result<(wgpu::Adapter, AdapterReport)> {
    let mut found = all();
    if found.is_empty() {
        return Err(no_adapter());
    }
    let names: Vec<String> =
        found.iter().map(|(_, r)| format!("{}: {}", r.index, r.name)).collect();
    let position = if selector.eq_ignore_ascii_case("auto") {
        Some(0)
    } else if let Ok(index) = selector.parse::<usize>() {
        (index < found.len()).then_some(index)
    } else {
        let part = selector.to_lowercase();
        found.iter().position(|(_, r)| r.name.to_lowercase().contains(&part))
    };
    match position {
        Some(position) => Ok(found.swap_remove(position)),
        None => Err(Error::setting(
            "device",
            selector,
            "auto, a number or part of a name",
            format!("Devices here: {}", names.join(", ")),
        )),
    }
}

/// An adapter that was there before: the one of the same name at the same place, else the first of that name.
pub(super) fn again(before: &AdapterReport) -> Result<(wgpu::Adapter, AdapterReport)> {
    let same = |r: &AdapterReport| {
        (&r.name, &r.backend, &r.driver) == (&before.name, &before.backend, &before.driver)
    };
    let mut found = all();
    let place = found.iter().position(|(_, r)| same(r) && r.index == before.index);
    match place.or(found.iter().position(|(_, r)| same(r))) {
        Some(position) => Ok(found.swap_remove(position)),
        None => {
            let message = format!("{} is not there any more", before.name);
            Err(Error::gpu(GpuFault::NoAdapter, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_square_matrices_with_f32_sums_count() {
        use wgpu::CooperativeScalarType::{F16, F32, I32};
        let needed = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SUBGROUP;
        let all = needed | wgpu::Features::SHADER_F16;
        let offer = |[m, n, k]: [u32; 3], ab_type, cr_type| wgpu::CooperativeMatrixProperties {
            m_size: m,
            n_size: n,
            k_size: k,
            ab_type,
            cr_type,
            saturating_accumulation: false,
        };
        let offered = [
            offer([16, 8, 16], F16, F32),
            offer([16; 3], F16, F16),
            offer([8; 3], F16, F32),
            offer([8; 3], F32, F32),
            offer([16; 3], I32, I32),
        ];
        assert_eq!(cooperative(all, &offered), Cooperative { f32: 8, f16: 8 });
        let more = [&offered[..], &[offer([16; 3], F16, F32)]].concat();
        assert_eq!(cooperative(all, &more), Cooperative { f32: 8, f16: 16 });
        assert_eq!(cooperative(needed, &more), Cooperative { f32: 8, f16: 0 });
        let without = all - wgpu::Features::SUBGROUP;
        assert_eq!(cooperative(without, &more), Cooperative::default());
        assert_eq!(cooperative(all, &[]), Cooperative::default());
    }
}
