//! Clean-up of predicted label maps: connected components, holes, binary closing.
//!
//! Each function works on one class of a label volume in D,H,W order, looks only at the bounding box of that
//! class, and never overwrites a voxel of another class.

pub use crate::domain::{CleanUp, Step};
use crate::{Error, Result};

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
    fn reach(self) -> isize {
        match self {
            Self::Face => 1,
            Self::Edge => 2,
            Self::Full => 3,
        }
    }
}

/// Connected components of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Components {
    /// Component of each voxel of the volume (D,H,W): 0 outside the class, then 1, 2, … by falling size.
    pub ids: Vec<u32>,
    /// Voxels of component 1, 2, …; equal sizes are ordered by their first voxel.
    pub sizes: Vec<usize>,
}

/// Checks that a D,H,W volume has `shape`'s voxel count.
pub(crate) fn check_len(op: &str, name: &str, len: usize, shape: [usize; 3]) -> Result<()> {
    let voxels = shape.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis));
    if voxels == Some(len) {
        return Ok(());
    }
    let [d, h, w] = shape;
    Err(Error::shape(op, format!("{name} has {len} voxels; its shape {d}x{h}x{w} does not")))
}

/// A half-open box `[low, high)` of voxels, D,H,W.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub low: [usize; 3],
    pub high: [usize; 3],
}

impl Bounds {
    /// The smallest box that holds every voxel for which `inside(index)` is true; `None` where there is none.
    pub fn of(shape: [usize; 3], inside: impl Fn(usize) -> bool) -> Option<Self> {
        let mut bounds: Option<Self> = None;
        for z in 0..shape[0] {
            for y in 0..shape[1] {
                let row = (z * shape[1] + y) * shape[2];
                let Some(first) = (0..shape[2]).find(|x| inside(row + x)) else { continue };
                let last = (first..shape[2]).rev().find(|x| inside(row + x)).unwrap_or(first);
                let grown = bounds.get_or_insert(Self { low: [z, y, first], high: [z, y, last] });
                for (axis, (low, high)) in [(z, z), (y, y), (first, last)].into_iter().enumerate() {
                    grown.low[axis] = grown.low[axis].min(low);
                    grown.high[axis] = grown.high[axis].max(high + 1);
                }
            }
        }
        bounds
    }

    /// Extent of the box.
    pub fn shape(&self) -> [usize; 3] {
        [0, 1, 2].map(|axis| self.high[axis] - self.low[axis])
    }

    /// Calls `visit(index in the box padded by pad, index in the volume)` for every voxel of the box.
    pub fn each(&self, shape: [usize; 3], pad: usize, mut visit: impl FnMut(usize, usize)) {
        let inner = self.shape();
        let [_, h, w] = inner.map(|extent| extent + 2 * pad);
        for z in 0..inner[0] {
            for y in 0..inner[1] {
                let local = ((z + pad) * h + y + pad) * w + pad;
                let global =
                    ((z + self.low[0]) * shape[1] + y + self.low[1]) * shape[2] + self.low[2];
                for x in 0..inner[2] {
                    visit(local + x, global + x);
                }
            }
        }
    }
}

/// The mask of one class cut out of a volume, with an empty margin.
struct Cut {
    bounds: Bounds,
    shape: [usize; 3],
    mask: Vec<bool>,
}

impl Cut {
    fn new(labels: &[u8], shape: [usize; 3], class: u8, pad: usize) -> Option<Self> {
        let bounds = Bounds::of(shape, |index| labels[index] == class)?;
        let padded = bounds.shape().map(|extent| extent + 2 * pad);
        let mut mask = vec![false; padded.iter().product()];
        bounds.each(shape, pad, |local, global| mask[local] = labels[global] == class);
        Some(Self { bounds, shape: padded, mask })
    }
}

/// Steps back from a voxel to the neighbours that come before it in memory, `(dz, dy, dx)`.
fn previous_neighbours(connectivity: Connectivity) -> Vec<[isize; 3]> {
    let mut steps = Vec::with_capacity(13);
    for dz in -1..=0 {
        for dy in -1..=1 {
            for dx in -1..=1 {
                let step: [isize; 3] = [dz, dy, dx];
                let before = step < [0, 0, 0];
                let far = step.iter().map(|s| s.abs()).sum::<isize>();
                if before && far <= connectivity.reach() {
                    steps.push(step);
                }
            }
        }
    }
    steps
}

/// Union-find over provisional ids; the root of a set is its smallest id.
struct Sets(Vec<u32>);

impl Sets {
    fn add(&mut self) -> u32 {
        let id = self.0.len() as u32;
        self.0.push(id);
        id
    }

    fn root(&mut self, mut id: u32) -> u32 {
        while self.0[id as usize] != id {
            let above = self.0[self.0[id as usize] as usize];
            self.0[id as usize] = above;
            id = above;
        }
        id
    }

    fn join(&mut self, a: u32, b: u32) -> u32 {
        let (a, b) = (self.root(a), self.root(b));
        let (low, high) = (a.min(b), a.max(b));
        self.0[high as usize] = low;
        low
    }
}

/// Component ids (1, 2, … by falling size, 0 outside) of a mask and the sizes; linear time.
fn label(mask: &[bool], shape: [usize; 3], connectivity: Connectivity) -> (Vec<u32>, Vec<usize>) {
    let [d, h, w] = shape;
    let steps = previous_neighbours(connectivity);
    let mut sets = Sets(vec![0]);
    let mut ids = vec![0u32; mask.len()];
    for z in 0..d {
        for y in 0..h {
            for x in 0..w {
                let index = (z * h + y) * w + x;
                if !mask[index] {
                    continue;
                }
                let mut id = 0;
                for &[dz, dy, dx] in &steps {
                    let inside = z as isize + dz >= 0
                        && (0..h as isize).contains(&(y as isize + dy))
                        && (0..w as isize).contains(&(x as isize + dx));
                    if !inside {
                        continue;
                    }
                    let back = ((dz * h as isize + dy) * w as isize + dx).unsigned_abs();
                    let other = ids[index - back];
                    if other != 0 && other != id {
                        id = if id == 0 { other } else { sets.join(id, other) };
                    }
                }
                ids[index] = if id == 0 { sets.add() } else { id };
            }
        }
    }
    rank(ids, sets)
}

/// Replaces provisional ids by ranks of falling component size.
fn rank(mut ids: Vec<u32>, mut sets: Sets) -> (Vec<u32>, Vec<usize>) {
    let roots: Vec<u32> = (0..sets.0.len() as u32).map(|id| sets.root(id)).collect();
    let mut counts = vec![0usize; roots.len()];
    for id in &ids {
        counts[roots[*id as usize] as usize] += 1;
    }
    let mut order: Vec<usize> = (1..roots.len()).filter(|&id| counts[id] > 0).collect();
    order.sort_by_key(|&id| std::cmp::Reverse(counts[id]));
    let mut ranks = vec![0u32; roots.len()];
    for (position, &id) in order.iter().enumerate() {
        ranks[id] = position as u32 + 1;
    }
    for id in &mut ids {
        *id = ranks[roots[*id as usize] as usize];
    }
    let sizes = order.iter().map(|&id| counts[id]).collect();
    (ids, sizes)
}

/// Connected components of the voxels that carry `class`.
pub fn components(
    labels: &[u8],
    shape: [usize; 3],
    class: u8,
    connectivity: Connectivity,
) -> Result<Components> {
    check_len("components", "label map", labels.len(), shape)?;
    let mut ids = vec![0; labels.len()];
    let Some(cut) = Cut::new(labels, shape, class, 0) else {
        return Ok(Components { ids, sizes: Vec::new() });
    };
    let (local_ids, sizes) = label(&cut.mask, cut.shape, connectivity);
    cut.bounds.each(shape, 0, |local, global| ids[global] = local_ids[local]);
    Ok(Components { ids, sizes })
}

/// Turns every component of `class` but the largest into background.
pub fn keep_largest(
    labels: &mut [u8],
    shape: [usize; 3],
    class: u8,
    connectivity: Connectivity,
) -> Result<()> {
    keep(labels, shape, class, connectivity, |_| 1)
}

/// Keeps the largest component of `class`, and the second where it has at least `ratio` of the largest's voxels.
pub fn keep_largest_two(
    labels: &mut [u8],
    shape: [usize; 3],
    class: u8,
    connectivity: Connectivity,
    ratio: f64,
) -> Result<()> {
    keep(labels, shape, class, connectivity, |sizes| match sizes {
        [first, second, ..] if *second as f64 >= ratio * *first as f64 => 2,
        _ => 1,
    })
}

/// Keeps as many of the largest components as `count(sizes)` says.
fn keep(
    labels: &mut [u8],
    shape: [usize; 3],
    class: u8,
    connectivity: Connectivity,
    count: impl Fn(&[usize]) -> u32,
) -> Result<()> {
    check_len("keep components", "label map", labels.len(), shape)?;
    let Some(cut) = Cut::new(labels, shape, class, 0) else { return Ok(()) };
    let (ids, sizes) = label(&cut.mask, cut.shape, connectivity);
    let kept = count(&sizes);
    cut.bounds.each(shape, 0, |local, global| {
        if ids[local] > kept {
            labels[global] = 0;
        }
    });
    Ok(())
}

/// Gives `class` to the background (label 0) that it encloses: voxels from which no path over faces, outside the class,
/// leads to the volume's edge.
pub fn fill_holes(labels: &mut [u8], shape: [usize; 3], class: u8) -> Result<()> {
    check_len("fill holes", "label map", labels.len(), shape)?;
    let Some(cut) = Cut::new(labels, shape, class, 1) else { return Ok(()) };
    let outside: Vec<bool> = cut.mask.iter().map(|inside| !inside).collect();
    let (ids, _) = label(&outside, cut.shape, Connectivity::Face);
    // The margin makes the first voxel part of the outside.
    cut.bounds.each(shape, 1, |local, global| {
        if ids[local] != ids[0] && labels[global] == 0 {
            labels[global] = class;
        }
    });
    Ok(())
}

/// Binary closing: `iterations` dilations over neighbours, then as many erosions, in a volume that goes on as background
/// beyond its edges. Only background becomes `class`, and no voxel of `class` is lost.
pub fn close(
    labels: &mut [u8],
    shape: [usize; 3],
    class: u8,
    iterations: usize,
    neighbours: Connectivity,
) -> Result<()> {
    check_len("closing", "label map", labels.len(), shape)?;
    let pad = iterations + 1;
    let Some(Cut { bounds, shape: padded, mut mask }) = Cut::new(labels, shape, class, pad) else {
        return Ok(());
    };
    for step in 0..2 * iterations {
        mask = spread(&mask, padded, step < iterations, neighbours);
    }
    bounds.each(shape, pad, |local, global| {
        if mask[local] && labels[global] == 0 {
            labels[global] = class;
        }
    });
    Ok(())
}

/// Every voxel that has `value`, and its neighbours, get `value`.
fn spread(mask: &[bool], shape: [usize; 3], value: bool, neighbours: Connectivity) -> Vec<bool> {
    let [d, h, w] = shape.map(|n| n as isize);
    let back = previous_neighbours(neighbours);
    let steps: Vec<[isize; 3]> = back.iter().flat_map(|step| [*step, step.map(|s| -s)]).collect();
    let mut result = mask.to_vec();
    for z in 0..d {
        for y in 0..h {
            for x in 0..w {
                let index = (z * h + y) * w + x;
                if mask[index as usize] != value {
                    continue;
                }
                for [dz, dy, dx] in &steps {
                    let inside = (0..d).contains(&(z + dz))
                        && (0..h).contains(&(y + dy))
                        && (0..w).contains(&(x + dx));
                    if inside {
                        result[(index + (dz * h + dy) * w + dx) as usize] = value;
                    }
                }
            }
        }
    }
    result
}

/// Applies a domain's clean-up, class by class.
pub fn clean_up(labels: &mut [u8], shape: [usize; 3], all: &[CleanUp]) -> Result<()> {
    all.iter().try_for_each(|each| apply(labels, shape, each.class, &each.steps))
}

/// Applies steps in order to one class; components use all 26 neighbours.
pub fn apply(labels: &mut [u8], shape: [usize; 3], class: u8, steps: &[Step]) -> Result<()> {
    for step in steps {
        match *step {
            Step::Closing(n) => close(labels, shape, class, n, Connectivity::Face)?,
            Step::ClosingEdges(n) => close(labels, shape, class, n, Connectivity::Edge)?,
            Step::Largest => keep_largest(labels, shape, class, Connectivity::Full)?,
            Step::LargestTwo(ratio) => {
                keep_largest_two(labels, shape, class, Connectivity::Full, ratio)?;
            }
            Step::FillHoles => fill_holes(labels, shape, class)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};

    /// Sets a box of voxels `[low, high)` to `class`.
    fn fill(labels: &mut [u8], shape: [usize; 3], low: [usize; 3], high: [usize; 3], class: u8) {
        Bounds { low, high }.each(shape, 0, |_, global| labels[global] = class);
    }

    /// Components by repeated flooding, for comparison.
    fn flooded_sizes(labels: &[u8], shape: [usize; 3], reach: isize) -> Vec<usize> {
        let [d, h, w] = shape.map(|extent| extent as isize);
        let mut seen = vec![false; labels.len()];
        let mut sizes = Vec::new();
        for start in 0..labels.len() {
            if labels[start] != 1 || seen[start] {
                continue;
            }
            seen[start] = true;
            let (mut stack, mut size) = (vec![start], 0);
            while let Some(index) = stack.pop() {
                size += 1;
                let i = index as isize;
                let (z, y, x) = (i / (h * w), i / w % h, i % w);
                for (dz, dy, dx) in (0..27).map(|n: isize| (n / 9 - 1, n / 3 % 3 - 1, n % 3 - 1)) {
                    let (a, b, c) = (z + dz, y + dy, x + dx);
                    let inside = (0..d).contains(&a) && (0..h).contains(&b) && (0..w).contains(&c);
                    let next = ((a * h + b) * w + c) as usize;
                    if dz.abs() + dy.abs() + dx.abs() <= reach
                        && inside
                        && labels[next] == 1
                        && !seen[next]
                    {
                        seen[next] = true;
                        stack.push(next);
                    }
                }
            }
            sizes.push(size);
        }
        sizes.sort_by_key(|&size| std::cmp::Reverse(size));
        sizes
    }

    #[test]
    fn components_match_flooding_on_random_volumes() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        for density in [0.1, 0.25, 0.4] {
            let shape = [7, 9, 11];
            let labels: Vec<u8> =
                (0..7 * 9 * 11).map(|_| u8::from(rng.random::<f64>() < density)).collect();
            let kinds = [Connectivity::Face, Connectivity::Edge, Connectivity::Full];
            for (connectivity, reach) in kinds.into_iter().zip(1..) {
                let found = components(&labels, shape, 1, connectivity).unwrap();
                assert_eq!(found.sizes, flooded_sizes(&labels, shape, reach));
                for (id, size) in found.sizes.iter().enumerate() {
                    let count = found.ids.iter().filter(|&&i| i == id as u32 + 1).count();
                    assert_eq!(count, *size);
                }
            }
        }
    }

    #[test]
    fn touching_corners_join_only_with_full_connectivity() {
        let shape = [2, 2, 2];
        let labels = [1, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(components(&labels, shape, 1, Connectivity::Face).unwrap().sizes, [1, 1]);
        assert_eq!(components(&labels, shape, 1, Connectivity::Full).unwrap().sizes, [2]);
    }

    #[test]
    fn largest_and_second_are_kept_by_ratio() {
        let shape = [4, 4, 20];
        let mut labels = vec![0; 320];
        fill(&mut labels, shape, [0, 0, 0], [4, 4, 5], 1); // 80 voxels
        fill(&mut labels, shape, [0, 0, 7], [2, 2, 9], 1); // 8 voxels, exactly a tenth
        fill(&mut labels, shape, [0, 0, 11], [1, 1, 13], 1); // 2 voxels
        fill(&mut labels, shape, [3, 3, 15], [4, 4, 16], 2); // another class
        let mut two = labels.clone();
        keep_largest_two(&mut two, shape, 1, Connectivity::Full, 0.1).unwrap();
        assert_eq!(two.iter().filter(|&&l| l == 1).count(), 88);
        let mut strict = labels.clone();
        keep_largest_two(&mut strict, shape, 1, Connectivity::Full, 0.11).unwrap();
        assert_eq!(strict.iter().filter(|&&l| l == 1).count(), 80);
        keep_largest(&mut labels, shape, 1, Connectivity::Face).unwrap();
        assert_eq!(labels, strict);
        assert_eq!(labels.iter().filter(|&&l| l == 2).count(), 1);
    }

    #[test]
    fn holes_are_filled_but_cavities_open_to_the_edge_and_other_classes_stay() {
        let shape = [5, 5, 5];
        let mut labels = vec![0; 125];
        fill(&mut labels, shape, [0, 0, 0], [5, 5, 5], 1);
        fill(&mut labels, shape, [2, 2, 2], [3, 3, 3], 0);
        fill(&mut labels, shape, [2, 2, 3], [3, 3, 4], 2);
        let mut open = labels.clone();
        fill_holes(&mut labels, shape, 1).unwrap();
        assert_eq!(labels[2 * 25 + 2 * 5 + 2], 1);
        assert_eq!(labels[2 * 25 + 2 * 5 + 3], 2);
        fill(&mut open, shape, [0, 2, 2], [2, 3, 3], 0);
        let before = open.clone();
        fill_holes(&mut open, shape, 1).unwrap();
        assert_eq!(open, before);
    }

    #[test]
    fn closing_bridges_a_gap_and_keeps_the_rest() {
        // Two thick bars, one voxel apart, and a third, four voxels away.
        let shape = [5, 5, 14];
        let mut labels = vec![0; 350];
        fill(&mut labels, shape, [0, 0, 0], [5, 5, 3], 1);
        fill(&mut labels, shape, [0, 0, 4], [5, 5, 7], 1);
        fill(&mut labels, shape, [0, 0, 11], [5, 5, 14], 1);
        labels[2 * 70 + 2 * 14 + 3] = 2;
        let before = labels.clone();
        close(&mut labels, shape, 1, 1, Connectivity::Face).unwrap();
        // The gap fills but for its rim, whose neighbours lie in the open, and for the other class.
        let bridged: Vec<usize> = (0..350).filter(|&i| labels[i] != before[i]).collect();
        assert_eq!(bridged.len(), 3 * 3 - 1);
        assert!(bridged.iter().all(|i| i % 14 == 3 && labels[*i] == 1));
        let cube = {
            let mut cube = vec![0; 125];
            fill(&mut cube, [5, 5, 5], [0, 1, 1], [3, 4, 4], 1);
            cube
        };
        let mut closed = cube.clone();
        apply(&mut closed, [5, 5, 5], 1, &[Step::Closing(2), Step::FillHoles, Step::Largest])
            .unwrap();
        assert_eq!(closed, cube);
    }

    /// Closing by its definition, in a volume with a margin of background.
    fn closed_by_definition(labels: &[u8], shape: [usize; 3], reach: isize) -> Vec<u8> {
        const PAD: isize = 2;
        let [d, h, w] = shape.map(|n| n as isize);
        let inside = |[z, y, x]: [isize; 3]| {
            (0..d).contains(&z) && (0..h).contains(&y) && (0..w).contains(&x)
        };
        let at = |[z, y, x]: [isize; 3]| labels[((z * h + y) * w + x) as usize] == 1;
        let around = |[z, y, x]: [isize; 3]| {
            let steps = (0..27).map(|n: isize| [n / 9 - 1, n / 3 % 3 - 1, n % 3 - 1]);
            let near = steps.filter(move |s| s.iter().map(|v| v.abs()).sum::<isize>() <= reach);
            near.map(move |[a, b, c]| [z + a, y + b, x + c])
        };
        let dilated = |p: [isize; 3]| around(p).any(|q| inside(q) && at(q));
        let in_margin = |p: [isize; 3]| {
            let low = p.iter().all(|v| *v >= -PAD);
            low && p[0] < d + PAD && p[1] < h + PAD && p[2] < w + PAD
        };
        let mut closed = Vec::new();
        for index in 0..d * h * w {
            let p = [index / (h * w), index / w % h, index % w];
            closed.push(u8::from(around(p).all(|q| in_margin(q) && dilated(q))));
        }
        closed
    }

    #[test]
    fn closing_is_what_its_definition_says_for_all_neighbours() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let shape = [6, 8, 7];
        let labels: Vec<u8> = (0..336).map(|_| u8::from(rng.random::<f64>() < 0.2)).collect();
        let kinds = [Connectivity::Face, Connectivity::Edge, Connectivity::Full];
        let closed = kinds.map(|neighbours| {
            let mut labels = labels.clone();
            close(&mut labels, shape, 1, 1, neighbours).unwrap();
            labels
        });
        for (closed, reach) in closed.iter().zip(1..) {
            assert_eq!(*closed, closed_by_definition(&labels, shape, reach), "reach {reach}");
        }
        assert!(closed[0] != closed[1] && closed[1] != closed[2]);
    }

    #[test]
    fn empty_classes_and_wrong_lengths_are_handled() {
        let mut labels = vec![0; 8];
        apply(&mut labels, [2, 2, 2], 3, &[Step::Largest, Step::LargestTwo(0.1)]).unwrap();
        assert!(components(&labels, [2, 2, 2], 1, Connectivity::Face).unwrap().sizes.is_empty());
        assert!(keep_largest(&mut labels, [2, 2, 3], 1, Connectivity::Face).is_err());
    }
}
