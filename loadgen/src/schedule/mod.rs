//! When events are due, and which of them a gateway sends together.
//!
//! Owns the pacing of a run: [`Schedule`] and [`Shape`] say what is wanted, [`Warp`] maps the clock of the run to the virtual time of the
//! profile, and [`Planner`] cuts the events into batches. Pure: time comes in as microseconds since the run began, nothing here sleeps.
//!
//! * Closed loop: a connection sends its next batch as soon as fewer than `window` are unanswered. A slow target slows the generator, so
//!   latencies are those of a load that waits politely: they cannot show what users of a fixed rate would see.
//! * Open loop: an event is due at its time whatever the target does, and its latency counts from then. A stalled target shows in every
//!   event that fell due meanwhile ("coordinated omission" is leaving those out; G. Tene, wrk2).

mod planner;
mod warp;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use planner::{Plan, Planner, Work};
pub use warp::{SHAPE_PARTS_MAX, Shape, Warp};

/// Events per second of one generator, at most: with more, neighbouring events would share a microsecond by the hundred, and no machine
/// signs that many.
pub const RATE_PER_S_MAX: f64 = 100e6;

/// How events are paced.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// At most `window` unanswered batches on each connection.
    Closed {
        /// Batches in flight per connection.
        window: u32,
    },
    /// Events when they are due.
    Open {
        /// Messages per second, over all connections: the mean of the profile at this scale, which its processes follow.
        rate_per_s: f64,
    },
}

/// A duration as whole microseconds, saturating.
pub(crate) fn as_us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
