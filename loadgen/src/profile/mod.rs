//! What the world's devices are like: classes, how often they speak, what they say, and what goes wrong.
//!
//! Owns the [`Profile`], its TOML form and the checks of it; the shipped ones are in [`presets`]. Pure data: how a class turns into events
//! is left to [`arrival`](crate::arrival), what its payloads hold to [`payload`](crate::payload). Invariant: a profile that passed
//! [`Profile::parse`] has only positive, finite figures, and at most [`DEVICES_MAX`] devices.
//!
//! Times are in seconds and carry `_s`, hours carry `_hour`; a share is between 0 and 1.

mod check;
pub mod presets;
mod rates;

use serde::{Deserialize, Serialize};

pub use check::ProfileError;
pub use rates::{BETA_ORDER_MAX, beta_cdf, irwin_hall_cdf};
pub(crate) use rates::{active_share, transition_rates};

use crate::feistel::DEVICES_MAX;

/// Classes of one profile, at most: reports keep a histogram (about 170 KiB) for each.
pub const CLASSES_MAX: usize = 64;

/// Streams of all classes together, at most: an arrival names its stream in one byte.
pub const STREAMS_MAX: usize = 255;

/// Regions of one stream, at most: the state of a background process is kept for each (8 bytes).
pub const REGIONS_MAX: u32 = 65_535;

/// A population and its habits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// What it is called.
    pub name: String,
    /// One sentence about it.
    pub about: String,
    /// Where the figures come from.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Share of devices by time zone: 24 weights, for UTC-11 to UTC+12. Without them everybody lives in UTC.
    #[serde(default)]
    pub zones: Vec<f64>,
    /// What goes wrong, in every class that does not say otherwise.
    #[serde(default)]
    pub dirty: Dirty,
    /// The classes.
    #[serde(rename = "class")]
    pub classes: Vec<Class>,
}

/// Devices that behave alike.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// What it is called.
    pub name: String,
    /// How many there are.
    pub devices: u64,
    /// What they say.
    #[serde(default)]
    pub content: Content,
    /// How long it is, the 16-byte tag included.
    pub payload: Size,
    /// Whether their messages go before those of other classes: gateways send them in batches of their own, which overtake what waits for
    /// the target. (The wire itself knows no priorities.)
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub priority: bool,
    /// How their rate changes over the day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diurnal: Option<Diurnal>,
    /// What goes wrong, if other than the profile says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty: Option<Dirty>,
    /// When they speak; the streams of a class add up.
    #[serde(rename = "stream")]
    pub streams: Vec<Stream>,
}

/// One reason to speak.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// Which part of the class it concerns: from the first to the second share of its devices.
    #[serde(default = "everybody")]
    pub of: [f64; 2],
    /// How it comes.
    #[serde(flatten)]
    pub arrival: Arrival,
}

const fn everybody() -> [f64; 2] {
    [0.0, 1.0]
}

/// Arrival processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "arrival", rename_all = "snake_case", deny_unknown_fields)]
pub enum Arrival {
    /// Each device once a period, at a phase of its own. With `gateway` above 1, that many devices share a gateway which sends for all
    /// of them at once; with `burst_max` above 1, a device sends a few messages each time.
    Periodic {
        /// Time from one message (or burst) of a device to its next.
        period_s: f64,
        /// By how much a device may be early or late; it still speaks once a period.
        #[serde(default)]
        jitter_s: f64,
        /// Devices behind one gateway.
        #[serde(default = "one")]
        gateway: u32,
        /// Messages of a burst, at least; uniform up to `burst_max`.
        #[serde(default = "one")]
        burst_min: u32,
        /// Messages of a burst, at most.
        #[serde(default = "one")]
        burst_max: u32,
        /// Time between the messages of a burst.
        #[serde(default)]
        burst_gap_s: f64,
    },
    /// Each device once every `every_s`, uniform within a window that begins at multiples of it (3GPP TR 37.868, traffic model 1).
    Aligned {
        /// From one window to the next.
        every_s: f64,
        /// Its length.
        window_s: f64,
        /// When the first begins, after midnight UTC.
        #[serde(default)]
        offset_s: f64,
    },
    /// Devices independent of each other and of their past.
    Poisson {
        /// Mean time between messages of one device.
        mean_interval_s: f64,
    },
    /// All devices of a region once, as Beta(alpha, beta) over a window (3GPP TR 37.868, traffic model 2: Beta(3, 4) over 10 s).
    Beta {
        /// From one occurrence to the next.
        every_s: f64,
        /// When the first begins, after the start of the run.
        #[serde(default)]
        first_s: f64,
        /// Its length.
        window_s: f64,
        /// First parameter, a whole number.
        #[serde(default = "three")]
        alpha: u32,
        /// Second parameter, a whole number.
        #[serde(default = "four")]
        beta: u32,
        /// Regions, of which one is struck each time.
        #[serde(default = "one")]
        regions: u32,
    },
    /// Markov-modulated Poisson process by region: regions are quiet or active, and a global background process may drive many of them
    /// at once (coupled: Laner et al., 2013).
    Mmpp {
        /// Mean time between messages of one device, over both states.
        mean_interval_s: f64,
        /// How many times more an active device sends than a quiet one.
        active_factor: f64,
        /// Mean time in the quiet state.
        quiet_s: f64,
        /// Mean time in the active state.
        active_s: f64,
        /// Regions.
        #[serde(default = "many_regions")]
        regions: u32,
        /// The common cause, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        background: Option<Background>,
    },
    /// Everybody lost the connection at once and comes back by truncated exponential back-off: attempt `n` follows the one before after
    /// `min(2^n, cap) + U(0, 1)` seconds (GSMA TS.34); each attempt succeeds with the same chance.
    Reconnect {
        /// From one storm to the next.
        every_s: f64,
        /// When the first begins, after the start of the run.
        #[serde(default)]
        first_s: f64,
        /// Chance that an attempt succeeds.
        success: f64,
        /// Longest back-off.
        cap_s: f64,
        /// Attempts of a device, at most.
        attempts: u32,
    },
}

/// The global process behind coupled regions: while it is on, a quiet region turns active after `onset_s` on average with probability
/// `coupling`, otherwise after its usual time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Background {
    /// Mean time between common causes.
    pub every_s: f64,
    /// How long one lasts, on average.
    pub lasts_s: f64,
    /// How much a region depends on it: theta of the model, 0 to 1.
    pub coupling: f64,
    /// Mean time until a fully coupled quiet region turns active.
    pub onset_s: f64,
}

const fn one() -> u32 {
    1
}

const fn three() -> u32 {
    3
}

const fn four() -> u32 {
    4
}

const fn many_regions() -> u32 {
    4_096
}

/// Rate over the day, as a factor with mean 1, by local time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Diurnal {
    /// `1 + amplitude * cos(2 pi (t - peak) / 24 h)`.
    Cosine {
        /// Between 0 and 1.
        amplitude: f64,
        /// Hour of the peak, local time.
        peak_hour: f64,
    },
    /// 24 values for the full hours, linear in between; scaled to mean 1.
    Hours {
        /// From 0:00 to 23:00.
        hours: Vec<f64>,
    },
}

/// How long a payload is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Size {
    /// Always the same.
    Fixed {
        /// Bytes.
        bytes: u32,
    },
    /// Uniform, both ends included.
    Uniform {
        /// Least.
        min: u32,
        /// Most.
        max: u32,
    },
    /// Lognormal, cut at both ends.
    Lognormal {
        /// Half are shorter.
        median: f64,
        /// Mean, before the cut.
        mean: f64,
        /// Least.
        min: u32,
        /// Most.
        max: u32,
    },
    /// Pareto, cut at the upper end.
    Pareto {
        /// Shape.
        alpha: f64,
        /// Least.
        min: u32,
        /// Most.
        max: u32,
    },
}

/// What payloads hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// Temperature, humidity, pressure, battery, samples.
    #[default]
    Environment,
    /// Keep-alive of a media device: state, volume, stream position, buffer.
    Media,
    /// Switch and dimmer state, energy.
    Lighting,
    /// Heart rate, steps, skin temperature.
    Wearable,
    /// Meter register, power, voltage per phase.
    Meter,
    /// Machine values: speed, pressure, vibration spectrum.
    Machine,
    /// Item, shelf, scan events.
    Inventory,
    /// What a camera saw: boxes with class and confidence, as JSON text.
    Detection,
    /// Position, speed, heading.
    Position,
    /// Vital signs and alarms.
    Vitals,
}

/// What goes wrong on the way, as shares of all messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dirty {
    /// Never sent.
    pub missing: f64,
    /// Issued up to `late_s_max` before it is sent.
    pub late: f64,
    /// How late, at most (uniform).
    pub late_s_max: f64,
    /// Sent twice.
    pub duplicate: f64,
    /// Sent with the sequence of the next message of its device in the batch, which has this one's: a device that does not speak twice
    /// in a batch is in order.
    pub out_of_order: f64,
    /// With a signature that does not fit.
    pub bad_signature: f64,
}

impl Dirty {
    /// Whether nothing goes wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.missing == 0.0
            && self.late == 0.0
            && self.duplicate == 0.0
            && self.out_of_order == 0.0
            && self.bad_signature == 0.0
    }
}

impl Profile {
    /// Reads a profile from TOML and checks it.
    ///
    /// # Errors
    /// What is wrong, with class and value.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let profile: Self = toml::from_str(text)
            .map_err(|error| ProfileError::new("the file", error.to_string().trim().to_owned()))?;
        profile.check()?;
        Ok(profile)
    }

    /// The profile as TOML.
    ///
    /// # Errors
    /// If a value cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, ProfileError> {
        toml::to_string(self).map_err(|error| ProfileError::new("the profile", error.to_string()))
    }

    /// One class of equal devices that each speak once a period, in turn: for comparing hardware, and the load of the demo.
    #[must_use]
    pub fn flat(devices: u64, payload_bytes: u32, rate_per_s: f64) -> Self {
        let devices = devices.clamp(1, DEVICES_MAX);
        let class = Class {
            name: "device".to_owned(),
            devices,
            content: Content::Environment,
            payload: Size::Fixed { bytes: payload_bytes },
            priority: false,
            diurnal: None,
            dirty: None,
            streams: vec![Stream {
                of: everybody(),
                arrival: Arrival::Periodic {
                    period_s: devices as f64 / rate_per_s,
                    jitter_s: 0.0,
                    gateway: 1,
                    burst_min: 1,
                    burst_max: 1,
                    burst_gap_s: 0.0,
                },
            }],
        };
        Self {
            name: "flat".to_owned(),
            about: "equal devices, each once a period, in turn".to_owned(),
            sources: Vec::new(),
            zones: Vec::new(),
            dirty: Dirty::default(),
            classes: vec![class],
        }
    }

    /// Devices of all classes.
    #[must_use]
    pub fn devices(&self) -> u64 {
        self.classes.iter().map(|class| class.devices).sum()
    }

    /// Messages per second of the whole population, by the long-run mean of the models.
    #[must_use]
    pub fn rate_per_s(&self) -> f64 {
        self.classes.iter().map(Class::rate_per_s).sum()
    }

    /// Mean payload, bytes, weighted by messages.
    #[must_use]
    pub fn payload_bytes_mean(&self) -> f64 {
        let bytes: f64 = self.classes.iter().map(|class| class.rate_per_s() * class.payload.mean()).sum();
        bytes / self.rate_per_s()
    }

    /// Longest payload, bytes.
    #[must_use]
    pub fn payload_bytes_max(&self) -> u32 {
        self.classes.iter().map(|class| class.payload.max()).max().unwrap_or(0)
    }
}

impl Class {
    /// Messages per second of the whole class, long-run mean.
    #[must_use]
    pub fn rate_per_s(&self) -> f64 {
        self.streams.iter().map(|stream| stream.rate_per_device_s() * stream.devices_of(self.devices)).sum()
    }
}

impl Stream {
    /// Devices that it concerns, of a class of `devices`.
    #[must_use]
    pub fn devices_of(&self, devices: u64) -> f64 {
        (self.of[1] - self.of[0]) * devices as f64
    }
}
