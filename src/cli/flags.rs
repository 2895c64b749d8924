//! Errors of the library name settings; here they become the flags that a user typed.

use clap::{Arg, Command};

use crate::base::Error;

/// Flags that help and messages write with one letter.
const SHORT: [&str; 6] = ["input", "output", "model", "format", "predictions", "ground_truth"];

/// How the flag of a setting is written, where `command` has one.
fn flag(command: &Command, setting: &str) -> Option<String> {
    let is_it = |arg: &&Arg| arg.get_long().is_some_and(|long| long.replace('-', "_") == setting);
    let arg = command.get_arguments().find(is_it)?;
    match arg.get_short().filter(|_| SHORT.contains(&setting)) {
        Some(short) => Some(format!("-{short}")),
        None => Some(format!("--{}", arg.get_long()?)),
    }
}

/// The command that a user gave.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    pub program: &'a Command,
    pub command: &'a Command,
    /// Whether to say more.
    pub verbose: bool,
}

impl Given<'_> {
    /// Settings and commands in backticks as a user types them; what is neither stays.
    pub fn worded(&self, text: &str) -> String {
        let Self { program, command, .. } = self;
        let word = |name: &str| {
            let elsewhere = || program.get_subcommands().find_map(|other| flag(other, name));
            // `cache` is both
            match (flag(command, name), program.find_subcommand(name)) {
                (Some(flag), _) => flag,
                (None, Some(_)) => format!("`u2seg {name}`"),
                (None, None) => elsewhere().unwrap_or(format!("`{name}`")),
            }
        };
        // every second part stands between backticks
        let parts = text.split('`').enumerate();
        parts.map(|(at, part)| if at % 2 == 1 { word(part) } else { part.to_string() }).collect()
    }

    /// Whether an error is about what flags of the command say, and no more than a wrong usage.
    pub fn is_usage(&self, error: &Error) -> bool {
        let Error::Setting { name, .. } = error else { return false };
        name.split(", ").all(|one| one.starts_with("--") || flag(self.command, one).is_some())
    }

    /// An error with flags in place of settings. What was found stays as it is: it is the user's.
    pub fn told(&self, error: Error) -> Error {
        let words = |text: String| self.worded(&text);
        match error {
            Error::Setting { name, found, expected, remedy } => {
                let flag = |one: &str| flag(self.command, one).unwrap_or(one.to_string());
                let name = name.split(", ").map(flag).collect::<Vec<_>>().join(", ");
                Error::Setting { name, found, expected: words(expected), remedy: words(remedy) }
            }
            Error::File { path, found, expected, remedy } => {
                Error::File { path, found, expected: words(expected), remedy: words(remedy) }
            }
            Error::Gpu { fault, message, source } => {
                Error::Gpu { fault, message: words(message), source }
            }
            Error::About { path, source } => {
                Error::About { path, source: Box::new(self.told(*source)) }
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn said(error: Error, name: &str) -> String {
        let program = Cli::command();
        let command = program.find_subcommand(name).unwrap();
        Given { program: &program, command, verbose: false }.told(error).to_string()
    }

    #[test]
    fn settings_become_the_flags_of_the_command() {
        let error = || Error::setting("hold_out, fold", "`fold`", "one", "Leave `hold_out` out.");
        assert_eq!(
            said(error(), "train"),
            "--hold-out, --fold: found `fold`; expected one. Leave --hold-out out."
        );
        // evaluate has neither, and names in other commands' terms what the remedy asks for
        assert_eq!(
            said(error(), "evaluate"),
            "hold_out, fold: found `fold`; expected one. Leave --hold-out out."
        );
        let error = Error::file("a", "b", "c", "Choose another `output`, or `verify` it; not `x`.");
        let about = Error::About { path: "d".into(), source: Box::new(error) };
        assert_eq!(
            said(about, "evaluate"),
            "d: a: found b; expected c. Choose another -o, or `u2seg verify` it; not `x`."
        );
    }

    #[test]
    fn every_setting_that_the_library_refuses_is_a_flag() {
        let program = Cli::command();
        let named = regex::Regex::new(r#"Error::setting\(\s*"([a-z_, ]+)""#).unwrap();
        let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut folders = vec![source];
        let mut known = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                if path.ends_with("cli/flags.rs") {
                    continue;
                }
                for found in named.captures_iter(&std::fs::read_to_string(&path).unwrap()) {
                    for setting in found[1].split(", ") {
                        let some = program.get_subcommands().any(|c| flag(c, setting).is_some());
                        assert!(some, "{setting} in {}", path.display());
                        known += 1;
                    }
                }
            }
        }
        assert!(known > 20, "{known}");
    }
}
