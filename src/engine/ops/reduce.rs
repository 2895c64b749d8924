//! Fixed-order sums of the partial results of a weight gradient.

use super::common::WORKGROUP;
use crate::base::Result;
use crate::engine::graph::{Caps, Dispatch, Lowering, Scratch, Sums, Value, fold};
use crate::engine::shader::KernelKey;

/// Rows that a lane of `reduce_lanes.wgsl` sums one after another.
const SERIAL: usize = 16;

/// Lanes that share rows, at most: of 256 so many are left that neighbours read neighbouring vectors.
const MOST_LANES: usize = 64;

/// Rows that one pass of `reduce_lanes.wgsl` sums, at most.
pub const ONE_PASS: usize = SERIAL * MOST_LANES;

/// Threads for each that keeps the adapter busy, in workgroups that make partial sums: those that end late cost less where there
/// are many.
const ROUNDS: usize = 6;

/// Invocations of a workgroup of `reduce_lanes.wgsl`.
const THREADS: usize = 256;

/// How rows are summed: so many by each thread or workgroup of a pass, of one pass or of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Passes {
    first: usize,
    second: Option<usize>,
}

impl Passes {
    fn new(rows: usize, caps: &Caps) -> Self {
        let all = Self { first: rows, second: None };
        if !caps.software {
            return if rows <= ONE_PASS { all } else { Self::two(rows, ONE_PASS) };
        }
        // both passes are about as long
        if rows <= 8 { all } else { Self::two(rows, (rows as f64).sqrt().ceil() as usize) }
    }

    fn two(rows: usize, first: usize) -> Self {
        Self { first, second: Some(rows.div_ceil(first)) }
    }
}

/// What workgroups sum, cut into parts of a sample: each makes a row of partial sums.
pub struct PartWork {
    /// What a workgroup takes one after another, of a sample.
    pub units: usize,
    /// Invocations that one part of all samples takes.
    pub threads: usize,
    /// Parts of a sample at most.
    pub most: usize,
}

impl PartWork {
    /// Units of a part, and parts of a sample, that keep the adapter busy.
    pub fn split(&self, caps: &Caps) -> [usize; 2] {
        let wanted = ROUNDS * caps.threads() / self.threads;
        let each = self.units.div_ceil(wanted.clamp(1, self.most.max(1)));
        [each, self.units.div_ceil(each)]
    }
}

/// Working memory of a node whose only output is the sum of `rows` partial ones: those, and what lies between two passes.
pub fn partial_sums(lowering: &Lowering<'_>, rows: usize) -> Result<Vec<Scratch>> {
    let [out] = lowering.outputs()?;
    let name = lowering.name(out);
    let name = name.strip_prefix("grad.").unwrap_or(name);
    let words = lowering.graph.info(out).words;
    let mut scratch = vec![Scratch::new(format!("{name}.partial"), rows * words)];
    if let Some(between) = Passes::new(rows, lowering.caps).second {
        scratch.push(Scratch::new(format!("{name}.scratch"), between * words));
    }
    Ok(scratch)
}

/// Sums the rows of [`partial_sums`] into the output: here, later, or with those of earlier nodes.
pub fn reduce(lowering: &Lowering<'_>, rows: usize) -> Result<Vec<Dispatch>> {
    match &lowering.node.sums {
        Sums::Here => alone(lowering, rows),
        Sums::Later => Ok(Vec::new()),
        Sums::With(others) => Ok(vec![together(lowering, others)?]),
    }
}

fn alone(lowering: &Lowering<'_>, rows: usize) -> Result<Vec<Dispatch>> {
    let ([partial], [out]) = (lowering.scratch()?, lowering.outputs()?);
    let Passes { first, second } = Passes::new(rows, lowering.caps);
    let Some(between) = second else {
        return Ok(vec![pass(lowering, [partial, out], rows, first)?]);
    };
    let [_, scratch] = lowering.scratch()?;
    Ok(vec![
        pass(lowering, [partial, scratch], rows, first)?,
        pass(lowering, [scratch, out], between, between)?,
    ])
}

/// Lanes that share `rows` rows.
fn lanes_for(rows: usize) -> usize {
    rows.div_ceil(SERIAL).next_power_of_two().min(MOST_LANES)
}

/// What `reduce_several.wgsl` calls what belongs to a set.
struct Names {
    src: &'static str,
    out: &'static str,
    count: &'static str,
    rows: &'static str,
    lanes: &'static str,
    runs: &'static str,
    section: Option<&'static str>,
}

macro_rules! names {
    ($set:literal, $section:expr) => {
        Names {
            src: concat!("src_", $set),
            out: concat!("out_", $set),
            count: concat!("count_", $set),
            rows: concat!("rows_", $set),
            lanes: concat!("lanes_", $set),
            runs: concat!("runs_", $set),
            section: $section,
        }
    };
}

const NAMES: [Names; 4] = [
    names!("0", None),
    names!("1", Some("TWO")),
    names!("2", Some("THREE")),
    names!("3", Some("FOUR")),
];

/// Sums the rows of the node and of those whose outputs are `others`.
fn together(lowering: &Lowering<'_>, others: &[Value]) -> Result<Dispatch> {
    let [own] = lowering.outputs()?;
    let outputs = std::iter::once(own).chain(others.iter().copied());
    let sets = lowering.node.scratch.iter().zip(outputs);
    let mut dispatch = Dispatch::new("reduce", KernelKey::new("reduce_several.wgsl"), [1, 1]);
    let (mut groups, mut words, mut sums) = (0, 0, 0);
    for ((partial, out), names) in sets.zip(&NAMES) {
        let [from, to] = [*partial, out].map(|value| lowering.graph.info(value).words);
        let (count, rows) = (to / 4, from / to);
        let lanes = lanes_for(rows);
        let runs = count.div_ceil(THREADS / lanes);
        dispatch.kernel.sections.extend(names.section);
        dispatch = dispatch
            .bind(names.src, lowering.whole(*partial))
            .bind(names.out, lowering.whole(out))
            .param(names.count, count)
            .param(names.rows, rows)
            .param(names.lanes, lanes)
            .param(names.runs, runs);
        groups += runs;
        words += from;
        sums += to;
    }
    dispatch.kernel.sections.sort_unstable();
    dispatch.groups = fold(groups, lowering.caps)?;
    Ok(dispatch.work(words as u64, ((words + sums) * 4) as u64))
}

/// Sums each `group` of `rows` rows of the first value into a row of the second.
fn pass(
    lowering: &Lowering<'_>,
    [from, to]: [Value; 2],
    rows: usize,
    group: usize,
) -> Result<Dispatch> {
    let [out] = lowering.outputs()?;
    let row_words = lowering.graph.info(out).words;
    let (count, groups) = (row_words / 4, rows.div_ceil(group));
    let label = format!("reduce {}", lowering.name(out));
    let dispatch = if lowering.caps.software {
        let threads = fold((count * groups).div_ceil(WORKGROUP), lowering.caps)?;
        Dispatch::new(label, KernelKey::new("reduce.wgsl"), threads)
    } else {
        let lanes = lanes_for(group);
        let columns = THREADS / lanes;
        let key = KernelKey::new("reduce_lanes.wgsl")
            .tile("COLUMNS", columns as u32)
            .tile("LANES", lanes as u32);
        let runs = count.div_ceil(columns);
        Dispatch::new(label, key, fold(runs * groups, lowering.caps)?).param("runs", runs)
    };
    Ok(dispatch
        .bind("src", lowering.whole(from))
        .bind("out", lowering.whole(to))
        .param("count", count)
        .param("rows", rows)
        .param("group", group)
        .param("groups", groups)
        .work((rows * row_words) as u64, ((rows + groups) * row_words * 4) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_lane_sums_more_than_a_few_rows_where_lanes_abound() {
        let (hardware, software) = (Caps::default(), Caps { software: true, ..Caps::default() });
        for rows in [1, 2, 16, 17, 256, 1024] {
            assert_eq!(Passes::new(rows, &hardware), Passes { first: rows, second: None });
        }
        assert_eq!(Passes::new(5000, &hardware), Passes { first: 1024, second: Some(5) });
        assert_eq!(Passes::new(8, &software).second, None);
        assert_eq!(Passes::new(100, &software), Passes { first: 10, second: Some(10) });
    }
}
