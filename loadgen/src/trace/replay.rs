//! A trace as the source of a run's events.
//!
//! Owns the cursor that reads a trace once more while the run goes on, and the mapping of its times: the trace's microseconds divided by
//! the speed-up. Invariants: one line of the file is held at a time; every message of the trace is given once, in the order of the file.
//! An arrival of a replay holds the device as its key, the payload as its milliseconds, and the class as its stream.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use super::{Decoder, Entry, Trace};
use crate::arrival::Arrival;

/// A trace that is being played.
#[derive(Debug)]
pub(crate) struct Replay {
    trace: Arc<Trace>,
    decoder: Decoder<BufReader<File>>,
    speedup: f64,
    /// Read and not due yet.
    next: Option<Entry>,
    /// Messages read, the next one included.
    read: u64,
    failed: Option<String>,
}

impl Replay {
    /// The trace from its beginning, `speedup` times as fast as it was recorded.
    ///
    /// # Errors
    /// If the file cannot be opened any more.
    pub(crate) fn new(trace: Arc<Trace>, speedup: f64) -> std::io::Result<Self> {
        let decoder = trace.decoder()?;
        let mut replay = Self { trace, decoder, speedup, next: None, read: 0, failed: None };
        replay.advance();
        Ok(replay)
    }

    fn advance(&mut self) {
        self.next = self.decoder.next_entry().unwrap_or_else(|error| {
            self.failed = Some(error.to_string());
            None
        });
        match self.next {
            Some(_) => self.read += 1,
            None if self.failed.is_none() && self.read < self.trace.events() => {
                self.failed =
                    Some(format!("it ends after {} of {} messages", self.read, self.trace.events()));
            }
            None => {}
        }
    }

    /// When an entry is due in the run.
    fn due_us(&self, entry: &Entry) -> u64 {
        (entry.offset_us as f64 / self.speedup) as u64
    }

    /// Appends what is due before `to_us`, in the order of the file.
    pub(crate) fn fill(&mut self, to_us: u64, out: &mut Vec<Arrival>) {
        while let Some(entry) = self.next {
            let due_us = self.due_us(&entry);
            if due_us >= to_us {
                return;
            }
            out.push(Arrival {
                due_us,
                key: entry.device,
                at_ms: entry.payload_bytes,
                part: 0,
                stream: entry.class,
                sub: 0,
            });
            self.advance();
        }
    }

    /// Messages of each class that are due between two times of the run.
    pub(crate) fn expected(&self, from_us: u64, to_us: u64) -> Vec<f64> {
        let there = |us: u64| (us as f64 * self.speedup) as u64;
        self.trace.between(there(from_us), there(to_us))
    }

    /// What was wrong with the file on second reading, if anything.
    pub(crate) fn failed(&self) -> Option<String> {
        let why = self.failed.as_ref()?;
        Some(format!("the trace {} was changed since the run began: {why}", self.trace.path().display()))
    }

    /// Whether everything was given.
    pub(crate) const fn is_used_up(&self) -> bool {
        self.next.is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::trace::HEADER;

    #[test]
    fn a_replay_gives_every_message_once_at_its_time_and_finds_a_file_that_was_cut() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{HEADER}").unwrap();
        for (number, offset_us) in [0u64, 3, 3, 10, 4_000].iter().enumerate() {
            writeln!(file, "{offset_us},{number},{},", 20 + number).unwrap();
        }
        file.flush().unwrap();
        let trace = Arc::new(Trace::open(file.path(), vec!["c".to_owned()]).unwrap());
        let mut replay = Replay::new(Arc::clone(&trace), 2.0).unwrap();
        let mut out = Vec::new();
        replay.fill(5, &mut out);
        let seen: Vec<_> = out.iter().map(|row| (row.due_us, row.key, row.at_ms)).collect();
        assert_eq!(seen, [(0, 0, 20), (1, 1, 21), (1, 2, 22)], "10 us at twice the speed are 5");
        assert!(!replay.is_used_up());
        replay.fill(u64::MAX, &mut out);
        assert_eq!((out.len(), out[4].due_us, replay.is_used_up(), replay.failed()), (5, 2_000, true, None));
        assert_eq!(replay.expected(0, 10_000), [5.0]);

        std::fs::write(file.path(), format!("{HEADER}\n0,0,20,\n3,1,21,\n")).unwrap();
        let mut cut = Replay::new(trace, 1.0).unwrap();
        cut.fill(u64::MAX, &mut Vec::new());
        assert!(cut.failed().unwrap().contains("ends after 2 of 5 messages"), "{:?}", cut.failed());
    }
}
