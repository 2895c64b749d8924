//! Functions of single values that consumers apply while they read. Beside this list stand their formulas: in `oracle` for f64,
//! in `shaders/shared/activation.wgsl` for the kernels.

/// An activation, and the switch by which kernels know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Activation {
    /// `x` above zero, else [`SLOPE`]` · x`.
    LeakyRelu = 1,
}

/// Slope of LeakyReLU below zero, as in the shaders.
pub const SLOPE: f32 = 0.01;

impl Activation {
    /// Every activation, for tables of cases.
    pub const ALL: [Self; 1] = [Self::LeakyRelu];

    /// What the shaders' switches ACT and GACT are set to; 0 is none.
    pub fn switch(act: Option<Self>) -> u32 {
        act.map_or(0, |act| act as u32)
    }
}
