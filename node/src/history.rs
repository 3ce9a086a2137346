//! The payments of each account, the newest first.
//!
//! Owns the file `history.bin` of the data directory: one small record for each operation that has entered the ledger, in the order in
//! which that happened here. Each record names the one before it of the account that paid, and of the one that was paid, so the history
//! of an account is a walk, and what a payment says is read from its message in the log. Invariants: only what is in the ledger is in
//! here; a page costs a bounded number of reads; nothing depends on the file but `weft history`. It is emptied at each start and filled
//! again while confirmation goes through the logs, so it is never synced and cannot disagree with them. A failed write is told to
//! whoever asks for history, and stops nothing else.
//!
//! Memory: two numbers for each account that has paid or was paid, where the ledger has several times that, a place for each final
//! operation that the ledger has not taken yet, and 24 KiB.
//!
//! | offset in a record | size | field |
//! |---|---|---|
//! | 0 | 8 | place of the message |
//! | 8 | 8 | number of the paying account's record before this one, from 1; 0: none |
//! | 16 | 8 | the same for the account that was paid |

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use weft_core::confirm::{Operation, Transfer};
use weft_core::{DeviceKey, MessageView, Place};
use weft_net::query::HISTORY_MAX;
use weft_net::{History as Page, Payment, Refusal};
use weft_storage::LogReader;

use crate::lanes::Lanes;

/// Name of the file in the data directory.
pub const FILE_NAME: &str = "history.bin";

const RECORD_BYTES: usize = 24;

/// Records that wait to be written together.
const TAIL_MAX: usize = 1_024;

/// Records looked at for one page, at most: two accounts may have few payments between them and many with others.
const LOOKED_AT_MAX: usize = 4_096;

/// One operation in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    place: Place,
    /// Number of the record before, of the account that paid and of the one that was paid.
    before: [u64; 2],
}

impl Record {
    fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&self.place.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.before[0].to_le_bytes());
        bytes[16..].copy_from_slice(&self.before[1].to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; RECORD_BYTES]) -> Self {
        let number = |at: usize| bytes[at..].first_chunk().copied().map_or(0, u64::from_le_bytes);
        Self { place: Place(number(0)), before: [number(8), number(16)] }
    }
}

/// What is kept of an account.
#[derive(Clone, Copy, Debug, Default)]
struct Newest {
    /// Number of its newest record; 0: none.
    record: u64,
    /// Its next sequence: the ledger has all before it.
    next: u64,
}

#[derive(Debug, Default)]
struct State {
    newest: HashMap<DeviceKey, Newest>,
    /// Where operations lie that are final and not in the ledger yet, by account and sequence. The ledger has them, too.
    settled: HashMap<(DeviceKey, u64), Place>,
    /// Records in the file.
    written: u64,
    /// Records after those.
    tail: Vec<Record>,
    failed: Option<String>,
}

/// The payments of each account.
#[derive(Debug)]
pub struct History {
    file: File,
    lanes: Lanes,
    state: Mutex<State>,
}

impl History {
    /// An empty history in the data directory `dir`; its payments lie in `lanes`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn create(dir: &Path, lanes: Lanes) -> io::Result<Self> {
        let path = dir.join(FILE_NAME);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Self { file, lanes, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operation is final at `place`. Copies of it elsewhere come later, and are nothing new.
    pub fn settled(&self, operation: &Operation, place: Place) {
        let mut state = self.lock();
        let next = state.newest.get(&operation.account).map_or(0, |newest| newest.next);
        if operation.sequence >= next && state.failed.is_none() {
            state.settled.entry((operation.account, operation.sequence)).or_insert(place);
        }
    }

    /// An operation has entered the ledger.
    pub fn entered(&self, operation: &Operation) {
        let mut state = self.lock();
        if state.failed.is_some() {
            return;
        }
        let place = state.settled.remove(&(operation.account, operation.sequence));
        let Some(place) = place else {
            // Confirmation tells of each operation that is final before it tells that it has entered.
            tracing::error!(id = %operation.message, "a payment entered the ledger that was not final: history is given up");
            state.failed =
                Some(format!("the payment {} entered the ledger and was not final", operation.message));
            state.settled = HashMap::new();
            return;
        };
        let number = state.written + state.tail.len() as u64 + 1;
        let payer = state.newest.entry(operation.account).or_default();
        payer.next = operation.sequence + 1;
        let paid = std::mem::replace(&mut payer.record, number);
        let got = if operation.to == operation.account {
            paid
        } else {
            std::mem::replace(&mut state.newest.entry(operation.to).or_default().record, number)
        };
        state.tail.push(Record { place, before: [paid, got] });
        if state.tail.len() >= TAIL_MAX {
            let bytes: Vec<u8> = state.tail.iter().flat_map(Record::encode).collect();
            if let Err(error) = self.file.write_all_at(&bytes, state.written * RECORD_BYTES as u64) {
                tracing::error!(%error, "{FILE_NAME} cannot be written: history is given up");
                state.failed = Some(format!("{FILE_NAME} could not be written: {error}"));
            }
            state.written += state.tail.len() as u64;
            state.tail.clear();
        }
    }

    /// Record `number`, from 1.
    fn record(&self, number: u64) -> Result<Record, Refusal> {
        let Some(index) = number.checked_sub(1) else { return Err(no_cursor()) };
        {
            let state = self.lock();
            if let Some(failed) = &state.failed {
                return Err(Refusal::internal(format!("history was given up: {failed}")));
            }
            if let Some(at) = index.checked_sub(state.written) {
                let record = usize::try_from(at).ok().and_then(|at| state.tail.get(at));
                return record.copied().ok_or_else(no_cursor);
            }
        }
        // Written once, and never again.
        let mut bytes = [0; RECORD_BYTES];
        self.file
            .read_exact_at(&mut bytes, index * RECORD_BYTES as u64)
            .map_err(|error| Refusal::internal(format!("{FILE_NAME} cannot be read: {error}")))?;
        Ok(Record::decode(&bytes))
    }

    fn payment(&self, place: Place) -> Result<Payment, Refusal> {
        let damaged = || Refusal::internal(format!("the payment at {place} cannot be read"));
        let reader: &LogReader = self.lanes.get(place.lane()).ok_or_else(damaged)?;
        let message = reader.message_at(place).ok().flatten().ok_or_else(damaged)?;
        let view = MessageView::parse(message.bytes()).map_err(|_| damaged())?;
        let transfer = Transfer::decode(view.payload()).map_err(|_| damaged())?;
        Ok(Payment {
            place,
            id: view.id(),
            from: *view.issuer(),
            to: transfer.to,
            sequence: transfer.account_sequence,
            amount: transfer.amount,
            issued_at_us: view.issued_at_us(),
            memo: Bytes::copy_from_slice(transfer.memo),
        })
    }

    /// Payments of `account`, the newest first, at most `count`; with `other`, only those between the two. `cursor` is 0, or where an
    /// earlier page of this node's run ended.
    ///
    /// # Errors
    /// `not_found` for a cursor of another account or run, or `internal` if a file cannot be read.
    pub fn page(
        &self,
        account: &DeviceKey,
        other: Option<&DeviceKey>,
        cursor: u64,
        count: usize,
    ) -> Result<Page, Refusal> {
        let mut next = if cursor == 0 {
            self.lock().newest.get(account).map_or(0, |newest| newest.record)
        } else {
            cursor
        };
        let count = count.min(HISTORY_MAX);
        let mut payments = Vec::new();
        for _ in 0..LOOKED_AT_MAX {
            if next == 0 || payments.len() >= count {
                break;
            }
            let record = self.record(next)?;
            let payment = self.payment(record.place)?;
            next = match (payment.from == *account, payment.to == *account) {
                (true, _) => record.before[0],
                (false, true) => record.before[1],
                (false, false) => return Err(no_cursor()),
            };
            let counterpart = if payment.from == *account { payment.to } else { payment.from };
            if other.is_none_or(|other| *other == counterpart) {
                payments.push(payment);
            }
        }
        Ok(Page { next_cursor: next, payments })
    }
}

fn no_cursor() -> Refusal {
    Refusal::not_found(
        "no such place in this account's history: start again, cursors do not outlive a node's run",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_bytes() {
        let record = Record { place: Place(0x0102_0304_0506_0708), before: [9, u64::MAX] };
        assert_eq!(record.encode()[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(Record::decode(&record.encode()), record);
    }
}
