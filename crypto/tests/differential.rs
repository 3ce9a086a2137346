//! Random and adversarial signatures: every backend against the reference, the reference against ed25519-zebra
//! (another implementation of ZIP-215) and against what is known from how a case was made.
//!
//! `WEFT_TEST_SEED` repeats a run, `WEFT_TEST_CASES` lengthens it.

use std::collections::BTreeMap;

use weft_crypto::serial::verify_one;
use weft_crypto::testing::adversary::{Adversary, Kind};
use weft_crypto::testing::harness::{backends, check_adversarial};
use weft_crypto::testing::{Case, Draw, cases, seed};

fn zebra_accepts(case: &Case) -> bool {
    let key = ed25519_zebra::VerificationKey::try_from(case.key);
    let signature = ed25519_zebra::Signature::from(case.signature);
    key.is_ok_and(|key| key.verify(&signature, &case.message).is_ok())
}

#[test]
fn the_reference_agrees_with_zebra_and_with_how_each_case_was_made() {
    let seed = seed("reference");
    let mut verdicts: BTreeMap<Kind, [usize; 2]> = BTreeMap::new();
    for ids_only in [true, false] {
        let mut adversary = Adversary::new(seed, ids_only, 5);
        for number in 0..cases(3000) {
            let kind = Kind::ALL[number % Kind::ALL.len()];
            let case = adversary.make(kind);
            let verdict = verify_one(&case.key, &case.message, &case.signature);
            assert_eq!(verdict, case.valid, "{case:02x?}");
            assert_eq!(verdict, zebra_accepts(&case), "{case:02x?}");
            verdicts.entry(kind).or_default()[usize::from(verdict)] += 1;
        }
    }
    // Not vacuous: every kind was made, and has one verdict, as its name says.
    assert_eq!(verdicts.len(), Kind::ALL.len());
    let valid = verdicts.values().filter(|[bad, good]| *bad == 0 && *good > 0).count();
    assert_eq!(valid, 7, "{verdicts:?}");
}

#[test]
fn random_bytes_get_the_same_verdict_from_the_reference_and_zebra() {
    let mut draw = Draw::new(seed("random bytes"));
    for _ in 0..cases(500) {
        let length = draw.below(200);
        let case = Case {
            name: String::new(),
            key: draw.bytes(),
            message: draw.vec(length),
            signature: draw.bytes(),
            valid: false,
        };
        assert_eq!(
            verify_one(&case.key, &case.message, &case.signature),
            zebra_accepts(&case),
            "{case:02x?}"
        );
    }
}

#[test]
fn batches_of_honest_and_adversarial_signatures_give_the_known_verdicts_on_every_backend() {
    let seed = seed("batches");
    for subject in backends() {
        check_adversarial(&subject, seed, cases(3000) / 100, 200);
    }
}

#[test]
fn the_verdict_of_a_signature_never_depends_on_its_company() {
    let mut adversary = Adversary::new(seed("company"), false, 7);
    let all = adversary.mixture(120);
    for subject in backends() {
        for size in [1, 2, 3, 5, 8, 17, 40, 120] {
            for group in all.chunks(size) {
                let group: Vec<&Case> = group.iter().collect();
                weft_crypto::testing::harness::check_batch(&subject, "company", &group);
            }
        }
    }
}
