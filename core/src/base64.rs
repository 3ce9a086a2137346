//! Standard base64 with padding (RFC 4648, section 4), as checkpoints, signed notes and proofs use it.
//!
//! Owns both directions. Invariant: decoding is canonical: what decodes encodes to the same text, so that no
//! text of a receipt can be changed without a change of what it says. Limits on lengths are left to callers.

use alloc::string::String;
use alloc::vec::Vec;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The text of `bytes`.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut word = [0; 4];
        word[1..=group.len()].copy_from_slice(group);
        let word = u32::from_be_bytes(word);
        for digit in 0..4 {
            let index = (word >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= group.len() { ALPHABET[index] as char } else { '=' });
        }
    }
    text
}

/// The bytes of `text`; `None` unless it is exactly the text that [`base64`] gives for them.
#[must_use]
pub fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let (groups, rest) = text.as_bytes().as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    let mut bytes = Vec::with_capacity(groups.len() * 3);
    for (number, group) in groups.iter().enumerate() {
        let is_last = number + 1 == groups.len();
        let padding = match group {
            [_, _, b'=', b'='] if is_last => 2,
            [_, _, _, b'='] if is_last => 1,
            _ => 0,
        };
        let mut word = 0;
        for digit in &group[..4 - padding] {
            word = word << 6 | u32::from(value(*digit)?);
        }
        word <<= 6 * padding;
        let [_, decoded @ ..] = word.to_be_bytes();
        // Bits beyond the last byte are zero in canonical text.
        if decoded[3 - padding..].iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(&decoded[..3 - padding]);
    }
    Some(bytes)
}

const fn value(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_vectors_of_rfc_4648_come_out_in_both_directions() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (input, text) in vectors {
            assert_eq!(base64(input.as_bytes()), text);
            assert_eq!(base64_decode(text).as_deref(), Some(input.as_bytes()));
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn text_that_is_not_canonical_is_refused() {
        // Bits beyond the end, padding missing or too much or in the middle, white space, the URL alphabet.
        for text in
            ["Zh==", "Zm9=", "Zg", "Zg=", "Z===", "====", "Zg==Zg==", "Zm9v\n", "Zm 9v", "-__-", "Zm9é"]
        {
            assert_eq!(base64_decode(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_decodes_encodes_to_the_same_text(text in "[A-Za-z0-9+/=]{0,12}") {
            if let Some(bytes) = base64_decode(&text) {
                prop_assert_eq!(base64(&bytes), text);
            }
        }

        #[test]
        fn any_bytes_survive_their_text(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(base64_decode(&base64(&bytes)), Some(bytes));
        }
    }
}
