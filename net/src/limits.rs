//! Limits of the wire and of one session: constants with their reasons, units last in their names.
//!
//! Owns the numbers that both sides of a session rely on. Invariants: a decoder allocates nothing that these
//! numbers, or the [`SessionLimits`] below them, do not bound; every number a peer can announce is held
//! against them first. Limits of a whole server (connections, windows, memory in all) are left to
//! [`quic::ServerLimits`](crate::quic::ServerLimits).

use std::time::Duration;

use crate::subscribe::NOTICE_BYTES_MAX;

/// Version of the wire, in Hello and Welcome. The ALPN of a connection names it too.
pub const WIRE_VERSION: u16 = 1;

/// Bytes before the body of a frame: length u32, type u8.
pub const FRAME_HEAD_BYTES: usize = 5;

/// Largest body a configuration may allow. A Submit of 4,096 messages of 4 KiB fits; beyond it, larger frames
/// bring no throughput and cost a receiver memory for each open session.
pub const FRAME_BYTES_MAX: u32 = 16 << 20;

/// Largest body unless configured: 4,096 messages of 500 bytes, or 126 of the largest. A server with `n`
/// sessions can be made to hold `n` times this much in half-received frames.
pub const FRAME_BYTES_MAX_DEFAULT: u32 = 2 << 20;

/// Smallest body a configuration may allow: one message of the largest size, its length, and the head of the
/// Submit around it.
pub const FRAME_BYTES_MAX_LEAST: u32 = 32 << 10;

/// Messages in one Submit: as many as in one lane batch.
pub const SUBMIT_MESSAGES_MAX: u32 = 4_096;

/// Ids in one GetMessages. The answer is bounded by bytes, not by this: see [`MESSAGES_BYTES_MAX`].
pub const GET_MESSAGES_MAX: u32 = 1_024;

/// Body of one Messages frame. What does not fit is answered with "ask again", so it must hold at least one
/// message of the largest size behind 1,024 tags.
pub const MESSAGES_BYTES_MAX: usize = 1 << 20;

/// Tips that an Ack carries: parents for the next eight messages of a device, 512 bytes.
pub const TIPS_IN_ACK_MAX: usize = 16;

/// Tips in one Tips frame: a gateway that signs for many devices takes more at once.
pub const TIPS_IN_REPLY_MAX: usize = 256;

/// Text of an Error frame, in bytes of UTF-8. For people; programs read the code.
pub const TEXT_BYTES_MAX: usize = 256;

/// Name of a node in Welcome, in bytes of UTF-8.
pub const NODE_NAME_BYTES_MAX: usize = 64;

/// Limits and deadlines of one session at the server. Its credit goes to the client in Welcome.
///
/// Memory that one session can be made to hold: one half-received frame (`frame_bytes_max`), what it
/// submitted and is not acked (`inflight_bytes_max`), and its output: `output_bytes_high`, the largest reply
/// that may start below that mark ([`MESSAGES_BYTES_MAX`]), and the acks of everything in flight (21 bytes a
/// message, 600 a request), and one notice of a subscription ([`NOTICE_BYTES_MAX`]), since those too start below that mark
/// only, one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Largest frame body accepted, in bytes.
    pub frame_bytes_max: u32,
    /// Requests that may be open at once: submits without an ack and queries without a reply.
    pub inflight_requests_max: u32,
    /// Messages submitted and not acked, at most.
    pub inflight_messages_max: u32,
    /// Bytes of messages submitted and not acked, at most.
    pub inflight_bytes_max: u64,
    /// Subscriptions that may be open at once, over all sessions of the connection.
    pub subscriptions_max: u32,
    /// Output waiting for the peer, in bytes, from which on no more input is taken and no notice is sent.
    pub output_bytes_high: usize,
    /// How long a session may stay without its Hello (at a client: its Welcome).
    pub hello_timeout: Duration,
    /// How long a session may stay without a whole frame while nothing is in flight. Half a frame does not
    /// count, so a peer that sends a byte now and then is idle too.
    pub idle_timeout: Duration,
    /// How long the peer may take no byte while output waits for it.
    pub slow_peer_timeout: Duration,
    /// What a client that exceeded its credit is told to wait.
    pub retry_after: Duration,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            frame_bytes_max: FRAME_BYTES_MAX_DEFAULT,
            inflight_requests_max: 256,
            inflight_messages_max: 65_536,
            inflight_bytes_max: 16 << 20,
            subscriptions_max: 4,
            output_bytes_high: 256 << 10,
            hello_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(300),
            slow_peer_timeout: Duration::from_secs(10),
            retry_after: Duration::from_millis(50),
        }
    }
}

impl SessionLimits {
    /// Bytes of output that one session can hold at most (see the type's text).
    #[must_use]
    pub fn output_bytes_max(&self) -> u64 {
        let acks = 21 * u64::from(self.inflight_messages_max)
            + u64::from(self.inflight_requests_max) * (64 + 32 * TIPS_IN_ACK_MAX as u64);
        self.output_bytes_high as u64 + MESSAGES_BYTES_MAX as u64 + acks + NOTICE_BYTES_MAX as u64
    }

    /// Bytes that one session can be made to hold at most, in all (see the type's text).
    #[must_use]
    pub fn worst_case_bytes(&self) -> u64 {
        u64::from(self.frame_bytes_max) + self.inflight_bytes_max + self.output_bytes_max()
    }
}
