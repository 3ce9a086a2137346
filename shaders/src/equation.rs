//! Twin of `equation.wgsl`: the batch equation's memory and shapes.
//!
//! Owns what `weft-gpu` needs to lay an equation out: the sizes here are those of the shaders.

use crate::bindings::Buffers;

/// Rows of an equation, at most.
pub const EQUATION_ROWS: usize = 1024;
/// Groups of 64 lanes that an equation takes in `sort` and `accumulate`.
pub const GROUPS: usize = 24;
/// Windows of 8 bits.
pub const WINDOWS: usize = 32;
/// Bytes that the lanes of a group of `sort` share: 65 pairs of buckets for 64 lanes, and 130 sums.
pub const SHARED_BYTES: usize = (65 * 64 + 130) * 4;
/// Groups of 64 rows in the largest equation.
pub const EQUATION_GROUPS: usize = EQUATION_ROWS / 64;
/// Words of an equation in `keys`: first row, rows, the word that means "it holds", 0; eight words of digits.
pub const EQUATION_WORDS: usize = 12;
/// Words of a row's z.
pub const Z_WORDS: usize = 4;
/// Words of a row in `tables`: digits, summands, order.
const ROW_WORDS: usize = 12 + 60 + 48;
/// Pairs of words of a lane: two points.
pub(crate) const LANE_PAIRS: usize = 40;

/// Words of `tables` that `equations` over `rows` rows take.
#[must_use]
pub const fn table_words(rows: usize, equations: usize) -> usize {
    rows * ROW_WORDS + equations * GROUPS * 64 * 2 * LANE_PAIRS
}

/// What a lane of a group has to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) window: usize,
    pub(crate) points: usize,
    pub(crate) first: usize,
    pub(crate) width: usize,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// First row, rows, the word that means "it holds".
pub(crate) fn equation_rows(buffers: &Buffers, equation: usize) -> (usize, usize, u32) {
    let words = &buffers.equations[equation * EQUATION_WORDS..];
    (words[0] as usize, words[1] as usize, words[2])
}

pub(crate) fn share_of(group: usize, lane: usize, rows: usize) -> Share {
    let mut s = if group < 16 {
        Share { window: group, points: 2 * rows, first: 0, width: 64, start: 0, end: 0 }
    } else {
        let window = 2 * group - 16 + (lane >> 5);
        Share { window, points: rows, first: lane & 32, width: 32, start: 0, end: 0 }
    };
    let part = (s.points + s.width - 1) / s.width;
    s.start = ((lane - s.first) * part).min(s.points);
    s.end = (s.start + part).min(s.points);
    s
}

pub(crate) fn order_of(buffers: &Buffers, first: usize, rows: usize, window: usize) -> usize {
    72 * buffers.rows + 48 * first + rows * if window < 16 { 2 * window } else { 16 + window }
}

pub(crate) fn lane_place(buffers: &Buffers, equation: usize, group: usize, lane: usize) -> usize {
    60 * buffers.rows + ((equation * GROUPS + group) * 64 + lane) * LANE_PAIRS
}

/// The group of a window, and the window's first lane and lanes in it.
pub(crate) fn lanes_of(window: usize) -> (usize, usize, usize) {
    if window < 16 { (window, 0, 64) } else { (8 + window / 2, 32 * (window % 2), 32) }
}

pub(crate) fn summand_place(buffers: &Buffers, row: usize, point: usize) -> usize {
    6 * buffers.rows + (2 * row + point) * 15
}
