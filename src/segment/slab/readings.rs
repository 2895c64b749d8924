//! What is under way from the GPU to the host.

use std::collections::VecDeque;
use std::ops::Range;

use crate::base::Result;
use crate::engine::exec::Readback;
use crate::engine::gpu::Gpu;

/// What is under way to the host.
pub(super) struct Reading {
    pub planes: Range<usize>,
    /// Of maps.
    pub classes: Range<usize>,
}

/// Readings of one kind that are under way, the first one asked for first.
pub(super) struct Readings {
    readback: Readback,
    asked: VecDeque<Reading>,
}

impl Readings {
    /// At a time.
    const MOST: usize = 2;

    pub fn new(gpu: &Gpu, words: usize) -> Result<Self> {
        Ok(Self { readback: Readback::new(gpu, words, Self::MOST)?, asked: VecDeque::new() })
    }

    /// Whether the first one has to be taken before another one is asked for.
    pub fn is_full(&self) -> bool {
        self.asked.len() == Self::MOST
    }

    pub fn ask(&mut self, gpu: &Gpu, from: &wgpu::Buffer, words: usize, of: Reading) -> Result<()> {
        self.readback.ask(gpu, &[(from, words)])?;
        self.asked.push_back(of);
        Ok(())
    }

    /// Waits for the first one; none where nothing was asked for.
    pub fn take<T: bytemuck::Pod>(&mut self, gpu: &Gpu) -> Result<Option<Taken<T>>> {
        let Some(of) = self.asked.pop_front() else { return Ok(None) };
        Ok(self.readback.take(gpu)?.map(|values| Taken { of, values }))
    }
}

/// A reading that has come.
pub(super) struct Taken<T> {
    pub of: Reading,
    pub values: Vec<T>,
}
