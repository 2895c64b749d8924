//! Images in the formats of the field, in and out: NRRD and MetaImage as SimpleITK wrote them (the seeds of fuzzing), DICOM series
//! that are made here, and conversions of images and of datasets.

use std::path::{Path, PathBuf};

use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject, open_file};
use serde_json::json;
use u2seg::low_level::dataset::Dataset;
use u2seg::low_level::imaging::{
    Grid, ImageWriter, Known, LabelMap, Match, Segment, Volume, read_image, read_labels,
    read_series, write_volume,
};

use crate::cases::rig::Case;
use crate::common::program::{fail, path, succeed};

mod segmentations;

fn seed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name)
}

fn close(found: [[f64; 4]; 3], expected: [[f64; 4]; 3]) {
    let pairs = found.iter().flatten().zip(expected.iter().flatten());
    assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {expected:?}");
}

/// Values of a volume's file order, i fastest, taken from the canonical one by the axes that the seeds have.
fn seeded() -> Vec<f32> {
    // 5 voxels along i, 4 along j, 3 along k
    (0..60).map(|at| (at * 7 % 50) as f32).collect()
}

#[test]
fn what_simpleitk_writes_is_read_where_simpleitk_has_it() {
    // there: spacing 0.5, 1, 2; origin 1, 2, 3; i runs to -y and j to x of LPS
    let affine = [[0.0, -1.0, 0.0, -1.0], [0.5, 0.0, 0.0, -2.0], [0.0, 0.0, 2.0, 3.0]];
    for name in ["nrrd/raw.nrrd", "nrrd/gzip.nrrd", "metaimage/raw.mha", "metaimage/zlib.mha"] {
        let volume = read_image(&seed(name)).unwrap();
        let grid = volume.grid();
        close(grid.affine, affine);
        assert_eq!((grid.dims, volume.shape()), ([5, 4, 3], [3, 5, 4]), "{name}");
        // W runs against j, H along i, D along k
        for (at, value) in volume.as_slice().iter().enumerate() {
            let (k, i, j) = (at / 20, at / 4 % 5, 3 - at % 4);
            assert_eq!(*value, seeded()[20 * k + 5 * j + i], "{name}");
        }
    }
    for name in ["nrrd/vector.nrrd", "metaimage/vector.mha"] {
        let volume = read_image(&seed(name)).unwrap();
        let channels: Vec<&[f32]> = volume.channels().collect();
        assert_eq!(channels.len(), 2, "{name}");
        assert!(channels[0].iter().zip(channels[1]).all(|(a, b)| a + 1.0 == *b), "{name}");
    }
}

#[test]
fn spaces_of_nrrd_are_those_of_itk() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.nrrd");
    let read = |fields: &str| {
        let header = format!(
            "NRRD0005\n# a comment\ntype: short\ndimension: 3\nsizes: 4 3 2\nendian: big\n\
             encoding: raw\nkey:=value\n{fields}\n\n"
        );
        let voxels = (0..24i16).flat_map(i16::to_be_bytes);
        std::fs::write(&file, header.into_bytes().into_iter().chain(voxels).collect::<Vec<u8>>())
            .unwrap();
        read_image(&file)
    };
    let placed = "space directions: (1,0,0) (0,2,0) (0.5,0,3)\nspace origin: (10,20,30)";
    // signs of x and y in RAS, by what SimpleITK 2.5 says of the same files
    for (space, [x, y]) in [
        ("left-posterior-superior", [-1.0, -1.0]),
        ("LPS", [-1.0, -1.0]),
        ("right-anterior-superior", [1.0, 1.0]),
        ("left-anterior-superior", [-1.0, 1.0]),
        ("3D-right-handed", [-1.0, -1.0]),
        ("scanner-xyz", [-1.0, -1.0]),
    ] {
        let volume = read(&format!("space: {space}\n{placed}")).unwrap();
        let affine =
            [[x, 0.0, 0.5 * x, 10.0 * x], [0.0, 2.0 * y, 0.0, 20.0 * y], [0.0, 0.0, 3.0, 30.0]];
        close(volume.grid().affine, affine);
    }
    // voxels between their edges unless their centres are said to lie there
    let edges = "spacings: 1 2 3\naxis mins: 5 6 7";
    let origin = |fields: &str| read(fields).unwrap().grid().affine.map(|row| row[3]);
    assert_eq!(origin(edges), [-5.5, -7.0, 8.5]);
    assert_eq!(origin(&format!("{edges}\ncenterings: node node node")), [-5.0, -6.0, 7.0]);
    for (fields, part) in [
        ("space directions: (1,0,0) (2,0,0) (0,0,1)", "span the space"),
        ("space directions: (1,0,0) (0,nan,0) (0,0,1)", "the vector"),
        ("data file: LIST", "voxels in several files"),
        ("line skip: 3", "line skip"),
        ("encoding: hex", "raw or gzip"),
    ] {
        let message = read(fields).unwrap_err().to_string();
        assert!(message.contains(part) && message.contains("a.nrrd"), "{message}");
    }
}

/// A grid that no axis of is an axis of the world, and whose axes run against it.
fn turned(folder: &Path) -> Grid {
    let file = folder.join("turned.mha");
    let head = "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementType = MET_UCHAR\n\
                TransformMatrix = 0 0 1 -0.8 0.6 0 0.6 0.8 0\nOffset = 1.5 -2.25 100.125\n\
                ElementSpacing = 0.7 0.9 2.5\nElementDataFile = LOCAL\n";
    let voxels: Vec<u8> = (0..24).collect();
    std::fs::write(&file, [head.as_bytes(), &voxels].concat()).unwrap();
    read_image(&file).unwrap().grid().clone()
}

#[test]
fn every_format_gives_back_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let grid = turned(folder.path());
    let [d, h, w] = grid.shape();
    let labels: Vec<u8> = (0..24).map(|v| v % 5).collect();
    let map = LabelMap::from_vec(labels, grid.clone()).unwrap();
    let names = ["a.nii", "b.nii.gz", "c.nrrd", "d.nhdr", "e.mha", "f.mhd", "G.NRRD", "h.seg.nrrd"];
    for name in names {
        let file = folder.path().join(name);
        map.write_segments(&file, &[Segment::new("a", 1)]).unwrap();
        let back = read_labels(&file, &Known::any()).unwrap();
        assert_eq!(back.data(), map.data(), "{name}");
        close(back.grid().affine, grid.affine);
        let values = ndarray::Array3::from_shape_fn((d, h, w), |(z, y, x)| {
            (z * 12 + y * 4 + x) as f32 * 0.37 - 3.0
        });
        let mut writer = ImageWriter::begin(&file, &grid).unwrap();
        values.outer_iter().for_each(|plane| {
            writer.add(plane.insert_axis(ndarray::Axis(0))).unwrap();
        });
        writer.finish().unwrap();
        let volume = read_image(&file).unwrap();
        assert_eq!(volume.data().index_axis(ndarray::Axis(0), 0), values, "{name}");
        // whole numbers take two bytes each, or one
        let whole = values.mapv(|value| (value * 100.0).round()).insert_axis(ndarray::Axis(0));
        let whole = Volume::new(whole, grid.clone()).unwrap();
        write_volume(&file, &whole).unwrap();
        assert_eq!(read_image(&file).unwrap().data(), whole.data(), "{name}");
    }
    let two = ndarray::Array4::from_shape_fn((2, d, h, w), |(c, z, y, x)| (c + z + y + x) as f32);
    let two = Volume::new(two, grid).unwrap();
    write_volume(&folder.path().join("two.nii.gz"), &two).unwrap();
    assert_eq!(read_image(&folder.path().join("two.nii.gz")).unwrap().data(), two.data());
    assert!(write_volume(&folder.path().join("two.mha"), &two).is_err());
}

#[test]
fn segmentations_have_the_keys_of_slicer() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.seg.nrrd");
    // axes of LPS: i runs against W, j against H
    let head = "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementType = MET_UCHAR\n\
                ElementSpacing = 1 1 1\nElementDataFile = LOCAL\n";
    let mut voxels = vec![0u8; 24];
    (voxels[1], voxels[14]) = (2, 2);
    let source = folder.path().join("m.mha");
    std::fs::write(&source, [head.as_bytes(), &voxels].concat()).unwrap();
    let map = read_labels(&source, &Known::any()).unwrap();
    let segments = [Segment::new("left\\kidney", 2), Segment::new("cyst", 7)];
    map.write_segments(&file, &segments).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let end = bytes.windows(2).position(|pair| pair == b"\n\n").unwrap();
    let text = String::from_utf8(bytes[..end].to_vec()).unwrap();
    for line in [
        "space: left-posterior-superior",
        "kinds: domain domain domain",
        "encoding: gzip",
        "Segmentation_MasterRepresentation:=Binary labelmap",
        "Segment0_ID:=Segment_2",
        "Segment0_Name:=left\\\\kidney",
        "Segment0_LabelValue:=2",
        "Segment0_Layer:=0",
        "Segment0_Extent:=1 2 0 0 0 1",
        "Segment0_Color:=0.337255 0.705882 0.913725",
        "Segment1_Name:=cyst",
        "Segment1_LabelValue:=7",
        "Segment1_Extent:=0 -1 0 -1 0 -1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

const ROWS: u16 = 3;
const COLUMNS: u16 = 4;

/// A slice of a series at a position along z, with what `change` makes of it.
fn slice(file: &Path, z: f64, change: impl Fn(&mut InMemDicomObject)) {
    let mut object = InMemDicomObject::new_empty();
    let mut put = |tag: Tag, vr: VR, value: PrimitiveValue| {
        object.put(DataElement::new(tag, vr, value));
    };
    for (tag, vr, text) in [
        (tags::SOP_CLASS_UID, VR::UI, uids::CT_IMAGE_STORAGE.to_string()),
        (tags::SOP_INSTANCE_UID, VR::UI, format!("1.2.3.{}", (z * 1000.0) as i64 + 100_000)),
        (tags::STUDY_INSTANCE_UID, VR::UI, "1.2.3".into()),
        (tags::SERIES_INSTANCE_UID, VR::UI, "1.2.3.4".into()),
        (tags::FRAME_OF_REFERENCE_UID, VR::UI, "1.2.3.5".into()),
        (tags::PATIENT_ID, VR::LO, "P1".into()),
        (tags::SERIES_NUMBER, VR::IS, "4".into()),
        (tags::MODALITY, VR::CS, "CT".into()),
        (tags::SERIES_DESCRIPTION, VR::LO, "Thorax".into()),
        (tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME2".into()),
        (tags::RESCALE_SLOPE, VR::DS, "2".into()),
        (tags::RESCALE_INTERCEPT, VR::DS, "-1000".into()),
        (tags::SLICE_THICKNESS, VR::DS, "9".into()),
    ] {
        put(tag, vr, text.into());
    }
    let numbers = |text: &str| PrimitiveValue::Strs(text.split(' ').map(String::from).collect());
    // columns run to the back, rows to the left: a turned image
    put(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, numbers("0 1 0 1 0 0"));
    put(tags::IMAGE_POSITION_PATIENT, VR::DS, numbers(&format!("10 20 {z}")));
    put(tags::PIXEL_SPACING, VR::DS, numbers("0.5 0.75"));
    for (tag, value) in [
        (tags::ROWS, ROWS),
        (tags::COLUMNS, COLUMNS),
        (tags::SAMPLES_PER_PIXEL, 1),
        (tags::BITS_ALLOCATED, 16),
        (tags::BITS_STORED, 12),
        (tags::HIGH_BIT, 11),
        (tags::PIXEL_REPRESENTATION, 1),
    ] {
        put(tag, VR::US, value.into());
    }
    // 12 bits with a sign; the four above are an overlay's
    let voxel = |at: u16| 0xa000 | (at.wrapping_sub(5).wrapping_add(z as u16) & 0xfff);
    let voxels: Vec<u16> = (0..ROWS * COLUMNS).map(voxel).collect();
    put(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(voxels.into()));
    change(&mut object);
    let meta = FileMetaTableBuilder::new().transfer_syntax(uids::EXPLICIT_VR_LITTLE_ENDIAN);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    object.with_meta(meta).unwrap().write_to_file(file).unwrap();
}

fn set(tag: Tag, vr: VR, text: &str) -> impl Fn(&mut InMemDicomObject) {
    let values = PrimitiveValue::Strs(text.split(' ').map(String::from).collect());
    move |object| drop(object.put(DataElement::new(tag, vr, values.clone())))
}

/// Slices that lie the other way round than their names, without endings, and a note beside them.
fn series(folder: &Path) {
    for (name, z) in [("IM3", 0.0), ("IM1", 2.5), ("IM2", 5.0), ("IM0", 7.5)] {
        slice(&folder.join(name), z, |_| ());
    }
    std::fs::write(folder.join("notes.txt"), "a note").unwrap();
}

#[test]
fn a_series_is_an_image_by_its_positions() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("ct");
    series(&at);
    let volume = read_image(&at).unwrap();
    // as SimpleITK has it, from LPS to RAS: i runs to y, j to x; the normal of rows and columns is -z, along which the slices
    // are ordered; spacing from positions, not from SliceThickness
    let affine = [[0.0, -0.5, 0.0, -10.0], [-0.75, 0.0, 0.0, -20.0], [0.0, 0.0, -2.5, 7.5]];
    close(volume.grid().affine, affine);
    assert_eq!(volume.grid().dims, [4, 3, 4]);
    assert_eq!(volume.spacing(), [2.5, 0.75, 0.5]);
    for (place, value) in volume.data().indexed_iter() {
        let (_, z, y, x) = place;
        let (i, j) = (3 - y as i32, 2 - x as i32);
        let stored = 4 * j + i - 5 + (z as f64 * 2.5) as i32;
        assert_eq!(*value, (2 * stored - 1000) as f32, "{place:?}");
    }
    assert!(volume.grid().is_dicom());
}

#[test]
fn a_series_is_captioned_by_the_name_of_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let [near, far] = ["ct", "a/much/longer/way/to/ct"].map(|at| folder.path().join(at));
    let drawn = [&near, &far].map(|at| {
        series(at);
        let file = at.with_extension("png");
        succeed(&["view", path(at), "-o", path(&file)]);
        std::fs::read(file).unwrap()
    });
    assert!(drawn[0] == drawn[1], "the pictures of one series differ");
}

#[test]
fn slices_that_make_no_volume_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, z: f64, change: &dyn Fn(&mut InMemDicomObject)| {
        let at = folder.path().join(name);
        series(&at);
        slice(&at.join("odd"), z, change);
        read_image(&at).unwrap_err().to_string()
    };
    let check = |message: String, parts: &[&str]| {
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    let plain = |_: &mut InMemDicomObject| ();
    check(refused("gap", 12.5, &plain), &["a step of 5.000 mm", "IM0", "missing"]);
    check(refused("twice", 2.5, &plain), &["the position of", "IM1", "odd"]);
    check(refused("between", 1.0, &plain), &["a step of", "mm"]);
    let scout = set(tags::IMAGE_ORIENTATION_PATIENT, VR::DS, "1 0 0 0 0 -1");
    check(refused("scout", 10.0, &scout), &["the orientation", "scout"]);
    let shifted = set(tags::IMAGE_POSITION_PATIENT, VR::DS, "25 20 10");
    check(refused("shifted", 10.0, &shifted), &["from where its neighbours have it"]);
    let coarse = set(tags::PIXEL_SPACING, VR::DS, "0.8 0.75");
    check(refused("coarse", 10.0, &coarse), &["odd", "[0.8, 0.75]"]);
    let nowhere = |object: &mut InMemDicomObject| {
        object.remove_element(tags::IMAGE_POSITION_PATIENT);
    };
    check(refused("nowhere", 10.0, &nowhere), &["odd", "without ImagePositionPatient"]);
    let colour = |object: &mut InMemDicomObject| {
        object.put(DataElement::new(tags::SAMPLES_PER_PIXEL, VR::US, PrimitiveValue::from(3u16)));
    };
    check(refused("colour", 10.0, &colour), &["odd", "a colour image"]);
    let cut = |object: &mut InMemDicomObject| {
        let few = PrimitiveValue::U16(vec![0; 5].into());
        object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, few));
    };
    check(refused("cut", 10.0, &cut), &["odd", "10 bytes of voxels", "24 bytes"]);
}

#[test]
fn one_of_several_series_is_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("study");
    series(&at.join("a"));
    for z in [0.0, 1.0, 2.0] {
        slice(&at.join(format!("b/{z}.dcm")), z, |object| {
            set(tags::SERIES_INSTANCE_UID, VR::UI, "1.2.9")(object);
            set(tags::SERIES_NUMBER, VR::IS, "7")(object);
            set(tags::SERIES_DESCRIPTION, VR::LO, "Lung")(object);
        });
    }
    let one = [at.clone()];
    let message = read_image(&at).unwrap_err().to_string();
    let lines = [
        "2 series",
        "number 4, CT \"Thorax\", 4 slices, UID 1.2.3.4",
        "number 7, CT \"Lung\", 3 slices, UID 1.2.9",
        "`series`",
    ];
    assert!(lines.iter().all(|part| message.contains(part)), "{message}");
    for (chosen, depth) in [("7", 3), ("1.2.9", 3), ("4", 4), ("1.2.3.4", 4)] {
        let volume = read_series(&one, Match::default(), Some(chosen)).unwrap();
        assert_eq!(volume.shape()[0], depth);
    }
    let message = read_series(&one, Match::default(), Some("5")).unwrap_err().to_string();
    assert!(message.contains("no series 5") && message.contains("number 7"), "{message}");
    let told = fail(&["verify", path(&at)]);
    assert!(told.contains("--series") && told.contains("Lung"), "{told}");
    let told = succeed(&["verify", path(&at), "--series", "7"]);
    assert!(told.contains("3×4×3 voxels of 1×0.75×0.5 mm"), "{told}");
}

#[test]
fn archives_and_packed_and_enhanced_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    series(&at("ct"));
    let expected = read_image(&at("ct")).unwrap();
    let names = ["IM0", "IM1", "IM2", "IM3"];
    let mut tar = tar::Builder::new(Vec::new());
    for name in names {
        tar.append_path_with_name(at("ct").join(name), format!("deep/{name}")).unwrap();
    }
    let bytes = tar.into_inner().unwrap();
    std::fs::write(at("ct.tar"), &bytes).unwrap();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, &bytes).unwrap();
    std::fs::write(at("ct.tar.gz"), packer.finish().unwrap()).unwrap();
    let mut zip = zip::ZipWriter::new(std::fs::File::create(at("ct.zip")).unwrap());
    for name in names {
        // a name that would lead out of a folder is a name like others
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file(format!("../../{name}"), options).unwrap();
        let bytes = std::fs::read(at("ct").join(name)).unwrap();
        std::io::Write::write_all(&mut zip, &bytes).unwrap();
    }
    zip.finish().unwrap();
    for name in ["ct.tar", "ct.tar.gz", "ct.zip"] {
        let volume = read_image(&at(name)).unwrap();
        assert_eq!(volume.data(), expected.data(), "{name}");
        close(volume.grid().affine, expected.grid().affine);
    }
    // RLE by pydicom: the same voxels as raw ones
    let voxels = |name: &str| read_image(&seed(name)).unwrap().as_slice().to_vec();
    assert_eq!(voxels("dicom/rle.dcm"), voxels("dicom/explicit.dcm"));
    assert_eq!(voxels("dicom/implicit.dcm"), voxels("dicom/explicit.dcm"));
    // two frames, the upper one first, each with a scale of its own
    let two = read_image(&seed("dicom/enhanced.dcm")).unwrap();
    assert_eq!((two.shape(), two.spacing()), ([2, 4, 5], [2.0, 0.5, 0.75]));
    let stored = voxels("dicom/explicit.dcm").into_iter().map(|value| (value + 10.0) / 2.0);
    let stored: Vec<f32> = stored.collect();
    let scaled = |slope: f32| stored.iter().map(move |value| value * slope + 5.0);
    assert!(two.as_slice().iter().copied().eq(scaled(1.0).chain(scaled(2.0))));
}

#[test]
fn images_are_converted_between_all_formats() {
    let case = Case::new();
    series(&case.at("ct"));
    case.run("convert ct a.nrrd").said(0, &["a.nrrd"]);
    case.run("convert a.nrrd b.mhd").said(0, &["b.mhd"]);
    case.run("convert b.mhd c.nii.gz").said(0, &["c.nii.gz"]);
    let (first, last) = (read_image(&case.at("ct")).unwrap(), read_image(&case.at("c.nii.gz")));
    let last = last.unwrap();
    assert_eq!(first.data(), last.data());
    close(first.grid().affine, last.grid().affine);
    // into a folder, a folder of series, of a format
    case.run("convert ct out -f mha").said(0, &["out/ct.mha"]);
    series(&case.at("both/one"));
    slice(&case.at("both/two/1"), 0.0, set(tags::STUDY_INSTANCE_UID, VR::UI, "1.9"));
    case.run("convert both all").said(0, &["all/one.nii.gz", "all/two.nii.gz"]);
    // channels become files of their own where a file takes one
    let vector = seed("nrrd/vector.nrrd");
    case.run(&format!("convert {} v.mha", path(&vector))).said(0, &["v_0000.mha", "v_0001.mha"]);
    // a mask becomes a DICOM segmentation of its series
    let zeros = vec![0u8; 48];
    let map = LabelMap::from_vec(zeros, first.grid().clone()).unwrap();
    map.write(&case.at("mask.nii.gz")).unwrap();
    case.json("names.json", &json!({"labels": {"background": 0, "liver": 1}}));
    case.run("convert mask.nii.gz seg.dcm --source ct --labels names.json").said(0, &["seg.dcm"]);
    case.run("convert mask.nii.gz two.dcm --labels names.json").said(1, &["no DICOM series"]);
    case.run("convert ct ct/IM0").said(1, &["ct/IM0"]);
    case.run("convert none a.nii").said(1, &["none: found no such file"]);
    case.run("convert ct a.nii --to nnunet").said(1, &["--to", "dataset.json"]);
    case.run("convert ct a.nii --source ct").said(1, &["--source", "--labels"]);
    case.run("convert ct a.mgz").said(1, &["a.mgz", ".nii.gz"]);
}

#[test]
fn datasets_go_from_nnunet_to_the_decathlon_and_back() {
    let case = Case::new();
    case.dataset(
        &json!({"name": "D", "labels": {"background": 0, "body": 1, "core": 2, "ignore": 3}}),
    );
    for number in 0..3 {
        case.image(&format!("imagesTr/case_{number}_0001.nii.gz"));
    }
    let mut description: serde_json::Value =
        serde_json::from_slice(&case.bytes("dataset.json")).unwrap();
    description["channel_names"] = json!({"0": "T1", "1": "T2"});
    case.json("dataset.json", &description);
    case.image("imagesTs/new_0000.nii.gz");
    case.image("imagesTs/new_0001.nii.gz");
    let fold = json!([{"train": ["case_0", "case_1"], "val": ["case_2"]}]);
    case.json("splits_final.json", &fold);
    case.run("convert . msd").said(0, &["msd"]);
    case.run("convert msd back").said(0, &["back"]);
    let open = |name: &str| Dataset::open(case.at(name)).unwrap();
    let (first, msd, back) = (Dataset::open(case.0.path()).unwrap(), open("msd"), open("back"));
    let said: serde_json::Value = serde_json::from_slice(&case.bytes("msd/dataset.json")).unwrap();
    assert_eq!(said["training"][0]["image"], "./imagesTr/case_0.nii.gz");
    assert_eq!(
        (&said["numTraining"], &said["test"][0]),
        (&json!(3), &json!("./imagesTs/new.nii.gz"))
    );
    assert!(case.at("back/imagesTs/new_0001.nii.gz").is_file());
    for other in [&msd, &back] {
        assert_eq!((&other.name, &other.channels), (&first.name, &first.channels));
        assert_eq!(other.labels, first.labels);
        assert!(other.faults.is_empty());
        for (one, same) in first.cases.iter().zip(&other.cases) {
            assert_eq!(one.id, same.id);
            let (image, label) = first.load(one).unwrap();
            let (again, mask) = other.load(same).unwrap();
            assert_eq!((image.data(), label.data()), (again.data(), mask.data()));
        }
        assert_eq!(other.folds(), 1);
    }
    assert_eq!(case.bytes("back/labelsTr/case_0.nii.gz"), case.bytes("labelsTr/case_0.nii.gz"));
    // regions keep their order; the Decathlon's form has none
    std::fs::remove_file(case.at("splits_final.json")).unwrap();
    std::fs::remove_dir_all(case.at("imagesTs")).unwrap();
    for number in 0..3 {
        std::fs::remove_file(case.at(&format!("imagesTr/case_{number}_0001.nii.gz"))).unwrap();
    }
    case.write(
        "dataset.json",
        r#"{"channel_names": {"0": "MRI"}, "file_ending": ".nii.gz", "regions_class_order": [1, 2],
            "labels": {"background": 0, "whole": [1, 2], "core": 2}}"#,
    );
    case.run("convert . none").said(1, &["regions"]);
    case.run("convert . copy --to nnunet").said(0, &["copy"]);
    assert_eq!(open("copy").labels, Dataset::open(case.0.path()).unwrap().labels);
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn masks_are_written_in_the_format_that_is_asked_for() {
    let case = Case::new();
    case.image("in/a.nii");
    case.run("predict -m ONE -i in -o out -f nrrd").said(0, &["out/a.seg.nrrd"]);
    let text = String::from_utf8_lossy(&case.bytes("out/a.seg.nrrd")).into_owned();
    assert!(text.contains("Segment0_Name:="), "{text}");
    case.run("predict -m ONE -i in/a.nii -o m.mha --save-probabilities").said(0, &["m.mha"]);
    assert!(case.tree("probabilities").iter().all(|name| !name.contains(".nii")));
    case.run("predict -m ONE -i in -o out -f dicom-seg").said(1, &["-f", "not from DICOM"]);
    case.run("predict -m ONE -i in/a.nii -o m.mha -f nrrd").said(1, &["-f", "-o", "m.mha"]);
    for (name, z) in [("2", 0.0), ("1", 2.5), ("0", 5.0)] {
        slice(&case.at(&format!("ct/{name}")), z, |_| ());
    }
    case.run("predict -m ONE -i ct -o out -f dicom-seg").said(0, &["out/ct.dcm"]);
    let found = open_file(case.at("out/ct.dcm")).unwrap();
    assert_eq!(found.element(tags::MODALITY).unwrap().to_str().unwrap(), "SEG");
    case.run("predict -m ONE -i ct -o out -f dicom-seg --continue").said(0, &["nothing is left"]);
    // every series of a folder is found before anything is computed
    slice(&case.at("ct/other"), 0.0, set(tags::SERIES_INSTANCE_UID, VR::UI, "1.2.9"));
    case.run("predict -m ONE -i ct -o out").said(1, &["2 series", "--series"]);
    case.run("predict -m ONE -i ct -o out --series 1.2.3.4").said(0, &["out/ct.nii.gz"]);
}
