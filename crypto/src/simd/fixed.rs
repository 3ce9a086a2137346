//! Multiples of B for signing and key derivation, one per lane, in constant time; and the encoding of points.
//!
//! n B with n in 64 signed digits of 4 bits over 32 tables of 1 .. 8 times 256^w B: the odd digits first, four
//! doublings, then the even ones. 64 mixed additions, 4 doublings.
//!
//! **Constant time.** Every addition reads all eight rows of its table, and each lane keeps its own by a mask made
//! with a comparison; signs swap coordinates by masks. No address and no branch depends on a digit: loops run over
//! windows and rows. Additions are complete, so a digit 0 adds the neutral element like any other row. The modular
//! arithmetic has no conditional but masks (`scalar.rs`, `field*.rs`). Encoding inverts by a fixed power.

use super::decode::LANES_MAX;
use super::field::{Field, invert};
use super::lanes::Lanes;
use super::point::{Niels, NielsRow, Point};

/// Tables of multiples.
pub(crate) const TABLES: usize = 32;
/// Rows of a table: 1 to 8 times its base.
pub(crate) const TABLE_ROWS: usize = 8;

/// All tables: 32 KiB, as much as a first-level cache.
pub(crate) type BaseTables = [[NielsRow; TABLE_ROWS]; TABLES];

/// Vectors of points that share one inversion.
const GROUP: usize = 8;

/// Adds 8 to every digit: digits 0 .. 15 then stand for -8 .. 7.
const BIAS: u64 = 0x8888_8888_8888_8888;

/// Writes the encoding of `scalars[i] * B` to `out[i]`. Scalars are below l.
#[inline(always)]
pub(crate) fn multiples_of_base<F: Field>(
    tables: &BaseTables,
    neutral: &NielsRow,
    scalars: &[[u64; 4]],
    out: &mut [[u8; 32]],
) {
    let lanes = F::V::COUNT;
    for (scalars, out) in scalars.chunks(GROUP * lanes).zip(out.chunks_mut(GROUP * lanes)) {
        let mut points = [Point::<F>::neutral(); GROUP];
        let vectors = scalars.len().div_ceil(lanes);
        for (point, scalars) in points.iter_mut().zip(scalars.chunks(lanes)) {
            *point = multiple::<F>(tables, neutral, scalars);
        }
        encode(&points[..vectors], out);
    }
}

#[inline(always)]
fn multiple<F: Field>(tables: &BaseTables, neutral: &NielsRow, scalars: &[[u64; 4]]) -> Point<F> {
    let mut words = [[0; LANES_MAX]; 4];
    for (lane, scalar) in scalars.iter().enumerate() {
        let mut carry = 0;
        for word in 0..4 {
            let sum = u128::from(scalar[word]) + u128::from(BIAS) + carry;
            words[word][lane] = sum as u64;
            carry = sum >> 64;
        }
    }
    let mut sum = Point::<F>::neutral();
    for half in 0..2 * TABLES {
        let (number, even) = (half % TABLES, half >= TABLES);
        let bits = F::V::from_lanes(&words[number / 8]);
        let bits = if even { bits } else { bits.shr::<4>() };
        // The digit sits at a place that is the same for all lanes and known to everyone.
        let mut lanes = [0; LANES_MAX];
        bits.to_lanes(&mut lanes);
        for lane in &mut lanes {
            *lane = *lane >> (8 * (number % 8)) & 15;
        }
        if half == TABLES {
            sum = sum.double_times(4);
        }
        sum = sum.add_niels(&pick::<F>(&tables[number], neutral, F::V::from_lanes(&lanes)));
    }
    sum
}

/// `digit - 8` times the base of `table`.
#[inline(always)]
fn pick<F: Field>(table: &[NielsRow; TABLE_ROWS], neutral: &NielsRow, digit: F::V) -> Niels<F> {
    let eight = F::V::splat(8);
    let negative = digit.and(eight).eq(F::V::splat(0));
    let size = F::V::select(negative, eight.sub(digit), digit.sub(eight));
    let mut words = [F::V::splat(0); 15];
    for word in 0..15 {
        words[word] = F::V::splat(neutral.0[word]);
    }
    for row in 0..TABLE_ROWS {
        let mask = size.eq(F::V::splat(row as u64 + 1));
        for word in 0..15 {
            words[word] = F::V::select(mask, F::V::splat(table[row].0[word]), words[word]);
        }
    }
    Niels::from_words(&words, negative)
}

/// Encodings of all points, lane by lane. One inversion serves them all (Montgomery's trick).
#[inline(always)]
fn encode<F: Field>(points: &[Point<F>], out: &mut [[u8; 32]]) {
    let lanes = F::V::COUNT;
    let mut products = [F::one(); GROUP + 1];
    for (place, point) in points.iter().enumerate() {
        products[place + 1] = F::mul(products[place], F::operand(point.z));
    }
    let [mut inverse] = invert([products[points.len()]]);
    for (place, point) in points.iter().enumerate().rev() {
        let z_inverse = F::mul(inverse, products[place]);
        inverse = F::mul(inverse, F::operand(point.z));
        let x = F::mul(F::operand(point.x), z_inverse).to_words();
        let mut y = F::mul(F::operand(point.y), z_inverse).to_words();
        y[3] = y[3].or(x[0].shl::<63>());
        let mut words = [[0; LANES_MAX]; 4];
        for word in 0..4 {
            y[word].to_lanes(&mut words[word]);
        }
        for (lane, bytes) in out.iter_mut().skip(place * lanes).take(lanes).enumerate() {
            *bytes = super::scalar::bytes(&[words[0][lane], words[1][lane], words[2][lane], words[3][lane]]);
        }
    }
}

/// Encodings of extended points in memory.
#[inline(always)]
#[cfg(test)]
pub(crate) fn encode_rows<F: Field>(rows: &[super::point::PointRow], out: &mut [[u8; 32]]) {
    let lanes = F::V::COUNT;
    for (rows, out) in rows.chunks(lanes).zip(out.chunks_mut(lanes)) {
        let mut picked = [&rows[0].0; LANES_MAX];
        for (slot, row) in picked.iter_mut().zip(rows) {
            *slot = &row.0;
        }
        encode(&[Point::<F>::load(&picked[..lanes])], out);
    }
}
