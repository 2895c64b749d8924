//! Resampling axis by axis, on all cores: by cubic B-splines, linearly, to the nearest voxel.
//!
//! The axis that shrinks most goes first, so that the large grid is passed over once. The order depends on the sizes alone,
//! and each value on its own line: the bits are the same on any number of threads.

use ndarray::{Array3, ArrayView2, ArrayView3, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use super::interpolation::{
    CubicTap, Interpolation, LinearTap, cubic_taps, linear_taps, mirror, nearest_taps,
};

/// Pole of the cubic B-spline's prefilter.
const POLE: f64 = -0.267_949_192_431_122_7; // √3 − 2
/// Samples after which a power of the pole is less than f64 tells.
const REACH: usize = 40;

/// Interpolates one channel (D, H, W) on a grid of other sizes over the same place, by what `by` says of each axis. Values
/// along a line are f64 between reading and writing it.
pub fn resample(
    values: ArrayView3<'_, f32>,
    new: [usize; 3],
    by: [Interpolation; 3],
) -> Array3<f32> {
    let (d, h, w) = values.dim();
    let old = [d, h, w];
    let mut axes: Vec<usize> = (0..3).filter(|axis| old[*axis] != new[*axis]).collect();
    axes.sort_by_key(|axis| Share { new: new[*axis], old: old[*axis] });
    let mut axes = axes.into_iter();
    let Some(first) = axes.next() else { return values.as_standard_layout().into_owned() };
    let start = along(values, first, new[first], by[first]);
    axes.fold(start, |now, axis| along(now.view(), axis, new[axis], by[axis]))
}

/// How much of an axis is left, exactly.
#[derive(PartialEq, Eq)]
struct Share {
    new: usize,
    old: usize,
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.new as u128 * other.old as u128).cmp(&(other.new as u128 * self.old as u128))
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Gives one axis (0 to 2: D, H, W) another size.
fn along(values: ArrayView3<'_, f32>, axis: usize, new: usize, by: Interpolation) -> Array3<f32> {
    let mut shape = values.raw_dim();
    let old = shape[axis];
    shape[axis] = new;
    let mut result = Array3::zeros(shape);
    // slices that hold whole lines
    let across = Axis(if axis == 0 { 1 } else { 0 });
    let slices: Vec<_> = values.axis_iter(across).zip(result.axis_iter_mut(across)).collect();
    let slices = slices.into_par_iter();
    // in these, the lines run from row to row, but those along W within a row
    let within = axis == 2;
    match by {
        Interpolation::Cubic => {
            let taps = cubic_taps(old, new);
            let room = Vec::new;
            slices.for_each_init(room, |room, (from, to)| match within {
                true => cubic_rows(room, &taps, from, to),
                false => cubic_columns(room, &taps, from, to),
            });
        }
        Interpolation::Linear => {
            let taps = linear_taps(old, new);
            slices.for_each(|(from, to)| match within {
                true => linear_rows(&taps, from, to),
                false => linear_columns(&taps, from, to),
            });
        }
        Interpolation::Nearest => {
            let taps = nearest_taps(old, new);
            let axis = Axis(usize::from(within));
            slices.for_each(|(from, mut to)| {
                for (mut to, near) in to.axis_iter_mut(axis).zip(&taps) {
                    to.assign(&from.index_axis(axis, *near));
                }
            });
        }
    }
    result
}

/// Lines next to one another whose values are filtered at the same time: as many as cache lines and registers like.
const COLUMNS: usize = 64;
const ROWS: usize = 16;

fn cubic_columns(
    room: &mut Vec<f64>,
    taps: &[CubicTap],
    from: ArrayView2<'_, f32>,
    mut to: ArrayViewMut2<'_, f32>,
) {
    let (length, width) = from.dim();
    for start in (0..width).step_by(COLUMNS) {
        let lanes = COLUMNS.min(width - start);
        room.clear();
        for row in from.slice(s![.., start..start + lanes]).rows() {
            room.extend(row.iter().map(|value| f64::from(*value)));
        }
        prefilter(room, length, lanes);
        let mut part = to.slice_mut(s![.., start..start + lanes]);
        for (mut row, tap) in part.rows_mut().into_iter().zip(taps) {
            let [a, b, c, d] = tap.indices.map(|index| &room[index * lanes..][..lanes]);
            let [u, v, w, x] = tap.weights;
            for (lane, value) in row.iter_mut().enumerate() {
                *value = (u * a[lane] + v * b[lane] + (w * c[lane] + x * d[lane])) as f32;
            }
        }
    }
}

fn cubic_rows(
    room: &mut Vec<f64>,
    taps: &[CubicTap],
    from: ArrayView2<'_, f32>,
    mut to: ArrayViewMut2<'_, f32>,
) {
    let (height, length) = from.dim();
    for start in (0..height).step_by(ROWS) {
        let lanes = ROWS.min(height - start);
        room.clear();
        room.resize(length * lanes, 0.0);
        for (lane, row) in from.slice(s![start..start + lanes, ..]).rows().into_iter().enumerate() {
            for (values, value) in room.chunks_exact_mut(lanes).zip(row) {
                values[lane] = f64::from(*value);
            }
        }
        prefilter(room, length, lanes);
        let mut part = to.slice_mut(s![start..start + lanes, ..]);
        for (lane, mut row) in part.rows_mut().into_iter().enumerate() {
            for (value, tap) in row.iter_mut().zip(taps) {
                let [a, b, c, d] = tap.indices.map(|index| room[index * lanes + lane]);
                let [u, v, w, x] = tap.weights;
                *value = (u * a + v * b + (w * c + x * d)) as f32;
            }
        }
    }
}

/// Values into B-spline coefficients, mirrored at both ends: `length` values of each lane, lane by lane within.
fn prefilter(values: &mut [f64], length: usize, lanes: usize) {
    if length < 2 {
        return;
    }
    let gain = (1.0 - POLE) * (1.0 - 1.0 / POLE);
    values.iter_mut().for_each(|value| *value *= gain);
    let period = 2 * length - 2;
    let mut starts = [0.0; COLUMNS];
    let starts = &mut starts[..lanes];
    let mut power = 1.0;
    for index in 0..period.min(REACH) {
        let from = mirror(index as i64, length) * lanes;
        let values = &values[from..from + lanes];
        starts.iter_mut().zip(values).for_each(|(start, value)| *start += power * value);
        power *= POLE;
    }
    // the mirrored line repeats
    let repeated = if period <= REACH { 1.0 / (1.0 - power) } else { 1.0 };
    values[..lanes].iter_mut().zip(starts).for_each(|(value, start)| *value = *start * repeated);
    for index in 1..length {
        let (before, here) = values[(index - 1) * lanes..(index + 1) * lanes].split_at_mut(lanes);
        here.iter_mut().zip(before).for_each(|(here, before)| *here += POLE * *before);
    }
    let (before, last) = values[(length - 2) * lanes..].split_at_mut(lanes);
    let factor = POLE / (POLE * POLE - 1.0);
    last.iter_mut()
        .zip(before)
        .for_each(|(last, before)| *last = factor * (*last + POLE * *before));
    for index in (0..length - 1).rev() {
        let (here, after) = values[index * lanes..(index + 2) * lanes].split_at_mut(lanes);
        here.iter_mut().zip(after).for_each(|(here, after)| *here = POLE * (*after - *here));
    }
}

fn linear_columns(taps: &[LinearTap], from: ArrayView2<'_, f32>, mut to: ArrayViewMut2<'_, f32>) {
    for (mut row, tap) in to.rows_mut().into_iter().zip(taps) {
        let (low, high) = (from.row(tap.low), from.row(tap.high));
        for ((value, low), high) in row.iter_mut().zip(low).zip(high) {
            *value = (1.0 - tap.t) * low + tap.t * high;
        }
    }
}

fn linear_rows(taps: &[LinearTap], from: ArrayView2<'_, f32>, mut to: ArrayViewMut2<'_, f32>) {
    for (mut row, from) in to.rows_mut().into_iter().zip(from.rows()) {
        for (value, tap) in row.iter_mut().zip(taps) {
            *value = (1.0 - tap.t) * from[tap.low] + tap.t * from[tap.high];
        }
    }
}

/// One channel as an array.
fn array<T>(values: &[T], shape: [usize; 3]) -> Option<ArrayView3<'_, T>> {
    ArrayView3::from_shape(shape, values).ok()
}

/// Interpolating cubic B-spline of one channel, D, H, W; nothing where there are more or fewer values than voxels.
pub fn resample_cubic(data: &[f32], shape: [usize; 3], new: [usize; 3]) -> Vec<f32> {
    plain(data, shape, new, Interpolation::Cubic)
}

/// Trilinear interpolation of one channel, as [`resample_cubic`].
pub fn resample_linear(data: &[f32], shape: [usize; 3], new: [usize; 3]) -> Vec<f32> {
    plain(data, shape, new, Interpolation::Linear)
}

fn plain(data: &[f32], shape: [usize; 3], new: [usize; 3], by: Interpolation) -> Vec<f32> {
    let values = array(data, shape).map(|values| resample(values, new, [by; 3]));
    values.map(|values| values.into_raw_vec_and_offset().0).unwrap_or_default()
}

/// Nearest voxel, for labels, as [`resample_cubic`].
pub fn resample_nearest(data: &[u8], shape: [usize; 3], new: [usize; 3]) -> Vec<u8> {
    let labels = array(data, shape).map(|labels| nearest(labels, new));
    labels.unwrap_or_default()
}

/// Labels (D, H, W) of the nearest voxels of a grid of other sizes.
pub(super) fn nearest(labels: ArrayView3<'_, u8>, new: [usize; 3]) -> Vec<u8> {
    let (d, h, w) = labels.dim();
    let old = [d, h, w];
    let [d, h, w] = [0, 1, 2].map(|axis| nearest_taps(old[axis], new[axis]));
    let mut result = vec![0; new.iter().product()];
    result.par_chunks_mut(new[1] * new[2]).zip(d).for_each(|(plane, z)| {
        for (row, y) in plane.chunks_mut(new[2]).zip(&h) {
            let from = labels.slice(s![z, *y, ..]);
            row.iter_mut().zip(&w).for_each(|(label, x)| *label = from[*x]);
        }
    });
    result
}

#[cfg(test)]
mod tests {
    use super::Interpolation::{Cubic, Linear, Nearest};
    use super::*;

    fn position(index: usize, old: usize, new: usize) -> f64 {
        (index as f64 + 0.5) * old as f64 / new as f64 - 0.5
    }

    #[test]
    fn splines_interpolate_and_reproduce_smooth_functions() {
        let wave = |i: f64| (i * 0.4).sin();
        let data: Vec<f32> = (0..24).map(|i| wave(i as f64) as f32).collect();
        let same = resample_cubic(&data, [24, 1, 1], [24, 1, 1]);
        assert_eq!(same, data);
        let fine = resample_cubic(&data, [24, 1, 1], [72, 1, 1]);
        for (i, v) in fine.iter().enumerate().take(60).skip(12) {
            assert!((f64::from(*v) - wave(position(i, 24, 72))).abs() < 2e-3, "{i}");
        }
        // every third fine sample sits on an old one
        assert!((fine[13] - data[4]).abs() < 1e-5);
    }

    #[test]
    fn the_largest_intensities_stay_finite() {
        let sign = |i: usize| if i.is_multiple_of(2) { 1e30 } else { -1e30 };
        let data: Vec<f32> = (0..5 * 6 * 7).map(|i| sign(i / 42 + i / 7 + i)).collect();
        for new in [[9, 11, 20], [2, 3, 1], [1, 40, 3]] {
            assert!(resample_cubic(&data, [5, 6, 7], new).iter().all(|v| v.is_finite()));
            assert!(resample_linear(&data, [5, 6, 7], new).iter().all(|v| v.is_finite()));
        }
    }

    #[test]
    fn constants_stay_and_labels_stay_labels() {
        let flat = vec![3.0f32; 5 * 6 * 7];
        for out in [
            resample_cubic(&flat, [5, 6, 7], [9, 3, 8]),
            resample_linear(&flat, [5, 6, 7], [9, 3, 8]),
        ] {
            assert!(out.iter().all(|v| (v - 3.0).abs() < 1e-5));
            assert_eq!(out.len(), 9 * 3 * 8);
        }
        assert_eq!(resample_nearest(&[1, 2], [1, 1, 2], [1, 1, 4]), [1, 1, 2, 2]);
    }

    /// One line in f64: the coefficients solve c[i − 1] + 4 c[i] + c[i + 1] = 6 v[i], mirrored at the ends.
    fn line(values: &[f64], new: usize, by: Interpolation) -> Vec<f64> {
        let old = values.len();
        let at = |index: i64| mirror(index, old);
        let mut c = values.to_vec();
        if by == Cubic && old > 1 {
            // Gauss and Seidel; each round divides the error by more than two
            for _ in 0..200 {
                for i in 0..old {
                    let (before, after) = (c[at(i as i64 - 1)], c[at(i as i64 + 1)]);
                    c[i] = (6.0 * values[i] - before - after) / 4.0;
                }
            }
        }
        let value = |index: usize| {
            let p = position(index, old, new);
            match by {
                Nearest => values[((p + 0.5).floor() as i64).clamp(0, old as i64 - 1) as usize],
                Linear => {
                    let p = p.clamp(0.0, (old - 1) as f64);
                    let (low, t) = (p.floor() as usize, p.fract());
                    (1.0 - t) * values[low] + t * values[(low + 1).min(old - 1)]
                }
                Cubic => {
                    let near = (p.floor() as i64 - 1)..=(p.floor() as i64 + 2);
                    let bump = |x: f64| match x.abs() {
                        x if x < 1.0 => 2.0 / 3.0 - x * x + x * x * x / 2.0,
                        x if x < 2.0 => (2.0 - x).powi(3) / 6.0,
                        _ => 0.0,
                    };
                    near.map(|i| bump(p - i as f64) * c[at(i)]).sum()
                }
            }
        };
        (0..new).map(value).collect()
    }

    /// All axes in f64, D first, line by line.
    fn oracle(values: &Array3<f32>, new: [usize; 3], by: [Interpolation; 3]) -> Array3<f64> {
        let mut now = values.mapv(f64::from);
        for axis in 0..3 {
            let mut shape = now.raw_dim();
            shape[axis] = new[axis];
            let mut next = Array3::zeros(shape);
            let lines = next.lanes_mut(Axis(axis)).into_iter().zip(now.lanes(Axis(axis)));
            for (mut to, from) in lines {
                let values = line(&from.to_vec(), new[axis], by[axis]);
                to.iter_mut().zip(values).for_each(|(to, value)| *to = value);
            }
            now = next;
        }
        now
    }

    #[test]
    fn every_axis_agrees_with_plain_loops_in_f64() {
        let mut state = 5u32;
        let noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 16_384.0 - 400.0
        };
        let values = Array3::from_shape_simple_fn((9, 21, 70), noise);
        let (all, crop) = (values.view(), values.slice(s![2..8, 3..20, 1..68]));
        let pairs = [([4, 30, 80], [Cubic; 3]), ([20, 10, 7], [Nearest, Cubic, Cubic])];
        let more = [([3, 21, 140], [Linear; 3]), ([1, 40, 9], [Cubic, Linear, Nearest])];
        for (new, by) in pairs.into_iter().chain(more) {
            for view in [all, crop] {
                let found = resample(view, new, by);
                let expected = oracle(&view.to_owned(), new, by);
                for (found, expected) in found.iter().zip(&expected) {
                    let error = (f64::from(*found) - expected).abs();
                    assert!(error < 1e-3, "{found} {expected} {new:?} {by:?}");
                }
            }
        }
    }

    #[test]
    fn the_bits_are_the_same_on_any_number_of_threads() {
        let values =
            Array3::from_shape_fn((13, 17, 19), |(z, y, x)| ((z * 7 + y * 3 + x) % 11) as f32);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| resample(values.view(), [7, 20, 11], [Cubic; 3]))
        };
        assert_eq!(with(1), with(3));
    }

    #[test]
    fn slices_of_an_anisotropic_stack_are_taken_as_they_are() {
        // in-plane sizes stay: whole slices are repeated
        let values = Array3::from_shape_fn((3, 4, 5), |(z, y, x)| (20 * z + 5 * y + x) as f32);
        let found = resample(values.view(), [6, 4, 5], [Nearest, Cubic, Cubic]);
        for (plane, near) in found.outer_iter().zip([0, 0, 1, 1, 2, 2]) {
            assert_eq!(plane, values.index_axis(Axis(0), near));
        }
    }
}
