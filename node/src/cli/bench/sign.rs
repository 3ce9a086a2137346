//! `weft bench sign`: signatures made per second, each backend beside other crates' signers.
//!
//! Keys are expanded before the clock starts, for everyone: what is timed is the signing of 32-byte ids by distinct
//! keys, and for `expand` the way from a seed to a key that can sign. Before anything is timed, every contender's
//! signatures are compared bit by bit: RFC 8032 leaves no choice, so they are all the same.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use serde_json::json;
use weft_crypto::Messages;
use weft_crypto::sign::{BatchSigner, ExpandedKey};

use super::super::progress::Progress;
use super::rounds::{self, Scratch, Work};
use super::settings::{CommonArgs, Settings};
use crate::units::grouped;

/// What `--help` says.
pub(super) const LONG_ABOUT: &str = "Measure signing: every backend this machine has, by batch size, with ed25519-dalek 3 and ring as \
        peers in the same run (and aws-lc-rs, if weft was built with `--features aws-lc`). All keys are distinct and expanded before; messages are 32-byte ids. \
        `expand` is the way from a seed to an expanded key with its public key.\n\n\
        Examples:\n  \
        weft bench sign --json sign.json\n  \
        weft bench sign --batch 256 --seconds-per-row 2 --threads 1,all";

/// Arguments of `weft bench sign`.
#[derive(clap::Args, Debug)]
pub struct SignArgs {
    /// Batch sizes, signatures
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,16,256,4096")]
    pub batch: Vec<usize>,
    /// Time given to each row, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
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
    batch: usize,
    threads: usize,
    /// In one thread.
    ns_per_signature: f64,
    /// In all threads together.
    signatures_per_s: f64,
    /// Against each peer of the same cell that does the same, median of the rounds' ratios.
    speedup_vs: std::collections::BTreeMap<String, f64>,
    clock: &'static str,
}

/// What is signed, and with what.
struct Corpus {
    seeds: Vec<[u8; 32]>,
    keys: Vec<ExpandedKey>,
    ids: Vec<[u8; 32]>,
}

/// One way to sign.
enum Signer {
    Ours(Arc<dyn BatchSigner>),
    Dalek(Vec<ed25519_dalek::SigningKey>),
    Ring(Vec<ring::signature::Ed25519KeyPair>),
    #[cfg(feature = "aws-lc")]
    AwsLc(Vec<aws_lc_rs::signature::Ed25519KeyPair>),
}

impl Signer {
    fn name(&self) -> &'static str {
        match self {
            Self::Ours(signer) => signer.name(),
            Self::Dalek(_) => "dalek",
            Self::Ring(_) => "ring",
            #[cfg(feature = "aws-lc")]
            Self::AwsLc(_) => "aws-lc",
        }
    }

    fn sign(&self, corpus: &Corpus, range: std::ops::Range<usize>, out: &mut Vec<[u8; 64]>) {
        out.clear();
        match self {
            Self::Ours(signer) => {
                out.resize(range.len(), [0; 64]);
                let keys: Vec<&ExpandedKey> = corpus.keys[range.clone()].iter().collect();
                signer.sign(&keys, &Messages::Ids(&corpus.ids[range]), out);
            }
            Self::Dalek(keys) => {
                use ed25519_dalek::Signer as _;
                out.extend(range.map(|row| keys[row].sign(&corpus.ids[row]).to_bytes()));
            }
            Self::Ring(keys) => {
                out.extend(range.map(|row| fixed(keys[row].sign(&corpus.ids[row]).as_ref())));
            }
            #[cfg(feature = "aws-lc")]
            Self::AwsLc(keys) => {
                out.extend(range.map(|row| fixed(keys[row].sign(&corpus.ids[row]).as_ref())));
            }
        }
    }
}

/// 64 bytes of a signature; zeros, which no comparison passes, if it is none.
fn fixed(bytes: &[u8]) -> [u8; 64] {
    bytes.try_into().unwrap_or([0; 64])
}

/// One contender of a cell.
struct Cell<'a> {
    signer: &'a Signer,
    corpus: &'a Corpus,
    batch: usize,
    /// Expand keys instead of signing.
    expand: bool,
}

impl Work for Cell<'_> {
    fn name(&self) -> &str {
        self.signer.name()
    }

    fn run(&self, number: usize, scratch: &mut Scratch) -> bool {
        let batches = (self.corpus.ids.len() / self.batch).max(1);
        let start = number % batches * self.batch;
        let range = start..start + self.batch;
        if self.expand {
            return match self.signer {
                Signer::Ours(signer) => {
                    let mut keys = Vec::new();
                    signer.expand(&self.corpus.seeds[range], &mut keys);
                    std::hint::black_box(keys).len() == self.batch
                }
                Signer::Dalek(_) => self.corpus.seeds[range].iter().all(|seed| {
                    // Another crate's public key costs the same multiplication.
                    let key = ed25519_dalek::SigningKey::from_bytes(seed);
                    std::hint::black_box(key.verifying_key()).as_bytes() != &[0; 32]
                }),
                _ => false,
            };
        }
        self.signer.sign(self.corpus, range, &mut scratch.signatures);
        scratch.signatures.len() == self.batch
    }
}

/// Runs `weft bench sign`.
pub(super) fn run(args: &SignArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::new(&args.common, &args.batch, args.seconds_per_row)?;
    let json_only = args.common.json.on_stdout();
    let mut out = std::io::stdout();
    let mut progress = Progress::new();
    progress.say("measuring: expanding keys");
    let rows = settings.batches.iter().copied().max().unwrap_or(1).max(1024);
    let corpus = corpus(rows);
    let mut signers = Vec::new();
    for backend in &settings.backends {
        signers.push(Signer::Ours(backend.signer().map_err(|error| super::usage(error.to_string()))?));
    }
    signers.extend(peers(&corpus.seeds)?);
    let hash = check(&signers, &corpus)?;
    let mut report: Vec<Row> = Vec::new();
    if !json_only {
        writeln!(
            out,
            "{:<7} {:>6} {:>7}  {:<8} {:>10} {:>13}  times as fast as",
            "what", "batch", "threads", "backend", "ns", "a second"
        )?;
    }
    for &batch in &settings.batches {
        for &threads in &settings.threads {
            for (what, expand) in [("sign", false), ("expand", true)] {
                progress.say(&format!("measuring: {what}, batch {batch}, threads {threads}"));
                let takes_part =
                    |signer: &&Signer| !expand || matches!(signer, Signer::Ours(_) | Signer::Dalek(_));
                let cells: Vec<Cell<'_>> = signers
                    .iter()
                    .filter(takes_part)
                    .map(|signer| Cell { signer, corpus: &corpus, batch, expand })
                    .collect();
                let times = rounds::interleaved(&cells, batch, threads, settings.per_row);
                progress.clear();
                for (cell, ns) in cells.iter().zip(&times) {
                    let peers = cells.iter().zip(&times).filter(|(peer, _)| is_peer(peer.signer));
                    let speedup_vs = peers
                        .map(|(peer, peer_ns)| {
                            (
                                peer.signer.name().to_owned(),
                                super::round(rounds::median_ratio(peer_ns, ns), 3),
                            )
                        })
                        .collect();
                    let ns = rounds::median(ns.iter().copied());
                    let row = Row {
                        what,
                        backend: cell.signer.name().to_owned(),
                        peer: is_peer(cell.signer),
                        batch,
                        threads,
                        ns_per_signature: super::round(ns, 1),
                        signatures_per_s: (threads as f64 * 1e9 / ns).round(),
                        speedup_vs,
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
    if !json_only {
        writeln!(out, "\nsignatures compared before timing: the same from all, hash {hash}")?;
        writeln!(out, "{}", super::machine_line())?;
    }
    super::warn_of_debug_build();
    args.common.json.write(&settings.report("bench sign", json!({
        "message_bytes": 32,
        "result_hash": hash,
        "method": "contenders take turns round by round; ns_per_signature is the median over rounds, in one thread; speedups are medians of the rounds' own ratios",
        "rows": report,
    })))?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn is_peer(signer: &Signer) -> bool {
    !matches!(signer, Signer::Ours(_))
}

fn corpus(rows: usize) -> Corpus {
    let bytes = |what: &str, row: usize| {
        let mut hasher = blake3::Hasher::new_derive_key("weft 2026-11 bench sign v1");
        hasher.update(what.as_bytes());
        hasher.update(&(row as u64).to_le_bytes());
        *hasher.finalize().as_bytes()
    };
    let seeds: Vec<[u8; 32]> = (0..rows).map(|row| bytes("seed", row)).collect();
    let keys = seeds.iter().map(ExpandedKey::from_seed).collect();
    Corpus { seeds, keys, ids: (0..rows).map(|row| bytes("id", row)).collect() }
}

fn peers(seeds: &[[u8; 32]]) -> anyhow::Result<Vec<Signer>> {
    let dalek = seeds.iter().map(ed25519_dalek::SigningKey::from_bytes).collect();
    let ring: Result<Vec<_>, _> =
        seeds.iter().map(|seed| ring::signature::Ed25519KeyPair::from_seed_unchecked(seed)).collect();
    let Ok(ring) = ring else { bail!("ring takes no key from a seed of 32 bytes") };
    let mut peers = vec![Signer::Dalek(dalek), Signer::Ring(ring)];
    #[cfg(feature = "aws-lc")]
    {
        let aws: Result<Vec<_>, _> = seeds
            .iter()
            .map(|seed| aws_lc_rs::signature::Ed25519KeyPair::from_seed_unchecked(seed))
            .collect();
        let Ok(aws) = aws else { bail!("aws-lc-rs takes no key from a seed of 32 bytes") };
        peers.push(Signer::AwsLc(aws));
    }
    peers.shrink_to_fit();
    Ok(peers)
}

/// All signatures of all contenders, compared; a hash of them.
fn check(signers: &[Signer], corpus: &Corpus) -> anyhow::Result<String> {
    let mut first: Option<Vec<[u8; 64]>> = None;
    for signer in signers {
        let mut signatures = Vec::new();
        signer.sign(corpus, 0..corpus.ids.len(), &mut signatures);
        match &first {
            Some(first) if *first != signatures => {
                bail!("{} signs differently: its figures would mean nothing", signer.name())
            }
            Some(_) => {}
            None => first = Some(signatures),
        }
    }
    let bytes: Vec<u8> = first.unwrap_or_default().concat();
    Ok(blake3::hash(&bytes).to_hex()[..16].to_owned())
}

fn line(row: &Row) -> String {
    let speedups: Vec<String> =
        row.speedup_vs.iter().map(|(peer, ratio)| format!("{peer} {ratio:.2}")).collect();
    format!(
        "{:<7} {:>6} {:>7}  {:<8} {:>10.1} {:>13}  {}{}",
        row.what,
        row.batch,
        row.threads,
        row.backend,
        row.ns_per_signature,
        grouped(row.signatures_per_s as u64),
        speedups.join(", "),
        if row.peer { "  (peer)" } else { "" },
    )
}
