//! A case planned, run on the adapter, and compared.

use std::sync::Arc;

use half::f16;

use super::measure::Compared;
use super::net::{Net, Place, Purpose, Samples, Truth, gradient_of, random, singles};
use crate::base::{Error, Result};
use crate::engine::exec::{Pool, Program, Store};
use crate::engine::gpu::Gpu;
use crate::engine::graph::{Caps, DType, Region, Value};
use crate::engine::plan::{Plan, PlanRequest};
use crate::engine::shader::Choice;

/// What a run found.
#[derive(Debug, Default)]
pub struct Ran {
    /// Each comparison.
    pub compared: Vec<Compared>,
    /// Files of the kernels that ran, one a dispatch.
    pub kernels: Vec<&'static str>,
    /// What the variant of every kernel that has several was taken from.
    pub choices: Vec<Arc<Choice>>,
    /// Arithmetic operations.
    pub operations: u64,
    /// Bytes that must move.
    pub bytes: u64,
}

/// A case's graph, planned and bound to memory of its own.
pub struct Rig {
    net: Net,
    dtype: DType,
    plan: Plan,
    store: Store,
    program: Program,
}

fn named<'a, T>(list: &'a [(String, T)], name: &str) -> Result<&'a T> {
    let found = list.iter().find(|(known, _)| known == name).map(|(_, item)| item);
    found.ok_or_else(|| Error::Internal(format!("the case has no {name}")))
}

impl Rig {
    /// Plans what `build` makes, with tensors stored as `dtype`, and compiles its kernels.
    pub fn new(
        gpu: &Gpu,
        caps: &Caps,
        dtype: DType,
        purpose: Purpose,
        build: impl FnOnce(&mut Net) -> Result<()>,
    ) -> Result<Self> {
        let mut net = Net::new(purpose);
        build(&mut net)?;
        let request = PlanRequest {
            tensors: dtype,
            inputs: dtype,
            inference: purpose == Purpose::Inference,
            ..PlanRequest::default()
        };
        let plan = Plan::new(&net.graph, caps, &request)?;
        let store = Store::new(gpu, net.graph.params(), true)?;
        let pool = Pool::new(gpu, [&plan])?;
        let program = Program::passing(gpu, &plan, &[], &store, &pool)?;
        Ok(Self { net, dtype, plan, store, program })
    }

    /// The compiled case.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Writes numbers to all inputs and parameters, to be timed: tensors in -1..1, words 0 and 1.
    pub fn fill(&self, gpu: &Gpu) -> Result<()> {
        for ((_, value), seed) in self.net.tensors.iter().zip(1..) {
            let layout = self.net.graph.layout(*value)?;
            self.write(gpu, *value, &random(layout.n * layout.channels() * layout.voxels(), seed))?;
        }
        for (_, value) in &self.net.words {
            let words = (0..self.net.graph.info(*value).words).map(|i| (i / 97 % 2) as u32);
            self.program.write(gpu, *value, &words.collect::<Vec<_>>())?;
        }
        for (spec, seed) in self.net.graph.params().iter().zip(100..) {
            let values = singles(&random(spec.packing.elements(), seed));
            self.store.write(gpu, Region::Weights, &spec.name, &values)?;
        }
        Ok(())
    }

    /// Runs on the data of the case and compares what its oracle expects.
    pub fn run(&self, gpu: &Gpu, truth: &Truth) -> Result<Ran> {
        for (name, value) in &self.net.tensors {
            self.write(gpu, *value, named(&truth.tensors, name)?)?;
        }
        for (name, value) in &self.net.words {
            self.program.write(gpu, *value, named(&truth.words, name)?)?;
        }
        for spec in self.net.graph.params() {
            let values = singles(named(&truth.params, &spec.name)?);
            self.store.write(gpu, Region::Weights, &spec.name, &values)?;
        }
        self.program.run(gpu)?;
        let dispatches = || self.plan.dispatches();
        Ok(Ran {
            compared: self.compare(gpu, truth)?,
            kernels: dispatches().map(|dispatch| dispatch.kernel.file).collect(),
            choices: dispatches().filter_map(|dispatch| dispatch.choice.clone()).collect(),
            operations: dispatches().map(|dispatch| dispatch.flops).sum(),
            bytes: dispatches().map(|dispatch| dispatch.bytes).sum(),
        })
    }

    fn write(&self, gpu: &Gpu, value: Value, x: &[f64]) -> Result<()> {
        // an input that nothing reads has no memory
        if self.program.value(value).is_err() {
            return Ok(());
        }
        let packed = self.net.graph.layout(value)?.pack(&singles(x))?;
        match self.plan.graph.info(value).dtype {
            DType::F32 => self.program.write(gpu, value, &packed),
            DType::F16 => {
                let bits: Vec<u16> = packed.iter().map(|v| f16::from_f32(*v).to_bits()).collect();
                self.program.write(gpu, value, &bits)
            }
        }
    }

    fn compare(&self, gpu: &Gpu, truth: &Truth) -> Result<Vec<Compared>> {
        let training = self.net.purpose() == Purpose::Training;
        let grads = match training {
            true => self.store.read_all(gpu, Region::Grads)?,
            false => Vec::new(),
        };
        let mut compared = Vec::new();
        for expected in truth.expected.iter().filter(|expected| training || !expected.gradient) {
            let param = self
                .net
                .graph
                .params()
                .iter()
                .position(|spec| expected.gradient && gradient_of(&spec.name) == expected.what);
            let found = match param {
                Some(index) => grads[index].iter().map(|v| f64::from(*v)).collect(),
                None => {
                    let place = *named(&self.net.outputs, &expected.what)?;
                    self.read(gpu, place)?
                }
            };
            compared.push(expected.compare(&found, self.dtype));
        }
        Ok(compared)
    }

    /// What lies at a place.
    fn read(&self, gpu: &Gpu, place: Place) -> Result<Vec<f64>> {
        Ok(match place {
            Place::Tensor(value) => self.tensor(gpu, value)?,
            Place::Float(value, index) => {
                let all: Vec<f32> = self.program.read(gpu, value)?;
                all.get(index).map(|v| f64::from(*v)).into_iter().collect()
            }
            Place::Classes(value, Samples { count, voxels }) => {
                let bytes: Vec<u8> = self.program.read(gpu, value)?;
                let samples = bytes.chunks(voxels.next_multiple_of(4)).take(count);
                samples
                    .flat_map(|sample| &sample[..voxels])
                    .map(|class| f64::from(*class))
                    .collect()
            }
            Place::Maps(value, Samples { count, voxels }) => {
                let maps: Vec<f32> = self.program.read(gpu, value)?;
                let pitch = voxels.next_multiple_of(4);
                let classes = maps.len() / (pitch * count);
                let map = |sample: usize, class: usize| &maps[(class * count + sample) * pitch..];
                let of = |sample: usize| {
                    (0..classes).flat_map(move |class| &map(sample, class)[..voxels])
                };
                (0..count).flat_map(of).map(|p| f64::from(*p)).collect()
            }
        })
    }

    /// A tensor in N, C, D, H, W order; an error where its padding lanes are not zero.
    fn tensor(&self, gpu: &Gpu, value: Value) -> Result<Vec<f64>> {
        let layout = self.net.graph.layout(value)?;
        let mut packed: Vec<f32> = match self.plan.graph.info(value).dtype {
            DType::F32 => self.program.read(gpu, value)?,
            DType::F16 => {
                let bits: Vec<u16> = self.program.read(gpu, value)?;
                bits.into_iter().map(|bits| f16::from_bits(bits).to_f32()).collect()
            }
        };
        packed.truncate(layout.words());
        let plain = layout.unpack(&packed)?;
        let nonzero = |values: &[f32]| values.iter().filter(|v| **v != 0.0).count();
        if nonzero(&packed) != nonzero(&plain) {
            let name = &self.net.graph.info(value).name;
            return Err(Error::Internal(format!("{name}: padding lanes are not zero")));
        }
        Ok(plain.into_iter().map(f64::from).collect())
    }
}
