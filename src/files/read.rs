//! Reading text as editors and shells of all systems write it.

use std::io::ErrorKind;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// A text file: UTF-8 with or without a byte order mark, or UTF-16 with one, which PowerShell writes.
///
/// # Errors
///
/// Where the file cannot be read, or is no text; then its first bad byte is named.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    decode(bytes).map_err(|at| {
        let found = format!("bytes that are no text, from byte {at} on");
        Error::file(path, found, "text in UTF-8", "Save the file as UTF-8 text.")
    })
}

/// The text, or the place of the first byte that belongs to none.
fn decode(mut bytes: Vec<u8>) -> std::result::Result<String, usize> {
    match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => decode_utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => decode_utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, ..] => {
            bytes.drain(..3);
            String::from_utf8(bytes).map_err(|e| e.utf8_error().valid_up_to() + 3)
        }
        _ => String::from_utf8(bytes).map_err(|e| e.utf8_error().valid_up_to()),
    }
}

fn decode_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> std::result::Result<String, usize> {
    let (pairs, odd) = bytes.as_chunks::<2>();
    // after the byte order mark
    let mut at = 2;
    let mut text = String::new();
    for decoded in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        let c = decoded.map_err(|_| at)?;
        at += 2 * c.len_utf16();
        text.push(c);
    }
    if odd.is_empty() { Ok(text) } else { Err(at) }
}

/// What a JSON file holds.
///
/// # Errors
///
/// Where the file is missing, is no text, or does not hold what is `expected`; each with the remedy.
pub fn read_json<T: DeserializeOwned>(path: &Path, expected: &str, remedy: &str) -> Result<T> {
    parse(path, expected, remedy, |text| serde_json::from_str(text).map_err(|e| e.to_string()))
}

/// What a TOML file holds.
///
/// # Errors
///
/// As those of [`read_json`].
pub fn read_toml<T: DeserializeOwned>(path: &Path, expected: &str, remedy: &str) -> Result<T> {
    parse(path, expected, remedy, |text| toml::from_str(text).map_err(|e| e.to_string()))
}

fn parse<T>(
    path: &Path,
    expected: &str,
    remedy: &str,
    read: impl FnOnce(&str) -> std::result::Result<T, String>,
) -> Result<T> {
    let text = match read_text(path) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Err(Error::file(path, "no such file", expected, remedy));
        }
        text => text?,
    };
    read(&text).map_err(|found| Error::file(path, found, expected, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn byte_order_marks_are_no_text() {
        let text = "{\"name\": \"Leber 𝄞 ü\"}";
        let marked = format!("\u{feff}{text}");
        for bytes in [
            text.as_bytes().to_vec(),
            marked.as_bytes().to_vec(),
            utf16(&marked, u16::to_le_bytes),
            utf16(&marked, u16::to_be_bytes),
        ] {
            assert_eq!(decode(bytes), Ok(text.to_string()));
        }
        assert_eq!(decode(Vec::new()), Ok(String::new()));
    }

    #[test]
    fn the_first_bad_byte_is_named() {
        assert_eq!(decode(b"abc\xfcd".to_vec()), Err(3));
        assert_eq!(decode(b"\xef\xbb\xbfabc\xfcd".to_vec()), Err(6));
        // half a character, then half a pair of units, then a unit that stands for nothing alone
        assert_eq!(decode(b"\xff\xfea\0b".to_vec()), Err(4));
        assert_eq!(decode(b"\xff\xfea\0\x34\xd8".to_vec()), Err(4));
        assert_eq!(decode(b"\xfe\xff\xdd\x1e".to_vec()), Err(2));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        std::fs::write(&path, b"{\"name\": \"K\xf6ln\"}").unwrap();
        let message = read_json::<Vec<u8>>(&path, "plans", "Ask.").unwrap_err().to_string();
        assert!(message.contains("plan.json") && message.contains("byte 11"), "{message}");
    }

    #[test]
    fn what_is_missing_or_wrong_is_an_error_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        let read = || read_json::<Vec<u8>>(&path, "plans", "Ask.").map_err(|e| e.to_string());
        let message = read().unwrap_err();
        assert!(message.ends_with("found no such file; expected plans. Ask."), "{message}");
        std::fs::write(&path, "[1, 2,\n x]").unwrap();
        let message = read().unwrap_err();
        assert!(message.contains("line 2") && message.ends_with("Ask."), "{message}");
        std::fs::write(&path, "\u{feff}[1, 2]").unwrap();
        assert_eq!(read(), Ok(vec![1, 2]));
        assert!(read_toml::<Vec<u8>>(&path, "settings", "Ask.").is_err());
    }
}
