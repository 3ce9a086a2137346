//! Why a node does not start.
//!
//! Owns the error; each part's own errors say what to do about it.

use std::net::SocketAddr;

use weft_core::{GenesisError, NodeKey};
use weft_net::{BindError, IdentityError};
use weft_storage::LogError;
use weft_storage::datadir::DataDirError;

use crate::config::PeersError;
use crate::confirm::record::RecordError;
use crate::lane::with_sources;
use crate::replicate::ReplicationError;
use crate::verifier::VerifierError;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("{}", with_sources(.0))]
    DataDir(#[from] DataDirError),
    /// The log cannot be used.
    #[error("{}", with_sources(.0))]
    Log(#[from] LogError),
    /// The genesis is not valid.
    #[error("the genesis is not valid: {0}")]
    Genesis(#[from] GenesisError),
    /// This node's key is not in the genesis.
    #[error("the key in node.key ({got}) is none of the genesis: this directory is not that node's")]
    NotInGenesis {
        /// This node's public key.
        got: NodeKey,
    },
    /// The settings about other nodes do not fit the genesis.
    #[error("{0}")]
    Peers(#[from] PeersError),
    /// Connections to other nodes cannot be started.
    #[error("{}", with_sources(.0))]
    Replication(#[from] ReplicationError),
    /// The record of votes cannot be used.
    #[error("{}", with_sources(.0))]
    Votes(#[from] RecordError),
    /// The TLS identity cannot be read or made.
    #[error("{}", with_sources(.0))]
    Identity(#[from] IdentityError),
    /// The address cannot be used.
    #[error("cannot listen on {address}: {}", with_sources(.source))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: BindError,
    },
    /// The HTTP address cannot be used.
    #[error("cannot listen on {address} for HTTP: {source}")]
    BindHttp {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// There is no verifier of that name here.
    #[error("verifier: {0}")]
    Verifier(#[from] VerifierError),
    /// The operating system refused something a process needs.
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    /// No randomness.
    #[error("the operating system gives no randomness: {0}")]
    Random(#[from] getrandom::Error),
}
