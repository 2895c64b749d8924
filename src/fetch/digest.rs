//! Checksums that publishers give.

use std::fmt::{self, Write as _};
use std::io::Read;
use std::path::Path;

use md5::Md5;
use sha2::Sha256;

use super::progress::{Progress, Stage, Watch};
use crate::base::files::open_file;
use crate::base::{Error, Result};

/// A checksum, in small hexadecimal letters behind its kind: `sha256:…` or `md5:…`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "String")]
#[serde(try_from = "String")]
pub enum Digest {
    /// What to ask for: nobody makes another file of the same sum.
    Sha256(String),
    /// What the Decathlon's archives are published with. It tells a broken file; who wants to can make two files of one sum.
    Md5(String),
}

/// Bytes read at a time.
const CHUNK: usize = 1 << 18;

impl Digest {
    /// From 64 hexadecimal digits.
    ///
    /// # Errors
    ///
    /// Where they are others.
    pub fn sha256(text: &str) -> std::result::Result<Self, String> {
        hex(text, 64).map(Self::Sha256)
    }

    /// From 32 hexadecimal digits.
    ///
    /// # Errors
    ///
    /// Where they are others.
    pub fn md5(text: &str) -> std::result::Result<Self, String> {
        hex(text, 32).map(Self::Md5)
    }

    /// The sum of a file, of the same kind as this one.
    pub(super) fn of(&self, path: &Path, watch: &mut Watch) -> Result<Self> {
        match self {
            Self::Sha256(_) => sum::<Sha256>(path, watch).map(Self::Sha256),
            Self::Md5(_) => sum::<Md5>(path, watch).map(Self::Md5),
        }
    }
}

fn sum<D: sha2::Digest>(path: &Path, watch: &mut Watch) -> Result<String> {
    let mut file = open_file(path, "a file that was fetched")?;
    let total = file.metadata().map(|data| data.len()).ok();
    let (mut hash, mut done, mut chunk) = (D::new(), 0, vec![0; CHUNK]);
    loop {
        watch(Progress { stage: Stage::Checking, done, total })?;
        let count = file.read(&mut chunk).map_err(|e| Error::io(path, e))?;
        if count == 0 {
            break;
        }
        hash.update(&chunk[..count]);
        done += count as u64;
    }
    let mut text = String::new();
    for byte in hash.finalize() {
        // writing to a String cannot fail
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

fn hex(text: &str, digits: usize) -> std::result::Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    if text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(text);
    }
    Err(format!("expected {digits} hexadecimal digits, found {text}"))
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(sum) => write!(f, "sha256:{sum}"),
            Self::Md5(sum) => write!(f, "md5:{sum}"),
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        match text.split_once(':') {
            Some(("sha256", sum)) => Self::sha256(sum),
            Some(("md5", sum)) => Self::md5(sum),
            _ => Err(format!("expected sha256: or md5: and a sum, found {text}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_sums_of_three_letters() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"abc").unwrap();
        for known in [
            Digest::sha256("BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"),
            Digest::md5(" 900150983cd24fb0d6963f7d28e17f72\n"),
        ] {
            let known = known.unwrap();
            assert_eq!(known.of(&path, &mut |_| Ok(())).unwrap(), known);
            let text = String::from(known.clone());
            assert_eq!(Digest::try_from(text), Ok(known));
        }
        for wrong in ["", "abc", &"g".repeat(32), &"0".repeat(33), &"ä".repeat(16)] {
            assert!(Digest::md5(wrong).is_err() && Digest::sha256(wrong).is_err());
        }
    }
}
