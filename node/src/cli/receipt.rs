//! `weft receipt`: fetch the proof that a message is in the ledger, and verify it without a node.
//!
//! Owns the commands and their words. What a receipt is and what verifying it means is left to
//! [`weft_core::receipt`]; this file adds files, nodes to ask and Ed25519.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;
use serde_json::json;
use weft_core::endorse::{EndorseError, Endorsement, cosigned_text, cosigner_name};
use weft_core::note::{ALGORITHM_COSIGNATURE, ALGORITHM_ED25519, key_id, verifier_key};
use weft_core::receipt::{RECEIPT_BYTES_MAX, VerifyError};
use weft_core::{
    ConsistencyFile, Genesis, GenesisId, LaneId, MESSAGE_BYTES_MAX, MessageId, NodeKey, Receipt,
    SignedCheckpoint, checkpoint,
};
use weft_loadgen::machine::rfc3339;
use weft_net::{AckLevel, Answer, ErrorCode, NetError, Query, Session};

use super::{EXIT_FOUND, JsonArg, PeerArgs, connect, genesis, usage};

/// Validators whose missing signature is named, at most.
const MISSING_NAMED_MAX: usize = 10;

/// The commands under `weft receipt`.
#[derive(clap::Subcommand, Debug)]
pub enum ReceiptCommand {
    /// Fetch the receipt of a message
    #[command(long_about = GET_ABOUT)]
    Get(GetArgs),
    /// Verify a receipt without a node: the message, its place, and who stands behind it
    #[command(long_about = VERIFY_ABOUT)]
    Verify(VerifyArgs),
    /// Show that a lane at one checkpoint extends what it was at an earlier one
    #[command(long_about = CONSISTENCY_ABOUT)]
    Consistency(ConsistencyArgs),
    /// Print the keys of a genesis in the form that tools for transparency logs take
    #[command(long_about = KEYS_ABOUT)]
    Keys(KeysArgs),
}

const GET_ABOUT: &str = "Fetch the receipt of a message: a text file (C2SP tlog-proof) with the message, its place in its lane, a Merkle \
    proof, and a checkpoint of the lane signed by its node and by validators. Whoever has the file and the ledger's genesis can verify it, \
    offline, years later, with this program or with any tool for transparency logs.\n\n\
    Waits until the message is final (at most --timeout-ms). A validator adds its own signature, and every node those of the validators that \
    it is connected to, up to a quorum; it waits for them for two seconds. Where they are too few, name further nodes with --target to collect \
    their signatures too: that needs --genesis, to know whose they are.\n\n\
    With --genesis the receipt is verified before it is written; exits with 1 if it does not verify, or if the node lacks the message.\n\n\
    Examples:\n  \
    weft receipt get 3f9ac0...e1 -o door.tlog-proof\n  \
    weft receipt get 3f9ac0...e1 --genesis genesis.bin --target 10.0.0.1:7272 --target 10.0.0.2:7272";

const VERIFY_ABOUT: &str = "Verify a receipt without a node. Checked, in this order: the bytes are a message of this ledger, signed by its \
    device; the Merkle proof leads from its id to the root of the checkpoint; the checkpoint is of a lane of the genesis, sealed by that \
    lane's node, and cosigned by validators with more than two thirds of the weight.\n\n\
    The genesis is what is trusted: get it from somewhere better than the node that gave the receipt, or compare its id (--genesis-id). It \
    is the file genesis.bin in the data directory of any node.\n\n\
    A receipt proves that the message is in the ledger and final. It does not prove that a payment in it was accepted: `weft history` \
    tells that.\n\n\
    Exits with 0 if everything holds; with 1 if something does not, and names what; with 2 if the genesis is unusable.\n\n\
    Example:\n  \
    weft receipt verify door.tlog-proof --genesis ledger/genesis.bin";

const CONSISTENCY_ABOUT: &str = "Show that the lane at the later checkpoint NEW extends what it was at the earlier one OLD: nothing that \
    was there has been changed or taken away. Both may be receipts, checkpoints, or files that this command wrote. The proof comes from a \
    node, or offline from such a file (--proof); the node need not be trusted, for the proof is verified here.\n\n\
    With --genesis the signatures of both checkpoints are verified too. Exits with 1 if they are not of one history: with both signatures \
    valid, the two files prove that the lane's node signed two histories.\n\n\
    Examples:\n  \
    weft receipt consistency january.tlog-proof june.tlog-proof --to 127.0.0.1:7272 -o proof\n  \
    weft receipt consistency january.tlog-proof june.tlog-proof --proof proof --genesis ledger/genesis.bin";

const KEYS_ABOUT: &str = "Print what a tool for transparency logs must be told to verify receipts of a ledger: the key of each lane's node \
    (C2SP signed-note, Ed25519), and the key and weight of each validator (C2SP tlog-cosignature, Ed25519). A checkpoint counts if its \
    lane's node and validators with at least the weight in the line `quorum` have signed it.\n\n\
    Example:\n  \
    weft receipt keys --genesis ledger/genesis.bin";

/// `--genesis FILE`.
#[derive(clap::Args, Clone, Debug)]
pub struct GenesisArg {
    /// The ledger's genesis: the file genesis.bin of any of its nodes
    #[arg(long, value_name = "FILE", env = "WEFT_GENESIS")]
    genesis: PathBuf,
    /// Refuse a genesis with another id than this: 64 hex digits
    #[arg(long, value_name = "HEX")]
    genesis_id: Option<String>,
}

/// `--genesis FILE`, where it may be left out.
#[derive(clap::Args, Clone, Debug)]
pub struct OptionalGenesisArg {
    /// The ledger's genesis, to verify with: the file genesis.bin of any of its nodes
    #[arg(long, value_name = "FILE", env = "WEFT_GENESIS")]
    genesis: Option<PathBuf>,
}

/// Arguments of `weft receipt get`.
#[derive(clap::Args, Debug)]
pub struct GetArgs {
    /// The message's id: 64 hex digits
    #[arg(value_name = "ID")]
    id: String,
    /// Where the receipt goes; stdout if left out
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leave the message out of the file: then whoever verifies it must have the message
    #[arg(long)]
    without_message: bool,
    /// A node to ask, in place of --to; the first one gives the receipt, each one its signature
    #[arg(long = "target", value_name = "ADDR:PORT")]
    targets: Vec<SocketAddr>,
    #[command(flatten)]
    genesis: OptionalGenesisArg,
    #[command(flatten)]
    peer: PeerArgs,
}

/// Arguments of `weft receipt verify`.
#[derive(clap::Args, Debug)]
pub struct VerifyArgs {
    /// The receipt; `-` reads stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The message's bytes, if the receipt does not hold them; else they must be the same
    #[arg(long, value_name = "FILE")]
    message: Option<PathBuf>,
    #[command(flatten)]
    genesis: GenesisArg,
    #[command(flatten)]
    json: JsonArg,
}

/// Arguments of `weft receipt consistency`.
#[derive(clap::Args, Debug)]
pub struct ConsistencyArgs {
    /// The earlier checkpoint: a receipt, a checkpoint or a consistency proof
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The later checkpoint
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// Take the proof from this file, and ask no node
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
    /// Write the proof, with the later checkpoint, to this file
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    genesis: OptionalGenesisArg,
    #[command(flatten)]
    peer: PeerArgs,
    #[command(flatten)]
    json: JsonArg,
}

/// Arguments of `weft receipt keys`.
#[derive(clap::Args, Debug)]
pub struct KeysArgs {
    #[command(flatten)]
    genesis: GenesisArg,
}

/// Runs a command of `weft receipt`.
///
/// # Errors
/// If files cannot be read or written, or a node cannot be reached.
pub fn run(command: ReceiptCommand) -> anyhow::Result<ExitCode> {
    match command {
        ReceiptCommand::Get(args) => get(args),
        ReceiptCommand::Verify(args) => verify(args),
        ReceiptCommand::Consistency(args) => consistency(args),
        ReceiptCommand::Keys(args) => keys(args),
    }
}

/// The one rule for signatures, everywhere.
fn signature_valid(key: &NodeKey, text: &[u8], signature: &[u8; 64]) -> bool {
    weft_crypto::serial::verify_one(&key.0, text, signature)
}

/// Reads a file, or stdin for `-`, of at most `bytes_max` bytes; a longer one is read no further.
fn read(path: &Path, bytes_max: usize) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = bytes_max as u64 + 1;
    if path.as_os_str() == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        file.take(limit)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(bytes)
}

impl GenesisArg {
    fn load(&self) -> anyhow::Result<Genesis> {
        let genesis = genesis::read(&self.genesis)?;
        if let Some(text) = &self.genesis_id {
            let wanted: GenesisId = text.parse().map_err(|error| usage(format!("--genesis-id: {error}")))?;
            let got = genesis.id()?;
            if got != wanted {
                return Err(usage(format!("{} has the id {got}, not {wanted}", self.genesis.display())));
            }
        }
        Ok(genesis)
    }
}

impl OptionalGenesisArg {
    fn load(&self) -> anyhow::Result<Option<Genesis>> {
        self.genesis.as_deref().map(genesis::read).transpose()
    }
}

/// Asks as long as the node says that it is too early; `connect::block_on` bounds the wait.
///
/// # Errors
/// Any other refusal, or the end of the session.
pub async fn ask(session: &Session, query: Query) -> Result<Answer, NetError> {
    loop {
        match session.query(query.clone()).await {
            Err(NetError::Request(error)) if error.code == ErrorCode::NotYet => {
                let wait = error.retry_after_ms.clamp(10, 1_000);
                tokio::time::sleep(Duration::from_millis(wait.into())).await;
            }
            answer => return answer,
        }
    }
}

/// A refusal by the node, in words; `None` if it is no refusal.
fn refused(error: &NetError) -> Option<&str> {
    match error {
        NetError::Request(error) if error.code == ErrorCode::NotFound => Some(&error.text),
        _ => None,
    }
}

fn get(args: GetArgs) -> anyhow::Result<ExitCode> {
    let id: MessageId = args.id.parse().map_err(|error| usage(format!("ID: {error}")))?;
    let genesis = args.genesis.load()?;
    if args.targets.len() > 1 && genesis.is_none() {
        return Err(usage("several --target: name the --genesis, which says whose signatures count"));
    }
    if args.targets.len() > 1 && args.peer.pin.is_some() {
        return Err(usage("--pin is one node's: with several --target nodes are known by --known-nodes"));
    }
    let targets = if args.targets.is_empty() { vec![args.peer.to] } else { args.targets.clone() };
    let first = PeerArgs { to: targets[0], ..args.peer.clone() };
    let fetched = connect::block_on(&first, async {
        let link = connect::open(&first, None, AckLevel::Durable).await?;
        let answer = ask(&link.session, Query::Receipt { id, size: 0 }).await;
        link.client.close().await;
        Ok(answer)
    })?;
    let text = match fetched {
        Ok(Answer::Receipt(text)) => text,
        Ok(_) => anyhow::bail!("the node at {} answered something else", first.to),
        Err(error) => {
            let Some(text) = refused(&error) else { return Err(error.into()) };
            eprintln!("not found: {text}");
            return Ok(ExitCode::from(EXIT_FOUND));
        }
    };
    let mut receipt = Receipt::parse(&text)
        .map_err(|error| anyhow::anyhow!("the node at {} sent no receipt: {error}", first.to))?;
    if let Some(genesis) = &genesis {
        collect(&mut receipt.checkpoint, genesis, &args.peer, &targets[1..])?;
        let verified = receipt.verify(genesis, None, signature_valid);
        match verified {
            Ok(verified) if verified.id == id => {}
            Ok(verified) => {
                eprintln!("NOT VERIFIED: the node at {} sent the receipt of {}", first.to, verified.id);
                return Ok(ExitCode::from(EXIT_FOUND));
            }
            Err(error) => {
                eprintln!("NOT VERIFIED: {}", fault(&error, &receipt.checkpoint, genesis));
                if is_short(&error) {
                    eprintln!("name more validators with --target, or ask again later");
                }
                return Ok(ExitCode::from(EXIT_FOUND));
            }
        }
    }
    if args.without_message {
        receipt.message = None;
    }
    write_text(args.output.as_deref(), &receipt.encode())?;
    if let Some(output) = &args.output {
        let how = if genesis.is_some() { "verified" } else { "not verified: weft receipt verify does that" };
        eprintln!("receipt of {id} written to {} ({how})", output.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether nothing is wrong but that too few have cosigned.
fn is_short(error: &VerifyError) -> bool {
    matches!(error, VerifyError::Checkpoint(EndorseError::NoQuorum { .. }))
}

/// What does not hold, in words; where cosignatures are missing, whose.
fn fault(error: &VerifyError, signed: &SignedCheckpoint, genesis: &Genesis) -> String {
    if !is_short(error) {
        return error.to_string();
    }
    let network = signed.checkpoint.network;
    // Had a line of a known key not been valid, that would be the fault.
    let has_signed = |number: u16, key: &NodeKey| {
        let name = cosigner_name(network, number);
        let key_id = key_id(&name, ALGORITHM_COSIGNATURE, key);
        signed.lines.iter().any(|line| line.name == name && line.key_id == key_id)
    };
    let committee = (0u16..).zip(&genesis.committee);
    let missing = committee.filter(|(number, member)| !has_signed(*number, &member.key));
    let missing: Vec<String> = missing.map(|(number, _)| validator_name(genesis, number)).collect();
    let (named, more) = missing.split_at(missing.len().min(MISSING_NAMED_MAX));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    format!("{error}; missing: {}{more}", named.join(", "))
}

/// Asks further nodes for their signature under `signed` until a quorum has signed. A node that cannot give one is named and
/// passed over.
fn collect(
    signed: &mut SignedCheckpoint,
    genesis: &Genesis,
    peer: &PeerArgs,
    others: &[SocketAddr],
) -> anyhow::Result<()> {
    for target in others {
        if !matches!(signed.verify(genesis, signature_valid), Err(EndorseError::NoQuorum { .. })) {
            break;
        }
        let peer = PeerArgs { to: *target, ..peer.clone() };
        let checkpoint = signed.checkpoint;
        let query = Query::Cosign { lane: checkpoint.lane, size: checkpoint.size, root: checkpoint.root };
        let asked = connect::block_on(&peer, async {
            let link = connect::open(&peer, Some(checkpoint.network), AckLevel::Durable).await?;
            let answer = ask(&link.session, query).await;
            link.client.close().await;
            Ok(answer?)
        });
        let cosignature = match asked {
            Ok(Answer::Cosignature(cosignature)) => cosignature,
            Ok(_) => {
                eprintln!("{target}: answered something else");
                continue;
            }
            Err(error) => {
                eprintln!("{target}: {error:#}");
                continue;
            }
        };
        let member = genesis.committee.get(usize::from(cosignature.validator));
        let text = cosigned_text(cosignature.time_s, &checkpoint.text());
        match member {
            Some(member) if signature_valid(&member.key, text.as_bytes(), &cosignature.signature) => {
                signed.add(&cosignature, &member.key);
            }
            _ => eprintln!("{target}: sent a signature that is not valid: do not trust it"),
        }
    }
    signed.trim(genesis);
    Ok(())
}

fn write_text(path: Option<&Path>, text: &str) -> anyhow::Result<()> {
    match path {
        Some(path) => std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display())),
        None => Ok(std::io::stdout().lock().write_all(text.as_bytes())?),
    }
}

#[derive(Serialize)]
struct VerifyReport {
    verified: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
    #[serde(flatten)]
    found: Option<FoundReport>,
}

#[derive(Serialize)]
struct FoundReport {
    id: String,
    issuer: String,
    network: String,
    ledger_name: String,
    lane: u16,
    position: u64,
    size: u64,
    root: String,
    validators: Vec<u16>,
    weight: u64,
    weight_total: u64,
    cosigned_first_s: Option<u64>,
    cosigned_last_s: Option<u64>,
}

fn verify(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let genesis = args.genesis.load()?;
    let given = args.message.as_deref().map(|path| read(path, MESSAGE_BYTES_MAX)).transpose()?;
    let bytes = read(&args.file, RECEIPT_BYTES_MAX)?;
    let judged =
        Receipt::parse(&bytes).map_err(|error| format!("not a receipt: {error}")).and_then(|receipt| {
            let verified = receipt.verify(&genesis, given.as_deref(), signature_valid);
            verified
                .map(|verified| (verified, receipt.checkpoint.checkpoint))
                .map_err(|error| fault(&error, &receipt.checkpoint, &genesis))
        });
    let (report, code) = match judged {
        Ok((verified, checkpoint)) => {
            let Endorsement { validators, weight, weight_total, time_s } = verified.endorsement;
            let found = FoundReport {
                id: verified.id.to_string(),
                issuer: verified.issuer.to_string(),
                network: checkpoint.network.to_string(),
                ledger_name: genesis.name.clone(),
                lane: checkpoint.lane.0,
                position: verified.place.position(),
                size: checkpoint.size,
                root: hex::encode(checkpoint.root),
                validators,
                weight,
                weight_total,
                cosigned_first_s: time_s.map(|(first, _)| first),
                cosigned_last_s: time_s.map(|(_, last)| last),
            };
            (VerifyReport { verified: true, fault: None, found: Some(found) }, ExitCode::SUCCESS)
        }
        Err(fault) => {
            (VerifyReport { verified: false, fault: Some(fault), found: None }, ExitCode::from(EXIT_FOUND))
        }
    };
    args.json.write(&report)?;
    if args.json.on_stdout() {
        return Ok(code);
    }
    if let Some(fault) = &report.fault {
        println!("NOT VERIFIED: {fault}");
    }
    if let Some(found) = &report.found {
        println!("verified: the message is in the ledger \"{}\", and final", found.ledger_name);
        println!("  message     {}", found.id);
        println!("  issuer      {}", found.issuer);
        println!("  place       lane {} position {}", found.lane, found.position);
        println!("  checkpoint  size {} root {}", found.size, found.root);
        let names: Vec<String> =
            found.validators.iter().map(|number| validator_name(&genesis, *number)).collect();
        println!("  cosigned    weight {} of {}: {}", found.weight, found.weight_total, names.join(", "));
        if let Some((first, last)) = found.cosigned_first_s.zip(found.cosigned_last_s) {
            println!("  signed at   {} to {}, by the validators' clocks", rfc3339(first), rfc3339(last));
        }
    }
    Ok(code)
}

fn validator_name(genesis: &Genesis, number: u16) -> String {
    match genesis.committee.get(usize::from(number)) {
        Some(member) if !member.name.is_empty() => format!("{number} ({})", member.name),
        _ => number.to_string(),
    }
}

/// The signed checkpoint in a file of any of the three kinds.
fn read_checkpoint(path: &Path) -> anyhow::Result<SignedCheckpoint> {
    let bytes = read(path, RECEIPT_BYTES_MAX)?;
    if let Ok(receipt) = Receipt::parse(&bytes) {
        return Ok(receipt.checkpoint);
    }
    if let Ok(file) = ConsistencyFile::parse(&bytes) {
        return Ok(file.new);
    }
    SignedCheckpoint::parse(&bytes).map_err(|error| {
        usage(format!(
            "{}: neither a receipt nor a consistency proof nor a checkpoint ({error})",
            path.display()
        ))
    })
}

/// What makes two checkpoints not of one history, in words.
fn compare(old: &SignedCheckpoint, new: &SignedCheckpoint, file: &ConsistencyFile) -> Result<(), String> {
    let (given, proven) = (&new.checkpoint, &file.new.checkpoint);
    if (given.size, given.root) != (proven.size, proven.root) {
        return Err(format!(
            "the proof is for root {} at size {}, NEW has root {} at size {}: two histories, or another size",
            checkpoint::base64(&proven.root),
            proven.size,
            checkpoint::base64(&given.root),
            given.size
        ));
    }
    file.verify(&old.checkpoint).map_err(|error| error.to_string())
}

fn consistency(args: ConsistencyArgs) -> anyhow::Result<ExitCode> {
    let (old, new) = (read_checkpoint(&args.old)?, read_checkpoint(&args.new)?);
    let (before, after) = (old.checkpoint, new.checkpoint);
    if (before.network, before.lane) != (after.network, after.lane) {
        let text = format!("OLD is of {}, NEW of {}: nothing to compare", before.origin(), after.origin());
        return Err(usage(text));
    }
    if before.size > after.size {
        let text =
            format!("OLD has size {}, NEW has {}: name the earlier one first", before.size, after.size);
        return Err(usage(text));
    }
    let mut fault = None;
    if let Some(genesis) = args.genesis.load()? {
        for (name, signed) in [("OLD", &old), ("NEW", &new)] {
            if let Err(error) = signed.verify(&genesis, signature_valid) {
                fault.get_or_insert(format!("{name}: {error}"));
            }
        }
    }
    let file = match &args.proof {
        Some(path) => {
            let bytes = read(path, RECEIPT_BYTES_MAX)?;
            ConsistencyFile::parse(&bytes).map_err(|error| usage(format!("{}: {error}", path.display())))?
        }
        // One size: the roots say all.
        None if before.size == after.size => {
            ConsistencyFile { old_size: before.size, proof: Vec::new(), new: new.clone() }
        }
        None => {
            let query = Query::Consistency { lane: before.lane, old_size: before.size, size: after.size };
            let fetched = connect::block_on(&args.peer, async {
                let link = connect::open(&args.peer, Some(before.network), AckLevel::Durable).await?;
                let answer = ask(&link.session, query).await;
                link.client.close().await;
                Ok(answer?)
            })?;
            let Answer::Consistency(text) = fetched else {
                anyhow::bail!("the node at {} answered something else", args.peer.to)
            };
            ConsistencyFile::parse(&text)
                .map_err(|error| anyhow::anyhow!("the node at {} sent no proof: {error}", args.peer.to))?
        }
    };
    if let Err(error) = compare(&old, &new, &file) {
        fault.get_or_insert(error);
    }
    if let (None, Some(output)) = (&fault, &args.output) {
        let file = ConsistencyFile { new, ..file };
        write_text(Some(output), &file.encode())?;
    }
    args.json.write(&json!({
        "consistent": fault.is_none(),
        "fault": fault,
        "lane": before.origin(),
        "old_size": before.size,
        "size": after.size,
    }))?;
    if !args.json.on_stdout() {
        match &fault {
            None => println!(
                "consistent: {} at size {} extends it at size {}",
                before.origin(),
                after.size,
                before.size
            ),
            Some(fault) => println!("NOT CONSISTENT: {fault}"),
        }
    }
    Ok(if fault.is_none() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

fn keys(args: KeysArgs) -> anyhow::Result<ExitCode> {
    let genesis = args.genesis.load()?;
    let network = genesis.network()?;
    let mut out = format!("# ledger \"{}\", network {network}\n", genesis.name);
    for (lane, key) in (0..).map(LaneId).zip(genesis.node_keys()) {
        let name = checkpoint::origin(network, lane);
        out.push_str(&format!("lane {lane} {}\n", verifier_key(&name, ALGORITHM_ED25519, &key)));
    }
    let mut total = 0u64;
    for (number, member) in (0u16..).zip(&genesis.committee) {
        let name = cosigner_name(network, number);
        let key = verifier_key(&name, ALGORITHM_COSIGNATURE, &member.key);
        out.push_str(&format!("validator {number} {} {key}\n", member.weight));
        total = total.saturating_add(member.weight);
    }
    // The least weight w with 3w > 2W; W is below 2^62.
    out.push_str(&format!("quorum {}\n", total.saturating_mul(2) / 3 + 1));
    std::io::stdout().lock().write_all(out.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
