//! The ways in which a case is planned.

use crate::engine::graph::{Caps, DType};

/// The word of variants whose factors are rounded to f16.
pub const HALF_FACTORS: &str = " halves";

/// Limits and preferences that a case is planned for.
#[derive(Debug, Clone)]
pub struct Planning {
    /// What reports call it.
    pub name: String,
    /// The limits and what is chosen by them.
    pub caps: Caps,
    /// How its tensors are stored.
    pub dtype: DType,
    /// Which variants run.
    pub variants: Variants,
    /// Whether its limits are the adapter's own and its tensors in f32.
    pub plain: bool,
}

/// Which variants of its kernels run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variants {
    /// The first alone.
    First,
    /// Every one, by position.
    All,
    /// Those whose names hold this.
    Named(String),
}

impl Planning {
    /// As an adapter is, with all variants.
    fn plain(name: &str, caps: Caps) -> Self {
        let (dtype, variants) = (DType::F32, Variants::All);
        Self { name: name.into(), caps, dtype, variants, plain: true }
    }

    /// Otherwise than an adapter is, with the first variants.
    fn other(name: &str, caps: Caps) -> Self {
        let (dtype, variants) = (DType::F32, Variants::First);
        Self { name: name.into(), caps, dtype, variants, plain: false }
    }

    fn halves(self) -> Self {
        Self { dtype: DType::F16, ..self }
    }

    /// Whether bindings hold no more than one channel block of the largest tensor.
    pub fn is_small(&self) -> bool {
        self.name.contains("small bindings")
    }
}

/// As for a GPU, as for an adapter on the CPU, each with every variant; in small bindings, with few groups in a dimension, and
/// with tensors in f16. Small bindings hold `vectors` vectors of four lanes: one channel block of the largest tensor.
pub fn plannings(own: &Caps, vectors: usize) -> Vec<Planning> {
    let on_cpu = own.software;
    let own = Caps { software: false, tuning: Default::default(), ..own.clone() };
    let small =
        |bytes: u64| (vectors as u64 * bytes).next_multiple_of(own.alignment) + 2 * own.alignment;
    let tight = Caps { max_binding: small(8), ..own.clone() };
    let software = Caps { software: true, ..own.clone() };
    let bindings = Caps { max_binding: small(16), ..own.clone() };
    let groups = Caps { max_groups: 48, ..own.clone() };
    let mut plannings = vec![
        Planning::plain("gpu", own.clone()),
        Planning::plain("software", software.clone()),
        Planning::other("small bindings", bindings),
        Planning::other("few groups", groups),
        Planning::other("halves in small bindings", tight).halves(),
        Planning::other("halves on a CPU", software).halves(),
    ];
    if !on_cpu {
        plannings.push(Planning::other("halves", own).halves());
    }
    plannings
}

/// With factors of cooperative matrices in f32 and in f16 where the adapter has such; with as many subgroups as jobs and with fewer.
pub fn cooperative(own: &Caps) -> Vec<Planning> {
    let mut plannings = Vec::new();
    let sides = own.cooperative;
    for (bits, side, dtype) in [(32, sides.f32, DType::F32), (16, sides.f16, DType::F16)] {
        if side == 0 {
            continue;
        }
        let mut lanes = vec![0, own.subgroup_size, own.subgroup_size / 2];
        lanes.sort_unstable();
        lanes.dedup();
        for subgroup_size in lanes {
            let part = format!("cooperative f{bits} SIDE={side} ");
            let name = format!("{part}for {subgroup_size} lanes");
            let tuning = Default::default();
            let caps = Caps { software: false, subgroup_size, tuning, ..own.clone() };
            let variants = Variants::Named(part);
            plannings.push(Planning { dtype, variants, ..Planning::other(&name, caps) });
        }
    }
    plannings
}

/// With factors that staged convolutions round to f16, where the adapter reckons in f16.
pub fn half_factors(own: &Caps) -> Vec<Planning> {
    let caps = Caps { software: false, tuning: Default::default(), ..own.clone() };
    let variants = Variants::Named(HALF_FACTORS.into());
    let planning = Planning { variants, ..Planning::other("factors in f16", caps).halves() };
    if own.f16 { vec![planning] } else { Vec::new() }
}
