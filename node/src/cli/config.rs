//! `weft config`: the effective settings of a node and where each one comes from.

use std::io::Write as _;
use std::process::ExitCode;

use super::{Globals, JsonArg};
use crate::config::{self, ConfigArgs};

/// What `--help` says.
pub const LONG_ABOUT: &str = "Print the effective settings of a node as TOML; the comment on each line names its source.\n\n\
        Layers, later ones win: defaults, a file (--config FILE, or weft.toml in the data directory), environment \
        variables WEFT_*, flags. Takes the same flags as `weft node`, so the way to see what a command line would \
        do is to write `config` in place of `node`. The output is itself a valid settings file.\n\n\
        Examples:\n  \
        weft config --data ./ledger\n  \
        WEFT_ACK_LEVEL=written weft config --batch-linger-us 5ms\n  \
        weft config > weft.toml          write all defaults to a file\n  \
        weft config --template           the same, commented out, with the meaning of each key";

/// Arguments of `weft config`.
#[derive(clap::Args, Debug)]
pub struct ConfigCommandArgs {
    /// Print a settings file with every key explained and commented out, instead of the effective settings
    #[arg(long, conflicts_with = "json")]
    pub template: bool,
    /// Where the report goes.
    #[command(flatten)]
    pub json: JsonArg,
    /// The node's settings.
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// Runs `weft config`.
///
/// # Errors
/// A usage error for a setting that cannot be used.
pub fn run(args: ConfigCommandArgs, globals: &Globals) -> anyhow::Result<ExitCode> {
    let mut stdout = std::io::stdout().lock();
    if args.template {
        stdout.write_all(config::template().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let loaded = config::load(&args.config, globals)?;
    args.json.write(&loaded.to_json())?;
    if !args.json.on_stdout() {
        stdout.write_all(loaded.to_toml().as_bytes())?;
    }
    for (name, meant) in near_misses() {
        eprintln!("warning: environment {name} is no setting; did you mean {meant}?");
    }
    Ok(ExitCode::SUCCESS)
}

/// Environment variables that look like a mistyped setting.
fn near_misses() -> Vec<(String, &'static str)> {
    std::env::vars_os()
        .filter_map(|(name, _)| name.into_string().ok())
        .filter(|name| name.starts_with("WEFT_") && !config::KEYS.iter().any(|key| key.env == name))
        .filter_map(|name| {
            // Nearer than for the file: other WEFT_ variables exist that are no settings.
            let key = config::KEYS.iter().find(|key| crate::units::edit_distance(key.env, &name) <= 2)?;
            (name != "WEFT_TO").then_some((name, key.env))
        })
        .collect()
}
