//! What can go wrong with a log, by name.
//!
//! Owns [`LogError`]. An error says which file, what was got and what was expected, and what to do about it where that is not plain.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weft_core::{LaneId, NetworkId};

/// The write or sync that put an end to a log. Nothing after it is trusted: see [`disk`](crate::disk) for why a sync is not retried.
#[derive(Debug)]
pub struct Poison {
    /// What was attempted.
    pub operation: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// How it failed.
    pub source: io::Error,
}

impl fmt::Display for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.operation, self.path.display(), self.source)
    }
}

/// Bytes that are not what was once written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Offset of the structure that is damaged.
    pub offset: u64,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}: {}", self.path.display(), self.offset, self.what)
    }
}

/// Why a log refuses.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The operating system's answer to an operation that leaves the log usable.
    #[error("{operation} {}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// How it failed.
        source: io::Error,
    },
    /// A write or sync failed, now or before; the log takes nothing more. What was durable stays readable.
    #[error("the log is closed for good since a write or sync failed ({0}); repair the disk and start again")]
    Poisoned(Arc<Poison>),
    /// There is no room for another segment. Nothing was written; the same append may succeed later.
    #[error(
        "no room in {}: {free_bytes} bytes free, {needed_bytes} needed (the segment and the reserve); free some space",
        path.display()
    )]
    StorageFull {
        /// The directory.
        path: PathBuf,
        /// Bytes free.
        free_bytes: u64,
        /// Bytes that must be free.
        needed_bytes: u64,
    },
    /// Data that was durable is damaged. The log does not open, since cutting it there would lose what was acknowledged.
    #[error(
        "acknowledged data is damaged: {0}; restore it from a copy, and see `weft verify-log` for the extent"
    )]
    Damaged(Damage),
    /// A record holds exactly what was written, but that is not a sound batch: a defect of the program, or of its memory.
    #[error("an intact record holds an unsound batch: {0}; see `weft verify-log`")]
    Unsound(Damage),
    /// A file of the lane's directory belongs to another network.
    #[error("{} belongs to network {got}, not to {expected}", path.display())]
    AnotherNetwork {
        /// The file.
        path: PathBuf,
        /// Its network.
        got: NetworkId,
        /// The log's network.
        expected: NetworkId,
    },
    /// A file of the lane's directory belongs to another lane.
    #[error("{} belongs to lane {got}, not to {expected}", path.display())]
    AnotherLane {
        /// The file.
        path: PathBuf,
        /// Its lane.
        got: LaneId,
        /// The log's lane.
        expected: LaneId,
    },
    /// A batch does not continue the log.
    #[error("the batch has {name} {got}, the log expects {expected}")]
    WrongBatch {
        /// What does not fit.
        name: &'static str,
        /// The batch's value.
        got: u64,
        /// The value that would fit.
        expected: u64,
    },
    /// A configured value is out of its range.
    #[error("{name} is {got}, allowed are {min} to {max}")]
    Config {
        /// The setting.
        name: &'static str,
        /// Its value.
        got: u64,
        /// Smallest value allowed.
        min: u64,
        /// Largest value allowed.
        max: u64,
    },
}

impl LogError {
    /// Wraps an operating system's error.
    pub(crate) fn io<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self::Io { operation, path: path.to_path_buf(), source }
    }

    pub(crate) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged(Damage { path: path.to_path_buf(), offset, what: what.into() })
    }

    /// Whether the log can be used no more (as opposed to this one call).
    #[must_use]
    pub const fn is_poison(&self) -> bool {
        matches!(self, Self::Poisoned(_))
    }
}
