//! The payments of each account, the newest first; and what became of an operation.
//!
//! Owns the file `history.bin` of the data directory: one small record for each operation that has entered the ledger, in the order in
//! which that happened here. Each record names the one before it of the account that paid, and of the one that was paid, so the history
//! of an account is a walk, and what a payment says is read from its message in the log. Two more numbers lead through the payments of
//! one account by their sequences, in O(log^2) steps however many there are: that tells which operation the ledger has for a sequence,
//! which nothing else remembers. Invariants: only what is in the ledger is in
//! here; a page costs a bounded number of reads; nothing depends on the file but `weft history` and subscriptions. It is emptied at each start and filled
//! again while confirmation goes through the logs, so it is never synced and cannot disagree with them. A failed write is told to
//! whoever asks for history, and stops nothing else.
//!
//! Memory: three numbers for each account that has paid or was paid, where the ledger has several times that, a place for each final
//! operation that the ledger has not taken yet, and 40 KiB.
//!
//! | offset in a record | size | field |
//! |---|---|---|
//! | 0 | 8 | place of the message |
//! | 8 | 8 | number of the paying account's record before this one, from 1; 0: none |
//! | 16 | 8 | the same for the account that was paid |
//! | 24 | 8 | number of the record of the paying account's operation before this one; 0 for its first |
//! | 32 | 8 | number of the record of its operation whose sequence is that of this one without its lowest bit; 0 for its first |

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

const RECORD_BYTES: usize = 40;

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
    /// Number of the record of the payer's operation with the sequence before, and of that with the sequence without its lowest bit.
    earlier: u64,
    skip: u64,
}

impl Record {
    fn encode(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&self.place.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.before[0].to_le_bytes());
        bytes[16..24].copy_from_slice(&self.before[1].to_le_bytes());
        bytes[24..32].copy_from_slice(&self.earlier.to_le_bytes());
        bytes[32..].copy_from_slice(&self.skip.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; RECORD_BYTES]) -> Self {
        let number = |at: usize| bytes[at..].first_chunk().copied().map_or(0, u64::from_le_bytes);
        Self {
            place: Place(number(0)),
            before: [number(8), number(16)],
            earlier: number(24),
            skip: number(32),
        }
    }
}

/// What is kept of an account.
#[derive(Clone, Copy, Debug, Default)]
struct Newest {
    /// Number of its newest record; 0: none.
    record: u64,
    /// Its next sequence: the ledger has all before it.
    next: u64,
    /// Number of the record of the operation before `next`; 0: none.
    paid: u64,
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
        let before = state.newest.get(&operation.account).copied().unwrap_or_default();
        let skip = match self.skip_of(&state, operation.sequence, before.paid) {
            Ok(skip) => skip,
            Err(error) => {
                tracing::error!(%error, "{FILE_NAME} cannot be read: history is given up");
                state.failed = Some(format!("{FILE_NAME} could not be read: {error}"));
                return;
            }
        };
        let payer = state.newest.entry(operation.account).or_default();
        (payer.next, payer.paid) = (operation.sequence + 1, number);
        let paid = std::mem::replace(&mut payer.record, number);
        let got = if operation.to == operation.account {
            paid
        } else {
            std::mem::replace(&mut state.newest.entry(operation.to).or_default().record, number)
        };
        state.tail.push(Record { place, before: [paid, got], earlier: before.paid, skip });
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

    /// Number of the record that an operation of `sequence` skips to, whose operation before it is in record `earlier`. Every second
    /// operation needs no look for that, and all together one each.
    fn skip_of(&self, state: &State, sequence: u64, earlier: u64) -> io::Result<u64> {
        if sequence == 0 {
            return Ok(0);
        }
        let target = without_lowest_bit(sequence);
        let (mut at, mut number) = (sequence - 1, earlier);
        while at > target {
            number = self.read(state, number)?.skip;
            at = without_lowest_bit(at);
        }
        Ok(number)
    }

    /// Record `number`, which there is.
    fn read(&self, state: &State, number: u64) -> io::Result<Record> {
        let index = number.checked_sub(1).ok_or(io::ErrorKind::InvalidInput)?;
        if let Some(at) = index.checked_sub(state.written) {
            let record = usize::try_from(at).ok().and_then(|at| state.tail.get(at));
            return record.copied().ok_or(io::ErrorKind::InvalidInput.into());
        }
        self.read_written(index)
    }

    fn read_written(&self, index: u64) -> io::Result<Record> {
        let mut bytes = [0; RECORD_BYTES];
        self.file.read_exact_at(&mut bytes, index * RECORD_BYTES as u64)?;
        Ok(Record::decode(&bytes))
    }

    /// Record `number`, from 1.
    fn record(&self, number: u64) -> Result<Record, Refusal> {
        let Some(index) = number.checked_sub(1) else { return Err(no_cursor()) };
        {
            let state = self.lock();
            if let Some(failed) = &state.failed {
                return Err(given_up(failed));
            }
            if let Some(at) = index.checked_sub(state.written) {
                let record = usize::try_from(at).ok().and_then(|at| state.tail.get(at));
                return record.copied().ok_or_else(no_cursor);
            }
        }
        // Written once, and never again.
        self.read_written(index)
            .map_err(|error| Refusal::internal(format!("{FILE_NAME} cannot be read: {error}")))
    }

    /// Operations that have entered the ledger.
    pub fn entered_total(&self) -> u64 {
        let state = self.lock();
        state.written + state.tail.len() as u64
    }

    /// Whether the ledger has this operation, which lies at `place`, for its account and sequence; false if it has another one, `None`
    /// if none yet.
    ///
    /// # Errors
    /// `internal` if a file cannot be read.
    pub fn has(&self, operation: &Operation, place: Place) -> Result<Option<bool>, Refusal> {
        let newest = {
            let state = self.lock();
            if let Some(failed) = &state.failed {
                return Err(given_up(failed));
            }
            state.newest.get(&operation.account).copied().unwrap_or_default()
        };
        let Some(mut at) = newest.next.checked_sub(1).filter(|last| *last >= operation.sequence) else {
            return Ok(None);
        };
        let mut number = newest.paid;
        while at > operation.sequence {
            let record = self.record(number)?;
            let (next, skips) = step_down(at, operation.sequence);
            (number, at) = (if skips { record.skip } else { record.earlier }, next);
        }
        let there = self.record(number)?.place;
        if there == place {
            return Ok(Some(true));
        }
        let (reader, message) = (self.lanes.get(there.lane()), &operation.message);
        let damaged = || Refusal::internal(format!("the payment at {there} cannot be read"));
        let stored = reader.and_then(|reader| reader.message_at(there).ok().flatten()).ok_or_else(damaged)?;
        let view = MessageView::parse(stored.bytes()).map_err(|_| damaged())?;
        let other = Operation::read(&view, || *message).ok_or_else(damaged)?;
        Ok(Some(other.hash == operation.hash))
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

fn without_lowest_bit(sequence: u64) -> u64 {
    sequence & sequence.saturating_sub(1)
}

/// From an operation on the way to that of a lower sequence: the one to look at next, and whether it is skipped to.
fn step_down(at: u64, target: u64) -> (u64, bool) {
    let skipped = without_lowest_bit(at);
    if skipped >= target { (skipped, true) } else { (at - 1, false) }
}

fn given_up(failed: &str) -> Refusal {
    Refusal::internal(format!("history was given up: {failed}"))
}

fn no_cursor() -> Refusal {
    Refusal::not_found(
        "no such place in this account's history: start again, cursors do not outlive a node's run",
    )
}

#[cfg(test)]
mod tests {
    use weft_core::confirm::OperationHash;
    use weft_core::{LaneId, MessageId};

    use super::*;

    #[test]
    fn a_record_survives_its_bytes() {
        let record =
            Record { place: Place(0x0102_0304_0506_0708), before: [9, u64::MAX], earlier: 7, skip: 1 << 63 };
        assert_eq!(record.encode()[..8], [8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(Record::decode(&record.encode()), record);
    }

    fn operation(account: u8, sequence: u64) -> Operation {
        Operation {
            account: DeviceKey([account; 32]),
            sequence,
            hash: OperationHash([account; 32]),
            to: DeviceKey([9; 32]),
            amount: 1,
            message: MessageId([0; 32]),
        }
    }

    fn place(account: u8, sequence: u64) -> Place {
        Place::new(LaneId(account.into()), sequence + 1)
    }

    #[test]
    fn every_operation_of_an_account_is_found_by_its_sequence_in_few_steps() {
        let dir = tempfile::tempdir().unwrap();
        let lanes = Lanes::without_lanes();
        let history = History::create(dir.path(), lanes).unwrap();
        // Two accounts in turns, over several writes of the tail.
        let count = 3 * TAIL_MAX as u64;
        for sequence in 0..count {
            for account in [1, 2] {
                let operation = operation(account, sequence);
                assert_eq!(history.has(&operation, place(account, sequence)).unwrap(), None, "not yet");
                history.settled(&operation, place(account, sequence));
                history.entered(&operation);
            }
        }
        assert_eq!(history.entered_total(), 2 * count);
        for account in [1, 2] {
            for sequence in 0..count {
                let found = history.has(&operation(account, sequence), place(account, sequence)).unwrap();
                assert_eq!(found, Some(true), "{account} {sequence}");
            }
        }
        assert_eq!(history.has(&operation(1, count), place(1, count)).unwrap(), None);
        assert_eq!(history.has(&operation(3, 0), place(3, 0)).unwrap(), None);
    }

    #[test]
    fn the_way_to_an_old_operation_is_short_however_many_came_after_it() {
        let newest = (1 << 40) - 1;
        for target in [0, 1, 2, 1_000_003, 1 << 39, (1 << 40) - 1_025, newest - 1] {
            let (mut at, mut steps) = (newest, 0);
            while at > target {
                (at, _) = step_down(at, target);
                steps += 1;
            }
            // Forty bits: at most one step for each bit, and again below each of them.
            assert!(at == target && steps <= 40 * 40, "{target}: {steps} steps");
        }
    }
}
