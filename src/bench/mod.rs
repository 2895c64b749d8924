//! What an adapter can do, and what the kernels make of it: rooflines, named configurations, timings.

mod config;
mod measure;
mod roofline;
mod table;

pub use config::{Configuration, NAMES};
pub use measure::{ConfigurationReport, KernelReport, Timing, least, planned, workloads};
pub use roofline::Roofline;
pub use table::{CaseReport, time_table};

/// The median; the mean of the middle two for an even count.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn median_of_few() {
        assert_eq!(super::median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(super::median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(super::median(Vec::new()).is_nan());
    }
}
