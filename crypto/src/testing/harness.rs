//! Runs suites and adversarial batches on a list of backends.

use std::sync::Arc;

use super::suites::Suite;
use super::{Case, Rows};
use crate::backend::{Backend, BackendError, Options};
use crate::columns::BatchVerifier;
use crate::serial;
use crate::testing::adversary::Adversary;

/// Names, comma separated, of backends whose absence must fail the tests: for machines that are known to have them.
pub const REQUIRED_VARIABLE: &str = "WEFT_REQUIRE_BACKENDS";

/// A verifier under test, and what to call it in failures.
pub struct Subject {
    /// Backend and how it was opened.
    pub label: String,
    /// The verifier.
    pub verifier: Arc<dyn BatchVerifier>,
}

/// Every backend of this machine, each without a key cache and with a small one (which must not change verdicts, so
/// it is made small enough to evict). One that is absent prints `SKIPPED`, or fails if it is required.
///
/// # Panics
/// If a backend named in `WEFT_REQUIRE_BACKENDS` is absent or unknown.
#[must_use]
pub fn backends() -> Vec<Subject> {
    let required = std::env::var(REQUIRED_VARIABLE).unwrap_or_default();
    let required = parse_required(&required).unwrap_or_else(|error| panic!("{REQUIRED_VARIABLE}: {error}"));
    let mut subjects = Vec::new();
    for backend in Backend::ALL {
        for (label, cached_keys) in [(format!("{backend}"), 0), (format!("{backend} with a key cache"), 32)] {
            match backend.verifier(&Options { cached_keys }) {
                Ok(verifier) => subjects.push(Subject { label, verifier }),
                Err(error) if required.contains(&backend) => panic!("{REQUIRED_VARIABLE}: {error}"),
                Err(_) if cached_keys == 0 => eprintln!("SKIPPED {backend}: not detected"),
                Err(_) => {}
            }
        }
    }
    subjects
}

/// The backends in a list like `serial,avx2`.
///
/// # Errors
/// [`BackendError::Unknown`] for a name that no backend has.
pub fn parse_required(list: &str) -> Result<Vec<Backend>, BackendError> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::parse).collect()
}

/// Where in a batch of [`FILLED_ROWS`] a case is tried: every lane of eight, both ends, and edges of groups of 4, 8, 16.
const POSITIONS: [usize; 9] = [0, 3, 12, 17, 31, 38, 45, 58, 63];

/// Rows of the batch around a case.
const FILLED_ROWS: usize = 64;

/// Rows of the large batch that cases are strewn into, and how many of them at a time.
const LARGE_ROWS: usize = 4096;
const STREWN: usize = 512;

/// Checks every case of `suite`: by the reference alone, in a batch of 1, inside a batch of 64 at several positions
/// among honest signatures (whose verdicts must hold too), inside batches of 4096 at every position modulo 8, and all
/// cases of the suite as one batch.
///
/// # Panics
/// If a verdict is wrong.
pub fn check_suite(subject: &Subject, suite: &Suite) {
    assert!(!suite.cases.is_empty(), "suite {} is empty", suite.name);
    let filler = Adversary::new(64, false, FILLED_ROWS).honest(FILLED_ROWS);
    for case in &suite.cases {
        let single = serial::verify_one(&case.key, &case.message, &case.signature);
        assert_eq!(single, case.valid, "verify_one: {}", case.name);
        check_batch(subject, suite.name, &[case]);
        for position in POSITIONS {
            let mut batch: Vec<&Case> = filler.iter().collect();
            batch[position] = case;
            check_batch(subject, suite.name, &batch);
        }
    }
    check_batch(subject, suite.name, &suite.cases.iter().collect::<Vec<_>>());
    check_strewn(subject, suite);
}

/// The cases of `suite`, [`STREWN`] at a time, among honest signatures in batches of [`LARGE_ROWS`], in every lane.
fn check_strewn(subject: &Subject, suite: &Suite) {
    let filler = Adversary::new(4096, false, LARGE_ROWS / 8).honest(LARGE_ROWS);
    // One place will do where there are no lanes.
    let lanes = if subject.verifier.name() == Backend::Serial.name() { 1 } else { 8 };
    for cases in suite.cases.chunks(STREWN) {
        for lane in 0..lanes {
            let mut batch: Vec<&Case> = filler.iter().collect();
            for (number, case) in cases.iter().enumerate() {
                // 7 apart, which is odd: neighbours are in different lanes, and eight turns take each through all.
                batch[7 * number + lane] = case;
            }
            check_batch(subject, suite.name, &batch);
        }
    }
}

/// Checks that the verdicts of one batch are the cases' own, whether bad rows are expected in it or not.
///
/// # Panics
/// If a verdict is wrong.
pub fn check_batch(subject: &Subject, context: &str, cases: &[&Case]) {
    let rows = Rows::new(cases.iter().copied());
    // What was there before must not matter.
    let wrong: Vec<bool> = cases.iter().map(|case| !case.valid).collect();
    for suspect in [false, true] {
        let mut verdicts = wrong.clone();
        if suspect {
            subject.verifier.verify_suspect(&rows.columns(), &mut verdicts);
        } else {
            subject.verifier.verify(&rows.columns(), &mut verdicts);
        }
        for (row, (case, verdict)) in cases.iter().zip(&verdicts).enumerate() {
            let Subject { label, .. } = subject;
            let length = cases.len();
            assert_eq!(
                *verdict, case.valid,
                "{context}: {label} (suspect: {suspect}) on row {row} of {length}: {} {case:02x?}",
                case.name
            );
        }
    }
}

/// Checks `batches` batches of random sizes up to `rows_max` that mix honest and adversarial signatures.
///
/// # Panics
/// If a verdict is wrong.
pub fn check_adversarial(subject: &Subject, seed: u64, batches: usize, rows_max: usize) {
    let mut sizes = super::Draw::new(seed ^ 0x51e5);
    for batch in 0..batches {
        let mut adversary = Adversary::new(seed.wrapping_add(batch as u64), batch % 2 == 0, 2 + batch % 40);
        let cases = adversary.mixture(1 + sizes.below(rows_max));
        check_batch(subject, &format!("seed {seed} batch {batch}"), &cases.iter().collect::<Vec<_>>());
    }
}
