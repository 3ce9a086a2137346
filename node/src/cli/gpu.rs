//! `weft gpu`: which adapters this machine has, and whether they verify rightly.

use std::io::Write as _;
use std::process::ExitCode;

use serde::Serialize;
use weft_gpu::adapter::{self, Description, Found, Selection};
use weft_gpu::{GpuError, Layout, Method, Options, selftest};

use super::{EXIT_FOUND, JsonArg};
use crate::units::{about_bytes, grouped};
use crate::verifier::{VerifierError, cache_dir};

/// Signatures of the measurement after the self-test: enough to fill a large device once.
const MEASURED_ROWS: usize = 1 << 14;
/// The same on a software adapter, which takes some 50 us each.
const MEASURED_ROWS_SOFTWARE: usize = 1 << 10;

/// The commands under `weft gpu`.
#[derive(clap::Subcommand, Debug)]
pub enum GpuCommand {
    /// List the adapters of this machine, with the index and name that --gpu takes
    #[command(long_about = LIST_LONG_ABOUT)]
    List(ListArgs),
    /// Verify known good and bad signatures on each adapter, in each field layout, and time a batch
    #[command(long_about = SELFTEST_LONG_ABOUT)]
    Selftest(SelftestArgs),
}

/// What `--help` says.
pub const LIST_LONG_ABOUT: &str = "List the adapters of this machine, with the index and name that --gpu takes. Software adapters \
        (a CPU in disguise) are listed too; they are used only with WEFT_GPU_ALLOW_CPU=1.\n\n\
        Examples:\n  \
        weft gpu list\n  \
        weft gpu list --json";

/// What `--help` says.
pub const SELFTEST_LONG_ABOUT: &str = "Verify known signatures on each adapter, in each layout of field elements that it has: honest \
        ones, ones of small order and odd encoding that ZIP-215 accepts, and ones that are wrong in every way there is. Then time \
        one batch, without the guard. A node does the same when it opens an adapter, and keeps the faster layout. The first run \
        compiles the kernels, which takes seconds.\n\n\
        Exits with 1 if any test fails.\n\n\
        Examples:\n  \
        weft gpu selftest\n  \
        weft gpu selftest --gpu 0\n  \
        WEFT_GPU_ALLOW_CPU=1 weft gpu selftest --gpu llvmpipe";

/// Arguments of `weft gpu list`.
#[derive(clap::Args, Debug)]
pub struct ListArgs {
    /// Where the report goes.
    #[command(flatten)]
    pub json: JsonArg,
}

/// Arguments of `weft gpu selftest`.
#[derive(clap::Args, Debug)]
pub struct SelftestArgs {
    /// The adapters to test, by index or part of the name [default: all that may be used]
    #[arg(long, value_name = "ADAPTER", env = "WEFT_GPU")]
    pub gpu: Option<Selection>,
    /// Where the report goes.
    #[command(flatten)]
    pub json: JsonArg,
}

/// An adapter in reports.
#[derive(Debug, Serialize)]
pub struct AdapterReport {
    index: usize,
    name: String,
    kind: &'static str,
    interface: String,
    driver: String,
    /// Software adapters are used only when allowed.
    usable: bool,
    int64: bool,
    binding_bytes_max: u64,
}

impl From<&Description> for AdapterReport {
    fn from(description: &Description) -> Self {
        Self {
            index: description.index,
            name: description.name.clone(),
            kind: description.kind,
            interface: description.backend.clone(),
            driver: description.driver.clone(),
            usable: !description.software || adapter::software_allowed(),
            int64: description.int64,
            binding_bytes_max: description.binding_bytes_max,
        }
    }
}

/// Runs a command under `weft gpu`.
///
/// # Errors
/// If no adapter may be used, for `selftest`; if the report cannot be written.
pub fn run(command: GpuCommand) -> anyhow::Result<ExitCode> {
    match command {
        GpuCommand::List(args) => list(&args),
        GpuCommand::Selftest(args) => self_test(&args),
    }
}

fn list(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let found: Vec<AdapterReport> =
        adapter::list().iter().map(|found| AdapterReport::from(&found.description)).collect();
    args.json.write(&serde_json::json!({ "report": "gpu list", "adapters": found }))?;
    if !args.json.on_stdout() {
        let mut out = std::io::stdout().lock();
        for adapter in &found {
            writeln!(out, "{:>2}  {}", adapter.index, adapter.name)?;
            writeln!(
                out,
                "    {}, {}, driver {}; {} integers in shaders, buffers up to {}",
                adapter.kind,
                adapter.interface,
                adapter.driver,
                if adapter.int64 { "64-bit" } else { "32-bit" },
                about_bytes(adapter.binding_bytes_max)
            )?;
            if !adapter.usable {
                let variable = adapter::ALLOW_CPU_VARIABLE;
                writeln!(out, "    not used: software, slower than the CPU itself; {variable}=1 allows it")?;
            }
        }
        if found.is_empty() {
            writeln!(out, "no GPU adapter: everything runs on the CPU")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One layout of one adapter.
#[derive(Debug, Serialize)]
struct LayoutReport {
    index: usize,
    adapter: String,
    layout: &'static str,
    passed: bool,
    error: Option<String>,
    /// Opening, compiling, and the known signatures.
    opened_ms: f64,
    /// The batch that was timed, and its time.
    signatures: usize,
    batch_ms: f64,
    signatures_per_s: f64,
    /// The same batch by batch equations; none where they cannot be.
    equations_batch_ms: Option<f64>,
}

fn self_test(args: &SelftestArgs) -> anyhow::Result<ExitCode> {
    let adapters = match &args.gpu {
        Some(selection) if !selection.is_auto() => selection.adapters().map_err(VerifierError::from)?,
        _ => usable()?,
    };
    let mut reports = Vec::new();
    for found in &adapters {
        for layout in Layout::ALL {
            if layout.needs_int64() && !found.description.int64 {
                continue;
            }
            let report = test_layout(found, layout);
            if !args.json.on_stdout() {
                println!("{}", line(&report));
            }
            reports.push(report);
        }
    }
    args.json.write(&serde_json::json!({ "report": "gpu selftest", "layouts": reports }))?;
    let passed = reports.iter().all(|report| report.passed) && !reports.is_empty();
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

/// Every adapter that may be used.
fn usable() -> Result<Vec<Found>, VerifierError> {
    let all = adapter::list();
    let software = all.iter().filter(|found| found.description.software).count();
    let usable: Vec<Found> =
        all.into_iter().filter(|found| !found.description.software || adapter::software_allowed()).collect();
    if usable.is_empty() { Err(GpuError::NoAdapter { software }.into()) } else { Ok(usable) }
}

fn test_layout(found: &Found, layout: Layout) -> LayoutReport {
    let options =
        Options { layout: Some(layout), equations: Some(true), cache_dir: cache_dir(), ..Options::default() };
    let started = std::time::Instant::now();
    let opened = selftest::open(found, &options);
    let opened_ms = started.elapsed().as_secs_f64() * 1e3;
    let rows = if found.description.software { MEASURED_ROWS_SOFTWARE } else { MEASURED_ROWS };
    let measured = opened.and_then(|(engine, _)| {
        let (rows, time) = selftest::measure(&engine, Method::Ladder, rows)?;
        let equations = match engine.has_equations() {
            true => Some(selftest::measure(&engine, Method::Equations, rows)?.1),
            false => None,
        };
        Ok((rows, time, equations))
    });
    let (signatures, seconds, equations) =
        measured.as_ref().map_or((0, 0.0, None), |(rows, time, more)| (*rows, time.as_secs_f64(), *more));
    LayoutReport {
        index: found.description.index,
        adapter: found.description.name.clone(),
        layout: layout.name(),
        passed: measured.is_ok(),
        error: measured.err().map(|error| error.to_string()),
        opened_ms,
        signatures,
        batch_ms: seconds * 1e3,
        equations_batch_ms: equations.map(|time| time.as_secs_f64() * 1e3),
        signatures_per_s: if seconds > 0.0 { signatures as f64 / seconds } else { 0.0 },
    }
}

fn line(report: &LayoutReport) -> String {
    let head = format!("{:>2}  {}  {}", report.index, report.adapter, report.layout);
    match &report.error {
        None => format!(
            "{head}  PASS  opened and tested in {:.0} ms; {} signatures in {:.2} ms: {} a second; {}",
            report.opened_ms,
            grouped(report.signatures as u64),
            report.batch_ms,
            grouped(report.signatures_per_s as u64),
            match report.equations_batch_ms {
                Some(ms) => format!("by batch equations {ms:.2} ms"),
                None => "no batch equations: too little memory for a group's lanes".to_owned(),
            }
        ),
        Some(error) => format!("{head}  FAIL  {error}"),
    }
}
