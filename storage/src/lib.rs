//! The durable log of lane batches: segments, index, recovery, and the disk it is tested against.
//!
//! ```text
//! DATA/            datadir   lock, format version, genesis, node key
//!   lanes/0/       log       LaneWriter -> append, Syncer -> group commit, LogReader -> look-ups
//!     *.seg        segment   header, records (byte tables there); scan reads them, recovery decides about the tail
//!     *.idx        index     id -> position for sealed segments
//!     subtrees.bin subtrees  roots of subtrees, so that proofs are quick
//! disk             the seam: RealDisk (real, map) or SimDisk (sim)
//! ```
//!
//! A batch is appended in one write, made durable by a sync that may serve many batches, and read in place through a shared map. What a
//! crash may do is written down in [`disk`], simulated in [`sim`], and repaired in [`recovery`].
#![deny(unsafe_code)]

mod cut;
pub mod datadir;
pub mod disk;
mod error;
mod housekeeping;
mod index;
pub mod log;
mod map;
pub mod reader;
pub mod real;
pub mod recovery;
mod scan;
pub mod segment;
pub mod sim;
pub mod slots;
mod state;
pub mod subtrees;
pub mod verify;

pub use datadir::{DataDir, DataDirError};
pub use disk::Disk;
pub use error::{Damage, LogError, Poison};
pub use log::{LaneLog, LaneWriter, LogConfig, Syncer};
pub use reader::{LogReader, LogStats, StoredBatch, StoredMessage};
pub use real::RealDisk;
pub use recovery::{Cut, Recovered};
pub use sim::SimDisk;
pub use slots::SlotFile;
pub use subtrees::{LaneHashes, Subtrees};
pub use verify::{Report, verify_log};
