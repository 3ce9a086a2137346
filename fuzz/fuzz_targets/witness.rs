//! Any bytes as a witness and as a record of votes: nothing panics, memory stays bounded, and what is taken encodes to
//! the same bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::confirm::{Votes, Witness};

fuzz_target!(|data: &[u8]| {
    if let Ok(witness) = Witness::decode(data) {
        assert_eq!(witness.encode().as_deref(), Ok(data));
        assert_eq!(witness.encoded_bytes(), data.len() as u64);
        let rejects: usize = witness.rejects.iter().map(|group| group.positions.len()).sum();
        assert!(rejects <= 8 * data.len());
        for group in &witness.rejects {
            let claim = witness.cut.iter().find(|claim| claim.lane == group.lane).expect("its lane is cut");
            assert!(group.positions.iter().all(|position| *position < claim.size));
        }
    }
    if let Ok(votes) = Votes::decode(data) {
        assert_eq!(votes.encode(), data);
    }
});
