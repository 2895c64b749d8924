//! Every kernel that the benchmark's configurations run on a discrete GPU, in every variant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rayon::prelude::*;
use u2seg::low_level::bench::{Configuration, workloads};
use u2seg::low_level::graph::{Caps, DType, Dispatch};
use u2seg::low_level::plan::{Draft, Workload};
use u2seg::low_level::shader::{Class, KernelKey, Tuning};
use u2seg::{Error, Result};

/// A dispatch of a configuration in the variant that runs without tuning.
pub struct First {
    /// The configuration, and how it stores tensors.
    pub place: String,
    /// What runs.
    pub dispatch: Dispatch,
}

/// What may run.
pub struct Kernels {
    all: BTreeSet<KernelKey>,
    /// What runs without tuning.
    pub first: Vec<First>,
}

/// What wgpu says of the card.
fn caps(tuning: Tuning) -> Caps {
    Caps {
        max_binding: 2047 << 20,
        max_buffer: 4095 << 20,
        memory: 16 << 30,
        alignment: 4,
        uniform_alignment: 4,
        subgroups: true,
        int64: true,
        tuning: Arc::new(tuning),
        ..Caps::default()
    }
}

/// The dispatches of a workload, and how many variants the richest site has.
fn dispatches(workload: &Workload, tuning: Tuning) -> Result<(Vec<Dispatch>, usize)> {
    let draft = Draft::new(&workload.graph, &caps(tuning), &workload.options)?.join_sums();
    let nodes = 0..draft.graph().nodes().len();
    let all: Vec<Dispatch> =
        nodes.map(|node| draft.lower(node)).collect::<Result<Vec<_>>>()?.concat();
    let variants = all.iter().filter_map(|d| d.choice.as_ref().map(|c| c.candidates.len())).max();
    Ok((all, variants.unwrap_or(1)))
}

impl Kernels {
    /// Those of configurations of `u2seg bench`, with tensors in f32 and in f16.
    pub fn of(names: &[String]) -> Result<Self> {
        let mut kernels = Self { all: BTreeSet::new(), first: Vec::new() };
        for name in names {
            let configuration = Configuration::named(name)?;
            for dtype in [DType::F32, DType::F16] {
                for workload in workloads(&configuration, dtype)? {
                    kernels.add(&format!("{name} {dtype:?}"), &workload)?;
                }
            }
        }
        Ok(kernels)
    }

    fn add(&mut self, place: &str, workload: &Workload) -> Result<()> {
        let (first, variants) = dispatches(workload, Tuning::shipped(Class::Discrete)?)?;
        self.all.extend(first.iter().map(|d| d.kernel.clone()));
        self.first
            .extend(first.into_iter().map(|dispatch| First { place: place.into(), dispatch }));
        let others = (0..variants).into_par_iter().map(|position| {
            let (others, _) = dispatches(workload, Tuning::at(position))?;
            Ok(others.into_iter().map(|d| d.kernel).collect())
        });
        let others: Vec<BTreeSet<KernelKey>> = others.collect::<Result<_>>()?;
        self.all.extend(others.into_iter().flatten());
        Ok(())
    }

    /// All of them.
    pub fn keys(&self) -> impl Iterator<Item = &KernelKey> {
        self.all.iter()
    }

    /// How often each runs without tuning.
    pub fn counts(&self) -> BTreeMap<&KernelKey, usize> {
        let mut counts = BTreeMap::new();
        for first in &self.first {
            *counts.entry(&first.dispatch.kernel).or_default() += 1;
        }
        counts
    }
}

/// What a training step of a configuration runs without tuning, in f32; a forward pass where it does not train.
pub fn step(name: &str) -> Result<Vec<Dispatch>> {
    let configuration = Configuration::named(name)?;
    // the forward pass, then the step of each domain: all of one shape
    let all = workloads(&configuration, DType::F32)?;
    let workload = all.get(1).or(all.first());
    let workload = workload.ok_or_else(|| Error::Internal(format!("{name} runs nothing")))?;
    Ok(dispatches(workload, Tuning::shipped(Class::Discrete)?)?.0)
}
