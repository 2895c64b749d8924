//! DICOM Segmentation objects: binary, a segment a class, on the slices of the series that was segmented.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use dicom_core::value::DataSetSequence;
use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject};
use ndarray::ArrayView3;

use super::origin::Origin;
use crate::base::files::write_with;
use crate::base::{Error, Result};
use crate::imaging::file_order::Arrangement;
use crate::imaging::grid::Grid;
use crate::imaging::segment::Segment;

/// Who makes the segmentations that are written here.
pub(super) const MANUFACTURER: &str = "u2seg";

/// A plane of a segment.
struct Frame {
    /// Position of the segment, from 0.
    segment: usize,
    /// Position of the slice, from 0.
    slice: usize,
}

/// Writes labels (D, H, W) on the grid of a DICOM series as a Segmentation object; the planes without a voxel of a segment are
/// left out.
///
/// # Errors
///
/// Where the grid is no series', there is no segment, or the file cannot be written whole.
pub(in crate::imaging) fn write_segmentation(
    path: &Path,
    labels: ArrayView3<'_, u8>,
    grid: &Grid,
    segments: &[Segment],
) -> Result<()> {
    let Some(origin) = &grid.origin else {
        let expected = "an image from DICOM files, whose slices the segmentation names";
        let remedy = "Segment the DICOM series itself, or choose another `format`.";
        return Err(Error::file(path, "no DICOM series behind the mask", expected, remedy));
    };
    if segments.is_empty() {
        let expected = "the classes of the mask";
        let remedy = "Choose another `format` for a mask without named classes.";
        return Err(Error::file(path, "no class", expected, remedy));
    }
    let mut voxels = Vec::with_capacity(labels.len());
    let ordered = Arrangement::of(grid).write(labels, &mut voxels);
    ordered.map_err(|e| Error::io(path, e))?;
    let frames = frames(&voxels, grid, segments);
    let mut object = head(origin, grid, segments)?;
    put(&mut object, tags::NUMBER_OF_FRAMES, VR::IS, frames.len().to_string());
    sequence(&mut object, tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, vec![shared(origin)]);
    let groups = frames.iter().map(|frame| group(frame, origin)).collect();
    sequence(&mut object, tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, groups);
    put(&mut object, tags::PIXEL_DATA, VR::OB, bits(&voxels, grid, segments, &frames));
    let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    let whole = object.with_meta(meta).map_err(|e| Error::Internal(e.to_string()))?;
    write_with(path, |file| whole.write_all(file).map_err(io::Error::other))
}

fn put(object: &mut InMemDicomObject, tag: Tag, vr: VR, value: impl Into<PrimitiveValue>) {
    object.put(DataElement::new(tag, vr, value.into()));
}

fn sequence(object: &mut InMemDicomObject, tag: Tag, items: Vec<InMemDicomObject>) {
    object.put(DataElement::new(tag, VR::SQ, DataSetSequence::from(items)));
}

/// An item with some elements.
fn item(elements: impl IntoIterator<Item = (Tag, VR, PrimitiveValue)>) -> InMemDicomObject {
    let mut object = InMemDicomObject::new_empty();
    elements.into_iter().for_each(|(tag, vr, value)| put(&mut object, tag, vr, value));
    object
}

/// A concept of a coding scheme.
fn code(value: &str, scheme: &str, meaning: &str) -> Vec<InMemDicomObject> {
    vec![item([
        (tags::CODE_VALUE, VR::SH, value.into()),
        (tags::CODING_SCHEME_DESIGNATOR, VR::SH, scheme.into()),
        (tags::CODE_MEANING, VR::LO, meaning.into()),
    ])]
}

/// A UID that no other object has.
fn uid() -> String {
    // the form of UIDs from random UUIDs
    let random: u128 = rand::random();
    let version = random & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    format!("2.25.{version}")
}

/// A number in the 16 letters that DICOM has for one.
fn decimal(value: f64) -> String {
    let written = |digits: usize| format!("{value:.digits$}");
    let short = |text: &String| text.len() <= 16;
    let text = (0..=12).rev().map(written).find(short).unwrap_or_else(|| format!("{value:.8e}"));
    match text.contains('.') && !text.contains('e') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
        false => text,
    }
}

fn decimals(values: &[f64]) -> PrimitiveValue {
    PrimitiveValue::Strs(values.iter().map(|value| decimal(*value)).collect())
}

/// Today and now in UTC, as DICOM writes them.
fn now() -> [String; 2] {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // days of eras of 400 years, which begin with March
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) =
        (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month < 3);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    [format!("{year:04}{month:02}{day:02}"), format!("{hour:02}{minute:02}{second:02}")]
}

/// All but what depends on the frames.
fn head(origin: &Origin, grid: &Grid, segments: &[Segment]) -> Result<InMemDicomObject> {
    let mut object = origin.shared.clone();
    fill_up(&mut object);
    // names of classes may have letters that the source's characters lack
    put(&mut object, tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 192");
    pixels(&mut object, grid)?;
    identity(&mut object);
    let described = segments.iter().zip(1..).map(|(segment, number)| describe(segment, number));
    sequence(&mut object, tags::SEGMENT_SEQUENCE, described.collect());
    dimensions(&mut object);
    let mut source = item([(tags::SERIES_INSTANCE_UID, VR::UI, origin.series.as_str().into())]);
    let files = origin.slices.iter().filter(|slice| slice.frame.is_none_or(|frame| frame == 1));
    let instances = files.map(|slice| reference(&slice.class, &slice.instance)).collect();
    sequence(&mut source, tags::REFERENCED_INSTANCE_SEQUENCE, instances);
    sequence(&mut object, tags::REFERENCED_SERIES_SEQUENCE, vec![source]);
    Ok(object)
}

/// Adds what must be there, known or not.
fn fill_up(object: &mut InMemDicomObject) {
    let needed = [
        (tags::PATIENT_NAME, VR::PN),
        (tags::PATIENT_ID, VR::LO),
        (tags::PATIENT_BIRTH_DATE, VR::DA),
        (tags::PATIENT_SEX, VR::CS),
        (tags::STUDY_DATE, VR::DA),
        (tags::STUDY_TIME, VR::TM),
        (tags::STUDY_ID, VR::SH),
        (tags::ACCESSION_NUMBER, VR::SH),
        (tags::REFERRING_PHYSICIAN_NAME, VR::PN),
        (tags::POSITION_REFERENCE_INDICATOR, VR::LO),
    ];
    for (tag, vr) in needed {
        if object.get(tag).is_none() {
            put(object, tag, vr, PrimitiveValue::Empty);
        }
    }
}

/// How the voxels are stored.
fn pixels(object: &mut InMemDicomObject, grid: &Grid) -> Result<()> {
    let narrow = |count: usize| {
        let wide = |_| Error::Internal(format!("{count} rows or columns of a DICOM image"));
        u16::try_from(count).map_err(wide)
    };
    let [columns, rows, _] = grid.dims;
    let numbers = [
        (tags::ROWS, narrow(rows)?),
        (tags::COLUMNS, narrow(columns)?),
        (tags::SAMPLES_PER_PIXEL, 1),
        (tags::BITS_ALLOCATED, 1),
        (tags::BITS_STORED, 1),
        (tags::HIGH_BIT, 0),
        (tags::PIXEL_REPRESENTATION, 0),
    ];
    numbers.into_iter().for_each(|(tag, value)| put(object, tag, VR::US, value));
    put(object, tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2");
    put(object, tags::LOSSY_IMAGE_COMPRESSION, VR::CS, "00");
    Ok(())
}

/// What the object is, and who made it when.
fn identity(object: &mut InMemDicomObject) {
    let (instance, series) = (uid(), uid());
    let [date, time] = now();
    let words = [
        (tags::SOP_CLASS_UID, VR::UI, uids::SEGMENTATION_STORAGE),
        (tags::SOP_INSTANCE_UID, VR::UI, &instance),
        (tags::SERIES_INSTANCE_UID, VR::UI, &series),
        (tags::MODALITY, VR::CS, "SEG"),
        (tags::SERIES_NUMBER, VR::IS, "1000"),
        (tags::SERIES_DESCRIPTION, VR::LO, "u2seg segmentation"),
        (tags::SERIES_DATE, VR::DA, &date),
        (tags::SERIES_TIME, VR::TM, &time),
        (tags::CONTENT_DATE, VR::DA, &date),
        (tags::CONTENT_TIME, VR::TM, &time),
        (tags::INSTANCE_CREATION_DATE, VR::DA, &date),
        (tags::INSTANCE_CREATION_TIME, VR::TM, &time),
        (tags::INSTANCE_NUMBER, VR::IS, "1"),
        (tags::MANUFACTURER, VR::LO, MANUFACTURER),
        (tags::MANUFACTURER_MODEL_NAME, VR::LO, "u2seg"),
        (tags::DEVICE_SERIAL_NUMBER, VR::LO, "1"),
        (tags::SOFTWARE_VERSIONS, VR::LO, env!("CARGO_PKG_VERSION")),
        (tags::SEGMENTATION_TYPE, VR::CS, "BINARY"),
        (tags::SEGMENTS_OVERLAP, VR::CS, "NO"),
        (tags::CONTENT_LABEL, VR::CS, "SEGMENTATION"),
        (tags::CONTENT_DESCRIPTION, VR::LO, "Segmentation by a neural network"),
        (tags::CONTENT_CREATOR_NAME, VR::PN, "u2seg"),
        (tags::BURNED_IN_ANNOTATION, VR::CS, "NO"),
    ];
    words.into_iter().for_each(|(tag, vr, text)| put(object, tag, vr, text));
    let kind = PrimitiveValue::Strs(["DERIVED", "PRIMARY"].map(String::from).into_iter().collect());
    put(object, tags::IMAGE_TYPE, VR::CS, kind);
}

fn reference(class: &str, instance: &str) -> InMemDicomObject {
    item([
        (tags::REFERENCED_SOP_CLASS_UID, VR::UI, class.into()),
        (tags::REFERENCED_SOP_INSTANCE_UID, VR::UI, instance.into()),
    ])
}

/// What is said of a segment, whose number cannot be its value where values have gaps.
fn told(label: &str, value: u8) -> String {
    format!("{label}{TOLD}{value}{OF_MASK}")
}

const TOLD: &str = ", value ";
const OF_MASK: &str = " of the mask";

/// The value in the mask that a description written here tells.
pub(super) fn value_of(description: &str) -> Option<u8> {
    let (_, value) = description.strip_suffix(OF_MASK)?.rsplit_once(TOLD)?;
    value.parse().ok()
}

fn describe(segment: &Segment, number: u16) -> InMemDicomObject {
    // 64 letters are all that DICOM has for a label, and a backslash parts values
    let label: String = segment.name.replace('\\', "/").chars().take(64).collect();
    let told = told(&label, segment.value);
    let lab = PrimitiveValue::U16(segment.cielab().as_slice().into());
    let mut object = item([
        (tags::SEGMENT_NUMBER, VR::US, number.into()),
        (tags::SEGMENT_LABEL, VR::LO, label.as_str().into()),
        (tags::SEGMENT_DESCRIPTION, VR::ST, told.into()),
        (tags::SEGMENT_ALGORITHM_TYPE, VR::CS, "AUTOMATIC".into()),
        (tags::SEGMENT_ALGORITHM_NAME, VR::LO, "u2seg".into()),
        (tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE, VR::US, lab),
    ]);
    // a dataset names its classes as it likes: no code says more of all of them
    let tissue = || code("85756007", "SCT", "Tissue");
    sequence(&mut object, tags::SEGMENTED_PROPERTY_CATEGORY_CODE_SEQUENCE, tissue());
    sequence(&mut object, tags::SEGMENTED_PROPERTY_TYPE_CODE_SEQUENCE, tissue());
    object
}

/// Frames are numbered by segment and by position.
fn dimensions(object: &mut InMemDicomObject) {
    let uid = uid();
    let organization = || (tags::DIMENSION_ORGANIZATION_UID, VR::UI, uid.as_str().into());
    let index = |group: Tag, pointer: Tag, label: &str| {
        item([
            organization(),
            (
                tags::DIMENSION_INDEX_POINTER,
                VR::AT,
                PrimitiveValue::Tags([pointer].as_slice().into()),
            ),
            (
                tags::FUNCTIONAL_GROUP_POINTER,
                VR::AT,
                PrimitiveValue::Tags([group].as_slice().into()),
            ),
            (tags::DIMENSION_DESCRIPTION_LABEL, VR::LO, label.into()),
        ])
    };
    let indices = vec![
        index(
            tags::SEGMENT_IDENTIFICATION_SEQUENCE,
            tags::REFERENCED_SEGMENT_NUMBER,
            "Segment Number",
        ),
        index(tags::PLANE_POSITION_SEQUENCE, tags::IMAGE_POSITION_PATIENT, "Image Position"),
    ];
    sequence(object, tags::DIMENSION_ORGANIZATION_SEQUENCE, vec![item([organization()])]);
    sequence(object, tags::DIMENSION_INDEX_SEQUENCE, indices);
}

/// What is the same for all frames.
fn shared(origin: &Origin) -> InMemDicomObject {
    let mut object = InMemDicomObject::new_empty();
    let orientation = decimals(origin.orientation.as_flattened());
    let plane = item([(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, orientation)]);
    sequence(&mut object, tags::PLANE_ORIENTATION_SEQUENCE, vec![plane]);
    let step = || decimals(&[origin.step]);
    let measures = item([
        (tags::SLICE_THICKNESS, VR::DS, step()),
        (tags::SPACING_BETWEEN_SLICES, VR::DS, step()),
        (tags::PIXEL_SPACING, VR::DS, decimals(&origin.spacing)),
    ]);
    sequence(&mut object, tags::PIXEL_MEASURES_SEQUENCE, vec![measures]);
    object
}

/// What is said of a frame: its place, its segment and its source.
fn group(frame: &Frame, origin: &Origin) -> InMemDicomObject {
    let mut object = InMemDicomObject::new_empty();
    let (segment, slice) = (frame.segment as u16 + 1, &origin.slices[frame.slice]);
    let place = [u32::from(segment), frame.slice as u32 + 1];
    let index = PrimitiveValue::U32(place.as_slice().into());
    let content = item([(tags::DIMENSION_INDEX_VALUES, VR::UL, index)]);
    sequence(&mut object, tags::FRAME_CONTENT_SEQUENCE, vec![content]);
    let position = item([(tags::IMAGE_POSITION_PATIENT, VR::DS, decimals(&slice.position))]);
    sequence(&mut object, tags::PLANE_POSITION_SEQUENCE, vec![position]);
    let identity = item([(tags::REFERENCED_SEGMENT_NUMBER, VR::US, segment.into())]);
    sequence(&mut object, tags::SEGMENT_IDENTIFICATION_SEQUENCE, vec![identity]);
    let mut source = reference(&slice.class, &slice.instance);
    if let Some(frame) = slice.frame {
        put(&mut source, tags::REFERENCED_FRAME_NUMBER, VR::IS, frame.to_string());
    }
    // the mask lies on the slice's own grid, so that viewers may match pixel by pixel
    put(&mut source, tags::SPATIAL_LOCATIONS_PRESERVED, VR::CS, "YES");
    let purpose = code("121322", "DCM", "Source image for image processing operation");
    sequence(&mut source, tags::PURPOSE_OF_REFERENCE_CODE_SEQUENCE, purpose);
    let mut derivation = InMemDicomObject::new_empty();
    sequence(&mut derivation, tags::SOURCE_IMAGE_SEQUENCE, vec![source]);
    let how = code("113076", "DCM", "Segmentation");
    sequence(&mut derivation, tags::DERIVATION_CODE_SEQUENCE, how);
    sequence(&mut object, tags::DERIVATION_IMAGE_SEQUENCE, vec![derivation]);
    object
}

/// The planes of each segment that have a voxel of it; of a mask without any the first plane of the first segment.
fn frames(voxels: &[u8], grid: &Grid, segments: &[Segment]) -> Vec<Frame> {
    let plane = (grid.dims[0] * grid.dims[1]).max(1);
    // which values each plane has
    let present: Vec<[bool; 256]> = voxels
        .chunks(plane)
        .map(|voxels| {
            let mut present = [false; 256];
            voxels.iter().for_each(|value| present[usize::from(*value)] = true);
            present
        })
        .collect();
    let mut frames = Vec::new();
    for (segment, Segment { value, .. }) in segments.iter().enumerate() {
        let slices = present.iter().enumerate().filter(|(_, has)| has[usize::from(*value)]);
        frames.extend(slices.map(|(slice, _)| Frame { segment, slice }));
    }
    if frames.is_empty() {
        frames.push(Frame { segment: 0, slice: 0 });
    }
    frames
}

/// The voxels of all frames, a bit each, the first ones lowest; frames follow one another without gaps.
fn bits(voxels: &[u8], grid: &Grid, segments: &[Segment], frames: &[Frame]) -> Vec<u8> {
    let plane = grid.dims[0] * grid.dims[1];
    let mut bits = vec![0; (plane * frames.len()).div_ceil(8)];
    for (index, frame) in frames.iter().enumerate() {
        let value = segments[frame.segment].value;
        let own = voxels[frame.slice * plane..][..plane].iter().enumerate();
        for (at, _) in own.filter(|(_, voxel)| **voxel == value) {
            let at = index * plane + at;
            bits[at / 8] |= 1 << (at % 8);
        }
    }
    if bits.len() % 2 == 1 {
        bits.push(0);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_into_sixteen_letters() {
        for (value, text) in [
            (0.0, "0"),
            (-0.5, "-0.5"),
            (0.123_456_789_012_345, "0.123456789012"),
            (-123_456.789_012_345, "-123456.78901235"),
            (1.0 / 3.0, "0.333333333333"),
            (-1234.0, "-1234"),
        ] {
            assert_eq!(decimal(value), text);
        }
        assert!(decimal(-1e300).len() <= 16);
    }

    #[test]
    fn uids_are_of_random_uuids() {
        let (one, other) = (uid(), uid());
        assert_ne!(one, other);
        assert!(one.len() <= 64 && one.starts_with("2.25."));
    }
}
