//! Deterministic simulation of a whole cluster, to try to break confirmation.
//!
//! Owns a world of nodes that run the product's own state machine
//! ([`weft_core::confirm::Machine`]) and formats under a simulated network (delay, loss, reordering, partition),
//! disks (what is not synced is lost), crashes, clocks, liars, and accounts that spend twice. Invariants: one seed
//! gives one run, byte for byte; safety is judged after every step, liveness once the faults have ended; every rule of
//! [`Rule`](weft_core::confirm::Rule) can be weakened, and must then be caught. What the rules are is said in
//! `docs/confirmation.md`; sockets, threads and real disks are left to the node's own tests.
//!
//! | module | owns |
//! |---|---|
//! | [`world`] | virtual time, the network, faults, the course of a run |
//! | [`node`] | an honest node: the shell around the state machine, its store and disk |
//! | [`liar`] | Byzantine validators and ingest nodes |
//! | [`accounts`] | who pays whom: honest, re-signing, spending at once, equivocating |
//! | [`check`] | the invariants |
//! | [`weak`] | rules under which one rule does not hold |
//! | [`keys`] | signatures: real ones, or hashes that stand for them |
#![forbid(unsafe_code)]

pub mod accounts;
pub mod batch;
pub mod check;
pub mod keys;
pub mod liar;
pub mod node;
pub mod weak;
pub mod weights;
pub mod world;

pub use check::Violation;
pub use world::{Options, Outcome, Stats, run};
