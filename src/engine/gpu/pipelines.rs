//! Compiled pipelines kept on disk, where the backend can (Vulkan): a second start compiles nothing.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::base::files::{
    Lock, cache_folder, fingerprint, folder, read_if_there, sweep, write_atomically,
};
use crate::base::{Error, Result, locked};

/// Bytes before the backend's own: a fingerprint of those.
const HEAD: usize = 8;

/// A pipeline cache and its file.
pub(super) struct Pipelines {
    cache: wgpu::PipelineCache,
    path: PathBuf,
    /// Fingerprint of what the file holds.
    kept: Mutex<Option<u64>>,
}

impl Pipelines {
    /// Opens the cache of a device; none where the backend has no such thing, or the system no folder for it.
    pub fn open(device: &wgpu::Device, info: &wgpu::AdapterInfo) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let key = wgpu::util::pipeline_cache_key(info)?;
        let driver =
            fingerprint([&info.name, &info.driver, &info.driver_info].map(|s| s.as_bytes()));
        let path = cache_folder()?.join("pipelines").join(format!("{key}-{driver:016x}.bin"));
        let data = read(&path);
        let cache = create(device, data.as_deref());
        let kept = Mutex::new(data.map(|data| fingerprint([data.as_slice()])));
        Some(Self { cache, path, kept })
    }

    /// To be named where a pipeline is made.
    pub fn cache(&self) -> &wgpu::PipelineCache {
        &self.cache
    }

    /// Writes the file, if something came to what it holds. Of two processes that compile at once the one with more leaves its
    /// own: backends can neither join two caches nor say what is in one. A folder that cannot be written costs only that.
    pub fn keep(&self) {
        let Some(data) = self.cache.get_data() else { return };
        let hash = fingerprint([data.as_slice()]);
        let mut kept = locked(&self.kept);
        if *kept == Some(hash) {
            return;
        }
        match replace(&self.path, *kept, &data) {
            Ok(()) => *kept = Some(hash),
            Err(error) => log::warn!("compiled pipelines are not kept: {error}"),
        }
    }
}

/// The backend's bytes in a file; none where there is no file, or where it is damaged.
fn read(path: &Path) -> Option<Vec<u8>> {
    let found = match read_if_there(path, "a pipeline cache") {
        Ok(None) => return None,
        Ok(Some(bytes)) if bytes.len() >= HEAD => {
            let (head, data) = bytes.split_at(HEAD);
            if head == fingerprint([data]).to_le_bytes() {
                return Some(data.to_vec());
            }
            "a damaged pipeline cache".to_string()
        }
        Ok(Some(_)) => "half a pipeline cache".into(),
        Err(error) => error.to_string(),
    };
    log::warn!("{}: {found}; it is ignored and written anew", path.display());
    None
}

/// Writes what grew from contents of the fingerprint `before`, unless another process wrote more meanwhile.
fn replace(path: &Path, before: Option<u64>, data: &[u8]) -> Result<()> {
    let folder = folder(path);
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let _lock = Lock::wait(&path.with_extension("lock"))?;
    sweep(folder);
    let other = read(path).filter(|now| Some(fingerprint([now.as_slice()])) != before);
    if other.is_some_and(|now| now.len() > data.len()) {
        return Ok(());
    }
    write_atomically(path, &[&fingerprint([data]).to_le_bytes(), data].concat())
}

#[allow(unsafe_code)]
fn create(device: &wgpu::Device, data: Option<&[u8]>) -> wgpu::PipelineCache {
    let descriptor = wgpu::PipelineCacheDescriptor { label: Some("u2seg"), data, fallback: true };
    // SAFETY: `data` is what `PipelineCache::get_data` gave for an adapter and driver of this name: the file is named after both,
    // lies in the user's own cache folder, is written whole or not at all, and its fingerprint holds. wgpu checks the version and
    // device that its header names, and the driver those in its own header.
    unsafe { device.create_pipeline_cache(&descriptor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p/cache.bin");
        assert_eq!(read(&path), None);
        let data = b"compiled".to_vec();
        replace(&path, None, &data).unwrap();
        assert_eq!(read(&path), Some(data.clone()));
        // what another process left stays where it is more
        replace(&path, None, b"less").unwrap();
        assert_eq!(read(&path), Some(data.clone()));
        replace(&path, Some(fingerprint([data.as_slice()])), b"anew").unwrap();
        assert_eq!(read(&path), Some(b"anew".to_vec()));
        replace(&path, None, &data).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[HEAD + 2] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(&path), None);
        std::fs::write(&path, [1, 2, 3]).unwrap();
        assert_eq!(read(&path), None);
    }
}
