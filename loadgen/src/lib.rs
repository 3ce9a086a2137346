//! Signed device traffic: derived devices, schedules, drivers, and reports that can be trusted.
//!
//! A run plays a [`profile`] (classes of devices and their habits): arrival processes tell which device speaks when ([`arrival`]), in
//! constant memory whatever the population; a planner cuts their events into batches at a pace that the target does or does not influence
//! ([`schedule`]); threads build and sign them ([`device`], [`payload`], [`faults`]), connections send them ([`driver`]), and every message
//! is timed from the moment it was due ([`measure`]). What comes out is a [`Report`] that says whether it may be believed, and a list of
//! what was acked, which [`audit()`] reads back and verifies without trusting the target.
//!
//! Left to others: flags and files (the command line), the wire (`weft-net`), keys and verdicts (`weft-crypto`).
#![deny(unsafe_code)]

pub mod acked;
pub mod arrival;
pub mod audit;
mod clock;
pub mod cluster;
pub mod compare;
pub mod config;
mod connection;
pub mod device;
mod direct;
pub mod driver;
pub mod error;
pub mod faults;
pub mod feistel;
mod finish;
mod generate;
pub mod hgrm;
mod hold;
mod link;
pub mod machine;
pub mod measure;
pub mod mix;
pub mod payload;
pub mod pool;
pub mod profile;
mod queue;
pub mod report;
pub mod schedule;
pub mod search;
mod timeline;
pub mod tips;
pub mod trace;

pub use acked::{Acked, AckedLog};
pub use audit::{AuditOptions, AuditProgress, AuditReport, audit};
pub use config::{About, At, NodeTarget, NullTarget, RunConfig, Stall, Target, Topology, World};
pub use driver::{ClassProgress, Outcome, Phase, Progress, Stop, run};
pub use error::LoadError;
pub use hgrm::{Summary, write_hgrm};
pub use machine::Machine;
pub use measure::Meter;
pub use profile::Profile;
pub use report::Report;
pub use schedule::{Schedule, Shape};
pub use trace::Trace;
