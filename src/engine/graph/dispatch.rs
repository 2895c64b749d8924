//! A dispatch as plain data: kernel, bindings by name, parameters by name, group counts.

use std::sync::Arc;

use super::value::Value;
use crate::base::{Error, Result};
use crate::engine::shader::{Choice, Class, Cooperative, KernelKey, Tuning};

/// What lowering must know of an adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caps {
    /// Bytes that one storage binding can cover.
    pub max_binding: u64,
    /// Bytes of the largest buffer.
    pub max_buffer: u64,
    /// Bytes of memory that a program may take unless the user says otherwise.
    pub memory: u64,
    /// Alignment of a storage binding's offset in bytes.
    pub alignment: u64,
    /// Groups in one dimension of a dispatch.
    pub max_groups: u32,
    /// Its kind: how much there is to keep busy.
    pub class: Class,
    /// Whether the adapter computes on the CPU: few lanes, dear loads, cheap arithmetic, so that other tiles pay.
    pub software: bool,
    /// Whether the adapter's compiler takes long kernels badly, so that variants which are known for that are left out.
    pub short_kernels: bool,
    /// Alignment of a uniform binding's offset in bytes.
    pub uniform_alignment: u64,
    /// Whether shaders may use subgroup operations.
    pub subgroups: bool,
    /// Invocations of every subgroup; zero where their number varies or there are none.
    pub subgroup_size: u32,
    /// Whether shaders may use 64-bit integers.
    pub int64: bool,
    /// Whether shaders may reckon in f16.
    pub f16: bool,
    /// Cooperative matrices that shaders may use.
    pub cooperative: Cooperative,
    /// Which variant of each kernel runs at which shape.
    pub tuning: Arc<Tuning>,
}

impl Caps {
    /// Whether kernels read and write vectors in 64-bit words: where each word of a load costs a loop over the lanes.
    pub fn wide(&self) -> bool {
        self.software && self.int64
    }

    /// Threads that keep the adapter busy; more would only cost memory and repeated loads.
    pub fn threads(&self) -> usize {
        match self.class {
            _ if self.software => 1024,
            Class::Integrated | Class::Apple => 8192,
            Class::Discrete | Class::Software => 16_384,
        }
    }

    /// Workgroups below which a large adapter of its class has units that do nothing: two for each.
    pub fn busy_groups(&self) -> usize {
        match self.class {
            Class::Integrated => 32,
            Class::Apple => 80,
            Class::Discrete | Class::Software => 160,
        }
    }

    /// Units that run workgroups, of a large adapter of its class.
    pub fn units(&self) -> usize {
        match self.class {
            Class::Integrated => 16,
            Class::Apple => 40,
            Class::Discrete | Class::Software => 128,
        }
    }
}

impl Default for Caps {
    /// The limits that every WebGPU adapter has.
    fn default() -> Self {
        Self {
            max_binding: 128 << 20,
            max_buffer: 256 << 20,
            memory: 1 << 30,
            alignment: 256,
            max_groups: 65_535,
            class: Class::Discrete,
            software: false,
            short_kernels: false,
            uniform_alignment: 256,
            subgroups: false,
            subgroup_size: 0,
            int64: false,
            f16: false,
            cooperative: Cooperative::default(),
            tuning: Arc::default(),
        }
    }
}

/// Operations that take as long as moving one byte, roughly, on GPUs and CPUs alike.
pub const FLOPS_PER_BYTE: u64 = 16;

/// A block of parameters or their companions, as the optimizer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Region {
    /// The parameters.
    Weights,
    /// Their gradients.
    Grads,
    /// First moments of the optimizer, or momentum.
    Moment1,
    /// Second moments of the optimizer.
    Moment2,
    /// Exponential moving average of the parameters.
    Average,
    /// State of the loss scale: a few words, no parameters.
    Scale,
}

/// Memory behind a binding, in 32-bit words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// Part of a value.
    Value {
        /// The value.
        value: Value,
        /// Words before the part.
        start: usize,
        /// Words of the part.
        words: usize,
    },
    /// Part of the parameter block.
    Region {
        /// The region.
        region: Region,
        /// Words before the part.
        start: usize,
        /// Words of the part.
        words: usize,
    },
}

/// One kernel run.
#[derive(Debug, Clone, PartialEq)]
pub struct Dispatch {
    /// Label for errors and timings.
    pub label: String,
    /// What runs.
    pub kernel: KernelKey,
    /// Memory by the shader's names.
    pub bindings: Vec<(&'static str, Bind)>,
    /// Members of the kernel's `params` uniform, each once; floats go as bits.
    pub params: Vec<(&'static str, u32)>,
    /// Workgroups in x and y.
    pub groups: [u32; 2],
    /// Arithmetic operations, to bound submissions and to rate kernels.
    pub flops: u64,
    /// Bytes that must move.
    pub bytes: u64,
    /// What the kernel's variant was taken from, where it has several.
    pub choice: Option<Arc<Choice>>,
}

impl Dispatch {
    /// A dispatch of `kernel` without bindings.
    pub fn new(label: impl Into<String>, kernel: KernelKey, groups: [u32; 2]) -> Self {
        Self {
            label: label.into(),
            kernel,
            bindings: Vec::new(),
            params: Vec::new(),
            groups,
            flops: 0,
            bytes: 0,
            choice: None,
        }
    }

    /// Binds memory to the shader variable `name`.
    pub fn bind(mut self, name: &'static str, bind: Bind) -> Self {
        self.bindings.push((name, bind));
        self
    }

    /// Sets an integer parameter.
    pub fn param(mut self, name: &'static str, value: usize) -> Self {
        self.params.push((name, value as u32));
        self
    }

    /// Sets a float parameter.
    pub fn param_f32(mut self, name: &'static str, value: f32) -> Self {
        self.params.push((name, value.to_bits()));
        self
    }

    /// Sets SCALED and binds the state of the loss scale, for kernels that can go without either.
    pub fn scaled(mut self) -> Self {
        self.kernel = self.kernel.set("SCALED", 1);
        self.bindings.retain(|(name, _)| *name != "state");
        self.bind("state", Bind::Region { region: Region::Scale, start: 0, words: 8 })
    }

    /// Whether memory of a value is bound.
    pub fn reads(&self, of: Value) -> bool {
        let is_it = |bind: &Bind| matches!(bind, Bind::Value { value, .. } if *value == of);
        self.bindings.iter().any(|(_, bind)| is_it(bind))
    }

    /// Notes what the variant was taken from.
    pub fn chosen(mut self, choice: Arc<Choice>) -> Self {
        self.choice = Some(choice);
        self
    }

    /// Notes the work: arithmetic operations and bytes.
    pub fn work(mut self, flops: u64, bytes: u64) -> Self {
        self.flops = flops;
        self.bytes = bytes;
        self
    }
}

/// Folds a count of workgroups into two dimensions.
pub fn fold(groups: usize, caps: &Caps) -> Result<[u32; 2]> {
    let most = caps.max_groups as usize;
    let x = groups.clamp(1, most);
    let y = groups.div_ceil(x).max(1);
    if y > most {
        return Err(Error::shape("dispatch", format!("{groups} workgroups exceed the device")));
    }
    Ok([x as u32, y as u32])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smaller the class, the less keeps it busy; what computes on the CPU takes least.
    #[test]
    fn every_class_has_counts_of_its_own() {
        let of = |class| Caps { class, ..Caps::default() };
        let [discrete, apple, integrated] =
            [Class::Discrete, Class::Apple, Class::Integrated].map(of);
        for (large, small) in [(&discrete, &apple), (&apple, &integrated)] {
            assert!(large.threads() >= small.threads());
            assert!(large.busy_groups() > small.busy_groups() && large.units() > small.units());
        }
        assert!(discrete.threads() > integrated.threads());
        let software = Caps { software: true, ..of(Class::Software) };
        assert!(software.threads() < integrated.threads());
    }
}
