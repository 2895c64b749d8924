//! What is told of the distances from one surface to another, of which there may be more than memory should hold.

use std::collections::BTreeMap;

use crate::imaging::distance::distances;
use crate::imaging::surface::{Columns, Mask};

/// Distances that are kept at a time; of more they are counted, and measured twice.
const KEPT: usize = 1 << 23;
/// Which quantile.
const QUANTILE: f64 = 0.95;

/// The distances of one surface's voxels to another surface, summed up.
pub(super) struct Distances {
    pub count: usize,
    /// Millimetres.
    pub sum: f64,
    /// How many are within the tolerance.
    pub near: usize,
    /// The 95th percentile, in mm.
    pub hd95: f64,
}

/// The same of one plane, in which nothing need be told of every one.
struct Plane<T> {
    sum: f64,
    near: usize,
    kept: T,
}

impl Distances {
    /// From the surface of a mask to that of another; within `tolerance` mm counts as near.
    pub fn measure(from: &Mask<'_>, to: &Mask<'_>, spacing: [f64; 3], tolerance: f64) -> Self {
        let most = if from.surface_size() <= KEPT { Keeping::Values } else { Keeping::Counts };
        Self::keeping(most, from, &Columns::of(to), spacing, tolerance)
    }

    fn keeping(
        keeping: Keeping,
        from: &Mask<'_>,
        to: &Columns,
        spacing: [f64; 3],
        tolerance: f64,
    ) -> Self {
        let near = |values: &[f64]| values.iter().filter(|d| **d <= tolerance).count();
        let sum = |values: &[f64]| values.iter().sum::<f64>();
        match keeping {
            Keeping::Values => {
                let plane = |values: &[f64]| Plane {
                    sum: sum(values),
                    near: near(values),
                    kept: values.to_vec(),
                };
                let planes = distances(from, to, spacing, plane);
                let (sum, near) = totals(&planes);
                let mut values: Vec<f64> =
                    planes.into_iter().flat_map(|plane| plane.kept).collect();
                Self { count: values.len(), sum, near, hd95: percentile(&mut values, QUANTILE) }
            }
            Keeping::Counts => {
                let plane = |values: &[f64]| Plane {
                    sum: sum(values),
                    near: near(values),
                    kept: counted(values, range),
                };
                let planes = distances(from, to, spacing, plane);
                let (sum, near) = totals(&planes);
                let ranges = joined(planes.into_iter().map(|plane| plane.kept));
                let count: usize = ranges.values().sum();
                let position = QUANTILE * count.saturating_sub(1) as f64;
                let low = position.floor() as usize;
                let ranks = [low, (low + 1).min(count.saturating_sub(1))];
                let within = ranks.map(|rank| find(&ranges, rank));
                let exact = |values: &[f64]| {
                    let wanted = within.map(|found| found.key);
                    let values = values.iter().copied().filter(|d| wanted.contains(&range(*d)));
                    counted(&values.collect::<Vec<_>>(), f64::to_bits)
                };
                let exact = joined(distances(from, to, spacing, exact).into_iter());
                let value = |found: Found| {
                    // keys rise as distances do, which are not negative
                    let before: usize =
                        exact.range(..found.key << SHIFT).map(|(_, count)| count).sum();
                    f64::from_bits(find(&exact, before + found.rest).key)
                };
                let [low, high] = within.map(value);
                let hd95 = between(low, high, position.fract());
                Self { count, sum, near, hd95 }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeping {
    /// All distances.
    Values,
    /// How many there are in each range; then those of the ranges on which the percentile falls.
    Counts,
}

fn totals<T>(planes: &[Plane<T>]) -> (f64, usize) {
    let sum = planes.iter().map(|plane| plane.sum).sum();
    (sum, planes.iter().map(|plane| plane.near).sum())
}

/// Bits of a distance that a range leaves out: it is as wide as a 4096th of it.
const SHIFT: u32 = 40;

fn range(distance: f64) -> u64 {
    distance.to_bits() >> SHIFT
}

fn counted(values: &[f64], key: impl Fn(f64) -> u64) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    values.iter().for_each(|value| *counts.entry(key(*value)).or_default() += 1);
    counts
}

fn joined(all: impl Iterator<Item = BTreeMap<u64, usize>>) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for (key, count) in all.flatten() {
        *counts.entry(key).or_default() += count;
    }
    counts
}

/// The key on which a rank falls, and the rank among those of the same key.
#[derive(Clone, Copy)]
struct Found {
    key: u64,
    rest: usize,
}

fn find(counts: &BTreeMap<u64, usize>, mut rest: usize) -> Found {
    for (key, count) in counts {
        match rest.checked_sub(*count) {
            Some(more) => rest = more,
            None => return Found { key: *key, rest },
        }
    }
    Found { key: f64::NAN.to_bits(), rest: 0 }
}

/// The `fraction` quantile with linear interpolation between order statistics; NaN where there are none.
fn percentile(values: &mut [f64], fraction: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    let position = fraction * (values.len() - 1) as f64;
    let index = position.floor() as usize;
    let (_, low, above) = values.select_nth_unstable_by(index, f64::total_cmp);
    let high = above.iter().copied().fold(f64::INFINITY, f64::min);
    between(*low, high, position - index as f64)
}

fn between(low: f64, high: f64, rest: f64) -> f64 {
    if rest > 0.0 { low + rest * (high - low) } else { low }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::imaging::distance::squared_distances;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    fn on(mask: &[bool]) -> Vec<u8> {
        mask.iter().map(|on| u8::from(*on)).collect()
    }

    const ONE: [bool; 256] = {
        let mut inside = [false; 256];
        inside[1] = true;
        inside
    };

    fn place(i: usize, shape: [usize; 3]) -> [usize; 3] {
        [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]]
    }

    /// Surface voxels by their definition.
    fn surface(mask: &[bool], shape: [usize; 3]) -> Vec<[usize; 3]> {
        let at = |p: [usize; 3]| {
            (0..3).all(|k| p[k] < shape[k]) && mask[(p[0] * shape[1] + p[1]) * shape[2] + p[2]]
        };
        let bare = |p: &[usize; 3]| {
            (0..3).any(|k| {
                [1, usize::MAX].into_iter().any(|by| {
                    let mut q = *p;
                    q[k] = q[k].wrapping_add(by);
                    !at(q)
                })
            })
        };
        (0..mask.len()).map(|i| place(i, shape)).filter(|p| at(*p) && bare(p)).collect()
    }

    fn nearest(a: &[usize; 3], targets: &[[usize; 3]], spacing: [f64; 3]) -> f64 {
        let squared = |b: &[usize; 3]| -> f64 {
            (0..3).map(|k| ((a[k] as f64 - b[k] as f64) * spacing[k]).powi(2)).sum()
        };
        targets.iter().map(squared).fold(f64::INFINITY, f64::min).sqrt()
    }

    #[test]
    fn distances_match_brute_force_on_random_masks() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        for (shape, spacing) in [
            ([5, 7, 9], [1.0; 3]),
            ([6, 6, 8], [3.6, 0.625, 0.625]),
            ([1, 9, 9], [5.0, 0.8, 1.3]),
            ([9, 2, 1], [0.5, 2.0, 7.0]),
        ] {
            for density in [0.02, 0.2, 0.7, 0.95] {
                let n = shape.iter().product();
                let mut random = || -> Vec<bool> {
                    let mut mask: Vec<bool> =
                        (0..n).map(|_| rng.random::<f64>() < density).collect();
                    mask[rng.random_range(0..n)] = true;
                    mask
                };
                let (a, b) = (random(), random());
                let (labels_a, labels_b) = (on(&a), on(&b));
                let from = Mask::new(&labels_a, shape, &ONE);
                let to = Mask::new(&labels_b, shape, &ONE);
                let fast = distances(&from, &Columns::of(&to), spacing, <[f64]>::to_vec).concat();
                let targets = surface(&b, shape);
                let from_all = surface(&a, shape);
                let slow: Vec<f64> =
                    from_all.iter().map(|p| nearest(p, &targets, spacing)).collect();
                assert_eq!(fast.len(), slow.len());
                assert!(fast.iter().zip(&slow).all(|(f, s)| (f - s).abs() < 1e-9));
                // of all voxels of a mask, whether or not they are its surface
                let voxels: Vec<[usize; 3]> =
                    (0..n).filter(|i| b[*i]).map(|i| place(i, shape)).collect();
                let dense = squared_distances(&b, shape, spacing);
                for (i, squared) in dense.iter().enumerate() {
                    let slow = nearest(&place(i, shape), &voxels, spacing);
                    assert!((squared.sqrt() - slow).abs() < 1e-9);
                }
            }
        }
        let nowhere = squared_distances(&[false; 8], [2, 2, 2], [1.0; 3]);
        assert!(nowhere.iter().all(|d| d.is_infinite()));
    }

    #[test]
    fn counting_tells_what_keeping_tells() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(4);
        let shape = [12, 20, 24];
        for density in [0.001, 0.01, 0.3] {
            let mut random = || -> Vec<u8> {
                let mut mask: Vec<u8> =
                    (0..5760).map(|_| u8::from(rng.random::<f64>() < density)).collect();
                mask[rng.random_range(0..5760)] = 1;
                mask
            };
            let (a, b) = (random(), random());
            let (from, to) = (Mask::new(&a, shape, &ONE), Mask::new(&b, shape, &ONE));
            let measure = |keeping| {
                Distances::keeping(keeping, &from, &Columns::of(&to), [2.0, 0.7, 0.7], 1.0)
            };
            let (kept, counted) = (measure(Keeping::Values), measure(Keeping::Counts));
            assert_eq!((kept.count, kept.near), (counted.count, counted.near));
            assert_eq!((kept.sum, kept.hd95), (counted.sum, counted.hd95), "{density}");
        }
    }

    #[test]
    fn percentiles_interpolate_linearly() {
        assert!(close(percentile(&mut [4.0, 1.0, 3.0, 2.0], 0.5), 2.5));
        assert!(close(percentile(&mut [7.0], 0.95), 7.0));
        assert!(percentile(&mut [], 0.5).is_nan());
    }
}
