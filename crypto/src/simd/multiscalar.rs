//! Pippenger's multiscalar multiplication: digits, sorting and window sizes. The additions are in `bucket.rs`.
//!
//! `sum of n_i P_i` with n_i written in W signed digits of c bits, -2^(c-1) .. 2^(c-1): for each window, bucket b
//! gathers the points whose digit is b or -b (negated); the window's value is the sum of b times bucket b; windows
//! are joined by c doublings each. Points with short scalars (the R of a signature, 128 bits) stand in the lower
//! windows only.
//!
//! Cost in additions, for n keys with 252-bit scalars and n R with 128-bit ones: n (252 + 128) / c to fill, less one
//! per bucket in use, and 2 * 2^(c-1) * 252 / c of the dearer kind to sum. [`width`] takes the c with the least.

use super::backend::Kernels;
use super::bucket::Task;
use super::point::{NielsRow, PointRow};
use super::scalar;

/// The largest window: 2^13 buckets of 192 bytes are 1.5 MiB.
const WIDTH_MAX: u32 = 14;
/// The smallest: 2^3 buckets are one per lane.
const WIDTH_MIN: u32 = 4;
/// Bits of a scalar after [`Terms::push`] made it at most l / 2.
const LONG_BITS: u32 = 252;
/// Bits of a coefficient and a carry.
const SHORT_BITS: u32 = 129;
/// Lists longer than this are cut, so that a window with few digits in use (the top one) still fills all lanes.
const LIST_MIN: u32 = 24;

/// Points and scalars of one multiplication, and the memory it works in, kept from one to the next.
#[derive(Default)]
pub(crate) struct Terms {
    rows: Vec<u32>,
    scalars: Vec<[u64; 4]>,
    negative: Vec<bool>,
    long: usize,
    digits: Vec<i16>,
    counts: Vec<u32>,
    entries: Vec<u32>,
    tasks: Vec<Task>,
    sorted: Vec<Task>,
    pieces: Vec<(u32, u32)>,
    buckets: Vec<PointRow>,
    sums: Vec<PointRow>,
    runs: Vec<PointRow>,
}

impl Terms {
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.scalars.clear();
        self.negative.clear();
        self.long = 0;
    }

    /// Adds `scalar * points[row]`; `scalar` is below l. All of these come before the first [`Terms::push_short`].
    pub(crate) fn push(&mut self, row: u32, scalar: &[u64; 4]) {
        debug_assert_eq!(self.long, self.rows.len());
        // A window less for some widths, and no overflow digit.
        let (smaller, flip) = scalar::smaller(scalar);
        self.rows.push(row);
        self.scalars.push(smaller);
        self.negative.push(flip);
        self.long += 1;
    }

    /// Adds `scalar * points[row]` (`-scalar * ..` with `negative`).
    pub(crate) fn push_short(&mut self, row: u32, scalar: u128, negative: bool) {
        self.rows.push(row);
        self.scalars.push([scalar as u64, (scalar >> 64) as u64, 0, 0]);
        self.negative.push(negative);
    }

    /// The sum of all terms. The last of `points` must be the neutral element.
    pub(crate) fn evaluate(&mut self, kernels: &Kernels, points: &[NielsRow]) -> PointRow {
        if self.rows.is_empty() {
            return kernels.neutral();
        }
        let neutral = kernels.neutral();
        let short = self.rows.len() - self.long;
        let width = width(kernels, self.long, short);
        let lanes = kernels.lanes;
        let windows =
            if self.long > 0 { LONG_BITS.div_ceil(width) } else { SHORT_BITS.div_ceil(width) } as usize;
        let short_windows = (SHORT_BITS.div_ceil(width) as usize).min(windows);
        let buckets = 1_usize << (width - 1);
        self.offset(width, windows, short_windows);
        self.sums.resize(windows * lanes, PointRow::ZERO);
        self.runs.resize(windows * lanes, PointRow::ZERO);
        for window in 0..windows {
            self.sort(neutral, width, window, windows, short_windows);
            kernels.accumulate(points, &self.entries, &self.sorted, &mut self.buckets);
            for &(bucket, piece) in &self.pieces {
                let sum = kernels.add(&self.buckets[bucket as usize], &self.buckets[piece as usize]);
                self.buckets[bucket as usize] = sum;
            }
            let place = window * lanes..(window + 1) * lanes;
            kernels.reduce(&self.buckets[..buckets], &mut self.sums[place.clone()], &mut self.runs[place]);
        }
        kernels.combine(&self.sums, &self.runs, buckets / lanes, width)
    }

    /// Adds 2^(c-1) in every window but the top one: the digit of a window is then its bits less 2^(c-1), without
    /// looking at the windows below.
    fn offset(&mut self, width: u32, windows: usize, short_windows: usize) {
        let pattern = |windows: usize| {
            let mut out = [0_u64; 5];
            for window in 0..windows - 1 {
                let bit = window * width as usize + width as usize - 1;
                out[bit / 64] |= 1 << (bit % 64);
            }
            out
        };
        let patterns = [pattern(windows), pattern(short_windows)];
        for (at, scalar) in self.scalars.iter_mut().enumerate() {
            let pattern = &patterns[usize::from(at >= self.long)];
            let mut carry = false;
            for word in 0..4 {
                let (sum, first) = scalar[word].overflowing_add(pattern[word]);
                let (sum, second) = sum.overflowing_add(u64::from(carry));
                scalar[word] = sum;
                carry = first | second;
            }
        }
    }

    /// Lists the points of every bucket of `window`, and the tasks that add them up, longest first.
    fn sort(&mut self, neutral: PointRow, width: u32, window: usize, windows: usize, short_windows: usize) {
        let buckets = 1_usize << (width - 1);
        let terms = if window < short_windows { self.rows.len() } else { self.long };
        let bit = window * width as usize;
        let (word, shift) = (bit / 64, bit % 64);
        let straddles = shift + width as usize > 64 && word < 3;
        let mask = (1_u64 << width) - 1;
        self.counts.clear();
        self.counts.resize(buckets + 1, 0);
        self.digits.clear();
        for (part, top) in [(0..self.long.min(terms), windows), (self.long.min(terms)..terms, short_windows)]
        {
            let bias = if window + 1 == top { 0 } else { 1_i32 << (width - 1) };
            for (scalar, negative) in self.scalars[part.clone()].iter().zip(&self.negative[part]) {
                let bits = if straddles {
                    scalar[word] >> shift | scalar[word + 1] << (64 - shift)
                } else {
                    scalar[word] >> shift
                };
                let digit = (bits & mask) as i32 - bias;
                let digit = if *negative { -digit } else { digit };
                self.counts[digit.unsigned_abs() as usize] += 1;
                self.digits.push(digit as i16);
            }
        }
        // Where each bucket's list starts. Digit 0 has none.
        let used = self.digits.len() - self.counts[0] as usize;
        let limit = LIST_MIN.max((4 * used / buckets) as u32);
        self.tasks.clear();
        self.pieces.clear();
        let mut start = 0;
        let mut extra = buckets as u32;
        self.buckets.resize(self.buckets.len().max(buckets), PointRow::ZERO);
        for bucket in 1..=buckets {
            let count = self.counts[bucket];
            self.counts[bucket] = start;
            let out = bucket as u32 - 1;
            if count == 0 {
                self.buckets[out as usize] = neutral;
            } else if count <= limit {
                self.tasks.push(Task { start, length: count, out });
            } else {
                self.tasks.push(Task { start, length: limit, out });
                let mut done = limit;
                while done < count {
                    let length = limit.min(count - done);
                    self.tasks.push(Task { start: start + done, length, out: extra });
                    self.pieces.push((out, extra));
                    extra += 1;
                    done += length;
                }
            }
            start += count;
        }
        if self.buckets.len() < extra as usize {
            self.buckets.resize(extra as usize, PointRow::ZERO);
        }
        self.entries.clear();
        self.entries.resize(used, 0);
        for (&digit, row) in self.digits.iter().zip(&self.rows) {
            if digit != 0 {
                let slot = &mut self.counts[usize::from(digit.unsigned_abs())];
                self.entries[*slot as usize] = 2 * row + u32::from(digit < 0);
                *slot += 1;
            }
        }
        self.order(limit);
    }

    /// `tasks` by falling length into `sorted`.
    fn order(&mut self, longest: u32) {
        let mut places = vec![0_u32; longest as usize + 2];
        for task in &self.tasks {
            places[(longest - task.length) as usize + 1] += 1;
        }
        for length in 1..places.len() {
            places[length] += places[length - 1];
        }
        self.sorted.clear();
        self.sorted.resize(self.tasks.len(), Task::default());
        for task in &self.tasks {
            let place = &mut places[(longest - task.length) as usize];
            self.sorted[*place as usize] = *task;
            *place += 1;
        }
    }
}

/// The window width with the least cost for `long` scalars of 252 bits and `short` ones of 128.
fn width(kernels: &Kernels, long: usize, short: usize) -> u32 {
    let cost = |width: u32| {
        let windows = LONG_BITS.div_ceil(width) as f64;
        let short_windows = SHORT_BITS.div_ceil(width) as f64;
        let filled = long as f64 * windows + short as f64 * short_windows;
        let buckets = f64::from(1 << (width - 1));
        // A lane keeps waiting for its neighbours by about a step per group. Sums cost 9 multiplications against 7.
        let fill = filled.max(windows * kernels.lanes as f64) + windows * buckets * 0.3;
        let join = windows.max(kernels.lanes as f64) * 3.0 * kernels.lanes as f64;
        fill + windows * buckets * (2.0 * 1.35 - 0.8) + join * 1.35
    };
    (WIDTH_MIN..=WIDTH_MAX).min_by(|a, b| cost(*a).total_cmp(&cost(*b))).unwrap_or(WIDTH_MIN)
}
