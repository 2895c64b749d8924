//! Voxels of a mask as runs along W, and which of them hang together.

use rayon::prelude::*;

/// Which voxels count as neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connectivity {
    /// The six voxels that share a face.
    Face,
    /// The 18 voxels that share a face or an edge.
    Edge,
    /// All 26 voxels that share a face, an edge or a corner.
    Full,
}

impl Connectivity {
    /// Axes along which a neighbour may differ.
    pub(super) fn reach(self) -> usize {
        match self {
            Self::Face => 1,
            Self::Edge => 2,
            Self::Full => 3,
        }
    }
}

/// Voxels of a row that follow one another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub start: u32,
    /// One past the last voxel.
    pub end: u32,
}

/// All runs of a mask, row by row.
pub(super) struct Runs {
    /// Voxels along D, H, W.
    shape: [usize; 3],
    runs: Vec<Run>,
    /// Where each row's runs begin, and where the last row's end.
    starts: Vec<usize>,
}

impl Runs {
    /// Of a mask of D, H, W voxels, whose rows `fill(z, y, row)` appends.
    pub(super) fn new(
        shape: [usize; 3],
        fill: impl Fn(usize, usize, &mut Vec<bool>) + Sync,
    ) -> Self {
        let plane = |z: usize| {
            let (mut runs, mut counts, mut row) = (Vec::new(), Vec::new(), Vec::new());
            for y in 0..shape[1] {
                row.clear();
                fill(z, y, &mut row);
                let before = runs.len();
                let mut at = 0;
                for same in row.chunk_by(|a, b| a == b) {
                    let end = at + same.len() as u32;
                    if same[0] {
                        runs.push(Run { start: at, end });
                    }
                    at = end;
                }
                counts.push(runs.len() - before);
            }
            (runs, counts)
        };
        let planes: Vec<_> = (0..shape[0]).into_par_iter().map(plane).collect();
        let mut all = Vec::with_capacity(planes.iter().map(|(runs, _)| runs.len()).sum());
        let mut starts = vec![0];
        let mut end = 0;
        for (runs, counts) in planes {
            all.extend(runs);
            starts.extend(counts.into_iter().map(|count| {
                end += count;
                end
            }));
        }
        Self { shape, runs: all, starts }
    }

    pub(super) fn all(&self) -> &[Run] {
        &self.runs
    }

    fn range(&self, z: usize, y: usize) -> std::ops::Range<usize> {
        let row = z * self.shape[1] + y;
        self.starts[row]..self.starts[row + 1]
    }

    /// The runs of a row, with their indices.
    pub(super) fn row(&self, z: usize, y: usize) -> impl Iterator<Item = (usize, Run)> {
        let range = self.range(z, y);
        range.clone().zip(self.runs[range].iter().copied())
    }
}

/// Sets of runs that hang together; the root of a set is its smallest run.
pub(super) struct Sets<'a> {
    /// The run above each of some runs that follow one another.
    above: &'a mut [u32],
    /// The first of these runs.
    first: u32,
}

/// Planes whose runs a thread joins before they are joined with those of other threads.
const SLAB: usize = 16;

impl Sets<'_> {
    /// The root of each run, where runs of `connectivity` are joined.
    pub(super) fn joined(runs: &Runs, connectivity: Connectivity) -> Vec<u32> {
        let depth = runs.shape[0];
        let mut above: Vec<u32> = (0..runs.runs.len() as u32).collect();
        let mut left = above.as_mut_slice();
        let mut slabs = Vec::new();
        for low in (0..depth).step_by(SLAB) {
            let planes = low..(low + SLAB).min(depth);
            let first = runs.starts[planes.start * runs.shape[1]];
            let end = runs.starts[planes.end * runs.shape[1]];
            let (own, others) = left.split_at_mut(end - first);
            slabs.push((planes, Sets { above: own, first: first as u32 }));
            left = others;
        }
        slabs.into_par_iter().for_each(|(planes, mut sets)| {
            planes.clone().for_each(|z| sets.join_plane(runs, connectivity, z, z > planes.start));
        });
        let mut all = Sets { above: &mut above, first: 0 };
        for z in (SLAB..depth).step_by(SLAB) {
            all.join_planes(runs, connectivity, z);
        }
        // roots come before what hangs on them
        for run in 0..above.len() {
            above[run] = above[above[run] as usize];
        }
        above
    }

    /// Joins the runs of a plane with one another, and with those of the plane before.
    fn join_plane(&mut self, runs: &Runs, connectivity: Connectivity, z: usize, before: bool) {
        for y in 1..runs.shape[1] {
            let wide = connectivity.reach() > 1;
            self.join_rows(runs, [z, y - 1], [z, y], wide);
        }
        if before {
            self.join_planes(runs, connectivity, z);
        }
    }

    /// Joins the runs of a plane with those of the plane before.
    fn join_planes(&mut self, runs: &Runs, connectivity: Connectivity, z: usize) {
        let reach = connectivity.reach();
        for y in 0..runs.shape[1] {
            self.join_rows(runs, [z - 1, y], [z, y], reach > 1);
            if reach > 1 && y > 0 {
                self.join_rows(runs, [z - 1, y - 1], [z, y], reach > 2);
            }
            if reach > 1 && y + 1 < runs.shape[1] {
                self.join_rows(runs, [z - 1, y + 1], [z, y], reach > 2);
            }
        }
    }

    /// Joins the runs of two rows that overlap or, where `wide`, that touch with a corner.
    fn join_rows(&mut self, runs: &Runs, a: [usize; 2], b: [usize; 2], wide: bool) {
        let slack = u32::from(wide);
        let (a, b) = (runs.range(a[0], a[1]), runs.range(b[0], b[1]));
        let (mut i, mut j) = (a.start, b.start);
        while i < a.end && j < b.end {
            let (one, other) = (runs.runs[i], runs.runs[j]);
            if one.start < other.end + slack && other.start < one.end + slack {
                self.join(i as u32, j as u32);
            }
            if one.end < other.end { i += 1 } else { j += 1 }
        }
    }

    fn root(&mut self, run: u32) -> u32 {
        let mut id = run;
        loop {
            let above = self.above[(id - self.first) as usize];
            if above == id {
                return id;
            }
            let next = self.above[(above - self.first) as usize];
            self.above[(id - self.first) as usize] = next;
            id = next;
        }
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        let (low, high) = (a.min(b), a.max(b));
        self.above[(high - self.first) as usize] = low;
    }
}
