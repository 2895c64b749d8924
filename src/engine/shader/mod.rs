//! Embeds `shaders/*/*.wgsl`, specialises them, and validates and reflects them with naga.
//!
//! A file is valid WGSL with what it imports from `shaders/shared`. A kernel is a file with values for its `override`s (workgroup sizes, switches) and for some
//! of its `const` lines (register tiles, which naga does not accept as overrides in array sizes).

mod compile;
mod embedded;
mod expand;
mod key;
mod lint;
mod needs;
mod reflect;
mod specialise;
mod storage;
mod tuning;

pub use compile::{reflect, spirv, validate, vulkan_options};
pub use embedded::{shared, source, sources};
pub use key::KernelKey;
pub use lint::lint;
pub use needs::{Needs, needs, standard};
pub use reflect::{Binding, BindingKind, Member, Reflection};
pub use specialise::specialise;
pub use tuning::{Choice, Class, Cooperative, Tuning};
