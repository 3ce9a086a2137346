//! Twin of `exact.wgsl`: the whole ZIP-215 equation, `[8] Q = [8] R`.

use crate::bindings::{Buffers, FLAG_INVALID, FLAG_VALID};
use crate::edwards::Point;
use crate::field::Field;
use crate::memory::{points_load, r_words};

/// One invocation.
pub fn main<F: Field>(buffers: &mut Buffers, row: usize) {
    if row >= buffers.rows || buffers.flags[row] != 0 {
        return;
    }
    let mut r8 = Point::<F>::IDENTITY;
    let mut p = Point::<F>::IDENTITY;
    p.x = points_load(buffers, row, 3);
    p.y = F::from_words(&r_words(buffers, row));
    for i in 0..6 {
        if i == 3 {
            r8 = p;
            p.x = points_load(buffers, row, 0);
            p.y = points_load(buffers, row, 1);
            p.z = points_load(buffers, row, 2);
        }
        p = p.double(false);
    }
    let same_x = p.x.mul(&r8.z).sub(&r8.x.mul(&p.z)).is_zero();
    let same_y = p.y.mul(&r8.z).sub(&r8.y.mul(&p.z)).is_zero();
    buffers.flags[row] = if same_x && same_y { FLAG_VALID } else { FLAG_INVALID };
}
