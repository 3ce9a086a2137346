//! The wire: frames, sans-io sessions, and thin QUIC glue around them.
//!
//! Owns what travels between a client and a node, and the rules of a session. [`frame`], [`query`], [`subscribe`], [`codec`]
//! and [`reader`] are the bytes, [`session`] the two state machines (time and input are arguments, bytes and
//! events come out), [`quic`] the sockets, keys and tasks around them. Invariants: nothing a peer sends makes
//! this crate panic or hold more than [`limits`] and [`quic::ServerLimits`] say; one bad
//! message never ends a session. What the messages mean is left to `weft-core` and the node.
#![forbid(unsafe_code)]

pub mod codec;
pub mod frame;
pub mod limits;
pub mod peer;
pub mod query;
#[cfg(feature = "quic")]
pub mod quic;
pub mod reader;
pub mod session;
pub mod subscribe;

pub use codec::FrameError;
pub use frame::{
    Ack, AckException, AckLevel, ErrorCode, Found, LaneStatus, Lookup, NodeState, Status, Submit, Welcome,
    WireError,
};
pub use limits::SessionLimits;
pub use query::{AccountStanding, AccountState, Answer, History, Payment, Query};
#[cfg(feature = "quic")]
pub use quic::{
    AckStream, BindError, Client, ClientConfig, ClientWindows, Confirmations, Delivery, Dialer, Fingerprint,
    Identity, IdentityError, LoadSender, NetError, NoticeSource, PendingAck, Refusal, Server, ServerConfig,
    ServerHandle, ServerLimits, ServerStats, Service, Session, SessionHandle, SessionOptions, ShutdownReport,
    SocketBuffers, Subscription, Trust,
};
pub use session::{Credit, RequestError, SessionEnd, WelcomeInfo};
pub use subscribe::{
    Bookmark, Confirmed, ConfirmedMessage, MessageFilter, Notice, Outcome, Start, Subscribe,
};
