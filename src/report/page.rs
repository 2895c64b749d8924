//! What a report shows, and the template that shows it. Everything that comes from files is escaped by the template's engine but
//! the plots, whose words the plotter escapes.

use std::path::Path;

use askama::Template;

use super::table::Table;
use crate::base::files::write_atomically;
use crate::base::{Error, Result, host};

/// A name and what it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// What is told.
    pub name: String,
    /// Its value, as people read it.
    pub value: String,
}

impl Pair {
    /// Of a name and a value.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

/// A plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// Its title, which also tells those who cannot see it.
    pub title: String,
    /// SVG to stand in the page; its colours are names that the page's style replaces.
    pub svg: String,
    /// What the colours mean, by the number of the colour; may be empty.
    pub legend: Vec<(usize, String)>,
}

/// A picture of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Its place on the page.
    pub id: String,
    /// What it shows.
    pub caption: String,
    /// The picture as a data URI; empty where there is none.
    pub image: String,
    /// Why there is none.
    pub missing: String,
}

/// What came of a domain's cases.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DomainPart {
    /// The domain; may be empty where there is only one.
    pub name: String,
    /// A row a class.
    pub classes: Table,
    /// How the classes' values are distributed.
    pub plots: Vec<Plot>,
    /// A row a case.
    pub cases: Table,
    /// In which order the rows stand.
    pub order: String,
    /// A picture a case, in the same order.
    pub figures: Vec<Figure>,
    /// What their probabilities and entropies came to, where they have any.
    pub confidence: Option<ConfidencePart>,
}

/// How sure predictions are, and whether that is right.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ConfidencePart {
    /// What the figures mean, a sentence or two each.
    pub hints: Vec<String>,
    /// Calibration, a row a class.
    pub calibration: Table,
    /// Diagrams.
    pub plots: Vec<Plot>,
    /// Entropy, a row a case.
    pub cases: Table,
}

impl DomainPart {
    /// Leaves the pictures out, where there is none at all; gives whether that is so.
    pub(crate) fn is_without_pictures(&mut self) -> bool {
        let none = self.figures.iter().all(|figure| figure.image.is_empty());
        if none {
            self.figures.clear();
            self.cases.rows.iter_mut().for_each(|row| row.link.clear());
        }
        none
    }
}

/// The curves of a domain.
#[derive(Debug, Clone, PartialEq)]
pub struct CurvePart {
    /// The domain.
    pub name: String,
    /// Its curves.
    pub plots: Vec<Plot>,
}

/// A file as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct TextFile {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub text: String,
}

/// A training, or a prediction.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunPart {
    /// Its folder, where there are several runs; else empty.
    pub name: String,
    /// The commands that repeat it, each with where it ran.
    pub commands: Vec<Pair>,
    /// Curves of the domains.
    pub curves: Vec<CurvePart>,
    /// The plan: a row a setting, a column a domain.
    pub plan: Table,
    /// Which weights of the training the model has, in a sentence; may be empty.
    pub weights: String,
    /// What they were compared with: a row a set of weights.
    pub compared: Table,
    /// Memory and speed.
    pub figures: Vec<Pair>,
    /// Versions, system and device.
    pub machine: Vec<Pair>,
    /// The settings in full.
    pub files: Vec<TextFile>,
}

/// A whole report.
#[derive(Debug, Clone, Default, PartialEq, Template)]
#[template(path = "report.html", config = "src/report/askama.toml")]
pub struct Page {
    /// What it is about.
    pub title: String,
    /// What that is.
    pub kind: String,
    /// When and by which version it was made.
    pub made: String,
    /// What must be known before the rest, a sentence each.
    pub notes: Vec<String>,
    /// The figures that matter most.
    pub tiles: Vec<Pair>,
    /// Scores and pictures, a part a domain.
    pub domains: Vec<DomainPart>,
    /// How it was made, a part a run.
    pub runs: Vec<RunPart>,
}

impl Page {
    /// The page as HTML.
    ///
    /// # Errors
    ///
    /// Where the template fails, which it does not.
    pub fn html(&self) -> Result<String> {
        self.render().map_err(|e| Error::Internal(format!("report: {e}")))
    }

    /// Writes the page, aside and renamed.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_atomically(path, self.html()?.as_bytes())
    }
}

/// Now, and who says so.
pub fn made() -> String {
    format!("u2seg {}, {}", env!("CARGO_PKG_VERSION"), host::now())
}
