//! How a domain's plan follows from its data, from what was published, and from what the user fixes.

use super::inference::Weighting;
use super::plan::DomainPlan;
use super::preset::{Preset, PresetChoice};
use crate::base::{Error, Result};
use crate::dataset::{Dataset, Fingerprint};
use crate::imaging::{MAX_VOXELS, Normalisation, Resampling};

/// Whose rules a run follows where the user fixes nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Recipe {
    /// This program's own.
    #[default]
    Default,
    /// The published training of 3D U²-Net.
    U2net,
}

/// What domains of different patch sizes do in one network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unify {
    /// Each keeps its own patch.
    #[default]
    Native,
    /// Patches are cut at each domain's own size and resized to a common one, as published.
    Resize,
}

/// What a user fixes of a plan; the rest follows from the data.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct PlanOptions {
    /// Whose rules decide what is not fixed.
    pub recipe: Recipe,
    /// The published plan to follow.
    pub preset: PresetChoice,
    /// Whether patches are resized to a common size.
    pub unify: Unify,
    /// The network's patch.
    pub patch: Option<[usize; 3]>,
    /// Samples a step.
    pub batch: Option<usize>,
    /// Halvings of D, H, W.
    pub pools: Option<[usize; 3]>,
    /// Millimetres, D, H, W.
    pub spacing: Option<[f64; 3]>,
    /// Lower and upper bound to which a one-channel image is clipped, instead of bounds from the data.
    pub window: Option<[f32; 2]>,
    /// Voxels that a patch may have.
    pub max_voxels: Option<usize>,
    /// Halvings that an axis may have, where `pools` does not say.
    pub max_pools: Option<usize>,
}

/// Voxels of a patch unless the user says otherwise: a small one is better trained often than a large one seldom.
pub const DEFAULT_VOXELS: usize = 100_000;
/// Halvings unless the user says otherwise.
const DEFAULT_POOLS: usize = 3;
/// Samples a step unless the user or memory says otherwise.
pub const DEFAULT_BATCH: usize = 2;
/// The published common patch and its halvings.
const PUBLISHED_PATCH: [usize; 3] = [128; 3];
const PUBLISHED_POOLS: usize = 5;

impl Recipe {
    fn voxels(self) -> usize {
        match self {
            Self::Default => DEFAULT_VOXELS,
            Self::U2net => PUBLISHED_PATCH.iter().product(),
        }
    }

    fn pools(self) -> usize {
        match self {
            Self::Default => DEFAULT_POOLS,
            Self::U2net => PUBLISHED_POOLS,
        }
    }

    fn resampling(self) -> Resampling {
        match self {
            Self::Default => Resampling::NearestAcross,
            Self::U2net => Resampling::Cubic,
        }
    }
}

impl PlanOptions {
    /// The published plan that a dataset follows.
    fn preset(&self, dataset: &Dataset) -> Option<&'static Preset> {
        match self.preset {
            PresetChoice::Named(preset) => Some(preset),
            PresetChoice::Auto if self.recipe == Recipe::U2net => Preset::of(dataset),
            PresetChoice::Auto | PresetChoice::None => None,
        }
    }

    /// Halvings that an axis may have.
    fn most(&self) -> usize {
        let most = self.recipe.pools();
        self.max_pools.unwrap_or(most).min(most)
    }
}

/// Patch of the network, its halvings, and the voxels that it covers where they differ from it.
struct Sizes {
    patch: [usize; 3],
    pools: [usize; 3],
    crop: Option<[usize; 3]>,
}

impl DomainPlan {
    /// Plans a domain from its training data.
    pub fn plan(
        dataset: &Dataset,
        fingerprint: &Fingerprint,
        options: &PlanOptions,
    ) -> Result<Self> {
        let preset = options.preset(dataset);
        let published = preset.map(|preset| preset.spacing);
        let spacing = options.spacing.or(published).unwrap_or_else(|| fingerprint.median_spacing());
        if spacing.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return Err(Error::setting(
                "spacing",
                format!("{spacing:?}"),
                "millimetres above 0",
                "Give D,H,W in mm.",
            ));
        }
        let Sizes { patch, pools, crop } = match options.unify {
            Unify::Native => native(fingerprint, spacing, preset, options),
            Unify::Resize => resized(fingerprint, spacing, preset, options),
        };
        check(patch, pools)?;
        if options.patch.is_some() && options.unify == Unify::Native {
            check_extent(patch, pools, fingerprint.largest_shape(spacing), dataset)?;
        }
        let mut labels = preset.map_or(dataset.labels.clone(), |p| p.labels(&dataset.labels));
        labels.partial = dataset.cases.iter().any(|case| !case.unlabelled.is_empty());
        // the published batch of a task is that of its own patch
        let batch = preset.filter(|_| options.unify == Unify::Native).map(|preset| preset.batch);
        let (normalisation, weighting) = match options.recipe {
            Recipe::U2net if options.window.is_none() => {
                (Normalisation::Published, Weighting::Linear)
            }
            Recipe::U2net => {
                (normalisation(dataset, fingerprint, options.window)?, Weighting::Linear)
            }
            Recipe::Default => {
                (normalisation(dataset, fingerprint, options.window)?, Weighting::Gaussian)
            }
        };
        Ok(Self {
            name: dataset.name.clone(),
            channels: dataset.channels.len(),
            spacing,
            patch,
            crop,
            pools,
            batch: options.batch.or(batch).unwrap_or(DEFAULT_BATCH).max(1),
            normalisation,
            resampling: options.recipe.resampling(),
            preset: preset.map(|preset| preset.name.to_string()),
            weighting,
            clean_up: preset.map(|preset| preset.clean_up(&labels)).unwrap_or_default(),
            labels,
        })
    }
}

/// A patch of the domain's own size.
fn native(
    fingerprint: &Fingerprint,
    spacing: [f64; 3],
    preset: Option<&Preset>,
    options: &PlanOptions,
) -> Sizes {
    let most = options.most();
    let few = |pools: [usize; 3]| pools.map(|p| p.min(options.max_pools.unwrap_or(p)));
    let budget = options.max_voxels.unwrap_or(options.recipe.voxels()).max(512);
    let (patch, pools) = match (options.patch, preset) {
        (Some(patch), _) => (patch, options.pools.unwrap_or_else(|| pools_of(patch, most))),
        (None, Some(preset)) if options.max_voxels.is_none() => {
            (preset.patch, options.pools.unwrap_or(few(preset.pools)))
        }
        (None, _) => {
            let limits = Limits { voxels: budget, pools: options.pools, most_pools: most };
            return fit(fingerprint.median_shape(spacing), spacing, &limits);
        }
    };
    Sizes { patch, pools, crop: None }
}

/// The domain's own size resized to the common patch.
fn resized(
    fingerprint: &Fingerprint,
    spacing: [f64; 3],
    preset: Option<&Preset>,
    options: &PlanOptions,
) -> Sizes {
    let patch = options.patch.unwrap_or(PUBLISHED_PATCH);
    let pools = options.pools.unwrap_or_else(|| pools_of(patch, options.most()));
    let own = PlanOptions { patch: None, pools: None, ..options.clone() };
    let own = native(fingerprint, spacing, preset, &own).patch;
    Sizes { patch, pools, crop: (own != patch).then_some(own) }
}

/// CTs whose labels show how organs vary, with and without contrast agent.
const ENOUGH_CASES: usize = 8;

/// Soft tissue in Hounsfield units, and whatever the labels hold beyond.
fn wide(fingerprint: &Fingerprint) -> [f32; 2] {
    let [lower, upper, ..] = fingerprint.foreground;
    [lower.min(-160.0), upper.max(240.0)]
}

/// A given window becomes −2 to 2; without one CT is normalised by its labels' intensities (by soft tissue's where there
/// are few cases), all else by its own.
fn normalisation(
    dataset: &Dataset,
    fingerprint: &Fingerprint,
    window: Option<[f32; 2]>,
) -> Result<Normalisation> {
    let single = dataset.channels.len() == 1;
    // labels of few cases, or of none, say nothing about intensities
    let few = fingerprint.shapes.len() < ENOUGH_CASES || fingerprint.foreground[3] <= 0.0;
    let few = fingerprint.is_ct && single && few;
    if let Some([lower, upper]) = window.or(few.then(|| wide(fingerprint))) {
        let width = upper - lower;
        if !single || !width.is_finite() || width <= 0.0 {
            return Err(Error::setting(
                "window",
                format!("{lower},{upper} for {} channels", dataset.channels.len()),
                "a lower and a larger upper bound, for images of one channel",
                "Give LOWER,UPPER, such as -160,240 for soft tissue in a CT.",
            ));
        }
        let mean = lower + width / 2.0;
        return Ok(Normalisation::Fixed { lower, upper, mean, std: width / 4.0 });
    }
    let [lower, upper, mean, std] = fingerprint.foreground;
    Ok(if fingerprint.is_ct && single {
        Normalisation::Fixed { lower, upper, mean, std }
    } else {
        Normalisation::ZScore
    })
}

/// Halvings that leave at least four voxels, at most `most`.
fn pools_of(patch: [usize; 3], most: usize) -> [usize; 3] {
    patch.map(|size| (0..=most).rev().find(|p| size % (1 << p) == 0 && size >> p >= 4).unwrap_or(0))
}

fn check(patch: [usize; 3], pools: [usize; 3]) -> Result<()> {
    for axis in 0..3 {
        let step = 1usize << pools[axis].min(16);
        if pools[axis] > 6 || patch[axis] == 0 || !patch[axis].is_multiple_of(step) {
            let near = patch[axis].div_ceil(step).max(1) * step;
            return Err(Error::setting(
                "patch",
                format!("{patch:?} with pools {pools:?}"),
                "at most 6 pools and sizes divisible by 2^pools on every axis",
                format!("On axis {axis} (D, H, W) {near} would do."),
            ));
        }
    }
    Ok(())
}

/// Multiple to which a patch may exceed the largest image.
const ROUNDING: usize = 16;

/// Refuses a patch that would be padding in every image.
fn check_extent(
    patch: [usize; 3],
    pools: [usize; 3],
    largest: [usize; 3],
    dataset: &Dataset,
) -> Result<()> {
    let most = [0, 1, 2].map(|axis| largest[axis].next_multiple_of(ROUNDING.max(1 << pools[axis])));
    if (0..3).all(|axis| patch[axis] <= most[axis]) {
        return Ok(());
    }
    Err(Error::setting(
        "patch",
        format!("{patch:?}, larger than every image of {}", dataset.dir.display()),
        format!("at most {most:?} for images of up to {largest:?} voxels (D, H, W)"),
        "Use a smaller patch, or leave `patch` out.",
    ))
}

/// What a patch that follows from the data must keep to.
struct Limits {
    /// Voxels of the patch.
    voxels: usize,
    /// Halvings, where the user fixes them.
    pools: Option<[usize; 3]>,
    /// Halvings that an axis may have otherwise.
    most_pools: usize,
}

/// The median shape, rounded up, shrunk along its physically longest axis until it is within the limits.
fn fit(shape: [usize; 3], spacing: [f64; 3], limits: &Limits) -> Sizes {
    // whatever a spacing makes of an image, no axis is longer than all voxels of a patch
    let mut size = shape.map(|n| n.clamp(4, limits.voxels.clamp(8, MAX_VOXELS)));
    loop {
        // an axis much coarser than the finest is halved less often
        let finest = spacing.iter().copied().fold(f64::MAX, f64::min);
        let pools = limits.pools.unwrap_or([0, 1, 2].map(|axis| {
            let coarse = (spacing[axis] / finest).log2().floor().max(0.0) as usize;
            let most = limits.most_pools.saturating_sub(coarse.min(2));
            (0..=most).rev().find(|p| size[axis].div_ceil(1 << p) >= 4).unwrap_or(0)
        }));
        let patch = [0, 1, 2].map(|axis| size[axis].next_multiple_of(1 << pools[axis]));
        let voxels = patch.iter().fold(1, |product: usize, n| product.saturating_mul(*n));
        if voxels <= limits.voxels || size.iter().all(|n| *n <= 8) {
            return Sizes { patch, pools, crop: None };
        }
        let longest = (0..3)
            .max_by(|a, b| {
                (size[*a] as f64 * spacing[*a]).total_cmp(&(size[*b] as f64 * spacing[*b]))
            })
            .unwrap_or(0);
        let longest =
            if size[longest] > 8 { longest } else { (0..3).max_by_key(|a| size[*a]).unwrap_or(0) };
        size[longest] = (size[longest] - 1) / 8 * 8;
        size[longest] = size[longest].max(8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_follow_the_data() {
        let limits = |voxels| Limits { voxels, pools: None, most_pools: 3 };
        let Sizes { patch, pools, .. } = fit([36, 50, 35], [1.0; 3], &limits(DEFAULT_VOXELS));
        assert_eq!((patch, pools), ([40, 56, 40], [3, 3, 3]));
        let Sizes { patch, pools, .. } = fit([90, 512, 512], [5.0, 0.8, 0.8], &limits(500_000));
        assert!(
            patch.iter().product::<usize>() <= 500_000 && pools[0] < pools[1],
            "{patch:?} {pools:?}"
        );
        for (p, k) in patch.iter().zip(pools) {
            assert_eq!(p % (1 << k), 0);
        }
        // sizes whose product is more than can be counted
        for shape in [[1 << 22; 3], [usize::MAX, 4, 4], [1 << 40; 3]] {
            let Sizes { patch, .. } = fit(shape, [1.0; 3], &limits(DEFAULT_VOXELS));
            assert!(patch.iter().product::<usize>() <= DEFAULT_VOXELS, "{shape:?}: {patch:?}");
        }
    }

    #[test]
    fn few_cts_are_not_taken_for_all() {
        let dataset =
            |channel: &str| Dataset { channels: vec![channel.into()], ..Dataset::default() };
        let of = |cases: usize, channel: &str| {
            let fingerprint = Fingerprint {
                shapes: vec![[50; 3]; cases],
                spacings: vec![[1.0; 3]; cases],
                foreground: [-35.0, 70.0, 33.0, 17.0],
                is_ct: channel == "CT",
            };
            normalisation(&dataset(channel), &fingerprint, None).unwrap()
        };
        let soft = Normalisation::Fixed { lower: -160.0, upper: 240.0, mean: 40.0, std: 100.0 };
        assert_eq!(of(1, "CT"), soft);
        let own = Normalisation::Fixed { lower: -35.0, upper: 70.0, mean: 33.0, std: 17.0 };
        assert_eq!(of(8, "CT"), own);
        assert_eq!(of(1, "T1"), Normalisation::ZScore);
    }

    #[test]
    fn an_indivisible_patch_names_a_size_that_works() {
        let error = check([40, 50, 40], [3, 3, 3]).unwrap_err().to_string();
        assert!(error.contains("56"), "{error}");
    }
}
