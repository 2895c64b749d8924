//! Writes a folder of made-up scans in the layout of the Medical Segmentation Decathlon, as large and as many as a trial of
//! memory and time needs: a body with organs and noise, an int16 file a case, in seconds each.
//!
//! `cargo run --release --example synthetic_cohort -- --out /tmp/cohort [--cases 48] [--shape 128,256,256] [--spacing 2.5,1.5,1.5]
//! [--channels 1] [--classes 3] [--seed 0]`
//!
//! One channel is a CT in Hounsfield units; several are MR sequences, which are 0 outside of the body. The same arguments give
//! the same files.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use flate2::Compression;
use flate2::write::GzEncoder;
use rayon::prelude::*;
use serde_json::json;
use u2seg::{Error, Result};

/// Writes a Decathlon folder of made-up scans.
#[derive(Parser)]
struct Args {
    /// Folder of the dataset.
    #[arg(long)]
    out: PathBuf,
    /// Labelled scans.
    #[arg(long, default_value_t = 48)]
    cases: usize,
    /// Voxels D,H,W.
    #[arg(long, default_value = "128,256,256", value_parser = triple::<u16>)]
    shape: [u16; 3],
    /// Millimetres D,H,W.
    #[arg(long, default_value = "2.5,1.5,1.5", value_parser = triple::<f32>)]
    spacing: [f32; 3],
    /// Channels: 1 is a CT, more are MR sequences.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    channels: u16,
    /// Classes with the background.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=120))]
    classes: u8,
    /// Another seed gives other patients.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn triple<T: std::str::FromStr>(text: &str) -> std::result::Result<[T; 3], String> {
    let parts: Option<Vec<T>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
    let three = parts.and_then(|parts| <[T; 3]>::try_from(parts).ok());
    three.ok_or_else(|| format!("expected three numbers D,H,W such as 128,256,256, found {text}"))
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    for folder in ["imagesTr", "labelsTr"].map(|name| args.out.join(name)) {
        std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
    }
    for case in 0..args.cases {
        let patient = Patient::new(args, case as u64);
        let file = |folder: &str| args.out.join(folder).join(name(case));
        write(&file("imagesTr"), args, Kind::Image, &patient)?;
        write(&file("labelsTr"), args, Kind::Label, &patient)?;
    }
    describe(args)
}

fn name(case: usize) -> String {
    format!("case_{case:03}.nii.gz")
}

fn describe(args: &Args) -> Result<()> {
    let modality = |channel: u16| match args.channels {
        1 => "CT".into(),
        _ => format!("MR {channel}"),
    };
    let modalities = (0..args.channels).map(|c| (c.to_string(), json!(modality(c))));
    let organ = |class: u8| match class {
        0 => "background".into(),
        _ => format!("organ {class}"),
    };
    let labels = (0..args.classes).map(|class| (class.to_string(), json!(organ(class))));
    let path = |folder: &str, case: usize| format!("./{folder}/{}", name(case));
    let training = (0..args.cases)
        .map(|case| json!({"image": path("imagesTr", case), "label": path("labelsTr", case)}));
    let description = json!({
        "name": "Synthetic",
        "modality": modalities.collect::<serde_json::Map<_, _>>(),
        "labels": labels.collect::<serde_json::Map<_, _>>(),
        "training": training.collect::<Vec<_>>(),
    });
    let file = args.out.join("dataset.json");
    std::fs::write(&file, format!("{description:#}\n")).map_err(|e| Error::io(&file, e))
}

/// Random bits of three numbers (the finaliser of SplitMix64).
fn bits(seed: u64, stream: u64, index: u64) -> u64 {
    let mut z = seed ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03);
    z = z.wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// An ellipsoid in coordinates from −1 to 1 across the volume, z, y, x.
struct Ellipsoid {
    centre: [f32; 3],
    radii: [f32; 3],
    /// Grey value, and the label of its voxels.
    value: f32,
    label: u8,
}

impl Ellipsoid {
    /// Where it begins and ends along x in the row at z and y.
    fn across(&self, z: f32, y: f32) -> Option<[f32; 2]> {
        let [dz, dy] =
            [(z, 0), (y, 1)].map(|(at, axis)| (at - self.centre[axis]) / self.radii[axis]);
        let rest = 1.0 - dz * dz - dy * dy;
        let half = self.radii[2] * rest.max(0.0).sqrt();
        (rest > 0.0).then_some([self.centre[2] - half, self.centre[2] + half])
    }
}

/// What one case shows, from the outside in: later parts lie over earlier ones.
struct Patient {
    parts: Vec<Ellipsoid>,
    seed: u64,
}

impl Patient {
    fn new(args: &Args, case: u64) -> Self {
        let seed = bits(args.seed, 0, case);
        let mut drawn = 0;
        let mut around = |middle: f32, spread: f32| {
            drawn += 1;
            let unit = (bits(seed, 1, drawn) >> 40) as f32 / (1 << 24) as f32;
            middle + spread * (2.0 * unit - 1.0)
        };
        let mut part = |centre: [f32; 3], radii: [f32; 3], value: f32, label: u8| Ellipsoid {
            centre: centre.map(|c| around(c, 0.03)),
            radii: radii.map(|r| r * around(1.0, 0.12)),
            value: around(value, 8.0),
            label,
        };
        // skin and fat, the cavity, the spine
        let mut parts = vec![
            part([0.0; 3], [9.0, 0.78, 0.88], -95.0, 0),
            part([0.0; 3], [9.0, 0.66, 0.78], 25.0, 0),
            part([0.0, -0.5, 0.0], [9.0, 0.13, 0.13], 480.0, 0),
        ];
        let organs = f32::from(args.classes - 1);
        let size = 0.42 / organs.cbrt();
        for label in 1..args.classes {
            // along a spiral, so that organs of any number find places of their own
            let along = (f32::from(label) - 0.5) / organs;
            let (sin, cos) = (2.399_963 * f32::from(label)).sin_cos();
            let centre = [1.5 * along - 0.75, 0.08 + 0.34 * sin, 0.45 * cos];
            let value = 45.0 + 17.0 * f32::from(label % 7);
            parts.push(part(centre, [1.3 * size, 0.9 * size, size], value, label));
        }
        Self { parts, seed }
    }

    /// Calls `fill` with each part that a row at z and y meets, and its voxels.
    fn row<'a>(
        &'a self,
        z: f32,
        y: f32,
        width: usize,
        mut fill: impl FnMut(&'a Ellipsoid, std::ops::Range<usize>),
    ) {
        let voxel =
            |x: f32| (((x + 1.0) / 2.0 * width as f32).round().max(0.0) as usize).min(width);
        for part in &self.parts {
            if let Some([from, to]) = part.across(z, y) {
                fill(part, voxel(from)..voxel(to));
            }
        }
    }
}

/// What a file holds.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Image,
    Label,
}

impl Kind {
    /// NIfTI's number of the type of its voxels, and its bits: int16 and uint8.
    fn datatype(self) -> [i16; 2] {
        match self {
            Self::Image => [4, 16],
            Self::Label => [2, 8],
        }
    }

    /// A plane of a volume as bytes.
    fn plane(self, args: &Args, patient: &Patient, channel: u16, z: usize) -> Vec<u8> {
        let [depth, height, width] = args.shape.map(usize::from);
        let at = |index: usize, extent: usize| (2 * index + 1) as f32 / extent as f32 - 1.0;
        let mut bytes = Vec::new();
        let mut values = vec![0i16; width];
        let mut labels = vec![0u8; width];
        for y in 0..height {
            let (at_z, at_y) = (at(z, depth), at(y, height));
            if self == Self::Label {
                labels.fill(0);
                patient.row(at_z, at_y, width, |part, range| labels[range].fill(part.label));
                bytes.extend_from_slice(&labels);
                continue;
            }
            let air = if args.channels == 1 { -1000 } else { 0 };
            values.fill(air);
            patient.row(at_z, at_y, width, |part, range| {
                values[range].fill(grey(part, channel, args.channels));
            });
            let first = ((usize::from(channel) * depth + z) * height + y) * width;
            for (x, value) in values.iter_mut().enumerate() {
                if *value != 0 || args.channels == 1 {
                    *value += noise(patient.seed, (first + x) as u64);
                }
            }
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes
    }
}

/// The value of a part: Hounsfield units in a CT, else a contrast of the sequence's own, above 0.
fn grey(part: &Ellipsoid, channel: u16, channels: u16) -> i16 {
    if channels == 1 {
        return part.value as i16;
    }
    let turn = (0.02 + 0.013 * f32::from(channel)) * part.value;
    (500.0 + 200.0 * turn.sin()) as i16
}

/// About normal, of a deviation of 13: the sum of four uniform numbers.
fn noise(seed: u64, index: u64) -> i16 {
    let drawn = bits(seed, 2, index);
    let sum: u64 = (0..4).map(|part| drawn >> (16 * part) & 0xffff).sum();
    ((sum as i64 - 2 * 0xffff) * 23 / 0x1_0000) as i16
}

/// A header of NIfTI-1 and the four bytes that say that no extension follows.
fn header(args: &Args, kind: Kind) -> Vec<u8> {
    let mut bytes = vec![0; 352];
    let mut put = |at: usize, data: &[u8]| bytes[at..at + data.len()].copy_from_slice(data);
    let [d, h, w] = args.shape;
    let channels = if kind == Kind::Image { args.channels } else { 1 };
    let axes = if channels > 1 { 4 } else { 3 };
    put(0, &348i32.to_le_bytes());
    for (axis, size) in [axes, w, h, d, channels, 1, 1, 1].into_iter().enumerate() {
        put(40 + 2 * axis, &size.to_le_bytes());
    }
    let [datatype, bits] = kind.datatype();
    put(70, &datatype.to_le_bytes());
    put(72, &bits.to_le_bytes());
    let [along_z, along_y, along_x] = args.spacing;
    for (axis, size) in [1.0, along_x, along_y, along_z, 1.0].into_iter().enumerate() {
        put(76 + 4 * axis, &f32::to_le_bytes(size));
    }
    put(108, &352f32.to_le_bytes());
    put(112, &1f32.to_le_bytes());
    // millimetres; the affine is that of the scanner
    put(123, &[2]);
    put(254, &1i16.to_le_bytes());
    for (row, size) in [along_x, along_y, along_z].into_iter().enumerate() {
        put(280 + 16 * row + 4 * row, &size.to_le_bytes());
    }
    put(344, b"n+1\0");
    bytes
}

/// Planes packed at once.
const AT_ONCE: usize = 32;

/// Writes a file whose planes are packed on all cores, a gzip member each.
fn write(path: &Path, args: &Args, kind: Kind, patient: &Patient) -> Result<()> {
    let refuse = |e: std::io::Error| Error::io(path, e);
    let pack = |bytes: &[u8]| -> std::io::Result<Vec<u8>> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
        packer.write_all(bytes)?;
        packer.finish()
    };
    let mut file = BufWriter::new(File::create(path).map_err(refuse)?);
    file.write_all(&pack(&header(args, kind)).map_err(refuse)?).map_err(refuse)?;
    let channels = if kind == Kind::Image { args.channels } else { 1 };
    let depth = usize::from(args.shape[0]);
    let planes: Vec<(u16, usize)> =
        (0..channels).flat_map(|channel| (0..depth).map(move |z| (channel, z))).collect();
    for planes in planes.chunks(AT_ONCE) {
        let packed =
            planes.par_iter().map(|(channel, z)| pack(&kind.plane(args, patient, *channel, *z)));
        for member in packed.collect::<std::io::Result<Vec<_>>>().map_err(refuse)? {
            file.write_all(&member).map_err(refuse)?;
        }
    }
    file.flush().map_err(refuse)
}
