//! Writing and signing messages: what a device runs.
//!
//! Owns the encoder ([`Draft`]) and, with feature `signing`, a signer on one Ed25519 key. `no_std` with
//! `alloc`; the caller brings time, sequence and parents. Invariant: what [`Draft::write_content`] and
//! [`Draft::finish`] write together is parsed by [`MessageView::parse`](crate::MessageView::parse). Whether
//! the content makes sense is left to [`check`](crate::check), storing the seed and the last sequence to the
//! device.

use alloc::vec::Vec;

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U64};

use crate::ids::{DeviceKey, MessageId, NetworkId};
use crate::message::{Head, PAYLOAD_BYTES_MAX, PayloadKind, SIGNATURE_BYTES, VERSION, message_id};
use crate::reject::{Reason, Rejection};

/// A message before it has an issuer and a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draft<'a> {
    /// First four bytes of the genesis id.
    pub network: NetworkId,
    /// Device clock, microseconds since the Unix epoch.
    pub issued_at_us: u64,
    /// Sequence number: above every one that this device has used.
    pub sequence: u64,
    /// Two different earlier messages.
    pub parents: [MessageId; 2],
    /// What the payload holds.
    pub kind: PayloadKind,
    /// The payload, at most [`PAYLOAD_BYTES_MAX`] bytes.
    pub payload: &'a [u8],
}

impl Draft<'_> {
    /// Appends head and payload to `out` and tells the id, which is what the issuer signs. For signers that
    /// sign many messages at once; each must be completed by [`finish`](Self::finish) before the next one is
    /// written to the same `out`.
    ///
    /// # Errors
    /// `payload_too_long`; `out` is left as it was.
    pub fn write_content(&self, issuer: &DeviceKey, out: &mut Vec<u8>) -> Result<MessageId, Rejection> {
        let payload_bytes = self.payload.len();
        let too_long = Reason::PayloadTooLong.with(payload_bytes as u64, PAYLOAD_BYTES_MAX as u64);
        if payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(too_long);
        }
        let head = Head {
            version: VERSION,
            kind: self.kind,
            payload_bytes: U16::new(u16::try_from(payload_bytes).map_err(|_| too_long)?),
            network: self.network,
            issued_at_us: U64::new(self.issued_at_us),
            sequence: U64::new(self.sequence),
            issuer: *issuer,
            parents: self.parents,
        };
        let start = out.len();
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(self.payload);
        Ok(message_id(&out[start..]))
    }

    /// Completes the message whose content was written last by appending its signature.
    pub fn finish(out: &mut Vec<u8>, signature: &[u8; SIGNATURE_BYTES]) {
        out.extend_from_slice(signature);
    }

    /// The whole message, signed by `signer`.
    ///
    /// # Errors
    /// `payload_too_long`.
    #[cfg(feature = "signing")]
    pub fn sign(&self, signer: &DeviceSigner) -> Result<Vec<u8>, Rejection> {
        let mut out = Vec::with_capacity(crate::message::MESSAGE_BYTES_MIN + self.payload.len());
        let id = self.write_content(&signer.public(), &mut out)?;
        Self::finish(&mut out, &signer.sign(&id));
        Ok(out)
    }
}

/// An Ed25519 key of a device or node, with its public key at hand. The secret is wiped from memory on drop.
#[cfg(feature = "signing")]
pub struct DeviceSigner {
    key: ed25519_dalek::SigningKey,
}

#[cfg(feature = "signing")]
impl DeviceSigner {
    /// The key of a 32-byte secret seed (RFC 8032, section 5.1.5). The caller draws the seed from a secure
    /// source and wipes its copy.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = zeroize::Zeroizing::new(seed);
        Self { key: ed25519_dalek::SigningKey::from_bytes(&seed) }
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> DeviceKey {
        DeviceKey(self.key.verifying_key().to_bytes())
    }

    /// Signs a message id.
    #[must_use]
    pub fn sign(&self, id: &MessageId) -> [u8; SIGNATURE_BYTES] {
        self.sign_bytes(&id.0)
    }

    /// Signs bytes of any length, for example the text of a lane's checkpoint. Never sign 32 bytes that
    /// somebody else has chosen: they may be the id of a message.
    #[must_use]
    pub fn sign_bytes(&self, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        use ed25519_dalek::Signer;
        self.key.sign(bytes).to_bytes()
    }
}

#[cfg(feature = "signing")]
impl core::fmt::Debug for DeviceSigner {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // The secret stays out of logs.
        f.debug_tuple("DeviceSigner").field(&self.public()).finish()
    }
}
