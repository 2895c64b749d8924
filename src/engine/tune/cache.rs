//! What tuning found, by adapter, driver, version and shaders, in the user's cache folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::files::{
    Lock, cache_folder, fingerprint, folder, read_bytes, sweep, write_atomically,
};
use crate::base::{Error, Result};
use crate::engine::gpu::Gpu;
use crate::engine::shader::{shared, sources};

/// What a tuning holds for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// The adapter's name.
    pub adapter: String,
    /// The graphics API.
    pub backend: String,
    /// The driver's name.
    pub driver: String,
    /// The driver's version.
    pub driver_info: String,
    /// Version of u2seg.
    pub version: String,
    /// Fingerprint of all shaders.
    pub shaders: String,
}

impl Identity {
    /// That of a device and this program.
    pub fn of(gpu: &Gpu) -> Self {
        let report = gpu.report();
        let files = sources().iter().chain(shared());
        let texts = files.flat_map(|(file, text)| [file.as_bytes(), text.as_bytes()]);
        Self {
            adapter: report.name.clone(),
            backend: report.backend.clone(),
            driver: report.driver.clone(),
            driver_info: report.driver_info.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            shaders: format!("{:016x}", fingerprint(texts)),
        }
    }

    /// Whether both are the same adapter with the same driver.
    pub fn same_adapter(&self, other: &Self) -> bool {
        let adapter =
            |i: &Self| [&i.adapter, &i.backend, &i.driver, &i.driver_info].map(String::clone);
        adapter(self) == adapter(other)
    }

    fn file(&self) -> Option<PathBuf> {
        let parts = [
            &self.adapter,
            &self.backend,
            &self.driver,
            &self.driver_info,
            &self.version,
            &self.shaders,
        ];
        let hash = fingerprint(parts.map(|part| part.as_bytes()));
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = self.adapter.chars().take(40).map(plain).collect();
        Some(cache_folder()?.join("tuning").join(format!("{name}-{hash:016x}.json")))
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Kept {
    #[serde(flatten)]
    identity: Identity,
    variants: BTreeMap<String, String>,
}

/// Variants by site that earlier tuning found; none where there is no file or none that can be read.
pub fn read(gpu: &Gpu) -> BTreeMap<String, String> {
    let identity = Identity::of(gpu);
    let Some(path) = identity.file().filter(|path| path.exists()) else {
        return BTreeMap::new();
    };
    match read_file(&path) {
        Ok(kept) if kept.identity == identity => kept.variants,
        Ok(_) => {
            log::warn!("{}: for another device; it is ignored", path.display());
            BTreeMap::new()
        }
        Err(error) => {
            log::warn!("{error}");
            BTreeMap::new()
        }
    }
}

fn read_file(path: &Path) -> Result<Kept> {
    let bytes = read_bytes(path, "what tuning found")?;
    serde_json::from_slice(&bytes).map_err(|e| {
        Error::file(path, e.to_string(), "what tuning found", "It is ignored; delete it.")
    })
}

/// Keeps what was found for later runs, beside what other processes found meanwhile. A folder that cannot be written costs only
/// that.
pub fn add(gpu: &Gpu, found: &BTreeMap<String, String>) {
    let identity = Identity::of(gpu);
    let Some(path) = identity.file() else {
        log::warn!("no cache folder: what tuning found is not kept");
        return;
    };
    if let Err(error) = add_to(&path, identity, found) {
        log::warn!("what tuning found is not kept: {error}");
    }
}

fn add_to(path: &Path, identity: Identity, found: &BTreeMap<String, String>) -> Result<()> {
    let folder = folder(path);
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let _lock = Lock::wait(&path.with_extension("lock"))?;
    sweep(folder);
    // of another adapter, or damaged: that was told when it was read
    let before = read_file(path).ok().filter(|kept| kept.identity == identity);
    let mut variants = before.map(|kept| kept.variants).unwrap_or_default();
    variants.extend(found.clone());
    let json = serde_json::to_vec_pretty(&Kept { identity, variants });
    write_atomically(path, &json.map_err(|e| Error::Internal(e.to_string()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_that_tune_at_once_keep_what_both_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tuning/adapter.json");
        let text = || "x".to_string();
        let identity = Identity {
            adapter: text(),
            backend: text(),
            driver: text(),
            driver_info: text(),
            version: text(),
            shaders: text(),
        };
        std::thread::scope(|scope| {
            for who in 0..4 {
                let (path, identity) = (&path, &identity);
                scope.spawn(move || {
                    for site in 0..10 {
                        let found = (format!("site {who} {site}"), "variant".to_string());
                        add_to(path, identity.clone(), &[found].into()).unwrap();
                    }
                });
            }
        });
        assert_eq!(read_file(&path).unwrap().variants.len(), 40);
        // what is found again replaces what was known; of another adapter nothing stays
        let found = |variant: &str| [("site 0 0".to_string(), variant.to_string())].into();
        add_to(&path, identity.clone(), &found("other")).unwrap();
        assert_eq!(read_file(&path).unwrap().variants["site 0 0"], "other");
        let newer = Identity { version: "y".into(), ..identity };
        add_to(&path, newer, &found("new")).unwrap();
        assert_eq!(read_file(&path).unwrap().variants, found("new"));
    }
}
