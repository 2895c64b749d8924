//! Scalars and pictures for TensorBoard: a file of records, each an `Event` message of protocol buffers between its length and
//! checksums (the TFRecord format). The file is appended to; a tail that a crash left torn, and steps that come again, are taken
//! out where a run goes on.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crc32c::crc32c;
use image::RgbImage;

use super::folder::remove;
use crate::base::canvas::png;
use crate::base::files::{file_name, read_bytes, write_atomically};
use crate::base::{Error, Result};

/// What names of the files begin and end with.
const START: &str = "events.out.tfevents.";
const END: &str = ".u2seg";
/// How those of the held-out cases at the end of a training end.
const VALIDATION_END: &str = ".validation.u2seg";
/// Bytes of a record around its data: length and checksum before it, a checksum behind it.
const HEAD: usize = 12;
const TAIL: usize = 4;

/// A file that readings are appended to; each start of a run has its own.
pub(super) struct Events {
    file: File,
    path: PathBuf,
}

impl Events {
    /// Creates the file of a start in a run's folder.
    pub fn create(out: &Path) -> Result<Self> {
        Self::begin(out, END)
    }

    /// Creates the file of the held-out cases after a step, in the place of one that was begun before for the same step.
    pub fn create_for_validation(out: &Path, step: u64) -> Result<Self> {
        for path in files(out, VALIDATION_END)? {
            let bytes = read_bytes(&path, "TensorBoard's events")?;
            if records(&bytes).iter().filter_map(|data| step_of(data)).all(|at| at == step) {
                remove(&path)?;
            }
        }
        Self::begin(out, VALIDATION_END)
    }

    fn begin(out: &Path, end: &str) -> Result<Self> {
        let now = seconds();
        let path = out.join(format!("{START}{now:.6}{end}"));
        let mut file = File::create_new(&path).map_err(|e| Error::io(&path, e))?;
        let mut event = Vec::new();
        double(&mut event, 1, now);
        bytes(&mut event, 3, b"brain.Event:2");
        file.write_all(&record(&event)).map_err(|e| Error::io(&path, e))?;
        Ok(Self { file, path })
    }

    /// Appends the values of a step.
    pub fn add(&mut self, step: u64, scalars: &[(String, f32)]) -> Result<()> {
        let values: Vec<_> = scalars.iter().map(|(tag, number)| scalar(tag, *number)).collect();
        let event = event(seconds(), step, &values);
        self.file.write_all(&record(&event)).map_err(|e| Error::io(&self.path, e))
    }

    /// Appends a picture of a step.
    pub fn picture(&mut self, step: u64, tag: &str, picture: &RgbImage) -> Result<()> {
        let event = event(seconds(), step, &[image(tag, picture)?]);
        self.file.write_all(&record(&event)).map_err(|e| Error::io(&self.path, e))
    }

    /// Makes what was added last through a crash.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|e| Error::io(&self.path, e))
    }
}

/// The files of a run's folder whose names end so.
fn files(out: &Path, end: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(out).map_err(|e| Error::io(out, e))? {
        let path = entry.map_err(|e| Error::io(out, e))?.path();
        let name = file_name(&path);
        if name.starts_with(START) && name.ends_with(end) && path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

/// Takes steps from beyond `step`, and torn tails, out of the files of a run's folder; files without any step go.
pub(super) fn rewind(out: &Path, step: u64) -> Result<()> {
    for path in files(out, END)? {
        let bytes = read_bytes(&path, "TensorBoard's events")?;
        let all = records(&bytes);
        let steps = || all.iter().filter_map(|data| step_of(data));
        if !steps().any(|at| at <= step) {
            remove(&path)?;
            continue;
        }
        // what has no step is the version
        let kept = all.iter().filter(|data| step_of(data).is_none_or(|at| at <= step));
        let kept: Vec<u8> = kept.flat_map(|data| record(data)).collect();
        if kept != bytes {
            write_atomically(&path, &kept)?;
        }
    }
    Ok(())
}

/// The data of the whole records that a file begins with.
fn records(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut all = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() {
        let length = head.first_chunk::<8>().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some((data, rest)) = rest.split_at_checked(length) else { break };
        let Some((_, rest)) = rest.split_at_checked(TAIL) else { break };
        let whole = record(data);
        if bytes.get(..whole.len()) != Some(&whole) {
            break;
        }
        all.push(data);
        bytes = rest;
    }
    all
}

/// The step of an event as [`event`] makes it: its time, then its step.
fn step_of(data: &[u8]) -> Option<u64> {
    let (tag, mut rest) = data.get(9..)?.split_first()?;
    if *tag != STEP {
        return None;
    }
    let (mut step, mut shift) = (0, 0);
    while let Some((byte, more)) = rest.split_first().filter(|_| shift < 64) {
        step |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(step);
        }
        (rest, shift) = (more, shift + 7);
    }
    None
}

/// The tag of the field of an event that holds its step: field 2, a varint.
const STEP: u8 = 2 << 3;

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

/// A value of a summary: its tag and a number.
fn scalar(tag: &str, number: f32) -> Vec<u8> {
    let mut value = Vec::new();
    bytes(&mut value, 1, tag.as_bytes());
    // field 2, a 32-bit float
    value.push(2 << 3 | 5);
    value.extend(number.to_le_bytes());
    value
}

/// A value of a summary: its tag and a picture as PNG, with its size and that it has three colours.
fn image(tag: &str, picture: &RgbImage) -> Result<Vec<u8>> {
    let mut image = Vec::new();
    for (field, number) in [(1, picture.height()), (2, picture.width()), (3, 3)] {
        image.push(field << 3);
        varint(&mut image, number.into());
    }
    bytes(&mut image, 4, &png(picture)?);
    let mut value = Vec::new();
    bytes(&mut value, 1, tag.as_bytes());
    bytes(&mut value, 4, &image);
    Ok(value)
}

fn event(time: f64, step: u64, values: &[Vec<u8>]) -> Vec<u8> {
    let mut summary = Vec::new();
    values.iter().for_each(|value| bytes(&mut summary, 1, value));
    let mut event = Vec::new();
    double(&mut event, 1, time);
    event.push(STEP);
    varint(&mut event, step);
    bytes(&mut event, 5, &summary);
    event
}

fn double(out: &mut Vec<u8>, field: u8, value: f64) {
    out.push(field << 3 | 1);
    out.extend(value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u8, value: &[u8]) {
    out.push(field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Length, its checksum, data, its checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut out = length.to_vec();
    out.extend(masked(&length).to_le_bytes());
    out.extend(data);
    out.extend(masked(data).to_le_bytes());
    out
}

fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_and_messages_are_as_specified() {
        // the check value of CRC-32C, turned by 15 bits and shifted as records have it
        assert_eq!(masked(b"123456789"), 0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8));
        let mut long = Vec::new();
        varint(&mut long, 300);
        assert_eq!(long, [0xac, 0x02]);
        let event = event(1.0, 300, &[scalar("lr", 0.5)]);
        let mut expected = vec![0x09];
        expected.extend(1.0f64.to_le_bytes());
        expected.extend([0x10, 0xac, 0x02, 0x2a, 0x0b, 0x0a, 0x09, 0x0a, 0x02, b'l', b'r', 0x15]);
        expected.extend(0.5f32.to_le_bytes());
        assert_eq!(event, expected);
        let record = record(&event);
        assert_eq!(record.len(), event.len() + 16);
        assert_eq!(record[..8], (event.len() as u64).to_le_bytes());
    }

    #[test]
    fn files_are_rewound_to_a_step_and_torn_tails_go() {
        let folder = tempfile::tempdir().unwrap();
        let write = |steps: &[u64]| {
            let mut events = Events::create(folder.path()).unwrap();
            steps.iter().for_each(|step| events.add(*step, &[("lr".into(), 0.1)]).unwrap());
            events.path
        };
        let steps = |path: &Path| {
            let bytes = std::fs::read(path).unwrap();
            let all = records(&bytes);
            assert_eq!(all.iter().map(|data| record(data).len()).sum::<usize>(), bytes.len());
            all.iter().filter_map(|data| step_of(data)).collect::<Vec<_>>()
        };
        let (first, second) = (write(&[1, 5, 300, 70_000]), write(&[80_000]));
        let other = folder.path().join("events.out.tfevents.1.another");
        std::fs::write(&other, b"mine").unwrap();
        assert_eq!(steps(&first), [1, 5, 300, 70_000]);
        // half a record at the end
        let whole = std::fs::read(&first).unwrap();
        std::fs::write(&first, &whole[..whole.len() - 3]).unwrap();
        rewind(folder.path(), 300).unwrap();
        assert_eq!(steps(&first), [1, 5, 300]);
        assert!(!second.exists() && other.exists());
        rewind(folder.path(), 4).unwrap();
        assert_eq!(steps(&first), [1]);
        rewind(folder.path(), 0).unwrap();
        assert!(!first.exists() && other.exists());
    }

    #[test]
    fn a_validation_that_comes_again_takes_the_place_of_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let mut training = Events::create(folder.path()).unwrap();
        training.add(18, &[("lr".into(), 0.1)]).unwrap();
        let begin = |step| {
            let mut events = Events::create_for_validation(folder.path(), step).unwrap();
            events.add(step, &[("validation_dice/A".into(), 0.5)]).unwrap();
            events.path
        };
        let (first, second) = (begin(18), begin(18));
        assert!(!first.exists() && second.exists() && training.path.exists());
        // a training that was made longer keeps what came before
        let third = begin(30);
        assert!(second.exists() && third.exists());
        rewind(folder.path(), 18).unwrap();
        assert!(second.exists() && !third.exists());
    }

    #[test]
    fn a_file_grows_by_a_record_a_reading() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = Events::create(folder.path()).unwrap();
        events.add(1, &[("loss/A".into(), 2.0), ("lr".into(), 0.1)]).unwrap();
        events.add(2, &[("loss/A".into(), 1.0)]).unwrap();
        let file = std::fs::read(&events.path).unwrap();
        let (mut at, mut records) = (0, 0);
        while at < file.len() {
            let length = u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
            let data = &file[at + 12..at + 12 + length];
            assert_eq!(file[at + 12 + length..at + 16 + length], masked(data).to_le_bytes());
            at += 16 + length;
            records += 1;
        }
        assert_eq!(records, 3);
    }
}
