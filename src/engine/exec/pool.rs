//! Activation memory.

use crate::base::Result;
use crate::engine::gpu::Gpu;
use crate::engine::plan::Plan;

/// Activation memory that programs share, since one runs at a time: the k-th largest slot of each uses the k-th buffer.
pub struct Pool {
    pub(super) buffers: Vec<wgpu::Buffer>,
    bytes: u64,
}

impl Pool {
    /// Bytes of the buffers that serve every one of the plans.
    pub fn sizes<'a>(plans: impl IntoIterator<Item = &'a Plan>) -> Vec<u64> {
        let mut sizes: Vec<u64> = Vec::new();
        for plan in plans {
            for (index, bytes) in plan.slots.iter().enumerate() {
                match sizes.get_mut(index) {
                    Some(size) => *size = (*size).max(*bytes),
                    None => sizes.push(*bytes),
                }
            }
        }
        sizes
    }

    /// Buffers large enough for every one of the plans.
    pub fn new<'a>(gpu: &Gpu, plans: impl IntoIterator<Item = &'a Plan>) -> Result<Self> {
        let sizes = Self::sizes(plans);
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        let buffers = sizes
            .iter()
            .enumerate()
            .map(|(index, bytes)| gpu.buffer(&format!("slot {index}"), *bytes, usage))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { buffers, bytes: sizes.iter().sum() })
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::engine::graph::Graph;

    #[test]
    fn buffers_serve_the_largest_slot_of_their_rank() {
        let plan = |slots: &[u64]| Plan {
            graph: Graph::new(),
            again: Vec::new(),
            steps: Vec::new(),
            slots: slots.to_vec(),
            value_to_slot: HashMap::new(),
        };
        let plans = [plan(&[90, 50]), plan(&[100, 40, 30]), plan(&[])];
        assert_eq!(Pool::sizes(&plans), [100, 50, 30]);
        assert_eq!(Pool::sizes(&plans[2..]), [0; 0]);
    }
}
