//! Labels and probabilities of the image's crop put into their places on the image's own grid.

use super::maps::{Map, Maps};
use super::slab::{Sink, Slab};
use crate::base::Result;
use crate::imaging::{Grid, LabelMap, VoxelBox, shaped};

/// Puts slabs into their places.
pub struct Collect<'a> {
    grid: Grid,
    crop: VoxelBox,
    labels: Vec<u8>,
    /// Whether the first class is no background.
    regions: bool,
    maps: Option<Maps<'a>>,
}

impl<'a> Collect<'a> {
    /// For an image of which a crop is segmented; beyond it lies background.
    pub fn new(grid: &Grid, crop: VoxelBox, regions: bool, maps: Option<Maps<'a>>) -> Self {
        let labels = vec![0; grid.shape().iter().product()];
        Self { grid: grid.clone(), crop, labels, regions, maps }
    }

    /// The labels.
    ///
    /// # Errors
    ///
    /// Where the grid has other sizes than its voxels.
    pub fn into_labels(self) -> Result<LabelMap> {
        LabelMap::from_vec(self.labels, self.grid)
    }

    /// Rows of the crop in a slab, with the place of each in planes of the image's grid that begin at the crop's first plane.
    fn rows<'b, T>(
        &self,
        slab: &Slab<'b, T>,
    ) -> impl Iterator<Item = (usize, &'b [T])> + use<'b, T> {
        let [_, height, width] = self.crop.shape();
        let [_, h, w] = self.grid.shape();
        let [_, top, left] = self.crop.low;
        let rows = slab.values.chunks(width.next_multiple_of(4));
        rows.enumerate().map(move |(row, values)| {
            let (plane, y) = (row / height, row % height);
            ((plane * h + top + y) * w + left, &values[..width])
        })
    }
}

impl Sink for Collect<'_> {
    fn labels(&mut self, slab: Slab<'_, u8>) -> Result<()> {
        let [_, h, w] = self.grid.shape();
        let first = (self.crop.low[0] + slab.planes.start) * h * w;
        for (at, row) in self.rows(&slab) {
            self.labels[first + at..][..row.len()].copy_from_slice(row);
        }
        Ok(())
    }

    fn map(&mut self, map: Map, slab: Slab<'_, f32>) -> Result<()> {
        let [d, h, w] = self.grid.shape();
        // the planes before the crop come with its first, those behind with its last
        let before = if slab.planes.start == 0 { self.crop.low[0] } else { 0 };
        let last = slab.planes.end == self.crop.shape()[0];
        let behind = if last { d - self.crop.high[0] } else { 0 };
        let count = before + slab.planes.len() + behind;
        // there background is certain
        let sure = map == Map::Probability(0) && !self.regions;
        let outside = if sure { 1.0 } else { 0.0 };
        let mut planes = vec![outside; count * h * w];
        for (at, row) in self.rows(&slab) {
            planes[before * h * w + at..][..row.len()].copy_from_slice(row);
        }
        match &mut self.maps {
            Some(maps) => (maps.take)(map, shaped((count, h, w), planes)?),
            None => Ok(()),
        }
    }
}
