//! The line on stderr that says how far a test has come.

use std::io::{self, IsTerminal, Write};

/// Rewritten in place on a terminal, a line now and then elsewhere.
pub(super) struct Progress {
    is_terminal: bool,
    shown_ns: u64,
    /// Columns of the line that stands on the terminal.
    columns: usize,
}

impl Progress {
    pub(super) fn new(now_ns: u64) -> Self {
        Self { is_terminal: io::stderr().is_terminal(), shown_ns: now_ns, columns: 0 }
    }

    /// Shows what is going on, if the last time was long enough ago.
    pub(super) fn show(&mut self, now_ns: u64, line: impl FnOnce() -> String) {
        let interval_ns = if self.is_terminal { TERMINAL_INTERVAL_NS } else { LOG_INTERVAL_NS };
        if now_ns.saturating_sub(self.shown_ns) < interval_ns {
            return;
        }
        self.shown_ns = now_ns;
        let line = line();
        let mut stderr = io::stderr().lock();
        // Nobody may be reading; the test goes on all the same.
        let _ = match self.is_terminal {
            true => write!(stderr, "\r{line:<width$}", width = self.columns),
            false => writeln!(stderr, "{line}"),
        };
        self.columns = line.chars().count();
    }

    /// Clears the terminal's line.
    pub(super) fn clear(&mut self) {
        if self.is_terminal && self.columns > 0 {
            let _ = write!(io::stderr(), "\r{:width$}\r", "", width = self.columns);
            self.columns = 0;
        }
    }
}

const TERMINAL_INTERVAL_NS: u64 = 200_000_000;
const LOG_INTERVAL_NS: u64 = 5_000_000_000;
