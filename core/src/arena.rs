//! The arena: a batch of messages as one run of bytes plus columns, with the state of its verification in the
//! type.
//!
//! Owns the columns that a batch verifier reads (ids, keys, signatures) and the step from [`Unverified`] to
//! [`Verified`]. Invariants: every entry is a well-formed message, and each column entry belongs to the
//! message of that index; an index stays valid through verification, so that acknowledgements find their
//! message; a [`VerifiedMessage`] comes out of `Arena<Verified>` only for a verdict of true, or of
//! [`VerifiedMessage::vouch`]. Memory is bounded by the two limits given at construction. Verifying is left
//! to `weft-crypto`, all other checks to the node.

use alloc::vec::Vec;

use crate::ids::MessageId;
use crate::message::{MessageView, SIGNATURE_BYTES};
use crate::reject::{Reason, Rejection};

/// Bytes of one arena, at most: offsets are 32 bits wide.
pub const ARENA_BYTES_MAX: usize = u32::MAX as usize;

/// Signatures not verified yet: messages may be pushed.
#[derive(Debug, Default)]
pub struct Unverified(());

/// Every message has its verdict: no more may be pushed.
#[derive(Debug)]
pub struct Verified {
    verdicts: Vec<bool>,
}

/// A batch of messages in columns. `S` is [`Unverified`] or [`Verified`].
///
/// Memory: the bytes pushed plus 132 bytes a message, within the limits given to [`Arena::new`].
#[derive(Debug)]
pub struct Arena<S> {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    ids: Vec<[u8; 32]>,
    keys: Vec<[u8; 32]>,
    signatures: Vec<[u8; SIGNATURE_BYTES]>,
    messages_max: usize,
    bytes_max: usize,
    state: S,
}

impl<S> Arena<S> {
    /// Messages in the arena.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all messages.
    #[must_use]
    pub fn bytes_total(&self) -> usize {
        self.bytes.len()
    }

    /// Message ids, in the order of pushing.
    #[must_use]
    pub fn ids(&self) -> &[[u8; 32]] {
        &self.ids
    }

    /// Issuers' keys, in the order of pushing.
    #[must_use]
    pub fn keys(&self) -> &[[u8; 32]] {
        &self.keys
    }

    /// Signatures over the ids, in the order of pushing.
    #[must_use]
    pub fn signatures(&self) -> &[[u8; SIGNATURE_BYTES]] {
        &self.signatures
    }

    /// The message with this index, whatever its verdict.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<MessageView<'_>> {
        let end = *self.ends.get(index)? as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        MessageView::parse(self.bytes.get(start..end)?).ok()
    }

    /// The id of the message with this index.
    #[must_use]
    pub fn id(&self, index: usize) -> Option<MessageId> {
        self.ids.get(index).copied().map(MessageId)
    }

    fn with_state<T>(self, state: T) -> Arena<T> {
        let Self { bytes, ends, ids, keys, signatures, messages_max, bytes_max, state: _ } = self;
        Arena { bytes, ends, ids, keys, signatures, messages_max, bytes_max, state }
    }
}

impl Arena<Unverified> {
    /// An empty arena for at most `messages_max` messages of `bytes_max` bytes in all (cut down to
    /// [`ARENA_BYTES_MAX`]). Allocates nothing yet.
    #[must_use]
    pub fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self {
            bytes: Vec::new(),
            ends: Vec::new(),
            ids: Vec::new(),
            keys: Vec::new(),
            signatures: Vec::new(),
            messages_max,
            bytes_max: bytes_max.min(ARENA_BYTES_MAX),
            state: Unverified(()),
        }
    }

    /// Takes a copy of one message and hashes its id. Tells its index.
    ///
    /// # Errors
    /// Those of [`MessageView::parse`], or `overloaded` when the arena is full (got and limit: messages or
    /// bytes, whichever ran over).
    pub fn push(&mut self, bytes: &[u8]) -> Result<usize, Rejection> {
        let message = MessageView::parse(bytes)?;
        self.room_for(bytes.len())?;
        self.push_with_id(&message, message.id())
    }

    /// Takes a copy of a message whose id is known already, for callers that hash many messages at once. `id`
    /// must be the message's.
    ///
    /// # Errors
    /// `overloaded` when the arena is full.
    pub fn push_with_id(&mut self, message: &MessageView<'_>, id: MessageId) -> Result<usize, Rejection> {
        debug_assert_eq!(id, message.id());
        self.room_for(message.bytes().len())?;
        let index = self.ends.len();
        self.bytes.extend_from_slice(message.bytes());
        self.ends.push(self.bytes.len() as u32);
        self.ids.push(id.0);
        self.keys.push(message.issuer().0);
        self.signatures.push(*message.signature());
        Ok(index)
    }

    fn room_for(&self, bytes: usize) -> Result<(), Rejection> {
        if self.ends.len() >= self.messages_max {
            return Err(Reason::Overloaded.with(self.ends.len() as u64 + 1, self.messages_max as u64));
        }
        let bytes = self.bytes.len() + bytes;
        if bytes > self.bytes_max {
            return Err(Reason::Overloaded.with(bytes as u64, self.bytes_max as u64));
        }
        Ok(())
    }

    /// Sets the verdict of every message. A message without a verdict counts as refused.
    #[must_use]
    pub fn verify_with(self, verdicts: &[bool]) -> Arena<Verified> {
        debug_assert_eq!(verdicts.len(), self.len());
        let mut verdicts = verdicts.to_vec();
        verdicts.resize(self.len(), false);
        self.with_state(Verified { verdicts })
    }
}

impl Arena<Verified> {
    /// Whether the message with this index has a valid signature.
    #[must_use]
    pub fn is_verified(&self, index: usize) -> bool {
        self.state.verdicts.get(index).copied().unwrap_or(false)
    }

    /// The message with this index, if its signature is valid.
    #[must_use]
    pub fn verified(&self, index: usize) -> Option<VerifiedMessage<'_>> {
        if !self.is_verified(index) {
            return None;
        }
        Some(VerifiedMessage { view: self.get(index)?, id: self.id(index)? })
    }

    /// All messages in order, `None` where the signature is not valid.
    pub fn iter(&self) -> impl Iterator<Item = Option<VerifiedMessage<'_>>> {
        (0..self.len()).map(|index| self.verified(index))
    }

    /// Empties the arena for the next batch; keeps its memory.
    #[must_use]
    pub fn recycle(mut self) -> Arena<Unverified> {
        self.bytes.clear();
        self.ends.clear();
        self.ids.clear();
        self.keys.clear();
        self.signatures.clear();
        self.with_state(Unverified(()))
    }
}

/// A message whose signature is valid, with its id at hand. The only thing that enters a lane batch or the
/// DAG.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedMessage<'a> {
    view: MessageView<'a>,
    id: MessageId,
}

impl<'a> VerifiedMessage<'a> {
    /// The caller vouches for the signature: for messages that this process signed itself or reads back from
    /// its own log.
    #[must_use]
    pub fn vouch(view: MessageView<'a>) -> Self {
        Self { view, id: view.id() }
    }

    /// The message.
    #[must_use]
    pub const fn view(&self) -> MessageView<'a> {
        self.view
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> MessageId {
        self.id
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::test_util::message;

    #[test]
    fn columns_keep_the_order_of_pushing() {
        let messages = [message(1, 0, b"a"), message(2, 0, b"bcd"), message(1, 1, b"")];
        let mut arena = Arena::new(10, 10_000);
        for (index, bytes) in messages.iter().enumerate() {
            assert_eq!(arena.push(bytes), Ok(index));
        }
        assert_eq!(arena.bytes_total(), messages.iter().map(Vec::len).sum());
        for (index, bytes) in messages.iter().enumerate() {
            let view = MessageView::parse(bytes).unwrap();
            assert_eq!(arena.get(index).unwrap().bytes(), &bytes[..]);
            assert_eq!(arena.ids()[index], view.id().0);
            assert_eq!(arena.keys()[index], view.issuer().0);
            assert_eq!(&arena.signatures()[index], view.signature());
        }
        assert!(arena.get(3).is_none());
    }

    #[test]
    fn only_messages_with_a_good_verdict_come_out_verified() {
        let mut arena = Arena::new(10, 10_000);
        for sequence in 0..3 {
            arena.push(&message(1, sequence, b"x")).unwrap();
        }
        let arena = arena.verify_with(&[true, false, true]);
        let sequences: Vec<_> =
            arena.iter().map(|message| message.map(|message| message.view().sequence())).collect();
        assert_eq!(sequences, vec![Some(0), None, Some(2)]);
        assert!(arena.get(1).is_some(), "the refused message can still be named in the acknowledgement");
        assert!(arena.verified(3).is_none());
    }

    #[test]
    fn a_full_arena_refuses_with_the_limit_and_stays_as_it_was() {
        let bytes = message(1, 0, b"x");
        let mut arena = Arena::new(2, 10_000);
        arena.push(&bytes).unwrap();
        arena.push(&bytes).unwrap();
        assert_eq!(arena.push(&bytes), Err(Reason::Overloaded.with(3, 2)));
        assert_eq!(arena.len(), 2);
        let mut arena = Arena::new(10, 2 * bytes.len() - 1);
        arena.push(&bytes).unwrap();
        let refused = Reason::Overloaded.with(2 * bytes.len() as u64, 2 * bytes.len() as u64 - 1);
        assert_eq!(arena.push(&bytes), Err(refused));
        assert_eq!((arena.len(), arena.ids().len(), arena.bytes_total()), (1, 1, bytes.len()));
    }

    #[test]
    fn malformed_bytes_never_enter() {
        let mut arena = Arena::new(2, 10_000);
        assert_eq!(arena.push(&[1; 5]), Err(Reason::Truncated.with(5, 184)));
        assert!(arena.is_empty());
    }

    #[test]
    fn a_recycled_arena_is_empty_and_keeps_its_memory() {
        let mut arena = Arena::new(2, 10_000);
        arena.push(&message(1, 0, b"x")).unwrap();
        let arena = arena.verify_with(&[true]).recycle();
        assert!(arena.is_empty() && arena.ids().is_empty() && arena.bytes_total() == 0);
        assert!(arena.bytes.capacity() > 0);
    }
}
