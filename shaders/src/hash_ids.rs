//! Twin of `hash_ids.wgsl`: k = SHA-512(R, A, id) mod l for 32-byte ids.

use crate::bindings::{Buffers, ID_WORDS, words_at};
use crate::memory::{key_words, r_words};
use crate::scalar::scalars_store;
use crate::sha512::{self, big_endian};

/// One invocation.
pub fn main(buffers: &mut Buffers, row: usize) {
    if row >= buffers.rows {
        return;
    }
    let r = r_words(buffers, row);
    let a = key_words(buffers, row);
    let m = words_at::<8>(&buffers.messages, row * ID_WORDS);
    let mut w = [[0; 2]; 16];
    for i in 0..4 {
        w[i] = big_endian(r[2 * i], r[2 * i + 1]);
        w[i + 4] = big_endian(a[2 * i], a[2 * i + 1]);
        w[i + 8] = big_endian(m[2 * i], m[2 * i + 1]);
    }
    w[12] = [0, 0x8000_0000];
    w[15] = [768, 0];
    scalars_store(buffers, row, &sha512::words(&sha512::block(&sha512::start(), &w)));
}
