//! Fixed-order sums of the partial results of a weight gradient.

use super::common::WORKGROUP;
use crate::base::Result;
use crate::engine::graph::{Caps, Dispatch, Lowering, Scratch, Value, fold};
use crate::engine::shader::KernelKey;

/// Rows that a lane of `reduce_lanes.wgsl` sums one after another.
const SERIAL: usize = 16;

/// Lanes that share rows, at most: of 256 so many are left that neighbours read neighbouring vectors.
const MOST_LANES: usize = 64;

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
            let most = SERIAL * MOST_LANES;
            return if rows <= most { all } else { Self::two(rows, most) };
        }
        // both passes are about as long
        if rows <= 8 { all } else { Self::two(rows, (rows as f64).sqrt().ceil() as usize) }
    }

    fn two(rows: usize, first: usize) -> Self {
        Self { first, second: Some(rows.div_ceil(first)) }
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

/// Sums the rows of [`partial_sums`] into the output.
pub fn reduce(lowering: &Lowering<'_>, rows: usize) -> Result<Vec<Dispatch>> {
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
        let lanes = group.div_ceil(SERIAL).next_power_of_two().min(MOST_LANES);
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
