//! The user's folder of models.

use std::path::{Path, PathBuf};

use crate::base::{Error, Result};

/// Ending of a model's file.
pub const ENDING: &str = ".safetensors";
/// Names the folder of models, instead of one in the user's data.
pub const MODELS_VARIABLE: &str = "U2SEG_MODELS";

/// Where models are kept that have names: what `U2SEG_MODELS` names, else `u2seg/models` in the user's data.
///
/// # Errors
///
/// Where neither the variable nor the system names a folder.
pub fn folder() -> Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(folder) = variable(MODELS_VARIABLE) {
        return Ok(folder);
    }
    let home = || variable("HOME");
    let data = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library/Application Support"))
    } else {
        variable("XDG_DATA_HOME").or_else(|| home().map(|home| home.join(".local/share")))
    };
    data.map(|folder| folder.join("u2seg/models")).ok_or_else(|| {
        Error::setting(
            "output",
            "no folder for models",
            "a home folder",
            "Name one, or set U2SEG_MODELS to where models are kept.",
        )
    })
}

/// The models of a folder, by name; none where there is no folder.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named = |path: &PathBuf| path.to_str().is_some_and(|path| path.ends_with(ENDING));
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| named(path) && path.is_file()).collect();
    files.sort();
    files
}
