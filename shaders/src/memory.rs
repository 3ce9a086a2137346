//! Twin of `memory.wgsl`: field elements in the `points` buffer.

use crate::bindings::{Buffers, FE_WORDS, KEY_WORDS, POINT_WORDS, SIGNATURE_WORDS, words_at};
use crate::field::Field;

/// The element in a slot of a row.
#[must_use]
pub fn points_load<F: Field>(buffers: &Buffers, row: usize, slot: usize) -> F {
    F::unpack(&words_at(&buffers.points, row * POINT_WORDS + slot * FE_WORDS))
}

/// Writes a slot of a row.
pub fn points_store<F: Field>(buffers: &mut Buffers, row: usize, slot: usize, a: &F) {
    let at = row * POINT_WORDS + slot * FE_WORDS;
    buffers.points[at..at + FE_WORDS].copy_from_slice(&a.pack());
}

/// The words of the public key.
#[must_use]
pub fn key_words(buffers: &Buffers, row: usize) -> [u32; 8] {
    words_at(&buffers.keys, row * KEY_WORDS)
}

/// The words of R.
#[must_use]
pub fn r_words(buffers: &Buffers, row: usize) -> [u32; 8] {
    words_at(&buffers.signatures, row * SIGNATURE_WORDS)
}

/// The words of s.
#[must_use]
pub fn s_words(buffers: &Buffers, row: usize) -> [u32; 8] {
    words_at(&buffers.signatures, row * SIGNATURE_WORDS + 8)
}
