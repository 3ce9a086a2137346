//! Signatures checked one per lane, independent of each other: `8 (s B - k A - R)` is neutral or not.
//!
//! Straus' method on `u B - c0 A - c1 R`, where c0 and c1 are short halves of k (`halve.rs`) and u = c1 s: 32 signed
//! 4-bit digits of c0 and of c1 over tables of A .. 8A and R .. 8R per lane, 32 signed 8-bit digits of u over two
//! tables that all share, B .. 128B and the same times 2^128; 124 doublings. It is what a batch falls back to where a
//! sum over several rows does not pay: few rows, or many bad ones.

use std::hint::black_box;

use super::decode::LANES_MAX;
use super::field::Field;
use super::halve::halve;
use super::lanes::Lanes;
use super::point::{Niels, NielsRow, Point, Prepared};
use super::scalar;

/// Rows of a table of B: 0, B, .. 128 B.
pub(crate) const BASE_ROWS: usize = 129;
/// The multiples of B, and those of 2^128 B.
pub(crate) type BaseRows = [[NielsRow; BASE_ROWS]; 2];
const DIGIT_ROWS: usize = 9;
const WINDOWS: usize = 32;

/// One signature to check: rows of A and R among the points, and the two scalars.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Single {
    pub(crate) key: u32,
    pub(crate) nonce: u32,
    pub(crate) k: [u64; 4],
    pub(crate) s: [u64; 4],
}

/// Adds half a digit to every digit but the top one, so that each can be read off without its neighbours: digits of
/// 4 bits in 128, of 8 bits in 256.
const BIAS_4: u128 = 0x0888_8888_8888_8888_8888_8888_8888_8888;
const BIAS_8: [u64; 4] =
    [0x8080_8080_8080_8080, 0x8080_8080_8080_8080, 0x8080_8080_8080_8080, 0x0080_8080_8080_8080];

/// What each lane multiplies by, digits biased.
struct Scalars {
    /// c0 and |c1|.
    halves: [[u128; LANES_MAX]; 2],
    u: [[u64; 4]; LANES_MAX],
}

/// Multiples 0 .. 8 of one point per lane.
type Table = [[[u64; 24]; LANES_MAX]; DIGIT_ROWS];

/// Checks up to one signature per lane; `base` holds the tables of B. Bit i of the result: signature i is valid.
#[inline(always)]
pub(crate) fn check<F: Field>(points: &[NielsRow], base: &BaseRows, singles: &[Single]) -> u32 {
    let lanes = F::V::COUNT;
    assert!(!singles.is_empty() && singles.len() <= lanes);
    let mut scalars = Scalars { halves: [[0; LANES_MAX]; 2], u: [[0; 4]; LANES_MAX] };
    let mut negative = 0_u32;
    let mut keys = [&points[0].0; LANES_MAX];
    let mut nonces = [&points[0].0; LANES_MAX];
    for lane in 0..lanes {
        if lane < singles.len() {
            let single = &singles[lane];
            let halves = halve(&single.k);
            let mut u = [0; 7];
            scalar::add_product(&mut u, halves.c1, &single.s);
            // Below 2^127, so no digit overflows.
            scalars.halves[0][lane] = halves.c0 + BIAS_4;
            scalars.halves[1][lane] = halves.c1 + BIAS_4;
            scalars.u[lane] = biased(&scalar::reduce_wide(&u), &BIAS_8);
            negative |= u32::from(halves.negative) << lane;
            keys[lane] = &points[single.key as usize].0;
            nonces[lane] = &points[single.nonce as usize].0;
        } else {
            scalars.halves[0][lane] = scalars.halves[0][0];
            scalars.halves[1][lane] = scalars.halves[1][0];
            scalars.u[lane] = scalars.u[0];
        }
    }
    // -A, or A where c1 was replaced by -c1; -R.
    let points = [
        Niels::<F>::load(&keys[..lanes], F::V::mask_from_bits(!negative)),
        Niels::<F>::load(&nonces[..lanes], F::V::mask_from_bits(u32::MAX)),
    ];
    let mut tables: [Table; 2] = [[[[0; 24]; LANES_MAX]; DIGIT_ROWS]; 2];
    let mut multiples = [Point::<F>::neutral(); 2];
    // The bound is hidden from the compiler, which would write the additions out one after the other.
    for row in 0..black_box(DIGIT_ROWS) {
        for half in 0..black_box(2) {
            Prepared::<F>::store_from(&multiples[half], &mut tables[half][row][..lanes]);
            multiples[half] = multiples[half].add_niels(&points[half]);
        }
    }
    let mut sum = Point::<F>::neutral();
    for window in (0..WINDOWS).rev() {
        if window + 1 < WINDOWS {
            sum = sum.double_times(4);
        }
        // Each formula stands here once, by bounds hidden from the compiler: written out, the loop would be 70 KB of
        // code and leave the instruction cache at every turn.
        for half in 0..black_box(2) {
            sum = sum.add_prepared(&multiple::<F>(&tables[half], &scalars.halves[half], window));
        }
        if window % 2 == 0 {
            for half in 0..black_box(2) {
                sum = sum.add_niels(&multiple_of_base::<F>(&base[half], &scalars.u, window / 2 + 16 * half));
            }
        }
    }
    let sum = sum.double_times(3);
    sum.neutral_mask() & (u32::MAX >> (32 - singles.len()))
}

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

/// The multiple of each lane's point by its 4-bit digit `window`.
#[inline(always)]
fn multiple<F: Field>(table: &Table, scalars: &[u128; LANES_MAX], window: usize) -> Prepared<F> {
    let bias = if window + 1 == WINDOWS { 0 } else { 8 };
    let mut rows = [&table[0][0]; LANES_MAX];
    let mut signs = 0;
    for lane in 0..F::V::COUNT {
        let digit = (scalars[lane] >> (4 * window)) as i32 & 15;
        let digit = digit - bias;
        rows[lane] = &table[digit.unsigned_abs() as usize][lane];
        signs |= u32::from(digit < 0) << lane;
    }
    Prepared::load(&rows[..F::V::COUNT], F::V::mask_from_bits(signs))
}

/// The multiple of a table's base by each lane's 8-bit digit `place`.
#[inline(always)]
fn multiple_of_base<F: Field>(
    base: &[NielsRow; BASE_ROWS],
    scalars: &[[u64; 4]; LANES_MAX],
    place: usize,
) -> Niels<F> {
    let bias = if place == 31 { 0 } else { 128 };
    let mut rows = [&base[0].0; LANES_MAX];
    let mut signs = 0;
    for lane in 0..F::V::COUNT {
        let digit = (scalars[lane][place / 8] >> (8 * (place % 8)) & 255) as i32 - bias;
        rows[lane] = &base[digit.unsigned_abs() as usize].0;
        signs |= u32::from(digit < 0) << lane;
    }
    Niels::load(&rows[..F::V::COUNT], F::V::mask_from_bits(signs))
}
