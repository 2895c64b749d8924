//! Intensities of channels made comparable.

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

fn moments<'a>(values: impl Iterator<Item = &'a f32> + Clone) -> (f32, f32) {
    let count = values.clone().count().max(1) as f64;
    let mean = values.clone().map(|v| f64::from(*v)).sum::<f64>() / count;
    let variance = values.map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / count;
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
                let mut sorted: Vec<f32> = values.iter().copied().filter(|v| *v != 0.0).collect();
                sorted.sort_by(f32::total_cmp);
                let (lower, upper) = (percentile(&sorted, 0.5), percentile(&sorted, 99.5));
                sorted.iter_mut().for_each(|v| *v = clip(*v, lower, upper));
                let (mean, std) = moments(sorted.iter());
                (lower.min(0.0), upper.max(0.0), mean, std)
            }
            Self::Published => {
                values.iter_mut().for_each(|v| *v = v.max(-1024.0));
                let mut sorted = values.to_vec();
                sorted.sort_by(f32::total_cmp);
                let (lower, upper) = (percentile(&sorted, 2.0), percentile(&sorted, 98.0));
                sorted.iter_mut().for_each(|v| *v = clip(*v, lower, upper));
                let (mean, std) = moments(sorted.iter().filter(|v| **v > 0.0));
                (lower, upper, mean, std)
            }
        };
        let scale = scale(mean, std);
        let zero = matches!(self, Self::Published);
        values.iter_mut().for_each(|v| {
            let clipped = clip(*v, lower, upper);
            *v = if zero && clipped == 0.0 { 0.0 } else { standard(clipped, mean, scale) };
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
