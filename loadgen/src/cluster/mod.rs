//! Several machines that play one profile together: one coordinator, any number of workers, one report.
//!
//! Owns the protocol between them (`wire`), the two ends ([`coordinate`], [`serve`]) and the merge of reports ([`merge`]). Each worker
//! gets a part of the event index ([`Split`](crate::arrival::Split)): counting processes are divided number by number, drawn ones by rate,
//! so the parts together are the profile. Clocks: the coordinator estimates each worker's offset from the fastest of many round trips and
//! tells it when to begin in its own time; sequence numbers count from one base for all. Invariants: histograms are added count by count, so
//! the merged report says what one generator would have said; a worker that is lost is named in the report and makes it invalid.

mod coordinate;
mod merge;
mod wire;
mod worker;

pub use coordinate::{CoordinateOptions, Seen, coordinate};
pub use merge::merge;
pub use wire::{Job, WORKERS_MAX};
pub use worker::serve;
