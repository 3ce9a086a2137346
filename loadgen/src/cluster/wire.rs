//! What coordinator and workers say to each other: one JSON value a line over TCP.
//!
//! Owns the messages and their limits. The protocol trusts its peers to be what the operator started (it is for a test network; nothing is
//! authenticated) but not to be well: lines are bounded before they are read, and every wait has an end.
//!
//! ```text
//! worker                          coordinator
//!   hello {version, name}     ──►
//!                             ◄──  ping {number}      16 times
//!   pong {number, clock}      ──►
//!                             ◄──  job {...}          when all have come
//!   ready                     ──►                     connected to the target
//!                             ◄──  start {at}         in the worker's own clock
//!   moment {...}              ──►                     each second
//!   report {...}              ──►                     at the end; or failed {why}
//! ```

use std::io::{self, BufRead, Write};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::report::{Moment, Report};

/// Workers of one run, at most.
pub const WORKERS_MAX: u32 = 1_000;

/// Longest line, bytes: a report with a histogram for each of 64 classes.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Version of this protocol.
pub(super) const VERSION: u32 = 2;

/// What a worker is to do. Times are in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The profile, as TOML.
    pub profile: String,
    /// Share of the population, of all workers together.
    pub scale: f64,
    /// Seconds of the profile in one of the run.
    pub speedup: f64,
    /// Hour of its day, or the mean day.
    pub at_hour: Option<f64>,
    /// The shape, as text.
    pub shape: String,
    /// Unanswered batches per connection in the closed loop; open loop without.
    pub closed: Option<u32>,
    /// Time before measuring.
    pub warm_up_us: u64,
    /// Time that is measured.
    pub duration_us: u64,
    /// Time that outstanding acks are waited for.
    pub drain_us: u64,
    /// Connections of each worker.
    pub connections: u32,
    /// Messages in a batch, at most.
    pub batch: u32,
    /// Names the population.
    pub seed: u64,
    /// Limit of the generator's lag.
    pub lag_p99_us_max: u64,
    /// What an ack must mean, by name.
    pub ack_level: String,
    /// How often gateways send what is due.
    pub flush_us: u64,
    /// Handshakes per second of each worker, in the direct topology; gateways without.
    pub handshakes_per_s: Option<f64>,
    /// The target's address, or `null`.
    pub target: String,
    /// SHA-256 of its certificate in hex, if it was given.
    pub pin: Option<String>,
    /// Which part of the events: this worker.
    pub worker: u32,
    /// Of so many.
    pub workers: u32,
}

/// A line of either side.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Hello { version: u32, name: String },
    Ping { number: u32 },
    Pong { number: u32, unix_us: u64 },
    Job(Box<Job>),
    Ready,
    Start { unix_us: u64, sequence_base: u64 },
    Moment(Box<Moment>),
    Report(Box<Report>),
    Failed { why: String },
}

/// Writes one line.
pub(super) fn say(out: &mut impl Write, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    out.write_all(&text)?;
    out.flush()
}

/// Reads one line; `UnexpectedEof` when the other side is gone.
pub(super) fn hear(from: &mut impl BufRead) -> io::Result<Line> {
    let mut text = Vec::new();
    let read = io::Read::take(&mut *from, LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
    if read == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"));
    }
    if text.last() != Some(&b'\n') {
        let problem = if read as u64 >= LINE_BYTES_MAX {
            format!("a line of more than {LINE_BYTES_MAX} bytes")
        } else {
            "the connection was closed within a line".to_owned()
        };
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    serde_json::from_slice(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// This machine's clock, microseconds since the Unix epoch.
pub(super) fn unix_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    crate::schedule::as_us(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_as_they_were_said() {
        let mut bytes = Vec::new();
        say(&mut bytes, &Line::Ping { number: 7 }).unwrap();
        say(&mut bytes, &Line::Report(Box::default())).unwrap();
        let mut from = bytes.as_slice();
        assert!(matches!(hear(&mut from).unwrap(), Line::Ping { number: 7 }));
        assert!(matches!(hear(&mut from).unwrap(), Line::Report(_)));
        assert_eq!(hear(&mut from).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        for nonsense in [&b"{}\n"[..], b"\n", b"\xff\xff\n", b"{\"ping\":{\"number\":1}}"] {
            assert_eq!(hear(&mut &nonsense[..]).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
