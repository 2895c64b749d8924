//! What the compiler made of each kernel, as a file: a line a kernel.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use rayon::prelude::*;
use u2seg::low_level::files::write_atomically;
use u2seg::low_level::shader::KernelKey;
use u2seg::{Error, Result};

use crate::card::{Card, Code, Compiled};

/// How much more than the table says a kernel may take.
const SLACK: f64 = 1.05;
const COLUMNS: &str = "kernel\tregisters\tspilled\tcycles\tcode";

/// A kernel's code, by digest, and what became of it.
struct Row {
    code: String,
    compiled: Compiled,
}

/// By label.
pub struct Table {
    /// What compiled.
    driver: String,
    rows: BTreeMap<String, Row>,
}

impl Table {
    /// Compiles kernels; those whose code is in a table of the same driver are as it says.
    pub fn of(card: &Card, keys: &[&KernelKey], known: Option<&Self>) -> Result<Self> {
        let known = known.filter(|table| table.driver == card.driver());
        let row = |key: &&KernelKey| {
            let label = key.label();
            let code = Code::of(key)?;
            let digest = code.digest();
            let same = known.and_then(|table| table.rows.get(&label));
            let compiled = match same.filter(|row| row.code == digest) {
                Some(row) => row.compiled,
                None => card.compile(key, &code)?,
            };
            Ok((label, Row { code: digest, compiled }))
        };
        let rows = keys.par_iter().map(row).collect::<Result<_>>()?;
        Ok(Self { driver: card.driver().into(), rows })
    }

    /// What a kernel takes.
    pub fn get(&self, key: &KernelKey) -> Result<&Compiled> {
        let label = key.label();
        let row = self.rows.get(&label).map(|row| &row.compiled);
        row.ok_or_else(|| Error::Internal(format!("{label} was not compiled")))
    }

    /// All of them.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &Compiled)> {
        self.rows.iter().map(|(label, row)| (label.as_str(), &row.compiled))
    }

    /// Prints what a kernel takes.
    pub fn show(&self, key: &KernelKey) -> Result<()> {
        let Compiled { registers, cycles, spilled } = self.get(key)?;
        let label = key.label();
        println!("{registers:4} registers {cycles:6} cycles {spilled:4} spilled  {label}");
        Ok(())
    }

    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let row = |line: &str| {
            let mut columns = line.split('\t');
            let label = columns.next()?.to_string();
            let mut number = || columns.next()?.parse().ok();
            let compiled = Compiled { registers: number()?, spilled: number()?, cycles: number()? };
            Some((label, Row { code: columns.next()?.into(), compiled }))
        };
        let (driver, lines) = text.split_once('\n').unwrap_or_default();
        let rows = lines.lines().skip(1).map(|line| {
            let remedy = "Write the table anew with --write.";
            row(line).ok_or_else(|| Error::file(path, line, COLUMNS, remedy))
        });
        Ok(Self { driver: driver.into(), rows: rows.collect::<Result<_>>()? })
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = format!("{}\n{COLUMNS}\n", self.driver);
        for (label, Row { code, compiled: c }) in &self.rows {
            let Compiled { registers, spilled, cycles } = c;
            writeln!(text, "{label}\t{registers}\t{spilled}\t{cycles}\t{code}")
                .map_err(|e| Error::Internal(e.to_string()))?;
        }
        write_atomically(path, text.as_bytes())
    }

    /// Kernels that take more than the table allows, that are not in it, and lines of it that no kernel has any more.
    pub fn worse_than(&self, table: &Self) -> Vec<String> {
        let mut faults = Vec::new();
        for (label, c) in self.rows() {
            let Some(Row { compiled: most, .. }) = table.rows.get(label) else {
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
        let gone = table.rows().filter(|(label, _)| !self.rows.contains_key(*label));
        faults.extend(
            gone.map(|(label, _)| format!("{label}: in the table, but no kernel is so any more")),
        );
        faults
    }
}
