//! The two halves of Pippenger's method that add points: filling buckets, and summing them with their weights.
//!
//! **Filling.** For one window every point belongs to the bucket of its digit. Sorted by bucket (`multiscalar.rs`
//! does that), the points of a bucket are a list, and each lane adds up a list of its own with the accumulator in
//! registers: no lane ever touches the bucket of another, buckets are written once, and the first point of a list
//! costs a multiplication instead of an addition. Lists are taken longest first, so that lanes that work side by
//! side end nearly together; a lane that ended early adds the neutral element.
//!
//! **Summing.** The window's value is `sum of b * S_b` over its buckets b = 1 ..= B. The buckets are cut into one
//! segment per lane; every lane runs down its segment with the usual two sums, `run = run + S_b` and
//! `sum = sum + run`. Segment j contributes `sum_j + j * (B / lanes) * run_j`, and [`combine`] adds that up for all
//! windows at once, one window per lane, before one lane walks down the windows with c doublings each.

use std::hint::black_box;

use super::decode::LANES_MAX;
use super::field::Field;
use super::lanes::Lanes;
use super::point::{Niels, NielsRow, Point, PointRow};

/// A list of entries that adds up to row `out`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Task {
    pub(crate) start: u32,
    pub(crate) length: u32,
    pub(crate) out: u32,
}

/// How many steps before it is added a point is asked for.
const AHEAD: usize = 1;

/// One list per lane.
struct Lists<'a> {
    points: &'a [NielsRow],
    entries: &'a [u32],
    start: [usize; LANES_MAX],
    length: [usize; LANES_MAX],
}

impl Lists<'_> {
    /// Entry `step` of every list, the neutral element where a list has ended.
    ///
    /// A method and not a closure: closures in a kernel are functions of their own, compiled without its features.
    #[inline(always)]
    fn load<F: Field>(&self, step: usize) -> Niels<F> {
        let neutral = 2 * (self.points.len() as u32 - 1);
        let mut rows = [&self.points[0].0; LANES_MAX];
        let mut signs = 0;
        for lane in 0..F::V::COUNT {
            // The points lie in the second-level cache, in no order; an addition takes longer than they take to come.
            if step + AHEAD < self.length[lane] {
                let next = self.entries[self.start[lane] + step + AHEAD];
                F::V::prefetch(&self.points[(next >> 1) as usize].0);
            }
            let entry =
                if step < self.length[lane] { self.entries[self.start[lane] + step] } else { neutral };
            rows[lane] = &self.points[(entry >> 1) as usize].0;
            signs |= (entry & 1) << lane;
        }
        Niels::<F>::load(&rows[..F::V::COUNT], F::V::mask_from_bits(signs))
    }
}

/// Adds up every task's entries, `2 * row + sign` each, over `points`, whose last row is the neutral element. No task
/// is empty.
#[inline(always)]
pub(crate) fn accumulate<F: Field>(
    points: &[NielsRow],
    entries: &[u32],
    tasks: &[Task],
    out: &mut [PointRow],
) {
    let lanes = F::V::COUNT;
    for group in tasks.chunks(lanes) {
        let mut start = [0_usize; LANES_MAX];
        let mut length = [0_usize; LANES_MAX];
        let mut longest = 0;
        for (lane, task) in group.iter().enumerate() {
            start[lane] = task.start as usize;
            length[lane] = task.length as usize;
            longest = longest.max(length[lane]);
        }
        let lists = Lists { points, entries, start, length };
        let mut sum = Point::from_niels(&lists.load::<F>(0));
        for step in 1..longest {
            sum = sum.add_niels(&lists.load::<F>(step));
        }
        let mut rows = [[0; 24]; LANES_MAX];
        sum.store(&mut rows[..lanes]);
        for (lane, task) in group.iter().enumerate() {
            out[task.out as usize] = PointRow(rows[lane]);
        }
    }
}

/// The two sums of every segment of one window's buckets: `sums[j]` and `runs[j]` for lane j.
#[inline(always)]
pub(crate) fn reduce<F: Field>(buckets: &[PointRow], sums: &mut [PointRow], runs: &mut [PointRow]) {
    let lanes = F::V::COUNT;
    let segment = buckets.len() / lanes;
    assert!(segment * lanes == buckets.len() && segment > 0);
    let mut run = load_strided::<F>(buckets, segment - 1, segment);
    let mut sum = run;
    // The run is an operand of both additions, prepared once.
    let mut prepared = run.prepare();
    for place in (0..segment - 1).rev() {
        run = load_strided::<F>(buckets, place, segment).add_prepared(&prepared);
        prepared = run.prepare();
        sum = sum.add_prepared(&prepared);
    }
    store(&sum, sums);
    store(&run, runs);
}

/// Row `first + lane * stride` in each lane; where that is past the end, the last row of that place.
#[inline(always)]
fn load_strided<F: Field>(rows: &[PointRow], first: usize, stride: usize) -> Point<F> {
    let mut picked = [&rows[first].0; LANES_MAX];
    let mut at = first;
    for row in picked.iter_mut().take(F::V::COUNT) {
        *row = &rows[at].0;
        if at + stride < rows.len() {
            at += stride;
        }
    }
    Point::<F>::load(&picked[..F::V::COUNT])
}

#[inline(always)]
fn store<F: Field>(point: &Point<F>, out: &mut [PointRow]) {
    let mut rows = [[0; 24]; LANES_MAX];
    point.store(&mut rows[..F::V::COUNT]);
    for (row, words) in out.iter_mut().zip(rows) {
        *row = PointRow(words);
    }
}

#[inline(always)]
fn load_one<F: Field>(row: &PointRow) -> Point<F> {
    let rows = [&row.0; LANES_MAX];
    Point::load(&rows[..F::V::COUNT])
}

/// From all windows' segment sums (`lanes` rows a window, lowest window first) to `sum of 2^(width w) * window w`, with
/// `above` as one window more on top. `segment` buckets, a power of two, belong to one segment.
#[inline(always)]
pub(crate) fn combine<F: Field>(
    sums: &[PointRow],
    runs: &[PointRow],
    segment: usize,
    width: u32,
    above: Option<&PointRow>,
) -> PointRow {
    let lanes = F::V::COUNT;
    let windows = sums.len() / lanes;
    let mut values = vec![PointRow::ZERO; windows.next_multiple_of(lanes)];
    for first in (0..windows).step_by(lanes) {
        // Where segment 0 of this group's windows stands; windows past the last repeat it.
        let start = first * lanes;
        // sum of j * run_j by the same two sums, from the last segment down to the second.
        let mut run = load_strided::<F>(runs, start + lanes - 1, lanes);
        let mut weighted = run;
        let mut sum =
            load_strided::<F>(sums, start + lanes - 1, lanes).add(&load_strided::<F>(sums, start, lanes));
        // The bound is hidden from the compiler, which would write the additions out one after the other.
        for place in (1..black_box(lanes - 1)).rev() {
            run = run.add(&load_strided::<F>(runs, start + place, lanes));
            weighted = weighted.add(&run);
            sum = sum.add(&load_strided::<F>(sums, start + place, lanes));
        }
        if segment > 1 {
            weighted = weighted.double_times(segment.ilog2());
        }
        store(&sum.add(&weighted), &mut values[first..]);
    }
    let mut rest = values[..windows].iter().rev();
    let mut total = load_one::<F>(above.or_else(|| rest.next()).unwrap_or(&PointRow::ZERO));
    for value in rest {
        total = total.double_times(width).add(&load_one(value));
    }
    first_lane(&total)
}

#[inline(always)]
fn first_lane<F: Field>(point: &Point<F>) -> PointRow {
    let mut rows = [[0; 24]; LANES_MAX];
    point.store(&mut rows[..F::V::COUNT]);
    PointRow(rows[0])
}

/// The neutral element as a row.
#[inline(always)]
pub(crate) fn neutral<F: Field>() -> PointRow {
    first_lane(&Point::<F>::neutral())
}

/// `a + b` (`a - b` with `negative`).
#[inline(always)]
pub(crate) fn add<F: Field>(a: &PointRow, b: &PointRow, negative: bool) -> PointRow {
    let b = load_one::<F>(b);
    let b = if negative { b.negate() } else { b };
    first_lane(&load_one::<F>(a).add(&b))
}

/// Whether 8 times the point is the neutral element.
#[inline(always)]
pub(crate) fn is_torsion<F: Field>(row: &PointRow) -> bool {
    let point = load_one::<F>(row).double_times(3);
    point.neutral_mask() & 1 == 1
}
