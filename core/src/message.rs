//! Message, version 1: the layout, and a view that reads it in place.
//!
//! Owns the byte format and the message id. Invariant: a [`MessageView`] spans exactly one message of version
//! 1 whose length fits its payload length; nothing else is known about it. Whether it belongs to this
//! network, has different parents and a sane clock is left to [`check`](crate::check), the signature to
//! `weft-crypto`, the parents to the node.
//!
//! Little-endian throughout:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | version = 1 |
//! | 1 | 1 | payload kind |
//! | 2 | 2 | payload length N, at most 16,384 |
//! | 4 | 4 | network: first 4 bytes of the genesis id |
//! | 8 | 8 | issued_at: device clock, microseconds since the Unix epoch |
//! | 16 | 8 | sequence: rising per issuer, for gaps and replays |
//! | 24 | 32 | issuer: Ed25519 public key |
//! | 56 | 32 | parent 0 |
//! | 88 | 32 | parent 1 |
//! | 120 | N | payload |
//! | 120+N | 64 | Ed25519 signature over the id |
//!
//! `id = BLAKE3 derive_key("weft 2026-11 message v1", bytes[0 .. 120+N])`. The signature is outside the id: a
//! second valid signature on the same content is the same message.

use core::fmt;

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::hash::Domain;
use crate::ids::{DeviceKey, MessageId, NetworkId};
use crate::reject::{Reason, Rejection};

/// The only version so far.
pub const VERSION: u8 = 1;

/// Length of the head.
pub const HEAD_BYTES: usize = 120;

/// Length of the signature.
pub const SIGNATURE_BYTES: usize = 64;

/// Longest payload. Large enough for a witness over all lanes, small enough that a batch of 4,096 messages
/// fits into 64 MiB and that one message never blocks a connection's window.
pub const PAYLOAD_BYTES_MAX: usize = 16_384;

/// Length of a message without payload.
pub const MESSAGE_BYTES_MIN: usize = HEAD_BYTES + SIGNATURE_BYTES;

/// Length of the longest message.
pub const MESSAGE_BYTES_MAX: usize = MESSAGE_BYTES_MIN + PAYLOAD_BYTES_MAX;

/// What a payload holds. Any number is allowed: a kind without a meaning here is plain data.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(transparent)]
pub struct PayloadKind(
    /// The number on the wire.
    pub u8,
);

impl PayloadKind {
    /// A 16-byte tag, then bytes.
    pub const DATA: Self = Self(0);
    /// Data encrypted to its recipients.
    pub const SEALED: Self = Self(1);
    /// BLAKE3 root of data that stays on the device.
    pub const COMMITMENT: Self = Self(2);
    /// A payment between accounts.
    pub const TRANSFER: Self = Self(3);
    /// Operation of a payment channel.
    pub const CHANNEL: Self = Self(4);
    /// Operation of the data market.
    pub const MARKET: Self = Self(5);
    /// Operation of the registry.
    pub const REGISTRY: Self = Self(6);
    /// A validator's witness.
    pub const WITNESS: Self = Self(7);

    /// The kind's name, if it has one.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::DATA => "data",
            Self::SEALED => "sealed",
            Self::COMMITMENT => "commitment",
            Self::TRANSFER => "transfer",
            Self::CHANNEL => "channel",
            Self::MARKET => "market",
            Self::REGISTRY => "registry",
            Self::WITNESS => "witness",
            _ => return None,
        })
    }
}

impl From<u8> for PayloadKind {
    fn from(number: u8) -> Self {
        Self(number)
    }
}

impl fmt::Display for PayloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "kind {}", self.0),
        }
    }
}

impl fmt::Debug for PayloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The fixed head, as it lies in the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Head {
    /// Format version.
    pub version: u8,
    /// Payload kind.
    pub kind: PayloadKind,
    /// Payload length in bytes.
    pub payload_bytes: U16,
    /// First four bytes of the genesis id.
    pub network: NetworkId,
    /// Device clock, microseconds since the Unix epoch.
    pub issued_at_us: U64,
    /// Sequence number of the issuer.
    pub sequence: U64,
    /// The device.
    pub issuer: DeviceKey,
    /// The two messages that this one names.
    pub parents: [MessageId; 2],
}

const _: () = assert!(size_of::<Head>() == HEAD_BYTES);
const _: () = assert!(core::mem::offset_of!(Head, payload_bytes) == 2);
const _: () = assert!(core::mem::offset_of!(Head, network) == 4);
const _: () = assert!(core::mem::offset_of!(Head, issued_at_us) == 8);
const _: () = assert!(core::mem::offset_of!(Head, sequence) == 16);
const _: () = assert!(core::mem::offset_of!(Head, issuer) == 24);
const _: () = assert!(core::mem::offset_of!(Head, parents) == 56);
const _: () = assert!(PAYLOAD_BYTES_MAX <= u16::MAX as usize);

/// Id of the message whose head and payload are `content` (without the signature). One BLAKE3 call.
#[must_use]
pub fn message_id(content: &[u8]) -> MessageId {
    MessageId(Domain::MESSAGE.hash(content))
}

/// One message, read in place.
#[derive(Clone, Copy)]
pub struct MessageView<'a> {
    head: &'a Head,
    bytes: &'a [u8],
    signature: &'a [u8; SIGNATURE_BYTES],
}

impl<'a> MessageView<'a> {
    /// Reads the head of the first message in `bytes` and tells the length of that message.
    fn head_and_length(bytes: &'a [u8]) -> Result<(&'a Head, usize), Rejection> {
        if bytes.len() < MESSAGE_BYTES_MIN {
            return Err(Reason::Truncated.with(bytes.len() as u64, MESSAGE_BYTES_MIN as u64));
        }
        let Ok((head, _)) = Head::ref_from_prefix(bytes) else {
            return Err(Reason::Truncated.with(bytes.len() as u64, MESSAGE_BYTES_MIN as u64));
        };
        if head.version != VERSION {
            return Err(Reason::BadVersion.with(u64::from(head.version), u64::from(VERSION)));
        }
        let payload_bytes = usize::from(head.payload_bytes.get());
        if payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(Reason::PayloadTooLong.with(payload_bytes as u64, PAYLOAD_BYTES_MAX as u64));
        }
        Ok((head, MESSAGE_BYTES_MIN + payload_bytes))
    }

    /// Reads `bytes` as exactly one message.
    ///
    /// # Errors
    /// `truncated`, `oversized`, `bad_version`, `payload_too_long` or `length_mismatch` (got: bytes given,
    /// limit: bytes that the head calls for).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Rejection> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(Reason::Oversized.with(bytes.len() as u64, MESSAGE_BYTES_MAX as u64));
        }
        let (head, length) = Self::head_and_length(bytes)?;
        match bytes.last_chunk() {
            Some(signature) if bytes.len() == length => Ok(Self { head, bytes, signature }),
            _ => Err(Reason::LengthMismatch.with(bytes.len() as u64, length as u64)),
        }
    }

    /// Reads the first message of `bytes` and hands back the rest.
    ///
    /// # Errors
    /// `truncated` (limit: bytes that the message needs), `bad_version` or `payload_too_long`.
    pub fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Rejection> {
        let (head, length) = Self::head_and_length(bytes)?;
        let truncated = Reason::Truncated.with(bytes.len() as u64, length as u64);
        let (bytes, rest) = bytes.split_at_checked(length).ok_or(truncated)?;
        let signature = bytes.last_chunk().ok_or(truncated)?;
        Ok((Self { head, bytes, signature }, rest))
    }

    /// The fixed head.
    #[must_use]
    pub const fn head(&self) -> &'a Head {
        self.head
    }

    /// Format version: always [`VERSION`].
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.head.version
    }

    /// Payload kind.
    #[must_use]
    pub const fn kind(&self) -> PayloadKind {
        self.head.kind
    }

    /// The payload, at most [`PAYLOAD_BYTES_MAX`].
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEAD_BYTES..self.bytes.len() - SIGNATURE_BYTES]
    }

    /// The network that the message belongs to.
    #[must_use]
    pub const fn network(&self) -> NetworkId {
        self.head.network
    }

    /// Device clock, microseconds since the Unix epoch.
    #[must_use]
    pub const fn issued_at_us(&self) -> u64 {
        self.head.issued_at_us.get()
    }

    /// Sequence number of the issuer.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.head.sequence.get()
    }

    /// The device's public key.
    #[must_use]
    pub const fn issuer(&self) -> &'a DeviceKey {
        &self.head.issuer
    }

    /// The two messages that this one names.
    #[must_use]
    pub const fn parents(&self) -> &'a [MessageId; 2] {
        &self.head.parents
    }

    /// Ed25519 signature over the id; not verified here.
    #[must_use]
    pub const fn signature(&self) -> &'a [u8; SIGNATURE_BYTES] {
        self.signature
    }

    /// Head and payload: what the id covers.
    #[must_use]
    pub fn content(&self) -> &'a [u8] {
        &self.bytes[..self.bytes.len() - SIGNATURE_BYTES]
    }

    /// The whole message.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The message id: one BLAKE3 call over [`content`](Self::content); not cached.
    #[must_use]
    pub fn id(&self) -> MessageId {
        message_id(self.content())
    }
}

impl fmt::Debug for MessageView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageView")
            .field("id", &self.id())
            .field("issuer", self.issuer())
            .field("sequence", &self.sequence())
            .field("kind", &self.kind())
            .field("payload_bytes", &self.payload().len())
            .finish_non_exhaustive()
    }
}
