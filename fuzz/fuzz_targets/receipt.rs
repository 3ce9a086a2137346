//! Any bytes as a receipt, a consistency proof and a signed checkpoint: nothing panics, what is taken is written as
//! the same bytes, and nothing verifies under keys that signed nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::endorse::SignedCheckpoint;
use weft_core::genesis::Genesis;
use weft_core::{ConsistencyFile, NodeKey, Receipt};

fuzz_target!(|data: &[u8]| {
    let genesis = Genesis::single("fuzz", 1, NodeKey::from([7; 32]));
    // All signatures are valid: a network that is not the genesis's still stops every receipt.
    if let Ok(receipt) = Receipt::parse(data) {
        assert_eq!(receipt.encode().as_bytes(), data);
        let network = genesis.network().expect("a valid genesis");
        let verified = receipt.verify(&genesis, None, |_, _, _| true);
        assert!(verified.is_err() || receipt.checkpoint.checkpoint.network == network);
        assert!(receipt.verify(&genesis, None, |_, _, _| false).is_err());
    }
    if let Ok(file) = ConsistencyFile::parse(data) {
        assert_eq!(file.encode().as_bytes(), data);
        let _ = file.verify(&file.new.checkpoint);
    }
    if let Ok(mut checkpoint) = SignedCheckpoint::parse(data) {
        assert_eq!(checkpoint.encode().as_bytes(), data);
        checkpoint.trim(&genesis);
    }
});
