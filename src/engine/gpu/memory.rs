//! How much memory an adapter has: asked of its backend through wgpu's own access to it, else told by its class. What is unsafe
//! about asking stands here alone.

use crate::base::host;
use crate::engine::shader::Class;

/// Where a figure of an adapter's memory comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MemorySource {
    /// Vulkan's heaps, Metal's recommended working set, DXGI's budget; at most half of the machine's where the adapter shares it.
    Driver,
    /// The machine's own, which an adapter on the CPU uses.
    Host,
    /// What an adapter of this class has at least, where the driver does not say.
    Class,
}

/// Memory of an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct AdapterMemory {
    /// Bytes that the adapter has.
    pub bytes: u64,
    /// Where the figure comes from.
    pub source: MemorySource,
}

/// What an adapter has where nothing tells: few that train are smaller.
const LEAST_DISCRETE: u64 = 4 << 30;
const LEAST_SHARED: u64 = 2 << 30;
/// What an adapter on the CPU takes by default: it shares the machine's memory with the program's own data and all else.
const MOST_SOFTWARE: u64 = 1 << 30;

impl AdapterMemory {
    /// What the adapter has, of a class, on this machine.
    pub(super) fn of(adapter: &wgpu::Adapter, class: Class, device_type: wgpu::DeviceType) -> Self {
        let shared = device_type == wgpu::DeviceType::IntegratedGpu;
        let host = host::memory();
        if class == Class::Software {
            return Self { bytes: host, source: MemorySource::Host };
        }
        match asked(adapter, shared).filter(|bytes| *bytes > 0) {
            Some(bytes) if shared && host > 0 && class != Class::Apple => {
                Self { bytes: bytes.min(host / 2), source: MemorySource::Driver }
            }
            Some(bytes) => Self { bytes, source: MemorySource::Driver },
            None if class == Class::Discrete => {
                Self { bytes: LEAST_DISCRETE, source: MemorySource::Class }
            }
            None => Self { bytes: LEAST_SHARED, source: MemorySource::Class },
        }
    }

    /// Bytes that a program may take unless the user says otherwise: seven eighths, since drivers, desktops and the gaps between
    /// buffers take some, too. On the CPU an eighth of the machine's memory, at most 1 GiB.
    pub(super) fn budget(self) -> u64 {
        match self.source {
            MemorySource::Host => (self.bytes / 8).min(MOST_SOFTWARE),
            MemorySource::Driver | MemorySource::Class => self.bytes / 8 * 7,
        }
    }
}

/// What the backend says; none where it says nothing. `shared` adapters use the machine's memory.
#[cfg(windows)]
fn asked(adapter: &wgpu::Adapter, shared: bool) -> Option<u64> {
    vulkan(adapter, shared).or_else(|| dx12(adapter, shared))
}

/// What the backend says; none where it says nothing. `shared` adapters use the machine's memory.
#[cfg(not(any(windows, target_vendor = "apple")))]
fn asked(adapter: &wgpu::Adapter, shared: bool) -> Option<u64> {
    vulkan(adapter, shared)
}

/// What Metal recommends to keep on the device at once, which knows what the machine has.
#[cfg(target_vendor = "apple")]
#[allow(unsafe_code)]
fn asked(adapter: &wgpu::Adapter, _shared: bool) -> Option<u64> {
    use objc2_metal::MTLDevice;
    // SAFETY: the guard is only read from, destroys nothing and is dropped at the end of this function.
    let raw = unsafe { adapter.as_hal::<wgpu::hal::api::Metal>() }?;
    Some(raw.raw_device().recommendedMaxWorkingSetSize())
}

/// The largest heap: of those on the device, unless the adapter is a shared one, whose own heap may be a small window.
#[cfg(not(target_vendor = "apple"))]
#[allow(unsafe_code)]
fn vulkan(adapter: &wgpu::Adapter, shared: bool) -> Option<u64> {
    // SAFETY: the guard is only read from, destroys nothing and is dropped at the end of this function.
    let raw = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = raw.shared_instance().raw_instance();
    // SAFETY: the physical device is of this instance; both live as long as the guard. The call is in Vulkan 1.0 and changes nothing.
    let memory =
        unsafe { instance.get_physical_device_memory_properties(raw.raw_physical_device()) };
    let heaps = memory.memory_heaps_as_slice().iter();
    let own = |heap: &&ash::vk::MemoryHeap| {
        shared || heap.flags.contains(ash::vk::MemoryHeapFlags::DEVICE_LOCAL)
    };
    heaps.filter(own).map(|heap| heap.size).max()
}

/// The budget that Windows gives this process: on the device, and of the machine's memory where the adapter shares it.
#[cfg(windows)]
#[allow(unsafe_code)]
fn dx12(adapter: &wgpu::Adapter, shared: bool) -> Option<u64> {
    use windows::Win32::Graphics::Dxgi::{
        DXGI_MEMORY_SEGMENT_GROUP_LOCAL, DXGI_MEMORY_SEGMENT_GROUP_NON_LOCAL,
    };
    // SAFETY: the guard is only read from, destroys nothing and is dropped at the end of this function.
    let raw = unsafe { adapter.as_hal::<wgpu::hal::api::Dx12>() }?;
    let budget =
        |group| raw.raw_adapter().query_video_memory_info(group).ok().map(|info| info.Budget);
    let own = budget(DXGI_MEMORY_SEGMENT_GROUP_LOCAL);
    if shared { own.max(budget(DXGI_MEMORY_SEGMENT_GROUP_NON_LOCAL)) } else { own }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_leaves_some_of_the_memory() {
        let of = |bytes, source| AdapterMemory { bytes, source }.budget();
        assert_eq!(of(8 << 30, MemorySource::Driver), 7 << 30);
        assert_eq!(of(4 << 30, MemorySource::Class), 7 << 29);
        assert_eq!(of(2 << 30, MemorySource::Host), 256 << 20);
        assert_eq!(of(64 << 30, MemorySource::Host), 1 << 30);
    }

    #[cfg(not(without_gpu))]
    #[test]
    fn the_backend_tells_what_an_adapter_has() {
        let device = std::env::var("U2SEG_DEVICE").unwrap_or("auto".into());
        let (adapter, report) = super::super::adapters::choose(&device).unwrap();
        for shared in [false, true] {
            let told = asked(&adapter, shared);
            assert!(told.is_some_and(|bytes| bytes > 256 << 20), "{told:?} of {report:?}");
        }
        assert!(0 < report.budget() && report.budget() <= report.memory.bytes);
    }
}
