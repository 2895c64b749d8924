//! What a value passes through before an operation reads it or after one made it, in the oracle and in a graph.

use super::rig::{Rig, random};
use crate::Result;
use crate::engine::activation::Activation;
use crate::engine::graph::{Packing, Value};
use crate::engine::ops;
use crate::engine::oracle;
use crate::engine::oracle::Tensor;

const EPS: f64 = ops::EPS as f64;

/// Norm, activation, upsampling, each where it is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Prep {
    pub norm: bool,
    pub act: bool,
    pub up: [usize; 3],
}

pub const PLAIN: Prep = Prep { norm: false, act: false, up: [1; 3] };
pub const NORM_ACT: Prep = Prep { norm: true, act: true, up: [1; 3] };
pub const UP: Prep = Prep { up: [2; 3], ..NORM_ACT };

/// A [`Prep`] of one tensor with what the oracle makes of it.
pub struct Stage {
    prep: Prep,
    name: String,
    x: Tensor,
    gamma: Vec<f64>,
    beta: Vec<f64>,
    normed: Tensor,
    pub y: Tensor,
}

impl Stage {
    pub fn new(prep: Prep, name: &str, x: &Tensor, seed: u64) -> Self {
        let channels = x.shape.c;
        let gamma: Vec<f64> = random(channels, seed).iter().map(|v| 1.0 + 0.5 * v).collect();
        let beta = random(channels, seed + 1);
        let normed = match prep.norm {
            true => oracle::instance_norm_forward(x, &gamma, &beta, EPS),
            false => x.clone(),
        };
        let acted = match prep.act {
            true => oracle::activation_forward(Activation::LeakyRelu, &normed),
            false => normed.clone(),
        };
        let y = oracle::upsample_forward(&acted, prep.up);
        Self { prep, name: name.into(), x: x.clone(), gamma, beta, normed, y }
    }

    /// What it starts from.
    pub fn x(&self) -> &Tensor {
        &self.x
    }

    pub fn build(&self, rig: &mut Rig, x: Value) -> Result<Value> {
        let mut value = x;
        if self.prep.norm {
            // those of a concatenation are padded each on its own
            let segments = rig.graph.layout(x)?.segments.clone();
            let packing = Packing::Channels { segments };
            let gamma = rig.param(&format!("{}.gamma", self.name), packing.clone(), &self.gamma);
            let beta = rig.param(&format!("{}.beta", self.name), packing, &self.beta);
            value = ops::instance_norm(&mut rig.graph, value, gamma, beta)?;
        }
        if self.prep.act {
            value = ops::activate(&mut rig.graph, value, Activation::LeakyRelu)?;
        }
        ops::upsample(&mut rig.graph, value, self.prep.up)
    }

    /// The oracle's gradient of the input; that of gamma and beta is expected of the rig.
    pub fn backward(&self, rig: &mut Rig, dy: &Tensor) -> Tensor {
        let mut d = oracle::upsample_backward(self.normed.shape, self.prep.up, dy);
        if self.prep.act {
            d = oracle::activation_backward(Activation::LeakyRelu, &self.normed, &d);
        }
        if !self.prep.norm {
            return d;
        }
        let (dx, dgamma, dbeta) = oracle::instance_norm_backward(&self.x, &self.gamma, EPS, &d);
        rig.expect_gradient(&format!("{}.gamma", self.name), &dgamma, 1e-4);
        rig.expect_gradient(&format!("{}.beta", self.name), &dbeta, 1e-4);
        dx
    }
}
