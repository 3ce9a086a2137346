//! Stateless resets that outlive a process: a node that was killed and started again ends its peers' dead connections by itself.
//!
//! Owns the key of an endpoint's stateless resets (RFC 9000, section 10.3) and the tag by which it knows its connection ids. A node that dies
//! says nothing, and its peers keep what they take for a connection until it has been silent for `idle_timeout`. The node that comes back
//! answers what they send by a reset, which they believe only if its token is the one they were told when the connection was made: so both are
//! derived from the node's seed. Ids without the tag are not answered: resets are limited in number, and whoever sends garbage should not
//! use them up. One process at a time has the seed (the data directory is locked), so there is no other instance to be asked for the token
//! of a connection in use (section 21.11).

use std::sync::Arc;

use quinn::EndpointConfig;
use quinn::crypto::{CryptoError, HmacKey};
use quinn_proto::HashedConnectionIdGenerator;
use sha2::{Digest, Sha256};

/// Makes the endpoint of the node with this seed one whose resets are believed after a restart.
pub(super) fn keyed(mut config: EndpointConfig, seed: &[u8; 32]) -> EndpointConfig {
    let of = |context: &[u8]| Key(Sha256::new().chain_update(context).chain_update(seed).finalize().into());
    let ids = of(b"weft 2026 connection ids of a peer endpoint").0;
    let tag = ids.iter().take(8).fold(0, |tag, byte| tag << 8 | u64::from(*byte));
    config
        .reset_key(Arc::new(of(b"weft 2026 stateless resets of a peer endpoint")))
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(tag)));
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
