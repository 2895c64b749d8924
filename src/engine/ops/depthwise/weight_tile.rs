//! How the columns of a depthwise weight gradient are shared out.

use std::fmt::{Display, Formatter};
use std::sync::Arc;

use super::super::common::{WORKGROUP, distinct};
use super::super::reduce::{ONE_PASS, PartWork};
use super::tile::{QUAD, usual_rows};
use crate::base::Result;
use crate::engine::graph::{Caps, Dispatch, Layout, Lowering};
use crate::engine::shader::{Choice, KernelKey};

/// Invocations of a workgroup of `depthwise_weight_lanes.wgsl`.
const LANES: usize = 64;

/// Columns, for each thread that keeps the adapter busy, that shorter marches along D are made for.
const COLUMNS_A_THREAD: usize = 12;

/// Planes of a march at least: a march reads two more than its own.
const LEAST_DEPTH: usize = 4;

/// Gradient vectors from which a lane takes two lines, and from which it takes four, where it has the registers: found on an NVIDIA H200.
const FEW: usize = 1 << 17;
const MANY: usize = 1 << 18;

/// What owns columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnTile {
    /// `depthwise_weight.wgsl`: each of so many `threads`, four neighbours along W and `rows` lines at a time, all planes.
    Threads { rows: usize, threads: usize },
    /// `depthwise_weight_lanes.wgsl`: a lane, one along W and `rows` lines, some planes; a workgroup adds up its lanes.
    Lanes { rows: usize },
}

impl Display for ColumnTile {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Threads { rows, threads } => write!(f, "ROWS={rows} threads={threads}"),
            Self::Lanes { rows } => write!(f, "lanes ROWS={rows}"),
        }
    }
}

impl ColumnTile {
    /// For an output gradient, the default first.
    fn candidates(layout: &Layout, caps: &Caps) -> Vec<Self> {
        let height = layout.spatial[1];
        let (rows, threads) = (usual_rows(height, caps), caps.threads());
        if caps.short_kernels {
            return vec![Self::Threads { rows, threads }];
        }
        if !caps.software {
            let lanes = |rows| Self::Lanes { rows: height.min(rows) };
            let lines = match layout.n * layout.blocks() * layout.voxels() {
                // registers for four lines are there where depthwise taps can be held
                _ if caps.subgroup_size == 0 => [2, 1].as_slice(),
                MANY.. => &[4, 2],
                FEW.. => &[2, 4, 1],
                _ => &[1, 2],
            };
            let lanes = lines.iter().map(|rows| lanes(*rows));
            return distinct(lanes.chain([Self::Threads { rows, threads }]).collect());
        }
        let other = if height > 1 { 3 - rows } else { rows };
        distinct(vec![
            Self::Threads { rows, threads },
            Self::Threads { rows, threads: threads / 2 },
            Self::Threads { rows, threads: threads * 2 },
            Self::Threads { rows: other, threads },
            Self::Threads { rows: other, threads: threads * 2 },
        ])
    }

    fn rows(&self) -> usize {
        let (Self::Threads { rows, .. } | Self::Lanes { rows }) = self;
        *rows
    }
}

/// How the columns of a sample are shared out.
pub struct ColumnSplit {
    tile: ColumnTile,
    /// Parts of a sample.
    pub per_sample: usize,
    /// Columns that a thread takes one after another.
    each: usize,
    /// Planes of a column.
    depth: usize,
    pub choice: Arc<Choice>,
}

impl ColumnSplit {
    /// For an output gradient; `load` says what rides on reading it.
    pub fn choose(layout: &Layout, load: &str, lowering: &Lowering<'_>) -> Result<Self> {
        let [d, h, w] = layout.spatial;
        let shape = format!("{}x{d}x{h}x{w} {}{load}", layout.n, layout.blocks());
        let candidates = ColumnTile::candidates(layout, lowering.caps);
        let (tile, choice) = lowering.choose("depthwise_weight", shape, &candidates)?;
        let [depth, each, per_sample] = match tile {
            ColumnTile::Threads { rows, threads } => {
                threads_of(layout, rows, threads, most_parts(layout, lowering)?)
            }
            ColumnTile::Lanes { rows } => lanes_of(layout, rows, lowering.caps),
        };
        Ok(Self { tile, per_sample, each, depth, choice })
    }

    /// The kernel, of which `key` sets the switches, and the workgroups for so many parts and blocks.
    pub fn key(
        &self,
        key: impl Fn(&'static str) -> KernelKey,
        parts: usize,
        blocks: usize,
    ) -> (KernelKey, usize) {
        let rows = self.tile.rows();
        let tiled = |file| key(file).tile("ROWS", rows as u32).tile("READ", rows as u32 + 2);
        match self.tile {
            ColumnTile::Threads { .. } => {
                let key = tiled("depthwise_weight.wgsl").tile("GRADS", (rows * QUAD) as u32);
                (key, (parts * blocks).div_ceil(WORKGROUP))
            }
            ColumnTile::Lanes { .. } => (tiled("depthwise_weight_lanes.wgsl"), parts * blocks),
        }
    }

    /// Sets what the kernel must know of its columns.
    pub fn params(&self, dispatch: Dispatch, [d, h, w]: [usize; 3]) -> Dispatch {
        match self.tile {
            ColumnTile::Threads { .. } => {
                dispatch.param("quads", w.div_ceil(QUAD)).param("columns", self.each)
            }
            ColumnTile::Lanes { rows } => {
                let lines = h.div_ceil(rows);
                dispatch
                    .param("lines", lines)
                    .param("depth", self.depth)
                    .param("columns", w * lines * d.div_ceil(self.depth))
                    .param("each", self.each)
            }
        }
    }
}

/// Parts of a sample at most, whose partial sums of all samples are bound together.
fn most_parts(layout: &Layout, lowering: &Lowering<'_>) -> Result<usize> {
    let [out] = lowering.outputs()?;
    let bytes = 4 * lowering.graph.info(out).words * layout.n;
    Ok((lowering.caps.max_binding as usize / bytes.max(1)).max(1))
}

/// Planes of a column, columns that one thread takes, and parts of a sample: a thread each.
fn threads_of(layout: &Layout, rows: usize, threads: usize, most: usize) -> [usize; 3] {
    let [d, h, w] = layout.spatial;
    let columns = h.div_ceil(rows) * w.div_ceil(QUAD);
    let wanted = (threads / (layout.blocks() * layout.n)).clamp(1, columns).min(most);
    let each = columns.div_ceil(wanted);
    [d, each, columns.div_ceil(each)]
}

/// Planes of a column, columns that one lane takes, and parts of a sample: a workgroup each.
fn lanes_of(layout: &Layout, rows: usize, caps: &Caps) -> [usize; 3] {
    let [d, h, w] = layout.spatial;
    let blocks = layout.blocks() * layout.n;
    let columns = h.div_ceil(rows) * w;
    let runs = (COLUMNS_A_THREAD * caps.threads()).div_ceil(columns * blocks);
    let depth = d.div_ceil(runs.min(d.div_ceil(LEAST_DEPTH)));
    let units = (columns * d.div_ceil(depth)).div_ceil(LANES);
    let work = PartWork { units, threads: LANES * blocks, most: ONE_PASS / layout.n };
    let [each, parts] = work.split(caps);
    [depth, each, parts]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_all_columns_and_one_pass_sums_them() {
        for spatial in [[1, 1, 1], [5, 7, 5], [13, 1, 1], [40, 56, 40], [128; 3]] {
            for (samples, channels) in [(1, 4), (2, 16), (3, 512), (2000, 4)] {
                let layout = Layout::new(samples, channels, spatial);
                for rows in [1, 2] {
                    let [depth, each, parts] = lanes_of(&layout, rows, &Caps::default());
                    let [d, h, w] = spatial;
                    let columns = w * h.div_ceil(rows) * d.div_ceil(depth);
                    assert!((1..=d).contains(&depth));
                    assert!(LANES * each * parts >= columns);
                    assert!(LANES * each * (parts - 1) < columns);
                    assert!(parts == 1 || parts * samples <= ONE_PASS);
                }
            }
        }
    }

    #[test]
    fn hardware_has_neighbouring_lanes_on_neighbouring_columns() {
        let first = |software| {
            let caps = Caps { software, ..Caps::default() };
            ColumnTile::candidates(&Layout::new(2, 16, [4, 6, 8]), &caps)[0]
        };
        assert_eq!(first(false), ColumnTile::Lanes { rows: 2 });
        assert_eq!(first(true), ColumnTile::Threads { rows: 2, threads: 1024 });
        let fixed = Caps { subgroup_size: 32, ..Caps::default() };
        let of = |spatial| ColumnTile::candidates(&Layout::new(2, 128, spatial), &fixed)[0];
        let firsts = [[4, 4, 4], [16, 16, 8], [32, 32, 32]].map(of);
        assert_eq!(firsts, [1, 2, 4].map(|rows| ColumnTile::Lanes { rows }));
        let caps = Caps { short_kernels: true, ..Caps::default() };
        let short = ColumnTile::candidates(&Layout::new(2, 16, [4, 6, 8]), &caps);
        assert_eq!(short, [ColumnTile::Threads { rows: 1, threads: 16_384 }]);
    }
}
