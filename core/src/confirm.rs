//! Confirmation: how the lanes of a cluster become certified and final, and operations accepted.
//!
//! Owns the rules of the design's section 4 as a pure state machine: Bracha's reliable broadcast on whole lanes at
//! once, with watermarks for echo (*cut*) and ready (*certified cut*). Invariants: no I/O, clock, threads or
//! randomness; integer arithmetic; O(validators x lanes) work a round, two look-ups per operation, nothing per data
//! message. The rules, what each file owns and what breaks without each rule: `docs/confirmation.md`. Signing,
//! verifying, storing and shipping are left to the node.
//!
//! | module | answers |
//! |---|---|
//! | [`quorum`] | is this weight enough |
//! | [`witness`], [`transfer`], [`votes`] | the bytes: what a validator states, what an account orders, what must not be forgotten |
//! | [`digest`], [`form`] | the first and the third gate: what a batch is in short; is it well formed |
//! | [`ledger`] | the fourth gate: balances, locks, who may spend what |
//! | `lane_copy`, `count`, `settle` | what is held of a lane; how far it is certified and final; which operations are final |
//! | `state` | what this validator states, and when |
//! | [`io`], [`machine`] | inputs and effects; the state, and what follows from an input |
//! | `gates`, `marks` | what may be applied; when watermarks move and what that settles |
//! | [`rules`] | the rules by name, for simulations that weaken one |

mod count;
pub mod digest;
pub mod form;
mod gates;
pub mod io;
mod lane_copy;
pub mod ledger;
pub mod machine;
mod marks;
pub mod quorum;
pub mod rules;
mod settle;
pub mod state;
pub mod transfer;
pub mod votes;
pub mod witness;

pub use count::{AGAIN_MAX, REJECTS_MAX};
pub use digest::{BatchDigest, PlacedOperation, PlacedWitness};
pub use form::{IllFormed, check_form};
pub use io::{Effect, Input, ROUND_US_DEFAULT, Setup, Watermarks};
pub use lane_copy::{HELD_BATCHES_MAX, HELD_BYTES_MAX, SIDES_MAX};
pub use ledger::{Account, Ledger, Lock};
pub use machine::{Machine, RECENT_IDS_MAX};
pub use quorum::Weights;
pub use rules::{Rule, Rules, Strict};
pub use settle::{CLAIMS_MAX, REJECTS_LANE_MAX};
pub use state::{CUT_BATCHES_MAX, CUT_STEP_BATCHES_MAX, REJECTS_OPEN_MAX};
pub use transfer::{Operation, OperationHash, Transfer, TransferError};
pub use votes::{LaneVotes, Votes, VotesError};
pub use witness::{Claim, Rejects, Witness, WitnessError};
