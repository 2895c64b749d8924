//! What the compiler made of each kernel, as a file: a line a kernel.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use u2seg::low_level::files::write_atomically;
use u2seg::low_level::shader::KernelKey;
use u2seg::{Error, Result};

use crate::card::Compiled;

/// How much more than the table says a kernel may take.
const SLACK: f64 = 1.05;
const HEAD: &str = "kernel\tregisters\tcycles";

/// By label.
pub struct Table(BTreeMap<String, Compiled>);

impl Table {
    /// Of kernels in their order.
    pub fn of(keys: &[&KernelKey], compiled: Vec<Compiled>) -> Self {
        Self(keys.iter().map(|key| key.label()).zip(compiled).collect())
    }

    /// What a kernel takes.
    pub fn get(&self, key: &KernelKey) -> Result<&Compiled> {
        let label = key.label();
        self.0.get(&label).ok_or_else(|| Error::Internal(format!("{label} was not compiled")))
    }

    /// All of them.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &Compiled)> {
        self.0.iter().map(|(label, compiled)| (label.as_str(), compiled))
    }

    /// Prints those whose label holds a text.
    pub fn show(&self, text: &str) {
        for (label, c) in self.rows().filter(|(label, _)| label.contains(text)) {
            println!(
                "{:4} registers {:6} cycles {:4} spilled  {label}",
                c.registers, c.cycles, c.spilled
            );
        }
    }

    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let row = |line: &str| {
            let mut columns = line.split('\t');
            let label = columns.next()?.to_string();
            let mut number = || columns.next()?.parse().ok();
            Some((label, Compiled { registers: number()?, cycles: number()?, spilled: 0 }))
        };
        let rows = text.lines().skip(1).map(|line| {
            row(line)
                .ok_or_else(|| Error::file(path, line, HEAD, "Write the table anew with --write."))
        });
        rows.collect::<Result<_>>().map(Self)
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = format!("{HEAD}\n");
        for (label, c) in self.rows() {
            writeln!(text, "{label}\t{}\t{}", c.registers, c.cycles)
                .map_err(|e| Error::Internal(e.to_string()))?;
        }
        write_atomically(path, text.as_bytes())
    }

    /// Kernels that take more than the table allows, that are not in it, and lines of it that no kernel has any more.
    pub fn worse_than(&self, table: &Self) -> Vec<String> {
        let mut faults = Vec::new();
        for (label, c) in self.rows() {
            let Some(most) = table.0.get(label) else {
                faults.push(format!("{label}: not in the table; write it anew with --write"));
                continue;
            };
            for (what, found, most) in
                [("registers", c.registers, most.registers), ("cycles", c.cycles, most.cycles)]
            {
                if found as f64 > most as f64 * SLACK {
                    faults.push(format!("{label}: {found} {what}, the table says {most}"));
                }
            }
        }
        let gone = table.rows().filter(|(label, _)| !self.0.contains_key(*label));
        faults.extend(
            gone.map(|(label, _)| format!("{label}: in the table, but no kernel is so any more")),
        );
        faults
    }
}
