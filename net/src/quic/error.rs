//! What can go wrong between a client and a node, named by what the user can do about it.
//!
//! Owns the errors of the glue. Invariants: every limit that was hit is told with what was got; a changed key
//! shows both fingerprints; what the server said is passed on as it said it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use quinn::{ConnectionError, TransportErrorCode};

use super::identity::Fingerprint;
use crate::frame::{ErrorCode, WireError};
use crate::session::{RequestError, SessionEnd};

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The address cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A limit has a value that cannot work.
    #[error("{limit_name} is {got}, allowed are {least} to {most}")]
    Limit {
        /// The limit.
        limit_name: &'static str,
        /// Its value.
        got: u64,
        /// The least it may be.
        least: u64,
        /// The most it may be.
        most: u64,
    },
    /// The limits multiply to more memory than allowed.
    #[error(
        "the network limits can cost {got} bytes of memory, memory_bytes_max is {limit}: lower connections_max, sessions_max or the windows, or raise it"
    )]
    Memory {
        /// Worst case of the limits, in bytes.
        got: u64,
        /// The budget, in bytes.
        limit: u64,
    },
    /// TLS refuses the identity.
    #[error("the identity cannot be used: {0}")]
    Tls(String),
}

/// Why a client got no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The local socket could not be had, or TLS could not be set up.
    #[error("cannot connect to {address}: {reason}")]
    Local {
        /// The node.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// Nobody answered.
    #[error(
        "{address} did not answer within {after:?}: is the node running, and does the network let UDP through?"
    )]
    ConnectTimeout {
        /// The node.
        address: SocketAddr,
        /// How long was waited.
        after: Duration,
    },
    /// The node takes no connection now.
    #[error("{address} refused the connection: it is at its connection limit or going down; try again later")]
    Refused {
        /// The node.
        address: SocketAddr,
    },
    /// The node has another key than the one remembered for its address.
    #[error("the key of {address} has changed: known {known}, got {got}. If the node was set up anew, remove its line from {}; if not, someone is in the middle", path.display())]
    KeyChanged {
        /// The node.
        address: SocketAddr,
        /// The fingerprint remembered.
        known: Fingerprint,
        /// The fingerprint got.
        got: Fingerprint,
        /// The file of known nodes.
        path: PathBuf,
    },
    /// The node has another key than the pinned one.
    #[error("{address} has fingerprint {got}, pinned is {pinned}: wrong node, or someone in the middle")]
    KeyMismatch {
        /// The node.
        address: SocketAddr,
        /// The fingerprint pinned.
        pinned: Fingerprint,
        /// The fingerprint got.
        got: Fingerprint,
    },
    /// The file of known nodes cannot be used.
    #[error("{}: {source}", path.display())]
    KnownNodes {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SharedIoError,
    },
    /// The peer is no weft node, or one of another version.
    #[error("{address} does not speak weft's protocol: {reason}")]
    Protocol {
        /// The peer.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The connection ended; with the node's code if it gave one.
    #[error("the connection to {address} ended: {reason}")]
    ConnectionLost {
        /// The node.
        address: SocketAddr,
        /// The node's code, if it closed the connection itself.
        code: Option<ErrorCode>,
        /// Why.
        reason: String,
    },
    /// The session ended.
    #[error(transparent)]
    Session(#[from] SessionEnd),
    /// The node refused this request; the session goes on.
    #[error("the node refused the request: {0}")]
    Request(WireError),
    /// The request cannot be made.
    #[error(transparent)]
    Invalid(#[from] RequestError),
    /// The node says again and again that what was asked does not fit its reply.
    #[error("the node did not send {missing} of the messages asked for in {rounds} replies")]
    Unanswered {
        /// Messages still missing.
        missing: usize,
        /// Replies without progress.
        rounds: u32,
    },
}

/// An [`io::Error`] that can be cloned.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct SharedIoError(std::sync::Arc<io::Error>);

impl From<io::Error> for SharedIoError {
    fn from(error: io::Error) -> Self {
        Self(std::sync::Arc::new(error))
    }
}

impl NetError {
    /// The code that the node gave, if it gave one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::ConnectionLost { code, .. } => *code,
            Self::Session(SessionEnd::Refused(error)) | Self::Request(error) => Some(error.code),
            Self::Session(SessionEnd::Reset(code)) => Some(*code),
            Self::Session(SessionEnd::ShutDown) => Some(ErrorCode::ShuttingDown),
            _ => None,
        }
    }

    /// How long the node asks to wait before trying again, if it said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Session(SessionEnd::Refused(error)) | Self::Request(error) if error.retry_after_ms > 0 => {
                Some(Duration::from_millis(error.retry_after_ms.into()))
            }
            _ => None,
        }
    }

    /// Whether the same may succeed later, without anybody changing anything.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::ConnectTimeout { .. } | Self::Refused { .. } | Self::Unanswered { .. } => true,
            Self::Session(SessionEnd::Lost | SessionEnd::WelcomeTimeout(_)) => true,
            Self::Invalid(RequestError::NoCredit { .. }) => true,
            Self::ConnectionLost { code: None, .. } => true,
            _ => matches!(
                self.code(),
                Some(ErrorCode::Overloaded | ErrorCode::ShuttingDown | ErrorCode::Idle | ErrorCode::SlowPeer)
            ),
        }
    }

    /// The meaning of a connection's end.
    pub(crate) fn of_connection(address: SocketAddr, error: &ConnectionError) -> Self {
        match error {
            ConnectionError::ConnectionClosed(close)
                if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
            {
                Self::Refused { address }
            }
            ConnectionError::VersionMismatch => {
                Self::Protocol { address, reason: "another version of QUIC".to_owned() }
            }
            ConnectionError::TransportError(_) => Self::Protocol { address, reason: error.to_string() },
            ConnectionError::ApplicationClosed(close) => {
                let code = u8::try_from(close.error_code.into_inner()).ok().and_then(ErrorCode::from_code);
                let reason = match code {
                    Some(code) => format!("{code}: {}", String::from_utf8_lossy(&close.reason)),
                    None => error.to_string(),
                };
                Self::ConnectionLost { address, code, reason }
            }
            _ => Self::ConnectionLost { address, code: None, reason: error.to_string() },
        }
    }
}
