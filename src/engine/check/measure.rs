//! How far a result may be from what the oracle says.

use crate::engine::graph::DType;

/// What an error is measured by, and how large it may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// Of any value, as a share of the largest expected. Where tensors are stored in f16, 500 times as much of the mean square: single
    /// values may be off by more, as an activation's derivative jumps where rounding changes a sign.
    OfLargest(f64),
    /// Of each value as a share of itself, taken for no less than `floor`.
    OfEach {
        /// The share.
        share: f64,
        /// The least value that it is taken of.
        floor: f64,
    },
    /// Of any value.
    Absolute(f64),
}

/// How much more tensors in f16 may be off.
const F16: f64 = 500.0;

/// A result as it should be.
#[derive(Debug, Clone)]
pub(super) struct Expected {
    /// What was compared.
    pub what: String,
    pub values: Vec<f64>,
    pub tolerance: Tolerance,
    /// Whether there is none in inference.
    pub gradient: bool,
}

/// A result that was compared.
#[derive(Debug, Clone)]
pub struct Compared {
    /// What was compared.
    pub what: String,
    /// As the tolerance measures it.
    pub error: f64,
    /// The error that is allowed.
    pub allowed: f64,
}

impl Compared {
    /// The error over what is allowed: above 1 fails.
    pub fn share(&self) -> f64 {
        match self.error {
            0.0 => 0.0,
            error => error / self.allowed,
        }
    }
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    // a value that is no number is the largest error
    values.map(|v| if v.is_nan() { f64::INFINITY } else { v }).fold(0.0, f64::max)
}

fn mean_square(found: &[f64], expected: &[f64]) -> f64 {
    let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
    let error = square(&mut found.iter().zip(expected).map(|(f, e)| f - e));
    let error = (error / square(&mut expected.iter().copied()).max(1e-6)).sqrt();
    if error.is_nan() { f64::INFINITY } else { error }
}

impl Expected {
    /// The error of what was found where tensors are stored so.
    pub fn compare(&self, found: &[f64], dtype: DType) -> Compared {
        let differences = || found.iter().zip(&self.values).map(|(f, e)| (f - e).abs());
        let (error, allowed) = match (self.tolerance, dtype) {
            (Tolerance::OfLargest(share), DType::F32) => {
                let scale = self.values.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
                (largest(differences()) / scale, share)
            }
            (Tolerance::OfLargest(share), DType::F16) => {
                (mean_square(found, &self.values), F16 * share)
            }
            (Tolerance::OfEach { share, floor }, _) => {
                let scales = self.values.iter().map(|e| e.abs().max(floor));
                let shares = differences().zip(scales).map(|(error, scale)| match error {
                    0.0 => 0.0,
                    error => error / scale,
                });
                (largest(shares), share)
            }
            (Tolerance::Absolute(most), _) => (largest(differences()), most),
        };
        let error = if found.len() == self.values.len() { error } else { f64::INFINITY };
        Compared { what: self.what.clone(), error, allowed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(found: &[f64], expected: &[f64], tolerance: Tolerance, dtype: DType) -> f64 {
        let (what, values) = ("y".into(), expected.to_vec());
        let compared = Expected { what, values, tolerance, gradient: false }.compare(found, dtype);
        assert_eq!(compared.share() > 1.0, compared.error > compared.allowed);
        compared.error
    }

    #[test]
    fn errors_are_of_the_largest_value_and_no_number_fails() {
        for tolerance in [
            Tolerance::OfLargest(1e-4),
            Tolerance::OfEach { share: 1e-4, floor: 0.0 },
            Tolerance::Absolute(0.0),
        ] {
            for dtype in [DType::F32, DType::F16] {
                assert_eq!(error(&[1.0, 2.0], &[1.0, 2.0], tolerance, dtype), 0.0);
                assert_eq!(error(&[f64::NAN, 1.0], &[1.0, 1.0], tolerance, dtype), f64::INFINITY);
                assert_eq!(error(&[1.0], &[1.0, 2.0], tolerance, dtype), f64::INFINITY);
            }
        }
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        let of = |tolerance, dtype| error(&[1.0, 3.0], &[1.0, 4.0], tolerance, dtype);
        assert!(near(of(Tolerance::OfLargest(1.0), DType::F32), 0.25));
        assert!(near(of(Tolerance::OfLargest(1.0), DType::F16), (1.0f64 / 17.0).sqrt()));
        assert!(near(of(Tolerance::OfEach { share: 1.0, floor: 8.0 }, DType::F32), 0.125));
        assert!(near(of(Tolerance::Absolute(1.0), DType::F32), 1.0));
        // what should be zero is exactly zero where each value counts alone
        let each = Tolerance::OfEach { share: 1.0, floor: 0.0 };
        assert_eq!(error(&[1e-30], &[0.0], each, DType::F32), f64::INFINITY);
    }
}
