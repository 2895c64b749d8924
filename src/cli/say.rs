//! Results on stdout.

use crate::base::{Error, Result};

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
