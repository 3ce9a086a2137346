//! `weft bench`: figures that another machine can repeat, with the peers in the same run.
//!
//! Owns: the order of measurement, the table and the JSON of `verify`; what all CPU benches share is in `settings`; `gpu` has its own. The signatures are made in `corpus`, what
//! is measured stands in `contenders`, and how it is timed in `rounds`.
//!
//! A figure is worth something only if the work was done: before anything is timed, every contender verifies each
//! batch clean (all valid) and with one signature damaged (found), and a hash of all those verdicts is printed. It is
//! the same for the same arguments and backends on every machine.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use weft_loadgen::machine;

use self::contenders::{Contender, Role};
use self::corpus::{Corpus, KeyMix};
use self::settings::{CommonArgs, Settings};
use super::progress::Progress;
use super::usage;
use crate::units::grouped;

mod contenders;
mod corpus;
mod gpu;
mod hash;
mod rounds;
mod settings;
mod sign;

/// The commands under `weft bench`.
#[derive(clap::Subcommand, Debug)]
pub enum BenchCommand {
    /// Signatures per second by backend, batch size and key mix, against ed25519-dalek and ed25519-zebra
    #[command(long_about = VERIFY_LONG_ABOUT)]
    Verify(VerifyArgs),
    /// Signatures made per second by backend and batch size, against ed25519-dalek and ring
    #[command(long_about = sign::LONG_ABOUT)]
    Sign(sign::SignArgs),
    /// Message ids and tree hashes per second by backend, against the blake3 and sha2 crates
    #[command(long_about = hash::LONG_ABOUT)]
    Hash(hash::HashArgs),
    /// What a GPU does in a second, by batch size, beside this machine's CPU and an estimate from instruction counts
    #[command(long_about = gpu::LONG_ABOUT)]
    Gpu(gpu::GpuArgs),
}

/// What `--help` says.
pub const VERIFY_LONG_ABOUT: &str = "Measure signature verification: every backend this machine has, by batch size and key mix, with \
        the batch verifiers of ed25519-dalek 3 and ed25519-zebra 5 as peers in the same run. Messages are 32-byte \
        ids.\n\n\
        Key mixes: cold (all keys distinct, decoded each time), warm (all distinct, decoded before), 64 (64 keys \
        sign everything, decoded before), zipf (drawn by Zipf's law from as many keys as rows, decoded before). Contenders take turns, round by round, so that a busy machine slows all of them alike; \
        times are medians over the rounds, and a speed-up is the median of the rounds' own ratios.\n\n\
        Examples:\n  \
        weft bench verify --json verify.json\n  \
        weft bench verify --batch 1024,4096 --keys cold --seconds-per-row 2\n  \
        weft bench verify --threads 1,all";

/// Arguments of `weft bench verify`.
#[derive(clap::Args, Debug)]
pub struct VerifyArgs {
    /// Batch sizes, signatures
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,16,64,256,1024,4096,16384")]
    pub batch: Vec<usize>,
    /// Key mixes: cold, warm, 64, zipf
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "cold,warm,64,zipf")]
    pub keys: Vec<KeyMix>,
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
    backend: String,
    peer: bool,
    batch: usize,
    keys: &'static str,
    threads: usize,
    /// In one thread.
    ns_per_signature: f64,
    /// In all threads together.
    signatures_per_s: f64,
    /// Against the peer in the same cell, median of the rounds' ratios.
    speedup_vs_zebra_batch: f64,
    speedup_vs_dalek_batch: f64,
    /// Fastest and slowest round, ns per signature.
    ns_per_signature_min: f64,
    ns_per_signature_max: f64,
    rounds: usize,
    /// What was timed with: the thread's own CPU time, or the wall clock.
    clock: &'static str,
}

/// Runs a command under `weft bench`.
///
/// # Errors
/// A usage error for a list that cannot be used; an error if a contender gives a wrong verdict.
pub fn run(command: BenchCommand) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Verify(args) => verify(&args),
        BenchCommand::Sign(args) => sign::run(&args),
        BenchCommand::Hash(args) => hash::run(&args),
        BenchCommand::Gpu(args) => gpu::run(&args),
    }
}

fn verify(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let settings = Settings::new(&args.common, &args.batch, args.seconds_per_row)?;
    let json_only = args.common.json.on_stdout();
    let mut out = std::io::stdout();
    let mut progress = Progress::new();
    progress.say("measuring: signing the corpus");
    let batch_max = settings.batches.iter().copied().max().unwrap_or(1);
    let corpora: Vec<Corpus> = args.keys.iter().map(|mix| Corpus::new(*mix, batch_max)).collect();

    let mut hash = blake3::Hasher::new();
    let mut rows: Vec<Row> = Vec::new();
    if !json_only {
        writeln!(out, "{}", heading())?;
    }
    for corpus in &corpora {
        let contenders = contenders::all(&settings.backends, corpus)?;
        for &batch in &settings.batches {
            for contender in &contenders {
                check(contender.as_ref(), corpus, batch, &mut hash)?;
            }
            for &threads in &settings.threads {
                progress
                    .say(&format!("measuring: keys {}, batch {batch}, threads {threads}", corpus.mix.name()));
                let works: Vec<_> = contenders
                    .iter()
                    .map(|contender| BatchOf { contender: contender.as_ref(), corpus, batch })
                    .collect();
                let times = rounds::interleaved(&works, batch, threads, settings.per_row);
                let cell = cell_rows(&contenders, &times, corpus.mix, batch, threads)?;
                progress.clear();
                if !json_only {
                    for row in &cell {
                        writeln!(out, "{}", line(row))?;
                    }
                }
                rows.extend(cell);
            }
        }
    }
    progress.clear();
    let result_hash = hash.finalize().to_hex()[..16].to_owned();
    if !json_only {
        writeln!(out, "\nverdicts checked before timing: all as expected, hash {result_hash}")?;
        writeln!(out, "{}", machine_line())?;
    }
    warn_of_debug_build();
    args.common.json.write(&settings.report("bench verify", report(&rows, &result_hash)))?;
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// One contender on batches of one size.
struct BatchOf<'a> {
    contender: &'a dyn Contender,
    corpus: &'a Corpus,
    batch: usize,
}

impl rounds::Work for BatchOf<'_> {
    fn name(&self) -> &str {
        self.contender.name()
    }

    fn run(&self, number: usize, scratch: &mut rounds::Scratch) -> bool {
        self.contender.verify(self.corpus, number, self.batch, &mut scratch.verdicts)
    }
}

/// Verifies one clean and one damaged batch, and adds the verdicts to the hash.
fn check(
    contender: &dyn Contender,
    corpus: &Corpus,
    batch: usize,
    hash: &mut blake3::Hasher,
) -> anyhow::Result<()> {
    let name = contender.name();
    let clean = contender.check(corpus, batch, None);
    if !clean.iter().all(|verdict| *verdict) {
        bail!("{name} refused a valid signature in a batch of {batch}: its figures would mean nothing");
    }
    let damaged_row = batch / 2;
    let damaged = contender.check(corpus, batch, Some(damaged_row));
    if damaged != contender.expected(batch, damaged_row) {
        bail!(
            "{name} did not find the damaged signature in a batch of {batch}: its figures would mean nothing"
        );
    }
    hash.update(name.as_bytes());
    for verdicts in [clean, damaged] {
        hash.update(&verdicts.iter().map(|verdict| u8::from(*verdict)).collect::<Vec<u8>>());
    }
    Ok(())
}

/// The rows of one cell: every contender at one key mix, batch size and number of threads.
fn cell_rows(
    contenders: &[Box<dyn Contender>],
    times: &[Vec<f64>],
    mix: KeyMix,
    batch: usize,
    threads: usize,
) -> anyhow::Result<Vec<Row>> {
    let of = |role: Role| {
        let index = contenders.iter().position(|contender| contender.role() == role);
        index.and_then(|index| times.get(index)).context("a peer is missing from the run")
    };
    let (zebra, dalek) = (of(Role::Zebra)?, of(Role::Dalek)?);
    let rows = contenders.iter().zip(times).map(|(contender, ns)| {
        let ns_per_signature = rounds::median(ns.iter().copied());
        Row {
            backend: contender.name().to_owned(),
            peer: contender.role() != Role::Ours,
            batch,
            keys: mix.name(),
            threads,
            ns_per_signature: round(ns_per_signature, 1),
            signatures_per_s: (threads as f64 * 1e9 / ns_per_signature).round(),
            speedup_vs_zebra_batch: round(rounds::median_ratio(zebra, ns), 3),
            speedup_vs_dalek_batch: round(rounds::median_ratio(dalek, ns), 3),
            ns_per_signature_min: round(ns.iter().copied().fold(f64::INFINITY, f64::min), 1),
            ns_per_signature_max: round(ns.iter().copied().fold(0.0, f64::max), 1),
            rounds: ns.len(),
            clock: rounds::clock(threads),
        }
    });
    Ok(rows.collect())
}

fn warn_of_debug_build() {
    if cfg!(debug_assertions) {
        eprintln!("warning: this is a debug build; its figures mean nothing. Use cargo run --release");
    }
}

fn round(value: f64, digits: i32) -> f64 {
    let factor = 10f64.powi(digits);
    (value * factor).round() / factor
}

fn heading() -> String {
    format!(
        "{:<5} {:>6} {:>7}  {:<12} {:>10} {:>13} {:>9} {:>9}",
        "keys", "batch", "threads", "backend", "ns/sig", "signatures/s", "vs zebra", "vs dalek"
    )
}

fn line(row: &Row) -> String {
    let mark = if row.peer { "(peer)" } else { "" };
    format!(
        "{:<5} {:>6} {:>7}  {:<12} {:>10.1} {:>13} {:>8.2}x {:>8.2}x {mark}",
        row.keys,
        row.batch,
        row.threads,
        row.backend,
        row.ns_per_signature,
        grouped(row.signatures_per_s as u64),
        row.speedup_vs_zebra_batch,
        row.speedup_vs_dalek_batch,
    )
    .trim_end()
    .to_owned()
}

fn machine_line() -> String {
    let machine = machine::Machine::read(None);
    format!(
        "{}, {} cores, {}",
        machine.cpu_model.unwrap_or_else(|| "unknown CPU".to_owned()),
        machine.cores.unwrap_or(1),
        machine.kernel.unwrap_or_else(|| "unknown kernel".to_owned()),
    )
}

fn report(rows: &[Row], result_hash: &str) -> Value {
    json!({
        "message_bytes": 32,
        "result_hash": result_hash,
        "peers": {
            "zebra-batch": "ed25519-zebra 5 batch::Verifier, coefficients from ChaCha8; decodes keys in every batch, \
                each distinct key once; batch 1: VerificationKey::verify",
            "dalek-batch": "ed25519-dalek 3 verify_batch (cofactorless); cold: keys decoded in the timed part; warm \
                and 64: decoded before; batch 1: VerifyingKey::verify",
            "build": contenders::PEER_BUILD,
        },
        "method": "contenders take turns round by round; ns_per_signature is the median over rounds of time / \
            signatures in one thread (clock thread_cpu: CPU time of that thread; wall: wall-clock time); signatures_per_s is that of all threads together; speedups are medians of the \
            rounds' own ratios",
        "rows": rows,
    })
}
