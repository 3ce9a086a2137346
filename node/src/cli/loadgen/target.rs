//! `--target`: a node by address, or `null`.
//!
//! Owns the flags that name a target and how to trust it, for every command that plays a profile.

use std::net::SocketAddr;
use std::path::PathBuf;

use weft_loadgen::{NodeTarget, NullTarget, Target};

use crate::cli::{NODE_ADDRESS_DEFAULT, PeerArgs, connect, usage};

/// Where the messages go.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Target")]
pub struct TargetArgs {
    /// The node's address (UDP, QUIC), or `null`: messages are built, signed and dropped in this process, which measures the generator
    #[arg(long, value_name = "ADDR:PORT", env = "WEFT_TO", default_value = NODE_ADDRESS_DEFAULT)]
    pub target: String,
    /// Trust exactly the server whose certificate has this SHA-256: 64 hex digits, as `weft node` prints at start
    #[arg(long, value_name = "HEX", env = "WEFT_PIN", conflicts_with = "known_nodes")]
    pub pin: Option<String>,
    /// Trust on first use: the file that remembers each address's certificate
    #[arg(long, value_name = "FILE", env = "WEFT_KNOWN_NODES")]
    pub known_nodes: Option<PathBuf>,
    /// Name of the node's verifier, for the report (a node does not tell)
    #[arg(long, value_name = "NAME")]
    pub backend: Option<String>,
    /// Where the node keeps its data, if that is on this machine: the report names the disk
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

impl TargetArgs {
    /// The target that the flags name, and the node behind it if it is one.
    ///
    /// # Errors
    /// A usage error for an address or a certificate hash that is none.
    pub fn resolve(&self) -> anyhow::Result<(Target, Option<NodeTarget>)> {
        if self.target == "null" {
            return Ok((Target::Null(NullTarget::default()), None));
        }
        let to: SocketAddr = self.target.parse().map_err(|_| {
            usage(format!("--target: got {:?}, need an address such as 127.0.0.1:7272, or null", self.target))
        })?;
        let peer =
            PeerArgs { to, pin: self.pin.clone(), known_nodes: self.known_nodes.clone(), timeout_ms: 10_000 };
        let node = NodeTarget { addr: to, trust: connect::trust(&peer)?, network: None };
        Ok((Target::Node(node.clone()), Some(node)))
    }
}
