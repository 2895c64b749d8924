//! A domain's plan.

use std::path::Path;

use super::inference::{CleanUp, Weighting};
use super::written::WrittenPlan;
use crate::base::{Error, Result};
use crate::dataset::{Labels, NAMES, check_name};
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

/// Smallest and largest voxel edge in mm, as image files may have it.
const EDGES: [f64; 2] = [1e-6, 1e6];
/// Channels of an image at most.
const MOST_CHANNELS: usize = 1024;
/// Steps of clean-up at most, and voxels that its closings reach together.
const MOST_STEPS: usize = 1024;

/// What is wrong with a plan.
struct Wrong {
    field: &'static str,
    found: String,
    expected: &'static str,
}

type Checked = std::result::Result<(), Wrong>;

fn wrong(field: &'static str, found: impl Into<String>, expected: &'static str) -> Checked {
    Err(Wrong { field, found: found.into(), expected })
}

impl DomainPlan {
    /// Refuses a plan, as found in a file, that nothing can be trained with.
    pub fn check(&self, path: &Path) -> Result<()> {
        let checked = self.check_sizes().and_then(|()| self.check_voxels());
        checked.and_then(|()| self.check_clean_up()).map_err(|Wrong { field, found, expected }| {
            // a name may hold what a terminal would obey
            let name = self.name.escape_debug();
            let found = format!("{field} {found} of domain {name}");
            Error::file(path, found, expected, "Correct the line.")
        })
    }

    fn check_sizes(&self) -> Checked {
        let fits = |size: &[usize; 3]| {
            size.iter().all(|n| (1..=MOST.0).contains(n))
                && size.iter().product::<usize>() <= MOST.1
        };
        for (field, size) in [("patch", Some(self.patch)), ("cut", self.crop)] {
            if let Some(size) = size.filter(|size| !fits(size)) {
                return wrong(field, format!("{size:?}"), "1 to 4096 voxels an axis, 2^30 in all");
            }
        }
        let whole = |axis: usize| self.patch[axis].is_multiple_of(1 << self.pools[axis].min(6));
        if self.pools.iter().any(|pools| *pools > 6) || !(0..3).all(whole) {
            let found = format!("{:?} with a patch of {:?}", self.pools, self.patch);
            return wrong("pools", found, "at most 6, and a patch divisible by 2^pools");
        }
        if !self.spacing.iter().all(|mm| (EDGES[0]..=EDGES[1]).contains(mm)) {
            let expected = "millimetres above 0, from 1e-6 to 1e6";
            return wrong("spacing", format!("{:?}", self.spacing), expected);
        }
        if !(1..=1024).contains(&self.batch) {
            return wrong("batch", self.batch.to_string(), "1 to 1024 samples");
        }
        Ok(())
    }

    /// What voxels hold and mean.
    fn check_voxels(&self) -> Checked {
        if let Some(found) = check_name(&self.name) {
            return wrong("name", found, NAMES);
        }
        if !(1..=MOST_CHANNELS).contains(&self.channels) {
            return wrong("channels", self.channels.to_string(), "1 to 1024");
        }
        if let Err(unusable) = self.labels.check().and_then(|()| self.labels.check_written()) {
            return wrong("labels", unusable.found, unusable.expected);
        }
        let normalisation = &self.normalisation;
        if !normalisation.is_usable() {
            let expected = "finite numbers, a lower and an upper bound, a deviation from 0";
            return wrong("normalisation", format!("{normalisation:?}"), expected);
        }
        Ok(())
    }

    fn check_clean_up(&self) -> Checked {
        const FIELD: &str = "clean_up";
        let classes = self.labels.outputs();
        if let Some(each) = self.clean_up.iter().find(|c| usize::from(c.class) >= classes) {
            return wrong(FIELD, format!("of class {}", each.class), "the plan's classes");
        }
        if self.labels.regions && !self.clean_up.is_empty() {
            return wrong(FIELD, "of regions, which may overlap", "the plan's classes");
        }
        let steps: Vec<_> = self.clean_up.iter().flat_map(|each| &each.steps).collect();
        if let Some(step) = steps.iter().find(|step| !step.is_usable()) {
            let expected = "closings 0 to 64 voxels far, a share of the largest from 0 to 1";
            return wrong(FIELD, format!("step {step:?}"), expected);
        }
        let far: usize = steps.iter().map(|step| step.reach()).sum();
        if steps.len() > MOST_STEPS || far > MOST_STEPS {
            let found = format!("of {} steps, closings {far} voxels far", steps.len());
            return wrong(FIELD, found, "at most 1024 steps, and closings 1024 voxels far in all");
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
        let cleaned = |steps| {
            let clean_up = vec![CleanUp { class: 1, steps }];
            DomainPlan { clean_up, ..good.clone() }
        };
        good.check(path).unwrap();
        cleaned(vec![CleanUpStep::Closing(64), CleanUpStep::LargestTwo(1.0)]).check(path).unwrap();
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
            ("channels", DomainPlan { channels: 1 << 62, ..good.clone() }),
            ("spacing", DomainPlan { spacing: [1.0, 1e-300, 1.0], ..good.clone() }),
            ("name", DomainPlan { name: "a\u{1b}[2J".into(), ..good.clone() }),
            ("name", DomainPlan { name: "a".repeat(1000), ..good.clone() }),
            ("labels", DomainPlan { labels: Labels::plain(["a", "b\n"]), ..good.clone() }),
            (
                "clean_up",
                DomainPlan { clean_up: vec![CleanUp { class: 2, steps: vec![] }], ..good.clone() },
            ),
            ("clean_up", cleaned(vec![CleanUpStep::Closing(1 << 63)])),
            ("clean_up", cleaned(vec![CleanUpStep::ClosingEdges(65)])),
            ("clean_up", cleaned(vec![CleanUpStep::LargestTwo(f64::NAN)])),
            ("clean_up", cleaned(vec![CleanUpStep::Largest; 2000])),
        ] {
            let message = bad.check(path).unwrap_err().to_string();
            assert!(message.contains(field) && message.contains("plan.json"), "{message}");
        }
    }
}
