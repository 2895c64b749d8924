//! Results on stdout.

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
    use std::io::{ErrorKind, Write};
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

/// As `eprintln!`, but what cannot be written is lost, as after a terminal hung up.
macro_rules! note {
    ($($arg:tt)*) => {
        $crate::cli::say::write_note(format_args!($($arg)*))
    };
}

/// Writes a line about the work to stderr.
pub fn write_note(line: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
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
