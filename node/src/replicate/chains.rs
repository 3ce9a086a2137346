//! Chains of witnesses, for peers that ask for them: the newest from memory, older ones from the lanes that carry them.
//!
//! Owns the newest witnesses of each validator. Invariants: what is handed out is a run of numbers without gaps; of the own chain only
//! what is durable is put in. Bounded: [`RECENT_MAX`] witnesses of each validator, and as many that are not followed yet.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use weft_core::confirm::Witness;
use weft_core::{MessageId, NodeKey, PayloadKind};
use weft_storage::{LogReader, StoredBatch};

/// Witnesses of one validator in memory: a minute and more of rounds. The longest take 16 KiB each.
pub const RECENT_MAX: usize = 1_024;

/// Witnesses of one validator that came and are not followed yet.
const PENDING_MAX: usize = 256;

/// Batches read in search of one with a witness, from one place on: a lane carries one a round while it carries anything.
const SEARCH_BATCHES_MAX: usize = 4_096;

#[derive(Debug, Default)]
struct Chain {
    /// Number of the first one in `recent`.
    first: u64,
    recent: VecDeque<Bytes>,
    pending: VecDeque<(MessageId, Bytes)>,
}

/// The chains of all validators.
#[derive(Debug)]
pub struct Chains {
    chains: Vec<Mutex<Chain>>,
}

impl Chains {
    /// Empty chains of so many validators.
    pub fn new(validators: usize) -> Self {
        Self { chains: (0..validators).map(|_| Mutex::default()).collect() }
    }

    fn lock(&self, validator: u16) -> Option<MutexGuard<'_, Chain>> {
        let chain = self.chains.get(usize::from(validator))?;
        Some(chain.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A witness came; it may never be followed.
    pub fn came(&self, validator: u16, id: MessageId, message: Bytes) {
        let Some(mut chain) = self.lock(validator) else { return };
        if chain.pending.len() == PENDING_MAX {
            chain.pending.pop_front();
        }
        chain.pending.push_back((id, message));
    }

    /// Witness `number` is followed. If it came in a lane it is read from there when it is asked for.
    pub fn followed(&self, validator: u16, number: u64, id: MessageId) {
        let Some(mut chain) = self.lock(validator) else { return };
        let found = chain.pending.iter().position(|(pending, _)| *pending == id);
        let Some((_, message)) = found.and_then(|found| chain.pending.remove(found)) else { return };
        if chain.first + chain.recent.len() as u64 != number {
            chain.recent.clear();
            chain.first = number;
        }
        chain.recent.push_back(message);
        if chain.recent.len() > RECENT_MAX {
            chain.recent.pop_front();
            chain.first += 1;
        }
    }

    /// Witnesses with numbers above `after`, in order, from memory; empty if the next one is not there.
    pub fn recent(&self, validator: u16, after: u64, count: usize, bytes_max: usize) -> Vec<Bytes> {
        let Some(chain) = self.lock(validator) else { return Vec::new() };
        let Some(skip) = (after + 1).checked_sub(chain.first) else { return Vec::new() };
        let rest = chain.recent.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX));
        within(rest.cloned(), count, bytes_max)
    }
}

fn within(messages: impl Iterator<Item = Bytes>, count: usize, bytes_max: usize) -> Vec<Bytes> {
    let mut bytes = 0;
    let fits = |message: &Bytes| {
        let before = bytes;
        bytes += message.len();
        before < bytes_max
    };
    messages.take(count).take_while(fits).collect()
}

/// The witness that a node puts at the head of a batch of its lane, with its number.
fn witness_of(batch: &StoredBatch, key: &NodeKey) -> Option<(u64, Bytes)> {
    let view = batch.view().ok()?;
    let message = view.message(0)?.message;
    if message.kind() != PayloadKind::WITNESS || message.issuer() != key {
        return None;
    }
    let number = Witness::decode(message.payload()).ok()?.number;
    Some((number, Bytes::copy_from_slice(message.bytes())))
}

/// The first witness in the batches from `position` on, of what is durable: where its batch starts, its number, its message.
fn next_witness(reader: &LogReader, key: &NodeKey, position: u64) -> Option<(u64, u64, Bytes)> {
    let durable = reader.durable_size();
    let batches = reader.batches_from(position).take(SEARCH_BATCHES_MAX).map_while(Result::ok);
    let mut batches = batches.take_while(|batch| batch.size <= durable);
    batches.find_map(|batch| witness_of(&batch, key).map(|(number, message)| (batch.first, number, message)))
}

/// Witnesses with numbers above `after`, in order, from the lane of their validator: found by halving, since numbers rise with positions.
pub fn stored(reader: &LogReader, key: &NodeKey, after: u64, count: usize, bytes_max: usize) -> Vec<Bytes> {
    let (mut low, mut high) = (0, reader.durable_size());
    // Invariant: every witness in a batch that starts below `low` has a number of at most `after`.
    while high - low > 4_096 {
        let middle = low + (high - low) / 2;
        match next_witness(reader, key, middle) {
            Some((first, number, _)) if number <= after => low = first + 1,
            _ => high = middle,
        }
    }
    let durable = reader.durable_size();
    let batches = reader.batches_from(low).map_while(Result::ok).take_while(|batch| batch.size <= durable);
    let witnesses = batches.filter_map(|batch| witness_of(&batch, key));
    let mut next = after + 1;
    let run = witnesses.skip_while(|(number, _)| *number <= after).map_while(|(number, message)| {
        let follows = number == next;
        next += 1;
        follows.then_some(message)
    });
    within(run, count, bytes_max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_handed_out_without_gaps_and_only_as_far_as_it_is_followed() {
        let chains = Chains::new(1);
        let (id, message) =
            (|number: u8| MessageId([number; 32]), |number: u8| Bytes::from(vec![number; 10]));
        for number in [5, 6, 7, 9] {
            chains.came(0, id(number), message(number));
        }
        for number in [5, 6, 7] {
            chains.followed(0, number.into(), id(number));
        }
        chains.followed(0, 8, id(8));
        assert_eq!(chains.recent(0, 3, 10, 1000), Vec::<Bytes>::new(), "4 is not here");
        assert_eq!(chains.recent(0, 4, 10, 1000), [message(5), message(6), message(7)]);
        assert_eq!(chains.recent(0, 5, 1, 1000), [message(6)]);
        assert_eq!(chains.recent(0, 4, 10, 11), [message(5), message(6)], "about so many bytes");
        chains.followed(0, 9, id(9));
        assert_eq!(chains.recent(0, 8, 10, 1000), [message(9)], "8 came in a lane");
        assert_eq!(chains.recent(0, 6, 10, 1000), Vec::<Bytes>::new());
        assert_eq!(chains.recent(3, 0, 10, 1000), Vec::<Bytes>::new());
    }
}
