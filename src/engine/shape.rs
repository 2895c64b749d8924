//! Checked tensor shapes in N, C, D, H, W order and their channel-packed layout.

use crate::base::{Error, Result};

/// Lanes of one packed channel block (`vec4<f32>`).
pub const LANES: usize = 4;

/// Shape of a 5-D tensor: samples, channels, depth, height, width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Shape {
    /// Samples.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Voxels along D.
    pub d: usize,
    /// Voxels along H.
    pub h: usize,
    /// Voxels along W.
    pub w: usize,
}

impl Shape {
    /// A shape whose axes are all at least 1 and whose packed size fits 32-bit element indices.
    pub fn new(n: usize, c: usize, spatial: [usize; 3]) -> Result<Self> {
        let [d, h, w] = spatial;
        let shape = Self { n, c, d, h, w };
        if [n, c, d, h, w].contains(&0) {
            return Err(Error::shape("shape", format!("{shape} has an empty axis")));
        }
        let vectors = [n, c.div_ceil(LANES), d, h, w]
            .iter()
            .try_fold(1usize, |product, &axis| product.checked_mul(axis));
        match vectors {
            Some(count) if count <= u32::MAX as usize / LANES => Ok(shape),
            _ => Err(Error::shape("shape", format!("{shape} has more than 2^32 elements"))),
        }
    }

    /// Depth, height, width.
    pub fn spatial(&self) -> [usize; 3] {
        [self.d, self.h, self.w]
    }

    /// Voxels of one channel of one sample.
    pub fn voxels(&self) -> usize {
        self.d * self.h * self.w
    }

    /// Elements without padding lanes.
    pub fn elements(&self) -> usize {
        self.n * self.c * self.voxels()
    }

    /// Channel blocks of four lanes.
    pub fn blocks(&self) -> usize {
        self.c.div_ceil(LANES)
    }

    /// `vec4<f32>` count of the packed tensor `[N, C/4, D, H, W, 4]`.
    pub fn vectors(&self) -> usize {
        self.n * self.blocks() * self.voxels()
    }

    /// Bytes of the packed tensor in f32.
    pub fn bytes(&self) -> usize {
        self.vectors() * LANES * 4
    }

    /// The same samples and space with another channel count.
    pub fn with_channels(&self, c: usize) -> Self {
        Self { c, ..*self }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}x{}x{}x{}", self.n, self.c, self.d, self.h, self.w)
    }
}

/// Packs N,C,D,H,W values into `[N, C/4, D, H, W, 4]`; padding lanes are zero.
pub fn pack(shape: Shape, values: &[f32]) -> Result<Vec<f32>> {
    if values.len() != shape.elements() {
        return Err(Error::shape(
            "pack",
            format!("{} values for shape {shape} of {}", values.len(), shape.elements()),
        ));
    }
    let voxels = shape.voxels();
    let mut packed = vec![0.0; shape.vectors() * LANES];
    for n in 0..shape.n {
        for c in 0..shape.c {
            let source = (n * shape.c + c) * voxels;
            let target = (n * shape.blocks() + c / LANES) * voxels * LANES + c % LANES;
            for v in 0..voxels {
                packed[target + v * LANES] = values[source + v];
            }
        }
    }
    Ok(packed)
}

/// The inverse of [`pack`].
pub fn unpack(shape: Shape, packed: &[f32]) -> Result<Vec<f32>> {
    if packed.len() != shape.vectors() * LANES {
        return Err(Error::shape(
            "unpack",
            format!("{} packed values for shape {shape}", packed.len()),
        ));
    }
    let voxels = shape.voxels();
    let mut values = vec![0.0; shape.elements()];
    for n in 0..shape.n {
        for c in 0..shape.c {
            let target = (n * shape.c + c) * voxels;
            let source = (n * shape.blocks() + c / LANES) * voxels * LANES + c % LANES;
            for v in 0..voxels {
                values[target + v] = packed[source + v * LANES];
            }
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_round_trips_and_pads_with_zeros() {
        let shape = Shape::new(2, 6, [1, 2, 3]).unwrap();
        let values: Vec<f32> = (0..shape.elements()).map(|i| i as f32 + 1.0).collect();
        let packed = pack(shape, &values).unwrap();
        assert_eq!(packed.len(), 2 * 2 * 6 * 4);
        assert_eq!(packed.iter().filter(|v| **v == 0.0).count(), 2 * 2 * 6);
        assert_eq!(unpack(shape, &packed).unwrap(), values);
    }

    #[test]
    fn empty_and_oversized_shapes_are_refused() {
        assert!(Shape::new(1, 0, [1, 1, 1]).is_err());
        assert!(Shape::new(1, 4, [65536, 65536, 2]).is_err());
        assert!(pack(Shape::new(1, 1, [2, 2, 2]).unwrap(), &[0.0]).is_err());
    }
}
