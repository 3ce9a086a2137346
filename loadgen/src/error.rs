//! What can keep a run or an audit from being made at all.
//!
//! Owns [`LoadError`]. What goes wrong during a run (rejections, lost connections, a late generator) is no error but part of its report.

use weft_net::NetError;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A setting is outside its limits.
    #[error("{what} is {got}; it must be {limit}")]
    Config {
        /// The setting.
        what: &'static str,
        /// Its value.
        got: String,
        /// What is allowed, as a phrase.
        limit: String,
    },
    /// The target could not be reached, or did not let this client in.
    #[error("connection to the target: {source}")]
    Connect {
        /// What the network says.
        #[source]
        source: NetError,
    },
    /// The target does not offer what the run needs.
    #[error("the target's {what} is {got}, but the run needs {limit}")]
    Target {
        /// What it lacks.
        what: &'static str,
        /// What it offers.
        got: String,
        /// What is needed.
        limit: String,
    },
    /// Reading messages back failed, so nothing can be said about those not read yet. An audit that was under way reports it in
    /// [`AuditReport::broken_off`](crate::AuditReport::broken_off), beside what it found until then.
    #[error("audit stopped after {checked} of {total} messages: {reason}")]
    Audit {
        /// Messages checked before.
        checked: u64,
        /// Messages to check.
        total: u64,
        /// What happened.
        reason: String,
    },
    /// The system gave no thread or runtime.
    #[error("system: {source}")]
    System {
        /// What it says.
        #[from]
        source: std::io::Error,
    },
    /// A generator thread ended by a panic: a bug.
    #[error("internal error: {what}")]
    Internal {
        /// Where.
        what: &'static str,
    },
}

impl From<NetError> for LoadError {
    fn from(source: NetError) -> Self {
        Self::Connect { source }
    }
}
