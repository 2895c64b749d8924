//! What a mask says of an image: how large its classes are, of how many parts, and how bright.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::class_key::ClassKey;
use crate::base::{Error, Result};
use crate::dataset::Labels;
use crate::imaging::morphology::{Connectivity, count_components};
use crate::imaging::{LabelMap, Volume};

/// Voxels that a thread counts at a time; sums do not depend on the number of threads.
const CHUNK: usize = 1 << 18;

/// The statistics of a case, a class after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseStatistics {
    /// The case's name.
    pub case: String,
    /// The file of its mask, beside the statistics.
    pub mask: String,
    /// Every class but background, or every region.
    pub classes: Vec<ClassStatistics>,
}

/// The statistics of a class in a case.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassStatistics {
    /// Its name.
    pub class: String,
    /// Its value in masks, or the values of a region.
    pub label: ClassKey,
    /// How many voxels it has.
    pub voxels: u64,
    /// Millilitres.
    pub volume_ml: f64,
    /// Connected parts; voxels that touch at a face, an edge or a corner belong together.
    pub components: usize,
    /// Of each channel, as the image's files hold it.
    pub intensity: Vec<Intensity>,
}

/// Intensities of a channel within a class; none where the class is in no voxel.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Intensity {
    /// The mean.
    pub mean: Option<f64>,
    /// The standard deviation of all voxels (divided by their number).
    pub std: Option<f64>,
}

/// Count, mean and summed squared deviations.
#[derive(Debug, Clone, Copy, Default)]
struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Welford's update.
    fn add(&mut self, value: f64) {
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
    }

    /// Chan's update.
    fn joined(self, other: Self) -> Self {
        let count = self.count + other.count;
        if count == 0 {
            return self;
        }
        let (n, m) = (self.count as f64, other.count as f64);
        let between = other.mean - self.mean;
        Self {
            count,
            mean: self.mean + between * m / count as f64,
            squares: self.squares + other.squares + between * between * n * m / count as f64,
        }
    }
}

impl From<Moments> for Intensity {
    fn from(moments: Moments) -> Self {
        let known = moments.count > 0;
        let variance = moments.squares / moments.count as f64;
        Self { mean: known.then_some(moments.mean), std: known.then(|| variance.sqrt()) }
    }
}

/// Moments of a channel by label value.
fn by_value(channel: &[f32], mask: &[u8]) -> Vec<Moments> {
    let chunks = channel.par_chunks(CHUNK).zip(mask.par_chunks(CHUNK));
    let parts: Vec<Vec<Moments>> = chunks
        .map(|(intensities, labels)| {
            let mut table = vec![Moments::default(); 256];
            let foreground = intensities.iter().zip(labels).filter(|(_, label)| **label != 0);
            foreground.for_each(|(v, label)| table[usize::from(*label)].add(f64::from(*v)));
            table
        })
        .collect();
    let mut table = vec![Moments::default(); 256];
    for part in parts {
        table.iter_mut().zip(part).for_each(|(sum, more)| *sum = sum.joined(more));
    }
    table
}

/// How many voxels carry each label value.
fn counts(mask: &LabelMap) -> [u64; 256] {
    let mut counts = [0; 256];
    mask.as_slice().iter().for_each(|label| counts[usize::from(*label)] += 1);
    counts
}

/// Connected parts of all voxels with one of the values.
fn parts(mask: &LabelMap, key: &ClassKey) -> Result<usize> {
    if let [value] = key.values() {
        return Ok(count_components(mask, *value, Connectivity::Full));
    }
    let table = key.table();
    let inside = mask.as_slice().iter().map(|label| u8::from(table[usize::from(*label)]));
    let region = LabelMap::from_vec(inside.collect(), mask.grid().clone())?;
    Ok(count_components(&region, 1, Connectivity::Full))
}

/// What is measured of a domain's masks, by the values that masks hold: of a class its one value, of a region all of its own.
fn measured(labels: &Labels) -> impl Iterator<Item = (&str, ClassKey)> {
    labels.scored().iter().map(|class| {
        let key = match labels.regions {
            true => ClassKey::new(class.values.iter().copied()),
            false => ClassKey::from(class.value),
        };
        (class.name.as_str(), key)
    })
}

impl CaseStatistics {
    /// Of a mask of label values and the image that it lies on, C, D, H, W and D, H, W; `mask_file` is the file's name.
    ///
    /// # Errors
    ///
    /// Where the two have different shapes.
    pub fn of(
        case: &str,
        mask_file: &str,
        labels: &Labels,
        image: &Volume,
        mask: &LabelMap,
    ) -> Result<Self> {
        if image.shape() != mask.shape() {
            let found = format!("an image of {:?} voxels", image.shape());
            return Err(Error::shape(
                "statistics",
                format!("{found}, a mask of {:?}", mask.shape()),
            ));
        }
        let channels: Vec<Vec<Moments>> =
            image.channels().map(|channel| by_value(channel, mask.as_slice())).collect();
        let counts = counts(mask);
        let millilitres = mask.spacing().iter().product::<f64>() / 1000.0;
        let classes = measured(labels).map(|(name, label)| {
            let of = |table: &Vec<Moments>| {
                let each = label.values().iter().map(|value| table[usize::from(*value)]);
                Intensity::from(each.fold(Moments::default(), Moments::joined))
            };
            let voxels = label.values().iter().map(|value| counts[usize::from(*value)]).sum();
            Ok(ClassStatistics {
                class: name.into(),
                voxels,
                volume_ml: voxels as f64 * millilitres,
                components: parts(mask, &label)?,
                intensity: channels.iter().map(of).collect(),
                label,
            })
        });
        let classes = classes.collect::<Result<_>>()?;
        Ok(Self { case: case.into(), mask: mask_file.into(), classes })
    }

    /// Whether they can be those of a mask: of the same classes, of as many voxels each.
    pub fn fits(&self, labels: &Labels, mask: &LabelMap) -> bool {
        let counts = counts(mask);
        let expected = measured(labels).map(|(name, label)| {
            let voxels: u64 = label.values().iter().map(|v| counts[usize::from(*v)]).sum();
            (name.to_string(), label, voxels)
        });
        let told = self.classes.iter().map(|c| (c.class.clone(), c.label.clone(), c.voxels));
        expected.eq(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::Grid;
    use ndarray::Array4;

    fn mask(values: Vec<u8>) -> LabelMap {
        LabelMap::from_vec(values, Grid::ras([2, 3, 4], [5.0, 2.0, 1.0])).unwrap()
    }

    fn image() -> Volume {
        // the second channel is large against its spread
        let values = (0..24).map(|i| i as f32).chain((0..24).map(|i| 1e6 + (i % 3) as f32));
        let data = Array4::from_shape_vec((2, 2, 3, 4), values.collect()).unwrap();
        Volume::new(data, Grid::ras([2, 3, 4], [5.0, 2.0, 1.0])).unwrap()
    }

    #[test]
    fn classes_are_measured_on_the_image_as_it_is() {
        // of class 1 voxels 0 and 1, and 23, far off; class 2 nowhere
        let mut values = vec![0; 24];
        [0, 1, 23].iter().for_each(|at| values[*at] = 1);
        let (labels, mask) = (Labels::plain(["background", "a", "b"]), mask(values));
        let told = CaseStatistics::of("x", "x.nii.gz", &labels, &image(), &mask).unwrap();
        let [a, b] = told.classes.as_slice() else { panic!("{told:?}") };
        assert_eq!((a.voxels, a.components, b.voxels, b.components), (3, 2, 0, 0));
        assert!((a.volume_ml - 0.03).abs() < 1e-12);
        let close = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-9;
        // 0, 1, 23: mean 8, deviations 64 + 49 + 225
        assert!(close(a.intensity[0].mean, 8.0), "{a:?}");
        assert!(close(a.intensity[0].std, (338.0f64 / 3.0).sqrt()), "{a:?}");
        // 0, 1, 2 over a million
        assert!(close(a.intensity[1].mean, 1e6 + 1.0), "{a:?}");
        assert!(close(a.intensity[1].std, (2.0f64 / 3.0).sqrt()), "{a:?}");
        assert_eq!(b.intensity[0], Intensity { mean: None, std: None });
        assert!(told.fits(&labels, &mask));
        let json = serde_json::to_string(&told).unwrap();
        assert_eq!(serde_json::from_str::<CaseStatistics>(&json).unwrap(), told);
        assert!(!told.fits(&Labels::plain(["background", "a"]), &mask));
    }

    #[test]
    fn a_region_has_the_voxels_of_all_of_its_values() {
        let text = r#"{"background": 0, "whole": [1, 2], "core": 2}"#;
        let entries = serde_json::from_str(text).unwrap();
        let order = serde_json::json!([1, 2]);
        let labels = Labels::parse(&entries, Some(&order)).unwrap();
        let mut values = vec![0; 24];
        (values[0], values[1], values[23]) = (1, 2, 2);
        let mask = mask(values);
        let told = CaseStatistics::of("x", "x.nii.gz", &labels, &image(), &mask).unwrap();
        let [whole, core] = told.classes.as_slice() else { panic!("{told:?}") };
        assert_eq!((whole.voxels, whole.components), (3, 2));
        assert_eq!((core.voxels, core.components), (2, 2));
        assert!((whole.intensity[0].mean.unwrap() - 8.0).abs() < 1e-12);
        assert!((core.intensity[0].std.unwrap() - 11.0).abs() < 1e-12);
        let other = LabelMap::from_vec(vec![0; 8], Grid::ras([2; 3], [1.0; 3])).unwrap();
        assert!(CaseStatistics::of("x", "x", &labels, &image(), &other).is_err());
    }
}
