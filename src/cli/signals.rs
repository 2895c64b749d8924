//! Signals that ask to end: the first one lets the work end in good order, a second one ends the program at once.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown, register_usize};

use crate::base::{Error, Result, Stop};

#[cfg(unix)]
use signal_hook::consts::SIGHUP;
/// Where there are no terminals that hang up.
#[cfg(not(unix))]
const SIGHUP: i32 = 1;

/// Every signal that is listened to, with its name and whether a second one ends the program at once.
const SIGNALS: [(i32, &str, bool); 3] =
    [(SIGINT, "SIGINT", true), (SIGTERM, "SIGTERM", true), (SIGHUP, "SIGHUP", false)];

/// From now on a signal asks to stop: SIGINT (Ctrl-C), SIGTERM and, where there are terminals, SIGHUP. What the program was
/// started to ignore, as `nohup` does, stays ignored.
pub fn listen(stop: &Stop) -> Result<()> {
    let came = Arc::new(AtomicBool::new(false));
    let fail = |e: std::io::Error| Error::Internal(format!("signals: {e}"));
    for (signal, _, twice) in SIGNALS {
        if !heard(signal) {
            continue;
        }
        // before it is noted that one came, so that the first one ends nothing
        if twice {
            register_conditional_shutdown(signal, code(signal), came.clone()).map_err(fail)?;
        }
        register(signal, came.clone()).map_err(fail)?;
        register_usize(signal, stop.cause_cell(), signal as usize).map_err(fail)?;
    }
    let stop = stop.clone();
    std::thread::spawn(move || acknowledge(&stop));
    Ok(())
}

/// Says that a signal was heard: what is at work may take some seconds to end.
fn acknowledge(stop: &Stop) {
    while stop.cause().is_none() {
        std::thread::sleep(Duration::from_millis(200));
    }
    note!("{}: ends in good order; once more, and it ends at once", name(stop));
}

/// The exit code of a program that a signal ended.
pub fn code(signal: i32) -> i32 {
    128 + signal
}

/// The name of the signal that asked to stop.
pub fn name(stop: &Stop) -> &'static str {
    let cause = stop.cause().and_then(|cause| i32::try_from(cause).ok());
    let known = SIGNALS.iter().find(|(signal, ..)| Some(*signal) == cause);
    known.map_or("a signal", |(_, name, _)| name)
}

/// Whether a signal is listened to: not one that the program was started to ignore.
fn heard(signal: i32) -> bool {
    if cfg!(windows) {
        return signal != SIGHUP;
    }
    match ignored() {
        Some(set) => set >> (signal - 1) & 1 == 0,
        // where the system does not say: nohup leaves no terminal to write to
        None => {
            signal != SIGHUP || std::io::stdout().is_terminal() || std::io::stderr().is_terminal()
        }
    }
}

/// The set of ignored signals, a bit each, as Linux tells it.
fn ignored() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_codes() {
        let stop = Stop::default();
        assert_eq!(name(&stop), "a signal");
        for (signal, expected, exit) in
            [(2, "SIGINT", 130), (15, "SIGTERM", 143), (1, "SIGHUP", 129)]
        {
            stop.ask(signal as usize);
            assert_eq!((name(&stop), code(signal)), (expected, exit));
        }
    }
}
