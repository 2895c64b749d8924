//! Weights, gradients and optimizer moments of all networks, by tensor name, each kind in one buffer.

use std::collections::HashMap;

use crate::base::{Error, Result};
use crate::engine::gpu::Gpu;
use crate::engine::graph::{ParamSpec, Region};

/// Words to which every tensor's place is rounded, so that it can be bound on its own.
const ALIGN_WORDS: usize = 64;

/// Words of the loss scale's state, as in loss_scale.wgsl.
pub const SCALE_WORDS: usize = 8;

/// What the loss is multiplied by before its gradient passes through f16; part of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LossScale {
    /// What losses are multiplied by.
    pub scale: f32,
    /// Steps since the scale last changed.
    pub good: u32,
    /// Steps whose gradients overflowed, so that they changed nothing but the scale.
    pub skipped: u32,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { scale: 65536.0, good: 0, skipped: 0 }
    }
}

impl LossScale {
    /// Losses as they are.
    pub const ONE: Self = Self { scale: 1.0, good: 0, skipped: 0 };
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It updated weights and moments.
    Counted,
    /// Gradients overflowed and changed nothing; the loss scale fell for the next step.
    Rescaled,
    /// Loss or gradients are not finite, whatever the loss scale, and changed nothing.
    LeftOut,
}

impl Verdict {
    /// As the loss scale's state says it of the last step.
    pub fn of(state: &[u32; SCALE_WORDS]) -> Self {
        match (state[3], state[6]) {
            (0, _) => Self::Counted,
            (_, 0) => Self::Rescaled,
            _ => Self::LeftOut,
        }
    }
}

/// Words of one region that holds these parameters, each name once.
pub fn region_words<'a>(specs: impl IntoIterator<Item = &'a ParamSpec>) -> usize {
    specs.into_iter().map(|spec| spec.packing.words().next_multiple_of(ALIGN_WORDS)).sum()
}

/// A parameter and its place.
#[derive(Debug, Clone)]
pub struct Stored {
    pub spec: ParamSpec,
    /// First word in each region.
    pub start: usize,
    /// Words with padding up to the next tensor.
    pub span: usize,
}

/// The parameter block.
pub struct Store {
    params: Vec<Stored>,
    index: HashMap<String, usize>,
    words: usize,
    buffers: HashMap<Region, wgpu::Buffer>,
}

impl Store {
    /// Room for the union of the given parameters, in order; with `training` also gradients and moments, all zero, and a loss scale of
    /// one.
    pub fn new<'a>(
        gpu: &Gpu,
        specs: impl IntoIterator<Item = &'a ParamSpec>,
        training: bool,
    ) -> Result<Self> {
        let mut params: Vec<Stored> = Vec::new();
        let mut index = HashMap::new();
        let mut words = 0;
        for spec in specs {
            if let Some(&known) = index.get(&spec.name) {
                let known: &Stored = &params[known];
                if known.spec.packing != spec.packing {
                    return Err(Error::shape(
                        "parameters",
                        format!(
                            "{} has two shapes: {:?} and {:?}",
                            spec.name, known.spec.dims, spec.dims
                        ),
                    ));
                }
                continue;
            }
            let span = spec.packing.words().next_multiple_of(ALIGN_WORDS);
            index.insert(spec.name.clone(), params.len());
            params.push(Stored { spec: spec.clone(), start: words, span });
            words += span;
        }
        let regions: &[(Region, &str)] = if training {
            &[
                (Region::Weights, "weights"),
                (Region::Grads, "gradients"),
                (Region::Moment1, "first moments"),
                (Region::Moment2, "second moments"),
            ]
        } else {
            &[(Region::Weights, "weights")]
        };
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        let mut buffers = HashMap::new();
        for (region, label) in regions {
            buffers.insert(*region, gpu.buffer(label, (words.max(ALIGN_WORDS) * 4) as u64, usage)?);
        }
        if training {
            let bytes = (SCALE_WORDS * 4) as u64;
            buffers.insert(Region::Scale, gpu.buffer("loss scale", bytes, usage)?);
        }
        let store = Self { params, index, words, buffers };
        if training {
            store.write_loss_scale(gpu, &LossScale::ONE)?;
        }
        Ok(store)
    }

    /// Makes room for the moving average of the parameters, all zero.
    pub fn keep_average(&mut self, gpu: &Gpu) -> Result<()> {
        let bytes = (self.words.max(ALIGN_WORDS) * 4) as u64;
        let usage = self.buffer(Region::Weights)?.usage();
        self.buffers.insert(Region::Average, gpu.buffer("averaged weights", bytes, usage)?);
        Ok(())
    }

    /// All parameters in order.
    pub fn params(&self) -> &[Stored] {
        &self.params
    }

    /// A parameter by name.
    pub fn get(&self, name: &str) -> Result<&Stored> {
        self.index
            .get(name)
            .map(|index| &self.params[*index])
            .ok_or_else(|| Error::Internal(format!("no parameter {name}")))
    }

    /// Position of a parameter in [`Store::params`].
    pub fn position(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// Buffer of a region; an error for gradients and moments of a store that does not train, and for an average that none keeps.
    pub fn buffer(&self, region: Region) -> Result<&wgpu::Buffer> {
        self.buffers
            .get(&region)
            .ok_or_else(|| Error::Internal(format!("{region:?} of a store that does not keep it")))
    }

    /// Bytes of all regions.
    pub fn bytes(&self) -> u64 {
        let regions = self.buffers.keys().filter(|region| **region != Region::Scale).count();
        (self.words * 4 * regions) as u64
    }

    /// Sets the loss scale of a store that trains.
    pub fn write_loss_scale(&self, gpu: &Gpu, state: &LossScale) -> Result<()> {
        let mut words = [0u32; SCALE_WORDS];
        (words[0], words[1], words[5]) = (state.scale.to_bits(), state.good, state.skipped);
        words[4] = (1.0 / state.scale).to_bits();
        gpu.upload(self.buffer(Region::Scale)?, 0, bytemuck::cast_slice(&words));
        Ok(())
    }

    /// The loss scale after what was submitted; waits for it.
    pub fn read_loss_scale(&self, gpu: &Gpu) -> Result<LossScale> {
        let bytes = gpu.download(self.buffer(Region::Scale)?, 0, (SCALE_WORDS * 4) as u64)?;
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&bytes);
        Ok(LossScale { scale: f32::from_bits(words[0]), good: words[1], skipped: words[5] })
    }

    /// Writes a tensor in file order.
    pub fn write(&self, gpu: &Gpu, region: Region, name: &str, values: &[f32]) -> Result<()> {
        let stored = self.get(name)?;
        let packed = stored.spec.packing.pack(values)?;
        gpu.upload(self.buffer(region)?, (stored.start * 4) as u64, bytemuck::cast_slice(&packed));
        Ok(())
    }

    /// Reads a whole region: every tensor in file order, in the order of [`Store::params`].
    pub fn read_all(&self, gpu: &Gpu, region: Region) -> Result<Vec<Vec<f32>>> {
        let bytes = gpu.download(self.buffer(region)?, 0, (self.words * 4) as u64)?;
        let words: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
        self.params
            .iter()
            .map(|stored| {
                let range = stored.start..stored.start + stored.spec.packing.words();
                stored.spec.packing.unpack(&words[range])
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::gpu::testing::gpu;
    use crate::engine::graph::{Init, Packing, Scope};

    fn spec(name: &str, channels: usize) -> ParamSpec {
        ParamSpec {
            name: name.into(),
            dims: vec![channels],
            scope: Scope::Shared,
            packing: Packing::Channels { segments: vec![channels] },
            init: Init::Constant(0.0),
        }
    }

    #[test]
    #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
    fn tensors_are_read_as_they_were_written_each_in_its_place() {
        let gpu = gpu();
        let specs = [spec("a", 3), spec("b", 70), spec("a", 3)];
        let store = Store::new(&gpu, &specs, true).unwrap();
        // a name that comes twice is one tensor
        assert_eq!(store.params().len(), 2);
        assert_eq!((store.position("b"), store.position("c")), (Some(1), None));
        let b = store.get("b").unwrap();
        assert!(b.start.is_multiple_of(ALIGN_WORDS) && b.span >= 70);
        assert_eq!(region_words(&specs[..2]), b.start + b.span);
        let values: Vec<f32> = (0..70).map(|v| v as f32).collect();
        for region in [Region::Weights, Region::Grads, Region::Moment1, Region::Moment2] {
            assert_eq!(store.read_all(&gpu, region).unwrap(), [vec![0.0; 3], vec![0.0; 70]]);
            store.write(&gpu, region, "b", &values).unwrap();
            assert_eq!(store.read_all(&gpu, region).unwrap(), [vec![0.0; 3], values.clone()]);
        }
        assert!(store.write(&gpu, Region::Weights, "b", &values[1..]).is_err());
        assert!(store.write(&gpu, Region::Weights, "c", &values).is_err());
        let state = LossScale { scale: 8.0, good: 3, skipped: 2 };
        store.write_loss_scale(&gpu, &state).unwrap();
        assert_eq!(store.read_loss_scale(&gpu).unwrap(), state);
    }

    #[test]
    #[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
    fn what_a_store_has_not_is_refused() {
        let gpu = gpu();
        let clash = [spec("a", 3), spec("a", 4)];
        assert!(Store::new(&gpu, &clash, false).is_err());
        let mut store = Store::new(&gpu, &clash[..1], false).unwrap();
        assert!(store.buffer(Region::Average).is_err());
        let bytes = store.bytes();
        store.keep_average(&gpu).unwrap();
        assert_eq!(store.read_all(&gpu, Region::Average).unwrap(), [[0.0; 3]]);
        assert_eq!(store.bytes(), 2 * bytes);
        assert!(store.buffer(Region::Weights).is_ok());
        assert!(store.buffer(Region::Grads).is_err() && store.read_loss_scale(&gpu).is_err());
        assert!(store.get("b").is_err());
    }
}
