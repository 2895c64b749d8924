//! Units, blocks, samplers and transitions of the 3D U²-Net.

use super::{DomainAdapter, DomainNet, Downsample, Mode, NetConfig};
use crate::base::Result;
use crate::engine::activation::Activation;
use crate::engine::graph::{Graph, Init, Packing, ParamSpec, Scope, Value};
use crate::engine::ops;
use crate::engine::ops::ConvSpec;

pub(super) struct Blocks<'a> {
    pub graph: &'a mut Graph,
    pub config: &'a NetConfig,
    pub domain: &'a DomainNet,
    pub index: usize,
}

impl Blocks<'_> {
    fn channels(&self, level: usize) -> usize {
        self.config.base << level
    }

    fn own(&self) -> Scope {
        Scope::Own(self.domain.name.clone())
    }

    /// Conv weight and bias `name.{weight,bias}`.
    fn conv(
        &mut self,
        name: &str,
        x: Value,
        out: usize,
        spec: ConvSpec,
        scope: Scope,
    ) -> Result<Value> {
        let ins = self.graph.layout(x)?.segments.clone();
        let cin: usize = ins.iter().sum();
        let [kd, kh, kw] = spec.kernel;
        let weight = self.param(
            format!("{name}.weight"),
            vec![out, cin, kd, kh, kw],
            Packing::Matrix { out, ins, taps: spec.taps() },
            Init::Kaiming { fan_in: cin * spec.taps() },
            scope.clone(),
        );
        let bias = self.channel_param(format!("{name}.bias"), vec![out], 0.0, scope);
        ops::conv(self.graph, x, weight, bias, spec)
    }

    fn depthwise(&mut self, name: &str, x: Value) -> Result<Value> {
        let segments = self.graph.layout(x)?.segments.clone();
        let channels = segments.iter().sum();
        let own = self.own();
        let weight = self.param(
            format!("{name}.weight"),
            vec![channels, 1, 3, 3, 3],
            Packing::Depthwise { segments: segments.clone(), taps: 27 },
            Init::Kaiming { fan_in: 27 },
            own.clone(),
        );
        let bias = self.channel_param(format!("{name}.bias"), segments, 0.0, own);
        ops::depthwise(self.graph, x, weight, bias)
    }

    /// The domain's instance norm `name.{weight,bias}`.
    fn norm(&mut self, name: &str, x: Value) -> Result<Value> {
        let segments = self.graph.layout(x)?.segments.clone();
        let own = self.own();
        let gamma =
            self.channel_param(format!("{name}.weight"), segments.clone(), 1.0, own.clone());
        let beta = self.channel_param(format!("{name}.bias"), segments, 0.0, own);
        ops::instance_norm(self.graph, x, gamma, beta)
    }

    fn channel_param(
        &mut self,
        name: String,
        segments: Vec<usize>,
        start: f32,
        scope: Scope,
    ) -> Value {
        let dims = vec![segments.iter().sum()];
        self.param(name, dims, Packing::Channels { segments }, Init::Constant(start), scope)
    }

    fn param(
        &mut self,
        name: String,
        dims: Vec<usize>,
        packing: Packing,
        init: Init,
        scope: Scope,
    ) -> Value {
        self.graph.param(ParamSpec { name, dims, scope, packing, init }, false)
    }

    fn act(&mut self, x: Value) -> Result<Value> {
        ops::activate(self.graph, x, Activation::LeakyRelu)
    }

    /// The domain's depthwise 3³, norm and activation, then the shared 1³ convolution.
    fn separable(&mut self, prefix: &str, x: Value, out: usize, spec: ConvSpec) -> Result<Value> {
        let adapter = format!("{prefix}.adapOps.{}", self.index);
        let y = self.depthwise(&format!("{adapter}.conv1"), x)?;
        let y = self.norm(&format!("{adapter}.op1.0"), y)?;
        let y = self.act(y)?;
        self.conv(&format!("{prefix}.pwise.conv1"), y, out, spec, Scope::Shared)
    }

    /// Cin → `out` channels, ending in the domain's norm. `kernel` is 3 or 1; the separable unit always takes 3.
    fn unit(&mut self, prefix: &str, x: Value, out: usize, kernel: usize) -> Result<Value> {
        let d = self.index;
        let spec = if kernel == 1 { ConvSpec::pointwise() } else { ConvSpec::same() };
        let adapter = match self.config.mode {
            Mode::Universal => Some(self.config.adapter),
            Mode::Independent | Mode::Shared => None,
        };
        let y = match adapter {
            None => self.conv(&format!("{prefix}.conv"), x, out, spec, Scope::Shared)?,
            Some(DomainAdapter::Separable) => {
                self.separable(prefix, x, out, ConvSpec::pointwise())?
            }
            Some(DomainAdapter::Series) => {
                let y = self.conv(&format!("{prefix}.conv"), x, out, spec, Scope::Shared)?;
                let adapter = format!("{prefix}.adapOps.{d}.op1");
                let z = self.norm(&format!("{adapter}.0"), y)?;
                let own = self.own();
                let z = self.conv(&format!("{adapter}.1"), z, out, ConvSpec::pointwise(), own)?;
                ops::add(self.graph, y, z)?
            }
            Some(DomainAdapter::Parallel) => {
                let y = self.conv(&format!("{prefix}.conv"), x, out, spec, Scope::Shared)?;
                let name = format!("{prefix}.adapOps.{d}.op1");
                let own = self.own();
                let z = self.conv(&name, x, out, ConvSpec::pointwise(), own)?;
                ops::add(self.graph, y, z)?
            }
        };
        self.norm(&format!("{prefix}.op.{d}"), y)
    }

    pub fn input_transition(&mut self, image: Value) -> Result<Value> {
        let prefix = format!("in_tr_list.{}.op1", self.index);
        let (out, own) = (self.channels(0), self.own());
        let y = self.conv(&format!("{prefix}.0"), image, out, ConvSpec::same(), own)?;
        let y = self.norm(&format!("{prefix}.1.0"), y)?;
        self.act(y)
    }

    /// Two units with the block's input added before the last activation.
    pub fn down_block(&mut self, level: usize, x: Value) -> Result<Value> {
        let channels = self.channels(level);
        let y = self.unit(&format!("down_blocks.{level}.op1"), x, channels, 3)?;
        let y = self.act(y)?;
        let y = self.unit(&format!("down_blocks.{level}.op2"), y, channels, 3)?;
        let y = ops::add(self.graph, y, x)?;
        self.act(y)
    }

    pub fn down_sample(&mut self, level: usize, x: Value) -> Result<Value> {
        let prefix = format!("down_samps.{level}.op1");
        let stride = self.domain.stride(level);
        let out = self.channels(level + 1);
        let y = match self.config.downsample {
            Downsample::Full => {
                let name = format!("{prefix}.conv");
                self.conv(&name, x, out, ConvSpec::down(stride), Scope::Shared)?
            }
            Downsample::Separable => {
                self.separable(&prefix, x, out, ConvSpec { stride, ..ConvSpec::pointwise() })?
            }
        };
        let y = self.norm(&format!("{prefix}.op.{}", self.index), y)?;
        self.act(y)
    }

    /// From level `level + 1` up to `level`.
    pub fn up_sample(&mut self, level: usize, x: Value) -> Result<Value> {
        let x = ops::upsample(self.graph, x, self.domain.stride(level))?;
        let channels = self.channels(level);
        let y = self.unit(&format!("up_samps.{level}.op"), x, channels, 3)?;
        self.act(y)
    }

    pub fn up_block(&mut self, level: usize, up: Value, skip: Value) -> Result<Value> {
        let channels = self.channels(level);
        let x = ops::concat(self.graph, &[up, skip])?;
        let y = self.unit(&format!("up_blocks.{level}.op1"), x, channels, 3)?;
        let y = self.act(y)?;
        let y = self.unit(&format!("up_blocks.{level}.op2"), y, channels, 1)?;
        self.act(y)
    }

    /// Class map of a level, with the running map of deeper levels, upsampled to the level above.
    pub fn deep_supervision(
        &mut self,
        level: usize,
        x: Value,
        running: Option<Value>,
    ) -> Result<Value> {
        // the list runs from the deepest level with an up block (at most 2) upwards
        let place = 2.min(self.config.depth() - 2) - level;
        let prefix = format!("dSupers.{place}.{}.op1", self.index);
        let (classes, own) = (self.domain.classes, self.own());
        let y = self.conv(&format!("{prefix}.0"), x, classes, ConvSpec::pointwise(), own)?;
        let y = self.norm(&format!("{prefix}.1.0"), y)?;
        let mut y = self.act(y)?;
        if let Some(running) = running {
            y = ops::add(self.graph, y, running)?;
        }
        ops::upsample(self.graph, y, self.domain.stride(level - 1))
    }

    pub fn output_transition(&mut self, x: Value) -> Result<Value> {
        let (classes, own) = (self.domain.classes, self.own());
        let name = format!("out_tr_list.{}.conv1", self.index);
        self.conv(&name, x, classes, ConvSpec::pointwise(), own)
    }
}
