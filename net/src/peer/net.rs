//! The handle of a node's connections to its peers.
//!
//! Owns who is dialled and when, who is let in, bans, and the table of peers. Invariants: at most one connection per
//! peer; nothing that is called here waits for a peer. One connection is left to `link`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use weft_core::LaneId;

use super::config::PeerConfig;
use super::frame::{Holdings, LaneEnd};
use super::service::{PeerService, SubscriptionId};
use crate::quic::error::BindError;

/// Why connections to peers could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerStartError {
    /// The socket or TLS.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The members do not name this node's key at its lane.
    #[error("the node's key is not that of lane {lane} in the genesis")]
    NotMember {
        /// The lane.
        lane: LaneId,
    },
}

/// There is no connection to this peer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not connected to the node of lane {}", peer.0)]
pub struct NotConnected {
    /// Its lane.
    pub peer: LaneId,
}

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

/// A node's connections to its peers. Clones are handles of the same; nothing here waits.
#[derive(Clone)]
pub struct PeerNet {
    shared: Arc<()>,
}

impl PeerNet {
    /// Listens, and dials every member with a lower lane and an address; in tasks of `runtime`.
    ///
    /// # Errors
    /// See [`PeerStartError`].
    pub fn start(
        config: PeerConfig,
        runtime: &Handle,
        service: Arc<dyn PeerService>,
    ) -> Result<Self, PeerStartError> {
        let _ = (config, runtime, service);
        todo!()
    }

    /// Where peers reach this node.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        todo!()
    }

    /// Sends a witness to all connected peers. Returns how many it was queued for.
    pub fn broadcast_witness(&self, message: &Bytes) -> usize {
        let _ = message;
        todo!()
    }

    /// Sends a witness to one peer.
    ///
    /// # Errors
    /// It is not connected.
    pub fn send_witness(&self, peer: LaneId, message: Bytes) -> Result<(), NotConnected> {
        let _ = message;
        Err(NotConnected { peer })
    }

    /// Tells one peer, or all, what this node holds.
    pub fn send_holdings(&self, peer: Option<LaneId>, holdings: &Holdings) {
        let _ = (peer, holdings);
    }

    /// Passes a proof of a fork on to all connected peers but `except`: two batches for one position of `lane`.
    pub fn send_fork_proof(&self, except: Option<LaneId>, lane: LaneId, batches: &[Bytes; 2]) {
        let _ = (except, lane, batches);
    }

    /// Asks a peer for what follows the highest of `ends` that it has of `lane`, with this much credit. A
    /// subscription to the same lane of the same peer is given up.
    ///
    /// # Errors
    /// It is not connected.
    pub fn subscribe(
        &self,
        peer: LaneId,
        lane: LaneId,
        ends: Vec<LaneEnd>,
        credit_bytes: u64,
    ) -> Result<SubscriptionId, NotConnected> {
        let _ = (lane, ends, credit_bytes);
        Err(NotConnected { peer })
    }

    /// Gives a subscription up: batches on their way may still come.
    pub fn unsubscribe(&self, subscription: SubscriptionId) {
        let _ = subscription;
    }

    /// Gives credit back: `bytes` of batches have been consumed.
    pub fn grant(&self, subscription: SubscriptionId, bytes: u64) {
        let _ = (subscription, bytes);
    }

    /// Asks a peer for the witnesses of `validator` after this number, at most 256; they come through
    /// [`PeerService::witness`], then [`PeerService::chain_done`].
    ///
    /// # Errors
    /// It is not connected.
    pub fn want_witnesses(&self, peer: LaneId, validator: u16, after: u64) -> Result<(), NotConnected> {
        let _ = (validator, after);
        Err(NotConnected { peer })
    }

    /// More of a lane is durable here: whoever is being shipped it is sent on. Cheap; call it after each sync, for
    /// each lane that grew or changed.
    pub fn lane_grew(&self, lane: LaneId) {
        let _ = lane;
    }

    /// Counts a fault that is not proof: at 100 points, which fade by one every six seconds, the peer is banned.
    pub fn fault(&self, peer: LaneId, points: u32, why: &str) {
        let _ = (peer, points, why);
    }

    /// Drops a peer for a proven fault; for [`PeerLimits::ban`](super::PeerLimits::ban) it is neither dialled nor let
    /// in.
    pub fn ban(&self, peer: LaneId, why: &str) {
        let _ = (peer, why);
    }

    /// Changes where a peer is dialled, from the next attempt on.
    pub fn set_address(&self, peer: LaneId, address: Option<String>) {
        let _ = (peer, address);
    }

    /// Whether there is a connection to this peer.
    #[must_use]
    pub fn is_connected(&self, peer: LaneId) -> bool {
        let _ = peer;
        false
    }

    /// Figures of all peers.
    #[must_use]
    pub fn status(&self) -> Vec<PeerStatus> {
        Vec::new()
    }

    /// Closes all connections and the socket; waits for the last packets, at most a second.
    pub async fn shutdown(&self) {}
}
