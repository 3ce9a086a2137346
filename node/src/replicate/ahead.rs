//! How far the log of another node's lane is ahead of what is applied here, in positions and in bytes.
//!
//! Owns the count of one lane since the start. Invariant: at most about [`BYTES_MAX`] of bytes are noted, in pieces of [`PIECE_BYTES`],
//! since a lane that is too far ahead is not shipped on. After a start or a cut it counts from zero; positions bound what it has missed.

use std::collections::VecDeque;

/// Positions of a lane that may be in its log and not applied: a gigabyte of messages of the usual length.
pub const POSITIONS_MAX: u64 = 1 << 22;

/// Bytes of a lane that may be in its log and not applied, of messages of any length.
pub const BYTES_MAX: u64 = 1 << 30;

/// Batches are noted together up to so many bytes.
pub const PIECE_BYTES: u64 = 1 << 20;

/// What lies in a lane's log and is not applied, as far as it came since the start.
#[derive(Debug, Default)]
pub struct Ahead {
    /// How often the log had been cut.
    cuts: u64,
    /// Size after a piece, and its bytes.
    pieces: VecDeque<(u64, u64)>,
    bytes: u64,
}

impl Ahead {
    /// A batch is in the log, which has been cut so often: the size after it, and its bytes.
    pub fn stored(&mut self, cuts: u64, size: u64, bytes: u64) {
        if cuts != self.cuts {
            *self = Self { cuts, ..Self::default() };
        }
        self.bytes += bytes;
        match self.pieces.back_mut() {
            Some(last) if last.1 < PIECE_BYTES => *last = (size, last.1 + bytes),
            _ => self.pieces.push_back((size, bytes)),
        }
    }

    /// Whether a log of this size is too far ahead of what is applied.
    pub fn is_too_far(&mut self, size: u64, applied: u64) -> bool {
        while let Some((_, bytes)) = self.pieces.front().copied().filter(|piece| piece.0 <= applied) {
            self.pieces.pop_front();
            self.bytes -= bytes;
        }
        size.saturating_sub(applied) > POSITIONS_MAX || self.bytes > BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_positions_of_many_bytes_are_too_far_ahead_until_they_are_applied() {
        let mut ahead = Ahead::default();
        let batches = BYTES_MAX / (4 << 20);
        for batch in 1..=batches {
            ahead.stored(0, batch * 10, 4 << 20);
            assert!(!ahead.is_too_far(batch * 10, 0), "{batch}");
        }
        ahead.stored(0, batches * 10 + 10, 1);
        assert!(ahead.is_too_far(batches * 10 + 10, 9), "nothing of it is applied");
        assert!(!ahead.is_too_far(batches * 10 + 10, 10), "the first batch is");
        assert!(Ahead::default().is_too_far(POSITIONS_MAX + 1, 0));
        ahead.stored(1, 20, 5);
        assert_eq!((ahead.bytes, ahead.pieces.len()), (5, 1), "cut: what was counted is gone");
    }

    #[test]
    fn small_batches_are_noted_together() {
        let mut ahead = Ahead::default();
        (1..=10_000).for_each(|batch| ahead.stored(0, batch, 1_000));
        assert!(ahead.pieces.len() <= 10, "{}", ahead.pieces.len());
        assert!(!ahead.is_too_far(10_000, 10_000));
        assert_eq!((ahead.bytes, ahead.pieces.len()), (0, 0));
    }
}
