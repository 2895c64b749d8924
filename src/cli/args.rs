//! What several commands take.

use std::path::{Path, PathBuf};

use crate::base::{Error, Result};
use crate::engine::graph::DType;
use crate::models::{Named, read_shipped};
use crate::net::Model;
use crate::run::MODEL;
use crate::train::Footprint;

/// How tensors are stored.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(super) enum PrecisionArg {
    F32,
    /// Activations and their gradients in f16, arithmetic and everything else in f32: half the memory.
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
pub(super) struct MemoryArgs {
    /// How activations are stored.
    #[arg(long, value_enum, default_value = "f32")]
    pub(super) precision: PrecisionArg,
    /// GPU memory that training may take, such as 4GiB or 3500MiB: what does not fit is computed twice, as little as possible;
    /// the results stay the same to the bit.
    #[arg(long, value_parser = size)]
    pub(super) vram: Option<u64>,
}

impl MemoryArgs {
    pub(super) fn footprint(&self) -> Footprint {
        Footprint { dtype: self.precision.into(), vram: self.vram, reserved: 0 }
    }
}

/// Bytes with a unit.
pub(super) fn size(text: &str) -> std::result::Result<u64, String> {
    let fail = || format!("expected a size such as 4GiB or 3500MiB, found {text}");
    let digits = text.trim().find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(fail)?;
    let (number, unit) = text.trim().split_at(digits);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        _ => return Err(fail()),
    };
    let bytes = number.parse::<f64>().map_err(|_| fail())? * unit;
    // beyond what any adapter has, and well within u64
    if (1.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err(fail()) }
}

/// The model file that a flag names, itself or by the folder of its run.
pub(super) fn model_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(MODEL) } else { path.to_path_buf() }
}

/// What a flag means that names a model: a file that is there, given by itself or by the folder of its run, or a part of the
/// program.
fn named_model(wanted: &Path) -> Result<Named> {
    let Named::Path(path) = Named::find(wanted)? else { return Named::find(wanted) };
    let file = model_file(&path);
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

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_have_units() {
        assert_eq!(super::size("4GiB"), Ok(4 << 30));
        assert_eq!(super::size("3500 mib"), Ok(3500 << 20));
        assert_eq!(super::size("1.5GB"), Ok(1_500_000_000));
        for text in ["", "4", "GiB", "4TiBs", "-1GiB", "0MiB", "1..5GiB", "1e9GiB"] {
            assert!(super::size(text).is_err(), "{text}");
        }
    }
}
