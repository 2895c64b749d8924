//! Reading text as editors and shells of all systems write it.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::base::{Error, Result};

const AGAIN: &str = "Copy or download the file again.";

/// The bytes of a file. What is none is refused before it is opened: a pipe would block until somebody writes.
pub(crate) fn read_bytes(path: &Path, expected: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path, expected)?.read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    Ok(bytes)
}

/// As [`read_bytes`]; none where nothing lies there.
pub(crate) fn read_if_there(path: &Path, expected: &str) -> Result<Option<Vec<u8>>> {
    match path.symlink_metadata() {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        _ => read_bytes(path, expected).map(Some),
    }
}

/// A file to read, as [`read_bytes`] takes it.
pub(crate) fn open_file(path: &Path, expected: &str) -> Result<File> {
    let refuse = |found: &str, remedy: &str| Err(Error::file(path, found, expected, remedy));
    match std::fs::metadata(path) {
        Ok(what) if what.is_file() => File::open(path).map_err(|e| Error::io(path, e)),
        Ok(what) if what.is_dir() => refuse("a folder", "Name a file instead."),
        Ok(_) => {
            refuse("a pipe or a device", "Save what comes out of it as a file, and name that.")
        }
        Err(e) => match lost_link(path) {
            Some((found, remedy)) => refuse(&found, remedy),
            None => Err(Error::io(path, e)),
        },
    }
}

/// What to say of a link whose target is missing; None of all else.
pub(crate) fn lost_link(path: &Path) -> Option<(String, &'static str)> {
    let target = std::fs::read_link(path).ok().filter(|_| !path.exists())?;
    let found = format!("a link to {}, which is not there", target.display());
    Some((
        found,
        "Restore that file; with git-annex or DataLad, run `git annex get` or `datalad get` on the link.",
    ))
}

/// What is often left in the place of a file of whatever kind, and the remedy.
pub(crate) fn stand_in(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).to_ascii_lowercase();
    let start = start.trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    let annex = start.starts_with("/annex/objects/")
        || start.starts_with("../") && start.contains(".git/annex/objects/");
    Some(match bytes {
        [] => ("an empty file", AGAIN),
        _ if start.starts_with("version https://git-lfs") => {
            ("a Git LFS pointer, not the file itself", "Run `git lfs pull` in its repository.")
        }
        _ if annex => (
            "a git-annex pointer, not the file itself",
            "Run `git annex get` or `datalad get` on it.",
        ),
        _ if start.starts_with("<!doctype html") || start.starts_with("<html") => (
            "a web page (HTML)",
            "The download gave a page, often one to log in, instead of the file: download it again.",
        ),
        _ if bytes.iter().all(|byte| *byte == 0) => ("a file of zeros", AGAIN),
        _ => return None,
    })
}

/// A text file: UTF-8 with or without a byte order mark, or UTF-16 with one, which PowerShell writes.
///
/// # Errors
///
/// Where the file cannot be read, or is no text; then its first bad byte is named.
pub fn read_text(path: &Path) -> Result<String> {
    text(path, "text in UTF-8")
}

fn text(path: &Path, expected: &str) -> Result<String> {
    let bytes = read_bytes(path, expected)?;
    // a list without a line may be meant
    if let Some((found, remedy)) = stand_in(&bytes).filter(|_| !bytes.is_empty()) {
        return Err(Error::file(path, found, expected, remedy));
    }
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
/// Where the file is missing, is no text, or does not hold what is `expected`; each with the remedy, and the entry where
/// one is wrong.
pub fn read_json<T: DeserializeOwned>(path: &Path, expected: &str, remedy: &str) -> Result<T> {
    parse(path, expected, remedy, |text| {
        let mut json = serde_json::Deserializer::from_str(text);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|e| plain(&e.to_string()));
        value.and_then(|value| json.end().map(|()| value).map_err(|e| e.to_string()))
    })
}

/// As [`read_json`], of a file that people write: entries that mean nothing are refused, too, for they are mistyped ones.
///
/// # Errors
///
/// As those of [`read_json`].
pub fn read_known_json<T: DeserializeOwned>(
    path: &Path,
    expected: &str,
    remedy: &str,
) -> Result<T> {
    parse(path, expected, remedy, |text| {
        let mut json = serde_json::Deserializer::from_str(text);
        let mut unknown = Vec::new();
        let mut note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
        let watched = serde_ignored::Deserializer::new(&mut json, &mut note);
        let value = serde_path_to_error::deserialize(watched).map_err(|e| plain(&e.to_string()))?;
        json.end().map_err(|e| e.to_string())?;
        known(value, &unknown)
    })
}

/// A value of whose file nothing is unknown.
fn known<T>(value: T, unknown: &[String]) -> std::result::Result<T, String> {
    match unknown {
        [] => Ok(value),
        [one] => Err(format!("the unknown entry {one}")),
        several => Err(format!("the unknown entries {}", several.join(", "))),
    }
}

/// What a TOML file holds, which people write: entries that mean nothing are refused, for they are mistyped ones.
///
/// # Errors
///
/// As those of [`read_json`].
pub fn read_toml<T: DeserializeOwned>(path: &Path, expected: &str, remedy: &str) -> Result<T> {
    parse(path, expected, remedy, |text| {
        let place = |e: &toml::de::Error| match e.span().and_then(|span| text.get(..span.start)) {
            Some(before) => format!(" at line {}", before.matches('\n').count() + 1),
            None => String::new(),
        };
        let toml =
            toml::Deserializer::parse(text).map_err(|e| format!("{}{}", e.message(), place(&e)))?;
        let mut unknown = Vec::new();
        let mut note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
        let watched = serde_ignored::Deserializer::new(toml, &mut note);
        let value = serde_path_to_error::deserialize(watched).map_err(|e| {
            let message = format!("{}{}", plain(e.inner().message()), place(e.inner()));
            entry(&e.path().to_string(), &message)
        })?;
        known(value, &unknown)
    })
}

/// A message about an entry, or about the whole, which is called `.`.
fn entry(path: &str, message: &str) -> String {
    if path == "." { message.into() } else { format!("{path}: {message}") }
}

/// An entry that was parsed already, at `place` in its file; else what is wrong with it.
pub(crate) fn from_value<T: DeserializeOwned>(
    place: &str,
    value: serde_json::Value,
) -> std::result::Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|e| {
        let within = entry(&e.path().to_string(), &plain(&e.inner().to_string()));
        let apart = if e.path().iter().len() == 0 { ": " } else { "." };
        format!("{place}{apart}{within}")
    })
}

/// What serde says, in words for those who write JSON instead of Rust.
fn plain(message: &str) -> String {
    let message = message
        .replacen("invalid type: sequence,", "invalid type: list,", 1)
        .replacen("invalid type: map,", "invalid type: object,", 1)
        .replacen("invalid type: unit value,", "invalid type: null,", 1);
    if message.starts_with("data did not match any variant") || message.contains(": data did not") {
        let (before, _) = message.split_once("data did not").unwrap_or_default();
        return format!("{before}a value of another form");
    }
    let Some((before, wanted)) = message.split_once(", expected ") else { return message };
    let (wanted, place) = match wanted.rfind(" at line ") {
        Some(at) => wanted.split_at(at),
        None => (wanted, ""),
    };
    let words = match wanted {
        "u8" => "a whole number from 0 to 255",
        "u16" | "u32" | "u64" | "usize" => "a whole number from 0 on",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        _ if wanted.starts_with("struct ") => "an object",
        _ if wanted.starts_with("tuple ") => "a list",
        _ if wanted.starts_with("enum ") => "a name, or an object with a name and its settings",
        other => other,
    };
    format!("{before}, expected {words}{place}")
}

fn parse<T>(
    path: &Path,
    expected: &str,
    remedy: &str,
    read: impl FnOnce(&str) -> std::result::Result<T, String>,
) -> Result<T> {
    let text = match text(path, expected) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Err(Error::file(path, "no such file", expected, remedy));
        }
        text => text?,
    };
    if text.trim().is_empty() {
        return Err(Error::file(path, "an empty file", expected, AGAIN));
    }
    read(&text).map_err(|found| Error::file(path, found, expected, remedy))
}

/// Reads a type of `#[serde(remote = "Self")]` from an object alone: derived types take a list of the fields' values, too.
macro_rules! from_object {
    ($type:ty, $expected:literal) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(
                from: D,
            ) -> std::result::Result<Self, D::Error> {
                struct Object;
                impl<'de> serde::de::Visitor<'de> for Object {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        map: A,
                    ) -> std::result::Result<$type, A::Error> {
                        // the derived one, which goes before the trait's
                        <$type>::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    }
                }
                from.deserialize_map(Object)
            }
        }
    };
}
pub(crate) use from_object;

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

    #[test]
    fn what_nothing_reads_is_refused_in_files_that_people_write() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Inner {
            size: usize,
        }
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Outer {
            inner: Vec<Inner>,
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let json = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_known_json::<Outer>(&path, "sizes", "Ask.").map_err(|e| e.to_string())
        };
        let good = Outer { inner: vec![Inner { size: 1 }] };
        assert_eq!(json(r#"{"inner": [{"size": 1}]}"#).unwrap(), good);
        let message = json(r#"{"inner": [{"size": 1, "sise": 2}], "x": []}"#).unwrap_err();
        assert!(
            message.contains("the unknown entries inner.0.sise, x; expected sizes"),
            "{message}"
        );
        std::fs::write(&path, "[[inner]]\nsize = 1\nsise = 2\n").unwrap();
        let message = read_toml::<Outer>(&path, "sizes", "Ask.").unwrap_err().to_string();
        assert!(message.contains("the unknown entry inner.0.sise"), "{message}");
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(remote = "Self")]
    struct Named {
        #[serde(rename = "name")]
        _name: String,
        #[serde(default, rename = "sizes")]
        _sizes: Vec<usize>,
    }
    from_object!(Named, "an object with a name");

    #[test]
    fn the_wrong_entry_is_named_without_types_of_rust() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(untagged)]
        enum Either {
            A(#[allow(unused)] u8),
        }
        #[derive(Debug, serde::Deserialize)]
        struct Loose {
            #[serde(rename = "either")]
            _either: Option<Either>,
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.json");
        let found = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let named = read_json::<Vec<Named>>(&path, "names", "Ask.").unwrap_err().to_string();
            let loose = read_json::<Vec<Loose>>(&path, "names", "Ask.").map_err(|e| e.to_string());
            let all = format!("{named}\n{}", loose.err().unwrap_or_default());
            let types = ["struct", "enum", "usize", "Named", "Loose", "Either"];
            assert!(!types.iter().any(|word| all.contains(word)), "{all}");
            all
        };
        for (text, part) in [
            (r#"[{"name": "a"}, {}]"#, "found [1]: missing field `name` at line 1"),
            (r#"[{"name": 5}]"#, "[0].name: invalid type: integer `5`, expected a string"),
            (r#"[{"name": "a", "sizes": [1, -1]}]"#, "[0].sizes[1]: invalid value: integer `-1`"),
            (r#"[["a", []]]"#, "[0]: invalid type: list, expected an object with a name"),
            (r#"[5]"#, "[0]: invalid type: integer `5`, expected an object at line 1"),
            (r#"{"name": "a"}"#, "found invalid type: object, expected a list"),
            (r#"[{"either": "x"}]"#, "[0].either: a value of another form"),
            (r#"[{"name": "a"}] x"#, "trailing characters"),
        ] {
            let message = found(text);
            assert!(message.contains(part), "{text}: {message}");
        }
        let wrong = from_value::<Named>("list.a", serde_json::json!({"name": [1]})).unwrap_err();
        assert_eq!(wrong, "list.a.name: invalid type: list, expected a string");
        let wrong = from_value::<Named>("list.a", serde_json::json!([])).unwrap_err();
        assert_eq!(wrong, "list.a: invalid type: list, expected an object with a name");
        let toml = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_toml::<Named>(&path, "settings", "Ask.").unwrap_err().to_string()
        };
        let message = toml("name = \"a\"\nsizes = [1, true]\n");
        let part = "found sizes[1]: invalid type: boolean `true`, expected a whole number from 0 on at line 2; expected settings. Ask.";
        assert!(message.ends_with(part), "{message}");
        assert!(toml("name = \"a\"\n=\n").contains(" at line 2; expected"));
        assert!(toml("sizes = [1]\n").contains("missing field `name`"));
    }

    #[test]
    fn what_stands_in_for_a_file_has_its_own_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.json");
        let read = || read_json::<Vec<u8>>(&path, "plans", "Ask.").unwrap_err().to_string();
        for (bytes, found, remedy) in [
            (&b""[..], "an empty file", "again"),
            (b"\xef\xbb\xbf\n", "an empty file", "again"),
            (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer", "git lfs pull"),
            (b"/annex/objects/MD5E-s7--0.json\n", "a git-annex pointer", "git annex get"),
            (b"../.git/annex/objects/a/b/c.json", "a git-annex pointer", "datalad get"),
            (b"\n<!DOCTYPE html>", "a web page", "download"),
            (&[0; 700], "a file of zeros", "again"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let message = read();
            let whole = format!("found {found}");
            assert!(message.contains(&whole) && message.contains("expected plans"), "{message}");
            assert!(message.contains(remedy), "{message}");
            assert_eq!(read_text(&path).is_ok(), found == "an empty file");
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(read().contains("found a folder; expected plans"), "{}", read());
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_is_not_opened_and_a_lost_link_names_its_target() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list.txt");
        let made = std::process::Command::new("mkfifo").arg(&path).status();
        assert!(made.unwrap().success());
        let message = read_text(&path).unwrap_err().to_string();
        assert!(message.contains("found a pipe or a device; expected text"), "{message}");
        let link = folder.path().join("link.txt");
        std::os::unix::fs::symlink(".git/annex/objects/gone", &link).unwrap();
        let message = read_text(&link).unwrap_err().to_string();
        let part = "found a link to .git/annex/objects/gone, which is not there";
        assert!(message.contains(part) && message.contains("datalad get"), "{message}");
    }
}
