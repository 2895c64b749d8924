//! Operations on the voxels of one class of a label map: connected components, holes, binary closing.
//!
//! Each looks only at the bounding box of the class, on all cores, and none overwrites a voxel of another class. Components are
//! made of runs along W, which take less memory than voxels and less time.

use rayon::prelude::*;

pub use super::runs::Connectivity;
use super::runs::{Runs, Sets};
use super::volume::LabelMap;
use super::voxel_box::VoxelBox;

/// Connected components of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Components {
    /// Component of each voxel, D, H, W, W fastest: 0 outside the class, then 1, 2, … by falling size.
    pub ids: Vec<u32>,
    /// Voxels of component 1, 2, …; equal sizes are ordered by their first voxel.
    pub sizes: Vec<usize>,
}

/// The smallest box around a class; none where no voxel has it.
fn bounds(labels: &LabelMap, class: u8) -> Option<VoxelBox> {
    let voxels = labels.as_slice();
    VoxelBox::around(labels.shape(), |index| voxels[index] == class)
}

/// Changes values (D, H, W) run by run: `change(index of the run, its values)`, planes at the same time. Runs are those of a
/// box, grown by a margin that lies outside of the volume's rows.
fn change_runs<T: Send>(
    values: &mut [T],
    shape: [usize; 3],
    bounds: &VoxelBox,
    runs: &Runs,
    change: impl Fn(usize, &mut [T]) + Sync,
) {
    let planes = values.par_chunks_mut(shape[1] * shape[2]).enumerate();
    let planes = planes.skip(bounds.low[0]).take(bounds.shape()[0]);
    planes.for_each(|(z, plane)| {
        for y in bounds.low[1]..bounds.high[1] {
            let row = &mut plane[y * shape[2]..][bounds.low[2]..bounds.high[2]];
            let first = [z - bounds.low[0], y - bounds.low[1]];
            for (index, run) in runs.row(first[0], first[1]) {
                change(index, &mut row[run.start as usize..run.end as usize]);
            }
        }
    });
}

/// The runs of a class in its box.
fn runs_of(labels: &LabelMap, bounds: &VoxelBox, class: u8) -> Runs {
    let (voxels, [_, h, w]) = (labels.as_slice(), labels.shape());
    Runs::new(bounds.shape(), |z, y, row| {
        let start = ((z + bounds.low[0]) * h + y + bounds.low[1]) * w;
        let own = &voxels[start + bounds.low[2]..start + bounds.high[2]];
        row.extend(own.iter().map(|voxel| *voxel == class));
    })
}

/// Ranks of the runs' components by falling size, from 1, and the sizes; equal sizes go by their first run.
fn rank(runs: &Runs, roots: &[u32]) -> (Vec<u32>, Vec<usize>) {
    let mut counts = vec![0usize; roots.len()];
    for (run, root) in runs.all().iter().zip(roots) {
        counts[*root as usize] += (run.end - run.start) as usize;
    }
    let mut order: Vec<usize> = (0..roots.len()).filter(|id| counts[*id] > 0).collect();
    order.sort_by_key(|id| std::cmp::Reverse(counts[*id]));
    let sizes = order.iter().map(|id| counts[*id]).collect();
    let mut ranks = counts.iter().map(|_| 0).collect::<Vec<u32>>();
    for (rank, id) in (1..).zip(&order) {
        ranks[*id] = rank;
    }
    (roots.iter().map(|root| ranks[*root as usize]).collect(), sizes)
}

/// Connected components of the voxels that carry `class`.
pub fn components(labels: &LabelMap, class: u8, connectivity: Connectivity) -> Components {
    let mut ids = vec![0; labels.as_slice().len()];
    let Some(bounds) = bounds(labels, class) else {
        return Components { ids, sizes: Vec::new() };
    };
    let runs = runs_of(labels, &bounds, class);
    let (ranks, sizes) = rank(&runs, &Sets::joined(&runs, connectivity));
    change_runs(&mut ids, labels.shape(), &bounds, &runs, |run, ids| ids.fill(ranks[run]));
    Components { ids, sizes }
}

/// How many connected components the voxels have that carry `class`.
pub fn count_components(labels: &LabelMap, class: u8, connectivity: Connectivity) -> usize {
    let Some(bounds) = bounds(labels, class) else { return 0 };
    let runs = runs_of(labels, &bounds, class);
    rank(&runs, &Sets::joined(&runs, connectivity)).1.len()
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
    let Some(bounds) = bounds(labels, class) else { return };
    let runs = runs_of(labels, &bounds, class);
    let (ranks, sizes) = rank(&runs, &Sets::joined(&runs, connectivity));
    let (kept, shape) = (count(&sizes), labels.shape());
    change_runs(labels.as_mut_slice(), shape, &bounds, &runs, |run, voxels| {
        if ranks[run] > kept {
            voxels.fill(0);
        }
    });
}

/// Gives `class` to the background (label 0) that it encloses: voxels from which no path over faces, outside the class,
/// leads to the volume's edge.
pub fn fill_holes(labels: &mut LabelMap, class: u8) {
    let Some(bounds) = bounds(labels, class) else { return };
    let (voxels, [_, h, w]) = (labels.as_slice(), labels.shape());
    let [depth, height, width] = bounds.shape();
    // all that is not the class, with a margin that joins what is outside
    let runs = Runs::new([depth + 2, height + 2, width + 2], |z, y, row| {
        row.push(true);
        if (1..=depth).contains(&z) && (1..=height).contains(&y) {
            let start = ((z - 1 + bounds.low[0]) * h + y - 1 + bounds.low[1]) * w;
            let own = &voxels[start + bounds.low[2]..start + bounds.high[2]];
            row.extend(own.iter().map(|voxel| *voxel != class));
        } else {
            row.resize(width + 1, true);
        }
        row.push(true);
    });
    let roots = Sets::joined(&runs, Connectivity::Face);
    let planes = labels.as_mut_slice().par_chunks_mut(h * w).enumerate();
    planes.skip(bounds.low[0]).take(depth).for_each(|(z, plane)| {
        for y in 0..height {
            let row = &mut plane[(y + bounds.low[1]) * w + bounds.low[2]..][..width];
            // the first run lies in the margin
            let holes = runs.row(z - bounds.low[0] + 1, y + 1);
            for (_, hole) in holes.filter(|(run, _)| roots[*run] != roots[0]) {
                let hole = &mut row[hole.start as usize - 1..hole.end as usize - 1];
                hole.iter_mut().filter(|voxel| **voxel == 0).for_each(|voxel| *voxel = class);
            }
        }
    });
}

/// Binary closing: `iterations` dilations over neighbours, then as many erosions, in a volume that goes on as background
/// beyond its edges. Only background becomes `class`, and no voxel of `class` is lost.
pub fn close(labels: &mut LabelMap, class: u8, iterations: usize, neighbours: Connectivity) {
    let Some(bounds) = bounds(labels, class) else { return };
    let margin = iterations + 1;
    let shape = bounds.shape().map(|extent| extent + 2 * margin);
    let inner = VoxelBox { low: [margin; 3], high: shape.map(|extent| extent - margin) };
    let mut mask = vec![0u8; shape.iter().product()];
    let voxels = labels.as_slice();
    for (row, local) in bounds.rows(labels.shape()).zip(inner.rows(shape)) {
        let on = voxels[row].iter().map(|voxel| u8::from(*voxel == class));
        mask[local].iter_mut().zip(on).for_each(|(mask, on)| *mask = on);
    }
    let mut next = vec![0; mask.len()];
    for step in 0..2 * iterations {
        spread(&mask, &mut next, shape, step < iterations, neighbours);
        std::mem::swap(&mut mask, &mut next);
    }
    let shape_all = labels.shape();
    let voxels = labels.as_mut_slice();
    for (row, local) in bounds.rows(shape_all).zip(inner.rows(shape)) {
        for (voxel, on) in voxels[row].iter_mut().zip(&mask[local]) {
            if *on == 1 && *voxel == 0 {
                *voxel = class;
            }
        }
    }
}

/// Every voxel that has `value` (1 where it is true, else 0), and its neighbours, get `value`. Planes at the same time.
fn spread(
    mask: &[u8],
    result: &mut [u8],
    shape: [usize; 3],
    value: bool,
    neighbours: Connectivity,
) {
    let [d, h, w] = shape;
    // whichever of them has the value decides
    let join: fn(u8, u8) -> u8 = if value { |a, b| a | b } else { |a, b| a & b };
    result.par_chunks_mut(h * w).enumerate().for_each(|(z, plane)| {
        for (y, own) in plane.chunks_mut(w).enumerate() {
            own.copy_from_slice(&mask[(z * h + y) * w..][..w]);
            for (dz, dy) in (0..9).map(|n| (n / 3, n % 3)) {
                let far = usize::from(dz != 1) + usize::from(dy != 1);
                let inside = (1..=d).contains(&(z + dz)) && (1..=h).contains(&(y + dy));
                if far > neighbours.reach() || !inside {
                    continue;
                }
                let row = &mask[((z + dz - 1) * h + y + dy - 1) * w..][..w];
                own.iter_mut().zip(row).for_each(|(own, near)| *own = join(*own, *near));
                if far < neighbours.reach() {
                    own[1..].iter_mut().zip(row).for_each(|(own, near)| *own = join(*own, *near));
                    own.iter_mut().zip(&row[1..]).for_each(|(own, near)| *own = join(*own, *near));
                }
            }
        }
    });
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
        // the second one is worked on in three slabs
        let shapes = [[7, 9, 11], [40, 6, 5]];
        for (density, shape) in [0.1, 0.25, 0.4].into_iter().flat_map(|d| shapes.map(|s| (d, s))) {
            let voxels: usize = shape.iter().product();
            let labels = (0..voxels).map(|_| u8::from(rng.random::<f64>() < density)).collect();
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
