//! How the depthwise kernels share their work out.

use std::fmt::{Display, Formatter};
use std::sync::Arc;

use super::super::common::{FEW_THREADS, WORKGROUP, distinct};
use super::super::subgroup::{fixed, sharing};
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
    /// `depthwise_subgroups.wgsl`: each loads its own columns; `lanes` neighbours of a subgroup of `subgroup` share a line. Where
    /// blocks are `apart`, none has channels of two blocks.
    Shared { subgroup: usize, lanes: usize, apart: bool },
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

/// Outputs along W of a lane of a GPU's subgroup at most, and in a plane: what it sums and its taps fit its registers.
const WIDEST: usize = 5;
const LANE_OUTPUTS: usize = 8;

/// Lanes that share a line where each makes `quad` columns.
fn line_lanes(width: usize, quad: usize, subgroup: usize) -> usize {
    let quads = width.div_ceil(quad);
    match quads > subgroup {
        true => quads.next_multiple_of(subgroup),
        false => quads.next_power_of_two(),
    }
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
        if caps.short_kernels {
            return vec![march(false, 1, 1, depth)];
        }
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
            march(true, 2, 2, depth),
            march(true, 1, rows, depth),
            march(true, QUAD, 1, depth),
        ];
        let few = streamed.into_iter().take(2);
        let shuffled = fixed(caps).map(|subgroup| Self::shuffled(out, outputs, depth, subgroup));
        // a workgroup of one subgroup is small: an adapter of few may not run so many
        let runs = |march: &Self| {
            let groups = march.threads(out.spatial).div_ceil(march.group) * blocks * out.n;
            groups <= (caps.max_groups as usize).pow(2)
        };
        let shuffled = shuffled.into_iter().flatten().filter(runs);
        distinct(shuffled.chain(held).chain(few).collect())
    }

    /// The lanes of a subgroup share lines: on an NVIDIA H200 large tensors take half the time. Columns of a lane are so few that a line
    /// fits a subgroup; where lanes are many, so many that fewest of them idle.
    fn shuffled(out: &Layout, outputs: usize, depth: usize, subgroup: usize) -> Vec<Self> {
        let [d, h, w] = out.spatial;
        let cost = |quad: &usize| {
            let lanes = line_lanes(w, *quad, subgroup);
            match (lanes > subgroup, outputs < BUSY) {
                (false, true) => (false, 0, *quad),
                (false, false) => (false, lanes * quad, *quad),
                // one that takes several loads what lies between them twice
                (true, _) => (true, lanes * quad, WIDEST - quad),
            }
        };
        let mut quads: Vec<usize> = (1..=WIDEST.min(w)).collect();
        quads.sort_by_key(cost);
        let rows = |quad: usize| match quad {
            1 if outputs < 4 * BUSY => 2,
            1 => 4,
            2..=4 => 2,
            _ => 1,
        };
        let march = |quad: usize, rows: usize, depth: usize| Self {
            loads: RowLoads::Shared { subgroup, lanes: line_lanes(w, quad, subgroup), apart: true },
            quad,
            rows: rows.clamp(1, h),
            depth: depth.clamp(1, d),
            group: subgroup,
            held: true,
        };
        let (best, lines) = (quads[0], rows(quads[0]));
        let other = if 2 * best * lines > LANE_OUTPUTS { lines.div_ceil(2) } else { 2 * lines };
        let mut marches = vec![
            march(best, lines, depth),
            march(best, lines, 2 * depth),
            march(best, other, depth),
        ];
        marches.extend(quads.get(1).map(|quad| march(*quad, rows(*quad), depth)));
        marches
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
        let lanes = |quad| line_lanes(w, quad, subgroup);
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
            let loads = RowLoads::Shared { subgroup, lanes, apart: false };
            Self { loads, quad, rows, depth: d.div_ceil(chunks), group: subgroup, held: true }
        };
        tiles.into_iter().map(march).collect()
    }

    /// Threads of a channel block.
    pub fn threads(&self, [d, h, w]: [usize; 3]) -> usize {
        d.div_ceil(self.depth) * h.div_ceil(self.rows) * self.lanes(w)
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
        let threads = self.threads(out.spatial);
        let count = match self.loads {
            RowLoads::Shared { apart: false, .. } => Some(threads),
            RowLoads::Shared { .. } => Some(threads.div_ceil(self.group)),
            RowLoads::Own => (!caps.software).then(|| threads.div_ceil(self.group)),
        };
        count.map(|count| MomentParts { count, voxels: None })
    }

    /// The kernel with its tile; `switched` sets the switches, which both files have.
    pub fn key(&self, caps: &Caps, switched: impl Fn(&'static str) -> KernelKey) -> KernelKey {
        let tiled = |file| {
            switched(file)
                .tile("ROWS", self.rows as u32)
                .tile("READ", self.rows as u32 + 2)
                .tile("OUTS", (self.rows * self.quad) as u32)
                .tile("QUAD", self.quad as u32)
                .tile("ROW", self.quad as u32 + 2)
        };
        match self.loads {
            RowLoads::Own if self.held && caps.software => {
                tiled("depthwise.wgsl").group(self.group)
            }
            RowLoads::Own if self.held => tiled("depthwise.wgsl").group(self.group).set("AHEAD", 1),
            RowLoads::Own => tiled("depthwise.wgsl").group(self.group).set("HELD", 0),
            RowLoads::Shared { subgroup, lanes, apart } => tiled("depthwise_subgroups.wgsl")
                .set("HALO", u32::from(lanes > subgroup))
                .set("APART", u32::from(apart))
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
                assert_eq!(all.iter().any(shares), subgroup_size > 0);
                let apart = |march: &March| matches!(march.loads, RowLoads::Shared { apart, .. } if apart == software);
                assert!(!all.iter().any(apart));
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
        assert_eq!(first(128, [5, 7, 5]), (1, 2, 1));
        assert_eq!(first(64, [10, 14, 10]), (1, 2, 2));
        assert_eq!(first(32, [20, 28, 20]), (5, 1, 2));
        assert_eq!(first(16, [40, 56, 40]), (5, 1, 4));
        assert_eq!(first(64, [32; 3]), (1, 4, 4));
        assert_eq!(first(32, [64; 3]), (2, 2, 16));
        assert_eq!(first(16, [128; 3]), (4, 2, 16));
        let caps = Caps { short_kernels: true, subgroup_size: 4, ..Caps::default() };
        let all = March::all(&Layout::new(2, 16, [40, 56, 40]), 4, &caps);
        assert!(matches!(all[..], [March { quad: 1, rows: 1, held: false, .. }]));
        // too few registers to hold taps
        let all = March::all(&Layout::new(2, 16, [40, 56, 40]), 4, &Caps::default());
        assert!(all.iter().all(|march| !march.held));
    }

    #[test]
    fn a_line_that_fits_a_subgroup_has_no_halo() {
        let caps = Caps { software: true, subgroup_size: 8, ..Caps::default() };
        let first = |spatial| March::all(&Layout::new(2, 16, spatial), 4, &caps)[0];
        let own = |march: March| (march.loads, march.quad, march.rows);
        let shared = |lanes| RowLoads::Shared { subgroup: 8, lanes, apart: false };
        assert_eq!(own(first([40, 56, 40])), (shared(8), 5, 3));
        assert_eq!(own(first([10, 14, 10])), (shared(2), 5, 3));
        assert_eq!(own(first([128, 128, 128])).0, shared(32));
    }
}
