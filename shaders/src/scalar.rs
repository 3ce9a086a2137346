//! Twin of `scalar.wgsl`: integers modulo l and their signed digits.

use crate::bindings::{Buffers, FLAG_INVALID};
use crate::memory::s_words;

pub(crate) const L_LOW: [i32; 10] = [5101, 1966, 1687, 1222, 1409, 3691, 3038, 7124, 7929, 166];
const L_FOLD: [i32; 11] = [3328, 3743, 5949, 1588, 294, 2860, 7795, 5214, 6622, 1783, 5];
/// l, the order of the base point, in words.
pub const L_WORDS: [u32; 8] = [0x5cf5_d3ed, 0x5812_631a, 0xa2f7_9cd6, 0x14de_f9de, 0, 0, 0, 0x1000_0000];

/// Adds `factor * l` to 20 limbs of 13 bits; the topmost keeps the sign.
fn add_l(d: &[i32; 20], factor: i32) -> [i32; 20] {
    let mut r = [0; 20];
    let mut carry = 0;
    for k in 0..19 {
        let mut t = d[k] + carry;
        if k < 10 {
            t += factor * L_LOW[k];
        }
        r[k] = t & 8191;
        carry = t >> 13;
    }
    r[19] = d[19] + carry + 32 * factor;
    r
}

/// A 512-bit integer modulo l, below l.
#[must_use]
pub fn reduce(x: &[u32; 16]) -> [u32; 8] {
    let mut a = [0; 40];
    for (i, limb) in a.iter_mut().enumerate() {
        let (word, shift) = (13 * i / 32, 13 * i % 32);
        let mut bits = x[word] >> shift;
        if shift > 19 && word < 15 {
            bits |= x[word + 1] << (32 - shift);
        }
        *limb = (bits & 8191).cast_signed();
    }
    fold(&a)
}

/// The same for 40 limbs of 13 bits, the topmost of 5.
#[must_use]
pub fn fold(a: &[i32; 40]) -> [u32; 8] {
    let mut b = [0; 31];
    let mut carry = 0;
    for k in 0..30 {
        let mut t = carry;
        if k < 20 {
            t += a[k];
        }
        for j in 0..20 {
            if j <= k && k < j + 11 {
                t -= a[20 + j] * L_FOLD[k - j];
            }
        }
        b[k] = t & 8191;
        carry = t >> 13;
    }
    b[30] = carry;
    let mut d = [0; 20];
    let mut top = 0;
    carry = 0;
    for k in 0..21 {
        let mut t = carry;
        if k < 20 {
            t += b[k];
        }
        for j in 0..11 {
            if j <= k && k < j + 11 {
                t -= b[20 + j] * L_FOLD[k - j];
            }
        }
        if k < 20 {
            d[k] = t & 8191;
            carry = t >> 13;
        } else {
            top = t;
        }
    }
    let high = (top << 8) + (d[19] >> 5);
    d[19] &= 31;
    carry = 0;
    for k in 0..19 {
        let mut t = d[k] + carry;
        if k < 10 {
            t -= high * L_LOW[k];
        }
        d[k] = t & 8191;
        carry = t >> 13;
    }
    d[19] += carry;
    let d = add_l(&d, i32::from(d[19] < 0));
    let less = add_l(&d, -1);
    let chosen = if less[19] >= 0 { less } else { d };
    let mut r = [0; 8];
    for (i, limb) in chosen.iter().enumerate() {
        let (word, shift) = (13 * i / 32, 13 * i % 32);
        r[word] |= limb.cast_unsigned() << shift;
        if shift > 19 && word < 7 {
            r[word + 1] |= limb.cast_unsigned() >> (32 - shift);
        }
    }
    r
}

/// Whether the words are below l.
#[must_use]
pub fn is_canonical(s: &[u32; 8]) -> bool {
    let (mut less, mut equal) = (false, true);
    for i in (0..8).rev() {
        less |= equal && s[i] < L_WORDS[i];
        equal &= s[i] == L_WORDS[i];
    }
    less
}

/// a + `bias` in every word: fields of the sum stand for signed digits.
#[must_use]
pub fn digits(a: &[u32; 8], bias: u32) -> [u32; 8] {
    let mut r = [0; 8];
    let mut carry = 0;
    for i in 0..8 {
        let t = a[i].wrapping_add(bias);
        let sum = t.wrapping_add(carry);
        carry = u32::from(t < bias || sum < t);
        r[i] = sum;
    }
    r
}

/// What both hash kernels leave for the ladder.
pub fn scalars_store(buffers: &mut Buffers, row: usize, digest: &[u32; 16]) {
    let k = digits(&reduce(digest), 0x8888_8888);
    let s = s_words(buffers, row);
    let s_digits = digits(&s, 0x8000_8000);
    for i in 0..8 {
        buffers.scalars[i * buffers.rows + row] = k[i];
        buffers.scalars[(8 + i) * buffers.rows + row] = s_digits[i];
    }
    buffers.flags[row] = if is_canonical(&s) { 0 } else { FLAG_INVALID };
}
