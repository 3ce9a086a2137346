//! The table of settings: every key with its names, meaning, limits and field.
//!
//! Owns the table alone; reading the layers and naming sources is the parent module's. Invariant: a key has one name in all layers,
//! spelled `like_this` in the file, `WEFT_LIKE_THIS` in the environment and `--like-this` as a flag.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{
    ACK_LEVELS, Config, GPU_CHARS_MAX, LOG_FORMATS, LOSS_PERCENT_MAX, TIP_SELECTIONS, VERIFIER_NAME_CHARS_MAX,
};
use crate::units::Unit;

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
                if text.is_empty()
                    || text.len() > 64
                    || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
                {
                    return Err("1 to 64 printable ASCII characters".to_owned());
                }
                config.name = text.to_owned();
                Ok(())
            },
        }
    ),
    key!(
        "round_ms",
        "round-ms",
        "WEFT_ROUND_MS",
        "Node",
        "TIME",
        "Shortest time between two witnesses of a validator: what certified and final cost in latency, and in messages",
        number!(round_ms, Millis, 1, 60_000)
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
                config.listen = text
                    .parse()
                    .map_err(|_| "an address and a port, such as 0.0.0.0:7272 or [::]:7272".to_owned())?;
                Ok(())
            },
        }
    ),
    key!(
        "peer_listen",
        "peer-listen",
        "WEFT_PEER_LISTEN",
        "Peers",
        "ADDR:PORT",
        "UDP address for the other nodes of the ledger (QUIC, both sides known by their node keys), or `off`",
        Field::Other {
            get: |config| {
                json!(config.peer_listen.map_or_else(|| "off".to_owned(), |address| address.to_string()))
            },
            set: |config, text| {
                config.peer_listen = match text {
                    "off" => None,
                    text => Some(text.parse().map_err(|_| "an address and a port, or off".to_owned())?),
                };
                Ok(())
            },
        }
    ),
    key!(
        "peers",
        "peers",
        "WEFT_PEERS",
        "Peers",
        "KEY@HOST:PORT,...",
        "Where the other nodes are: a list, or a file with one a line, or `none`. The node with the higher lane dials; the others may be left out",
        Field::Other {
            get: |config| json!(super::peers::show(&config.peers)),
            set: |config, text| {
                config.peers = super::peers::parse(text)?;
                Ok(())
            },
        }
    ),
    key!(
        "peer_latency_ms",
        "peer-latency-ms",
        "WEFT_PEER_LATENCY_MS",
        "Peers",
        "TIME",
        "For tests: hold back everything that is sent to other nodes, as a link of this length does",
        number!(peer_latency_ms, Millis, 0, 10_000)
    ),
    key!(
        "peer_loss",
        "peer-loss",
        "WEFT_PEER_LOSS",
        "Peers",
        "PERCENT",
        "For tests: lose this part of the datagrams that come from other nodes, as a bad link does: 0 to 90",
        Field::Other {
            get: |config| json!(config.peer_loss),
            set: |config, text| {
                let percent = text.parse().ok().filter(|percent| (0.0..=LOSS_PERCENT_MAX).contains(percent));
                config.peer_loss = percent.ok_or_else(|| format!("a number from 0 to {LOSS_PERCENT_MAX}"))?;
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
        "The strongest acknowledgement that clients may ask for: received, written (in the log), durable (synced to the disk), certified (held by a quorum) or final",
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
        "Message bytes of one session in the node at a time; then its sender waits",
        number!(connection_bytes_max, Bytes, 128 << 10, 1 << 30)
    ),
    key!(
        "subscriptions_max",
        "subscriptions-max",
        "WEFT_SUBSCRIPTIONS_MAX",
        "Network",
        "COUNT",
        "Subscriptions to confirmation of all connections at a time (`weft watch`); about 400 KiB of memory each; 0 for none",
        number!(subscriptions_max, Count, 0, 65_536)
    ),
    key!(
        "connection_subscriptions_max",
        "connection-subscriptions-max",
        "WEFT_CONNECTION_SUBSCRIPTIONS_MAX",
        "Network",
        "COUNT",
        "Subscriptions of one connection at a time",
        number!(connection_subscriptions_max, Count, 0, 1_024)
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
        "Which signature verifier to use: serial, avx2, avx512, gpu (the GPU first, the CPU for small batches), or auto, which takes the fastest one for this CPU (`weft doctor` names it) and a GPU beside it if there is one",
        Field::Other {
            get: |config| json!(config.verifier),
            set: |config, text| {
                let name = |byte: u8| {
                    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-'
                };
                if text.is_empty() || text.len() > VERIFIER_NAME_CHARS_MAX || !text.bytes().all(name) {
                    return Err("auto or the name of a verifier, such as serial".to_owned());
                }
                config.verifier = text.to_owned();
                Ok(())
            },
        }
    ),
    key!(
        "gpu",
        "gpu",
        "WEFT_GPU",
        "Pipeline",
        "ADAPTER",
        "Which GPU to use: auto (the best one; never software), off, or adapters by index or part of the name as in `weft gpu list`, separated by commas",
        Field::Other {
            get: |config| json!(config.gpu.to_string()),
            set: |config, text| {
                if text.len() > GPU_CHARS_MAX {
                    return Err(format!("at most {GPU_CHARS_MAX} characters"));
                }
                config.gpu = text.parse()?;
                Ok(())
            },
        }
    ),
    key!(
        "gpu_resident_bytes",
        "gpu-resident-bytes",
        "WEFT_GPU_RESIDENT_BYTES",
        "Pipeline",
        "BYTES",
        "Memory of each GPU for device keys that stay decoded there: 72 bytes each, and about 150 of this machine's; 0 for none",
        number!(gpu_resident_bytes, Bytes, 0, weft_gpu::resident::BYTES_MAX)
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
