//! Files that went wrong: seeds with a few changes, and bytes without sense.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// A change of a file.
#[derive(Debug, Clone)]
pub enum Change {
    /// Another byte.
    Byte(Index, u8),
    /// A number of 2, 4 or 8 bytes that programs trip over.
    Number(Index, Index),
    /// A number or a word of a text becomes another.
    Text(Index, Index),
    /// The file ends.
    Cut(Index),
    /// Some bytes go away.
    Drop(Index, Index),
    /// Some bytes come twice, or often.
    Repeat(Index, Index, u8),
    /// Bytes of another seed.
    Splice(Index, Index, Index),
}

/// Numbers as they lie in files.
fn numbers() -> Vec<Vec<u8>> {
    let shorts = [-1i16, 0, 1, 2, 4, 7, 8, 16, 512, 0x7fff, -0x8000];
    let longs = [-1i32, 0, 1, 348, 540, 0x3f00_0000, i32::MAX, i32::MIN];
    let floats =
        [f32::NAN, f32::INFINITY, -1.0, 0.0, 1e-38, 1e-6, 352.0, 524_288.0, 1e9, 1e38, -1e30];
    let doubles = [f64::NAN, 1e300, -0.0];
    let sizes = [u64::MAX, 1 << 62, 1 << 40, i64::MIN as u64, 0];
    let all = shorts.iter().flat_map(|n| [n.to_le_bytes().to_vec(), n.to_be_bytes().to_vec()]);
    all.chain(longs.iter().flat_map(|n| [n.to_le_bytes().to_vec(), n.to_be_bytes().to_vec()]))
        .chain(floats.iter().flat_map(|n| [n.to_le_bytes().to_vec(), n.to_be_bytes().to_vec()]))
        .chain(doubles.iter().map(|n| n.to_le_bytes().to_vec()))
        .chain(sizes.iter().map(|n| n.to_le_bytes().to_vec()))
        .collect()
}

/// What may stand where a text has a number or a word.
const TEXTS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "5",
    "254",
    "255",
    "256",
    "-1",
    "0.5",
    "-0.0",
    "1e30",
    "1e39",
    "1e-300",
    "1e308",
    "1e999",
    "nan",
    "inf",
    "null",
    "true",
    "4611686018427387904",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1000000000",
    "524288",
    "\"\"",
    "\"a\"",
    "[]",
    "{}",
    "[1]",
    "[[[[[[[[",
    "{\"a\":{\"a\":{",
    "../..",
    "/dev/zero",
    "background",
    "ignore",
    "\\u0000",
    "\\ud800",
    "\u{202e}",
    "\u{0}",
    "é",
    "closing",
    "largest-two",
    "weights",
    "minutes",
];

/// Where numbers and words of a text begin and end.
fn words(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let within = |byte: &u8| byte.is_ascii_alphanumeric() || b".+-_".contains(byte);
    let mut found = Vec::new();
    let mut start = 0;
    for run in bytes.chunk_by(|a, b| within(a) == within(b)) {
        if within(&run[0]) {
            found.push(start..start + run.len());
        }
        start += run.len();
    }
    found
}

/// Longest file that changes make.
const MOST: usize = 1 << 16;

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let place = |index: &Index, bytes: &[u8]| index.index(bytes.len().max(1)).min(bytes.len());
        match self {
            Self::Byte(at, value) => {
                let at = place(at, bytes);
                bytes.get_mut(at).into_iter().for_each(|byte| *byte = *value);
            }
            Self::Number(at, which) => {
                let (at, numbers) = (place(at, bytes), numbers());
                // fields lie at even places
                let room = bytes[at..].len();
                let number = which.get(&numbers);
                let at = if room > 0 { at & !1 } else { at };
                bytes.iter_mut().skip(at).zip(number).for_each(|(byte, new)| *byte = *new);
            }
            Self::Text(at, which) => {
                let words = words(bytes);
                if !words.is_empty() {
                    bytes.splice(at.get(&words).clone(), which.get(TEXTS).bytes());
                }
            }
            Self::Cut(at) => bytes.truncate(place(at, bytes)),
            Self::Drop(at, count) => {
                let start = place(at, bytes);
                let count = count.index(64).min(bytes.len() - start);
                bytes.drain(start..start + count);
            }
            Self::Repeat(at, count, times) => {
                let start = place(at, bytes);
                let count = count.index(64).min(bytes.len() - start);
                let piece = bytes[start..start + count].repeat(usize::from(*times));
                bytes.splice(start..start, piece);
            }
            Self::Splice(at, other, from) => {
                let (start, other) = (place(at, bytes), other.get(seeds));
                let from = place(from, other);
                bytes.splice(start.., other[from..].iter().copied());
            }
        }
        bytes.truncate(MOST);
    }
}

fn changes() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        3 => (at(), any::<u8>()).prop_map(|(at, by)| Change::Byte(at, by)),
        6 => (at(), at()).prop_map(|(at, which)| Change::Number(at, which)),
        6 => (at(), at()).prop_map(|(at, which)| Change::Text(at, which)),
        1 => at().prop_map(Change::Cut),
        1 => (at(), at()).prop_map(|(at, count)| Change::Drop(at, count)),
        1 => (at(), at(), any::<u8>()).prop_map(|(at, count, n)| Change::Repeat(at, count, n)),
        1 => (at(), at(), at()).prop_map(|(at, other, from)| Change::Splice(at, other, from)),
    ]
}

/// Files made of these, and now and then bytes that are nobody's.
pub fn files(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changed = (any::<Index>(), vec(changes(), 1..6)).prop_map(move |(seed, changes)| {
        let mut bytes = seed.get(&seeds).clone();
        changes.iter().for_each(|change| change.apply(&mut bytes, &seeds));
        bytes
    });
    prop_oneof![19 => changed, 1 => vec(any::<u8>(), 0..600)]
}
