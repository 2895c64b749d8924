//! What the compiler made of each kernel, as a file: a line a kernel.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use rayon::prelude::*;
use u2seg::low_level::files::write_atomically;
use u2seg::low_level::graph::Dispatch;
use u2seg::low_level::shader::KernelKey;
use u2seg::{Error, Result};

use crate::card::{Card, Code, Compiled};
use crate::listing;
use crate::model::accessed;

/// How much more than the table says a kernel may take.
const SLACK: f64 = 1.05;
const COLUMNS: &str = "kernel\tthreads\tregisters\tspilled\tcycles\ttraffic\tcode\tloops";

/// A kernel's code, by digest, and what became of it.
struct Row {
    code: String,
    compiled: Compiled,
    /// Bytes that its dispatches access over those that must move; none where none must.
    traffic: Option<f64>,
}

impl Row {
    /// What the table holds a kernel to.
    fn held(&self) -> [(&'static str, f64); 4] {
        let c = &self.compiled;
        [
            ("registers", c.registers as f64),
            ("cycles", c.cycles as f64),
            ("words loaded for each multiply-add", c.loads_per_fma().unwrap_or_default()),
            ("bytes accessed for each that must move", self.traffic.unwrap_or_default()),
        ]
    }
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
                Some(row) => row.compiled.clone(),
                None => card.compile(key, &code)?,
            };
            Ok((label, Row { code: digest, compiled, traffic: None }))
        };
        let rows = keys.par_iter().map(row).collect::<Result<_>>()?;
        Ok(Self { driver: card.driver().into(), rows })
    }

    /// Notes how many more bytes dispatches access than must move, all of a kernel together.
    pub fn note_traffic<'a>(&mut self, all: impl Iterator<Item = &'a Dispatch>) -> Result<()> {
        let mut bytes: BTreeMap<String, [f64; 2]> = BTreeMap::new();
        for dispatch in all {
            let [accesses, must] = bytes.entry(dispatch.kernel.label()).or_default();
            *accesses += accessed(dispatch, self.get(&dispatch.kernel)?)?;
            *must += dispatch.bytes as f64;
        }
        for (label, row) in &mut self.rows {
            let known = bytes.get(label).filter(|[_, must]| *must > 0.0);
            // as many digits as the file has
            row.traffic = known.map(|[accesses, must]| (accesses / must * 1e3).round() / 1e3);
        }
        Ok(())
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
        let Compiled { registers, cycles, spilled, loops, .. } = self.get(key)?;
        let label = key.label();
        println!("{registers:4} registers {cycles:6} cycles {spilled:4} spilled  {label}");
        listing::show(loops);
        Ok(())
    }

    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let row = |line: &str| {
            let mut columns = line.split('\t');
            let label = columns.next()?.to_string();
            let mut number = || columns.next()?.parse().ok();
            let [threads, registers, spilled, cycles] =
                [number()?, number()?, number()?, number()?];
            let traffic = match columns.next()? {
                "" => None,
                number => Some(number.parse().ok()?),
            };
            let code = columns.next()?.into();
            let loops = listing::read(columns.next()?)?;
            let compiled = Compiled { threads, registers, spilled, cycles, loops };
            Some((label, Row { code, compiled, traffic }))
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
        for (label, Row { code, compiled, traffic }) in &self.rows {
            let Compiled { threads, registers, spilled, cycles, loops } = compiled;
            let loops = listing::written(loops);
            let traffic = traffic.map_or(String::new(), |number| number.to_string());
            writeln!(
                text,
                "{label}\t{threads}\t{registers}\t{spilled}\t{cycles}\t{traffic}\t{code}\t{loops}"
            )
            .map_err(|e| Error::Internal(e.to_string()))?;
        }
        write_atomically(path, text.as_bytes())
    }

    /// Kernels that take more than the table allows, that are not in it, and lines of it that no kernel has any more.
    pub fn worse_than(&self, table: &Self) -> Vec<String> {
        let mut faults = Vec::new();
        for (label, row) in &self.rows {
            let Some(most) = table.rows.get(label) else {
                faults.push(format!("{label}: not in the table; write it anew with --write"));
                continue;
            };
            for ((what, found), (_, most)) in row.held().into_iter().zip(most.held()) {
                if found > most * SLACK {
                    faults.push(format!("{label}: {found:.3} {what}, the table says {most:.3}"));
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
