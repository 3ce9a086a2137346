//! Recorded traces: which device of which class was to say how much, and when.
//!
//! Owns the file format, its decoder and what is known of a file after it was read once ([`Trace`]); playing one is in `replay`, writing
//! one in `record`. A trace is CSV: lines that begin with `#` are comments, the first other line names the columns, and each further line
//! is one message, in the order of time:
//!
//! ```text
//! offset_us,device,payload_bytes,class
//! 0,1234567,64,home_sensor
//! ```
//!
//! | column | meaning | limits |
//! |---|---|---|
//! | `offset_us` | when it is due, microseconds since the start of the run, warm-up included | never falling, at most a year |
//! | `device` | number of the device | below 2^48 |
//! | `payload_bytes` | its payload, 16-byte tag included | 16 to 16,384 |
//! | `class` | a class of the profile; empty: its first | |
//!
//! Invariants: memory does not depend on the length of a file; a line is bounded before it is read; a file that [`Trace::open`] took has no
//! bad line, unless it was changed since, which a replay finds.

mod record;
mod replay;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

pub(crate) use record::Recorder;
pub(crate) use replay::Replay;

use weft_core::PAYLOAD_BYTES_MAX;

use crate::config::DURATION_MAX;
use crate::feistel::DEVICES_MAX;
use crate::payload::PAYLOAD_BYTES_MIN;
use crate::schedule::as_us;

/// Names of the columns: the first line of a trace that is no comment.
pub const HEADER: &str = "offset_us,device,payload_bytes,class";

/// Longest line, bytes, with its end.
pub const LINE_BYTES_MAX: usize = 256;

/// Stretches of equal length in which the messages of a trace are counted, at most.
const BINS: usize = 4_096;

/// Length of a stretch at first, microseconds.
const BIN_US: u64 = 1_000;

/// One message of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it is due, microseconds since the start.
    pub offset_us: u64,
    /// Number of its device.
    pub device: u64,
    /// Its payload, bytes.
    pub payload_bytes: u32,
    /// Number of its class, in the order of the names that the decoder was given.
    pub class: u8,
}

/// Reads a trace line by line.
#[derive(Debug)]
pub struct Decoder<R> {
    from: R,
    classes: Vec<String>,
    line: u64,
    last_us: u64,
    begun: bool,
    text: Vec<u8>,
}

fn wrong(line: u64, what: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("line {line}: {what}"))
}

impl<R: BufRead> Decoder<R> {
    /// A decoder at the beginning of a trace whose classes are among `classes` (at most 256).
    #[must_use]
    pub fn new(from: R, classes: Vec<String>) -> Self {
        Self { from, classes, line: 0, last_us: 0, begun: false, text: Vec::new() }
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// Those of the reader, and `InvalidData` with the number of the line for one that is no line of a trace.
    pub fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        loop {
            self.text.clear();
            let read = (&mut self.from).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut self.text)?;
            if read == 0 {
                let empty =
                    || wrong(self.line, format_args!("the end, and nothing but comments; need {HEADER}"));
                return if self.begun { Ok(None) } else { Err(empty()) };
            }
            self.line += 1;
            if read == LINE_BYTES_MAX && self.text.last() != Some(&b'\n') {
                return Err(wrong(self.line, format_args!("longer than {LINE_BYTES_MAX} bytes")));
            }
            let text = std::str::from_utf8(&self.text).map_err(|error| wrong(self.line, error))?;
            let text = text.trim_end_matches(['\n', '\r']);
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            if !self.begun {
                if text != HEADER {
                    let got: String = text.chars().take(60).collect();
                    return Err(wrong(self.line, format_args!("got {got:?}, need {HEADER}")));
                }
                self.begun = true;
                continue;
            }
            let entry = parse(text, &self.classes).map_err(|what| wrong(self.line, what))?;
            if entry.offset_us < self.last_us {
                let (now, before) = (entry.offset_us, self.last_us);
                return Err(wrong(
                    self.line,
                    format_args!("due at {now} us, before the line above ({before} us)"),
                ));
            }
            self.last_us = entry.offset_us;
            return Ok(Some(entry));
        }
    }
}

fn parse(text: &str, classes: &[String]) -> Result<Entry, String> {
    let mut fields = text.split(',');
    let mut field = |name: &str| fields.next().ok_or_else(|| format!("{name} is missing"));
    let (offset, device, payload, class) =
        (field("offset_us")?, field("device")?, field("payload_bytes")?, field("class")?);
    if fields.next().is_some() {
        return Err("more than four columns".to_owned());
    }
    let number = |name: &str, text: &str, least: u64, most: u64| {
        let number = text.parse::<u64>().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| format!("{name} is {text:?}; it must be between {least} and {most}"))
    };
    let class = if class.is_empty() { Some(0) } else { classes.iter().position(|name| name == class) }
        .and_then(|number| u8::try_from(number).ok())
        .ok_or_else(|| format!("the profile has no class {class:?}; it has {}", classes.join(", ")))?;
    Ok(Entry {
        offset_us: number("offset_us", offset, 0, as_us(DURATION_MAX))?,
        device: number("device", device, 0, DEVICES_MAX - 1)?,
        payload_bytes: number("payload_bytes", payload, PAYLOAD_BYTES_MIN as u64, PAYLOAD_BYTES_MAX as u64)?
            as u32,
        class,
    })
}

/// Counts by class in stretches of equal length, whose length doubles as the trace turns out longer.
#[derive(Clone, Debug)]
struct Density {
    classes: usize,
    width_us: u64,
    counts: Vec<u64>,
}

impl Density {
    fn new(classes: usize) -> Self {
        Self { classes, width_us: BIN_US, counts: vec![0; BINS * classes] }
    }

    fn add(&mut self, entry: &Entry) {
        while entry.offset_us / self.width_us >= BINS as u64 {
            for bin in 0..BINS {
                for class in 0..self.classes {
                    let at = |bin: usize| bin * self.classes + class;
                    let sum = if 2 * bin < BINS {
                        self.counts[at(2 * bin)] + self.counts[at(2 * bin + 1)]
                    } else {
                        0
                    };
                    self.counts[at(bin)] = sum;
                }
            }
            self.width_us *= 2;
        }
        let bin = (entry.offset_us / self.width_us) as usize;
        self.counts[bin * self.classes + usize::from(entry.class)] += 1;
    }

    /// Messages of each class from one time to another; within a stretch they count as evenly spread.
    fn between(&self, from_us: u64, to_us: u64) -> Vec<f64> {
        let mut sums = vec![0.0; self.classes];
        let last = (to_us / self.width_us).min(BINS as u64 - 1);
        for bin in from_us / self.width_us..=last {
            let (start, end) = (bin * self.width_us, (bin + 1) * self.width_us);
            let inside = end.min(to_us).saturating_sub(start.max(from_us));
            let share = inside as f64 / self.width_us as f64;
            let counts = &self.counts[bin as usize * self.classes..][..self.classes];
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += share * *count as f64);
        }
        sums
    }
}

/// A trace that was read once from end to end: what it holds in all, and nothing of it by itself.
#[derive(Clone, Debug)]
pub struct Trace {
    path: PathBuf,
    classes: Vec<String>,
    events: u64,
    last_us: u64,
    device_max: u64,
    payload_bytes: u64,
    payload_bytes_max: u32,
    density: Density,
}

impl Trace {
    /// Reads the file at `path` once; its classes are among `classes`.
    ///
    /// # Errors
    /// If it cannot be read, has a bad line, or no message.
    pub fn open(path: &Path, classes: Vec<String>) -> io::Result<Self> {
        let mut trace = Self {
            path: path.to_owned(),
            density: Density::new(classes.len()),
            classes,
            events: 0,
            last_us: 0,
            device_max: 0,
            payload_bytes: 0,
            payload_bytes_max: 0,
        };
        let mut decoder = trace.decoder()?;
        while let Some(entry) = decoder.next_entry()? {
            trace.events += 1;
            trace.last_us = entry.offset_us;
            trace.device_max = trace.device_max.max(entry.device);
            trace.payload_bytes += u64::from(entry.payload_bytes);
            trace.payload_bytes_max = trace.payload_bytes_max.max(entry.payload_bytes);
            trace.density.add(&entry);
        }
        if trace.events == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a trace without messages"));
        }
        Ok(trace)
    }

    fn decoder(&self) -> io::Result<Decoder<BufReader<File>>> {
        let file = BufReader::with_capacity(1 << 16, File::open(&self.path)?);
        Ok(Decoder::new(file, self.classes.clone()))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its messages.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// From the start to the last message, microseconds.
    #[must_use]
    pub const fn last_us(&self) -> u64 {
        self.last_us
    }

    /// Highest device number.
    #[must_use]
    pub const fn device_max(&self) -> u64 {
        self.device_max
    }

    /// Longest payload, bytes.
    #[must_use]
    pub const fn payload_bytes_max(&self) -> u32 {
        self.payload_bytes_max
    }

    /// Mean payload, bytes.
    #[must_use]
    pub fn payload_bytes_mean(&self) -> f64 {
        self.payload_bytes as f64 / self.events as f64
    }

    /// Messages per second, mean from the start to the last one.
    #[must_use]
    pub fn rate_per_s(&self) -> f64 {
        self.events as f64 * 1e6 / (self.last_us + 1) as f64
    }

    /// Messages of each class between two times of the trace, in microseconds; exact but for the ends, where stretches of one 4,096th
    /// to one 2,048th of the trace count as even.
    #[must_use]
    pub fn between(&self, from_us: u64, to_us: u64) -> Vec<f64> {
        self.density.between(from_us, to_us)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn classes() -> Vec<String> {
        ["home_sensor", "camera"].map(str::to_owned).to_vec()
    }

    fn decode(text: &str) -> io::Result<Vec<Entry>> {
        let mut decoder = Decoder::new(text.as_bytes(), classes());
        std::iter::from_fn(|| decoder.next_entry().transpose()).collect()
    }

    #[test]
    fn a_trace_is_read_as_it_is_documented() {
        let text = "# mine\r\n\noffset_us,device,payload_bytes,class\n0,7,16,camera\r\n# later\n5,281474976710655,16384,\n5,0,20,home_sensor";
        let entry =
            |offset_us, device, payload_bytes, class| Entry { offset_us, device, payload_bytes, class };
        let expected = [entry(0, 7, 16, 1), entry(5, (1 << 48) - 1, 16_384, 0), entry(5, 0, 20, 0)];
        assert_eq!(decode(text).unwrap(), expected);
    }

    #[test]
    fn a_bad_line_is_named_with_its_number_and_its_reason() {
        for (lines, reason) in [
            ("5,1,64,camera\n4,1,64,camera", "line 3: due at 4 us, before the line above (5 us)"),
            ("5,1,15,camera", "payload_bytes is \"15\"; it must be between 16 and 16384"),
            ("5,281474976710656,16,camera", "device is"),
            ("-5,1,16,camera", "offset_us is \"-5\""),
            ("5,1,16,kettle", "no class \"kettle\"; it has home_sensor, camera"),
            ("5,1,16", "class is missing"),
            ("5,1,16,camera,9", "more than four columns"),
            ("40000000000000,1,16,camera", "offset_us is"),
        ] {
            let error = decode(&format!("{HEADER}\n{lines}")).unwrap_err().to_string();
            assert!(error.contains(reason), "{lines}: {error}");
        }
        assert!(
            decode("1,1,16,camera").unwrap_err().to_string().contains("line 1: got \"1,1,16,camera\", need")
        );
        assert!(decode("# nothing").unwrap_err().to_string().contains("nothing but comments"));
        let long = format!("{HEADER}\n#{}\n", "x".repeat(LINE_BYTES_MAX));
        assert!(decode(&long).unwrap_err().to_string().contains("longer than 256 bytes"));
        let longest = format!("{HEADER}\n#{}\n1,1,16,\n", "x".repeat(LINE_BYTES_MAX - 2));
        assert_eq!(decode(&longest).unwrap().len(), 1);
    }

    #[test]
    fn a_scan_knows_what_a_file_holds() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "{HEADER}").unwrap();
        // Twenty seconds, so that stretches have doubled three times; the camera speaks only in the second half.
        for tick in 0..20_000u64 {
            let class = if tick >= 10_000 { "camera" } else { "" };
            writeln!(file, "{},{},{},{class}", tick * 1_000, tick % 900, 16 + tick % 3).unwrap();
        }
        file.flush().unwrap();
        let trace = Trace::open(file.path(), classes()).unwrap();
        assert_eq!(
            (trace.events(), trace.last_us(), trace.device_max(), trace.payload_bytes_max()),
            (20_000, 19_999_000, 899, 18)
        );
        assert!(
            (trace.rate_per_s() - 1_000.0).abs() < 1.0 && (trace.payload_bytes_mean() - 17.0).abs() < 0.01
        );
        assert_eq!(trace.between(0, u64::MAX), [10_000.0, 10_000.0]);
        let middle = trace.between(9_000_000, 11_000_000);
        assert!(middle.iter().all(|count| (count - 1_000.0).abs() <= 8.0), "{middle:?}");
        assert!(trace.between(30_000_000, 40_000_000).iter().all(|count| *count == 0.0));
        let empty = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(empty.path(), format!("{HEADER}\n")).unwrap();
        assert!(Trace::open(empty.path(), classes()).unwrap_err().to_string().contains("without messages"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_trace_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut text = HEADER.as_bytes().to_vec();
            text.push(b'\n');
            text.extend(&bytes);
            let mut decoder = Decoder::new(text.as_slice(), classes());
            let mut last = 0;
            while let Ok(Some(entry)) = decoder.next_entry() {
                prop_assert!(entry.offset_us >= last && usize::from(entry.class) < 2);
                last = entry.offset_us;
            }
        }
    }
}
