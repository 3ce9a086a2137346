//! Building and signing batches: what a generator thread does.
//!
//! Owns [`Generator`], one per thread, with all its buffers: a batch costs a handful of allocations, a message none. Invariant: the
//! messages of a batch are those of its events, in order, each signed by its device and naming two different tips, but for the faults that
//! the profile asks for: those are marked in the batch's rows. When batches are built and where they go is left to the
//! [`driver`](crate::driver).
//!
//! Keys, ids and signatures of a whole batch are computed together, in the lanes of the signer's instruction set.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use weft_core::{
    DeviceKey, HEAD_BYTES, Head, MESSAGE_BYTES_MIN, MessageId, NetworkId, PayloadKind, SIGNATURE_BYTES,
};
use weft_crypto::sign::BatchSigner;
use weft_crypto::simd::{Context, Hashes};
use zerocopy::IntoBytes as _;

use crate::arrival::{Arrivals, unit};
use crate::clock::RunClock;
use crate::device::{DeviceKeys, hashes_for};
use crate::faults::{Fault, Faults};
use crate::mix::mix;
use crate::payload::{draw_size, write_payload};
use crate::profile::{Content, Profile, Size};
use crate::schedule::{Schedule, Work};
use crate::tips::{TipSlot, choose_parents};

/// Version of the message format that is written here (formats, message).
const VERSION: u8 = 1;

/// BLAKE3 context of message ids (formats, message); a test holds it against the library's own.
const ID_CONTEXT: &str = "weft 2026-11 message v1";

/// One message of a batch, as its measurement needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// How long before the batch's release it was due, microseconds (open loop).
    pub(crate) before_us: u32,
    /// Number of its class.
    pub(crate) class: u8,
    /// What is wrong with it.
    pub(crate) fault: Fault,
}

/// What an audit needs to know of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trail {
    pub(crate) id: MessageId,
    pub(crate) device: u64,
    pub(crate) sequence: u64,
}

/// A signed batch on its way to a connection.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) number: u64,
    pub(crate) release_us: u64,
    pub(crate) rows: Box<[Row]>,
    /// All messages back to back.
    pub(crate) bytes: Bytes,
    /// How long each of them is.
    pub(crate) lengths: Box<[u16]>,
    /// For the audit; empty if there is none.
    pub(crate) trail: Box<[Trail]>,
    /// Device of each message, and whether it has lost its connection; empty unless the topology is direct.
    pub(crate) devices: Box<[(u64, bool)]>,
    /// When it was complete, microseconds since the start.
    pub(crate) ready_us: u64,
}

/// What a class says, without the rest of its profile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Voice {
    pub(crate) content: Content,
    pub(crate) payload: Size,
    pub(crate) faults: Faults,
}

impl Voice {
    /// The voices of a profile's classes.
    pub(crate) fn all(profile: &Profile) -> Box<[Self]> {
        let voice = |class: &crate::profile::Class| Self {
            content: class.content,
            payload: class.payload,
            faults: Faults::new(class.dirty.as_ref().unwrap_or(&profile.dirty)),
        };
        profile.classes.iter().map(voice).collect()
    }
}

/// What all generators of a run share.
#[derive(Debug)]
pub(crate) struct Traffic {
    /// Names the population.
    pub(crate) seed: u64,
    /// Sequence number of a device's message number 0.
    pub(crate) sequence_base: u64,
    pub(crate) network: NetworkId,
    pub(crate) voices: Box<[Voice]>,
    pub(crate) schedule: Schedule,
    pub(crate) clock: RunClock,
    /// The measured time, microseconds since the start.
    pub(crate) measured_us: Range<u64>,
    pub(crate) tips: TipSlot,
    /// Whether batches carry their trail.
    pub(crate) keep_trail: bool,
    /// Whether they carry their devices.
    pub(crate) keep_devices: bool,
}

/// A message under construction.
#[derive(Clone, Copy, Debug)]
struct Draft {
    device: u64,
    /// Whether the device has lost its connection.
    fresh: bool,
    sequence: u64,
    issued_us: u64,
    bits: u64,
    /// Payload, bytes.
    size: usize,
    row: Row,
}

/// Slots of [`Recent`]: 1 MiB a thread.
const RECENT_SLOTS: usize = 1 << 16;

/// The last sequence number of devices that spoke a moment ago. Sequences of drawn processes count milliseconds, so that two messages of a
/// device within one would have the same; the second takes the next. Direct-mapped: a device whose slot another one took is forgotten.
#[derive(Debug)]
struct Recent(Box<[(u64, u64)]>);

impl Recent {
    fn new() -> Self {
        // No device has this number.
        Self(vec![(u64::MAX, 0); RECENT_SLOTS].into())
    }

    /// `sequence`, or the one after the device's last if that is not below it.
    fn above_last(&mut self, device: u64, sequence: u64) -> u64 {
        let slot = &mut self.0[(mix(device) % RECENT_SLOTS as u64) as usize];
        let sequence = if slot.0 == device && slot.1 >= sequence { slot.1.wrapping_add(1) } else { sequence };
        *slot = (device, sequence);
        sequence
    }
}

/// One thread's builder.
pub(crate) struct Generator {
    traffic: Arc<Traffic>,
    /// Only to tell whose events are: a copy of the planner's, as it was at the start.
    arrivals: Arrivals,
    keys: DeviceKeys,
    hashes: Hashes,
    context: Context,
    tips: Vec<MessageId>,
    drafts: Vec<Draft>,
    recent: Recent,
    ids: Vec<[u8; 32]>,
    signatures: Vec<[u8; SIGNATURE_BYTES]>,
    ends: Vec<usize>,
    /// Messages due in the measured time that faults took away, by class.
    missing: Vec<u64>,
}

impl Generator {
    pub(crate) fn new(
        traffic: Arc<Traffic>,
        arrivals: Arrivals,
        key_cache_slots: usize,
        signer: Arc<dyn BatchSigner>,
    ) -> Self {
        Self {
            arrivals,
            hashes: hashes_for(&*signer),
            context: Context::new(ID_CONTEXT),
            keys: DeviceKeys::new(traffic.seed, key_cache_slots, signer),
            tips: Vec::new(),
            drafts: Vec::new(),
            recent: Recent::new(),
            ids: Vec::new(),
            signatures: Vec::new(),
            ends: Vec::new(),
            missing: vec![0; traffic.voices.len()],
            traffic,
        }
    }

    /// Whose messages the batch holds, with the profile's faults.
    fn draft(&mut self, work: &Work) {
        let traffic = &*self.traffic;
        let closed = matches!(traffic.schedule, Schedule::Closed { .. });
        let now_us = traffic.clock.now_us();
        self.drafts.clear();
        let mut any_out_of_order = false;
        for arrival in &work.rows {
            let class = self.arrivals.class(arrival);
            let speaker = self.arrivals.resolve(arrival);
            let Voice { payload, faults, .. } = &traffic.voices[usize::from(class)];
            let fault = faults.draw(speaker.bits);
            if fault == Fault::Missing {
                let measured = traffic.measured_us.contains(&arrival.due_us);
                self.missing[usize::from(class)] += u64::from(measured);
                continue;
            }
            // A device of an open loop sends when its event is due; one of a closed loop, when there is room, which is now.
            let due_us = if closed { now_us } else { arrival.due_us };
            let late_us = if fault == Fault::Late { faults.late_us(speaker.bits) } else { 0 };
            let before_us = work.release_us.saturating_sub(arrival.due_us);
            let row =
                Row { before_us: u32::try_from(before_us).unwrap_or(u32::MAX), class: class as u8, fault };
            let draft = Draft {
                device: speaker.device,
                fresh: traffic.keep_devices && self.arrivals.reconnects(arrival),
                sequence: self
                    .recent
                    .above_last(speaker.device, traffic.sequence_base.wrapping_add(speaker.count)),
                issued_us: traffic.clock.unix_us(due_us).saturating_sub(late_us),
                bits: speaker.bits,
                size: self.arrivals.size(arrival).unwrap_or_else(|| draw_size(payload, speaker.bits)),
                row,
            };
            self.drafts.push(draft);
            if fault == Fault::Duplicate {
                self.drafts.push(draft);
            }
            any_out_of_order |= fault == Fault::OutOfOrder;
        }
        if any_out_of_order {
            exchange_sequences(&mut self.drafts);
        }
    }

    /// Builds and signs the messages of `work`; `None` if faults left nothing of it.
    pub(crate) fn build(&mut self, work: &Work) -> Option<Batch> {
        self.draft(work);
        if self.drafts.is_empty() {
            return None;
        }
        let traffic = &*self.traffic;
        self.keys.load(self.drafts.iter().map(|draft| draft.device));
        traffic.tips.copy_to(&mut self.tips);

        let sizes: usize = self.drafts.iter().map(|draft| draft.size + MESSAGE_BYTES_MIN).sum();
        let mut bytes = Vec::with_capacity(sizes);
        self.ends.clear();
        for (index, draft) in self.drafts.iter().enumerate() {
            let voice = &traffic.voices[usize::from(draft.row.class)];
            let start = bytes.len();
            let size = draft.size;
            let head = Head {
                version: VERSION,
                kind: PayloadKind::DATA,
                // A checked profile has no payload above 16 KiB.
                payload_bytes: (size as u16).into(),
                network: traffic.network,
                issued_at_us: draft.issued_us.into(),
                sequence: draft.sequence.into(),
                issuer: DeviceKey(self.keys.public(index).0),
                parents: choose_parents(&self.tips, mix(draft.bits ^ traffic.sequence_base)),
            };
            bytes.extend_from_slice(head.as_bytes());
            write_payload(voice.content, draft.device, draft.bits, size, &mut bytes);
            debug_assert_eq!(bytes.len() - start, HEAD_BYTES + size);
            // The place of the signature, which follows when all ids are known.
            bytes.extend_from_slice(&[0; SIGNATURE_BYTES]);
            self.ends.push(bytes.len());
        }
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let contents: Vec<&[u8]> =
            starts.clone().zip(&self.ends).map(|(start, end)| &bytes[start..end - SIGNATURE_BYTES]).collect();
        self.ids.clear();
        self.ids.resize(contents.len(), [0; 32]);
        self.hashes.derive(&self.context, &contents, &mut self.ids);
        self.keys.sign(&self.ids, &mut self.signatures);
        for ((end, signature), draft) in self.ends.iter().zip(&mut self.signatures).zip(&self.drafts) {
            if draft.row.fault == Fault::BadSignature {
                // One bit of R, anywhere: never the signature of this message.
                signature[(draft.bits % 31) as usize] ^= 1 << (draft.bits >> 8 & 7);
            }
            bytes[end - SIGNATURE_BYTES..*end].copy_from_slice(signature);
        }
        let lengths = starts.zip(&self.ends).map(|(start, end)| (end - start) as u16).collect();
        let trail = if traffic.keep_trail {
            let trail = |(id, draft): (&[u8; 32], &Draft)| Trail {
                id: MessageId(*id),
                device: draft.device,
                sequence: draft.sequence,
            };
            self.ids.iter().zip(&self.drafts).map(trail).collect()
        } else {
            Box::default()
        };
        let devices = if traffic.keep_devices {
            self.drafts.iter().map(|draft| (draft.device, draft.fresh)).collect()
        } else {
            Box::default()
        };
        Some(Batch {
            number: work.number,
            release_us: work.release_us,
            devices,
            rows: self.drafts.iter().map(|draft| draft.row).collect(),
            bytes: bytes.into(),
            lengths,
            trail,
            ready_us: traffic.clock.now_us(),
        })
    }

    /// Keys derived so far.
    pub(crate) const fn derived_total(&self) -> u64 {
        self.keys.derived_total()
    }

    /// Messages due in the measured time that the profile's faults took away so far, by class.
    pub(crate) fn missing(&self) -> &[u64] {
        &self.missing
    }
}

/// Lets each message that is to be out of order exchange its sequence with the next message of its device in the batch. The later one is
/// marked: its sequence falls, so it is the one that a node may refuse. One that has no such message, or whose next one has a fault of its
/// own, is left as it was and nothing is marked: a sequence from outside the batch might be used already, by a generator on another thread.
fn exchange_sequences(drafts: &mut [Draft]) {
    let mut next: HashMap<u64, usize> = HashMap::new();
    for index in (0..drafts.len()).rev() {
        let device = drafts[index].device;
        if drafts[index].row.fault == Fault::OutOfOrder {
            drafts[index].row.fault = Fault::None;
            if let Some(&later) = next.get(&device)
                && drafts[later].row.fault == Fault::None
                && drafts[later].sequence > drafts[index].sequence
            {
                let sequence = drafts[index].sequence;
                drafts[index].sequence = std::mem::replace(&mut drafts[later].sequence, sequence);
                drafts[later].row.fault = Fault::OutOfOrder;
                // Those before it may not take its sequence again: it would not fall then.
                next.remove(&device);
                continue;
            }
        }
        next.insert(device, index);
    }
}

/// Share of events, as a threshold of mixed bits.
pub(crate) fn happens(bits: u64, share: f64) -> bool {
    share > 0.0 && unit(bits) <= share
}

#[cfg(test)]
mod tests {
    use weft_core::{MessageView, message_id};
    use weft_crypto::sign::SerialSigner;
    use weft_crypto::verify_one;

    use super::*;
    use crate::arrival::{Arrival, Play, Split, Tick};
    use crate::profile::{Dirty, presets};

    fn generator(schedule: Schedule, profile: &Profile, signer: Arc<dyn BatchSigner>) -> (Generator, Work) {
        let play = Play { seed: 4, scale: 1e-6, diurnal: true, start_s: 0.0, split: Split::WHOLE };
        let traffic = Traffic {
            seed: 4,
            sequence_base: 900,
            network: NetworkId([1, 2, 3, 4]),
            voices: Voice::all(profile),
            schedule,
            clock: RunClock::start(),
            measured_us: 0..u64::MAX,
            tips: TipSlot::new([MessageId([1; 32]), MessageId([2; 32])]),
            keep_trail: true,
            keep_devices: true,
        };
        let mut arrivals = Arrivals::new(profile, &play);
        let mut rows: Vec<Arrival> = Vec::new();
        arrivals.fill(&Tick { from_s: 0.0, to_s: 4.0, due_us: 0, length_us: 4_000_000 }, &mut rows);
        rows.sort_by_key(|row| row.due_us);
        assert!(rows.len() > 100, "not vacuous: {} events", rows.len());
        let generator = Generator::new(Arc::new(traffic), arrivals, 64, signer);
        (generator, Work { number: 3, first_event: 0, rows, urgent: false, release_us: 4_000_000 })
    }

    fn messages(batch: &Batch) -> Vec<MessageView<'_>> {
        let mut rest = &batch.bytes[..];
        let mut messages = Vec::new();
        for length in &batch.lengths {
            let (message, tail) = rest.split_at(usize::from(*length));
            messages.push(MessageView::parse(message).unwrap());
            rest = tail;
        }
        assert!(rest.is_empty());
        messages
    }

    fn world() -> Profile {
        presets::load("world-20b").unwrap()
    }

    #[test]
    fn a_batch_holds_valid_messages_of_its_events_in_order() {
        let world = world();
        let (mut generator, work) =
            generator(Schedule::Open { rate_per_s: 92.0 }, &world, Arc::new(SerialSigner));
        let batch = generator.build(&work).unwrap();
        assert_eq!(batch.rows.len(), work.rows.len());
        let mut keys = DeviceKeys::new(4, 8, Arc::new(SerialSigner));
        for (row, message) in messages(&batch).iter().enumerate() {
            let arrival = &work.rows[row];
            let speaker = generator.arrivals.resolve(arrival);
            keys.load([speaker.device]);
            assert_eq!(*message.issuer(), keys.public(0));
            assert_eq!(batch.devices[row], (speaker.device, false));
            assert!(message.sequence() - 900 - speaker.count <= 2);
            let trail = batch.trail[row];
            assert_eq!(
                (trail.id, trail.device, trail.sequence),
                (message.id(), speaker.device, message.sequence())
            );
            assert_eq!(message_id(message.content()), trail.id, "the context is the library's");
            assert!(verify_one(&message.issuer().0, &message.id().0, message.signature()));
            let [first, second] = message.parents();
            assert_ne!(first, second);
            let class = &world.classes[usize::from(batch.rows[row].class)];
            assert!((class.payload.min()..=class.payload.max()).contains(&(message.payload().len() as u32)));
            let intended = generator.traffic.clock.unix_us(arrival.due_us);
            assert_eq!(
                message.issued_at_us(),
                intended,
                "an open loop dates a message with the time it was due"
            );
            assert_eq!(u64::from(batch.rows[row].before_us), work.release_us - arrival.due_us);
        }
    }

    #[test]
    fn messages_of_a_device_within_one_millisecond_have_rising_sequences() {
        let mut recent = Recent::new();
        let sequences: Vec<u64> = [(1, 10), (2, 10), (1, 10), (1, 10), (1, 11), (1, 40), (2, 9)]
            .map(|(device, count)| recent.above_last(device, count))
            .into();
        assert_eq!(sequences, [10, 10, 11, 12, 13, 40, 11]);
    }

    #[test]
    fn every_signer_makes_the_same_batch() {
        let signers = weft_crypto::Backend::ALL.map(|backend| (backend, backend.signer()));
        let mut batches = Vec::new();
        for (backend, signer) in signers {
            let Ok(signer) = signer else {
                eprintln!("SKIPPED {backend}: not detected");
                continue;
            };
            let (mut generator, work) = generator(Schedule::Open { rate_per_s: 92.0 }, &world(), signer);
            let batch = generator.build(&work).unwrap();
            // The clock of the run differs from generator to generator, and everything signed with it.
            let facts: Vec<_> = messages(&batch)
                .iter()
                .map(|message| (message.issuer().0, message.sequence(), message.payload().to_vec()))
                .collect();
            assert!(messages(&batch).iter().all(|message| verify_one(
                &message.issuer().0,
                &message.id().0,
                message.signature()
            )));
            batches.push(facts);
        }
        assert!(batches.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn faults_are_made_as_marked_and_nothing_else_is_wrong() {
        let mut world = world();
        world.dirty = Dirty {
            missing: 0.1,
            late: 0.1,
            late_s_max: 5.0,
            duplicate: 0.1,
            out_of_order: 0.2,
            bad_signature: 0.1,
        };
        let (mut generator, work) =
            generator(Schedule::Open { rate_per_s: 92.0 }, &world, Arc::new(SerialSigner));
        let batch = generator.build(&work).unwrap();
        let missing: u64 = generator.missing().iter().sum();
        let count = |fault| batch.rows.iter().filter(|row| row.fault == fault).count();
        // Few devices of this profile speak twice in a batch, as what is out of order must: that has a test of its own.
        for fault in [Fault::Late, Fault::Duplicate, Fault::BadSignature] {
            assert!(count(fault) > 5, "{fault:?}: {}", count(fault));
        }
        assert!(missing > 5);
        assert_eq!(work.rows.len() + count(Fault::Duplicate) / 2 - missing as usize, batch.rows.len());
        let messages = messages(&batch);
        let mut ids = std::collections::BTreeMap::new();
        for (message, row) in messages.iter().zip(&batch.rows) {
            let valid = verify_one(&message.issuer().0, &message.id().0, message.signature());
            assert_eq!(valid, row.fault != Fault::BadSignature);
            *ids.entry(message.id()).or_insert(0) += 1;
            let due_us = work.release_us - u64::from(row.before_us);
            let late = generator.traffic.clock.unix_us(due_us) - message.issued_at_us();
            assert!(if row.fault == Fault::Late { late < 5_000_000 } else { late == 0 });
        }
        assert_eq!(ids.values().filter(|times| **times == 2).count(), count(Fault::Duplicate) / 2);
    }

    #[test]
    fn a_message_out_of_order_lets_the_sequence_of_its_device_fall_and_no_other_does() {
        // At the scale of these tests: 40 devices that speak every 0.4 s.
        let mut flat = Profile::flat(40_000_000, 32, 1e8);
        flat.dirty = Dirty { out_of_order: 0.2, bad_signature: 0.05, ..Dirty::default() };
        let (mut generator, work) =
            generator(Schedule::Open { rate_per_s: 100.0 }, &flat, Arc::new(SerialSigner));
        let batch = generator.build(&work).unwrap();
        let marked = batch.rows.iter().filter(|row| row.fault == Fault::OutOfOrder).count();
        assert!(marked > 20, "{marked} of {}", batch.rows.len());
        let mut last = std::collections::BTreeMap::new();
        let mut used = std::collections::BTreeSet::new();
        let mut falls = 0;
        for ((message, row), trail) in messages(&batch).iter().zip(&batch.rows).zip(&batch.trail) {
            assert_eq!(message.sequence(), trail.sequence);
            assert!(used.insert((trail.device, trail.sequence)), "a node would take it for a replay");
            let valid = verify_one(&message.issuer().0, &message.id().0, message.signature());
            assert_eq!(valid, row.fault != Fault::BadSignature);
            let last = last.entry(trail.device).or_insert(0);
            let falls_here = trail.sequence < *last;
            assert_eq!(
                falls_here,
                row.fault == Fault::OutOfOrder,
                "what a node may refuse is what is marked"
            );
            falls += usize::from(falls_here);
            *last = trail.sequence.max(*last);
        }
        assert_eq!(falls, marked);
    }

    #[test]
    fn a_device_that_speaks_once_in_a_batch_is_never_out_of_order() {
        let mut flat = Profile::flat(400_000_000, 32, 1e8);
        flat.dirty = Dirty { out_of_order: 1.0, ..Dirty::default() };
        let (mut generator, work) =
            generator(Schedule::Open { rate_per_s: 100.0 }, &flat, Arc::new(SerialSigner));
        let batch = generator.build(&work).unwrap();
        let devices: std::collections::BTreeSet<u64> = batch.trail.iter().map(|trail| trail.device).collect();
        assert_eq!(devices.len(), batch.trail.len(), "each speaks once");
        assert!(batch.rows.iter().all(|row| row.fault == Fault::None));
    }

    #[test]
    fn fresh_tips_become_parents_of_the_next_batch() {
        let (mut generator, work) =
            generator(Schedule::Closed { window: 1 }, &world(), Arc::new(SerialSigner));
        let tips = [MessageId([7; 32]), MessageId([8; 32])];
        generator.traffic.tips.offer(tips);
        let batch = generator.build(&work).unwrap();
        for message in messages(&batch) {
            let mut parents = *message.parents();
            parents.sort_unstable();
            assert_eq!(parents, tips);
        }
    }
}
