//! DICOM Segmentation objects as masks: binary ones whose segments do not overlap, and label maps.

use std::collections::BTreeMap;
use std::path::Path;

use dicom_core::value::Value;
use dicom_dictionary_std::tags;
use dicom_object::DefaultDicomObject;

use super::frames::Frames;
use super::item::Item;
use super::planes::{Lattice, Turn};
use super::segmentation;
use super::series::{alike, check_plane, needed};
use super::slice::{Part, Slice, object, slices};
use crate::base::{Error, Result};
use crate::imaging::grid::Grid;
use crate::imaging::segment::Segment;

/// Voxels that a mask may have whatever its file's size, and how many for each byte of a larger one.
const ROOMY: usize = 1 << 28;
const DENSE: usize = 1 << 10;

const EXPECTED: &str = "a DICOM segmentation: binary, or a label map";

/// Labels plane by plane. An object leaves out planes without labels.
pub struct Mask {
    segments: Vec<Segment>,
    turn: Turn,
    /// Along the normal of the planes: where each lies, LPS, and its labels.
    planes: Vec<([f64; 3], Vec<u8>)>,
    lattice: Lattice,
    /// Labels that were taken.
    taken: usize,
    size: u64,
}

fn refuse(shown: &Path, found: impl Into<String>, expected: &str) -> Error {
    let remedy = "Convert it by the program that made it, for example to .nrrd or NIfTI.";
    Error::file(shown, found, expected, remedy)
}

impl Mask {
    pub(super) fn read(item: &Item) -> Result<Self> {
        let mut object = object(&item.file, &item.shown, true)?;
        let raw = match object.take_element(tags::PIXEL_DATA).ok().map(|e| e.into_value()) {
            Some(Value::Primitive(value)) => Some(value.to_bytes().into_owned()),
            _ => None,
        };
        let read = Reading { item, object: &object };
        let numbered = read.segments()?;
        let slices = read.slices()?;
        let turn = Turn::of(&slices[0])?;
        let order = turn.order(&slices);
        let places: Vec<[f64; 3]> = order.iter().map(|plane| slices[plane[0]].place()).collect();
        let lattice = Lattice::of(&turn, &places, &slices[0])
            .ok_or_else(|| refuse(&item.shown, "planes at uneven steps", "planes of one image"))?;
        let size = std::fs::metadata(&item.file).map_or(0, |found| found.len());
        let voxels = turn.voxels().saturating_mul(lattice.count());
        if voxels > ROOMY.max(DENSE.saturating_mul(size as usize)) {
            let found = format!("{voxels} voxels in a file of {size} bytes");
            return Err(refuse(&item.shown, found, "planes that lie closer together"));
        }
        let labels = match read.is_label_map()? {
            true => read.label_map(&slices, &order, &numbered)?,
            false => read.binary(raw.as_deref(), &slices, &order, &numbered)?,
        };
        let planes = places.into_iter().zip(labels).collect();
        let segments = numbered.into_values().collect();
        Ok(Self { segments, turn, planes, lattice, taken: 0, size })
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The classes that it names.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Where its voxels lie; none where they lie nowhere.
    pub fn grid(&self) -> Option<Grid> {
        self.lattice.grid(&self.turn)
    }

    /// Takes the planes of another grid where its own are some of them.
    pub fn lay_on(&mut self, on: &Grid) {
        let places: Vec<[f64; 3]> = self.planes.iter().map(|(place, _)| *place).collect();
        if let Some(lattice) = Lattice::on(&self.turn, &places, on) {
            self.lattice = lattice;
        }
    }

    /// The next labels: as many as there is room for, where there are so many.
    pub fn fill(&mut self, room: &mut [u8]) -> usize {
        let (plane, mut filled) = (self.turn.voxels(), 0);
        while filled < room.len() && self.taken < plane * self.lattice.count() {
            let (index, start) = (self.taken / plane, self.taken % plane);
            let count = (plane - start).min(room.len() - filled);
            let to = &mut room[filled..filled + count];
            match self.lattice.plane_at(index) {
                Some(own) => to.copy_from_slice(&self.planes[own].1[start..start + count]),
                None => to.fill(0),
            }
            filled += count;
            self.taken += count;
        }
        filled
    }
}

/// A file of which the voxels were taken out.
struct Reading<'a> {
    item: &'a Item,
    object: &'a DefaultDicomObject,
}

impl Reading<'_> {
    fn refuse(&self, found: impl Into<String>, expected: &str) -> Error {
        refuse(&self.item.shown, found, expected)
    }

    fn is_label_map(&self) -> Result<bool> {
        let kind = Part(self.object).text(tags::SEGMENTATION_TYPE);
        match kind.as_str() {
            "BINARY" => Ok(false),
            "LABELMAP" => Ok(true),
            _ => Err(self.refuse(format!("the SegmentationType {kind:?}"), EXPECTED)),
        }
    }

    /// The segments by their numbers.
    fn segments(&self) -> Result<BTreeMap<i64, Segment>> {
        let own = Part(self.object).text(tags::MANUFACTURER) == segmentation::MANUFACTURER;
        let mut numbered = BTreeMap::new();
        for described in Part(self.object).items(tags::SEGMENT_SEQUENCE) {
            let part = Part(described);
            let number = part.whole(tags::SEGMENT_NUMBER).unwrap_or(-1);
            let value = match own {
                true => segmentation::value_of(&part.text(tags::SEGMENT_DESCRIPTION)),
                false => None,
            };
            let value = value.or_else(|| u8::try_from(number).ok());
            match value {
                // label maps may describe their background
                Some(0) => continue,
                Some(value) => {
                    let mut segment = Segment::new(part.text(tags::SEGMENT_LABEL), value);
                    let lab = part.numbers::<3>(tags::RECOMMENDED_DISPLAY_CIE_LAB_VALUE);
                    lab.iter().for_each(|lab| segment.set_cielab(*lab));
                    numbered.insert(number, segment);
                }
                None => return Err(self.refuse(format!("segment number {number}"), "1 to 255")),
            }
        }
        if numbered.is_empty() {
            return Err(self.refuse("no segment (SegmentSequence)", EXPECTED));
        }
        Ok(numbered)
    }

    /// Its frames, all of one size and direction, each with a place.
    fn slices(&self) -> Result<Vec<Slice>> {
        let top = Part(self.object);
        let groups = top.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).len();
        let frames = top.whole(tags::NUMBER_OF_FRAMES).unwrap_or(1);
        if groups == 0 || frames != groups as i64 {
            let found = format!("{frames} frames, {groups} with a place");
            return Err(self.refuse(found, "a place for each frame"));
        }
        let Some(slices) = slices(self.item, &top, groups as u32) else {
            return Err(self.refuse("frames without Rows and Columns", EXPECTED));
        };
        let first = &slices[0];
        let orientation = needed(first, first.orientation, "ImageOrientationPatient")?;
        let spacing = needed(first, first.spacing, "PixelSpacing")?;
        check_plane(first, orientation, spacing)?;
        for slice in &slices {
            needed(slice, slice.position, "ImagePositionPatient")?;
            alike(slice, first, orientation, spacing)?;
        }
        Ok(slices)
    }

    /// The segment that a frame is of.
    fn segment_of(&self, frame: u32) -> Option<i64> {
        let top = Part(self.object);
        let number = |group: &dicom_object::InMemDicomObject| {
            let identity = Part(group).items(tags::SEGMENT_IDENTIFICATION_SEQUENCE).first()?;
            Part(identity).whole(tags::REFERENCED_SEGMENT_NUMBER)
        };
        let own = top.items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE).get(frame as usize);
        let shared = top.items(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE).first();
        own.and_then(number).or_else(|| shared.and_then(number))
    }

    /// The labels of planes from a bit a voxel, a frame for each segment of a plane.
    fn binary(
        &self,
        raw: Option<&[u8]>,
        slices: &[Slice],
        order: &[Vec<usize>],
        numbered: &BTreeMap<i64, Segment>,
    ) -> Result<Vec<Vec<u8>>> {
        let bits = Part(self.object).whole(tags::BITS_ALLOCATED).unwrap_or(0);
        let Some(raw) = raw.filter(|_| bits == 1) else {
            let packed = if raw.is_none() { "packed voxels, or none" } else { "voxels" };
            let found = format!("{packed} of {bits} bits");
            return Err(self.refuse(found, "raw voxels of a bit each"));
        };
        let plane = slices[0].size[0] * slices[0].size[1];
        let wanted = plane.saturating_mul(slices.len()).div_ceil(8);
        if raw.len() < wanted {
            let found = format!("{} bytes of voxels", raw.len());
            return Err(self.refuse(found, &format!("{wanted} bytes")));
        }
        let mut planes = Vec::with_capacity(order.len());
        for frames in order {
            let mut labels = vec![0; plane];
            for &frame in frames {
                let number = self.segment_of(slices[frame].frame);
                let segment = number.and_then(|number| numbered.get(&number));
                let Some(segment) = segment else {
                    let found = format!("frame {} of segment {number:?}", frame + 1);
                    return Err(self.refuse(found, "segments of the SegmentSequence"));
                };
                self.mark(&mut labels, raw, frame * plane, segment.value)?;
            }
            planes.push(labels);
        }
        Ok(planes)
    }

    /// Gives the voxels of a frame, whose bits begin at `first`, their label.
    fn mark(&self, labels: &mut [u8], raw: &[u8], first: usize, value: u8) -> Result<()> {
        for (at, label) in labels.iter_mut().enumerate() {
            let bit = first + at;
            if raw[bit / 8] >> (bit % 8) & 1 == 0 {
                continue;
            }
            if *label != 0 && *label != value {
                let found = format!("a voxel of both segments {label} and {value}");
                return Err(self.refuse(found, "segments that do not overlap"));
            }
            *label = value;
        }
        Ok(())
    }

    /// The labels of planes whose voxels are the numbers of segments.
    fn label_map(
        &self,
        slices: &[Slice],
        order: &[Vec<usize>],
        numbered: &BTreeMap<i64, Segment>,
    ) -> Result<Vec<Vec<u8>>> {
        let plane = slices[0].size[0] * slices[0].size[1];
        if order.iter().any(|frames| frames.len() > 1) {
            return Err(self.refuse("several frames at one place", "one frame a plane"));
        }
        let in_order = order.iter().flatten().map(|frame| slices[*frame].clone());
        let mut decoded = Frames::new(in_order.collect(), None);
        let (mut planes, mut voxels) = (Vec::with_capacity(order.len()), vec![0f32; plane]);
        for _ in order {
            decoded.fill(bytemuck::cast_slice_mut(&mut voxels))?;
            let mut labels = vec![0; plane];
            for (label, number) in labels.iter_mut().zip(&voxels) {
                let number = *number as i64;
                *label = match numbered.get(&number) {
                    Some(segment) => segment.value,
                    None if number == 0 => 0,
                    None => {
                        let found = format!("voxels of segment {number}");
                        return Err(self.refuse(found, "segments of the SegmentSequence"));
                    }
                };
            }
            planes.push(labels);
        }
        Ok(planes)
    }
}
