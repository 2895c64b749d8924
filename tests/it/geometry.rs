//! Files of one case are matched by where their voxels lie, however each of them is stored.

use std::path::{Path, PathBuf};

use crate::common;
use crate::common::program;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use u2seg::low_level::dataset::Dataset;
use u2seg::low_level::imaging::{Known, Match, Reference, read_image, read_images, read_labels_on};

type Vector = [f64; 3];

/// A box of voxels in the world: what a file holds, before anything is said about how.
#[derive(Debug, Clone)]
struct Scene {
    sizes: [usize; 3],
    edges: Vector,
    /// Rows of a rotation: world x, y, z of each axis are its columns.
    turn: [Vector; 3],
    origin: Vector,
}

/// How a file stores a scene.
#[derive(Debug, Clone, Copy)]
struct Storage {
    /// Scene axis of each file axis.
    axes: [usize; 3],
    /// Whether the file axis runs against it.
    flips: [bool; 3],
    qform: bool,
}

const PLAIN: Storage = Storage { axes: [0, 1, 2], flips: [false; 3], qform: false };

/// A file as it lies on disk: sizes, affine and voxels, i fastest.
#[derive(Debug, Clone)]
struct File {
    sizes: [usize; 3],
    columns: [Vector; 3],
    offset: Vector,
    values: Vec<u16>,
    qform: bool,
}

impl Scene {
    fn step(&self, axis: usize) -> Vector {
        self.turn.map(|row| row[axis] * self.edges[axis])
    }

    /// Each voxel holds its number in the scene.
    fn stored(&self, storage: &Storage) -> File {
        let sizes = storage.axes.map(|axis| self.sizes[axis]);
        let (mut columns, mut offset) = ([[0.0; 3]; 3], self.origin);
        for k in 0..3 {
            let step = self.step(storage.axes[k]);
            columns[k] = if storage.flips[k] { step.map(|v| -v) } else { step };
            for row in 0..3 {
                if storage.flips[k] {
                    offset[row] += step[row] * (sizes[k] - 1) as f64;
                }
            }
        }
        let mut values = Vec::new();
        for c in 0..sizes[2] {
            for b in 0..sizes[1] {
                for a in 0..sizes[0] {
                    let mut place = [0; 3];
                    for (k, index) in [a, b, c].into_iter().enumerate() {
                        let index = if storage.flips[k] { sizes[k] - 1 - index } else { index };
                        place[storage.axes[k]] = index;
                    }
                    let [x, y, z] = place;
                    values.push((x + self.sizes[0] * (y + self.sizes[1] * z)) as u16);
                }
            }
        }
        File { sizes, columns, offset, values, qform: storage.qform }
    }
}

impl File {
    /// Writes a NIfTI-1 file of uint16, byte by byte.
    fn write(&self, path: &Path) {
        let mut bytes = vec![0u8; 352];
        let mut put = |at: usize, new: &[u8]| bytes[at..at + new.len()].copy_from_slice(new);
        put(0, &348i32.to_le_bytes());
        for (axis, size) in
            [3, self.sizes[0], self.sizes[1], self.sizes[2], 1, 1, 1, 1].into_iter().enumerate()
        {
            put(40 + 2 * axis, &(size as i16).to_le_bytes());
        }
        put(70, &512i16.to_le_bytes());
        put(72, &16i16.to_le_bytes());
        put(108, &352f32.to_le_bytes());
        put(123, &[2]);
        put(344, b"n+1\0");
        let edges = self.columns.map(|c| c.iter().map(|v| v * v).sum::<f64>().sqrt());
        let mut pixdim = [1.0, edges[0], edges[1], edges[2]];
        if self.qform {
            put(252, &1i16.to_le_bytes());
            let (quaternion, factor) = quaternion(&self.columns);
            pixdim[0] = factor;
            let numbers = quaternion.into_iter().chain(self.offset);
            for (index, value) in numbers.enumerate() {
                put(256 + 4 * index, &(value as f32).to_le_bytes());
            }
        } else {
            put(254, &1i16.to_le_bytes());
            for row in 0..3 {
                let [a, b, c] = self.columns.map(|column| column[row]);
                for (index, value) in [a, b, c, self.offset[row]].into_iter().enumerate() {
                    put(280 + 16 * row + 4 * index, &(value as f32).to_le_bytes());
                }
            }
        }
        for (index, value) in pixdim.into_iter().enumerate() {
            put(76 + 4 * index, &(value as f32).to_le_bytes());
        }
        bytes.extend(self.values.iter().flat_map(|v| v.to_le_bytes()));
        std::fs::write(path, bytes).unwrap();
    }

    /// The label of every voxel.
    fn label(&self) -> Self {
        Self { values: self.values.iter().map(|v| label(*v).into()).collect(), ..self.clone() }
    }
}

/// A label that neighbours never share.
fn label(value: u16) -> u8 {
    (u32::from(value) * 37 % 251) as u8
}

/// b, c, d of the rotation of three steps, and the sign of the third.
fn quaternion(columns: &[Vector; 3]) -> (Vector, f64) {
    let unit = |c: Vector| c.map(|v| v / c.iter().map(|v| v * v).sum::<f64>().sqrt());
    let [x, y, mut z] = columns.map(unit);
    let cross = [x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]];
    let factor =
        if cross.iter().zip(z).map(|(a, b)| a * b).sum::<f64>() < 0.0 { -1.0 } else { 1.0 };
    z = z.map(|v| v * factor);
    // rows of the rotation, and its four squared parts
    let m = |r: usize, c: usize| [x, y, z][c][r];
    let squares = [
        1.0 + m(0, 0) + m(1, 1) + m(2, 2),
        1.0 + m(0, 0) - m(1, 1) - m(2, 2),
        1.0 - m(0, 0) + m(1, 1) - m(2, 2),
        1.0 - m(0, 0) - m(1, 1) + m(2, 2),
    ];
    let largest = (0..4).max_by(|a, b| squares[*a].total_cmp(&squares[*b])).unwrap();
    let half = squares[largest].sqrt();
    let (bc, bd, cd) = (m(0, 1) + m(1, 0), m(0, 2) + m(2, 0), m(1, 2) + m(2, 1));
    let (ab, ac, ad) = (m(2, 1) - m(1, 2), m(0, 2) - m(2, 0), m(1, 0) - m(0, 1));
    let four = match largest {
        0 => [half * half, ab, ac, ad],
        1 => [ab, half * half, bc, bd],
        2 => [ac, bc, half * half, cd],
        _ => [ad, bd, cd, half * half],
    };
    let [a, b, c, d] = four.map(|v| v / (2.0 * half));
    let sign = if a < 0.0 { -1.0 } else { 1.0 };
    ([b * sign, c * sign, d * sign], factor)
}

/// A turn about a unit axis.
fn about(axis: Vector, angle: f64) -> [Vector; 3] {
    let length = axis.iter().map(|v| v * v).sum::<f64>().sqrt();
    let [x, y, z] = axis.map(|v| v / length);
    let (s, c) = angle.sin_cos();
    let t = 1.0 - c;
    [
        [t * x * x + c, t * x * y - s * z, t * x * z + s * y],
        [t * x * y + s * z, t * y * y + c, t * y * z - s * x],
        [t * x * z - s * y, t * y * z + s * x, t * z * z + c],
    ]
}

fn applied(turn: &[Vector; 3], v: Vector) -> Vector {
    turn.map(|row| row[0] * v[0] + row[1] * v[1] + row[2] * v[2])
}

/// Straight, oblique, and as far as can be from every axis.
fn turns() -> impl Strategy<Value = [Vector; 3]> {
    let oblique = (prop::array::uniform3(-1.0..1.0f64), -3.0..3.0f64)
        .prop_filter("an axis", |(axis, _)| axis.iter().map(|v| v * v).sum::<f64>() > 0.01)
        .prop_map(|(axis, angle)| about(axis, angle));
    let quarter = std::f64::consts::FRAC_PI_4;
    let ties = (0..3usize, prop::sample::select(vec![1.0, 3.0, -1.0, -3.0])).prop_map(
        move |(axis, eighths)| {
            about([0, 1, 2].map(|a| f64::from(u8::from(a == axis))), eighths * quarter)
        },
    );
    let third = std::f64::consts::FRAC_PI_3;
    prop_oneof![
        1 => Just(about([1.0, 0.0, 0.0], 0.0)),
        3 => oblique,
        3 => ties,
        1 => Just(about([1.0, 1.0, 1.0], third)),
    ]
}

fn scenes(sizes: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Scene> {
    let sizes = prop::array::uniform3(sizes);
    let edges =
        prop_oneof![prop::array::uniform3(0.3..4.0f64), (0.3..4.0f64).prop_map(|edge| [edge; 3]),];
    (sizes, edges, turns(), prop::array::uniform3(-300.0..300.0f64))
        .prop_map(|(sizes, edges, turn, origin)| Scene { sizes, edges, turn, origin })
}

fn storages() -> impl Strategy<Value = Storage> {
    let axes = Just([0, 1, 2]).prop_shuffle();
    (axes, any::<[bool; 3]>(), any::<bool>()).prop_map(|(axes, flips, qform)| Storage {
        axes,
        flips,
        qform,
    })
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(7),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// A folder for two files.
fn files() -> (tempfile::TempDir, [PathBuf; 3]) {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["image.nii", "label.nii", "other.nii"].map(|name| folder.path().join(name));
    (folder, paths)
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn storage_changes_nothing(
        scene in scenes(1..=6),
        [first, second, third] in prop::array::uniform3(storages()),
    ) {
        let (_folder, [image_file, label_file, other_file]) = files();
        scene.stored(&PLAIN).write(&image_file);
        let plain = read_image(&image_file).unwrap();
        scene.stored(&first).write(&image_file);
        scene.stored(&second).label().write(&label_file);
        scene.stored(&third).write(&other_file);
        let image = read_image(&image_file).unwrap();
        prop_assert_eq!(image.as_slice(), plain.as_slice());
        for (a, b) in image.grid().canonical_affine().iter().flatten().zip(plain.grid().canonical_affine().iter().flatten()) {
            prop_assert!((a - b).abs() < 1e-3, "{a} {b}");
        }
        let on = Reference { grid: image.grid(), path: &image_file };
        let labels = read_labels_on(&label_file, &Known::any(), &on, Match::ByPlace).unwrap();
        let expected: Vec<u8> = plain.as_slice().iter().map(|v| label(*v as u16)).collect();
        prop_assert_eq!(labels.as_slice(), &expected[..]);
        prop_assert_eq!(labels.grid().affine, image.grid().affine);
        let both = read_images(&[image_file, other_file], Match::ByPlace).unwrap();
        prop_assert_eq!(&both.as_slice()[plain.as_slice().len()..], plain.as_slice());
    }
}

/// A mistake in the affine of a label.
#[derive(Debug, Clone, Copy)]
enum Mistake {
    Shift(Vector),
    Mirror(usize),
    Permute,
    Size(usize),
    Turn(Vector),
}

impl Mistake {
    fn make(&self, file: &mut File) {
        match *self {
            Self::Shift(by) => (0..3).for_each(|row| file.offset[row] += by[row]),
            // about the first voxel, so that the box lands beside itself
            Self::Mirror(axis) => file.columns[axis] = file.columns[axis].map(|v| -v),
            Self::Permute => file.columns.rotate_left(1),
            Self::Size(axis) => file.columns[axis] = file.columns[axis].map(|v| v * 1.5),
            Self::Turn(axis) => file.columns = file.columns.map(|c| applied(&about(axis, 0.4), c)),
        }
    }

    fn words(&self) -> &'static str {
        match self {
            Self::Shift(_) => "shifted by ",
            Self::Mirror(_) => "mirrored along ",
            Self::Permute => "axes permuted (i, j, k run along ",
            Self::Size(_) => "other voxel sizes (",
            Self::Turn(_) => "rotated by 22.9°",
        }
    }
}

fn mistakes() -> impl Strategy<Value = Mistake> {
    // half a voxel of 4 mm and more
    let way = prop::array::uniform3(prop_oneof![2.0..40.0f64, -40.0..-2.0f64]);
    prop_oneof![
        way.prop_map(Mistake::Shift),
        (0..3usize).prop_map(Mistake::Mirror),
        Just(Mistake::Permute),
        (0..3usize).prop_map(Mistake::Size),
        prop::array::uniform3(0.1..1.0f64).prop_map(Mistake::Turn),
    ]
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn mistakes_are_named_and_index_overrides_them(
        mut scene in scenes(4..=7),
        storage in storages(),
        mistake in mistakes(),
    ) {
        if matches!(mistake, Mistake::Permute) {
            // of a cube with equal edges, permuted axes are a turn onto itself
            scene.sizes = [4, 5, 7];
            scene.edges = [1.5; 3];
        }
        let (_folder, [image_file, label_file, _]) = files();
        let right = scene.stored(&storage);
        let mut wrong = right.label();
        mistake.make(&mut wrong);
        right.write(&image_file);
        wrong.write(&label_file);
        let image = read_image(&image_file).unwrap();
        let on = Reference { grid: image.grid(), path: &image_file };
        let message = read_labels_on(&label_file, &Known::any(), &on, Match::ByPlace)
            .unwrap_err()
            .to_string();
        for part in ["label.nii: found the same voxels up to ", mistake.words(), "image.nii, within ", "`match` by-index"] {
            prop_assert!(message.contains(part), "{part:?} is missing in: {message}");
        }
        // one mistake, one word, save that the box moves with it
        let other = ["mirrored", "permuted", "voxel sizes", "rotated"];
        for word in other.into_iter().filter(|word| !mistake.words().contains(word)) {
            prop_assert!(!message.contains(word), "{mistake:?}: {message}");
        }
        let labels = read_labels_on(&label_file, &Known::any(), &on, Match::ByIndex).unwrap();
        let expected: Vec<u8> = image.as_slice().iter().map(|v| label(*v as u16)).collect();
        prop_assert_eq!(labels.as_slice(), &expected[..]);
        prop_assert_eq!(labels.grid().affine, image.grid().affine);
        let both = read_images(&[image_file, label_file], Match::ByIndex).unwrap();
        prop_assert_eq!(both.as_slice()[expected.len()..].to_vec(), expected.iter().map(|v| f32::from(*v)).collect::<Vec<_>>());
    }
}

fn scene() -> Scene {
    let turn = about([1.0, 0.0, 0.0], 0.0);
    Scene { sizes: [4, 5, 6], edges: [1.0, 1.0, 0.8], turn, origin: [10.0, -20.0, 30.0] }
}

/// What reading a changed label says, by place.
fn said(change: impl Fn(&mut File)) -> String {
    let (_folder, [image_file, label_file, _]) = files();
    let file = scene().stored(&PLAIN);
    file.write(&image_file);
    let mut label = file.label();
    change(&mut label);
    label.write(&label_file);
    let image = read_image(&image_file).unwrap();
    let on = Reference { grid: image.grid(), path: &image_file };
    match read_labels_on(&label_file, &Known::any(), &on, Match::ByPlace) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_quarter_of_a_voxel_is_the_limit() {
    assert_eq!(said(|label| label.offset[1] += 0.19), "");
    let message = said(|label| label.offset[1] += 0.21);
    for part in [
        "up to 0.21 mm away: centre shifted by 0, 0.21, 0 mm (x, y, z); expected",
        "within 0.20 mm (0.25 of a voxel)",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn wrong_affines_are_described() {
    // saved with a unit affine
    let message = said(|label| {
        label.columns = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        label.offset = [0.0; 3];
    });
    let expected = "centre shifted by -10.0, 20.0, -29.5 mm (x, y, z), other voxel sizes (1 x 1 x 1 instead of 1 x 1 x 0.8 mm)";
    assert!(message.contains(expected), "{message}");
    // x and y the other way round, as between NIfTI and ITK
    let message = said(|label| {
        label.columns[0][0] = -1.0;
        label.columns[1][1] = -1.0;
        label.offset = [-10.0, 20.0, 30.0];
    });
    assert!(
        message.contains("up to 47.7 mm away: mirrored along x and y, centre shifted by "),
        "{message}"
    );
    // mirrored about its own middle it shows the same places, stored the other way
    let message = said(|label| {
        label.columns[0][0] = -1.0;
        label.offset[0] += 3.0;
    });
    assert_eq!(message, "");
}

#[test]
fn a_transposed_array_is_told_as_such_whatever_the_orientation() {
    for bits in 0..8 {
        let (_folder, [image_file, label_file, _]) = files();
        let flips = [0, 1, 2].map(|axis| bits >> axis & 1 == 1);
        let image = scene().stored(&Storage { flips, ..PLAIN });
        image.write(&image_file);
        // the array that k, j, i index, with the image's affine
        let mut label = image.label();
        label.sizes.reverse();
        let [a, b, c] = image.sizes;
        let place = |x: usize, y: usize, z: usize| label.values[x + a * (y + b * z)];
        let rows = (0..a).flat_map(|x| (0..b).map(move |y| (x, y)));
        label.values = rows.flat_map(|(x, y)| (0..c).map(move |z| place(x, y, z))).collect();
        label.write(&label_file);
        let image = read_image(&image_file).unwrap();
        let on = Reference { grid: image.grid(), path: &image_file };
        let message = read_labels_on(&label_file, &Known::any(), &on, Match::ByPlace).unwrap_err();
        let message = message.to_string();
        assert!(message.contains("axes permuted (i, j, k run along k, j, i)"), "{message}");
        for word in ["mirrored", "voxel sizes", "rotated"] {
            assert!(!message.contains(word), "{flips:?}: {message}");
        }
    }
}

#[test]
fn other_sizes_are_errors_either_way() {
    let (_folder, [image_file, label_file, _]) = files();
    scene().stored(&PLAIN).write(&image_file);
    Scene { sizes: [4, 5, 7], ..scene() }.stored(&PLAIN).label().write(&label_file);
    let image = read_image(&image_file).unwrap();
    let on = Reference { grid: image.grid(), path: &image_file };
    let read = |matching| read_labels_on(&label_file, &Known::any(), &on, matching).unwrap_err();
    let message = read(Match::ByPlace).to_string();
    assert!(
        message.contains("shape [7, 5, 4] (D, H, W); expected [6, 5, 4], that of "),
        "{message}"
    );
    let message = read(Match::ByIndex).to_string();
    assert!(
        message.contains("[4, 5, 7] voxels along its axes i, j, k; expected [4, 5, 6]"),
        "{message}"
    );
}

#[test]
#[cfg_attr(not(real_images), ignore = "no real images: set U2SEG_DATA")]
fn real_labels_lie_on_their_images() {
    for task in ["Task04_Hippocampus", "Task09_Spleen", "Task21_MSLesion", "Task22_SpinalCord"] {
        let dataset = Dataset::open(common::data_dir().join(task)).unwrap();
        for case in &dataset.cases {
            let (image, label) = dataset.load(case).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!((image.shape(), image.grid().affine), (label.shape(), label.grid().affine));
            assert!(image.notes().is_empty(), "{task} {}: {:?}", case.id, image.notes());
            assert!(label.as_slice().iter().any(|value| *value > 0), "{task} {}", case.id);
        }
    }
}

/// A bright box in a scene, whose mask is what the program makes of it.
fn boxed(file: &File, sizes: [usize; 3]) -> File {
    let bright = |number: &u16| {
        let n = usize::from(*number);
        let place = [n % sizes[0], n / sizes[0] % sizes[1], n / sizes[0] / sizes[1]];
        let inside =
            |axis: usize, rim: usize| (rim..sizes[axis] - rim - axis).contains(&place[axis]);
        let level = |rim| u16::from((0..3).all(|axis| inside(axis, rim)));
        n as u16 % 7 + 90 * (level(4) + level(6))
    };
    File { values: file.values.iter().map(bright).collect(), ..file.clone() }
}

#[test]
#[cfg_attr(without_gpu, ignore = "U2SEG_NO_GPU=1")]
fn a_predicted_mask_is_the_same_however_the_image_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let (images, masks) = (folder.path().join("images"), folder.path().join("masks"));
    std::fs::create_dir(&images).unwrap();
    let quarter = std::f64::consts::FRAC_PI_4;
    let turns = [
        about([1.0, 0.0, 0.0], 0.0),
        about([0.0, 0.0, 1.0], quarter),
        about([0.0, 1.0, 0.0], -quarter),
        about([1.0, 2.0, 3.0], 0.7),
    ];
    let storages = [
        PLAIN,
        Storage { flips: [true, true, false], ..PLAIN },
        Storage { axes: [2, 0, 1], flips: [false, true, false], qform: true },
        Storage { axes: [1, 0, 2], flips: [true, false, true], qform: false },
    ];
    for (t, turn) in turns.into_iter().enumerate() {
        let scene =
            Scene { sizes: [22, 20, 18], edges: [1.0; 3], turn, origin: [-20.0, 7.0, 30.0] };
        for (index, storage) in storages.iter().enumerate() {
            let file = boxed(&scene.stored(storage), scene.sizes);
            file.write(&images.join(format!("turn{t}_{index}.nii")));
        }
    }
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/model_1ch.safetensors");
    let (i, o) = (program::path(&images), program::path(&masks));
    program::succeed(&["predict", "-m", model, "-i", i, "-o", o]);
    for t in 0..4 {
        let read = |index: usize| {
            let name = format!("turn{t}_{index}.nii");
            let image = read_image(&images.join(&name)).unwrap();
            let file = images.join(&name);
            let on = Reference { grid: image.grid(), path: &file };
            let mask = masks.join(format!("{name}.gz"));
            read_labels_on(&mask, &Known::any(), &on, Match::ByPlace).unwrap().into_data()
        };
        let plain = read(0);
        let count = |label: u8| plain.iter().filter(|l| **l == label).count();
        assert!(count(1) > 100, "turn {t}: {} and {}", count(1), count(2));
        (1..4).for_each(|index| assert!(read(index) == plain, "turn {t}, storage {index}"));
    }
}
