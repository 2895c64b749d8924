//! Depthwise 3x3x3 convolution, stride 1, padding 1, with its gradients.

mod march;
mod tile;
mod weight_grad;
mod weight_tile;

pub use march::depthwise;
