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

/// What each variant of a site runs, by the variant's name.
type Variants = BTreeMap<String, Vec<Dispatch>>;

/// What may run.
pub struct Kernels {
    all: BTreeSet<KernelKey>,
    /// What runs without tuning.
    pub first: Vec<First>,
    /// Every site that has several variants.
    pub sites: BTreeMap<String, Variants>,
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
        f16: true,
        tuning: Arc::new(tuning),
        ..Caps::default()
    }
}

/// The dispatches of each node of a workload.
fn nodes(workload: &Workload, tuning: Tuning) -> Result<Vec<Vec<Dispatch>>> {
    let draft = Draft::new(&workload.graph, &caps(tuning), &workload.options)?.join_sums();
    (0..draft.graph().nodes().len()).map(|node| draft.lower(node)).collect()
}

/// Variants of the richest site.
fn variants(nodes: &[Vec<Dispatch>]) -> usize {
    let choices = nodes.iter().flatten().filter_map(|dispatch| dispatch.choice.as_ref());
    choices.map(|choice| choice.candidates.len()).max().unwrap_or(1)
}

/// Adds what the sites of nodes run, where that is not known yet.
fn add_sites(sites: &mut BTreeMap<String, Variants>, nodes: Vec<Vec<Dispatch>>) {
    for node in nodes {
        let mut own: BTreeMap<String, (String, Vec<Dispatch>)> = BTreeMap::new();
        for dispatch in node {
            let Some(choice) = dispatch.choice.clone().filter(|c| c.candidates.len() > 1) else {
                continue;
            };
            let of_site = own.entry(choice.site.clone()).or_default();
            of_site.0 = choice.variant().to_string();
            of_site.1.push(dispatch);
        }
        for (site, (variant, dispatches)) in own {
            sites.entry(site).or_default().entry(variant).or_insert(dispatches);
        }
    }
}

impl Kernels {
    /// Those of configurations of `u2seg bench`, with tensors in f32 and in f16.
    pub fn of(names: &[String]) -> Result<Self> {
        let mut kernels = Self { all: BTreeSet::new(), first: Vec::new(), sites: BTreeMap::new() };
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
        let first = nodes(workload, Tuning::shipped(Class::Discrete)?)?;
        let others = (0..variants(&first))
            .into_par_iter()
            .map(|position| nodes(workload, Tuning::at(position)));
        let others: Vec<Vec<Vec<Dispatch>>> = others.collect::<Result<_>>()?;
        let all = first.iter().chain(others.iter().flatten()).flatten();
        self.all.extend(all.map(|dispatch| dispatch.kernel.clone()));
        let dispatches = first.into_iter().flatten();
        self.first.extend(dispatches.map(|dispatch| First { place: place.into(), dispatch }));
        others.into_iter().for_each(|nodes| add_sites(&mut self.sites, nodes));
        Ok(())
    }

    /// What runs without tuning, and what every variant of each site runs.
    pub fn dispatches(&self) -> impl Iterator<Item = &Dispatch> {
        let of_sites = self.sites.values().flat_map(BTreeMap::values).flatten();
        self.first.iter().map(|first| &first.dispatch).chain(of_sites)
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
    Ok(nodes(workload, Tuning::shipped(Class::Discrete)?)?.concat())
}
