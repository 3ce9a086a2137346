//! Decoding of compressed points under ZIP-215, one point per lane, two vectors at a time.
//!
//! y is the low 255 bits, taken modulo p; bit 255 is the parity of x. With u = y^2 - 1 and v = d y^2 + 1 the curve
//! says x^2 = u/v, and r = u v^3 (u v^7)^((p-5)/8) is a root of it if v r^2 = u, and r * sqrt(-1) if v r^2 = -u; else
//! the bytes belong to no point (RFC 8032, 5.1.3). x = 0 with the sign bit set is taken as x = 0.
//!
//! Two vectors go together because one chain of 252 squarings leaves half the time empty: each squaring waits for the
//! one before.

use super::field::{D, D2, Field, SQRT_MINUS_1, pow_p58_pair};
use super::lanes::Lanes;
use super::point::NielsRow;

/// Lanes of the widest vector.
pub(crate) const LANES_MAX: usize = 8;

/// Words of up to `COUNT` encodings, transposed; lanes beyond the input repeat its first element.
#[inline(always)]
fn load_words<V: Lanes>(bytes: &[[u8; 32]]) -> [V; 4] {
    let mut words = [[0_u64; LANES_MAX]; 4];
    for lane in 0..V::COUNT {
        let source = bytes[if lane < bytes.len() { lane } else { 0 }].as_chunks::<8>().0;
        for word in 0..4 {
            words[word][lane] = u64::from_le_bytes(source[word]);
        }
    }
    [V::from_lanes(&words[0]), V::from_lanes(&words[1]), V::from_lanes(&words[2]), V::from_lanes(&words[3])]
}

/// Decodes `encodings` into `rows` and writes to `valid` whether each belongs to a point; the row of one that does
/// not is unspecified. All three slices have the same length.
#[inline(always)]
pub(crate) fn decode<F: Field>(encodings: &[[u8; 32]], rows: &mut [NielsRow], valid: &mut [bool]) {
    let lanes = F::V::COUNT;
    assert!(encodings.len() == rows.len() && encodings.len() == valid.len());
    for start in (0..encodings.len()).step_by(2 * lanes) {
        let end = encodings.len().min(start + 2 * lanes);
        let middle = end.min(start + lanes);
        // An empty second half repeats the first.
        let second = if middle < end { &encodings[middle..end] } else { &encodings[start..middle] };
        let words = [load_words::<F::V>(&encodings[start..middle]), load_words::<F::V>(second)];
        let decoded = decode_pair::<F>(words);
        let mut out = [[0_u64; 16]; LANES_MAX];
        for (half, (columns, found)) in decoded.into_iter().enumerate() {
            let from = start + half * lanes;
            F::V::to_rows(&columns, &mut out[..lanes]);
            for lane in 0..lanes.min(end.saturating_sub(from)) {
                rows[from + lane] = NielsRow(out[lane]);
                valid[from + lane] = found >> lane & 1 == 1;
            }
        }
    }
}

/// Rows' columns and the lanes that decoded.
#[inline(always)]
fn decode_pair<F: Field>(words: [[F::V; 4]; 2]) -> [([F::V; 16], u32); 2] {
    let one = F::one();
    let d = F::constant(D);
    let y = [F::from_words(words[0]), F::from_words(words[1])];
    let mut u = [one; 2];
    let mut v = [one; 2];
    let mut uv3 = [one; 2];
    let mut uv7 = [one; 2];
    for half in 0..2 {
        let yy = F::square(y[half]);
        u[half] = F::sub_reduced(yy, one);
        v[half] = F::add_reduced(F::mul(yy, d), one);
        let v2 = F::square(v[half]);
        let v3 = F::mul(v2, v[half]);
        uv3[half] = F::mul(v3, u[half]);
        let v4 = F::square(v2);
        uv7[half] = F::mul(uv3[half], v4);
    }
    let power = pow_p58_pair(uv7);
    let mut out = [([F::V::splat(0); 16], 0); 2];
    for half in 0..2 {
        out[half] = finish::<F>(words[half][3], y[half], u[half], v[half], F::mul(power[half], uv3[half]));
    }
    out
}

/// From the candidate root to the row.
#[inline(always)]
fn finish<F: Field>(top: F::V, y: F, u: F, v: F, root: F) -> ([F::V; 16], u32) {
    let check = F::mul(F::square(root), v);
    let same = F::sub_reduced(check, u).is_zero();
    let opposite = F::add_reduced(check, u).is_zero();
    let x = F::select(same, root, F::mul(root, F::constant(SQRT_MINUS_1)));
    let found = F::V::mask_bits(same) | F::V::mask_bits(opposite);
    // Parity of the canonical x against the sign bit.
    let one = F::V::splat(1);
    let agree = x.to_words()[0].and(one).eq(top.shr::<63>());
    let x = F::select(agree, x, F::sub_reduced(F::zero(), x));
    let mut columns = [F::V::splat(0); 16];
    columns[..5].copy_from_slice(&F::add_reduced(y, x).pack());
    columns[5..10].copy_from_slice(&F::sub_reduced(y, x).pack());
    columns[10..15].copy_from_slice(&F::mul(F::mul(x, y), F::constant(D2)).pack());
    (columns, found)
}
