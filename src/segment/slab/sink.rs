//! What slabs give, and who takes it.

use std::ops::Range;

use crate::base::Result;
use crate::segment::maps::Map;

/// Planes of the image's crop, first to last, with rows padded to words of four voxels.
pub struct Slab<'a, T> {
    /// Which planes.
    pub planes: Range<usize>,
    /// Their values, D, H, W.
    pub values: &'a [T],
}

/// Takes what slabs give, planes ascending.
pub trait Sink {
    /// Labels of some planes.
    fn labels(&mut self, slab: Slab<'_, u8>) -> Result<()>;

    /// A map on some planes; of a class after those of the classes before.
    fn map(&mut self, map: Map, slab: Slab<'_, f32>) -> Result<()>;
}
