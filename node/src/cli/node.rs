//! `weft node`: runs a node until it is told to stop.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use super::{EXIT_FAILED, EXIT_FOUND, Globals, signals};
use crate::config::ConfigArgs;
use crate::health::State;
use crate::node::RunningNode;

/// How often a running node looks whether it has poisoned itself.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// What `--help` says.
pub const LONG_ABOUT: &str = "Run a node until SIGINT or SIGTERM, which drain, sync and stop it; a second signal ends it at once.\n\n\
        Settings come from flags, environment (WEFT_*), a TOML file and defaults, in this order; `weft config` with the same flags \
        shows them with their sources. The first lines on stdout say where it listens and the certificate that clients may pin.\n\n\
        If a write or sync of the log fails, the node stops acknowledging and exits with 1: look at the disk before starting it again.\n\n\
        Examples:\n  \
        weft init --data ./ledger && weft node --data ./ledger\n  \
        weft node --data ./ledger --listen 0.0.0.0:7272 --http 127.0.0.1:7280 --log-format json";

/// Arguments of `weft node`.
#[derive(clap::Args, Debug)]
pub struct NodeArgs {
    /// The node's settings.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Stop when stdin closes: whoever started this node has gone
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}

enum Wake {
    Stop,
}

/// Runs `weft node`.
///
/// # Errors
/// If the settings cannot be used or the node does not start.
pub fn run(args: NodeArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let loaded = crate::config::load(&args.config, globals)?;
    crate::telemetry::init(&loaded.config.log, loaded.config.log_format)?;
    let (wake, woken) = channel();
    let on_signal = wake.clone();
    signals::on_stop(move || drop(on_signal.send(Wake::Stop)))?;
    if args.stop_with_stdin {
        std::thread::Builder::new().name("weft-stdin".to_owned()).spawn(move || {
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = wake.send(Wake::Stop);
        })?;
    }
    let node = RunningNode::start(&loaded.config)?;
    announce(&node, &loaded.config.name);
    let poisoned = loop {
        match woken.recv_timeout(WATCH_EVERY) {
            Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) if node.health().state == State::Poisoned => break true,
            Err(RecvTimeoutError::Timeout) => {}
        }
    };
    // Before the stop: closing a poisoned log fails too, and the first failure is the one to name.
    let before = node.health();
    let report = node.stop();
    if poisoned || before.state == State::Poisoned {
        eprintln!("error: the node poisoned itself: {}", before.cause.unwrap_or_default());
        return Ok(ExitCode::from(EXIT_FOUND));
    }
    match report.durable_size {
        Ok(size) => {
            tracing::info!(
                durable_size = size,
                sessions_drained = report.sessions.sessions_drained,
                sessions_cut = report.sessions.sessions_cut,
                requests_unanswered = report.sessions.requests_unanswered,
                "stopped; everything acknowledged is durable"
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(cause) => {
            eprintln!("error: the log could not be closed: {cause}");
            Ok(ExitCode::from(EXIT_FAILED))
        }
    }
}

/// Says where it listens, in one write. Scripts read these lines: their form is kept. A reader that has gone away (`weft node | head -1`)
/// is no reason to stop a node, so nothing is made of a write that fails.
fn announce(node: &RunningNode, name: &str) {
    use std::fmt::Write as _;
    let mut text = format!("weft node \"{name}\" on network {}\n", node.network());
    let _ = writeln!(text, "  listening    {} (QUIC)", node.address());
    if let Some(http) = node.http_address() {
        let _ = writeln!(text, "  http         http://{http}/health and /metrics");
    }
    let recovered = node.recovered();
    let _ = writeln!(text, "  certificate  {}", node.fingerprint());
    let _ = writeln!(text, "  verifier     {}", node.verifier());
    let _ =
        writeln!(text, "  log          {} messages in {} segments", recovered.messages, recovered.segments);
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
