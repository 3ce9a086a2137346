//! `weft bench hash`: message ids and hashes of the lane's tree per second, each backend beside the crates that do it
//! one at a time.
//!
//! | what | input | peer |
//! |---|---|---|
//! | id | BLAKE3 derive_key of one message's bytes | the blake3 crate, once per message |
//! | leaf | SHA-256 of 0x00 and 32 bytes (RFC 6962) | the sha2 crate |
//! | node | SHA-256 of 0x01 and 64 bytes | the sha2 crate |
//!
//! Digests are compared with the peer's before anything is timed.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;
use sha2::Digest as _;
use weft_crypto::Backend;
use weft_crypto::simd::{Context, Hashes};

use super::super::progress::Progress;
use super::rounds::{self, Scratch, Work};
use super::settings::{CommonArgs, Settings};
use crate::units::grouped;

/// What `--help` says.
pub(super) const LONG_ABOUT: &str = "Measure hashing: message ids (BLAKE3, many messages at a time) and the leaves and nodes of a lane's tree \
        (SHA-256), by backend, with the blake3 and sha2 crates, called once per message, as peers in the same run.\n\n\
        Examples:\n  \
        weft bench hash --json hash.json\n  \
        weft bench hash --bytes 64,250,1024 --threads 1,all";

/// Longest message that can be asked for: the longest there is.
const BYTES_MAX: usize = weft_core::MESSAGE_BYTES_MAX;

/// Arguments of `weft bench hash`.
#[derive(clap::Args, Debug)]
pub struct HashArgs {
    /// Message lengths, bytes
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "184,250,1024")]
    pub bytes: Vec<usize>,
    /// Messages in a call
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "256")]
    pub batch: Vec<usize>,
    /// Time given to each row, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0.3)]
    pub seconds_per_row: f64,
    /// What all CPU benches take.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// One line of the result.
#[derive(Debug, serde::Serialize)]
struct Row {
    what: &'static str,
    backend: String,
    peer: bool,
    /// Bytes hashed in each.
    bytes: usize,
    batch: usize,
    threads: usize,
    /// In one thread.
    ns_per_hash: f64,
    /// In all threads together.
    hashes_per_s: f64,
    /// Against the crate called once per message, median of the rounds' ratios.
    speedup_vs_peer: f64,
    clock: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Id(usize),
    Leaf,
    Node,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Id(_) => "id",
            Self::Leaf => "leaf",
            Self::Node => "node",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Id(bytes) => bytes,
            Self::Leaf => 32,
            Self::Node => 64,
        }
    }
}

/// One contender of a cell: a backend, or the peer.
struct Cell<'a> {
    hashes: Option<&'a Hashes>,
    context: &'a Context,
    what: What,
    messages: &'a [&'a [u8]],
    words: &'a [[u8; 32]],
    pairs: &'a [[[u8; 32]; 2]],
}

impl Cell<'_> {
    fn digests(&self, out: &mut Vec<[u8; 32]>) {
        out.resize(self.messages.len(), [0; 32]);
        match (self.hashes, self.what) {
            (Some(hashes), What::Id(_)) => hashes.derive(self.context, self.messages, out),
            (Some(hashes), What::Leaf) => hashes.leaves(self.words, out),
            (Some(hashes), What::Node) => hashes.nodes(self.pairs, out),
            (None, What::Id(_)) => {
                for (out, message) in out.iter_mut().zip(self.messages) {
                    *out = weft_core::hash::Domain::MESSAGE.hash(message);
                }
            }
            (None, What::Leaf) => {
                for (out, word) in out.iter_mut().zip(self.words) {
                    *out = sha2::Sha256::new().chain_update([0]).chain_update(word).finalize().into();
                }
            }
            (None, What::Node) => {
                for (out, [left, right]) in out.iter_mut().zip(self.pairs) {
                    let hash = sha2::Sha256::new().chain_update([1]).chain_update(left).chain_update(right);
                    *out = hash.finalize().into();
                }
            }
        }
    }

    fn label(&self) -> &'static str {
        match (self.hashes, self.what) {
            (Some(hashes), _) => hashes.name(),
            (None, What::Id(_)) => "blake3",
            (None, _) => "sha2",
        }
    }
}

impl Work for Cell<'_> {
    fn name(&self) -> &str {
        self.label()
    }

    fn run(&self, _: usize, scratch: &mut Scratch) -> bool {
        self.digests(&mut scratch.digests);
        scratch.digests.len() == self.messages.len()
    }
}

/// Runs `weft bench hash`.
pub(super) fn run(args: &HashArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::new(&args.common, &args.batch, args.seconds_per_row)?;
    if let Some(bad) = args.bytes.iter().find(|bytes| !(1..=BYTES_MAX).contains(*bytes)) {
        return Err(super::usage(format!("--bytes: got {bad}, the limits are 1 to {BYTES_MAX}")));
    }
    let json_only = args.common.json.on_stdout();
    let mut out = std::io::stdout();
    let mut progress = Progress::new();
    let context = Context::new(weft_core::hash::Domain::MESSAGE.context());
    let named = |backend: &Backend| {
        Hashes::named(backend.name())
            .ok_or_else(|| super::usage(format!("backend {backend} not detected on this machine")))
    };
    let hashes = settings.backends.iter().map(named).collect::<anyhow::Result<Vec<Hashes>>>()?;
    let mut report: Vec<Row> = Vec::new();
    let mut result = blake3::Hasher::new();
    if !json_only {
        writeln!(
            out,
            "{:<5} {:>6} {:>6} {:>7}  {:<8} {:>9} {:>14} {:>9}",
            "what", "bytes", "batch", "threads", "backend", "ns", "a second", "vs peer"
        )?;
    }
    for &batch in &settings.batches {
        let whats = args.bytes.iter().map(|bytes| What::Id(*bytes)).chain([What::Leaf, What::Node]);
        for what in whats {
            let data: Vec<Vec<u8>> = (0..batch).map(|row| bytes(row, what.bytes())).collect();
            let messages: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
            let words: Vec<[u8; 32]> =
                (0..batch).map(|row| *blake3::hash(&bytes(row, 8)).as_bytes()).collect();
            let pairs: Vec<[[u8; 32]; 2]> =
                words.iter().map(|word| [*word, word.map(|byte| !byte)]).collect();
            let cell = |hashes| Cell {
                hashes,
                context: &context,
                what,
                messages: &messages,
                words: &words,
                pairs: &pairs,
            };
            let cells: Vec<Cell<'_>> = hashes.iter().map(Some).chain([None]).map(cell).collect();
            check(&cells, &mut result)?;
            for &threads in &settings.threads {
                progress.say(&format!(
                    "measuring: {}, {} bytes, threads {threads}",
                    what.name(),
                    what.bytes()
                ));
                let times = rounds::interleaved(&cells, batch, threads, settings.per_row);
                progress.clear();
                let peer_ns = times.last().cloned().unwrap_or_default();
                for (cell, ns) in cells.iter().zip(&times) {
                    let speedup = rounds::median_ratio(&peer_ns, ns);
                    let ns = rounds::median(ns.iter().copied());
                    let row = Row {
                        what: what.name(),
                        backend: cell.label().to_owned(),
                        peer: cell.hashes.is_none(),
                        bytes: what.bytes(),
                        batch,
                        threads,
                        ns_per_hash: super::round(ns, 1),
                        hashes_per_s: (threads as f64 * 1e9 / ns).round(),
                        speedup_vs_peer: super::round(speedup, 3),
                        clock: rounds::clock(threads),
                    };
                    if !json_only {
                        writeln!(out, "{}", line(&row))?;
                    }
                    report.push(row);
                }
            }
        }
    }
    progress.clear();
    let hash = result.finalize().to_hex()[..16].to_owned();
    if !json_only {
        writeln!(out, "\ndigests compared before timing: the same from all, hash {hash}")?;
        writeln!(out, "{}", super::machine_line())?;
    }
    super::warn_of_debug_build();
    args.common.json.write(&settings.report("bench hash", json!({
        "result_hash": hash,
        "method": "contenders take turns round by round; ns_per_hash is the median over rounds, in one thread; speedups are medians of the rounds' own ratios",
        "rows": report,
    })))?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn bytes(row: usize, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    let mut hasher = blake3::Hasher::new_derive_key("weft 2026-11 bench hash v1");
    hasher.update(&(row as u64).to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

/// Compares the digests of a cell's contenders.
fn check(cells: &[Cell<'_>], hash: &mut blake3::Hasher) -> anyhow::Result<()> {
    let mut first: Option<Vec<[u8; 32]>> = None;
    for cell in cells {
        let mut digests = Vec::new();
        cell.digests(&mut digests);
        match &first {
            Some(first) if *first != digests => {
                bail!(
                    "{} hashes a {} differently: its figures would mean nothing",
                    cell.label(),
                    cell.what.name()
                )
            }
            Some(_) => {}
            None => {
                hash.update(digests.as_flattened());
                first = Some(digests);
            }
        }
    }
    Ok(())
}

fn line(row: &Row) -> String {
    format!(
        "{:<5} {:>6} {:>6} {:>7}  {:<8} {:>9.1} {:>14} {:>8.2}x{}",
        row.what,
        row.bytes,
        row.batch,
        row.threads,
        row.backend,
        row.ns_per_hash,
        grouped(row.hashes_per_s as u64),
        row.speedup_vs_peer,
        if row.peer { "  (peer)" } else { "" },
    )
}
