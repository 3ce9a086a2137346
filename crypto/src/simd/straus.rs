//! Sums of several rows in each lane, every lane a group of its own: which groups are clean, many at once.
//!
//! Straus' method on `sum of z_j (k_j A_j + R_j) - (sum of z_j s_j) B`: all rows of a lane share its 252 doublings and its
//! multiple of B, and each adds a digit of z k to every window and a digit of z to every lower one. Digits and tables are
//! those of a single check (`check.rs`). It stands between the two other ways to a verdict: for groups of 2 to 16 rows
//! Pippenger's buckets would be nearly empty, and a check of each row does its own doublings.
//!
//! z has 127 bits here, so that it needs no digit more; a group with a bad row passes with a chance of 2^-127.
//!
//! Cost for n rows a lane in multiplications M and squares S: 252 (3M + 4S) and 63 T of doublings, 22 additions of 7M; for each row
//! 95 additions of 8M and 116M for the tables. By count, with S = 0.8 M: 876 + 1,780 / n a row; a single check is 1,551.

use std::hint::black_box;

use super::check::{
    BASE_DIGITS, BASE_STEP, BaseRows, DIGIT_ROWS, LANES_MAX, Table, multiple, multiple_of_base,
};
use super::check::{BaseDigits, fill_table, prefetch_base, split_base};
use super::field::Field;
use super::lanes::Lanes;
use super::point::{Niels, NielsRow, Point};

/// Rows of a lane at most: their tables are 55 KiB a row for sixteen lanes.
pub(crate) const GROUP_ROWS_MAX: usize = 16;

/// Digits of a scalar of up to 2^251 + 2^124.
const LONG_WINDOWS: usize = 63;
/// Digits of a coefficient below 2^127.
const SHORT_WINDOWS: usize = 32;

/// One row: `long * A` (`-long * A` with `negative`) and `short * R`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Term {
    pub(crate) key: u32,
    pub(crate) nonce: u32,
    /// At most 2^251 + 2^124.
    pub(crate) long: [u64; 4],
    pub(crate) negative: bool,
    /// Below 2^127.
    pub(crate) short: u128,
}

/// Digits of one row of each lane, biased but for the highest.
type Digits<const WINDOWS: usize> = [[u8; LANES_MAX]; WINDOWS];

/// Memory of one call, kept from one to the next.
#[derive(Default)]
pub(crate) struct Workspace {
    tables: Vec<[Table; 2]>,
    digits: Vec<(Digits<LONG_WINDOWS>, Digits<SHORT_WINDOWS>)>,
}

/// Whether each lane's sum, `base[lane] * B` and its terms, is neutral after the cofactor: bit i for lane i. `terms` holds
/// as many for every lane, those of lane 0 first.
#[inline(always)]
pub(crate) fn clean_groups<F: Field>(
    points: &[NielsRow],
    base_rows: &BaseRows,
    terms: &[Term],
    base: &[[u64; 4]],
    workspace: &mut Workspace,
) -> u32 {
    let lanes = F::V::COUNT;
    let used = base.len();
    assert!(used > 0 && used <= lanes && !terms.is_empty() && terms.len().is_multiple_of(used));
    let rows = terms.len() / used;
    assert!(rows <= GROUP_ROWS_MAX);
    if workspace.tables.len() < rows {
        workspace.tables.resize(rows, [Table::ZERO; 2]);
        workspace.digits.resize(rows, ([[0; LANES_MAX]; LONG_WINDOWS], [[0; LANES_MAX]; SHORT_WINDOWS]));
    }
    let (tables, digits) = (&mut workspace.tables[..rows], &mut workspace.digits[..rows]);
    for row in 0..rows {
        let mut negative = 0_u32;
        let mut places = [[&points[0].0; LANES_MAX]; 2];
        // A lane that is not used does what the first one does.
        for lane in 0..lanes {
            let term = &terms[if lane < used { lane } else { 0 } * rows + row];
            places[0][lane] = &points[term.key as usize].0;
            places[1][lane] = &points[term.nonce as usize].0;
            negative |= u32::from(term.negative) << lane;
            let (long, short) = &mut digits[row];
            let biased = bias_long(&term.long);
            for window in 0..LONG_WINDOWS {
                long[window][lane] = (biased[window / 16] >> (4 * (window % 16))) as u8 & 15;
            }
            let biased = term.short + super::check::BIAS_4;
            for (pair, byte) in biased.to_le_bytes().into_iter().enumerate() {
                short[2 * pair][lane] = byte & 15;
                short[2 * pair + 1][lane] = byte >> 4;
            }
        }
        let signs = [negative, 0];
        for half in 0..black_box(2) {
            let point = Niels::<F>::load(&places[half][..lanes], F::V::mask_from_bits(signs[half]));
            fill_table(&point, &mut tables[row][half]);
        }
    }
    let mut base_digits: BaseDigits = [[(0, false); LANES_MAX]; 2];
    for lane in 0..lanes {
        split_base(&base[if lane < used { lane } else { 0 }], &mut base_digits, lane);
    }
    let mut sum = Point::<F>::neutral();
    for window in (0..LONG_WINDOWS).rev() {
        let with_base = window.is_multiple_of(BASE_STEP) && window / BASE_STEP < BASE_DIGITS;
        let halves = if window < SHORT_WINDOWS { 2 } else { 1 };
        let mut left = rows * halves;
        for row in 0..rows {
            for half in 0..black_box(halves) {
                left -= 1;
                let (digits, top) = if half == 0 {
                    (&digits[row].0[window], LONG_WINDOWS)
                } else {
                    (&digits[row].1[window], SHORT_WINDOWS)
                };
                let multiple = multiple::<F>(&tables[row][half], digits, window + 1 == top);
                sum = sum.add_prepared_for(&multiple, left > 0 || with_base);
            }
        }
        if with_base {
            for half in 0..black_box(2) {
                sum = sum.add_niels(&multiple_of_base::<F>(
                    base_rows,
                    half,
                    &base_digits[half],
                    window / BASE_STEP,
                ));
            }
            if window > 0 {
                prefetch_base::<F>(base_rows, &base_digits, window / BASE_STEP - 1);
            }
        }
        // The last for the cofactor.
        sum = sum.double_in_a_loop(if window > 0 { 4 } else { 3 });
    }
    sum.neutral_mask() & (u32::MAX >> (32 - used))
}

/// Adds half a digit to every digit but the highest, so that each can be read off without its neighbours.
#[inline(always)]
fn bias_long(scalar: &[u64; 4]) -> [u64; 4] {
    const BIAS: [u64; 4] =
        [0x8888_8888_8888_8888, 0x8888_8888_8888_8888, 0x8888_8888_8888_8888, 0x0088_8888_8888_8888];
    let mut out = [0; 4];
    let mut carry = false;
    for word in 0..4 {
        let (sum, first) = scalar[word].overflowing_add(BIAS[word]);
        let (sum, second) = sum.overflowing_add(u64::from(carry));
        out[word] = sum;
        carry = first | second;
    }
    out
}

const _: () = assert!(DIGIT_ROWS == 9);
