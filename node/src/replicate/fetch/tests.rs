//! Whom the fetcher asks, for how long, and when a node has joined.

use weft_storage::{LaneLog, SimDisk};

use super::super::testing::{LANE, ground, keys, log};
use super::*;

/// A fetcher of lane 0 of so many, which is joining, with these weights; nobody is there yet.
fn joining(lanes: u16, weights: &[u64]) -> (Fetcher, Instant) {
    let ground = ground();
    let disk = SimDisk::new(2);
    let logs: Vec<LaneLog> = (0..lanes).map(|lane| log(&disk, LaneId(lane))).collect();
    let mut readers = logs.iter().map(|log| log.reader.clone());
    let lanes = Lanes::new(LaneId(0), readers.next().unwrap(), readers);
    let health = ground.health;
    let stores = Arc::new(Stores::new(LaneId(0), &keys(), vec![ground.other], health.clone()));
    let shared = (Arc::new(Credit::default()), stores, KnownForks::default());
    let weights = Weights::new(weights.to_vec());
    health.set_state(State::Joining, None);
    let fetcher = Fetcher::new(lanes, ground.confirm, health, Arc::default(), shared, weights);
    let now = fetcher.started;
    (fetcher, now)
}

fn holdings(size: u64) -> Holdings {
    let lanes = vec![(LaneId(0), LaneEnd { size, root: [1; 32] })];
    Holdings { lanes, followed: Vec::new() }
}

/// A peer comes and says that it has so much of lane 0.
fn says(fetcher: &mut Fetcher, peer: u16, size: u64) {
    fetcher.take(FetchEvent::Connected(LaneId(peer)));
    fetcher.take(FetchEvent::Holdings(LaneId(peer), holdings(size), Hold::free()));
}

fn subscribed(peer: LaneId, now: Instant) -> Subscription {
    Subscription {
        peer,
        id: SubscriptionId(1),
        size: 0,
        grew: now,
        batches: 0,
        grown: false,
        since: now,
        behind: (20, now),
        stuck: None,
    }
}

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
    let held = Subscription { id, ..subscribed(LANE, now) };
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
    liars.iter().for_each(|peer| says(&mut fetcher, peer.0, 20));
    fetcher.health.set_state(State::Joining, None);
    let held = fetcher.subscriptions.values().next().copied().unwrap();
    for (peer, state) in liars.into_iter().zip([State::Joining, State::Live]) {
        fetcher.subscriptions.insert(own, Subscription { peer, ..held });
        fetcher.take(FetchEvent::Over { lane: own, subscription: held.id, lost: true });
        fetcher.take(FetchEvent::Disconnected(peer));
        // It is back at once, with the same claim.
        says(&mut fetcher, peer.0, 20);
        fetcher.judge_state(now + CLAIM_WAIT);
        assert_eq!(fetcher.health.state(), state, "once both were asked");
    }
}

#[test]
fn a_claim_to_know_of_an_own_witness_that_this_node_does_not_is_looked_into_before_it_joins() {
    for (claimed, state) in [(1, State::Joining), (0, State::Live)] {
        let (mut fetcher, now) = asking();
        let claim = Holdings { lanes: Vec::new(), followed: vec![(0, claimed)] };
        fetcher.take(FetchEvent::Holdings(LaneId(2), claim, Hold::free()));
        fetcher.health.set_state(State::Joining, None);
        fetcher.judge_state(now + JOIN_WAIT);
        assert_eq!(fetcher.health.state(), state);
        fetcher.judge_state(now + CLAIM_WAIT);
        assert_eq!(fetcher.health.state(), State::Live, "but not for ever");
    }
}

#[test]
fn a_claim_to_know_more_of_this_node_than_it_does_is_not_gone_with_the_connection_or_the_next_word_of_who_made_it()
 {
    let witness = Holdings { lanes: Vec::new(), followed: vec![(0, 1)] };
    for (claim, gone) in
        [(holdings(20), true), (holdings(20), false), (witness.clone(), true), (witness, false)]
    {
        let (mut fetcher, now) = joining(2, &[1, 1]);
        let peer = LaneId(1);
        fetcher.take(FetchEvent::Connected(peer));
        fetcher.take(FetchEvent::Holdings(peer, claim, Hold::free()));
        if gone {
            fetcher.take(FetchEvent::Disconnected(peer));
        } else {
            // It takes back what it has said.
            says(&mut fetcher, 1, 0);
        }
        fetcher.judge_state(now + JOIN_WAIT);
        assert_eq!(fetcher.health.state(), State::Joining);
        fetcher.judge_state(now + CLAIM_WAIT);
        assert_eq!(fetcher.health.state(), State::Live, "but not for ever");
    }
}

/// The own weight says nothing: this node would not know what it has forgotten.
#[test]
fn a_node_joins_at_once_only_when_a_quorum_of_others_or_everybody_has_said_what_they_hold_of_its_lane() {
    let cases: [(&[u64], &[u16], State); 11] = [
        (&[1, 1, 1, 1], &[], State::Joining),
        (&[1, 1, 1, 1], &[1, 2], State::Joining),
        (&[1, 1, 1, 1], &[1, 2, 3], State::Live),
        (&[1, 3, 3, 3], &[1, 2], State::Joining),
        (&[1, 4, 4, 1], &[1, 2], State::Live),
        // The own weight is a quorum, or leaves none.
        (&[1], &[], State::Joining),
        (&[1], &[1, 2], State::Joining),
        (&[1], &[1, 2, 3], State::Live),
        (&[2, 1, 1, 1], &[1, 2, 3], State::Live),
        // Without it the others are no quorum, whoever they are: all of them, but for those without a vote.
        (&[1, 1], &[2, 3], State::Joining),
        (&[1, 1], &[1], State::Live),
    ];
    for (weights, heard, state) in cases {
        let (mut fetcher, now) = joining(4, weights);
        heard.iter().for_each(|peer| says(&mut fetcher, *peer, 0));
        fetcher.judge_state(now + Duration::from_millis(50));
        assert_eq!(fetcher.health.state(), state, "{weights:?}, {heard:?}");
        fetcher.judge_state(now + JOIN_WAIT);
        assert_eq!(fetcher.health.state(), State::Live, "but not for ever");
    }
}

#[test]
fn a_node_does_not_join_while_what_it_may_have_forgotten_is_on_its_way_for_two_minutes_at_most() {
    let own = LaneId(0);
    for bytes in [0, 1] {
        let (mut fetcher, now) = joining(4, &[1; 4]);
        says(&mut fetcher, 1, 20);
        says(&mut fetcher, 2, 0);
        says(&mut fetcher, 3, 0);
        // It came to nothing once; now something comes, far below the least rate.
        fetcher.sources.failed(own, LaneId(1), now);
        fetcher.subscriptions.insert(own, subscribed(LaneId(1), now));
        fetcher.arrived.bytes = bytes;
        let (slow, comes) = (now + Duration::from_secs(20), bytes > 0);
        assert_eq!(fetcher.next_source(own, 0, slow).is_none(), comes, "{bytes} bytes have come");
        fetcher.subscriptions.insert(own, subscribed(LaneId(1), now));
        fetcher.judge_state(now + CLAIM_WAIT);
        let state = if comes { State::Joining } else { State::Live };
        assert_eq!(fetcher.health.state(), state, "{bytes} bytes have come");
        fetcher.judge_state(now + CLAIM_WAIT_MAX);
        assert_eq!(fetcher.health.state(), State::Live, "but not for ever");
    }
}

#[test]
fn who_sends_a_little_of_this_nodes_lane_keeps_it_from_nobody_else_who_claims_to_have_more() {
    let own = LaneId(0);
    let (mut fetcher, now) = joining(4, &[1; 4]);
    (1..4).for_each(|peer| says(&mut fetcher, peer, 20));
    fetcher.arrived.bytes = 1;
    fetcher.subscriptions.insert(own, subscribed(LaneId(1), now));
    let next = fetcher.next_source(own, 0, now + STALLED);
    assert_eq!(next, Some((None, Some(LaneId(1)))), "the next one is asked");
    for peer in [2, 3] {
        fetcher.judge_state(now + CLAIM_WAIT_MAX);
        assert_eq!(fetcher.health.state(), State::Joining, "{peer} was not asked yet");
        fetcher.subscriptions.insert(own, subscribed(LaneId(peer), now));
        // It goes when it is asked, and comes again.
        fetcher.take(FetchEvent::Disconnected(LaneId(peer)));
        says(&mut fetcher, peer, 20);
    }
    fetcher.judge_state(now + CLAIM_WAIT_MAX);
    assert_eq!(fetcher.health.state(), State::Live);
}

#[test]
fn all_who_claim_more_of_this_nodes_lane_are_asked_quickly_and_then_waited_for() {
    let own = LaneId(0);
    let (mut fetcher, now) = joining(4, &[1; 4]);
    (1..4).for_each(|peer| says(&mut fetcher, peer, 20));
    let at = |seconds| now + Duration::from_secs(seconds);
    (1..4).for_each(|peer| fetcher.sources.failed(own, LaneId(peer), now));
    fetcher.arrived.bytes = 1;
    fetcher.subscriptions.insert(own, subscribed(LaneId(1), at(4)));
    assert_eq!(fetcher.next_source(own, 0, at(33)), None, "a slow link, or who sends slowly");
    fetcher.judge_state(at(33));
    assert!(fetcher.next_source(own, 0, at(34)).is_some(), "not for ever");
    // The next one, of whom nothing has come yet.
    fetcher.arrived.bytes = 0;
    fetcher.subscriptions.insert(own, subscribed(LaneId(2), at(34)));
    fetcher.judge_state(at(34));
    assert_eq!(fetcher.health.state(), State::Joining, "something was on its way a second ago");
    fetcher.judge_state(at(33) + CLAIM_WAIT);
    assert_eq!(fetcher.health.state(), State::Live, "and nothing since");
}

#[test]
fn a_node_joins_in_the_end_whoever_claims_more_of_its_lane_and_cannot_be_asked() {
    let (mut fetcher, now) = joining(4, &[1; 4]);
    (1..4).for_each(|peer| says(&mut fetcher, peer, 20));
    fetcher.judge_state(now + CLAIM_WAIT_MAX + 3 * SLOW - TICK);
    assert_eq!(fetcher.health.state(), State::Joining);
    fetcher.judge_state(now + CLAIM_WAIT_MAX + 3 * SLOW);
    assert_eq!(fetcher.health.state(), State::Live);
}

#[test]
fn holders_of_a_stuck_lane_have_their_time_each() {
    let (mut fetcher, now) = asking();
    let at = |seconds| now + Duration::from_secs(seconds);
    assert_eq!(fetcher.next_holder(LANE, 10, now), None);
    assert_eq!(fetcher.next_holder(LANE, 10, at(2)), Some(LaneId(2)));
    fetcher.subscriptions.insert(LANE, subscribed(LaneId(2), at(2)));
    assert_eq!(fetcher.next_holder(LANE, 10, at(2) + TICK), None, "a round trip takes longer than a look");
    assert_eq!(fetcher.next_holder(LANE, 10, at(4)), Some(LaneId(3)));
}

#[test]
fn a_batch_that_comes_for_a_stuck_lane_is_given_up_for_another_holder_only_and_later_each_time() {
    let (mut fetcher, now) = asking();
    let at = |seconds| now + Duration::from_secs(seconds);
    fetcher.arrived.bytes = u64::MAX;
    assert_eq!(fetcher.next_holder(LANE, 10, now), None, "it may still move");
    assert_eq!(fetcher.next_holder(LANE, 10, at(59)), None, "a batch is on its way");
    assert_eq!(fetcher.next_holder(LANE, 10, at(60)), Some(LaneId(2)));
    fetcher.subscriptions.insert(LANE, subscribed(LaneId(2), at(60)));
    assert_eq!(fetcher.next_holder(LANE, 10, at(60 + 119)), None, "twice as long");
    assert_eq!(fetcher.next_holder(LANE, 10, at(60 + 120)), Some(LaneId(3)));
    // It has moved: from the beginning.
    assert_eq!(fetcher.next_holder(LANE, 11, at(200)), None);
    fetcher.subscriptions.insert(LANE, subscribed(LaneId(3), at(200)));
    assert_eq!(fetcher.next_holder(LANE, 11, at(260)), Some(LANE));

    let (mut fetcher, now) = asking();
    fetcher.arrived.bytes = u64::MAX;
    for peer in [LaneId(2), LaneId(3)] {
        fetcher.holdings.remove(&peer);
    }
    fetcher.next_holder(LANE, 10, now);
    assert_eq!(fetcher.next_holder(LANE, 10, now + Duration::from_secs(3_600)), None, "nobody else has it");
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
