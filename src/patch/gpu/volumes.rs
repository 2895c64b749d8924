//! Volumes in GPU memory: whole cases, and boxes of cases that find no room.

use std::collections::HashMap;

use super::cache::{Key, Places};
use super::scratch::BlockParts;
use crate::base::{Error, Result};
use crate::dataset::prepared::Piece;
use crate::engine::exec::BufferPart;
use crate::engine::gpu::Gpu;

/// A case, or a box of one, in a buffer.
pub(super) struct Resident {
    pub buffer: wgpu::Buffer,
    pub places: Places,
    /// The box's first voxel and voxels along D, H, W.
    pub first: [usize; 3],
    pub shape: [usize; 3],
    /// What the patch kernel reads and writes, for each block of four channels.
    pub groups: Vec<wgpu::BindGroup>,
}

impl Resident {
    /// Memory for a volume; `bind` makes the group of a block.
    pub fn new(
        gpu: &Gpu,
        places: Places,
        bind: impl Fn(BlockParts<'_>) -> Result<wgpu::BindGroup>,
    ) -> Result<Self> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let buffer = gpu.buffer("volume", places.bytes, usage)?;
        let part = |(offset, bytes): (u64, u64)| BufferPart {
            buffer: &buffer,
            offset,
            bytes: Some(bytes),
        };
        let groups = (0..places.channels.div_ceil(4))
            .map(|block| {
                let channels = [0, 1, 2, 3].map(|lane| part(places.channel(4 * block + lane)));
                bind(BlockParts { channels, labels: part(places.labels()) })
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
                piece.bounds, self.places
            )));
        }
        (self.first, self.shape) = (piece.bounds.low, piece.bounds.shape());
        self.write(gpu, &piece.image, &piece.label);
        Ok(())
    }
}

/// Cases in GPU memory.
#[derive(Default)]
pub(super) struct Volumes {
    entries: HashMap<Key, Resident>,
}

impl Volumes {
    /// Bytes of the cases that are there.
    pub fn bytes(&self) -> u64 {
        self.entries.values().map(|volume| volume.places.bytes).sum()
    }

    /// A case that is there.
    pub fn get(&self, key: Key) -> Result<&Resident> {
        self.entries.get(&key).ok_or_else(|| Error::Internal(format!("case {key:?} was not sent")))
    }

    /// Takes cases away. Their memory is given back once no submitted step reads it any more.
    pub fn leave(&mut self, gpu: &Gpu, keys: &[Key]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        self.entries.retain(|key, _| !keys.contains(key));
        gpu.wait()
    }

    /// Keeps a case that was sent.
    pub fn keep(&mut self, key: Key, volume: Resident) {
        self.entries.insert(key, volume);
    }
}
