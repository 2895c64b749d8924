//! Resampling by separable cubic B-splines, linearly, and to the nearest voxel. Voxel centres map as
//! (i + ½) · old / new − ½; beyond the edge the volume is mirrored.

use rayon::prelude::*;

/// Pole of the cubic B-spline's prefilter.
const POLE: f64 = -0.267_949_192_431_122_7; // √3 − 2

/// Positions and weights along one axis for each new index.
struct Taps {
    indices: Vec<[usize; 4]>,
    weights: Vec<[f32; 4]>,
}

fn position(index: usize, old: usize, new: usize) -> f64 {
    (index as f64 + 0.5) * old as f64 / new as f64 - 0.5
}

fn mirror(index: i64, size: usize) -> usize {
    if size == 1 {
        return 0;
    }
    let period = 2 * (size as i64 - 1);
    let folded = index.rem_euclid(period);
    (if folded >= size as i64 { period - folded } else { folded }) as usize
}

fn cubic_taps(old: usize, new: usize) -> Taps {
    let (mut indices, mut weights) = (Vec::new(), Vec::new());
    for index in 0..new {
        let at = position(index, old, new);
        let base = at.floor();
        let t = at - base;
        let w = [
            (1.0 - t).powi(3) / 6.0,
            (3.0 * t.powi(3) - 6.0 * t * t + 4.0) / 6.0,
            (-3.0 * t.powi(3) + 3.0 * t * t + 3.0 * t + 1.0) / 6.0,
            t.powi(3) / 6.0,
        ];
        indices.push([-1, 0, 1, 2].map(|o| mirror(base as i64 + o, old)));
        weights.push(w.map(|v| v as f32));
    }
    Taps { indices, weights }
}

fn linear_taps(old: usize, new: usize) -> Taps {
    let (mut indices, mut weights) = (Vec::new(), Vec::new());
    for index in 0..new {
        let at = position(index, old, new).clamp(0.0, (old - 1) as f64);
        let base = at.floor();
        let t = (at - base) as f32;
        let low = base as usize;
        indices.push([low, (low + 1).min(old - 1), 0, 0]);
        weights.push([1.0 - t, t, 0.0, 0.0]);
    }
    Taps { indices, weights }
}

/// B-spline coefficients of one line, mirrored at both ends.
fn prefilter(line: &mut [f64]) {
    let n = line.len();
    if n < 2 {
        return;
    }
    let gain = (1.0 - POLE) * (1.0 - 1.0 / POLE);
    line.iter_mut().for_each(|v| *v *= gain);
    let mut start = line[0];
    let mut power = POLE;
    for index in 1..(2 * n - 2).min(40) {
        start += power * line[mirror(index as i64, n)];
        power *= POLE;
    }
    // the mirrored line repeats every 2n - 2 samples
    line[0] = if 2 * n - 2 <= 40 { start / (1.0 - power) } else { start };
    for i in 1..n {
        line[i] += POLE * line[i - 1];
    }
    line[n - 1] = POLE / (POLE * POLE - 1.0) * (line[n - 1] + POLE * line[n - 2]);
    for i in (0..n - 1).rev() {
        line[i] = POLE * (line[i + 1] - line[i]);
    }
}

/// Applies taps along one axis of `outer x old x inner`.
fn along(data: &[f32], old: usize, inner: usize, taps: &Taps, filter: bool) -> Vec<f32> {
    let new = taps.indices.len();
    let outer = data.len() / (old * inner);
    let mut out = vec![0.0; outer * new * inner];
    out.par_chunks_mut(new * inner).enumerate().for_each(|(o, target)| {
        let source = &data[o * old * inner..(o + 1) * old * inner];
        let mut filtered;
        let source = if filter {
            filtered = source.to_vec();
            let mut line = vec![0.0f64; old];
            for i in 0..inner {
                line.iter_mut()
                    .enumerate()
                    .for_each(|(k, v)| *v = f64::from(source[k * inner + i]));
                prefilter(&mut line);
                line.iter().enumerate().for_each(|(k, v)| filtered[k * inner + i] = *v as f32);
            }
            &filtered[..]
        } else {
            source
        };
        for (row, (indices, weights)) in taps.indices.iter().zip(&taps.weights).enumerate() {
            for i in 0..inner {
                let value: f32 = (0..4).map(|k| weights[k] * source[indices[k] * inner + i]).sum();
                target[row * inner + i] = value;
            }
        }
    });
    out
}

fn separable(
    data: &[f32],
    shape: [usize; 3],
    new: [usize; 3],
    taps: impl Fn(usize, usize) -> Taps,
    filter: bool,
) -> Vec<f32> {
    let mut data = data.to_vec();
    let mut now = shape;
    for axis in 0..3 {
        if shape[axis] != new[axis] {
            let inner: usize = now[axis + 1..].iter().product();
            data = along(&data, now[axis], inner, &taps(shape[axis], new[axis]), filter);
            now[axis] = new[axis];
        }
    }
    data
}

/// Interpolating cubic B-spline of one channel, D, H, W.
pub fn resample_cubic(data: &[f32], shape: [usize; 3], new: [usize; 3]) -> Vec<f32> {
    separable(data, shape, new, cubic_taps, true)
}

/// Trilinear interpolation of one channel, D, H, W.
pub fn resample_linear(data: &[f32], shape: [usize; 3], new: [usize; 3]) -> Vec<f32> {
    separable(data, shape, new, linear_taps, false)
}

/// Nearest voxel, for labels, D, H, W.
pub fn resample_nearest(data: &[u8], shape: [usize; 3], new: [usize; 3]) -> Vec<u8> {
    let near = |axis: usize| -> Vec<usize> {
        (0..new[axis])
            .map(|i| {
                position(i, shape[axis], new[axis]).round().clamp(0.0, (shape[axis] - 1) as f64)
                    as usize
            })
            .collect()
    };
    let (d, h, w) = (near(0), near(1), near(2));
    let mut out = Vec::with_capacity(new.iter().product());
    for z in &d {
        for y in &h {
            let row = (z * shape[1] + y) * shape[2];
            out.extend(w.iter().map(|x| data[row + x]));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splines_interpolate_and_reproduce_smooth_functions() {
        let wave = |i: f64| (i * 0.4).sin();
        let data: Vec<f32> = (0..24).map(|i| wave(i as f64) as f32).collect();
        let same = separable(&data, [24, 1, 1], [24, 1, 1], cubic_taps, true);
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
}
