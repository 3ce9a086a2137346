//! `weft send`: sign one message and send it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use bytes::Bytes;
use serde::Serialize;
use weft_core::{DeviceSigner, Draft, MessageId, MessageView, PAYLOAD_BYTES_MAX, PayloadKind};
use weft_net::AckLevel;

use super::{EXIT_FOUND, Globals, JsonArg, PeerArgs, connect, usage};
use crate::pipeline::verify::unix_now_us;

/// Length of the tag that opens a data payload.
const TAG_BYTES: usize = 16;

/// What `--help` says.
pub const LONG_ABOUT: &str = "Sign one message with a device's key and send it; print its id and what the node said.\n\n\
        Without --key a new device key is made for this one message. The parents are tips that the node offers, unless given. The \
        sequence number is the clock in microseconds, so that successive sends of one device rise.\n\n\
        Exits with 1 if the node refuses the message.\n\n\
        Examples:\n  \
        weft send --payload 'door open'\n  \
        weft send --key door.key --tag door/status --file reading.bin --ack written";

/// Arguments of `weft send`.
#[derive(clap::Args, Debug)]
pub struct SendArgs {
    /// The device's key file, as `weft key new` makes it
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Payload text, after the tag
    #[arg(long, value_name = "TEXT", conflicts_with = "file", required_unless_present = "file")]
    payload: Option<String>,
    /// Payload from a file (`-`: stdin), after the tag
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Tag that opens the payload: up to 16 bytes, padded with zeros
    #[arg(long, value_name = "TEXT", default_value = "")]
    tag: String,
    /// Parent message, 64 hex digits; give it twice for both
    #[arg(long = "parent", value_name = "ID", num_args = 1)]
    parents: Vec<String>,
    /// Sequence number; default: the clock in microseconds
    #[arg(long, value_name = "NUMBER")]
    sequence: Option<u64>,
    /// What to wait for: received, written or durable
    #[arg(long, value_name = "LEVEL", default_value = "durable", value_parser = parse_level)]
    ack: AckLevel,
    #[command(flatten)]
    peer: PeerArgs,
    #[command(flatten)]
    json: JsonArg,
}

#[derive(Serialize)]
struct SendReport {
    id: String,
    issuer: String,
    sequence: u64,
    parents: [String; 2],
    accepted: bool,
    status: String,
    ack_level: String,
    detail: Option<String>,
}

/// Parses an ack level.
///
/// # Errors
/// What is accepted.
pub fn parse_level(text: &str) -> Result<AckLevel, String> {
    text.parse()
}

/// Runs `weft send`.
///
/// # Errors
/// If the key or payload cannot be read, or the node cannot be reached.
pub fn run(args: SendArgs, _globals: &Globals) -> anyhow::Result<ExitCode> {
    let payload = payload(&args)?;
    let signer = match &args.key {
        Some(file) => super::key::read_signer(file)?,
        None => {
            let mut seed = [0u8; 32];
            getrandom::fill(&mut seed).context("no randomness for a new key")?;
            DeviceSigner::from_seed(seed)
        }
    };
    let report = connect::block_on(&args.peer, send(&args, &signer, &payload))?;
    args.json.write(&report)?;
    if !args.json.on_stdout() {
        println!("{}", report.id);
        eprintln!(
            "{} at level {}{}; device {}",
            report.status,
            report.ack_level,
            report.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default(),
            report.issuer
        );
    }
    Ok(if report.accepted { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

fn payload(args: &SendArgs) -> anyhow::Result<Vec<u8>> {
    if args.tag.len() > TAG_BYTES {
        return Err(usage(format!("--tag: got {} bytes, the limit is {TAG_BYTES}", args.tag.len())));
    }
    let mut payload = args.tag.clone().into_bytes();
    payload.resize(TAG_BYTES, 0);
    match (&args.payload, &args.file) {
        (Some(text), _) => payload.extend_from_slice(text.as_bytes()),
        (None, Some(file)) if file.as_os_str() == "-" => {
            use std::io::Read as _;
            // One byte more than fits tells a payload that is too long from one that just fits.
            std::io::stdin().lock().take(PAYLOAD_BYTES_MAX as u64 + 1).read_to_end(&mut payload)?;
        }
        (None, Some(file)) => {
            payload.extend(std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?);
        }
        (None, None) => {}
    }
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(usage(format!(
            "payload: got {} bytes with its tag, the limit is {PAYLOAD_BYTES_MAX}",
            payload.len()
        )));
    }
    Ok(payload)
}

async fn send(args: &SendArgs, signer: &DeviceSigner, payload: &[u8]) -> anyhow::Result<SendReport> {
    let link = connect::open(&args.peer, None, args.ack).await?;
    let welcome = link.session.welcome();
    let given: Vec<MessageId> = args
        .parents
        .iter()
        .map(|text| text.parse().map_err(|error| usage(format!("--parent {text}: {error}"))))
        .collect::<anyhow::Result<_>>()?;
    let parents = match given[..] {
        [first, second] => [first, second],
        [] | [_] => {
            let mut candidates = given.clone();
            candidates.extend(link.session.tips(4).await?);
            candidates.extend(welcome.genesis.roots());
            let first = candidates[0];
            let second =
                candidates.iter().copied().find(|tip| *tip != first).context("the node offers no tips")?;
            [first, second]
        }
        _ => return Err(usage(format!("--parent: got {}, a message has two", given.len()))),
    };
    let now_us = unix_now_us();
    let draft = Draft {
        network: welcome.network,
        issued_at_us: now_us,
        sequence: args.sequence.unwrap_or(now_us),
        parents,
        kind: PayloadKind::DATA,
        payload,
    };
    let bytes = draft.sign(signer)?;
    let id = MessageView::parse(&bytes)?.id();
    let length = u16::try_from(bytes.len()).context("a message fits 16 bits of length")?;
    let ack = link.session.submit(&[length], Bytes::from(bytes)).await?.await?;
    link.client.close().await;
    let exception = ack.exceptions.first();
    let reason = exception.and_then(weft_net::AckException::reason);
    Ok(SendReport {
        id: id.to_string(),
        issuer: signer.public().to_string(),
        sequence: draft.sequence,
        parents: parents.map(|parent| parent.to_string()),
        accepted: exception.is_none() || reason == Some(weft_core::Reason::Duplicate),
        status: match (exception, reason) {
            (None, _) => "accepted".to_owned(),
            (Some(_), Some(reason)) => reason.name().to_owned(),
            (Some(exception), None) => format!("refused for reason {}", exception.code),
        },
        ack_level: format!("{:?}", ack.level).to_lowercase(),
        detail: exception.zip(reason).map(|(e, reason)| reason.with(e.got, e.limit).to_string()),
    })
}
