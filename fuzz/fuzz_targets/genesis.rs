//! Any bytes as a genesis file: nothing panics, and what is taken is valid and encodes to the same bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_core::Genesis;

fuzz_target!(|data: &[u8]| {
    if let Ok(genesis) = Genesis::decode(data) {
        assert_eq!(genesis.encode().as_deref(), Ok(data));
        let id = genesis.id().expect("a decoded genesis is valid");
        let limits = genesis.limits().expect("a decoded genesis is valid");
        assert_eq!(limits.network, id.network());
        let [left, right] = id.roots();
        assert_ne!(left, right);
    }
});
