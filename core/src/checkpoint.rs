//! The text that a node signs about its lane: a C2SP tlog-checkpoint body.
//!
//! Owns the origin line and the encoding. Invariant: the text is canonical: one (network, lane, size, root)
//! has one text, so a signature over it is a signature over these values and nothing else. Signed notes
//! around it (signature lines, cosignatures) belong to receipts, see the design, section 4.
//!
//! ```text
//! weft/<network, 8 hexadecimal digits>/<lane, decimal>\n
//! <size, decimal>\n
//! <root, standard base64 with padding>\n
//! ```

use alloc::format;
use alloc::string::String;

use crate::ids::{LaneId, NetworkId};
use crate::merkle::Hash;

/// The checkpoint text of `lane` at `size` leaves with `root`.
#[must_use]
pub fn checkpoint_text(network: NetworkId, lane: LaneId, size: u64, root: &Hash) -> String {
    format!("weft/{network}/{lane}\n{size}\n{}\n", base64(root))
}

/// Standard base64 with padding (RFC 4648, section 4).
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_gives_the_vectors_of_rfc_4648() {
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
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn the_checkpoint_text_has_origin_size_and_root_on_three_lines() {
        let text =
            checkpoint_text(NetworkId([0, 1, 0xfe, 0xff]), LaneId(7), 1_234, &crate::merkle::EMPTY_ROOT);
        assert_eq!(text, "weft/0001feff/7\n1234\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n");
    }
}
