//! A domain's plan.

use std::path::Path;

use super::inference::{CleanUp, Weighting};
use super::written::WrittenPlan;
use crate::base::{Error, Result};
use crate::dataset::Labels;
use crate::imaging::{Normalisation, Resampling};

/// A domain's plan: plain and editable.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(from = "WrittenPlan")]
#[non_exhaustive]
pub struct DomainPlan {
    /// Of the domain, by which runs and models tell it from others.
    pub name: String,
    /// Image channels.
    pub channels: usize,
    /// What the network tells apart, and the label values that mean it.
    pub labels: Labels,
    /// Millimetres, D, H, W.
    pub spacing: [f64; 3],
    /// Voxels that the network sees, D, H, W; divisible by 2^pools.
    pub patch: [usize; 3],
    /// Voxels of the case that a patch covers, D, H, W, where they are resized to `patch`; otherwise they are `patch`. Files
    /// call it `cut`.
    #[serde(rename = "cut", default, skip_serializing_if = "Option::is_none")]
    pub crop: Option<[usize; 3]>,
    /// Halvings of D, H, W.
    pub pools: [usize; 3],
    /// Samples a step.
    pub batch: usize,
    /// How intensities become comparable.
    pub normalisation: Normalisation,
    /// What images are resampled by: `cubic` along all axes; `nearest_across` or `linear_across` where the spacing is
    /// anisotropic, along its coarsest axis alone. Plans without it were made for `cubic`.
    #[serde(default)]
    pub resampling: Resampling,
    /// The published plan that this one follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// How much the voxels of a window count when a volume is segmented.
    #[serde(default)]
    pub weighting: Weighting,
    /// What is done to predicted masks, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clean_up: Vec<CleanUp>,
}

/// Voxels along an axis, and in all, that a patch has at most.
const MOST: (usize, usize) = (4096, 1 << 30);

impl DomainPlan {
    /// Refuses a plan, as found in a file, that nothing can be trained with.
    pub fn check(&self, path: &Path) -> Result<()> {
        let refuse = |field: &str, found: String, expected: &str| {
            let found = format!("{field} {found} of domain {}", self.name);
            Err(Error::file(path, found, expected, "Correct the line."))
        };
        let fits = |size: &[usize; 3]| {
            size.iter().all(|n| (1..=MOST.0).contains(n))
                && size.iter().product::<usize>() <= MOST.1
        };
        for (field, size) in [("patch", Some(self.patch)), ("cut", self.crop)] {
            if let Some(size) = size.filter(|size| !fits(size)) {
                return refuse(field, format!("{size:?}"), "1 to 4096 voxels an axis, 2^30 in all");
            }
        }
        let whole = |axis: usize| self.patch[axis].is_multiple_of(1 << self.pools[axis].min(6));
        if self.pools.iter().any(|pools| *pools > 6) || !(0..3).all(whole) {
            let found = format!("{:?} with a patch of {:?}", self.pools, self.patch);
            return refuse("pools", found, "at most 6, and a patch divisible by 2^pools");
        }
        if !self.spacing.iter().all(|mm| mm.is_finite() && *mm > 0.0) {
            return refuse("spacing", format!("{:?}", self.spacing), "millimetres above 0");
        }
        if !(1..=1024).contains(&self.batch) {
            return refuse("batch", self.batch.to_string(), "1 to 1024 samples");
        }
        if self.channels == 0 {
            return refuse("channels", "0".into(), "at least 1");
        }
        if let Err(unusable) = self.labels.check().and_then(|()| self.labels.check_written()) {
            return refuse("labels", unusable.found, unusable.expected);
        }
        let normalisation = &self.normalisation;
        if !normalisation.is_usable() {
            let expected = "finite numbers, a lower and an upper bound, a deviation from 0";
            return refuse("normalisation", format!("{normalisation:?}"), expected);
        }
        self.check_clean_up().or_else(|found| refuse("clean_up", found, "the plan's classes"))
    }

    fn check_clean_up(&self) -> std::result::Result<(), String> {
        let classes = self.labels.outputs();
        if let Some(each) = self.clean_up.iter().find(|c| usize::from(c.class) >= classes) {
            return Err(format!("of class {}", each.class));
        }
        if self.labels.regions && !self.clean_up.is_empty() {
            return Err("of regions, which may overlap".into());
        }
        Ok(())
    }

    /// Voxels of the case that a patch covers, D, H, W.
    pub fn crop_size(&self) -> [usize; 3] {
        self.crop.unwrap_or(self.patch)
    }
}

impl From<WrittenPlan> for DomainPlan {
    fn from(plan: WrittenPlan) -> Self {
        let labels = plan.labels();
        let WrittenPlan {
            name, channels, spacing, patch, crop, pools, batch, normalisation, ..
        } = plan;
        Self {
            name,
            channels,
            labels,
            spacing,
            patch,
            crop,
            pools,
            batch,
            normalisation,
            resampling: plan.resampling,
            preset: plan.preset,
            weighting: plan.weighting,
            clean_up: plan.clean_up,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::inference::CleanUpStep;
    use super::*;

    #[test]
    fn impossible_plans_name_the_field() {
        let good = DomainPlan {
            name: "A".into(),
            channels: 1,
            labels: Labels::plain(["background", "a"]),
            spacing: [1.0; 3],
            patch: [16; 3],
            crop: Some([20, 30, 20]),
            pools: [2; 3],
            batch: 2,
            normalisation: Normalisation::ZScore,
            resampling: Resampling::Cubic,
            preset: None,
            weighting: Weighting::Gaussian,
            clean_up: vec![CleanUp { class: 1, steps: vec![CleanUpStep::Largest] }],
        };
        let reversed = Normalisation::Fixed { lower: 1.0, upper: 0.0, mean: 0.0, std: 1.0 };
        let path = Path::new("plan.json");
        good.check(path).unwrap();
        for (field, bad) in [
            ("patch", DomainPlan { patch: [0, 16, 16], ..good.clone() }),
            ("cut", DomainPlan { crop: Some([16, 16, 0]), ..good.clone() }),
            ("cut", DomainPlan { crop: Some([4096; 3]), ..good.clone() }),
            ("pools", DomainPlan { pools: [9, 2, 2], ..good.clone() }),
            ("pools", DomainPlan { patch: [16, 16, 18], ..good.clone() }),
            ("spacing", DomainPlan { spacing: [1.0, -1.0, 1.0], ..good.clone() }),
            ("batch", DomainPlan { batch: 0, ..good.clone() }),
            ("labels", DomainPlan { labels: Labels::plain(["background"]), ..good.clone() }),
            ("channels", DomainPlan { channels: 0, ..good.clone() }),
            ("normalisation", DomainPlan { normalisation: reversed, ..good.clone() }),
            (
                "clean_up",
                DomainPlan { clean_up: vec![CleanUp { class: 2, steps: vec![] }], ..good.clone() },
            ),
        ] {
            let message = bad.check(path).unwrap_err().to_string();
            assert!(message.contains(field) && message.contains("plan.json"), "{message}");
        }
    }
}
