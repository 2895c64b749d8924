//! Which variant of a kernel runs at which shape: plain data, so that plans need no device.
//!
//! Whoever lowers an operation names the place (a *site*: kernel family and shape) and lists the variants there, the default
//! first. What was found for the site on this adapter is taken, else what the shipped table prefers for its class, else the default.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use crate::base::{Error, Result};

/// Kinds of adapters that the shipped table tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// With memory of its own.
    Discrete,
    /// With the CPU's memory.
    Integrated,
    /// Apple's, with tiles and unified memory.
    Apple,
    /// Computes on the CPU.
    Software,
}

/// Sides of the square cooperative matrices that an adapter multiplies into f32 sums; zero where it has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Cooperative {
    /// Of f32 factors.
    pub f32: u32,
    /// Of f16 factors.
    pub f16: u32,
}

/// What a dispatch's variant was taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Kernel family and shape.
    pub site: String,
    /// Every variant there, the default first.
    pub candidates: Vec<String>,
    /// Position of the variant that was taken.
    pub taken: usize,
}

impl Choice {
    /// The variant that was taken.
    pub fn variant(&self) -> &str {
        &self.candidates[self.taken]
    }

    /// The kernel family of the site.
    pub fn family(&self) -> &str {
        self.site.split(' ').next().unwrap_or_default()
    }
}

/// Variants by site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tuning {
    /// What was found on the adapter.
    found: BTreeMap<String, String>,
    /// Variants that the shipped table prefers, by family; the first that a site has counts.
    shipped: BTreeMap<String, Vec<String>>,
    /// Every site takes the variant at this position, where it has so many.
    position: Option<usize>,
}

const SHIPPED: &str = include_str!("shipped.json");

impl Tuning {
    /// What is shipped for a class of adapters.
    pub fn shipped(class: Class) -> Result<Self> {
        let mut table: BTreeMap<String, BTreeMap<String, Vec<String>>> =
            serde_json::from_str(SHIPPED)
                .map_err(|e| Error::Internal(format!("the shipped table: {e}")))?;
        let name = match class {
            Class::Discrete => "discrete",
            Class::Integrated => "integrated",
            Class::Apple => "apple",
            Class::Software => "software",
        };
        let shipped = table
            .remove(name)
            .ok_or_else(|| Error::Internal(format!("the shipped table has no {name}")))?;
        Ok(Self { shipped, ..Self::default() })
    }

    /// The variant at a position everywhere, the default where a site has fewer: to try and to test each.
    pub fn at(position: usize) -> Self {
        Self { position: Some(position), ..Self::default() }
    }

    /// Adds what was found on the adapter.
    pub fn with(mut self, found: BTreeMap<String, String>) -> Self {
        self.found.extend(found);
        self
    }

    /// What was found on the adapter.
    pub fn found(&self) -> &BTreeMap<String, String> {
        &self.found
    }

    /// The variant for a site, of those that it has; the default comes first.
    pub fn choose<T: Display + Clone>(
        &self,
        family: &str,
        shape: impl Display,
        candidates: &[T],
    ) -> Result<(T, Arc<Choice>)> {
        let site = format!("{family} {shape}");
        let names: Vec<String> = candidates.iter().map(T::to_string).collect();
        let place = |name: &String| names.iter().position(|candidate| candidate == name);
        let shipped = || self.shipped.get(family)?.iter().find_map(place);
        let taken = match self.position {
            Some(position) if position < names.len() => position,
            Some(_) => 0,
            None => self.found.get(&site).and_then(place).or_else(shipped).unwrap_or(0),
        };
        let variant = candidates
            .get(taken)
            .ok_or_else(|| Error::Internal(format!("{site} has no variant")))?
            .clone();
        Ok((variant, Arc::new(Choice { site, candidates: names, taken })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_comes_before_what_is_shipped_and_the_default_last() {
        let candidates = ["a", "b", "c"];
        let shipped = BTreeMap::from([("f".to_string(), vec!["z".to_string(), "c".to_string()])]);
        let tuning = Tuning { shipped, ..Tuning::default() };
        let taken = |tuning: &Tuning, family| {
            let (variant, choice) = tuning.choose(family, "4x4", &candidates).unwrap();
            assert_eq!(choice.variant(), variant);
            assert_eq!(choice.family(), family);
            variant
        };
        assert_eq!(taken(&tuning, "f"), "c");
        assert_eq!(taken(&tuning, "g"), "a");
        let found = |name: &str| BTreeMap::from([("f 4x4".to_string(), name.to_string())]);
        assert_eq!(taken(&tuning.clone().with(found("b")), "f"), "b");
        // a variant that is no more does not count
        assert_eq!(taken(&tuning.with(found("gone")), "f"), "c");
        assert_eq!(taken(&Tuning::at(2), "f"), "c");
        assert_eq!(taken(&Tuning::at(3), "f"), "a");
        assert!(Tuning::default().choose::<&str>("f", "4x4", &[]).is_err());
    }

    #[test]
    fn every_class_has_a_table() {
        for class in [Class::Discrete, Class::Integrated, Class::Apple, Class::Software] {
            Tuning::shipped(class).unwrap();
        }
    }
}
