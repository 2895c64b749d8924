//! The card that is not there: a Vulkan device whose pipelines tell what the compiler made of them.

use std::ffi::{CStr, FromBytesUntilNulError};
use std::path::{Path, PathBuf};

use ash::vk;
use u2seg::low_level::shader::{
    BindingKind, KernelKey, Reflection, reflect, spirv, vulkan_options,
};
use u2seg::{Error, GpuFault, Result};

use crate::listing::{Loop, loops};

/// Where distributions keep the drivers' manifests.
const MANIFESTS: [&str; 3] =
    ["/usr/share/vulkan/icd.d", "/etc/vulkan/icd.d", "/usr/local/share/vulkan/icd.d"];

/// The listing that tells loops and blocks.
const LISTING: &CStr = c"ACO IR";

/// What the driver keeps of a pipeline.
const CAPTURED: vk::PipelineCreateFlags = vk::PipelineCreateFlags::from_raw(
    vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR.as_raw()
        | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR.as_raw(),
);

/// The manifest of Mesa's driver for AMD.
pub fn driver() -> Option<PathBuf> {
    let files = MANIFESTS.iter().filter_map(|folder| Path::new(folder).read_dir().ok()).flatten();
    let paths = files.filter_map(|file| Some(file.ok()?.path()));
    paths.filter(|path| path.to_string_lossy().contains("radeon_icd")).min()
}

/// What the compiler made of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// Invocations of a workgroup.
    pub threads: u64,
    /// Vector registers of a lane.
    pub registers: u64,
    /// Registers, vector and scalar, that did not fit.
    pub spilled: u64,
    /// Cycles a wave takes of the busiest unit: the compiler's "inverse throughput".
    pub cycles: u64,
    /// What its loops hold.
    pub loops: Vec<Loop>,
}

impl Compiled {
    /// What a lane loads, from storage and workgroup memory, in 32-bit words for each fused multiply-add, in the block that has most
    /// of these; none where there are none.
    pub fn loads_per_fma(&self) -> Option<f64> {
        let blocks = self.loops.iter().map(|one| &one.counts);
        let most = blocks.max_by(|a, b| a.fused.total_cmp(&b.fused))?;
        let loads = most.words + most.shared + most.scalar_loads;
        (most.fused > 0.0).then_some(loads / most.fused)
    }
}

/// What the compiler is given: SPIR-V, and what it binds.
pub struct Code {
    words: Vec<u32>,
    threads: u64,
    /// By place.
    bindings: Vec<(u32, BindingKind)>,
}

impl Code {
    /// As wgpu would hand it to the driver.
    pub fn of(key: &KernelKey) -> Result<Self> {
        let Reflection { workgroup, bindings, .. } = reflect(key)?;
        let bindings = bindings.into_iter().map(|b| (b.index, b.kind)).collect();
        let threads = workgroup.iter().map(|count| u64::from(*count)).product();
        Ok(Self { words: spirv(key, &vulkan_options(true))?, threads, bindings })
    }

    /// Tells one code from another.
    pub fn digest(&self) -> String {
        let bytes: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        blake3::hash(&bytes).to_hex()[..16].to_string()
    }
}

/// The device; it takes what it has with it when the process ends.
pub struct Card {
    name: String,
    driver: String,
    device: ash::Device,
    statistics: ash::khr::pipeline_executable_properties::Device,
    _instance: ash::Instance,
    _entry: ash::Entry,
}

fn text(name: std::result::Result<&CStr, FromBytesUntilNulError>) -> String {
    name.map_or_else(|e| e.to_string(), |name| name.to_string_lossy().into())
}

fn no_card(message: String) -> Error {
    Error::gpu(GpuFault::NoAdapter, message)
}

fn failed(what: &'static str) -> impl Fn(vk::Result) -> Error {
    move |error| no_card(format!("{what}: {error}"))
}

impl Card {
    /// Opens the only device that the driver offers.
    #[allow(unsafe_code)]
    pub fn open() -> Result<Self> {
        // SAFETY: plain calls of Vulkan; what is passed by pointer lives until the call returns, and the loader as long as the device
        unsafe {
            let entry = ash::Entry::load().map_err(|e| no_card(e.to_string()))?;
            let about = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
            let about = vk::InstanceCreateInfo::default().application_info(&about);
            let instance = entry.create_instance(&about, None).map_err(failed("instance"))?;
            let cards = instance.enumerate_physical_devices().map_err(failed("devices"))?;
            let card = *cards.first().ok_or_else(|| no_card("the driver has no device".into()))?;
            let mut driver = vk::PhysicalDeviceDriverProperties::default();
            let mut about = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
            instance.get_physical_device_properties2(card, &mut about);
            let name = text(about.properties.device_name_as_c_str());
            let driver = text(driver.driver_info_as_c_str());
            let extensions = [
                ash::khr::pipeline_executable_properties::NAME.as_ptr(),
                ash::ext::robustness2::NAME.as_ptr(),
            ];
            // what wgpu enables where it can
            let mut statistics =
                vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default()
                    .pipeline_executable_info(true);
            let mut robust =
                vk::PhysicalDeviceRobustness2FeaturesEXT::default().robust_buffer_access2(true);
            let mut newer = vk::PhysicalDeviceVulkan12Features::default()
                .shader_float16(true)
                .vulkan_memory_model(true)
                .vulkan_memory_model_device_scope(true);
            let mut newest =
                vk::PhysicalDeviceVulkan13Features::default().subgroup_size_control(true);
            let mut features = vk::PhysicalDeviceFeatures2::default()
                .features(vk::PhysicalDeviceFeatures::default().robust_buffer_access(true))
                .push_next(&mut statistics)
                .push_next(&mut robust)
                .push_next(&mut newer)
                .push_next(&mut newest);
            let priority = [1.0];
            let queues = [vk::DeviceQueueCreateInfo::default().queue_priorities(&priority)];
            let about = vk::DeviceCreateInfo::default()
                .queue_create_infos(&queues)
                .enabled_extension_names(&extensions)
                .push_next(&mut features);
            let device = instance.create_device(card, &about, None).map_err(failed("device"))?;
            let statistics =
                ash::khr::pipeline_executable_properties::Device::new(&instance, &device);
            Ok(Self { name, driver, device, statistics, _instance: instance, _entry: entry })
        }
    }

    /// As the driver calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The driver's name and version.
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// Compiles a kernel.
    #[allow(unsafe_code)]
    pub fn compile(&self, key: &KernelKey, code: &Code) -> Result<Compiled> {
        let bindings: Vec<_> = code
            .bindings
            .iter()
            .map(|(index, kind)| {
                let kind = match kind {
                    BindingKind::Uniform => vk::DescriptorType::UNIFORM_BUFFER,
                    _ => vk::DescriptorType::STORAGE_BUFFER,
                };
                vk::DescriptorSetLayoutBinding::default()
                    .binding(*index)
                    .descriptor_count(1)
                    .stage_flags(vk::ShaderStageFlags::COMPUTE)
                    .descriptor_type(kind)
            })
            .collect();
        // SAFETY: as above; everything that is made is destroyed, and the code is what naga writes
        unsafe {
            let device = &self.device;
            let about = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
            let sets =
                [device.create_descriptor_set_layout(&about, None).map_err(failed("bindings"))?];
            let about = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
            let layout = device.create_pipeline_layout(&about, None).map_err(failed("layout"))?;
            let about = vk::ShaderModuleCreateInfo::default().code(&code.words);
            let module = device.create_shader_module(&about, None).map_err(failed("module"))?;
            let stage = vk::PipelineShaderStageCreateInfo::default()
                .flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE)
                .stage(vk::ShaderStageFlags::COMPUTE)
                .module(module)
                .name(c"main");
            let about = [vk::ComputePipelineCreateInfo::default()
                .flags(CAPTURED)
                .layout(layout)
                .stage(stage)];
            let made = device.create_compute_pipelines(vk::PipelineCache::null(), &about, None);
            let pipeline = made.map_err(|(_, error)| failed("pipeline")(error))?[0];
            let told = self.told(key, code, pipeline);
            device.destroy_pipeline(pipeline, None);
            device.destroy_shader_module(module, None);
            device.destroy_pipeline_layout(layout, None);
            device.destroy_descriptor_set_layout(sets[0], None);
            told
        }
    }

    /// The compiler's own listing of a kernel, block by block.
    #[allow(unsafe_code)]
    fn listing(&self, key: &KernelKey, pipeline: vk::Pipeline) -> Result<String> {
        let about = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
        let read = self.statistics.fp().get_pipeline_executable_internal_representations_khr;
        let mut count = 0;
        // SAFETY: the pipeline was made with its listings; each is read into room of the size that the driver asks for
        unsafe {
            let device = self.device.handle();
            read(device, &about, &mut count, std::ptr::null_mut())
                .result()
                .map_err(failed("listings"))?;
            let mut texts =
                vec![vk::PipelineExecutableInternalRepresentationKHR::default(); count as usize];
            read(device, &about, &mut count, texts.as_mut_ptr())
                .result()
                .map_err(failed("listings"))?;
            let mut rooms: Vec<Vec<u8>> = texts.iter().map(|t| vec![0; t.data_size]).collect();
            for (text, room) in texts.iter_mut().zip(&mut rooms) {
                text.p_data = room.as_mut_ptr().cast();
            }
            read(device, &about, &mut count, texts.as_mut_ptr())
                .result()
                .map_err(failed("listings"))?;
            let at = texts.iter().position(|t| t.name_as_c_str().is_ok_and(|n| n == LISTING));
            let at =
                at.ok_or_else(|| no_card(format!("{}: the driver lists no code", key.file)))?;
            Ok(String::from_utf8_lossy(&rooms[at]).into_owned())
        }
    }

    #[allow(unsafe_code)]
    fn told(&self, key: &KernelKey, code: &Code, pipeline: vk::Pipeline) -> Result<Compiled> {
        let about = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
        // SAFETY: the pipeline was made with its statistics
        let told = unsafe { self.statistics.get_pipeline_executable_statistics(&about) };
        let told = told.map_err(failed("statistics"))?;
        let value = |name: &str| {
            let of = told
                .iter()
                .find(|s| s.name_as_c_str().is_ok_and(|n| n.to_bytes() == name.as_bytes()));
            let of =
                of.ok_or_else(|| no_card(format!("{}: the driver tells no {name}", key.file)))?;
            // SAFETY: Mesa gives all of its statistics as u64
            Ok(unsafe { of.value.u64 })
        };
        Ok(Compiled {
            threads: code.threads,
            registers: value("VGPRs")?,
            spilled: value("Spilled VGPRs")? + value("Spilled SGPRs")?,
            cycles: value("Inverse Throughput")?,
            loops: loops(&self.listing(key, pipeline)?)?,
        })
    }
}
