//! Operations on the voxels of one class of a label map: connected components, holes, binary closing.
//!
//! Each looks only at the bounding box of the class, and none overwrites a voxel of another class.

use super::volume::LabelMap;
use super::voxel_box::VoxelBox;

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
    /// Component of each voxel, D, H, W, W fastest: 0 outside the class, then 1, 2, … by falling size.
    pub ids: Vec<u32>,
    /// Voxels of component 1, 2, …; equal sizes are ordered by their first voxel.
    pub sizes: Vec<usize>,
}

/// The mask of one class, cropped to its bounding box, with an empty margin.
struct ClassMask {
    bounds: VoxelBox,
    margin: usize,
    /// Voxels along D, H, W, the margin among them.
    shape: [usize; 3],
    mask: Vec<bool>,
}

impl ClassMask {
    /// None where no voxel has the class.
    fn new(labels: &LabelMap, class: u8, margin: usize) -> Option<Self> {
        let voxels = labels.as_slice();
        let bounds = VoxelBox::around(labels.shape(), |index| voxels[index] == class)?;
        let shape = bounds.shape().map(|extent| extent + 2 * margin);
        let mask = vec![false; shape.iter().product()];
        let mut cropped = Self { bounds, margin, shape, mask };
        for (row, local) in bounds.rows(labels.shape()).zip(cropped.rows()) {
            let inside = voxels[row].iter().map(|voxel| *voxel == class);
            cropped.mask[local].iter_mut().zip(inside).for_each(|(mask, inside)| *mask = inside);
        }
        Some(cropped)
    }

    /// The rows of the bounding box, as ranges of indices in the mask.
    fn rows(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let (margin, inner) = (self.margin, self.bounds.shape());
        let high = inner.map(|extent| margin + extent);
        VoxelBox { low: [margin; 3], high }.rows(self.shape)
    }

    /// Calls `change(index in the mask, voxel)` for every voxel of the bounding box.
    fn each(&self, labels: &mut LabelMap, mut change: impl FnMut(usize, &mut u8)) {
        let shape = labels.shape();
        let voxels = labels.as_mut_slice();
        for (row, local) in self.bounds.rows(shape).zip(self.rows()) {
            local.zip(&mut voxels[row]).for_each(|(index, voxel)| change(index, voxel));
        }
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

/// Components of a mask; linear time.
fn label(mask: &[bool], shape: [usize; 3], connectivity: Connectivity) -> Components {
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
fn rank(mut ids: Vec<u32>, mut sets: Sets) -> Components {
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
    Components { ids, sizes }
}

/// Connected components of the voxels that carry `class`.
pub fn components(labels: &LabelMap, class: u8, connectivity: Connectivity) -> Components {
    let mut ids = vec![0; labels.as_slice().len()];
    let Some(cropped) = ClassMask::new(labels, class, 0) else {
        return Components { ids, sizes: Vec::new() };
    };
    let found = label(&cropped.mask, cropped.shape, connectivity);
    for (row, local) in cropped.bounds.rows(labels.shape()).zip(cropped.rows()) {
        ids[row].copy_from_slice(&found.ids[local]);
    }
    Components { ids, sizes: found.sizes }
}

/// Turns every component of `class` but the largest into background.
pub fn keep_largest(labels: &mut LabelMap, class: u8, connectivity: Connectivity) {
    keep(labels, class, connectivity, |_| 1);
}

/// Keeps the largest component of `class`, and the second where it has at least `ratio` of the largest's voxels.
pub fn keep_largest_two(labels: &mut LabelMap, class: u8, connectivity: Connectivity, ratio: f64) {
    keep(labels, class, connectivity, |sizes| match sizes {
        [first, second, ..] if *second as f64 >= ratio * *first as f64 => 2,
        _ => 1,
    });
}

/// Keeps as many of the largest components as `count(sizes)` says.
fn keep(
    labels: &mut LabelMap,
    class: u8,
    connectivity: Connectivity,
    count: impl Fn(&[usize]) -> u32,
) {
    let Some(cropped) = ClassMask::new(labels, class, 0) else { return };
    let Components { ids, sizes } = label(&cropped.mask, cropped.shape, connectivity);
    let kept = count(&sizes);
    cropped.each(labels, |local, voxel| {
        if ids[local] > kept {
            *voxel = 0;
        }
    });
}

/// Gives `class` to the background (label 0) that it encloses: voxels from which no path over faces, outside the class,
/// leads to the volume's edge.
pub fn fill_holes(labels: &mut LabelMap, class: u8) {
    let Some(cropped) = ClassMask::new(labels, class, 1) else { return };
    let outside: Vec<bool> = cropped.mask.iter().map(|inside| !inside).collect();
    let Components { ids, .. } = label(&outside, cropped.shape, Connectivity::Face);
    // The margin makes the first voxel part of the outside.
    cropped.each(labels, |local, voxel| {
        if ids[local] != ids[0] && *voxel == 0 {
            *voxel = class;
        }
    });
}

/// Binary closing: `iterations` dilations over neighbours, then as many erosions, in a volume that goes on as background
/// beyond its edges. Only background becomes `class`, and no voxel of `class` is lost.
pub fn close(labels: &mut LabelMap, class: u8, iterations: usize, neighbours: Connectivity) {
    let Some(mut cropped) = ClassMask::new(labels, class, iterations + 1) else { return };
    for step in 0..2 * iterations {
        cropped.mask = spread(&cropped.mask, cropped.shape, step < iterations, neighbours);
    }
    cropped.each(labels, |local, voxel| {
        if cropped.mask[local] && *voxel == 0 {
            *voxel = class;
        }
    });
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

#[cfg(test)]
mod tests {
    use super::super::grid::Grid;
    use super::*;
    use rand::{RngExt, SeedableRng};

    fn map(shape: [usize; 3], labels: Vec<u8>) -> LabelMap {
        LabelMap::from_vec(labels, Grid::ras(shape, [1.0; 3])).unwrap()
    }

    fn empty(shape: [usize; 3]) -> LabelMap {
        map(shape, vec![0; shape.iter().product()])
    }

    /// Sets a box of voxels `[low, high)` to `class`.
    fn fill(labels: &mut LabelMap, low: [usize; 3], high: [usize; 3], class: u8) {
        let rows = VoxelBox { low, high }.rows(labels.shape());
        rows.for_each(|row| labels.as_mut_slice()[row].fill(class));
    }

    fn count(labels: &LabelMap, class: u8) -> usize {
        labels.as_slice().iter().filter(|label| **label == class).count()
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
            let labels = (0..7 * 9 * 11).map(|_| u8::from(rng.random::<f64>() < density)).collect();
            let labels = map(shape, labels);
            let kinds = [Connectivity::Face, Connectivity::Edge, Connectivity::Full];
            for (connectivity, reach) in kinds.into_iter().zip(1..) {
                let found = components(&labels, 1, connectivity);
                assert_eq!(found.sizes, flooded_sizes(labels.as_slice(), shape, reach));
                for (id, size) in found.sizes.iter().enumerate() {
                    let count = found.ids.iter().filter(|&&i| i == id as u32 + 1).count();
                    assert_eq!(count, *size);
                }
            }
        }
    }

    #[test]
    fn touching_corners_join_only_with_full_connectivity() {
        let labels = map([2, 2, 2], vec![1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(components(&labels, 1, Connectivity::Face).sizes, [1, 1]);
        assert_eq!(components(&labels, 1, Connectivity::Full).sizes, [2]);
    }

    #[test]
    fn largest_and_second_are_kept_by_ratio() {
        let mut labels = empty([4, 4, 20]);
        fill(&mut labels, [0, 0, 0], [4, 4, 5], 1); // 80 voxels
        fill(&mut labels, [0, 0, 7], [2, 2, 9], 1); // 8 voxels, exactly a tenth
        fill(&mut labels, [0, 0, 11], [1, 1, 13], 1); // 2 voxels
        fill(&mut labels, [3, 3, 15], [4, 4, 16], 2); // another class
        let mut two = labels.clone();
        keep_largest_two(&mut two, 1, Connectivity::Full, 0.1);
        assert_eq!(count(&two, 1), 88);
        let mut strict = labels.clone();
        keep_largest_two(&mut strict, 1, Connectivity::Full, 0.11);
        assert_eq!(count(&strict, 1), 80);
        keep_largest(&mut labels, 1, Connectivity::Face);
        assert_eq!(labels, strict);
        assert_eq!(count(&labels, 2), 1);
    }

    #[test]
    fn holes_are_filled_but_cavities_open_to_the_edge_and_other_classes_stay() {
        let mut labels = empty([5, 5, 5]);
        fill(&mut labels, [0, 0, 0], [5, 5, 5], 1);
        fill(&mut labels, [2, 2, 2], [3, 3, 3], 0);
        fill(&mut labels, [2, 2, 3], [3, 3, 4], 2);
        let mut open = labels.clone();
        fill_holes(&mut labels, 1);
        assert_eq!(labels.data()[[2, 2, 2]], 1);
        assert_eq!(labels.data()[[2, 2, 3]], 2);
        fill(&mut open, [0, 2, 2], [2, 3, 3], 0);
        let before = open.clone();
        fill_holes(&mut open, 1);
        assert_eq!(open, before);
    }

    #[test]
    fn closing_bridges_a_gap_and_keeps_the_rest() {
        // Two thick bars, one voxel apart, and a third, four voxels away.
        let mut labels = empty([5, 5, 14]);
        fill(&mut labels, [0, 0, 0], [5, 5, 3], 1);
        fill(&mut labels, [0, 0, 4], [5, 5, 7], 1);
        fill(&mut labels, [0, 0, 11], [5, 5, 14], 1);
        fill(&mut labels, [2, 2, 3], [3, 3, 4], 2);
        let before = labels.clone();
        close(&mut labels, 1, 1, Connectivity::Face);
        let (labels, before) = (labels.as_slice(), before.as_slice());
        // The gap fills but for its rim, whose neighbours lie in the open, and for the other class.
        let bridged: Vec<usize> = (0..350).filter(|&i| labels[i] != before[i]).collect();
        assert_eq!(bridged.len(), 3 * 3 - 1);
        assert!(bridged.iter().all(|i| i % 14 == 3 && labels[*i] == 1));
        let mut cube = empty([5, 5, 5]);
        fill(&mut cube, [0, 1, 1], [3, 4, 4], 1);
        let mut closed = cube.clone();
        close(&mut closed, 1, 2, Connectivity::Face);
        fill_holes(&mut closed, 1);
        keep_largest(&mut closed, 1, Connectivity::Full);
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
            let mut labels = map(shape, labels.clone());
            close(&mut labels, 1, 1, neighbours);
            labels
        });
        for (closed, reach) in closed.iter().zip(1..) {
            let expected = closed_by_definition(&labels, shape, reach);
            assert_eq!(closed.as_slice(), expected, "reach {reach}");
        }
        assert!(closed[0] != closed[1] && closed[1] != closed[2]);
    }

    #[test]
    fn absent_classes_change_nothing() {
        let mut labels = empty([2, 2, 2]);
        keep_largest(&mut labels, 3, Connectivity::Full);
        keep_largest_two(&mut labels, 3, Connectivity::Full, 0.1);
        fill_holes(&mut labels, 3);
        close(&mut labels, 3, 1, Connectivity::Edge);
        assert_eq!(labels, empty([2, 2, 2]));
        assert!(components(&labels, 1, Connectivity::Face).sizes.is_empty());
    }
}
