//! `weft init`: a data directory, for a new ledger or for one that has a genesis.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use weft_core::DeviceSigner;
use weft_storage::DataDir;

use super::{Globals, JsonArg, genesis, key, usage};
use crate::node::{StartError, init_ledger_with};

/// What `--help` says.
pub const LONG_ABOUT: &str = "Create a data directory: a new ledger's genesis, or a given one, and this node's key.\n\n\
        Without --genesis the ledger is new and its committee is this node alone. With --genesis this node joins the ledger of that file \
        (`weft genesis new`), with the key of --key, which the genesis must name. The first four bytes of the genesis's id are the \
        network that every message carries. The node's key is a file of mode 0600; who has it can extend the lane: one directory at a \
        time may use it, and it is never restored from a copy.\n\n\
        With --balance accounts begin with money: all that there ever is. An account is a device's public key, as `weft key new` prints \
        it. Without any balance nobody can pay.\n\n\
        Examples:\n  \
        weft init --data ./ledger\n  \
        weft init --data /var/lib/weft --ledger-name 'meters north'\n  \
        weft init --data ./ledger --balance $(weft key show alice.key)=1000\n  \
        weft init --data /var/lib/weft --genesis genesis.bin --key node.key";

/// Arguments of `weft init`.
#[derive(clap::Args, Debug)]
pub struct InitArgs {
    /// Data directory; made if missing, must not hold a ledger yet
    #[arg(long, value_name = "DIR", env = "WEFT_DATA", default_value = "weft-data")]
    data: PathBuf,
    /// The ledger's name, 1 to 64 bytes: part of the genesis, and so of the network's identity
    #[arg(long, value_name = "NAME", default_value = "weft", conflicts_with = "genesis")]
    ledger_name: String,
    /// What an account has at the start: its public key (64 hex digits) and whole units, not 0; may be repeated
    #[arg(long = "balance", value_name = "KEY=AMOUNT", conflicts_with = "genesis")]
    balances: Vec<String>,
    /// Join the ledger of this genesis file
    #[arg(long, value_name = "FILE", requires = "key")]
    genesis: Option<PathBuf>,
    /// This node's key, as `weft key new` makes it; its seed is copied into the data directory
    #[arg(long, value_name = "FILE", requires = "genesis")]
    key: Option<PathBuf>,
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
    lane: usize,
    nodes: usize,
    accounts: usize,
    supply: u64,
}

/// Runs `weft init`.
///
/// # Errors
/// If the directory holds a ledger already, or cannot be written; if the genesis does not name the key.
pub fn run(args: InitArgs, _globals: &Globals) -> anyhow::Result<ExitCode> {
    if args.ledger_name.is_empty() || args.ledger_name.len() > 64 {
        return Err(usage(format!("--ledger-name: got {} bytes, need 1 to 64", args.ledger_name.len())));
    }
    let balances = genesis::balances(&args.balances)?;
    if let Some(nothing) = balances.iter().find(|balance| balance.amount == 0) {
        return Err(usage(format!(
            "--balance {}=0: an account begins with something, or is left out",
            nothing.account
        )));
    }
    if let Some(pair) = balances.windows(2).find(|pair| pair[0].account == pair[1].account) {
        return Err(usage(format!("--balance: {} is there twice", pair[0].account)));
    }
    let (genesis, node_key) = match (&args.genesis, &args.key) {
        (Some(file), Some(key_file)) => {
            let (genesis, seed) = (genesis::read(file)?, key::read_seed(key_file)?);
            let public = DeviceSigner::from_seed(seed).public();
            if !genesis.node_keys().any(|known| known == public) {
                let (key_file, file) = (key_file.display(), file.display());
                return Err(usage(format!("{key_file}: its public key {public} is no node of {file}")));
            }
            DataDir::init(&args.data, &genesis, &seed).map_err(StartError::from)?;
            (genesis, public)
        }
        _ => {
            let genesis = init_ledger_with(&args.data, &args.ledger_name, balances)?;
            let key = genesis.committee[0].key;
            (genesis, key)
        }
    };
    let report = InitReport {
        network: genesis.network()?.to_string(),
        genesis: genesis.id()?.to_string(),
        node_key: node_key.to_string(),
        accounts: genesis.balances.len(),
        // A valid genesis keeps the sum in 64 bits.
        supply: genesis.balances.iter().map(|balance| balance.amount).sum(),
        data: args.data,
        ledger_name: genesis.name.clone(),
        lane: genesis.node_keys().position(|known| known == node_key).unwrap_or_default(),
        nodes: genesis.node_keys().count(),
    };
    args.json.write(&report)?;
    if !args.json.on_stdout() {
        println!("ledger \"{}\", network {}", report.ledger_name, report.network);
        println!("  genesis    {}", report.genesis);
        println!("  node key   {}", report.node_key);
        println!("  lane       {} of {}", report.lane, report.nodes);
        println!("  directory  {}", report.data.display());
        if report.accounts > 0 {
            let plural = if report.accounts == 1 { "" } else { "s" };
            println!("  money      {} units on {} account{plural}", report.supply, report.accounts);
        }
        let peers = if report.nodes > 1 { " --peer-listen ADDR:PORT --peers KEY@HOST:PORT,..." } else { "" };
        println!("next: weft node --data {}{peers}", report.data.display());
    }
    Ok(ExitCode::SUCCESS)
}
