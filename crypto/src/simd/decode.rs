//! Decoding of compressed points under ZIP-215, one point per lane, four vectors at a time.
//!
//! y is the low 255 bits, taken modulo p; bit 255 is the parity of x. With u = y^2 - 1 and v = d y^2 + 1 the curve
//! says x^2 = u/v, and r = u (u v)^((p-5)/8) is a root of it if v r^2 = u, and r * sqrt(-1) if v r^2 = -u; else
//! the bytes belong to no point. x = 0 with the sign bit set is taken as x = 0.
//!
//! r is not the r of RFC 8032, 5.1.3, whose u v^3 (u v^7)^((p-5)/8) takes two multiplications and two squares more, but a root as
//! good: v r^2 = u (u v)^((p-1)/4), and of that power, a fourth root of 1, the square is 1 just if u v is a square, as u/v is then.
//!
//! Four vectors go together because one chain of 252 squarings leaves most of the time empty: each squaring waits for
//! the one before, about 80 cycles for 34 cycles of work.

use super::field::{D, D2, Field, SQRT_MINUS_1, pow_p58};
use super::lanes::Lanes;
use super::point::NielsRow;

/// Vectors decoded together.
const GROUP: usize = 4;

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
    assert!(encodings.len() == rows.len() && encodings.len() == valid.len());
    let whole = GROUP * F::V::COUNT;
    let mut start = 0;
    while start < encodings.len() {
        let left = encodings.len() - start;
        let end = start + left.min(whole);
        let (encodings, rows, valid) =
            (&encodings[start..end], &mut rows[start..end], &mut valid[start..end]);
        // The last few go in a smaller group, which is quicker than a large one with empty vectors.
        if left > whole / 2 {
            decode_group::<F, GROUP>(encodings, rows, valid);
        } else {
            decode_group::<F, { GROUP / 2 }>(encodings, rows, valid);
        }
        start = end;
    }
}

/// Decodes up to `N` vectors.
#[inline(always)]
fn decode_group<F: Field, const N: usize>(encodings: &[[u8; 32]], rows: &mut [NielsRow], valid: &mut [bool]) {
    let lanes = F::V::COUNT;
    let one = F::one();
    let d = F::constant(D);
    let mut tops = [F::V::splat(0); N];
    let mut y = [one; N];
    let mut u = [one; N];
    let mut v = [one; N];
    let mut uv = [one; N];
    for i in 0..N {
        // An empty vector repeats the first.
        let from = if i * lanes < encodings.len() { i * lanes } else { 0 };
        let words = load_words::<F::V>(&encodings[from..]);
        tops[i] = words[3];
        y[i] = F::from_words(words);
        let yy = F::square(y[i]);
        u[i] = F::sub_reduced(yy, one);
        v[i] = F::add_reduced(F::mul(yy, d), one);
        uv[i] = F::mul(u[i], v[i]);
    }
    let power = pow_p58(uv);
    let mut out = [[0_u64; 16]; LANES_MAX];
    for i in 0..N {
        let (columns, found) = finish::<F>(tops[i], y[i], u[i], v[i], F::mul(power[i], u[i]));
        F::V::to_rows(&columns, &mut out[..lanes]);
        let from = i * lanes;
        for lane in 0..lanes.min(encodings.len().saturating_sub(from)) {
            rows[from + lane] = NielsRow(out[lane]);
            valid[from + lane] = found >> lane & 1 == 1;
        }
    }
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
