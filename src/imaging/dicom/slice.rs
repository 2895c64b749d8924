//! The slices of a DICOM file: its only one, or the frames of an enhanced one, each with its place and its scale.

use std::path::{Path, PathBuf};

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use dicom_object::mem::InMemElement;
use dicom_object::{DefaultDicomObject, InMemDicomObject, OpenFileOptions};

use super::item::Item;
use super::lengths;
use crate::base::files::read_bytes;
use crate::base::{Error, Result};

pub(super) const EXPECTED: &str = "a DICOM image";

/// One plane of voxels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slice {
    pub item: PathBuf,
    pub shown: PathBuf,
    /// Its frame in the file, from 0, and whether the file has several.
    pub frame: u32,
    pub several: bool,
    pub class: String,
    pub instance: String,
    /// Rows and columns.
    pub size: [usize; 2],
    /// Of the first voxel, LPS; none where the file does not say it.
    pub position: Option<[f64; 3]>,
    /// Direction cosines of rows and of columns.
    pub orientation: Option<[[f64; 3]; 2]>,
    /// Millimetres between rows and between columns.
    pub spacing: Option<[f64; 2]>,
    /// Millimetres from plane to plane, where the file says them.
    pub between: Option<f64>,
    /// Millimetres of a plane, where the file says them.
    pub thickness: Option<f64>,
    pub scale: Scale,
}

impl Slice {
    /// Its position, of a slice that was seen to have one.
    pub fn place(&self) -> [f64; 3] {
        self.position.unwrap_or_default()
    }
}

/// What a stored number stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    pub slope: f64,
    pub intercept: f64,
}

/// What tells series apart for a person.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct About {
    pub number: Option<i64>,
    pub uid: String,
    pub modality: String,
    pub description: String,
}

/// What a file says: its series, its slices, and why they cannot be used where that is so.
pub(super) struct Contents {
    pub about: About,
    pub slices: Vec<Slice>,
    pub unusable: Option<(String, &'static str)>,
    pub object: InMemDicomObject,
}

fn refuse(shown: &Path, found: impl Into<String>) -> Error {
    Error::file(shown, found, EXPECTED, "Copy or export the file again, or move it away.")
}

/// Reads a file, whole or up to its voxels.
pub(super) fn object(item: &Path, shown: &Path, whole: bool) -> Result<DefaultDicomObject> {
    let bytes = read_bytes(item, EXPECTED)?;
    lengths::check(&bytes).map_err(|found| refuse(shown, found))?;
    let options = OpenFileOptions::new();
    let options = if whole { options } else { options.read_until(tags::PIXEL_DATA) };
    options.from_reader(bytes.get(128..).unwrap_or_default()).map_err(|e| refuse(shown, told(&e)))
}

/// An error of the crates with what it came from, in a line.
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        words += &format!(": {error}");
        source = error.source();
    }
    format!("a file that cannot be read ({words})")
}

/// Whether a file is a segmentation.
pub(super) fn is_segmentation(top: &Part<'_>) -> bool {
    let class = top.text(tags::SOP_CLASS_UID);
    [uids::SEGMENTATION_STORAGE, uids::LABEL_MAP_SEGMENTATION_STORAGE].contains(&class.as_str())
}

/// What a file says of its image; none where it holds none, as reports, plans and segmentations do.
pub(super) fn contents(item: &Item) -> Result<Option<Contents>> {
    let object = object(&item.file, &item.shown, false)?;
    let top = Part(&object);
    if is_segmentation(&top) {
        return Ok(None);
    }
    let about = About {
        number: top.whole(tags::SERIES_NUMBER),
        uid: top.text(tags::SERIES_INSTANCE_UID),
        modality: top.text(tags::MODALITY),
        description: top.text(tags::SERIES_DESCRIPTION),
    };
    let frames = top.whole(tags::NUMBER_OF_FRAMES).unwrap_or(1);
    let per_frame = top.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
    let unusable = unusable(&top, frames, per_frame.len());
    let count = if unusable.is_some() { 1 } else { frames as u32 };
    let Some(slices) = slices(item, &top, count) else { return Ok(None) };
    Ok(Some(Contents { about, slices, unusable, object: object.into_inner() }))
}

/// The first so many frames of a file; none where it has no rows and columns.
pub(super) fn slices(item: &Item, top: &Part<'_>, count: u32) -> Option<Vec<Slice>> {
    let size = (top.whole(tags::ROWS), top.whole(tags::COLUMNS));
    let (Some(rows @ 1..=65535), Some(columns @ 1..=65535)) = size else { return None };
    let frames = top.whole(tags::NUMBER_OF_FRAMES).unwrap_or(1);
    let per_frame = top.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
    let shared = top.items(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).first();
    let slice = |frame: u32| {
        let places = Places { top, shared, frame: per_frame.get(frame as usize) };
        Slice {
            item: item.file.clone(),
            shown: item.shown.clone(),
            frame,
            several: frames > 1,
            class: top.text(tags::SOP_CLASS_UID),
            instance: top.text(tags::SOP_INSTANCE_UID),
            size: [rows as usize, columns as usize],
            ..places.slice()
        }
    };
    Some((0..count).map(slice).collect())
}

/// Why a file is no image that can be used.
fn unusable(top: &Part<'_>, frames: i64, groups: usize) -> Option<(String, &'static str)> {
    if top.whole(tags::SAMPLES_PER_PIXEL).is_some_and(|samples| samples != 1) {
        let kind = top.text(tags::PHOTOMETRIC_INTERPRETATION);
        return Some((format!("a colour image ({kind})"), "one number a voxel"));
    }
    if frames < 1 || frames != 1 && frames != groups as i64 {
        let found = format!("{frames} frames without a place for each");
        return Some((found, "one frame, or an enhanced image with the place of each"));
    }
    if top.has(tags::MODALITY_LUT_SEQUENCE) {
        let expected = "RescaleSlope and RescaleIntercept";
        return Some(("a table in the place of a scale (ModalityLUTSequence)".into(), expected));
    }
    None
}

/// Where what is said of a frame may stand: in its own group, in that of all, or at the top of the file.
struct Places<'a> {
    top: &'a Part<'a>,
    shared: Option<&'a InMemDicomObject>,
    frame: Option<&'a InMemDicomObject>,
}

impl Places<'_> {
    /// Numbers of an element, so many of them.
    fn numbers<const N: usize>(&self, group: Tag, tag: Tag) -> Option<[f64; N]> {
        let within = |part: Option<&InMemDicomObject>| {
            let item = Part(part?).items(group).first()?;
            Part(item).numbers(tag)
        };
        within(self.frame).or_else(|| within(self.shared)).or_else(|| self.top.numbers(tag))
    }

    fn number(&self, group: Tag, tag: Tag) -> Option<f64> {
        self.numbers::<1>(group, tag).map(|[value]| value)
    }

    /// What depends on the frame; the rest is for the caller.
    fn slice(&self) -> Slice {
        let (place, plane) = (tags::PLANE_POSITION_SEQUENCE, tags::PLANE_ORIENTATION_SEQUENCE);
        let (measures, values) =
            (tags::PIXEL_MEASURES_SEQUENCE, tags::PIXEL_VALUE_TRANSFORMATION_SEQUENCE);
        let orientation: Option<[f64; 6]> = self.numbers(plane, tags::IMAGE_ORIENTATION_PATIENT);
        let between = self.number(measures, tags::SPACING_BETWEEN_SLICES).map(f64::abs);
        let between = between.filter(|edge| *edge > 0.0);
        let thick = self.number(measures, tags::SLICE_THICKNESS);
        let slope = self.number(values, tags::RESCALE_SLOPE).unwrap_or(1.0);
        let intercept = self.number(values, tags::RESCALE_INTERCEPT).unwrap_or(0.0);
        Slice {
            item: PathBuf::new(),
            shown: PathBuf::new(),
            frame: 0,
            several: false,
            class: String::new(),
            instance: String::new(),
            size: [0; 2],
            position: self.numbers(place, tags::IMAGE_POSITION_PATIENT),
            orientation: orientation.map(|[a, b, c, d, e, f]| [[a, b, c], [d, e, f]]),
            spacing: self.numbers(measures, tags::PIXEL_SPACING),
            between,
            thickness: thick.filter(|edge| *edge > 0.0),
            scale: Scale { slope, intercept },
        }
    }
}

/// Elements of a file, or of an item of a sequence.
pub(super) struct Part<'a>(pub &'a InMemDicomObject);

impl<'a> Part<'a> {
    fn element(&self, tag: Tag) -> Option<&'a InMemElement> {
        self.0.get(tag)
    }

    pub fn has(&self, tag: Tag) -> bool {
        self.element(tag).is_some()
    }

    /// Without the blanks and zeros that fill it up; empty where it is missing.
    pub fn text(&self, tag: Tag) -> String {
        let text = self.element(tag).and_then(|element| element.to_str().ok());
        text.map(|text| text.trim_matches(['\0', ' ']).to_string()).unwrap_or_default()
    }

    pub fn whole(&self, tag: Tag) -> Option<i64> {
        self.element(tag)?.to_int().ok()
    }

    /// Numbers of an element, so many of them, all finite.
    pub fn numbers<const N: usize>(&self, tag: Tag) -> Option<[f64; N]> {
        let numbers = self.element(tag)?.to_multi_float64().ok()?;
        let finite = numbers.iter().all(|value| value.is_finite());
        numbers.try_into().ok().filter(|_| finite)
    }

    /// The items of a sequence.
    pub fn items(&self, tag: Tag) -> &'a [InMemDicomObject] {
        self.element(tag).and_then(|element| element.items()).unwrap_or_default()
    }
}
