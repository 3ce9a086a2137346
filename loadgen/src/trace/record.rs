//! Writing the intended schedule of a run as a trace.
//!
//! Owns the writer. What is recorded is what was due and when, before any fault on purpose took, doubled or delayed it; so a replay under
//! another profile's faults is the same traffic. Lines are written as the planner hands events out, in its order. A file that cannot be
//! written ends the recording, which the report names, and not the run.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::HEADER;
use crate::arrival::{Arrival, Arrivals};
use crate::payload::draw_size;
use crate::profile::{Profile, Size};

/// A trace under way.
#[derive(Debug)]
pub(crate) struct Recorder {
    out: Option<BufWriter<File>>,
    classes: Vec<(String, Size)>,
    failed: Option<io::Error>,
}

impl Recorder {
    /// Begins the file at `path`, for a run of `profile`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn create(path: &Path, profile: &Profile) -> io::Result<Self> {
        let mut out = BufWriter::with_capacity(1 << 18, File::create(path)?);
        let classes = profile.classes.iter().map(|class| (class.name.clone(), class.payload)).collect();
        // A checked profile's name is short and has no line in it.
        writeln!(out, "# weft loadgen {}: {}\n{HEADER}", env!("CARGO_PKG_VERSION"), profile.name)?;
        Ok(Self { out: Some(out), classes, failed: None })
    }

    /// Writes events, in the order of time.
    pub(crate) fn write(&mut self, rows: &[Arrival], arrivals: &Arrivals) {
        let Some(out) = &mut self.out else { return };
        let written = rows.iter().try_for_each(|row| {
            let speaker = arrivals.resolve(row);
            let (name, size) = &self.classes[usize::from(arrivals.class(row))];
            let size = arrivals.size(row).unwrap_or_else(|| draw_size(size, speaker.bits));
            writeln!(out, "{},{},{size},{name}", row.due_us, speaker.device)
        });
        if let Err(error) = written {
            self.failed = Some(error);
            self.out = None;
        }
    }

    /// Ends the file; tells what went wrong, if anything did.
    pub(crate) fn close(self) -> Option<String> {
        let flushed = self.out.map_or(Ok(()), |mut out| out.flush());
        self.failed.or(flushed.err()).map(|error| format!("the trace could not be written: {error}"))
    }
}
