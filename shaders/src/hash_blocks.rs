//! Twin of `hash_blocks.wgsl`: k = SHA-512(R, A, M) mod l for messages of any length.
//!
//! Also owns the layout of its input, [`pack_blocks`]: one entry of four words per row (place of its first block in
//! units of four words, number of blocks, 0, 0), then the padded blocks.

use crate::bindings::Buffers;
use crate::scalar::scalars_store;
use crate::sha512::{self, big_endian};

/// Bytes of one SHA-512 block.
const BLOCK_BYTES: usize = 128;
/// Bytes that the padding adds at least: the bit 1 and a 128-bit length.
const PADDING_BYTES_MIN: usize = 17;

/// Blocks that R, A and a message of `message_bytes` take.
#[must_use]
pub fn blocks_of(message_bytes: usize) -> usize {
    (64 + message_bytes + PADDING_BYTES_MIN).div_ceil(BLOCK_BYTES)
}

/// The messages buffer, as bytes, for rows of (R, A, message).
#[must_use]
pub fn pack_blocks<'a>(
    rows: impl ExactSizeIterator<Item = (&'a [u8; 32], &'a [u8; 32], &'a [u8])>,
) -> Vec<u8> {
    let mut out = vec![0; rows.len() * 16];
    for (row, (r, a, message)) in rows.enumerate() {
        let first = out.len();
        let blocks = blocks_of(message.len());
        // Lengths are bounded by the host's buffers, far below 2^32.
        out[row * 16..row * 16 + 4].copy_from_slice(&((first / 16) as u32).to_le_bytes());
        out[row * 16 + 4..row * 16 + 8].copy_from_slice(&(blocks as u32).to_le_bytes());
        out.extend_from_slice(r);
        out.extend_from_slice(a);
        out.extend_from_slice(message);
        out.push(0x80);
        out.resize(first + blocks * BLOCK_BYTES - 8, 0);
        out.extend_from_slice(&((64 + message.len() as u64) * 8).to_be_bytes());
    }
    out
}

/// One invocation.
pub fn main(buffers: &mut Buffers, row: usize) {
    if row >= buffers.rows {
        return;
    }
    let (first, blocks) = (buffers.messages[row * 4] as usize, buffers.messages[row * 4 + 1] as usize);
    let mut state = sha512::start();
    for block in 0..blocks {
        let mut w = [[0; 2]; 16];
        for (i, pair) in w.iter_mut().enumerate() {
            let at = (first + block * 8) * 4 + 2 * i;
            *pair = big_endian(buffers.messages[at], buffers.messages[at + 1]);
        }
        state = sha512::block(&state, &w);
    }
    scalars_store(buffers, row, &sha512::words(&state));
}
