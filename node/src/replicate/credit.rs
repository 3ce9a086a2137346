//! Bytes of lanes that peers have sent and that they have no credit for again.
//!
//! Owns the count: by peer and lane what waits in memory, and what lies in a log too far ahead of what is applied and is not given back
//! yet. It belongs to the peer and the lane, not to a subscription: one that is taken anew starts with what is left of the credit, so that
//! what a peer can make this node hold does not depend on how often it is asked. Invariants: of one peer and lane at most
//! [`LANE_BYTES`] and one batch are outstanding, and a peer that has [`PEER_BYTES`] in memory is asked for nothing more; what is consumed is
//! given back once, to the subscription that is in force by then.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use weft_core::LaneId;
use weft_net::peer::SubscriptionId;

/// Credit of one lane at one peer: a batch of the usual longest, and the next ones on their way.
pub const LANE_BYTES: u64 = 8 << 20;

/// Bytes of one peer in memory from which on nothing more is asked of it.
pub const PEER_BYTES: u64 = 16 << 20;

/// What a subscription is worth taking for.
const LEAST_BYTES: u64 = 64 << 10;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Flow {
    /// In memory.
    queued: u64,
    /// In the log, and kept back.
    withheld: u64,
    subscription: Option<SubscriptionId>,
}

/// The flows from all peers. Bounded: one for each lane that a peer was asked for and that something is left of.
#[derive(Debug, Default)]
pub struct Credit {
    flows: Mutex<BTreeMap<(LaneId, LaneId), Flow>>,
}

/// Credit to give back.
pub type Grant = (SubscriptionId, u64);

impl Credit {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(LaneId, LaneId), Flow>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Subscribes by `start`, which is told the credit, if there is some left.
    pub fn subscribe<E>(
        &self,
        peer: LaneId,
        lane: LaneId,
        start: impl FnOnce(u64) -> Result<SubscriptionId, E>,
    ) -> Option<SubscriptionId> {
        // Held until the subscription is known: what comes meanwhile waits for it.
        let mut flows = self.lock();
        let of_peer: u64 =
            flows.range((peer, LaneId(0))..=(peer, LaneId(u16::MAX))).map(|(_, flow)| flow.queued).sum();
        let flow = flows.get(&(peer, lane)).copied().unwrap_or_default();
        let left = LANE_BYTES.saturating_sub(flow.queued + flow.withheld);
        let left = left.min(PEER_BYTES.saturating_sub(of_peer));
        if left < LEAST_BYTES {
            return None;
        }
        let subscription = start(left).ok()?;
        flows.entry((peer, lane)).or_default().subscription = Some(subscription);
        Some(subscription)
    }

    /// The subscription is over; what came by it still counts.
    pub fn over(&self, peer: LaneId, lane: LaneId, subscription: SubscriptionId) {
        let mut flows = self.lock();
        if let Some(flow) = flows.get_mut(&(peer, lane))
            && flow.subscription == Some(subscription)
        {
            flow.subscription = None;
            let empty = *flow == Flow::default();
            if empty {
                flows.remove(&(peer, lane));
            }
        }
    }

    /// Bytes have come and are in memory.
    pub fn came(&self, peer: LaneId, lane: LaneId, bytes: u64) {
        self.lock().entry((peer, lane)).or_default().queued += bytes;
    }

    /// Bytes are in memory no more: what is to be given back for them.
    #[must_use]
    pub fn consumed(&self, peer: LaneId, lane: LaneId, bytes: u64) -> Option<Grant> {
        let mut flows = self.lock();
        let flow = flows.get_mut(&(peer, lane))?;
        flow.queued = flow.queued.saturating_sub(bytes);
        let subscription = flow.subscription;
        if *flow == Flow::default() {
            flows.remove(&(peer, lane));
        }
        subscription.map(|subscription| (subscription, bytes))
    }

    /// Bytes are in the log, and credit for them is kept back.
    pub fn withhold(&self, peer: LaneId, lane: LaneId, bytes: u64) {
        let mut flows = self.lock();
        let flow = flows.entry((peer, lane)).or_default();
        flow.queued = flow.queued.saturating_sub(bytes);
        flow.withheld += bytes;
    }

    /// Credit that was kept back and may be given back now, by `may` for a lane.
    #[must_use]
    pub fn release(&self, may: impl Fn(LaneId) -> bool) -> Vec<Grant> {
        let mut grants = Vec::new();
        self.lock().retain(|(_, lane), flow| {
            if flow.withheld > 0 && may(*lane) {
                let bytes = std::mem::take(&mut flow.withheld);
                grants.extend(flow.subscription.map(|subscription| (subscription, bytes)));
            }
            *flow != Flow::default()
        });
        grants
    }

    /// Whether batches of `lane` from `peer` are in memory, and whether credit for some of it is kept back.
    pub fn waits(&self, peer: LaneId, lane: LaneId) -> (bool, bool) {
        self.lock().get(&(peer, lane)).map_or((false, false), |flow| (flow.queued > 0, flow.withheld > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: LaneId = LaneId(2);
    const LANE: LaneId = LaneId(1);

    fn subscribe(credit: &Credit, peer: LaneId, lane: LaneId, number: u64) -> Option<u64> {
        let mut given = None;
        credit.subscribe(peer, lane, |bytes| {
            given = Some(bytes);
            Ok::<_, ()>(SubscriptionId(number))
        })?;
        given
    }

    #[test]
    fn subscribing_anew_does_not_give_a_peer_more_than_its_credit() {
        let credit = Credit::default();
        assert_eq!(subscribe(&credit, PEER, LANE, 1), Some(LANE_BYTES));
        credit.came(PEER, LANE, LANE_BYTES - 100_000);
        credit.over(PEER, LANE, SubscriptionId(1));
        assert_eq!(subscribe(&credit, PEER, LANE, 2), Some(100_000), "what is left of it");
        credit.came(PEER, LANE, 90_000);
        credit.over(PEER, LANE, SubscriptionId(2));
        assert_eq!(subscribe(&credit, PEER, LANE, 3), None, "too little is left");
        // What the first subscription brought is given back to the one that is in force.
        assert_eq!(credit.consumed(PEER, LANE, 90_000), None);
        assert_eq!(subscribe(&credit, PEER, LANE, 4), Some(100_000));
        let grant = credit.consumed(PEER, LANE, LANE_BYTES - 100_000);
        assert_eq!(grant, Some((SubscriptionId(4), LANE_BYTES - 100_000)));
        credit.over(PEER, LANE, SubscriptionId(4));
        assert!(credit.lock().is_empty(), "nothing is left behind");
    }

    #[test]
    fn what_a_peer_has_in_memory_bounds_what_it_is_asked_for_in_other_lanes() {
        let credit = Credit::default();
        for lane in 3..5 {
            assert_eq!(subscribe(&credit, PEER, LaneId(lane), 1), Some(LANE_BYTES));
            credit.came(PEER, LaneId(lane), LANE_BYTES);
        }
        assert_eq!(subscribe(&credit, PEER, LANE, 2), None);
        assert_eq!(subscribe(&credit, LaneId(7), LANE, 2), Some(LANE_BYTES), "another peer");
        credit.withhold(PEER, LaneId(3), LANE_BYTES);
        assert_eq!(
            subscribe(&credit, PEER, LANE, 2),
            Some(LANE_BYTES),
            "what is in a log is in memory no more"
        );
    }

    #[test]
    fn credit_that_is_kept_back_is_given_back_once_and_to_the_subscription_in_force() {
        let credit = Credit::default();
        let _ = subscribe(&credit, PEER, LANE, 1);
        credit.came(PEER, LANE, 500);
        assert_eq!(credit.waits(PEER, LANE), (true, false));
        credit.withhold(PEER, LANE, 500);
        assert_eq!(credit.waits(PEER, LANE), (false, true));
        credit.over(PEER, LANE, SubscriptionId(1));
        assert_eq!(subscribe(&credit, PEER, LANE, 2), Some(LANE_BYTES - 500));
        assert_eq!(credit.release(|_| false), []);
        assert_eq!(credit.release(|lane| lane == LANE), [(SubscriptionId(2), 500)]);
        assert_eq!(credit.release(|_| true), []);
    }
}
