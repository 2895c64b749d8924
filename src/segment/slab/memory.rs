//! What a segmentation takes of an adapter's memory, and how it is shared out.

use crate::engine::gpu::Gpu;

/// Windows in a batch at most: more hardly keep a GPU busier.
const MOST_WINDOWS: usize = 8;

/// Bytes by which slabs and batches are sized, where nobody says other: what the adapter gives; of one on the CPU a quarter, since
/// images, masks and files that are packed lie in the same memory.
pub fn default_memory(gpu: &Gpu) -> u64 {
    if gpu.is_software() { gpu.memory() / 4 } else { gpu.memory() }
}

/// Bytes for what becomes of finished planes.
pub fn for_slabs(memory: u64) -> u64 {
    memory / 8
}

/// Bytes for the activations of a batch.
pub fn for_batch(memory: u64) -> u64 {
    memory / 2
}

/// Windows that a batch may have where memory holds them; adapters on the CPU gain nothing by more than one.
pub fn most_windows(gpu: &Gpu) -> usize {
    if gpu.is_software() { 1 } else { MOST_WINDOWS }
}
