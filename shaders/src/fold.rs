//! Twin of `fold.wgsl`: the sum of a window's lanes, and whether a row of the equation is invalid already.

use crate::bindings::Buffers;
use crate::edwards::Point;
use crate::equation::{LANE_PAIRS, WINDOWS, equation_rows, lane_place, lanes_of};
use crate::field::Field;
use crate::lanes::{load, store};

/// One invocation.
pub fn main<F: Field>(buffers: &mut Buffers, id: usize) {
    let (number, window) = (id / WINDOWS, id % WINDOWS);
    if number >= buffers.option {
        return;
    }
    let (group, first, width) = lanes_of(window);
    let place = lane_place(buffers, number, group, first);
    let mut p: Point<F> = load(buffers, place);
    for lane in 1..width {
        let q: Point<F> = load(buffers, place + lane * LANE_PAIRS);
        p = p.plus(&q.summand(), false, true);
    }
    store(buffers, place, &p);
    let (first, rows, _) = equation_rows(buffers, number);
    let mut any = 0;
    for row in (window..rows).step_by(WINDOWS) {
        any |= buffers.flags[first + row];
    }
    buffers.tables[2 * (place + 20)] = any;
}
