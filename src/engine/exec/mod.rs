//! Dispatches bound by name, encoded, submitted and timed; programs, which are plans bound so; and the memory that programs share.

mod command;
mod pool;
mod program;
mod readback;
mod recording;
mod store;
mod timing;
mod uniforms;

pub use command::{BoundDispatch, BufferPart, Command, Launch, bind, submit};
pub use pool::Pool;
pub use program::{CommandInfo, Program};
pub use readback::Readback;
pub use recording::{Held, Recording, storage, vectors};
pub use store::{LossScale, SCALE_WORDS, Store, Verdict, region_words};
pub use timing::{Timed, rounds_to_warm_up, time, time_rounds};
pub use uniforms::{Setting, Uniforms};

use crate::engine::gpu::Gpu;
use crate::engine::graph::Caps;

/// What lowering must know of an open device.
pub fn caps(gpu: &Gpu) -> Caps {
    let limits = gpu.limits();
    Caps {
        max_binding: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
        max_buffer: limits.max_buffer_size,
        memory: gpu.memory(),
        alignment: u64::from(limits.min_storage_buffer_offset_alignment),
        max_groups: limits.max_compute_workgroups_per_dimension,
        class: gpu.report().class(),
        software: gpu.is_software() && gpu.report().takes_long_kernels(),
        short_kernels: !gpu.report().takes_long_kernels(),
        subgroups: gpu.report().subgroups,
        subgroup_size: gpu.report().subgroup_size,
        int64: gpu.report().int64,
        f16: gpu.report().f16,
        cooperative: gpu.report().cooperative,
        tuning: gpu.tuning().clone(),
        uniform_alignment: u64::from(limits.min_uniform_buffer_offset_alignment),
    }
}
