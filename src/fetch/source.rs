//! What is fetched, and the name that it gets.

use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::http::shown;
use crate::base::files::safe_name;
use crate::base::{Error, Result};

/// What to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Of the folder or file that it becomes.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// What its bytes must give.
    pub digest: Digest,
}

impl Source {
    /// A file at an address, named as it is there without the ending of an archive.
    ///
    /// # Errors
    ///
    /// Where the address is none of HTTP, or ends in no name.
    pub fn at(url: &str, digest: Digest) -> Result<Self> {
        let shown = shown(url);
        let refuse = |found: &str| {
            let expected = "https://SERVER/FILE.tar.gz, or a task of the Decathlon";
            Error::file(&shown, found, expected, "`fetch` with --list names the tasks.")
        };
        let rest = shown.strip_prefix("https://").or_else(|| shown.strip_prefix("http://"));
        let rest = rest.ok_or_else(|| refuse("an address that is none of HTTP"))?;
        let file = rest.split_once('/').map_or("", |(_, path)| path).rsplit('/').next();
        let file = file.filter(|file| !file.is_empty());
        let file = file.ok_or_else(|| refuse("an address that names no file"))?;
        let endings = [".tar.gz", ".tgz", ".tar", ".zip"];
        let stem = endings.iter().find_map(|ending| file.strip_suffix(ending));
        let name = stem.filter(|stem| !stem.is_empty()).unwrap_or(file).to_string();
        Ok(Self { name, url: url.into(), digest })
    }

    /// The name that it gets in a folder.
    pub fn place(&self, folder: &Path) -> PathBuf {
        folder.join(safe_name(&self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_give_names() {
        let digest = || Digest::md5(&"0".repeat(32)).unwrap();
        let name = |url: &str| Source::at(url, digest()).map(|source| source.name);
        for (url, expected) in [
            ("https://a/b/c.tar.gz", "c"),
            ("https://a/c.tgz?key=x", "c"),
            ("http://a/b/c.zip", "c"),
            ("http://a/.tar", ".tar"),
            ("https://a/liver.safetensors", "liver.safetensors"),
            ("https://a/x.nii.gz", "x.nii.gz"),
        ] {
            assert_eq!(name(url).unwrap(), expected);
        }
        for url in ["", "c.tar", "ftp://a/b.tar", "file:///etc/passwd", "https://a", "https://a/b/"]
        {
            assert!(name(url).is_err(), "{url}");
        }
        // a name is one component, whatever the address says
        let source = Source::at("https://a/..", digest()).unwrap();
        assert_eq!(source.place(Path::new("x")), Path::new("x/%2E%2E"));
    }
}
