//! What several commands take.

use std::path::{Path, PathBuf};

use crate::base::{Error, Result};
use crate::engine::graph::DType;
use crate::engine::tune;
use crate::models::{Named, read_shipped};
use crate::net::Model;
use crate::run::MODEL;
use crate::train::Footprint;

/// How tensors are stored.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum PrecisionArg {
    /// 32 bits.
    F32,
    /// 16 bits: half the memory; arithmetic and weights stay in 32 bits.
    F16,
}

impl From<PrecisionArg> for DType {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::F16 => Self::F16,
        }
    }
}

/// How masks are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum MaskFormat {
    /// NIfTI-1: .nii.gz, or .nii.
    Nifti,
    /// NRRD with the names and colours of the classes, as 3D Slicer's segmentations: .seg.nrrd.
    Nrrd,
    /// MetaImage: .mha.
    Mha,
    /// DICOM Segmentation, a segment a class; for images that are DICOM series: .dcm.
    DicomSeg,
}

impl MaskFormat {
    /// Every format with the ending of its files in a folder, the ending of images beside them, and other endings.
    const ALL: [(Self, &'static str, &'static str, &'static [&'static str]); 4] = [
        (Self::Nifti, ".nii.gz", ".nii.gz", &[".nii"]),
        (Self::Nrrd, ".seg.nrrd", ".nrrd", &[".nrrd", ".nhdr"]),
        (Self::Mha, ".mha", ".mha", &[".mhd"]),
        (Self::DicomSeg, ".dcm", ".nii.gz", &[]),
    ];

    /// By the ending of a file's name, in whatever case.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let name = crate::base::files::file_name(path).to_lowercase();
        let found = Self::ALL.into_iter().find(|(_, ending, _, others)| {
            name.ends_with(ending) || others.iter().any(|other| name.ends_with(other))
        });
        found.map(|(format, ..)| format)
    }

    /// How a mask's name ends.
    pub(super) fn ending(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// How the name of an image beside masks ends.
    pub(super) fn image_ending(self) -> &'static str {
        Self::ALL[self as usize].2
    }

    /// All endings, as a message lists them.
    pub(super) fn endings() -> String {
        let each =
            Self::ALL.iter().flat_map(|(_, ending, _, others)| [&[*ending], *others].concat());
        each.collect::<Vec<_>>().join(", ")
    }
}

/// What training may take of the GPU's memory.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Memory")]
pub(super) struct MemoryArgs {
    /// Store activations in 32 or 16 bits
    #[arg(long, value_enum, default_value = "f32", value_name = "TYPE")]
    pub(super) precision: PrecisionArg,
    /// Limit GPU memory, such as 4G
    ///
    /// Where training does not fit, activations are recomputed: slower, same results.
    #[arg(long, value_parser = size, value_name = "SIZE")]
    pub(super) vram: Option<u64>,
}

/// The device.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Device")]
pub(super) struct DeviceArgs {
    /// Device: auto, a number of `u2seg devices`, or part of a name
    #[arg(long, default_value = "auto")]
    pub(super) device: String,
}

/// The device, and which kernels it runs.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Device")]
pub(super) struct TunedDeviceArgs {
    /// Device: auto, a number of `u2seg devices`, or part of a name
    #[arg(long, default_value = "auto")]
    pub(super) device: String,
    /// How to choose among the variants of each kernel
    ///
    /// They may round differently. A run keeps what was chosen, also with --continue.
    #[arg(long, value_enum, default_value = "cached", value_name = "MODE")]
    pub(super) tune: tune::Mode,
}

impl MemoryArgs {
    pub(super) fn footprint(&self) -> Footprint {
        Footprint { dtype: self.precision.into(), vram: self.vram, reserved: 0 }
    }
}

/// Bytes with a unit; those of one letter are binary, as in most tools.
pub(super) fn size(text: &str) -> std::result::Result<u64, String> {
    let fail = || format!("expected a size such as 4G or 3500M, found {text}");
    let digits = text.trim().find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
    let (number, unit) = text.trim().split_at(digits);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024.0 * 1024.0,
        "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "t" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        _ => return Err(fail()),
    };
    let bytes = number.parse::<f64>().map_err(|_| fail())? * unit;
    // beyond what any device has, and well within u64
    if (1.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(fail()) }
}

/// A number above 0.
pub(super) fn positive<T: std::str::FromStr>(text: &str) -> std::result::Result<T, String> {
    let above = text.trim().parse().is_ok_and(|number: f64| number > 0.0 && number.is_finite());
    let fail = || format!("expected a number above 0, found {text}");
    text.trim().parse().ok().filter(|_| above).ok_or_else(fail)
}

/// A number from 0, below 1.
pub(super) fn share(text: &str) -> std::result::Result<f32, String> {
    let fail = || format!("expected a number from 0, below 1, found {text}");
    text.trim().parse().ok().filter(|number| (0.0..1.0).contains(number)).ok_or_else(fail)
}

/// The model file that a flag names, itself or by the folder of its run.
pub(super) fn model_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(MODEL) } else { path.to_path_buf() }
}

/// What a flag means that names a model: a file that is there, given by itself or by the folder of its run, or a part of the
/// program.
fn named_model(wanted: &Path) -> Result<Named> {
    let named = Named::find(wanted)?;
    let Named::Path(path) = &named else { return Ok(named) };
    let file = model_file(path);
    if file.exists() {
        return Ok(Named::Path(file));
    }
    let found = if path.is_dir() { "no finished model there" } else { "no such file" };
    let expected = "a model's file, the folder of a finished run, or a model's name";
    Err(Error::file(&file, found, expected, "`models` lists the models that have names."))
}

/// Reads the model that a flag names: by its file, by the folder of its run, or by a name. Its file comes with it, but for a
/// model that is part of the program.
pub(super) fn read_model(wanted: &Path) -> Result<(Model, Option<PathBuf>)> {
    match named_model(wanted)? {
        Named::Shipped(name) => Ok((read_shipped(name)?, None)),
        Named::Path(file) => Ok((Model::read(&file)?, Some(file))),
    }
}

/// A model that a flag names, as a run keeps it that comes back to it: its file from the root on, or its name in the program.
pub(super) fn lasting_model(wanted: &Path) -> Result<PathBuf> {
    match named_model(wanted)? {
        Named::Shipped(name) => Ok(name.into()),
        Named::Path(file) => std::path::absolute(&file).map_err(|e| Error::io(file, e)),
    }
}

/// `LOWER,UPPER` as two numbers.
pub(super) fn window(text: &str) -> std::result::Result<[f32; 2], String> {
    let parts: Option<Vec<f32>> = text.split(',').map(|p| p.trim().parse().ok()).collect();
    parts
        .and_then(|parts| parts.try_into().ok())
        .ok_or_else(|| format!("expected two numbers LOWER,UPPER such as -160,240, found {text}"))
}

/// `D,H,W` as three numbers.
pub(super) fn triple<T: std::str::FromStr>(text: &str) -> std::result::Result<[T; 3], String> {
    let parts: Option<Vec<T>> = text.split([',', 'x']).map(|p| p.trim().parse().ok()).collect();
    parts
        .and_then(|parts| parts.try_into().ok())
        .ok_or_else(|| format!("expected three numbers D,H,W such as 40,56,40, found {text}"))
}

/// `D,H,W` as three numbers above 0.
pub(super) fn positive_triple<T: std::str::FromStr>(
    text: &str,
) -> std::result::Result<[T; 3], String> {
    let above = triple::<f64>(text)?.iter().all(|part| *part > 0.0 && part.is_finite());
    let fail = || format!("expected three numbers above 0, D,H,W, found {text}");
    if above { triple(text) } else { Err(fail()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_in_their_ranges() {
        assert_eq!(super::positive("3"), Ok(3u64));
        assert_eq!(super::positive("1e-2"), Ok(0.01));
        for text in ["", "0", "-1", "nan", "inf", "1e400", "x"] {
            assert!(super::positive::<f64>(text).is_err(), "{text}");
        }
        assert!(super::positive::<usize>("1.5").is_err());
        assert_eq!((super::share("0"), super::share("3e-5")), (Ok(0.0), Ok(3e-5)));
        for text in ["", "-0.1", "1", "nan", "inf", "x"] {
            assert!(super::share(text).is_err(), "{text}");
        }
        assert_eq!(super::positive_triple("0.5,1,2"), Ok([0.5, 1.0, 2.0]));
        for text in ["1,2", "0,1,2", "1,nan,2", "1,2,-3"] {
            assert!(super::positive_triple::<f64>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(super::size("4GiB"), Ok(4 << 30));
        assert_eq!(super::size("4G"), Ok(4 << 30));
        assert_eq!(super::size("3500 mib"), Ok(3500 << 20));
        assert_eq!(super::size("1.5GB"), Ok(1_500_000_000));
        for text in ["", "4", "GiB", "4TiBs", "-1GiB", "0MiB", "1..5GiB", "1e9GiB"] {
            assert!(super::size(text).is_err(), "{text}");
        }
    }
}
