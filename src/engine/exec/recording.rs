//! Calls of kernels that stand in no plan: recorded with what they bind, then submitted at once.

use std::sync::Arc;

use super::command::{BoundDispatch, BufferPart, Command, Launch, bind, submit};
use super::uniforms::{Setting, Uniforms};
use crate::base::{Error, Result};
use crate::engine::gpu::{Gpu, Kernel};
use crate::engine::graph::Caps;
use crate::engine::ops::slab::Call;

/// A part of a buffer, held.
#[derive(Debug, Clone)]
pub struct Held {
    buffer: wgpu::Buffer,
    offset: u64,
    bytes: Option<u64>,
}

impl Held {
    /// The whole buffer.
    pub fn whole(buffer: &wgpu::Buffer) -> Self {
        Self { buffer: buffer.clone(), offset: 0, bytes: None }
    }

    /// Some bytes of a buffer; the offset is one that can be bound.
    pub fn bytes(buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> Self {
        Self { buffer: buffer.clone(), offset, bytes: Some(bytes) }
    }

    fn part(&self) -> BufferPart<'_> {
        BufferPart { buffer: &self.buffer, offset: self.offset, bytes: self.bytes }
    }
}

struct Recorded {
    call: Call,
    kernel: Arc<Kernel>,
    named: Vec<(&'static str, Held)>,
}

/// Calls in order, with their memory.
pub struct Recording<'a> {
    gpu: &'a Gpu,
    label: &'static str,
    calls: Vec<Recorded>,
}

impl<'a> Recording<'a> {
    /// Of nothing yet; errors name `label`.
    pub fn new(gpu: &'a Gpu, label: &'static str) -> Self {
        Self { gpu, label, calls: Vec::new() }
    }

    /// Adds a call with what it binds, by the shader's names.
    ///
    /// # Errors
    ///
    /// Where the kernel does not compile.
    pub fn add(&mut self, call: Call, named: impl Into<Vec<(&'static str, Held)>>) -> Result<()> {
        let kernel = self.gpu.kernel(&call.kernel)?;
        self.calls.push(Recorded { call, kernel, named: named.into() });
        Ok(())
    }

    /// Binds and submits what was recorded, in order.
    ///
    /// # Errors
    ///
    /// Where a variable or parameter of a kernel was not named, or the device refuses.
    pub fn submit(self) -> Result<Launch> {
        let Self { gpu, label, calls } = self;
        if calls.is_empty() {
            return Ok(Launch::default());
        }
        let mut uniforms = Uniforms::new(gpu, calls.iter().map(|call| call.kernel.clone()))?;
        for (place, Recorded { call, .. }) in calls.iter().enumerate() {
            let members = call.params.iter();
            let members: Vec<Setting<'_>> =
                members.map(|(name, words)| (*name, words.as_slice())).collect();
            uniforms.set(place, &members)?;
        }
        uniforms.send(gpu);
        let command = |(place, recorded): (usize, &Recorded)| -> Result<Command> {
            let Recorded { call, kernel, named } = recorded;
            let parts = named.iter().map(|(name, held)| (*name, held.part()));
            let parts: Vec<_> = parts.chain([("params", uniforms.part(place)?)]).collect();
            Ok(Command::Dispatch(BoundDispatch {
                label: kernel.label.clone(),
                kernel: kernel.clone(),
                group: bind(gpu, &kernel.label, kernel, &parts)?,
                groups: call.groups,
                work: call.flops,
            }))
        };
        let commands = calls.iter().enumerate().map(command).collect::<Result<Vec<_>>>()?;
        submit(gpu, label, &commands)
    }
}

/// A buffer that kernels read and write and the host fills and reads.
///
/// # Errors
///
/// Where the adapter has no such buffer.
pub fn storage(gpu: &Gpu, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
    let usage =
        wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    gpu.buffer(label, bytes, usage)
}

/// Vectors of a buffer as a binding that may begin at any of them: the binding, and the index of the first vector within.
///
/// # Errors
///
/// Where they are more than the adapter binds at once.
pub fn vectors(
    caps: &Caps,
    buffer: &wgpu::Buffer,
    first: usize,
    count: usize,
) -> Result<(Held, usize)> {
    let step = (caps.alignment as usize).div_ceil(VECTOR).max(1);
    let start = first / step * step;
    let bytes = ((first - start + count) * VECTOR) as u64;
    if bytes > caps.max_binding {
        let [mib, most] = [bytes, caps.max_binding].map(|bytes| bytes >> 20);
        let found = format!("{mib} MiB at once, more than the {most} MiB that this device binds");
        return Err(Error::shape("segment", found));
    }
    Ok((Held::bytes(buffer, (start * VECTOR) as u64, bytes), first - start))
}

/// Bytes of a vector of four lanes.
const VECTOR: usize = 16;
