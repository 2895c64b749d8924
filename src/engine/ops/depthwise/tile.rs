//! How the depthwise kernels share their work out.

use std::fmt::{Display, Formatter};
use std::sync::Arc;

use super::super::common::{FEW_THREADS, WORKGROUP, distinct};
use super::super::subgroup::sharing;
use crate::base::Result;
use crate::engine::graph::{Caps, Layout, Lowering, MomentParts};
use crate::engine::shader::{Choice, KernelKey};

/// Taps of a channel.
pub const TAPS: usize = 27;

/// Outputs along W that a thread makes where neighbours' loads cost the same wherever they lie.
pub const QUAD: usize = 4;

/// Threads that keep a large GPU busy with what each of them loads.
const BUSY: usize = 65_536;

/// Planes that a thread makes at most, where threads are many.
const DEPTH: usize = 16;

/// Lines along H that a thread makes: two where loads are dear, so that four lines read serve two.
pub fn usual_rows(h: usize, caps: &Caps) -> usize {
    if caps.threads() < FEW_THREADS && h > 1 { 2 } else { 1 }
}

/// Where a thread's neighbours along W take what lies between them from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowLoads {
    /// `depthwise.wgsl`: each thread loads all that it reads.
    Own,
    /// `depthwise_subgroups.wgsl`: each loads its own columns; `lanes` neighbours of a subgroup of `subgroup` share a line.
    Shared { subgroup: usize, lanes: usize },
}

/// A thread's outputs along W and H and planes along D, and invocations of its workgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct March {
    pub loads: RowLoads,
    pub quad: usize,
    pub rows: usize,
    pub depth: usize,
    pub group: usize,
    /// Whether a thread keeps its taps in registers, or reads them where it needs them, as all of its workgroup do.
    pub held: bool,
}

impl Display for March {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let Self { loads, quad, rows, depth, group, held } = self;
        match loads {
            RowLoads::Own => {
                // a quad that is held goes without a name
                if *quad != QUAD || !held {
                    write!(f, "QUAD={quad} ")?;
                }
                write!(f, "ROWS={rows} depth={depth} WG={group}")?;
                f.write_str(if *held { "" } else { " streamed" })
            }
            RowLoads::Shared { .. } => write!(f, "shared QUAD={quad} ROWS={rows} depth={depth}"),
        }
    }
}

/// Whether an adapter's threads can hold 27 taps. Where subgroups vary in size (AMD, Intel), what a workgroup shares goes to scalar
/// registers, which are too few: on AMD they spill. Where all have one size (NVIDIA, Apple), each thread has registers enough:
/// on an NVIDIA H200 taps that are read in each plane made small tensors take 1.3 times as long.
fn holds_taps(caps: &Caps) -> bool {
    caps.subgroup_size > 0
}

/// Outputs in a plane that a thread of `depthwise_subgroups.wgsl` makes at most: its code still fits the caches.
const SHARED_OUTPUTS: usize = 15;

impl March {
    /// For `blocks` channel blocks of an output; `load` says what rides on the kernel.
    pub fn choose(
        out: &Layout,
        blocks: usize,
        load: &str,
        lowering: &Lowering<'_>,
    ) -> Result<(Self, Arc<Choice>)> {
        let [d, h, w] = out.spatial;
        let shape = format!("{}x{d}x{h}x{w} {blocks}{load}", out.n);
        lowering.choose("depthwise", shape, &Self::all(out, blocks, lowering.caps))
    }

    /// Those that can pay, the default first.
    fn all(out: &Layout, blocks: usize, caps: &Caps) -> Vec<Self> {
        if !caps.software {
            return Self::coalesced(out, blocks, caps);
        }
        let Some(subgroup) = sharing(caps) else { return Self::own(out, caps) };
        let usual = Self::own(out, caps).into_iter().take(2);
        distinct(Self::shared(out, subgroup, caps).into_iter().chain(usual).collect())
    }

    /// Neighbouring threads make neighbours along W, each some lines and planes: as many as leave threads enough, since loads are
    /// what takes the time.
    fn coalesced(out: &Layout, blocks: usize, caps: &Caps) -> Vec<Self> {
        let [d, h, w] = out.spatial;
        let outputs = out.n * blocks * out.voxels();
        let march = |held, quad: usize, rows: usize, depth: usize| Self {
            loads: RowLoads::Own,
            quad: quad.min(w),
            rows: rows.min(h),
            depth: depth.clamp(1, d),
            group: WORKGROUP,
            held,
        };
        // lines of a thread, and planes at least
        let (rows, least) = match outputs / BUSY {
            // workgroups come before what a thread saves
            0 if outputs < 2 * caps.busy_groups() * WORKGROUP => (1, 1),
            0 => (1, 2),
            1..4 => (2, 2),
            _ => (4, 4),
        };
        let depth = (outputs / (BUSY * rows)).clamp(least, DEPTH);
        let other = if rows == 2 { 4 } else { 2 };
        let streamed = vec![
            march(false, 1, rows, depth),
            march(false, 1, rows, depth.div_ceil(2)),
            march(false, 1, rows, 2 * depth),
            march(false, 1, other, depth),
            march(false, 2, 2, depth),
            march(false, QUAD, 1, depth),
        ];
        if !holds_taps(caps) {
            return distinct(streamed);
        }
        let held = vec![
            march(true, 1, rows, depth),
            march(true, 1, rows, 2 * depth),
            march(true, 1, other, depth),
            march(true, QUAD, 1, depth),
        ];
        let few = streamed.into_iter().take(4);
        distinct(held.into_iter().chain(few).collect())
    }

    /// All planes, unless that leaves an adapter idle.
    fn own(out: &Layout, caps: &Caps) -> Vec<Self> {
        let [d, h, w] = out.spatial;
        let columns = out.n * out.blocks() * h * w.div_ceil(QUAD);
        let chunks = (caps.threads() / columns.max(1)).clamp(1, d.div_ceil(4));
        let depth = d.div_ceil(chunks);
        let rows = usual_rows(h, caps);
        let other = if h > 1 { 3 - rows } else { rows };
        let march = |rows, depth: usize, group| Self {
            loads: RowLoads::Own,
            quad: QUAD,
            rows,
            depth: depth.clamp(1, d),
            group,
            held: true,
        };
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

    /// The tile that loads and computes least, and others of its width.
    fn shared(out: &Layout, subgroup: usize, caps: &Caps) -> Vec<Self> {
        let [d, h, w] = out.spatial;
        let lanes = |quad: usize| {
            let quads = w.div_ceil(quad);
            if quads > subgroup {
                quads.next_multiple_of(subgroup)
            } else {
                quads.next_power_of_two()
            }
        };
        let cost = |(quad, rows): &(usize, usize)| {
            let halo = usize::from(lanes(*quad) > subgroup);
            let each = (quad + halo) * (rows + 2) + quad * rows;
            lanes(*quad) * h.div_ceil(*rows) * each
        };
        let fits = |(quad, rows): &(usize, usize)| quad * rows <= SHARED_OUTPUTS;
        let all = (1..=8).flat_map(|quad| (1..=h.min(3)).map(move |rows| (quad, rows)));
        let mut tiles: Vec<(usize, usize)> = all.filter(fits).collect();
        tiles.sort_by_key(cost);
        let best = tiles.first().map_or(1, |tile| tile.0);
        tiles.retain(|tile| tile.0 == best);
        let march = |(quad, rows): (usize, usize)| {
            let lanes = lanes(quad);
            let threads = out.n * out.blocks() * h.div_ceil(rows) * lanes;
            let chunks = (caps.threads() / threads.max(1)).clamp(1, d.div_ceil(4));
            let loads = RowLoads::Shared { subgroup, lanes };
            Self { loads, quad, rows, depth: d.div_ceil(chunks), group: subgroup, held: true }
        };
        tiles.into_iter().map(march).collect()
    }

    /// Threads along a line.
    pub fn lanes(&self, width: usize) -> usize {
        match self.loads {
            RowLoads::Own => width.div_ceil(self.quad),
            RowLoads::Shared { lanes, .. } => lanes,
        }
    }

    /// Parts of a channel block whose moments the kernel can give along: what each thread or workgroup makes.
    pub fn moment_parts(&self, out: &Layout, caps: &Caps) -> Option<MomentParts> {
        let [d, h, w] = out.spatial;
        let threads = d.div_ceil(self.depth) * h.div_ceil(self.rows) * self.lanes(w);
        let count = match self.loads {
            RowLoads::Shared { .. } => Some(threads),
            RowLoads::Own => (!caps.software).then(|| threads.div_ceil(self.group)),
        };
        count.map(|count| MomentParts { count, voxels: None })
    }

    /// The kernel with its tile; `switched` sets the switches, which both files have.
    pub fn key(&self, switched: impl Fn(&'static str) -> KernelKey) -> KernelKey {
        let tiled = |file| {
            switched(file)
                .tile("ROWS", self.rows as u32)
                .tile("READ", self.rows as u32 + 2)
                .tile("OUTS", (self.rows * self.quad) as u32)
                .tile("QUAD", self.quad as u32)
                .tile("ROW", self.quad as u32 + 2)
        };
        match self.loads {
            RowLoads::Own if self.held => tiled("depthwise.wgsl").group(self.group),
            RowLoads::Own => tiled("depthwise.wgsl").group(self.group).set("HELD", 0),
            RowLoads::Shared { subgroup, lanes } => tiled("depthwise_subgroups.wgsl")
                .set("HALO", u32::from(lanes > subgroup))
                .tile("SUB", subgroup as u32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marches_stay_within_the_volume() {
        for spatial in [[1, 1, 1], [1, 7, 9], [40, 56, 40], [128, 128, 128]] {
            for (software, subgroup_size) in [(false, 8), (true, 0), (true, 8), (true, 16)] {
                let caps = Caps { software, subgroup_size, ..Caps::default() };
                let out = Layout::new(2, 20, spatial);
                let all = March::all(&out, out.blocks(), &caps);
                assert_eq!(distinct(all.clone()).len(), all.len());
                let shares = |march: &March| matches!(march.loads, RowLoads::Shared { .. });
                assert_eq!(all.iter().any(shares), software && subgroup_size > 0);
                for march in all {
                    let March { quad, rows, depth, .. } = march;
                    assert!((1..=spatial[0]).contains(&depth) && rows <= spatial[1]);
                    let lanes = march.lanes(spatial[2]);
                    assert!(lanes * quad >= spatial[2]);
                    assert!(march.held || !software);
                    if shares(&march) {
                        let size = subgroup_size as usize;
                        assert!(size.is_multiple_of(lanes) || lanes.is_multiple_of(size));
                    }
                }
            }
        }
    }

    #[test]
    fn a_gpu_has_threads_enough_for_large_tensors_and_short_walks_for_small_ones() {
        let first = |channels, spatial| {
            let caps = Caps { subgroup_size: 32, ..Caps::default() };
            let out = Layout::new(2, channels, spatial);
            let March { quad, rows, depth, held, .. } = March::all(&out, out.blocks(), &caps)[0];
            assert!(held);
            (quad, rows, depth)
        };
        assert_eq!(first(128, [5, 7, 5]), (1, 1, 1));
        assert_eq!(first(64, [10, 14, 10]), (1, 1, 2));
        assert_eq!(first(32, [20, 28, 20]), (1, 2, 2));
        assert_eq!(first(16, [40, 56, 40]), (1, 4, 4));
        assert_eq!(first(16, [128, 128, 128]), (1, 4, 16));
        // too few registers to hold taps
        let all = March::all(&Layout::new(2, 16, [40, 56, 40]), 4, &Caps::default());
        assert!(all.iter().all(|march| !march.held));
    }

    #[test]
    fn a_line_that_fits_a_subgroup_has_no_halo() {
        let caps = Caps { software: true, subgroup_size: 8, ..Caps::default() };
        let first = |spatial| March::all(&Layout::new(2, 16, spatial), 4, &caps)[0];
        let own = |march: March| (march.loads, march.quad, march.rows);
        let shared = |lanes| RowLoads::Shared { subgroup: 8, lanes };
        assert_eq!(own(first([40, 56, 40])), (shared(8), 5, 3));
        assert_eq!(own(first([10, 14, 10])), (shared(2), 5, 3));
        assert_eq!(own(first([128, 128, 128])).0, shared(32));
    }
}
