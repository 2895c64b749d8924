//! Embeds `shaders/*/*.wgsl`, specialises them, and validates and reflects them with naga.
//!
//! A file is valid WGSL with what it imports from `shaders/shared`. A kernel is a file with values for its `override`s (workgroup sizes, switches) and for some
//! of its `const` lines (register tiles, which naga does not accept as overrides in array sizes).

mod expand;
mod lint;
mod needs;
mod specialise;
mod storage;
mod tuning;

pub use lint::lint;
pub use needs::{Needs, needs, standard};
pub use specialise::specialise;
pub use tuning::{Choice, Class, Cooperative, Tuning};

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};

use crate::{Error, Result};

/// A specialised shader; the entry point is always `main`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KernelKey {
    /// File name, the only one in all folders of `shaders/`.
    pub file: &'static str,
    /// Values of `override` declarations; switches are 0 or 1.
    pub overrides: Vec<(&'static str, u32)>,
    /// Values of `const NAME: u32 = …;` lines.
    pub consts: Vec<(&'static str, u32)>,
    /// Bindings of `vec4<f32>` that are stored as halves, in order.
    pub halves: Vec<&'static str>,
    /// Sections of the file that are in, in order.
    pub sections: Vec<&'static str>,
    /// Whether bindings of `vec4<f32>` are read and written in 64-bit words, which adapters that compute on the CPU do faster.
    pub wide: bool,
}

impl KernelKey {
    /// The file at its defaults.
    pub fn new(file: &'static str) -> Self {
        Self {
            file,
            overrides: Vec::new(),
            consts: Vec::new(),
            halves: Vec::new(),
            sections: Vec::new(),
            wide: false,
        }
    }

    /// Puts a section in.
    pub fn section(mut self, name: &'static str) -> Self {
        self.sections.push(name);
        self.sections.sort_unstable();
        self
    }

    /// The file at its defaults, with this kernel's sections: its bindings and parameters are the kernel's.
    pub fn plain(&self) -> Self {
        Self { sections: self.sections.clone(), ..Self::new(self.file) }
    }

    /// Stores these bindings as halves.
    pub fn halves(mut self, names: impl IntoIterator<Item = &'static str>) -> Self {
        self.halves.extend(names);
        self.halves.sort_unstable();
        self.halves.dedup();
        self
    }

    /// Reads and writes in 64-bit words, or not.
    pub fn wide(mut self, wide: bool) -> Self {
        self.wide = wide;
        self
    }

    /// Sets an override.
    pub fn set(mut self, name: &'static str, value: u32) -> Self {
        self.overrides.push((name, value));
        self
    }

    /// Sets the size of a workgroup, where it is not the usual one.
    pub fn group(self, invocations: usize) -> Self {
        if invocations == 64 { self } else { self.set("WG", invocations as u32) }
    }

    /// Replaces a `const` line.
    pub fn tile(mut self, name: &'static str, value: u32) -> Self {
        self.consts.push((name, value));
        self
    }
}

/// Every kernel's file: name and source.
pub fn sources() -> &'static [(&'static str, &'static str)] {
    include!(concat!(env!("OUT_DIR"), "/shaders.rs"))
}

/// Every file that kernels import: name and source.
pub fn shared() -> &'static [(&'static str, &'static str)] {
    include!(concat!(env!("OUT_DIR"), "/shared.rs"))
}

/// The source of one kernel's file, as it is written.
pub fn source(file: &str) -> Result<&'static str> {
    sources()
        .iter()
        .find(|(name, _)| *name == file)
        .map(|(_, source)| *source)
        .ok_or_else(|| Error::shader(file, "there is no such file in shaders/"))
}

/// How a shader uses a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindingKind {
    Uniform,
    ReadStorage,
    ReadWriteStorage,
}

/// A binding of group 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub name: String,
    pub index: u32,
    pub kind: BindingKind,
}

/// A member of the uniform `params`; offset and size in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub offset: u32,
    pub bytes: u32,
}

/// What a kernel's caller must know, read from the shader itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reflection {
    pub workgroup: [u32; 3],
    pub bindings: Vec<Binding>,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Members of the uniform `params`.
    pub params: Vec<Member>,
    /// Bytes of the uniform `params`.
    pub params_bytes: u32,
}

struct Compiled {
    module: naga::Module,
    info: ModuleInfo,
    needs: Needs,
}

fn message(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// Packing of halves, which WebGPU has everywhere and naga wants named, and what the kernel says that it needs.
fn capabilities(key: &KernelKey, needs: Needs) -> Capabilities {
    let mut capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(Capabilities::SUBGROUP, needs.subgroups || needs.cooperative);
    let matrices = Capabilities::COOPERATIVE_MATRIX | Capabilities::SHADER_FLOAT16;
    capabilities.set(matrices, needs.cooperative);
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

fn reflect_module(file: &str, module: &naga::Module) -> Result<Reflection> {
    let fail = |m: &str| Error::shader(file, m);
    let entry = module
        .entry_points
        .iter()
        .find(|e| e.name == "main" && e.stage == naga::ShaderStage::Compute)
        .ok_or_else(|| fail("there is no compute entry point `main`"))?;
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).map_err(|e| fail(&message(e)))?;
    let mut reflection = Reflection {
        workgroup: entry.workgroup_size,
        bindings: Vec::new(),
        workgroup_bytes: 0,
        params: Vec::new(),
        params_bytes: 0,
    };
    for (_, global) in module.global_variables.iter() {
        let kind = match global.space {
            naga::AddressSpace::Uniform => BindingKind::Uniform,
            naga::AddressSpace::Storage { access } => {
                if access.contains(naga::StorageAccess::STORE) {
                    BindingKind::ReadWriteStorage
                } else {
                    BindingKind::ReadStorage
                }
            }
            naga::AddressSpace::WorkGroup => {
                reflection.workgroup_bytes += layouter[global.ty].size;
                continue;
            }
            _ => continue,
        };
        let (Some(binding), Some(name)) = (&global.binding, &global.name) else {
            return Err(fail("a buffer without a name or binding"));
        };
        if binding.group != 0 {
            return Err(fail("bindings belong in group 0"));
        }
        if kind == BindingKind::Uniform {
            let naga::TypeInner::Struct { members, span } = &module.types[global.ty].inner else {
                return Err(fail("the uniform is a struct"));
            };
            reflection.params_bytes = *span;
            reflection.params = members
                .iter()
                .filter_map(|member| {
                    let (offset, bytes) = (member.offset, layouter[member.ty].size);
                    Some(Member { name: member.name.clone()?, offset, bytes })
                })
                .collect();
        }
        reflection.bindings.push(Binding { name: name.clone(), index: binding.binding, kind });
    }
    reflection.bindings.sort_by_key(|binding| binding.index);
    Ok(reflection)
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
