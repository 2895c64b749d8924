//! Holds the metrics to published packages: tests/data/metrics_published.json has their scores of masks that a recipe makes,
//! written by tests/data/make_metrics.py beside it.
//!
//! | package | Dice, IoU | HD95 | ASSD | NSD |
//! |---|---|---|---|---|
//! | u2seg | voxels | larger of both directions' percentiles | mean over both surfaces' voxels | share of both surfaces' voxels |
//! | MONAI | same | same | same | same |
//! | MedPy | same | percentile of both directions together, not compared | same | none |
//! | surface-distance (DeepMind) | same | directions as here, over surface elements weighted by area | by direction, not compared | share of the area |
//!
//! Surface voxels are those that an erosion by six neighbours takes away. DeepMind's surface elements lie between voxel
//! centres, so that its numbers differ by parts of a voxel: they are held to bounds alone.
//!
//! Empty masks: where nothing is predicted, or where nothing is there but something is predicted, Dice is 0, as in DeepMind's
//! package and nnU-Net (MONAI leaves the latter out). Distances to an empty mask are infinite in the packages, and null here.

use crate::common;
use ndarray::Array3;
use u2seg::low_level::imaging::{Known, read_labels};
use u2seg::low_level::score::metrics::{Comparison, Scores};

#[derive(serde::Deserialize)]
struct File {
    tolerance: f64,
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    name: String,
    truth: Recipe,
    prediction: Recipe,
    spacing: [f64; 3],
    n_ref: u64,
    n_pred: u64,
    #[serde(rename = "TP")]
    tp: u64,
    monai: Monai,
    medpy: Option<Medpy>,
    #[serde(rename = "surface-distance")]
    surface: Elements,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
struct Monai {
    #[serde(rename = "Dice")]
    dice: Option<f64>,
    #[serde(rename = "IoU")]
    iou: Option<f64>,
    hd95: Option<f64>,
    assd: Option<f64>,
    nsd: Option<f64>,
}

#[derive(serde::Deserialize)]
struct Medpy {
    #[serde(rename = "Dice")]
    dice: f64,
    #[serde(rename = "IoU")]
    iou: f64,
    #[serde(rename = "ASSD")]
    assd: f64,
}

#[derive(serde::Deserialize)]
struct Elements {
    #[serde(rename = "Dice")]
    dice: Option<f64>,
    #[serde(rename = "HD95 of surface elements")]
    hd95: Option<f64>,
    #[serde(rename = "NSD of surface elements")]
    nsd: Option<f64>,
}

/// How a mask is made; make_metrics.py says what the fields mean.
#[derive(serde::Deserialize)]
struct Recipe {
    file: Option<String>,
    class: Option<u8>,
    #[serde(default)]
    shape: [usize; 3],
    #[serde(default)]
    centre: [i64; 3],
    #[serde(default)]
    radii: [i64; 3],
    #[serde(default)]
    flip: i64,
    fit: Option<[usize; 3]>,
    #[serde(default)]
    shift: [isize; 3],
    #[serde(default)]
    erode: usize,
    #[serde(default)]
    dilate: usize,
}

struct Mask {
    shape: [usize; 3],
    on: Vec<bool>,
}

impl Mask {
    /// A mask of `shape` whose voxels are a function of their place.
    fn of(shape: [usize; 3], on: impl Fn([usize; 3]) -> bool) -> Self {
        let place = |i: usize| [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
        let on = (0..shape.iter().product()).map(|i| on(place(i))).collect();
        Self { shape, on }
    }

    /// Off outside the volume.
    fn at(&self, place: [isize; 3]) -> bool {
        let inside = (0..3).all(|k| place[k] >= 0 && place[k] < self.shape[k] as isize);
        let index = |[z, y, x]: [isize; 3]| {
            (z as usize * self.shape[1] + y as usize) * self.shape[2] + x as usize
        };
        inside && self.on[index(place)]
    }

    fn solid(recipe: &Recipe) -> Self {
        let (shape, centre) = (recipe.shape, recipe.centre);
        let [a, b, c] = recipe.radii.map(|r| r * r);
        Self::of(shape, |place| {
            let [z, y, x] = [0, 1, 2].map(|k| (place[k] as i64 - centre[k]).pow(2));
            let level = z * b * c + y * a * c + x * a * b;
            let index = ((place[0] * shape[1] + place[1]) * shape[2] + place[2]) as i64;
            let hashed = (index * 2_654_435_761) % (1 << 32) / 65536;
            let flipped = recipe.flip > 0 && hashed % recipe.flip == 0 && level <= 2 * a * b * c;
            (level <= a * b * c) != flipped
        })
    }

    fn new(recipe: &Recipe) -> Self {
        let mut mask = match (&recipe.file, recipe.class) {
            (Some(file), Some(class)) => {
                let labels = read_labels(&common::data_dir().join(file), &Known::any()).unwrap();
                Self {
                    shape: labels.shape(),
                    on: labels.as_slice().iter().map(|l| *l == class).collect(),
                }
            }
            _ => Self::solid(recipe),
        };
        if let Some(fit) = recipe.fit {
            let old = mask.shape;
            let pick = |place: [usize; 3], k: usize| (2 * place[k] + 1) * old[k] / (2 * fit[k]);
            mask = Self::of(fit, |place| mask.at([0, 1, 2].map(|k| pick(place, k) as isize)));
        }
        let by = recipe.shift;
        mask = Self::of(mask.shape, |place| mask.at([0, 1, 2].map(|k| place[k] as isize - by[k])));
        for _ in 0..recipe.erode {
            mask = Self::of(mask.shape, |place| mask.neighbourhood(place).iter().all(|on| *on));
        }
        for _ in 0..recipe.dilate {
            mask = Self::of(mask.shape, |place| mask.neighbourhood(place).iter().any(|on| *on));
        }
        mask
    }

    /// A voxel and its six neighbours.
    fn neighbourhood(&self, place: [usize; 3]) -> [bool; 7] {
        let [z, y, x] = place.map(|p| p as isize);
        [
            [z, y, x],
            [z - 1, y, x],
            [z + 1, y, x],
            [z, y - 1, x],
            [z, y + 1, x],
            [z, y, x - 1],
            [z, y, x + 1],
        ]
        .map(|place| self.at(place))
    }

    fn labels(&self) -> Array3<u8> {
        Array3::from_shape_vec(self.shape, self.on.iter().map(|on| u8::from(*on)).collect())
            .unwrap()
    }
}

/// Relative difference, where the smaller of two small numbers does not count.
fn near(ours: f64, theirs: f64, tolerance: f64) -> bool {
    (ours - theirs).abs() <= tolerance * theirs.abs().max(1.0)
}

fn near_or_both_none(ours: f64, theirs: Option<f64>, tolerance: f64) -> bool {
    theirs.map_or(ours.is_nan(), |theirs| near(ours, theirs, tolerance))
}

/// MONAI and PyTorch compute in float32.
const FLOAT32: f64 = 1e-6;
/// MedPy computes in float64.
const FLOAT64: f64 = 1e-12;

/// What differs from the packages, named.
fn differences(case: &Case, tolerance: f64) -> Vec<String> {
    let (truth, prediction) = (Mask::new(&case.truth), Mask::new(&case.prediction));
    assert_eq!(truth.shape, prediction.shape, "{}", case.name);
    let (y, p) = (truth.labels(), prediction.labels());
    let ours = Comparison::new(y.view(), p.view(), case.spacing).unwrap();
    let ours = ours.scores(&1.into(), tolerance);
    let Scores { dice, iou, hd95, assd, nsd, tp, n_ref, n_pred, .. } = ours;
    assert_eq!((tp, n_ref, n_pred), (case.tp, case.n_ref, case.n_pred), "{}", case.name);
    let monai = &case.monai;
    let mut checks = vec![
        ("surface-distance Dice", near_or_both_none(dice, case.surface.dice, FLOAT64)),
        ("MONAI HD95", near_or_both_none(hd95, monai.hd95, FLOAT32)),
        ("MONAI ASSD", near_or_both_none(assd, monai.assd, FLOAT32)),
        ("MONAI NSD", near_or_both_none(nsd, monai.nsd, FLOAT32)),
    ];
    if n_ref > 0 {
        checks.push(("MONAI Dice", near_or_both_none(dice, monai.dice, FLOAT32)));
        checks.push(("MONAI IoU", near_or_both_none(iou, monai.iou, FLOAT32)));
    }
    if let Some(medpy) = &case.medpy {
        checks.push(("MedPy Dice", near(dice, medpy.dice, FLOAT64)));
        checks.push(("MedPy IoU", near(iou, medpy.iou, FLOAT64)));
        checks.push(("MedPy ASSD", near(assd, medpy.assd, FLOAT64)));
    }
    // another definition of surface: within a voxel's diagonal, and voxels are stricter
    let diagonal = case.spacing.iter().map(|s| s * s).sum::<f64>().sqrt();
    if let (Some(elements), false) = (case.surface.hd95, hd95.is_nan()) {
        checks.push(("surface-distance HD95", (hd95 - elements).abs() <= diagonal));
    }
    if let Some(elements) = case.surface.nsd {
        checks.push(("surface-distance NSD", nsd <= elements + FLOAT32 && nsd >= elements - 0.15));
    }
    let wrong = checks.into_iter().filter(|(_, right)| !right);
    wrong.map(|(what, _)| format!("{}: {what}; ours {ours:?}", case.name)).collect()
}

fn check(real: bool) {
    let file: File = serde_json::from_str(include_str!("../data/metrics_published.json")).unwrap();
    let cases: Vec<Case> =
        file.cases.into_iter().filter(|case| case.truth.file.is_some() == real).collect();
    assert!(cases.len() >= 9, "{} cases", cases.len());
    let wrong: Vec<String> =
        cases.iter().flat_map(|case| differences(case, file.tolerance)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn solids_score_as_in_published_packages() {
    check(false);
}

#[test]
#[cfg_attr(not(real_images), ignore = "no real images: set U2SEG_DATA")]
fn organs_score_as_in_published_packages() {
    check(true);
}
