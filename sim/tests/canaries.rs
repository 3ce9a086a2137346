//! Every rule, weakened, has to be caught: one test per rule, each with the number of seeds in which it has to show. The same
//! seeds pass with all rules in force (`seeds.rs`). What chance finds too rarely (restating after a fork,
//! locks by message, rejecting instead of waiting) has a directed test with its canary in
//! `core/tests/confirm_cluster.rs`.
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
    caught(Rule::LedgerAtLevelOne, 100);
}

#[test]
fn a_third_of_certified_cuts_amplifies() {
    caught(Rule::NoAmplification, 100);
}

#[test]
fn one_certified_cut_does_not_amplify() {
    caught(Rule::AmplifyByOne, 100);
}

#[test]
fn parents_are_final_not_merely_certified() {
    caught(Rule::CiteCertified, 100);
}

#[test]
fn a_copy_changes_for_a_certified_prefix() {
    caught(Rule::NoSwitch, 100);
}

#[test]
fn a_copy_changes_for_nothing_else() {
    caught(Rule::EagerSwitch, 100);
}

#[test]
fn half_of_the_weight_is_no_quorum() {
    caught(Rule::Majority, 100);
}

#[test]
fn locks_are_not_forgotten() {
    caught(Rule::LoseLocks, 200);
}

#[test]
fn a_validator_restored_from_an_old_backup_is_silent() {
    caught(Rule::Amnesia, 400);
}

#[test]
fn certified_cuts_count_by_their_roots() {
    caught(Rule::UncheckedRoots, 100);
}
