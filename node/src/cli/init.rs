//! `weft init`: a new ledger and the key of its one node.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;

use super::{Globals, JsonArg, usage};
use crate::node::init_ledger;

/// What `--help` says.
pub const LONG_ABOUT: &str = "Create a data directory: a new ledger's genesis, and this node's key.\n\n\
        The genesis names the ledger, its limits and its committee (this node alone). The first four bytes of its id are the \
        network that every message carries. The node's key is a file of mode 0600; who has it can extend the lane.\n\n\
        Examples:\n  \
        weft init --data ./ledger\n  \
        weft init --data /var/lib/weft --ledger-name 'meters north'";

/// Arguments of `weft init`.
#[derive(clap::Args, Debug)]
pub struct InitArgs {
    /// Data directory; made if missing, must not hold a ledger yet
    #[arg(long, value_name = "DIR", env = "WEFT_DATA", default_value = "weft-data")]
    data: PathBuf,
    /// The ledger's name, 1 to 64 bytes: part of the genesis, and so of the network's identity
    #[arg(long, value_name = "NAME", default_value = "weft")]
    ledger_name: String,
    #[command(flatten)]
    json: JsonArg,
}

#[derive(Serialize)]
struct InitReport {
    data: PathBuf,
    ledger_name: String,
    network: String,
    genesis: String,
    node_key: String,
}

/// Runs `weft init`.
///
/// # Errors
/// If the directory holds a ledger already, or cannot be written.
pub fn run(args: InitArgs, _globals: &Globals) -> anyhow::Result<ExitCode> {
    if args.ledger_name.is_empty() || args.ledger_name.len() > 64 {
        return Err(usage(format!("--ledger-name: got {} bytes, need 1 to 64", args.ledger_name.len())));
    }
    let genesis = init_ledger(&args.data, &args.ledger_name)?;
    let report = InitReport {
        network: genesis.network()?.to_string(),
        genesis: genesis.id()?.to_string(),
        node_key: genesis.committee[0].key.to_string(),
        data: args.data,
        ledger_name: args.ledger_name,
    };
    args.json.write(&report)?;
    if !args.json.on_stdout() {
        println!("ledger \"{}\", network {}", report.ledger_name, report.network);
        println!("  genesis    {}", report.genesis);
        println!("  node key   {}", report.node_key);
        println!("  directory  {}", report.data.display());
        println!("next: weft node --data {}", report.data.display());
    }
    Ok(ExitCode::SUCCESS)
}
