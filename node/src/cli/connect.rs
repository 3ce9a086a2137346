//! How the client commands reach a node: trust, a runtime, a session, and a bound on every wait.

use std::time::Duration;

use anyhow::Context as _;
use weft_core::NetworkId;
use weft_net::{AckLevel, Client, ClientConfig, Fingerprint, Session, SessionOptions, Trust};

use super::PeerArgs;

/// A connection with one session on it.
#[derive(Debug)]
pub struct Link {
    /// The connection; dropped last.
    pub client: Client,
    /// The session.
    pub session: Session,
}

/// How `peer` says the node should be trusted.
///
/// # Errors
/// A usage error for a pin that is no hash, or if there is nowhere to remember nodes.
pub fn trust(peer: &PeerArgs) -> anyhow::Result<Trust> {
    if let Some(pin) = peer.pin_bytes()? {
        return Ok(Trust::Pin(Fingerprint(pin)));
    }
    let file = peer.known_nodes_file()?;
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    Ok(Trust::FirstUse(file))
}

/// Runs `work` on a small runtime and gives up after the time that `peer` allows.
///
/// # Errors
/// What `work` failed with, or the time-out.
pub fn block_on<T>(peer: &PeerArgs, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let patience = Duration::from_millis(peer.timeout_ms);
    runtime.block_on(async {
        match tokio::time::timeout(patience, work).await {
            Ok(result) => result,
            Err(_) => {
                anyhow::bail!("no answer from {} within {} ms (--timeout-ms)", peer.to, peer.timeout_ms)
            }
        }
    })
}

/// Connects to the node that `peer` names and opens a session.
///
/// # Errors
/// If the node cannot be reached, is not the one trusted, or refuses the session.
pub async fn open(peer: &PeerArgs, network: Option<NetworkId>, ack_level: AckLevel) -> anyhow::Result<Link> {
    let client = Client::connect(ClientConfig::new(peer.to, trust(peer)?)).await?;
    let session =
        client.open_session(SessionOptions { network, ack_level, ..SessionOptions::default() }).await?;
    Ok(Link { client, session })
}
