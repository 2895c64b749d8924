//! Fixed-order sums of the partial results of a weight gradient.

use super::common::WORKGROUP;
use crate::base::Result;
use crate::engine::graph::{Dispatch, Lowering, Scratch, Value, fold};
use crate::engine::shader::KernelKey;

/// Rows that one thread of the first pass sums, so that both passes are about as long.
fn group(rows: usize) -> usize {
    (rows as f64).sqrt().ceil().max(1.0) as usize
}

/// Working memory of a node whose only output is the sum of `rows` partial ones: those, and what lies between the two passes.
pub fn partial_sums(lowering: &Lowering<'_>, rows: usize) -> Result<Vec<Scratch>> {
    let [out] = lowering.outputs()?;
    let name = lowering.name(out);
    let name = name.strip_prefix("grad.").unwrap_or(name);
    let words = lowering.graph.info(out).words;
    Ok(vec![
        Scratch::new(format!("{name}.partial"), rows * words),
        Scratch::new(format!("{name}.scratch"), rows.div_ceil(group(rows)) * words),
    ])
}

/// Sums the rows of [`partial_sums`] into the output.
pub fn reduce(lowering: &Lowering<'_>, rows: usize) -> Result<Vec<Dispatch>> {
    let ([partial, scratch], [out]) = (lowering.scratch()?, lowering.outputs()?);
    let row_words = lowering.graph.info(out).words;
    let count = row_words / 4;
    let pass = |from: Value, to: Value, rows: usize, group: usize| -> Result<Dispatch> {
        let groups = rows.div_ceil(group);
        let threads = count * groups;
        Ok(Dispatch::new(
            format!("reduce {}", lowering.name(out)),
            KernelKey::new("reduce.wgsl"),
            fold(threads.div_ceil(WORKGROUP), lowering.caps)?,
        )
        .bind("src", lowering.whole(from))
        .bind("out", lowering.whole(to))
        .param("count", count)
        .param("rows", rows)
        .param("group", group)
        .param("groups", groups)
        .work((rows * row_words) as u64, ((rows + groups) * row_words * 4) as u64))
    };
    if rows <= 8 {
        return Ok(vec![pass(partial, out, rows, rows)?]);
    }
    let first = group(rows);
    let second = rows.div_ceil(first);
    Ok(vec![pass(partial, scratch, rows, first)?, pass(scratch, out, second, second)?])
}
