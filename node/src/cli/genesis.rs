//! `weft genesis`: what founds a ledger of several nodes.
//!
//! Owns the text forms of validators, ingest nodes and balances on the command line. The file and its limits are
//! `weft_core::genesis`'s. Invariant: a file is never overwritten; what is written has been validated.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;
use weft_core::genesis::GENESIS_BYTES_MAX;
use weft_core::{Balance, Genesis, IngestNode, NodeKey, Validator};

use super::{JsonArg, usage};

/// The commands under `weft genesis`.
#[derive(clap::Subcommand, Debug)]
pub enum GenesisCommand {
    /// Write a genesis file
    #[command(
        long_about = "Write a genesis file: the ledger's name, its committee, and what accounts begin with.\n\n\
            Each operator makes a node key (`weft key new node.key`) and gives its public key. One of them writes the genesis; all \
            make their data directories from the same file (`weft init --genesis FILE --key node.key`).\n\n\
            Example:\n  \
            weft genesis new --name 'meters north' --validator KEY@north --validator KEY=2@south --balance KEY=1000 -o genesis.bin"
    )]
    New(GenesisNewArgs),
    /// Show what a genesis file says
    Show(GenesisShowArgs),
}

/// Arguments of `weft genesis new`.
#[derive(clap::Args, Debug)]
pub struct GenesisNewArgs {
    /// The ledger's name, 1 to 64 bytes
    #[arg(long, value_name = "NAME", default_value = "weft")]
    name: String,
    /// A validator: its public key, its weight (1 unless said), its name. In the order of their lanes; once for each
    #[arg(long = "validator", value_name = "KEY[=WEIGHT][@NAME]", required = true)]
    validators: Vec<String>,
    /// A node with a lane and no vote
    #[arg(long = "ingest", value_name = "KEY[@NAME]")]
    ingest: Vec<String>,
    /// What an account begins with
    #[arg(long = "balance", value_name = "KEY=AMOUNT")]
    balances: Vec<String>,
    /// The file to write
    #[arg(short, long, value_name = "FILE", default_value = "genesis.bin")]
    output: PathBuf,
    #[command(flatten)]
    json: JsonArg,
}

/// Arguments of `weft genesis show`.
#[derive(clap::Args, Debug)]
pub struct GenesisShowArgs {
    /// The genesis file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    json: JsonArg,
}

/// Runs `weft genesis new` or `weft genesis show`.
///
/// # Errors
/// If a key, weight or name cannot be used, the file exists (new), or cannot be read or written.
pub fn run(command: GenesisCommand) -> anyhow::Result<ExitCode> {
    let (genesis, file, json) = match command {
        GenesisCommand::New(args) => {
            let genesis = genesis_of(&args)?;
            write_new(&args.output, &genesis)?;
            (genesis, args.output, args.json)
        }
        GenesisCommand::Show(args) => (read(&args.file)?, args.file, args.json),
    };
    show(&genesis, &file, &json)?;
    Ok(ExitCode::SUCCESS)
}

/// Splits `KEY[=NUMBER][@NAME]`.
fn split(text: &str) -> (&str, Option<&str>, &str) {
    let (front, name) = text.split_once('@').unwrap_or((text, ""));
    match front.split_once('=') {
        Some((key, number)) => (key, Some(number), name),
        None => (front, None, name),
    }
}

fn node_key(text: &str, flag: &str) -> anyhow::Result<NodeKey> {
    text.parse().map_err(|error| usage(format!("{flag}: {text:?} is no public key: {error}")))
}

fn genesis_of(args: &GenesisNewArgs) -> anyhow::Result<Genesis> {
    let mut committee = Vec::new();
    for text in &args.validators {
        let (key, weight, name) = split(text);
        let weight = weight
            .map_or(Ok(1), str::parse)
            .map_err(|error| usage(format!("--validator {text}: weight: {error}")))?;
        committee.push(Validator { key: node_key(key, "--validator")?, weight, name: name.to_owned() });
    }
    let mut ingest = Vec::new();
    for text in &args.ingest {
        let (key, number, name) = split(text);
        if number.is_some() {
            return Err(usage(format!("--ingest {text}: a node without a vote has no weight")));
        }
        ingest.push(IngestNode { key: node_key(key, "--ingest")?, name: name.to_owned() });
    }
    let balances = balances(&args.balances)?;
    let first = committee.first().map(|validator| validator.key);
    let single = Genesis::single(
        &args.name,
        crate::pipeline::verify::unix_now_us(),
        first.unwrap_or(NodeKey::from([0; 32])),
    );
    let genesis = Genesis { committee, ingest, balances, ..single };
    genesis.validate().map_err(|error| usage(error.to_string()))?;
    Ok(genesis)
}

/// Balances from `KEY=AMOUNT`, in rising order of their accounts.
///
/// # Errors
/// A usage error for one that is not of this form, an account that is there twice, or more money than a balance can hold.
pub fn balances(texts: &[String]) -> anyhow::Result<Vec<Balance>> {
    let parse = |text: &String| {
        parse_balance(text).map_err(|error| usage(format!("--balance {text}: need KEY=AMOUNT: {error}")))
    };
    let mut balances = texts.iter().map(parse).collect::<anyhow::Result<Vec<Balance>>>()?;
    balances.sort_unstable_by_key(|balance| balance.account);
    if let Some(pair) = balances.windows(2).find(|pair| pair[0].account == pair[1].account) {
        return Err(usage(format!("--balance: {} is there twice", pair[0].account)));
    }
    if balances.iter().try_fold(0u64, |sum, balance| sum.checked_add(balance.amount)).is_none() {
        return Err(usage("--balance: more than 2^64 - 1 units in all"));
    }
    Ok(balances)
}

fn parse_balance(text: &str) -> Result<Balance, String> {
    let (account, amount) = text.split_once('=').ok_or("there is no =")?;
    let account = account.parse().map_err(|error| format!("{account}: {error}"))?;
    match amount.parse() {
        Ok(0) => Err("an account begins with something, or is left out".to_owned()),
        Ok(amount) => Ok(Balance { account, amount }),
        Err(error) => Err(format!("{amount}: {error}")),
    }
}

/// Reads a genesis file.
///
/// # Errors
/// If it cannot be read (an error) or is none (a usage error).
pub fn read(file: &Path) -> anyhow::Result<Genesis> {
    let open = std::fs::File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
    let mut bytes = Vec::new();
    open.take(GENESIS_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", file.display()))?;
    Genesis::decode(&bytes).map_err(|error| usage(format!("{}: {error}", file.display())))
}

/// Writes a genesis file that must not exist, and syncs it.
///
/// # Errors
/// If it exists (a usage error) or cannot be written.
pub fn write_new(file: &Path, genesis: &Genesis) -> anyhow::Result<()> {
    let bytes = genesis.encode().map_err(|error| usage(error.to_string()))?;
    let mut out = match OpenOptions::new().write(true).create_new(true).open(file) {
        Ok(out) => out,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(usage(format!("{} exists: a genesis is never overwritten", file.display())));
        }
        Err(error) => return Err(error).with_context(|| format!("cannot create {}", file.display())),
    };
    out.write_all(&bytes)
        .and_then(|()| out.sync_all())
        .with_context(|| format!("cannot write {}", file.display()))
}

fn show(genesis: &Genesis, file: &Path, json: &JsonArg) -> anyhow::Result<()> {
    let validators: Vec<_> = genesis
        .committee
        .iter()
        .map(|validator| json!({ "key": validator.key.to_string(), "weight": validator.weight, "name": validator.name }))
        .collect();
    let ingest: Vec<_> =
        genesis.ingest.iter().map(|node| json!({ "key": node.key.to_string(), "name": node.name })).collect();
    let supply: u64 = genesis.balances.iter().map(|balance| balance.amount).sum();
    json.write(&json!({
        "file": file.to_string_lossy(),
        "name": genesis.name,
        "network": genesis.network()?.to_string(),
        "genesis": genesis.id()?.to_string(),
        "validators": validators,
        "ingest": ingest,
        "accounts": genesis.balances.len(),
        "supply": supply,
    }))?;
    if json.on_stdout() {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "ledger \"{}\", network {}", genesis.name, genesis.network()?)?;
    writeln!(out, "  genesis    {}", genesis.id()?)?;
    writeln!(out, "  file       {}", file.display())?;
    for (lane, validator) in genesis.committee.iter().enumerate() {
        writeln!(out, "  lane {lane:<5} {}  weight {}  {}", validator.key, validator.weight, validator.name)?;
    }
    for (lane, node) in (genesis.committee.len()..).zip(&genesis.ingest) {
        writeln!(out, "  lane {lane:<5} {}  no vote   {}", node.key, node.name)?;
    }
    if !genesis.balances.is_empty() {
        writeln!(out, "  {} accounts with {supply} in all", genesis.balances.len())?;
    }
    Ok(())
}
