//! The name of what is scored, as `summary.json` writes it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What is scored: the voxels of one label value, or those of several, a region.
///
/// As text it is what nnU-Net writes: `2`, or `(1, 2)` for a region; a region of one value is written as the value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassKey(Vec<u8>);

impl ClassKey {
    /// Of these values, in any order.
    pub fn new(values: impl IntoIterator<Item = u8>) -> Self {
        let mut values: Vec<u8> = values.into_iter().collect();
        values.sort_unstable();
        values.dedup();
        Self(values)
    }

    /// The values, ascending.
    pub fn values(&self) -> &[u8] {
        &self.0
    }

    /// Whether each value belongs to it.
    pub(super) fn table(&self) -> [bool; 256] {
        let mut table = [false; 256];
        self.0.iter().for_each(|value| table[usize::from(*value)] = true);
        table
    }
}

impl From<u8> for ClassKey {
    fn from(value: u8) -> Self {
        Self(vec![value])
    }
}

impl fmt::Display for ClassKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<String> = self.0.iter().map(u8::to_string).collect();
        match values.as_slice() {
            [value] => f.write_str(value),
            _ => write!(f, "({})", values.join(", ")),
        }
    }
}

impl FromStr for ClassKey {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let refuse = || format!("class {text:?}; expected a value such as 2 or values as (1, 2)");
        let list = text.trim().strip_prefix('(').and_then(|list| list.strip_suffix(')'));
        // Python writes a tuple of one value with a comma behind it
        let list = list.map_or(text, |list| list.trim_end().trim_end_matches(','));
        let values: Option<Vec<u8>> =
            list.split(',').map(|value| value.trim().parse::<u8>().ok()).collect();
        values.map(Self::new).ok_or_else(refuse)
    }
}

impl Serialize for ClassKey {
    fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClassKey {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_as_python_writes_them() {
        for (text, values) in [("2", &[2][..]), ("(1, 2)", &[1, 2]), ("254", &[254])] {
            let key: ClassKey = text.parse().unwrap();
            assert_eq!((key.to_string().as_str(), key.values()), (text, values));
        }
        assert_eq!("(2,)".parse::<ClassKey>().unwrap(), ClassKey::from(2));
        assert_eq!(ClassKey::new([2, 1, 2]).to_string(), "(1, 2)");
        for text in ["", "()", "a", "256", "(1, 2", "1.0"] {
            assert!(text.parse::<ClassKey>().unwrap_err().contains("(1, 2)"), "{text}");
        }
        assert!(ClassKey::from(9) < ClassKey::from(10));
    }
}
