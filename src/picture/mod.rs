//! Pictures of cases: slices of an image with its masks outlined.

mod centre;
mod legend;
mod overlay;
mod panel;
mod window;

pub use legend::value_names;
pub use overlay::{Layout, MAX_SLICES, Overlay};
pub use panel::Plane;
pub use window::SOFT_TISSUE;
