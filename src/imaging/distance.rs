//! Exact Euclidean distances (Felzenszwalb and Huttenlocher, 2012): of all voxels of a small volume, and of the surface of one
//! mask to that of another, however large both are.

use rayon::prelude::*;

use super::surface::{Columns, Mask, UNSEEN};

/// Exact squared Euclidean distance (mm²) of every voxel of a D, H, W volume to the nearest `true` voxel; infinite where
/// there is none. Linear time.
pub fn squared_distances(mask: &[bool], shape: [usize; 3], spacing: [f64; 3]) -> Vec<f64> {
    let [_, h, w] = shape;
    let mut field: Vec<f64> = mask.iter().map(|on| if *on { 0.0 } else { f64::INFINITY }).collect();
    let strides = [h * w, w, 1];
    for axis in [2, 1, 0] {
        let (extent, stride) = (shape[axis], strides[axis]);
        let mut envelope = Envelope::new(spacing[axis]);
        for start in (0..field.len()).filter(|i| i / stride % extent == 0) {
            envelope.clear();
            for at in 0..extent {
                envelope.push(at, field[start + at * stride]);
            }
            envelope.each(0..extent, |at, value| field[start + at * stride] = value);
        }
    }
    field
}

/// Distances in mm of the surface voxels of one mask to the nearest ones of another, and what `each` makes of those of a plane
/// (in the order of its voxels), plane by plane along D. Infinite where the other mask has no surface.
///
/// Linear in the voxels at worst; of masks that fill little of the volume, in the planes times the columns that they touch. The
/// memory is that of the other surface's voxels and a plane.
pub fn distances<T: Send>(
    from: &Mask<'_>,
    to: &Columns,
    spacing: [f64; 3],
    each: impl Fn(&[f64]) -> T + Sync,
) -> Vec<T> {
    let depth = from.shape()[0];
    let slabs = (0..depth.div_ceil(SLAB)).into_par_iter();
    let slab = |slab: usize| -> Vec<T> {
        let mut search = Search::new(spacing, from.shape());
        let planes = slab * SLAB..((slab + 1) * SLAB).min(depth);
        planes.map(|depth| each(search.plane(from, to, depth))).collect()
    };
    slabs.map(slab).collect::<Vec<_>>().into_iter().flatten().collect()
}

/// Planes that a thread measures one after another.
const SLAB: usize = 16;

/// What is needed to measure planes that follow one another.
struct Search {
    /// Squared edge along D.
    depth_weight: f64,
    along_h: Envelope,
    along_w: Envelope,
    /// Rows with voxels to measure, and those voxels' places along W.
    rows: Vec<(usize, Vec<usize>)>,
    /// Of each of these rows, the squared distance within the same W.
    field: Vec<f64>,
    found: Vec<f64>,
    /// Of each column, where the plane before led. Only planes with voxels to measure are looked at.
    seen: Vec<u32>,
    last: Option<usize>,
}

impl Search {
    fn new(spacing: [f64; 3], [_, h, w]: [usize; 3]) -> Self {
        Self {
            depth_weight: spacing[0] * spacing[0],
            along_h: Envelope::new(spacing[1]),
            along_w: Envelope::new(spacing[2]),
            rows: Vec::new(),
            field: Vec::new(),
            found: Vec::new(),
            seen: vec![UNSEEN; h * w],
            last: None,
        }
    }

    fn plane(&mut self, from: &Mask<'_>, to: &Columns, depth: usize) -> &[f64] {
        let [_, h, w] = from.shape();
        self.found.clear();
        self.rows.clear();
        let surface = from.surface_rows(depth, 0..h);
        self.rows.extend(surface.filter(|(_, places)| !places.is_empty()));
        if self.rows.is_empty() {
            return &self.found;
        }
        if self.last.is_none_or(|last| last + 1 < depth) {
            self.seen.fill(UNSEEN);
        }
        self.last = Some(depth);
        // rows of a power of two would share a few lines of the cache
        let stride = w + 9;
        self.field.clear();
        self.field.resize(self.rows.len() * stride, f64::INFINITY);
        for x in to.places() {
            self.along_h.clear();
            for y in to.rows() {
                if let Some(steps) = to.nearest([depth, y, x], &mut self.seen[y * w + x]) {
                    let steps = steps as f64;
                    self.along_h.push(y, self.depth_weight * steps * steps);
                }
            }
            let (rows, field) = (self.rows.iter().map(|(y, _)| *y), &mut self.field);
            let mut row = 0;
            self.along_h.each(rows, |_, value| {
                field[row * stride + x] = value;
                row += 1;
            });
        }
        for ((_, places), values) in self.rows.iter().zip(self.field.chunks(stride)) {
            self.along_w.clear();
            to.places().for_each(|x| self.along_w.push(x, values[x]));
            let found = &mut self.found;
            self.along_w.each(places.iter().copied(), |_, value| found.push(value.sqrt()));
        }
        &self.found
    }
}

/// The lower envelope of the parabolas `value + weight (p − q)²` of a line.
struct Envelope {
    /// Squared spacing.
    weight: f64,
    parabolas: Vec<Parabola>,
}

struct Parabola {
    /// Where its lowest point is.
    q: usize,
    value: f64,
    /// Where it takes over from the one before.
    border: f64,
}

impl Envelope {
    fn new(spacing: f64) -> Self {
        Self { weight: spacing * spacing, parabolas: Vec::new() }
    }

    fn clear(&mut self) {
        self.parabolas.clear();
    }

    /// The parabola at `q`, larger than those before; infinite ones are none.
    fn push(&mut self, q: usize, value: f64) {
        if value.is_infinite() {
            return;
        }
        let mut border = f64::NEG_INFINITY;
        while let Some(last) = self.parabolas.last() {
            let rise = (value - last.value) / self.weight;
            let (a, b) = (last.q as f64, q as f64);
            border = (rise + b * b - a * a) / (2.0 * (b - a));
            if border > last.border {
                break;
            }
            self.parabolas.pop();
            border = f64::NEG_INFINITY;
        }
        self.parabolas.push(Parabola { q, value, border });
    }

    /// Calls `store(p, envelope at p)` for each `p`, which rise.
    fn each(&self, places: impl Iterator<Item = usize>, mut store: impl FnMut(usize, f64)) {
        let mut current = 0;
        for p in places {
            while self.parabolas.get(current + 1).is_some_and(|next| next.border < p as f64) {
                current += 1;
            }
            let value = self.parabolas.get(current).map_or(f64::INFINITY, |parabola| {
                let offset = p as f64 - parabola.q as f64;
                parabola.value + self.weight * offset * offset
            });
            store(p, value);
        }
    }
}
