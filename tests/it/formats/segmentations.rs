//! DICOM segmentations: those that are written, and those of highdicom (the seeds of fuzzing), which have two segments on
//! planes 1, 3 and 4 of a series of six, as `MARKED` says.

use dicom_core::Tag;
use dicom_dictionary_std::{tags, uids};
use dicom_object::{DefaultDicomObject, open_file};
use u2seg::low_level::imaging::{Reference, read_labels_on, read_labels_over, segments_of};

use super::*;

#[test]
fn a_segmentation_names_its_slices() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("ct");
    series(&at);
    let grid = read_image(&at).unwrap().grid().clone();
    // one voxel of the second class in the highest slice, two of the first below
    let mut labels = ndarray::Array3::zeros((4, 4, 3));
    labels[[3, 3, 2]] = 9;
    labels[[1, 3, 1]] = 4;
    labels[[1, 2, 2]] = 4;
    let map = LabelMap::new(labels, grid).unwrap();
    let segments = [Segment::new("liver", 4), Segment::new("Läsion", 9), Segment::new("none", 1)];
    let file = folder.path().join("seg.dcm");
    map.write_segments(&file, &segments).unwrap();
    let object = open_file(&file).unwrap();
    let text = |tag: Tag| object.element(tag).unwrap().to_str().unwrap().trim().to_string();
    assert_eq!(text(tags::SOP_CLASS_UID), "1.2.840.10008.5.1.4.1.1.66.4");
    assert_eq!(object.meta().media_storage_sop_class_uid(), "1.2.840.10008.5.1.4.1.1.66.4");
    assert_eq!(object.meta().transfer_syntax(), uids::EXPLICIT_VR_LITTLE_ENDIAN);
    assert_eq!((text(tags::MODALITY), text(tags::PATIENT_ID)), ("SEG".into(), "P1".into()));
    assert_eq!(text(tags::FRAME_OF_REFERENCE_UID), "1.2.3.5");
    assert_eq!(text(tags::NUMBER_OF_FRAMES), "2");
    let items = |tag: Tag| object.element(tag).unwrap().items().unwrap();
    let names: Vec<String> = items(tags::SEGMENT_SEQUENCE)
        .iter()
        .map(|item| item.element(tags::SEGMENT_LABEL).unwrap().to_str().unwrap().into_owned())
        .collect();
    assert_eq!(
        names.iter().map(|name| name.trim()).collect::<Vec<_>>(),
        ["liver", "Läsion", "none"]
    );
    let frames = items(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE);
    for (frame, segment, z) in [(&frames[0], 1, 2.5), (&frames[1], 2, 7.5)] {
        let inner = |group: Tag| &frame.element(group).unwrap().items().unwrap()[0];
        let identity = inner(tags::SEGMENT_IDENTIFICATION_SEQUENCE);
        let number = identity.element(tags::REFERENCED_SEGMENT_NUMBER).unwrap();
        assert_eq!(number.to_int::<i32>().unwrap(), segment);
        let place = inner(tags::PLANE_POSITION_SEQUENCE).element(tags::IMAGE_POSITION_PATIENT);
        assert_eq!(place.unwrap().to_multi_float64().unwrap(), [10.0, 20.0, z]);
        let source = inner(tags::DERIVATION_IMAGE_SEQUENCE);
        let source = &source.element(tags::SOURCE_IMAGE_SEQUENCE).unwrap().items().unwrap()[0];
        let instance = source.element(tags::REFERENCED_SOP_INSTANCE_UID).unwrap();
        let expected = format!("1.2.3.{}", (z * 1000.0) as i64 + 100_000);
        assert_eq!(instance.to_str().unwrap().trim_end_matches('\0'), expected);
        let preserved = source.element(tags::SPATIAL_LOCATIONS_PRESERVED).unwrap();
        assert_eq!(preserved.to_str().unwrap().trim(), "YES");
    }
    // i = 3 - H, j = 2 - W: voxels (0, 1) and (1, 0) of the first frame, (0, 0) of the second, 12 bits each
    let bits = object.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap();
    assert_eq!(bits[..3], [0b0001_0010, 0b0001_0000, 0]);
    // a mask of another image has no slices to name
    let plain = LabelMap::new(map.data().clone(), Grid::ras([4, 4, 3], [1.0; 3])).unwrap();
    let message = plain.write_segments(&file, &segments).unwrap_err().to_string();
    assert!(message.contains("no DICOM series") && message.contains("`format`"), "{message}");
}

/// Slice, row, column and segment of the voxels that the seeds have marked, as highdicom was given them.
const MARKED: [(usize, usize, usize, u8); 5] =
    [(1, 0, 1, 1), (1, 1, 2, 2), (3, 2, 3, 1), (4, 3, 4, 2), (4, 0, 0, 2)];

/// The image that the seeds are of: planes every 2.5 mm from 0 on.
fn source(file: PathBuf, planes: usize) -> PathBuf {
    // rows run to the back, columns to the left, as those of the seeds: to canonical axes i runs against H, j against W
    let head = format!(
        "ObjectType = Image\nNDims = 3\nDimSize = 5 4 {planes}\nElementType = MET_UCHAR\n\
         TransformMatrix = 0 1 0 1 0 0 0 0 1\nOffset = 10 20 0\nElementSpacing = 0.75 0.5 2.5\n\
         ElementDataFile = LOCAL\n"
    );
    let mut voxels = vec![0u8; 20 * planes];
    for (k, row, column, value) in MARKED.into_iter().filter(|(k, ..)| *k < planes) {
        voxels[20 * k + 5 * row + column] = value;
    }
    std::fs::write(&file, [head.as_bytes(), &voxels].concat()).unwrap();
    file
}

#[test]
fn segmentations_of_highdicom_are_masks() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (short, source) = (source(at("short.mha"), 4), source(at("source.mha"), 6));
    let whole = read_labels(&source, &Known::any()).unwrap();
    for name in ["segmentation", "label_map", "label_map_rle"] {
        let file = seed(&format!("dicom/{name}.dcm"));
        // from the first plane with labels to the last
        let own = read_labels(&file, &Known::any()).unwrap();
        assert_eq!((own.shape(), own.spacing()), ([4, 5, 4], [2.5, 0.75, 0.5]), "{name}");
        assert_eq!(*own.data(), whole.data().slice(ndarray::s![1..5, .., ..]), "{name}");
        // on its image's grid, whichever way that runs
        let image = read_image(&source).unwrap();
        let on = Reference { grid: image.grid(), path: &source };
        let over = read_labels_on(&file, &Known::any(), &on, Match::ByPlace).unwrap();
        assert_eq!(over.data(), whole.data(), "{name}");
        let turned = at("turned.nii");
        whole.write(&turned).unwrap();
        let over = read_labels_over(&file, &Known::any(), &turned).unwrap();
        assert_eq!(over.data(), whole.data(), "{name}");
        let found = segments_of(&file).unwrap();
        let told: Vec<(&str, u8)> = found.iter().map(|s| (s.name.as_str(), s.value)).collect();
        assert_eq!(told, [("liver", 1), ("spleen", 2)]);
        assert_eq!(found[0].color, [230, 159, 0]);
        // a mask is no image, and an image is no place for planes that it lacks
        let message = read_image(&file).unwrap_err().to_string();
        assert!(message.contains("which is a mask") && message.contains("series"), "{message}");
        let image = read_image(&short).unwrap();
        let on = Reference { grid: image.grid(), path: &short };
        let refused = read_labels_on(&file, &Known::any(), &on, Match::ByPlace).unwrap_err();
        assert!(refused.to_string().contains("centre shifted by"), "{refused}");
    }
    assert!(segments_of(&source).is_none());
}

/// A seed with something changed.
fn changed(file: &Path, change: impl Fn(&mut DefaultDicomObject)) -> String {
    let mut object = open_file(seed("dicom/segmentation.dcm")).unwrap();
    change(&mut object);
    object.write_to_file(file).unwrap();
    read_labels(file, &Known::any()).unwrap_err().to_string()
}

#[test]
fn segmentations_that_are_no_masks_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.dcm");
    let check = |message: String, parts: &[&str]| {
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    let overlap = read_labels(&seed("dicom/overlap.dcm"), &Known::any()).unwrap_err();
    check(overlap.to_string(), &["both segments 1 and 2", "overlap.dcm"]);
    let text = |tag: Tag, vr: VR, text: &str| {
        let text = text.to_string();
        move |object: &mut DefaultDicomObject| {
            object.put(DataElement::new(tag, vr, PrimitiveValue::from(text.clone())));
        }
    };
    let kind = text(tags::SEGMENTATION_TYPE, VR::CS, "FRACTIONAL");
    check(changed(&file, kind), &["FRACTIONAL", "binary"]);
    let frames = text(tags::NUMBER_OF_FRAMES, VR::IS, "5");
    check(changed(&file, frames), &["5 frames, 4 with a place"]);
    let short = |object: &mut DefaultDicomObject| {
        let bytes = PrimitiveValue::from(vec![0u8; 8]);
        object.put(DataElement::new(tags::PIXEL_DATA, VR::OB, bytes));
    };
    check(changed(&file, short), &["8 bytes of voxels", "10 bytes"]);
    let nameless = |object: &mut DefaultDicomObject| {
        object.remove_element(tags::SEGMENT_SEQUENCE);
    };
    check(changed(&file, nameless), &["no segment"]);
    // planes that lie far apart are no image
    let far = |object: &mut DefaultDicomObject| {
        object.update_value(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, |value| {
            let last = value.items_mut().unwrap().last_mut().unwrap();
            last.update_value(tags::PLANE_POSITION_SEQUENCE, |value| {
                let place = PrimitiveValue::Strs(
                    ["10", "20", "2.5e7"].map(String::from).into_iter().collect(),
                );
                let item = &mut value.items_mut().unwrap()[0];
                item.put(DataElement::new(tags::IMAGE_POSITION_PATIENT, VR::DS, place));
            });
        });
    };
    check(changed(&file, far), &["uneven steps"]);
}

#[test]
fn segmentations_are_converted_scored_and_drawn() {
    let case = Case::new();
    series(&case.at("ct"));
    let grid = read_image(&case.at("ct")).unwrap().grid().clone();
    let mut labels = vec![0u8; 48];
    (labels[14], labels[17], labels[26]) = (4, 4, 9);
    let map = LabelMap::from_vec(labels, grid).unwrap();
    map.write(&case.at("truth/ct.nii.gz")).unwrap();
    let segments = [Segment::new("liver", 4), Segment::new("lesion", 9)];
    std::fs::create_dir(case.at("made")).unwrap();
    map.write_segments(&case.at("made/ct.dcm"), &segments).unwrap();
    // the values are those of the mask, though segments are numbered from 1 on
    case.run("convert made/ct.dcm back.nii.gz --source ct").said(0, &["back.nii.gz"]);
    let back = read_labels(&case.at("back.nii.gz"), &Known::any()).unwrap();
    assert_eq!(back.data(), map.data());
    case.run("convert made/ct.dcm cut.nii.gz").said(0, &["cut.nii.gz"]);
    assert_eq!(read_labels(&case.at("cut.nii.gz"), &Known::any()).unwrap().shape(), [2, 4, 3]);
    case.run("convert made out -f nrrd").said(0, &["out/ct.seg.nrrd"]);
    let text = String::from_utf8_lossy(&case.bytes("out/ct.seg.nrrd")).into_owned();
    assert!(text.contains("Segment1_Name:=lesion"), "{text}");
    case.run("convert made/ct.dcm again.dcm --source ct").said(0, &["again.dcm"]);
    assert_eq!(segments_of(&case.at("again.dcm")).unwrap(), segments);
    case.run("convert made/ct.dcm a.nii --series 4").said(1, &["--series"]);
    // scored in folders and alone, also where the segmentation is the reference
    case.run("evaluate -p made -g truth -o scores.json").said(0, &["1.000"]);
    case.run("evaluate -p truth/ct.nii.gz -g made/ct.dcm -o s.json").said(0, &["1.000"]);
    case.run("view ct made/ct.dcm -o view.png").said(0, &["view.png"]);
    // its own names stand in the legend, as those of a description would
    case.run("view ct made/ct.dcm -o plain.png --labels none").said(0, &["plain.png"]);
    assert_ne!(case.bytes("view.png"), case.bytes("plain.png"));
    std::fs::write(case.at("names.json"), r#"{"labels":{"background":0,"liver":4,"lesion":9}}"#)
        .unwrap();
    case.run("view ct made/ct.dcm -o named.png --labels names.json").said(0, &["named.png"]);
    assert_eq!(case.bytes("view.png"), case.bytes("named.png"));
    case.run("report made").said(0, &["report.html"]);
    case.run("verify made/ct.dcm").said(1, &["a DICOM segmentation, which is a mask"]);
}
