//! Puts a kernel's text together: shared files where lines ask for them, and sections that are in or out.
//!
//! - `// import load` stands for `shaders/shared/load.wgsl`, the first time that a kernel asks for it.
//! - Lines between `// section NAME` and `// end NAME` are in where the kernel's key names the section; those after a line
//!   `// otherwise` between the two are in where it does not.

use std::collections::BTreeSet;

use super::embedded::{shared, source};
use super::key::KernelKey;
use crate::base::{Error, Result};

const IMPORT: &str = "// import ";
/// Ends a shared file in the expanded text.
const IMPORTED: &str = "// imported ";
const SECTION: &str = "// section ";
const OTHERWISE: &str = "// otherwise";
const END: &str = "// end ";

/// The kernel's text with its imports and with the sections that the key names.
pub(super) fn expand(key: &KernelKey) -> Result<String> {
    with_table(key, source(key.file)?, shared())
}

fn with_table(key: &KernelKey, text: &str, table: &[(&str, &str)]) -> Result<String> {
    let fail = |message: String| Error::shader(key.file, message);
    let mut expansion = Expansion {
        sections: &key.sections,
        table,
        out: String::new(),
        open: Vec::new(),
        seen: BTreeSet::new(),
        known: BTreeSet::new(),
    };
    expansion.file(text).map_err(fail)?;
    match key.sections.iter().find(|name| !expansion.known.contains(**name)) {
        Some(name) => Err(fail(format!("there is no line `{SECTION}{name}`"))),
        None => Ok(expansion.out),
    }
}

/// The shared file that a line of a kernel's text came from; none for the kernel's own lines.
pub(super) fn origin(text: &str, line: usize) -> Option<String> {
    let mut open = Vec::new();
    for line in text.lines().take(line) {
        if let Some(name) = marked(line, IMPORT) {
            open.push(name);
        } else if marked(line, IMPORTED).is_some() {
            open.pop();
        }
    }
    open.last().map(|name| format!("shared/{name}.wgsl"))
}

/// The one word after a mark.
fn marked<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    let name = line.trim().strip_prefix(mark)?;
    (!name.contains(char::is_whitespace)).then_some(name)
}

struct Expansion<'a> {
    sections: &'a [&'static str],
    /// Shared files by name.
    table: &'a [(&'a str, &'a str)],
    out: String,
    /// Shared files that are being read, each imported by the one before.
    open: Vec<&'a str>,
    /// Shared files that were imported.
    seen: BTreeSet<&'a str>,
    /// Sections that there are.
    known: BTreeSet<&'a str>,
}

impl<'a> Expansion<'a> {
    fn line(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    fn file(&mut self, text: &'a str) -> std::result::Result<(), String> {
        // name of the section that is open, and whether its lines are in
        let mut section: Option<(&str, bool)> = None;
        for line in text.lines() {
            if let Some(name) = marked(line, SECTION) {
                if let Some((outer, _)) = section {
                    return Err(format!("section {name} within section {outer}"));
                }
                self.known.insert(name);
                section = Some((name, self.sections.contains(&name)));
            } else if line.trim() == OTHERWISE {
                let (name, is_in) = section.ok_or(format!("`{OTHERWISE}` outside a section"))?;
                section = Some((name, !is_in));
            } else if let Some(name) = marked(line, END) {
                if section.is_none_or(|(open, _)| open != name) {
                    return Err(format!("`{END}{name}` without `{SECTION}{name}`"));
                }
                section = None;
            } else if section.is_none_or(|(_, is_in)| is_in) {
                match marked(line, IMPORT) {
                    Some(name) => self.import(name)?,
                    None => self.line(line),
                }
            }
        }
        match section {
            Some((name, _)) => Err(format!("`{SECTION}{name}` without `{END}{name}`")),
            None => Ok(()),
        }
    }

    fn import(&mut self, name: &'a str) -> std::result::Result<(), String> {
        if self.open.contains(&name) {
            let chain = self.open.join(" imports ");
            return Err(format!("a cycle of imports: {chain} imports {name}"));
        }
        if !self.seen.insert(name) {
            return Ok(());
        }
        let stem = |file: &'a str| file.strip_suffix(".wgsl");
        let known = self.table.iter().find(|(file, _)| stem(file) == Some(name));
        let (_, text) = known.ok_or_else(|| format!("there is no shared/{name}.wgsl to import"))?;
        self.line(&format!("{IMPORT}{name}"));
        self.open.push(name);
        self.file(text).map_err(|message| match self.open.last() {
            // the innermost file that is open is where it went wrong
            Some(last) if !message.starts_with("shared/") => {
                format!("shared/{last}.wgsl: {message}")
            }
            _ => message,
        })?;
        self.open.pop();
        self.line(&format!("{IMPORTED}{name}"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[(&str, &str)] = &[
        ("a.wgsl", "// import b\nfn a() {}"),
        ("b.wgsl", "fn b() {}\n// section S\nfn s() {}\n// otherwise\nfn o() {}\n// end S"),
        ("loop.wgsl", "// import pool"),
        ("pool.wgsl", "// import loop"),
        ("open.wgsl", "// section S"),
    ];

    fn expanded(sections: &[&'static str], text: &str) -> std::result::Result<String, String> {
        let key = KernelKey { sections: sections.to_vec(), ..KernelKey::new("t.wgsl") };
        with_table(&key, text, TABLE).map_err(|e| e.to_string())
    }

    /// The lines that are no marks of imports.
    fn lines(sections: &[&'static str], text: &str) -> String {
        let text = expanded(sections, text).unwrap();
        let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with("// import")).collect();
        kept.join(" ")
    }

    #[test]
    fn shared_files_stand_once_where_they_are_first_asked_for() {
        let text = "x\n// import a\ny\n// import b\nz";
        assert_eq!(lines(&[], text), "x fn b() {} fn o() {} fn a() {} y z");
        assert_eq!(lines(&["S"], text), "x fn b() {} fn s() {} fn a() {} y z");
    }

    #[test]
    fn sections_are_left_out_unless_asked_for() {
        let text =
            "a\n  // section S\nb\n  // otherwise\no\n // end S\nc\n// section T\nd\n// end T";
        assert_eq!(lines(&[], text), "a o c");
        assert_eq!(lines(&["S"], text), "a b c");
        assert_eq!(lines(&["S", "T"], text), "a b c d");
        // what is left out imports nothing
        let text = "// section S\n// import b\n// end S\n// import b";
        assert_eq!(lines(&[], text), "fn b() {} fn o() {}");
    }

    #[test]
    fn what_cannot_be_put_together_is_refused() {
        for (sections, text, expected) in [
            (&[] as &[_], "// import none", "there is no shared/none.wgsl"),
            (&[], "// import loop", "a cycle of imports: loop imports pool imports loop"),
            (&[], "// import open", "shared/open.wgsl: `// section S` without"),
            (&[], "// section S\nb", "without `// end S`"),
            (&[], "// section S\n// section T", "section T within section S"),
            (&[], "// end S", "without `// section S`"),
            (&[], "// otherwise", "outside a section"),
            (&["S"], "a", "there is no line `// section S`"),
        ] {
            let message = expanded(sections, text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn lines_are_told_by_the_file_that_they_came_from() {
        let text = expanded(&[], "x\n// import a\ny").unwrap();
        let of = |line: &str| origin(&text, 1 + text.lines().position(|l| l == line).unwrap());
        assert_eq!(of("x"), None);
        assert_eq!(of("fn b() {}").as_deref(), Some("shared/b.wgsl"));
        assert_eq!(of("fn a() {}").as_deref(), Some("shared/a.wgsl"));
        assert_eq!(of("y"), None);
    }
}
