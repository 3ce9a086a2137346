//! Whom the fetcher asks, for how long, and when a node has joined.

use super::super::testing::{LANE, ground, keys};
use super::*;

/// A fetcher with three peers that claim to have 20 of lane 1; a subscription to peer 1, its node, which has brought nothing.
fn asking() -> (Fetcher, Instant) {
    let ground = ground();
    let credit = Arc::new(Credit::default());
    let weights = Weights::new(vec![1; 2]);
    let (lanes, health) = (ground.lanes, ground.health);
    let stores = Arc::new(Stores::new(LaneId(0), &keys(), vec![ground.other], health.clone()));
    let shared = (credit, stores, KnownForks::default());
    let mut fetcher = Fetcher::new(lanes, ground.confirm, health, Arc::default(), shared, weights);
    for peer in [LANE, LaneId(2), LaneId(3)] {
        fetcher.connected.insert(peer);
        let lanes = vec![(LANE, LaneEnd { size: 20, root: [1; 32] })];
        fetcher.holdings.insert(peer, Holdings { lanes, followed: Vec::new() });
    }
    let now = fetcher.started;
    let id = fetcher.credit.subscribe(LANE, LANE, |_| Ok::<_, ()>(SubscriptionId(1))).unwrap();
    let behind = (20, now);
    let held = Subscription {
        peer: LANE,
        id,
        size: 0,
        grew: now,
        batches: 0,
        grown: false,
        since: now,
        behind,
        stuck: None,
    };
    fetcher.subscriptions.insert(LANE, held);
    (fetcher, now)
}

#[test]
fn a_holder_is_not_given_up_for_what_this_node_does_not_take() {
    let (mut fetcher, now) = asking();
    let later = |seconds| now + Duration::from_secs(seconds);
    assert_eq!(fetcher.next_source(LANE, 0, now), None, "not at once");
    fetcher.credit.came(LANE, LANE, 1_000);
    assert_eq!(fetcher.next_source(LANE, 0, later(5)), None, "its batches wait here");
    fetcher.credit.withhold(LANE, LANE, 1_000);
    assert_eq!(fetcher.next_source(LANE, 0, later(3_600)), None, "it has no credit");
    assert_eq!(fetcher.credit.release(|_| true).len(), 1);
    assert_eq!(fetcher.next_source(LANE, 0, later(3_600)), Some((None, Some(LANE))), "now it may ship");
    fetcher.credit.came(LANE, LANE, 1_000);
    assert!(fetcher.next_source(LANE, 0, later(3_600)).is_some(), "not for ever for batches of no use");
}

#[test]
fn a_holder_that_ships_a_lane_drop_by_drop_is_given_up_for_one_who_has_it_and_one_that_catches_up_is_not() {
    for (each, given_up) in [(1, true), (3, false)] {
        let (mut fetcher, now) = asking();
        let asked = (1..=12).find_map(|second| {
            fetcher
                .next_source(LANE, each * second, now + Duration::from_secs(second))
                .map(|next| (second, next))
        });
        assert_eq!(asked, given_up.then_some((10, (None, Some(LANE)))), "{each} a second");
    }
    let (mut fetcher, now) = asking();
    fetcher.credit.came(LANE, LANE, 1);
    fetcher.credit.withhold(LANE, LANE, 1);
    for second in 1..=20 {
        let next = fetcher.next_source(LANE, second, now + Duration::from_secs(second));
        assert_eq!(next, None, "it has no credit for more");
    }
}

#[test]
fn a_lane_that_nobody_has_more_of_stays_where_it_is_and_one_that_comes_to_nothing_is_not_asked_at_once() {
    let (mut fetcher, now) = asking();
    assert_eq!(fetcher.next_source(LANE, 20, now + Duration::from_secs(60)), None);
    let (mut fetcher, _) = asking();
    for peer in [LANE, LaneId(2), LaneId(3)] {
        let held = fetcher.subscriptions.values().next().copied().unwrap();
        fetcher.subscriptions.insert(LANE, Subscription { peer, ..held });
        fetcher.take(FetchEvent::Over { lane: LANE, subscription: held.id, lost: false });
        let soon = Instant::now() + AGAIN_AFTER;
        let asked = fetcher.next_source(LANE, 0, soon).is_some();
        assert_eq!(asked, peer != LaneId(3), "as long as there is somebody else");
        fetcher.subscriptions.insert(LANE, held);
    }
}

#[test]
fn peers_that_go_whenever_they_are_asked_for_the_own_lane_do_not_keep_this_node_from_joining() {
    let (mut fetcher, now) = asking();
    let (own, liars) = (LaneId(0), [LaneId(2), LaneId(3)]);
    let claim = || Holdings { lanes: vec![(own, LaneEnd { size: 20, root: [1; 32] })], followed: vec![] };
    liars.iter().for_each(|peer| drop(fetcher.holdings.insert(*peer, claim())));
    fetcher.health.set_state(State::Joining, None);
    let held = fetcher.subscriptions.values().next().copied().unwrap();
    for (peer, state) in liars.into_iter().zip([State::Joining, State::Live]) {
        fetcher.subscriptions.insert(own, Subscription { peer, ..held });
        fetcher.take(FetchEvent::Over { lane: own, subscription: held.id, lost: true });
        fetcher.take(FetchEvent::Disconnected(peer));
        // It is back at once, with the same claim.
        fetcher.take(FetchEvent::Connected(peer));
        fetcher.take(FetchEvent::Holdings(peer, claim(), Hold::free()));
        fetcher.judge_state(now + CLAIM_WAIT);
        assert_eq!(fetcher.health.state(), state, "once both were asked");
    }
}

#[test]
fn a_claim_to_know_of_an_own_witness_that_this_node_does_not_is_looked_into_before_it_joins() {
    for (claimed, state) in [(1, State::Joining), (0, State::Live)] {
        let (mut fetcher, now) = asking();
        let followed = vec![(0, claimed)];
        fetcher.holdings.insert(LaneId(2), Holdings { lanes: Vec::new(), followed });
        fetcher.health.set_state(State::Joining, None);
        fetcher.judge_state(now + JOIN_WAIT);
        assert_eq!(fetcher.health.state(), state);
        fetcher.judge_state(now + CLAIM_WAIT);
        assert_eq!(fetcher.health.state(), State::Live, "but not for ever");
    }
}

#[test]
fn a_claim_to_know_more_of_this_node_than_it_does_is_not_gone_with_the_connection_of_who_made_it() {
    let own = LaneId(0);
    let claims = [
        Holdings { lanes: vec![(own, LaneEnd { size: 20, root: [1; 32] })], followed: vec![] },
        Holdings { lanes: Vec::new(), followed: vec![(0, 1)] },
    ];
    for claim in claims {
        let (mut fetcher, now) = asking();
        fetcher.subscriptions.clear();
        fetcher.holdings.insert(LaneId(2), claim);
        fetcher.health.set_state(State::Joining, None);
        fetcher.take(FetchEvent::Disconnected(LaneId(2)));
        fetcher.judge_state(now + JOIN_WAIT);
        assert_eq!(fetcher.health.state(), State::Joining);
        fetcher.judge_state(now + CLAIM_WAIT);
        assert_eq!(fetcher.health.state(), State::Live, "but not for ever");
    }
}

#[test]
fn what_less_than_a_third_claims_makes_nobody_catch_up() {
    let weights = Weights::new(vec![1; 4]);
    let much = 2 * LAG_POSITIONS;
    let behind = |claims: &[(u64, u64)], size, applied, moves| {
        is_behind(&weights, claims.to_vec(), size, applied, moves)
    };
    assert!(!behind(&[(u64::MAX, 1), (10, 1), (10, 1)], 10, 10, true), "one liar");
    assert!(!behind(&[(u64::MAX, 1), (u64::MAX, 0)], 10, 10, true), "one without a vote helps nothing");
    assert!(behind(&[(u64::MAX, 1), (much, 1), (10, 1)], 10, 10, true), "a third says so");
    assert!(behind(&[], much, 10, true), "it lies in the log");
    assert!(!behind(&[], much, 10, false), "and nothing of it can be applied");
    assert!(!behind(&[(much, 1), (much, 1)], much, 10, false), "nor can it elsewhere");
    assert!(!behind(&[(LAG_POSITIONS, 1), (LAG_POSITIONS, 1)], 0, 0, true));
}
