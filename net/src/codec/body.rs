//! Reading a body field by field.
//!
//! Owns [`FrameError`] and the reader of fields that every decoder of this crate uses. Invariants: a field is taken only
//! if its bytes are there; a count is held against its limit and against those bytes before memory is taken for it. What
//! the fields mean is left to the decoders.

use bytes::{Buf, Bytes};
use weft_core::MessageId;

use crate::frame::{ErrorCode, FrameKind};

/// Bytes of an id.
pub(super) const ID_BYTES: usize = 32;

/// Why bytes are no frame, or values make none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// No frame has this type.
    #[error("no frame has type {got}")]
    UnknownKind {
        /// The type byte.
        got: u8,
    },
    /// The frame exists, but not from this side or not now.
    #[error("a {got} frame may not come {when}")]
    Unexpected {
        /// The frame.
        got: FrameKind,
        /// When it came.
        when: &'static str,
    },
    /// A body longer than the limit for its type.
    #[error("a {kind} frame of {got} bytes where the limit is {limit}")]
    TooLarge {
        /// The frame.
        kind: FrameKind,
        /// Bytes declared.
        got: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The body ends inside a field.
    #[error("{field}: {got} bytes left where {limit} are needed")]
    Truncated {
        /// The field.
        field: &'static str,
        /// Bytes left.
        got: u64,
        /// Bytes needed.
        limit: u64,
    },
    /// The body goes on after its last field.
    #[error("{got} bytes after the end of the frame")]
    Trailing {
        /// Bytes left over.
        got: u64,
    },
    /// A count of zero or beyond its limit.
    #[error("{field}: {got}, allowed are 1 to {limit}")]
    Count {
        /// What is counted.
        field: &'static str,
        /// The count.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// A value that this field may not have.
    #[error("{field} may not be {got}")]
    Value {
        /// The field.
        field: &'static str,
        /// The value.
        got: u64,
    },
    /// The lengths of a Submit do not add up to its bytes.
    #[error("{got} bytes of messages where the lengths add up to {limit}")]
    Lengths {
        /// Bytes that are there.
        got: u64,
        /// Sum of the lengths.
        limit: u64,
    },
    /// A text is no UTF-8.
    #[error("{field} is no UTF-8")]
    Text {
        /// The field.
        field: &'static str,
    },
    /// A Hello or Welcome of another version.
    #[error("version {got} where {limit} is spoken")]
    Version {
        /// Version of the peer.
        got: u16,
        /// Version spoken here.
        limit: u16,
    },
}

impl FrameError {
    /// The code that tells a peer of this error.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Version { .. } => ErrorCode::UnsupportedVersion,
            _ => ErrorCode::BadFrame,
        }
    }
}

/// The rest of a body.
pub(crate) struct Body(pub(crate) Bytes);

impl Body {
    pub(crate) fn need(&self, field: &'static str, limit: usize) -> Result<(), FrameError> {
        let got = self.0.len();
        if got < limit {
            return Err(FrameError::Truncated { field, got: got as u64, limit: limit as u64 });
        }
        Ok(())
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, FrameError> {
        self.need(field, 1)?;
        Ok(self.0.get_u8())
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, FrameError> {
        self.need(field, 2)?;
        Ok(self.0.get_u16_le())
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, FrameError> {
        self.need(field, 4)?;
        Ok(self.0.get_u32_le())
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, FrameError> {
        self.need(field, 8)?;
        Ok(self.0.get_u64_le())
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FrameError> {
        self.need(field, N)?;
        let mut array = [0; N];
        self.0.copy_to_slice(&mut array);
        Ok(array)
    }

    pub(crate) fn take(&mut self, field: &'static str, bytes: usize) -> Result<Bytes, FrameError> {
        self.need(field, bytes)?;
        Ok(self.0.split_to(bytes))
    }

    pub(crate) fn zero(&mut self, field: &'static str, bytes: usize) -> Result<(), FrameError> {
        for _ in 0..bytes {
            match self.u8(field)? {
                0 => {}
                got => return Err(FrameError::Value { field, got: u64::from(got) }),
            }
        }
        Ok(())
    }

    /// A byte of bits, of which only those of `known` may be set.
    pub(crate) fn flags(&mut self, field: &'static str, known: u8) -> Result<u8, FrameError> {
        match self.u8(field)? {
            flags if flags & !known == 0 => Ok(flags),
            got => Err(FrameError::Value { field, got: u64::from(got) }),
        }
    }

    pub(crate) fn request_id(&mut self) -> Result<u64, FrameError> {
        match self.u64("request id")? {
            0 => Err(FrameError::Value { field: "request id", got: 0 }),
            id => Ok(id),
        }
    }

    pub(crate) fn code<T>(
        &mut self,
        field: &'static str,
        from: fn(u8) -> Option<T>,
    ) -> Result<T, FrameError> {
        let got = self.u8(field)?;
        from(got).ok_or(FrameError::Value { field, got: u64::from(got) })
    }

    /// A list of ids. Its count is checked before memory is taken for it.
    pub(crate) fn ids(
        &mut self,
        field: &'static str,
        count: usize,
        limit: usize,
    ) -> Result<Vec<MessageId>, FrameError> {
        at_most(field, count, limit)?;
        let bytes = self.take(field, count * ID_BYTES)?;
        Ok(bytes.as_chunks::<ID_BYTES>().0.iter().copied().map(MessageId).collect())
    }

    pub(crate) fn text(&mut self, field: &'static str, bytes: usize) -> Result<String, FrameError> {
        let bytes = self.take(field, bytes)?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| FrameError::Text { field })
    }

    pub(crate) fn end(self) -> Result<(), FrameError> {
        match self.0.len() {
            0 => Ok(()),
            got => Err(FrameError::Trailing { got: got as u64 }),
        }
    }
}

pub(crate) fn at_most(field: &'static str, got: usize, limit: usize) -> Result<(), FrameError> {
    if got > limit {
        return Err(FrameError::Count { field, got: got as u64, limit: limit as u64 });
    }
    Ok(())
}

pub(crate) fn one_to(field: &'static str, got: usize, limit: usize) -> Result<(), FrameError> {
    if got == 0 {
        return Err(FrameError::Count { field, got: 0, limit: limit as u64 });
    }
    at_most(field, got, limit)
}
