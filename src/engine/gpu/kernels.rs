//! Compiling specialised shaders to pipelines.

use std::sync::Arc;

use super::Gpu;
use super::pipelines::Pipelines;
use crate::base::{Error, Result};
use crate::engine::shader::{BindingKind, KernelKey, Reflection, specialise};

/// A pipeline with its layout, as reflected from the shader.
pub struct Kernel {
    /// Compiled for the device.
    pub pipeline: wgpu::ComputePipeline,
    /// Of group 0.
    pub layout: wgpu::BindGroupLayout,
    /// Bindings and parameters; the workgroup is that of the file's defaults.
    pub reflection: Arc<Reflection>,
    /// Invocations of a workgroup.
    pub invocations: usize,
    /// File name with the specialisation, for messages.
    pub label: String,
}

impl Kernel {
    pub(super) fn compile(gpu: &Gpu, key: &KernelKey) -> Result<Self> {
        let reflection = gpu.interface(key)?;
        let text = specialise(key)?;
        let label = key.label();
        let constants: Vec<(&str, f64)> =
            key.overrides.iter().map(|(name, value)| (*name, f64::from(*value))).collect();
        let start = std::time::Instant::now();
        let made = gpu.scoped(&label, || {
            let device = gpu.device();
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(&label),
                source: wgpu::ShaderSource::Wgsl(text.into()),
            });
            let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(&label),
                entries: &layout_entries(&reflection),
            });
            let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(&label),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&label),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: &constants,
                    // every kernel writes workgroup memory before it reads it
                    zero_initialize_workgroup_memory: false,
                },
                cache: gpu.inner.pipelines.as_ref().map(Pipelines::cache),
            });
            (pipeline, layout)
        });
        let (pipeline, layout) = made.map_err(|e| match e.is_lost() {
            true => e,
            false => Error::shader(key.file, e.to_string()),
        })?;
        let usual = reflection.workgroup.iter().product();
        let set = key.overrides.iter().find(|(name, _)| *name == "WG");
        let invocations = set.map_or(usual, |(_, size)| *size) as usize;
        log::debug!("{label}: compiled in {:.2} s", start.elapsed().as_secs_f64());
        Ok(Self { pipeline, layout, reflection, invocations, label })
    }

    /// Byte offset of a member of `params` that takes so many words.
    pub(crate) fn member(&self, name: &str, words: usize) -> Result<u32> {
        let fail = |message: String| Err(Error::shader(self.label.clone(), message));
        match self.reflection.params.iter().find(|member| member.name == name) {
            None => fail(format!("params has no member {name}")),
            Some(member) if member.bytes as usize != 4 * words => {
                fail(format!("{words} words for the {} bytes of params.{name}", member.bytes))
            }
            Some(member) => Ok(member.offset),
        }
    }
}

fn layout_entries(reflection: &Reflection) -> Vec<wgpu::BindGroupLayoutEntry> {
    reflection
        .bindings
        .iter()
        .map(|binding| wgpu::BindGroupLayoutEntry {
            binding: binding.index,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match binding.kind {
                    BindingKind::Uniform => wgpu::BufferBindingType::Uniform,
                    BindingKind::ReadStorage => {
                        wgpu::BufferBindingType::Storage { read_only: true }
                    }
                    BindingKind::ReadWriteStorage => {
                        wgpu::BufferBindingType::Storage { read_only: false }
                    }
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect()
}
