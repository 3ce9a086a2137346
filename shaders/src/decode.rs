//! Twin of `decode.wgsl`: the x coordinate of a public key or of R.

use crate::bindings::{Buffers, FE_WORDS, FLAG_INVALID, KEY_WORDS, POINT_WORDS};
use crate::field::Field;
use crate::memory::{is_resident, key_words, place_of, place_store, r_words};
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
pub fn main<F: Field>(buffers: &mut Buffers, id: usize) {
    // In the shader `rows` is the list's length where a list is used.
    if id >= if buffers.option == 0 { buffers.list.len() } else { buffers.rows } {
        return;
    }
    let mut row = id;
    let mut place = (row * POINT_WORDS + 3 * FE_WORDS) / 2;
    let mut resident = false;
    let w = if buffers.option == 0 {
        row = buffers.list[id] as usize;
        place = place_of(buffers, row);
        resident = is_resident(row, place);
        key_words(buffers, row)
    } else {
        r_words(buffers, row)
    };
    if buffers.flags[row] != 0 && !resident {
        return;
    }
    let Some(x) = x_of::<F>(&w) else {
        buffers.flags[row] = FLAG_INVALID;
        return;
    };
    place_store(buffers, place, &x);
    if resident {
        buffers.points[2 * place + FE_WORDS..][..KEY_WORDS].copy_from_slice(&w);
    }
}
