//! Twin of `verdicts.wgsl`: one bit per signature.

use crate::bindings::{Buffers, FLAG_VALID};

/// One invocation.
pub fn main(buffers: &mut Buffers, word: usize) {
    if word * 32 >= buffers.rows {
        return;
    }
    let mut bits = 0;
    for i in 0..(buffers.rows - word * 32).min(32) {
        bits |= u32::from(buffers.flags[word * 32 + i] == FLAG_VALID) << i;
    }
    buffers.scalars[word] = bits;
}
