//! What goes into the confirmation machine and what comes out: setup, inputs, effects.
//!
//! Owns the contract between the machine and the shell around it. Invariant: an effect that must be durable comes before
//! the effects that let something leave. What the machine does with an input is left to [`machine`](super::machine).

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::digest::BatchDigest;
use super::quorum::Weights;
use super::transfer::Operation;
use super::votes::Votes;
use super::witness::Witness;
use crate::genesis::{Balance, Genesis};
use crate::ids::{LaneId, MessageId, NodeKey, Place};
use crate::merkle::Hash;

/// Default time between two witnesses, microseconds: a tenth of a second costs a validator ten messages a second and
/// a device at most that much waiting.
pub const ROUND_US_DEFAULT: u64 = 100_000;

/// Who votes, who has lanes, and which of them this node is.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Weights of the validators. Validator i has lane i.
    pub weights: Weights,
    /// Lanes: those of the validators, then those of the ingest nodes.
    pub lanes: usize,
    /// This node's lane, if it has one.
    pub lane: Option<LaneId>,
    /// What accounts have at the start.
    pub balances: Vec<Balance>,
    /// Time between two witnesses, microseconds.
    pub round_us: u64,
}

impl Setup {
    /// The setup of the node with this key: a validator, an ingest node, or an observer.
    #[must_use]
    pub fn new(genesis: &Genesis, key: Option<&NodeKey>) -> Self {
        let lane = key.and_then(|key| genesis.node_keys().position(|known| known == *key));
        Self {
            weights: Weights::new(genesis.committee.iter().map(|validator| validator.weight).collect()),
            lanes: genesis.committee.len() + genesis.ingest.len(),
            // A genesis has at most 1,024 nodes.
            lane: lane.map(|lane| LaneId(lane as u16)),
            balances: genesis.balances.clone(),
            round_us: ROUND_US_DEFAULT,
        }
    }

    /// This node's place in the committee, if it has one.
    #[must_use]
    pub fn validator(&self) -> Option<usize> {
        self.lane.map(|lane| usize::from(lane.0)).filter(|index| *index < self.weights.len())
    }
}

/// What happens to a node.
#[derive(Clone, Debug)]
pub enum Input {
    /// An authentic batch of some lane arrived, or was sealed here. Batches of one copy come in order.
    Batch(Arc<BatchDigest>),
    /// The verdict that [`Effect::CheckForm`] asked for.
    Formed {
        /// The lane.
        lane: LaneId,
        /// Where the batch starts.
        first: u64,
        /// Its root, since the copy may have changed meanwhile.
        root: Hash,
        /// Whether [`check_form`](super::form::check_form) passed.
        well_formed: bool,
    },
    /// The copy of a lane is durable here up to this size.
    Durable {
        /// The lane.
        lane: LaneId,
        /// Its size on the disk.
        size: u64,
    },
    /// A witness arrived, from its validator or from whoever has it; its signature is valid.
    Witness {
        /// Who made it.
        validator: u16,
        /// Id of its message.
        id: MessageId,
        /// What it says.
        witness: Arc<Witness>,
    },
    /// A fork was proven by two batches that this node does not hold.
    Forked {
        /// The lane.
        lane: LaneId,
        /// The first position that differs.
        at: u64,
    },
    /// Time has passed: see [`Machine::next_tick_us`](super::machine::Machine::next_tick_us).
    Tick,
}

/// What a node has to do, in this order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Check signatures and places of this batch ([`check_form`](super::form::check_form)); all that it names is
    /// final here. Several may be asked for at once: verify them together.
    CheckForm(Arc<BatchDigest>),
    /// Make these votes durable before anything after this effect is done.
    Persist(Votes),
    /// Sign this witness as a message and put it into the own lane before waiting client messages. Votes and message
    /// are durable, in one record, before the witness leaves.
    State(Arc<Witness>),
    /// The copy has changed from this size on: replace what is stored by these batches.
    Switched {
        /// The lane.
        lane: LaneId,
        /// Size up to which the copy is as it was.
        from: u64,
        /// The batches from there on.
        batches: Vec<Arc<BatchDigest>>,
    },
    /// A lane was signed two ways: pass both batches on. No fault of this node's copy. Once a lane.
    Forked {
        /// The batch held.
        held: Arc<BatchDigest>,
        /// The other one for the same positions.
        other: Arc<BatchDigest>,
    },
    /// The lane ends before this batch, for it is not well formed.
    Ended(Arc<BatchDigest>),
    /// A witness is followed: keep its message for whoever asks for the chain from some number on.
    Followed {
        /// Whose.
        validator: u16,
        /// Its number.
        number: u64,
        /// Id of its message.
        id: MessageId,
    },
    /// A validator signed two witnesses with one number.
    Equivocated {
        /// Who.
        validator: u16,
        /// The number.
        number: u64,
    },
    /// The lane is certified here up to this size.
    Certified {
        /// The lane.
        lane: LaneId,
        /// The size.
        size: u64,
    },
    /// The lane is final up to this size.
    Final {
        /// The lane.
        lane: LaneId,
        /// The size.
        size: u64,
    },
    /// An operation is accepted (level 1).
    Accepted {
        /// Where.
        place: Place,
        /// Which.
        operation: Operation,
    },
    /// An operation is final (level 2).
    Settled {
        /// Where.
        place: Place,
        /// Which.
        operation: Operation,
    },
    /// An operation has entered the ledger.
    Entered(Operation),
    /// This validator is known further to a peer than to its own disk: it states nothing any more, until an epoch
    /// gives it a new key.
    Silenced {
        /// The number of a witness of its own that it does not remember.
        number: u64,
    },
}

/// How far a lane is, in positions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// Final: unique, and so at all honest nodes in the end. What batches may cite.
    pub final_size: u64,
    /// Certified and applied.
    pub certified: u64,
    /// Applied.
    pub applied: u64,
    /// Held.
    pub held: u64,
}
