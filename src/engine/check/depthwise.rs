//! Depthwise convolutions, with everything that rides on their loads.

use super::case::Case;
use super::conv::{concat, concatenated, separated};
use super::layer::{Backward, Input, Layer, LayerCase, Param};
use super::net::Net;
use super::stages::{ACT, NORM, NORM_ACT, PLAIN, Prep, UP};
use crate::base::Result;
use crate::engine::graph::{Packing, Value};
use crate::engine::ops;
use crate::engine::oracle;
use crate::engine::oracle::Tensor;

/// A depthwise convolution of the parts' concatenation.
struct Depthwise;

impl Layer for Depthwise {
    fn name(&self) -> String {
        "depthwise".into()
    }

    fn params(&self, channels: &[usize]) -> Vec<Param> {
        let segments = channels.to_vec();
        let weight = Packing::Depthwise { segments: segments.clone(), taps: 27 };
        vec![
            Param { name: "weight", packing: weight, shift: false },
            Param { name: "bias", packing: Packing::Channels { segments }, shift: true },
        ]
    }

    fn build(&self, net: &mut Net, parts: &[Value], params: &[Value]) -> Result<Value> {
        let x = concat(net, parts)?;
        ops::depthwise(&mut net.graph, x, params[0], params[1])
    }

    fn forward(&self, parts: &[&Tensor], params: &[Vec<f64>]) -> Tensor {
        oracle::depthwise_forward(&concatenated(parts), &params[0], &params[1])
    }

    fn backward(&self, parts: &[&Tensor], params: &[Vec<f64>], dy: &Tensor) -> Backward {
        let (dx, dw, db) = oracle::depthwise_backward(&concatenated(parts), &params[0], dy);
        Backward { parts: separated(parts, dx), params: vec![dw, db] }
    }
}

fn depthwise(parts: &[Input], spatial: [usize; 3]) -> LayerCase<Depthwise> {
    LayerCase::new(Depthwise, parts, spatial)
}

pub fn cases() -> Vec<Case> {
    let flat = Prep { up: [1, 2, 2], ..ACT };
    let cases = [
        depthwise(&[(1, PLAIN)], [1, 1, 1]),
        depthwise(&[(6, PLAIN)], [3, 5, 7]),
        depthwise(&[(9, NORM_ACT)], [5, 6, 9]).samples(2).after(NORM_ACT),
        depthwise(&[(9, NORM_ACT)], [7, 6, 9]).samples(2).after(NORM_ACT),
        depthwise(&[(4, NORM)], [9, 2, 3]).samples(3).after(ACT),
        depthwise(&[(8, ACT)], [1, 1, 13]),
        depthwise(&[(4, PLAIN)], [13, 1, 1]),
        depthwise(&[(5, NORM_ACT)], [4, 5, 6]).twice(),
        depthwise(&[(6, UP), (5, NORM_ACT)], [4, 6, 8]).samples(2).after(NORM_ACT),
        depthwise(&[(3, flat), (8, PLAIN)], [3, 6, 4]),
        // a line of exactly a subgroup of eight, and lines of several
        depthwise(&[(5, NORM_ACT)], [2, 7, 40]).samples(2).after(NORM_ACT),
        depthwise(&[(4, ACT)], [3, 2, 131]).after(NORM),
        depthwise(&[(3, UP)], [2, 4, 150]),
        // so many channels that one workgroup takes several columns a lane; a norm behind it would undo the scale of the one before,
        // whose gradient would be rounding alone
        depthwise(&[(64, NORM_ACT)], [1, 1, 6300]).after(ACT),
    ];
    cases.into_iter().map(LayerCase::case).collect()
}

/// Shapes of the network, to be timed.
pub fn timed() -> Vec<Case> {
    let cases = [
        depthwise(&[(16, NORM_ACT)], [40, 56, 40]).samples(2).after(NORM_ACT),
        depthwise(&[(64, NORM_ACT)], [10, 14, 10]).samples(2).after(NORM_ACT),
    ];
    cases.into_iter().map(LayerCase::case).collect()
}
