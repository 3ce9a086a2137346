//! From a profile to events: which device of which class speaks when, in constant memory.
//!
//! Owns [`Arrivals`], which is asked tick by tick (a tick is a few milliseconds) for the events that fall due in it, and
//! [`Arrivals::resolve`], which tells whose they are. Deterministic: same profile, seed, scale and split, same events. Time is *virtual*: the
//! profile's own seconds since midnight UTC of its day, which a schedule maps to the clock of the run.
//!
//! Nothing is kept per device. A process that uses each device once per cycle (periodic, aligned, Beta) is told by its cumulative count
//! `C(t)`: event `k` falls due when `C` reaches `k`, and belongs to the device that a keyed permutation
//! ([`feistel`](crate::feistel)) puts at place `k` modulo their number. The day's curve bends `C`, so that periods are shorter by day and
//! longer by night, and stay cycles. A process without memory (Poisson, modulated Poisson) is the superposition of all its devices:
//! exponential times of the summed rate, thinned by the local time of the device that is drawn.
//!
//! Devices are numbered over the whole population, class by class. A sampled population (scale below 1) takes one device from each
//! stretch of equal length, so that numbers range over all of it.
//!
//! | process | place of the event | device | sequence counts |
//! |---|---|---|---|
//! | periodic | cycle, slot | permutation of the stream; shuffled within the jitter each cycle | cycles, if the device is in no other stream |
//! | aligned, Beta, reconnect | occurrence, rank | permutation of the occurrence | milliseconds |
//! | Poisson, modulated | drawn | drawn | milliseconds |

mod curve;
mod random;
mod regions;
mod stream;
#[cfg(test)]
mod tests;

pub use random::unit;

use stream::Stream;

use crate::mix::mix;
use crate::profile::Profile;

/// Part of the events that one generator makes: `worker` of `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Which part, from 0.
    pub worker: u32,
    /// How many parts there are, at least 1.
    pub of: u32,
}

impl Split {
    /// All events.
    pub const WHOLE: Self = Self { worker: 0, of: 1 };
}

/// One event, before it is told whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When it is due, microseconds since the start of the run (of the tick, in a closed loop).
    pub due_us: u64,
    /// Which one it is within its stream.
    pub(crate) key: u64,
    /// Virtual milliseconds since the start.
    pub(crate) at_ms: u32,
    /// Time zone or region.
    pub(crate) part: u16,
    pub(crate) stream: u8,
    /// Device of a gateway, message of a burst, or attempt.
    pub(crate) sub: u8,
}

/// Whose event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// Number of the device, over the whole population of the profile.
    pub device: u64,
    /// Number of its message within the run: rising per device. The sequence is this plus the base of the run.
    pub count: u64,
    /// Mixed bits that belong to this event alone: sizes, payloads and faults are drawn from them.
    pub bits: u64,
}

/// A stretch of virtual time, and the stretch of the run that it is mapped to.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// Beginning and end, virtual seconds since midnight UTC.
    pub from_s: f64,
    /// End.
    pub to_s: f64,
    /// Beginning, microseconds since the start of the run.
    pub due_us: u64,
    /// Length, microseconds.
    pub length_us: u64,
}

/// The events of a profile.
#[derive(Clone, Debug)]
pub struct Arrivals {
    streams: Vec<Stream>,
    /// Class of each stream.
    classes: Vec<u16>,
    class_count: usize,
    /// Devices of the sampled population.
    devices: u64,
    start_s: f64,
    /// Seed of the draws, if events come from a trace: they say themselves whose they are.
    replayed: Option<u64>,
}

/// How a profile is played.
#[derive(Clone, Copy, Debug)]
pub struct Play {
    /// Names the population and the run's draws.
    pub seed: u64,
    /// Share of the population that takes part, above 0 and at most 1.
    pub scale: f64,
    /// Whether rates follow the time of day; otherwise they are those of the mean over the day.
    pub diurnal: bool,
    /// Virtual time of the start, seconds after midnight UTC.
    pub start_s: f64,
    /// Which part of the events.
    pub split: Split,
}

impl Arrivals {
    /// The events of `profile`, played so.
    #[must_use]
    pub fn new(profile: &Profile, play: &Play) -> Self {
        let (mut streams, mut classes) = (Vec::new(), Vec::new());
        let (mut first, mut devices) = (0, 0);
        for (number, class) in profile.classes.iter().enumerate() {
            let sampled = sampled(class.devices, play.scale);
            devices += sampled;
            for stream in &class.streams {
                let seed = mix(play.seed ^ mix(streams.len() as u64 ^ 0x5354_5245_414D));
                let base = stream::Base { first, devices: class.devices, sampled };
                streams.push(Stream::new(profile, class, stream, base, seed, play));
                classes.push(number as u16);
            }
            first += class.devices;
        }
        let class_count = profile.classes.len();
        Self { streams, classes, class_count, devices, start_s: play.start_s, replayed: None }
    }

    /// Tells whose events those of a [`Replay`](crate::trace) are, with `classes` classes; makes none of its own.
    #[must_use]
    pub(crate) fn of_trace(classes: usize, seed: u64) -> Self {
        Self {
            streams: Vec::new(),
            classes: (0..classes as u16).collect(),
            class_count: classes,
            devices: 0,
            start_s: 0.0,
            replayed: Some(seed),
        }
    }

    /// Payload of an event in bytes, if a trace says so.
    #[must_use]
    pub(crate) fn size(&self, arrival: &Arrival) -> Option<usize> {
        self.replayed.map(|_| arrival.at_ms as usize)
    }

    /// Number of classes.
    pub(crate) const fn class_count(&self) -> usize {
        self.class_count
    }

    /// Whether the device of an event has lost its connection and makes a new one.
    #[must_use]
    pub(crate) fn reconnects(&self, arrival: &Arrival) -> bool {
        self.streams.get(usize::from(arrival.stream)).is_some_and(Stream::reconnects)
    }

    /// Devices that take part.
    #[must_use]
    pub const fn devices(&self) -> u64 {
        self.devices
    }

    /// Appends the events of the next tick to `out`, stream by stream (not sorted by time). Ticks follow each other without gaps.
    pub fn fill(&mut self, tick: &Tick, out: &mut Vec<Arrival>) {
        let emit = stream::Emit { tick: *tick, start_s: self.start_s };
        for (number, stream) in self.streams.iter_mut().enumerate() {
            stream.fill(&emit, number as u8, out);
        }
    }

    /// Messages per second expected at `at_s`, of this part of the events.
    #[must_use]
    pub fn rate_at(&self, at_s: f64) -> f64 {
        // Not a derivative: windows that are shut now may open in a moment, and callers want a length of tick that holds then too.
        self.streams.iter().map(|stream| stream.expected(at_s, at_s + 1.0)).sum()
    }

    /// Messages that the models expect of each class between two virtual times, of this part of the events.
    #[must_use]
    pub fn expected(&self, from_s: f64, to_s: f64) -> Vec<f64> {
        let mut counts = vec![0.0; self.class_count];
        for (stream, class) in self.streams.iter().zip(&self.classes) {
            counts[usize::from(*class)] += stream.expected(from_s, to_s);
        }
        counts
    }

    /// Class of an event.
    #[must_use]
    pub fn class(&self, arrival: &Arrival) -> u16 {
        self.classes[usize::from(arrival.stream)]
    }

    /// Whose event it is.
    #[must_use]
    pub fn resolve(&self, arrival: &Arrival) -> Speaker {
        if let Some(seed) = self.replayed {
            let bits = mix(seed ^ mix(arrival.key) ^ mix(arrival.due_us ^ 0x5452_4143));
            return Speaker { device: arrival.key, count: arrival.due_us, bits };
        }
        self.streams[usize::from(arrival.stream)].resolve(arrival)
    }
}

/// Devices of `all` that take part at `scale`: at least one.
#[must_use]
pub fn sampled(all: u64, scale: f64) -> u64 {
    ((all as f64 * scale).round() as u64).clamp(1, all)
}
