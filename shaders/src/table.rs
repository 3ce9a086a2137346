//! Twin of `table.wgsl`: the multiples 1 .. 8 of -A.

use crate::bindings::{Buffers, FE_WORDS, FLAG_INVALID, TABLE_WORDS};
use crate::edwards::Point;
use crate::field::Field;
use crate::memory::{is_foreign, is_resident, key_words, place_load, place_of};

/// One invocation.
pub fn main<F: Field>(buffers: &mut Buffers, row: usize) {
    if row >= buffers.rows || buffers.flags[row] != 0 {
        return;
    }
    let place = place_of(buffers, row);
    let key = key_words(buffers, row);
    if is_resident(row, place) && is_foreign(buffers, place, &key) {
        buffers.flags[row] = FLAG_INVALID;
        return;
    }
    let x = F::ZERO.sub(&place_load(buffers, place)).tidy();
    let mut p = Point::<F>::affine(x, F::from_words(&key));
    // The shader reads entry 0 back from memory; the words are the same.
    let first = p.summand();
    for i in 0..8 {
        let q = p.summand();
        let at = row * TABLE_WORDS + i * 4 * FE_WORDS;
        for (slot, a) in [q.y_plus_x, q.y_minus_x, q.z2, q.t2d].iter().enumerate() {
            buffers.tables[at + slot * FE_WORDS..][..FE_WORDS].copy_from_slice(&a.pack());
        }
        if i < 7 {
            p = p.plus(&first, false, true);
        }
    }
}
