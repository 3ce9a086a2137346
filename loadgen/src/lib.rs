//! Signed device traffic: derived devices, schedules, drivers, and reports that can be trusted.
//!
//! A run emulates a population of devices ([`population`], [`device`], [`payload`]) behind a few gateways: threads build and sign batches
//! of their messages, connections send them ([`driver`]) at a pace that the target does or does not influence ([`schedule`]), and every
//! message is timed from the moment it was due ([`measure`]). What comes out is a [`Report`] that says whether it may be believed, and a
//! list of what was acked, which [`audit()`] reads back and verifies without trusting the target.
//!
//! Left to others: flags and files (the command line), the wire (`weft-net`), keys and verdicts (`weft-crypto`). Room is left for traffic
//! profiles: everything that decides who speaks when is behind [`schedule::Planner`] and [`population::Walk`].
#![forbid(unsafe_code)]

pub mod acked;
pub mod audit;
mod clock;
pub mod config;
mod connection;
pub mod device;
pub mod driver;
pub mod error;
pub mod feistel;
mod generate;
pub mod hgrm;
mod link;
pub mod machine;
pub mod measure;
pub mod mix;
pub mod payload;
pub mod population;
mod queue;
pub mod report;
pub mod schedule;
pub mod tips;

pub use acked::{Acked, AckedLog};
pub use audit::{AuditOptions, AuditProgress, AuditReport, audit};
pub use config::{About, NodeTarget, NullTarget, RunConfig, Stall, Target};
pub use driver::{Outcome, Phase, Progress, Stop, run};
pub use error::LoadError;
pub use hgrm::{Summary, write_hgrm};
pub use machine::Machine;
pub use measure::Meter;
pub use report::Report;
pub use schedule::Schedule;
