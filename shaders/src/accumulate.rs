//! Twin of `accumulate.wgsl`: the sum of (digit x point) over a lane's part of a window.

use crate::bindings::Buffers;
use crate::edwards::{Point, Summand};
use crate::equation::{GROUPS, equation_rows, lane_place, order_of, share_of, summand_place};
use crate::field::Field;
use crate::lanes::{load, load_fe, store};

/// One invocation.
pub fn main<F: Field>(buffers: &mut Buffers, id: usize) {
    let (number, group, lane) = (id / 64 / GROUPS, id / 64 % GROUPS, id % 64);
    let (first, rows, _) = equation_rows(buffers, number);
    let s = share_of(group, lane, rows);
    let order = order_of(buffers, first, rows, s.window);
    let place = lane_place(buffers, number, group, lane);
    let mut acc = Point::<F>::IDENTITY;
    store(buffers, place, &acc);
    let mut next = s.start;
    let mut b = if next < s.end { buffers.tables[order + next] & 255 } else { 0 };
    while b != 0 {
        let point = if next < s.end { buffers.tables[order + next] } else { 0 };
        let digit = point & 255;
        let adds = digit == b;
        let closes = !adds && (digit != 0 || b & 1 == 1);
        let q = if adds {
            let negative = point & 256 != 0;
            let at = summand_place(buffers, first + (point >> 10) as usize, (point >> 9) as usize & 1);
            let plus = if negative { 5 } else { 0 };
            let t2d: F = load_fe(buffers, at + 10);
            Summand {
                y_plus_x: load_fe(buffers, at + plus),
                y_minus_x: load_fe(buffers, at + 5 - plus),
                z2: F::ZERO,
                t2d: if negative { F::ZERO.sub(&t2d) } else { t2d },
            }
        } else {
            let q = acc.summand();
            if closes {
                store(buffers, place + 20, &acc);
                acc = load(buffers, place);
            }
            q
        };
        acc = acc.plus(&q, adds, true);
        if adds {
            next += 1;
        } else if closes {
            store(buffers, place, &acc);
            acc = load(buffers, place + 20);
            b -= 1;
        } else {
            b >>= 1;
        }
    }
}
