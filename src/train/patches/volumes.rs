//! Volumes in GPU memory: whole cases within a budget, of which the least recently used leaves, and boxes of cases that
//! are too large for it.

use std::collections::HashMap;

use crate::data::{Bounds, Prepared};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::graph::Caps;

/// What decides whether a case lies in GPU memory as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Bytes for whole cases.
    budget: u64,
    /// Bytes that one binding covers: a channel.
    binding: u64,
    /// Bytes of one buffer: a case.
    buffer: u64,
    alignment: u64,
}

/// Places of a volume's channels and labels in its buffer, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    channels: usize,
    plane: u64,
    /// From a channel to the next.
    span: u64,
    label: u64,
    pub bytes: u64,
}

impl Places {
    /// Buffer offset and size of a channel; beyond the last channel those of the first.
    fn channel(&self, channel: usize) -> (u64, u64) {
        let channel = if channel < self.channels { channel } else { 0 };
        (channel as u64 * self.span, self.plane)
    }

    fn labels(&self) -> (u64, u64) {
        (self.channels as u64 * self.span, self.label)
    }

    /// Places for either of two volumes.
    pub fn union(&self, other: &Self) -> Self {
        let larger = if self.plane < other.plane { other } else { self };
        let channels = self.channels.max(other.channels);
        Self { channels, bytes: channels as u64 * larger.span + larger.label, ..*larger }
    }
}

impl Capacity {
    /// With `budget` bytes for whole cases.
    pub fn new(gpu: &Gpu, caps: &Caps, budget: u64) -> Self {
        Self {
            budget,
            binding: caps.max_binding,
            buffer: gpu.limits().max_buffer_size,
            alignment: caps.alignment,
        }
    }

    pub(super) fn places(&self, channels: usize, shape: [usize; 3]) -> Places {
        let voxels = shape.iter().product::<usize>() as u64;
        let (plane, label) = (voxels * 4, voxels.next_multiple_of(4));
        let span = plane.next_multiple_of(self.alignment);
        Places { channels, plane, span, label, bytes: channels as u64 * span + label }
    }

    /// Whether a volume fits one buffer and each channel one binding.
    pub(super) fn fits(&self, places: &Places) -> bool {
        places.plane <= self.binding && places.bytes <= self.buffer
    }

    /// Bytes for whole cases.
    pub(super) fn budget(&self) -> u64 {
        self.budget
    }

    /// Whether a case goes to GPU memory as a whole; else patches take boxes of it.
    pub fn holds(&self, case: &Prepared) -> bool {
        let places = self.places(case.channels, case.shape);
        self.fits(&places) && places.bytes <= self.budget
    }
}

/// A box of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    first: [usize; 3],
    shape: [usize; 3],
    /// C, D, H, W.
    image: Vec<f32>,
    /// D, H, W.
    label: Vec<u8>,
}

impl Piece {
    /// Copies a box out of a case.
    pub fn cut(case: &Prepared, bounds: Bounds) -> Result<Self> {
        let label = labels(case)?;
        let [_, h, w] = case.shape;
        let first = bounds.map(|[from, _]| from);
        let shape = bounds.map(|[from, end]| end - from);
        let rows = || {
            let [z, y, [from, end]] = bounds;
            (z[0]..z[1]).flat_map(move |z| {
                (y[0]..y[1]).map(move |y| (z * h + y) * w + from..(z * h + y) * w + end)
            })
        };
        let voxels: usize = case.shape.iter().product();
        let planes = case.image.chunks(voxels);
        Ok(Self {
            first,
            shape,
            image: planes.flat_map(|p| rows().flat_map(move |r| p[r].iter().copied())).collect(),
            label: rows().flat_map(|r| label[r].iter().copied()).collect(),
        })
    }
}

fn labels(case: &Prepared) -> Result<&[u8]> {
    case.label.as_deref().ok_or_else(|| Error::Internal("a training case without labels".into()))
}

/// A case, or a box of one, in a buffer.
pub(super) struct Volume {
    pub buffer: wgpu::Buffer,
    pub places: Places,
    /// The box's first voxel and voxels along D, H, W.
    pub first: [usize; 3],
    pub shape: [usize; 3],
    /// What the patch kernel reads and writes, for each block of four channels.
    pub groups: Vec<wgpu::BindGroup>,
}

impl Volume {
    /// Memory for a volume; `bind` makes the groups from the bindings of a block: four channels and labels.
    pub fn new(
        gpu: &Gpu,
        places: Places,
        bind: impl Fn([wgpu::BufferBinding<'_>; 5]) -> Result<wgpu::BindGroup>,
    ) -> Result<Self> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let buffer = gpu.buffer("volume", places.bytes, usage)?;
        let part = |(offset, bytes): (u64, u64)| wgpu::BufferBinding {
            buffer: &buffer,
            offset,
            size: wgpu::BufferSize::new(bytes),
        };
        let groups = (0..places.channels.div_ceil(4))
            .map(|block| {
                let channel = |lane: usize| part(places.channel(4 * block + lane));
                bind([channel(0), channel(1), channel(2), channel(3), part(places.labels())])
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { buffer, places, first: [0; 3], shape: [0; 3], groups })
    }

    fn write(&self, gpu: &Gpu, image: &[f32], label: &[u8]) {
        for (channel, plane) in image.chunks(label.len()).enumerate() {
            let (offset, _) = self.places.channel(channel);
            gpu.upload(&self.buffer, offset, bytemuck::cast_slice(plane));
        }
        let (offset, _) = self.places.labels();
        let (words, rest) = label.split_at(label.len() / 4 * 4);
        gpu.upload(&self.buffer, offset, words);
        if !rest.is_empty() {
            let mut word = [0; 4];
            word[..rest.len()].copy_from_slice(rest);
            gpu.upload(&self.buffer, offset + words.len() as u64, &word);
        }
    }

    /// Replaces what is there by a box that is no larger than the memory was made for.
    pub fn put(&mut self, gpu: &Gpu, piece: &Piece) -> Result<()> {
        let voxels = piece.label.len() as u64;
        let channels = piece.image.len() / piece.label.len().max(1);
        if voxels * 4 > self.places.plane || channels > self.places.channels {
            return Err(Error::Internal(format!(
                "a box of {channels} x {:?} where {:?} fits",
                piece.shape, self.places
            )));
        }
        (self.first, self.shape) = (piece.first, piece.shape);
        self.write(gpu, &piece.image, &piece.label);
        Ok(())
    }

    /// Puts a whole case there.
    fn fill(&mut self, gpu: &Gpu, case: &Prepared) -> Result<()> {
        self.shape = case.shape;
        self.write(gpu, &case.image, labels(case)?);
        Ok(())
    }
}

/// Cases in GPU memory, by domain and case.
pub(super) struct Volumes {
    pub capacity: Capacity,
    used: u64,
    /// Counts the questions for a case.
    clock: u64,
    entries: HashMap<(usize, usize), (u64, Volume)>,
}

impl Volumes {
    pub fn new(capacity: Capacity) -> Self {
        Self { capacity, used: 0, clock: 0, entries: HashMap::new() }
    }

    /// Bytes of the cases that are there.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// The volume of a case, uploaded if it is not there. Those not used for longest make room.
    pub fn get(
        &mut self,
        gpu: &Gpu,
        key: (usize, usize),
        case: &Prepared,
        bind: impl Fn([wgpu::BufferBinding<'_>; 5]) -> Result<wgpu::BindGroup>,
    ) -> Result<&Volume> {
        self.clock += 1;
        if !self.entries.contains_key(&key) {
            let places = self.capacity.places(case.channels, case.shape);
            self.make_room(gpu, places.bytes)?;
            let mut volume = Volume::new(gpu, places, bind)?;
            volume.fill(gpu, case)?;
            self.used += places.bytes;
            self.entries.insert(key, (self.clock, volume));
        }
        let entry = self.entries.get_mut(&key);
        let (last, volume) = entry.ok_or_else(|| Error::Internal("a lost volume".into()))?;
        *last = self.clock;
        Ok(volume)
    }

    fn make_room(&mut self, gpu: &Gpu, bytes: u64) -> Result<()> {
        let mut left = false;
        while self.used + bytes > self.capacity.budget {
            let oldest = self.entries.iter().min_by_key(|(_, (last, _))| *last);
            let Some(key) = oldest.map(|(key, _)| *key) else {
                return Err(Error::Internal(format!("no room for {bytes} bytes")));
            };
            if let Some((_, volume)) = self.entries.remove(&key) {
                self.used -= volume.places.bytes;
            }
            left = true;
        }
        if left {
            // memory is given back once no submitted step reads it any more
            gpu.wait()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_lies_there_whole_where_budget_binding_and_buffer_allow() {
        let roomy = Capacity { budget: 1 << 30, binding: 1 << 27, buffer: 1 << 30, alignment: 256 };
        let holds = |capacity: Capacity| {
            let places = capacity.places(4, [30, 30, 30]);
            capacity.fits(&places) && places.bytes <= capacity.budget
        };
        assert!(holds(roomy));
        // a channel is 108,000 bytes, four with labels 459,056
        assert!(!holds(Capacity { binding: 107_999, ..roomy }));
        assert!(!holds(Capacity { buffer: 459_000, ..roomy }));
        assert!(!holds(Capacity { budget: 459_000, ..roomy }));
        assert!(holds(Capacity { binding: 108_000, buffer: 460_000, budget: 460_000, ..roomy }));
    }

    #[test]
    fn places_of_two_boxes_hold_either() {
        let capacity = Capacity { budget: 0, binding: 1 << 27, buffer: 1 << 30, alignment: 256 };
        let (a, b) = (capacity.places(1, [9, 9, 9]), capacity.places(3, [5, 5, 5]));
        let both = a.union(&b);
        assert_eq!(both, b.union(&a));
        assert_eq!((both.channels, both.plane), (3, a.plane));
        assert!(both.bytes >= a.bytes.max(b.bytes));
    }
}
