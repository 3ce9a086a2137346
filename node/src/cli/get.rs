//! `weft get`: fetch a message by its id, and believe nothing but its bytes.

use std::process::ExitCode;

use serde::Serialize;
use weft_core::{MessageId, MessageView};
use weft_net::{AckLevel, Lookup};

use super::{EXIT_FOUND, Globals, JsonArg, PeerArgs, connect, usage};

/// What `--help` says.
pub const LONG_ABOUT: &str = "Fetch a message by its id and check it: the id is computed from the bytes that came back, and the device's \
        signature is verified here.\n\n\
        Exits with 1 if the node does not have it, or if what it sent is not that message.\n\n\
        Example:\n  weft get 3f9ac0...e1 --json";

/// Arguments of `weft get`.
#[derive(clap::Args, Debug)]
pub struct GetArgs {
    /// The message's id: 64 hex digits
    #[arg(value_name = "ID")]
    id: String,
    /// Write the message's bytes to stdout, and nothing else
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    #[command(flatten)]
    peer: PeerArgs,
    #[command(flatten)]
    json: JsonArg,
}

#[derive(Serialize)]
struct MessageReport {
    id: String,
    lane: u16,
    position: u64,
    network: String,
    issuer: String,
    issued_at_us: u64,
    sequence: u64,
    parents: [String; 2],
    kind: String,
    payload_bytes: usize,
    payload_hex: String,
    signature: String,
    signature_valid: bool,
}

/// Runs `weft get`.
///
/// # Errors
/// If the node cannot be reached, or the id is not one.
pub fn run(args: GetArgs, _globals: &Globals) -> anyhow::Result<ExitCode> {
    let id: MessageId = args.id.parse().map_err(|error| usage(format!("ID: {error}")))?;
    let lookup = connect::block_on(&args.peer, async {
        let link = connect::open(&args.peer, None, AckLevel::Durable).await?;
        let lookup = link.session.get(&[id]).await?.into_iter().next();
        link.client.close().await;
        Ok(lookup)
    })?;
    let Some(Lookup::Found(found)) = lookup else {
        eprintln!("not found: the node at {} has no message {id}", args.peer.to);
        return Ok(ExitCode::from(EXIT_FOUND));
    };
    let view = MessageView::parse(&found.bytes).ok().filter(|view| view.id() == id);
    let Some(view) = view else {
        eprintln!("the node at {} sent other bytes than those of {id}: do not trust it", args.peer.to);
        return Ok(ExitCode::from(EXIT_FOUND));
    };
    let signature_valid = weft_crypto::serial::verify_one(&view.issuer().0, &id.0, view.signature());
    let code = if signature_valid { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) };
    if args.raw {
        use std::io::Write as _;
        std::io::stdout().lock().write_all(&found.bytes)?;
        return Ok(code);
    }
    let [first, second] = view.parents();
    let report = MessageReport {
        id: id.to_string(),
        lane: found.place.lane().0,
        position: found.place.position(),
        network: view.network().to_string(),
        issuer: view.issuer().to_string(),
        issued_at_us: view.issued_at_us(),
        sequence: view.sequence(),
        parents: [first.to_string(), second.to_string()],
        kind: view.kind().to_string(),
        payload_bytes: view.payload().len(),
        payload_hex: hex::encode(view.payload()),
        signature: hex::encode(view.signature()),
        signature_valid,
    };
    args.json.write(&report)?;
    if !args.json.on_stdout() {
        println!("message    {}", report.id);
        println!("  place      lane {} position {}", report.lane, report.position);
        println!("  issuer     {}", report.issuer);
        println!("  signature  {}", if signature_valid { "valid" } else { "NOT VALID" });
        println!("  issued at  {} us   sequence {}", report.issued_at_us, report.sequence);
        println!("  parents    {}\n             {}", report.parents[0], report.parents[1]);
        println!("  payload    {} bytes of {}", report.payload_bytes, report.kind);
        println!("             {}", printable(view.payload()));
    }
    Ok(code)
}

/// The payload as text where it is text, as hex otherwise.
fn printable(payload: &[u8]) -> String {
    match std::str::from_utf8(payload) {
        Ok(text) if !text.chars().any(char::is_control) => format!("{text:?}"),
        _ => hex::encode(payload),
    }
}
