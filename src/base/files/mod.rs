//! Files that are complete or absent, what a command reads and writes, names that become paths, locks between processes, and
//! the folder for what can be made again.

mod aside;
mod gzip;
mod lock;
mod name;
mod owner;
mod paths;
mod place;
mod read;
mod write;

use std::hash::Hasher;
use std::path::PathBuf;

use fnv::FnvHasher;

pub use aside::sweep;
pub use gzip::{Effort, GzipWriter};
pub use lock::Lock;
pub use name::safe_name;
pub(crate) use name::{file_name, folder};
pub use paths::{Claim, Paths};
pub(crate) use read::{
    from_object, from_value, lost_link, open_file, read_bytes, read_if_there, stand_in,
};
pub use read::{read_json, read_known_json, read_text, read_toml};
pub(crate) use write::sync_folder;
pub use write::{FileAside, write_atomically, write_keeping, write_with};

/// Names the cache folder, instead of a folder of u2seg in the user's own.
pub const CACHE_VARIABLE: &str = "U2SEG_CACHE";

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

/// A name for a file that holds what follows from these parts (FNV-1a, the same everywhere and always).
pub fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hash = FnvHasher::default();
    for part in parts {
        hash.write(part);
        hash.write(&[0]);
    }
    hash.finish()
}
