//! The cutting of a byte stream into frames.
//!
//! Owns the one frame of a stream that is not whole yet. Invariants: how the stream is cut into pieces
//! changes nothing; a length is held against the limit of its type before room is made for it; and room
//! follows what has come, so that whoever declares much and sends little makes nobody hold much. What is in a
//! frame is left to [`codec`](crate::codec).

use bytes::Bytes;

use crate::codec::FrameError;
use crate::frame::{Frame, FrameKind};
use crate::limits::FRAME_HEAD_BYTES;

/// Room is made for this much of a body at once; beyond it, for twice what has come.
const BODY_BYTES_FIRST: usize = 64 << 10;

/// Cuts a stream of bytes, in pieces of any size, into frames.
///
/// Holds at most one half-received frame. After an error it must not be fed again: where the next frame
/// begins is unknown.
#[derive(Debug)]
pub struct FrameReader {
    frame_bytes_max: u32,
    /// Types that may come.
    allowed: fn(FrameKind) -> bool,
    bodies: BodyReader,
}

impl FrameReader {
    /// A reader of frames of the `allowed` types, with bodies of at most `frame_bytes_max` bytes.
    #[must_use]
    pub fn new(frame_bytes_max: u32, allowed: fn(FrameKind) -> bool) -> Self {
        Self { frame_bytes_max, allowed, bodies: BodyReader::default() }
    }

    /// Bytes held of a frame that is not whole.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.bodies.held_bytes()
    }

    /// Whether the stream stands between two frames.
    #[must_use]
    pub fn is_between_frames(&self) -> bool {
        self.bodies.is_between_frames()
    }

    /// Takes bytes from the front of `input` up to the end of a frame, and returns that frame; `None` once
    /// `input` is used up.
    ///
    /// # Errors
    /// The bytes are no frame of an allowed type and size.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        let (allowed, frame_bytes_max) = (self.allowed, self.frame_bytes_max);
        let body = self.bodies.next(input, |code, length| {
            let kind = FrameKind::from_code(code).ok_or(FrameError::UnknownKind { got: code })?;
            if !allowed(kind) {
                return Err(FrameError::Unexpected { got: kind, when: "from this side" });
            }
            let limit = kind.body_bytes_max(frame_bytes_max);
            if length > limit {
                return Err(FrameError::TooLarge { kind, got: length as u64, limit: limit as u64 });
            }
            Ok(kind)
        })?;
        body.map(|(kind, body)| Frame::decode(kind, body)).transpose()
    }
}

/// Cuts a stream into heads and bodies, whatever types of frames travel on it.
#[derive(Debug)]
pub(crate) struct BodyReader<K = FrameKind> {
    head: [u8; FRAME_HEAD_BYTES],
    head_bytes: usize,
    /// Type and length, once the head is whole.
    open: Option<(K, usize)>,
    body: Vec<u8>,
}

impl<K> Default for BodyReader<K> {
    fn default() -> Self {
        Self { head: [0; FRAME_HEAD_BYTES], head_bytes: 0, open: None, body: Vec::new() }
    }
}

impl<K: Copy> BodyReader<K> {
    pub(crate) fn held_bytes(&self) -> usize {
        self.head_bytes + self.body.capacity()
    }

    pub(crate) fn is_between_frames(&self) -> bool {
        self.head_bytes == 0
    }

    /// Takes bytes from the front of `input` up to the end of a body. `check` names the type of a frame by its code
    /// and refuses types and lengths that may not come.
    pub(crate) fn next<E>(
        &mut self,
        input: &mut &[u8],
        check: impl FnOnce(u8, usize) -> Result<K, E>,
    ) -> Result<Option<(K, Bytes)>, E> {
        let (kind, length) = match self.open {
            Some(open) => open,
            None => {
                let taken = input.len().min(FRAME_HEAD_BYTES - self.head_bytes);
                self.head[self.head_bytes..self.head_bytes + taken].copy_from_slice(&input[..taken]);
                self.head_bytes += taken;
                *input = &input[taken..];
                if self.head_bytes < FRAME_HEAD_BYTES {
                    return Ok(None);
                }
                let [a, b, c, d, code] = self.head;
                let length = u32::from_le_bytes([a, b, c, d]) as usize;
                *self.open.insert((check(code, length)?, length))
            }
        };
        let body = if self.body.is_empty() && input.len() >= length {
            let (body, rest) = input.split_at(length);
            *input = rest;
            Bytes::copy_from_slice(body)
        } else {
            let taken = input.len().min(length - self.body.len());
            self.make_room(taken, length);
            self.body.extend_from_slice(&input[..taken]);
            *input = &input[taken..];
            if self.body.len() < length {
                return Ok(None);
            }
            Bytes::from(std::mem::take(&mut self.body))
        };
        self.open = None;
        self.head_bytes = 0;
        Ok(Some((kind, body)))
    }

    /// Room for `more` bytes of a body of `length`: by doubling, so that memory follows what has come, not
    /// what is declared.
    fn make_room(&mut self, more: usize, length: usize) {
        let needed = self.body.len() + more;
        if self.body.capacity() < needed {
            let capacity = needed.max(2 * self.body.len()).max(BODY_BYTES_FIRST).min(length);
            self.body.reserve_exact(capacity - self.body.len());
        }
    }
}
