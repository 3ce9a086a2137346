//! Hashes of many short inputs at once, in public form: BLAKE3 message ids and SHA-256 tree hashes.
//!
//! [`Hashes`] picks the widest lanes of the CPU when it is made. Without vector lanes, and for messages longer than
//! one BLAKE3 chunk, it falls back to the `blake3` and `sha2` crates, whose digests are the same.

use sha2::{Digest, Sha256};

use super::backend::{self, Kernels};
use super::blake3 as lanes;

/// The flag of BLAKE3's key derivation mode for the material that is hashed.
const DERIVE_KEY_MATERIAL: u32 = 64;

/// Multi-buffer hashing on the instruction set chosen.
#[derive(Clone, Copy)]
pub struct Hashes {
    kernels: Option<&'static Kernels>,
}

/// The key that a BLAKE3 key-derivation context stands for, computed once.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    text: &'static str,
    words: [u32; 8],
}

impl Context {
    /// Prepares `context`, for instance "weft 2026-11 message v1".
    #[must_use]
    pub fn new(context: &'static str) -> Self {
        let key = ::blake3::hazmat::hash_derive_key_context(context);
        let words = key.as_chunks::<4>().0;
        Self { text: context, words: std::array::from_fn(|word| u32::from_le_bytes(words[word])) }
    }
}

impl Hashes {
    /// On the fastest lanes this CPU has, or none.
    #[must_use]
    pub fn detect() -> Self {
        Self { kernels: backend::detected().last().copied() }
    }

    /// On the backend called `name`, if this CPU has it; "serial" is always there.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        if name == "serial" {
            return Some(Self { kernels: None });
        }
        let kernels = backend::detected().into_iter().find(|kernels| kernels.name == name)?;
        Some(Self { kernels: Some(kernels) })
    }

    #[cfg(all(test, target_arch = "x86_64"))]
    pub(crate) fn with_kernels(kernels: &'static Kernels) -> Self {
        Self { kernels: Some(kernels) }
    }

    /// The backend's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.kernels.map_or("serial", |kernels| kernels.name)
    }

    /// `out[i]` = BLAKE3 `derive_key(context, messages[i])`, 32 bytes. Messages of like length next to each other
    /// are fastest; any length is correct.
    ///
    /// # Panics
    /// If `messages` and `out` differ in length: a bug of the caller.
    pub fn derive(&self, context: &Context, messages: &[&[u8]], out: &mut [[u8; 32]]) {
        assert_eq!(messages.len(), out.len(), "messages and digests must have the same number of rows");
        let serial = |message: &[u8]| {
            let mut hasher = ::blake3::Hasher::new_derive_key(context.text);
            hasher.update(message);
            *hasher.finalize().as_bytes()
        };
        let Some(kernels) = self.kernels else {
            for (message, out) in messages.iter().zip(out) {
                *out = serial(message);
            }
            return;
        };
        if messages.iter().all(|message| message.len() <= lanes::MESSAGE_BYTES_MAX) {
            kernels.blake3(&context.words, DERIVE_KEY_MATERIAL, messages, out);
            return;
        }
        // Long messages are replaced by nothing in the lanes and hashed by themselves.
        let short = |message: &&[u8]| message.len() <= lanes::MESSAGE_BYTES_MAX;
        let kept: Vec<&[u8]> =
            messages.iter().map(|message| if short(message) { message } else { &[][..] }).collect();
        kernels.blake3(&context.words, DERIVE_KEY_MATERIAL, &kept, out);
        for (message, out) in messages.iter().zip(out) {
            if !short(message) {
                *out = serial(message);
            }
        }
    }

    /// `out[i]` = RFC 6962 leaf hash of `data[i]`: SHA-256 of 0x00 and the 32 bytes.
    ///
    /// # Panics
    /// If `data` and `out` differ in length: a bug of the caller.
    pub fn leaves(&self, data: &[[u8; 32]], out: &mut [[u8; 32]]) {
        assert_eq!(data.len(), out.len(), "leaves and digests must have the same number of rows");
        match self.kernels {
            Some(kernels) => kernels.leaves(data, out),
            None => {
                for (data, out) in data.iter().zip(out) {
                    *out = Sha256::new().chain_update([0]).chain_update(data).finalize().into();
                }
            }
        }
    }

    /// `out[i]` = RFC 6962 node hash of two children: SHA-256 of 0x01, left and right.
    ///
    /// # Panics
    /// If `children` and `out` differ in length: a bug of the caller.
    pub fn nodes(&self, children: &[[[u8; 32]; 2]], out: &mut [[u8; 32]]) {
        assert_eq!(children.len(), out.len(), "nodes and digests must have the same number of rows");
        match self.kernels {
            Some(kernels) => kernels.nodes(children, out),
            None => {
                for ([left, right], out) in children.iter().zip(out) {
                    *out = Sha256::new()
                        .chain_update([1])
                        .chain_update(left)
                        .chain_update(right)
                        .finalize()
                        .into();
                }
            }
        }
    }
}
