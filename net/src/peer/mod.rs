//! Peers: the nodes of one ledger among themselves.
//!
//! Owns the connections between nodes and what travels on them: witnesses, what each node holds, lanes shipped from a
//! position on, chains of witnesses, proofs of forks. Invariants: both ends have proven a key of the genesis before a
//! byte is read; all that a peer can make this node hold is bounded by [`PeerLimits`]; a peer that sends nonsense loses
//! its own connection and nothing else; callbacks are never waited for. What the bytes mean (authentic, well formed,
//! final) is left to the node: nothing here reads a batch or a witness.
//!
//! One QUIC connection per pair of nodes, dialled by the one with the higher lane. On it:
//!
//! | stream | opened by | carries |
//! |---|---|---|
//! | control, unidirectional, before all others in priority | both, one each | hello, witnesses, holdings, ping and pong |
//! | lane, bidirectional | who asks | subscribe and credit; the batches that follow the highest end that both have |
//! | chain, bidirectional | who asks | witnesses of one validator, in order |
//! | proof, unidirectional | who knows of a fork | two batches for one position |
//! | cosign, bidirectional | who asks | a checkpoint; a signature under it, or why not |
//!
//! How a node uses it:
//!
//! 1. [`PeerNet::start`] with a [`PeerService`]. On [`PeerService::connected`], [`PeerNet::subscribe`] to the lanes wanted
//!    of that peer with the machine's locators, [`PeerNet::send_holdings`], and [`PeerNet::want_witnesses`] where the peer
//!    is ahead.
//! 2. Own batches: after the sync, [`PeerNet::lane_grew`]; the cursors made by [`PeerService::ship`] are then read on.
//!    Witnesses: after the sync, [`PeerNet::broadcast_witness`].
//! 3. Batches of others come through [`PeerService::batch`], never more than the credit and one batch;
//!    [`PeerNet::grant`] gives credit back once they are consumed (verified and stored, or dropped).
//! 4. Signatures under a checkpoint are asked for by [`PeerNet::cosign`], of one peer at a time, and given by
//!    [`PeerService::cosign`].
//! 5. When a subscription ends ([`PeerService::shipping`] says why) the node subscribes anew, there or elsewhere.
//!
//! | file | owns |
//! |---|---|
//! | [`frame`], [`reader`] | the bytes |
//! | `service` | what the node implements |
//! | `config` | settings and limits |
//! | `identity` | keys in TLS |
//! | `status` | figures about a peer |
//! | `net` | the handle, dialling, accepting, bans |
//! | `greeting` | connections that are not their peer's yet, counted |
//! | `link` | one connection |
//! | `ship` | lanes and chains, both ends |
//! | `cosign` | signatures under checkpoints, both ends |
//! | `stream` | frames on QUIC streams |
//! | `delay`, `loss` | a link with latency, a link that loses datagrams; for tests |

#[cfg(feature = "quic")]
mod config;
#[cfg(feature = "quic")]
mod cosign;
#[cfg(feature = "quic")]
mod delay;
pub mod frame;
mod greeting;
#[cfg(feature = "quic")]
mod identity;
#[cfg(feature = "quic")]
mod link;
#[cfg(feature = "quic")]
mod loss;
#[cfg(feature = "quic")]
mod net;
#[cfg(all(test, feature = "quic"))]
mod raw_tests;
pub mod reader;
#[cfg(feature = "quic")]
mod reset;
mod service;
#[cfg(feature = "quic")]
mod ship;
#[cfg(feature = "quic")]
mod status;
#[cfg(feature = "quic")]
mod stream;

#[cfg(feature = "quic")]
pub use config::{PeerConfig, PeerLimits, PeerMember};
pub use frame::{Holdings, LaneEnd, NotCosigned, PeerCode, PeerFrame};
#[cfg(feature = "quic")]
pub use net::{NotConnected, PeerNet, PeerStartError};
#[cfg(feature = "quic")]
pub use service::{
    Arrived, CosignAnswer, Hold, PeerService, ShipAnswer, ShipCursor, ShipEnd, Shipping, SubscriptionId,
};
#[cfg(feature = "quic")]
pub use status::{PeerState, PeerStatus};
