//! Names and numbers in sentences and tables.

use std::collections::BTreeMap;

use super::class_key::ClassKey;

/// What a list in a message names at most.
const MOST_NAMES: usize = 10;

/// The first names of a list, and how many more there are.
pub(crate) fn listed(names: &[String]) -> String {
    let some = names[..names.len().min(MOST_NAMES)].join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}

/// What a class is called; by its values where it has no name.
pub(super) fn name(class: &ClassKey, names: &BTreeMap<ClassKey, String>) -> String {
    let name = names.get(class).filter(|name| !name.is_empty());
    name.map_or_else(|| format!("class {class}"), Clone::clone)
}

/// A number; a dash for none.
pub(super) fn number(value: f64, digits: usize) -> String {
    if value.is_nan() { "-".into() } else { format!("{value:.digits$}") }
}
