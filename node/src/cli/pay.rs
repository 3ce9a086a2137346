//! `weft send --to KEY --amount N`: a payment.
//!
//! Owns the order in which a payment is made, so that no key ever signs two operations for one sequence, which would stop its account:
//! what is about to be signed is written beside the key file and synced first (`KEYFILE.paid`), and until the ledger has that sequence
//! nothing but the same payment is signed again, with fresh parents. The same payment twice is one operation and moves money once.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use serde::Serialize;
use weft_core::confirm::{OperationHash, Transfer};
use weft_core::{DeviceKey, DeviceSigner, Draft, MessageId, MessageView, NetworkId, PayloadKind, Reason};
use weft_net::{AccountStanding, AckLevel, Session};

use super::account::{history_of, state_of};
use super::{EXIT_FOUND, JsonArg, PeerArgs, connect, usage};
use crate::pipeline::verify::unix_now_us;

/// Longest file beside a key: network, sequence and payload in text.
const PAID_BYTES_MAX: u64 = 2_048;

/// How often the ledger is asked whether the payment has entered it: about twice a round.
const POLL: Duration = Duration::from_millis(50);

/// Payments looked at to find this one: those that the account made or got since.
const LOOKED_AT: u16 = 64;

/// What to pay.
#[derive(Debug)]
pub struct Payment<'a> {
    /// Who pays.
    pub key: &'a Path,
    /// Who is paid.
    pub to: DeviceKey,
    /// Units.
    pub amount: u64,
    /// A few bytes for people.
    pub memo: &'a str,
    /// What to wait for.
    pub level: AckLevel,
}

#[derive(Serialize)]
struct PayReport {
    id: Option<String>,
    from: String,
    to: String,
    amount: u64,
    account_sequence: u64,
    accepted: bool,
    in_ledger: bool,
    status: String,
    balance: Option<u64>,
}

/// The last payment that a key has signed.
#[derive(Debug, PartialEq, Eq)]
struct Paid {
    network: NetworkId,
    payload: Vec<u8>,
}

/// The file beside a key file.
fn paid_path(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".paid");
    PathBuf::from(name)
}

impl Paid {
    fn transfer(&self) -> anyhow::Result<Transfer<'_>> {
        Transfer::decode(&self.payload).context("the file beside the key does not hold a payment")
    }

    fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
        };
        let mut text = String::new();
        file.take(PAID_BYTES_MAX)
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let parsed = text.trim_end().split_once(' ').and_then(|(network, payload)| {
            Some(Self { network: network.parse().ok()?, payload: hex::decode(payload).ok()? })
        });
        parsed
            .map(Some)
            .with_context(|| format!("{} is damaged: it says what was signed last", path.display()))
    }

    /// Makes the file say this, durably, whole or not at all.
    fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let text = format!("{} {}\n", self.network, hex::encode(&self.payload));
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&temporary, path)?;
            File::open(parent)?.sync_all()
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Makes a payment.
///
/// # Errors
/// If the key or the file beside it cannot be used, or the node cannot be reached.
pub fn run(payment: &Payment<'_>, peer: &PeerArgs, json: &JsonArg) -> anyhow::Result<ExitCode> {
    if payment.amount == 0 {
        return Err(usage("--amount: got 0, a payment moves something"));
    }
    let signer = super::key::read_signer(payment.key)?;
    let report = connect::block_on(peer, pay(payment, &signer, peer))
        .context("repeat the same command to go on: the same payment twice moves money once")?;
    json.write(&report)?;
    if !json.on_stdout() {
        if let Some(id) = &report.id {
            println!("{id}");
        }
        eprintln!("{}", report.status);
    }
    Ok(if report.accepted { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

async fn pay(payment: &Payment<'_>, signer: &DeviceSigner, peer: &PeerArgs) -> anyhow::Result<PayReport> {
    let link = connect::open(peer, None, payment.level).await?;
    let report = pay_in(payment, signer, &link.session).await;
    link.client.close().await;
    report
}

async fn pay_in(
    payment: &Payment<'_>,
    signer: &DeviceSigner,
    session: &Session,
) -> anyhow::Result<PayReport> {
    let account = signer.public();
    let network = session.welcome().network;
    let state = state_of(session, account).await?;
    let mut report = PayReport {
        id: None,
        from: account.to_string(),
        to: payment.to.to_string(),
        amount: payment.amount,
        account_sequence: state.next,
        accepted: false,
        in_ledger: false,
        status: String::new(),
        balance: Some(state.balance),
    };
    let transfer = Transfer {
        account_sequence: state.next,
        to: payment.to,
        amount: payment.amount,
        memo: payment.memo.as_bytes(),
    };
    let payload = transfer.encode().map_err(|error| usage(format!("payment: {error}")))?;
    let path = paid_path(payment.key);
    let paid = Paid::read(&path)?.filter(|paid| paid.network == network);
    let unfinished = match &paid {
        Some(paid) => Some(paid.transfer()?).filter(|last| last.account_sequence >= state.next),
        None => None,
    };
    let refusal = match unfinished {
        _ if state.standing == AccountStanding::Unknown => Some("the account was never paid anything".to_owned()),
        _ if state.standing == AccountStanding::Frozen => Some(format!(
            "the account is frozen: two operations were signed for sequence {}",
            state.next
        )),
        Some(last) if last.account_sequence > state.next => Some(format!(
            "this key has signed sequence {}, and the node's ledger has come to {}: it is behind, ask another one",
            last.account_sequence, state.next
        )),
        Some(last) if last != transfer => Some(format!(
            "an earlier payment is not in the ledger yet, and a second one for its sequence would stop the account. Finish it first: \
             weft send --key {} --to {} --amount {} --memo '{}'",
            payment.key.display(),
            last.to,
            last.amount,
            String::from_utf8_lossy(last.memo)
        )),
        _ if state.balance < payment.amount => {
            Some(format!("the account has {}, which does not cover {}", state.balance, payment.amount))
        }
        _ => match state.lock {
            Some((sequence, hash)) if sequence == state.next && hash != OperationHash::of(&payload).0 => Some(
                "another payment with this sequence, signed elsewhere with this key, is under way: wait for it".to_owned(),
            ),
            _ => None,
        },
    };
    if let Some(refusal) = refusal {
        report.status = format!("not paid: {refusal}");
        return Ok(report);
    }
    // Before anything is signed: from here on this key signs nothing else for this sequence.
    Paid { network, payload: payload.clone() }.write(&path)?;
    let now_us = unix_now_us();
    let draft = Draft {
        network,
        issued_at_us: now_us,
        sequence: now_us,
        parents: super::send::choose_parents(session, &[]).await?,
        kind: PayloadKind::TRANSFER,
        payload: &payload,
    };
    let bytes = draft.sign(signer)?;
    let id = MessageView::parse(&bytes)?.id();
    let length = u16::try_from(bytes.len()).context("a message fits 16 bits of length")?;
    let ack = session.submit(&[length], Bytes::from(bytes)).await?.await?;
    report.id = Some(id.to_string());
    if let Some(exception) = ack.exceptions.first() {
        if exception.reason() == Some(Reason::AccountSequence) && exception.got < exception.limit {
            // The ledger has come further since it was asked: perhaps by this very payment, sent before and not waited for.
            settle(payment, session, &transfer, id, &mut report).await?;
            report.id = report.id.filter(|_| report.accepted);
            return Ok(report);
        }
        let detail = match exception.reason() {
            Some(reason) => reason.with(exception.got, exception.limit).to_string(),
            None => format!("refused for reason {}", exception.code),
        };
        report.id = None;
        report.status = format!("not paid: {detail}");
        return Ok(report);
    }
    report.accepted = true;
    if payment.level < AckLevel::Final {
        report.status =
            format!("sent at level {}; whether it is accepted, `weft history` will tell", ack.level);
        return Ok(report);
    }
    settle(payment, session, &transfer, id, &mut report).await?;
    Ok(report)
}

/// Waits until the ledger has the sequence, and tells whether it is this payment that it has.
async fn settle(
    payment: &Payment<'_>,
    session: &Session,
    transfer: &Transfer<'_>,
    id: MessageId,
    report: &mut PayReport,
) -> anyhow::Result<()> {
    let account: DeviceKey = report.from.parse()?;
    let state = loop {
        let state = state_of(session, account).await?;
        if state.next > transfer.account_sequence {
            break state;
        }
        tokio::time::sleep(POLL).await;
    };
    report.balance = Some(state.balance);
    let entered = loop {
        let payments = history_of(session, account, None, 0, LOOKED_AT).await?.payments;
        let own = || payments.iter().filter(|entry| entry.from == account);
        if let Some(entered) = own().find(|entry| entry.sequence == transfer.account_sequence) {
            break entered.clone();
        }
        if own().any(|entry| entry.sequence > transfer.account_sequence) {
            anyhow::bail!(
                "the ledger has gone on beyond the payment's sequence: `weft history` shows which one it was"
            );
        }
        // The node writes the history a moment after the ledger.
        tokio::time::sleep(POLL).await;
    };
    let same =
        entered.to == transfer.to && entered.amount == transfer.amount && entered.memo == transfer.memo;
    report.accepted = same;
    report.in_ledger = same;
    if same && entered.id != id {
        // Another message carried the same operation first.
        report.id = Some(entered.id.to_string());
    }
    report.status = if same {
        format!("paid {} to {}: final; the account has {} now", payment.amount, payment.to, state.balance)
    } else {
        format!(
            "not paid: another payment with sequence {} was accepted instead: {} to {}",
            entered.sequence, entered.amount, entered.to
        )
    };
    Ok(())
}
