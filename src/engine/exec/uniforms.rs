//! The uniforms of dispatches, written by the names of their members.

use std::sync::Arc;

use super::command::BufferPart;
use crate::base::{Error, Result};
use crate::engine::gpu::{Gpu, Kernel};

/// A member of a kernel's `params` and its words; floats go as bits.
pub type Setting<'a> = (&'a str, &'a [u32]);

/// Bytes of a uniform binding at least.
const LEAST: u64 = 16;

/// One buffer with a place for each of some dispatches.
pub struct Uniforms {
    buffer: wgpu::Buffer,
    places: Vec<UniformPlace>,
    /// What [`Uniforms::send`] writes.
    staged: Vec<u8>,
}

struct UniformPlace {
    kernel: Arc<Kernel>,
    offset: u64,
}

fn bytes_of(kernel: &Kernel) -> u64 {
    u64::from(kernel.reflection.params_bytes).max(LEAST)
}

impl Uniforms {
    /// A place for the `params` of each of these kernels, in order; nothing is set yet.
    pub fn new(gpu: &Gpu, kernels: impl IntoIterator<Item = Arc<Kernel>>) -> Result<Self> {
        let alignment = u64::from(gpu.limits().min_uniform_buffer_offset_alignment);
        let (mut places, mut end) = (Vec::new(), 0u64);
        for kernel in kernels {
            let offset = end.next_multiple_of(alignment);
            end = offset + bytes_of(&kernel);
            places.push(UniformPlace { kernel, offset });
        }
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let buffer = gpu.buffer("parameters of dispatches", end, usage)?;
        Ok(Self { buffer, places, staged: vec![0; end as usize] })
    }

    /// Bytes of the buffer.
    pub fn bytes(&self) -> u64 {
        self.buffer.size()
    }

    /// The place at `index`, to be bound as `params`.
    pub fn part(&self, index: usize) -> Result<BufferPart<'_>> {
        let place = self.place(index)?;
        Ok(BufferPart {
            buffer: &self.buffer,
            offset: place.offset,
            bytes: Some(bytes_of(&place.kernel)),
        })
    }

    /// Sets every member of a place, for the next [`Uniforms::send`]. A member that is not named is an error, and so are a
    /// name that the kernel has not and two values of one.
    pub fn set(&mut self, index: usize, members: &[Setting<'_>]) -> Result<()> {
        let UniformPlace { kernel, offset } = self.place(index)?;
        let mut written = Vec::new();
        for (name, words) in members {
            written.push((*name, kernel.member(name, words.len())?, *words));
        }
        for known in &kernel.reflection.params {
            let mut given = written.iter().filter(|(name, ..)| *name == known.name);
            let fault = match given.next() {
                None => "nothing sets",
                Some((.., words)) if given.any(|(.., other)| other != words) => "two values for",
                Some(_) => continue,
            };
            let message = format!("{fault} params.{}", known.name);
            return Err(Error::shader(kernel.label.clone(), message));
        }
        let start = *offset as usize;
        for (_, at, words) in written {
            let at = start + at as usize;
            self.staged[at..at + 4 * words.len()].copy_from_slice(bytemuck::cast_slice(words));
        }
        Ok(())
    }

    /// Writes all that was set before whatever is submitted next.
    pub fn send(&self, gpu: &Gpu) {
        gpu.upload(&self.buffer, 0, &self.staged);
    }

    /// Changes one word of a place before whatever is submitted next.
    pub fn change(&self, gpu: &Gpu, index: usize, name: &str, word: u32) -> Result<()> {
        let UniformPlace { kernel, offset } = self.place(index)?;
        let at = kernel.member(name, 1)?;
        gpu.upload(&self.buffer, offset + u64::from(at), &word.to_le_bytes());
        Ok(())
    }

    fn place(&self, index: usize) -> Result<&UniformPlace> {
        let missing = || Error::Internal(format!("no dispatch {index} has parameters"));
        self.places.get(index).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::gpu::testing::gpu;
    use crate::engine::shader::KernelKey;

    fn refused(gpu: &Gpu, members: &[Setting<'_>]) -> String {
        let kernel = gpu.kernel(&KernelKey::new("bench_fma.wgsl")).unwrap();
        let mut uniforms = Uniforms::new(gpu, [kernel]).unwrap();
        uniforms.set(0, members).unwrap_err().to_string()
    }

    #[test]
    #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
    fn members_are_set_each_by_name_and_nothing_else() {
        let gpu = gpu();
        let all: [Setting<'_>; 4] =
            [("scale", &[1]), ("steps", &[2]), ("shift", &[3]), ("threads", &[4])];
        let names = |message: String, member: &str| {
            assert!(message.contains("bench_fma.wgsl") && message.contains(member), "{message}");
        };
        names(refused(&gpu, &all[1..]), "params.scale");
        names(refused(&gpu, &[&all[..], &[("wg", &[5])]].concat()), "wg");
        names(refused(&gpu, &[&all[1..], &[("scale", &[1, 0])]].concat()), "params.scale");
        names(refused(&gpu, &[&all[..], &[("shift", &[5])]].concat()), "params.shift");
        let kernel = gpu.kernel(&KernelKey::new("bench_fma.wgsl")).unwrap();
        let mut uniforms = Uniforms::new(&gpu, [kernel.clone(), kernel]).unwrap();
        uniforms.set(1, &all).unwrap();
        // the same value again is no fault
        uniforms.set(1, &[&all[..], &all[..1]].concat()).unwrap();
        let offset = uniforms.part(1).unwrap().offset as usize;
        assert!(offset.is_multiple_of(gpu.limits().min_uniform_buffer_offset_alignment as usize));
        let words: &[u32] = bytemuck::cast_slice(&uniforms.staged[offset..offset + 16]);
        assert_eq!(words, [2, 4, 1, 3]);
        assert!(uniforms.staged[..16].iter().all(|byte| *byte == 0));
        assert!(uniforms.set(2, &all).is_err() && uniforms.part(2).is_err());
        assert!(uniforms.change(&gpu, 0, "scale", 7).is_ok());
        assert!(uniforms.change(&gpu, 0, "nothing", 7).is_err());
    }
}
