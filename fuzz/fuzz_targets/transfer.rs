//! Any bytes as a transfer: nothing panics, and what is taken encodes to the same bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::confirm::{OperationHash, Transfer};

fuzz_target!(|data: &[u8]| {
    if let Ok(transfer) = Transfer::decode(data) {
        assert_eq!(transfer.encode().as_deref(), Ok(data));
        assert!(transfer.amount > 0);
        assert_eq!(OperationHash::of(data), OperationHash::of(&data.to_vec()));
    }
});
