//! Models by name: those that are part of the program, and those in the user's folder of models.

mod card;
mod folder;

use std::path::{Path, PathBuf};

pub use card::{Card, HeldOut};
pub use folder::{ENDING, MODELS_VARIABLE, folder};

use crate::base::{Error, Result};
use crate::net::Model;

/// A model that is part of the program.
#[derive(Debug)]
struct Shipped {
    name: &'static str,
    model: &'static [u8],
    card: &'static str,
}

static SHIPPED: [Shipped; 1] = [Shipped {
    name: "hippocampus",
    model: include_bytes!("../../models/hippocampus.safetensors"),
    card: include_str!("../../models/hippocampus.json"),
}];

/// A model that somebody named.
#[derive(Debug, Clone)]
pub enum Named {
    /// A file, or the folder of a run.
    Path(PathBuf),
    /// A part of the program.
    Shipped(&'static str),
}

/// A model with a name.
#[derive(Debug)]
pub struct Listed {
    /// What `-m` takes.
    pub name: String,
    /// Its file; none of one that is part of the program.
    pub path: Option<PathBuf>,
    /// Of the file.
    pub bytes: u64,
    /// What it is, or why it cannot be used.
    pub model: Result<Model>,
    /// What else is known of it.
    pub card: Option<Card>,
}

impl Shipped {
    fn named(name: &str) -> Option<&'static Self> {
        SHIPPED.iter().find(|shipped| shipped.name.eq_ignore_ascii_case(name))
    }

    fn read(&self) -> Result<Model> {
        Model::from_bytes(Path::new(self.name), self.model)
    }

    fn listed(&self) -> Listed {
        Listed {
            name: self.name.into(),
            path: None,
            bytes: self.model.len() as u64,
            model: self.read(),
            card: Card::parse(self.card).ok(),
        }
    }
}

impl Named {
    /// What a path or a name means: what lies there, else a model of that name in the user's folder, else one that is part of
    /// the program. What looks like a path stays one, whether or not something is there.
    ///
    /// # Errors
    ///
    /// Where a name is no model's.
    pub fn find(wanted: &Path) -> Result<Self> {
        let path = || Ok(Self::Path(wanted.to_path_buf()));
        let Some(name) = plain_name(wanted).filter(|_| wanted.symlink_metadata().is_err()) else {
            return path();
        };
        // without a folder of its own a user has none of these
        let own = folder().ok().map(|folder| folder.join(format!("{name}{ENDING}")));
        if let Some(own) = own.filter(|own| own.is_file()) {
            log::info!("{name}: {}", own.display());
            return Ok(Self::Path(own));
        }
        if let Some(shipped) = Shipped::named(name) {
            return Ok(Self::Shipped(shipped.name));
        }
        let names: Vec<String> = list().into_iter().map(|listed| listed.name).collect();
        Err(Error::setting(
            "model",
            name,
            format!("a model file, the folder of a run, or a name: {}", names.join(", ")),
            "`models` lists the models that have names.",
        ))
    }

    /// Its file, or the folder of its run; none of one that is part of the program.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Shipped(_) => None,
        }
    }
}

/// Reads a model that is part of the program.
///
/// # Errors
///
/// Where there is none of that name.
pub fn read_shipped(name: &str) -> Result<Model> {
    let none = || Error::Internal(format!("no model {name}"));
    Shipped::named(name).ok_or_else(none)?.read()
}

/// What is known of a model that is part of the program.
pub fn shipped_card(name: &Path) -> Option<Card> {
    Card::parse(Shipped::named(name.to_str()?)?.card).ok()
}

/// Reads a model by what a run keeps of it: its file, or the name of one that is part of the program.
///
/// # Errors
///
/// As [`Model::read`].
pub fn read(kept: &Path) -> Result<Model> {
    if is_shipped(kept) { read_shipped(&kept.to_string_lossy()) } else { Model::read(kept) }
}

/// Whether this is the name of a model that is part of the program, and no file that is there.
pub fn is_shipped(kept: &Path) -> bool {
    let named = plain_name(kept).filter(|_| !kept.is_file()).and_then(Shipped::named);
    named.is_some()
}

/// A name rather than a path.
fn plain_name(path: &Path) -> Option<&str> {
    let name = path.to_str()?;
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

/// All models that have names: the user's, then those of the program.
pub fn list() -> Vec<Listed> {
    let own = folder().map(|folder| folder::files(&folder)).unwrap_or_default();
    let own = own.into_iter().filter_map(|path| {
        let name = path.file_name()?.to_str()?.strip_suffix(ENDING)?.to_string();
        let bytes = path.metadata().map(|data| data.len()).unwrap_or_default();
        let model = Model::read(&path);
        Some(Listed { name, bytes, model, card: Card::beside(&path), path: Some(path) })
    });
    own.chain(SHIPPED.iter().map(Shipped::listed)).collect()
}

/// Whether a file is a model.
///
/// # Errors
///
/// As [`Model::read`].
pub fn check(path: &Path) -> Result<()> {
    Model::read(path).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shipped_model_has_its_card_and_a_place_in_a_small_program() {
        for shipped in &SHIPPED {
            assert!(shipped.model.len() < 1_000_000, "{}", shipped.name);
            let model = shipped.read().unwrap();
            let card = Card::parse(shipped.card).unwrap();
            let held_out = card.held_out.unwrap();
            assert!(held_out.dice >= 0.87 && held_out.cases.len() >= 20, "{held_out:?}");
            let names = model.domains[0].labels.scored().iter().map(|class| &class.name);
            assert!(names.eq(held_out.classes.keys()), "{held_out:?}");
            assert!(!card.licence.is_empty());
        }
    }

    #[test]
    fn paths_stay_paths_and_names_are_found() {
        for path in ["a/b", "x.safetensors", "./hippocampus", "", "src"] {
            let found = Named::find(Path::new(path)).unwrap();
            assert_eq!(found.path(), Some(Path::new(path)));
        }
        assert!(Named::find(Path::new("Hippocampus")).unwrap().path().is_none());
        let message = Named::find(Path::new("hipocampus")).unwrap_err().to_string();
        assert!(message.contains("hipocampus; expected") && message.contains(": hippocampus"));
    }
}
