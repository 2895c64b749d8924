//! What a kernel's caller must know, read from the shader.

use crate::base::{Error, Result};

/// How a shader uses a binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindingKind {
    /// Read, the same for all.
    Uniform,
    /// Read.
    ReadStorage,
    /// Read and written.
    ReadWriteStorage,
}

/// A binding of group 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// As the shader has it.
    pub name: String,
    /// Its number in the group.
    pub index: u32,
    /// How the shader uses it.
    pub kind: BindingKind,
}

/// A member of the uniform `params`; offset and size in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// As the shader has it.
    pub name: String,
    /// Bytes before it.
    pub offset: u32,
    /// Its size.
    pub bytes: u32,
}

/// What a kernel's caller must know, read from the shader itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reflection {
    /// Invocations of a workgroup along x, y, z.
    pub workgroup: [u32; 3],
    /// By number.
    pub bindings: Vec<Binding>,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Members of the uniform `params`, those of structs within in their place.
    pub params: Vec<Member>,
    /// Bytes of the uniform `params`.
    pub params_bytes: u32,
}

/// Workgroup size, bindings and parameter offsets of a module.
pub(super) fn reflect_module(file: &str, module: &naga::Module) -> Result<Reflection> {
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
            reflection.params = flat_members(module, &layouter, members, 0);
        }
        reflection.bindings.push(Binding { name: name.clone(), index: binding.binding, kind });
    }
    reflection.bindings.sort_by_key(|binding| binding.index);
    Ok(reflection)
}

/// Members of a struct that begins at `start`, those of structs within in their place.
fn flat_members(
    module: &naga::Module,
    layouter: &naga::proc::Layouter,
    members: &[naga::StructMember],
    start: u32,
) -> Vec<Member> {
    let flat = members.iter().flat_map(|member| {
        let offset = start + member.offset;
        match &module.types[member.ty].inner {
            naga::TypeInner::Struct { members, .. } => {
                flat_members(module, layouter, members, offset)
            }
            _ => {
                let bytes = layouter[member.ty].size;
                member
                    .name
                    .iter()
                    .map(|name| Member { name: name.clone(), offset, bytes })
                    .collect()
            }
        }
    });
    flat.collect()
}

/// An error with its sources.
pub(super) fn message(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
