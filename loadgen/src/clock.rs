//! The clock of one run: microseconds since its start, tied once to the wall clock.
//!
//! Owns the conversion between the two. Everything that is measured uses the monotonic side; the wall clock only dates messages and names
//! the sequence base, so a step of it during a run moves no latency.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Start of a run on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunClock {
    start: Instant,
    started_unix_us: u64,
}

impl RunClock {
    /// A run that starts now.
    pub(crate) fn start() -> Self {
        // A clock before 1970 counts as 1970: the node will say what it thinks of such messages.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { start: Instant::now(), started_unix_us: crate::schedule::as_us(since_epoch) }
    }

    /// Microseconds since the start.
    pub(crate) fn now_us(&self) -> u64 {
        self.at_us(Instant::now())
    }

    /// Microseconds from the start to `instant`; 0 for earlier ones.
    pub(crate) fn at_us(&self, instant: Instant) -> u64 {
        crate::schedule::as_us(instant.saturating_duration_since(self.start))
    }

    /// The instant `us` microseconds after the start.
    pub(crate) fn instant(&self, us: u64) -> Instant {
        // Beyond what the platform can represent nothing is ever due: an hour from now stands for it.
        self.start
            .checked_add(Duration::from_micros(us))
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600))
    }

    /// Wall clock `us` microseconds after the start, in microseconds since the Unix epoch.
    pub(crate) const fn unix_us(&self, us: u64) -> u64 {
        self.started_unix_us.saturating_add(us)
    }
}
