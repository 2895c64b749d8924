//! Segmenting slab by slab on the GPU gives what plain loops over whole volumes give, whatever the plan, the image, the memory
//! and the batch.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use crate::common::loops::{Loops, decided, mean};
use crate::common::volumes::volume;
use crate::common::{data_dir, gpu};
use ndarray::Array4;
use serde_json::json;
use u2seg::low_level::check::random;
use u2seg::low_level::dataset::Dataset;
use u2seg::low_level::domain::{DomainPlan, Weighting};
use u2seg::low_level::gpu::Gpu;
use u2seg::low_level::imaging::{Grid, LabelMap, Normalisation, Resampling, Volume};
use u2seg::low_level::net::{
    self, DomainAdapter, DomainNet, Downsample, Mode, Model, NetConfig, Tensor,
};
use u2seg::low_level::segment::{CaseWork, Ensemble, Map, MapFile, PredictOptions, Predictor};
use u2seg::{Error, Result};

/// What is segmented, and by what.
#[derive(Clone)]
struct Trial {
    name: &'static str,
    channels: usize,
    classes: usize,
    regions: bool,
    patch: [usize; 3],
    cut: Option<[usize; 3]>,
    pools: [usize; 3],
    spacing: [f64; 3],
    /// Voxels and millimetres of the image.
    image: ([usize; 3], [f64; 3]),
    /// Voxels on every side that are 0.
    margin: usize,
    resampling: Resampling,
    options: PredictOptions,
}

fn options(change: impl FnOnce(&mut PredictOptions)) -> PredictOptions {
    let mut options = PredictOptions::default();
    change(&mut options);
    options
}

fn plain() -> Trial {
    Trial {
        name: "plain",
        channels: 1,
        classes: 3,
        regions: false,
        patch: [8, 16, 16],
        cut: None,
        pools: [1, 2, 2],
        spacing: [2.0, 1.5, 1.5],
        image: ([25, 36, 41], [2.0, 1.5, 1.5]),
        margin: 0,
        resampling: Resampling::Cubic,
        options: PredictOptions::default(),
    }
}

/// An image of slices far apart along an axis, which come back as they are.
fn slices(name: &'static str, axis: usize) -> Trial {
    let mut image = ([24, 25, 26], [1.5; 3]);
    (image.0[axis], image.1[axis]) = (9, 6.0);
    let mut spacing = [2.0, 1.2, 1.7];
    spacing[axis] = 2.5;
    Trial { name, image, spacing, resampling: Resampling::NearestAcross, ..plain() }
}

fn trials() -> Vec<Trial> {
    vec![
        plain(),
        Trial { name: "four classes", classes: 4, ..plain() },
        Trial { name: "many classes", classes: 26, spacing: [2.5, 2.0, 2.0], ..plain() },
        Trial { name: "several channels", channels: 2, ..plain() },
        Trial { name: "six channels", channels: 6, spacing: [3.0, 2.0, 2.0], ..plain() },
        Trial { name: "finer grid", spacing: [1.3, 1.1, 1.2], ..plain() },
        Trial { name: "coarse grid", spacing: [6.0, 8.0, 8.0], ..plain() },
        Trial { name: "mixed grid", spacing: [1.0, 1.0, 4.0], ..plain() },
        Trial { name: "non-zero crop", margin: 9, spacing: [3.0, 2.0, 2.0], ..plain() },
        Trial { name: "regions", regions: true, spacing: [3.0, 2.0, 2.0], ..plain() },
        Trial { name: "five regions", regions: true, classes: 5, ..plain() },
        Trial {
            name: "mirrored",
            options: options(|o| o.mirror = [true, false, true]),
            image: ([11, 20, 33], [2.0, 1.5, 1.5]),
            ..plain()
        },
        Trial {
            name: "mirrored along all axes, linear weights",
            options: options(|o| (o.mirror, o.weighting) = ([true; 3], Some(Weighting::Linear))),
            image: ([9, 19, 18], [2.0, 1.5, 1.5]),
            ..plain()
        },
        Trial { name: "resized windows", cut: Some([11, 13, 22]), ..plain() },
        Trial {
            name: "resized windows of several channels, mirrored",
            cut: Some([8, 20, 11]),
            channels: 5,
            classes: 6,
            options: options(|o| o.mirror = [false, true, false]),
            image: ([9, 30, 24], [2.0, 1.5, 1.5]),
            ..plain()
        },
        Trial { name: "smaller than a patch", image: ([5, 9, 7], [2.0, 1.5, 1.5]), ..plain() },
        Trial {
            name: "smaller than a resized window",
            image: ([5, 30, 7], [2.0, 1.5, 1.5]),
            cut: Some([12, 12, 12]),
            ..plain()
        },
        Trial { name: "one plane", image: ([1, 30, 31], [2.0, 1.5, 1.5]), ..plain() },
        Trial { name: "one column", image: ([30, 20, 1], [2.0, 1.5, 1.5]), ..plain() },
        Trial { name: "one voxel", image: ([1, 1, 1], [2.0, 1.5, 1.5]), ..plain() },
        Trial { name: "many steps", options: options(|o| o.step_size = 0.25), ..plain() },
        Trial { name: "whole steps", options: options(|o| o.step_size = 1.0), ..plain() },
        slices("slices along D", 0),
        slices("slices along H", 1),
        slices("slices along W", 2),
        Trial { spacing: [1.0, 1.0, 6.0], ..slices("coarser slices along W", 2) },
        Trial {
            name: "odd patch without pools",
            patch: [5, 7, 9],
            pools: [0; 3],
            channels: 2,
            ..plain()
        },
    ]
}

impl Trial {
    fn plan(&self) -> DomainPlan {
        let class = |at: usize| {
            let value = if at == 0 && !self.regions { 0 } else { 3 * at as u8 + 1 };
            json!({"name": format!("class{at}"), "values": [value], "value": value})
        };
        let classes: Vec<_> = (0..self.classes).map(class).collect();
        let mut plan = json!({
            "name": "A", "channels": self.channels, "spacing": self.spacing, "patch": self.patch,
            "pools": self.pools, "batch": 1, "resampling": self.resampling,
            "labels": {"classes": classes, "regions": self.regions},
            "normalisation": Normalisation::Fixed { lower: -0.7, upper: 0.8, mean: 0.1, std: 0.5 },
        });
        if let Some(cut) = self.cut {
            plan["cut"] = json!(cut);
        }
        serde_json::from_value(plan).unwrap()
    }

    /// Random weights, the same for the same seed.
    fn model(&self, seed: usize) -> Model {
        let plan = self.plan();
        let (channels, classes, pools) = (self.channels, self.classes, self.pools);
        let network = NetConfig {
            mode: Mode::Universal,
            adapter: DomainAdapter::Separable,
            downsample: Downsample::Full,
            base: 4,
            domains: vec![DomainNet { name: plan.name.clone(), channels, classes, pools }],
        };
        let mut weights = BTreeMap::new();
        for (at, spec) in net::parameters(&network).unwrap().into_iter().enumerate() {
            let count = spec.dims.iter().product();
            let values = random(count, (1000 * seed + at) as u64);
            let values = values.iter().map(|v| *v as f32).collect();
            weights.insert(spec.name, Tensor { dims: spec.dims, values });
        }
        Model { network, domains: vec![plan], weights, chosen: None, trained: Default::default() }
    }

    /// Smooth waves with noise, and zeros around them.
    fn volume(&self) -> Volume {
        let (shape, spacing) = self.image;
        let noise = random(self.channels * shape.iter().product::<usize>(), 5);
        let mut values = Vec::new();
        for channel in 0..self.channels {
            for z in 0..shape[0] {
                for y in 0..shape[1] {
                    for x in 0..shape[2] {
                        let inside = [z, y, x].iter().zip(shape).all(|(at, n)| {
                            *at >= self.margin.min(n / 3) && at + self.margin.min(n / 3) < n
                        });
                        let place = (z + channel) as f64 * 0.4 + (y * y) as f64 * 0.01;
                        let wave = (place + x as f64 * 0.2).sin() + 0.2 * noise[values.len()];
                        values.push(if inside { wave as f32 } else { 0.0 });
                    }
                }
            }
        }
        volume(self.channels, values, &Grid::ras(shape, spacing))
    }
}

fn largest(a: impl IntoIterator<Item = f32>, b: impl IntoIterator<Item = f32>) -> f32 {
    a.into_iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Labels that differ, as a share; at most one in 10,000, or 2 in a small image.
fn assert_same(name: &str, found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let differ = found.iter().zip(expected).filter(|(f, e)| f != e).count();
    assert!(differ <= 2.max(found.len() / 10_000), "{name}: {differ} of {} labels", found.len());
    let kinds: std::collections::BTreeSet<&u8> = expected.iter().collect();
    assert!(kinds.len() > 1 || found.len() < 100, "{name}: one label everywhere shows nothing");
}

/// Memories and batches under which everything must be the same.
fn circumstances() -> [PredictOptions; 4] {
    let of = |memory, batch| options(|o| (o.memory, o.batch) = (memory, batch));
    [of(None, None), of(Some(1), Some(1)), of(Some(1 << 20), Some(3)), of(Some(9 << 20), Some(8))]
}

fn check(gpu: &Gpu, trial: &Trial, circumstances: &[PredictOptions]) {
    let (model, image, name) = (trial.model(1), trial.volume(), trial.name);
    let loops = Loops::new(gpu, &model, 0, &trial.options);
    let case = loops.prepare(&image);
    let logits = loops.logits(&case);
    let scale = logits.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    let labels = loops.raw_labels(&image);
    let probabilities = loops.probabilities(&image);
    for circumstance in circumstances {
        let mut options = trial.options.clone();
        (options.memory, options.batch) = (circumstance.memory, circumstance.batch);
        let name = format!("{name} in {:?}, batch {:?}", options.memory, options.batch);
        let predictor = Predictor::new(gpu, &model, 0, &options).unwrap();
        let found = predictor.logits(&case).unwrap();
        assert_eq!(found.len(), logits.len());
        let off = largest(found, logits.iter().copied()) / scale;
        // a cubic resampling in another order of sums goes through the network
        let most = if trial.cut.is_some() { 1e-4 } else { 2e-5 };
        assert!(off < most, "{name}: logits off by {off}");
        let found = predictor.raw_labels(&image).unwrap();
        assert_same(&name, found.as_slice(), labels.as_slice());
        assert_eq!(found.grid(), image.grid());
        let found = predictor.probabilities(&image).unwrap();
        let off = largest(found, probabilities.iter().copied());
        assert!(off < 1e-4, "{name}: probabilities off by {off}");
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn slabs_give_what_loops_give() {
    let gpu = gpu();
    let [roomy, tight, few, many] = circumstances();
    // larger batches are programs of their own, which take time to build: each has its share of the trials
    let larger = [few, many].into_iter().cycle();
    for (at, (trial, larger)) in trials().iter().zip(larger).enumerate() {
        let mut all = vec![roomy.clone(), tight.clone()];
        all.extend(Some(larger).filter(|_| at < 4 || at % 3 == 0));
        check(&gpu, trial, &all);
    }
}

/// Members of different spacing, patch and depth.
fn members(regions: bool, classes: usize) -> [Trial; 3] {
    let first = Trial { regions, classes, margin: 4, ..plain() };
    let second =
        Trial { patch: [16, 8, 8], pools: [2, 1, 1], spacing: [1.2, 3.0, 2.5], ..first.clone() };
    let third = Trial { cut: Some([12, 10, 20]), spacing: [5.0, 2.0, 1.5], ..first.clone() };
    [first, second, third]
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn ensembles_advance_together_to_the_same_means() {
    let gpu = gpu();
    for (regions, classes) in [(false, 3), (true, 3), (false, 9), (true, 6)] {
        let trials = members(regions, classes);
        let models: Vec<Model> = trials.iter().zip(1..).map(|(t, seed)| t.model(seed)).collect();
        let image = trials[0].volume();
        let plain = PredictOptions::default();
        let loops: Vec<Loops> =
            models.iter().map(|model| Loops::new(&gpu, model, 0, &plain)).collect();
        let expected = mean(&loops, &image);
        let mut labels = decided(&expected, &models[0].domains[0]);
        if !regions {
            models[0].domains[0].labels.decode(&mut labels);
        }
        for options in circumstances() {
            let each = models.iter().map(|m| Predictor::new(&gpu, m, 0, &options).unwrap());
            let ensemble = Ensemble::new(each.collect()).unwrap();
            let name = format!("regions {regions}, {classes} classes, {options:?}");
            let found: Array4<f32> = ensemble.probabilities(&image).unwrap();
            let off = largest(found, expected.iter().copied());
            assert!(off < 1e-4, "{name}: probabilities off by {off}");
            let found = ensemble.segment(&image).unwrap();
            assert_same(&name, found.as_slice(), &labels);
        }
    }
}

/// Entropies, and the spread of all mirror images of all networks, of classes and regions in one group and in several.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn uncertainty_is_that_of_every_mirror_image_of_every_network() {
    let gpu = gpu();
    for (regions, classes) in [(false, 3), (false, 9), (true, 6)] {
        let [first, second, _] = members(regions, classes);
        let mirrors = [[true, false, true], [false, true, false]];
        let trials: Vec<Trial> = [first, second]
            .into_iter()
            .zip(mirrors)
            .map(|(trial, mirror)| Trial { options: options(|o| o.mirror = mirror), ..trial })
            .collect();
        let models: Vec<Model> = trials.iter().zip(1..).map(|(t, seed)| t.model(seed)).collect();
        let image = trials[0].volume();
        let new = |at: usize| Loops::new(&gpu, &models[at], 0, &trials[at].options);
        let mean = mean(&[new(0), new(1)], &image);
        let each = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)];
        let each = each.map(|(at, only)| new(at).by_mirror(only).probabilities(&image));
        let spread = |at: usize| {
            let all = each.iter().map(|p| f64::from(p.as_slice().unwrap()[at]));
            let centre = all.clone().sum::<f64>() / each.len() as f64;
            (all.map(|p| (p - centre).powi(2)).sum::<f64>() / each.len() as f64).sqrt() as f32
        };
        let entropy = mean.lanes(ndarray::Axis(0)).into_iter().map(|p| {
            let term = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
            let p = p.iter().map(|p| f64::from(*p));
            (match regions {
                true => {
                    p.map(|p| term(p) + term(1.0 - p)).sum::<f64>() / classes as f64 / 2f64.ln()
                }
                false => p.map(term).sum::<f64>() / (classes as f64).ln(),
            }) as f32
        });
        let entropy: Vec<f32> = entropy.collect();
        for circumstance in circumstances() {
            let name = format!("regions {regions}, {classes} classes, {circumstance:?}");
            let predictors = models.iter().zip(mirrors).map(|(model, mirror)| {
                let mut options = circumstance.clone();
                options.mirror = mirror;
                Predictor::new(&gpu, model, 0, &options).unwrap()
            });
            let ensemble = Ensemble::new(predictors.collect()).unwrap();
            let found = ensemble.uncertainty(&image).unwrap();
            let off = largest(found.entropy, entropy.iter().copied());
            assert!(off < 1e-4, "{name}: entropy off by {off}");
            let found = found.disagreement.unwrap();
            assert_eq!(found.dim(), mean.dim());
            let most = found.iter().copied().fold(0.0, f32::max);
            let off = largest(found, (0..mean.len()).map(spread));
            assert!(off < 1e-4 && most > 0.05, "{name}: spread of {most} off by {off}");
        }
    }
    // a single prediction has nothing that disagrees with it
    let predictor = Predictor::new(&gpu, &plain().model(1), 0, &PredictOptions::default());
    let found = predictor.unwrap().uncertainty(&plain().volume()).unwrap();
    assert!(found.disagreement.is_none());
}

/// Whatever the batch and the slabs, the same bits.
#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn the_same_windows_give_the_same_bits() {
    let gpu = gpu();
    let trial = Trial { spacing: [1.3, 1.1, 1.2], ..plain() };
    let (model, image) = (trial.model(3), trial.volume());
    let made = circumstances().into_iter().map(|mut options| {
        options.batch = Some(1);
        let predictor = Predictor::new(&gpu, &model, 0, &options).unwrap();
        (predictor.probabilities(&image).unwrap(), predictor.segment(&image).unwrap())
    });
    let made: Vec<_> = made.collect();
    assert!(made.iter().all(|other| other == &made[0]));
}

/// Images of which some cannot be read, make a thread panic, or cannot be written.
struct Odd<'a> {
    trial: &'a Trial,
    written: Mutex<Vec<(usize, LabelMap)>>,
}

impl CaseWork for Odd<'_> {
    type Job = usize;
    type Kept = usize;

    fn read(&self, job: &usize) -> Result<(Volume, usize)> {
        match job {
            1 => Err(Error::Internal("unreadable".into())),
            2 => panic!("a reader that panics"),
            3 => {
                let other = Trial { channels: 2, ..self.trial.clone() };
                Ok((other.volume(), *job))
            }
            _ => Ok((self.trial.volume(), *job)),
        }
    }

    fn about(&self, job: &usize, error: Error) -> Error {
        error.about(format!("image {job}"))
    }

    fn maps(&self, job: &usize) -> Result<Vec<MapFile>> {
        // in no folder that there is
        let file = || PathBuf::from("/nowhere/at/all.nii.gz");
        let map = |class| MapFile { map: Map::Probability(class), file: file() };
        Ok(if *job == 5 { (0..3).map(map).collect() } else { Vec::new() })
    }

    fn write(&self, job: &usize, kept: usize, labels: LabelMap) -> Result<()> {
        assert_eq!(*job, kept);
        assert_ne!(*job, 4, "a writer that panics");
        self.written.lock().unwrap().push((kept, labels));
        Ok(())
    }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn what_fails_in_a_cohort_takes_nothing_with_it_and_is_told_in_order() {
    let gpu = gpu();
    let trial = Trial { spacing: [3.0, 2.0, 2.0], ..plain() };
    let model = trial.model(1);
    let predictor = || Predictor::new(&gpu, &model, 0, &PredictOptions::default()).unwrap();
    let expected = predictor().raw_labels(&trial.volume()).unwrap();
    let ensemble = Ensemble::new(vec![predictor()]).unwrap();
    let work = Odd { trial: &trial, written: Mutex::default() };
    let mut told = Vec::new();
    let jobs = [0, 1, 2, 3, 4, 5, 6];
    ensemble.segment_all(&work, &jobs, &mut |index, outcome| {
        told.push((index, outcome.err().map(|error| error.to_string())));
        true
    });
    assert!(told.iter().map(|(index, _)| *index).eq(0..7), "{told:?}");
    for (job, part) in
        [(1, "unreadable"), (2, "panicked"), (3, "2 channels"), (4, "panicked"), (5, "nowhere")]
    {
        let message = told[job].1.as_ref().unwrap();
        assert!(message.contains(part), "{message}");
        assert!(message.contains(&format!("image {job}")) || job == 5, "{message}");
    }
    let written = work.written.into_inner().unwrap();
    assert!(written.iter().map(|(job, _)| *job).eq([0, 6]), "{told:?}");
    assert!(written.iter().all(|(_, labels)| labels == &expected));
    // whoever is told may stop it
    let work = Odd { trial: &trial, written: Mutex::default() };
    let mut count = 0;
    ensemble.segment_all(&work, &jobs, &mut |_, _| {
        count += 1;
        false
    });
    assert_eq!(count, 1);
}

/// Voxels of a class that both, or either, have.
fn dice(truth: &[u8], mask: &[u8], class: u8) -> f64 {
    let both = truth.iter().zip(mask).filter(|(t, m)| **t == class && **m == class).count();
    let each = truth.iter().chain(mask).filter(|label| **label == class).count();
    2.0 * both as f64 / each.max(1) as f64
}

/// Real images, by networks of random weights: at least 99.99 % of voxels and four digits of each Dice are those of the loops.
#[test]
#[cfg_attr(not(real_images), ignore = "no real images: set U2SEG_DATA")]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn masks_of_real_images_are_those_of_loops() {
    let gpu = gpu();
    for (task, channels, spacing, every) in [
        ("Task04_Hippocampus", 1, [1.3, 1.0, 1.2], 20),
        ("Task09_Spleen", 1, [5.0, 4.0, 4.0], 1),
        ("Task21_MSLesion", 4, [3.0, 3.0, 2.0], 1),
        ("Task22_SpinalCord", 1, [1.0, 1.0, 1.0], 1),
    ] {
        let dataset = Dataset::open(data_dir().join(task)).unwrap();
        let trial = Trial { channels, spacing, patch: [16, 32, 32], ..plain() };
        let mut model = trial.model(2);
        model.domains[0].normalisation = Normalisation::ZScore;
        let options = PredictOptions::default();
        let loops = Loops::new(&gpu, &model, 0, &options);
        let predictor = Predictor::new(&gpu, &model, 0, &options).unwrap();
        let (mut all, mut differ) = (0, 0);
        for case in dataset.cases.iter().step_by(every) {
            let (image, truth) = dataset.load(case).unwrap();
            let (old, new) = (loops.raw_labels(&image), predictor.raw_labels(&image).unwrap());
            assert_eq!(new.grid(), old.grid());
            let (old, new) = (old.as_slice(), new.as_slice());
            all += old.len();
            differ += old.iter().zip(new).filter(|(a, b)| a != b).count();
            for class in 0..3 {
                let [a, b] = [old, new].map(|mask| dice(truth.as_slice(), mask, class));
                assert!((a - b).abs() < 5e-5, "{}: Dice {a} and {b} of class {class}", case.id);
            }
        }
        println!("{task}: {differ} of {all} voxels differ");
        assert!(differ * 10_000 <= all, "{task}: {differ} of {all} voxels differ");
    }
}
