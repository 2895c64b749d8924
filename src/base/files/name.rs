//! The names and folders of files, and names from files as components of paths.

use std::fmt::Write as _;
use std::path::Path;

/// Longest component in bytes: endings such as `.nii.gz` still fit what file systems take, 255.
const LONGEST: usize = 200;

/// The folder that a file lies in.
pub(crate) fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The name of a file, in letters; empty where the path has none.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// One component of a path for a name that a file gives: of a dataset, a class, a case. Ordinary names stay as they are; what a
/// file system may not take, or takes for more than a name, becomes `%` and hexadecimal digits. Two names never give the same
/// component; where the file system takes `A` for `a`, [`Paths`](super::Paths) finds out.
pub fn safe_name(name: &str) -> String {
    let last = name.chars().count().saturating_sub(1);
    let reserved = reserved(name);
    let pieces = name.chars().enumerate().map(|(index, c)| {
        let at_start = index == 0 && (reserved || matches!(c, '.' | ' '));
        let at_end = index == last && matches!(c, '.' | ' ');
        if harmless(c) && !at_start && !at_end { c.to_string() } else { escaped(c) }
    });
    let pieces: Vec<String> = pieces.collect();
    if pieces.iter().map(String::len).sum::<usize>() > LONGEST {
        return shortened(name, &pieces);
    }
    // no other name gives a lone sign
    if name.is_empty() { "%".into() } else { pieces.concat() }
}

/// The beginning, and a hash that stands for the rest.
fn shortened(name: &str, pieces: &[String]) -> String {
    let hash = format!("%-{:032x}", hash(name.as_bytes()));
    let mut start = String::new();
    for piece in pieces {
        if start.len() + piece.len() + hash.len() > LONGEST {
            break;
        }
        start.push_str(piece);
    }
    start + &hash
}

fn harmless(c: char) -> bool {
    c.is_alphanumeric() || " _-.()+,=@#&~[]{}!^'".contains(c)
}

fn escaped(c: char) -> String {
    let mut text = String::new();
    for byte in c.encode_utf8(&mut [0; 4]).bytes() {
        // writing to a String cannot fail
        let _ = write!(text, "%{byte:02X}");
    }
    text
}

/// Whether Windows takes the name for a device, with or without an ending.
fn reserved(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end().to_ascii_uppercase();
    let numbered = |rest: &str| {
        matches!(rest, "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³")
    };
    matches!(stem.as_str(), "CON" | "PRN" | "AUX" | "NUL")
        || stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT")).is_some_and(numbered)
}

/// FNV-1a of 128 bits, the same everywhere and always.
fn hash(bytes: &[u8]) -> u128 {
    const PRIME: u128 = (1 << 88) + 0x13b;
    let start = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    bytes.iter().fold(start, |hash: u128, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_names_stay() {
        for name in [
            "case_00",
            "Task04 Hippocampus",
            "BRATS_001.2",
            "left kidney (cyst)",
            "Köln-Süd",
            "肝臓",
            "a+b,c=d",
            "CONTRAST",
            "common",
            "COM10",
            "null",
        ] {
            assert_eq!(safe_name(name), name);
        }
    }

    #[test]
    fn what_is_more_than_a_name_is_encoded() {
        for (name, expected) in [
            ("patA/segmentation", "patA%2Fsegmentation"),
            ("a\\b:c*d?e\"f<g>h|i%j", "a%5Cb%3Ac%2Ad%3Fe%22f%3Cg%3Eh%7Ci%25j"),
            ("a\nb\0", "a%0Ab%00"),
            ("a\u{202e}b", "a%E2%80%AEb"),
            ("", "%"),
            (".", "%2E"),
            ("..", "%2E%2E"),
            ("../x", "%2E.%2Fx"),
            (".hidden", "%2Ehidden"),
            (" x ", "%20x%20"),
            ("x.", "x%2E"),
            ("con", "%63on"),
            ("NUL.nii.gz", "%4EUL.nii.gz"),
            ("Com1 .txt", "%43om1 .txt"),
            ("LPT²", "%4CPT²"),
        ] {
            assert_eq!(safe_name(name), expected);
        }
    }

    #[test]
    fn long_names_end_in_a_hash() {
        // the known hash of one byte
        assert_eq!(hash(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(safe_name(&"x".repeat(200)), "x".repeat(200));
        for unit in ["x", "ü", "/", "𝄞"] {
            let (one, other) = (unit.repeat(300), unit.repeat(301));
            let (a, b) = (safe_name(&one), safe_name(&other));
            assert!(a.len() <= LONGEST && a.len() > LONGEST - 12, "{a}");
            assert_eq!(a.rfind("%-"), Some(a.len() - 34));
            assert_ne!(a, b);
        }
    }

    /// Names full of what matters.
    fn names() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("."),
            Just(".."),
            Just("/"),
            Just("\\"),
            Just("%"),
            Just("%2F"),
            Just("%2E"),
            Just(" "),
            Just("con"),
            Just("NUL"),
            Just("COM1"),
            Just("a"),
            Just("ü"),
            Just("-"),
            Just("\0"),
            Just(":"),
            Just("%-"),
            Just("2F"),
        ];
        prop_oneof![
            prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat()),
            any::<String>(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn two_names_never_share_a_component(a in names(), b in names()) {
            prop_assert!((a == b) == (safe_name(&a) == safe_name(&b)), "{a:?} {b:?}");
        }

        #[test]
        fn a_name_is_one_plain_component(name in names()) {
            let safe = safe_name(&name);
            let path = Path::new(&safe);
            let components: Vec<Component> = path.components().collect();
            prop_assert!(matches!(components[..], [Component::Normal(part)] if part == safe.as_str()));
            prop_assert!(safe.len() <= LONGEST && !reserved(&safe));
            prop_assert!(!safe.ends_with(['.', ' ']) && !safe.starts_with(['.', ' ']));
        }
    }
}
