//! What this node does for its peers: shipping lanes and chains from its logs, and handing on what comes.
//!
//! Owns the callbacks. Invariants: those that run on network tasks push into a queue and return; what is shipped is durable here; every
//! batch that comes is counted against its sender before it is queued.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam::channel::Sender;
use weft_core::merkle::EMPTY_ROOT;
use weft_core::{LaneId, NodeKey};
use weft_net::ErrorCode;
use weft_net::peer::{
    CosignAnswer, Hold, Holdings, LaneEnd, NotCosigned, PeerCode, PeerService, ShipAnswer, ShipCursor,
    ShipEnd, Shipping, SubscriptionId,
};
use weft_storage::LogReader;

use super::chains::{self, Chains};
use super::credit::Credit;
use super::fetch::FetchEvent;
use super::intake::{Bulk, Counted, Shipped, Urgent};
use crate::lanes::Lanes;
use crate::receipts::cosign::Cosigner;

/// The service.
#[derive(Debug)]
pub struct Service {
    /// To the intake, ahead of batches.
    pub urgent: Sender<Urgent>,
    /// To the intake.
    pub bulk: Sender<Bulk>,
    /// What has come and waits.
    pub credit: Arc<Credit>,
    /// To whoever decides what is asked of whom.
    pub fetch: Sender<FetchEvent>,
    /// All logs.
    pub lanes: Lanes,
    /// Keys of all nodes.
    pub keys: Vec<NodeKey>,
    /// Recent witnesses.
    pub chains: Arc<Chains>,
    /// Judges what this node cosigns.
    pub cosigner: Arc<Cosigner>,
}

/// Reads a lane forward.
struct Cursor {
    reader: LogReader,
    at: u64,
    cuts: u64,
}

impl ShipCursor for Cursor {
    fn read(&mut self, bytes_max: usize, out: &mut Vec<Bytes>) -> Result<(), ShipEnd> {
        let durable = self.reader.durable_size();
        // Also where nothing is left to read: a log that was cut below this place may end before it.
        if self.reader.cuts() != self.cuts {
            return Err(ShipEnd::Changed);
        }
        let mut bytes = 0;
        while bytes < bytes_max && self.at < durable {
            let batch = self.reader.batch_at(self.at).map_err(|_| ShipEnd::Failed)?;
            if self.reader.cuts() != self.cuts {
                return Err(ShipEnd::Changed);
            }
            let Some(batch) = batch.filter(|batch| batch.first == self.at && batch.size <= durable) else {
                break;
            };
            self.at = batch.size;
            bytes += batch.bytes.len();
            out.push(Bytes::from_owner(batch.bytes));
        }
        Ok(())
    }
}

impl PeerService for Service {
    fn connected(&self, peer: LaneId) {
        tracing::info!(%peer, "connected to a peer");
        let _ = self.fetch.send(FetchEvent::Connected(peer));
    }

    fn disconnected(&self, peer: LaneId, code: Option<PeerCode>, reason: &str) {
        tracing::info!(%peer, ?code, reason, "a peer is gone");
        let _ = self.fetch.send(FetchEvent::Disconnected(peer));
    }

    fn witness(&self, peer: LaneId, message: Bytes, hold: Hold) {
        let _ = self.urgent.send(Urgent::Witness { peer, message, hold });
    }

    fn holdings(&self, peer: LaneId, holdings: Holdings, hold: Hold) {
        let _ = self.fetch.send(FetchEvent::Holdings(peer, holdings, hold));
    }

    fn fork_proof(&self, peer: LaneId, lane: LaneId, batches: [Bytes; 2], hold: Hold) {
        let _ = self.urgent.send(Urgent::Proof {
            peer,
            lane,
            batches: batches.into(),
            room: Counted::Held(hold),
        });
    }

    fn forked(&self, peer: LaneId, proof: Bytes, hold: Hold) {
        let _ = self.urgent.send(Urgent::Forked { peer, proof, hold });
    }

    fn batch(&self, peer: LaneId, lane: LaneId, subscription: SubscriptionId, batch: Bytes) {
        self.credit.came(peer, lane, batch.len() as u64);
        let _ = self.bulk.send(Bulk::Batch(Shipped { peer, lane, subscription, batch }));
    }

    fn shipping(&self, peer: LaneId, lane: LaneId, subscription: SubscriptionId, event: Shipping) {
        let lost = match event {
            Shipping::Started(end) => {
                let _ = self.bulk.send(Bulk::Started { peer, lane, subscription, end });
                return;
            }
            Shipping::Fork(batch) => {
                // It came outside the credit, and counts all the same.
                let bytes = batch.len() as u64;
                self.credit.came(peer, lane, bytes);
                let room = Counted::Credit(bytes);
                let _ = self.urgent.send(Urgent::Proof { peer, lane, batches: vec![batch], room });
                false
            }
            Shipping::NotHeld { .. } => false,
            Shipping::Ended(end) => end == ShipEnd::Lost,
        };
        let _ = self.fetch.send(FetchEvent::Over { lane, subscription, lost });
    }

    fn chain_done(&self, peer: LaneId, validator: u16, received: u32, complete: bool) {
        let _ = self.fetch.send(FetchEvent::ChainDone { peer, validator, more: complete && received > 0 });
    }

    fn ship(&self, _: LaneId, lane: LaneId, ends: &[LaneEnd]) -> ShipAnswer {
        let Some(reader) = self.lanes.get(lane) else { return ShipAnswer::NotHeld { held: 0 } };
        let (cuts, durable) = (reader.cuts(), reader.durable_size());
        let is_held = |end: &LaneEnd| {
            if end.size == 0 {
                return end.root == EMPTY_ROOT;
            }
            let batch = reader.batch_ending_at(end.size).ok().flatten();
            end.size <= durable && batch.is_some_and(|batch| batch.root() == Some(end.root))
        };
        let mut sorted = ends.to_vec();
        sorted.sort_unstable_by_key(|end| std::cmp::Reverse(end.size));
        if let Some(end) = sorted.iter().find(|end| is_held(end)) {
            let cursor = Cursor { reader: reader.clone(), at: end.size, cuts };
            return ShipAnswer::From(*end, Box::new(cursor));
        }
        // The lowest end is what the asker has as final, or the lowest that it has: an own batch across it contradicts it.
        let lowest = sorted.last().filter(|end| end.size > 0 && end.size <= durable);
        let batch = lowest.and_then(|end| reader.batch_at(end.size - 1).ok().flatten());
        match batch.filter(|batch| batch.size <= durable) {
            Some(batch) => ShipAnswer::Fork(Bytes::from_owner(batch.bytes)),
            None => ShipAnswer::NotHeld { held: durable },
        }
    }

    fn chain(&self, _: LaneId, validator: u16, after: u64, count: usize, bytes_max: usize) -> Vec<Bytes> {
        let recent = self.chains.recent(validator, after, count, bytes_max);
        if !recent.is_empty() {
            return recent;
        }
        let lane = LaneId(validator);
        match (self.lanes.get(lane), self.keys.get(usize::from(validator))) {
            (Some(reader), Some(key)) if self.chains.knows(validator) => {
                chains::stored(reader, key, after, count, bytes_max)
            }
            _ => Vec::new(),
        }
    }

    fn cosign(&self, peer: LaneId, lane: LaneId, end: LaneEnd) -> CosignAnswer {
        match self.cosigner.cosign(lane, end.size, &end.root) {
            Ok(cosignature) => {
                CosignAnswer::Given { time_s: cosignature.time_s, signature: cosignature.signature }
            }
            Err(refusal) => {
                tracing::debug!(%peer, %lane, size = end.size, why = refusal.text, "not cosigned");
                CosignAnswer::Refused(match refusal.code {
                    ErrorCode::NotYet => NotCosigned::NotFinal,
                    ErrorCode::NotFound => NotCosigned::NoSuch,
                    ErrorCode::Unsupported => NotCosigned::NoVote,
                    _ => NotCosigned::Failed,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam::channel::unbounded;

    use weft_core::Genesis;

    use super::super::testing::{Author, LANE, ground, keys, own_signer, stores};
    use super::*;

    /// Of a node that has no lane to sign.
    fn cosigner() -> Arc<Cosigner> {
        let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
        let genesis = Genesis::single("test", 1, own_signer().public());
        Arc::new(Cosigner::new(&genesis, key, Vec::new(), Arc::new(|_| 0)).unwrap())
    }

    #[test]
    fn what_a_holder_answers_to_a_locator_counts_against_its_credit_like_what_it_ships() {
        let (urgent_in, urgent) = unbounded();
        let (bulk, _bulk) = unbounded();
        let (fetch, over) = unbounded();
        let credit = Arc::new(Credit::default());
        let service = Service {
            urgent: urgent_in,
            bulk,
            credit: credit.clone(),
            fetch,
            lanes: ground().lanes,
            keys: keys().to_vec(),
            chains: Arc::new(Chains::new(2)),
            cosigner: cosigner(),
        };
        let (peer, batch) = (LaneId(3), Author::new().batch(b"other"));
        service.shipping(peer, LANE, SubscriptionId(1), Shipping::Fork(batch.clone()));
        assert!(credit.waits(peer, LANE).0);
        let Ok(Urgent::Proof { room: Counted::Credit(bytes), .. }) = urgent.try_recv() else {
            panic!("a proof")
        };
        assert_eq!(bytes, batch.len() as u64);
        let ended = over.try_recv();
        assert!(matches!(ended, Ok(FetchEvent::Over { lane: LANE, lost: false, .. })), "{ended:?}");
        service.shipping(peer, LANE, SubscriptionId(2), Shipping::Ended(ShipEnd::Lost));
        assert!(matches!(over.try_recv(), Ok(FetchEvent::Over { lost: true, .. })));
    }

    #[test]
    fn a_cursor_beyond_the_place_where_its_lane_was_cut_says_that_the_lane_has_changed() {
        let (stores, reader, _) = stores();
        let mut author = Author::new();
        let (shared, gone) = (author.batch(b"shared"), author.batch(b"gone"));
        for batch in [&shared, &gone] {
            stores.take(LANE, batch, None).unwrap();
        }
        stores.sync(|_, _, _| {}).unwrap();
        let mut cursor = Cursor { reader: reader.clone(), at: 0, cuts: reader.cuts() };
        let mut out = Vec::new();
        assert!(cursor.read(1 << 20, &mut out).is_ok() && out == [shared.clone(), gone]);
        assert!(cursor.read(1 << 20, &mut out).is_ok() && out.len() == 2, "nothing more for now");
        let from = weft_core::BatchView::parse(&shared).unwrap().size();
        stores.switch(LANE, from, &[], || {}).unwrap();
        assert_eq!(cursor.read(1 << 20, &mut out), Err(ShipEnd::Changed), "though there is nothing to read");
    }
}
