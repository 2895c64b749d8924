//! What a value passes through before an operation reads it or after one made it, in the oracle and in a graph.

use std::fmt;

use super::measure::Tolerance;
use super::net::{Net, Truth, random};
use crate::base::Result;
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
    pub act: Option<Activation>,
    /// D, H, W.
    pub up: [usize; 3],
}

pub const PLAIN: Prep = Prep { norm: false, act: None, up: [1; 3] };
pub const ACT: Prep = Prep { act: Some(Activation::LeakyRelu), ..PLAIN };
pub const NORM: Prep = Prep { norm: true, ..PLAIN };
pub const NORM_ACT: Prep = Prep { norm: true, ..ACT };
pub const UP: Prep = Prep { up: [2; 3], ..NORM_ACT };

impl fmt::Display for Prep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [d, h, w] = self.up;
        f.write_str(if self.norm { " norm" } else { "" })?;
        f.write_str(if self.act.is_some() { " act" } else { "" })?;
        // the network's own goes without a name
        if let Some(other) = self.act.filter(|act| *act != Activation::LeakyRelu) {
            write!(f, " {other:?}")?;
        }
        if self.up == [1; 3] { Ok(()) } else { write!(f, " up {d},{h},{w}") }
    }
}

impl Prep {
    /// Appends the operations.
    pub fn build(&self, net: &mut Net, name: &str, x: Value) -> Result<Value> {
        let mut value = x;
        if self.norm {
            // those of a concatenation are padded each on its own
            let packing = Packing::Channels { segments: net.graph.layout(x)?.segments.clone() };
            let gamma = net.param(&format!("{name}.gamma"), packing.clone());
            let beta = net.param(&format!("{name}.beta"), packing);
            value = ops::instance_norm(&mut net.graph, value, gamma, beta)?;
        }
        if let Some(act) = self.act {
            value = ops::activate(&mut net.graph, value, act)?;
        }
        ops::upsample(&mut net.graph, value, self.up)
    }
}

/// A [`Prep`] of one tensor with what the oracle makes of it.
pub struct Stage {
    prep: Prep,
    name: String,
    x: Tensor,
    gamma: Vec<f64>,
    beta: Vec<f64>,
    normed: Tensor,
    /// The oracle's result.
    pub y: Tensor,
}

impl Stage {
    /// Runs the oracle forward.
    pub fn new(prep: Prep, name: &str, x: &Tensor, seed: u64) -> Self {
        let channels = x.shape.c;
        let gamma = random(channels, seed);
        let gamma: Vec<f64> = gamma.iter().map(|v| f64::from((1.0 + 0.5 * v) as f32)).collect();
        let beta = random(channels, seed + 1);
        let normed = match prep.norm {
            true => oracle::instance_norm_forward(x, &gamma, &beta, EPS),
            false => x.clone(),
        };
        let acted = match prep.act {
            Some(act) => oracle::activation_forward(act, &normed),
            None => normed.clone(),
        };
        let y = oracle::upsample_forward(&acted, prep.up);
        Self { prep, name: name.into(), x: x.clone(), gamma, beta, normed, y }
    }

    /// What it starts from.
    pub fn x(&self) -> &Tensor {
        &self.x
    }

    /// The oracle's gradient of the input; gamma and beta go into the truth with their gradients.
    pub fn backward(&self, truth: &mut Truth, dy: &Tensor) -> Tensor {
        let mut d = oracle::upsample_backward(self.normed.shape, self.prep.up, dy);
        if let Some(act) = self.prep.act {
            d = oracle::activation_backward(act, &self.normed, &d);
        }
        if !self.prep.norm {
            return d;
        }
        let (dx, dgamma, dbeta) = oracle::instance_norm_backward(&self.x, &self.gamma, EPS, &d);
        for (part, values, gradient) in
            [("gamma", &self.gamma, dgamma), ("beta", &self.beta, dbeta)]
        {
            let name = format!("{}.{part}", self.name);
            truth.param(&name, values);
            truth.expect_gradient(&name, &gradient, Tolerance::OfLargest(1e-4));
        }
        dx
    }
}
