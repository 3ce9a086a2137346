//! The pure heart of weft: messages, ids, checks, lanes, tips and the DAG.
//!
//! Owns every format that is hashed or signed, and the bounded tables that a node asks for each message.
//! Invariants: no I/O, clock, threads or randomness (time, seeds and numbers are arguments), so every run can
//! be repeated; no unsafe code; no panic on any bytes; every table has a limit, given with its memory.
//! Signature verification is left to `weft-crypto`, files to `weft-storage`, sockets to `weft-net`, and the
//! order in which all this happens to a message to `weft-node`.
//!
//! | module | answers |
//! |---|---|
//! | [`ids`] | what names what: messages, keys, networks, lanes, places |
//! | [`message`], [`builder`] | how a message lies in its bytes; how a device writes and signs one |
//! | [`check`], [`reject`] | what can be said of a message alone; why one is refused |
//! | [`genesis`] | what founds a ledger |
//! | [`arena`] | a batch of messages in columns, before and after verification |
//! | [`lane`], [`merkle`], [`checkpoint`] | how a lane grows, what its root commits to, what its node signs |
//! | [`confirm`] | how the lanes of a cluster become certified and final |
//! | [`fork`] | how anyone sees that a node signed its lane two ways |
//! | [`note`], [`endorse`], [`receipt`] | what proves to others that a message is in a final lane |
//! | [`recent`], [`replay`] | was this id or sequence seen before |
//! | [`tips`], [`dag`] | what to name as parents; how messages hang together |
//! | [`hash`], [`hasher`] | BLAKE3 domains; many hashes at once |
//! | [`base64`], [`random`] | a text form of bytes; randomness as an argument |
//!
//! Features: `std` (default; BLAKE3 then chooses its instructions at run time), `signing` (default;
//! [`DeviceSigner`]). Without both the crate is `no_std` with `alloc`.
#![forbid(unsafe_code)]
#![no_std]

extern crate alloc;
#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod arena;
pub mod base64;
pub mod builder;
pub mod check;
pub mod checkpoint;
pub mod confirm;
pub mod dag;
pub mod endorse;
pub mod fork;
pub mod genesis;
pub mod hash;
pub mod hasher;
pub mod ids;
mod index;
pub mod lane;
pub mod merkle;
pub mod message;
pub mod note;
pub mod random;
pub mod receipt;
pub mod recent;
pub mod reject;
pub mod replay;
#[cfg(test)]
mod test_util;
pub mod tips;

pub use arena::{Arena, Unverified, Verified, VerifiedMessage};
#[cfg(feature = "signing")]
pub use builder::DeviceSigner;
pub use builder::Draft;
pub use check::{Limits, check_isolated};
pub use checkpoint::{Checkpoint, checkpoint_text};
pub use dag::{DagView, DagWindow};
pub use endorse::{Cosignature, SignedCheckpoint};
pub use fork::{FORK_PROOF_BYTES_MAX, FORK_PROOF_BYTES_MIN, ForkProof, ForkProofError, ForkSide};
pub use genesis::{BATCH_MESSAGES_MAX, Balance, Genesis, GenesisError, IngestNode, Validator};
pub use hasher::{BatchHasher, OneByOne};
pub use ids::{
    DeviceKey, GenesisId, LANE_POSITIONS_MAX, LANES_MAX, LaneId, MessageId, NetworkId, NodeKey, ParseIdError,
    Place,
};
pub use lane::build::{BatchBuilder, BatchFull, SealedBatch};
pub use lane::{BatchError, BatchHeader, BatchMessage, BatchView};
pub use merkle::LaneTree;
pub use message::{
    HEAD_BYTES, Head, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN, MessageView, PAYLOAD_BYTES_MAX, PayloadKind,
    SIGNATURE_BYTES, message_id,
};
pub use random::{RandomSource, SplitMix64};
pub use receipt::{ConsistencyFile, Receipt};
pub use recent::RecentIds;
pub use reject::{Reason, Rejection, UnknownReason};
pub use replay::ReplayTable;
pub use tips::{Tip, TipPool, TipSelection};
