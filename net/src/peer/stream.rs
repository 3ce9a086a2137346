//! Frames on QUIC streams.
//!
//! Owns the half-read frame of a stream and the deadline of whoever takes no bytes. Invariants: reading can be given up
//! and taken up again at any await; a frame is refused by its head before its body is read; a stream of this node's that is let go of
//! before its end is given up, and does not look like one that ends inside a frame, which would be a fault.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, WriteError};

use super::frame::{PeerCode, PeerFrame, PeerFrameError, PeerKind};
use super::reader::PeerReader;

/// Bytes taken from QUIC at once.
const READ_BYTES: usize = 256 << 10;

/// Bytes given to QUIC at once: between two of these a slow peer is noticed.
const WRITE_BYTES: usize = 64 << 10;

/// Why a stream is over.
#[derive(Clone, Debug)]
pub(super) enum StreamError {
    /// What came is no frame for here and now: the peer's fault.
    Bad(PeerFrameError),
    /// The peer takes no bytes.
    Slow,
    /// The other side gave the stream up.
    GivenUp,
    /// The connection is lost.
    Lost(ConnectionError),
}

impl From<PeerFrameError> for StreamError {
    fn from(error: PeerFrameError) -> Self {
        Self::Bad(error)
    }
}

impl From<WriteError> for StreamError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => Self::Lost(error),
            WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::GivenUp,
        }
    }
}

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => Self::Lost(error),
            _ => Self::GivenUp,
        }
    }
}

impl StreamError {
    /// Whether the whole connection must end because of it, and how.
    pub(super) fn closes(&self) -> Option<(PeerCode, String)> {
        match self {
            Self::Bad(error) => Some((error.code(), error.to_string())),
            Self::Slow => Some((PeerCode::SlowPeer, "the peer takes no bytes".to_owned())),
            Self::GivenUp | Self::Lost(_) => None,
        }
    }
}

/// The receiving half of a stream.
pub(super) struct FrameReceiver {
    recv: RecvStream,
    reader: PeerReader,
    rest: Bytes,
    /// Counts the bytes that come, if somebody wants to know.
    arrived: Option<Arc<AtomicU64>>,
}

impl FrameReceiver {
    pub(super) fn new(recv: RecvStream, batch_bytes_max: u32) -> Self {
        Self { recv, reader: PeerReader::new(batch_bytes_max), rest: Bytes::new(), arrived: None }
    }

    /// Counts what comes by the piece, long before a frame is whole.
    pub(super) fn counted(self, arrived: &Arc<AtomicU64>) -> Self {
        Self { arrived: Some(Arc::clone(arrived)), ..self }
    }

    /// Bytes that have come beyond the last frame.
    pub(super) fn buffered(&self) -> u64 {
        self.rest.len() as u64
    }

    /// The next frame, `None` at the end of the stream. Cancel safe.
    pub(super) async fn next(
        &mut self,
        allowed: impl Fn(PeerKind) -> bool,
    ) -> Result<Option<PeerFrame>, StreamError> {
        loop {
            let mut input: &[u8] = &self.rest;
            let frame = self.reader.next(&mut input, &allowed)?;
            let taken = self.rest.len() - input.len();
            self.rest.advance(taken);
            if frame.is_some() {
                return Ok(frame);
            }
            match self.recv.read_chunk(READ_BYTES, true).await? {
                Some(chunk) => {
                    if let Some(arrived) = &self.arrived {
                        arrived.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
                    }
                    self.rest = chunk.bytes;
                }
                None if self.reader.is_between_frames() => return Ok(None),
                None => return Err(PeerFrameError::Cut { when: "inside a frame" }.into()),
            }
        }
    }

    /// Gives the stream up.
    pub(super) fn stop(&mut self) {
        let _ = self.recv.stop(quinn::VarInt::from_u32(0));
    }
}

/// The sending half of a stream. Dropped before [`finish`](Self::finish) it is given up: QUIC's own streams end in order when they are
/// dropped, wherever that is.
pub(super) struct FrameSender {
    send: SendStream,
    slow: Duration,
    finished: bool,
}

impl Drop for FrameSender {
    fn drop(&mut self) {
        if !self.finished {
            self.reset();
        }
    }
}

impl FrameSender {
    /// `priority`: streams with a higher one go first; `slow`: how long the peer may take no byte.
    pub(super) fn new(send: SendStream, priority: i32, slow: Duration) -> Self {
        // Fails for a stream that is over already: then writing fails too.
        let _ = send.set_priority(priority);
        Self { send, slow, finished: false }
    }

    /// Sends a frame; its payload is not copied.
    pub(super) async fn frame(&mut self, frame: &PeerFrame) -> Result<(), StreamError> {
        let mut head = Vec::with_capacity(frame.wire_bytes() - frame.payload().map_or(0, Bytes::len));
        frame.encode_head(&mut head);
        self.bytes(head.into()).await?;
        match frame.payload() {
            Some(payload) => self.bytes(payload.clone()).await,
            None => Ok(()),
        }
    }

    /// Sends bytes of frames.
    pub(super) async fn bytes(&mut self, mut bytes: Bytes) -> Result<(), StreamError> {
        while !bytes.is_empty() {
            let mut piece = [bytes.split_to(bytes.len().min(WRITE_BYTES))];
            while !piece[0].is_empty() {
                let written = tokio::time::timeout(self.slow, self.send.write_chunks(&mut piece)).await;
                written.map_err(|_| StreamError::Slow)??;
            }
        }
        Ok(())
    }

    /// Nothing more follows; what was sent still arrives.
    pub(super) fn finish(&mut self) {
        self.finished = true;
        let _ = self.send.finish();
    }

    /// Gives the stream up.
    pub(super) fn reset(&mut self) {
        self.finished = true;
        let _ = self.send.reset(quinn::VarInt::from_u32(0));
    }
}
