//! 2^128 times a point, one point per lane, as affine rows: made once for a key that is used often, after which every
//! scalar of that key is two of at most 128 bits (`verify.rs`).
//!
//! 128 doublings, and one inversion for a group of vectors (Montgomery's trick). The multiple is that of the point with whatever
//! part of small order it has. Not in constant time: keys are public.

use super::decode::LANES_MAX;
use super::field::{D2, Field, invert};
use super::lanes::Lanes;
use super::point::{Niels, NielsRow, Point};

/// log2 of the factor.
pub(crate) const RAISED_BITS: u32 = 128;

/// Vectors of points that share one inversion.
const GROUP: usize = 8;

/// Writes 2^128 `rows[i]` to `out[i]`.
#[inline(always)]
pub(crate) fn raise<F: Field>(rows: &[NielsRow], out: &mut [NielsRow]) {
    assert!(rows.len() == out.len());
    let lanes = F::V::COUNT;
    for (rows, out) in rows.chunks(GROUP * lanes).zip(out.chunks_mut(GROUP * lanes)) {
        let mut points = [Point::<F>::neutral(); GROUP];
        let mut products = [F::one(); GROUP + 1];
        for (place, rows) in rows.chunks(lanes).enumerate() {
            let mut picked = [&rows[0].0; LANES_MAX];
            for (slot, row) in picked.iter_mut().zip(rows) {
                *slot = &row.0;
            }
            let point = Niels::<F>::load(&picked[..lanes], F::V::mask_from_bits(0));
            points[place] = Point::from_niels(&point).double_in_a_loop(RAISED_BITS);
            products[place + 1] = F::mul(products[place], F::operand(points[place].z));
        }
        let used = rows.len().div_ceil(lanes);
        let [mut inverse] = invert([products[used]]);
        let mut words = [[0; 16]; LANES_MAX];
        for place in (0..used).rev() {
            let point = &points[place];
            let z_inverse = F::mul(inverse, products[place]);
            inverse = F::mul(inverse, F::operand(point.z));
            let x = F::mul(F::operand(point.x), z_inverse);
            let y = F::mul(F::operand(point.y), z_inverse);
            let mut columns = [F::V::splat(0); 16];
            columns[..5].copy_from_slice(&F::add_reduced(y, x).pack());
            columns[5..10].copy_from_slice(&F::sub_reduced(y, x).pack());
            columns[10..15].copy_from_slice(&F::mul(F::mul(x, y), F::constant(D2)).pack());
            F::V::to_rows(&columns, &mut words[..lanes]);
            for (row, words) in out.iter_mut().skip(place * lanes).take(lanes).zip(words) {
                *row = NielsRow(words);
            }
        }
    }
}
