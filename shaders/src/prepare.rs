//! Twin of `prepare.wgsl`: A and R of a row as affine summands.

use crate::bindings::{Buffers, FLAG_INVALID};
use crate::equation::summand_place;
use crate::field::Field;
use crate::lanes::store_fe;
use crate::memory::{is_foreign, is_resident, key_words, place_load, place_of, points_load, r_words};

/// One invocation.
pub fn main<F: Field>(buffers: &mut Buffers, row: usize) {
    if row >= buffers.rows || buffers.flags[row] != 0 {
        return;
    }
    let place = place_of(buffers, row);
    let mut w = key_words(buffers, row);
    if is_resident(row, place) && is_foreign(buffers, place, &w) {
        buffers.flags[row] = FLAG_INVALID;
        return;
    }
    let mut x: F = place_load(buffers, place);
    for point in 0..2 {
        if point == 1 {
            x = points_load(buffers, row, 3);
            w = r_words(buffers, row);
        }
        let y = F::from_words(&w);
        let at = summand_place(buffers, row, point);
        store_fe(buffers, at, &y.add(&x).tidy());
        store_fe(buffers, at + 5, &y.sub(&x).tidy());
        store_fe(buffers, at + 10, &x.mul(&y).mul(&F::D2));
    }
}
