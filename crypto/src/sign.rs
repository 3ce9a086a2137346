//! Signing as devices do it: plain RFC 8032 Ed25519, one at a time and in batches.
//!
//! Made for load generators, which sign for millions of derived devices: a key is expanded from its seed once (one
//! SHA-512 and one fixed-base multiplication) and signs from then on. Signatures are equal, bit for bit, to those of
//! any other RFC 8032 signer, because nonces are derived and not random. Nothing here branches or indexes on a
//! secret: hashing and scalar arithmetic are straight-line, and `EdwardsPoint::mul_base` is constant time.
//!
//! Secrets are wiped when an [`ExpandedKey`] is dropped. Keeping seeds safe is the caller's business.

use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::{Scalar, clamp_integer};
use sha2::{Digest, Sha512};
use zeroize::Zeroize;

use crate::columns::Messages;

/// A signing key, ready to sign: RFC 8032 section 5.1.5's secret scalar and prefix, and the public key.
#[derive(Clone)]
pub struct ExpandedKey {
    /// The clamped scalar mod L, which is the same multiple of the base point.
    pub(crate) scalar: Scalar,
    /// The second half of SHA-512(seed): the key of the nonce derivation.
    pub(crate) prefix: [u8; 32],
    pub(crate) public: [u8; 32],
}

impl ExpandedKey {
    /// Expands a 32-byte seed, the form in which Ed25519 private keys are stored.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let mut hash: [u8; 64] = Sha512::digest(seed).into();
        let halves = hash.as_chunks::<32>().0;
        let scalar = Scalar::from_bytes_mod_order(clamp_integer(halves[0]));
        let prefix = halves[1];
        hash.zeroize();
        Self { scalar, prefix, public: EdwardsPoint::mul_base(&scalar).compress().to_bytes() }
    }

    /// The compressed public key.
    #[must_use]
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Signs `message` (RFC 8032 section 5.1.6): R, then s.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut nonce_hash: [u8; 64] =
            Sha512::new().chain_update(self.prefix).chain_update(message).finalize().into();
        let mut nonce = Scalar::from_bytes_mod_order_wide(&nonce_hash);
        let r = EdwardsPoint::mul_base(&nonce).compress().to_bytes();
        let k = crate::serial::challenge(&r, &self.public, message);
        let s = nonce + k * self.scalar;
        nonce.zeroize();
        nonce_hash.zeroize();
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&r);
        signature[32..].copy_from_slice(s.as_bytes());
        signature
    }
}

impl Drop for ExpandedKey {
    fn drop(&mut self) {
        self.scalar.zeroize();
        self.prefix.zeroize();
    }
}

impl std::fmt::Debug for ExpandedKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("ExpandedKey { public: ")?;
        self.public.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
        out.write_str(", .. }")
    }
}

/// A signer of whole batches: row `i` is `messages[i]`, signed by `keys[i]`, written to `signatures[i]`.
pub trait BatchSigner: Send + Sync {
    /// The backend's name, as used on command lines and in reports.
    fn name(&self) -> &'static str;

    /// Signs every row.
    ///
    /// # Panics
    /// If the columns differ in length: a bug of the caller.
    fn sign(&self, keys: &[&ExpandedKey], messages: &Messages<'_>, signatures: &mut [[u8; 64]]);

    /// Expands `seeds[i]` into `keys[i]`, replacing what `keys` held.
    fn expand(&self, seeds: &[[u8; 32]], keys: &mut Vec<ExpandedKey>) {
        keys.clear();
        keys.extend(seeds.iter().map(ExpandedKey::from_seed));
    }
}

/// Signs row after row on curve25519-dalek.
#[derive(Clone, Copy, Debug, Default)]
pub struct SerialSigner;

impl BatchSigner for SerialSigner {
    fn name(&self) -> &'static str {
        "serial"
    }

    fn sign(&self, keys: &[&ExpandedKey], messages: &Messages<'_>, signatures: &mut [[u8; 64]]) {
        assert_eq!(keys.len(), messages.len(), "keys and messages must have the same number of rows");
        assert_eq!(keys.len(), signatures.len(), "keys and signatures must have the same number of rows");
        for (index, (key, signature)) in keys.iter().zip(signatures).enumerate() {
            *signature = key.sign(messages.get(index));
        }
    }
}
