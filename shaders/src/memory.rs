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

/// Where x of the row's public key lies in `points`, in pairs of words.
#[must_use]
pub fn place_of(buffers: &Buffers, row: usize) -> usize {
    buffers.places[row] as usize
}

/// Whether that place is a resident entry.
#[must_use]
pub fn is_resident(row: usize, place: usize) -> bool {
    place != row * POINT_WORDS / 2
}

/// Whether the resident entry at `place` is another key's.
#[must_use]
pub fn is_foreign(buffers: &Buffers, place: usize, key: &[u32; 8]) -> bool {
    words_at::<KEY_WORDS>(&buffers.points, 2 * place + FE_WORDS) != *key
}

/// x at a place, of a row or of a resident key.
#[must_use]
pub fn place_load<F: Field>(buffers: &Buffers, place: usize) -> F {
    F::unpack(&words_at(&buffers.points, 2 * place))
}

/// Writes x at a place.
pub fn place_store<F: Field>(buffers: &mut Buffers, place: usize, a: &F) {
    buffers.points[2 * place..2 * place + FE_WORDS].copy_from_slice(&a.pack());
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
