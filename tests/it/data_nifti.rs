//! NIfTI files: real oddities, synthetic orientations, and files that lie.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::common;
use crate::common::volumes::{write_image, write_mask};
use u2seg::low_level::files::write_atomically;
use u2seg::low_level::imaging::{
    Grid, ImageWriter, Known, Match, Reference, read_image, read_images, read_labels,
    read_labels_on,
};

/// The values of a dataset's labels.
fn known(values: &[u8]) -> Known {
    Known { values: values.to_vec(), source: "dataset.json".into() }
}

fn odd() -> PathBuf {
    common::data_dir().join("odd-nifti")
}

/// The file's bytes, decompressed where needed; independent of the crate.
fn unpacked(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return bytes;
    }
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut out).unwrap();
    out
}

/// Bytes after the offset that a little- or big-endian header gives.
fn voxels(file: &[u8]) -> &[u8] {
    let raw: [u8; 4] = file[108..112].try_into().unwrap();
    let offset = if file[0] == 0x5c { f32::from_le_bytes(raw) } else { f32::from_be_bytes(raw) };
    &file[offset as usize..]
}

/// Whether a header byte may differ between an input and a mask on its grid.
fn may_change(byte: usize) -> bool {
    matches!(byte, 40..56 | 70..74 | 112..120 | 124..132)
}

fn assert_header_kept(before: &[u8], after: &[u8], pair: bool, name: &str) {
    for byte in 0..348 {
        let layout = pair && matches!(byte, 108..112 | 344..348);
        if !may_change(byte) && !layout {
            assert_eq!(before[byte], after[byte], "{name}: header byte {byte}");
        }
    }
}

/// A readable odd file: shape D,H,W, channels, spacing D,H,W.
type Good = (&'static str, [usize; 3], usize, [f64; 3]);

const GOOD: &[Good] = &[
    ("datatypes/float32.nii", [3, 3, 3], 1, [1.0, 1.0, 1.0]),
    ("datatypes/float64.nii", [3, 3, 3], 1, [1.0, 1.0, 1.0]),
    ("datatypes/int16.nii", [3, 3, 3], 1, [1.0, 1.0, 1.0]),
    ("datatypes/int32.nii", [3, 3, 3], 1, [1.0, 1.0, 1.0]),
    ("datatypes/int64.nii", [3, 3, 3], 1, [1.0, 1.0, 1.0]),
    ("datatypes/int8.nii", [3, 3, 3], 1, [1.0, 1.0, 1.0]),
    ("datatypes/uint16.nii", [3, 3, 3], 1, [1.0, 1.0, 1.0]),
    ("datatypes/uint32.nii", [3, 3, 3], 1, [1.0, 1.0, 1.0]),
    ("datatypes/uint64.nii", [3, 3, 3], 1, [1.0, 1.0, 1.0]),
    ("datatypes/uint8.nii", [3, 3, 3], 1, [1.0, 1.0, 1.0]),
    // vectors along the fifth dimension, a single time point
    ("headers/5D_small.nii", [2, 1, 3], 3, [1.0, 1.0, 1.0]),
    ("headers/with_extension.nii.gz", [151, 191, 161], 1, [1.0, 1.0, 1.0]),
    ("nibabel/anatomical.nii", [25, 41, 33], 1, [2.0, 2.0, 2.0]),
    ("nibabel/example4d.nii.gz", [24, 96, 128], 2, [2.2, 2.0, 2.0]),
    ("nibabel/functional.nii", [3, 21, 17], 20, [8.0, 4.0, 4.0]),
    ("nibabel/standard.nii.gz", [7, 5, 4], 1, [2.0, 3.0, 1.0]),
    ("pairs/air.hdr.gz", [67, 79, 64], 1, [2.37, 2.39, 2.39]),
    ("pairs/air.img.gz", [67, 79, 64], 1, [2.37, 2.39, 2.39]),
    ("pairs/minimal.hdr", [10, 64, 64], 1, [3.0, 3.0, 3.0]),
    ("pairs/minimal.hdr.gz", [10, 64, 64], 1, [3.0, 3.0, 3.0]),
    ("pairs/minimal.img", [10, 64, 64], 1, [3.0, 3.0, 3.0]),
    ("pairs/minimal.img.gz", [10, 64, 64], 1, [3.0, 3.0, 3.0]),
    ("pairs/minimal.nii", [10, 64, 64], 1, [3.0, 3.0, 3.0]),
    ("pairs/minimal.nii.gz", [10, 64, 64], 1, [3.0, 3.0, 3.0]),
    ("pairs/minimal2.hdr", [10, 64, 64], 1, [3.0, 3.0, 3.0]),
    ("pairs/minimal2.img.gz", [10, 64, 64], 1, [3.0, 3.0, 3.0]),
    ("pairs/minimal_extended_hdr.nii", [1, 8, 8], 1, [1.0, 1.0, 1.0]),
    ("unpaired/image_without_label.nii.gz", [33, 52, 37], 1, [1.0, 1.0, 1.0]),
];

/// Unusable odd files and a part of their message.
const BAD: &[(&str, &str)] = &[
    ("broken/fuzz_1.nii", "expected a NIfTI-1 file"),
    ("headers/not-nifti.nii", "expected a NIfTI-1 file"),
    ("nibabel/nifti1.hdr", "found a header without its .img file"),
    ("pixels/complex64.nii", "found voxels of type Complex128"),
    ("pixels/rgb_3d.nii", "found voxels of type Rgb24"),
];

#[test]
#[cfg_attr(not(real_images), ignore = "no real images: set U2SEG_DATA")]
fn every_odd_file_loads_or_says_why_not() {
    let odd = odd();
    for &(name, shape, channels, spacing) in GOOD {
        let volume = read_image(&odd.join(name)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((volume.shape(), volume.channels().len()), (shape, channels), "{name}");
        assert_eq!(volume.as_slice().len(), channels * shape.iter().product::<usize>(), "{name}");
        for (found, expected) in volume.spacing().iter().zip(spacing) {
            assert!((found - expected).abs() < 0.01, "{name}: {:?}", volume.spacing());
        }
    }
    for &(name, part) in BAD {
        let message = read_image(&odd.join(name)).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
        assert!(message.contains(name.rsplit('/').next().unwrap()), "{message}");
    }
    // Nothing in the folder is left out here.
    for folder in std::fs::read_dir(&odd).unwrap() {
        for file in std::fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let name = path.strip_prefix(&odd).unwrap().to_string_lossy().replace('\\', "/");
            let known = GOOD.iter().map(|g| g.0).chain(BAD.iter().map(|b| b.0));
            let oriented = name.starts_with("orientations/");
            assert!(oriented || known.into_iter().any(|k| k == name), "{name} is not listed");
        }
    }
}

#[test]
#[cfg_attr(not(real_images), ignore = "no real images: set U2SEG_DATA")]
fn datatypes_hold_the_same_numbers() {
    let odd = odd();
    for &(name, ..) in GOOD.iter().filter(|g| g.0.starts_with("datatypes/")) {
        let volume = read_image(&odd.join(name)).unwrap();
        for (at, value) in volume.as_slice().iter().enumerate() {
            let (z, y, x) = (at / 9, at / 3 % 3, at % 3);
            assert_eq!(*value, (9 * x + 3 * y + z) as f32, "{name}");
        }
    }
}

#[test]
#[cfg_attr(not(real_images), ignore = "no real images: set U2SEG_DATA")]
fn pairs_equal_their_single_files() {
    let odd = odd();
    let single = read_image(&odd.join("pairs/minimal.nii")).unwrap();
    for name in ["minimal.hdr", "minimal.hdr.gz", "minimal.img", "minimal.nii.gz", "minimal2.hdr"] {
        assert_eq!(
            read_image(&odd.join("pairs").join(name)).unwrap().as_slice(),
            single.as_slice(),
            "{name}"
        );
    }
    assert!(single.as_slice().iter().any(|&v| v != 0.0));
}

#[test]
#[cfg_attr(not(real_images), ignore = "no real images: set U2SEG_DATA")]
fn orientations_agree_and_masks_return() {
    let odd = odd();
    let folder = tempfile::tempdir().unwrap();
    let reference = read_image(&odd.join("orientations/RAS.nii.gz")).unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(odd.join("orientations")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let volume = read_image(&path).unwrap();
        assert_eq!(volume.shape(), reference.shape(), "{name}");
        assert!(volume.as_slice() == reference.as_slice(), "{name}: other voxels");
        // as a second channel, its voxels lie where the first ones do
        let both = [odd.join("orientations/RAS.nii.gz"), path.clone()];
        let both = read_images(&both, Match::ByPlace).unwrap();
        assert!(
            both.as_slice()[reference.as_slice().len()..] == *reference.as_slice(),
            "{name}: other places"
        );
        for (a, b) in volume.spacing().iter().zip(reference.spacing()) {
            assert!((a - b).abs() < 1e-4, "{name}");
        }
        // The stored bytes, divided out of the intensities, are a mask whose place in the file is known.
        let stored = unpacked(&path);
        let slope = f32::from_le_bytes(stored[112..116].try_into().unwrap());
        let labels: Vec<u8> = volume.as_slice().iter().map(|v| (v / slope).round() as u8).collect();
        for ending in ["nii", "nii.gz"] {
            let out = folder.path().join(format!("{name}.{ending}"));
            write_mask(&out, &labels, volume.grid()).unwrap();
            let written = unpacked(&out);
            assert!(voxels(&written) == voxels(&stored), "{name}: other voxel order");
            assert_header_kept(&stored, &written, false, &name);
        }
        seen += 1;
    }
    assert_eq!(seen, 12);
}

#[test]
#[cfg_attr(not(real_images), ignore = "no real images: set U2SEG_DATA")]
fn headers_and_extensions_return() {
    let odd = odd();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("mask.nii");
    for &(name, ..) in GOOD.iter().filter(|g| !g.0.contains(".img")) {
        let path = odd.join(name);
        let volume = read_image(&path).unwrap();
        let pair = name.contains(".hdr");
        let labels: Vec<u8> =
            (0..volume.grid().dims.iter().product::<usize>()).map(|i| (i % 251) as u8).collect();
        write_mask(&out, &labels, volume.grid()).unwrap();
        let (before, after) = (unpacked(&path), unpacked(&out));
        assert_header_kept(&before, &after, pair, name);
        if !pair {
            let end = after.len() - labels.len();
            assert!(before[348..end] == after[348..end], "{name}: extensions");
            assert_eq!(voxels(&after).len(), labels.len());
        }
        let back = read_labels(&out, &Known::any()).unwrap();
        assert!(back.as_slice() == labels, "{name}");
        assert_eq!(back.grid().affine, volume.grid().affine, "{name}");
        let channel = &volume.as_slice()[..labels.len()];
        write_image(&out, channel, volume.grid()).unwrap();
        assert!(read_image(&out).unwrap().as_slice() == channel, "{name}: float32");
    }
}

/// Overwrites bytes of a file.
fn patch(path: &Path, changes: &[(usize, &[u8])]) {
    let mut bytes = std::fs::read(path).unwrap();
    for (at, new) in changes {
        bytes[*at..at + new.len()].copy_from_slice(new);
    }
    std::fs::write(path, bytes).unwrap();
}

/// A file of 2x3x4 voxels along i, j, k, each holding its place in the file, whose sform has the given columns.
fn oriented(path: &Path, columns: [[f32; 3]; 3]) {
    let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
    write_image(path, &values, &Grid::ras([4, 3, 2], [1.0; 3])).unwrap();
    for (c, column) in columns.iter().enumerate() {
        for (r, value) in column.iter().enumerate() {
            patch(path, &[(280 + 16 * r + 4 * c, &value.to_le_bytes())]);
        }
    }
}

#[test]
fn all_48_orientations_keep_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.nii");
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for signs in 0..8 {
            let mut columns = [[0.1f32; 3]; 3];
            for axis in 0..3 {
                let sign = if signs >> axis & 1 == 1 { -1.0 } else { 1.0 };
                columns[axis][order[axis]] = sign * (axis + 2) as f32;
            }
            oriented(&path, columns);
            let volume = read_image(&path).unwrap();
            let [_, height, width] = volume.shape();
            // world places of two voxels, as the file's affine gives them, differ along +x, +y, +z as the canonical axes do
            let world = |value: f32| -> [f64; 3] {
                let place = value as usize;
                let ijk = [place % 2, place / 2 % 3, place / 6];
                [0, 1, 2].map(|row| {
                    (0..3).map(|c| f64::from(columns[c][row]) * ijk[c] as f64).sum::<f64>()
                })
            };
            let strides = [1, width, width * height];
            let sizes = [width, height, volume.shape()[0]];
            for axis in 0..3 {
                for (at, &value) in volume.as_slice().iter().enumerate() {
                    if at / strides[axis] % sizes[axis] + 1 < sizes[axis] {
                        let next = world(volume.as_slice()[at + strides[axis]]);
                        let step = next[axis] - world(value)[axis];
                        assert!(
                            (step - volume.spacing()[2 - axis]).abs() < 0.02,
                            "{order:?} {signs}"
                        );
                    }
                }
            }
            let (before, copy) = (unpacked(&path), folder.path().join("copy.nii"));
            write_image(&copy, volume.as_slice(), volume.grid()).unwrap();
            assert_eq!(unpacked(&copy), before);
        }
    }
}

#[test]
fn affine_from_qform_or_voxel_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.nii");
    let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
    write_image(&path, &values, &Grid::ras([4, 3, 2], [1.0; 3])).unwrap();
    // a quarter turn about z, then qfac -1, at 2x3x4 mm: i runs to anterior, j to the left, k to inferior
    patch(&path, &[(254, &[0]), (252, &[1])]);
    for (axis, size) in [-1.0f32, 2.0, 3.0, 4.0].into_iter().enumerate() {
        patch(&path, &[(76 + 4 * axis, &size.to_le_bytes())]);
    }
    let half = std::f32::consts::FRAC_1_SQRT_2;
    patch(&path, &[(264, &half.to_le_bytes()), (268, &10f32.to_le_bytes())]);
    let volume = read_image(&path).unwrap();
    assert_eq!(volume.shape(), [4, 2, 3]);
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-5, "{a} {b}");
    volume.spacing().into_iter().zip([4.0, 2.0, 3.0]).for_each(|(a, b)| near(a, b));
    near(volume.grid().affine[0][3], 10.0);
    near(volume.grid().affine[0][1], -3.0);
    // canonical x is -j, y is i, z is -k
    assert_eq!(volume.as_slice()[0], (6 * 3 + 2 * 2) as f32);
    // without either form, the voxel sizes
    patch(&path, &[(252, &[0])]);
    let volume = read_image(&path).unwrap();
    assert_eq!((volume.shape(), volume.spacing()), ([4, 3, 2], [4.0, 3.0, 2.0]));
    // in metres
    patch(&path, &[(123, &[1])]);
    assert_eq!(read_image(&path).unwrap().spacing(), [4000.0, 3000.0, 2000.0]);
    patch(&path, &[(123, &[2])]);
    // a degenerate sform does not count
    patch(&path, &[(254, &[1]), (280, &[0; 48])]);
    assert_eq!(read_image(&path).unwrap().spacing(), [4.0, 3.0, 2.0]);
}

#[test]
fn unusable_affines_and_voxel_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.nii");
    let with = |changes: &[(usize, &[u8])]| {
        write_image(&path, &[1.0; 24], &Grid::ras([4, 3, 2], [4.0, 3.0, 2.0])).unwrap();
        patch(&path, &[(252, &[1])]);
        patch(&path, changes);
        read_image(&path).map(|volume| volume.spacing())
    };
    let float = |value: f32| value.to_le_bytes();
    assert_eq!(with(&[(76 + 4, &float(9.0))]).unwrap(), [4.0, 3.0, 2.0]);
    // an sform without a number, or whose second axis runs along the first, gives way to the qform
    for (at, value) in [(280, f32::NAN), (292, f32::INFINITY), (280, 0.0)] {
        assert_eq!(with(&[(at, &float(value)), (80, &float(9.0))]).unwrap()[2], 9.0, "{at}");
    }
    let flat = [(280 + 4, float(5.0)), (296 + 4, float(0.0)), (80, float(9.0))];
    assert_eq!(with(&flat.each_ref().map(|(at, v)| (*at, &v[..]))).unwrap()[2], 9.0);
    // then the voxel sizes alone, of which those that mean nothing count as 1
    for size in [0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let none = [(280, float(f32::NAN)), (80, float(size)), (256, float(f32::NAN))];
        let spacing = with(&none.each_ref().map(|(at, v)| (*at, &v[..]))).unwrap();
        assert_eq!(spacing, [4.0, 3.0, 1.0], "{size}");
    }
    let negative = [(254, float(0.0)), (80, float(-9.0))];
    assert_eq!(with(&negative.each_ref().map(|(at, v)| (*at, &v[..]))).unwrap()[2], 9.0);
    for size in [1e30, -1e30, 1e-9, f32::MAX, f32::MIN_POSITIVE] {
        let none = [(254, float(0.0)), (80, float(size))];
        let message = with(&none.each_ref().map(|(at, v)| (*at, &v[..]))).unwrap_err().to_string();
        assert!(message.contains("image.nii: found voxels of [4.0, 3.0, "), "{message}");
        assert!(message.contains("1e-6 to 1e6 mm"), "{message}");
    }
}

/// Writes `values` as a 1x1xN float image.
fn line(path: &Path, values: &[f32]) {
    write_image(path, values, &Grid::ras([1, 1, values.len()], [1.0; 3])).unwrap();
}

#[test]
fn labels_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("label.nii.gz");
    line(&path, &[0.0, 1.0, 2.0004, 1.9996, 7.0]);
    assert_eq!(read_labels(&path, &known(&[0, 1, 2, 7])).unwrap().as_slice(), [0, 1, 2, 2, 7]);
    let wrong = |values: &[f32], known: &Known, parts: &[&str]| {
        line(&path, values);
        let message = read_labels(&path, known).unwrap_err().to_string();
        for part in parts {
            assert!(message.contains(part), "{part:?} is missing in: {message}");
        }
    };
    let two =
        ["2 (2 voxels), 7 (1 voxel);", "the values 0, 1 of dataset.json", "list their values"];
    wrong(&[0.0, 1.0, 2.0004, 1.9996, 7.0], &known(&[0, 1]), &two);
    wrong(
        &[0.0, 1.5],
        &known(&[0, 1, 2, 3, 9]),
        &["1.5 (1 voxel);", "values 0 to 3, 9 of", "nearest"],
    );
    wrong(&[0.7], &known(&[0]), &["values 0.7 (1 voxel);"]);
    wrong(
        &[-1.0, 500.0, 500.0],
        &Known::any(),
        &["-1 (1 voxel), 500 (2 voxels)", "0 to 255", "Renumber"],
    );
    let odd = [f32::NAN, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -3.4e38, 0.0];
    wrong(
        &odd,
        &Known::any(),
        &["-3.4e38 (1", "NaN (2 voxels)", "inf (1 voxel)", "-inf (1 voxel)", "integers"],
    );
    let many: Vec<f32> = (1..30).map(|v| v as f32).collect();
    wrong(&many, &known(&[0]), &["values 1 (1 voxel), 2 (1", "5 (1 voxel) and 24 more; expected"]);
}

#[test]
fn channels_from_several_files() {
    let folder = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a.nii", "b.nii", "c.nii"].map(|name| folder.path().join(name));
    line(&a, &[1.0, 2.0]);
    line(&b, &[3.0, 4.0]);
    line(&c, &[5.0, 6.0, 7.0]);
    let both = read_images(&[a.clone(), b], Match::ByPlace).unwrap();
    assert_eq!((both.channels().len(), both.as_slice()), (2, &[1.0, 2.0, 3.0, 4.0][..]));
    let message = read_images(&[a, c], Match::ByPlace).unwrap_err().to_string();
    assert!(
        message.contains("a.nii") && message.contains("c.nii: found shape [1, 1, 3]"),
        "{message}"
    );
    assert!(read_images(&[], Match::ByPlace).is_err());
}

#[test]
#[cfg_attr(not(real_images), ignore = "no real images: set U2SEG_DATA")]
fn four_dimensions_are_channels() {
    let data = common::data_dir();
    let image = data.join("Task21_MSLesion/imagesTr/ms_07.nii.gz");
    let label = data.join("Task21_MSLesion/labelsTr/ms_07.nii.gz");
    let volume = read_image(&image).unwrap();
    let on = Reference { grid: volume.grid(), path: &image };
    let labels = read_labels_on(&label, &known(&[0, 1]), &on, Match::ByPlace).unwrap();
    assert_eq!((volume.channels().len(), volume.shape()), (4, labels.shape()));
    assert!(labels.as_slice().contains(&1));
    let message = read_labels(&image, &known(&[0, 1])).unwrap_err().to_string();
    assert!(message.contains("4 volumes"), "{message}");
}

#[test]
fn truncated_and_corrupt_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.nii");
    let values: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let grid = Grid::ras([10, 10, 10], [1.0, 2.0, 3.0]);
    for name in ["image.nii", "image.nii.gz"] {
        let path = folder.path().join(name);
        write_image(&path, &values, &grid).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(7).chain(whole.len() - 8..whole.len()) {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = read_image(&path).unwrap_err();
            assert!(matches!(error, u2seg::Error::File { .. }), "{name} {length}: {error}");
        }
        // Padding after the end is harmless.
        std::fs::write(&path, [whole.as_slice(), &[0; 512]].concat()).unwrap();
        assert_eq!(read_image(&path).unwrap().as_slice(), values);
    }
    // A flipped bit in the compressed voxels fails the checksum or the decoder.
    let packed = folder.path().join("image.nii.gz");
    write_image(&packed, &values, &grid).unwrap();
    let whole = std::fs::read(&packed).unwrap();
    for byte in (20..whole.len()).step_by(11) {
        let mut bytes = whole.clone();
        bytes[byte] ^= 0x10;
        std::fs::write(&packed, &bytes).unwrap();
        // the stream's last byte holds unused bits
        let harmless = read_image(&packed).is_ok_and(|image| image.as_slice() == values);
        assert!(harmless == (byte == whole.len() - 9), "byte {byte} of {}", whole.len());
    }
    // Sizes the file cannot hold are refused before anything is allocated.
    let huge = Grid::ras([32767, 32767, 32767], [1.0; 3]);
    write_image(&path, &values, &grid).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    for axis in 1..8 {
        bytes[40 + 2 * axis..42 + 2 * axis].copy_from_slice(&i16::MAX.to_le_bytes());
    }
    bytes[40] = 4;
    std::fs::write(&path, &bytes).unwrap();
    assert!(read_image(&path).is_err());
    assert!(write_mask(&path, &[0; 5], &huge).is_err());
}

#[test]
fn lying_headers_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.nii");
    let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
    write_image(&path, &values, &Grid::ras([4, 3, 2], [1.0; 3])).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for byte in 0..352 {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[byte] = value;
            std::fs::write(&path, &bytes).unwrap();
            if let Ok(volume) = read_image(&path) {
                assert_eq!(
                    volume.as_slice().len(),
                    volume.channels().len() * volume.grid().dims.iter().product::<usize>()
                );
                assert!(volume.as_slice().iter().all(|v| v.is_finite()));
                assert!(volume.spacing().iter().all(|s| s.is_finite() && *s > 0.0), "byte {byte}");
            }
        }
    }
}

#[test]
fn voxels_begin_within_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.nii");
    for offset in [f32::NAN, f32::INFINITY, -1.0, -1e30, 353.0, 1e9, 1e30] {
        write_image(&path, &[0.0; 24], &Grid::ras([4, 3, 2], [1.0; 3])).unwrap();
        // with an extension that claims to reach as far
        let claims = [(108, offset.to_le_bytes()), (348, [1, 0, 0, 0]), (352, [0, 0, 0, 0x3f])];
        patch(&path, &claims.each_ref().map(|(at, bytes)| (*at, &bytes[..])));
        let message = read_image(&path).unwrap_err().to_string();
        assert!(message.contains("image.nii: found "), "{offset}: {message}");
    }
}

#[test]
fn halves_of_a_pair_find_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_image(&at("whole.nii"), &[3.0; 24], &Grid::ras([4, 3, 2], [1.0; 3])).unwrap();
    let whole = std::fs::read(at("whole.nii")).unwrap();
    let mut header = whole[..348].to_vec();
    header[344..348].copy_from_slice(b"ni1\0");
    header[108..112].copy_from_slice(&0f32.to_le_bytes());
    std::fs::write(at("a.HDR"), &header).unwrap();
    let error = |name: &str| read_image(&at(name)).unwrap_err().to_string();
    assert!(error("a.HDR").contains("a.HDR: found a header without its .img file"));
    std::fs::write(at("a.Img"), &whole[352..]).unwrap();
    for name in ["a.HDR", "a.Img"] {
        assert_eq!(read_image(&at(name)).unwrap().as_slice(), [3.0; 24], "{name}");
    }
    std::fs::write(at("a.Img"), b"version https://git-lfs.github.com/spec/v1\n").unwrap();
    assert!(error("a.HDR").contains("a.Img: found a Git LFS pointer"), "{}", error("a.HDR"));
    std::fs::write(at("b.img"), &whole[352..]).unwrap();
    assert!(error("b.img").contains("b.img: found an .img file without its .hdr"));
    // a whole file under a half's name
    std::fs::write(at("c.img"), &whole).unwrap();
    assert_eq!(read_image(&at("c.img")).unwrap().as_slice(), [3.0; 24]);
}

#[test]
fn writing_is_all_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::ras([1, 1, 2], [1.0; 3]);
    let out = folder.path().join("mask.nii");
    write_mask(&out, &[1, 0], &grid).unwrap();
    write_mask(&out, &[0, 1], &grid).unwrap();
    assert_eq!(read_labels(&out, &known(&[0, 1])).unwrap().as_slice(), [0, 1]);
    let message =
        write_mask(&folder.path().join("mask.png"), &[0, 1], &grid).unwrap_err().to_string();
    assert!(message.contains("expected .nii.gz, .nii, "), "{message}");
    assert!(write_mask(&folder.path().join("none/mask.nii"), &[0, 1], &grid).is_err());
    assert!(write_mask(&out, &[0, 1, 2], &grid).is_err());
    write_atomically(&folder.path().join("text.json"), b"{}").unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    let message = read_image(&folder.path().join("absent.nii")).unwrap_err().to_string();
    assert!(message.contains("absent.nii"), "{message}");
}

#[test]
fn images_are_written_piece_by_piece_in_any_orientation() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
    for (order, signs) in
        [([0, 1, 2], 0), ([0, 1, 2], 4), ([1, 0, 2], 3), ([2, 0, 1], 5), ([0, 2, 1], 2)]
    {
        let mut columns = [[0.0f32; 3]; 3];
        for axis in 0..3 {
            columns[axis][order[axis]] = if signs >> axis & 1 == 1 { -1.0 } else { 1.0 };
        }
        oriented(&at("in.nii"), columns);
        let image = read_image(&at("in.nii")).unwrap();
        let array = image.data().index_axis(ndarray::Axis(0), 0);
        for name in ["out.nii", "out.nii.gz"] {
            let mut writer = ImageWriter::begin(&at(name), image.grid()).unwrap();
            for planes in array.axis_chunks_iter(ndarray::Axis(0), 2) {
                assert!(!at(name).exists());
                writer.add(planes).unwrap();
            }
            assert!(writer.add(array.slice(ndarray::s![..1, .., ..])).is_err());
            writer.finish().unwrap();
            assert_eq!(unpacked(&at(name)), unpacked(&at("in.nii")), "{order:?} {signs}");
            std::fs::remove_file(at(name)).unwrap();
        }
    }
    // neither what is given up nor what lacks planes leaves anything
    let grid = Grid::ras([4, 3, 2], [1.0; 3]);
    let array = ndarray::ArrayView3::from_shape([4, 3, 2], &values).unwrap();
    let begun = || {
        let mut writer = ImageWriter::begin(&at("half.nii.gz"), &grid).unwrap();
        writer.add(array.slice(ndarray::s![..3, .., ..])).unwrap();
        writer
    };
    drop(begun());
    let message = begun().finish().unwrap_err().to_string();
    assert!(message.contains("3 planes"), "{message}");
    assert!(ImageWriter::begin(&at("a.png"), &grid).is_err());
    let turned = ndarray::Array3::zeros([4, 2, 3]);
    assert!(ImageWriter::begin(&at("half.nii"), &grid).unwrap().add(turned.view()).is_err());
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["in.nii"]);
}

#[test]
fn files_of_several_pieces_return_in_any_orientation() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // several megabytes in planes along any axis, and planes that are larger than a piece
    for shape in [[80, 150, 170], [2, 1100, 1300]] {
        let grid = Grid::ras(shape, [1.0; 3]);
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|i: usize| (i % 9973) as f32).collect();
        write_image(&at("plain.nii"), &values, &grid).unwrap();
        let plain = std::fs::read(at("plain.nii")).unwrap();
        let own: Vec<f32> = (0..values.len()).map(|i| values[i]).collect();
        for (order, signs) in [
            ([0, 1, 2], 4),
            ([1, 0, 2], 3),
            ([2, 0, 1], 5),
            ([0, 2, 1], 2),
            ([2, 1, 0], 7),
            ([1, 2, 0], 0),
        ] {
            // the same voxels under another affine
            let mut bytes = plain.clone();
            for (axis, world) in order.into_iter().enumerate() {
                for row in 0..3 {
                    let sign = if signs >> axis & 1 == 1 { -1.0f32 } else { 1.0 };
                    let value = if row == world { sign } else { 0.0 };
                    bytes[280 + 16 * row + 4 * axis..][..4].copy_from_slice(&value.to_le_bytes());
                }
            }
            std::fs::write(at("in.nii"), &bytes).unwrap();
            let image = read_image(&at("in.nii")).unwrap();
            // voxel i, j, k of the file
            let dims = [shape[2], shape[1], shape[0]];
            let mut sizes = [0; 3];
            (0..3).for_each(|axis| sizes[order[axis]] = dims[axis]);
            assert_eq!(image.shape(), [sizes[2], sizes[1], sizes[0]]);
            for at in (0..own.len()).step_by(7) {
                let ijk = [at % dims[0], at / dims[0] % dims[1], at / dims[0] / dims[1]];
                let mut xyz = [0; 3];
                for axis in 0..3 {
                    let flip = signs >> axis & 1 == 1;
                    xyz[order[axis]] = if flip { dims[axis] - 1 - ijk[axis] } else { ijk[axis] };
                }
                let place = (xyz[2] * sizes[1] + xyz[1]) * sizes[0] + xyz[0];
                assert_eq!(image.as_slice()[place], own[at], "{order:?} {signs} {ijk:?}");
            }
            write_image(&at("out.nii.gz"), image.as_slice(), image.grid()).unwrap();
            assert!(unpacked(&at("out.nii.gz")) == bytes, "{order:?} {signs}");
            let labels = image.as_slice().iter().map(|v| (v % 200.0) as u8).collect::<Vec<_>>();
            write_mask(&at("mask.nii.gz"), &labels, image.grid()).unwrap();
            assert!(read_labels(&at("mask.nii.gz"), &Known::any()).unwrap().as_slice() == labels);
        }
    }
}

#[test]
fn what_follows_the_voxels_costs_nothing() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
    write_image(&at("a.nii"), &values, &Grid::ras([4, 3, 2], [1.0; 3])).unwrap();
    let voxels = std::fs::read(at("a.nii")).unwrap();
    // in members of a few bytes
    let pack = |bytes: &[u8]| {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    };
    let members: Vec<u8> = voxels.chunks(50).flat_map(pack).collect();
    // a gigabyte of zeros, whose end is missing
    let mut bomb = pack(&[voxels.as_slice(), &vec![0; 1 << 24]].concat());
    let (tail, start) = (bomb.len() - 2000, bomb.len() - 8000);
    let middle = bomb[start..tail].to_vec();
    (0..200).for_each(|_| bomb.extend_from_slice(&middle));
    for (name, bytes) in [("members.nii.gz", members), ("bomb.nii.gz", bomb)] {
        std::fs::write(at(name), bytes).unwrap();
        assert_eq!(read_image(&at(name)).unwrap().as_slice(), values, "{name}");
    }
    // a header that claims more than its file can hold is refused for what it holds
    let mut claims = voxels.clone();
    claims[42..48].copy_from_slice(&[0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f]);
    std::fs::write(at("claims.nii.gz"), pack(&claims)).unwrap();
    let message = read_image(&at("claims.nii.gz")).unwrap_err().to_string();
    assert!(message.contains("found 96 bytes of voxels"), "{message}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

#[test]
fn fields_that_contradict_the_header_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.nii");
    let with = |changes: &[(usize, &[u8])]| {
        write_image(&path, &[1.0; 24], &Grid::ras([4, 3, 2], [4.0, 3.0, 2.0])).unwrap();
        patch(&path, changes);
        read_image(&path).map(|volume| volume.as_slice()[0]).map_err(|e| e.to_string())
    };
    let float = |value: f32| value.to_le_bytes();
    let (nan, zero, code) = (float(f32::NAN), float(0.0), [0u8]);
    for (changes, field) in [
        (&[(72, &[16, 0][..])][..], "found 16 bits a voxel (bitpix); expected 32"),
        (&[(72, &[0, 0])], "found 0 bits a voxel (bitpix)"),
        (&[(72, &[0xe0, 0xff])], "found -32 bits a voxel (bitpix)"),
        (&[(112, &nan)], "found scl_slope NaN"),
        (&[(112, &float(f32::INFINITY))], "found scl_slope inf"),
        (&[(116, &nan)], "found scl_inter NaN"),
        (&[(108, &float(3e8))], "byte 300000000 (vox_offset)"),
        // no other form says where the voxels lie
        (&[(252, &code), (292, &nan)], "found srow_x, srow_y, srow_z [3] [NaN, 0.0, 0.0]"),
        (
            &[(254, &code), (252, &[1]), (272, &nan)],
            "found qoffset_x, qoffset_y, qoffset_z [0.0, NaN",
        ),
    ] {
        let message = with(changes).unwrap_err();
        assert!(message.contains("image.nii: ") && message.contains(field), "{field}: {message}");
    }
    // without a scale its offset means nothing, and the voxels' place may be the other form's
    assert_eq!(with(&[(112, &zero), (116, &nan)]), Ok(1.0));
    assert_eq!(with(&[(292, &nan), (252, &[1])]), Ok(1.0));
}

#[test]
fn a_packed_file_takes_no_more_memory_than_its_header_may_ask_for() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_image(&at("a.nii"), &[1.0; 24], &Grid::ras([4, 3, 2], [1.0; 3])).unwrap();
    let whole = std::fs::read(at("a.nii")).unwrap();
    let packed = at("a.nii.gz");
    let message = |bytes: &[u8]| {
        std::fs::write(&packed, gzip(bytes)).unwrap();
        read_image(&packed).unwrap_err().to_string()
    };
    // an extension of 30 MB
    let mut long = [&whole[..352], &vec![0; 31_000_000], &whole[352..]].concat();
    long[108..112].copy_from_slice(&31_000_352f32.to_le_bytes());
    long[348] = 1;
    long[352..356].copy_from_slice(&30_000_000i32.to_le_bytes());
    let told = message(&long);
    assert!(told.contains("an extension of 30000000 bytes at byte 352 (esize)"), "{told}");
    // 1.2 GB of voxels in 600 KB
    let mut state = 1u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let mut blank = whole.clone();
    blank.extend(noise.take(600_000));
    for (axis, size) in [1024i16, 1024, 300].into_iter().enumerate() {
        blank[42 + 2 * axis..44 + 2 * axis].copy_from_slice(&size.to_le_bytes());
    }
    blank[70..74].copy_from_slice(&[2, 0, 8, 0]);
    let told = message(&blank);
    assert!(told.contains("found 314572800 voxels in ") && told.contains("gunzip"), "{told}");
}

#[test]
fn an_image_in_the_place_of_labels_is_told_in_few_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.nii");
    let values: Vec<f32> = (0..30_000).map(|i| i as f32 + 0.5).rev().collect();
    write_image(&path, &values, &Grid::ras([3, 100, 100], [1.0; 3])).unwrap();
    let message = read_labels(&path, &Known::any()).unwrap_err().to_string();
    assert!(message.contains("label values 0.5 (1 voxel), 1.5 (1 voxel), 2.5"), "{message}");
    assert!(message.contains("4.5 (1 voxel) and over 4091 more"), "{message}");
}
