//! Chosen executions of a small cluster without network, disk or chance: each test tells one story that a rule of
//! confirmation exists for, and where it matters tells it again with that rule weakened.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "confirm_cluster/cluster.rs"]
#[allow(dead_code, reason = "each file of tests tells its own stories")]
mod cluster;

use cluster::{Cluster, Pay, claim};
use weft_core::LaneId;
use weft_core::confirm::{Claim, Effect, Rule, Witness};

/// Four validators, of which the last one lies; an honest ingest node and a lying one.
const H: usize = 4;
const X: usize = 5;
const LIAR: usize = 3;

fn four(weaken: Option<Rule>) -> Cluster {
    Cluster::new(4, 2, &[LIAR, X], weaken)
}

#[test]
fn one_node_is_a_cluster_of_one() {
    let mut cluster = Cluster::new(1, 0, &[], None);
    cluster.data(0);
    assert_eq!(cluster.marks(0, 0).final_size, 0);
    cluster.tick(0);
    // Its own cut is a quorum, and the certified cut in the same witness makes it final.
    assert_eq!(cluster.marks(0, 0).final_size, 2);
    cluster.tick(0);
    assert_eq!(cluster.marks(0, 0).final_size, 4, "the witness that covers data is final too");
    for _ in 0..10 {
        cluster.tick(0);
    }
    assert!(cluster.chains[0].len() <= 3, "and then there is nothing to state: {}", cluster.chains[0].len());
}

#[test]
fn an_idle_cluster_falls_silent_and_data_wakes_it() {
    let mut cluster = Cluster::new(4, 0, &[], None);
    cluster.data(0);
    cluster.exchange(10);
    let stated: usize = cluster.chains.iter().map(Vec::len).sum();
    cluster.exchange(50);
    assert_eq!(cluster.chains.iter().map(Vec::len).sum::<usize>(), stated);
    assert!(stated <= 4 * 6, "{stated} witnesses for one batch");
    cluster.data(2);
    cluster.exchange(10);
    assert!(cluster.marks(1, 2).final_size >= cluster.held(2, 2), "all of lane 2 that matters");
}

#[test]
fn a_quorum_is_needed_and_enough() {
    let mut cluster = Cluster::new(4, 0, &[], None);
    cluster.data(0);
    // Two of four: nothing.
    for _ in 0..5 {
        cluster.pull_all(&[0, 1]);
        cluster.tick(0);
        cluster.tick(1);
    }
    assert_eq!(cluster.marks(0, 0).certified, 0);
    // Three of four: certified, final.
    for _ in 0..5 {
        cluster.pull_all(&[0, 1, 2]);
        (0..3).for_each(|node| cluster.tick(node));
    }
    assert!(cluster.marks(0, 0).final_size >= 2);
}

/// D1. A lane forks after its first batch. Some validators first cut beyond the fork, so what both sides share is
/// certified at different sizes, and claims on it lie where others cannot check them: unless they are stated again,
/// batch by batch, nobody else ever sees it final, and an honest lane that cites it is stuck.
fn d1(weaken: Option<Rule>) -> bool {
    let mut cluster = four(weaken);
    let a = cluster.batch(X, &[], &[]);
    let b = cluster.batch(X, &[&a], &[]);
    let c = cluster.batch(X, &[&a], &[]);
    cluster.give(0, &a);
    cluster.tick(0);
    cluster.give(0, &b);
    cluster.tick(0);
    cluster.give(1, &a);
    cluster.give(1, &b);
    cluster.tick(1);
    for node in [2, H] {
        cluster.give(node, &a);
        cluster.give(node, &c);
    }
    cluster.tick(2);
    for (from, to) in [(0, [1, 2, H]), (1, [0, 2, H]), (2, [0, 1, H])] {
        to.iter().for_each(|to| cluster.send_chain(from, *to));
    }
    let cut = |batch| Witness { cut: vec![claim(batch)], ..Witness::default() };
    cluster.lie(LIAR, 1, cut(&b));
    cluster.lie(LIAR, 0, cut(&a));
    cluster.lie(LIAR, 2, cut(&a));
    (0..3).for_each(|node| cluster.tick(node));
    cluster.send_chain(0, H);
    cluster.send_chain(1, H);
    cluster.send_chain(2, H);
    cluster.lie(LIAR, H, Witness { certified: vec![claim(&a)], ..cut(&a) });
    cluster.data_citing(H, X);
    cluster.exchange_honest(&[0, 1, 2, H], 12);
    (0..3).all(|node| cluster.marks(node, H).final_size >= 2)
}

#[test]
fn after_a_fork_what_both_sides_share_is_stated_again() {
    assert!(d1(None));
    assert!(!d1(Some(Rule::NoRestating)), "the rule is what saves it");
}

/// A lane forks after its first batch, and every validator has cut beyond: what both sides share is certified only if each
/// states it again. One that starts anew, and knows of the fork before it has applied anything, must still do its part,
/// and must not cut more of the closed lane than it had.
#[test]
fn a_validator_that_starts_with_a_known_fork_states_again_what_it_had_stated_and_no_more() {
    let mut cluster = four(None);
    let a = cluster.batch(X, &[], &[]);
    let b = cluster.batch(X, &[&a], b"b");
    let c = cluster.batch(X, &[&a], b"c");
    let d = cluster.batch(X, &[&b], b"d");
    for (node, side) in [(0, &b), (1, &b), (2, &c)] {
        cluster.give(node, &a);
        cluster.give(node, side);
        cluster.tick(node);
    }
    cluster.give(0, &c);
    assert!(cluster.machines[0].is_closed(LaneId(X as u16)));
    // It is stored, and not applied.
    cluster.give(0, &d);
    assert_eq!(cluster.marks(0, X).applied, b.digest.size());
    cluster.restart_knowing(0, X, a.digest.size());
    assert!(cluster.machines[0].is_closed(LaneId(X as u16)));
    assert_eq!(cluster.marks(0, X).applied, b.digest.size());
    cluster.exchange_honest(&[0, 1, 2, H], 12);
    for node in [0, 1, 2, H] {
        assert_eq!(cluster.marks(node, X).final_size, a.digest.size(), "node {node}");
    }
    let beyond = |witness: &Witness| {
        let all = witness.cut.iter().chain(&witness.cut_again);
        all.filter(|claim| claim.lane == LaneId(X as u16)).any(|claim| claim.size > b.digest.size())
    };
    assert!(!cluster.chains[0].iter().any(|(_, witness)| beyond(witness)));
}

/// All is quiet, and the last witnesses of honest lanes are final nowhere, since nothing asks for it. A liar shows H alone a certified
/// cut of its own, with which one of them is final there, and H cites it: the others have to make it final now.
#[test]
fn what_is_final_at_one_node_by_a_liars_word_becomes_final_at_all_once_it_is_cited() {
    let mut shown = 0;
    // Who states something in which of four rounds: in some of these ways two have stated what nobody else has to.
    for masks in (0..1 << 12_u32).step_by(7) {
        let mut cluster = four(None);
        cluster.data(0);
        cluster.data(1);
        for round in 0..4 {
            cluster.pull_all(&[0, 1, 2, H]);
            (0..3).filter(|node| masks >> (3 * round + node) & 1 == 1).for_each(|node| cluster.tick(node));
        }
        cluster.exchange_honest(&[0, 1, 2, H], 8);
        let lane = LaneId(2);
        let beyond = cluster.marks(H, 2).final_size;
        let ends = cluster.machines[H].locator(lane).into_iter().filter(|(size, _)| *size > beyond);
        for (size, root) in ends.collect::<Vec<_>>() {
            let end = Claim { lane, size, root };
            cluster.lie(LIAR, H, Witness { cut: vec![end], certified: vec![end], ..Witness::default() });
        }
        if cluster.marks(H, 2).final_size <= beyond {
            continue;
        }
        shown += 1;
        cluster.data_citing(H, 2);
        let size = cluster.marks(H, H).held;
        cluster.exchange_honest(&[0, 1, 2, H], 12);
        for node in [0, 1, 2, H] {
            assert!(cluster.marks(node, H).final_size >= size, "{masks:o}, node {node}");
        }
    }
    assert!(shown > 0, "the story was told");
}

/// D2. A lane forks at its first batch. A liar shows its witness for one side to H alone, which sees that side
/// certified. If certified were enough to cite, H's lane would wait for that side for ever at everyone else.
fn d2(weaken: Option<Rule>) -> bool {
    let mut cluster = four(weaken);
    let a = cluster.batch(X, &[], &[]);
    let b = cluster.batch(X, &[], &[]);
    for node in [0, 1] {
        cluster.give(node, &a);
        cluster.tick(node);
    }
    cluster.give(2, &b);
    cluster.tick(2);
    cluster.give(H, &a);
    for (from, to) in [(0, [1, 2, H]), (1, [0, 2, H]), (2, [0, 1, H])] {
        to.iter().for_each(|to| cluster.send_chain(from, *to));
    }
    cluster.lie(LIAR, H, Witness { cut: vec![claim(&a)], ..Witness::default() });
    assert_eq!(cluster.marks(H, X).certified, a.digest.size());
    cluster.data_citing(H, X);
    cluster.exchange_honest(&[0, 1, 2, H], 12);
    (0..3).all(|node| cluster.marks(node, H).final_size >= 2)
}

#[test]
fn what_is_certified_at_one_node_only_is_not_cited() {
    assert!(d2(None));
    assert!(!d2(Some(Rule::CiteCertified)), "the rule is what saves it");
}

#[test]
fn of_a_lane_that_is_signed_many_ways_one_proof_is_handed_out() {
    let mut cluster = four(None);
    let sides: Vec<_> = (0..5).map(|_| cluster.batch(X, &[], &[])).collect();
    for side in &sides {
        cluster.give(0, side);
    }
    let proofs = cluster.effects(0).iter().filter(|effect| matches!(effect, Effect::Forked { .. })).count();
    assert_eq!(proofs, 1, "each would go to everybody, who would do the same");
}

#[test]
fn a_copy_changes_only_for_a_certified_prefix() {
    let mut cluster = four(None);
    let a = cluster.batch(X, &[], &[]);
    let b = cluster.batch(X, &[], &[]);
    cluster.give(0, &a);
    cluster.give(0, &b);
    assert!(cluster.effects(0).iter().any(|effect| matches!(effect, Effect::Forked { .. })));
    assert!(cluster.machines[0].is_closed(LaneId(X as u16)));
    assert_eq!(cluster.machines[0].root_at(LaneId(X as u16), 2), Some(a.digest.root()));
    // Two cuts of the other side are no quorum, the third one is.
    for (number, validator) in [1, 2, 3].into_iter().enumerate() {
        let switched = cluster.effects(0).iter().any(|effect| matches!(effect, Effect::Switched { .. }));
        assert!(!switched, "after {number} cuts");
        cluster.lie(validator, 0, Witness { cut: vec![claim(&b)], ..Witness::default() });
    }
    assert!(cluster.effects(0).iter().any(|effect| matches!(effect, Effect::Switched { .. })));
    assert_eq!(cluster.machines[0].root_at(LaneId(X as u16), 2), Some(b.digest.root()));
    assert_eq!(cluster.marks(0, X).certified, 2);
}

/// A lane is signed three ways: `a`, `b c`, `b d`. When the copy changes from `a` to `b c`, the side `b d` begins with what
/// the copy has now. It once went on counting from the very beginning, so that `b`, certified, made the copy "change" to
/// `b d`, and back, and so on, and what had been applied and stated was forgotten each time.
#[test]
fn a_side_that_shares_its_beginning_with_the_new_copy_parts_later() {
    let mut cluster = four(None);
    let a = cluster.batch(X, &[], b"a");
    let b = cluster.batch(X, &[], b"b");
    let c = cluster.batch(X, &[&b], b"c");
    let d = cluster.batch(X, &[&b], b"d");
    for batch in [&a, &b, &c, &d] {
        cluster.give(0, batch);
    }
    for validator in [1, 2, 3] {
        cluster.lie(validator, 0, Witness { cut: vec![claim(&b)], ..Witness::default() });
    }
    for validator in [1, 2, 3] {
        cluster.lie(validator, 0, Witness { certified: vec![claim(&b)], ..Witness::default() });
    }
    let switched = |effect: &&Effect| matches!(effect, Effect::Switched { .. });
    assert_eq!(cluster.effects(0).iter().filter(switched).count(), 1);
    assert_eq!(cluster.machines[0].root_at(LaneId(X as u16), 2), Some(b.digest.root()));
    assert_eq!(cluster.marks(0, X).final_size, 2);
}

#[test]
fn of_two_payloads_for_one_sequence_at_most_one_is_accepted_and_honest_accounts_go_on() {
    let mut cluster = Cluster::new(4, 1, &[], None);
    // E pays two others with the same sequence, through two gateways at once.
    assert!(cluster.pay(0, Pay { from: 1, sequence: 0, to: 2, amount: 1 }));
    assert!(cluster.pay(1, Pay { from: 1, sequence: 0, to: 3, amount: 1 }));
    assert!(cluster.pay(2, Pay { from: 4, sequence: 0, to: 2, amount: 1 }));
    cluster.exchange(12);
    let next = |cluster: &Cluster, node: usize, account: u8| {
        cluster.machines[node].ledger().account(&cluster::account(account)).map_or(0, |account| account.next)
    };
    for node in 0..5 {
        let accepted = cluster.accepted(node, 1, 0);
        assert!(accepted <= 1, "{accepted} payloads accepted at {node}");
        assert_eq!(next(&cluster, node, 4), 1, "the honest account's payment at {node}");
    }
}

#[test]
fn an_operation_signed_again_takes_effect_once() {
    let mut cluster = Cluster::new(4, 1, &[], None);
    let pay = Pay { from: 4, sequence: 0, to: 2, amount: 1 };
    assert!(cluster.pay(0, pay) && cluster.pay(1, pay) && cluster.pay(4, pay));
    cluster.exchange(12);
    for node in 0..5 {
        let ledger = cluster.machines[node].ledger();
        assert_eq!(ledger.account(&cluster::account(4)).unwrap().balance, cluster::START - 1);
        assert_eq!(ledger.account(&cluster::account(2)).unwrap().balance, cluster::START + 1);
    }
}

/// An honest account signs one payload again for a second gateway, and half of the validators see either message first.
fn signed_again(weaken: Option<Rule>) -> bool {
    let mut cluster = Cluster::new(4, 1, &[], weaken);
    let pay = Pay { from: 4, sequence: 0, to: 2, amount: 1 };
    assert!(cluster.pay(0, pay) && cluster.pay(1, pay));
    cluster.pull_lane(2, 0, 0);
    cluster.pull_lane(3, 1, 1);
    cluster.exchange(14);
    (0..5).all(|node| {
        let account = cluster.machines[node].ledger().account(&cluster::account(4));
        account.is_some_and(|account| account.next == 1)
    })
}

#[test]
fn locks_hold_operations_not_messages() {
    assert!(signed_again(None));
    assert!(!signed_again(Some(Rule::LockById)), "the rule is what saves it");
}

/// A credit is final at H while the validators are late, and is spent at once. What the balance does not cover yet has
/// to wait; if it were rejected, the honest spender's operation would never be accepted.
fn spend_at_once(weaken: Option<Rule>) -> bool {
    let mut cluster = Cluster::new(4, 1, &[], weaken);
    // Account 9 has nothing. It is paid in lane 0; validators 1 to 3 get lane H's spending before they see that final.
    assert!(cluster.pay(0, Pay { from: 4, sequence: 0, to: 9, amount: 1 }));
    cluster.exchange_until_paid(H, 9);
    assert!(
        cluster.machines[H]
            .ledger()
            .account(&cluster::account(9))
            .is_some_and(|account| account.balance == 1)
    );
    assert!(cluster.pay(H, Pay { from: 9, sequence: 0, to: 2, amount: 1 }));
    for node in 0..4 {
        cluster.pull_lane(node, H, H);
        cluster.tick(node);
    }
    cluster.exchange(14);
    (0..5).all(|node| {
        cluster.machines[node].ledger().account(&cluster::account(9)).is_some_and(|account| account.next == 1)
    })
}

#[test]
fn what_the_balance_does_not_cover_yet_waits() {
    assert!(spend_at_once(None));
    assert!(!spend_at_once(Some(Rule::RejectUncovered)), "the rule is what saves it");
}

#[test]
fn a_second_witness_with_a_number_is_reported_and_does_not_count() {
    let mut cluster = four(None);
    let a = cluster.batch(X, &[], &[]);
    let b = cluster.batch(X, &[], &[]);
    cluster.give(0, &a);
    cluster.lie(LIAR, 0, Witness { cut: vec![claim(&b)], ..Witness::default() });
    cluster.lie_number(LIAR, 0, 1, Witness { cut: vec![claim(&a)], ..Witness::default() });
    let reported = |effect: &Effect| matches!(effect, Effect::Equivocated { validator: 3, number: 1 });
    assert!(cluster.effects(0).iter().any(reported));
}

#[test]
fn a_restart_is_a_pause() {
    let mut cluster = Cluster::new(4, 1, &[], None);
    assert!(cluster.pay(0, Pay { from: 1, sequence: 0, to: 2, amount: 1 }));
    cluster.data(2);
    cluster.exchange(3);
    let stated = cluster.chains[1].len();
    cluster.restart(1);
    // It judges nothing before it is where it was, and states nothing twice.
    assert!(cluster.pay(H, Pay { from: 4, sequence: 0, to: 2, amount: 1 }));
    cluster.exchange(14);
    assert!(cluster.chains[1].len() > stated);
    for node in 0..5 {
        for account in [1, 4] {
            let next = cluster.machines[node].ledger().account(&cluster::account(account)).unwrap().next;
            assert_eq!(next, 1, "account {account} at {node}");
        }
        assert!(!cluster.effects(node).iter().any(|effect| matches!(effect, Effect::Silenced { .. })));
    }
}

#[test]
fn a_validator_that_does_not_remember_its_own_witness_is_silent_from_then_on() {
    let mut cluster = Cluster::new(4, 0, &[], None);
    cluster.data(0);
    cluster.exchange(6);
    assert!(cluster.chains[1].len() >= 2);
    cluster.forget(1);
    for from in [0, 2, 3] {
        cluster.send_chain_of(1, from, 1);
    }
    assert!(cluster.machines[1].is_silent());
    let stated = cluster.chains[1].len();
    cluster.data(0);
    cluster.exchange(6);
    assert_eq!(cluster.chains[1].len(), stated);
    assert!(cluster.marks(0, 0).final_size >= cluster.held(0, 0), "three of four go on");
}
