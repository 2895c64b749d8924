//! Tiles of the pointwise kernels.

/// Voxels that one thread of the pointwise kernel keeps in registers.
pub(super) const VOX: usize = 2;

/// Output and input blocks that one thread of the weight gradient owns.
pub(super) const WEIGHT_TILE: usize = 2;
