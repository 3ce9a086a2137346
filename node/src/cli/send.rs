//! `weft send`: sign one message and send it. With --to KEY it is a payment, which `pay` makes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use bytes::Bytes;
use serde::Serialize;
use weft_core::{DeviceKey, DeviceSigner, Draft, MessageId, MessageView, PAYLOAD_BYTES_MAX, PayloadKind};
use weft_net::{AckLevel, Session};

use super::{EXIT_FOUND, Globals, JsonArg, NODE_ADDRESS_DEFAULT, PeerArgs, connect, pay, usage};
use crate::pipeline::verify::unix_now_us;

/// Length of the tag that opens a data payload.
const TAG_BYTES: usize = 16;

/// What `--help` says.
pub const LONG_ABOUT: &str = "Sign one message with a device's key and send it; print its id and what the node said.\n\n\
        Without --key a new device key is made for this one message. The parents are tips that the node offers, unless given. The \
        sequence number is the clock in microseconds, so that successive sends of one device rise.\n\n\
        With --to KEY and --amount N it is a payment from --key's account to KEY's. It waits until the payment is final and in the \
        ledger, unless --ack asks for less. The account's sequence is the node's next one; what is signed is noted beside the key file \
        first (KEYFILE.paid), and the same command again repeats the same payment: money moves once. Two different payments for one \
        sequence would stop the account, so a second one is not signed while the first is under way.\n\n\
        Exits with 1 if the node refuses the message, or the payment is not made.\n\n\
        Examples:\n  \
        weft send --payload 'door open'\n  \
        weft send --key door.key --tag door/status --file reading.bin --ack written\n  \
        weft send --key alice.key --to 9fd2...51 --amount 25 --memo 'order 17'";

/// Arguments of `weft send`.
#[derive(clap::Args, Debug)]
pub struct SendArgs {
    /// The device's key file, as `weft key new` makes it
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Payload text, after the tag
    #[arg(long, value_name = "TEXT", conflicts_with = "file", required_unless_present_any = ["file", "amount"])]
    payload: Option<String>,
    /// Payload from a file (`-`: stdin), after the tag
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Units to pay to the account in --to
    #[arg(long, value_name = "N", conflicts_with_all = ["payload", "file", "tag", "parents", "sequence"], requires = "key", help_heading = "Payment")]
    amount: Option<u64>,
    /// A few words for whoever is paid, at most 256 bytes
    #[arg(long, value_name = "TEXT", default_value = "", help_heading = "Payment")]
    memo: String,
    /// Tag that opens the payload: up to 16 bytes, padded with zeros
    #[arg(long, value_name = "TEXT", default_value = "")]
    tag: String,
    /// Parent message, 64 hex digits; give it twice for both
    #[arg(long = "parent", value_name = "ID", num_args = 1)]
    parents: Vec<String>,
    /// Sequence number; default: the clock in microseconds
    #[arg(long, value_name = "NUMBER")]
    sequence: Option<u64>,
    /// What to wait for: received, written, durable, certified or final [default: durable; of a payment: final]
    #[arg(long, value_name = "LEVEL", value_parser = parse_level)]
    ack: Option<AckLevel>,
    #[command(flatten)]
    peer: SendPeerArgs,
    #[command(flatten)]
    json: JsonArg,
}

/// Whom `--to` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A node.
    Node(SocketAddr),
    /// An account to pay.
    Account(DeviceKey),
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Node(address));
        }
        text.parse()
            .map(Self::Account)
            .map_err(|_| "neither an account (64 hex digits) nor a node's address (ADDR:PORT)".to_owned())
    }
}

/// The node to talk to and the account to pay: both are what a message goes to.
#[derive(clap::Args, Clone, Debug)]
struct SendPeerArgs {
    /// The account to pay, 64 hex digits; or, as in other commands, the node's address. May be given twice, once for each
    #[arg(long, value_name = "KEY|ADDR:PORT")]
    to: Vec<Destination>,
    /// The node's address (UDP, QUIC)
    #[arg(long, value_name = "ADDR:PORT", env = "WEFT_TO", default_value = NODE_ADDRESS_DEFAULT, help_heading = "Node")]
    node: SocketAddr,
    /// Trust exactly the server whose certificate has this SHA-256: 64 hex digits, as `weft node` prints at start
    #[arg(long, value_name = "HEX", env = "WEFT_PIN", conflicts_with = "known_nodes", help_heading = "Node")]
    pin: Option<String>,
    /// Trust on first use: the file that remembers each address's certificate
    ///
    /// [default: weft/known-nodes below $XDG_CONFIG_HOME or ~/.config]
    #[arg(long, value_name = "FILE", env = "WEFT_KNOWN_NODES", help_heading = "Node")]
    known_nodes: Option<PathBuf>,
    /// Give up after this long without an answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000, help_heading = "Node")]
    timeout_ms: u64,
}

impl SendPeerArgs {
    /// The node, and the account if one is named.
    fn split(&self) -> anyhow::Result<(PeerArgs, Option<DeviceKey>)> {
        let (mut node, mut account) = (None, None);
        for destination in &self.to {
            let repeated = match destination {
                Destination::Node(address) => node.replace(*address).is_some(),
                Destination::Account(key) => account.replace(*key).is_some(),
            };
            if repeated {
                return Err(usage("--to: one account and one node, at most"));
            }
        }
        let peer = PeerArgs {
            to: node.unwrap_or(self.node),
            pin: self.pin.clone(),
            known_nodes: self.known_nodes.clone(),
            timeout_ms: self.timeout_ms,
        };
        Ok((peer, account))
    }
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
    let (peer, account) = args.peer.split()?;
    match (account, args.amount, &args.key) {
        (Some(to), Some(amount), Some(key)) => {
            let level = args.ack.unwrap_or(AckLevel::Final);
            let payment = pay::Payment { key, to, amount, memo: &args.memo, level };
            return pay::run(&payment, &peer, &args.json);
        }
        (Some(_), None, _) => return Err(usage("--to KEY needs --amount")),
        (None, Some(_), _) => return Err(usage("--amount needs --to KEY")),
        _ => {}
    }
    if !args.memo.is_empty() {
        return Err(usage("--memo is for payments: name --to KEY and --amount"));
    }
    let payload = payload(&args)?;
    let signer = match &args.key {
        Some(file) => super::key::read_signer(file)?,
        None => {
            let mut seed = [0u8; 32];
            getrandom::fill(&mut seed).context("no randomness for a new key")?;
            DeviceSigner::from_seed(seed)
        }
    };
    let report = connect::block_on(&peer, send(&args, &peer, &signer, &payload))?;
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

/// Two different messages to name as parents: those given, then tips that the node offers, then the genesis roots.
///
/// # Errors
/// If more than two are given, or the node cannot be asked.
pub async fn choose_parents(session: &Session, given: &[MessageId]) -> anyhow::Result<[MessageId; 2]> {
    match *given {
        [first, second] => Ok([first, second]),
        [] | [_] => {
            let mut candidates = given.to_vec();
            candidates.extend(session.tips(4).await?);
            candidates.extend(session.welcome().genesis.roots());
            let first = candidates[0];
            let second =
                candidates.iter().copied().find(|tip| *tip != first).context("the node offers no tips")?;
            Ok([first, second])
        }
        _ => Err(usage(format!("--parent: got {}, a message has two", given.len()))),
    }
}

async fn send(
    args: &SendArgs,
    peer: &PeerArgs,
    signer: &DeviceSigner,
    payload: &[u8],
) -> anyhow::Result<SendReport> {
    let link = connect::open(peer, None, args.ack.unwrap_or(AckLevel::Durable)).await?;
    let welcome = link.session.welcome();
    let given: Vec<MessageId> = args
        .parents
        .iter()
        .map(|text| text.parse().map_err(|error| usage(format!("--parent {text}: {error}"))))
        .collect::<anyhow::Result<_>>()?;
    let parents = choose_parents(&link.session, &given).await?;
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
