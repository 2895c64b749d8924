//! Archives, good and bad.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

/// An entry of a tar: kind, name, where a link leads, contents.
pub struct Entry<'a>(pub u8, pub &'a str, pub &'a str, pub &'a [u8]);

pub const FILE: u8 = b'0';
pub const HARD: u8 = b'1';
pub const LINK: u8 = b'2';
pub const DEVICE: u8 = b'3';
pub const FOLDER: u8 = b'5';
pub const PIPE: u8 = b'6';
pub const LONG: u8 = b'L';
pub const PAX: u8 = b'x';

fn header(Entry(kind, name, link, contents): &Entry) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(124, format!("{:011o}\0", contents.len()).as_bytes());
    put(148, b"        ");
    put(156, &[*kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A tar, without any check of what goes into it.
pub fn tar(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        bytes.extend(header(entry));
        bytes.extend(entry.3);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// A zip of files, each with its mode.
pub fn zip(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, mode, contents) in files {
        let options = zip::write::SimpleFileOptions::default().unix_permissions(*mode);
        match mode >> 12 {
            0o12 => {
                let target = std::str::from_utf8(contents).unwrap();
                zip.add_symlink(*name, target, options).unwrap();
            }
            _ => {
                zip.start_file(*name, options).unwrap();
                zip.write_all(contents).unwrap();
            }
        }
    }
    zip.finish().unwrap().into_inner()
}

/// A small dataset as its archive holds it.
pub fn dataset() -> Vec<u8> {
    let image: Vec<u8> = (0..300_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    tar(&[
        Entry(FOLDER, "./Task99_Small/", "", b""),
        Entry(FILE, "./Task99_Small/dataset.json", "", b"{}"),
        Entry(FILE, "./Task99_Small/._dataset.json", "", b"a Mac's"),
        Entry(FILE, "./Task99_Small/imagesTr/a.nii", "", &image),
    ])
}
