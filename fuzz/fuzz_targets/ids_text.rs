//! Any text as an identifier: nothing panics, and what is taken is written back as the same value.

#![no_main]

use core::fmt::{Debug, Display};
use core::str::FromStr;

use libfuzzer_sys::fuzz_target;
use weft_core::{GenesisId, LaneId, MessageId, NetworkId, Place};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = core::str::from_utf8(data) else { return };
    survives::<MessageId>(text);
    survives::<GenesisId>(text);
    survives::<NetworkId>(text);
    survives::<LaneId>(text);
    survives::<Place>(text);
});

fn survives<T: FromStr<Err: Debug> + Display + Debug + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse::<T>().expect("it was just written"), value);
    }
}
