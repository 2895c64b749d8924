//! How the depthwise kernels share their work out.

use std::fmt::{Display, Formatter};
use std::sync::Arc;

use super::{FEW_THREADS, WORKGROUP, distinct};
use crate::error::Result;
use crate::graph::{Caps, Layout};
use crate::shader::Choice;

/// Outputs along W that a thread makes.
pub(super) const QUAD: usize = 4;

/// Lines along H that a thread makes: two where loads are dear, so that four lines read serve two.
fn usual_rows(h: usize, caps: &Caps) -> usize {
    if caps.threads() < FEW_THREADS && h > 1 { 2 } else { 1 }
}

/// A thread's lines along H and planes along D, and invocations of its workgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct March {
    pub rows: usize,
    pub depth: usize,
    pub group: usize,
}

impl Display for March {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "ROWS={} depth={} WG={}", self.rows, self.depth, self.group)
    }
}

impl March {
    /// For `blocks` channel blocks of an output; `load` says what rides on the kernel.
    pub fn choose(
        out: &Layout,
        blocks: usize,
        load: &str,
        caps: &Caps,
    ) -> Result<(Self, Arc<Choice>)> {
        let [d, h, w] = out.spatial;
        let shape = format!("{}x{d}x{h}x{w} {blocks}{load}", out.n);
        caps.choose("depthwise", shape, &Self::all(out, caps))
    }

    /// Those that can pay, the default first: all planes, unless that leaves an adapter idle.
    fn all(out: &Layout, caps: &Caps) -> Vec<Self> {
        let [d, h, w] = out.spatial;
        let columns = out.n * out.blocks() * h * w.div_ceil(QUAD);
        let chunks = (caps.threads() / columns.max(1)).clamp(1, d.div_ceil(4));
        let depth = d.div_ceil(chunks);
        let rows = usual_rows(h, caps);
        let other = if h > 1 { 3 - rows } else { rows };
        let march = |rows, depth: usize, group| Self { rows, depth: depth.clamp(1, d), group };
        distinct(vec![
            march(rows, depth, WORKGROUP),
            march(other, depth, WORKGROUP),
            march(rows, depth.div_ceil(2), WORKGROUP),
            march(rows, 2 * depth, WORKGROUP),
            march(other, depth.div_ceil(2), WORKGROUP),
            march(rows, depth, 2 * WORKGROUP),
            march(rows, depth, 4 * WORKGROUP),
        ])
    }
}

/// A weight gradient's lines along H, and the threads among which the columns of all channels are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Columns {
    pub rows: usize,
    pub threads: usize,
}

impl Display for Columns {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "ROWS={} threads={}", self.rows, self.threads)
    }
}

impl Columns {
    /// For an output gradient; `load` says what rides on reading it.
    pub fn choose(layout: &Layout, load: &str, caps: &Caps) -> Result<(Self, Arc<Choice>)> {
        let [d, h, w] = layout.spatial;
        let (rows, threads) = (usual_rows(h, caps), caps.threads());
        let other = if h > 1 { 3 - rows } else { rows };
        let all = distinct(vec![
            Self { rows, threads },
            Self { rows, threads: threads / 2 },
            Self { rows, threads: threads * 2 },
            Self { rows: other, threads },
            Self { rows: other, threads: threads * 2 },
        ]);
        let shape = format!("{}x{d}x{h}x{w} {}{load}", layout.n, layout.blocks());
        caps.choose("depthwise_weight", shape, &all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marches_stay_within_the_volume() {
        for spatial in [[1, 1, 1], [1, 7, 9], [40, 56, 40], [128, 128, 128]] {
            for software in [false, true] {
                let caps = Caps { software, ..Caps::default() };
                let all = March::all(&Layout::new(2, 20, spatial), &caps);
                assert_eq!(distinct(all.clone()).len(), all.len());
                for March { rows, depth, .. } in all {
                    assert!((1..=spatial[0]).contains(&depth) && rows <= spatial[1]);
                }
            }
        }
    }
}
