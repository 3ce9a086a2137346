//! Twin of `message_ids.wgsl`: BLAKE3 (derive_key mode) of messages of at most one chunk.

use crate::bindings::words_at;
use crate::blake3::{CHUNK_END, CHUNK_START, DERIVE_KEY_MATERIAL, ROOT, compress};

/// The longest input that the kernel takes: one BLAKE3 chunk, so that no tree is needed.
pub const MESSAGE_BYTES_MAX: usize = 1024;
/// Messages begin at multiples of this many bytes.
pub const BLOCK_BYTES: usize = 64;

/// The id of row `row`: `bytes` are the arena's words, `spans` (first block, length in bytes) per row.
#[must_use]
pub fn main(key: &[u32; 8], bytes: &[u32], spans: &[[u32; 2]], row: usize) -> [u32; 8] {
    let [first, length] = spans[row];
    let blocks = length.div_ceil(64).max(1);
    let mut chain = *key;
    for block in 0..blocks {
        let m = words_at::<16>(bytes, (first + block) as usize * 16);
        let mut flags = DERIVE_KEY_MATERIAL;
        let mut block_length = 64;
        if block == 0 {
            flags |= CHUNK_START;
        }
        if block + 1 == blocks {
            flags |= CHUNK_END | ROOT;
            block_length = length - 64 * block;
        }
        chain = compress(&chain, &m, block_length, flags);
    }
    chain
}
