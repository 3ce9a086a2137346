//! `weft bench gpu`: what an adapter does in a second, by batch size, beside this machine's CPU; and what it should do.
//!
//! Owns the measured table and the offline report. `verify` is guarded verification with everything a batch costs, every key
//! decoded; `verify warm` the same with keys that the device knows; `transfer` the upload alone, `hash` message ids; the CPU's backends verify and hash the same rows in one thread and in all. Every verdict of a
//! timed batch must be right, or the run ends with an error. `--offline` measures nothing: it has Mesa compile the kernels for an AMD
//! chip that need not be here and counts cycles in the machine code ([`weft_gpu::offline`]).

use std::hint::black_box;
use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Serialize;
use serde_json::{Value, json};
use weft_crypto::backend;
use weft_crypto::{Columns, Messages};
use weft_gpu::adapter::Selection;
use weft_gpu::bench::Keys;
use weft_gpu::hasher::MessageHasher;
use weft_gpu::offline::{self, Chip};
use weft_gpu::{GpuVerifier, Layout, Options, bench, resident, selftest};
use weft_loadgen::machine;

use super::super::gpu::AdapterReport;
use super::super::progress::Progress;
use super::super::{JsonArg, usage};
use super::corpus::{Corpus, KeyMix};
use crate::units::grouped;
use crate::verifier::{VerifierError, cache_dir};

/// The largest batch that can be asked for.
const ROWS_MAX: usize = 1 << 20;
/// Distinct rows: larger batches repeat them, which no device notices: it shares nothing between the rows of a batch, unless their
/// keys are resident, and `verify` without `warm` forgets those before every batch.
const DISTINCT_ROWS: usize = 1 << 14;
/// Bytes of a hashed message: a device's message with 64 bytes of payload has 248.
const MESSAGE_BYTES: usize = 256;
/// Messages hashed at once, at most: 64 MiB of them.
const HASHED_MAX: usize = 1 << 18;
/// The context that message ids are derived under.
const ID_CONTEXT: &str = "weft 2026-11 message v1";
/// Rows that CPU backends are timed with.
const CPU_ROWS: usize = 4096;
/// The chip of the estimate beside measured figures.
const ESTIMATE_CHIP: &str = "navi21";

/// What `--help` says.
pub(super) const LONG_ABOUT: &str = "Measure a GPU: guarded verification, upload and message ids by batch size, beside the CPU backends of this machine, \
        and beside an estimate from instruction counts. Sizes whose batch would take longer than --seconds-max are left out, as all \
        large ones are on software adapters (which need WEFT_GPU_ALLOW_CPU=1).\n\n\
        --offline CHIP measures nothing: Mesa's RADV compiles the kernels for an AMD chip that need not be in this machine (navi21: \
        RX 6800; navi10: RX 5700 XT) and tells registers, spills and instructions; cycles are counted in the machine code and turned \
        into signatures a second, with the arithmetic shown.\n\n\
        Examples:\n  \
        weft bench gpu --json gpu.json\n  \
        weft bench gpu --gpu 1 --batch 4096,65536\n  \
        weft bench gpu --offline navi21\n  \
        WEFT_GPU_ALLOW_CPU=1 weft bench gpu --seconds-max 1";

/// Arguments of `weft bench gpu`.
#[derive(clap::Args, Debug)]
pub struct GpuArgs {
    /// The adapter, as in `weft gpu list`
    #[arg(long, value_name = "ADAPTER", env = "WEFT_GPU", default_value = "auto")]
    pub gpu: Selection,
    /// Batch sizes, rows
    #[arg(
        long,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "256,1024,4096,16384,65536,262144,1048576"
    )]
    pub batch: Vec<usize>,
    /// Time given to each row of the table, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5)]
    pub seconds_per_row: f64,
    /// Longest batch that is measured, seconds; larger sizes are left out
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub seconds_max: f64,
    /// Device memory for keys that stay decoded, MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(0..=resident::BYTES_MAX >> 20))]
    pub resident_mib: u64,
    /// Batch equations: where they are measured to gain (never on software adapters), for every batch, or for none
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = ["auto", "always", "never"])]
    pub equations: String,
    /// Compile for this chip and estimate, instead of measuring: navi21 or navi10
    #[arg(long, value_name = "CHIP", conflicts_with_all = ["gpu", "batch"])]
    pub offline: Option<String>,
    /// With --offline: SIMDs of 32 lanes of the card [default: the chip's usual card]
    #[arg(long, value_name = "COUNT", requires = "offline")]
    pub simds: Option<u32>,
    /// With --offline: clock of the card, MHz [default: the chip's usual card]
    #[arg(long, value_name = "MHZ", requires = "offline")]
    pub clock_mhz: Option<u32>,
    /// Where the report goes.
    #[command(flatten)]
    pub json: JsonArg,
}

/// One line of the measured table.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    rows: usize,
    threads: usize,
    ms: f64,
    per_s: f64,
    /// Against the fastest CPU backend in one thread and in all, at the same work; none for transfers.
    speedup_vs_cpu_thread: Option<f64>,
    speedup_vs_cpu: Option<f64>,
}

/// Runs `weft bench gpu`.
///
/// # Errors
/// A usage error for sizes or chips that there are not; an error if no adapter may be used or one verifies wrongly.
pub(super) fn run(args: &GpuArgs) -> anyhow::Result<ExitCode> {
    match &args.offline {
        Some(name) => offline(args, name),
        None => measure(args),
    }
}

fn measure(args: &GpuArgs) -> anyhow::Result<ExitCode> {
    if let Some(bad) = args.batch.iter().find(|rows| !(1..=ROWS_MAX).contains(*rows)) {
        return Err(usage(format!("--batch: got {bad}, the limits are 1 to {ROWS_MAX}")));
    }
    for (flag, value) in [("--seconds-per-row", args.seconds_per_row), ("--seconds-max", args.seconds_max)] {
        if !(0.001..=600.0).contains(&value) {
            return Err(usage(format!("{flag}: got {value}, the limits are 0.001 to 600")));
        }
    }
    let budget = Duration::from_secs_f64(args.seconds_per_row);
    let longest = Duration::from_secs_f64(args.seconds_max);
    let mut sizes = args.batch.clone();
    sizes.sort_unstable();
    sizes.dedup();

    let mut progress = Progress::new();
    let found = args.gpu.adapters().map_err(VerifierError::from)?;
    let found = found.first().context("--gpu off: nothing to measure")?;
    progress.say("measuring: compiling the kernels");
    let started = Instant::now();
    let options = Options {
        cache_dir: cache_dir(),
        resident_bytes: args.resident_mib << 20,
        equations: match args.equations.as_str() {
            "always" => Some(true),
            "never" => Some(false),
            _ => None,
        },
        ..Options::default()
    };
    let (engine, _) = selftest::open(found, &options).map_err(VerifierError::from)?;
    let opened = started.elapsed();
    progress.say("measuring: signing the corpus");
    let rows = Tiled::new(sizes.last().copied().unwrap_or(1));
    let columns = rows.columns();

    let json_only = args.json.on_stdout();
    let mut table = Table { rows: Vec::new(), cpu_verify: None, cpu_hash: None, print: !json_only };
    progress.clear();
    if !json_only {
        println!(
            "{} ({}, {}, driver {}), layout {}, batches of up to {}, opened and tested in {:.1} s; {}\n",
            found.description.name,
            found.description.kind,
            found.description.backend,
            found.description.driver,
            engine.layout().name(),
            grouped(engine.rows_max() as u64),
            opened.as_secs_f64(),
            match engine.gain() {
                Some(gain) => format!("batch equations from {} rows on", grouped(gain.rows_min as u64)),
                None => "no batch equations".to_owned(),
            }
        );
        println!("{}", heading());
    }
    measure_cpu(&mut table, &columns, &rows.bodies, budget)?;
    let mut left_out = Vec::new();
    let gpu = GpuVerifier::new(engine, backend::auto(&backend::Options::default()).verifier);
    let hasher = MessageHasher::new(gpu.engine(), ID_CONTEXT).map_err(VerifierError::from)?;
    let messages: Vec<&[u8]> = (0..sizes.last().copied().unwrap_or(1).min(HASHED_MAX))
        .map(|row| rows.bodies[row % rows.bodies.len()].as_slice())
        .collect();
    for what in ["verify", "verify warm", "transfer", "hash"] {
        let mut last: Option<(usize, Duration)> = None;
        for &size in &sizes {
            let fits = match what {
                "transfer" => size <= gpu.engine().rows_max(),
                "hash" => size <= HASHED_MAX,
                _ => true,
            };
            let predicted =
                last.map_or(Duration::ZERO, |(rows, time)| time.mul_f64(size as f64 / rows as f64));
            if !fits || predicted > longest {
                let why = if fits { "slow" } else { "does not fit one batch" };
                left_out.push(
                    json!({ "what": what, "rows": size, "why": why, "predicted_s": predicted.as_secs_f64() }),
                );
                continue;
            }
            progress.say(&format!("measuring: {what}, {size} rows"));
            let measured = match what {
                "verify" => bench::verify(&gpu, &columns, &[size], Keys::Cold, budget),
                "verify warm" => bench::verify(&gpu, &columns, &[size], Keys::Warm, budget),
                "transfer" => bench::transfer(gpu.engine(), &columns, &[size], budget),
                _ => bench::hash(&hasher, &messages, &[size], budget),
            };
            progress.clear();
            for row in measured.map_err(VerifierError::from)? {
                last = Some((row.rows, row.time));
                table.add(what, row.rows, 1, row.time);
            }
        }
    }
    let ids = hasher.ids(&messages[..messages.len().min(1000)]).map_err(VerifierError::from)?;
    if ids.iter().zip(&messages).any(|(id, message)| *id != blake3::derive_key(ID_CONTEXT, message)) {
        bail!("the device hashed a message wrongly: its figures mean nothing");
    }
    let counts = gpu.counts();
    let residents = gpu.engine().residents();
    let estimate = estimate_beside();
    if !json_only {
        let mut out = std::io::stdout().lock();
        for entry in &left_out {
            writeln!(out, "left out: {} of {} rows ({})", entry["what"], entry["rows"], entry["why"])?;
        }
        writeln!(
            out,
            "\nguard: {} batches, {} acceptances verified again on the CPU, {} mismatches",
            counts.batches, counts.sampled, counts.mismatches
        )?;
        match &estimate {
            Ok(value) => writeln!(
                out,
                "estimate from instruction counts, {}: {} signatures/s in {} (weft bench gpu --offline {ESTIMATE_CHIP})",
                value["card"].as_str().unwrap_or_default(),
                grouped(value["best"]["signatures_per_s"].as_f64().unwrap_or(0.0) as u64),
                value["best"]["layout"].as_str().unwrap_or_default()
            )?,
            Err(error) => writeln!(out, "estimate from instruction counts: {error}")?,
        }
    }
    super::warn_of_debug_build();
    args.json.write(&json!({
        "report": "bench gpu",
        "machine": machine::Machine::read(None),
        "commit": machine::commit(),
        "command": super::command_line(),
        "build": { "release": !cfg!(debug_assertions), "version": env!("CARGO_PKG_VERSION") },
        "adapter": AdapterReport::from(&found.description),
        "layout": gpu.engine().layout().name(),
        "equations": {
            "from_rows": gpu.engine().gain().map(|gain| gain.rows_min),
            "cost": gpu.engine().gain().map(|gain| gain.cost),
            "tried": counts.equations,
            "failed": counts.equations_failed,
        },
        "batch_rows_max": gpu.engine().rows_max(),
        "device_bytes": gpu.engine().device_bytes(),
        "resident": {
            "bytes": args.resident_mib << 20,
            "capacity": residents.capacity,
            "keys": residents.keys,
            "hits": residents.hits,
            "fills": residents.fills,
            "evictions": residents.evictions,
        },
        "opened_ms": opened.as_secs_f64() * 1e3,
        "guard": { "batches": counts.batches, "sampled": counts.sampled, "mismatches": counts.mismatches },
        "method": "wall time, median of at least three runs after a warm-up; verify: canaries, upload, kernels, readback and the \
            guard's sample, every key decoded; verify warm: the same with the keys decoded before, as far as they fit; hash: 256-byte messages; cpu: the same rows, keys decoded each time",
        "rows": table.rows,
        "left_out": left_out,
        "estimate": estimate.as_ref().ok(),
    }))?;
    Ok(ExitCode::SUCCESS)
}

/// Rows of a corpus, repeated up to the largest batch, and messages to hash.
struct Tiled {
    keys: Vec<[u8; 32]>,
    ids: Vec<[u8; 32]>,
    signatures: Vec<[u8; 64]>,
    bodies: Vec<[u8; MESSAGE_BYTES]>,
}

impl Tiled {
    fn new(rows: usize) -> Self {
        let corpus = Corpus::new(KeyMix::Cold, rows.min(DISTINCT_ROWS));
        let rows = rows.max(corpus.rows());
        let body = |row: usize| {
            let mut body = [0x42; MESSAGE_BYTES];
            body[..8].copy_from_slice(&(row as u64).to_le_bytes());
            body
        };
        Self {
            keys: corpus.keys.iter().copied().cycle().take(rows).collect(),
            ids: corpus.ids.iter().copied().cycle().take(rows).collect(),
            signatures: corpus.signatures.iter().copied().cycle().take(rows).collect(),
            bodies: (0..DISTINCT_ROWS).map(body).collect(),
        }
    }

    fn columns(&self) -> Columns<'_> {
        Columns { keys: &self.keys, messages: Messages::Ids(&self.ids), signatures: &self.signatures }
    }
}

/// The CPU's backends and its hash, in one thread and in all.
fn measure_cpu(
    table: &mut Table,
    columns: &Columns<'_>,
    bodies: &[[u8; MESSAGE_BYTES]],
    budget: Duration,
) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let part = columns.rows(0, CPU_ROWS.min(columns.len()));
    let mut counts = vec![1, cores];
    counts.dedup();
    for (backend, verifier) in backend::available(&backend::Options::default()) {
        for &threads in &counts {
            let time = in_threads(threads, budget, || {
                let mut verdicts = vec![false; part.len()];
                verifier.verify(&part, &mut verdicts);
                verdicts.iter().all(|verdict| *verdict)
            });
            let Some(time) = time else {
                bail!("{backend} refused a valid signature: no figure means anything")
            };
            table.add(&format!("cpu {backend}"), part.len(), threads, time);
            // The figure for one batch in each thread, as a rate.
            table.cpu_verify_candidate(threads, part.len() as f64 * threads as f64 / time.as_secs_f64());
        }
    }
    let hashed = &bodies[..bodies.len().min(CPU_ROWS)];
    for &threads in &counts {
        let time = in_threads(threads, budget, || {
            hashed.iter().for_each(|body| {
                black_box(blake3::derive_key(ID_CONTEXT, body));
            });
            true
        });
        if let Some(time) = time {
            table.add("cpu hash", hashed.len(), threads, time);
            table.cpu_hash_candidate(threads, hashed.len() as f64 * threads as f64 / time.as_secs_f64());
        }
    }
    Ok(())
}

/// Median time of `work`, done by each of `threads` threads at once; `None` if it says that something is wrong.
fn in_threads(threads: usize, budget: Duration, work: impl Fn() -> bool + Sync) -> Option<Duration> {
    let right = std::sync::atomic::AtomicBool::new(true);
    let time = bench::median(budget, || {
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(|| {
                    if !work() {
                        right.store(false, std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
            if !work() {
                right.store(false, std::sync::atomic::Ordering::Relaxed);
            }
        });
    });
    right.into_inner().then_some(time)
}

/// The rows so far, and the best CPU rates (one thread, all threads), signatures or messages a second.
struct Table {
    rows: Vec<Row>,
    cpu_verify: Option<(f64, f64)>,
    cpu_hash: Option<(f64, f64)>,
    print: bool,
}

fn better(best: &mut Option<(f64, f64)>, threads: usize, rate: f64) {
    let (one, all) = best.get_or_insert((0.0, 0.0));
    if threads == 1 {
        *one = one.max(rate);
    }
    *all = all.max(rate);
}

impl Table {
    fn cpu_verify_candidate(&mut self, threads: usize, rate: f64) {
        better(&mut self.cpu_verify, threads, rate);
    }

    fn cpu_hash_candidate(&mut self, threads: usize, rate: f64) {
        better(&mut self.cpu_hash, threads, rate);
    }

    fn add(&mut self, what: &str, rows: usize, threads: usize, time: Duration) {
        let seconds = time.as_secs_f64().max(1e-9);
        let per_s = (rows * threads) as f64 / seconds;
        let against = match what {
            "verify" | "verify warm" => self.cpu_verify,
            "hash" => self.cpu_hash,
            _ => None,
        };
        let ratio = |rate: f64| (rate > 0.0).then(|| super::round(per_s / rate, 3));
        let row = Row {
            what: what.to_owned(),
            rows,
            threads,
            ms: super::round(seconds * 1e3, 3),
            per_s: per_s.round(),
            speedup_vs_cpu_thread: against.and_then(|(one, _)| ratio(one)),
            speedup_vs_cpu: against.and_then(|(_, all)| ratio(all)),
        };
        if self.print {
            println!("{}", line(&row));
        }
        self.rows.push(row);
    }
}

fn heading() -> String {
    format!(
        "{:<11} {:>9} {:>7} {:>11} {:>13} {:>13} {:>13}",
        "what", "rows", "threads", "ms", "a second", "vs 1 thread", "vs all cores"
    )
}

fn line(row: &Row) -> String {
    let ratio = |ratio: Option<f64>| ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}x"));
    format!(
        "{:<11} {:>9} {:>7} {:>11.3} {:>13} {:>13} {:>13}",
        row.what,
        grouped(row.rows as u64),
        if row.what.starts_with("cpu") { row.threads.to_string() } else { "-".to_owned() },
        row.ms,
        grouped(row.per_s as u64),
        ratio(row.speedup_vs_cpu_thread),
        ratio(row.speedup_vs_cpu)
    )
    .trim_end()
    .to_owned()
}

/// The estimate, from a process of its own: RADV reads the chip's name from the environment when it is loaded.
fn estimate_beside() -> anyhow::Result<Value> {
    let exe = std::env::current_exe().context("this program does not know its own path")?;
    let output = Command::new(exe)
        .args(["bench", "gpu", "--offline", ESTIMATE_CHIP, "--json", "-"])
        .env_remove("WEFT_GPU")
        .stdin(Stdio::null())
        .output()
        .context("cannot start the estimate")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}", said.lines().last().unwrap_or("it failed").trim_start_matches("error: "));
    }
    let report: Value = serde_json::from_slice(&output.stdout).context("the estimate is not JSON")?;
    Ok(
        json!({ "chip": report["chip"], "card": report["card"], "best": report["best"], "layouts": report["layouts"] }),
    )
}

fn offline(args: &GpuArgs, name: &str) -> anyhow::Result<ExitCode> {
    let chip = Chip::find(name).ok_or_else(|| {
        let names: Vec<&str> = offline::CHIPS.iter().map(|chip| chip.name).collect();
        usage(format!("--offline: got {name:?}, need one of {}", names.join(", ")))
    })?;
    if std::env::var(offline::FAMILY_VARIABLE).as_deref() != Ok(chip.name) {
        // Once more, with the environment that makes RADV take the chip for present.
        let exe = std::env::current_exe().context("this program does not know its own path")?;
        let status = Command::new(exe)
            .args(std::env::args_os().skip(1))
            .envs(offline::environment(&chip)?)
            .env_remove("WEFT_GPU")
            .status()
            .context("cannot start the compiler's process")?;
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        return Ok(ExitCode::from(code.unwrap_or(super::super::EXIT_FAILED)));
    }
    let chip = Chip {
        simds: args.simds.unwrap_or(chip.simds),
        clock_mhz: args.clock_mhz.unwrap_or(chip.clock_mhz),
        ..chip
    };
    let report = offline::report()?;
    let layouts: Vec<LayoutEstimate> =
        Layout::ALL.into_iter().filter_map(|layout| LayoutEstimate::new(&report, layout, &chip)).collect();
    let best = layouts.iter().max_by(|a, b| a.signatures_per_s.total_cmp(&b.signatures_per_s));
    if !args.json.on_stdout() {
        print_offline(&report, &chip, &layouts)?;
    }
    let kernels: Vec<Value> = report.kernels.iter().map(kernel_json).collect();
    args.json.write(&json!({
        "report": "bench gpu --offline",
        "device": report.device,
        "chip": chip.name,
        "card": chip.card,
        "simds": chip.simds,
        "clock_mhz": chip.clock_mhz,
        "kernels": kernels,
        "layouts": layouts,
        "best": best,
    }))?;
    Ok(ExitCode::SUCCESS)
}

/// What one layout should reach on the card.
#[derive(Debug, Serialize)]
struct LayoutEstimate {
    layout: &'static str,
    cycles_per_signature: f64,
    signatures_per_s: f64,
    /// With resident keys: what that saves, and what remains.
    warm_key_saves_cycles: f64,
    warm_signatures_per_s: f64,
    /// By batch equations that hold, keys not resident and resident.
    equation_cycles_per_signature: f64,
    equation_signatures_per_s: f64,
    warm_equation_signatures_per_s: f64,
}

impl LayoutEstimate {
    fn new(report: &offline::Report, layout: Layout, chip: &Chip) -> Option<Self> {
        let cycles = report.signature_cycles(layout)?;
        let saved = report.warm_key_saves(layout)?;
        let equation = report.equation_cycles(layout)?;
        let cycles_per_s = f64::from(chip.simds) * f64::from(chip.clock_mhz) * 1e6;
        Some(Self {
            layout: layout.name(),
            cycles_per_signature: cycles.round(),
            signatures_per_s: (cycles_per_s / cycles).round(),
            warm_key_saves_cycles: saved.round(),
            warm_signatures_per_s: (cycles_per_s / (cycles - saved)).round(),
            equation_cycles_per_signature: equation.round(),
            equation_signatures_per_s: (cycles_per_s / equation).round(),
            warm_equation_signatures_per_s: (cycles_per_s / (equation - saved)).round(),
        })
    }
}

fn kernel_json(report: &offline::KernelReport) -> Value {
    json!({
        "kernel": report.kernel.name(),
        "layout": report.layout.name(),
        "honest_path": offline::on_the_honest_path(report.kernel),
        "equations": report.kernel.is_of_equations(),
        "waves_per_simd": report.waves,
        "registers": report.registers,
        "spilled_registers": report.spilled,
        "instructions": report.instructions,
        "wave_lanes": report.lanes,
        "cycles_per_wave": report.cycles.as_ref().map(|cycles| cycles.wave.round()),
        "cycles_per_signature": report.cycles.as_ref().map(|cycles| cycles.signature.round()),
        "terms": report.cycles.as_ref().map(|cycles| {
            let term = |(times, cycles): &(f64, f64)| json!({ "times": times, "cycles": cycles });
            cycles.terms.iter().map(term).collect::<Vec<Value>>()
        }),
    })
}

/// How a kernel's cycles a signature come about.
fn write_terms(out: &mut impl std::io::Write, kernel: &offline::KernelReport) -> std::io::Result<()> {
    let Some(cycles) = &kernel.cycles else { return Ok(()) };
    let term = |(times, cycles): &(f64, f64)| format!("{times:.4} x {cycles}").replace(".0000", "");
    let terms: Vec<String> = cycles.terms.iter().map(term).collect();
    let (name, rows) = (kernel.kernel.name(), format!("{:.1}", cycles.rows).replace(".0", ""));
    writeln!(out, "  {name:<10} ({}) / {rows} rows = {:.1}", terms.join(" + "), cycles.signature)
}

fn print_offline(report: &offline::Report, chip: &Chip, layouts: &[LayoutEstimate]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "compiled for {}; nothing was run\n", report.device)?;
    writeln!(
        out,
        "{:<8} {:<12} {:>5} {:>9} {:>7} {:>12} {:>15} {:>13}",
        "layout", "kernel", "waves", "registers", "spilled", "instructions", "cycles a wave", "a signature"
    )?;
    for kernel in &report.kernels {
        let cycles =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| grouped(value.round() as u64));
        writeln!(
            out,
            "{:<8} {:<12} {:>5} {:>9} {:>7} {:>12} {:>15} {:>13}{}",
            kernel.layout.name(),
            kernel.kernel.name(),
            kernel.waves,
            kernel.registers,
            kernel.spilled,
            grouped(kernel.instructions),
            cycles(kernel.cycles.as_ref().map(|cycles| cycles.wave)),
            cycles(kernel.cycles.as_ref().map(|cycles| cycles.signature)),
            match kernel.kernel {
                other if offline::on_the_honest_path(other) => "",
                other if other.is_of_equations() => "  (batch equations)",
                _ => "  (not for honest ids)",
            }
        )?;
    }
    for estimate in layouts {
        writeln!(out, "\n{}: vector cycles of an honest signature", estimate.layout)?;
        let kernels = report.kernels.iter().filter(|kernel| {
            kernel.layout.name() == estimate.layout && offline::on_the_honest_path(kernel.kernel)
        });
        for kernel in kernels {
            write_terms(&mut out, kernel)?;
        }
        writeln!(
            out,
            "  {} SIMDs x {} MHz / {} cycles = {:.2} million signatures/s",
            chip.simds,
            chip.clock_mhz,
            grouped(estimate.cycles_per_signature as u64),
            estimate.signatures_per_s / 1e6
        )?;
        writeln!(
            out,
            "  with resident keys {} cycles fewer, without decode: {:.2} million signatures/s",
            grouped(estimate.warm_key_saves_cycles as u64),
            estimate.warm_signatures_per_s / 1e6
        )?;
        writeln!(
            out,
            "  by batch equations of {} rows that hold (R decoded, too; in place of table, ladder and finish):",
            grouped(offline::EQUATION_ROWS as u64)
        )?;
        let kernels = report
            .kernels
            .iter()
            .filter(|kernel| kernel.layout.name() == estimate.layout && kernel.kernel.is_of_equations());
        for kernel in kernels {
            write_terms(&mut out, kernel)?;
        }
        writeln!(
            out,
            "  {} SIMDs x {} MHz / {} cycles = {:.2} million signatures/s, {:.2} with resident keys; a chain of 251 doublings at the \
             end of each batch, which one lane an equation works on, comes to it",
            chip.simds,
            chip.clock_mhz,
            grouped(estimate.equation_cycles_per_signature as u64),
            estimate.equation_signatures_per_s / 1e6,
            estimate.warm_equation_signatures_per_s / 1e6
        )?;
    }
    if Chip::find(chip.name).is_some_and(|usual| usual == *chip) {
        writeln!(out, "\ncard: {}", chip.card)?;
    }
    writeln!(
        out,
        "A term is: how often x cycles of the vector unit, for a wave of 64 lanes in two passes. Scalar instructions, branches and \
         waits run beside it, memory is taken to be hidden by other waves: an upper bound of the rate."
    )?;
    Ok(())
}
