//! Twin of `decode.wgsl`: the x coordinate of a public key or of R.

use crate::bindings::{Buffers, FLAG_INVALID};
use crate::field::Field;
use crate::memory::{key_words, points_store, r_words};
use crate::power::power_252_3;

/// x of the point whose encoding the words are, under ZIP-215; none if there is no such point.
#[must_use]
pub fn x_of<F: Field>(w: &[u32; 8]) -> Option<F> {
    let yy = F::from_words(w).sq();
    let u = yy.sub(&F::ONE).tidy();
    let v = yy.mul(&F::D).add(&F::ONE);
    let v3 = v.sq().mul(&v);
    let uv7 = v3.sq().mul(&v).mul(&u);
    let mut x = power_252_3(&uv7).mul(&v3.mul(&u));
    let vxx = x.sq().mul(&v);
    if !vxx.sub(&u).is_zero() {
        if !vxx.add(&u).is_zero() {
            return None;
        }
        x = x.mul(&F::SQRT_M1);
    }
    x = x.canonical();
    if x.limb_0() & 1 != w[7] >> 31 {
        x = F::ZERO.sub(&x).tidy();
    }
    Some(x)
}

/// One invocation.
pub fn main<F: Field>(buffers: &mut Buffers, row: usize) {
    if row >= buffers.rows || buffers.flags[row] != 0 {
        return;
    }
    let w = if buffers.option == 0 { key_words(buffers, row) } else { r_words(buffers, row) };
    match x_of::<F>(&w) {
        Some(x) => points_store(buffers, row, 3 * buffers.option, &x),
        None => buffers.flags[row] = FLAG_INVALID,
    }
}
