//! Scalars for TensorBoard: a file of records, each an `Event` message of protocol buffers between its length and
//! checksums (the TFRecord format).

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crc32c::crc32c;

use crate::base::{Error, Result};

/// A file that readings are appended to; each start of a run has its own.
pub(super) struct Events {
    file: File,
    path: PathBuf,
}

impl Events {
    /// Creates the file in a run's folder.
    pub fn create(out: &Path) -> Result<Self> {
        let now = seconds();
        // two starts within a microsecond would share a file
        let path = out.join(format!("events.out.tfevents.{now:.6}.u2seg"));
        let mut file = File::create(&path).map_err(|e| Error::io(&path, e))?;
        let mut event = Vec::new();
        double(&mut event, 1, now);
        bytes(&mut event, 3, b"brain.Event:2");
        file.write_all(&record(&event)).map_err(|e| Error::io(&path, e))?;
        Ok(Self { file, path })
    }

    /// Appends the values of a step.
    pub fn add(&mut self, step: u64, scalars: &[(String, f32)]) -> Result<()> {
        let event = event(seconds(), step, scalars);
        self.file.write_all(&record(&event)).map_err(|e| Error::io(&self.path, e))
    }
}

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

fn event(time: f64, step: u64, scalars: &[(String, f32)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, number) in scalars {
        let mut value = Vec::new();
        bytes(&mut value, 1, tag.as_bytes());
        // field 2, a 32-bit float
        value.push(2 << 3 | 5);
        value.extend(number.to_le_bytes());
        bytes(&mut summary, 1, &value);
    }
    let mut event = Vec::new();
    double(&mut event, 1, time);
    event.push(2 << 3);
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
        let event = event(1.0, 300, &[("lr".into(), 0.5)]);
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
