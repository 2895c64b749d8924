//! Packed layouts of tensors and parameters, and their conversion from and to the order of users and files.

use rayon::prelude::*;

use crate::base::{Error, Result};
use crate::engine::shape::LANES;

/// Voxels that a thread packs at a time.
const PIECE: usize = 1 << 14;

/// How the elements of a tensor lie in memory; arithmetic is in f32 either way.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum DType {
    /// 32 bits.
    #[default]
    F32,
    /// Two a word: rounded when stored, infinite beyond ±65504.
    F16,
}

impl DType {
    /// Bytes of a vector of four lanes.
    pub fn vector_bytes(self) -> usize {
        match self {
            Self::F32 => 16,
            Self::F16 => 8,
        }
    }

    /// 32-bit words of a packed tensor, at least one vector of f32, so that any kernel can bind it.
    pub fn words(self, layout: &Layout) -> usize {
        (layout.vectors() * self.vector_bytes() / 4).next_multiple_of(4)
    }
}

/// A channel-packed tensor `[N, blocks, D, H, W, 4]`. A concatenation has several channel segments, each padded to whole
/// blocks of its own, so that any channel counts can be concatenated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Samples.
    pub n: usize,
    /// Channels of each segment.
    pub segments: Vec<usize>,
    /// Depth, height, width.
    pub spatial: [usize; 3],
}

impl Layout {
    /// A layout with one channel segment.
    pub fn new(n: usize, channels: usize, spatial: [usize; 3]) -> Self {
        Self { n, segments: vec![channels], spatial }
    }

    /// Channels without padding lanes.
    pub fn channels(&self) -> usize {
        self.segments.iter().sum()
    }

    /// Channel blocks of four lanes.
    pub fn blocks(&self) -> usize {
        self.segments.iter().map(|c| c.div_ceil(LANES)).sum()
    }

    /// Voxels of one channel of one sample.
    pub fn voxels(&self) -> usize {
        self.spatial.iter().product()
    }

    /// Count of `vec4<f32>`.
    pub fn vectors(&self) -> usize {
        self.n * self.blocks() * self.voxels()
    }

    /// Count of 32-bit words.
    pub fn words(&self) -> usize {
        self.vectors() * LANES
    }

    /// Values without padding.
    pub fn elements(&self) -> usize {
        self.n * self.channels() * self.voxels()
    }

    /// Place of each channel: block and lane.
    fn lanes(&self) -> Vec<(usize, usize)> {
        channel_lanes(&self.segments)
    }

    /// Packs N,C,D,H,W values on all cores; padding lanes are zero.
    pub fn pack(&self, values: &[f32]) -> Result<Vec<f32>> {
        self.check("pack", values.len(), self.elements())?;
        let (voxels, lanes) = (self.voxels(), self.lanes());
        let mut packed = vec![0.0; self.words()];
        let blocks = packed.par_chunks_mut((voxels * LANES).max(1)).enumerate();
        blocks.for_each(|(index, block)| {
            let (n, own) = (index / self.blocks(), index % self.blocks());
            let channels = lanes.iter().enumerate().filter(|(_, (of, _))| *of == own);
            let planes: Vec<(usize, &[f32])> = channels
                .map(|(c, (_, lane))| {
                    let start = (n * self.channels() + c) * voxels;
                    (*lane, &values[start..start + voxels])
                })
                .collect();
            let pieces = block.par_chunks_mut(PIECE * LANES).enumerate();
            pieces.for_each(|(piece, vectors)| {
                for (lane, plane) in &planes {
                    let own = plane[piece * PIECE..].iter();
                    vectors.chunks_exact_mut(LANES).zip(own).for_each(|(v, x)| v[*lane] = *x);
                }
            });
        });
        Ok(packed)
    }

    /// The inverse of [`Layout::pack`].
    pub fn unpack(&self, packed: &[f32]) -> Result<Vec<f32>> {
        self.check("unpack", packed.len(), self.words())?;
        let mut values = vec![0.0; self.elements()];
        self.each_plane(|target, source| {
            for v in 0..self.voxels() {
                values[target + v] = packed[source + v * LANES];
            }
        });
        Ok(values)
    }

    fn check(&self, what: &str, found: usize, expected: usize) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        Err(Error::shape(what, format!("{found} values where the layout {self} has {expected}")))
    }

    /// Calls `each(plain, packed)` with the first index of every channel of every sample in both orders.
    fn each_plane(&self, mut each: impl FnMut(usize, usize)) {
        let voxels = self.voxels();
        for n in 0..self.n {
            for (c, (block, lane)) in self.lanes().into_iter().enumerate() {
                let plain = (n * self.channels() + c) * voxels;
                each(plain, (n * self.blocks() + block) * voxels * LANES + lane);
            }
        }
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [d, h, w] = self.spatial;
        let channels: Vec<String> = self.segments.iter().map(usize::to_string).collect();
        write!(f, "{}x{}x{d}x{h}x{w}", self.n, channels.join("+"))
    }
}

fn channel_lanes(segments: &[usize]) -> Vec<(usize, usize)> {
    let mut first = 0;
    let mut lanes = Vec::new();
    for &count in segments {
        lanes.extend((0..count).map(|c| (first + c / LANES, c % LANES)));
        first += count.div_ceil(LANES);
    }
    lanes
}

/// How a parameter tensor lies in the parameter block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packing {
    /// One value a channel (bias, gamma, beta): `[blocks] vec4`.
    Channels {
        /// Channels of each concatenated part.
        segments: Vec<usize>,
    },
    /// (Cout, Cin, taps): `[out blocks, in blocks, taps] mat4x4`, column j = input lane j.
    Matrix {
        /// Output channels.
        out: usize,
        /// Input channels of each concatenated part.
        ins: Vec<usize>,
        /// Taps of the kernel.
        taps: usize,
    },
    /// (C, 1, taps): `[blocks, taps] vec4`.
    Depthwise {
        /// Channels of each concatenated part.
        segments: Vec<usize>,
        /// Taps of the kernel.
        taps: usize,
    },
}

impl Packing {
    /// Values of the unpacked tensor.
    pub fn elements(&self) -> usize {
        match self {
            Self::Channels { segments } => segments.iter().sum(),
            Self::Matrix { out, ins, taps } => out * ins.iter().sum::<usize>() * taps,
            Self::Depthwise { segments, taps } => segments.iter().sum::<usize>() * taps,
        }
    }

    /// 32-bit words of the packed tensor.
    pub fn words(&self) -> usize {
        let blocks = |segments: &[usize]| segments.iter().map(|c| c.div_ceil(LANES)).sum::<usize>();
        match self {
            Self::Channels { segments } => blocks(segments) * LANES,
            Self::Matrix { out, ins, taps } => out.div_ceil(LANES) * blocks(ins) * taps * 16,
            Self::Depthwise { segments, taps } => blocks(segments) * taps * LANES,
        }
    }

    /// Packed word of every unpacked value, in the unpacked order.
    fn indices(&self) -> Vec<usize> {
        match self {
            Self::Channels { segments } => {
                channel_lanes(segments).into_iter().map(|(b, l)| b * LANES + l).collect()
            }
            Self::Matrix { out, ins, taps } => {
                let lanes = channel_lanes(ins);
                let cols = ins.iter().map(|c| c.div_ceil(LANES)).sum::<usize>();
                let mut indices = Vec::with_capacity(self.elements());
                for o in 0..*out {
                    for &(block, lane) in &lanes {
                        for t in 0..*taps {
                            let matrix = ((o / LANES) * cols + block) * taps + t;
                            indices.push((matrix * LANES + lane) * LANES + o % LANES);
                        }
                    }
                }
                indices
            }
            Self::Depthwise { segments, taps } => channel_lanes(segments)
                .into_iter()
                .flat_map(|(b, l)| (0..*taps).map(move |t| (b * taps + t) * LANES + l))
                .collect(),
        }
    }

    /// Packs a tensor in file order; padding is zero.
    pub fn pack(&self, values: &[f32]) -> Result<Vec<f32>> {
        if values.len() != self.elements() {
            return Err(Error::shape(
                "parameter",
                format!("{} values where {} belong", values.len(), self.elements()),
            ));
        }
        let mut packed = vec![0.0; self.words()];
        for (index, value) in self.indices().into_iter().zip(values) {
            packed[index] = *value;
        }
        Ok(packed)
    }

    /// The inverse of [`Packing::pack`].
    pub fn unpack(&self, packed: &[f32]) -> Result<Vec<f32>> {
        if packed.len() != self.words() {
            return Err(Error::shape(
                "parameter",
                format!("{} packed words where {} belong", packed.len(), self.words()),
            ));
        }
        Ok(self.indices().into_iter().map(|index| packed[index]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_pad_on_their_own() {
        let layout = Layout { n: 2, segments: vec![3, 5], spatial: [1, 2, 2] };
        assert_eq!((layout.channels(), layout.blocks()), (8, 3));
        let values: Vec<f32> = (0..layout.elements()).map(|i| i as f32 + 1.0).collect();
        let packed = layout.pack(&values).unwrap();
        assert_eq!(packed[3], 0.0);
        assert_eq!(layout.unpack(&packed).unwrap(), values);
        assert!(layout.pack(&values[1..]).is_err());
    }

    #[test]
    fn large_blocks_are_packed_in_pieces() {
        let layout = Layout { n: 2, segments: vec![1, 2], spatial: [7, 50, 101] };
        assert!(layout.voxels() > 2 * PIECE && !layout.voxels().is_multiple_of(PIECE));
        let values: Vec<f32> = (0..layout.elements()).map(|i| i as f32 + 1.0).collect();
        let packed = layout.pack(&values).unwrap();
        assert_eq!(packed.iter().filter(|value| **value != 0.0).count(), values.len());
        assert_eq!(layout.unpack(&packed).unwrap(), values);
    }

    #[test]
    fn parameters_round_trip() {
        for packing in [
            Packing::Channels { segments: vec![3, 2] },
            Packing::Matrix { out: 5, ins: vec![3, 6], taps: 27 },
            Packing::Depthwise { segments: vec![6, 6], taps: 27 },
        ] {
            let values: Vec<f32> = (0..packing.elements()).map(|i| i as f32 + 1.0).collect();
            let packed = packing.pack(&values).unwrap();
            assert_eq!(packed.len(), packing.words());
            assert_eq!(packing.unpack(&packed).unwrap(), values);
        }
    }
}
