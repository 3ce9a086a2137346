//! Which rows of a batch are bad, once its equation fails: an exact verdict per row at a bounded cost.
//!
//! The equation of a batch is a sum over its rows, `value(rows) = sum of z_i * (s_i B - k_i A_i - R_i)`, and a set of
//! rows is clean if eight times its value is the neutral element. Values add up, so when a set and one part of it are
//! known, the value of the other part is one subtraction: every split of a bad set costs one test, of its smaller
//! half at most. The z stay the same at every level, and so do decoded points and products (the engine keeps them).
//!
//! The rule, in full:
//!
//! 1. As long as nothing bad was seen, test groups as large as allowed. Honest traffic never leaves this step. (Batches so
//!    small that single checks cost less than their test skip it.) While an `Alarm` is on, since a batch failed lately, look
//!    for bad rows where it costs less first: in one vector of rows drawn at random, then in one group of
//!    `SAMPLE_ROWS` drawn at random. That is some per cent of a clean batch, and saves the test of the whole
//!    where it would fail. If few rows of that batch were bad, step 3 begins at once with the share remembered.
//! 2. At the first failure shuffle the rows (with a secret seed), so that where an adversary placed bad rows says
//!    nothing any more and only their share matters.
//! 3. Estimate that share as `(bad + 1/2) / (decided + 12)` over the rows decided since ([`Share`], which an engine
//!    carries from span to span of one call), and take the next group as large as pays best under that estimate and
//!    the engine's [`Costs`]: somewhat less than one bad row expected in it. Few bad rows: groups double from test to test. Some
//!    per mille to some per cent: groups of 2 to 16 rows side by side, one a lane ([`Equation::clean_groups`]), and the
//!    rows of those that fail one by one. Many: all rows one by one, and no test is wasted.
//!    A batch from a sender of bad rows may start here at once ([`Share::suspect`]).
//! 4. A bad group is searched in the same way with at most half of it tested at a time: plain bisection if it holds
//!    one bad row. A set whose value is known and neutral is clean; one row with a known value that is not is bad.
//!
//! Cost: a share near zero costs about log2(n) halvings, which sum to one more pass over the batch. A share near one
//! costs the first group's test, some exploration and one single check per row. Nothing costs more than single
//! verification of all rows, the first test, and exploration; the tests below hold that bound for every engine. What
//! it means as a multiple of a clean batch depends on what a single check costs there (`docs/benchmarks.md`).

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

/// The equation of one batch, as an engine offers it. Rows are numbers chosen by the engine.
pub trait Equation {
    /// A sum of rows: a point, not yet multiplied by the cofactor.
    type Value: Copy;

    /// The value of `rows`: one multiscalar multiplication. `rows` is never empty.
    fn value(&mut self, rows: &[u32]) -> Self::Value;

    /// `whole - part`: the value of the rows in `whole` that are not in `part`.
    fn difference(&mut self, whole: &Self::Value, part: &Self::Value) -> Self::Value;

    /// Whether eight times the value is the neutral element.
    fn is_neutral(&mut self, value: &Self::Value) -> bool;

    /// Tests groups of `size` rows each, up to [`Costs::lanes`] of them (the last may be shorter), side by side: `clean[i]` is
    /// whether the i-th is clean.
    fn clean_groups(&mut self, rows: &[u32], size: usize, clean: &mut [bool]);

    /// Checks up to [`Costs::lanes`] rows one by one and writes the verdict of `rows[i]` to `valid[i]`.
    fn check_rows(&mut self, rows: &[u32], valid: &mut [bool]);
}

/// Group sizes an engine states its costs for: 1, 2, 4, .. 4096.
pub const GROUP_SIZES: usize = 13;

/// What tests cost an engine, in any unit (only ratios matter).
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// One row checked by itself ([`Equation::check_rows`]), per row.
    pub single: f32,
    /// [`Equation::value`] of a group of `2^i` rows with distinct keys, per row.
    pub group: [f32; GROUP_SIZES],
    /// Rows that [`Equation::check_rows`] takes at once.
    pub lanes: usize,
    /// The largest group worth testing at once, at most 4096.
    pub group_rows_max: usize,
    /// [`Equation::clean_groups`] for each of its lanes, whatever the groups' size.
    pub lane_once: f32,
    /// The same for each row of a group.
    pub lane_row: f32,
    /// Rows of such a group at most; 0 where the engine has no better way than [`Equation::value`] for each.
    pub lane_rows_max: usize,
}

/// Sizes of groups side by side that are tried.
const LANE_SIZES: [usize; 7] = [2, 3, 4, 6, 8, 12, 16];

impl Costs {
    /// [`Equation::value`] of a group of `rows`, per row: between two powers of two on the line through both.
    fn group_row(&self, rows: usize) -> f32 {
        let exponent = (rows.ilog2() as usize).min(GROUP_SIZES - 1);
        let above = self.group[(exponent + 1).min(GROUP_SIZES - 1)];
        let part = rows as f32 / (1_usize << exponent) as f32 - 1.0;
        self.group[exponent] + (above - self.group[exponent]) * part.min(1.0)
    }

    /// Groups side by side over the first of `rows` rows: their size with the least expected cost per row, and that cost,
    /// if a row is bad with chance `share`, and all are known to hold a bad one with chance `dirty` (1 if they are). Rows of
    /// groups that fail are checked one by one.
    fn side_by_side(&self, rows: usize, share: f32, dirty: f32) -> (f32, usize) {
        let lanes = self.lanes as f32;
        let mut best = (f32::INFINITY, 0);
        for size in LANE_SIZES {
            if size > self.lane_rows_max || (size - 1) * self.lanes >= rows {
                break;
            }
            let filled = rows.min(size * self.lanes) as f32;
            let failed = ((1.0 - (1.0 - share).powi(size as i32)) / dirty).min(1.0);
            let cost = (self.lane_once + self.lane_row * size as f32) * lanes / filled + failed * self.single;
            if cost < best.0 {
                best = (cost, size);
            }
        }
        best
    }
}

/// Rows after which half of what was seen is forgotten, so that the estimate follows traffic that changes.
const MEMORY_ROWS: f32 = 2048.0;

/// The bad share assumed when the first group fails: half a bad row in a dozen. The first probes are then small groups or
/// single rows, which lose little if everything is bad, and groups soon grow if little is.
const PRIOR_BAD: f32 = 0.5;
const PRIOR_ROWS: f32 = 12.0;

/// Rows of [`Equation::check_rows`] at once, over all engines.
const LANES_MAX: usize = 64;

/// Rows tested before the whole of a batch while the alarm is on, if there are eight times as many.
const SAMPLE_ROWS: usize = 256;
/// Rows that are checked one by one before that, at least, if a batch has sixteen times as many.
const PROBE_ROWS: usize = 16;

/// Batches for which a failed one is remembered.
const ALARM_BATCHES: u32 = 64;

/// A remembered share of bad rows below this is trusted from the first row on. Above, a few rows checked one by one tell more
/// for less, and whether the next batch is bad at all is as open as how bad it is.
const TRUSTED_SHARE_MAX: f32 = 0.03;

/// Below this, the whole is tested first as if nothing were remembered.
const FORGOTTEN_SHARE_MAX: f32 = 1.0 / 8192.0;

/// Whether one of the last batches of a verifier failed, and what share of its rows was bad.
///
/// Who can choose it, by sending bad rows, gains nothing: it costs the clean batches after a bad one some per cent, the
/// first of them most, and the first bad batch after quiet the test of its whole, once in [`ALARM_BATCHES`].
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    /// Batches for which it stays on.
    left: AtomicU32,
    /// The bits of the share.
    share: AtomicU32,
}

impl Alarm {
    /// What to start the next batch with.
    pub(crate) fn share(&self) -> Share {
        let expected = f32::from_bits(self.share.load(Relaxed));
        let alert = self.left.load(Relaxed) > 0 && expected > FORGOTTEN_SHARE_MAX;
        if !alert || expected > TRUSTED_SHARE_MAX {
            return Share { alert, ..Share::default() };
        }
        // Half a bad row, as in the prior, in as many rows as make it the share expected.
        let decided = (PRIOR_BAD / expected - PRIOR_ROWS).clamp(0.0, MEMORY_ROWS / 2.0);
        Share { alert, estimating: true, decided, ..Share::default() }
    }

    /// Takes note of how a batch that began with [`Alarm::share`] ended.
    pub(crate) fn note(&self, share: &Share) {
        // Lost updates are harmless.
        match (share.failed, self.left.load(Relaxed)) {
            (true, _) => {
                self.left.store(ALARM_BATCHES, Relaxed);
                self.share.store(share.estimate().to_bits(), Relaxed);
            }
            (false, 0) => {}
            (false, left) => {
                self.left.store(left - 1, Relaxed);
                // A share that is not trusted stays, since nothing was done by it.
                let expected = f32::from_bits(self.share.load(Relaxed));
                if expected <= TRUSTED_SHARE_MAX {
                    self.share.store((expected / 4.0).to_bits(), Relaxed);
                }
            }
        }
    }
}

/// What one call has learned so far about the share of bad rows in its batch.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    /// Whether a group or a row failed.
    failed: bool,
    /// Whether groups are chosen by the estimate: from the first failure on, or from the start.
    estimating: bool,
    /// Whether a batch failed lately ([`Alarm`]).
    alert: bool,
    bad: f32,
    decided: f32,
}

impl Share {
    /// Expected share of bad rows among those not decided yet.
    fn estimate(&self) -> f32 {
        ((self.bad + PRIOR_BAD) / (self.decided + PRIOR_ROWS)).min(1.0)
    }

    /// What to start with where bad rows are expected: groups are chosen by the estimate from the first row on, and no
    /// test of the whole is lost.
    #[must_use]
    pub fn suspect() -> Self {
        Self { estimating: true, ..Self::default() }
    }

    /// A group holds a bad row.
    fn fail(&mut self) {
        (self.failed, self.estimating) = (true, true);
    }

    fn learn(&mut self, rows: usize, valid: bool) {
        if !valid {
            self.fail();
        }
        if self.estimating {
            self.count(rows, valid);
        }
    }

    fn count(&mut self, rows: usize, valid: bool) {
        self.decided += rows as f32;
        if !valid {
            self.bad += rows as f32;
        }
        if self.decided > MEMORY_ROWS {
            let fade = MEMORY_ROWS / 2.0 / self.decided;
            self.decided *= fade;
            self.bad *= fade;
        }
    }
}

/// Gives every row of `rows` its verdict, `verdicts[row]`. `rows` is reordered. `seed` decides how, and should be
/// secret; it has no influence on verdicts.
pub fn search<E: Equation>(
    equation: &mut E,
    costs: &Costs,
    rows: &mut [u32],
    seed: u64,
    verdicts: &mut [bool],
) {
    search_span(equation, costs, &mut Share::default(), rows, seed, verdicts);
}

/// [`search`] in one of several spans of a batch: `share` carries what was learned from span to span, and has no
/// influence on verdicts either.
pub fn search_span<E: Equation>(
    equation: &mut E,
    costs: &Costs,
    share: &mut Share,
    rows: &mut [u32],
    seed: u64,
    verdicts: &mut [bool],
) {
    let group_rows_max = costs.group_rows_max.clamp(1, 1 << (GROUP_SIZES - 1));
    let lanes = costs.lanes.clamp(1, LANES_MAX);
    let mut search = Search { equation, costs, group_rows_max, lanes, share, verdicts, pending: Vec::new() };
    let mut rest = search.look_first(rows, seed);
    // Groups of nearly equal size: 1025 rows are two groups of about 512, not one of 1024 and a lonely row.
    while !search.share.estimating && !rest.is_empty() {
        let size = rest.len().div_ceil(rest.len().div_ceil(group_rows_max));
        if costs.group_row(size) >= costs.single {
            break;
        }
        let (group, others) = rest.split_at_mut(size);
        rest = others;
        let value = search.equation.value(group);
        if search.equation.is_neutral(&value) {
            search.decide(group, true);
        } else {
            search.share.fail();
            shuffle(group, seed);
            search.resolve(group, Some(value));
        }
    }
    shuffle(rest, seed.rotate_left(32));
    search.resolve(rest, None);
    search.check_pending(1);
}

struct Search<'a, E: Equation> {
    equation: &'a mut E,
    costs: &'a Costs,
    group_rows_max: usize,
    /// Rows checked one by one at once.
    lanes: usize,
    share: &'a mut Share,
    verdicts: &'a mut [bool],
    /// Rows that are to be checked one by one, fewer than would fill a vector.
    pending: Vec<u32>,
}

impl<E: Equation> Search<'_, E> {
    /// With the alarm on: a few rows one by one, then a group. Decides those, and returns the others.
    fn look_first<'r>(&mut self, rows: &'r mut [u32], seed: u64) -> &'r mut [u32] {
        let mut rest = rows;
        let probe = PROBE_ROWS.next_multiple_of(self.lanes);
        if !self.share.alert || self.share.estimating || rest.len() < 16 * probe {
            return rest;
        }
        draw(rest, probe, seed);
        let (rows, others) = rest.split_at_mut(probe);
        rest = others;
        // Counted in any case, since they say something of the rest.
        self.share.estimating = true;
        for group in rows.chunks(self.lanes) {
            self.check_rows(group);
        }
        self.share.estimating = self.share.failed;
        if self.share.failed || rest.len() < 8 * SAMPLE_ROWS {
            return rest;
        }
        draw(rest, SAMPLE_ROWS, seed.rotate_left(16));
        let (group, others) = rest.split_at_mut(SAMPLE_ROWS);
        let value = self.equation.value(group);
        if self.equation.is_neutral(&value) {
            self.decide(group, true);
        } else {
            self.share.fail();
            self.resolve(group, Some(value));
        }
        others
    }

    /// Checks the rows that wait for it, if there are `least` or more.
    fn check_pending(&mut self, least: usize) {
        while self.pending.len() >= least {
            let rows = self.pending.split_off(self.pending.len().saturating_sub(self.lanes));
            self.check_rows(&rows);
        }
    }

    /// Decides up to a vector of rows one by one. Returns whether all are good.
    fn check_rows(&mut self, rows: &[u32]) -> bool {
        let mut valid = [false; LANES_MAX];
        let valid = &mut valid[..rows.len()];
        self.equation.check_rows(rows, valid);
        for (row, valid) in rows.iter().zip(valid.iter()) {
            self.decide(&[*row], *valid);
        }
        !valid.contains(&false)
    }

    /// Tests groups side by side. Rows of those that fail wait to be checked one by one. Returns whether all are good.
    fn clean_groups(&mut self, rows: &[u32], size: usize) -> bool {
        let mut clean = [false; LANES_MAX];
        let clean = &mut clean[..rows.len().div_ceil(size)];
        self.equation.clean_groups(rows, size, clean);
        for (group, clean) in rows.chunks(size).zip(clean.iter()) {
            if *clean {
                self.decide(group, true);
            } else {
                self.pending.extend_from_slice(group);
            }
        }
        self.check_pending(self.lanes);
        !clean.contains(&false)
    }

    /// Decides all `rows`, whose value is `value` if it is known.
    fn resolve(&mut self, rows: &[u32], value: Option<E::Value>) {
        let mut rest = rows;
        let mut value = value;
        while !rest.is_empty() {
            if let Some(known) = &value {
                if self.equation.is_neutral(known) {
                    self.decide(rest, true);
                    return;
                }
                if rest.len() == 1 {
                    self.decide(rest, false);
                    return;
                }
            }
            match self.pick(rest.len(), value.is_some()) {
                Next::Group(size) => {
                    let (group, others) = rest.split_at(size);
                    let part = self.equation.value(group);
                    self.resolve(group, Some(part));
                    value = value.map(|whole| self.equation.difference(&whole, &part));
                    rest = others;
                }
                Next::SideBySide(size) => {
                    let (groups, others) = rest.split_at(rest.len().min(size * self.lanes));
                    if !self.clean_groups(groups, size) {
                        value = None;
                    }
                    rest = others;
                }
                Next::Rows => {
                    if rest.len() < self.lanes {
                        // Too few to fill a vector wait for others.
                        self.pending.extend_from_slice(rest);
                        self.check_pending(self.lanes);
                        return;
                    }
                    let (group, others) = rest.split_at(self.lanes);
                    if !self.check_rows(group) {
                        // Their share of the sum is not known: checked alone, they were not weighted with their z.
                        value = None;
                    }
                    rest = others;
                }
            }
        }
    }

    /// Writes the verdict of `rows` and learns from it.
    fn decide(&mut self, rows: &[u32], valid: bool) {
        for row in rows {
            self.verdicts[*row as usize] = valid;
        }
        self.share.learn(rows.len(), valid);
    }

    /// What to do with the next of `rows` rows: what has the least expected cost per row. Of rows `known` to hold a bad one
    /// at most half are tested as a group: the value of the others follows.
    fn pick(&self, rows: usize, known: bool) -> Next {
        let share = self.share.estimate();
        let limit = if known { rows / 2 } else { rows }.min(self.group_rows_max);
        let mut best = (self.costs.single, Next::Rows);
        let dirty = if known { (1.0 - (1.0 - share).powf(rows as f32)).max(f32::MIN_POSITIVE) } else { 1.0 };
        let (cost, size) = self.costs.side_by_side(rows, share, dirty);
        if cost < best.0 {
            best = (cost, Next::SideBySide(size));
        }
        // Of the size before, half of `size`: the chance that it holds no bad row, and the expected cost to search it
        // if it is known to hold one: by halving it, in groups side by side, or row by row.
        let (mut clean_half, mut resolve_half) = (1.0 - share, 0.0_f32);
        for exponent in 1..=GROUP_SIZES {
            let size = (1_usize << exponent).min(limit);
            if size <= 1_usize << (exponent - 1) {
                break;
            }
            let count = size as f32;
            let clean = (1.0 - share).powf(count);
            let dirty = (1.0 - clean).max(f32::MIN_POSITIVE);
            // One half is tested, the value of the other follows; each is bad with this chance, given that one is.
            let half_dirty = ((1.0 - clean_half) / dirty).min(1.0);
            let halving =
                self.costs.group_row(size.div_ceil(2)) * count / 2.0 + 2.0 * half_dirty * resolve_half;
            let by_rows = self.costs.single.min(self.costs.side_by_side(size, share, dirty).0);
            let resolve = halving.min(by_rows * count);
            let cost = self.costs.group_row(size) + dirty * resolve / count;
            if cost < best.0 {
                best = (cost, Next::Group(size));
            }
            (clean_half, resolve_half) = (clean, resolve);
        }
        if known && limit >= 1 {
            // Testing one half decides or incriminates the other as well.
            let (half, count) = (limit as f32, rows as f32);
            let half_dirty = ((1.0 - clean_half) / dirty).min(1.0);
            let cost = (self.costs.group_row(limit) * half + 2.0 * half_dirty * resolve_half) / count;
            if cost < best.0 {
                best = (cost, Next::Group(limit));
            }
        }
        match best.1 {
            // A vector of rows first: where all are bad, it says so for a fifth of the price.
            Next::SideBySide(_) if self.share.decided < self.lanes as f32 => Next::Rows,
            next => next,
        }
    }
}

/// How the next rows are decided.
#[derive(Clone, Copy, Debug)]
enum Next {
    /// As one group of so many.
    Group(usize),
    /// In groups of so many each, one a lane.
    SideBySide(usize),
    /// One by one.
    Rows,
}

/// Puts the rows in an order drawn from `seed`.
fn shuffle(rows: &mut [u32], seed: u64) {
    draw(rows, rows.len().saturating_sub(1), seed);
}

/// Puts `count` rows drawn from `seed` first. Fisher-Yates over a splitmix64 sequence: it has to be unknown to senders, not
/// cryptographic, since a guess wins them some of our time and no verdict.
fn draw(rows: &mut [u32], count: usize, seed: u64) {
    let mut state = seed;
    for place in 0..count {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let other = ((u128::from(mixed) * (rows.len() - place) as u128) >> 64) as usize;
        rows.swap(place, place + other);
    }
}

#[cfg(test)]
#[path = "culprits_tests.rs"]
mod tests;
