//! The network of one domain: the universal one with separable units, or the independent one.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv3d, Conv3dConfig};
use burn::nn::{InstanceNorm, InstanceNormConfig, PaddingConfig3d};
use burn::tensor::activation::leaky_relu;
use burn::tensor::ops::PadMode;
use burn::tensor::{Device, Tensor, TensorData};

const BASE: usize = 16;

/// What decides the network's shape.
pub struct Shape {
    pub universal: bool,
    pub classes: usize,
    pub pools: [usize; 3],
}

/// A convolution with weights that are a formula of their index: fan-in variance 2, and the same in every framework.
fn conv(config: Conv3dConfig, device: &Device) -> Conv3d {
    let [cin, cout] = config.channels;
    let fan_in = cin / config.groups * config.kernel_size.iter().product::<usize>();
    let scale = (6.0 / fan_in as f32).sqrt();
    let [kd, kh, kw] = config.kernel_size;
    let shape = [cout, cin / config.groups, kd, kh, kw];
    let values: Vec<f32> = (0..shape.iter().product::<usize>())
        .map(|i| (((i * 7919) % 1000) as f32 / 500.0 - 1.0) * scale)
        .collect();
    let mut conv = config.init(device);
    conv.weight = Param::from_data(TensorData::new(values, shape), device);
    conv.bias = Some(Param::from_data(TensorData::new(vec![0.0f32; cout], [cout]), device));
    conv
}

fn plain(cin: usize, cout: usize, kernel: usize, device: &Device) -> Conv3d {
    let half = kernel / 2;
    let padding = PaddingConfig3d::Explicit(half, half, half);
    conv(Conv3dConfig::new([cin, cout], [kernel; 3]).with_padding(padding), device)
}

fn norm(channels: usize, device: &Device) -> InstanceNorm {
    InstanceNormConfig::new(channels).init(device)
}

fn act(x: Tensor<5>) -> Tensor<5> {
    leaky_relu(x, 0.01)
}

/// Nearest-neighbour upsampling by whole factors.
fn upsample(x: Tensor<5>, factors: [usize; 3]) -> Tensor<5> {
    let ([n, c, d, h, w], [fd, fh, fw]) = (x.dims(), factors);
    x.reshape([n, c, d, 1, h, 1, w, 1])
        .expand([n, c, d, fd, h, fh, w, fw])
        .reshape([n, c, d * fd, h * fh, w * fw])
}

/// A convolution of the mode, then instance norm.
#[derive(Module, Debug)]
struct Unit {
    depthwise: Option<Conv3d>,
    inner: Option<InstanceNorm>,
    conv: Conv3d,
    norm: InstanceNorm,
}

impl Unit {
    fn new(shape: &Shape, [cin, cout]: [usize; 2], kernel: usize, device: &Device) -> Self {
        let norm_out = norm(cout, device);
        if !shape.universal {
            let conv = plain(cin, cout, kernel, device);
            return Self { depthwise: None, inner: None, conv, norm: norm_out };
        }
        let padding = PaddingConfig3d::Explicit(1, 1, 1);
        let depthwise = Conv3dConfig::new([cin, cin], [3; 3]).with_groups(cin).with_padding(padding);
        Self {
            depthwise: Some(conv(depthwise, device)),
            inner: Some(norm(cin, device)),
            conv: plain(cin, cout, 1, device),
            norm: norm_out,
        }
    }

    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let x = match (&self.depthwise, &self.inner) {
            (Some(depthwise), Some(inner)) => act(inner.forward(depthwise.forward(x))),
            _ => x,
        };
        self.norm.forward(self.conv.forward(x))
    }
}

/// A strided convolution that doubles the channels.
#[derive(Module, Debug)]
struct Down {
    conv: Conv3d,
    norm: InstanceNorm,
    strides: [usize; 3],
}

impl Down {
    fn new(cin: usize, strides: [usize; 3], device: &Device) -> Self {
        let conv = conv(Conv3dConfig::new([cin, 2 * cin], [3; 3]).with_stride(strides), device);
        Self { conv, norm: norm(2 * cin, device), strides }
    }

    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        // Zeros (0, 1) where the stride is 2, (1, 1) where it is 1.
        let pads = self.strides.map(|s| (2 - s, 1));
        act(self.norm.forward(self.conv.forward(x.pad(pads, PadMode::Constant(0.0)))))
    }
}

/// Two units of a level.
#[derive(Module, Debug)]
struct Pair {
    one: Unit,
    two: Unit,
}

/// Deep supervision of a level: a map of the classes.
#[derive(Module, Debug)]
struct Deep {
    conv: Conv3d,
    norm: InstanceNorm,
}

#[derive(Module, Debug)]
pub struct U2Net {
    first: Conv3d,
    first_norm: InstanceNorm,
    down: Vec<Pair>,
    shrink: Vec<Down>,
    grow: Vec<Unit>,
    up: Vec<Pair>,
    /// Of levels 1 and 2, in this order, where they exist.
    deep: Vec<Deep>,
    last: Conv3d,
    strides: Vec<[usize; 3]>,
}

impl U2Net {
    pub fn new(shape: &Shape, device: &Device) -> Self {
        let levels = shape.pools.iter().max().unwrap_or(&0) + 1;
        let width = |level: usize| BASE << level;
        let strides: Vec<[usize; 3]> = (0..levels - 1)
            .map(|level| shape.pools.map(|p| if level < p { 2 } else { 1 }))
            .collect();
        let unit = |channels, kernel| Unit::new(shape, channels, kernel, device);
        let pair = |cin, c, kernel| Pair { one: unit([cin, c], 3), two: unit([c, c], kernel) };
        let deep = (1..levels - 1).take(2).map(|level| Deep {
            conv: plain(width(level), shape.classes, 1, device),
            norm: norm(shape.classes, device),
        });
        Self {
            first: plain(1, BASE, 3, device),
            first_norm: norm(BASE, device),
            down: (0..levels).map(|l| pair(width(l), width(l), 3)).collect(),
            shrink: strides.iter().enumerate().map(|(l, s)| Down::new(width(l), *s, device)).collect(),
            grow: (0..levels - 1).map(|l| unit([width(l + 1), width(l)], 3)).collect(),
            up: (0..levels - 1).map(|l| pair(width(l + 1), width(l), 1)).collect(),
            deep: deep.collect(),
            last: plain(BASE, shape.classes, 1, device),
            strides,
        }
    }

    pub fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let mut x = act(self.first_norm.forward(self.first.forward(x)));
        let mut skips = Vec::new();
        for (level, pair) in self.down.iter().enumerate() {
            let inner = act(pair.one.forward(x.clone()));
            x = act(pair.two.forward(inner) + x);
            if let Some(shrink) = self.shrink.get(level) {
                skips.push(x.clone());
                x = shrink.forward(x);
            }
        }
        let mut running: Option<Tensor<5>> = None;
        for (level, skip) in skips.into_iter().enumerate().rev() {
            x = act(self.grow[level].forward(upsample(x, self.strides[level])));
            x = Tensor::cat(vec![x, skip], 1);
            let pair = &self.up[level];
            x = act(pair.two.forward(act(pair.one.forward(x))));
            if let Some(deep) = level.checked_sub(1).and_then(|index| self.deep.get(index)) {
                let map = act(deep.norm.forward(deep.conv.forward(x.clone())));
                let map = match running {
                    Some(below) => map + below,
                    None => map,
                };
                running = Some(upsample(map, self.strides[level - 1]));
            }
        }
        let logits = self.last.forward(x);
        match running {
            Some(map) => logits + map,
            None => logits,
        }
    }
}
