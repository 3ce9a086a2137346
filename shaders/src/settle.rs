//! Twin of `settle.wgsl`: the rows of equations that hold are valid.

use crate::bindings::{Buffers, FLAG_VALID};
use crate::equation::{EQUATION_GROUPS, equation_rows};

/// One invocation.
pub fn main(buffers: &mut Buffers, id: usize) {
    let number = id / 64 / EQUATION_GROUPS;
    let (first, rows, holds) = equation_rows(buffers, number);
    let row = id % (64 * EQUATION_GROUPS);
    if row >= rows || buffers.flags[buffers.rows + number] != holds {
        return;
    }
    if buffers.flags[first + row] == 0 {
        buffers.flags[first + row] = FLAG_VALID;
    }
}
