//! Batches with bad signatures, on every backend: the verdict of every row must be exact wherever the bad rows lie.
//! (That the search stays within its cost is tested beside it, on a model, where cost can be counted.)

use weft_crypto::testing::adversary::{Adversary, Kind};
use weft_crypto::testing::harness::{backends, check_batch};
use weft_crypto::testing::{Case, Draw, Rows, seed};

/// Honest rows, and for each of them the same row with its message changed.
fn honest_and_bad(rows: usize, keys: usize) -> (Vec<Case>, Vec<Case>) {
    let honest = Adversary::new(rows as u64, true, keys).honest(rows);
    let bad = honest.iter().cloned().map(|mut case| {
        case.message[31] ^= 1;
        Case { valid: false, name: "message changed".to_owned(), ..case }
    });
    let bad = bad.collect();
    (honest, bad)
}

fn check(rows: usize, keys: usize, patterns: &[(&str, &dyn Fn(usize) -> bool)]) {
    let (honest, bad) = honest_and_bad(rows, keys);
    for subject in backends() {
        for (name, is_bad) in patterns {
            let batch: Vec<&Case> =
                (0..rows).map(|row| if is_bad(row) { &bad[row] } else { &honest[row] }).collect();
            check_batch(&subject, name, &batch);
        }
    }
}

#[test]
fn one_bad_signature_in_4096_is_found_at_every_edge_and_spares_all_others() {
    check(
        4096,
        300,
        &[
            ("none", &|_| false),
            ("the first", &|row| row == 0),
            ("the last of a span", &|row| row == 2047),
            ("the first of a span", &|row| row == 2048),
            ("inside", &|row| row == 1365),
            ("the last", &|row| row == 4095),
        ],
    );
}

#[test]
fn many_bad_signatures_are_all_found_and_nothing_else_is() {
    check(
        1024,
        1024,
        &[
            ("all", &|_| true),
            ("all but the first", &|row| row != 0),
            ("all but the last", &|row| row != 1023),
            ("every second", &|row| row % 2 == 0),
            ("every second, the other way", &|row| row % 2 == 1),
            ("the first half", &|row| row < 512),
            ("the second half", &|row| row >= 512),
            ("one in ten", &|row| row % 10 == 7),
            ("one in a hundred", &|row| row % 100 == 50),
            ("powers of two", &|row| row.is_power_of_two()),
            ("a run across a boundary", &|row| (250..262).contains(&row)),
        ],
    );
}

/// Every share in every placement, in one verifier one after the other, with a clean batch between: what it remembers of the
/// batch before must have no influence on verdicts.
#[test]
fn every_share_gets_exact_verdicts_wherever_an_adversary_places_it() {
    const ROWS: usize = 1024;
    let (honest, bad) = honest_and_bad(ROWS, 200);
    let mut draw = Draw::new(seed("placements"));
    let mut batches: Vec<(String, Vec<bool>)> = Vec::new();
    for count in [1, 3, 5, 10, 20, 51, 102, 512, 1023, 1024] {
        let spacing = ROWS / count;
        let mut drawn: Vec<bool> = (0..ROWS).map(|row| row < count).collect();
        for row in 0..ROWS {
            drawn.swap(row, row + draw.below(ROWS - row));
        }
        let placements: [(&str, Vec<bool>); 5] = [
            ("together at the start", (0..ROWS).map(|row| row < count).collect()),
            ("together at the end", (0..ROWS).map(|row| row >= ROWS - count).collect()),
            ("evenly", (0..ROWS).map(|row| row % spacing == spacing / 2 && row / spacing < count).collect()),
            ("every second", (0..ROWS).map(|row| row % 2 == 1 && row / 2 < count).collect()),
            ("drawn", drawn),
        ];
        for (name, places) in placements {
            batches.push((format!("{count} bad, {name}"), places));
        }
        batches.push(("none".to_owned(), vec![false; ROWS]));
    }
    for subject in backends() {
        for (name, places) in &batches {
            let batch: Vec<&Case> =
                (0..ROWS).map(|row| if places[row] { &bad[row] } else { &honest[row] }).collect();
            check_batch(&subject, name, &batch);
        }
    }
}

#[test]
fn batch_lengths_around_the_boundaries_of_lanes_groups_and_spans_lose_no_row() {
    for rows in [0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 94, 95, 96, 127, 128, 129] {
        check(rows, 50, &[("none", &|_| false), ("the last", &|row| row + 1 == rows), ("all", &|_| true)]);
    }
    for rows in [2047, 2049, 4097] {
        check(rows, 50, &[("the last", &|row| row + 1 == rows)]);
    }
}

#[test]
fn rows_of_one_key_are_judged_one_by_one() {
    let mut adversary = Adversary::new(5, true, 2);
    let mut cases = adversary.honest(400);
    let key = cases[0].key;
    cases.retain(|case| case.key == key);
    assert!(cases.len() > 100);
    for row in [0, 17, 60, 61] {
        cases[row].signature[40] ^= 1;
        cases[row].valid = false;
    }
    for subject in backends() {
        check_batch(&subject, "one key", &cases.iter().collect::<Vec<_>>());
    }
}

#[test]
fn a_signature_that_occurs_many_times_gets_the_same_verdict_each_time() {
    let (honest, bad) = honest_and_bad(2, 2);
    let batch: Vec<&Case> = (0..100).map(|row| if row % 3 == 0 { &bad[0] } else { &honest[0] }).collect();
    for subject in backends() {
        check_batch(&subject, "repeated", &batch);
    }
}

#[test]
fn rows_that_do_not_decode_leave_the_others_alone() {
    for kind in [Kind::KeyNoPoint, Kind::RNoPoint, Kind::SPlusOrder, Kind::Garbage] {
        let mut adversary = Adversary::new(9, false, 20);
        let mut cases = adversary.honest(90);
        for row in [0, 1, 44, 89] {
            cases[row] = adversary.make(kind);
        }
        let only: Vec<Case> = (0..20).map(|_| adversary.make(kind)).collect();
        for subject in backends() {
            check_batch(&subject, "some", &cases.iter().collect::<Vec<_>>());
            check_batch(&subject, "only", &only.iter().collect::<Vec<_>>());
        }
    }
}

#[test]
#[should_panic(expected = "same number of rows")]
fn columns_of_different_lengths_are_a_bug_of_the_caller() {
    let (honest, _) = honest_and_bad(3, 2);
    let rows = Rows::new(&honest);
    backends()[0].verifier.verify(&rows.columns(), &mut [false; 2]);
}
