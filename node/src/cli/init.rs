//! `weft init`: a new ledger and the key of its one node.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::Serialize;
use weft_core::Balance;

use super::{Globals, JsonArg, usage};
use crate::node::init_ledger_with;

/// What `--help` says.
pub const LONG_ABOUT: &str = "Create a data directory: a new ledger's genesis, and this node's key.\n\n\
        The genesis names the ledger, its limits and its committee (this node alone). The first four bytes of its id are the \
        network that every message carries. The node's key is a file of mode 0600; who has it can extend the lane.\n\n\
        With --balance accounts begin with money: all that there ever is. An account is a device's public key, as `weft key new` prints \
        it. Without any balance nobody can pay.\n\n\
        Examples:\n  \
        weft init --data ./ledger\n  \
        weft init --data /var/lib/weft --ledger-name 'meters north'\n  \
        weft init --data ./ledger --balance $(weft key show alice.key)=1000";

/// Arguments of `weft init`.
#[derive(clap::Args, Debug)]
pub struct InitArgs {
    /// Data directory; made if missing, must not hold a ledger yet
    #[arg(long, value_name = "DIR", env = "WEFT_DATA", default_value = "weft-data")]
    data: PathBuf,
    /// The ledger's name, 1 to 64 bytes: part of the genesis, and so of the network's identity
    #[arg(long, value_name = "NAME", default_value = "weft")]
    ledger_name: String,
    /// What an account has at the start: its public key (64 hex digits) and whole units, not 0; may be repeated
    #[arg(long = "balance", value_name = "KEY=AMOUNT", value_parser = parse_balance)]
    balances: Vec<Balance>,
    #[command(flatten)]
    json: JsonArg,
}

/// Parses `KEY=AMOUNT`.
///
/// # Errors
/// What is wrong with it.
pub fn parse_balance(text: &str) -> Result<Balance, String> {
    let (account, amount) = text.split_once('=').ok_or("write KEY=AMOUNT")?;
    let account = account.parse().map_err(|error| format!("{account}: {error}"))?;
    match amount.parse() {
        Ok(0) => Err("an account begins with something, or is left out".to_owned()),
        Ok(amount) => Ok(Balance { account, amount }),
        Err(error) => Err(format!("{amount}: {error}")),
    }
}

#[derive(Serialize)]
struct InitReport {
    data: PathBuf,
    ledger_name: String,
    network: String,
    genesis: String,
    node_key: String,
    accounts: usize,
    supply: u64,
}

/// Runs `weft init`.
///
/// # Errors
/// If the directory holds a ledger already, or cannot be written.
pub fn run(args: InitArgs, _globals: &Globals) -> anyhow::Result<ExitCode> {
    if args.ledger_name.is_empty() || args.ledger_name.len() > 64 {
        return Err(usage(format!("--ledger-name: got {} bytes, need 1 to 64", args.ledger_name.len())));
    }
    let mut balances = args.balances;
    balances.sort_unstable_by_key(|balance| balance.account);
    if let Some(pair) = balances.windows(2).find(|pair| pair[0].account == pair[1].account) {
        return Err(usage(format!("--balance: {} is there twice", pair[0].account)));
    }
    let supply = balances.iter().try_fold(0u64, |sum, balance| sum.checked_add(balance.amount));
    let Some(supply) = supply else { return Err(usage("--balance: more than 2^64 - 1 units in all")) };
    let accounts = balances.len();
    let genesis = init_ledger_with(&args.data, &args.ledger_name, balances)?;
    let report = InitReport {
        network: genesis.network()?.to_string(),
        genesis: genesis.id()?.to_string(),
        node_key: genesis.committee[0].key.to_string(),
        accounts,
        supply,
        data: args.data,
        ledger_name: args.ledger_name,
    };
    args.json.write(&report)?;
    if !args.json.on_stdout() {
        println!("ledger \"{}\", network {}", report.ledger_name, report.network);
        println!("  genesis    {}", report.genesis);
        println!("  node key   {}", report.node_key);
        println!("  directory  {}", report.data.display());
        if report.accounts > 0 {
            let plural = if report.accounts == 1 { "" } else { "s" };
            println!("  money      {} units on {} account{plural}", report.supply, report.accounts);
        }
        println!("next: weft node --data {}", report.data.display());
    }
    Ok(ExitCode::SUCCESS)
}
