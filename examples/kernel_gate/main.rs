//! Holds every kernel that a GPU may run to what a real GPU compiler makes of it: no GPU is needed.
//!
//! Mesa's AMD compiler compiles for a card that is not there. For each variant of each kernel of the benchmark's
//! configurations it says how many registers it takes, what it spills, and how it rates its throughput; the committed table
//! says how much that may be, and how much they may load for what they compute. Kernels whose code is that of the table, by the same driver, are not compiled again. Kernels that few
//! groups run, first variants that need too many registers, and variants that a model finds hopeless are told too.
//!
//! ```text
//! cargo run --release --example kernel_gate                 # exit code 1 where something is worse than the table says
//! cargo run --release --example kernel_gate -- --write      # after a change that is meant: writes the table anew
//! cargo run --release --example kernel_gate -- --summary    # a table by shader, for the documents
//! cargo run --release --example kernel_gate -- --model      # reckons the step of each configuration on several cards
//! ```

mod card;
mod kernels;
mod listing;
mod model;
mod rules;
mod table;
mod trips;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::Parser;
use u2seg::{Error, Result};

use card::Card;
use kernels::Kernels;
use model::{CARDS, Step};
use table::Table;

/// The card that Mesa compiles for: the newest that the Mesa of Debian 12 compiles for without a cap on its registers.
const FAMILY: &str = "navi21";
/// Set in the process that talks to the driver.
const INSIDE: &str = "U2SEG_KERNEL_GATE";

/// Compiles every variant of every kernel for a card that is not there, and holds it to the committed table
#[derive(Parser)]
struct Arguments {
    /// Configurations of `u2seg bench`
    #[arg(long, num_args = 1.., default_values = ["paper", "hippo", "hippo-plain", "cube64", "spleen-infer"])]
    config: Vec<String>,
    /// The table
    #[arg(long, default_value = "tests/data/navi21.tsv")]
    table: PathBuf,
    /// Write the table instead of holding kernels to it
    #[arg(long)]
    write: bool,
    /// Print a table by shader
    #[arg(long)]
    summary: bool,
    /// Print what a model makes of a training step on several cards; of inference where a configuration does not train
    #[arg(long)]
    model: bool,
    /// Print each kernel whose label holds this text, with what its loops hold
    #[arg(long, value_name = "TEXT")]
    show: Option<String>,
}

fn main() -> ExitCode {
    env_logger::init();
    let arguments = Arguments::parse();
    let done = match std::env::var_os(INSIDE) {
        Some(_) => gate(&arguments),
        None => inside(),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

/// Runs this program again with the driver chosen: it reads its environment when it is loaded.
fn inside() -> Result<ExitCode> {
    let Some(driver) = card::driver() else {
        eprintln!(
            "kernel_gate: skipped, there is no driver of Mesa for AMD (Debian, Ubuntu: mesa-vulkan-drivers)"
        );
        return Ok(ExitCode::SUCCESS);
    };
    let program = std::env::current_exe().map_err(|e| Error::Internal(e.to_string()))?;
    let status = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .env("RADV_FORCE_FAMILY", FAMILY)
        .env("MESA_SHADER_CACHE_DISABLE", "1")
        .env("NODEVICE_SELECT", "1")
        .env("VK_ICD_FILENAMES", &driver)
        .env("VK_DRIVER_FILES", &driver)
        .status()
        .map_err(|e| Error::Internal(e.to_string()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn gate(arguments: &Arguments) -> Result<ExitCode> {
    let card = Card::open()?;
    let kernels = Kernels::of(&arguments.config)?;
    let keys: Vec<_> = kernels.keys().collect();
    let table = if arguments.write { None } else { Some(Table::read(&arguments.table)?) };
    let mut found = Table::of(&card, &keys, table.as_ref())?;
    found.note_traffic(kernels.dispatches())?;
    eprintln!("kernel_gate: {} kernels on {} by {}", keys.len(), card.name(), card.driver());
    if let Some(text) = &arguments.show {
        let wanted = keys.iter().filter(|key| key.label().contains(text));
        wanted.into_iter().try_for_each(|key| found.show(key))?;
    }
    if arguments.summary {
        rules::summary(&kernels, &found);
    }
    if arguments.model {
        model(&found, &arguments.config)?;
    }
    let mut faults = rules::faults(&kernels, &found)?;
    match table {
        Some(table) => faults.extend(found.worse_than(&table)),
        None => found.write(&arguments.table)?,
    }
    faults.iter().for_each(|fault| println!("{fault}"));
    println!("{} kernels, {} faults", keys.len(), faults.len());
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn model(found: &Table, names: &[String]) -> Result<()> {
    for name in names {
        let dispatches = kernels::step(name)?;
        for hardware in &CARDS {
            Step::of(hardware, &dispatches, found)?.print(name, hardware);
        }
    }
    Ok(())
}
