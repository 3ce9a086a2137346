//! The settings about other nodes: where they are, and what the wire between nodes needs to start.
//!
//! Owns the text form of the list of peers. Invariant: each key stands in it once. Which keys are members is the genesis's to say: that is
//! checked when the node starts, since only its data directory knows.
//!
//! The list is `KEY@HOST:PORT`, separated by commas, or the path of a file with one of these a line (`#` begins a comment). KEY is the
//! node's public key, 64 hexadecimal digits; HOST may be a name, which is looked up each time it is dialled.

use std::fmt;
use std::time::Duration;

use weft_core::{GenesisId, LaneId, NodeKey};
use weft_net::peer::{PeerConfig, PeerLimits, PeerMember};
use weft_storage::DataDir;

use super::Config;

/// Longest file of peers that is read, bytes: 1,024 nodes with long names.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where one node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its key.
    pub key: NodeKey,
    /// `HOST:PORT` of its peer port.
    pub address: String,
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.key, self.address)
    }
}

/// Why a node cannot have peers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeersError {
    /// A peer that the genesis does not name.
    #[error("`peers` names {key}, which is no node of this ledger's genesis")]
    NotInGenesis {
        /// Its key.
        key: NodeKey,
    },
    /// The genesis names other nodes, and this one has no port for them.
    #[error(
        "the genesis names {nodes} nodes: set `peer_listen`, the address where the others reach this one"
    )]
    NoListen {
        /// Nodes of the genesis.
        nodes: usize,
    },
}

/// Reads a list of peers, or the file that holds it.
pub(super) fn parse(text: &str) -> Result<Vec<PeerAddress>, String> {
    if text.is_empty() || text == "none" {
        return Ok(Vec::new());
    }
    if text.contains('@') {
        return collect(text.split(','));
    }
    let unreadable =
        |error: std::io::Error| format!("KEY@HOST:PORT,... or a readable file of them ({error})");
    let size = std::fs::metadata(text).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("a file of at most {FILE_BYTES_MAX} bytes"));
    }
    let file = std::fs::read_to_string(text).map_err(unreadable)?;
    collect(file.lines().map(|line| line.split('#').next().unwrap_or_default()))
}

fn collect<'a>(entries: impl Iterator<Item = &'a str>) -> Result<Vec<PeerAddress>, String> {
    let mut peers: Vec<PeerAddress> = Vec::new();
    for entry in entries.map(str::trim).filter(|entry| !entry.is_empty()) {
        let wrong = || format!("KEY@HOST:PORT where KEY has 64 hex digits, not {entry:?}");
        let (key, address) = entry.split_once('@').ok_or_else(wrong)?;
        let key: NodeKey = key.parse().map_err(|_| wrong())?;
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() || port.parse::<u16>().is_err() || address.chars().any(char::is_whitespace) {
            return Err(wrong());
        }
        if peers.iter().any(|peer| peer.key == key) {
            return Err(format!("each key once; {key} is there twice"));
        }
        peers.push(PeerAddress { key, address: address.to_owned() });
    }
    Ok(peers)
}

/// The list as one text.
pub(super) fn show(peers: &[PeerAddress]) -> String {
    if peers.is_empty() {
        return "none".to_owned();
    }
    peers.iter().map(PeerAddress::to_string).collect::<Vec<_>>().join(",")
}

/// What the connections to other nodes need, at the node of `lane`; `None` where the genesis names no other.
///
/// # Errors
/// The settings do not fit the genesis.
pub fn peer_config(config: &Config, dir: &DataDir, lane: LaneId) -> Result<Option<PeerConfig>, PeersError> {
    let keys: Vec<NodeKey> = dir.genesis().node_keys().collect();
    if let Some(peer) = config.peers.iter().find(|peer| !keys.contains(&peer.key)) {
        return Err(PeersError::NotInGenesis { key: peer.key });
    }
    if keys.len() == 1 {
        return Ok(None);
    }
    let Some(listen) = config.peer_listen else { return Err(PeersError::NoListen { nodes: keys.len() }) };
    let member = |key: NodeKey| {
        let known = config.peers.iter().find(|peer| peer.key == key);
        PeerMember { key, address: known.map(|peer| peer.address.clone()) }
    };
    let genesis: GenesisId = dir.genesis_id();
    Ok(Some(PeerConfig {
        listen,
        seed: *dir.node_seed(),
        genesis,
        lane,
        members: keys.into_iter().map(member).collect(),
        latency: Duration::from_millis(config.peer_latency_ms),
        loss_percent: config.peer_loss,
        limits: PeerLimits::default(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> NodeKey {
        NodeKey::from([byte; 32])
    }

    #[test]
    fn a_list_and_a_file_of_the_same_peers_are_read_alike_and_shown_as_a_list() {
        let list = format!("{}@10.0.0.1:7273, {}@node-1.example:7273", key(1), key(2));
        let peers = parse(&list).unwrap();
        assert_eq!(peers.len(), 2);
        assert_eq!(peers[1], PeerAddress { key: key(2), address: "node-1.example:7273".to_owned() });
        assert_eq!(parse(&show(&peers)).unwrap(), peers);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("peers");
        let lines = format!("# the others\n{}@10.0.0.1:7273\n\n{} # far\n", key(1), peers[1]);
        std::fs::write(&path, lines).unwrap();
        assert_eq!(parse(path.to_str().unwrap()).unwrap(), peers);
        assert_eq!(parse("none").unwrap(), []);
    }

    #[test]
    fn what_is_no_list_of_peers_is_refused_with_the_entry_at_fault() {
        for bad in ["@x:1", "ab@x:1", "nowhere/at/all"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for bad in ["", "x", "x:", ":7", "x:70000", "x y:7"] {
            let text = format!("{}@{bad}", key(1));
            assert!(parse(&text).is_err(), "{text}");
        }
        let twice = format!("{0}@x:1,{0}@y:1", key(1));
        assert!(parse(&twice).unwrap_err().contains("twice"));
    }
}
