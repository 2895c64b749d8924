//! Addition, nearest upsampling, concatenation. Only additions are ever stored.

mod add;
mod concat;
mod upsample;

pub use add::*;
pub use concat::*;
pub use upsample::*;
