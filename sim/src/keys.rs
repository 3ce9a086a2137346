//! Keys and signatures of a run.
//!
//! Owns the choice between Ed25519 and hashes that stand for it. A hash over key and text depends on every byte of
//! both, like a signature; anyone could make one, but the simulation's liars do not. So most seeds run many times
//! faster, and some run with the product's own verifier. Invariant: one seed and number give one key.

use weft_core::{DeviceKey, DeviceSigner, merkle};

/// How a run signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// SHA-256 over key and text.
    Hash,
    /// Ed25519, verified under ZIP-215.
    Ed25519,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    scheme: Scheme,
    secret: [u8; 32],
    public: DeviceKey,
}

impl Key {
    /// Key `number` of a run.
    #[must_use]
    pub fn new(scheme: Scheme, seed: u64, number: u64) -> Self {
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&seed.to_le_bytes());
        secret[8..16].copy_from_slice(&number.to_le_bytes());
        let public = match scheme {
            Scheme::Hash => DeviceKey(merkle::leaf_hash(&secret)),
            Scheme::Ed25519 => DeviceSigner::from_seed(secret).public(),
        };
        Self { scheme, secret, public }
    }

    /// The public key.
    #[must_use]
    pub const fn public(&self) -> DeviceKey {
        self.public
    }

    /// Signs `text`.
    #[must_use]
    pub fn sign(&self, text: &[u8]) -> [u8; 64] {
        match self.scheme {
            Scheme::Hash => hash_signature(&self.public, text),
            Scheme::Ed25519 => DeviceSigner::from_seed(self.secret).sign_bytes(text),
        }
    }
}

fn hash_signature(key: &DeviceKey, text: &[u8]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&merkle::leaf_hash(&[&key.0[..], text].concat()));
    signature
}

/// Whether `signature` over `text` is valid.
#[must_use]
pub fn verify(scheme: Scheme, key: &DeviceKey, text: &[u8], signature: &[u8; 64]) -> bool {
    match scheme {
        Scheme::Hash => hash_signature(key, text) == *signature,
        Scheme::Ed25519 => weft_crypto::verify_one(&key.0, text, signature),
    }
}
