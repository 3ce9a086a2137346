//! Any bytes as a proof of a fork: nothing panics, what is taken encodes to the same bytes, and no seal has to be looked at
//! before both leaves are where they are said to be.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::{DeviceKey, FORK_PROOF_BYTES_MAX, ForkProof, ForkProofError};

fuzz_target!(|data: &[u8]| {
    let Ok(proof) = ForkProof::decode(data) else { return };
    assert!(data.len() <= FORK_PROOF_BYTES_MAX);
    assert_eq!(proof.encode().as_deref(), Ok(data));
    let mut looked_at = 0;
    let verdict = proof.verify(&DeviceKey([1; 32]), |_, _, _| {
        looked_at += 1;
        false
    });
    assert_eq!(looked_at, usize::from(matches!(verdict, Err(ForkProofError::Signature { side: 0 }))));
    assert!(verdict.is_err());
});
