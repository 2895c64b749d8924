//! What the colours of a picture mean.

use std::collections::BTreeMap;

use super::panel::Ink;
use crate::base::legend::Entry;
use crate::dataset::Labels;
use crate::imaging::LabelMap;

/// Names of the values that masks of a domain hold, background left out.
pub fn value_names(labels: &Labels) -> BTreeMap<u8, String> {
    let scored = labels.scored().iter();
    scored.map(|class| (class.value, class.name.clone())).collect()
}

/// An entry for each value that is drawn, after the name of its role, which may be empty.
pub(super) fn entries(inks: &[(&str, Ink<'_>)], names: &BTreeMap<u8, String>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (role, ink) in inks {
        let values = values(ink.labels);
        if values.is_empty() {
            let role = if role.is_empty() { "The mask" } else { role };
            entries.push(Entry::word(&format!("{role} is empty")));
        } else if !role.is_empty() {
            entries.push(Entry::word(&format!("{role}:")));
        }
        let thickness = if ink.tint > 0.0 { 10 } else { ink.line as u32 };
        entries.extend(values.into_iter().map(|value| {
            let name = names.get(&value).filter(|name| !name.is_empty());
            let name = name.map_or_else(|| format!("Class {value}"), Clone::clone);
            Entry::new(&name, ink.colour(value), thickness)
        }));
    }
    entries
}

/// The values above 0 that a label map holds.
fn values(labels: &LabelMap) -> Vec<u8> {
    let mut present = [false; 256];
    labels.as_slice().iter().for_each(|label| present[usize::from(*label)] = true);
    (1..=255u8).filter(|value| present[usize::from(*value)]).collect()
}
