//! A dataset folder of made-up CTs, to try things on where there is no data.

use std::path::Path;

use ndarray::Axis;
use serde_json::json;

use super::case::DESCRIPTION;
use crate::base::files::write_atomically;
use crate::base::{Error, Result};
use crate::imaging::phantom::{SPLEEN, ct_phantom};
use crate::imaging::write_image;

/// Writes `cases` CTs of one spleen each as a Decathlon folder: `phantom_0` and so on, of `shape` voxels of `spacing` mm, both
/// D, H, W. The same arguments give the same files.
///
/// # Errors
///
/// Where the shape has no voxels, or a file cannot be written.
pub fn write_phantoms(
    folder: &Path,
    cases: usize,
    shape: [usize; 3],
    spacing: [f64; 3],
) -> Result<()> {
    let [images, labels] = ["imagesTr", "labelsTr"].map(|name| folder.join(name));
    for folder in [&images, &labels] {
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    }
    let mut training = Vec::new();
    for index in 0..cases {
        let (image, label) = ct_phantom(index as u64, shape, spacing)?;
        let file = format!("phantom_{index}.nii.gz");
        write_image(&images.join(&file), image.data().index_axis(Axis(0), 0), image.grid())?;
        label.write(&labels.join(&file))?;
        let [image, label] = ["imagesTr", "labelsTr"].map(|name| format!("./{name}/{file}"));
        training.push(json!({"image": image, "label": label}));
    }
    let description = json!({
        "name": "Spleen",
        "modality": {"0": "CT"},
        "labels": {"0": "background", SPLEEN.to_string(): "spleen"},
        "training": training,
    });
    write_atomically(&folder.join(DESCRIPTION), description.to_string().as_bytes())
}
