//! What a lying node can put into a machine's memory and time, what never fits a witness, and what would stop a lane for
//! ever: chosen executions, each of which once broke a rule of `docs/confirmation.md`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "confirm_cluster/cluster.rs"]
#[allow(dead_code, reason = "each file of tests tells its own stories")]
mod cluster;

use cluster::{Cluster, Pay, claim};
use weft_core::LaneId;
use weft_core::confirm::{Claim, Effect, HELD_BYTES_MAX, Rejects, Witness};

/// Four validators, of which the last one lies; an honest ingest node and a lying one.
const X: usize = 5;
const LIAR: usize = 3;

#[test]
fn an_idle_cluster_asks_for_no_tick() {
    let mut cluster = Cluster::new(4, 0, &[], None);
    cluster.data(0);
    assert!(cluster.machines[0].next_tick_us().is_some());
    cluster.exchange(10);
    for node in 0..4 {
        assert_eq!(cluster.machines[node].next_tick_us(), None, "at {node}");
    }
}

/// A side gets certified by cuts stated again, with nothing else in the witness that names its lane.
#[test]
fn cuts_stated_again_change_a_copy_too() {
    let mut cluster = Cluster::new(4, 2, &[LIAR, X], None);
    let a = cluster.batch(X, &[], b"a");
    let b = cluster.batch(X, &[], b"b");
    let beyond = cluster.batch(X, &[&b], b"beyond");
    cluster.give(0, &a);
    cluster.give(0, &b);
    for validator in [1, 2, 3] {
        cluster.lie(validator, 0, Witness { cut: vec![claim(&beyond)], ..Witness::default() });
    }
    for validator in [1, 2, 3] {
        cluster.lie(validator, 0, Witness { cut_again: vec![claim(&b)], ..Witness::default() });
    }
    assert_eq!(cluster.machines[0].root_at(LaneId(X as u16), 2), Some(b.digest.root()));
}

/// Votes in cuts stated again count at level 2 once their witness is final, so such a witness has to become final.
#[test]
fn a_witness_that_states_a_cut_again_has_to_become_final() {
    let mut cluster = Cluster::new(4, 2, &[LIAR, X], None);
    let a = cluster.batch(X, &[], b"a");
    let b = cluster.batch(X, &[], b"b");
    cluster.give(0, &a);
    cluster.tick(0);
    cluster.tick(0);
    cluster.give(0, &b);
    cluster.tick(0);
    let (_, last) = cluster.chains[0].last().unwrap().clone();
    assert_eq!(last.cut_again, vec![claim(&a)]);
    assert!(last.covers_data);
    // Once: it is no reason to go on for ever.
    let stated = cluster.chains[0].len();
    (0..10).for_each(|_| cluster.tick(0));
    assert!(cluster.chains[0].len() <= stated + 2);
}

/// A validator is shown a witness of its own that it has not made, with a number that it has.
#[test]
fn a_validator_whose_key_signs_elsewhere_is_silent_from_then_on() {
    let mut cluster = Cluster::new(4, 0, &[], None);
    cluster.data(0);
    cluster.exchange(3);
    assert!(!cluster.machines[1].is_silent());
    cluster.lie_number(1, 1, 1, Witness::default());
    assert!(cluster.machines[1].is_silent());
    assert!(cluster.effects(1).iter().any(|effect| matches!(effect, Effect::Silenced { number: 1 })));
}

/// A validator comes late: everything is final to it as soon as it is applied, with more rejects than fit one witness.
#[test]
fn rejects_that_do_not_fit_one_witness_are_stated_in_several() {
    let mut cluster = Cluster::new(4, 2, &[X], None);
    assert!(cluster.pay(0, Pay { from: 1, sequence: 0, to: 2, amount: 1 }));
    cluster.exchange_honest(&[0, 1, 2], 4);
    // 34 batches of 4,096 other payments for the same sequence: no list and no bitmap of them fits.
    let mut batches = Vec::new();
    for _ in 0..34 {
        let batch = cluster.payments(X, batches.last(), 4_096, |index| Pay {
            from: 1,
            sequence: 0,
            to: 3,
            amount: 2 + index,
        });
        batches.push(batch);
    }
    // 8,192 rejects are stated beyond final: it takes some rounds.
    for _ in 0..6 {
        for batch in &batches {
            (0..3).for_each(|node| cluster.give(node, batch));
        }
        cluster.exchange_honest(&[0, 1, 2], 10);
    }
    let size = batches.last().unwrap().digest.size();
    assert_eq!(cluster.marks(0, X).final_size, size);
    cluster.exchange_honest(&[0, 1, 2, 3], 20);
    assert_eq!(cluster.marks(3, X).final_size, size);
    let cut = |witness: &Witness| witness.cut.iter().any(|claim| claim.size == size);
    assert!(cluster.chains[3].iter().any(|(_, witness)| cut(witness)), "its cut gets there");
    let rejected: usize =
        cluster.chains[3].iter().flat_map(|(_, w)| &w.rejects).map(|group| group.positions.len()).sum();
    assert_eq!(rejected, 34 * 4_096);
}

/// A lying validator's lane is full of witnesses that unfold to a megabyte each.
#[test]
fn what_is_held_of_a_lane_is_bounded_by_its_memory() {
    let mut cluster = Cluster::new(4, 2, &[LIAR, X], None);
    let positions: Vec<u64> = (0..100_000).collect();
    let mut held = 0;
    for number in 1..=800 {
        let rejects = vec![Rejects { lane: LaneId(0), positions: positions.clone() }];
        let cut = vec![Claim { lane: LaneId(0), size: 1 << 40, root: [7; 32] }];
        let batch = cluster.witness_batch(LIAR, number, Witness { cut, rejects, ..Witness::default() });
        cluster.give(0, &batch);
        held = cluster.marks(0, LIAR).held;
    }
    let most = 2 * (HELD_BYTES_MAX as u64 / 800_000 + 1);
    assert!(held <= most, "{held} positions with witnesses that unfold to 800,000 bytes");
    assert!(held >= most / 8);
    assert!(!cluster.machines[0].has_room(LaneId(LIAR as u16)));
    assert!(cluster.machines[0].has_room(LaneId(0)));
}

/// What a third has certified must outlive a crash of all, so nobody certifies beyond its own cut, which is on its disk.
#[test]
fn nobody_certifies_beyond_its_own_cut() {
    let mut cluster = Cluster::new(4, 2, &[LIAR, X], None);
    let size =
        |claims: &[Claim]| claims.iter().filter(|claim| claim.lane.0 == X as u16).map(|c| c.size).max();
    let (mut cut, mut certified, mut last) = (0, 0, None);
    // 300 batches are certified by others; of one lane 256 beyond final are cut.
    for _ in 0..300 {
        let batch = cluster.batch(X, &last.iter().collect::<Vec<_>>(), b"data");
        cluster.give(0, &batch);
        last = Some(batch);
    }
    let batch = last.unwrap();
    for validator in [1, 2, 3] {
        cluster.lie(validator, 0, Witness { cut: vec![claim(&batch)], ..Witness::default() });
    }
    assert_eq!(cluster.marks(0, X).certified, batch.digest.size());
    cluster.tick(0);
    for (_, witness) in &cluster.chains[0] {
        cut = size(&witness.cut).unwrap_or(cut);
        certified = size(&witness.certified).unwrap_or(certified);
        assert!(certified <= cut, "certifies {certified}, cuts {cut}");
    }
    assert_eq!((cut, certified), (512, 512));
}

/// A record made while final is still coming back after a restart says how far it had been, not how far it is.
#[test]
fn a_second_restart_in_the_middle_of_the_first_forgets_nothing() {
    let mut cluster = Cluster::new(4, 1, &[], None);
    cluster.data(0);
    cluster.exchange(8);
    let size = cluster.marks(1, 0).final_size;
    assert!(size > 0);
    let votes = cluster.machines[1].votes();
    let setup = cluster.machines[1].setup().clone();
    let again = weft_core::confirm::Machine::restore(setup, weft_core::confirm::Strict, &votes);
    assert_eq!(again.watermarks(LaneId(0)).unwrap().final_size, 0);
    assert_eq!(again.votes().lanes[0].final_size, votes.lanes[0].final_size);
}
