//! What a run is told: target, pacing, population, limits.
//!
//! Owns [`RunConfig`], its defaults and its limits; parsing flags and files is left to the command line. Invariant: a configuration that
//! passed [`RunConfig::validate`] keeps the memory of a run below [`RunConfig::worst_case_bytes`] (beside the runtime and the
//! connections' own windows), whatever the target does.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use weft_core::{MESSAGE_BYTES_MIN, NetworkId, PAYLOAD_BYTES_MAX};
use weft_crypto::Backend;
use weft_net::limits::SUBMIT_MESSAGES_MAX;
use weft_net::{AckLevel, Trust};

use crate::arrival::{Play, Split, sampled};
use crate::device::KEY_CACHE_SLOTS_DEFAULT;
use crate::error::LoadError;
use crate::feistel::DEVICES_MAX;
use crate::payload::PAYLOAD_BYTES_MIN;
use crate::pool::Pool;
use crate::profile::{Arrival, Profile};
use crate::schedule::{RATE_PER_S_MAX, Schedule, Shape, Warp};
use crate::trace::Trace;

/// Connections of one run, at most: a gateway topology needs few, and each has windows of its own (memory) on both sides.
pub const CONNECTIONS_MAX: u32 = 256;

/// Devices that may hold a connection at once in the direct topology, at most (about 50 KB each, and their windows while bytes are in them).
pub const OPEN_CONNECTIONS_MAX: u32 = 4_096;

/// Handshakes per second that may be asked for, at most.
pub const HANDSHAKES_PER_S_MAX: f64 = 1e6;

/// Generator threads, at most.
pub const GENERATOR_THREADS_MAX: u32 = 256;

/// Batches in flight per connection in the closed loop, at most: what a session's credit holds by default.
pub const WINDOW_MAX: u32 = 256;

/// Longest run, warm-up, drain or flush interval: a year, far from overflow in microseconds.
pub const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

/// Cached keys per generator thread, at most (7.5 GB).
pub const KEY_CACHE_SLOTS_MAX: usize = 1 << 26;

/// Messages waiting for the target in an open loop, at most (the memory is in [`RunConfig::worst_case_bytes`]).
pub const BACKLOG_MESSAGES_MAX: u32 = 1 << 24;

/// How many messages of one device may be under way at once (closed loop) or fall due within a second (open loop). The node's replay
/// window is 64 numbers wide; connections that run apart by more than it would turn order into rejections, so half of it is the limit.
pub const DEVICE_CYCLES_MAX: u64 = 32;

/// Virtual seconds per second, at most: sequence numbers count virtual milliseconds, and the base of a later run on the same ledger is its
/// clock in microseconds, which must be above them.
pub const SPEEDUP_MAX: f64 = 1_000.0;

/// Memory of an open connection of the direct topology: state of QUIC and TLS, session, queue (measured at 51 KB with a message in flight).
const CONNECTION_BYTES: u64 = 64 << 10;

/// Meters of a run, at most: each holds a histogram per class (about 170 KiB). More connections share them.
pub(crate) const METERS_MAX: usize = 8;

/// Of whom messages are asked to be taken.
#[derive(Clone, Debug)]
pub enum Target {
    /// A node, over QUIC.
    Node(NodeTarget),
    /// Nobody: messages are built, signed and dropped. Measures the generator.
    Null(NullTarget),
}

/// A node and how to know it.
#[derive(Clone, Debug)]
pub struct NodeTarget {
    /// Its address.
    pub addr: SocketAddr,
    /// How its key is recognised.
    pub trust: Trust,
    /// The ledger it must serve; `None` takes whichever it serves.
    pub network: Option<NetworkId>,
}

/// A target inside this process that takes everything, after a while, and can be told to stall.
#[derive(Clone, Copy, Debug, Default)]
pub struct NullTarget {
    /// From a batch to its ack.
    pub answer_after: Duration,
    /// A time in which nothing is answered or taken, if any.
    pub stall: Option<Stall>,
}

/// A time in which a [`NullTarget`] does nothing.
#[derive(Clone, Copy, Debug)]
pub struct Stall {
    /// When it begins, from the start of the run (warm-up included).
    pub at: Duration,
    /// How long it lasts.
    pub length: Duration,
}

/// What a report repeats of what the caller knows and the generator does not.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Name of the target's verifier backend.
    pub backend: Option<String>,
    /// Where the target keeps its data: the report names the disk below.
    pub data_dir: Option<PathBuf>,
    /// The command that made the run.
    pub command_line: Option<String>,
}

/// How devices reach the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Topology {
    /// Gateways: a few connections that all devices share.
    Gateway,
    /// A connection for each device that speaks, of which so many as there are connections are open at once: one more closes the one
    /// that was idle for longest. Open loop, live signing.
    Direct {
        /// Handshakes begun per second, at most.
        handshakes_per_s: f64,
    },
}

impl Topology {
    /// Its name in flags and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Direct { .. } => "direct",
        }
    }
}

/// At which time of its day a profile is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum At {
    /// At none: rates are those of the mean over the day. What is aligned to the clock (the quarter hours of meters) is met for as long,
    /// in proportion, as in the long run: the run ends inside a window.
    Mean,
    /// At this hour, UTC (0 to 24); rates follow the day from there.
    Hour(f64),
}

/// A profile and how it is played.
#[derive(Clone, Debug)]
pub struct World {
    /// The population.
    pub profile: Arc<Profile>,
    /// Share of it that takes part, above 0 and at most 1.
    pub scale: f64,
    /// Seconds of the profile in one second of the run.
    pub speedup: f64,
    /// When the run begins.
    pub at: At,
    /// Which part of the events is sent from here.
    pub split: Split,
}

impl World {
    /// This profile, whole and as fast as the clock.
    #[must_use]
    pub const fn new(profile: Arc<Profile>) -> Self {
        Self { profile, scale: 1.0, speedup: 1.0, at: At::Mean, split: Split::WHOLE }
    }

    /// Devices that take part.
    #[must_use]
    pub fn devices(&self) -> u64 {
        self.profile.classes.iter().map(|class| sampled(class.devices, self.scale)).sum()
    }

    /// Messages per second in the long-run mean, at factor 1, of this part of the events.
    #[must_use]
    pub fn rate_per_s(&self) -> f64 {
        self.profile.rate_per_s() * self.scale * self.speedup / f64::from(self.split.of)
    }

    /// Virtual time of the start of a run, seconds after midnight UTC.
    fn start_s(&self, warm_up: Duration, duration: Duration) -> f64 {
        let at_s = match self.at {
            At::Hour(hour) => return hour * 3_600.0,
            At::Mean => 43_200.0,
        };
        // The aligned process that sends the most decides.
        let aligned = self.profile.classes.iter().flat_map(|class| {
            class.streams.iter().filter_map(|stream| match stream.arrival {
                Arrival::Aligned { every_s, window_s, offset_s } => {
                    Some((class.devices as f64 / every_s, every_s, window_s, offset_s))
                }
                _ => None,
            })
        });
        let Some((_, every_s, window_s, offset_s)) = aligned.max_by(|a, b| a.0.total_cmp(&b.0)) else {
            return at_s;
        };
        let measured_s = duration.as_secs_f64() * self.speedup;
        let part_s = measured_s.rem_euclid(every_s);
        let end_s = (at_s / every_s).ceil() * every_s + offset_s + part_s * window_s / every_s;
        let whole = (measured_s / every_s).floor() * every_s;
        (end_s - part_s - whole - warm_up.as_secs_f64() * self.speedup).max(0.0)
    }
}

/// Everything a run is told.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Where the messages go.
    pub target: Target,
    /// Closed loop (default: 8 batches in flight per connection) or open loop at a rate.
    pub schedule: Schedule,
    /// Gateways: connections that share the devices. Direct: connections of devices that are open at once. Default 2.
    pub connections: u32,
    /// How devices reach the target. Default by gateways.
    pub topology: Topology,
    /// Threads that build and sign. Default 1, which leaves the other core of a small machine to the node.
    pub generator_threads: u32,
    /// Messages in one batch, at most. Default 256: 64 KiB of the smallest readings, and enough for a node to verify together. Cut to
    /// what the target takes.
    pub batch_messages: u32,
    /// Time before measuring: everything is sent and counted, nothing enters the histograms. Default 2 s.
    pub warm_up: Duration,
    /// Time that is measured. Default 20 s.
    pub duration: Duration,
    /// How long outstanding acks are waited for at the end, and how long an open loop that is behind may catch up. Default 10 s.
    pub drain: Duration,
    /// The profile that is played. Default: none, which is a flat profile of `devices` and `payload_bytes`, at the rate of the schedule.
    pub world: Option<World>,
    /// How the rate changes over the measured time. Default: not at all.
    pub shape: Shape,
    /// Messages in all, at most; the run ends when they are sent. Default: no limit.
    pub messages_max: u64,
    /// Names the population. Default 1.
    pub seed: u64,
    /// Without a profile: devices, up to 2^48. Default 10,000.
    pub devices: u64,
    /// Without a profile: payload of each message, bytes, its 16-byte tag included. Default 64.
    pub payload_bytes: usize,
    /// What an ack must mean. Default durable.
    pub ack_level: AckLevel,
    /// Derived keys that each generator thread keeps (112 bytes each). Default 65,536.
    pub key_cache_slots: usize,
    /// How messages are signed. Default serial.
    pub signer: Backend,
    /// Open loop: how often gateways send what is due. Default 2 ms.
    pub flush: Duration,
    /// Open loop: how long before it is sent a batch may be signed. Devices sign before they send; a few flush intervals keep the
    /// signing of one batch from delaying the next. Default 20 ms.
    pub look_ahead: Duration,
    /// Open loop: messages that may wait for the target before the generator has to stop. Default 262,144.
    pub backlog_messages_max: u32,
    /// Open loop: the run is invalid if 1 % of the messages left the generator later than this after they were due. Default 20 ms.
    pub lag_p99_max: Duration,
    /// Whether acked messages are remembered for an audit. Default no.
    pub audit: bool,
    /// Acked messages remembered (48 bytes each, and 64 a batch), at most; of more a uniform sample is kept and the report says which.
    /// Default 20 million.
    pub audit_max: u64,
    /// Messages signed before the run. Default: none, they are signed live.
    pub pool: Option<Arc<Pool>>,
    /// A trace whose messages are played in place of the profile's models: times, devices and payload sizes are the trace's, and classes say
    /// what payloads hold. Default: none.
    pub replay: Option<Arc<Trace>>,
    /// Where the intended schedule of the run is written as a trace, if anywhere (open loop).
    pub record: Option<PathBuf>,
    /// Sequence number of a device's message number 0. Default: the clock at the start, in microseconds. Runs that share their devices
    /// must agree on it.
    pub sequence_base: Option<u64>,
    /// Where an interval log of latencies is written, if anywhere.
    pub interval_log: Option<PathBuf>,
    /// For the report.
    pub about: About,
}

impl RunConfig {
    /// The defaults, for this target.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            schedule: Schedule::Closed { window: 8 },
            connections: 2,
            topology: Topology::Gateway,
            generator_threads: 1,
            batch_messages: 256,
            warm_up: Duration::from_secs(2),
            duration: Duration::from_secs(20),
            drain: Duration::from_secs(10),
            world: None,
            shape: Shape::Constant,
            messages_max: u64::MAX,
            seed: 1,
            devices: 10_000,
            payload_bytes: 64,
            ack_level: AckLevel::Durable,
            key_cache_slots: KEY_CACHE_SLOTS_DEFAULT,
            signer: Backend::Serial,
            flush: Duration::from_millis(2),
            look_ahead: Duration::from_millis(20),
            backlog_messages_max: 262_144,
            lag_p99_max: Duration::from_millis(20),
            audit: false,
            audit_max: 20_000_000,
            pool: None,
            replay: None,
            record: None,
            sequence_base: None,
            interval_log: None,
            about: About::default(),
        }
    }

    /// The profile that is played: the one given, or a flat one.
    #[must_use]
    pub fn world(&self) -> World {
        if let Some(world) = &self.world {
            return world.clone();
        }
        let rate_per_s = match self.schedule {
            Schedule::Open { rate_per_s } => rate_per_s,
            // Nothing is paced by it; one message per device and second of the profile's time.
            Schedule::Closed { .. } => self.devices as f64,
        };
        // Lengths outside 16 to 16,384 were refused.
        World::new(Arc::new(Profile::flat(self.devices, self.payload_bytes as u32, rate_per_s)))
    }

    /// How the profile of `world` is played in this run: by whom, and when.
    #[must_use]
    pub fn play(&self, world: &World) -> (Play, Warp) {
        let start_s = world.start_s(self.warm_up, self.duration);
        let play = Play {
            seed: self.seed,
            scale: world.scale,
            diurnal: matches!(world.at, At::Hour(_)),
            start_s,
            split: world.split,
        };
        // A rate other than the profile's own is had by another pace of its time.
        let factor = match self.schedule {
            Schedule::Open { rate_per_s } => rate_per_s / world.rate_per_s(),
            Schedule::Closed { .. } => 1.0,
        };
        (play, Warp::new(start_s, world.speedup * factor, &self.shape, self.warm_up, self.duration))
    }

    /// Longest payload, bytes.
    #[must_use]
    pub fn payload_bytes_max(&self) -> usize {
        if let Some(trace) = &self.replay {
            return trace.payload_bytes_max() as usize;
        }
        self.world.as_ref().map_or(self.payload_bytes, |world| world.profile.payload_bytes_max() as usize)
    }

    /// Bytes of the longest message on the wire.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        MESSAGE_BYTES_MIN + self.payload_bytes_max()
    }

    /// Bytes of a message on the wire, mean.
    #[must_use]
    pub fn message_bytes_mean(&self) -> f64 {
        if let Some(trace) = &self.replay {
            return MESSAGE_BYTES_MIN as f64 + trace.payload_bytes_mean();
        }
        let payload =
            self.world.as_ref().map_or(self.payload_bytes as f64, |world| world.profile.payload_bytes_mean());
        MESSAGE_BYTES_MIN as f64 + payload
    }

    /// Messages that may wait between generator and connections.
    #[must_use]
    pub fn queued_messages_max(&self) -> u64 {
        match self.schedule {
            // Two batches for each connection: one to send now, one to be taken up next.
            Schedule::Closed { .. } => 2 * u64::from(self.connections) * u64::from(self.batch_messages),
            Schedule::Open { .. } => u64::from(self.backlog_messages_max.max(self.batch_messages)),
        }
    }

    /// Memory that a run takes at most, in bytes: queue, key caches, audit records, histograms.
    #[must_use]
    pub fn worst_case_bytes(&self) -> u64 {
        // Row, length and trail beside the message.
        let message = self.message_bytes_mean() as u64 + 64;
        // A quarter more for classes with priority.
        let queued = self.queued_messages_max() / 4 * 5;
        let queue = (queued + u64::from(self.generator_threads) * 4_096) * message;
        let keys = u64::from(self.generator_threads) * self.key_cache_slots as u64 * 112;
        let audit = if self.audit { self.audit_max.saturating_mul(112) } else { 0 };
        let classes = self.world.as_ref().map_or(1, |world| world.profile.classes.len() as u64);
        let direct = match self.topology {
            Topology::Gateway => 0,
            Topology::Direct { .. } => u64::from(self.connections) * CONNECTION_BYTES,
        };
        let histograms = (u64::from(self.connections).min(METERS_MAX as u64) + 2) * (6 + classes) * 180_000;
        queue.saturating_add(keys).saturating_add(audit).saturating_add(histograms).saturating_add(direct)
    }

    /// Whether the messages of a pool are sent over and over: only to a target that keeps nothing.
    #[must_use]
    pub const fn repeats_pool(&self) -> bool {
        matches!(self.target, Target::Null(_))
    }

    fn validate_topology(&self) -> Result<(), LoadError> {
        let Topology::Direct { handshakes_per_s } = self.topology else {
            return within("connections", self.connections, 1..=CONNECTIONS_MAX);
        };
        within("connections", self.connections, 1..=OPEN_CONNECTIONS_MAX)?;
        // NaN lies in no range.
        within("handshakes_per_s", handshakes_per_s, 0.001..=HANDSHAKES_PER_S_MAX)?;
        if matches!(self.schedule, Schedule::Closed { .. }) {
            return Err(conflict(
                "topology",
                "direct in a closed loop",
                "in an open loop: a device speaks when it is due",
            ));
        }
        if self.pool.is_some() {
            return Err(conflict("topology", "direct from a pool", "with live signing"));
        }
        if matches!(self.target, Target::Null(_)) {
            return Err(conflict(
                "topology",
                "direct to the null target",
                "to a node: there is nothing to connect to",
            ));
        }
        Ok(())
    }

    fn validate_trace(&self) -> Result<(), LoadError> {
        if matches!(self.schedule, Schedule::Closed { .. })
            && (self.replay.is_some() || self.record.is_some())
        {
            return Err(conflict(
                "trace",
                "a closed loop",
                "played or recorded in an open loop: only that has times",
            ));
        }
        if self.replay.is_some() && self.pool.is_some() {
            return Err(conflict("replay", "a trace and a pool", "one of them"));
        }
        Ok(())
    }

    /// Checks every setting against its limits.
    ///
    /// # Errors
    /// [`LoadError::Config`] for the first that is outside.
    pub fn validate(&self) -> Result<(), LoadError> {
        self.validate_topology()?;
        self.validate_trace()?;
        within("generator_threads", self.generator_threads, 1..=GENERATOR_THREADS_MAX)?;
        within("batch_messages", self.batch_messages, 1..=SUBMIT_MESSAGES_MAX)?;
        within("messages_max", self.messages_max, 1..=u64::MAX)?;
        within("devices", self.devices, 1..=DEVICES_MAX)?;
        within("payload_bytes", self.payload_bytes, PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX)?;
        within("key_cache_slots", self.key_cache_slots, 1..=KEY_CACHE_SLOTS_MAX)?;
        within("backlog_messages_max", self.backlog_messages_max, 1..=BACKLOG_MESSAGES_MAX)?;
        for (what, time, least) in [
            ("warm_up", self.warm_up, Duration::ZERO),
            ("duration", self.duration, Duration::from_millis(1)),
            ("drain", self.drain, Duration::ZERO),
            ("flush", self.flush, Duration::from_micros(100)),
            ("look_ahead", self.look_ahead, Duration::ZERO),
            ("lag_p99_max", self.lag_p99_max, Duration::ZERO),
        ] {
            if !(least..=DURATION_MAX).contains(&time) {
                let limit = format!("between {least:?} and {DURATION_MAX:?}");
                return Err(LoadError::Config { what, got: format!("{time:?}"), limit });
            }
        }
        if let Some(world) = &self.world {
            for (what, value, least, most) in
                [("scale", world.scale, 1e-12, 1.0), ("speedup", world.speedup, 1e-6, SPEEDUP_MAX)]
            {
                // NaN lies in no range.
                if !(least..=most).contains(&value) {
                    let limit = format!("between {least} and {most}");
                    return Err(LoadError::Config { what, got: value.to_string(), limit });
                }
            }
            if let At::Hour(hour) = world.at
                && !(0.0..=24.0).contains(&hour)
            {
                return Err(LoadError::Config {
                    what: "at",
                    got: hour.to_string(),
                    limit: "between 0 and 24".to_owned(),
                });
            }
            within("worker", world.split.worker, 0..=world.split.of.saturating_sub(1))?;
        }
        let devices = self.world.as_ref().map_or(self.devices, World::devices);
        let per_device = match self.schedule {
            Schedule::Closed { window } => {
                within("window", window, 1..=WINDOW_MAX)?;
                u64::from(self.connections) * u64::from(window) * u64::from(self.batch_messages) / devices
            }
            Schedule::Open { rate_per_s } => {
                if !(rate_per_s.is_finite() && rate_per_s > 0.0 && rate_per_s <= RATE_PER_S_MAX) {
                    let limit = format!("above 0 and at most {RATE_PER_S_MAX}");
                    return Err(LoadError::Config { what: "rate_per_s", got: rate_per_s.to_string(), limit });
                }
                (rate_per_s / devices as f64) as u64
            }
        };
        // A trace says itself how often its devices speak.
        if self.connections > 1 && per_device > DEVICE_CYCLES_MAX && self.replay.is_none() {
            return Err(LoadError::Config {
                what: "devices",
                got: devices.to_string(),
                limit: format!(
                    "larger, by a factor of {}: one device would have {per_device} messages under way at once over several \
                     connections, more than half of the 64 that a node keeps apart from replays",
                    per_device.div_ceil(DEVICE_CYCLES_MAX)
                ),
            });
        }
        Ok(())
    }
}

fn conflict(what: &'static str, got: &str, limit: &str) -> LoadError {
    LoadError::Config { what, got: got.to_owned(), limit: limit.to_owned() }
}

fn within<T: PartialOrd + Display>(
    what: &'static str,
    got: T,
    range: RangeInclusive<T>,
) -> Result<(), LoadError> {
    if range.contains(&got) {
        return Ok(());
    }
    let limit = format!("between {} and {}", range.start(), range.end());
    Err(LoadError::Config { what, got: got.to_string(), limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> RunConfig {
        RunConfig::new(Target::Null(NullTarget::default()))
    }

    fn refused(change: impl FnOnce(&mut RunConfig)) -> String {
        let mut config = config();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid_and_bounded() {
        config().validate().unwrap();
        assert!(config().worst_case_bytes() < 32 << 20);
        let open = RunConfig { schedule: Schedule::Open { rate_per_s: 40_000.0 }, ..config() };
        open.validate().unwrap();
        assert!(open.worst_case_bytes() < 128 << 20);
    }

    #[test]
    fn a_setting_outside_its_limits_is_named_with_both() {
        assert_eq!(
            refused(|config| config.connections = 0),
            "connections is 0; it must be between 1 and 256"
        );
        assert!(refused(|config| config.payload_bytes = 15).contains("between 16 and 16384"));
        assert!(refused(|config| config.batch_messages = 4_097).contains("4097"));
        assert!(refused(|config| config.flush = Duration::ZERO).starts_with("flush is 0ns"));
        for rate_per_s in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert!(
                refused(|config| config.schedule = Schedule::Open { rate_per_s }).starts_with("rate_per_s")
            );
        }
    }

    #[test]
    fn too_few_devices_for_the_replay_window_are_refused_over_several_connections_only() {
        let few = |connections| RunConfig { devices: 10, connections, ..config() };
        assert!(few(2).validate().unwrap_err().to_string().starts_with("devices is 10"));
        few(1).validate().unwrap();
    }
}
