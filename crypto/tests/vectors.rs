//! Public vectors, on every backend, alone and in company: see the table in `testing::suites`.

use weft_crypto::serial::verify_one;
use weft_crypto::testing::harness::{backends, check_suite};
use weft_crypto::testing::suites;

fn run(suite: &suites::Suite) {
    for subject in backends() {
        check_suite(&subject, suite);
    }
}

#[test]
fn rfc_8032_section_7_1_signatures_are_valid_on_every_backend() {
    let suite = suites::rfc8032();
    assert_eq!(suite.cases.len(), 5);
    assert_eq!(suite.cases[3].message.len(), 1023);
    run(&suite);
}

#[test]
fn wycheproof_verdicts_hold_on_every_backend_and_case_151_is_accepted() {
    let suite = suites::wycheproof();
    assert_eq!(suite.cases.len(), 139);
    let valid = suite.cases.iter().filter(|case| case.valid).count();
    println!("wycheproof: {valid} valid of {}", suite.cases.len());
    assert!(valid > 50 && valid < 139);
    let differing = suite.cases.iter().find(|case| case.name == "wycheproof 151").unwrap();
    assert!(verify_one(&differing.key, &differing.message, &differing.signature));
    run(&suite);
}

#[test]
fn all_196_products_of_small_order_points_are_accepted_on_every_backend() {
    let suite = suites::small_order();
    assert_eq!(suite.cases.len(), 196);
    run(&suite);
}

#[test]
fn speccheck_verdicts_are_those_of_zip_215_on_every_backend() {
    let suite = suites::speccheck();
    let verdicts: String = suite.cases.iter().map(|case| if case.valid { 'V' } else { 'X' }).collect();
    assert_eq!(verdicts, "VVVVVVXXXVVV");
    run(&suite);
}
