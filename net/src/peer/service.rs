//! What a node does for its peers, and what it hears from them.
//!
//! Owns the contract between this crate and the node. Invariants: event callbacks run on network tasks and must return
//! at once (push into a queue, count, drop); those that may read the disk are called on blocking threads. Memory that
//! events carry is bounded without the node's help: a [`Hold`] keeps its room until it is dropped, batches use up the
//! credit of their subscription until it is granted again.

use std::fmt;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use weft_core::{LaneId, SIGNATURE_BYTES};

use super::frame::{Holdings, LaneEnd, NotCosigned, PeerCode};

/// One subscription, unique while the node runs. Events of one that the node has given up may still come; they are
/// told apart by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u64);

/// What has come by a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrived {
    /// Batches.
    pub batches: u64,
    /// Bytes of the next one, which is not whole yet.
    pub bytes: u64,
}

/// Room that something received takes of what its peer may occupy. Kept with what was received and dropped with it;
/// while all of it is taken, nothing more is read of that peer's control stream.
#[derive(Debug)]
pub struct Hold {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Hold {
    /// Takes no room: for tests.
    #[must_use]
    pub const fn free() -> Self {
        Self { _permit: None }
    }

    pub(super) const fn of(permit: Option<OwnedSemaphorePermit>) -> Self {
        Self { _permit: permit }
    }
}

/// What becomes of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shipping {
    /// The holder shares this end, the highest of the locator that it has; batches from here on follow.
    Started(LaneEnd),
    /// The holder has none of the ends: it is behind, or has nothing of the lane. Over.
    NotHeld {
        /// How much of the lane it has.
        held: u64,
    },
    /// The holder has another history from below all ends on: its own signed batch that contradicts one of them. Over.
    Fork(Bytes),
    /// No more comes: the holder's copy changed, it stops, the connection is lost. Subscribe anew. Over.
    Ended(ShipEnd),
}

/// Why shipping ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShipEnd {
    /// The holder's copy of the lane changed below where it was being read.
    Changed,
    /// The holder cannot read it, or is going down.
    Failed,
    /// A newer subscription of the same peer to the same lane took its place.
    Replaced,
    /// The connection is lost.
    Lost,
}

/// The holder's answer to a subscription.
pub enum ShipAnswer {
    /// This end is shared; `cursor` reads what follows it.
    From(LaneEnd, Box<dyn ShipCursor>),
    /// None of the ends is held, and no contradiction to them either.
    NotHeld {
        /// How much of the lane is held durably.
        held: u64,
    },
    /// An own batch that contradicts one of the ends: same position, other root.
    Fork(Bytes),
}

impl fmt::Debug for ShipAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(end, _) => f.debug_tuple("From").field(end).finish_non_exhaustive(),
            Self::NotHeld { held } => f.debug_struct("NotHeld").field("held", held).finish(),
            Self::Fork(batch) => f.debug_tuple("Fork").field(&batch.len()).finish(),
        }
    }
}

/// Reads a lane forward, batch by batch.
pub trait ShipCursor: Send + 'static {
    /// Appends to `out` the sealed batches that follow, each whole (header, body, seal) and as in the log, up to about
    /// `bytes_max` and at least one if there is one. Only what is durable here. Nothing appended means that the end
    /// is reached for now; the next call comes after [`PeerNet::lane_grew`](super::PeerNet::lane_grew).
    ///
    /// Called on a blocking thread.
    ///
    /// # Errors
    /// [`ShipEnd::Changed`] where the copy was cut below the cursor's position, [`ShipEnd::Failed`] where the log
    /// cannot be read.
    fn read(&mut self, bytes_max: usize, out: &mut Vec<Bytes>) -> Result<(), ShipEnd>;
}

/// What a node says when it is asked for its signature under a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CosignAnswer {
    /// Its signature over the C2SP cosignature text of this time.
    Given {
        /// When, seconds since the Unix epoch, below 2^63.
        time_s: u64,
        /// The signature. Not verified by this crate.
        signature: [u8; SIGNATURE_BYTES],
    },
    /// None.
    Refused(NotCosigned),
}

/// What a node does for its peers, and what it hears from them. `peer` is the lane of the peer's key in the genesis.
pub trait PeerService: Send + Sync + 'static {
    /// A peer is connected and has said a good hello. Everything sent to it before is lost.
    fn connected(&self, peer: LaneId);

    /// The connection to a peer is over; its subscriptions have been told so before.
    fn disconnected(&self, peer: LaneId, code: Option<PeerCode>, reason: &str);

    /// A witness came: the bytes of a signed message, not looked at.
    fn witness(&self, peer: LaneId, message: Bytes, hold: Hold);

    /// A peer says what it holds.
    fn holdings(&self, peer: LaneId, holdings: Holdings, hold: Hold);

    /// Two batches that are said to be signed for one position of `lane`, not looked at.
    fn fork_proof(&self, peer: LaneId, lane: LaneId, batches: [Bytes; 2], hold: Hold);

    /// The bytes of what is said to be a proof that a lane was signed two ways, without the batches; not looked at.
    fn forked(&self, peer: LaneId, proof: Bytes, hold: Hold);

    /// A batch of a subscription came, not looked at; it uses its length of the credit.
    fn batch(&self, peer: LaneId, lane: LaneId, subscription: SubscriptionId, batch: Bytes);

    /// Something became of a subscription.
    fn shipping(&self, peer: LaneId, lane: LaneId, subscription: SubscriptionId, event: Shipping);

    /// The chain that [`PeerNet::want_witnesses`](super::PeerNet::want_witnesses) asked for has come to its end, each
    /// witness through [`witness`](Self::witness); `complete` is false where the connection was lost on the way.
    fn chain_done(&self, peer: LaneId, validator: u16, received: u32, complete: bool);

    /// A peer asks for a lane: finds the highest of `ends` that is held durably here. An end of size 0 is always
    /// held. Called on a blocking thread.
    fn ship(&self, peer: LaneId, lane: LaneId, ends: &[LaneEnd]) -> ShipAnswer;

    /// A peer asks for witnesses of `validator` with numbers above `after`: in order, at most `count`, about
    /// `bytes_max` bytes. Of the own chain only what is durable. Called on a blocking thread.
    fn chain(&self, peer: LaneId, validator: u16, after: u64, count: usize, bytes_max: usize) -> Vec<Bytes>;

    /// A peer asks for this node's signature under the checkpoint of `lane` that `end` names. Called on a blocking thread,
    /// for at most eight requests of one peer at a time.
    fn cosign(&self, peer: LaneId, lane: LaneId, end: LaneEnd) -> CosignAnswer;
}
