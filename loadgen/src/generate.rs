//! Building and signing batches: what a generator thread does.
//!
//! Owns [`Generator`], one per thread, with all its buffers: a batch costs a handful of allocations, a message none. Invariant: the
//! messages of a batch are those of its events, in order, each signed by its device and naming two different tips. When batches are
//! built and where they go is left to the [`driver`](crate::driver).

use std::sync::Arc;

use bytes::Bytes;
use weft_core::{Draft, MessageId, NetworkId, PayloadKind, Rejection, SIGNATURE_BYTES};
use weft_crypto::sign::BatchSigner;

use crate::clock::RunClock;
use crate::device::DeviceKeys;
use crate::mix::mix;
use crate::payload::write_reading;
use crate::population::{Event, Population, Walk};
use crate::schedule::{Pace, Schedule, Work};
use crate::tips::{TipSlot, choose_parents};

/// A signed batch on its way to a connection.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) work: Work,
    /// All messages back to back; each has the same length.
    pub(crate) bytes: Bytes,
    /// Their ids, for the audit; empty if there is none.
    pub(crate) ids: Vec<MessageId>,
    /// When it was complete, microseconds since the start.
    pub(crate) ready_us: u64,
}

/// What all generators of a run share.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) population: Population,
    pub(crate) network: NetworkId,
    pub(crate) payload_bytes: usize,
    pub(crate) message_bytes: usize,
    pub(crate) schedule: Schedule,
    pub(crate) clock: RunClock,
    pub(crate) tips: TipSlot,
    /// Whether batches carry their ids.
    pub(crate) keep_ids: bool,
}

/// One thread's builder.
#[derive(Debug)]
pub(crate) struct Generator {
    traffic: Arc<Traffic>,
    walk: Walk,
    keys: DeviceKeys,
    tips: Vec<MessageId>,
    events: Vec<Event>,
    payload: Vec<u8>,
    ids: Vec<[u8; 32]>,
    signatures: Vec<[u8; SIGNATURE_BYTES]>,
}

impl Generator {
    pub(crate) fn new(traffic: Arc<Traffic>, key_cache_slots: usize, signer: Arc<dyn BatchSigner>) -> Self {
        Self {
            walk: traffic.population.walk(),
            keys: DeviceKeys::new(traffic.population.seed, key_cache_slots, signer),
            tips: Vec::new(),
            events: Vec::new(),
            payload: Vec::new(),
            ids: Vec::new(),
            signatures: Vec::new(),
            traffic,
        }
    }

    /// Builds and signs the messages of `work`.
    ///
    /// # Errors
    /// `payload_too_long`, which a validated configuration rules out.
    pub(crate) fn build(&mut self, work: &Work) -> Result<Batch, Rejection> {
        let traffic = &*self.traffic;
        let events = work.first_event..work.first_event + u64::from(work.count);
        self.events.clear();
        self.events.extend(events.clone().map(|event| self.walk.event(event)));
        self.keys.load(self.events.iter().map(|event| event.device));
        traffic.tips.copy_to(&mut self.tips);

        let now_us = traffic.clock.now_us();
        let mut bytes = Vec::with_capacity(self.events.len() * traffic.message_bytes);
        self.ids.clear();
        for (row, (number, event)) in events.zip(&self.events).enumerate() {
            // A device of an open loop sends when its event is due; one of a closed loop, when there is room, which is now.
            let issued_us = match traffic.schedule {
                Schedule::Open { rate_per_s } => Pace::new(rate_per_s).intended_us(number),
                Schedule::Closed { .. } => now_us,
            };
            self.payload.clear();
            write_reading(event.device, event.cycle, traffic.payload_bytes, &mut self.payload);
            let draft = Draft {
                network: traffic.network,
                issued_at_us: traffic.clock.unix_us(issued_us),
                sequence: event.sequence,
                parents: choose_parents(&self.tips, mix(number ^ traffic.population.sequence_base)),
                kind: PayloadKind::DATA,
                payload: &self.payload,
            };
            let id = draft.write_content(&self.keys.public(row), &mut bytes)?;
            // The place of the signature, which follows when all ids are known.
            Draft::finish(&mut bytes, &[0; SIGNATURE_BYTES]);
            self.ids.push(id.0);
        }
        self.keys.sign(&self.ids, &mut self.signatures);
        for (message, signature) in bytes.chunks_exact_mut(traffic.message_bytes).zip(&self.signatures) {
            message[traffic.message_bytes - SIGNATURE_BYTES..].copy_from_slice(signature);
        }
        let ids =
            if traffic.keep_ids { self.ids.iter().map(|id| MessageId(*id)).collect() } else { Vec::new() };
        Ok(Batch { work: *work, bytes: bytes.into(), ids, ready_us: traffic.clock.now_us() })
    }

    /// Keys derived so far.
    pub(crate) const fn derived_total(&self) -> u64 {
        self.keys.derived_total()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use weft_core::MessageView;
    use weft_crypto::sign::SerialSigner;
    use weft_crypto::verify_one;

    use super::*;

    fn generator(schedule: Schedule, payload_bytes: usize) -> Generator {
        let traffic = Traffic {
            population: Population { seed: 4, devices: NonZeroU64::new(50).unwrap(), sequence_base: 900 },
            network: NetworkId([1, 2, 3, 4]),
            payload_bytes,
            message_bytes: weft_core::MESSAGE_BYTES_MIN + payload_bytes,
            schedule,
            clock: RunClock::start(),
            tips: TipSlot::new([MessageId([1; 32]), MessageId([2; 32])]),
            keep_ids: true,
        };
        Generator::new(Arc::new(traffic), 64, Arc::new(SerialSigner))
    }

    #[test]
    fn a_batch_holds_valid_messages_of_its_events_in_order() {
        let mut generator = generator(Schedule::Open { rate_per_s: 1_000.0 }, 40);
        let work = Work { number: 3, first_event: 120, count: 70, release_us: 5 };
        let batch = generator.build(&work).unwrap();
        let mut walk = generator.traffic.population.walk();
        let mut keys = DeviceKeys::new(4, 8, Arc::new(SerialSigner));
        let mut rest = &batch.bytes[..];
        for row in 0..70 {
            let (message, tail) = MessageView::split(rest).unwrap();
            rest = tail;
            let event = walk.event(120 + row as u64);
            keys.load([event.device]);
            assert_eq!(*message.issuer(), keys.public(0));
            assert_eq!(message.sequence(), event.sequence);
            assert_eq!(message.id(), batch.ids[row]);
            assert!(verify_one(&message.issuer().0, &message.id().0, message.signature()));
            let [first, second] = message.parents();
            assert_ne!(first, second);
            assert_eq!(message.payload().len(), 40);
            let intended = generator.traffic.clock.unix_us((120 + row as u64) * 1_000);
            assert_eq!(
                message.issued_at_us(),
                intended,
                "an open loop dates a message with the time it was due"
            );
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn fresh_tips_become_parents_of_the_next_batch() {
        let mut generator = generator(Schedule::Closed { window: 1 }, 16);
        let tips = [MessageId([7; 32]), MessageId([8; 32])];
        generator.traffic.tips.offer(tips);
        let batch = generator.build(&Work { number: 0, first_event: 0, count: 4, release_us: 0 }).unwrap();
        let (message, _) = MessageView::split(&batch.bytes).unwrap();
        let mut parents = *message.parents();
        parents.sort_unstable();
        assert_eq!(parents, tips);
    }
}
