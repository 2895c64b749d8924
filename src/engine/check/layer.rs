//! Layers over prepared tensors: what rides on their loads, forward and backward.

use super::case::{Case, GraphCase};
use super::measure::Tolerance;
use super::net::{Net, Truth, UPSTREAM, as_stored, random, tensor};
use super::plannings::{Planning, plannings};
use super::stages::{PLAIN, Prep, Stage};
use crate::base::Result;
use crate::engine::graph::{Caps, DType, Packing, Value};
use crate::engine::ops;
use crate::engine::oracle;
use crate::engine::oracle::Tensor;
use crate::engine::shape::Shape;

const FORWARD: Tolerance = Tolerance::OfLargest(2e-5);
const BACKWARD: Tolerance = Tolerance::OfLargest(1e-4);

/// A parameter of a layer.
pub struct Param {
    pub name: &'static str,
    pub packing: Packing,
    /// Whether it adds the same to all voxels of a channel, which a norm behind the layer takes out.
    pub shift: bool,
}

/// What the oracle says of a layer's gradients.
pub struct Backward {
    /// Of each part.
    pub parts: Vec<Tensor>,
    /// Of each parameter, as in files.
    pub params: Vec<Vec<f64>>,
}

/// An operation over one or several tensors, with its oracle.
pub trait Layer: Send + Sync {
    fn name(&self) -> String;

    /// Its parameters, for parts of so many channels.
    fn params(&self, channels: &[usize]) -> Vec<Param>;

    /// Appends the operation.
    fn build(&self, net: &mut Net, parts: &[Value], params: &[Value]) -> Result<Value>;

    fn forward(&self, parts: &[&Tensor], params: &[Vec<f64>]) -> Tensor;

    fn backward(&self, parts: &[&Tensor], params: &[Vec<f64>], dy: &Tensor) -> Backward;
}

/// A part of a layer's input: its channels, and what it passes through before.
pub type Input = (usize, Prep);

/// A layer over prepared parts; its result goes through `after`.
pub struct LayerCase<L> {
    pub layer: L,
    /// Samples.
    pub n: usize,
    pub parts: Vec<Input>,
    /// Size of what the layer reads, D, H, W.
    pub spatial: [usize; 3],
    pub after: Prep,
    /// Whether the same layer with other parameters reads the parts, too, and is added: gradients of the parts add up.
    pub twice: bool,
    /// The ways in which it is planned, where they are not all.
    ways: Option<fn(&Caps) -> Vec<Planning>>,
}

impl<L: Layer + 'static> LayerCase<L> {
    /// One sample, read once, compared as the layer makes it.
    pub fn new(layer: L, parts: &[Input], spatial: [usize; 3]) -> Self {
        Self { layer, n: 1, parts: parts.to_vec(), spatial, after: PLAIN, twice: false, ways: None }
    }

    pub fn samples(self, n: usize) -> Self {
        Self { n, ..self }
    }

    pub fn after(self, after: Prep) -> Self {
        Self { after, ..self }
    }

    pub fn twice(self) -> Self {
        Self { twice: true, ..self }
    }

    /// Planned in these ways alone.
    pub fn planned(self, ways: fn(&Caps) -> Vec<Planning>) -> Self {
        Self { ways: Some(ways), ..self }
    }

    /// As a row of the table.
    pub fn case(self) -> Case {
        Case::Graph(Box::new(self))
    }

    fn channels(&self) -> Vec<usize> {
        self.parts.iter().map(|(channels, _)| *channels).collect()
    }

    fn copies(&self) -> std::ops::Range<u64> {
        0..if self.twice { 2 } else { 1 }
    }

    fn shape(&self, (channels, prep): Input) -> Result<Shape> {
        Shape::new(self.n, channels, std::array::from_fn(|a| self.spatial[a] / prep.up[a]))
    }

    fn stages(&self, dtype: DType) -> Result<Vec<Stage>> {
        let parts = self.parts.iter().zip(0u64..);
        let stage = |((channels, prep), i): (&Input, u64)| {
            let shape = self.shape((*channels, *prep))?;
            let x = tensor(shape.n, shape.c, shape.spatial(), 10 + i)?;
            Ok(Stage::new(*prep, &format!("part{i}"), &as_stored(dtype, &x), 20 + i))
        };
        parts.map(stage).collect()
    }

    /// Puts the parameters of one copy into the truth with their gradients.
    fn expect_params(&self, truth: &mut Truth, copy: u64, values: &[Vec<f64>], found: &Backward) {
        let params = self.layer.params(&self.channels());
        let largest = |values: &Vec<f64>| values.iter().fold(0.1f64, |m, v| m.max(v.abs()));
        let scale = found.params.first().map_or(0.1, largest);
        for ((param, values), gradient) in params.iter().zip(values).zip(&found.params) {
            let name = format!("layer{copy}.{}", param.name);
            truth.param(&name, values);
            if param.shift && self.after.norm {
                // what is left is rounding
                let share = truth.rounding(1e-5, 5e-3);
                let zeros = vec![0.0; gradient.len()];
                truth.expect_gradient(&name, &zeros, Tolerance::Absolute(share * scale));
            } else {
                truth.expect_gradient(&name, gradient, BACKWARD);
            }
        }
    }
}

fn sum(tensors: Vec<Tensor>) -> Option<Tensor> {
    tensors.into_iter().reduce(|all, one| oracle::add_forward(&all, &one))
}

impl<L: Layer + 'static> GraphCase for LayerCase<L> {
    fn name(&self) -> String {
        let parts: Vec<String> = self.parts.iter().map(|(c, prep)| format!("{c}{prep}")).collect();
        let (n, parts, [d, h, w]) = (self.n, parts.join(" + "), self.spatial);
        let after = match self.after.to_string() {
            after if after.is_empty() => after,
            after => format!(", then{after}"),
        };
        let twice = if self.twice { ", twice" } else { "" };
        format!("{} of {n}x({parts})x{d}x{h}x{w}{after}{twice}", self.layer.name())
    }

    fn vectors(&self) -> usize {
        self.spatial.iter().product()
    }

    fn plannings(&self, own: &Caps) -> Vec<Planning> {
        self.ways.map_or_else(|| plannings(own, self.vectors()), |ways| ways(own))
    }

    fn inference(&self) -> bool {
        self.after.norm && !self.twice
    }

    fn build(&self, net: &mut Net) -> Result<()> {
        let mut inputs = Vec::new();
        for (i, part) in self.parts.iter().enumerate() {
            inputs.push(net.input(&format!("part{i}"), self.shape(*part)?));
        }
        let mut parts = Vec::new();
        for (i, (x, (_, prep))) in inputs.iter().zip(&self.parts).enumerate() {
            parts.push(prep.build(net, &format!("part{i}"), *x)?);
        }
        let mut y = None;
        for copy in self.copies() {
            let params = self.layer.params(&self.channels());
            let params: Vec<Value> = params
                .into_iter()
                .map(|param| net.param(&format!("layer{copy}.{}", param.name), param.packing))
                .collect();
            let one = self.layer.build(net, &parts, &params)?;
            y = Some(match y {
                None => one,
                Some(other) => ops::add(&mut net.graph, other, one)?,
            });
        }
        let y = y.ok_or_else(|| crate::base::Error::Internal("a layer without copies".into()))?;
        let out = self.after.build(net, "after", y)?;
        net.differentiate(out)?;
        net.output("y", out)?;
        Ok(())
    }

    fn truth(&self, dtype: DType) -> Result<Truth> {
        let mut truth = Truth::new(dtype);
        let stages = self.stages(dtype)?;
        let parts: Vec<&Tensor> = stages.iter().map(|stage| &stage.y).collect();
        let params: Vec<Vec<Vec<f64>>> = self
            .copies()
            .map(|copy| {
                let own = self.layer.params(&self.channels()).into_iter().zip(0u64..);
                own.map(|(p, i)| random(p.packing.elements(), 100 + 10 * copy + i)).collect()
            })
            .collect();
        let made = sum(params.iter().map(|own| self.layer.forward(&parts, own)).collect());
        let made =
            made.ok_or_else(|| crate::base::Error::Internal("a layer without copies".into()))?;
        let after = Stage::new(self.after, "after", &made, 3);
        let dy = Tensor { shape: after.y.shape, data: random(after.y.data.len(), 4) };
        let dy = as_stored(dtype, &dy);
        truth.input(UPSTREAM, &dy);
        truth.expect("y", &after.y.data, FORWARD);
        let dr = after.backward(&mut truth, &dy);
        let mut dparts = vec![Vec::new(); parts.len()];
        for (copy, own) in self.copies().zip(&params) {
            let found = self.layer.backward(&parts, own, &dr);
            self.expect_params(&mut truth, copy, own, &found);
            dparts.iter_mut().zip(found.parts).for_each(|(all, part)| all.push(part));
        }
        for (i, (stage, d)) in stages.iter().zip(dparts).enumerate() {
            let name = format!("part{i}");
            truth.input(&name, stage.x());
            if let Some(d) = sum(d) {
                let dx = stage.backward(&mut truth, &d);
                truth.expect_gradient(&name, &dx.data, BACKWARD);
            }
        }
        Ok(truth)
    }
}
