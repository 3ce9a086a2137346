//! What every change of confirmation has to pass: seeds with all faults at the bound, one run twice, and more liars than
//! the bound. The number of seeds is `WEFT_SIM_SEEDS` (default 200), the first one `WEFT_SIM_SEED` (default 0).
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use weft_sim::{Options, Stats, run};

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Runs seeds with all faults at the bound, and tells what they did.
fn passes(validators: usize, seeds: u64) -> Stats {
    let first = number("WEFT_SIM_SEED", 0);
    let mut total = Stats::default();
    for seed in first..first + seeds {
        let outcome = run(seed, Options::bound(validators));
        total.add(&outcome.unwrap_or_else(|violation| panic!("n {validators}, seed {seed}: {violation}")));
    }
    println!("n {validators}, seeds {first}..{}: {total:?}", first + seeds);
    total
}

#[test]
fn nothing_breaks_and_all_goes_on_with_a_third_of_four_lying() {
    let seeds = number("WEFT_SIM_SEEDS", 200);
    let total = passes(4, seeds);
    // Not vacuous: each of these happens in many runs.
    assert!(total.restarts > seeds && total.forks > seeds && total.final_liar_batches > seeds, "{total:?}");
    assert!(total.honest_operations > seeds && total.equivocator_operations > 0, "{total:?}");
    if seeds >= 200 {
        assert!(total.switches > 0 && total.ended > 0 && total.silenced > 0, "{total:?}");
    }
}

#[test]
fn nothing_breaks_with_two_of_seven_lying() {
    let total = passes(7, number("WEFT_SIM_SEEDS", 200) / 20 + 1);
    assert!(total.forks > 0 && total.final_batches > 0, "{total:?}");
}

#[test]
fn nothing_breaks_with_unequal_weights_and_as_much_lying_weight_as_the_bound_allows() {
    let seeds = number("WEFT_SIM_SEEDS", 200) / 4 + 1;
    for validators in [2, 4, 5, 7] {
        for seed in 0..seeds {
            let options = Options { weights: true, ..Options::bound(validators) };
            let outcome = run(seed, options);
            let stats =
                outcome.unwrap_or_else(|violation| panic!("n {validators}, seed {seed}: {violation}"));
            assert!(stats.final_batches > 0, "{stats:?}");
        }
    }
}

#[test]
fn committees_without_room_for_a_liar_make_progress() {
    for validators in [1, 2, 3] {
        let total = passes(validators, 8);
        assert!(total.final_batches > 0, "{total:?}");
    }
}

#[test]
fn a_seed_replays_byte_for_byte() {
    for seed in [3, 64] {
        let (first, second) = (run(seed, Options::bound(4)), run(seed, Options::bound(4)));
        assert_eq!(first, second);
        assert_ne!(first.unwrap().digest, run(seed + 1, Options::bound(4)).unwrap().digest);
    }
}

#[test]
fn with_more_liars_than_the_bound_a_violation_is_found() {
    // The canary of the whole harness: if this finds nothing, the other tests say nothing.
    let options = Options { liars: 2, ..Options::bound(4) };
    assert!((0..100).any(|seed| run(seed, options).is_err()));
}
