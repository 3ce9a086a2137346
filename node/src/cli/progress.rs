//! Progress on stderr: one line that is overwritten if stderr is a terminal, else a line now and then.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How often a terminal's line changes.
const TERMINAL_EVERY: Duration = Duration::from_millis(200);
/// How often a line is added to a log.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Says how far a command is. Its line is wiped when it is dropped.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    last: Option<Instant>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// Nothing said yet.
    #[must_use]
    pub fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), last: None }
    }

    /// Says `text` if it is time to say something again; it is made only then.
    pub fn maybe(&mut self, text: impl FnOnce() -> String) {
        let every = if self.terminal { TERMINAL_EVERY } else { LOG_EVERY };
        // The first call starts the clock: what is over at once needs no progress.
        let last = *self.last.get_or_insert_with(Instant::now);
        if last.elapsed() >= every {
            self.say(&text());
        }
    }

    /// Says `text` now.
    pub fn say(&mut self, text: &str) {
        self.last = Some(Instant::now());
        let mut stderr = std::io::stderr();
        // Progress that nobody can read is no reason to stop.
        let _ = if self.terminal { write!(stderr, "\r\x1b[K{text}") } else { writeln!(stderr, "{text}") };
    }

    /// Wipes the line, so that something else can be printed.
    pub fn clear(&mut self) {
        if self.terminal && self.last.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
