//! Batches made of fuzzer bytes and of adversarial signatures: every backend must give the verdicts of the reference,
//! and the reference those of ed25519-zebra.
//!
//! Input: rows until it ends, at most 24. A row starts with a control byte. Below 64: key (32), signature (64),
//! message length (1) and message follow, missing bytes being zero. Otherwise the byte picks a kind of adversarial
//! signature, and two more bytes (place, mask) change one byte of its key or signature.
//!
//! Canary: with `WEFT_FUZZ_CANARY=1` signatures with s = 0 are expected to be refused, which ZIP-215 does not do, so
//! the fuzzer must report a finding within seconds.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use weft_crypto::backend::{Options, available};
use weft_crypto::serial::verify_one;
use weft_crypto::testing::adversary::{Adversary, Kind};
use weft_crypto::testing::{Case, Rows};
use weft_crypto::{Backend, BatchVerifier};

const ROWS_MAX: usize = 24;

/// Each backend without a key cache and with one that evicts.
static BACKENDS: LazyLock<Vec<(Backend, Arc<dyn BatchVerifier>)>> = LazyLock::new(|| {
    [0, 8].into_iter().flat_map(|cached_keys| available(&Options { cached_keys })).collect()
});

static CANARY: LazyLock<bool> = LazyLock::new(|| std::env::var_os("WEFT_FUZZ_CANARY").is_some());

/// Takes `N` bytes, zeros where the input is too short.
fn take<const N: usize>(data: &mut &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    let (taken, rest) = data.split_at(N.min(data.len()));
    bytes[..taken.len()].copy_from_slice(taken);
    *data = rest;
    bytes
}

fn row(adversary: &mut Adversary, data: &mut &[u8]) -> Case {
    let [control] = take(data);
    if control < 64 {
        let (key, signature, [length]) = (take(data), take(data), take(data));
        let (message, rest) = data.split_at(usize::from(length).min(data.len()));
        *data = rest;
        return Case { name: "raw".to_owned(), key, message: message.to_vec(), signature, valid: false };
    }
    let mut case = adversary.make(Kind::ALL[usize::from(control) % Kind::ALL.len()]);
    let [place, mask] = take(data);
    match usize::from(place) % 96 {
        place @ ..32 => case.key[place] ^= mask,
        place => case.signature[place - 32] ^= mask,
    }
    case
}

fuzz_target!(|data: &[u8]| {
    let mut data = data;
    let mut adversary = Adversary::new(u64::from_le_bytes(take(&mut data)), false, 3);
    let mut cases = Vec::new();
    while !data.is_empty() && cases.len() < ROWS_MAX {
        let mut case = row(&mut adversary, &mut data);
        case.valid = verify_one(&case.key, &case.message, &case.signature);
        let key = ed25519_zebra::VerificationKey::try_from(case.key);
        let signature = ed25519_zebra::Signature::from(case.signature);
        let zebra = key.is_ok_and(|key| key.verify(&signature, &case.message).is_ok());
        let zebra = zebra && !(*CANARY && case.signature[32..] == [0; 32]);
        assert_eq!(case.valid, zebra, "the reference and zebra disagree: {case:02x?}");
        cases.push(case);
    }
    let rows = Rows::new(&cases);
    for (backend, verifier) in BACKENDS.iter() {
        let mut verdicts = vec![false; cases.len()];
        verifier.verify(&rows.columns(), &mut verdicts);
        for (case, verdict) in cases.iter().zip(verdicts) {
            assert_eq!(verdict, case.valid, "{backend} and the reference disagree: {case:02x?}");
        }
    }
});
