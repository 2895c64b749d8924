//! Pictures beside the masks of `u2seg predict`.

use std::path::{Path, PathBuf};

use crate::base::Result;
use crate::base::files::{file_name, folder};
use crate::domain::DomainPlan;
use crate::imaging::{LabelMap, Volume, stem};
use crate::picture::{Overlay, value_names};

/// Where the picture of a mask goes.
pub(super) fn file(mask: &Path) -> PathBuf {
    let name = stem(mask).unwrap_or_else(|| file_name(mask));
    folder(mask).join(format!("{name}.png"))
}

/// Draws a mask over its image.
pub(super) fn write(
    plan: &DomainPlan,
    image: &Volume,
    mask: &Path,
    labels: &LabelMap,
) -> Result<()> {
    let view = Overlay {
        prediction: Some(labels),
        names: &value_names(&plan.labels),
        caption: &stem(mask).unwrap_or_default(),
        ..Overlay::of(image)
    };
    view.write(file(mask))
}
