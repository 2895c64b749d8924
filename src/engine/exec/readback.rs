//! Reading small values back without a stall: a copy behind the run, mapped when it is done, while later runs go on.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, sync_channel};

use super::command::{Command, Launch, submit};
use crate::base::{Error, Result};
use crate::engine::gpu::{Gpu, unread};

type Mapped = std::result::Result<(), wgpu::BufferAsyncError>;

/// A reading that is under way.
struct Flight {
    staging: wgpu::Buffer,
    bytes: u64,
    launch: Launch,
    mapped: Receiver<Mapped>,
}

/// Readings in the order in which they were asked for, over a ring of staging buffers.
pub struct Readback {
    bytes: u64,
    free: Vec<wgpu::Buffer>,
    flights: VecDeque<Flight>,
}

impl Readback {
    /// Room for `depth` readings at a time of at most `words` words.
    pub fn new(gpu: &Gpu, words: usize, depth: usize) -> Result<Self> {
        let bytes = (words * 4) as u64;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let free = (0..depth)
            .map(|_| gpu.buffer("read back", bytes, usage))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { bytes, free, flights: VecDeque::new() })
    }

    /// Asks for the first words of buffers, one behind the other, as what is submitted so far leaves them.
    pub fn ask(&mut self, gpu: &Gpu, parts: &[(&wgpu::Buffer, usize)]) -> Result<()> {
        let bytes = parts.iter().map(|(_, words)| (words * 4) as u64).sum();
        if bytes > self.bytes {
            return Err(Error::Internal(format!("{bytes} bytes in a readback of {}", self.bytes)));
        }
        let Some(staging) = self.free.pop() else {
            return Err(Error::Internal(format!("{} readings are under way", self.flights.len())));
        };
        let mut copies = Vec::new();
        let mut at = 0;
        for (buffer, words) in parts {
            let (from, to, bytes) = ((*buffer).clone(), staging.clone(), (words * 4) as u64);
            copies.push(Command::Copy { from, to, at, bytes });
            at += bytes;
        }
        let launch = submit(gpu, "read back", &copies)?;
        let (sender, mapped) = sync_channel(1);
        staging.map_async(wgpu::MapMode::Read, ..bytes, move |result| {
            // whoever gave the reading up has dropped the receiver
            sender.send(result).ok();
        });
        self.flights.push_back(Flight { staging, bytes, launch, mapped });
        Ok(())
    }

    /// The oldest reading. Waits for its run, not for later ones; none where nothing was asked for.
    pub fn take<W: bytemuck::Pod>(&mut self, gpu: &Gpu) -> Result<Option<Vec<W>>> {
        let Some(flight) = self.flights.pop_front() else { return Ok(None) };
        let Flight { staging, bytes, launch, mapped } = flight;
        if let Some(submission) = launch.last {
            gpu.wait_for(submission)?;
        }
        gpu.may_map()?;
        mapped.recv().map_err(unread)?.map_err(unread)?;
        let view = staging.get_mapped_range(..bytes).map_err(unread)?;
        let words = bytemuck::pod_collect_to_vec(&view);
        drop(view);
        staging.unmap();
        self.free.push(staging);
        Ok(Some(words))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::gpu::testing::gpu;

    #[test]
    #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
    fn readings_come_in_order_with_what_was_there_when_they_were_asked_for() {
        let gpu = gpu();
        let usage = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffer = gpu.buffer("words", 16, usage).unwrap();
        let mut readback = Readback::new(&gpu, 4, 2).unwrap();
        assert!(readback.take::<u32>(&gpu).unwrap().is_none());
        assert!(readback.ask(&gpu, &[(&buffer, 3), (&buffer, 2)]).is_err());
        for word in [1u32, 2] {
            gpu.upload(&buffer, 0, bytemuck::cast_slice(&[word; 4]));
            readback.ask(&gpu, &[(&buffer, 1), (&buffer, 2)]).unwrap();
        }
        // as many as there is room for
        assert!(readback.ask(&gpu, &[(&buffer, 3)]).is_err());
        assert_eq!(readback.take::<u32>(&gpu).unwrap().unwrap(), [1; 3]);
        readback.ask(&gpu, &[(&buffer, 4)]).unwrap();
        assert_eq!(readback.take::<u32>(&gpu).unwrap().unwrap(), [2; 3]);
        assert_eq!(readback.take::<u32>(&gpu).unwrap().unwrap(), [2; 4]);
        assert!(readback.take::<u32>(&gpu).unwrap().is_none());
    }
}
