//! Settings and limits of the connections between nodes.
//!
//! Owns the constants that bound what a peer can make this node hold, with their reasons. Invariant: every queue and
//! every buffer of [`peer`](super) has its bound here. Where settings come from is left to the node.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use weft_core::lane::BATCH_BYTES_MAX;
use weft_core::{GenesisId, LaneId, NodeKey};

/// A node of the genesis, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMember {
    /// Its key.
    pub key: NodeKey,
    /// `HOST:PORT` of its peer port; a name is looked up each time it is dialled. `None`: it is not dialled, it may
    /// dial.
    pub address: Option<String>,
}

/// What connections between nodes need to start.
#[derive(Clone)]
pub struct PeerConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Seed of the node's Ed25519 key, the one whose public key the genesis names.
    pub seed: [u8; 32],
    /// The ledger.
    pub genesis: GenesisId,
    /// This node's lane.
    pub lane: LaneId,
    /// All nodes of the genesis in the order of their lanes, this one too.
    pub members: Vec<PeerMember>,
    /// Time that everything sent to peers is held back, as on a link of that length. For tests.
    pub latency: Duration,
    /// Percent of the datagrams from peers that are lost, from 0 to 100, each by itself. For tests.
    pub loss_percent: f64,
    /// Limits.
    pub limits: PeerLimits,
}

impl fmt::Debug for PeerConfig {
    // Without the seed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerConfig")
            .field("listen", &self.listen)
            .field("genesis", &self.genesis)
            .field("lane", &self.lane)
            .field("members", &self.members)
            .field("latency", &self.latency)
            .field("loss_percent", &self.loss_percent)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Limits of one peer's connection; all of it is per peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerLimits {
    /// Bytes of witnesses, holdings and proofs received and not yet let go of by the node (see
    /// [`Hold`](super::Hold)). A single larger one is still taken, alone.
    pub hold_bytes_max: usize,
    /// Bytes of control frames that wait to be sent. What does not fit is dropped and counted: lanes and chains carry
    /// it too.
    pub control_bytes_max: usize,
    /// Credit of all subscriptions to one peer together at their start; a subscription is given at most what is left
    /// of it and at least [`credit_bytes_least`](Self::credit_bytes_least). Below the windows, so that shipping never
    /// takes the room of witnesses.
    pub credit_bytes_max: u64,
    /// Credit that a subscription has at least.
    pub credit_bytes_least: u64,
    /// Bytes of one batch at most.
    pub batch_bytes_max: u32,
    /// Bytes received and not read, over all streams; and bytes sent and not acknowledged.
    pub window_bytes: u32,
    /// Socket buffers asked for, in bytes each way.
    pub socket_buffer_bytes: usize,
    /// How long a handshake with its hello may take.
    pub hello_timeout: Duration,
    /// A ping goes out after this long without one.
    pub ping_interval: Duration,
    /// A peer of which nothing came on the control stream for this long is lost.
    pub idle_timeout: Duration,
    /// A peer that takes no byte for this long while something waits for it is lost.
    pub slow_peer_timeout: Duration,
    /// Wait before the second attempt to dial; it doubles, and each wait is drawn from its upper half.
    pub redial_least: Duration,
    /// The longest wait.
    pub redial_most: Duration,
    /// How long a banned peer is neither dialled nor let in.
    pub ban: Duration,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            hold_bytes_max: 4 << 20,
            control_bytes_max: 4 << 20,
            credit_bytes_max: 12 << 20,
            credit_bytes_least: 64 << 10,
            batch_bytes_max: BATCH_BYTES_MAX as u32,
            window_bytes: 16 << 20,
            socket_buffer_bytes: 4 << 20,
            hello_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(10),
            slow_peer_timeout: Duration::from_secs(10),
            redial_least: Duration::from_millis(100),
            redial_most: Duration::from_secs(5),
            ban: Duration::from_secs(600),
        }
    }
}
