//! Twin of `ladder.wgsl`: Q = s B - k A.

use crate::bindings::{BASE_ENTRY_WORDS, Buffers, FE_WORDS, TABLE_WORDS, words_at};
use crate::edwards::{Point, Summand};
use crate::field::Field;
use crate::memory::points_store;

/// One invocation.
pub fn main<F: Field>(buffers: &mut Buffers, row: usize) {
    if row >= buffers.rows || buffers.flags[row] != 0 {
        return;
    }
    let mut acc = Point::<F>::IDENTITY;
    for step in 0..64 {
        let window = 63 - step;
        if step > 0 {
            for i in 0..4 {
                acc = acc.double(i == 3);
            }
        }
        let both = window % 4 == 0;
        for from_base in 0..if both { 2 } else { 1 } {
            let digit = if from_base == 0 {
                let word = buffers.scalars[(window / 8) * buffers.rows + row];
                ((word >> (4 * (window % 8))) & 15).cast_signed() - 8
            } else {
                let word = buffers.scalars[(8 + window / 8) * buffers.rows + row];
                ((word >> (4 * (window & 4))) & 0xffff).cast_signed() - 32_768
            };
            if digit == 0 {
                continue;
            }
            let negative = digit < 0;
            let entry = digit.unsigned_abs() as usize - 1;
            let (plus, minus) = if negative { (FE_WORDS, 0) } else { (0, FE_WORDS) };
            let load = |buffer: &[u32], at| F::unpack(&words_at(buffer, at));
            let mut q = if from_base == 0 {
                let at = row * TABLE_WORDS + entry * 4 * FE_WORDS;
                Summand {
                    y_plus_x: load(&buffers.tables, at + plus),
                    y_minus_x: load(&buffers.tables, at + minus),
                    z2: load(&buffers.tables, at + 2 * FE_WORDS),
                    t2d: load(&buffers.tables, at + 3 * FE_WORDS),
                }
            } else {
                let at = entry * BASE_ENTRY_WORDS;
                Summand {
                    y_plus_x: load(&buffers.base, at + plus),
                    y_minus_x: load(&buffers.base, at + minus),
                    z2: F::ZERO,
                    t2d: load(&buffers.base, at + 2 * FE_WORDS),
                }
            };
            if negative {
                q.t2d = F::ZERO.sub(&q.t2d);
            }
            acc = acc.plus(&q, from_base == 1, both && from_base == 0);
        }
    }
    points_store(buffers, row, 0, &acc.x);
    points_store(buffers, row, 1, &acc.y);
    points_store(buffers, row, 2, &acc.z);
}
