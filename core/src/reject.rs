//! Rejections: why one message is not taken, with what was got and what the limit is.
//!
//! Owns the reasons and their wire codes. Invariants: a code never changes its meaning and is never used
//! again; a rejection is small ([`Rejection`] is at most 24 bytes) and `Copy`, so that a batch of refused
//! messages allocates nothing. A rejection concerns one message and never the connection that brought it
//! (design, section 7). How acknowledgements carry them is left to `weft-net`.

use core::fmt;

/// Why a message is not taken. The discriminant is the wire code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum Reason {
    /// Fewer bytes than a message needs (got, limit: bytes).
    Truncated = 1,
    /// More bytes than any message may have (got, limit: bytes).
    Oversized = 2,
    /// The version byte is not one this node reads (got, limit: version).
    BadVersion = 3,
    /// The message belongs to another ledger (got, limit: network, as the little-endian integer of its four
    /// bytes).
    WrongNetwork = 4,
    /// Both parents are the same message (got, limit: 0).
    EqualParents = 5,
    /// The payload is longer than the format or the genesis allows (got, limit: bytes).
    PayloadTooLong = 6,
    /// The message has another length than its payload length says (got, limit: bytes).
    LengthMismatch = 7,
    /// The signature does not verify (got, limit: 0).
    BadSignature = 8,
    /// The device's clock is too far ahead (got, limit: microseconds since the Unix epoch).
    ClockAhead = 9,
    /// The device's clock is too far behind (got, limit: microseconds since the Unix epoch).
    ClockBehind = 10,
    /// This issuer's sequence number was taken before (got: sequence; limit: the highest one taken).
    ReplayedSequence = 11,
    /// The sequence number lies below the window in which replays can be told (got: sequence; limit: the
    /// lowest one in the window).
    StaleSequence = 12,
    /// A parent is not known here (got: which parent, 0 or 1; limit: 0).
    UnknownParent = 13,
    /// The same message is stored already: not an error of the sender (got: its place; limit: 0).
    Duplicate = 14,
    /// The node has more work than it may hold (got, limit: the measure that ran over; 0 where there is
    /// none).
    Overloaded = 15,
    /// The node is stopping (got, limit: 0).
    ShuttingDown = 16,
    /// The log refuses writes: a write or sync failed, or the disk is full (got, limit: free bytes and
    /// watermark, or 0).
    LogFailed = 17,
    /// This issuer sends more than its share (got, limit: messages).
    IssuerLimit = 18,
    /// The operation is not the account's next one (got: its account sequence; limit: the next one). A higher one
    /// may come later, a lower one is in the ledger.
    AccountSequence = 19,
    /// The account's final balance does not cover the operation (got: amount; limit: balance).
    InsufficientBalance = 20,
    /// Another operation for this account sequence is known here (got: account sequence; limit: 0).
    OperationConflict = 21,
    /// The node is not up to date: it cannot judge operations yet (got, limit: 0).
    CatchingUp = 22,
    /// The message is durable, but was not confirmed in time to the level that the client asked for (got: level
    /// reached; limit: level asked for).
    NotConfirmed = 23,
}

impl Reason {
    /// Every reason, in the order of the wire codes.
    pub const ALL: [Self; 23] = [
        Self::Truncated,
        Self::Oversized,
        Self::BadVersion,
        Self::WrongNetwork,
        Self::EqualParents,
        Self::PayloadTooLong,
        Self::LengthMismatch,
        Self::BadSignature,
        Self::ClockAhead,
        Self::ClockBehind,
        Self::ReplayedSequence,
        Self::StaleSequence,
        Self::UnknownParent,
        Self::Duplicate,
        Self::Overloaded,
        Self::ShuttingDown,
        Self::LogFailed,
        Self::IssuerLimit,
        Self::AccountSequence,
        Self::InsufficientBalance,
        Self::OperationConflict,
        Self::CatchingUp,
        Self::NotConfirmed,
    ];

    /// The wire code.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// A stable name for metrics, logs and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Oversized => "oversized",
            Self::BadVersion => "bad_version",
            Self::WrongNetwork => "wrong_network",
            Self::EqualParents => "equal_parents",
            Self::PayloadTooLong => "payload_too_long",
            Self::LengthMismatch => "length_mismatch",
            Self::BadSignature => "bad_signature",
            Self::ClockAhead => "clock_ahead",
            Self::ClockBehind => "clock_behind",
            Self::ReplayedSequence => "replayed_sequence",
            Self::StaleSequence => "stale_sequence",
            Self::UnknownParent => "unknown_parent",
            Self::Duplicate => "duplicate",
            Self::Overloaded => "overloaded",
            Self::ShuttingDown => "shutting_down",
            Self::LogFailed => "log_failed",
            Self::IssuerLimit => "issuer_limit",
            Self::AccountSequence => "account_sequence",
            Self::InsufficientBalance => "insufficient_balance",
            Self::OperationConflict => "operation_conflict",
            Self::CatchingUp => "catching_up",
            Self::NotConfirmed => "not_confirmed",
        }
    }

    /// Whether the same bytes may be taken when sent again later.
    #[must_use]
    pub const fn is_temporary(self) -> bool {
        matches!(
            self,
            Self::ClockAhead
                | Self::UnknownParent
                | Self::Overloaded
                | Self::ShuttingDown
                | Self::LogFailed
                | Self::IssuerLimit
                | Self::AccountSequence
                | Self::InsufficientBalance
                | Self::CatchingUp
        )
    }

    /// A rejection for this reason.
    #[must_use]
    pub const fn with(self, got: u64, limit: u64) -> Rejection {
        Rejection { reason: self, got, limit }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "message is cut short",
            Self::Oversized => "message is too long",
            Self::BadVersion => "message version is not supported",
            Self::WrongNetwork => "message belongs to another network",
            Self::EqualParents => "both parents are the same message",
            Self::PayloadTooLong => "payload is too long",
            Self::LengthMismatch => "message length does not match its payload length",
            Self::BadSignature => "signature is not valid",
            Self::ClockAhead => "device clock is too far ahead",
            Self::ClockBehind => "device clock is too far behind",
            Self::ReplayedSequence => "sequence number was used before",
            Self::StaleSequence => "sequence number is below the replay window",
            Self::UnknownParent => "parent is not known here",
            Self::Duplicate => "message is stored already",
            Self::Overloaded => "node is overloaded",
            Self::ShuttingDown => "node is shutting down",
            Self::LogFailed => "log does not take writes",
            Self::IssuerLimit => "issuer sends more than its share",
            Self::AccountSequence => "operation is not the account's next one",
            Self::InsufficientBalance => "final balance does not cover the operation",
            Self::OperationConflict => "another operation for this account sequence is known",
            Self::CatchingUp => "node is catching up and judges no operations yet",
            Self::NotConfirmed => "message is durable, but not confirmed in time",
        })
    }
}

/// A wire code that names no reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{got} is no rejection code")]
pub struct UnknownReason {
    /// The code.
    pub got: u8,
}

impl TryFrom<u8> for Reason {
    type Error = UnknownReason;

    fn try_from(code: u8) -> Result<Self, UnknownReason> {
        let index = usize::from(code).wrapping_sub(1);
        Self::ALL.get(index).copied().ok_or(UnknownReason { got: code })
    }
}

/// One refused message: the reason, what was got and what the limit is. The unit of `got` and `limit` is told
/// by the [`Reason`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rejection {
    /// Why.
    pub reason: Reason,
    /// What was got.
    pub got: u64,
    /// What the limit is.
    pub limit: u64,
}

// A column of 4,096 rejections stays below 100 KiB.
const _: () = assert!(size_of::<Rejection>() <= 24);

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { reason, got, limit } = self;
        match reason {
            Reason::EqualParents | Reason::BadSignature | Reason::ShuttingDown => write!(f, "{reason}"),
            Reason::WrongNetwork => {
                write!(f, "{reason} (got ")?;
                crate::ids::write_hex(f, &(*got as u32).to_le_bytes())?;
                f.write_str(", want ")?;
                crate::ids::write_hex(f, &(*limit as u32).to_le_bytes())?;
                f.write_str(")")
            }
            Reason::UnknownParent => write!(f, "{reason} (parent {got})"),
            Reason::Duplicate => write!(f, "{reason} (at {})", crate::ids::Place(*got)),
            _ => write!(f, "{reason} (got {got}, limit {limit})"),
        }
    }
}

impl core::error::Error for Rejection {}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn every_reason_survives_its_wire_code_and_has_its_own_name_and_sentence() {
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(reason.code()), index + 1, "{reason:?}");
            assert_eq!(Reason::try_from(reason.code()), Ok(reason));
        }
        let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        let sentences: BTreeSet<_> = Reason::ALL.iter().map(ToString::to_string).collect();
        assert_eq!((names.len(), sentences.len()), (Reason::ALL.len(), Reason::ALL.len()));
    }

    #[test]
    fn codes_without_a_reason_are_refused() {
        for code in [0, Reason::ALL.len() as u8 + 1, u8::MAX] {
            assert_eq!(Reason::try_from(code), Err(UnknownReason { got: code }));
        }
    }

    #[test]
    fn a_rejection_says_what_was_got_and_what_the_limit_is() {
        let text = Reason::PayloadTooLong.with(20_000, 16_384).to_string();
        assert_eq!(text, "payload is too long (got 20000, limit 16384)");
        let text = Reason::WrongNetwork.with(0x0403_0201, 0xff).to_string();
        assert_eq!(text, "message belongs to another network (got 01020304, want ff000000)");
    }
}
