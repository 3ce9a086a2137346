//! Twin of `close.wgsl`: whether an equation holds.

use crate::bindings::{BASE_ENTRY_WORDS, Buffers, FE_WORDS, words_at};
use crate::edwards::{Point, Summand};
use crate::equation::{EQUATION_WORDS, WINDOWS, equation_rows, lane_place, lanes_of};
use crate::field::Field;
use crate::lanes::load;

/// One invocation.
pub fn main<F: Field>(buffers: &mut Buffers, number: usize) {
    if number >= buffers.option {
        return;
    }
    let mut any = 0;
    let mut acc = Point::<F>::IDENTITY;
    for step in 0..WINDOWS + 1 {
        let count = match step {
            0 => 0,
            WINDOWS => 3,
            _ => 8,
        };
        for i in 0..count {
            acc = acc.double(i == count - 1);
        }
        if step == WINDOWS {
            break;
        }
        let window = WINDOWS - 1 - step;
        for source in 0..1 + (window + 1) % 2 {
            let q = if source == 0 {
                let (group, first, _) = lanes_of(window);
                let place = lane_place(buffers, number, group, first);
                any |= buffers.tables[2 * (place + 20)];
                load::<F>(buffers, place).summand()
            } else {
                let word = buffers.equations[number * EQUATION_WORDS + 4 + window / 4];
                let digit = ((word >> (8 * (window & 2))) & 0xffff).cast_signed() - 32_768;
                if digit == 0 {
                    continue;
                }
                let at = (digit.unsigned_abs() as usize - 1) * BASE_ENTRY_WORDS;
                let (plus, minus) = if digit < 0 { (FE_WORDS, 0) } else { (0, FE_WORDS) };
                let load = |at| F::unpack(&words_at(&buffers.base, at));
                let t2d = load(at + 2 * FE_WORDS);
                Summand {
                    y_plus_x: load(at + plus),
                    y_minus_x: load(at + minus),
                    z2: F::ZERO,
                    t2d: if digit < 0 { F::ZERO.sub(&t2d) } else { t2d },
                }
            };
            acc = acc.plus(&q, source == 1, true);
        }
    }
    let neutral = acc.x.is_zero() && acc.y.sub(&acc.z).is_zero() && !acc.z.is_zero();
    let holds = equation_rows(buffers, number).2;
    buffers.flags[buffers.rows + number] = if neutral && any == 0 { holds } else { 0 };
}
