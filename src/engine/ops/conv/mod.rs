//! Convolution with 1 or 3 taps, stride 1 or 2 per axis and any padding, with its gradients.

mod coop;
mod coop_conv;
mod forward;
mod input_grad;
mod pick;
mod shared;
mod site;
mod spec;
mod split;
mod staged;
mod staged_box;
mod tile;
mod weight_boxes;
mod weight_grad;
mod weight_tile;

pub use forward::conv;
pub use spec::ConvSpec;
