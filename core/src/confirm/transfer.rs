//! Operations on accounts, and the one that exists so far: the transfer.
//!
//! Owns the payload format of kind [`PayloadKind::TRANSFER`] and what identifies an operation: (account, account
//! sequence, payload hash). The account is the message's issuer. The same payload in another message, with fresh
//! parents or through another node, is the same operation and takes effect once. Invariants: decoding takes any
//! bytes without panic or allocation, and what is taken is canonical. A payload of this kind that does not decode
//! is plain data (`docs/decisions/0021`). What an operation does is left to [`ledger`](super::ledger).
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | account sequence: 0, 1, 2 ... per account, without gaps |
//! | 8 | 32 | account credited |
//! | 40 | 8 | amount, not 0 |
//! | 48 | M | memo, at most 256 bytes; part of the operation's identity |
//!
//! `operation hash = BLAKE3 derive_key("weft 2026-11 operation v1", payload)`.

use alloc::vec::Vec;

use crate::hash::Domain;
use crate::ids::{DeviceKey, MessageId};
use crate::message::{MessageView, PayloadKind};

/// Length of a transfer without memo.
pub const TRANSFER_BYTES_MIN: usize = 48;

/// Longest memo: an invoice number or a short text, not a place for data.
pub const MEMO_BYTES_MAX: usize = 256;

/// Why bytes are no transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// Fewer bytes than the fields need, or a memo beyond its limit.
    #[error("transfer has {got} bytes, not {min} to {limit}")]
    Length {
        /// Bytes given.
        got: usize,
        /// Bytes of a transfer without memo.
        min: usize,
        /// Bytes of one with the longest memo.
        limit: usize,
    },
    /// Nothing is paid.
    #[error("the amount of a transfer is 0")]
    NoAmount,
}

/// A payment, read in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer<'a> {
    /// Sequence of the paying account.
    pub account_sequence: u64,
    /// The account credited.
    pub to: DeviceKey,
    /// Units paid, not 0: an account exists only once it was paid something, so money bounds their number.
    pub amount: u64,
    /// A few bytes for people.
    pub memo: &'a [u8],
}

impl<'a> Transfer<'a> {
    /// Reads a payload.
    ///
    /// # Errors
    /// A length that does not fit, or an amount of 0.
    pub fn decode(payload: &'a [u8]) -> Result<Self, TransferError> {
        let limit = TRANSFER_BYTES_MIN + MEMO_BYTES_MAX;
        let wrong = TransferError::Length { got: payload.len(), min: TRANSFER_BYTES_MIN, limit };
        let (sequence, rest) = payload.split_first_chunk::<8>().ok_or(wrong)?;
        let (to, rest) = rest.split_first_chunk::<32>().ok_or(wrong)?;
        let (amount, memo) = rest.split_first_chunk::<8>().ok_or(wrong)?;
        if memo.len() > MEMO_BYTES_MAX {
            return Err(wrong);
        }
        let amount = u64::from_le_bytes(*amount);
        if amount == 0 {
            return Err(TransferError::NoAmount);
        }
        Ok(Self { account_sequence: u64::from_le_bytes(*sequence), to: DeviceKey(*to), amount, memo })
    }

    /// The payload.
    ///
    /// # Errors
    /// Those of [`decode`](Self::decode).
    pub fn encode(&self) -> Result<Vec<u8>, TransferError> {
        let mut out = Vec::with_capacity(TRANSFER_BYTES_MIN + self.memo.len().min(MEMO_BYTES_MAX));
        out.extend_from_slice(&self.account_sequence.to_le_bytes());
        out.extend_from_slice(&self.to.0);
        out.extend_from_slice(&self.amount.to_le_bytes());
        out.extend_from_slice(self.memo);
        Transfer::decode(&out)?;
        Ok(out)
    }
}

/// Hash of an operation's payload.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OperationHash(
    /// The hash.
    pub [u8; 32],
);

impl OperationHash {
    /// The hash of this payload.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        Self(Domain::OPERATION.hash(payload))
    }
}

/// What confirmation knows of one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The account that pays: the message's issuer.
    pub account: DeviceKey,
    /// Its sequence.
    pub sequence: u64,
    /// Hash of the payload.
    pub hash: OperationHash,
    /// The account credited.
    pub to: DeviceKey,
    /// Units.
    pub amount: u64,
    /// The message that carries it here; the same operation may have others.
    pub message: MessageId,
}

impl Operation {
    /// The operation in a message, if there is one. `id` is asked for the message's id only then.
    #[must_use]
    pub fn read(message: &MessageView<'_>, id: impl FnOnce() -> MessageId) -> Option<Self> {
        if message.kind() != PayloadKind::TRANSFER {
            return None;
        }
        let transfer = Transfer::decode(message.payload()).ok()?;
        Some(Self {
            account: *message.issuer(),
            sequence: transfer.account_sequence,
            hash: OperationHash::of(message.payload()),
            to: transfer.to,
            amount: transfer.amount,
            message: id(),
        })
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    #[test]
    fn a_transfer_has_fixed_bytes_and_survives_them() {
        let transfer =
            Transfer { account_sequence: 0x0102, to: DeviceKey([7; 32]), amount: 3, memo: b"rent" };
        let bytes = transfer.encode().unwrap();
        let mut expected = vec![2, 1, 0, 0, 0, 0, 0, 0];
        expected.extend([7; 32]);
        expected.extend([3, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend(b"rent");
        assert_eq!(bytes, expected);
        assert_eq!(Transfer::decode(&bytes), Ok(transfer));
    }

    #[test]
    fn what_is_too_short_too_long_or_pays_nothing_is_named() {
        let transfer = Transfer { account_sequence: 0, to: DeviceKey([7; 32]), amount: 1, memo: &[0; 256] };
        let bytes = transfer.encode().unwrap();
        for length in 0..48 {
            let refused = Transfer::decode(&bytes[..length]);
            assert_eq!(refused, Err(TransferError::Length { got: length, min: 48, limit: 304 }));
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Transfer::decode(&longer), Err(TransferError::Length { got: 305, min: 48, limit: 304 }));
        let nothing = Transfer { amount: 0, ..transfer };
        assert_eq!(nothing.encode(), Err(TransferError::NoAmount));
    }
}
