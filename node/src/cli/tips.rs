//! `weft tips`: messages that a new message may name as parents.

use std::process::ExitCode;

use serde::Serialize;
use weft_net::AckLevel;

use super::{Globals, JsonArg, PeerArgs, connect};

/// What `--help` says.
pub const LONG_ABOUT: &str = "Ask a node for tips: messages to name as parents.\n\n\
        Tips are durable messages that few others name yet. A new ledger has two: the roots of its genesis.\n\n\
        Example:\n  weft tips --count 4";

/// Arguments of `weft tips`.
#[derive(clap::Args, Debug)]
pub struct TipsArgs {
    /// How many, at most
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    count: u16,
    #[command(flatten)]
    peer: PeerArgs,
    #[command(flatten)]
    json: JsonArg,
}

#[derive(Serialize)]
struct TipsReport {
    tips: Vec<String>,
}

/// Runs `weft tips`.
///
/// # Errors
/// If the node cannot be reached or does not answer.
pub fn run(args: TipsArgs, _globals: &Globals) -> anyhow::Result<ExitCode> {
    let tips = connect::block_on(&args.peer, async {
        let link = connect::open(&args.peer, None, AckLevel::Durable).await?;
        let tips = link.session.tips(args.count).await?;
        link.client.close().await;
        Ok(tips)
    })?;
    let report = TipsReport { tips: tips.iter().map(ToString::to_string).collect() };
    args.json.write(&report)?;
    if !args.json.on_stdout() {
        report.tips.iter().for_each(|tip| println!("{tip}"));
    }
    Ok(ExitCode::SUCCESS)
}
