//! Addition, nearest upsampling, concatenation. Only additions are ever stored.

mod add;
mod concat;
mod upsample;

pub use add::{accumulate, add, materialise, part_grads, single};
pub use concat::concat;
pub use upsample::upsample;
