//! The cutting of a peer's stream into frames.
//!
//! Owns the one frame of a stream that is not whole yet. Invariants as in [`reader`](crate::reader): how the stream is
//! cut changes nothing, a length is checked before room is made for it, room follows what has come.

use super::frame::{PeerFrame, PeerFrameError, PeerKind};
use crate::reader::BodyReader;

/// Cuts a stream of bytes, in pieces of any size, into frames between peers.
///
/// Holds at most one half-received frame. After an error it must not be fed again.
#[derive(Debug)]
pub struct PeerReader {
    batch_bytes_max: u32,
    bodies: BodyReader<PeerKind>,
}

impl PeerReader {
    /// A reader of frames with batches of at most `batch_bytes_max` bytes.
    #[must_use]
    pub fn new(batch_bytes_max: u32) -> Self {
        Self { batch_bytes_max, bodies: BodyReader::default() }
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

    /// Takes bytes from the front of `input` up to the end of a frame, and returns that frame; `None` once `input` is
    /// used up. `allowed` says which types may come now: others are refused before room is made for their bodies.
    ///
    /// # Errors
    /// The bytes are no frame, or none of an allowed type and length.
    pub fn next(
        &mut self,
        input: &mut &[u8],
        allowed: impl Fn(PeerKind) -> bool,
    ) -> Result<Option<PeerFrame>, PeerFrameError> {
        let batch_bytes_max = self.batch_bytes_max;
        let body = self.bodies.next(input, |code, length| {
            let kind = PeerKind::from_code(code).ok_or(PeerFrameError::UnknownKind { got: code })?;
            if !allowed(kind) {
                return Err(PeerFrameError::Unexpected { got: kind, when: "on this stream now" });
            }
            kind.check_length(length, batch_bytes_max)?;
            Ok(kind)
        })?;
        body.map(|(kind, body)| PeerFrame::decode(kind, body)).transpose()
    }
}
