//! Results on stdout, notes and progress on stderr.

use std::io::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use log::{Level, LevelFilter};

use crate::base::{Error, Result};

pub use crate::report::bytes;

/// As `println!`, but returns an error from the function around it where stdout cannot be written.
macro_rules! say {
    ($($arg:tt)*) => {
        $crate::cli::say::write_line(format_args!($($arg)*))?
    };
}

/// Writes a line of results; a reader that has had enough, such as `head`, is no failure.
pub fn write_line(line: std::fmt::Arguments<'_>) -> Result<()> {
    use std::io::ErrorKind;
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::file(
            "stdout",
            format!("that it cannot be written ({e})"),
            "room for the results",
            "Free some, or send the output elsewhere.",
        )),
        _ => Ok(()),
    }
}

/// Prints a value as JSON.
pub fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Internal(e.to_string()))?;
    write_line(format_args!("{text}"))
}

/// Says something about the work on stderr, unless `-q` is given. What cannot be written is lost, as after a terminal hung up.
macro_rules! note {
    ($($arg:tt)*) => {
        log::info!(target: $crate::cli::say::NOTE, $($arg)*)
    };
}

/// Says why something failed, on stderr.
macro_rules! fault {
    ($($arg:tt)*) => {
        log::error!(target: $crate::cli::say::NOTE, $($arg)*)
    };
}

/// What tells these lines from those of the library's log.
pub const NOTE: &str = "note";

/// Sends notes and the log to stderr: of the log warnings, details with `-v`, and what `RUST_LOG` says where it is set.
pub fn log(quiet: bool, verbose: bool) {
    let (notes, filter) = match (quiet, verbose) {
        (true, _) => (LevelFilter::Error, "error"),
        (_, true) => (LevelFilter::Info, "warn,wgpu_hal=error,u2seg=debug"),
        _ => (LevelFilter::Info, "warn,wgpu_hal=error"),
    };
    let env = env_logger::Env::default().default_filter_or(filter);
    let mut log = env_logger::Builder::from_env(env);
    log.filter_module(NOTE, notes).format(|stderr, record| {
        let style = stderr.default_level_style(record.level());
        let level = record.level().as_str().to_lowercase();
        match record.level() {
            Level::Info if record.target() == NOTE => writeln!(stderr, "{}", record.args()),
            _ if record.target() == NOTE => {
                writeln!(stderr, "{style}{level}:{style:#} {}", record.args())
            }
            _ => {
                writeln!(stderr, "{style}{level}:{style:#} {}: {}", record.target(), record.args())
            }
        }
    });
    log.init();
}

/// How bars of cases look.
pub const CASES: &str = "{bar:30} {pos} of {len} cases, {elapsed_precise}, {eta_precise} to go";

/// A bar on a terminal, of so much work where that is known; nothing elsewhere, and with `-q`.
pub fn bar(length: Option<u64>, template: &str) -> ProgressBar {
    let bar = length.map_or_else(ProgressBar::no_length, ProgressBar::new);
    if !log::log_enabled!(target: NOTE, Level::Info) {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    bar.set_style(style(template));
    bar
}

/// Shows that something is going on that has no measure, until it is cleared.
pub fn spinner(text: &str) -> ProgressBar {
    let bar = bar(None, "{spinner} {msg}, {elapsed_precise}");
    bar.set_message(text.to_string());
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A bar that goes away with whoever shows it.
pub struct Cleared(pub ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A bar's look.
pub fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_have_the_unit_that_reads_best() {
        let told = [0, 1500, 3 << 20, 1 << 30, 25_000_000_000].map(bytes);
        assert_eq!(told, ["0 KiB", "2 KiB", "3 MiB", "1.00 GiB", "23.28 GiB"]);
    }
}
