//! Signatures checked one per lane, independent of each other: `8 (s B - k A - R)` is neutral or not.
//!
//! Straus' method: 63 signed 4-bit digits of k over a table of A .. 8A per lane, 32 signed 8-bit digits of s over a
//! table of B .. 128B that all share, and 252 doublings. It is what a batch falls back to where a sum over several
//! rows does not pay: few rows, or many bad ones.

use std::hint::black_box;

use super::decode::LANES_MAX;
use super::field::Field;
use super::lanes::Lanes;
use super::point::{Niels, NielsRow, Point, Prepared};
use super::scalar;

/// Rows of the table of B: 0, B, .. 128 B.
pub(crate) const BASE_ROWS: usize = 129;
const KEY_ROWS: usize = 9;
const KEY_WINDOWS: usize = 63;

/// One signature to check: rows of A and R among the points, and the two scalars.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Single {
    pub(crate) key: u32,
    pub(crate) nonce: u32,
    pub(crate) k: [u64; 4],
    pub(crate) s: [u64; 4],
}

/// `sum of 2^(c-1) 2^(c w)` over all windows but the top one, c = 4 and c = 8.
const BIAS_4: [u64; 4] =
    [0x8888_8888_8888_8888, 0x8888_8888_8888_8888, 0x8888_8888_8888_8888, 0x0088_8888_8888_8888];
const BIAS_8: [u64; 4] =
    [0x8080_8080_8080_8080, 0x8080_8080_8080_8080, 0x8080_8080_8080_8080, 0x0080_8080_8080_8080];

#[inline(always)]
fn biased(a: &[u64; 4], bias: &[u64; 4]) -> [u64; 4] {
    let mut out = [0; 4];
    let mut carry = 0;
    for word in 0..4 {
        let sum = u128::from(a[word]) + u128::from(bias[word]) + carry;
        out[word] = sum as u64;
        carry = sum >> 64;
    }
    out
}

/// Checks up to one signature per lane; `base` is the table of B. Bit i of the result: signature i is valid.
#[inline(always)]
pub(crate) fn check<F: Field>(points: &[NielsRow], base: &[NielsRow; BASE_ROWS], singles: &[Single]) -> u32 {
    let lanes = F::V::COUNT;
    assert!(!singles.is_empty() && singles.len() <= lanes);
    let mut k = [[0; 4]; LANES_MAX];
    let mut s = [[0; 4]; LANES_MAX];
    let mut flipped = 0_u32;
    let mut keys = [&points[0].0; LANES_MAX];
    let mut nonces = [&points[0].0; LANES_MAX];
    for lane in 0..lanes {
        let single = &singles[if lane < singles.len() { lane } else { 0 }];
        let other = scalar::negate(&single.k);
        let flip = other.iter().rev().lt(single.k.iter().rev());
        k[lane] = biased(if flip { &other } else { &single.k }, &BIAS_4);
        flipped |= u32::from(flip) << lane;
        s[lane] = biased(&single.s, &BIAS_8);
        keys[lane] = &points[single.key as usize].0;
        nonces[lane] = &points[single.nonce as usize].0;
    }
    // -A, or A where k was replaced by -k.
    let key = Niels::<F>::load(&keys[..lanes], F::V::mask_from_bits(!flipped));
    let mut table = [[[0_u64; 24]; LANES_MAX]; KEY_ROWS];
    let mut multiple = Point::<F>::neutral();
    // The bound is hidden from the compiler, which would write the additions out one after the other.
    for rows in table.iter_mut().take(black_box(KEY_ROWS)) {
        Prepared::<F>::store_from(&multiple, &mut rows[..lanes]);
        multiple = multiple.add_niels(&key);
    }
    let mut sum = Point::<F>::neutral();
    for window in (0..KEY_WINDOWS).rev() {
        if window + 1 < KEY_WINDOWS {
            sum = sum.double_times(4);
        }
        let bias = if window + 1 == KEY_WINDOWS { 0 } else { 8 };
        let mut rows = [&table[0][0]; LANES_MAX];
        let mut signs = 0;
        for lane in 0..lanes {
            let digit = (k[lane][window / 16] >> (4 * (window % 16)) & 15) as i32 - bias;
            rows[lane] = &table[digit.unsigned_abs() as usize][lane];
            signs |= u32::from(digit < 0) << lane;
        }
        sum = sum.add_prepared(&Prepared::load(&rows[..lanes], F::V::mask_from_bits(signs)));
        if window % 2 == 0 {
            let bias = if window + 1 == KEY_WINDOWS { 0 } else { 128 };
            let mut rows = [&base[0].0; LANES_MAX];
            let mut signs = 0;
            for lane in 0..lanes {
                let digit = (s[lane][window / 16] >> (4 * (window % 16)) & 255) as i32 - bias;
                rows[lane] = &base[digit.unsigned_abs() as usize].0;
                signs |= u32::from(digit < 0) << lane;
            }
            sum = sum.add_niels(&Niels::load(&rows[..lanes], F::V::mask_from_bits(signs)));
        }
    }
    let nonce = Niels::<F>::load(&nonces[..lanes], F::V::mask_from_bits(u32::MAX));
    let sum = sum.add_niels(&nonce).double_times(3);
    sum.neutral_mask() & (u32::MAX >> (32 - singles.len()))
}
