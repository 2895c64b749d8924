//! Planes in GPU memory: plane z lies in slot z modulo the slots, so that planes to come take the place of those that are done.

use crate::base::{Error, Result};
use crate::engine::exec::{Held, storage};
use crate::engine::gpu::Gpu;
use crate::engine::graph::Caps;
use crate::engine::ops::slab::Slots;

/// Some planes of equal size.
pub(super) struct Ring {
    buffer: wgpu::Buffer,
    /// Planes that it holds.
    pub slots: usize,
    /// Elements from one to the next.
    pub pitch: usize,
    /// Bytes of an element.
    element: usize,
    /// Slots that a binding covers.
    bound: usize,
}

/// What planes are made of.
#[derive(Clone, Copy)]
pub(super) struct Plane {
    pub elements: usize,
    /// Bytes of each.
    pub bytes: usize,
}

impl Ring {
    pub fn new(gpu: &Gpu, caps: &Caps, label: &str, slots: usize, plane: Plane) -> Result<Self> {
        let Plane { elements, bytes: element } = plane;
        let step = (caps.alignment as usize).div_ceil(element).max(1);
        let pitch = elements.next_multiple_of(step);
        let bytes = (pitch * element) as u64;
        if bytes > caps.max_binding {
            return Err(Error::shape(
                "segment",
                format!(
                    "{label}: a plane takes {} MiB, the device binds {} MiB; use a coarser spacing",
                    bytes >> 20,
                    caps.max_binding >> 20
                ),
            ));
        }
        let buffer = storage(gpu, label, bytes * slots as u64)?;
        let bound = ((caps.max_binding / bytes) as usize).min(slots);
        Ok(Self { buffer, slots, pitch, element, bound })
    }

    fn held(&self, slots: Slots) -> Held {
        let pitch = (self.pitch * self.element) as u64;
        Held::bytes(&self.buffer, slots.first as u64 * pitch, slots.count as u64 * pitch)
    }

    /// All slots, in parts that can be bound.
    pub fn parts(&self) -> impl Iterator<Item = (Slots, Held)> + '_ {
        (0..self.slots).step_by(self.bound).map(|first| {
            let slots = Slots { first, count: self.bound.min(self.slots - first) };
            (slots, self.held(slots))
        })
    }

    /// The slot of a plane.
    pub fn plane(&self, z: usize) -> Held {
        self.held(Slots { first: z % self.slots, count: 1 })
    }

    /// Writes elements of a plane from the given one on.
    pub fn write(&self, gpu: &Gpu, z: usize, first: usize, values: &[f32]) {
        let at = ((z % self.slots) * self.pitch + first) * self.element;
        gpu.upload(&self.buffer, at as u64, bytemuck::cast_slice(values));
    }
}
