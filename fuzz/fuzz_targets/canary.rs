//! The target that must fail: it panics on an input that only a fuzzer finds in time which is guided by
//! coverage (the magic, byte by byte) and sees the operands of comparisons (the number behind it). `run.sh
//! --canary` runs it; all other runs leave it out.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let [b'W', b'E', b'F', b'T', a, b, c, d, ..] = data {
        assert_ne!(u32::from_le_bytes([*a, *b, *c, *d]), 0x7eed_beef, "the canary sings");
    }
});
