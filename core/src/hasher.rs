//! Hashing many short inputs at once: message ids, and leaves and nodes of lanes' trees.
//!
//! Owns the seam between those who have many hashes to make and those who make them side by side in vector lanes
//! ([`BatchHasher`]), and its serial twin ([`OneByOne`]). Invariant: every implementation gives the same hashes; a
//! wrong one gives wrong roots, which nobody else takes. The vector code is left to `weft-crypto`, the choice among
//! implementations to the node.

use crate::ids::MessageId;
use crate::merkle::{Hash, leaf_hash_32, node_hash};
use crate::message::message_id;

/// Makes many hashes at once.
pub trait BatchHasher: core::fmt::Debug + Send + Sync {
    /// `out[i]` = id of the message with this content ([`message_id`]).
    ///
    /// # Panics
    /// May, here as below, if there is another number of rows in than out: a bug of the caller.
    fn ids(&self, contents: &[&[u8]], out: &mut [MessageId]);

    /// `out[i]` = [`leaf_hash_32`] of `data[i]`.
    fn leaves(&self, data: &[Hash], out: &mut [Hash]);

    /// `out[i]` = [`node_hash`] of the two children.
    fn nodes(&self, children: &[[Hash; 2]], out: &mut [Hash]);
}

/// The serial twin: one after the other.
#[derive(Clone, Copy, Debug, Default)]
pub struct OneByOne;

impl BatchHasher for OneByOne {
    fn ids(&self, contents: &[&[u8]], out: &mut [MessageId]) {
        for (content, out) in contents.iter().zip(out) {
            *out = message_id(content);
        }
    }

    fn leaves(&self, data: &[Hash], out: &mut [Hash]) {
        for (data, out) in data.iter().zip(out) {
            *out = leaf_hash_32(data);
        }
    }

    fn nodes(&self, children: &[[Hash; 2]], out: &mut [Hash]) {
        for ([left, right], out) in children.iter().zip(out) {
            *out = node_hash(left, right);
        }
    }
}
