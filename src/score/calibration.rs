//! Whether probabilities are what they say: of the voxels that a class is given 0.8 for, it should be four in five.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::class_key::ClassKey;
use super::words::{listed, name, number};

/// Bins of equal width that probabilities from 0 to 1 fall into.
pub const BINS: usize = 15;
/// Millimetres by which the box about the foreground is grown whose voxels count: of a whole image almost all voxels are
/// background beyond doubt, which says nothing.
pub const MARGIN_MM: f64 = 10.0;

/// Voxels whose probabilities fall into a bin.
#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    voxels: u64,
    probability: f64,
    hits: u64,
}

/// Probabilities of a class against what is true, one against the rest.
#[derive(Debug, Clone, Default)]
pub(super) struct Bins([Bin; BINS]);

impl Bins {
    /// Counts a voxel that was given this probability, and whether it is of the class.
    pub fn add(&mut self, probability: f32, is_class: bool) {
        let p = f64::from(probability).clamp(0.0, 1.0);
        let bin = &mut self.0[((p * BINS as f64) as usize).min(BINS - 1)];
        bin.voxels += 1;
        bin.probability += p;
        bin.hits += u64::from(is_class);
    }

    pub fn join(&mut self, other: &Self) {
        for (bin, more) in self.0.iter_mut().zip(&other.0) {
            bin.voxels += more.voxels;
            bin.probability += more.probability;
            bin.hits += more.hits;
        }
    }

    fn calibration(&self) -> ClassCalibration {
        let voxels: u64 = self.0.iter().map(|bin| bin.voxels).sum();
        let off: f64 = self.0.iter().map(|bin| (bin.probability - bin.hits as f64).abs()).sum();
        let reliability = self.0.iter().enumerate().map(|(at, bin)| {
            let mean = |sum: f64| (bin.voxels > 0).then(|| sum / bin.voxels as f64);
            ReliabilityBin {
                from: at as f64 / BINS as f64,
                to: (at + 1) as f64 / BINS as f64,
                voxels: bin.voxels,
                mean_probability: mean(bin.probability),
                frequency: mean(bin.hits as f64),
            }
        });
        ClassCalibration {
            ece: (voxels > 0).then(|| off / voxels as f64),
            voxels,
            reliability: reliability.collect(),
        }
    }
}

/// How well the probabilities of masks are calibrated, over the voxels of all cases that have any: those within a box about the
/// foreground of reference and prediction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Calibration {
    /// Cases with probabilities.
    pub cases: usize,
    /// Millimetres by which the box about the foreground is grown.
    pub margin_mm: f64,
    /// All classes but background together: each voxel counts once a class.
    pub foreground: ClassCalibration,
    /// Each class against the rest.
    pub classes: BTreeMap<ClassKey, ClassCalibration>,
}

/// The calibration of a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassCalibration {
    /// Expected calibration error (Naeini et al. 2015, Guo et al. 2017): over bins of equal width the mean distance of mean
    /// probability and observed frequency, weighted by the bins' voxels. None without voxels.
    #[serde(rename = "ECE")]
    pub ece: Option<f64>,
    /// Voxels that count.
    pub voxels: u64,
    /// The bins.
    pub reliability: Vec<ReliabilityBin>,
}

/// A bin of a reliability diagram.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Where it begins.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// Voxels in it.
    pub voxels: u64,
    /// Their mean probability; none without voxels.
    pub mean_probability: Option<f64>,
    /// The share of them that is of the class.
    pub frequency: Option<f64>,
}

impl Calibration {
    /// Of the bins of each case; none where no case has any.
    pub(super) fn of<'a>(
        cases: impl Iterator<Item = &'a BTreeMap<ClassKey, Bins>>,
    ) -> Option<Self> {
        let (mut all, mut classes) = (Bins::default(), BTreeMap::<ClassKey, Bins>::new());
        let mut count = 0;
        for case in cases.filter(|case| !case.is_empty()) {
            count += 1;
            for (class, bins) in case {
                classes.entry(class.clone()).or_default().join(bins);
                all.join(bins);
            }
        }
        (count > 0).then(|| Self {
            cases: count,
            margin_mm: MARGIN_MM,
            foreground: all.calibration(),
            classes: classes.into_iter().map(|(class, bins)| (class, bins.calibration())).collect(),
        })
    }

    /// In a sentence, with the names of the classes.
    pub(super) fn told(&self, names: &BTreeMap<ClassKey, String>) -> String {
        let error = |of: &ClassCalibration| number(of.ece.unwrap_or(f64::NAN), 4);
        let classes =
            self.classes.iter().map(|(c, of)| format!("{} {}", name(c, names), error(of)));
        let classes: Vec<String> = classes.collect();
        format!(
            "Calibration error (ECE) within {MARGIN_MM} mm of the foreground: {} overall; {}.\n",
            error(&self.foreground),
            listed(&classes),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_weighted_by_the_voxels_of_bins() {
        let mut bins = Bins::default();
        // 10 voxels at 0.9 of which 7 are of the class, 30 at 0.1 of which 3 are
        (0..10).for_each(|i| bins.add(0.9, i < 7));
        (0..30).for_each(|i| bins.add(0.1, i < 3));
        bins.add(1.0, true);
        let told = bins.calibration();
        let ece = told.ece.unwrap();
        assert!((ece - 10.0 * 0.2 / 41.0).abs() < 1e-6, "{ece}");
        assert_eq!((told.voxels, told.reliability.len()), (41, BINS));
        assert_eq!(told.reliability[13].voxels, 10);
        assert_eq!(told.reliability[13].frequency, Some(0.7));
        assert_eq!(told.reliability[14].voxels, 1);
        assert_eq!(told.reliability[5].mean_probability, None);
    }

    #[test]
    fn cases_and_classes_are_pooled() {
        let (mut sure, mut none) = (Bins::default(), Bins::default());
        sure.add(1.0, true);
        none.add(1.0, false);
        let case = |bins: &Bins| BTreeMap::from([(ClassKey::from(1), bins.clone())]);
        let cases = [case(&sure), case(&none), BTreeMap::new()];
        let told = Calibration::of(cases.iter()).unwrap();
        assert_eq!((told.cases, told.foreground.ece), (2, Some(0.5)));
        assert_eq!(told.classes[&1.into()].ece, Some(0.5));
        assert_eq!(Calibration::of([BTreeMap::new()].iter()), None);
    }
}
