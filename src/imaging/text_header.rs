//! Headers of text before voxels: where they end, and the numbers in them.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::base::files::{folder, open_file};
use crate::base::{Error, Result};

/// Bytes of a header at most: segmentations of some thousand segments take less.
const MOST: u64 = 1 << 22;

/// The lines of a header, until one that `last` says is the last one; the file may end before. Each without its end.
pub(super) struct Lines {
    pub lines: Vec<String>,
    /// The byte behind them.
    pub end: u64,
}

impl Lines {
    pub fn read(path: &Path, expected: &str, last: impl Fn(&str) -> bool) -> Result<Self> {
        let mut file = BufReader::new(open_file(path, expected)?.take(MOST));
        let (mut lines, mut end) = (Vec::new(), 0);
        loop {
            let mut line = Vec::new();
            let count = file.read_until(b'\n', &mut line).map_err(|e| Error::io(path, e))?;
            end += count as u64;
            if end == MOST {
                let found = format!("a header of more than {MOST} bytes");
                return Err(Error::file(path, found, expected, "Save the image again."));
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\n', '\r']).to_string();
            let done = count == 0 || last(&text);
            if count > 0 {
                lines.push(text);
            }
            if done {
                return Ok(Self { lines, end });
            }
        }
    }
}

/// Numbers apart by blanks; none where one is not finite.
pub(super) fn numbers(text: &str) -> Option<Vec<f64>> {
    let number = |word: &str| word.parse::<f64>().ok().filter(|value| value.is_finite());
    text.split_ascii_whitespace().map(number).collect()
}

/// Sizes apart by blanks, each of 1 voxel at least and as many as a file may have along an axis; none else.
pub(super) fn sizes(text: &str) -> Option<Vec<usize>> {
    let size = |word: &str| word.parse().ok().filter(|size| (1..=1 << 31).contains(size));
    text.split_ascii_whitespace().map(size).collect()
}

/// The file of voxels that a header names, beside it where the name is no whole path.
pub(super) fn beside(header: &Path, name: &str) -> PathBuf {
    folder(header).join(name)
}

/// Numbers as a header has them, as short as they can be read back.
pub(super) fn written(numbers: &[f64], apart: &str) -> String {
    numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(apart)
}
