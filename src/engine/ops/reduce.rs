//! Fixed-order sums of partial results.

use super::WORKGROUP;
use super::load::whole;
use crate::Result;
use crate::engine::graph::{Caps, Dispatch, Graph, Value, fold};
use crate::engine::shader::KernelKey;

/// Rows that one thread of the first pass sums, so that both passes are about as long.
fn group(rows: usize) -> usize {
    (rows as f64).sqrt().ceil().max(1.0) as usize
}

/// Words of the scratch between the two passes.
pub fn scratch_words(rows: usize, row_words: usize) -> usize {
    rows.div_ceil(group(rows)) * row_words
}

/// Sums `rows` rows of `row_words` words of `partial` into `out`.
pub fn reduce(
    graph: &Graph,
    [partial, scratch, out]: [Value; 3],
    rows: usize,
    row_words: usize,
    caps: &Caps,
) -> Result<Vec<Dispatch>> {
    let count = row_words / 4;
    let pass = |from: Value, to: Value, rows: usize, group: usize| -> Result<Dispatch> {
        let groups = rows.div_ceil(group);
        let threads = count * groups;
        Ok(Dispatch::new(
            format!("reduce {}", graph.info(out).name),
            KernelKey::new("reduce.wgsl"),
            fold(threads.div_ceil(WORKGROUP), caps)?,
        )
        .bind("src", whole(graph, from))
        .bind("out", whole(graph, to))
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
