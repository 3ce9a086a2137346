//! The command line: the tree of commands, the options they share, exit codes, and how errors are printed.
//!
//! Owns: parsing, `--json` output, the three ways to trust a node, and the mapping from an error to an exit code.
//! Leaves to the command files: what each command does. Leaves to [`crate::config`]: the node's settings, whose
//! flags are generated from its table of keys so that flag, environment variable and file key never drift apart.
//!
//! Conventions that hold for every command:
//! * results go to stdout, progress and logs to stderr;
//! * `--json FILE` writes the whole report as JSON; `--json` alone (or `--json -`) writes it to stdout, in place
//!   of the readable one;
//! * exit codes: 0 done and all well; 1 the thing examined is not well (a damaged log, an audit with losses, an
//!   invalid run); 2 the request is wrong (flags, configuration, input); 3 it could not be done (I/O, network).

use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use crate::telemetry;

pub mod account;
pub mod bench;
pub mod cluster;
pub mod config;
pub mod connect;
pub mod demo;
pub mod demo_cluster;
pub mod doctor;
pub mod genesis;
pub mod get;
pub mod gpu;
pub mod init;
pub mod inspect;
pub mod key;
pub mod loadgen;
pub mod node;
pub mod pay;
pub mod progress;
pub mod receipt;
pub mod send;
pub mod signals;
pub mod status;
pub mod tips;
pub mod traffic;
pub mod verify_log;
pub mod verify_signatures;
pub mod watch;

/// Exit code 1: the command ran to its end, and what it examined is not well.
pub const EXIT_FOUND: u8 = 1;
/// Exit code 2: the request is wrong. The same code that clap uses for flags it cannot parse.
pub const EXIT_USAGE: u8 = 2;
/// Exit code 3: the request is fine and could not be carried out.
pub const EXIT_FAILED: u8 = 3;

/// Where clients look for a node when nothing is said: the default of `listen`.
pub const NODE_ADDRESS_DEFAULT: &str = crate::config::LISTEN_DEFAULT;

/// A DAG ledger for device messages, and the benchmark kit around it.
#[derive(Debug, Parser)]
#[command(
    name = "weft",
    version,
    about,
    long_about = "A DAG ledger for device messages, and the benchmark kit around it.\n\n\
        Devices sign messages, each message names two earlier ones, nodes verify signatures in batches, append \
        them to a durable log and acknowledge.\n\n\
        Start here:\n  \
        weft demo                        a node, devices and a report, in one command\n  \
        weft doctor                      what this machine offers, and what to change\n  \
        weft init --data ./ledger        a new ledger\n  \
        weft node --data ./ledger        run its node\n  \
        weft send --payload 'hello'      send it a message, signed by a new device key\n  \
        weft watch                       what becomes final, as it does\n  \
        weft receipt get ID -o FILE      the proof that it is there, for anybody, offline",
    after_help = "Exit codes: 0 done, 1 what was examined is not well, 2 wrong request, 3 could not be done.\n\
        Sizes are written 4096, 64KiB, 256MiB; times 2000, 5ms, 30s (a bare number has the unit in the flag's name).",
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Args, Clone, Debug, Default)]
pub struct Globals {
    /// What to log to stderr: a level (error, warn, info, debug, trace) or a filter such as
    /// `info,weft_net=debug`
    ///
    /// [env: WEFT_LOG] [default: info for `node`, warn for the others]
    #[arg(long, global = true, value_name = "FILTER", help_heading = "Logging")]
    pub log: Option<String>,
    /// How to log: `human` (one line each, colours on a terminal) or `json` (one object a line)
    ///
    /// [env: WEFT_LOG_FORMAT] [default: human]
    #[arg(long, global = true, value_name = "FORMAT", help_heading = "Logging")]
    pub log_format: Option<telemetry::LogFormat>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a data directory: a new ledger's genesis, or a given one, and this node's key
    #[command(long_about = init::LONG_ABOUT)]
    Init(init::InitArgs),
    /// Write the genesis of a ledger with several nodes, or show one
    #[command(subcommand)]
    Genesis(genesis::GenesisCommand),
    /// Run a node until SIGINT or SIGTERM, which drain, sync and stop it
    #[command(long_about = node::LONG_ABOUT)]
    Node(node::NodeArgs),
    /// Start a node and devices, show live progress, stop, restart, audit, report
    #[command(long_about = demo::LONG_ABOUT)]
    Demo(demo::DemoArgs),
    /// Several nodes on this machine: make their directories, run them
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Send signed device traffic to a node and report what came back, and when
    #[command(long_about = loadgen::LONG_ABOUT)]
    Loadgen(loadgen::LoadgenArgs),
    /// Make or show a device's Ed25519 key
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Sign one message and send it
    #[command(long_about = send::LONG_ABOUT)]
    Send(send::SendArgs),
    /// Fetch a message by its id and check it
    #[command(long_about = get::LONG_ABOUT)]
    Get(get::GetArgs),
    /// Ask a node for tips: messages to name as parents
    #[command(long_about = tips::LONG_ABOUT)]
    Tips(tips::TipsArgs),
    /// Ask a node how it is
    #[command(long_about = status::LONG_ABOUT)]
    Status(status::StatusArgs),
    /// Print what becomes certified and final, as it does
    #[command(long_about = watch::LONG_ABOUT)]
    Watch(watch::WatchArgs),
    /// Ask what an account has
    #[command(subcommand)]
    Account(account::AccountCommand),
    /// Print the payments of an account, or between two
    #[command(long_about = account::HISTORY_ABOUT)]
    History(account::HistoryArgs),
    /// Fetch and verify the proof that a message is in the ledger
    #[command(subcommand)]
    Receipt(receipt::ReceiptCommand),
    /// Read a log, a segment or a message from a data directory, without a node
    #[command(subcommand)]
    Inspect(inspect::InspectCommand),
    /// Check every byte, hash, root and signature of a data directory's log
    #[command(long_about = verify_log::LONG_ABOUT)]
    VerifyLog(verify_log::VerifyLogArgs),
    /// Verify Ed25519 signatures given as JSON lines, one verdict a line
    #[command(long_about = verify_signatures::LONG_ABOUT)]
    VerifySignatures(verify_signatures::VerifySignaturesArgs),
    /// Measure: signatures per second by backend, batch size and key mix, with peers in the same run
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// List GPUs and test that they verify rightly
    #[command(subcommand)]
    Gpu(gpu::GpuCommand),
    /// Print the effective configuration, with the source of each value
    #[command(long_about = config::LONG_ABOUT)]
    Config(config::ConfigCommandArgs),
    /// Examine this machine: sockets, limits, CPU, disk, clock
    #[command(long_about = doctor::LONG_ABOUT)]
    Doctor(doctor::DoctorArgs),
}

/// Parses the process's arguments, runs the command, prints its error, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    run_from(std::env::args_os())
}

/// [`main`] with the arguments given, for tests and embedders.
pub fn run_from<I, T>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, with exit code 0. A closed pipe is not worth a second error.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE));
        }
    };
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            if is_broken_pipe(&error) {
                // `weft inspect ... | head`: the reader has what it wanted.
                return ExitCode::SUCCESS;
            }
            print_error(&error);
            ExitCode::from(if is_usage(&error) { EXIT_USAGE } else { EXIT_FAILED })
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let globals = cli.globals;
    if !matches!(cli.command, Command::Node(_)) {
        // `node` sets up its own: its filter may also stand in its configuration file.
        telemetry::init_for_command(&globals)?;
    }
    match cli.command {
        Command::Init(args) => init::run(args, &globals),
        Command::Genesis(command) => genesis::run(command),
        Command::Node(args) => node::run(args, &globals),
        Command::Demo(args) => demo::run(args, &globals),
        Command::Cluster(command) => cluster::run(command),
        Command::Loadgen(args) => loadgen::run(args, &globals),
        Command::Key(command) => key::run(command),
        Command::Send(args) => send::run(args, &globals),
        Command::Get(args) => get::run(args, &globals),
        Command::Tips(args) => tips::run(args, &globals),
        Command::Status(args) => status::run(args, &globals),
        Command::Watch(args) => watch::run(args, &globals),
        Command::Account(command) => account::run(command),
        Command::History(args) => account::history(args),
        Command::Receipt(command) => receipt::run(command),
        Command::Inspect(command) => inspect::run(command),
        Command::VerifyLog(args) => verify_log::run(args),
        Command::VerifySignatures(args) => verify_signatures::run(args),
        Command::Bench(command) => bench::run(command),
        Command::Gpu(command) => gpu::run(command),
        Command::Config(args) => config::run(args, &globals),
        Command::Doctor(args) => doctor::run(args),
    }
}

/// An error that is the caller's to mend: exit code 2. Make one with [`usage`].
#[derive(Debug)]
pub struct UsageError(pub String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// An error that ends the process with exit code 2 and `text`.
pub fn usage(text: impl Into<String>) -> anyhow::Error {
    UsageError(text.into()).into()
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<UsageError>()
        || error.is::<crate::config::ConfigError>()
        || error.chain().any(|cause| cause.is::<UsageError>() || cause.is::<crate::config::ConfigError>())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

/// `error: what` and one `because:` line for each deeper cause that says something new.
fn print_error(error: &anyhow::Error) {
    let mut last = error.to_string();
    eprintln!("error: {last}");
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        // Many error types repeat their source in their own text.
        if !last.contains(&text) {
            eprintln!("  because: {text}");
        }
        last = text;
    }
}

/// `--json [FILE]`, for every command that reports something.
#[derive(Args, Clone, Debug, Default)]
pub struct JsonArg {
    /// Write the report as JSON to FILE; without FILE, or with `-`, to stdout in place of the readable report
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-", help_heading = "Output")]
    pub json: Option<PathBuf>,
}

impl JsonArg {
    /// Whether JSON takes the place of the readable report on stdout.
    #[must_use]
    pub fn on_stdout(&self) -> bool {
        self.json.as_deref() == Some(Path::new("-"))
    }

    /// Writes `report` where the flag says; nothing without the flag.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, report: &impl serde::Serialize) -> anyhow::Result<()> {
        let Some(path) = &self.json else { return Ok(()) };
        let mut text =
            serde_json::to_string_pretty(report).context("the report cannot be written as JSON")?;
        text.push('\n');
        if self.on_stdout() {
            std::io::stdout().lock().write_all(text.as_bytes())?;
        } else {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// `--data DIR`, for commands that read a data directory without a node's other settings.
#[derive(Args, Clone, Debug)]
pub struct DataArg {
    /// The data directory
    #[arg(long, value_name = "DIR", env = "WEFT_DATA", default_value = crate::config::DATA_DEFAULT)]
    pub data: PathBuf,
}

/// Which node to talk to, and how to know that it is the right one.
#[derive(Args, Clone, Debug)]
pub struct PeerArgs {
    /// The node's address (UDP, QUIC)
    #[arg(long, value_name = "ADDR:PORT", env = "WEFT_TO", default_value = NODE_ADDRESS_DEFAULT, help_heading = "Node")]
    pub to: SocketAddr,
    /// Trust exactly the server whose certificate has this SHA-256: 64 hex digits, as `weft node` prints at start
    #[arg(long, value_name = "HEX", env = "WEFT_PIN", conflicts_with = "known_nodes", help_heading = "Node")]
    pub pin: Option<String>,
    /// Trust on first use: the file that remembers each address's certificate
    ///
    /// [default: weft/known-nodes below $XDG_CONFIG_HOME or ~/.config]
    #[arg(long, value_name = "FILE", env = "WEFT_KNOWN_NODES", help_heading = "Node")]
    pub known_nodes: Option<PathBuf>,
    /// Give up after this long without an answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000, help_heading = "Node")]
    pub timeout_ms: u64,
}

impl PeerArgs {
    /// The pinned certificate hash, if one was given.
    ///
    /// # Errors
    /// A usage error if it is not 64 hex digits.
    pub fn pin_bytes(&self) -> anyhow::Result<Option<[u8; 32]>> {
        self.pin.as_deref().map(|text| parse_hex32(text, "--pin")).transpose()
    }

    /// The file of nodes trusted on first use.
    ///
    /// # Errors
    /// If no file was named and the environment has no home directory.
    pub fn known_nodes_file(&self) -> anyhow::Result<PathBuf> {
        if let Some(file) = &self.known_nodes {
            return Ok(file.clone());
        }
        let base = match std::env::var_os("XDG_CONFIG_HOME").filter(|value| !value.is_empty()) {
            Some(base) => PathBuf::from(base),
            None => match std::env::var_os("HOME").filter(|value| !value.is_empty()) {
                Some(home) => Path::new(&home).join(".config"),
                None => {
                    return Err(usage(
                        "neither HOME nor XDG_CONFIG_HOME is set: name a file with --known-nodes FILE, or --pin HEX",
                    ));
                }
            },
        };
        Ok(base.join("weft").join("known-nodes"))
    }
}

/// Parses exactly 32 bytes of hex; `what` names the flag or field in the error.
///
/// # Errors
/// A usage error that says what was got.
pub fn parse_hex32(text: &str, what: &str) -> anyhow::Result<[u8; 32]> {
    let bytes = hex::decode(text.trim()).map_err(|error| usage(format!("{what}: not hex: {error}")))?;
    <[u8; 32]>::try_from(bytes.as_slice())
        .map_err(|_| usage(format!("{what}: got {} bytes of hex, need 32", bytes.len())))
}
