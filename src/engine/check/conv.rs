//! Dense convolutions, with everything that rides on their loads.

use super::case::Case;
use super::layer::{Backward, Input, Layer, LayerCase, Param};
use super::net::Net;
use super::plannings::{cooperative, half_factors};
use super::stages::{ACT, NORM, NORM_ACT, PLAIN, Prep, UP};
use crate::base::Result;
use crate::engine::graph::{Packing, Value};
use crate::engine::ops;
use crate::engine::ops::ConvSpec;
use crate::engine::oracle;
use crate::engine::oracle::Tensor;

/// A convolution of the parts' concatenation to `out` channels.
struct Conv {
    spec: ConvSpec,
    out: usize,
}

fn geometry(spec: &ConvSpec) -> oracle::Geometry {
    let ConvSpec { kernel, stride, pad_lo, pad_hi } = *spec;
    oracle::Geometry { kernel, stride, pad_lo, pad_hi }
}

/// The parts, one after another over the channels.
pub fn concatenated(parts: &[&Tensor]) -> Tensor {
    let first = parts[0].clone();
    parts[1..].iter().fold(first, |all, part| oracle::concat_forward(&all, part))
}

/// A gradient of [`concatenated`] parts, cut into those of the parts.
pub fn separated(parts: &[&Tensor], gradient: Tensor) -> Vec<Tensor> {
    let mut left = gradient;
    let mut all = Vec::new();
    for part in &parts[..parts.len() - 1] {
        let (own, rest) = oracle::concat_backward(part.shape.c, &left);
        all.push(own);
        left = rest;
    }
    all.push(left);
    all
}

/// The parts as one value.
pub fn concat(net: &mut Net, parts: &[Value]) -> Result<Value> {
    match parts {
        [one] => Ok(*one),
        many => ops::concat(&mut net.graph, many),
    }
}

impl Layer for Conv {
    fn name(&self) -> String {
        let ConvSpec { kernel: [k, ..], stride: [d, h, w], pad_lo, pad_hi } = self.spec;
        let stride =
            if [d, h, w] == [1; 3] { String::new() } else { format!(" stride {d},{h},{w}") };
        let usual = ConvSpec { stride: self.spec.stride, ..ConvSpec::same() };
        let padded = k == 1 || (pad_lo, pad_hi) == (usual.pad_lo, usual.pad_hi);
        let pads = if padded { String::new() } else { format!(" pads {pad_lo:?} {pad_hi:?}") };
        format!("conv {k}x{k}x{k}{stride}{pads} to {}", self.out)
    }

    fn params(&self, channels: &[usize]) -> Vec<Param> {
        let (out, taps) = (self.out, self.spec.taps());
        let weight = Packing::Matrix { out, ins: channels.to_vec(), taps };
        let bias = Packing::Channels { segments: vec![out] };
        vec![
            Param { name: "weight", packing: weight, shift: false },
            Param { name: "bias", packing: bias, shift: true },
        ]
    }

    fn build(&self, net: &mut Net, parts: &[Value], params: &[Value]) -> Result<Value> {
        let x = concat(net, parts)?;
        ops::conv(&mut net.graph, x, params[0], params[1], self.spec)
    }

    fn forward(&self, parts: &[&Tensor], params: &[Vec<f64>]) -> Tensor {
        let x = concatenated(parts);
        oracle::conv_forward(&x, &params[0], &params[1], &geometry(&self.spec), self.out)
    }

    fn backward(&self, parts: &[&Tensor], params: &[Vec<f64>], dy: &Tensor) -> Backward {
        let x = concatenated(parts);
        let (dx, dw, db) = oracle::conv_backward(&x, &params[0], &geometry(&self.spec), dy);
        Backward { parts: separated(parts, dx), params: vec![dw, db] }
    }
}

const UP_FLAT: Prep = Prep { up: [1, 2, 2], ..ACT };

fn conv(parts: &[Input], out: usize, spatial: [usize; 3], spec: ConvSpec) -> LayerCase<Conv> {
    LayerCase::new(Conv { spec, out }, parts, spatial)
}

fn spec(kernel: usize, stride: [usize; 3], pad_lo: [usize; 3], pad_hi: [usize; 3]) -> ConvSpec {
    ConvSpec { kernel: [kernel; 3], stride, pad_lo, pad_hi }
}

fn rows(cases: impl IntoIterator<Item = LayerCase<Conv>>) -> Vec<Case> {
    cases.into_iter().map(LayerCase::case).collect()
}

pub fn three_taps() -> Vec<Case> {
    let same = ConvSpec::same();
    rows([
        conv(&[(1, PLAIN)], 1, [1, 1, 1], same),
        conv(&[(5, PLAIN)], 7, [3, 5, 7], same),
        conv(&[(4, NORM_ACT)], 8, [4, 6, 9], same),
        conv(&[(3, ACT)], 2, [1, 1, 9], same),
        conv(&[(17, NORM)], 33, [2, 3, 5], same),
        conv(&[(6, NORM_ACT)], 10, [5, 4, 6], same).samples(2).after(NORM_ACT),
        conv(&[(20, NORM_ACT)], 36, [3, 5, 17], same).samples(2).after(NORM_ACT),
        conv(&[(2, PLAIN)], 5, [3, 3, 3], same).samples(3).after(ACT),
        conv(&[(1, PLAIN)], 8, [7, 9, 11], same).samples(2),
        conv(&[(9, NORM_ACT)], 6, [3, 4, 5], same).after(NORM).twice(),
        conv(&[(6, UP), (5, NORM_ACT)], 9, [4, 6, 8], same).samples(2),
        conv(&[(6, UP), (5, NORM_ACT)], 9, [4, 6, 8], same).samples(2).after(NORM_ACT),
        conv(&[(8, UP_FLAT), (3, PLAIN), (4, NORM)], 4, [3, 4, 6], same).after(NORM_ACT),
        conv(&[(4, Prep { up: [3, 1, 2], ..PLAIN })], 4, [6, 5, 4], same),
        // several runs of eight lines
        conv(&[(5, NORM_ACT)], 19, [2, 15, 19], same).after(NORM_ACT),
        conv(&[(2, PLAIN)], 18, [2, 17, 11], same).after(ACT),
        // so many weights that one workgroup takes several boxes
        conv(&[(64, NORM_ACT)], 64, [99, 2, 3], same).after(NORM_ACT),
    ])
}

pub fn strided_and_padded() -> Vec<Case> {
    let down = ConvSpec::down;
    rows([
        conv(&[(5, NORM_ACT)], 6, [4, 6, 8], down([2, 2, 2])),
        conv(&[(4, NORM_ACT)], 8, [5, 7, 9], down([2, 2, 2])).samples(2).after(NORM_ACT),
        conv(&[(4, PLAIN)], 4, [3, 8, 6], down([1, 2, 2])),
        conv(&[(9, NORM_ACT)], 6, [3, 8, 6], down([1, 2, 2])).samples(2).after(NORM_ACT),
        conv(&[(3, ACT)], 5, [6, 3, 5], down([2, 1, 1])),
        conv(&[(4, PLAIN)], 4, [4, 3, 11], down([1, 1, 2])),
        conv(&[(8, NORM_ACT)], 8, [8, 2, 2], down([2, 2, 2])).twice(),
        conv(&[(2, PLAIN)], 3, [2, 2, 2], spec(3, [2; 3], [0; 3], [1; 3])),
        conv(&[(2, PLAIN)], 3, [3, 4, 5], spec(3, [1; 3], [1, 0, 2], [0, 2, 1])),
        conv(&[(3, PLAIN)], 4, [6, 5, 7], spec(3, [2, 1, 2], [2, 0, 0], [0, 0, 2])),
        conv(&[(3, PLAIN)], 2, [3, 3, 3], spec(3, [1; 3], [0; 3], [0; 3])),
        // several runs of eight lines, more output blocks than a tile has, strides along H alone and along W alone
        conv(&[(9, ACT)], 34, [3, 30, 13], down([2, 2, 2])).samples(2).after(NORM_ACT),
        conv(&[(6, NORM_ACT)], 9, [2, 31, 10], down([1, 2, 1])),
        conv(&[(5, UP)], 7, [4, 18, 22], down([2, 1, 2])),
        conv(&[(1, PLAIN)], 18, [3, 8, 9], down([1, 2, 2])).after(NORM_ACT),
        // so many weights that one workgroup takes several boxes
        conv(&[(64, ACT)], 64, [180, 4, 6], down([2, 2, 2])).after(NORM_ACT),
    ])
}

pub fn pointwise() -> Vec<Case> {
    let one = ConvSpec::pointwise();
    rows([
        conv(&[(1, PLAIN)], 1, [1, 1, 1], one),
        conv(&[(3, NORM_ACT)], 5, [3, 5, 7], one),
        conv(&[(16, NORM_ACT)], 16, [4, 5, 6], one).samples(2).after(NORM_ACT),
        conv(&[(16, NORM_ACT)], 16, [9, 10, 11], one).samples(2).after(NORM_ACT),
        conv(&[(33, NORM)], 34, [3, 3, 5], one).samples(2).after(ACT),
        conv(&[(33, PLAIN)], 3, [3, 5, 7], one).samples(2),
        conv(&[(64, ACT)], 32, [2, 5, 9], one),
        // so many voxels that a thread takes several steps
        conv(&[(6, NORM_ACT)], 7, [9, 15, 16], one).samples(2).after(NORM_ACT),
        // of eight voxels one whose sign halves round the other way is an eighth of a gradient: an activation follows more of them
        conv(&[(100, NORM_ACT)], 60, [2, 2, 2], one).after(NORM),
        conv(&[(100, NORM_ACT)], 60, [4, 5, 6], one).after(NORM_ACT),
        conv(&[(70, UP), (66, ACT)], 75, [4, 6, 4], one).samples(2).after(NORM_ACT),
        conv(&[(70, UP), (66, NORM_ACT)], 75, [4, 6, 4], one).samples(2).after(NORM_ACT),
        conv(&[(12, NORM_ACT)], 20, [3, 4, 5], one).samples(2).twice(),
        conv(&[(10, UP), (7, NORM_ACT)], 9, [4, 2, 6], one).samples(2).after(NORM_ACT),
        conv(&[(5, Prep { up: [1, 2, 1], ..NORM })], 6, [3, 4, 5], one),
        conv(&[(6, PLAIN)], 7, [5, 6, 7], spec(1, [2; 3], [0; 3], [0; 3])),
        // so many lines that one pass does not sum the parts of the weight gradient
        conv(&[(4, PLAIN)], 3, [66, 64, 2], spec(1, [2; 3], [0; 3], [0; 3])),
        conv(&[(4, NORM_ACT)], 3, [4, 4, 4], spec(1, [1, 2, 1], [0; 3], [0; 3])),
        // so many weights that one workgroup takes several chunks of voxels
        conv(&[(256, NORM_ACT)], 256, [9, 10, 11], one).after(NORM_ACT),
        // so many voxels that a workgroup may stage both factors
        conv(&[(64, NORM_ACT)], 64, [16, 16, 13], one).after(NORM_ACT),
    ])
}

/// For the variants by cooperative matrices alone. Those with f32 factors also run in every other case.
pub fn cooperative_matrices() -> Vec<Case> {
    let (one, same, down) = (ConvSpec::pointwise(), ConvSpec::same(), ConvSpec::down);
    let cases = [
        conv(&[(52, NORM_ACT)], 75, [5, 6, 7], one).samples(2).after(NORM_ACT),
        conv(&[(34, UP), (17, ACT)], 33, [4, 6, 10], one).samples(2),
        conv(&[(16, PLAIN)], 16, [3, 5, 9], one).twice(),
        // several boxes along each axis
        conv(&[(20, NORM_ACT)], 36, [2, 9, 37], same).samples(2).after(NORM_ACT),
        conv(&[(34, UP), (17, ACT)], 33, [4, 6, 10], same).samples(2),
        // the input is summed in parts
        conv(&[(40, ACT)], 16, [5, 7, 5], same).after(NORM),
        conv(&[(16, PLAIN)], 20, [3, 4, 5], spec(3, [1; 3], [1, 0, 2], [0, 2, 1])).twice(),
        conv(&[(18, NORM_ACT)], 40, [5, 9, 23], down([2, 2, 2])).samples(2),
        conv(&[(16, PLAIN)], 16, [2, 6, 20], down([1, 2, 1])),
    ];
    rows(cases.map(|case| case.planned(cooperative)))
}

/// For the variants with factors in f16 alone.
pub fn factors_in_halves() -> Vec<Case> {
    let (same, down) = (ConvSpec::same(), ConvSpec::down);
    let cases = [
        conv(&[(20, NORM_ACT)], 24, [4, 9, 21], same).samples(2).after(NORM_ACT),
        conv(&[(22, UP), (13, ACT)], 17, [4, 6, 10], same).samples(2),
        // the input is summed in parts
        conv(&[(48, ACT)], 12, [5, 7, 5], same).after(NORM),
        conv(&[(12, PLAIN)], 20, [3, 4, 5], spec(3, [1; 3], [1, 0, 2], [0, 2, 1])).twice(),
        conv(&[(16, NORM_ACT)], 28, [5, 9, 22], down([2, 2, 2])).samples(2),
        conv(&[(16, PLAIN)], 12, [2, 6, 18], down([1, 2, 1])),
    ];
    rows(cases.map(|case| case.planned(half_factors)))
}

/// Shapes of the network, to be timed.
pub fn timed() -> Vec<Case> {
    let (same, down) = (ConvSpec::same(), ConvSpec::down([2; 3]));
    let one = ConvSpec::pointwise();
    rows([
        conv(&[(16, NORM_ACT)], 16, [40, 56, 40], same).samples(2).after(NORM_ACT),
        conv(&[(64, NORM_ACT)], 64, [10, 14, 10], same).samples(2).after(NORM_ACT),
        conv(&[(16, NORM_ACT)], 32, [40, 56, 40], down).samples(2).after(NORM_ACT),
        conv(&[(16, NORM_ACT)], 16, [40, 56, 40], one).samples(2).after(NORM_ACT),
        conv(&[(64, NORM_ACT)], 64, [10, 14, 10], one).samples(2).after(NORM_ACT),
    ])
}
