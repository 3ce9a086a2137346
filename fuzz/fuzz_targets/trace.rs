//! Any bytes as a recorded trace: an entry or an error with its line, never a panic; times never fall, and every field is within its limits.
//! What was read is written again in the documented form and is read as the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_loadgen::trace::{Decoder, Entry, HEADER};

fn classes() -> Vec<String> {
    ["home_sensor", "camera", "v"].map(str::to_owned).to_vec()
}

fn decode(bytes: &[u8]) -> (Vec<Entry>, bool) {
    let mut decoder = Decoder::new(bytes, classes());
    let mut entries = Vec::new();
    loop {
        match decoder.next_entry() {
            Ok(Some(entry)) => entries.push(entry),
            Ok(None) => return (entries, true),
            Err(error) => {
                assert!(error.to_string().starts_with("line "), "{error}");
                return (entries, false);
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    // Most inputs would not come past the names of the columns.
    let mut bytes = Vec::new();
    if let Some((0..=127, _)) = data.split_first() {
        bytes.extend_from_slice(HEADER.as_bytes());
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(data.get(1..).unwrap_or_default());
    let (entries, _) = decode(&bytes);
    assert!(entries.windows(2).all(|pair| pair[0].offset_us <= pair[1].offset_us));
    let mut text = format!("{HEADER}\n");
    for entry in &entries {
        assert!(entry.device < 1 << 48 && (16..=16_384).contains(&entry.payload_bytes));
        let class = &classes()[usize::from(entry.class)];
        text += &format!("{},{},{},{class}\n", entry.offset_us, entry.device, entry.payload_bytes);
    }
    assert_eq!(decode(text.as_bytes()), (entries, true));
});
