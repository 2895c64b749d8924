//! Adapter and device, capabilities, buffers, pipelines, submission. Every failure is a `Result` that names the object.

mod adapters;
mod call;
#[cfg(any(test, feature = "faults"))]
mod faults;
mod kernels;
mod memory;
mod pace;
mod pipelines;
mod renewal;
mod submission;
#[cfg(test)]
pub mod testing;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

pub use adapters::{AdapterReport, adapters, no_adapter};
#[cfg(test)]
pub use faults::Faults;
pub use kernels::Kernel;
pub use memory::{AdapterMemory, MemorySource};
pub use renewal::Renewal;
pub(in crate::engine) use submission::unread;

use crate::base::{Error, GpuFault, Result, locked};
use crate::engine::shader::{Class, Cooperative, KernelKey, Reflection, Tuning, reflect};
use call::Call;
use pace::Pace;
use pipelines::Pipelines;

/// An open device. Cloning shares it.
#[derive(Clone)]
pub struct Gpu {
    inner: Arc<Inner>,
    tuning: Arc<Tuning>,
    /// What programs are planned for.
    class: Class,
}

struct Inner {
    device: wgpu::Device,
    queue: wgpu::Queue,
    report: AdapterReport,
    limits: wgpu::Limits,
    /// How much of the adapter it uses.
    how: Use,
    kernels: Mutex<HashMap<KernelKey, Arc<Kernel>>>,
    /// Bindings and parameters of each file, with and without its moments, which its specialisations share.
    interfaces: Mutex<HashMap<KernelKey, Arc<Reflection>>>,
    pipelines: Option<Pipelines>,
    /// First error that no scope caught, or the reason why the device was lost.
    failure: Arc<Mutex<Option<(GpuFault, String)>>>,
    /// Bytes of all buffers made so far.
    allocated: AtomicU64,
    /// How much work a submission may hold.
    pace: Arc<Pace>,
    /// Calls that are to fail.
    #[cfg(any(test, feature = "faults"))]
    faults: Arc<faults::Faults>,
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpu({})", self.inner.report.name)
    }
}

/// Cooperative matrices, which wgpu calls experimental, where the adapter has some that kernels can use.
#[allow(unsafe_code)]
fn experimental(report: &AdapterReport) -> (wgpu::Features, wgpu::ExperimentalFeatures) {
    if report.cooperative == Cooperative::default() {
        return (wgpu::Features::empty(), wgpu::ExperimentalFeatures::disabled());
    }
    // SAFETY: wgpu asks to acknowledge that its experimental features may hold bugs. One is enabled. Only files that say
    // `needs cooperative matrices` use it: they read and write workgroup memory within its arrays, by whole subgroups, with
    // matrices that the adapter lists, and no plan takes them unless tuning found their results right on this adapter.
    let enabled = unsafe { wgpu::ExperimentalFeatures::enabled() };
    (wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, enabled)
}

/// How much of an adapter a device uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Use {
    /// Its own limits and all features that kernels can use; compiled pipelines are kept on disk, where the backend can.
    #[default]
    All,
    /// The same, but no pipelines are kept on disk, nor by the backend: for kernels that come and go by hundreds.
    Passing,
    /// The limits that every WebGPU adapter has, and no feature: what a browser gives a page that asks for nothing.
    Portable,
}

impl Use {
    fn features(self) -> wgpu::Features {
        let all = wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::SHADER_F16
            | wgpu::Features::SUBGROUP
            | wgpu::Features::SHADER_INT64;
        match self {
            Self::All => all | wgpu::Features::PIPELINE_CACHE,
            Self::Passing => all,
            Self::Portable => wgpu::Features::empty(),
        }
    }

    fn limits(self, adapter: &wgpu::Adapter) -> wgpu::Limits {
        match self {
            Self::All | Self::Passing => adapter.limits(),
            Self::Portable => wgpu::Limits::default(),
        }
    }
}

impl Gpu {
    /// Opens an adapter: `auto` (discrete before integrated before software), an index of [`adapters`], or part of a name.
    pub fn open(selector: &str) -> Result<Self> {
        Self::open_with(selector, Use::All)
    }

    /// Opens an adapter as [`Gpu::open`] does, and uses so much of it.
    ///
    /// # Errors
    ///
    /// Where there is no such adapter, or it refuses a device with these limits.
    pub fn open_with(selector: &str, how: Use) -> Result<Self> {
        let (adapter, report) = adapters::choose(selector)?;
        let gpu = Self::open_adapter(adapter, report, how)?;
        #[cfg(all(feature = "faults", not(test)))]
        let gpu = gpu.failing(faults::Faults::of_environment()?);
        Ok(gpu)
    }

    /// Another device of the same adapter, where this one is lost; kernels keep their variants.
    ///
    /// # Errors
    ///
    /// Where the adapter is gone too, or refuses a device.
    pub fn reopen(&self) -> Result<Self> {
        let (adapter, report) = adapters::again(self.report())?;
        let gpu = Self::open_adapter(adapter, report, self.inner.how)?;
        #[cfg(any(test, feature = "faults"))]
        let gpu = gpu.failing(self.inner.faults.clone());
        Ok(self.on_device_of(&gpu))
    }

    /// The variants of kernels that this one has, on the device of another.
    pub fn on_device_of(&self, other: &Self) -> Self {
        Self { inner: other.inner.clone(), ..self.clone() }
    }

    fn open_adapter(adapter: wgpu::Adapter, report: AdapterReport, how: Use) -> Result<Self> {
        let limits = how.limits(&adapter);
        let report = if how == Use::Portable { report.portable(&limits) } else { report };
        let (matrices, experimental_features) = experimental(&report);
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("u2seg"),
            required_features: adapter.features() & how.features() | matrices,
            experimental_features,
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let (device, queue) =
            pollster::block_on(adapter.request_device(&descriptor)).map_err(|e| {
                let what = format!("{} refuses a device", report.name);
                Error::gpu_from(GpuFault::NoAdapter, what, e)
            })?;
        let failure = Arc::new(Mutex::new(None));
        let first = failure.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            log::error!("{error}");
            locked(&first).get_or_insert((fault(&error), error.to_string()));
        }));
        let first = failure.clone();
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                let message = format!("the device was lost: {message}");
                locked(&first).get_or_insert((GpuFault::Lost, message));
            }
        });
        log::info!("device {}: {} ({})", report.index, report.name, report.backend);
        let kernels = Mutex::new(HashMap::new());
        let allocated = AtomicU64::new(0);
        let pace = Arc::new(Pace::new(report.class() == Class::Software));
        let tuning = Arc::new(Tuning::shipped(report.class())?);
        let inner = Inner {
            pipelines: Pipelines::open(&device, &adapter.get_info()),
            interfaces: Mutex::new(HashMap::new()),
            device,
            queue,
            report,
            limits,
            how,
            kernels,
            failure,
            allocated,
            pace,
            #[cfg(any(test, feature = "faults"))]
            faults: Arc::default(),
        };
        let class = inner.report.class();
        Ok(Self { inner: Arc::new(inner), tuning, class })
    }

    /// The same device with other variants of its kernels.
    pub fn tuned(&self, tuning: Tuning) -> Self {
        Self { tuning: Arc::new(tuning), ..self.clone() }
    }

    /// The same device, for which programs are planned as for adapters of another class: so that what GPUs run can be tried on
    /// a CPU.
    pub fn planned_as(&self, class: Class) -> Result<Self> {
        Ok(Self { tuning: Arc::new(Tuning::shipped(class)?), class, ..self.clone() })
    }

    /// Which variant of each kernel runs at which shape.
    pub fn tuning(&self) -> &Arc<Tuning> {
        &self.tuning
    }

    /// Variants that are shipped for adapters of this class.
    pub fn shipped(&self) -> Result<Tuning> {
        Tuning::shipped(self.class())
    }

    /// Which of the shipped tables serves this adapter.
    pub fn class(&self) -> Class {
        self.class
    }

    /// What the adapter offers.
    pub fn report(&self) -> &AdapterReport {
        &self.inner.report
    }

    /// Whether the adapter computes on the CPU.
    pub fn is_software(&self) -> bool {
        self.class() == Class::Software
    }

    /// Bytes of memory that a program may take unless the user says otherwise; see [`AdapterReport::budget`].
    pub fn memory(&self) -> u64 {
        self.report().budget()
    }

    /// The device's limits: the adapter's own, unless it was opened with fewer.
    pub fn limits(&self) -> &wgpu::Limits {
        &self.inner.limits
    }

    /// wgpu's device.
    pub fn device(&self) -> &wgpu::Device {
        &self.inner.device
    }

    /// wgpu's queue.
    pub fn queue(&self) -> &wgpu::Queue {
        &self.inner.queue
    }

    /// The compiled kernel, from the cache where it is there. May be called from several threads.
    pub fn kernel(&self, key: &KernelKey) -> Result<Arc<Kernel>> {
        if let Some(kernel) = locked(&self.inner.kernels).get(key) {
            return Ok(kernel.clone());
        }
        let kernel = Arc::new(Kernel::compile(self, key)?);
        locked(&self.inner.kernels).insert(key.clone(), kernel.clone());
        Ok(kernel)
    }

    /// Forgets the compiled kernels that nothing holds, if there are more than `most`.
    pub fn forget_kernels(&self, most: usize) {
        let mut kernels = locked(&self.inner.kernels);
        if kernels.len() > most {
            kernels.retain(|_, kernel| Arc::strong_count(kernel) > 1);
        }
    }

    /// Bindings and parameters of a kernel's file; parsed once.
    fn interface(&self, key: &KernelKey) -> Result<Arc<Reflection>> {
        let plain = key.plain();
        if let Some(interface) = locked(&self.inner.interfaces).get(&plain) {
            return Ok(interface.clone());
        }
        let interface = Arc::new(reflect(&plain)?);
        locked(&self.inner.interfaces).insert(plain, interface.clone());
        Ok(interface)
    }

    /// Keeps what was compiled for the next start, where the backend can.
    pub fn keep_pipelines(&self) {
        if let Some(pipelines) = &self.inner.pipelines {
            pipelines.keep();
        }
    }

    /// Runs `make` under error scopes; an error names `label`.
    pub(crate) fn scoped<T>(&self, label: &str, make: impl FnOnce() -> T) -> Result<T> {
        self.seam(Call::Other)?;
        let memory = self.device().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = self.device().push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = self.device().push_error_scope(wgpu::ErrorFilter::Validation);
        let made = make();
        let errors = [
            pollster::block_on(validation.pop()),
            pollster::block_on(internal.pop()),
            pollster::block_on(memory.pop()),
        ];
        match errors.into_iter().flatten().next() {
            Some(error) => Err(Error::gpu_from(fault(&error), label, error)),
            // what a lost device makes is no good, and no scope tells
            None => self.check().map(|()| made),
        }
    }

    /// A buffer of at least `bytes` bytes.
    pub fn buffer(
        &self,
        label: &str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer> {
        let size = bytes.max(16).next_multiple_of(4);
        if size > self.limits().max_buffer_size {
            let message = format!(
                "out of memory: {label} takes {} MiB in one buffer, the device gives {} MiB",
                size >> 20,
                self.limits().max_buffer_size >> 20
            );
            return Err(Error::gpu(GpuFault::OutOfMemory, message));
        }
        let descriptor =
            wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        let made = self
            .seam(Call::Allocation)
            .and_then(|()| self.scoped(label, || self.device().create_buffer(&descriptor)));
        let buffer = made.map_err(|error| self.does_not_fit(label, size, error))?;
        self.inner.allocated.fetch_add(size, Ordering::Relaxed);
        Ok(buffer)
    }

    /// Says of a buffer that found no memory how large it is, and what else there is.
    fn does_not_fit(&self, label: &str, size: u64, error: Error) -> Error {
        let Error::Gpu { fault: GpuFault::OutOfMemory, message, source } = error else {
            return error;
        };
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let held = self.device().generate_allocator_report();
        let held = held.map(|held| format!(" beside {} MiB", mib(held.total_allocated_bytes)));
        let message = format!(
            "out of memory: {label} takes {} MiB{}, of {} MiB that {} has ({message})",
            mib(size),
            held.unwrap_or_default(),
            mib(self.report().memory.bytes),
            self.report().name
        );
        Error::Gpu { fault: GpuFault::OutOfMemory, message, source }
    }

    /// Bytes of all buffers made so far, whether or not they still live.
    pub fn allocated(&self) -> u64 {
        self.inner.allocated.load(Ordering::Relaxed)
    }

    /// A bind group for a kernel; errors name `label`.
    pub fn bind_group(
        &self,
        label: &str,
        kernel: &Kernel,
        entries: &[wgpu::BindGroupEntry<'_>],
    ) -> Result<wgpu::BindGroup> {
        let descriptor =
            wgpu::BindGroupDescriptor { label: Some(label), layout: &kernel.layout, entries };
        self.scoped(label, || self.device().create_bind_group(&descriptor))
    }
}

fn fault(error: &wgpu::Error) -> GpuFault {
    match error {
        wgpu::Error::OutOfMemory { .. } => GpuFault::OutOfMemory,
        wgpu::Error::Validation { .. } | wgpu::Error::Internal { .. } => GpuFault::Validation,
    }
}
