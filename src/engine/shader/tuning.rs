//! Which variant of a kernel runs at which shape: plain data, so that plans need no device.
//!
//! Whoever lowers an operation names the place (a *site*: kernel family and shape) and lists the variants there, the default
//! first. What was found for the site on this adapter is taken, else what the shipped table prefers for its class, else the default.
//! The table says what it prefers by words of sites and variants, so that it serves shapes that it never saw.

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

/// A line of the shipped table. Words stand between spaces, in any order: what a variant is (`staged`, `streamed`) or has (`OUT=4`), what
/// rides on a site's kernel (`ACT`, `f16`).
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Preference {
    /// The kernel family.
    family: String,
    /// Words of the sites that it is for; all of the family where there are none.
    #[serde(default)]
    site: Vec<String>,
    /// Words of the variant: the first that has all of them.
    variant: Vec<String>,
}

/// Whether a text has all of some words.
fn has(text: &str, words: &[String]) -> bool {
    words.iter().all(|word| text.split(' ').any(|own| own == word))
}

impl Preference {
    /// The position of the variant that it prefers at a site.
    fn place(&self, family: &str, shape: &str, variants: &[String]) -> Option<usize> {
        let of_site = self.family == family && has(shape, &self.site);
        let wanted = |name: &String| has(name, &self.variant);
        if of_site { variants.iter().position(wanted) } else { None }
    }
}

/// Variants by site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tuning {
    /// What was found on the adapter.
    found: BTreeMap<String, String>,
    /// What the shipped table prefers; the first that a site has counts.
    shipped: Vec<Preference>,
    /// Every site takes the variant at this position, where it has so many.
    position: Option<usize>,
}

const SHIPPED: &str = include_str!("shipped.json");

impl Tuning {
    /// What is shipped for a class of adapters.
    pub fn shipped(class: Class) -> Result<Self> {
        let mut table: BTreeMap<String, Vec<Preference>> = serde_json::from_str(SHIPPED)
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
        let shape = shape.to_string();
        let site = format!("{family} {shape}");
        let names: Vec<String> = candidates.iter().map(T::to_string).collect();
        let place = |name: &String| names.iter().position(|candidate| candidate == name);
        let shipped = || self.shipped.iter().find_map(|p| p.place(family, &shape, &names));
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
        let prefer = |variant: &str| Preference {
            family: "f".into(),
            site: Vec::new(),
            variant: vec![variant.into()],
        };
        let shipped = vec![prefer("z"), prefer("c")];
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

    /// What a site and a variant mean decides, not their sizes.
    #[test]
    fn the_shipped_table_serves_shapes_that_it_never_saw() {
        let words = |text: &str| text.split(' ').map(String::from).collect();
        let line = |site: &str, variant: &str| Preference {
            family: "conv".into(),
            site: words(site),
            variant: words(variant),
        };
        let shipped = vec![line("f16 SW2", "direct"), line("SW2", "staged streamed")];
        let tuning = Tuning { shipped, ..Tuning::default() };
        let candidates = ["staged VOX=3", "staged VOX=5 streamed", "direct VOX=7"];
        let taken = |family, shape| tuning.choose(family, shape, &candidates).unwrap().1.taken;
        for (shape, place) in
            [("2x3x5 SW2", 1), ("9x9x9 4>4 SW2 ACT", 1), ("1x1 SW2 ACT f16", 2), ("2x3 SW1", 0)]
        {
            assert_eq!(taken("conv", shape), place, "{shape}");
        }
        assert_eq!(taken("depthwise", "2x3x5 SW2"), 0);
        // words, not parts of them
        assert_eq!(taken("conv", "2x3x5 SW22"), 0);
    }

    #[test]
    fn every_class_has_a_table() {
        for class in [Class::Discrete, Class::Integrated, Class::Apple, Class::Software] {
            Tuning::shipped(class).unwrap();
        }
    }
}
