//! How large slabs are and in which groups classes are worked, by the memory that is given.

use std::ops::Range;

use crate::base::{Error, Result};
use crate::engine::graph::Caps;
use crate::engine::shape::LANES;

/// What finished planes become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlabShape {
    /// Rows and voxels of a plane of the image's crop.
    pub rows: usize,
    pub width: usize,
    /// Planes of it.
    pub planes: usize,
    /// Classes in all.
    pub classes: usize,
    /// Networks.
    pub members: usize,
    /// Vectors of the largest plane of a block on the way: before or after rows are resampled.
    pub block: usize,
    /// Whether probabilities are made, be it for files or for a mean.
    pub maps: bool,
    /// Whether their entropy is.
    pub entropy: bool,
    /// Predictions whose spread is measured.
    pub apart: usize,
}

/// Sizes that hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SlabSizes {
    /// Planes of a slab at most.
    pub planes: usize,
    /// Blocks of classes that are worked at once, in order.
    pub groups: Vec<Range<usize>>,
}

impl SlabSizes {
    /// Blocks of the largest group.
    pub fn blocks(&self) -> usize {
        self.groups.iter().map(Range::len).max().unwrap_or(1)
    }
}

/// Planes of a slab at most: more only come later.
const MOST_PLANES: usize = 64;

impl SlabShape {
    /// Words of four voxels in a row.
    pub fn words(&self) -> usize {
        self.width.div_ceil(4)
    }

    /// Blocks of classes.
    pub fn blocks(&self) -> usize {
        self.classes.div_ceil(LANES)
    }

    fn groups(&self, blocks: usize) -> Vec<Range<usize>> {
        let all = self.blocks();
        (0..all).step_by(blocks).map(|first| first..(first + blocks).min(all)).collect()
    }

    /// Bytes of the largest binding of a plane with so many blocks.
    fn largest(&self, blocks: usize) -> u64 {
        let maps = if self.maps { LANES * self.rows * self.words() * 16 } else { 0 };
        (blocks * maps.max(self.block * 16)).max(self.rows * self.words() * 32) as u64
    }

    /// Bytes of a plane with so many blocks, all buffers together.
    fn bytes(&self, blocks: usize) -> u64 {
        let voxels = self.rows * self.words();
        let grouped = usize::from(blocks < self.blocks());
        // each is read while two that are read back wait
        let copies = if self.maps { 3 } else { 0 } + if self.apart > 0 { 5 } else { 0 };
        let maps = blocks * LANES * voxels * 16 * copies;
        let state = grouped * voxels * 16 * (1 + 2 * (self.members + self.apart));
        let entropies = if self.entropy { voxels * 16 * 3 } else { 0 };
        (2 * blocks * self.block * 16 + maps + state + entropies + voxels * 4 * 3) as u64
    }

    /// Whole planes of all classes where they fit, else groups of blocks of one plane.
    ///
    /// # Errors
    ///
    /// Where a plane of a single block exceeds what the device binds.
    pub fn sizes(&self, caps: &Caps, budget: u64) -> Result<SlabSizes> {
        let fits = |blocks: usize, planes: usize| {
            let planes = planes as u64;
            self.largest(blocks) * planes <= caps.max_binding
                && self.bytes(blocks) * planes <= budget
        };
        if self.largest(1) > caps.max_binding {
            return Err(Error::shape(
                "segment",
                format!(
                    "planes of {} x {} voxels take {} MiB, the device binds {} MiB",
                    self.rows,
                    self.width,
                    self.largest(1) >> 20,
                    caps.max_binding >> 20
                ),
            ));
        }
        let blocks = (1..=self.blocks()).rev().find(|blocks| fits(*blocks, 1)).unwrap_or(1);
        let most = self.planes.min(MOST_PLANES);
        let planes = (1..=most).rev().find(|planes| fits(blocks, *planes)).unwrap_or(1);
        Ok(SlabSizes { planes, groups: self.groups(blocks) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: SlabShape = SlabShape {
        rows: 512,
        width: 510,
        planes: 600,
        classes: 25,
        members: 2,
        block: 512 * 64,
        maps: true,
        entropy: false,
        apart: 0,
    };

    #[test]
    fn slabs_shrink_and_classes_are_grouped_as_memory_asks() {
        let caps = Caps::default();
        let roomy = SHAPE.sizes(&caps, 4 << 30).unwrap();
        // 28 maps of a mebibyte a plane in a binding of 128
        assert_eq!(roomy, SlabSizes { planes: 4, groups: SHAPE.groups(7) });
        let tight = SHAPE.sizes(&caps, 32 << 20).unwrap();
        assert_eq!(tight, SlabSizes { planes: 1, groups: SHAPE.groups(2) });
        let labels = SlabShape { maps: false, ..SHAPE }.sizes(&caps, 32 << 20).unwrap();
        assert_eq!(labels, SlabSizes { planes: 4, groups: SHAPE.groups(7) });
        let uncertain = SlabShape { entropy: true, apart: 16, ..SHAPE };
        let uncertain = uncertain.sizes(&caps, 64 << 20).unwrap();
        assert_eq!(uncertain, SlabSizes { planes: 1, groups: SHAPE.groups(1) });
        let few = SlabShape { planes: 3, ..SHAPE }.sizes(&caps, 4 << 30).unwrap();
        assert_eq!(few.planes, 3);
        // however little is given, a plane of a block is worked
        assert_eq!(SHAPE.sizes(&caps, 1).unwrap().planes, 1);
    }

    #[test]
    fn what_cannot_be_bound_is_refused() {
        let caps = Caps { max_binding: 1 << 20, ..Caps::default() };
        assert!(SHAPE.sizes(&caps, 4 << 30).unwrap_err().to_string().contains("binds 1 MiB"));
    }
}
