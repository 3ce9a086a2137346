//! Twin of `finish.wgsl`: the encoding of Q against the bytes of R.

use crate::bindings::{Buffers, FLAG_VALID};
use crate::field::Field;
use crate::memory::{points_load, points_store, r_words};
use crate::power::invert;

/// One invocation: `option` rows, `lanes` apart.
pub fn main<F: Field>(buffers: &mut Buffers, lane: usize) {
    if lane >= buffers.lanes {
        return;
    }
    let mut product = F::ONE;
    let mut count = 0;
    let mut open = 0;
    for i in 0..buffers.option {
        let row = i * buffers.lanes + lane;
        if row >= buffers.rows {
            break;
        }
        count += 1;
        if buffers.flags[row] == 0 {
            open += 1;
            points_store(buffers, row, 3, &product);
            product = product.mul(&points_load(buffers, row, 2));
        }
    }
    if open == 0 {
        return;
    }
    let mut inverse = invert(&product);
    for i in 0..count {
        let row = (count - 1 - i) * buffers.lanes + lane;
        if buffers.flags[row] != 0 {
            continue;
        }
        let z_inverse = inverse.mul(&points_load(buffers, row, 3));
        inverse = inverse.mul(&points_load(buffers, row, 2));
        let x = points_load::<F>(buffers, row, 0).mul(&z_inverse).canonical();
        let mut w = points_load::<F>(buffers, row, 1).mul(&z_inverse).canonical().to_words();
        w[7] |= x.limb_0() << 31;
        if w == r_words(buffers, row) {
            buffers.flags[row] = FLAG_VALID;
        }
    }
}
