//! What can be asked about a peer.
//!
//! Owns the shape of the figures; they are put together by [`PeerNet::status`](super::PeerNet::status).

use std::time::Duration;

use weft_core::LaneId;

/// How the connection to a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// It dials, or its address is not known.
    Waiting,
    /// It is being dialled.
    Dialling,
    /// Connected.
    Connected,
    /// Banned for this much longer.
    Banned(Duration),
}

/// Figures about one peer. Totals are since the node started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its lane.
    pub peer: LaneId,
    /// How the connection is.
    pub state: PeerState,
    /// Where it is: the remote end while connected, else what is dialled.
    pub address: Option<String>,
    /// Smoothed round trip, while connected.
    pub rtt: Option<Duration>,
    /// Since when nothing came of it, while connected.
    pub silent: Option<Duration>,
    /// Connections that were made.
    pub connections_total: u64,
    /// Bytes sent, by UDP.
    pub sent_bytes_total: u64,
    /// Bytes received, by UDP.
    pub received_bytes_total: u64,
    /// Bytes of batches sent to it.
    pub shipped_bytes_total: u64,
    /// Bytes of batches received from it.
    pub taken_bytes_total: u64,
    /// Control frames for it that found no room and were dropped.
    pub dropped_total: u64,
    /// Lanes that it is being shipped.
    pub shipping: u32,
    /// Faults, in points; they fade. At 100 it is banned.
    pub score: u32,
    /// Why the last connection ended, or could not be made.
    pub last_error: Option<String>,
}
