//! `weft account` and `weft history`: what accounts have, and what was paid.
//!
//! Owns the commands and their words. Amounts are whole units; what a unit is, the ledger's founders say.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use weft_core::DeviceKey;
use weft_net::{AccountStanding, AccountState, AckLevel, Answer, History, Payment, Query};

use super::{EXIT_FOUND, JsonArg, PeerArgs, connect, receipt, usage};

/// Payments asked for at once.
const PAGE: u16 = 256;

/// The commands under `weft account`.
#[derive(clap::Subcommand, Debug)]
pub enum AccountCommand {
    /// Print what an account has, its next sequence and its lock
    #[command(long_about = SHOW_ABOUT)]
    Show(ShowArgs),
}

const SHOW_ABOUT: &str = "Print what an account has, by the final operations that the node has seen.\n\n\
    An account is a device's key; it exists once it was paid something. Its operations are numbered without gaps: the next one must have \
    the sequence shown. `locked` names an operation that this validator has accepted and that is not in the ledger yet; while it is there, \
    no other operation for that sequence is accepted. `frozen` means that the owner signed two operations for its next sequence: it may \
    have stopped itself, and nobody else.\n\n\
    Exits with 1 if the account is frozen.\n\n\
    Examples:\n  \
    weft account show 3b6a...29\n  \
    weft account show alice.key --json";

/// What `weft history --help` says.
pub const HISTORY_ABOUT: &str = "Print the payments of an account that are in the ledger, the newest first; or with --between those between \
    two accounts. Everything printed is final. The order is that in which the node saw them become final: each account's payments are in \
    its own order everywhere, those of different accounts may come in another order at another node.\n\n\
    Examples:\n  \
    weft history 3b6a...29 --count 20\n  \
    weft history --between alice.key 9fd2...51";

/// Arguments of `weft account show`.
#[derive(clap::Args, Debug)]
pub struct ShowArgs {
    /// The account: 64 hex digits, or a key file
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    peer: PeerArgs,
    #[command(flatten)]
    json: JsonArg,
}

/// Arguments of `weft history`.
#[derive(clap::Args, Debug)]
pub struct HistoryArgs {
    /// The account: 64 hex digits, or a key file
    #[arg(value_name = "KEY", required_unless_present = "between")]
    key: Option<String>,
    /// Payments between these two accounts, in both directions
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with = "key")]
    between: Option<Vec<String>>,
    /// How many, at most
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    count: usize,
    #[command(flatten)]
    peer: PeerArgs,
    #[command(flatten)]
    json: JsonArg,
}

/// An account by its public key in hex, or by a key file.
///
/// # Errors
/// A usage error that names both ways.
pub fn parse_account(text: &str) -> anyhow::Result<DeviceKey> {
    if let Ok(key) = text.parse() {
        return Ok(key);
    }
    if Path::new(text).is_file() {
        return Ok(super::key::read_signer(Path::new(text))?.public());
    }
    Err(usage(format!("{text:?} is neither a key of 64 hex digits nor a key file")))
}

/// The name of an account's state.
#[must_use]
pub fn standing_name(standing: AccountStanding) -> &'static str {
    match standing {
        AccountStanding::Unknown => "unknown",
        AccountStanding::Open => "open",
        AccountStanding::Frozen => "frozen",
    }
}

#[derive(Serialize)]
struct AccountReport {
    account: String,
    state: &'static str,
    balance: u64,
    next_sequence: u64,
    locked: Option<LockReport>,
}

#[derive(Serialize)]
struct LockReport {
    sequence: u64,
    operation: String,
}

/// Runs `weft account show`.
///
/// # Errors
/// If the key is none, or the node cannot be reached.
pub fn run(command: AccountCommand) -> anyhow::Result<ExitCode> {
    let AccountCommand::Show(args) = command;
    let account = parse_account(&args.key)?;
    let state = connect::block_on(&args.peer, async {
        let link = connect::open(&args.peer, None, AckLevel::Durable).await?;
        let state = state_of(&link.session, account).await;
        link.client.close().await;
        state
    })?;
    let report = AccountReport {
        account: account.to_string(),
        state: standing_name(state.standing),
        balance: state.balance,
        next_sequence: state.next,
        locked: state.lock.map(|(sequence, hash)| LockReport { sequence, operation: hex::encode(hash) }),
    };
    args.json.write(&report)?;
    if !args.json.on_stdout() {
        println!("account   {}", report.account);
        println!("  state     {}", report.state);
        println!("  balance   {}", report.balance);
        println!("  sequence  {} comes next", report.next_sequence);
        if let Some(lock) = &report.locked {
            println!("  locked    to operation {} for sequence {}", lock.operation, lock.sequence);
        }
        if state.standing == AccountStanding::Frozen {
            println!(
                "  its owner signed two operations for sequence {}: neither may ever be final",
                state.next
            );
        }
    }
    let frozen = state.standing == AccountStanding::Frozen;
    Ok(if frozen { ExitCode::from(EXIT_FOUND) } else { ExitCode::SUCCESS })
}

/// What `account` has.
///
/// # Errors
/// If the node refuses or answers something else.
pub async fn state_of(session: &weft_net::Session, account: DeviceKey) -> anyhow::Result<AccountState> {
    match receipt::ask(session, Query::Account { account }).await? {
        Answer::Account(state) => Ok(state),
        _ => anyhow::bail!("the node answered something else"),
    }
}

/// One page of an account's history.
///
/// # Errors
/// If the node refuses or answers something else.
pub async fn history_of(
    session: &weft_net::Session,
    account: DeviceKey,
    other: Option<DeviceKey>,
    cursor: u64,
    count: u16,
) -> anyhow::Result<History> {
    match receipt::ask(session, Query::History { account, other, cursor, count }).await? {
        Answer::History(history) => Ok(history),
        _ => anyhow::bail!("the node answered something else"),
    }
}

#[derive(Serialize)]
struct PaymentReport {
    id: String,
    place: String,
    from: String,
    to: String,
    sequence: u64,
    amount: u64,
    issued_at_us: u64,
    memo: String,
}

impl PaymentReport {
    fn new(payment: &Payment) -> Self {
        let memo = match std::str::from_utf8(&payment.memo) {
            Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
            _ => hex::encode(&payment.memo),
        };
        Self {
            id: payment.id.to_string(),
            place: payment.place.to_string(),
            from: payment.from.to_string(),
            to: payment.to.to_string(),
            sequence: payment.sequence,
            amount: payment.amount,
            issued_at_us: payment.issued_at_us,
            memo,
        }
    }
}

/// Runs `weft history`.
///
/// # Errors
/// If a key is none, or the node cannot be reached.
pub fn history(args: HistoryArgs) -> anyhow::Result<ExitCode> {
    let (account, other) = match (&args.key, args.between.as_deref()) {
        (_, Some([first, second])) => (parse_account(first)?, Some(parse_account(second)?)),
        (Some(key), _) => (parse_account(key)?, None),
        _ => return Err(usage("name an account, or two with --between")),
    };
    let payments = connect::block_on(&args.peer, async {
        let link = connect::open(&args.peer, None, AckLevel::Durable).await?;
        let mut payments = Vec::new();
        let mut cursor = 0;
        while payments.len() < args.count {
            let count = (args.count - payments.len()).min(PAGE.into()) as u16;
            let page = history_of(&link.session, account, other, cursor, count).await?;
            payments.extend(page.payments.iter().map(PaymentReport::new));
            cursor = page.next_cursor;
            if cursor == 0 {
                break;
            }
        }
        link.client.close().await;
        Ok(payments)
    })?;
    args.json.write(&payments)?;
    if !args.json.on_stdout() {
        let account = account.to_string();
        for payment in &payments {
            let (sign, word, other) = if payment.from == account {
                ('-', "to  ", &payment.to)
            } else {
                ('+', "from", &payment.from)
            };
            let memo = if payment.memo.is_empty() { String::new() } else { format!("  {:?}", payment.memo) };
            println!("{sign}{:<12} {word} {other}  sequence {}{memo}", payment.amount, payment.sequence);
            println!("              in   {} at {}", payment.id, payment.place);
        }
        if payments.is_empty() {
            eprintln!("no payments");
        }
    }
    Ok(ExitCode::SUCCESS)
}
