//! Folders that one process at a time writes in.

use std::fs::TryLockError;
use std::io::{Seek, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::lock::Lock;
use crate::base::{Error, Result};

/// File of such a folder that the process which is at it holds the lock of; it goes away with it.
const LOCK: &str = "lock";
/// How often and after how long another process is asked again, which may just look.
const AGAIN: (usize, Duration) = (10, Duration::from_millis(20));

/// The lock of a folder, held until it is dropped or the process ends.
#[derive(Debug)]
#[must_use = "the folder is free once this is dropped"]
pub(super) struct FolderLock(Lock);

/// Who holds it, as the file tells.
#[derive(serde::Serialize, serde::Deserialize)]
struct Holder {
    pid: u32,
    host: Option<String>,
    command: String,
    /// Seconds since 1970.
    since: u64,
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

impl Holder {
    fn this_process() -> Self {
        let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
        Self {
            pid: std::process::id(),
            host: sysinfo::System::host_name(),
            command: words.collect::<Vec<_>>().join(" "),
            since: now(),
        }
    }

    fn told(&self) -> String {
        let Self { pid, host, command, since } = self;
        let host = host.as_ref().map(|host| format!(" on {host}")).unwrap_or_default();
        let seconds = now().saturating_sub(*since);
        let since = match seconds {
            0..120 => format!("{seconds} s"),
            120..7200 => format!("{} min", seconds / 60),
            _ => format!("{} h", seconds / 3600),
        };
        format!("process {pid}{host} is at, since {since}: {command}")
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // one that cannot be removed is taken again by the next process
        let _ = std::fs::remove_file(self.0.path());
    }
}

impl FolderLock {
    /// None where the file system has no locks, which is no reason not to work.
    ///
    /// # Errors
    ///
    /// Where another process holds it; the error tells which.
    pub fn take(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(LOCK);
        let (tries, pause) = AGAIN;
        let mut left = tries;
        loop {
            match Lock::take(&path) {
                Ok(Some(lock)) if lock.is_at_its_path() => {
                    let lock = Self(lock);
                    lock.sign()?;
                    return Ok(Some(lock));
                }
                // another process removed the file in between, and is done
                Ok(Some(_)) => {}
                Ok(None) if left > 0 => {
                    left -= 1;
                    std::thread::sleep(pause);
                }
                Ok(None) => return Err(held(folder)),
                Err(error) => {
                    log::warn!("{error} Nothing keeps other processes out of {}", folder.display());
                    return Ok(None);
                }
            }
        }
    }

    fn sign(&self) -> Result<()> {
        let refuse = |e| Error::io(self.0.path(), e);
        let json = serde_json::to_string(&Holder::this_process());
        let json = json.map_err(|e| Error::Internal(e.to_string()))?;
        let mut file = self.0.file();
        file.set_len(0).map_err(refuse)?;
        file.rewind().map_err(refuse)?;
        file.write_all(json.as_bytes()).map_err(refuse)
    }
}

/// Refuses a folder that another process, or another part of this one, owns. A file of this name that is a user's own says nothing.
pub(super) fn check_free(folder: &Path) -> Result<()> {
    let Ok(file) = std::fs::File::open(folder.join(LOCK)) else { return Ok(()) };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) if holder(folder).is_some() => Err(held(folder)),
        Ok(()) | Err(TryLockError::WouldBlock | TryLockError::Error(_)) => Ok(()),
    }
}

fn holder(folder: &Path) -> Option<Holder> {
    serde_json::from_slice(&std::fs::read(folder.join(LOCK)).ok()?).ok()
}

fn held(folder: &Path) -> Error {
    let holder = holder(folder).map(|holder| holder.told());
    let holder = holder.unwrap_or("another process is at".into());
    let expected = "a folder of its own for each process";
    let remedy = "Wait for the other, or choose another folder; a fold's is RUN/fold_K.";
    Error::file(folder, format!("a run that {holder}"), expected, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_who_says_who_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let held = FolderLock::take(folder.path()).unwrap().unwrap();
        for refused in [FolderLock::take(folder.path()).map(drop), check_free(folder.path())] {
            let message = refused.unwrap_err().to_string();
            let process = format!("a run that process {} ", std::process::id());
            // asking again takes a fifth of a second, in which a second may begin
            let since = ["since 0 s: ", "since 1 s: "].iter().any(|since| message.contains(since));
            assert!(message.contains(&process) && since, "{message}");
        }
        drop(held);
        assert!(!folder.path().join(LOCK).exists());
        check_free(folder.path()).unwrap();
        // what a killed process left does not count
        std::fs::write(folder.path().join(LOCK), b"{\"pid\":1, half of it").unwrap();
        check_free(folder.path()).unwrap();
        let held = FolderLock::take(folder.path()).unwrap();
        std::fs::write(folder.path().join(LOCK), b"").unwrap();
        check_free(folder.path()).unwrap();
        let message = FolderLock::take(folder.path()).unwrap_err().to_string();
        assert!(message.contains("a run that another process is at"), "{message}");
        drop(held);
    }
}
