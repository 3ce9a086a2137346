//! Pippenger's multiscalar multiplication: digits, sorting and window sizes. The additions are in `bucket.rs`.
//!
//! `sum of n_i P_i` with n_i written in W signed digits of c bits, -2^(c-1) .. 2^(c-1): for each window, bucket b
//! gathers the points whose digit is b or -b (negated); the window's value is the sum of b times bucket b; windows
//! are joined by c doublings each. Points with short scalars (the R of a signature, 128 bits) stand in the lower
//! windows only.
//!
//! Cost in additions: one for every digit, less one per bucket in use, and 2 * 2^(c-1) of the dearer kind to sum a window.
//! The lower windows hold the digits of keys and R, the upper ones those of the keys alone, so that both have a width of
//! their own: [`plan`] takes the two with the least cost. For 4,096 rows with a key each that is 10 bits below and 9 above
//! (1.4 % fewer additions than 10 throughout, by count); with 64 keys 10 and 5 (4 % of the whole verification, measured).

use super::backend::Kernels;
use super::bucket::Task;
use super::decode::LANES_MAX;
use super::point::{NielsRow, PointRow};
use super::scalar;

/// The largest window: 2^13 buckets of 192 bytes are 1.5 MiB.
const WIDTH_MAX: u32 = 14;
/// The smallest: 2^3 buckets are one per lane.
const WIDTH_MIN: u32 = 4;
/// Bits of a scalar after [`Terms::push`] made it at most l / 2.
const LONG_BITS: u32 = 252;
/// The bias of the top window stands here or above.
const LONG_TOP: usize = LONG_BITS as usize - 1;
/// Bits of a coefficient and a carry. No width divides it, so the highest window has a bit to spare.
const SHORT_BITS: u32 = 129;
// A width that divides the short scalars' bits would lose the carry of their highest window; a window has a bucket for each lane at
// least, and its biased digits fit 16 bits.
const _: () = {
    let mut width = WIDTH_MIN;
    while width <= WIDTH_MAX {
        assert!(!SHORT_BITS.is_multiple_of(width));
        width += 1;
    }
    assert!(1 << (WIDTH_MIN - 1) >= LANES_MAX && 1 << WIDTH_MAX <= u16::MAX as u32);
};
/// Lists longer than this are cut, so that a window with few digits in use (the top one) still fills all lanes.
const LIST_MIN: u32 = 24;

/// Windows of one width, one above the other.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    width: u32,
    windows: usize,
    /// The lowest ones, in which short scalars have digits too.
    short_windows: usize,
    /// Where the lowest begins.
    bit: usize,
}

impl Part {
    fn end(&self) -> usize {
        self.bit + self.windows * self.width as usize
    }
}

/// Points and scalars of one multiplication, and the memory it works in, kept from one to the next.
#[derive(Default)]
pub(crate) struct Terms {
    /// The upper windows, and the lower ones.
    parts: [Part; 2],
    /// What is added to a long and to a short scalar, see [`Terms::begin`].
    offsets: ([u64; 4], [u64; 3]),
    /// Twice the row, and 1 if the term is to be subtracted.
    names: Vec<u32>,
    /// The scalars, word by word since a window reads one or two words of each. Only long ones have the highest.
    words: [Vec<u64>; 4],
    /// Biased digits of one window.
    digits: Vec<u16>,
    counts: Vec<u32>,
    entries: Vec<u32>,
    tasks: Vec<Task>,
    sorted: Vec<Task>,
    places: Vec<u32>,
    pieces: Vec<(u32, u32)>,
    buckets: Vec<PointRow>,
    sums: Vec<PointRow>,
    runs: Vec<PointRow>,
}

impl Terms {
    /// Starts a sum with so many long and short terms.
    pub(crate) fn begin(&mut self, kernels: &Kernels, long: usize, short: usize) {
        self.begin_with(plan(kernels, long, short));
    }

    /// Starts a sum in the windows given, upper ones first.
    ///
    /// Every scalar gets 2^(c-1) added in every window (long ones not in the top one, where there may be no room): the digit
    /// of a window is then its bits less 2^(c-1), without looking at the windows below.
    pub(crate) fn begin_with(&mut self, parts: [Part; 2]) {
        self.names.clear();
        self.words.iter_mut().for_each(Vec::clear);
        self.parts = parts;
        self.offsets = Default::default();
        for part in self.parts {
            for window in 0..part.windows {
                let bit = part.bit + (window + 1) * part.width as usize - 1;
                if window < part.short_windows {
                    self.offsets.1[bit / 64] |= 1 << (bit % 64);
                }
                if bit < LONG_TOP {
                    self.offsets.0[bit / 64] |= 1 << (bit % 64);
                }
            }
        }
    }

    /// Adds `scalar * points[row]`; `scalar` is below l. All of these come before the first [`Terms::push_short`].
    pub(crate) fn push(&mut self, row: u32, scalar: &[u64; 4]) {
        assert_eq!(self.words[3].len(), self.names.len(), "long scalars come before short ones");
        // A window less for some widths, and no overflow digit.
        let (smaller, flip) = scalar::smaller(scalar);
        self.names.push(2 * row + u32::from(flip));
        let biased = scalar::add_words(smaller, self.offsets.0);
        for (words, word) in self.words.iter_mut().zip(biased) {
            words.push(word);
        }
    }

    /// Adds `scalar * points[row]` (`-scalar * ..` with `negative`).
    pub(crate) fn push_short(&mut self, row: u32, scalar: u128, negative: bool) {
        self.names.push(2 * row + u32::from(negative));
        let biased = scalar::add_words([scalar as u64, (scalar >> 64) as u64, 0], self.offsets.1);
        for (words, word) in self.words.iter_mut().zip(biased) {
            words.push(word);
        }
    }

    /// The sum of all terms. The last of `points` must be the neutral element.
    pub(crate) fn evaluate(&mut self, kernels: &Kernels, points: &[NielsRow]) -> PointRow {
        // What was not planned for would be left out, and a sum of nothing is neutral.
        let long = self.words[3].len();
        let reaches = self.parts.iter().any(|part| part.windows > 0 && part.end() >= LONG_BITS as usize);
        assert!(long == 0 || reaches, "no windows for long scalars");
        let lower = self.parts.iter().any(|part| part.short_windows > 0);
        assert!(long == self.names.len() || lower, "no windows for short scalars");
        let mut total = None;
        for part in self.parts {
            if part.windows > 0 {
                total = Some(self.evaluate_part(kernels, points, part, total.as_ref()));
            }
        }
        total.unwrap_or_else(|| kernels.neutral())
    }

    /// The sum over the windows of `part` and, with its weight, over those above it, which is `above`.
    fn evaluate_part(
        &mut self,
        kernels: &Kernels,
        points: &[NielsRow],
        part: Part,
        above: Option<&PointRow>,
    ) -> PointRow {
        let neutral = kernels.neutral();
        let lanes = kernels.lanes;
        let buckets = 1_usize << (part.width - 1);
        self.sums.resize(part.windows * lanes, PointRow::ZERO);
        self.runs.resize(part.windows * lanes, PointRow::ZERO);
        for window in 0..part.windows {
            self.split(part, window);
            self.sort(neutral, buckets);
            kernels.accumulate(points, &self.entries, &self.sorted, &mut self.buckets);
            for &(bucket, piece) in &self.pieces {
                let sum = kernels.add(&self.buckets[bucket as usize], &self.buckets[piece as usize]);
                self.buckets[bucket as usize] = sum;
            }
            let place = window * lanes..(window + 1) * lanes;
            kernels.reduce(&self.buckets[..buckets], &mut self.sums[place.clone()], &mut self.runs[place]);
        }
        kernels.combine(&self.sums, &self.runs, buckets / lanes, part.width, above)
    }

    /// The digits of `window`, 2^(c-1) too large each.
    fn split(&mut self, part: Part, window: usize) {
        let terms = if window < part.short_windows { self.names.len() } else { self.words[3].len() };
        let top = window + 1 == part.windows && part.end() >= LONG_BITS as usize;
        let bit = part.bit + window * part.width as usize;
        let (word, shift) = (bit / 64, bit % 64);
        // The top one has no bias yet, and nothing above it.
        let (mask, add) =
            if top { (u16::MAX, 1 << (part.width - 1)) } else { ((1_u16 << part.width) - 1, 0) };
        let digits = self.words[word][..terms].iter();
        self.digits.clear();
        if shift + part.width as usize >= 64 && word < 3 {
            let above = &self.words[word + 1][..terms];
            let digits = digits.zip(above).map(|(word, above)| {
                let bits = (word >> shift | above << (64 - shift)) as u16;
                (bits & mask) + add
            });
            self.digits.extend(digits);
        } else {
            self.digits.extend(digits.map(|word| ((word >> shift) as u16 & mask) + add));
        }
    }

    /// Lists the points of every bucket, and the tasks that add them up, longest first.
    fn sort(&mut self, neutral: PointRow, buckets: usize) {
        self.counts.clear();
        self.counts.resize(2 * buckets + 1, 0);
        // As slices, whose place and length no store inside the loops can change.
        let (digits, counts) = (&self.digits[..], &mut self.counts[..]);
        for &digit in digits {
            counts[usize::from(digit)] += 1;
        }
        // Where each bucket's list starts, that of negative digits and behind it that of positive ones. Digit 0 has none:
        // its points go to the end.
        let used = digits.len() - counts[buckets] as usize;
        counts[buckets] = used as u32;
        let limit = LIST_MIN.max((4 * used / buckets) as u32);
        // At most one for each bucket, and one for each time that a list reaches the limit.
        self.tasks.resize(buckets + used / limit as usize, Task::default());
        let tasks = &mut self.tasks[..];
        let mut listed = 0;
        let mut list = |start, length, out| {
            tasks[listed] = Task { start, length, out };
            listed += 1;
        };
        self.pieces.clear();
        let mut start = 0;
        let mut extra = buckets as u32;
        self.buckets.resize(self.buckets.len().max(buckets), PointRow::ZERO);
        for bucket in 1..=buckets {
            let negative = std::mem::replace(&mut counts[buckets - bucket], start);
            let positive = std::mem::replace(&mut counts[buckets + bucket], start + negative);
            let count = negative + positive;
            let out = bucket as u32 - 1;
            if count == 0 {
                self.buckets[out as usize] = neutral;
            } else if count <= limit {
                list(start, count, out);
            } else {
                list(start, limit, out);
                let mut done = limit;
                while done < count {
                    let length = limit.min(count - done);
                    list(start + done, length, extra);
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
        self.entries.resize(digits.len(), 0);
        let entries = &mut self.entries[..];
        for (&digit, name) in digits.iter().zip(&self.names) {
            let digit = usize::from(digit);
            let place = counts[digit];
            counts[digit] = place + 1;
            entries[place as usize] = name ^ u32::from(digit < buckets);
        }
        self.tasks.truncate(listed);
        self.order(limit);
    }

    /// `tasks` by falling length into `sorted`.
    fn order(&mut self, longest: u32) {
        self.places.clear();
        self.places.resize(longest as usize + 2, 0);
        self.sorted.resize(self.tasks.len(), Task::default());
        let (tasks, places, sorted) = (&self.tasks[..], &mut self.places[..], &mut self.sorted[..]);
        for task in tasks {
            places[(longest - task.length) as usize + 1] += 1;
        }
        for length in 1..places.len() {
            places[length] += places[length - 1];
        }
        for task in tasks {
            let place = &mut places[(longest - task.length) as usize];
            sorted[*place as usize] = *task;
            *place += 1;
        }
    }
}

/// The windows, upper and lower ones, with the least cost for `long` scalars of 252 bits and `short` ones of 128.
fn plan(kernels: &Kernels, long: usize, short: usize) -> [Part; 2] {
    let mut best = [Part::default(); 2];
    let mut least = f64::INFINITY;
    let mut consider = |parts: [Part; 2]| {
        let cost = cost(kernels.lanes, &parts, long, short);
        if cost < least {
            (best, least) = (parts, cost);
        }
    };
    for width in WIDTH_MIN..=WIDTH_MAX {
        consider(windows_alike(width, long, short));
        if long > 0 && short > 0 {
            (WIDTH_MIN..width).for_each(|upper| consider(windows_of_two(width, upper)));
        }
    }
    best
}

/// Windows of one width.
pub(crate) fn windows_alike(width: u32, long: usize, short: usize) -> [Part; 2] {
    let short_windows = if short > 0 { SHORT_BITS.div_ceil(width) as usize } else { 0 };
    let windows = if long > 0 { LONG_BITS.div_ceil(width) as usize } else { short_windows };
    [Part::default(), Part { width, windows, short_windows, bit: 0 }]
}

/// Windows of one width as far as short scalars go, and of another above.
pub(crate) fn windows_of_two(width: u32, upper: u32) -> [Part; 2] {
    let windows = SHORT_BITS.div_ceil(width) as usize;
    let lower = Part { width, windows, short_windows: windows, bit: 0 };
    let windows = (LONG_BITS as usize - lower.end()).div_ceil(upper as usize);
    [Part { width: upper, windows, short_windows: 0, bit: lower.end() }, lower]
}

/// What windows cost, in additions of a point to a bucket.
fn cost(lanes: usize, parts: &[Part; 2], long: usize, short: usize) -> f64 {
    let mut cost = 0.0;
    for part in parts {
        let windows = part.windows as f64;
        let filled = long * part.windows + short * part.short_windows;
        let buckets = f64::from(1 << part.width >> 1);
        // A lane keeps waiting for its neighbours by about a step per group. Sums cost 9 multiplications against 7.
        let fill = filled.max(part.windows * lanes) as f64 + windows * buckets * 0.3;
        let join = part.windows.next_multiple_of(lanes) * 3 * lanes;
        cost += fill + windows * buckets * (2.0 * 1.35 - 0.8) + join as f64 * 1.35;
    }
    // Doublings, one at a time.
    cost + (parts[0].end().max(parts[1].end()) * lanes) as f64
}
