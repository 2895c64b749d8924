//! The oracles: every operation of the network in f64, forward and backward, in the simplest loops.
//!
//! Shaders are held against these functions, and these functions against central differences. Nothing here is fast, and
//! nothing here checks its arguments beyond what indexing does: lengths must match the shapes.

pub mod activation;
pub mod add;
pub mod concat;
pub mod conv;
pub mod depthwise;
pub mod losses;
pub mod merge;
pub mod norm;
pub mod optimizer;
pub mod region;
pub mod softmax;
pub mod upsample;

#[cfg(test)]
mod testing;

pub use activation::*;
pub use add::*;
pub use concat::*;
pub use conv::*;
pub use depthwise::*;
pub use losses::*;
pub use merge::*;
pub use norm::*;
pub use optimizer::*;
pub use region::*;
pub use softmax::*;
pub use upsample::*;

use crate::base::{Error, Result};
use crate::engine::shape::Shape;

/// A dense f64 tensor in N, C, D, H, W order.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Axes of the tensor.
    pub shape: Shape,
    /// Values, W fastest.
    pub data: Vec<f64>,
}

impl Tensor {
    /// A tensor of the given values.
    pub fn new(shape: Shape, data: Vec<f64>) -> Result<Self> {
        if data.len() == shape.elements() {
            return Ok(Self { shape, data });
        }
        Err(Error::shape("tensor", format!("{} values for shape {shape}", data.len())))
    }

    /// A tensor of zeros.
    pub fn zeros(shape: Shape) -> Self {
        Self { shape, data: vec![0.0; shape.elements()] }
    }

    /// Where a value lies in `data`.
    pub fn index(&self, n: usize, c: usize, [d, h, w]: [usize; 3]) -> usize {
        let s = &self.shape;
        (((n * s.c + c) * s.d + d) * s.h + h) * s.w + w
    }

    /// One value.
    pub fn at(&self, n: usize, c: usize, position: [usize; 3]) -> f64 {
        self.data[self.index(n, c, position)]
    }

    /// The same shape, each value mapped.
    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self { shape: self.shape, data: self.data.iter().map(|&v| f(v)).collect() }
    }
}

/// All positions of a box of the given extent, W fastest.
pub(crate) fn positions([d, h, w]: [usize; 3]) -> impl Iterator<Item = [usize; 3]> {
    (0..d).flat_map(move |z| (0..h).flat_map(move |y| (0..w).map(move |x| [z, y, x])))
}
