//! Every rule, weakened, has to be caught: one test per rule, each with the number of seeds in which it has to show.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use weft_core::confirm::Rule;
use weft_sim::{Options, run};

/// Runs seeds with `rule` weakened until an invariant breaks; how it broke.
fn caught(rule: Rule, seeds: u64) -> String {
    let options = Options { weaken: Some(rule), ..Options::bound(4) };
    let found = (0..seeds).find_map(|seed| run(seed, options).err().map(|violation| (seed, violation)));
    let (seed, violation) = found.unwrap_or_else(|| panic!("{rule:?} weakened, and {seeds} seeds passed"));
    println!("{rule:?}: seed {seed}: {violation}");
    violation.invariant.to_owned()
}

#[test]
fn who_has_not_covered_an_operation_does_not_accept_it() {
    caught(Rule::UncoveredAccepts, 100);
}

#[test]
fn an_operation_is_not_final_because_its_prefix_is() {
    caught(Rule::FinalByPrefix, 100);
}

#[test]
fn the_ledger_takes_level_two_only() {
    caught(Rule::LedgerAtLevelOne, 200);
}

#[test]
fn one_certified_cut_does_not_amplify() {
    caught(Rule::AmplifyByOne, 100);
}

#[test]
fn half_of_the_weight_is_no_quorum() {
    caught(Rule::Majority, 400);
}

#[test]
fn locks_hold_operations_not_messages() {
    caught(Rule::LockById, 100);
}

#[test]
fn locks_are_not_forgotten() {
    caught(Rule::LoseLocks, 200);
}
