//! Parses kernels with naga, validates them, and writes them in the languages of all platforms.

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

use super::expand;
use super::key::KernelKey;
use super::lint::lint;
use super::needs::{self, Needs};
use super::reflect::{Reflection, message, reflect_module};
use super::specialise::specialise;
use crate::base::{Error, Result};

struct Compiled {
    module: naga::Module,
    info: ModuleInfo,
    needs: Needs,
}

/// Packing of halves, which WebGPU has everywhere and naga wants named, and what the kernel says that it needs.
fn capabilities(key: &KernelKey, needs: Needs) -> Capabilities {
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SUBGROUP, needs.subgroups || needs.cooperative);
    capabilities.set(Capabilities::COOPERATIVE_MATRIX, needs.cooperative);
    capabilities.set(Capabilities::SHADER_FLOAT16, needs.halves);
    capabilities.set(Capabilities::SHADER_INT64, key.wide);
    capabilities
}

fn compile(key: &KernelKey) -> Result<Compiled> {
    let text = specialise(key)?;
    let needs = needs::read(key.file, &text)?;
    let fail = |m: String| Error::shader(key.file, m);
    let at = |place: Option<naga::SourceLocation>, m: String| {
        let line = place.map_or(0, |place| place.line_number as usize);
        fail(expand::origin(&text, line).map_or(m.clone(), |file| format!("in {file}: {m}")))
    };
    let module = naga::front::wgsl::parse_str(&text)
        .map_err(|e| at(e.location(&text), e.emit_to_string(&text)))?;
    let info = Validator::new(ValidationFlags::all(), capabilities(key, needs))
        .validate(&module)
        .map_err(|e| at(e.location(&text), e.emit_to_string(&text)))?;
    let mut constants = naga::back::PipelineConstants::default();
    for (name, value) in &key.overrides {
        let known = module.overrides.iter().any(|(_, o)| o.name.as_deref() == Some(name));
        if !known {
            return Err(fail(format!("there is no override {name}")));
        }
        constants.insert((*name).to_string(), f64::from(*value));
    }
    let stage = (naga::ShaderStage::Compute, "main");
    let (module, info) =
        naga::back::pipeline_constants::process_overrides(&module, &info, Some(stage), &constants)
            .map_err(|e| fail(message(e)))?;
    Ok(Compiled { module: module.into_owned(), info: info.into_owned(), needs })
}

/// Workgroup size, bindings and parameter offsets of a kernel.
pub fn reflect(key: &KernelKey) -> Result<Reflection> {
    reflect_module(key.file, &compile(key)?.module)
}

/// How wgpu has kernels written for Vulkan adapters with robust buffer access, of version 1.3 and of those before.
pub fn vulkan_options(newest: bool) -> naga::back::spv::Options<'static> {
    use naga::back::spv::{Options, WriterFlags, ZeroInitializeWorkgroupMemoryMode};
    use naga::proc::BoundsCheckPolicy::{Restrict, Unchecked};
    Options {
        lang_version: if newest { (1, 6) } else { (1, 3) },
        flags: WriterFlags::empty(),
        bounds_check_policies: naga::proc::BoundsCheckPolicies {
            index: Restrict,
            buffer: Unchecked,
            image_load: Unchecked,
            binding_array: Unchecked,
        },
        zero_initialize_workgroup_memory: ZeroInitializeWorkgroupMemoryMode::None,
        ..Default::default()
    }
}

/// The kernel as SPIR-V, written with these options.
pub fn spirv(key: &KernelKey, options: &naga::back::spv::Options<'_>) -> Result<Vec<u32>> {
    let Compiled { module, info, .. } = compile(key)?;
    let entry = naga::back::spv::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: "main".into(),
    };
    naga::back::spv::write_vec(&module, &info, options, Some(&entry))
        .map_err(|e| Error::shader(key.file, message(e)))
}

/// Parses, validates and lints a kernel and writes it as SPIR-V, MSL and HLSL, so that what breaks on one platform shows
/// on all. Cooperative matrices are not in HLSL, and wgpu offers them on no adapter of DX12.
pub fn validate(key: &KernelKey) -> Result<()> {
    let Compiled { module, info, needs } = compile(key)?;
    let fail = |backend: &str, m: String| Error::shader(key.file, format!("{backend}: {m}"));
    let complaints = lint(&module, &reflect_module(key.file, &module)?);
    if !complaints.is_empty() {
        return Err(fail("lint", complaints.join("; ")));
    }
    naga::back::spv::write_vec(&module, &info, &naga::back::spv::Options::default(), None)
        .map_err(|e| fail("SPIR-V", message(e)))?;
    let mut options =
        naga::back::msl::Options { fake_missing_bindings: true, ..Default::default() };
    if needs.cooperative {
        options.lang_version = (2, 3);
    }
    naga::back::msl::write_string(&module, &info, &options, &Default::default())
        .map_err(|e| fail("MSL", message(e)))?;
    if needs.cooperative {
        return Ok(());
    }
    let options = naga::back::hlsl::Options { fake_missing_bindings: true, ..Default::default() };
    let mut text = String::new();
    let pipeline_options = naga::back::hlsl::PipelineOptions::default();
    naga::back::hlsl::Writer::new(&mut text, &options, &pipeline_options)
        .write(&module, &info, None)
        .map_err(|e| fail("HLSL", message(e)))?;
    Ok(())
}
