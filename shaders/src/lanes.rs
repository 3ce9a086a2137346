//! Twin of `lanes.wgsl`: points in the lanes' places.

use crate::bindings::{Buffers, FE_WORDS, words_at};
use crate::edwards::Point;
use crate::field::Field;

/// The element at a pair of words.
pub(crate) fn load_fe<F: Field>(buffers: &Buffers, at: usize) -> F {
    F::unpack(&words_at(&buffers.tables, 2 * at))
}

/// Writes the element at a pair of words.
pub(crate) fn store_fe<F: Field>(buffers: &mut Buffers, at: usize, a: &F) {
    buffers.tables[2 * at..2 * at + FE_WORDS].copy_from_slice(&a.pack());
}

/// The point at a pair of words.
pub(crate) fn load<F: Field>(buffers: &Buffers, at: usize) -> Point<F> {
    Point {
        x: load_fe(buffers, at),
        y: load_fe(buffers, at + 5),
        z: load_fe(buffers, at + 10),
        t: load_fe(buffers, at + 15),
    }
}

/// Writes the point at a pair of words.
pub(crate) fn store<F: Field>(buffers: &mut Buffers, at: usize, p: &Point<F>) {
    for (slot, a) in [p.x, p.y, p.z, p.t].iter().enumerate() {
        store_fe(buffers, at + 5 * slot, a);
    }
}
