//! The BLAKE3 domains of weft: one context string per kind of object, so that bytes of one kind never hash
//! like another.
//!
//! Owns the context strings and their context keys. A context key is the first half of BLAKE3's derive_key
//! mode (BLAKE3 paper, section 2.3: the hash of the context string under the flag DERIVE_KEY_CONTEXT); it
//! depends on the string only, so it is a constant here and a hash costs one pass over the data. A test
//! computes every constant again from its string. Hashing many messages at once is left to `weft-crypto`,
//! which takes the key as an argument.

use blake3::hazmat::HasherExt;

/// One BLAKE3 derive_key domain.
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    context: &'static str,
    key: [u8; 32],
}

impl Domain {
    /// Message ids.
    pub const MESSAGE: Self = Self {
        context: "weft 2026-11 message v1",
        key: hex(b"eef64f63b55f6adb7033ae809a2a780cbf561db401899f84f89bfc344bcd5414"),
    };
    /// Genesis ids.
    pub const GENESIS: Self = Self {
        context: "weft 2026-11 genesis v1",
        key: hex(b"008d3530e419331f4f85adddba17099463a42e5a5be325deb7fe52b126773c86"),
    };
    /// The two roots that a genesis provides as parents.
    pub const GENESIS_ROOT: Self = Self {
        context: "weft 2026-11 genesis root v1",
        key: hex(b"ef1a84e67715fd445b0b2d6ebe459ac8fd15f16cfd692920e96312381a40270d"),
    };
    /// Bodies of lane batches.
    pub const BATCH_BODY: Self = Self {
        context: "weft 2026-11 batch body v1",
        key: hex(b"379794646821ebf4d3599447c1270f1571b73c4e505c608d8b3d98b88a93b64b"),
    };
    /// Headers of lane batches.
    pub const BATCH_HEADER: Self = Self {
        context: "weft 2026-11 batch header v1",
        key: hex(b"939d9485c5f455438f6a98437fbaf52fa8f74b5fac5b1a392e4b83829e7b7e94"),
    };
    /// Payloads of operations.
    pub const OPERATION: Self = Self {
        context: "weft 2026-11 operation v1",
        key: hex(b"393a252f2343fb47aad57213da658e70ca44ddfb34a26a94e2697dabb1c3133c"),
    };

    /// The context string.
    #[must_use]
    pub const fn context(&self) -> &'static str {
        self.context
    }

    /// The context key: what a multi-buffer implementation starts from.
    #[must_use]
    pub const fn context_key(&self) -> &[u8; 32] {
        &self.key
    }

    /// The 32-byte hash of `data` in this domain: equal to `blake3::derive_key(context, data)`.
    #[must_use]
    #[inline]
    pub fn hash(&self, data: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_from_context_key(&self.key);
        hasher.update(data);
        *hasher.finalize().as_bytes()
    }
}

/// Decodes lower-case hexadecimal at compile time.
const fn hex(digits: &[u8; 64]) -> [u8; 32] {
    const fn digit(digit: u8) -> u8 {
        match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => panic!("not a lower-case hexadecimal digit"),
        }
    }
    let mut bytes = [0; 32];
    let mut i = 0;
    while i < 32 {
        bytes[i] = digit(digits[2 * i]) << 4 | digit(digits[2 * i + 1]);
        i += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_keys_are_those_of_their_strings() {
        let domains = [
            Domain::MESSAGE,
            Domain::GENESIS,
            Domain::GENESIS_ROOT,
            Domain::BATCH_BODY,
            Domain::BATCH_HEADER,
            Domain::OPERATION,
        ];
        for domain in domains {
            assert_eq!(
                blake3::hazmat::hash_derive_key_context(domain.context),
                domain.key,
                "{}",
                domain.context
            );
            for length in [0, 1, 64, 65, 184, 1_024, 1_025, 70_000] {
                let data: alloc::vec::Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
                assert_eq!(domain.hash(&data), blake3::derive_key(domain.context, &data));
            }
        }
    }
}
