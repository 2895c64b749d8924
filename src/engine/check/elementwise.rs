//! LeakyReLU, norms, addition and nearest upsampling.

use super::case::{Case, GraphCase};
use super::layer::{Backward, Input, Layer, LayerCase, Param};
use super::measure::Tolerance;
use super::net::{Net, Truth, UPSTREAM, tensor};
use super::plannings::{Planning, Variants};
use super::stages::{ACT, NORM, NORM_ACT, PLAIN, Prep, UP};
use crate::base::Result;
use crate::engine::activation::Activation;
use crate::engine::graph::{Caps, DType, Value};
use crate::engine::ops;
use crate::engine::oracle;
use crate::engine::oracle::Tensor;
use crate::engine::shape::Shape;

/// The sum of two parts, or the one part.
struct Sum;

impl Layer for Sum {
    fn name(&self) -> String {
        "sum".into()
    }

    fn params(&self, _: &[usize]) -> Vec<Param> {
        Vec::new()
    }

    fn build(&self, net: &mut Net, parts: &[Value], _: &[Value]) -> Result<Value> {
        match parts {
            [a, b] => ops::add(&mut net.graph, *a, *b),
            _ => Ok(parts[0]),
        }
    }

    fn forward(&self, parts: &[&Tensor], _: &[Vec<f64>]) -> Tensor {
        match parts {
            [a, b] => oracle::add_forward(a, b),
            _ => parts[0].clone(),
        }
    }

    fn backward(&self, parts: &[&Tensor], _: &[Vec<f64>], dy: &Tensor) -> Backward {
        Backward { parts: vec![dy.clone(); parts.len()], params: Vec::new() }
    }
}

fn sum(parts: &[Input], spatial: [usize; 3]) -> LayerCase<Sum> {
    LayerCase::new(Sum, parts, spatial)
}

fn rows(cases: impl IntoIterator<Item = LayerCase<Sum>>) -> Vec<Case> {
    cases.into_iter().map(LayerCase::case).collect()
}

const UP_PLAIN: Prep = Prep { up: [2; 3], ..PLAIN };

pub fn additions() -> Vec<Case> {
    let flat = Prep { up: [1, 2, 2], ..NORM };
    rows([
        sum(&[(1, PLAIN), (1, PLAIN)], [1, 1, 1]),
        sum(&[(5, PLAIN), (5, PLAIN)], [3, 5, 7]).samples(2),
        sum(&[(6, NORM), (6, NORM_ACT)], [4, 3, 6]).samples(2),
        sum(&[(9, UP_PLAIN), (9, NORM_ACT)], [4, 6, 2]).samples(2).after(NORM_ACT),
        sum(&[(4, ACT), (4, flat)], [5, 4, 6]),
        sum(&[(3, PLAIN), (3, PLAIN)], [9, 8, 7]).samples(3).after(ACT),
        sum(&[(6, PLAIN), (6, UP)], [4, 6, 8]).samples(2),
        sum(&[(5, NORM_ACT), (5, PLAIN)], [9, 17, 19]).samples(2).after(NORM_ACT),
    ])
}

/// An activation alone, after a norm, and in both of two loads, as what is read and as what a gradient passes through.
fn activated(act: Activation) -> [LayerCase<Sum>; 5] {
    let (act, norm_act) = (Prep { act: Some(act), ..PLAIN }, Prep { act: Some(act), ..NORM });
    [
        sum(&[(1, act)], [1, 1, 1]),
        sum(&[(5, act)], [3, 5, 7]).samples(2),
        sum(&[(4, norm_act)], [2, 1, 1]).samples(2),
        sum(&[(6, norm_act)], [11, 13, 17]),
        sum(&[(6, norm_act), (6, act)], [3, 4, 5]).after(norm_act),
    ]
}

pub fn activations_and_norms() -> Vec<Case> {
    let mut cases = rows(Activation::ALL.into_iter().flat_map(activated));
    cases.extend(rows([
        sum(&[(2, NORM)], [1, 1, 1]),
        sum(&[(5, NORM)], [3, 5, 7]).samples(2),
        sum(&[(3, NORM)], [19, 21, 23]).samples(2),
        // many chunks a channel
        sum(&[(9, NORM_ACT)], [32, 31, 33]),
    ]));
    cases
}

pub fn upsamplings() -> Vec<Case> {
    let up = |up, prep| Prep { up, ..prep };
    rows([
        sum(&[(1, UP_PLAIN)], [2, 2, 2]),
        sum(&[(5, up([2, 1, 3], PLAIN))], [6, 5, 9]).samples(2),
        sum(&[(7, up([1, 2, 2], NORM_ACT))], [3, 4, 6]).samples(2),
        sum(&[(4, up([4, 2, 1], ACT))], [4, 6, 8]),
        sum(&[(4, UP_PLAIN), (4, UP_PLAIN)], [4, 6, 8]).after(NORM_ACT),
    ])
}

/// Shapes of the network, to be timed.
pub fn timed() -> Vec<Case> {
    rows([
        sum(&[(16, NORM_ACT), (16, PLAIN)], [40, 56, 40]).samples(2).after(NORM_ACT),
        sum(&[(16, UP), (16, NORM_ACT)], [40, 56, 40]).samples(2),
    ])
}

/// One thread a voxel: 2²² + 78 voxels take more than 65,535 groups of 64.
struct ManyGroups;

const VOXELS: usize = (1 << 22) + 78;

impl GraphCase for ManyGroups {
    fn name(&self) -> String {
        "upsampling, activation and classes in more groups than one dimension holds".into()
    }

    fn vectors(&self) -> usize {
        VOXELS
    }

    fn plannings(&self, own: &Caps) -> Vec<Planning> {
        let caps = Caps { software: false, ..own.clone() };
        vec![Planning {
            name: "gpu".into(),
            caps,
            dtype: DType::F32,
            variants: Variants::Named("run=1 WG=64".into()),
            plain: true,
        }]
    }

    fn build(&self, net: &mut Net) -> Result<()> {
        let x = net.input("x", Shape::new(1, 2, [1, 1, VOXELS / 2])?);
        let up = ops::upsample(&mut net.graph, x, [1, 1, 2])?;
        let act = ops::activate(&mut net.graph, up, Activation::LeakyRelu)?;
        net.differentiate(act)?;
        let y = net.output("y", act)?;
        let classes = ops::argmax(&mut net.graph, y)?;
        net.classes("the classes", classes, y)?;
        Ok(())
    }

    fn truth(&self, dtype: DType) -> Result<Truth> {
        let x = tensor(1, 2, [1, 1, VOXELS / 2], 1)?;
        let dy = tensor(1, 2, [1, 1, VOXELS], 2)?;
        let up = oracle::upsample_forward(&x, [1, 1, 2]);
        let y = oracle::activation_forward(Activation::LeakyRelu, &up);
        let dup = oracle::activation_backward(Activation::LeakyRelu, &up, &dy);
        let dx = oracle::upsample_backward(x.shape, [1, 1, 2], &dup);
        let mut truth = Truth::new(dtype);
        truth.input("x", &x);
        truth.input(UPSTREAM, &dy);
        truth.expect("y", &y.data, Tolerance::OfLargest(1e-6));
        truth.expect_classes("the classes", &oracle::argmax(&y));
        truth.expect_gradient("x", &dx.data, Tolerance::OfLargest(1e-6));
        Ok(truth)
    }
}

pub fn many_groups() -> Vec<Case> {
    vec![Case::Graph(Box::new(ManyGroups))]
}
