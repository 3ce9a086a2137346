//! Signatures checked one per lane, independent of each other: `8 (s B - k A - R)` is neutral or not.
//!
//! Straus' method on `u B - c0 A - c1 R`, where c0 and c1 are short halves of k (`halve.rs`) and u = c1 s: 32 signed
//! 4-bit digits of c0 and of c1 over tables of A .. 8A and R .. 8R per lane, 22 signed 12-bit digits of u over two
//! tables that all share, B .. 2048B and the same times 2^128; 124 doublings. It is what a batch falls back to where a
//! sum over several rows does not pay: few rows, or many bad ones.
//!
//! Cost in multiplications M and squares S: 124 (3M + 4S) and 31 T of doublings, 64 additions of 8M less 31 T, 22 of 7M, and
//! 116M for the tables: 1,154M + 496S. Digits of 5 bits save 12 additions and cost 16; larger tables of B leave the second-level
//! cache.

use std::hint::black_box;

use super::field::Field;
use super::halve::{Halves, halve_all};
use super::lanes::Lanes;
use super::point::{Niels, NielsRow, Point, Prepared};
use super::scalar;

/// Rows of a table of B: 0, B, .. 2048 B.
pub(crate) const BASE_ROWS: usize = 2049;
/// The multiples of B, then those of 2^128 B: 512 KiB.
pub(crate) type BaseRows = [NielsRow];
/// Bits of a digit of u, a multiple of those of the other digits.
const BASE_BITS: usize = 12;
/// Windows of one after which a digit of u is due.
pub(super) const BASE_STEP: usize = BASE_BITS / 4;
/// Digits of each half of u: ten with a bias and the top one, of eight bits and a carry.
pub(super) const BASE_DIGITS: usize = 11;
pub(super) const DIGIT_ROWS: usize = 9;
const WINDOWS: usize = 32;
/// Lanes of the widest vector, or pair of vectors.
pub(super) const LANES_MAX: usize = 16;

/// One signature to check: rows of A and R among the points, and the two scalars.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Single {
    pub(crate) key: u32,
    pub(crate) nonce: u32,
    pub(crate) k: [u64; 4],
    pub(crate) s: [u64; 4],
}

/// Adds half a digit to every digit but the top one, so that each can be read off without its neighbours.
pub(super) const BIAS_4: u128 = 0x0888_8888_8888_8888_8888_8888_8888_8888;
const BIAS_12: u128 = 0x0080_0800_8008_0080_0800_8008_0080_0800;

/// What each lane multiplies by, digits biased.
struct Scalars {
    /// Digits of c0 and |c1|, biased, lowest first.
    halves: [[[u8; LANES_MAX]; WINDOWS]; 2],
    base: BaseDigits,
}

/// Both halves of each lane's u, biased, and the carry out of the bias.
pub(super) type BaseDigits = [[(u128, bool); LANES_MAX]; 2];

/// Multiples 0 .. 8 of one point per lane. Aligned, so that no row's words straddle a cache line more than they must.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Table([[[u64; 24]; LANES_MAX]; DIGIT_ROWS]);

impl Table {
    pub(super) const ZERO: Self = Self([[[0; 24]; LANES_MAX]; DIGIT_ROWS]);
}

/// Checks up to one signature per lane; `base` holds the tables of B. Bit i of the result: signature i is valid.
#[inline(always)]
pub(crate) fn check<F: Field>(points: &[NielsRow], base: &BaseRows, singles: &[Single]) -> u32 {
    let lanes = F::V::COUNT;
    assert!(!singles.is_empty() && singles.len() <= lanes && base.len() == 2 * BASE_ROWS);
    let mut scalars = Scalars { halves: [[[0; LANES_MAX]; WINDOWS]; 2], base: [[(0, false); LANES_MAX]; 2] };
    let mut negative = 0_u32;
    let mut keys = [&points[0].0; LANES_MAX];
    let mut nonces = [&points[0].0; LANES_MAX];
    let mut challenges = [[0; 4]; LANES_MAX];
    for (k, single) in challenges.iter_mut().zip(singles) {
        *k = single.k;
    }
    // As many as there are lanes.
    let mut halves = [Halves::default(); LANES_MAX];
    if lanes <= 4 {
        let [a, b, c, d, ..] = challenges;
        halves[..4].copy_from_slice(&halve_all(&[a, b, c, d]));
    } else if lanes <= 8 {
        let [a, b, c, d, e, f, g, h, ..] = challenges;
        halves[..8].copy_from_slice(&halve_all(&[a, b, c, d, e, f, g, h]));
    } else {
        halves = halve_all(&challenges);
    }
    for lane in 0..lanes {
        if lane < singles.len() {
            let single = &singles[lane];
            let halves = &halves[lane];
            let mut u = [0; 7];
            scalar::add_product(&mut u, halves.c1, &single.s);
            let u = scalar::reduce_wide(&u);
            // Below 2^127, so no digit overflows.
            for (digits, half) in scalars.halves.iter_mut().zip([halves.c0 + BIAS_4, halves.c1 + BIAS_4]) {
                for (pair, byte) in half.to_le_bytes().into_iter().enumerate() {
                    digits[2 * pair][lane] = byte & 15;
                    digits[2 * pair + 1][lane] = byte >> 4;
                }
            }
            split_base(&u, &mut scalars.base, lane);
            negative |= u32::from(halves.negative) << lane;
            keys[lane] = &points[single.key as usize].0;
            nonces[lane] = &points[single.nonce as usize].0;
        } else {
            for half in 0..2 {
                scalars.base[half][lane] = scalars.base[half][0];
            }
        }
    }
    // -A, or A where c1 was replaced by -c1; -R.
    let points = [
        Niels::<F>::load(&keys[..lanes], F::V::mask_from_bits(!negative)),
        Niels::<F>::load(&nonces[..lanes], F::V::mask_from_bits(u32::MAX)),
    ];
    // Bounds are hidden from the compiler here and below, so that each formula stands in the code once: written out, the
    // loop would leave the instruction cache at every turn.
    let mut tables = [Table::ZERO; 2];
    for half in 0..black_box(2) {
        fill_table(&points[half], &mut tables[half]);
    }
    let mut sum = Point::<F>::neutral();
    // One turn more than there are windows, for the cofactor.
    for turn in (0..=WINDOWS).rev() {
        if turn < WINDOWS {
            sum = sum.double_in_a_loop(if turn > 0 { 4 } else { 3 });
        }
        if turn == 0 {
            break;
        }
        let window = turn - 1;
        let with_base = window % BASE_STEP == 0;
        for half in 0..black_box(2) {
            let digits = &scalars.halves[half][window];
            let multiple = multiple::<F>(&tables[half], digits, window + 1 == WINDOWS);
            sum = sum.add_prepared_for(&multiple, half == 0 || with_base);
        }
        if with_base {
            let place = window / BASE_STEP;
            for half in 0..black_box(2) {
                sum = sum.add_niels(&multiple_of_base::<F>(base, half, &scalars.base[half], place));
            }
            if place > 0 {
                prefetch_base::<F>(base, &scalars.base, place - 1);
            }
        }
    }
    sum.neutral_mask() & (u32::MAX >> (32 - singles.len()))
}

/// Multiples 0 .. 8 of `point` into `table`.
#[inline(always)]
pub(super) fn fill_table<F: Field>(point: &Niels<F>, table: &mut Table) {
    let mut multiple = Point::neutral();
    for row in 0..black_box(DIGIT_ROWS) {
        Prepared::<F>::store_from(&multiple, &mut table.0[row][..F::V::COUNT]);
        if row == 0 {
            multiple = Point::from_niels(point);
        } else if row + 1 < DIGIT_ROWS {
            multiple = multiple.add_niels(point);
        }
    }
}

/// The multiple of each lane's point by its 4-bit digit, which is biased unless it is the `top` one.
#[inline(always)]
pub(super) fn multiple<F: Field>(table: &Table, digits: &[u8; LANES_MAX], top: bool) -> Prepared<F> {
    let bias = if top { 0 } else { 8 };
    let mut rows = [&table.0[0][0]; LANES_MAX];
    let mut signs = 0;
    for lane in 0..F::V::COUNT {
        let digit = i32::from(digits[lane]) - bias;
        rows[lane] = &table.0[digit.unsigned_abs() as usize][lane];
        signs |= u32::from(digit < 0) << lane;
    }
    Prepared::load(&rows[..F::V::COUNT], F::V::mask_from_bits(signs))
}

/// Writes the biased halves of a multiple of B in one lane.
#[inline(always)]
pub(super) fn split_base(u: &[u64; 4], out: &mut BaseDigits, lane: usize) {
    for half in 0..2 {
        let value = u128::from(u[2 * half + 1]) << 64 | u128::from(u[2 * half]);
        out[half][lane] = value.overflowing_add(BIAS_12);
    }
}

/// The multiple of B, or of 2^128 B for the other half, by each lane's 12-bit digit `place`.
#[inline(always)]
pub(super) fn multiple_of_base<F: Field>(
    base: &BaseRows,
    half: usize,
    scalars: &[(u128, bool); LANES_MAX],
    place: usize,
) -> Niels<F> {
    let mut rows = [&base[0].0; LANES_MAX];
    let mut signs = 0;
    for lane in 0..F::V::COUNT {
        let digit = base_digit(scalars[lane], place);
        rows[lane] = &base[half * BASE_ROWS + digit.unsigned_abs() as usize].0;
        signs |= u32::from(digit < 0) << lane;
    }
    Niels::load(&rows[..F::V::COUNT], F::V::mask_from_bits(signs))
}

/// Asks for the rows that [`multiple_of_base`] reads at `place`: they lie in the second-level cache at best.
#[inline(always)]
pub(super) fn prefetch_base<F: Field>(base: &BaseRows, scalars: &BaseDigits, place: usize) {
    for half in 0..2 {
        for lane in 0..F::V::COUNT {
            let digit = base_digit(scalars[half][lane], place).unsigned_abs() as usize;
            F::V::prefetch(&base[half * BASE_ROWS + digit].0);
        }
    }
}

/// Digit `place` of a biased half of u.
#[inline(always)]
fn base_digit((value, carry): (u128, bool), place: usize) -> i32 {
    let bits = (value >> (BASE_BITS * place)) as i32 & ((1 << BASE_BITS) - 1);
    if place + 1 == BASE_DIGITS {
        bits + (i32::from(carry) << (128 - BASE_BITS * (BASE_DIGITS - 1)))
    } else {
        bits - (1 << (BASE_BITS - 1))
    }
}
