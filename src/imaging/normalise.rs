//! Intensities of channels made comparable.

use rayon::prelude::*;

/// How intensities become comparable.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[non_exhaustive]
pub enum Normalisation {
    /// Clip to the 0.5th to 99.5th percentile of the non-zero voxels, subtract their mean, divide by their deviation.
    ZScore,
    /// Clip to fixed bounds, subtract a fixed mean, divide by a fixed deviation (CT, from the dataset's labels).
    Fixed {
        /// Smaller values become this one.
        lower: f32,
        /// Larger values become this one.
        upper: f32,
        /// What is subtracted.
        mean: f32,
        /// What is divided by.
        std: f32,
    },
    /// The published way: clip below −1024, then to the 2nd to 98th percentile; mean and deviation of positive voxels;
    /// voxels that are 0 stay 0.
    Published,
}

/// Value at a percentile of sorted values; 0 of none.
pub fn percentile(sorted: &[f32], percent: f64) -> f32 {
    if sorted.is_empty() {
        return 0.0;
    }
    let at = percent / 100.0 * (sorted.len() - 1) as f64;
    let (low, t) = (at.floor() as usize, at.fract() as f32);
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] * (1.0 - t) + sorted[high] * t
}

/// Values at two percentiles of those that `counts` takes, as [`percentile`] gives them of the sorted ones; 0 of none. They
/// are neither copied nor sorted: their upper halves are counted, then the lower halves of those that a rank falls on.
fn percentiles(
    values: &[f32],
    counts: impl Fn(f32) -> bool + Sync,
    percents: [f64; 2],
) -> [f32; 2] {
    let upper = tally(values, |key, value| counts(value).then_some((key >> 16) as usize));
    let all: usize = upper.iter().sum();
    if all == 0 {
        return [0.0; 2];
    }
    let at_rank = |rank: usize| {
        let (high, rest) = find(&upper, rank);
        let within = |key: u32, value: f32| {
            (counts(value) && (key >> 16) as usize == high).then_some((key & 0xffff) as usize)
        };
        let (low, _) = find(&tally(values, within), rest);
        of_key((high << 16 | low) as u32)
    };
    percents.map(|percent| {
        let at = percent / 100.0 * (all - 1) as f64;
        let (low, t) = (at.floor() as usize, at.fract() as f32);
        let (below, above) = (at_rank(low), at_rank((low + 1).min(all - 1)));
        below * (1.0 - t) + above * t
    })
}

/// Values that a thread goes through at a time. Sums are made of such runs in their order, whatever the number of threads.
const RUN: usize = 1 << 18;

/// How many values have each of 2^16 numbers, of those that have one.
fn tally(values: &[f32], number: impl Fn(u32, f32) -> Option<usize> + Sync) -> Vec<usize> {
    let none = || vec![0usize; 1 << 16];
    let runs = values.par_chunks(RUN).fold(none, |mut counts, run| {
        for value in run {
            if let Some(number) = number(key_of(*value), *value) {
                counts[number] += 1;
            }
        }
        counts
    });
    runs.reduce(none, |mut counts, more| {
        counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        counts
    })
}

/// The number on which a rank falls, and the rank among its values.
fn find(counts: &[usize], mut rank: usize) -> (usize, usize) {
    for (number, count) in counts.iter().enumerate() {
        match rank.checked_sub(*count) {
            Some(rest) => rank = rest,
            None => return (number, rank),
        }
    }
    (counts.len() - 1, 0)
}

/// A number whose order is that of the values.
fn key_of(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

fn of_key(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}

/// Mean and deviation of the values that `taken` gives for them.
fn moments(values: &[f32], taken: impl Fn(f32) -> Option<f32> + Sync) -> (f32, f32) {
    let sum = |each: &(dyn Fn(f64) -> f64 + Sync)| {
        let run = |run: &[f32]| -> f64 {
            run.iter().filter_map(|v| taken(*v)).map(|v| each(f64::from(v))).sum()
        };
        values.par_chunks(RUN).map(run).collect::<Vec<_>>().into_iter().sum::<f64>()
    };
    let count = sum(&|_| 1.0).max(1.0);
    let mean = sum(&|v| v) / count;
    let variance = sum(&|v| (v - mean).powi(2)) / count;
    (mean as f32, variance.sqrt() as f32)
}

/// Within bounds; whatever their order, and whether or not they are numbers, never a panic.
fn clip(value: f32, lower: f32, upper: f32) -> f32 {
    value.max(lower).min(upper)
}

/// How much values are multiplied by to have a deviation of 1; 0 where they differ by rounding alone.
fn scale(mean: f32, std: f32) -> f32 {
    if std > 1e-8 && std > 1e-6 * mean.abs() { 1.0 / std } else { 0.0 }
}

/// `(value - mean) * scale`, finite for whatever finite values.
fn standard(value: f32, mean: f32, scale: f32) -> f32 {
    let plain = (value - mean) * scale;
    if plain.is_finite() {
        return plain;
    }
    let wide = (f64::from(value) - f64::from(mean)) * f64::from(scale);
    let most = f64::from(f32::MAX);
    if wide.is_nan() { 0.0 } else { wide.clamp(-most, most) as f32 }
}

impl Normalisation {
    /// Whether a plan may have it.
    pub fn is_usable(&self) -> bool {
        match self {
            Self::ZScore | Self::Published => true,
            Self::Fixed { lower, upper, mean, std } => {
                let finite = [lower, upper, mean, std].into_iter().all(|v| v.is_finite());
                finite && lower <= upper && *std >= 0.0
            }
        }
    }

    /// What lies beyond a case: the lower bound where bounds are fixed (air in a CT), else 0, the mean.
    pub(super) fn outside(&self) -> f32 {
        match self {
            Self::Fixed { lower, mean, std, .. } => standard(*lower, *mean, scale(*mean, *std)),
            _ => 0.0,
        }
    }

    /// Normalises one channel in place; a constant one becomes zero. Finite values stay finite.
    pub fn apply(&self, values: &mut [f32]) {
        let (lower, upper, mean, std) = match self {
            Self::Fixed { lower, upper, mean, std } => (*lower, *upper, *mean, *std),
            Self::ZScore => {
                let measured = |v: f32| v != 0.0;
                let [lower, upper] = percentiles(values, measured, [0.5, 99.5]);
                let clipped = |v: f32| measured(v).then(|| clip(v, lower, upper));
                let (mean, std) = moments(values, clipped);
                (lower.min(0.0), upper.max(0.0), mean, std)
            }
            Self::Published => {
                values.par_iter_mut().for_each(|v| *v = v.max(-1024.0));
                let [lower, upper] = percentiles(values, |_| true, [2.0, 98.0]);
                let clipped = |v: f32| Some(clip(v, lower, upper)).filter(|v| *v > 0.0);
                let (mean, std) = moments(values, clipped);
                (lower, upper, mean, std)
            }
        };
        let scale = scale(mean, std);
        let zero = matches!(self, Self::Published);
        values.par_iter_mut().for_each(|v| {
            let clipped = clip(*v, lower, upper);
            *v = if zero && clipped == 0.0 { 0.0 } else { standard(clipped, mean, scale) };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_values() {
        let mut state = 9u32;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 20) as f32 - 1800.0) / 7.0
        };
        for count in [0, 1, 2, 1000, 600_001] {
            let values: Vec<f32> = (0..count).map(|_| noise()).collect();
            let mut sorted: Vec<f32> = values.iter().copied().filter(|v| *v > -100.0).collect();
            sorted.sort_by(f32::total_cmp);
            let found = percentiles(&values, |v| v > -100.0, [0.5, 99.5]);
            assert_eq!(found, [0.5, 99.5].map(|percent| percentile(&sorted, percent)), "{count}");
        }
        for value in [0.0, -0.0, 1.5, -1.5, f32::MAX, f32::MIN] {
            assert_eq!(of_key(key_of(value)).to_bits(), value.to_bits());
        }
    }

    #[test]
    fn the_bits_are_the_same_on_any_number_of_threads() {
        let values: Vec<f32> = (0..RUN * 3).map(|i| (i % 1013) as f32 * 0.37).collect();
        for kind in [Normalisation::ZScore, Normalisation::Published] {
            let with = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let mut values = values.clone();
                pool.install(|| kind.apply(&mut values));
                values
            };
            assert_eq!(with(1), with(3));
        }
    }

    #[test]
    fn beyond_a_ct_lies_its_lower_bound() {
        let ct = Normalisation::Fixed { lower: -160.0, upper: 240.0, mean: 40.0, std: 100.0 };
        assert_eq!((ct.outside(), Normalisation::ZScore.outside()), (-2.0, 0.0));
    }

    #[test]
    fn whatever_finite_values_come_finite_ones_go() {
        let wild = [f32::MAX, f32::MIN, 0.0, 1e30, -1e30, f32::MIN_POSITIVE, 1e-30, -7.0, 7.0];
        let fixed = |lower, upper, mean, std| Normalisation::Fixed { lower, upper, mean, std };
        let kinds = [
            Normalisation::ZScore,
            Normalisation::Published,
            fixed(-160.0, 240.0, 40.0, 100.0),
            // what a plan that was edited by hand may hold
            fixed(1.0, -1.0, 0.0, 1e-7),
            fixed(f32::MIN, f32::MAX, f32::MIN, 1e-7),
            fixed(f32::NAN, f32::INFINITY, f32::NAN, f32::NAN),
            fixed(f32::NEG_INFINITY, f32::INFINITY, f32::INFINITY, 1.0),
        ];
        for kind in &kinds {
            assert!(kind.outside().is_finite(), "{kind:?}");
            for count in 0..=wild.len() {
                let mut values = wild[..count].to_vec();
                kind.apply(&mut values);
                assert!(values.iter().all(|v| v.is_finite()), "{kind:?}: {values:?}");
            }
        }
    }
}
