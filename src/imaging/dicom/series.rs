//! Which slices make an image: those of one series, in the order of their positions.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use rayon::prelude::*;

use super::item::Item;
use super::origin::{Origin, SourceSlice};
use super::slice::{About, Contents, Slice, contents};
use crate::base::files::file_name;
use crate::base::{Error, Result};
use crate::imaging::grid::{Grid, dot, length};

/// Slices in the order of the image's k axis, and where they lie.
pub(super) struct Series {
    pub slices: Vec<Slice>,
    pub grid: Grid,
}

/// The files of a series.
struct Found {
    slices: Vec<Slice>,
    unusable: Option<(std::path::PathBuf, String, &'static str)>,
    object: InMemDicomObject,
}

pub(super) const EXPECTED: &str = "a DICOM series";
/// Direction cosines that differ by more are others.
const TURNED: f64 = 1e-3;
/// Share of a step by which steps may differ.
const UNEVEN: f64 = 0.1;
/// Series that are listed.
const LISTED: usize = 30;

impl Series {
    /// The chosen series of some files, or the only one; none where no file holds an image.
    pub fn choose(path: &Path, items: &[Item], chosen: Option<&str>) -> Result<Option<Self>> {
        let read: Vec<Result<Option<Contents>>> = items.par_iter().map(contents).collect();
        let mut all: BTreeMap<About, Found> = BTreeMap::new();
        for (item, contents) in items.iter().zip(read) {
            let Some(Contents { about, slices, unusable, object }) = contents? else { continue };
            let same = all.keys().find(|other| other.uid == about.uid).cloned();
            let found = all.entry(same.unwrap_or(about)).or_insert_with(|| Found {
                slices: Vec::new(),
                unusable: None,
                object,
            });
            found.slices.extend(slices);
            if let (None, Some((what, wanted))) = (&found.unusable, unusable) {
                found.unusable = Some((item.shown.clone(), what, wanted));
            }
        }
        if all.is_empty() {
            return Ok(None);
        }
        let found = pick(path, all, chosen)?;
        if let Some((shown, what, wanted)) = found.unusable {
            let remedy = "Choose another series by `series`, or export it as plain slices.";
            return Err(Error::file(shown, what, wanted, remedy));
        }
        Self::ordered(found.slices, &found.object).map(Some)
    }

    fn ordered(mut slices: Vec<Slice>, object: &InMemDicomObject) -> Result<Self> {
        let Some(first) = slices.first().cloned() else {
            return Err(Error::Internal("a series without slices".into()));
        };
        let orientation = needed(&first, first.orientation, "ImageOrientationPatient")?;
        let spacing = needed(&first, first.spacing, "PixelSpacing")?;
        check_plane(&first, orientation, spacing)?;
        for slice in &slices {
            needed(slice, slice.position, "ImagePositionPatient")?;
            alike(slice, &first, orientation, spacing)?;
        }
        let [row, column] = orientation;
        let normal = cross(row, column);
        let along = |slice: &Slice| dot(slice.place(), normal);
        slices.sort_by(|a, b| along(a).total_cmp(&along(b)));
        let step = steps(&slices, &along, normal)?;
        let [rows, columns] = first.size;
        let dims = [columns, rows, slices.len()];
        let axes = [row.map(|v| v * spacing[1]), column.map(|v| v * spacing[0]), step];
        let origin = slices[0].place();
        let grid = Grid::from_lps(dims, axes, origin).ok_or_else(|| {
            let found = format!("steps {axes:?} between voxels");
            Error::file(&first.shown, found, "steps along three axes", "Export the series again.")
        })?;
        let origin = Origin {
            shared: shared(object),
            series: super::slice::Part(object).text(tags::SERIES_INSTANCE_UID),
            orientation,
            spacing,
            step: length(step),
            slices: slices.iter().map(source).collect(),
        };
        Ok(Self { slices, grid: grid.with_origin(Arc::new(origin)) })
    }
}

fn source(slice: &Slice) -> SourceSlice {
    SourceSlice {
        class: slice.class.clone(),
        instance: slice.instance.clone(),
        frame: slice.several.then_some(slice.frame + 1),
        position: slice.place(),
    }
}

/// What a segmentation says of patient, study and frame of reference.
fn shared(object: &InMemDicomObject) -> InMemDicomObject {
    const KEPT: [Tag; 14] = [
        tags::SPECIFIC_CHARACTER_SET,
        tags::PATIENT_NAME,
        tags::PATIENT_ID,
        tags::PATIENT_BIRTH_DATE,
        tags::PATIENT_SEX,
        tags::STUDY_INSTANCE_UID,
        tags::STUDY_DATE,
        tags::STUDY_TIME,
        tags::STUDY_ID,
        tags::STUDY_DESCRIPTION,
        tags::ACCESSION_NUMBER,
        tags::REFERRING_PHYSICIAN_NAME,
        tags::FRAME_OF_REFERENCE_UID,
        tags::POSITION_REFERENCE_INDICATOR,
    ];
    let kept = object.iter().filter(|element| KEPT.contains(&element.header().tag));
    InMemDicomObject::from_element_iter(kept.cloned())
}

/// The chosen series, or the only one; else they are listed.
fn pick(path: &Path, mut all: BTreeMap<About, Found>, chosen: Option<&str>) -> Result<Found> {
    let list = |some: &[(&About, &Found)]| {
        let mut words: Vec<String> =
            some.iter().take(LISTED).map(|(about, found)| told(about, found)).collect();
        if some.len() > LISTED {
            words.push(format!("{} more", some.len() - LISTED));
        }
        words.join("; ")
    };
    let is = |about: &About| match chosen {
        Some(name) => about.uid == name || about.number.is_some_and(|n| n.to_string() == name),
        None => true,
    };
    let some: Vec<(&About, &Found)> = all.iter().filter(|(about, _)| is(about)).collect();
    match (some.as_slice(), chosen) {
        ([(about, _)], _) => {
            let about = (*about).clone();
            let found = all.remove(&about);
            found.ok_or_else(|| Error::Internal("a series that is lost".into()))
        }
        ([], _) => {
            let every: Vec<(&About, &Found)> = all.iter().collect();
            let name = chosen.unwrap_or_default();
            let found = format!("no series {name} among {}: {}", every.len(), list(&every));
            let remedy = "Correct `series`: a number or a UID of the list.";
            Err(Error::file(path, found, EXPECTED, remedy))
        }
        _ => {
            let found = format!("{} series: {}", some.len(), list(&some));
            let remedy = "Choose one by `series`, its number or its UID.";
            Err(Error::file(path, found, "one series", remedy))
        }
    }
}

fn told(about: &About, found: &Found) -> String {
    let About { number, uid, modality, description } = about;
    let number = number.map_or("without a number".into(), |number| format!("number {number}"));
    let count = found.slices.len();
    let slices = if count == 1 { "slice" } else { "slices" };
    format!("{number}, {modality} {description:?}, {count} {slices}, UID {uid}")
}

/// What must be said of a slice.
pub(super) fn needed<T>(slice: &Slice, value: Option<T>, name: &str) -> Result<T> {
    value.ok_or_else(|| {
        let remedy = "Leave the file out, or export the series again as a volume of slices.";
        Error::file(&slice.shown, format!("a slice without {name}"), "its place", remedy)
    })
}

/// Refuses directions that are no directions of rows and columns, and distances that are none.
pub(super) fn check_plane(
    slice: &Slice,
    [row, column]: [[f64; 3]; 2],
    spacing: [f64; 2],
) -> Result<()> {
    let unit = |cosines: [f64; 3]| (length(cosines) - 1.0).abs() < 0.01;
    if unit(row)
        && unit(column)
        && dot(row, column).abs() < 0.01
        && spacing.iter().all(|v| *v > 0.0)
    {
        return Ok(());
    }
    let found = format!("rows along {row:?}, columns along {column:?}, {spacing:?} mm apart");
    let expected = "two directions at right angles, and distances above 0";
    Err(Error::file(&slice.shown, found, expected, "Export the series again."))
}

/// Refuses a slice that is turned or sized otherwise than the first.
pub(super) fn alike(
    slice: &Slice,
    first: &Slice,
    turned: [[f64; 3]; 2],
    spacing: [f64; 2],
) -> Result<()> {
    let beside = file_name(&first.shown);
    let refuse = |found: String, expected: String| {
        let remedy = "Move it away: it belongs to another image, such as a scout.";
        Err(Error::file(&slice.shown, found, format!("{expected}, as {beside} has"), remedy))
    };
    if slice.size != first.size {
        let words = |[rows, columns]: [usize; 2]| format!("{rows} rows of {columns} voxels");
        return refuse(words(slice.size), words(first.size));
    }
    let own = needed(slice, slice.orientation, "ImageOrientationPatient")?;
    let apart = |a: [f64; 3], b: [f64; 3]| length([a[0] - b[0], a[1] - b[1], a[2] - b[2]]);
    if (0..2).any(|axis| apart(own[axis], turned[axis]) > TURNED) {
        return refuse(format!("the orientation {own:?}"), format!("{turned:?}"));
    }
    let edges = needed(slice, slice.spacing, "PixelSpacing")?;
    if (0..2).any(|axis| (edges[axis] - spacing[axis]).abs() > 1e-3 * spacing[axis].abs()) {
        return refuse(format!("voxels of {edges:?} mm"), format!("{spacing:?} mm"));
    }
    Ok(())
}

/// The step from slice to slice, which must be even.
fn steps(slices: &[Slice], along: &dyn Fn(&Slice) -> f64, normal: [f64; 3]) -> Result<[f64; 3]> {
    let [first, .., last] = slices else {
        let thick = slices.first().and_then(|s| s.between.or(s.thickness)).unwrap_or(1.0);
        return Ok(normal.map(|v| v * thick));
    };
    let gaps: Vec<f64> = slices.windows(2).map(|pair| along(&pair[1]) - along(&pair[0])).collect();
    let mut sorted = gaps.clone();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted[sorted.len() / 2];
    for (pair, gap) in slices.windows(2).zip(&gaps) {
        check_step(&pair[0], &pair[1], *gap, middle)?;
    }
    let (from, to) = (first.place(), last.place());
    let step = [0, 1, 2].map(|axis| (to[axis] - from[axis]) / (slices.len() - 1) as f64);
    // a tilted gantry shifts each slice; none may be shifted otherwise
    for (index, slice) in slices.iter().enumerate() {
        let place = slice.place();
        let off = [0, 1, 2].map(|axis| place[axis] - from[axis] - step[axis] * index as f64);
        if length(off) > 0.25 * length(step) {
            let found = format!("a slice {:.3} mm from where its neighbours have it", length(off));
            let remedy = "Some slices may be missing or doubled, or the table moved: export the series again.";
            return Err(Error::file(&slice.shown, found, "slices along a line", remedy));
        }
    }
    if length(cross(step, normal)) > 0.01 * length(step) {
        let name = first.shown.display();
        log::warn!(
            "{name}: the slices are shifted against one another (a tilted gantry), which the image keeps"
        );
    }
    Ok(step)
}

fn check_step(one: &Slice, other: &Slice, gap: f64, middle: f64) -> Result<()> {
    let beside = file_name(&one.shown);
    if gap < 1e-3_f64.max(0.01 * middle) {
        let found = format!("the position of {beside}, too");
        let remedy = "Move one of the two away; where every position comes several times (phases, echoes), export each as a series.";
        return Err(Error::file(&other.shown, found, "one slice at each position", remedy));
    }
    if (gap - middle).abs() > UNEVEN * middle {
        let found = format!("a step of {gap:.3} mm from {beside}");
        let remedy = if gap > middle {
            "A slice is missing between them: export the series again."
        } else {
            "A slice lies between others: export the series again."
        };
        let expected = format!("{middle:.3} mm, as between the other slices");
        return Err(Error::file(&other.shown, found, expected, remedy));
    }
    Ok(())
}

pub(super) fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
}
