//! `u2seg completions` and `u2seg man`: what shells and `man` read.

use std::path::{Path, PathBuf};

use clap_complete::Shell;

use super::flags::Given;
use crate::base::files::write_atomically;
use crate::base::{Error, Result};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg completions bash > ~/.local/share/bash-completion/completions/u2seg
  u2seg completions zsh > ~/.zfunc/_u2seg
  u2seg completions fish > ~/.config/fish/completions/u2seg.fish")]
pub struct CompletionsArgs {
    /// Shell that reads them
    shell: Shell,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  u2seg man ~/.local/share/man/man1
  u2seg man . && man ./u2seg-train.1")]
pub struct ManArgs {
    /// Folder for the pages: u2seg.1, and one for each command
    folder: PathBuf,
}

/// The program by the name that it has on a `PATH`.
fn program(given: &Given) -> clap::Command {
    given.program.clone().bin_name("u2seg")
}

pub fn completions(args: &CompletionsArgs, given: &Given) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program(given), "u2seg", &mut script);
    let script = String::from_utf8(script).map_err(|e| Error::Internal(e.to_string()))?;
    say!("{}", script.trim_end());
    Ok(())
}

pub fn man(args: &ManArgs, given: &Given) -> Result<()> {
    std::fs::create_dir_all(&args.folder).map_err(|e| Error::io(&args.folder, e))?;
    let mut program = program(given);
    program.build();
    page(&args.folder, &program)?;
    let mut commands = program.get_subcommands().filter(|command| command.get_name() != "help");
    commands.try_for_each(|command| page(&args.folder, command))
}

/// Writes the page of a command.
fn page(folder: &Path, command: &clap::Command) -> Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = folder.join(format!("{name}.1"));
    let mut page = Vec::new();
    let written = clap_mangen::Man::new(command.clone()).render(&mut page);
    written.map_err(|e| Error::Internal(e.to_string()))?;
    write_atomically(&path, &page)?;
    say!("{}", path.display());
    Ok(())
}
