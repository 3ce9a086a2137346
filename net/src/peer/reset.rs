//! Stateless resets that outlive a process: a node that was killed and started again ends its peers' dead connections by itself.
//!
//! Owns the key of an endpoint's stateless resets (RFC 9000, section 10.3) and its connection ids. A node that dies says nothing, and its peers
//! keep what they take for a connection until it has been silent for `idle_timeout`. The node that comes back answers what they send by a
//! reset, which they believe only if its token is the one they were told when the connection was made: so the key is derived from the
//! node's seed, and every id is one that may be answered. One process at a time has the seed (the data directory is locked), so there is no
//! other instance to be asked for the token of a connection in use (section 21.11).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
use sha2::{Digest, Sha256};

const CID_BYTES: usize = 8;

/// Makes the endpoint of the node with this seed one whose resets are believed after a restart.
pub(super) fn keyed(mut config: EndpointConfig, seed: &[u8; 32]) -> EndpointConfig {
    let of = |context: &[u8]| Key(Sha256::new().chain_update(context).chain_update(seed).finalize().into());
    let ids = of(b"weft 2026 connection ids of a peer endpoint");
    config.reset_key(Arc::new(of(b"weft 2026 stateless resets of a peer endpoint"))).cid_generator(
        move || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
            Box::new(Ids { key: ids, from: now, number: 0 })
        },
    );
    config
}

/// A key of 32 bytes that is used for short inputs of one length, of which half of the hash is shown: that needs no HMAC.
#[derive(Clone, Copy)]
struct Key([u8; 32]);

impl Key {
    fn hash(&self, data: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(self.0).chain_update(data).finalize().into()
    }
}

impl HmacKey for Key {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        out.copy_from_slice(&self.hash(data)[..16]);
    }

    fn signature_len(&self) -> usize {
        16
    }

    /// Only tokens are made with this key, and quinn compares those itself, in constant time.
    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        if self.hash(data)[..16] == *signature { Ok(()) } else { Err(CryptoError) }
    }
}

/// Ids that nobody can foresee or connect with each other, and that differ from those of any other start. Whatever id comes may be of an
/// earlier start, so each is taken for one.
struct Ids {
    key: Key,
    from: u128,
    number: u64,
}

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut which = [0; 24];
        which[..16].copy_from_slice(&self.from.to_le_bytes());
        which[16..].copy_from_slice(&self.number.to_le_bytes());
        self.number += 1;
        ConnectionId::new(&self.key.hash(&which)[..CID_BYTES])
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_of_an_id_is_the_same_after_a_restart_and_no_other_nodes() {
        let token = |seed: [u8; 32], id: &[u8]| {
            let mut out = [0; 16];
            let of = Key(Sha256::new().chain_update(b"x").chain_update(seed).finalize().into());
            of.sign(id, &mut out);
            assert!(of.verify(id, &out).is_ok() && of.verify(b"another", &out).is_err());
            out
        };
        assert_eq!(token([1; 32], b"an id"), token([1; 32], b"an id"));
        assert_ne!(token([1; 32], b"an id"), token([2; 32], b"an id"));
        assert_ne!(token([1; 32], b"an id"), token([1; 32], b"no id"));
    }

    #[test]
    fn no_id_comes_twice() {
        let ids = |from| Ids { key: Key([3; 32]), from, number: 0 };
        let mut all: Vec<ConnectionId> = Vec::new();
        for mut ids in [ids(1), ids(2)] {
            all.extend((0..100).map(|_| ids.generate_cid()));
        }
        let distinct: std::collections::HashSet<ConnectionId> = all.iter().copied().collect();
        assert_eq!((distinct.len(), all[0].len()), (200, CID_BYTES));
    }
}
