//! Where the planes of a picture lie.

use rayon::prelude::*;

use crate::imaging::LabelMap;
use crate::imaging::morphology::{Connectivity, keep_largest};

/// The voxel (D, H, W) of the largest component of the foreground that lies next to its centre of mass; none where there is no
/// foreground. Classes that touch are one component.
pub(super) fn of_largest_component(labels: &LabelMap) -> Option<[usize; 3]> {
    let foreground = labels.as_slice().par_iter().map(|label| u8::from(*label != 0)).collect();
    let mut mask = LabelMap::from_vec(foreground, labels.grid().clone()).ok()?;
    keep_largest(&mut mask, 1, Connectivity::Full);
    let shape = mask.shape();
    let at = |index: usize| {
        let [_, h, w] = shape;
        [index / w / h, index / w % h, index % w]
    };
    let inside = || mask.as_slice().par_iter().enumerate().filter(|(_, v)| **v == 1).map(|v| v.0);
    let nothing = || ([0u64; 3], 0u64);
    let (sums, count) = inside()
        .fold(nothing, |(sums, count), index| {
            let place = at(index);
            ([0, 1, 2].map(|axis| sums[axis] + place[axis] as u64), count + 1)
        })
        .reduce(nothing, |(a, n), (b, m)| ([0, 1, 2].map(|axis| a[axis] + b[axis]), n + m));
    let spacing = mask.spacing();
    let centre = sums.map(|sum| sum as f64 / count.max(1) as f64);
    let far = |index: usize| -> f64 {
        let place = at(index);
        (0..3).map(|axis| ((place[axis] as f64 - centre[axis]) * spacing[axis]).powi(2)).sum()
    };
    let nearest = inside().map(|index| (far(index), index));
    // of several the first, on any number of cores
    let nearest = nearest.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    nearest.map(|(_, index)| at(index))
}

/// The slices along an axis that hold foreground, first and behind the last; none where there is no foreground.
pub(super) fn extent(labels: &LabelMap, axis: usize) -> Option<[usize; 2]> {
    let shape = labels.shape();
    let stride: usize = shape[axis + 1..].iter().product();
    let inside = labels.as_slice().par_iter().enumerate().filter(|(_, label)| **label != 0);
    let slices = inside.map(|(index, _)| index / stride % shape[axis]);
    let (low, high) = slices
        .fold(|| (usize::MAX, 0), |(low, high), slice| (low.min(slice), high.max(slice + 1)))
        .reduce(|| (usize::MAX, 0), |a, b| (a.0.min(b.0), a.1.max(b.1)));
    (low < high).then_some([low, high])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::Grid;

    #[test]
    fn the_largest_component_decides_and_a_voxel_of_it_is_taken() {
        let shape = [1, 5, 9];
        // a hook whose centre of mass lies outside of it, and a single voxel elsewhere
        let rows = ["111110000", "100000000", "100000000", "100000000", "122220003"];
        let labels = rows.concat().bytes().map(|b| b - b'0').collect();
        let labels = LabelMap::from_vec(labels, Grid::ras(shape, [1.0; 3])).unwrap();
        let [d, h, w] = of_largest_component(&labels).unwrap();
        assert_eq!((d, h, w), (0, 2, 0));
        assert_eq!(extent(&labels, 2), Some([0, 9]));
        let nothing = LabelMap::from_vec(vec![0; 45], Grid::ras(shape, [1.0; 3])).unwrap();
        assert_eq!(of_largest_component(&nothing), None);
        assert_eq!(extent(&nothing, 1), None);
    }
}
