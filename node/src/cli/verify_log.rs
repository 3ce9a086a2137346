//! `weft verify-log`: is this data directory what a node wrote, byte for byte?
//!
//! `weft-storage` walks the log and checks what needs no keys: checksums, the chain of records, structure, body hashes,
//! ids, the Merkle root after every batch. This file adds what needs them: the node's signature on every batch, every
//! device's signature, and that each parent is the message at the place named for it.
//!
//! Signatures are gathered over many batches and verified on all cores; the walk goes on without waiting for single
//! batches. If one is bad, a second walk verifies batch by batch, to name the file and the offset. Memory: about 128
//! bytes for each of `GATHER_ROWS` rows per core, and 33 bytes for each of `PARENT_WINDOW` ids.
//!
//! The data directory is locked meanwhile: a log that grows under the walk would look torn. Nothing is changed.

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use rayon::prelude::*;
use serde_json::{Value, json};
use weft_core::{BatchView, LaneId, MessageId, NodeKey, Place};
use weft_crypto::{BatchVerifier, Columns, Messages, verify_one};
use weft_storage::{DataDir, RealDisk, Report};

use super::progress::Progress;
use super::{DataArg, EXIT_FOUND, JsonArg, usage, verify_signatures};
use crate::hasher::fastest;
use crate::units::{about_bytes, grouped};

/// Signatures gathered for each core before they are verified.
const GATHER_ROWS: usize = 8_192;
/// Signatures of one call to the verifier.
const CALL_ROWS: usize = 4_096;
/// Newest positions whose ids are remembered, to hold parents against: 33 MiB. Parents are recent messages; the few
/// that are older are counted and said, not checked.
const PARENT_WINDOW: usize = 1 << 20;

/// What `--help` says.
pub const LONG_ABOUT: &str = "Check a data directory's log: every record's checksum and place in the chain, every batch's \
        structure, body hash and Merkle root, the node's signature on it, every message's id and its device's \
        signature, and that parents are the messages at the places named. The node must not be running. Nothing is \
        changed; a torn tail, which the next start will cut, is reported and is no damage.\n\n\
        Exit code 1 if anything is damaged, naming the file, the offset and what is wrong there.\n\n\
        Examples:\n  \
        weft verify-log --data ./ledger\n  \
        weft verify-log --data ./ledger --lane 0 --json verify.json";

/// Arguments of `weft verify-log`.
#[derive(clap::Args, Debug)]
pub struct VerifyLogArgs {
    /// The data directory.
    #[command(flatten)]
    pub data: DataArg,
    /// Check this lane only [default: all]
    #[arg(long, value_name = "LANE")]
    pub lane: Option<u16>,
    /// The verifier for devices' signatures: auto or a backend's name
    #[arg(long, value_name = "NAME", env = "WEFT_VERIFIER", default_value = "auto")]
    pub verifier: String,
    /// Where the report goes.
    #[command(flatten)]
    pub json: JsonArg,
}

/// Runs `weft verify-log`.
///
/// # Errors
/// If the directory cannot be used or read. Damage is exit code 1, not an error.
pub fn run(args: VerifyLogArgs) -> anyhow::Result<ExitCode> {
    let verifier = verify_signatures::open(&args.verifier)?;
    let data = DataDir::open(&args.data.data)?;
    let lanes = lanes(&data, args.lane)?;
    let start = Instant::now();
    let mut reports = Vec::new();
    for lane in lanes {
        reports.push((lane, verify_lane(&data, lane, &verifier)?));
    }
    let seconds = start.elapsed().as_secs_f64();
    let sound = reports.iter().all(|(_, report)| report.walk.damage.is_none());
    let network = data.network().to_string();
    let lanes: Vec<Value> = reports.iter().map(|(lane, report)| report.to_json(*lane)).collect();
    args.json.write(&json!({
        "report": "verify-log",
        "data": args.data.data.to_string_lossy(),
        "network": network,
        "verifier": verifier.name(),
        "seconds": seconds,
        "sound": sound,
        "lanes": lanes,
    }))?;
    if !args.json.on_stdout() {
        let mut out = std::io::stdout().lock();
        for (lane, report) in &reports {
            report.print(&mut out, *lane)?;
        }
        let verdict = if sound { "sound" } else { "DAMAGED" };
        writeln!(out, "network {network}: {verdict} ({seconds:.1} s, verifier {})", verifier.name())?;
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

/// The lanes to look at: the one asked for, or all that are there.
pub(super) fn lanes(data: &DataDir, wanted: Option<u16>) -> anyhow::Result<Vec<LaneId>> {
    let present = data.lanes()?;
    match wanted {
        None => Ok(present),
        Some(lane) if present.contains(&LaneId(lane)) => Ok(vec![LaneId(lane)]),
        Some(lane) => {
            let list: Vec<String> = present.iter().map(ToString::to_string).collect();
            Err(usage(format!("--lane {lane}: no such lane here; there are: {}", list.join(", "))))
        }
    }
}

/// What was found in one lane.
struct LaneReport {
    walk: Report,
    signatures: u64,
    parents_checked: u64,
    parents_beyond_window: u64,
}

impl LaneReport {
    fn to_json(&self, lane: LaneId) -> Value {
        let walk = &self.walk;
        json!({
            "lane": lane.0,
            "segments": walk.segments,
            "batches": walk.batches,
            "messages": walk.messages,
            "batch_bytes": walk.batch_bytes,
            "size": walk.size,
            "root": hex::encode(walk.root),
            "signatures_verified": self.signatures,
            "parents_checked": self.parents_checked,
            "parents_beyond_window": self.parents_beyond_window,
            "torn_bytes": walk.torn_bytes,
            "closed": walk.closed,
            "damage": walk.damage.as_ref().map(|damage| json!({
                "file": damage.path.to_string_lossy(),
                "offset": damage.offset,
                "what": damage.what,
            })),
        })
    }

    fn print(&self, out: &mut impl std::io::Write, lane: LaneId) -> std::io::Result<()> {
        let walk = &self.walk;
        writeln!(out, "lane {lane}")?;
        writeln!(out, "  segments    {}", walk.segments)?;
        writeln!(out, "  batches     {} ({})", grouped(walk.batches), about_bytes(walk.batch_bytes))?;
        writeln!(out, "  messages    {}", grouped(walk.messages))?;
        writeln!(
            out,
            "  signatures  {} of devices, {} of the node",
            grouped(self.signatures),
            grouped(walk.batches)
        )?;
        let beyond = match self.parents_beyond_window {
            0 => String::new(),
            many => format!(" ({} older ones not compared)", grouped(many)),
        };
        writeln!(out, "  parents     {}{beyond}", grouped(self.parents_checked))?;
        writeln!(out, "  size        {}", walk.size)?;
        writeln!(out, "  root        {}", hex::encode(walk.root))?;
        match (walk.torn_bytes, walk.closed) {
            (0, true) => writeln!(out, "  end         closed in order")?,
            (0, false) => writeln!(out, "  end         not closed in order, nothing torn")?,
            (bytes, _) => {
                writeln!(out, "  end         {bytes} bytes of a torn tail, which the next start will cut")?;
            }
        }
        if let Some(damage) = &walk.damage {
            writeln!(out, "  DAMAGED     {damage}")?;
            writeln!(out, "              the figures above are those of the sound part before it")?;
        }
        Ok(())
    }
}

fn verify_lane(
    data: &DataDir,
    lane: LaneId,
    verifier: &Arc<dyn BatchVerifier>,
) -> anyhow::Result<LaneReport> {
    let dir = data.lane_dir(lane);
    let bytes_total = segment_bytes(&dir)?;
    let mut progress = Progress::new();
    let mut keys = NodeKeys::new(data);
    let mut parents = Parents::new(data, lane);
    let mut gathered = Gathered::default();
    let rows_max = GATHER_ROWS * rayon::current_num_threads();
    let mut signatures = 0u64;
    let mut batch_bytes = 0u64;
    let mut bad_signature = false;
    let walk =
        weft_storage::verify_log(&RealDisk, &dir, data.network(), lane, fastest(), &mut |batch, ids| {
            keys.check(batch)?;
            parents.check(batch, ids)?;
            gathered.add(batch, ids);
            batch_bytes += batch.bytes().len() as u64;
            if gathered.keys.len() >= rows_max {
                signatures += gathered.keys.len() as u64;
                if !gathered.verify_and_clear(verifier.as_ref()) {
                    bad_signature = true;
                    return Err("a bad signature in the batches gathered".to_owned());
                }
            }
            progress.maybe(|| {
                format!(
                    "verifying lane {lane}: {} messages, {} of at most {}",
                    grouped(signatures),
                    about_bytes(batch_bytes),
                    about_bytes(bytes_total)
                )
            });
            Ok(())
        })
        .with_context(|| format!("cannot read the log in {}", dir.display()))?;
    signatures += gathered.keys.len() as u64;
    bad_signature |= !gathered.verify_and_clear(verifier.as_ref());
    let mut report = LaneReport {
        walk,
        signatures,
        parents_checked: parents.checked,
        parents_beyond_window: parents.beyond_window,
    };
    if bad_signature {
        progress.say("a bad signature: looking for the batch it is in");
        report.walk = find_bad_signature(data, lane, verifier.as_ref())?;
    }
    if report.walk.damage.is_some() {
        report.signatures = report.walk.messages;
    }
    Ok(report)
}

/// Bytes of all segment files, used or not: the most that there can be to read.
fn segment_bytes(dir: &Path) -> anyhow::Result<u64> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut total = 0;
    for entry in entries {
        let path: PathBuf = entry?.path();
        if path.extension().is_some_and(|extension| extension == "seg") {
            total += path.metadata()?.len();
        }
    }
    Ok(total)
}

/// The second walk: every batch by itself, until the one that has the bad signature.
fn find_bad_signature(data: &DataDir, lane: LaneId, verifier: &dyn BatchVerifier) -> anyhow::Result<Report> {
    let dir = data.lane_dir(lane);
    let mut gathered = Gathered::default();
    let report =
        weft_storage::verify_log(&RealDisk, &dir, data.network(), lane, fastest(), &mut |batch, ids| {
            gathered.clear();
            gathered.add(batch, ids);
            let verdicts = gathered.verdicts(verifier);
            match verdicts.iter().position(|verdict| !verdict) {
                None => Ok(()),
                Some(row) => {
                    let position = batch.first() + 1 + row as u64;
                    let more = verdicts.iter().filter(|verdict| !**verdict).count() - 1;
                    let others =
                        if more == 0 { String::new() } else { format!(", and {more} more in this batch") };
                    Err(format!(
                        "message {} at position {position}: its device's signature is not valid{others}",
                        MessageId(gathered.ids[row])
                    ))
                }
            }
        })?;
    Ok(report)
}

/// Signatures waiting to be verified, as columns.
#[derive(Default)]
struct Gathered {
    keys: Vec<[u8; 32]>,
    ids: Vec<[u8; 32]>,
    signatures: Vec<[u8; 64]>,
}

impl Gathered {
    fn add(&mut self, batch: &BatchView<'_>, ids: &[MessageId]) {
        for (entry, id) in batch.messages().zip(ids) {
            self.keys.push(entry.message.issuer().0);
            self.signatures.push(*entry.message.signature());
            self.ids.push(id.0);
        }
    }

    fn clear(&mut self) {
        self.keys.clear();
        self.ids.clear();
        self.signatures.clear();
    }

    fn verdicts(&self, verifier: &dyn BatchVerifier) -> Vec<bool> {
        let mut verdicts = vec![false; self.keys.len()];
        let columns =
            Columns { keys: &self.keys, messages: Messages::Ids(&self.ids), signatures: &self.signatures };
        verdicts.par_chunks_mut(CALL_ROWS).enumerate().for_each(|(number, verdicts)| {
            let start = number * CALL_ROWS;
            verifier.verify(&columns.rows(start, start + verdicts.len()), verdicts);
        });
        verdicts
    }

    fn verify_and_clear(&mut self, verifier: &dyn BatchVerifier) -> bool {
        let valid = self.verdicts(verifier).iter().all(|verdict| *verdict);
        self.clear();
        valid
    }
}

/// Whose signature seals the batches: a member of the committee.
struct NodeKeys {
    committee: Vec<NodeKey>,
    last: usize,
}

impl NodeKeys {
    fn new(data: &DataDir) -> Self {
        Self { committee: data.genesis().committee.iter().map(|member| member.key).collect(), last: 0 }
    }

    fn check(&mut self, batch: &BatchView<'_>) -> Result<(), String> {
        let valid = |key: &NodeKey| {
            batch.verify_seal(key, |key, text, signature| verify_one(&key.0, text, signature)).is_ok()
        };
        // One node writes a lane: the key of the batch before is nearly always the one.
        if self.committee.get(self.last).is_some_and(valid) {
            return Ok(());
        }
        match self.committee.iter().position(valid) {
            Some(index) => {
                self.last = index;
                Ok(())
            }
            None => Err("the batch is not signed by a node of the committee".to_owned()),
        }
    }
}

/// Holds parents against the messages at their places.
struct Parents {
    lane: LaneId,
    roots: [MessageId; 2],
    /// What lies at the newest positions: an id, or nothing where a batch header is.
    window: VecDeque<Option<MessageId>>,
    /// Position of the window's first entry.
    oldest: u64,
    checked: u64,
    beyond_window: u64,
}

impl Parents {
    fn new(data: &DataDir, lane: LaneId) -> Self {
        let roots = data.genesis_id().roots();
        Self { lane, roots, window: VecDeque::new(), oldest: 0, checked: 0, beyond_window: 0 }
    }

    fn check(&mut self, batch: &BatchView<'_>, ids: &[MessageId]) -> Result<(), String> {
        self.window.push_back(None);
        for (entry, id) in batch.messages().zip(ids) {
            let parents = entry.message.parents();
            for (parent, place) in parents.iter().zip(entry.parent_places) {
                self.check_one(entry.position, parent, place)
                    .map_err(|what| format!("message {id} at position {}: {what}", entry.position))?;
            }
            self.window.push_back(Some(*id));
        }
        let surplus = self.window.len().saturating_sub(PARENT_WINDOW);
        self.window.drain(..surplus);
        self.oldest += surplus as u64;
        Ok(())
    }

    fn check_one(&mut self, position: u64, parent: &MessageId, place: Place) -> Result<(), String> {
        let there = if place.is_root() {
            Some(&self.roots[usize::from(place.position() == 1)])
        } else if place.lane() != self.lane {
            // Another lane's log may be on another machine.
            self.beyond_window += 1;
            return Ok(());
        } else if place.position() >= position {
            return Err(format!("its parent's place {place} does not lie before it"));
        } else if place.position() < self.oldest {
            self.beyond_window += 1;
            return Ok(());
        } else {
            let index = usize::try_from(place.position() - self.oldest).unwrap_or(usize::MAX);
            self.window.get(index).and_then(Option::as_ref)
        };
        match there {
            Some(id) if id == parent => {
                self.checked += 1;
                Ok(())
            }
            Some(other) => Err(format!("at the place of its parent {parent}, {place}, lies {other}")),
            None => Err(format!("at the place of its parent {parent}, {place}, lies no message")),
        }
    }
}
