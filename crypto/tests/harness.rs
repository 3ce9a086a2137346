//! Canaries: verifiers that are wrong in one way each must fail the suites, or the suites prove nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use sha2::{Digest, Sha512};
use weft_crypto::backend::{Backend, BackendError};
use weft_crypto::serial::verify_one;
use weft_crypto::testing::harness::{Subject, check_adversarial, check_suite, parse_required};
use weft_crypto::testing::suites::{self, Suite};
use weft_crypto::{BatchVerifier, Columns};

type Rule = fn(&[u8; 32], &[u8], &[u8; 64]) -> bool;

/// Applies one rule to every row, then, if told so, spoils the last row of batches of 64.
struct Canary {
    rule: Rule,
    loses_last_row: bool,
}

impl BatchVerifier for Canary {
    fn name(&self) -> &'static str {
        "canary"
    }

    fn verify(&self, batch: &Columns<'_>, verdicts: &mut [bool]) {
        for (row, verdict) in verdicts.iter_mut().enumerate() {
            *verdict = (self.rule)(&batch.keys[row], batch.messages.get(row), &batch.signatures[row]);
        }
        if let (true, 64, Some(last)) = (self.loses_last_row, batch.len(), verdicts.last_mut()) {
            *last = true;
        }
    }
}

fn subject(rule: Rule, loses_last_row: bool) -> Subject {
    Subject { label: "canary".to_owned(), verifier: Arc::new(Canary { rule, loses_last_row }) }
}

fn parts(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Option<(EdwardsPoint, EdwardsPoint)> {
    let halves = signature.as_chunks::<32>().0;
    let a = CompressedEdwardsY(*key).decompress()?;
    let r = CompressedEdwardsY(halves[0]).decompress()?;
    let s: Scalar = Option::from(Scalar::from_canonical_bytes(halves[1]))?;
    let hash = Sha512::new().chain_update(halves[0]).chain_update(key).chain_update(message).finalize();
    let k = Scalar::from_bytes_mod_order_wide(&hash.into());
    Some((EdwardsPoint::vartime_double_scalar_mul_basepoint(&-k, &a, &s), r))
}

/// RFC 8032's alternative without the cofactor, as most libraries verify.
fn cofactorless(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    parts(key, message, signature).is_some_and(|(left, r)| left == r)
}

/// Accepts s of L and more.
fn malleable(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let mut reduced = *signature;
    let s = Scalar::from_bytes_mod_order(signature.as_chunks::<32>().0[1]);
    reduced[32..].copy_from_slice(s.as_bytes());
    // k does not hash s, so reducing it changes nothing else.
    verify_one(key, message, &reduced)
}

/// Refuses encodings that are not canonical.
fn canonical_only(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    let canonical = |bytes: [u8; 32]| {
        CompressedEdwardsY(bytes).decompress().is_some_and(|point| point.compress().to_bytes() == bytes)
    };
    canonical(*key) && canonical(signature.as_chunks::<32>().0[0]) && verify_one(key, message, signature)
}

fn fails(check: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(check)).is_err()
}

fn fails_suite(subject: &Subject, suite: &Suite) -> bool {
    fails(|| check_suite(subject, suite))
}

#[test]
fn the_reference_itself_passes_as_a_backend() {
    let reference = subject(verify_one, false);
    check_suite(&reference, &suites::speccheck());
    check_adversarial(&reference, 1, 5, 50);
}

#[test]
fn a_verifier_without_the_cofactor_fails() {
    assert!(fails_suite(&subject(cofactorless, false), &suites::small_order()));
    assert!(fails_suite(&subject(cofactorless, false), &suites::speccheck()));
    assert!(fails(|| check_adversarial(&subject(cofactorless, false), 1, 20, 50)));
}

#[test]
fn a_verifier_that_accepts_large_s_fails() {
    assert!(fails_suite(&subject(malleable, false), &suites::speccheck()));
    assert!(fails(|| check_adversarial(&subject(malleable, false), 1, 20, 50)));
}

#[test]
fn a_verifier_that_refuses_non_canonical_encodings_fails() {
    assert!(fails_suite(&subject(canonical_only, false), &suites::small_order()));
    assert!(fails(|| check_adversarial(&subject(canonical_only, false), 1, 20, 50)));
}

#[test]
fn a_verifier_that_always_gives_one_answer_fails() {
    assert!(fails_suite(&subject(|_, _, _| true, false), &suites::wycheproof()));
    assert!(fails_suite(&subject(|_, _, _| false, false), &suites::rfc8032()));
}

#[test]
fn a_verifier_that_loses_one_lane_of_a_full_batch_fails() {
    assert!(fails_suite(&subject(verify_one, true), &suites::speccheck()));
}

#[test]
fn required_backends_are_read_from_a_list_and_a_misspelt_one_is_an_error() {
    assert_eq!(parse_required(""), Ok(vec![]));
    assert_eq!(parse_required("serial, avx2"), Ok(vec![Backend::Serial, Backend::Avx2]));
    assert_eq!(parse_required("serial,avx3"), Err(BackendError::Unknown("avx3".to_owned())));
}
