//! QUIC: sockets, keys, connections and the tasks around the sans-io sessions.
//!
//! Owns everything that needs a clock, a socket or a task. [`server`] accepts connections and runs a
//! [`Service`]; [`client`] connects and submits, [`load`] does so for load generators; [`subscription`] is both ends of
//! those; [`identity`] and [`trust`] are the keys; [`transport`] the
//! limits of QUIC itself; `link` the loop of one session. Invariants: each bidirectional stream is one
//! session; a connection that fails takes its sessions with it and nothing else; all memory that peers can
//! cause to be held is in [`ServerLimits::worst_case_bytes`].

pub mod client;
pub mod error;
pub mod identity;
mod link;
pub mod load;
pub mod server;
pub mod subscription;
pub mod transport;
pub mod trust;

pub use client::{Client, ClientConfig, Dialer, PendingAck, Session, SessionOptions};
pub use error::{BindError, NetError};
pub use identity::{Fingerprint, Identity, IdentityError};
pub use load::{AckStream, Delivery, LoadSender};
pub use server::{
    Refusal, Server, ServerConfig, ServerHandle, ServerStats, Service, SessionHandle, ShutdownReport,
};
pub use subscription::{Confirmations, NoticeSource, Subscription};
pub use transport::{ALPN, ClientWindows, ServerLimits, SocketBuffers};
pub use trust::Trust;

/// Name in the handshake and in certificates. Keys are trusted, not names; TLS wants one all the same.
pub(crate) const SERVER_NAME: &str = "weft";
