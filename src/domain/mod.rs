//! What a domain is: name, channels, classes, spacing, patch, normalisation; and how a plan for one follows from data.

use crate::data::{Dataset, Fingerprint, Normalisation};
use crate::error::{Error, Result};

/// A domain's plan: plain and editable.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Domain {
    pub name: String,
    /// Image channels.
    pub channels: usize,
    /// Names of all classes, background first.
    pub classes: Vec<String>,
    /// Millimetres, D, H, W.
    pub spacing: [f64; 3],
    /// Voxels, D, H, W; divisible by 2^pools.
    pub patch: [usize; 3],
    /// Halvings of D, H, W.
    pub pools: [usize; 3],
    /// Samples a step.
    pub batch: usize,
    pub normalisation: Normalisation,
    /// What is done to predicted masks, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clean_up: Vec<CleanUp>,
}

/// Clean-up of one class of a predicted mask.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct CleanUp {
    pub class: u8,
    pub steps: Vec<Step>,
}

/// One clean-up step, applied by `infer::postprocess`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Dilation, then erosion, this many voxels far (diamond neighbourhood).
    Closing(usize),
    /// Keep the largest component.
    Largest,
    /// Keep the largest component, and the second where it has at least this fraction of the largest.
    LargestTwo(f64),
    /// Fill background that the class encloses.
    FillHoles,
}

/// What a user fixes of a plan; the rest follows from the data.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PlanOptions {
    pub patch: Option<[usize; 3]>,
    pub batch: Option<usize>,
    pub pools: Option<[usize; 3]>,
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
const DEFAULT_BATCH: usize = 2;

impl Domain {
    /// Plans a domain from its training data.
    pub fn plan(
        dataset: &Dataset,
        fingerprint: &Fingerprint,
        options: &PlanOptions,
    ) -> Result<Self> {
        let spacing = options.spacing.unwrap_or_else(|| fingerprint.median_spacing());
        if spacing.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return Err(Error::flag(
                "--spacing",
                format!("{spacing:?}"),
                "millimetres above 0",
                "Give D,H,W in mm.",
            ));
        }
        let shape = fingerprint.median_shape(spacing);
        let budget = options.max_voxels.unwrap_or(DEFAULT_VOXELS).max(512);
        let most = options.max_pools.unwrap_or(DEFAULT_POOLS).min(DEFAULT_POOLS);
        let (patch, pools) = match options.patch {
            Some(patch) => (patch, options.pools.unwrap_or_else(|| pools_of(patch, most))),
            None => fit(shape, spacing, budget, (options.pools, most)),
        };
        check(patch, pools)?;
        if options.patch.is_some() {
            check_extent(patch, pools, fingerprint.largest_shape(spacing), dataset)?;
        }
        let normalisation = normalisation(dataset, fingerprint, options.window)?;
        Ok(Self {
            name: dataset.name.clone(),
            channels: dataset.channels.len(),
            classes: dataset.labels.iter().map(|(_, name)| name.clone()).collect(),
            spacing,
            patch,
            pools,
            batch: options.batch.unwrap_or(DEFAULT_BATCH).max(1),
            normalisation,
            clean_up: Vec::new(),
        })
    }
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
    let few = fingerprint.is_ct && single && fingerprint.shapes.len() < ENOUGH_CASES;
    if let Some([lower, upper]) = window.or(few.then(|| wide(fingerprint))) {
        let width = upper - lower;
        if !single || !width.is_finite() || width <= 0.0 {
            return Err(Error::flag(
                "--window",
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
            return Err(Error::flag(
                "--patch",
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
    Err(Error::flag(
        "--patch",
        format!("{patch:?}, larger than every image of {}", dataset.dir.display()),
        format!("at most {most:?} for images of up to {largest:?} voxels (D, H, W)"),
        "Use a smaller patch, or leave --patch out.",
    ))
}

/// The median shape, rounded up, shrunk along its physically longest axis until it has at most `budget` voxels.
fn fit(
    shape: [usize; 3],
    spacing: [f64; 3],
    budget: usize,
    (pools, most): (Option<[usize; 3]>, usize),
) -> ([usize; 3], [usize; 3]) {
    let mut size = shape.map(|n| n.max(4));
    loop {
        // an axis much coarser than the finest is halved less often
        let finest = spacing.iter().copied().fold(f64::MAX, f64::min);
        let pools = pools.unwrap_or([0, 1, 2].map(|axis| {
            let coarse = (spacing[axis] / finest).log2().floor().max(0.0) as usize;
            let most = most.saturating_sub(coarse.min(2));
            (0..=most).rev().find(|p| size[axis].div_ceil(1 << p) >= 4).unwrap_or(0)
        }));
        let patch = [0, 1, 2].map(|axis| size[axis].next_multiple_of(1 << pools[axis]));
        if patch.iter().product::<usize>() <= budget || size.iter().all(|n| *n <= 8) {
            return (patch, pools);
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
        assert_eq!(
            fit([36, 50, 35], [1.0; 3], DEFAULT_VOXELS, (None, 3)),
            ([40, 56, 40], [3, 3, 3])
        );
        let (patch, pools) = fit([90, 512, 512], [5.0, 0.8, 0.8], 500_000, (None, 3));
        assert!(
            patch.iter().product::<usize>() <= 500_000 && pools[0] < pools[1],
            "{patch:?} {pools:?}"
        );
        for (p, k) in patch.iter().zip(pools) {
            assert_eq!(p % (1 << k), 0);
        }
    }

    #[test]
    fn few_cts_are_not_taken_for_all() {
        let dataset = |channel: &str| Dataset {
            dir: "CT".into(),
            name: "CT".into(),
            channels: vec![channel.into()],
            labels: vec![(0, "background".into()), (1, "spleen".into())],
            cases: Vec::new(),
        };
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
