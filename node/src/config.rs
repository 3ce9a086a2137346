//! The node's settings: one table of keys, four layers, and the source of every value.
//!
//! Layers, later ones win: built-in defaults, a TOML file, environment variables `WEFT_*`, command-line flags. The
//! file is the one named by `--config FILE` or `WEFT_CONFIG`; otherwise `weft.toml` in the data directory, if there
//! is one. Every key of [`KEYS`] has the same name in all layers: `batch_linger_us` in the file,
//! `WEFT_BATCH_LINGER_US` in the environment, `--batch-linger-us` on the command line.
//!
//! Owns: names, defaults, limits and parsing of values; the error when a value cannot be used, which names where it
//! came from, what was got and what the limit is. Invariant: a [`Config`] that came out of [`load`] is within every
//! limit of the table. Leaves to the node: what the settings do, and limits that only a data directory's genesis
//! knows (such as the longest payload).

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use toml::de::{DeTable, DeValue};
use weft_core::tips::TipSelection;
use weft_net::AckLevel;

use crate::cli::Globals;
use crate::telemetry::LogFormat;
use crate::units::{self, Unit};

/// Where a node listens, and where clients look for one, when nothing is said. Loopback: a node is open to the
/// network only when its operator says so.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7272";
/// The data directory when none is named.
pub const DATA_DEFAULT: &str = "weft-data";
/// Name of the settings file that is read from the data directory when no other is named.
pub const FILE_NAME: &str = "weft.toml";
/// Longest settings file that is read, bytes: a mistaken path must not fill the memory.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Longest verifier name, characters.
const VERIFIER_NAME_CHARS_MAX: usize = 32;

/// The settings of one node. Every field is one key of [`KEYS`]; units are in the names.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Data directory.
    pub data: PathBuf,
    /// The node's name, as peers and logs show it.
    pub name: String,
    /// UDP address for QUIC.
    pub listen: SocketAddr,
    /// TCP address for `/healthz` and metrics; none: no HTTP server.
    pub http: Option<SocketAddr>,
    /// The acknowledgement level for clients that ask for none.
    pub ack_level: AckLevel,
    /// Connections at a time.
    pub connections_max: usize,
    /// Message bytes that one connection may have in the node, unacknowledged.
    pub connection_bytes_max: usize,
    /// A connection that says nothing for this long is closed.
    pub connection_idle_ms: u64,
    /// Message bytes that all connections together may have in the node, unacknowledged.
    pub queue_bytes_max: usize,
    /// Verifier by name, or `auto`.
    pub verifier: String,
    /// Decoded device keys that the verifier keeps.
    pub key_cache_max: usize,
    /// Threads that verify; none: one per core.
    pub verify_threads: Option<usize>,
    /// Most messages that are verified together.
    pub verify_batch_max: usize,
    /// How long the first message of a batch waits for company.
    pub batch_linger_us: u64,
    /// Size of a log segment, preallocated.
    pub segment_bytes: u64,
    /// Free space below which the node refuses messages.
    pub free_space_watermark_bytes: u64,
    /// Issuers whose sequences are remembered.
    pub replay_issuers_max: usize,
    /// Ids of the newest messages kept in memory.
    pub recent_ids_max: usize,
    /// Tips kept.
    pub tips_max: usize,
    /// How tips are chosen.
    pub tip_selection: TipSelectionName,
    /// The alpha of [`TipSelectionName::Mcmc`].
    pub tip_alpha: f64,
    /// How far a device's clock may be ahead; none: what the genesis says.
    pub clock_ahead_us_max: Option<u64>,
    /// How far a device's clock may be behind; none: what the genesis says.
    pub clock_behind_us_max: Option<u64>,
    /// How long a stop waits for what was accepted to be logged.
    pub stop_grace_ms: u64,
    /// Log filter.
    pub log: String,
    /// Log format.
    pub log_format: LogFormat,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from(DATA_DEFAULT),
            name: "weft".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 7272)),
            http: None,
            ack_level: AckLevel::Durable,
            connections_max: 128,
            connection_bytes_max: 8 << 20,
            connection_idle_ms: 30_000,
            queue_bytes_max: 256 << 20,
            verifier: "auto".to_owned(),
            key_cache_max: 1 << 16,
            verify_threads: None,
            verify_batch_max: 4096,
            batch_linger_us: 2_000,
            segment_bytes: 256 << 20,
            free_space_watermark_bytes: 1 << 30,
            replay_issuers_max: 1 << 20,
            recent_ids_max: 1 << 20,
            tips_max: 4096,
            tip_selection: TipSelectionName::Default,
            tip_alpha: 0.001,
            clock_ahead_us_max: None,
            clock_behind_us_max: None,
            stop_grace_ms: 10_000,
            log: "info".to_owned(),
            log_format: LogFormat::Human,
        }
    }
}

impl Config {
    /// The tip selection with its parameter, as `weft-core` takes it.
    #[must_use]
    pub fn tips(&self) -> TipSelection {
        match self.tip_selection {
            TipSelectionName::Default => TipSelection::Default,
            TipSelectionName::Urts => TipSelection::Urts,
            TipSelectionName::Mcmc => TipSelection::Mcmc { alpha: self.tip_alpha },
        }
    }

    /// Threads that verify: the setting, or the number of cores this process may use.
    #[must_use]
    pub fn verify_threads_or_cores(&self) -> usize {
        self.verify_threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

/// How tips are chosen, without the parameter of the random walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TipSelectionName {
    /// One recent witness and one uniform random tip.
    Default,
    /// Uniform random tips.
    Urts,
    /// A weighted random walk.
    Mcmc,
}

const TIP_SELECTIONS: &[(&str, TipSelectionName)] = &[
    ("default", TipSelectionName::Default),
    ("urts", TipSelectionName::Urts),
    ("mcmc", TipSelectionName::Mcmc),
];

/// The levels a node of this version gives.
const ACK_LEVELS: &[(&str, AckLevel)] =
    &[("received", AckLevel::Received), ("written", AckLevel::Written), ("durable", AckLevel::Durable)];

const LOG_FORMATS: &[(&str, LogFormat)] = &[("human", LogFormat::Human), ("json", LogFormat::Json)];

/// What kind of value a key holds, and how it is read and written.
pub enum Field {
    /// A number with a unit and limits.
    Number {
        /// The unit of a bare number, which also ends the key's name.
        unit: Unit,
        /// Least value.
        min: u64,
        /// Greatest value.
        max: u64,
        /// The word that means "not set", for keys where the node then decides.
        unset: Option<&'static str>,
        /// Reads the setting.
        get: fn(&Config) -> Option<u64>,
        /// Writes the setting.
        set: fn(&mut Config, Option<u64>),
    },
    /// Anything else, with its own parser.
    Other {
        /// Reads the setting.
        get: fn(&Config) -> Value,
        /// Parses and writes the setting; the error says what is accepted.
        set: fn(&mut Config, &str) -> Result<(), String>,
    },
}

/// One setting: its names, its meaning and its field.
pub struct Key {
    /// Name in the file and in the output of `weft config`.
    pub name: &'static str,
    /// Name as a flag, without the dashes in front.
    pub flag: &'static str,
    /// Environment variable.
    pub env: &'static str,
    /// Heading under which help and `weft config` show it.
    pub section: &'static str,
    /// Placeholder for the value in help.
    pub placeholder: &'static str,
    /// What it does, one sentence; limits and defaults are added from the table.
    pub help: &'static str,
    /// How it is read and written.
    pub field: Field,
}

macro_rules! number {
    ($field:ident, $unit:ident, $min:expr, $max:expr) => {
        Field::Number {
            unit: Unit::$unit,
            min: $min,
            max: $max,
            unset: None,
            get: |config| Some(u64::try_from(config.$field).unwrap_or(u64::MAX)),
            set: |config, value| {
                if let Some(value) = value {
                    config.$field = value.try_into().unwrap_or(config.$field);
                }
            },
        }
    };
    ($field:ident, $unit:ident, $min:expr, $max:expr, $unset:literal) => {
        Field::Number {
            unit: Unit::$unit,
            min: $min,
            max: $max,
            unset: Some($unset),
            get: |config| config.$field.map(|value| u64::try_from(value).unwrap_or(u64::MAX)),
            set: |config, value| config.$field = value.and_then(|value| value.try_into().ok()),
        }
    };
}

macro_rules! choice {
    ($field:ident, $names:ident) => {
        Field::Other {
            get: |config| {
                let name = $names.iter().find(|(_, value)| *value == config.$field).map(|(name, _)| *name);
                json!(name)
            },
            set: |config, text| {
                config.$field = choose(text, $names)?;
                Ok(())
            },
        }
    };
}

fn choose<T: Copy>(text: &str, names: &[(&str, T)]) -> Result<T, String> {
    names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        format!("one of {}", names.join(", "))
    })
}

macro_rules! key {
    ($name:literal, $flag:literal, $env:literal, $section:literal, $placeholder:literal, $help:literal, $field:expr) => {
        Key {
            name: $name,
            flag: $flag,
            env: $env,
            section: $section,
            placeholder: $placeholder,
            help: $help,
            field: $field,
        }
    };
}

/// Every setting of a node, in the order in which `weft config` prints them.
pub static KEYS: &[Key] = &[
    key!(
        "data",
        "data",
        "WEFT_DATA",
        "Node",
        "DIR",
        "Data directory: genesis, node key, log (made by `weft init`)",
        Field::Other {
            get: |config| json!(config.data.to_string_lossy()),
            set: |config, text| {
                if text.is_empty() || text.contains('\0') {
                    return Err("a directory's path".to_owned());
                }
                config.data = PathBuf::from(text);
                Ok(())
            },
        }
    ),
    key!(
        "name",
        "name",
        "WEFT_NAME",
        "Node",
        "NAME",
        "The node's name, as peers and logs show it: 1 to 64 printable ASCII characters",
        Field::Other {
            get: |config| json!(config.name),
            set: |config, text| {
                if text.is_empty() || text.len() > 64 || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
                    return Err("1 to 64 printable ASCII characters".to_owned());
                }
                config.name = text.to_owned();
                Ok(())
            },
        }
    ),
    key!(
        "stop_grace_ms",
        "stop-grace-ms",
        "WEFT_STOP_GRACE_MS",
        "Node",
        "TIME",
        "How long a stop waits for accepted messages to be logged and acknowledged",
        number!(stop_grace_ms, Millis, 0, 600_000)
    ),
    key!(
        "listen",
        "listen",
        "WEFT_LISTEN",
        "Network",
        "ADDR:PORT",
        "UDP address for devices and clients (QUIC); 0.0.0.0 or [::] opens it to the network",
        Field::Other {
            get: |config| json!(config.listen.to_string()),
            set: |config, text| {
                config.listen =
                    text.parse().map_err(|_| "an address and a port, such as 0.0.0.0:7272 or [::]:7272".to_owned())?;
                Ok(())
            },
        }
    ),
    key!(
        "http",
        "http",
        "WEFT_HTTP",
        "Network",
        "ADDR:PORT",
        "TCP address for health and metrics over HTTP, or `off`",
        Field::Other {
            get: |config| json!(config.http.map_or_else(|| "off".to_owned(), |address| address.to_string())),
            set: |config, text| {
                config.http = match text {
                    "off" => None,
                    text => Some(text.parse().map_err(|_| "an address and a port, or off".to_owned())?),
                };
                Ok(())
            },
        }
    ),
    key!(
        "ack_level",
        "ack-level",
        "WEFT_ACK_LEVEL",
        "Network",
        "LEVEL",
        "When a message is acknowledged to clients that ask for no level: received, written (in the log) or durable (synced to the disk)",
        choice!(ack_level, ACK_LEVELS)
    ),
    key!(
        "connections_max",
        "connections-max",
        "WEFT_CONNECTIONS_MAX",
        "Network",
        "COUNT",
        "Connections at a time; more are refused",
        number!(connections_max, Count, 1, 65_536)
    ),
    key!(
        "connection_bytes_max",
        "connection-bytes-max",
        "WEFT_CONNECTION_BYTES_MAX",
        "Network",
        "SIZE",
        "Message bytes of one connection in the node at a time; then its sender waits",
        number!(connection_bytes_max, Bytes, 128 << 10, 1 << 30)
    ),
    key!(
        "connection_idle_ms",
        "connection-idle-ms",
        "WEFT_CONNECTION_IDLE_MS",
        "Network",
        "TIME",
        "A connection without traffic for this long is closed",
        number!(connection_idle_ms, Millis, 1_000, 3_600_000)
    ),
    key!(
        "queue_bytes_max",
        "queue-bytes-max",
        "WEFT_QUEUE_BYTES_MAX",
        "Pipeline",
        "SIZE",
        "Message bytes of all connections in the node at a time; then senders wait. The node's memory is bounded by about three times this",
        number!(queue_bytes_max, Bytes, 8 << 20, 1 << 40)
    ),
    key!(
        "verifier",
        "verifier",
        "WEFT_VERIFIER",
        "Pipeline",
        "NAME",
        "Which signature verifier to use; auto takes the fastest one for this CPU (`weft doctor` names it)",
        Field::Other {
            get: |config| json!(config.verifier),
            set: |config, text| {
                let name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
                if text.is_empty() || text.len() > VERIFIER_NAME_CHARS_MAX || !text.bytes().all(name) {
                    return Err("auto or the name of a verifier, such as serial".to_owned());
                }
                config.verifier = text.to_owned();
                Ok(())
            },
        }
    ),
    key!(
        "key_cache_max",
        "key-cache-max",
        "WEFT_KEY_CACHE_MAX",
        "Pipeline",
        "COUNT",
        "Device keys that the verifier keeps decoded; about 200 bytes of memory each, 0 for none",
        number!(key_cache_max, Count, 0, 1 << 28)
    ),
    key!(
        "verify_threads",
        "verify-threads",
        "WEFT_VERIFY_THREADS",
        "Pipeline",
        "COUNT",
        "Threads that verify signatures; auto: one per core",
        number!(verify_threads, Count, 1, 1_024, "auto")
    ),
    key!(
        "verify_batch_max",
        "verify-batch-max",
        "WEFT_VERIFY_BATCH_MAX",
        "Pipeline",
        "COUNT",
        "Most messages verified and logged together",
        number!(verify_batch_max, Count, 1, 4_096)
    ),
    key!(
        "batch_linger_us",
        "batch-linger-us",
        "WEFT_BATCH_LINGER_US",
        "Pipeline",
        "TIME",
        "How long the first message of a batch waits for others when the node is idle",
        number!(batch_linger_us, Micros, 0, 1_000_000)
    ),
    key!(
        "segment_bytes",
        "segment-bytes",
        "WEFT_SEGMENT_BYTES",
        "Log",
        "SIZE",
        "Size of a log segment; each is preallocated whole",
        number!(segment_bytes, Bytes, 1 << 20, 64 << 30)
    ),
    key!(
        "free_space_watermark_bytes",
        "free-space-watermark-bytes",
        "WEFT_FREE_SPACE_WATERMARK_BYTES",
        "Log",
        "SIZE",
        "Free disk space below which messages are refused instead of logged",
        number!(free_space_watermark_bytes, Bytes, 0, 1 << 50)
    ),
    key!(
        "replay_issuers_max",
        "replay-issuers-max",
        "WEFT_REPLAY_ISSUERS_MAX",
        "Tables",
        "COUNT",
        "Devices whose newest sequences are remembered against replays; about 100 bytes of memory each",
        number!(replay_issuers_max, Count, 1_024, 1 << 30)
    ),
    key!(
        "recent_ids_max",
        "recent-ids-max",
        "WEFT_RECENT_IDS_MAX",
        "Tables",
        "COUNT",
        "Ids of the newest messages kept in memory for duplicates and parents; about 100 bytes each",
        number!(recent_ids_max, Count, 1_024, 1 << 30)
    ),
    key!(
        "tips_max",
        "tips-max",
        "WEFT_TIPS_MAX",
        "Tips",
        "COUNT",
        "Tips kept for devices to name as parents",
        number!(tips_max, Count, 16, 1 << 20)
    ),
    key!(
        "tip_selection",
        "tip-selection",
        "WEFT_TIP_SELECTION",
        "Tips",
        "RULE",
        "How tips are chosen: default (a recent witness and a uniform random tip), urts (uniform random) or mcmc (weighted random walk)",
        choice!(tip_selection, TIP_SELECTIONS)
    ),
    key!(
        "tip_alpha",
        "tip-alpha",
        "WEFT_TIP_ALPHA",
        "Tips",
        "NUMBER",
        "How strongly the random walk of mcmc prefers heavy messages: 0 to 100",
        Field::Other {
            get: |config| json!(config.tip_alpha),
            set: |config, text| {
                let alpha: f64 = text.parse().map_err(|_| "a number from 0 to 100".to_owned())?;
                if !(0.0..=100.0).contains(&alpha) {
                    return Err("a number from 0 to 100".to_owned());
                }
                config.tip_alpha = alpha;
                Ok(())
            },
        }
    ),
    key!(
        "clock_ahead_us_max",
        "clock-ahead-us-max",
        "WEFT_CLOCK_AHEAD_US_MAX",
        "Clocks",
        "TIME",
        "How far a device's clock may be ahead of this node's; genesis: as the ledger says",
        number!(clock_ahead_us_max, Micros, 0, 315_360_000_000_000, "genesis")
    ),
    key!(
        "clock_behind_us_max",
        "clock-behind-us-max",
        "WEFT_CLOCK_BEHIND_US_MAX",
        "Clocks",
        "TIME",
        "How far a device's clock may be behind this node's; genesis: as the ledger says",
        number!(clock_behind_us_max, Micros, 0, 315_360_000_000_000, "genesis")
    ),
    key!(
        "log",
        "log",
        "WEFT_LOG",
        "Logging",
        "FILTER",
        "What to log: a level (error, warn, info, debug, trace) or a filter such as info,weft_net=debug",
        Field::Other {
            get: |config| json!(config.log),
            set: |config, text| {
                crate::telemetry::check_filter(text)?;
                config.log = text.to_owned();
                Ok(())
            },
        }
    ),
    key!(
        "log_format",
        "log-format",
        "WEFT_LOG_FORMAT",
        "Logging",
        "FORMAT",
        "How to log: human or json (one object a line)",
        choice!(log_format, LOG_FORMATS)
    ),
];

/// Keys whose flags are options of every command ([`Globals`]), not generated here.
const GLOBAL_KEYS: &[&str] = &["log", "log_format"];

impl Key {
    /// The key by its name in the file.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Key> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// The value in `config`, as JSON.
    #[must_use]
    pub fn value(&self, config: &Config) -> Value {
        match &self.field {
            Field::Number { get, unset, .. } => match get(config) {
                Some(number) => json!(number),
                None => json!(unset.unwrap_or("unset")),
            },
            Field::Other { get, .. } => get(config),
        }
    }

    /// The value in `config` with its unit, where that says more than the bare value.
    #[must_use]
    pub fn human(&self, config: &Config) -> Option<String> {
        match &self.field {
            Field::Number { get, unit, .. } => {
                let number = get(config)?;
                let text = unit.show(number);
                (text != number.to_string()).then_some(text)
            }
            Field::Other { .. } => None,
        }
    }

    /// The accepted range in words, for numbers.
    #[must_use]
    pub fn limits(&self) -> Option<String> {
        match &self.field {
            Field::Number { unit, min, max, unset, .. } => {
                let or = unset.map(|word| format!(", or {word}")).unwrap_or_default();
                Some(format!("{} to {}{or}", unit.show(*min), unit.show(*max)))
            }
            Field::Other { .. } => None,
        }
    }

    fn set(&self, config: &mut Config, text: &str, from: &Source) -> Result<(), ConfigError> {
        match &self.field {
            Field::Number { unit, min, max, unset, set, .. } => {
                if *unset == Some(text) {
                    set(config, None);
                    return Ok(());
                }
                let number = unit.parse(text).map_err(|expected| self.bad(text, expected, from))?;
                if number < *min || number > *max {
                    return Err(ConfigError::OutOfRange {
                        key: self.name,
                        from: from.clone(),
                        got: unit.show(number),
                        min: unit.show(*min),
                        max: unit.show(*max),
                    });
                }
                set(config, Some(number));
                Ok(())
            }
            Field::Other { set, .. } => set(config, text).map_err(|expected| self.bad(text, expected, from)),
        }
    }

    fn bad(&self, got: &str, expected: String, from: &Source) -> ConfigError {
        ConfigError::BadValue { key: self.name, from: from.clone(), got: got.to_owned(), expected }
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Built in.
    Default,
    /// A line of a file, counted from 1.
    File(PathBuf, usize),
    /// An environment variable.
    Env(&'static str),
    /// A command-line flag, without dashes.
    Flag(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File(path, line) => write!(f, "{}:{line}", path.display()),
            Source::Env(name) => write!(f, "environment {name}"),
            Source::Flag(name) => write!(f, "flag --{name}"),
        }
    }
}

/// Why the settings cannot be used. Exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key that no setting has.
    #[error("{}: unknown key `{key}`{}", place, hint.map(|hint| format!("; did you mean `{hint}`?")).unwrap_or_default())]
    UnknownKey {
        /// Where it stands.
        place: Source,
        /// The key.
        key: String,
        /// The nearest known name.
        hint: Option<&'static str>,
    },
    /// A value of the wrong form.
    #[error("{from}: `{key}` is {got:?}, need {expected}")]
    BadValue {
        /// The setting.
        key: &'static str,
        /// Where it stands.
        from: Source,
        /// What was given.
        got: String,
        /// What is accepted.
        expected: String,
    },
    /// A number outside its limits.
    #[error("{from}: `{key}` is {got}, the limits are {min} to {max}")]
    OutOfRange {
        /// The setting.
        key: &'static str,
        /// Where it stands.
        from: Source,
        /// What was given.
        got: String,
        /// Least value.
        min: String,
        /// Greatest value.
        max: String,
    },
    /// Two settings that do not go together.
    #[error("`{key}` is {got} ({from}), but `{other}` is {limit} ({other_from}): {rule}")]
    Together {
        /// The setting at fault.
        key: &'static str,
        /// Its value.
        got: String,
        /// Where it stands.
        from: Source,
        /// The other setting.
        other: &'static str,
        /// Its value.
        limit: String,
        /// Where that stands.
        other_from: Source,
        /// The rule.
        rule: &'static str,
    },
    /// The file is not TOML.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The file cannot be read.
    #[error("cannot read the settings file {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The effective settings and where each came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// The settings file that was read, if any.
    pub file: Option<PathBuf>,
    sources: BTreeMap<&'static str, Source>,
}

impl Loaded {
    /// Settings as built in, for tests and for `demo`.
    #[must_use]
    pub fn defaults() -> Self {
        Self { config: Config::default(), file: None, sources: BTreeMap::new() }
    }

    /// Where the value of `key` came from.
    #[must_use]
    pub fn source(&self, key: &Key) -> Source {
        self.sources.get(key.name).cloned().unwrap_or(Source::Default)
    }

    fn set(&mut self, key: &'static Key, text: &str, from: Source) -> Result<(), ConfigError> {
        key.set(&mut self.config, text, &from)?;
        self.sources.insert(key.name, from);
        Ok(())
    }

    /// The settings as a TOML file that gives the same settings again; each line ends with a comment naming the
    /// value in human units and its source.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let lines: Vec<(&Key, String)> = KEYS
            .iter()
            .map(|key| (key, format!("{} = {}", key.name, toml_value(&key.value(&self.config)))))
            .collect();
        let width = lines.iter().map(|(_, line)| line.chars().count()).filter(|width| *width <= 44).max().unwrap_or(0);
        let mut out = String::new();
        let mut section = "";
        for (key, line) in lines {
            if key.section != section {
                section = key.section;
                if !out.is_empty() {
                    out.push('\n');
                }
                out.push_str(&format!("# {section}\n"));
            }
            let human = key.human(&self.config).map(|human| format!("{human}, ")).unwrap_or_default();
            out.push_str(&format!("{line:<width$}  # {human}{}\n", self.source(key)));
        }
        out
    }

    /// The settings as JSON: `{"file", "settings": {name: {"value", "source", "flag", "env", "limits"}}}`.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let settings: serde_json::Map<String, Value> = KEYS
            .iter()
            .map(|key| {
                let entry = json!({
                    "value": key.value(&self.config),
                    "source": self.source(key).to_string(),
                    "flag": format!("--{}", key.flag),
                    "env": key.env,
                    "limits": key.limits(),
                });
                (key.name.to_owned(), entry)
            })
            .collect();
        json!({ "file": self.file.as_ref().map(|file| file.to_string_lossy()), "settings": settings })
    }

    /// Rules that tie two settings together.
    fn check_together(&self) -> Result<(), ConfigError> {
        let config = &self.config;
        if config.connection_bytes_max > config.queue_bytes_max {
            return Err(self.clash(
                "connection_bytes_max",
                "queue_bytes_max",
                "one connection cannot have more in the node than all together",
            ));
        }
        Ok(())
    }

    fn clash(&self, key: &'static str, other: &'static str, rule: &'static str) -> ConfigError {
        let show = |name: &str| {
            let Some(key) = Key::find(name) else { return (String::new(), Source::Default) };
            let value = key.human(&self.config).unwrap_or_else(|| key.value(&self.config).to_string());
            (value, self.source(key))
        };
        let ((got, from), (limit, other_from)) = (show(key), show(other));
        ConfigError::Together { key, got, from, other, limit, other_from, rule }
    }
}

/// A JSON scalar as TOML writes it.
fn toml_value(value: &Value) -> String {
    match value {
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        other => other.to_string(),
    }
}

/// A settings file for a new data directory: every key with its meaning, commented out.
#[must_use]
pub fn template() -> String {
    let config = Config::default();
    let mut out = String::from(
        "# Settings of this weft node. Every key here is optional; `weft config --data DIR` prints what is in force\n\
         # and where each value comes from. Flags win over environment variables, which win over this file.\n",
    );
    // The data directory is where this file lies.
    for key in KEYS.iter().filter(|key| key.name != "data") {
        let limits = key.limits().map(|limits| format!(" ({limits})")).unwrap_or_default();
        out.push_str(&format!("\n# {}{limits}.\n#{} = {}\n", key.help, key.name, toml_value(&key.value(&config))));
    }
    out
}

/// The flags of a node's settings, generated from [`KEYS`], and `--config FILE`.
#[derive(Clone, Debug, Default)]
pub struct ConfigArgs {
    /// The settings file named by `--config`.
    pub file: Option<PathBuf>,
    /// Key and text of every flag given.
    pub values: Vec<(&'static str, String)>,
}

impl clap::FromArgMatches for ConfigArgs {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        if let Some(file) = matches.get_one::<PathBuf>("config") {
            self.file = Some(file.clone());
        }
        for key in flag_keys() {
            if let Some(text) = matches.get_one::<String>(key.name) {
                self.values.retain(|(name, _)| *name != key.name);
                self.values.push((key.name, text.clone()));
            }
        }
        Ok(())
    }
}

impl clap::Args for ConfigArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let file = clap::Arg::new("config")
            .long("config")
            .value_name("FILE")
            .help("Settings file [env: WEFT_CONFIG] [default: weft.toml in the data directory, if there is one]")
            .help_heading("Node")
            .value_parser(clap::value_parser!(PathBuf));
        let defaults = Config::default();
        flag_keys().fold(command.arg(file), |command, key| {
            let default = key.human(&defaults).unwrap_or_else(|| match key.value(&defaults) {
                Value::String(text) => text,
                other => other.to_string(),
            });
            let limits = key.limits().map(|limits| format!(" [limits: {limits}]")).unwrap_or_default();
            command.arg(
                clap::Arg::new(key.name)
                    .long(key.flag)
                    .value_name(key.placeholder)
                    .help(format!("{}{limits} [env: {}] [default: {default}]", key.help, key.env))
                    .help_heading(key.section)
                    .allow_hyphen_values(true),
            )
        })
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

fn flag_keys() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| !GLOBAL_KEYS.contains(&key.name))
}

/// Loads the settings from all layers, the process's environment among them.
///
/// # Errors
/// [`ConfigError`] for the first value that cannot be used.
pub fn load(args: &ConfigArgs, globals: &Globals) -> Result<Loaded, ConfigError> {
    load_with(args, globals, &|name| std::env::var(name).ok())
}

/// [`load`] with the environment as an argument.
///
/// # Errors
/// As [`load`].
pub fn load_with(
    args: &ConfigArgs,
    globals: &Globals,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, ConfigError> {
    let mut loaded = Loaded::defaults();
    let named = args.file.clone().or_else(|| env("WEFT_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
    let from_flags = |name: &str| args.values.iter().find(|(key, _)| *key == name).map(|(_, text)| text.clone());
    match named {
        Some(path) => read_file(&mut loaded, &path, false)?,
        None => {
            let data = from_flags("data").or_else(|| env("WEFT_DATA").filter(|path| !path.is_empty()));
            let path = data.map_or_else(|| loaded.config.data.clone(), PathBuf::from).join(FILE_NAME);
            if path.exists() {
                read_file(&mut loaded, &path, true)?;
            }
        }
    }
    for key in KEYS {
        // An empty variable is an unset one: that is how many supervisors write "not set".
        if let Some(text) = env(key.env).filter(|text| !text.is_empty()) {
            loaded.set(key, &text, Source::Env(key.env))?;
        }
    }
    for (name, text) in &args.values {
        if let Some(key) = Key::find(name) {
            loaded.set(key, text, Source::Flag(key.flag))?;
        }
    }
    if let (Some(text), Some(key)) = (&globals.log, Key::find("log")) {
        loaded.set(key, text, Source::Flag(key.flag))?;
    }
    if let (Some(format), Some(key)) = (globals.log_format, Key::find("log_format")) {
        loaded.set(key, format.name(), Source::Flag(key.flag))?;
    }
    loaded.check_together()?;
    Ok(loaded)
}

fn read_file(loaded: &mut Loaded, path: &Path, in_data_dir: bool) -> Result<(), ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable { path: path.to_owned(), reason };
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(format!("it has {size} bytes, the limit is {FILE_BYTES_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let line_at = |offset: usize| 1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count();
    let table = DeTable::parse(&text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line_at(error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    })?;
    // In the order of the file, so that the first error reported is the first one in it.
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in entries {
        let place = Source::File(path.to_owned(), line_at(name.span().start));
        let Some(key) = Key::find(name.get_ref()) else {
            let hint = nearest(name.get_ref());
            return Err(ConfigError::UnknownKey { place, key: name.get_ref().to_string(), hint });
        };
        if in_data_dir && key.name == "data" {
            return Err(key.bad(
                &raw_text(value.get_ref()),
                "no `data` here: the file of a data directory cannot name another one".to_owned(),
                &place,
            ));
        }
        let text = match value.get_ref() {
            DeValue::Array(_) | DeValue::Table(_) | DeValue::Datetime(_) => {
                return Err(key.bad(&raw_text(value.get_ref()), "a string or a number".to_owned(), &place));
            }
            scalar => raw_text(scalar),
        };
        loaded.set(key, &text, place)?;
    }
    loaded.file = Some(path.to_owned());
    Ok(())
}

/// A TOML scalar as the text that flags and variables would carry.
fn raw_text(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| number.as_str().to_owned(), |number| number.to_string()),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "[...]".to_owned(),
        DeValue::Table(_) => "{...}".to_owned(),
    }
}

/// The key name nearest to `name`, if one is near enough to be what was meant.
#[must_use]
pub fn nearest(name: &str) -> Option<&'static str> {
    let name = name.replace('-', "_").to_ascii_lowercase();
    KEYS.iter()
        .map(|key| (units::edit_distance(&name, key.name), key.name))
        .filter(|(distance, known)| *distance <= 2.max(known.len() / 3))
        .min()
        .map(|(_, known)| known)
}
