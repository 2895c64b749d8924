//! A download that goes on where an earlier one ended.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::Agent;

use super::digest::Digest;
use super::http::{Answer, Refusal, ask, client, shown};
use super::limits::{Limits, check_room};
use super::progress::{Progress, Stage, Watch};
use super::source::Source;
use crate::base::files::{read_json, stand_in, write_atomically};
use crate::base::{Error, Result};

/// What came so far.
const ARCHIVE: &str = "archive";
/// What is known of it.
const STATE: &str = "state.json";
/// Bytes read at a time.
const CHUNK: usize = 1 << 18;
/// How often it is tried again before a byte more came, and the pause before the second of these tries; it doubles each time.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// What is known of a file that came in part.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct State {
    url: String,
    digest: Option<Digest>,
    /// Of the whole file.
    bytes: Option<u64>,
    validator: Option<String>,
}

/// Why a try ended before the end.
enum Cut {
    Final(Error),
    Passing(String),
    /// Final where nothing came yet.
    Unreachable(String),
}

impl From<Error> for Cut {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// A download into a folder of its own, of which this process has the lock.
pub(super) struct Download<'a> {
    source: &'a Source,
    limits: &'a Limits,
    folder: &'a Path,
    client: Agent,
    state: State,
    file: File,
}

/// The path of what was downloaded into a folder.
pub(super) fn archive(folder: &Path) -> PathBuf {
    folder.join(ARCHIVE)
}

/// Removes what was downloaded into a folder.
pub(super) fn forget(folder: &Path) -> Result<()> {
    for name in [ARCHIVE, STATE] {
        let path = folder.join(name);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(path, e)),
            _ => {}
        }
    }
    Ok(())
}

impl<'a> Download<'a> {
    /// Goes on with what a folder holds of the same file, else begins.
    pub(super) fn open(source: &'a Source, limits: &'a Limits, folder: &'a Path) -> Result<Self> {
        let path = folder.join(STATE);
        let known = path.exists().then(|| read_json::<State>(&path, "a download", "Remove it."));
        // where the sum is another one, or nobody knows it, the bytes are of no use
        let known =
            known.and_then(Result::ok).filter(|s| s.digest.as_ref() == Some(&source.digest));
        if known.is_none() {
            forget(folder)?;
        }
        let mut state = known.unwrap_or_default();
        if state.url != shown(&source.url) {
            state.validator = None;
        }
        state.url = shown(&source.url);
        state.digest = Some(source.digest.clone());
        let path = folder.join(ARCHIVE);
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|e| Error::io(&path, e))?;
        Ok(Self { source, limits, folder, client: client(&source.url), state, file })
    }

    /// Downloads what is missing and holds the whole to its checksum. What fails it is removed; in every other failure what came
    /// stays.
    pub(super) fn complete(mut self, watch: &mut Watch) -> Result<()> {
        self.save()?;
        let (mut tries, mut came) = (0, false);
        loop {
            let before = self.length()?;
            let Err(cut) = self.go_on(before, watch) else { break };
            let now = self.length()?;
            let why = match cut {
                Cut::Final(error) => return Err(error),
                Cut::Unreachable(why) if !came => return Err(self.gave_up(now, why)),
                Cut::Passing(why) | Cut::Unreachable(why) => why,
            };
            // a cut after some bytes is a cut like the first one
            tries = if now > before { 0 } else { tries + 1 };
            came |= now > before;
            if tries >= TRIES {
                return Err(self.gave_up(now, why));
            }
            log::warn!("{}: {why}; goes on from byte {now}", shown(&self.source.url));
            pause(tries, now, watch)?;
        }
        self.file.sync_all().map_err(|e| self.io(e))?;
        self.check(watch)
    }

    fn io(&self, e: std::io::Error) -> Error {
        Error::io(self.folder.join(ARCHIVE), e)
    }

    fn length(&self) -> Result<u64> {
        self.file.metadata().map(|data| data.len()).map_err(|e| self.io(e))
    }

    fn save(&self) -> Result<()> {
        let json = serde_json::to_vec(&self.state).map_err(|e| Error::Internal(e.to_string()))?;
        write_atomically(&self.folder.join(STATE), &json)
    }

    fn empty(&mut self) -> Result<()> {
        self.file.set_len(0).map_err(|e| self.io(e))
    }

    /// One try for what is missing behind a byte.
    fn go_on(&mut self, from: u64, watch: &mut Watch) -> std::result::Result<(), Cut> {
        let mut from = from;
        match self.state.bytes {
            Some(bytes) if bytes == from && from > 0 => return Ok(()),
            // longer than the file can be
            Some(bytes) if bytes < from => {
                self.empty()?;
                from = 0;
            }
            _ => {}
        }
        watch(Progress { stage: Stage::Downloading, done: from, total: self.state.bytes })?;
        match ask(&self.client, &self.source.url, from, self.state.validator.as_deref()) {
            Ok(answer) => self.receive(answer, from, watch),
            // all of it is there
            Err(Refusal::Past(Some(total))) if total == from => Ok(()),
            Err(Refusal::Past(_)) => {
                self.empty()?;
                Err(Cut::Passing("what came so far is no part of the file".into()))
            }
            Err(Refusal::Final(error)) => Err(Cut::Final(error)),
            Err(Refusal::Passing(why)) => Err(Cut::Passing(why)),
            Err(Refusal::Unreachable(why)) => Err(Cut::Unreachable(why)),
        }
    }

    /// Writes what a server sends, from the byte on at which it begins.
    fn receive(
        &mut self,
        answer: Answer,
        from: u64,
        watch: &mut Watch,
    ) -> std::result::Result<(), Cut> {
        let Answer { mut body, start, total, validator } = answer;
        // a server without ranges, or with another file by now, sends all of it
        if start != from {
            self.empty()?;
        }
        if start != from && start != 0 {
            return Err(Cut::Passing("another part came than was asked for".into()));
        }
        let of = shown(&self.source.url);
        self.limits.check_bytes(total.unwrap_or(start), &of)?;
        check_room(self.folder, total.unwrap_or(start) - start, &of)?;
        (self.state.bytes, self.state.validator) = (total, validator);
        self.save()?;
        self.file.seek(SeekFrom::Start(start)).map_err(|e| self.io(e))?;
        let (mut done, mut chunk) = (start, vec![0; CHUNK]);
        loop {
            watch(Progress { stage: Stage::Downloading, done, total })?;
            let count = match body.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Cut::Passing(format!("the connection ended ({e})"))),
            };
            done += count as u64;
            self.limits.check_bytes(done, &of)?;
            if total.is_some_and(|total| done > total) {
                self.empty()?;
                return Err(Cut::Passing("more came than the server said".into()));
            }
            self.file.write_all(&chunk[..count]).map_err(|e| self.io(e))?;
        }
        match total.filter(|total| done < *total) {
            Some(total) => Err(Cut::Passing(format!("the connection ended at {done} of {total}"))),
            None => {
                self.state.bytes = Some(done);
                Ok(self.save()?)
            }
        }
    }

    fn gave_up(&self, now: u64, why: String) -> Error {
        let remedy = match now {
            0 => "Look at the address and the network; behind a proxy, set HTTPS_PROXY.".into(),
            _ => format!("The same command goes on from byte {now}."),
        };
        Error::file(shown(&self.source.url), why, "a server that sends the whole file", remedy)
    }

    /// Holds the whole file to its checksum.
    fn check(self, watch: &mut Watch) -> Result<()> {
        let path = archive(self.folder);
        let found = self.source.digest.of(&path, watch)?;
        if found == self.source.digest {
            return Ok(());
        }
        let mut start = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(512).read_to_end(&mut start));
        read.map_err(|e| Error::io(&path, e))?;
        forget(self.folder)?;
        let what = stand_in(&start).map(|(what, _)| format!("{what}, ")).unwrap_or_default();
        let url = shown(&self.source.url);
        Err(Error::file(
            url,
            format!("{what}{found}"),
            self.source.digest.to_string(),
            "Nothing of it was kept. Fetch it again; where the same comes out, the file is not the one that the checksum was published for.",
        ))
    }
}

/// Waits before the next try, longer each time, and goes on hearing whether to stop.
fn pause(tries: u32, done: u64, watch: &mut Watch) -> Result<()> {
    const STEP: Duration = Duration::from_millis(100);
    let all = match tries {
        0 => return Ok(()),
        _ => PAUSE * (1 << (tries - 1)),
    };
    for _ in 0..all.as_millis() / STEP.as_millis() {
        watch(Progress { stage: Stage::Downloading, done, total: None })?;
        std::thread::sleep(STEP);
    }
    Ok(())
}
