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
use weft_gpu::adapter::Selection;
use weft_net::AckLevel;

use crate::cli::Globals;
use crate::telemetry::LogFormat;
use crate::units;

mod keys;
pub mod peers;

pub use keys::{Field, KEYS, Key};
pub use peers::{PeerAddress, PeersError, peer_config};

/// Where a node listens, and where clients look for one, when nothing is said. Loopback: a node is open to the
/// network only when its operator says so.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7272";
/// The data directory when none is named.
pub const DATA_DEFAULT: &str = "weft-data";
/// Name of the settings file that is read from the data directory when no other is named.
pub const FILE_NAME: &str = "weft.toml";
/// Longest settings file that is read, bytes: a mistaken path must not fill the memory.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Greatest part of the datagrams from other nodes that can be lost on purpose: with more, no handshake ends in time.
pub const LOSS_PERCENT_MAX: f64 = 90.0;
/// Longest verifier name, characters.
const VERIFIER_NAME_CHARS_MAX: usize = 32;

/// Longest list of GPU adapters, characters: names are long, and a mistaken value must not be longer than a line.
const GPU_CHARS_MAX: usize = 1024;

/// The settings of one node. Every field is one key of [`KEYS`]; units are in the names.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Data directory.
    pub data: PathBuf,
    /// The node's name, as peers and logs show it.
    pub name: String,
    /// UDP address for QUIC.
    pub listen: SocketAddr,
    /// UDP address for other nodes; none: no other node reaches this one.
    pub peer_listen: Option<SocketAddr>,
    /// Where other nodes are.
    pub peers: Vec<PeerAddress>,
    /// Time that everything sent to other nodes is held back: a long link, for tests.
    pub peer_latency_ms: u64,
    /// Percent of the datagrams from other nodes that are lost.
    pub peer_loss: f64,
    /// TCP address for `/healthz` and metrics; none: no HTTP server.
    pub http: Option<SocketAddr>,
    /// The strongest acknowledgement that clients may ask for.
    pub ack_level: AckLevel,
    /// Connections at a time.
    pub connections_max: usize,
    /// Message bytes that one session may have in the node, unacknowledged.
    pub connection_bytes_max: usize,
    /// Subscriptions to confirmation at a time, of all connections.
    pub subscriptions_max: usize,
    /// Subscriptions of one connection at a time.
    pub connection_subscriptions_max: usize,
    /// A connection that says nothing for this long is closed.
    pub connection_idle_ms: u64,
    /// Message bytes that all connections together may have in the node, unacknowledged.
    pub queue_bytes_max: usize,
    /// Verifier by name, or `auto`.
    pub verifier: String,
    /// GPU adapters that verify too; see [`crate::verifier`] for how it goes together with `verifier`.
    pub gpu: Selection,
    /// Bytes of each GPU's memory for decoded device keys.
    pub gpu_resident_bytes: u64,
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
    /// Time between two witnesses of this validator.
    pub round_ms: u64,
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
            peer_listen: None,
            peers: Vec::new(),
            peer_latency_ms: 0,
            peer_loss: 0.0,
            http: None,
            ack_level: AckLevel::Final,
            connections_max: 128,
            connection_bytes_max: 8 << 20,
            subscriptions_max: 64,
            connection_subscriptions_max: 4,
            connection_idle_ms: 30_000,
            queue_bytes_max: 256 << 20,
            verifier: "auto".to_owned(),
            gpu: Selection::default(),
            gpu_resident_bytes: weft_gpu::Options::default().resident_bytes,
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
            round_ms: 100,
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

/// The levels of acknowledgement.
const ACK_LEVELS: &[(&str, AckLevel)] = &[
    ("received", AckLevel::Received),
    ("written", AckLevel::Written),
    ("durable", AckLevel::Durable),
    ("certified", AckLevel::Certified),
    ("final", AckLevel::Final),
];

const LOG_FORMATS: &[(&str, LogFormat)] = &[("human", LogFormat::Human), ("json", LogFormat::Json)];

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
        let width = lines
            .iter()
            .map(|(_, line)| line.chars().count())
            .filter(|width| *width <= 44)
            .max()
            .unwrap_or(0);
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
        out.push_str(&format!(
            "\n# {}{limits}.\n#{} = {}\n",
            key.help,
            key.name,
            toml_value(&key.value(&config))
        ));
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
    let named =
        args.file.clone().or_else(|| env("WEFT_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from));
    let from_flags =
        |name: &str| args.values.iter().find(|(key, _)| *key == name).map(|(_, text)| text.clone());
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
