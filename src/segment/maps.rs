//! The maps that a segmentation gives beside labels, where they are asked for.

use std::path::PathBuf;

use ndarray::Array3;

use crate::base::Result;

/// A volume of values, one a voxel of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Map {
    /// The mean probability of a class or region, by position.
    Probability(usize),
    /// The entropy of the mean probabilities as a share of the largest that there is: of classes −Σ p ln p / ln K, of regions the
    /// mean of the binary entropies −(p ln p + (1 − p) ln (1 − p)) / ln 2.
    Entropy,
    /// Of a class or region, by position: the standard deviation of its probability over all predictions, that is over the models
    /// and the mirror images of each.
    Disagreement(usize),
}

/// A map and the file that it goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapFile {
    /// What it holds.
    pub map: Map,
    /// Where it goes.
    pub file: PathBuf,
}

/// Which kinds of maps are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// [`Map::Probability`] of all classes.
    pub probabilities: bool,
    /// [`Map::Entropy`].
    pub entropy: bool,
    /// [`Map::Disagreement`] of all classes.
    pub disagreement: bool,
}

impl Asked {
    /// What these maps take.
    pub fn of(maps: impl IntoIterator<Item = Map>) -> Self {
        let mut asked = Self::default();
        for map in maps {
            match map {
                Map::Probability(_) => asked.probabilities = true,
                Map::Entropy => asked.entropy = true,
                Map::Disagreement(_) => asked.disagreement = true,
            }
        }
        asked
    }

    /// Whether anything is.
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// What is asked for, and what takes it: whole planes along D, of each map ascending.
pub struct Maps<'a> {
    /// What is made.
    pub asked: Asked,
    /// Takes it.
    pub take: &'a mut dyn FnMut(Map, Array3<f32>) -> Result<()>,
}
