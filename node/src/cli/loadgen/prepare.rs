//! `weft loadgen prepare FILE PROFILE`: signs the messages of a run before it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use weft_loadgen::RunConfig;
use weft_loadgen::pool::{Pool, prepare};
use weft_loadgen::report::group;

use super::run::PlayArgs;
use super::stop_signal;
use super::target::TargetArgs;
use crate::cli::traffic;

/// What `--help` says.
pub const LONG_ABOUT: &str = "Sign the messages of a run before it, into a file that the run maps.\n\n\
        Take the flags of the run that will use it: a pool serves exactly that run (`weft loadgen run ... --pool FILE`). The target \
        tells which ledger the messages are for. They carry the clock of now: a ledger takes them while its limit for old clocks \
        allows, and each of them once.\n\n\
        Example:\n  \
        weft loadgen prepare pool.bin world-20b --target 127.0.0.1:7272 --scale 1e-3 --seconds 60\n  \
        weft loadgen run world-20b --target 127.0.0.1:7272 --scale 1e-3 --seconds 60 --pool pool.bin";

/// Arguments of `weft loadgen prepare`.
#[derive(clap::Args, Debug)]
pub struct PrepareArgs {
    /// The file to write
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    play: PlayArgs,
    #[command(flatten)]
    target: TargetArgs,
    /// Messages, at most; a closed loop needs it
    #[arg(long, value_name = "COUNT", default_value_t = 4_000_000)]
    messages: u64,
}

/// Runs `weft loadgen prepare`.
///
/// # Errors
/// If the target cannot be reached or the file cannot be written.
pub fn run(args: &PrepareArgs) -> anyhow::Result<ExitCode> {
    let (target, _) = args.target.resolve()?;
    let mut config = args.play.run_config(RunConfig::new(target))?;
    config.messages_max = args.messages;
    let stop = stop_signal()?;
    let begun = Instant::now();
    let mut said = Instant::now();
    let messages = prepare(&config, &args.file, &stop, &mut |messages| {
        if said.elapsed() >= Duration::from_secs(1) {
            said = Instant::now();
            traffic::line_of_progress(&format!("{} messages signed", group(messages)));
        }
    })?;
    traffic::end_progress();
    let pool = Pool::open(&args.file)?;
    println!(
        "{}: {} messages in {:.1} s, for network {}",
        args.file.display(),
        group(messages),
        begun.elapsed().as_secs_f64(),
        pool.network()
    );
    println!("for {}", pool.description());
    Ok(ExitCode::SUCCESS)
}
