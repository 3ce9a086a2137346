//! Chains of witnesses, for peers that ask for them: the newest from memory, older ones from the lanes that carry them.
//!
//! Owns the newest witnesses of each validator. Invariants: what is handed out is a run of numbers without gaps, each signed by its
//! validator: a lane is sealed by whoever writes it, and what its seal covers may lack the message's own signature, which would be held
//! against the node that passes it on. Of the own chain only what is durable is put in. Bounded: [`RECENT_MAX`] witnesses of each
//! validator, and `PENDING_MAX` that are not followed yet; a request reads `SEARCH_BATCHES_MAX` heads of batches and some.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use weft_core::confirm::Witness;
use weft_core::{MessageId, NetworkId, NodeKey, PayloadKind, Place};
use weft_storage::{LogReader, StoredBatch};

/// Witnesses of one validator in memory: a minute and more of rounds. The longest take 16 KiB each.
pub const RECENT_MAX: usize = 1_024;

/// Witnesses of one validator that came and are not followed yet.
const PENDING_MAX: usize = 256;

/// Batches looked at in search of one with a witness, from one place on: a lane carries one a round while it carries anything, which
/// at a million messages a second is every 25th batch.
const PROBE_BATCHES_MAX: usize = 256;

/// Batches looked at for the witnesses of one answer. Who wants more asks again.
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

    /// Whether there is a validator of this number: an ingest node's lane has no chain.
    pub fn knows(&self, validator: u16) -> bool {
        usize::from(validator) < self.chains.len()
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
        let Some(skip) = after.saturating_add(1).checked_sub(chain.first) else { return Vec::new() };
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

/// The witness that a node puts at the head of a batch of its lane, with its number. Reads that message and nothing else of the batch.
fn witness_of(reader: &LogReader, batch: &StoredBatch, key: &NodeKey) -> Option<(u64, Bytes)> {
    let stored = reader.message_at(Place::new(reader.lane(), batch.first + 1)).ok()??;
    let message = stored.view().ok()?;
    if message.kind() != PayloadKind::WITNESS || message.issuer() != key {
        return None;
    }
    let number = Witness::decode(message.payload()).ok()?.number;
    Some((number, Bytes::copy_from_slice(message.bytes())))
}

/// The first witness in the batches from `position` on, of what is durable: where its batch starts, and its number.
fn next_witness(reader: &LogReader, key: &NodeKey, position: u64) -> Option<(u64, u64)> {
    let durable = reader.durable_size();
    let batches = reader.batches_from(position).take(PROBE_BATCHES_MAX).map_while(Result::ok);
    let mut batches = batches.take_while(|batch| batch.size <= durable);
    batches.find_map(|batch| witness_of(reader, &batch, key).map(|(number, _)| (batch.first, number)))
}

/// Whether the message is one of this network that its issuer has signed.
fn is_signed(message: &[u8], network: NetworkId) -> bool {
    weft_core::MessageView::parse(message).is_ok_and(|view| {
        view.network() == network
            && weft_crypto::serial::verify_one(&view.issuer().0, &view.id().0, view.signature())
    })
}

/// Witnesses with numbers above `after`, in order, from the lane of their validator: found by halving, since numbers rise with positions.
/// The first one that its validator has not signed ends them.
pub fn stored(reader: &LogReader, key: &NodeKey, after: u64, count: usize, bytes_max: usize) -> Vec<Bytes> {
    let (mut low, mut high) = (0, reader.durable_size());
    // Invariant: every witness in a batch that starts below `low` has a number of at most `after`.
    // The lane may grow meanwhile, and then one is found beyond `high`.
    while high.saturating_sub(low) > 4_096 {
        let middle = low + (high - low) / 2;
        match next_witness(reader, key, middle) {
            Some((first, number)) if number <= after => low = first + 1,
            _ => high = middle,
        }
    }
    let durable = reader.durable_size();
    let batches = reader.batches_from(low).take(SEARCH_BATCHES_MAX).map_while(Result::ok);
    let batches = batches.take_while(|batch| batch.size <= durable);
    let witnesses = batches.filter_map(|batch| witness_of(reader, &batch, key));
    let mut next = after.saturating_add(1);
    let run = witnesses.skip_while(|(number, _)| *number <= after).map_while(|(number, message)| {
        let follows = number == next && is_signed(&message, reader.network());
        next = next.saturating_add(1);
        follows.then_some(message)
    });
    within(run, count, bytes_max)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "helpers of tests")]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use weft_storage::SimDisk;

    use super::*;
    use crate::testing::{Author, ROOTS, data, message, signer};

    /// Witness `number` of the node of lane 1.
    fn witness(number: u64) -> Vec<u8> {
        let predecessor = MessageId([u8::from(number > 1); 32]);
        let payload = Witness { number, predecessor, ..Witness::default() }.encode().unwrap();
        message(&signer(1), PayloadKind::WITNESS, ROOTS, &payload)
    }

    #[test]
    fn a_witness_that_its_validator_has_not_signed_is_not_handed_out_although_its_lane_holds_it() {
        let mut lane = Author::new(Arc::new(SimDisk::new(1)), Path::new("/lane"), 1);
        let witnesses: Vec<Vec<u8>> = (1..=4).map(witness).collect();
        for (index, message) in witnesses.iter().enumerate() {
            let mut message = message.clone();
            if index == 2 {
                *message.last_mut().unwrap() ^= 1;
            }
            lane.append_one(&message);
        }
        lane.sync();
        let stored = |after| stored(&lane.log.reader, &signer(1).public(), after, 10, 1 << 20);
        assert_eq!(stored(0), witnesses[..2], "up to the one that is not signed");
        assert_eq!(stored(2), Vec::<Bytes>::new());
        assert_eq!(stored(3), witnesses[3..]);
        assert_eq!(stored(u64::MAX), Vec::<Bytes>::new(), "no number is beyond the last one");
    }

    #[test]
    fn looking_for_witnesses_in_a_lane_without_any_ends_after_a_bounded_number_of_batches() {
        let mut lane = Author::new(Arc::new(SimDisk::new(1)), Path::new("/lane"), 1);
        let data = data(b"a");
        lane.append_one(&witness(1));
        for _ in 0..SEARCH_BATCHES_MAX {
            lane.append_one(&data);
        }
        // Two positions a batch: what is looked for lies one batch too far.
        lane.append_one(&witness(2));
        lane.sync();
        let key = signer(1).public();
        let found = stored(&lane.log.reader, &key, 0, 10, 1 << 20);
        assert_eq!(found, [witness(1)]);
        assert_eq!(
            stored(&lane.log.reader, &key, 1, 10, 1 << 20),
            Vec::<Bytes>::new(),
            "it comes with the lane"
        );
        let chains = Chains::new(2);
        assert!(chains.knows(1) && !chains.knows(2), "the third lane is not that of a validator");
        assert_eq!(chains.recent(1, u64::MAX, 1, 1), Vec::<Bytes>::new());
    }

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
