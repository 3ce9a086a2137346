//! The two ends of a session, without sockets, clock or tasks.
//!
//! Owns the rules of a session: who says what when, the credit for requests in flight, the deadlines, and how
//! a session ends. [`ServerSession`] and [`ClientSession`] are driven by verbs after quinn's:
//! `handle_input(now, bytes)`, `handle_timeout(now)`, `poll_timeout()`, `poll_transmit(..)`, `poll()`; to
//! them comes `handle_transmitted(now, bytes)`, by which the transport says that it took output, since only
//! that tells a slow peer from a fast one. Invariants: the machines never look at a clock, so a test runs on
//! virtual time; how input is cut into pieces changes nothing; what they hold is bounded by
//! [`SessionLimits`](crate::limits::SessionLimits); after an end they take no input and produce no event.
//! Tasks, streams and connections are left to [`quic`](crate::quic).
//!
//! A session, in order: Hello, Welcome; then requests and replies, pipelined, replies in any order; then a
//! Close from either side, after which what is pending is still answered. Three ways to end: *finished* (all
//! output sent, the stream is finished), *failed* (an Error with request id 0, then as before), *reset* (the
//! peer takes no bytes: the stream is reset with the error's code).

mod client;
mod server;

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;

pub use client::{ClientEvent, ClientOptions, ClientSession, RequestError, SessionEnd};
pub use server::{ServerEvent, ServerSession, WelcomeInfo};

use crate::frame::{ErrorCode, Frame, Submit};

/// Small frames are gathered up to this size before they become a piece of output: a QUIC datagram on
/// loopback holds about as much.
const PIECE_BYTES: usize = 8 << 10;

/// What the transport should do now that a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All output was taken: finish the stream.
    Finish,
    /// Drop what is left: reset the stream with this code.
    Reset(ErrorCode),
}

/// Requests, messages and bytes in flight, or the limit of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Requests without a reply.
    pub requests: u32,
    /// Messages without an ack.
    pub messages: u32,
    /// Bytes of those messages.
    pub bytes: u64,
}

impl Credit {
    /// What one Submit takes.
    fn of_submit(messages: usize, bytes: usize) -> Self {
        Self { requests: 1, messages: messages as u32, bytes: bytes as u64 }
    }

    /// What a query takes.
    const QUERY: Self = Self { requests: 1, messages: 0, bytes: 0 };

    /// Whether this fits into `limit`.
    fn fits(self, limit: Self) -> bool {
        self.requests <= limit.requests && self.messages <= limit.messages && self.bytes <= limit.bytes
    }

    fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            messages: self.messages.saturating_add(other.messages),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(other.requests),
            messages: self.messages.saturating_sub(other.messages),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// Output on its way to the transport.
#[derive(Debug, Default)]
struct Output {
    pieces: VecDeque<Bytes>,
    /// Small frames that are not yet a piece. They come after all pieces.
    tail: Vec<u8>,
    /// Bytes in `pieces` and `tail`.
    queued_bytes: usize,
    /// Bytes that the transport holds and has not taken.
    polled_bytes: usize,
    /// Since when the transport has taken nothing although there is output.
    stalled_since: Option<Instant>,
}

impl Output {
    fn frame(&mut self, now: Instant, frame: &Frame) {
        let before = self.tail.len();
        frame.encode(&mut self.tail);
        self.queued_bytes += self.tail.len() - before;
        if self.tail.len() >= PIECE_BYTES {
            self.seal_tail();
        }
        self.stalled_since.get_or_insert(now);
    }

    /// A Submit, whose messages are not copied.
    fn submit(&mut self, now: Instant, submit: &Submit) {
        let before = self.tail.len();
        submit.encode_head(&mut self.tail);
        self.queued_bytes += self.tail.len() - before;
        self.seal_tail();
        self.queued_bytes += submit.bytes.len();
        self.pieces.push_back(submit.bytes.clone());
        self.stalled_since.get_or_insert(now);
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push_back(std::mem::take(&mut self.tail).into());
        }
    }

    /// Moves pieces of about `bytes_max` bytes to `out`.
    fn poll(&mut self, bytes_max: usize, out: &mut Vec<Bytes>) {
        let mut left = bytes_max;
        while left > 0 {
            if self.pieces.is_empty() {
                self.seal_tail();
            }
            let Some(mut piece) = self.pieces.pop_front() else { return };
            if piece.len() > left {
                self.pieces.push_front(piece.split_off(left));
            }
            left -= piece.len();
            self.queued_bytes -= piece.len();
            self.polled_bytes += piece.len();
            if !piece.is_empty() {
                out.push(piece);
            }
        }
    }

    fn transmitted(&mut self, now: Instant, bytes: usize) {
        self.polled_bytes = self.polled_bytes.saturating_sub(bytes);
        if self.pending_bytes() == 0 {
            self.stalled_since = None;
        } else if bytes > 0 {
            self.stalled_since = Some(now);
        }
    }

    fn pending_bytes(&self) -> usize {
        self.queued_bytes + self.polled_bytes
    }

    /// Frees everything that is queued.
    fn clear(&mut self) {
        *self = Self::default();
    }
}
