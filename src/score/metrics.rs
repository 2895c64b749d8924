//! Overlap and surface-distance scores of one class in one case, on the original voxel grid.
//!
//! A surface is the set of a mask's voxels with at least one of six face neighbours outside the mask (the outside of
//! the volume counts as outside). Distances run between voxel centres in millimetres and are exact.
//!
//! | | Dice, IoU | NSD | HD95, ASSD |
//! |---|---|---|---|
//! | both masks empty | NaN | NaN | NaN |
//! | one mask empty | 0 | 0 | NaN |
//!
//! NaN is written to JSON as null and left out of the mean over cases, as nnU-Net does. Voxels that carry the ignore value in
//! the reference are in no count and in neither mask.

use std::borrow::Cow;

use ndarray::ArrayView3;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::class_key::ClassKey;
use super::tally::Distances;
use crate::base::{Error, Result};
use crate::imaging::surface::Mask;
use crate::imaging::{LabelMap, row_major};

/// Tolerance of the normalised surface Dice where none is given, in millimetres.
pub const DEFAULT_TOLERANCE_MM: f64 = 1.0;

/// Scores of one class; `N` is the type of the voxel counts (`u64` for a case, `f64` for a mean).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scores<N = u64> {
    /// 2 TP / (2 TP + FP + FN).
    #[serde(rename = "Dice", with = "nan_as_null")]
    pub dice: f64,
    /// TP / (TP + FP + FN).
    #[serde(rename = "IoU", with = "nan_as_null")]
    pub iou: f64,
    /// Reference voxels that the prediction misses.
    #[serde(rename = "FN")]
    pub fn_: N,
    /// Predicted voxels outside the reference.
    #[serde(rename = "FP")]
    pub fp: N,
    /// Voxels in neither.
    #[serde(rename = "TN")]
    pub tn: N,
    /// Voxels in both.
    #[serde(rename = "TP")]
    pub tp: N,
    /// Voxels of the prediction, TP + FP.
    pub n_pred: N,
    /// Voxels of the reference, TP + FN.
    pub n_ref: N,
    /// The larger of the two directions' 95th percentile surface distance, mm (percentiles interpolate linearly).
    #[serde(rename = "HD95", with = "nan_as_null")]
    pub hd95: f64,
    /// Average symmetric surface distance, mm: mean over the voxels of both surfaces.
    #[serde(rename = "ASSD", with = "nan_as_null")]
    pub assd: f64,
    /// Normalised surface Dice: share of both surfaces' voxels within the tolerance of the other surface.
    #[serde(rename = "NSD", with = "nan_as_null")]
    pub nsd: f64,
}

impl Scores {
    /// Of a class that neither mask of a case has, where so many voxels count.
    pub fn absent(voxels: u64) -> Self {
        let [dice, iou, hd95, assd, nsd] = [f64::NAN; 5];
        let [fn_, fp, tp, n_pred, n_ref] = [0; 5];
        Self { dice, iou, fn_, fp, tn: voxels, tp, n_pred, n_ref, hd95, assd, nsd }
    }
}

/// JSON has no NaN: it is written as null and read back.
mod nan_as_null {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            serializer.serialize_f64(*value)
        } else {
            serializer.serialize_none()
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
    }
}

/// How often each label value of the reference meets each one of the prediction, ignored voxels left out.
pub struct Confusion {
    /// Reference × prediction, 256 each.
    counts: Vec<u64>,
}

/// Voxels that a thread counts at a time.
const RUN: usize = 1 << 20;

impl Confusion {
    /// Voxels that count.
    pub fn voxels(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Values above 0 that the reference or the prediction holds, ascending.
    pub fn values(&self) -> Vec<u8> {
        let there = |value: usize| {
            (0..256).any(|other| {
                self.counts[value * 256 + other] + self.counts[other * 256 + value] > 0
            })
        };
        (1..=255u8).filter(|value| there(usize::from(*value))).collect()
    }

    /// Overlap of one class; distances are NaN, as for empty masks.
    fn overlap(&self, class: &ClassKey) -> Scores {
        let table = class.table();
        let [mut tp, mut fp, mut fn_, mut tn] = [0u64; 4];
        for (row, in_reference) in self.counts.chunks_exact(256).zip(table) {
            for (count, in_prediction) in row.iter().zip(table) {
                match (in_reference, in_prediction) {
                    (true, true) => tp += count,
                    (false, true) => fp += count,
                    (true, false) => fn_ += count,
                    (false, false) => tn += count,
                }
            }
        }
        let (n_pred, n_ref) = (tp + fp, tp + fn_);
        // 0 / 0 is NaN where both masks are empty.
        let dice = (2 * tp) as f64 / (n_pred + n_ref) as f64;
        let iou = tp as f64 / (tp + fp + fn_) as f64;
        let [hd95, assd, nsd] = [f64::NAN; 3];
        Scores { dice, iou, fn_, fp, tn, tp, n_pred, n_ref, hd95, assd, nsd }
    }
}

/// A prediction and its reference on the same grid.
#[derive(Debug, Clone)]
pub struct Comparison<'a> {
    truth: Cow<'a, [u8]>,
    prediction: Cow<'a, [u8]>,
    shape: [usize; 3],
    spacing: [f64; 3],
    ignore: Option<u8>,
}

impl<'a> Comparison<'a> {
    /// Label maps D, H, W, `spacing` in millimetres in the same order.
    ///
    /// # Errors
    ///
    /// Where the two have different shapes, or an axis no positive size.
    pub fn new(
        truth: ArrayView3<'a, u8>,
        prediction: ArrayView3<'a, u8>,
        spacing: [f64; 3],
    ) -> Result<Self> {
        let (d, h, w) = truth.dim();
        if prediction.dim() != (d, h, w) {
            let (found, expected) = (prediction.shape(), truth.shape());
            let message =
                format!("a prediction of {found:?} voxels for a reference of {expected:?}");
            return Err(Error::shape("metrics", message));
        }
        if spacing.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return Err(Error::shape(
                "metrics",
                format!("spacing {spacing:?} mm; every axis needs a positive size"),
            ));
        }
        let (truth, prediction) = (row_major(truth), row_major(prediction));
        Ok(Self { truth, prediction, shape: [d, h, w], spacing, ignore: None })
    }

    /// Of two label maps; the reference's grid has the spacing.
    ///
    /// # Errors
    ///
    /// Where the two have different shapes.
    pub fn of(truth: &'a LabelMap, prediction: &'a LabelMap) -> Result<Self> {
        Self::new(truth.data().view(), prediction.data().view(), truth.spacing())
    }

    /// Leaves out the voxels of this value in the reference.
    pub fn ignoring(self, ignore: Option<u8>) -> Self {
        Self { ignore, ..self }
    }

    /// Counts the pairs of values.
    pub fn confusion(&self) -> Confusion {
        let add = |mut counts: Vec<u64>, more: Vec<u64>| {
            counts.iter_mut().zip(more).for_each(|(count, more)| *count += more);
            counts
        };
        let none = || vec![0u64; 256 * 256];
        // neighbours are mostly alike
        let count = |mut counts: Vec<u64>, (truth, prediction): (&[u8], &[u8])| {
            let (mut pair, mut run) = (0, 0);
            for (t, p) in truth.iter().zip(prediction) {
                let next = usize::from(*t) * 256 + usize::from(*p);
                if next != pair {
                    counts[pair] += run;
                    (pair, run) = (next, 0);
                }
                run += 1;
            }
            counts[pair] += run;
            counts
        };
        let runs = self.truth.par_chunks(RUN).zip(self.prediction.par_chunks(RUN));
        let mut counts = runs.fold(none, count).reduce(none, add);
        if let Some(ignore) = self.ignore {
            counts[usize::from(ignore) * 256..][..256].fill(0);
        }
        Confusion { counts }
    }

    /// The Dice of several classes alone; none of one that neither mask has.
    pub fn dice(&self, classes: &[ClassKey]) -> Vec<Option<f64>> {
        let confusion = self.confusion();
        let dice = |class: &ClassKey| Some(confusion.overlap(class).dice).filter(|d| !d.is_nan());
        classes.iter().map(dice).collect()
    }

    /// Scores of one class; surface Dice at `tolerance` mm.
    pub fn scores(&self, class: &ClassKey, tolerance: f64) -> Scores {
        self.scores_of(&self.confusion(), class, tolerance)
    }

    /// Scores of several classes, one after another: all cores work on each, and no two take memory.
    pub fn all_scores(&self, classes: &[ClassKey], tolerance: f64) -> Vec<Scores> {
        self.all_scores_of(&self.confusion(), classes, tolerance)
    }

    /// As [`Comparison::all_scores`], with the counts of this pair at hand.
    pub fn all_scores_of(
        &self,
        confusion: &Confusion,
        classes: &[ClassKey],
        tolerance: f64,
    ) -> Vec<Scores> {
        classes.iter().map(|class| self.scores_of(confusion, class, tolerance)).collect()
    }

    fn scores_of(&self, confusion: &Confusion, class: &ClassKey, tolerance: f64) -> Scores {
        let overlap = confusion.overlap(class);
        match (overlap.n_pred > 0, overlap.n_ref > 0) {
            (true, true) => {
                let Surface { hd95, assd, nsd } = self.surface(class, tolerance);
                Scores { hd95, assd, nsd, ..overlap }
            }
            (false, false) => overlap,
            _ => Scores { nsd: 0.0, ..overlap },
        }
    }

    /// Surface distances of two non-empty masks.
    fn surface(&self, class: &ClassKey, tolerance: f64) -> Surface {
        let table = class.table();
        let mask = |labels| {
            let mask = Mask::new(labels, self.shape, &table);
            self.ignore.map_or(mask, |ignore| mask.except(&self.truth, ignore))
        };
        let (truth, prediction) = (mask(&self.truth), mask(&self.prediction));
        // A distance equal to the tolerance is within it, whatever the rounding.
        let tolerance = tolerance + 1e-9;
        let there = Distances::measure(&prediction, &truth, self.spacing, tolerance);
        let back = Distances::measure(&truth, &prediction, self.spacing, tolerance);
        let count = (there.count + back.count) as f64;
        Surface {
            hd95: there.hd95.max(back.hd95),
            assd: (there.sum + back.sum) / count,
            nsd: (there.near + back.near) as f64 / count,
        }
    }
}

struct Surface {
    hd95: f64,
    assd: f64,
    nsd: f64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::VoxelBox;

    fn cube(shape: [usize; 3], low: [usize; 3], high: [usize; 3]) -> Vec<u8> {
        let mut labels = vec![0; shape.iter().product()];
        VoxelBox { low, high }.rows(shape).for_each(|row| labels[row].fill(1));
        labels
    }

    fn comparison<'a>(
        truth: &'a [u8],
        prediction: &'a [u8],
        shape: [usize; 3],
        spacing: [f64; 3],
    ) -> Comparison<'a> {
        let [truth, prediction] =
            [truth, prediction].map(|labels| ArrayView3::from_shape(shape, labels).unwrap());
        Comparison::new(truth, prediction, spacing).unwrap()
    }

    fn scores(truth: &[u8], prediction: &[u8], shape: [usize; 3], spacing: [f64; 3]) -> Scores {
        comparison(truth, prediction, shape, spacing).scores(&1.into(), DEFAULT_TOLERANCE_MM)
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12 || (a.is_nan() && b.is_nan())
    }

    #[test]
    fn identical_masks_score_perfectly() {
        let truth = cube([6, 6, 6], [1, 1, 1], [4, 5, 4]);
        let s = scores(&truth, &truth, [6, 6, 6], [3.0, 1.0, 0.5]);
        assert_eq!((s.dice, s.iou, s.hd95, s.assd, s.nsd), (1.0, 1.0, 0.0, 0.0, 1.0));
        assert_eq!((s.tp, s.fp, s.fn_, s.tn, s.n_pred, s.n_ref), (36, 0, 0, 180, 36, 36));
    }

    #[test]
    fn dice_alone_is_that_of_the_scores() {
        let shape = [6, 6, 6];
        let truth = cube(shape, [1, 1, 1], [4, 5, 4]);
        let prediction = cube(shape, [2, 1, 1], [5, 5, 4]);
        let compared = comparison(&truth, &prediction, shape, [1.0; 3]);
        let scores = compared.scores(&1.into(), DEFAULT_TOLERANCE_MM);
        assert_eq!(compared.dice(&[1.into(), 2.into()]), [Some(scores.dice), None]);
    }

    #[test]
    fn a_slab_shifted_along_the_depth_axis() {
        // 1x1 columns of 4 voxels, shifted by 2: rows 1..5 and 3..7 at 2.5 mm; every voxel is surface.
        let shape = [8, 1, 1];
        let truth = cube(shape, [1, 0, 0], [5, 1, 1]);
        let prediction = cube(shape, [3, 0, 0], [7, 1, 1]);
        let s = scores(&truth, &prediction, shape, [2.5, 1.0, 1.0]);
        assert_eq!((s.tp, s.fp, s.fn_, s.tn), (2, 2, 2, 2));
        assert!(close(s.dice, 0.5) && close(s.iou, 1.0 / 3.0));
        // Distances each way: 5, 2.5, 0, 0; 95th percentile at 0.95 * 3 = 2.85 between 2.5 and 5.
        assert!(close(s.hd95, 2.5 + 0.85 * 2.5), "{}", s.hd95);
        assert!(close(s.assd, 7.5 / 4.0) && close(s.nsd, 0.5));
        let wide = comparison(&truth, &prediction, shape, [2.5, 1.0, 1.0]).scores(&1.into(), 2.5);
        assert!(close(wide.nsd, 0.75));
    }

    #[test]
    fn a_cube_shifted_by_one_voxel() {
        // 3x3x3 cubes, shifted by one voxel of 2 mm along W: surfaces are all but the centre, 26 voxels each.
        let shape = [5, 5, 6];
        let truth = cube(shape, [1, 1, 1], [4, 4, 4]);
        let prediction = cube(shape, [1, 1, 2], [4, 4, 5]);
        let s = scores(&truth, &prediction, shape, [1.0, 1.0, 2.0]);
        assert_eq!((s.tp, s.fp, s.fn_), (18, 9, 9));
        assert!(close(s.dice, 2.0 / 3.0) && close(s.iou, 0.5));
        // Truth plane x = 1: 9 voxels 2 mm away. Plane 2: 8 rim voxels at 0. Plane 3: 8 at 0 and its centre, which
        // is the prediction's inner voxel, 1 mm from the rim. The other way is the mirror image.
        assert!(close(s.assd, 19.0 / 26.0), "{}", s.assd);
        assert!(close(s.nsd, 17.0 / 26.0) && close(s.hd95, 2.0));
    }

    #[test]
    fn empty_masks_follow_the_table() {
        let (shape, empty) = ([2, 2, 2], vec![0; 8]);
        let full = cube(shape, [0, 0, 0], [1, 1, 1]);
        let s = scores(&empty, &empty, shape, [1.0; 3]);
        assert!([s.dice, s.iou, s.hd95, s.assd, s.nsd].iter().all(|v| v.is_nan()));
        for (truth, prediction) in [(&empty, &full), (&full, &empty)] {
            let s = scores(truth, prediction, shape, [1.0; 3]);
            assert_eq!((s.dice, s.iou, s.nsd), (0.0, 0.0, 0.0));
            assert!(s.hd95.is_nan() && s.assd.is_nan());
        }
        let text = serde_json::to_string(&s).unwrap();
        assert!(text.contains("\"HD95\":null") && text.contains("\"n_ref\":0"), "{text}");
        let back: Scores = serde_json::from_str(&text).unwrap();
        assert!(back.dice.is_nan() && back.tn == 8);
    }

    #[test]
    fn a_region_scores_as_one_value_does() {
        let shape = [6, 6, 6];
        let truth = cube(shape, [1, 1, 1], [4, 5, 4]);
        let prediction = cube(shape, [2, 1, 1], [5, 5, 4]);
        let split = |labels: &[u8]| -> Vec<u8> {
            labels.iter().enumerate().map(|(i, l)| if i % 3 == 0 { l * 7 } else { l * 2 }).collect()
        };
        let (two, seven) = (split(&truth), split(&prediction));
        let region = comparison(&two, &seven, shape, [1.0; 3]);
        let region = region.scores(&ClassKey::new([7, 2]), DEFAULT_TOLERANCE_MM);
        assert_eq!(region, scores(&truth, &prediction, shape, [1.0; 3]));
    }

    #[test]
    fn ignored_voxels_are_in_neither_mask() {
        let shape = [1, 6, 6];
        let mut truth = cube(shape, [0, 0, 0], [1, 3, 6]);
        let prediction = cube(shape, [0, 0, 0], [1, 6, 3]);
        // one row of the reference's three stays, and three rows of the prediction's columns
        truth[6..24].fill(9);
        let pair = comparison(&truth, &prediction, shape, [1.0; 3]).ignoring(Some(9));
        let s = pair.scores(&1.into(), DEFAULT_TOLERANCE_MM);
        assert_eq!((s.tp, s.fp, s.fn_, s.tn, s.n_pred, s.n_ref), (3, 6, 3, 6, 9, 6));
        // as if both had nothing there
        let cleared: Vec<u8> = truth.iter().map(|l| l % 9).collect();
        let mut other = prediction.clone();
        other[6..24].fill(0);
        let c = scores(&cleared, &other, shape, [1.0; 3]);
        assert_eq!((s.hd95, s.assd, s.nsd, s.dice), (c.hd95, c.assd, c.nsd, c.dice));
        assert_eq!(pair.confusion().values(), [1]);
        assert_eq!(pair.confusion().voxels(), 18);
    }

    #[test]
    fn wrong_shapes_and_spacings_are_refused() {
        let two = ndarray::Array3::zeros((2, 2, 2));
        let other = ndarray::Array3::zeros((2, 2, 1));
        assert!(Comparison::new(two.view(), other.view(), [1.0; 3]).is_err());
        assert!(Comparison::new(two.view(), two.view(), [1.0, 0.0, 1.0]).is_err());
    }

    #[test]
    fn cropping_changes_nothing() {
        let shape = [12, 12, 12];
        let small = scores(
            &cube([4, 5, 6], [0, 0, 0], [3, 4, 5]),
            &cube([4, 5, 6], [1, 1, 1], [4, 5, 6]),
            [4, 5, 6],
            [2.0, 1.5, 1.0],
        );
        let large = scores(
            &cube(shape, [5, 4, 3], [8, 8, 8]),
            &cube(shape, [6, 5, 4], [9, 9, 9]),
            shape,
            [2.0, 1.5, 1.0],
        );
        assert_eq!((small.hd95, small.assd, small.nsd), (large.hd95, large.assd, large.nsd));
    }
}
