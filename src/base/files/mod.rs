//! Files that are complete or absent, what a command reads and writes, names that become paths, and the folder for what can
//! be made again.

mod name;
mod paths;
mod place;
mod read;
mod write;

use std::path::{Path, PathBuf};

pub use name::safe_name;
pub use paths::{Claim, Paths};
pub(crate) use read::{from_object, from_value, lost_link, read_bytes, stand_in};
pub use read::{read_json, read_text, read_toml};
pub use write::{write_atomically, write_with};

/// Names the cache folder, instead of a folder of u2seg in the user's own.
pub const CACHE_VARIABLE: &str = "U2SEG_CACHE";

/// The folder that a file lies in.
pub(crate) fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The name of a file, in letters; empty where the path has none.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Where tunings and compiled pipelines are kept: what `U2SEG_CACHE` names, else `u2seg` in the user's cache folder; none
/// where the system names no such folder.
pub fn cache_folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(folder) = variable(CACHE_VARIABLE) {
        return Some(folder);
    }
    let user = if cfg!(windows) {
        variable("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        variable("HOME").map(|home| home.join("Library/Caches"))
    } else {
        variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")))
    };
    user.map(|folder| folder.join("u2seg"))
}

/// FNV-1a, the same everywhere and always.
pub(crate) struct Fnv(pub u64);

impl Fnv {
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// A name for a file that holds what follows from these parts.
pub fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = Fnv::new();
    for part in parts {
        hash.add(part);
        hash.add(&[0]);
    }
    hash.0
}
