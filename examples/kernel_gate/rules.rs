//! What holds whatever the table says.

use std::collections::{BTreeMap, BTreeSet};

use u2seg::Result;
use u2seg::low_level::graph::{Bind, Dispatch};

use crate::kernels::{First, Kernels};
use crate::model::{CARDS, Hardware, Wave, waves};
use crate::table::Table;

/// Registers of first variants of kernels that do the arithmetic: with more, a SIMD has fewer than four waves to switch between.
const MOST_REGISTERS: u64 = 128;
/// The kernels that do the arithmetic.
const ARITHMETIC: [&str; 3] = ["conv", "depthwise", "pointwise"];
/// Kernels whose sums alone take 96 and 108 registers, with what they take: workgroup memory leaves no more waves than that, and
/// fewer sums a thread made an NVIDIA H200 slower.
const MANY_SUMS: [(&str, u64); 2] =
    [("conv_weight_tiled.wgsl", 152), ("depthwise_weight_lanes.wgsl", 200)];
/// Times that a lane's loads wait for those before, at most, where few waves run: nothing else hides how long they take.
const MOST_SERIAL: f64 = 16.0;
/// Waves that leave most of a card idle.
const FEW_WAVES: f64 = 200.0;
/// Workgroups that keep a card of 80 units busy.
const GROUPS: u64 = 160;

/// Times the best of its site that a variant may take, by the model, on the card where it compares best.
const HOPELESS: f64 = 3.0;

/// Kernels that spill, first variants with too many registers, and dispatches of few groups although there is work for more.
pub fn faults(kernels: &Kernels, found: &Table) -> Result<Vec<String>> {
    let spilling = found.rows().filter(|(_, c)| c.spilled > 0);
    let mut faults: BTreeSet<String> = spilling
        .map(|(label, c)| format!("{label}: {} registers are spilled", c.spilled))
        .collect();
    for First { place, dispatch } in &kernels.first {
        let compiled = found.get(&dispatch.kernel)?;
        let arithmetic = ARITHMETIC.iter().any(|family| dispatch.kernel.file.starts_with(family));
        let sums = MANY_SUMS.iter().find(|(file, _)| *file == dispatch.kernel.file);
        if arithmetic && compiled.registers > sums.map_or(MOST_REGISTERS, |(_, most)| *most) {
            let label = dispatch.kernel.label();
            faults.insert(format!("{label}: {} registers", compiled.registers));
        }
        let serial = Wave::of(dispatch, compiled)?.serial;
        if serial > MOST_SERIAL && waves(dispatch, compiled) < FEW_WAVES {
            let (file, label) = (dispatch.kernel.file, &dispatch.label);
            faults.insert(format!("{place}: {file} {label}: loads wait for loads {serial} times"));
        }
        let groups = dispatch.groups.iter().map(|g| u64::from(*g)).product::<u64>();
        let possible = outputs(dispatch) / compiled.threads;
        if groups < GROUPS.min(possible) {
            let (file, label) = (dispatch.kernel.file, &dispatch.label);
            faults.insert(format!(
                "{place}: {file} {label}: {groups} groups, {possible} could have an output each"
            ));
        }
    }
    faults.extend(hopeless(kernels, found)?);
    Ok(faults.into_iter().collect())
}

/// Variants that on every card are modelled to take many times the best of their site: tuning would only lose time with them.
fn hopeless(kernels: &Kernels, found: &Table) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for (site, variants) in &kernels.sites {
        let seconds = |card: &Hardware| {
            let of = |dispatches: &Vec<Dispatch>| {
                let each = dispatches.iter().map(|d| Ok(card.seconds(d, found)?.all));
                each.sum::<Result<f64>>()
            };
            variants.values().map(of).collect::<Result<Vec<f64>>>()
        };
        let cards: Vec<Vec<f64>> = CARDS.iter().map(seconds).collect::<Result<_>>()?;
        for (place, name) in variants.keys().enumerate() {
            let times = cards.iter().map(|seconds| {
                seconds[place] / seconds.iter().copied().fold(f64::INFINITY, f64::min)
            });
            let least = times.fold(f64::INFINITY, f64::min);
            if least > HOPELESS {
                faults
                    .push(format!("{site}: {name} takes {least:.1} times the best, by the model"));
            }
        }
    }
    Ok(faults)
}

/// Vectors of four that a dispatch writes: the largest tensor among what it binds under the names of outputs.
fn outputs(dispatch: &Dispatch) -> u64 {
    let written =
        dispatch.bindings.iter().filter(|(name, _)| matches!(*name, "dst" | "dx" | "out"));
    let vectors = written.map(|(name, bind)| {
        let (Bind::Value { words, .. } | Bind::Region { words, .. }) = bind;
        *words as u64 / if dispatch.kernel.halves.contains(name) { 2 } else { 4 }
    });
    vectors.max().unwrap_or(0)
}

/// Prints a line a shader: variants, the most registers of any and of those that run first, and how often it runs.
pub fn summary(kernels: &Kernels, found: &Table) {
    #[derive(Default)]
    struct Row {
        variants: usize,
        registers: u64,
        spilling: usize,
        first: u64,
        runs: usize,
    }
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let counts = kernels.counts();
    for key in kernels.keys() {
        let Ok(compiled) = found.get(key) else { continue };
        let row = rows.entry(key.file).or_default();
        row.variants += 1;
        row.registers = row.registers.max(compiled.registers);
        row.spilling += usize::from(compiled.spilled > 0);
        if let Some(count) = counts.get(key) {
            row.first = row.first.max(compiled.registers);
            row.runs += count;
        }
    }
    println!(
        "| shader | variants | registers at most | of those that run first | spilling variants | runs |"
    );
    println!("|---|---|---|---|---|---|");
    for (file, r) in rows {
        println!(
            "| `{file}` | {} | {} | {} | {} | {} |",
            r.variants, r.registers, r.first, r.spilling, r.runs
        );
    }
}
