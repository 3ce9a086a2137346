//! Weighted random walks over a window of recent messages (MCMC tip selection; Popov, "The Tangle", section
//! 4.1).
//!
//! Owns the window, the cumulative weights in it and the walk. A walk starts at a message drawn uniformly
//! from the older half of the window and goes from a message x to one y of those that name it with
//! probability proportional to exp(alpha * weight(y)), until nothing names the message it is at. Bounds and
//! approximations:
//!
//! * The window holds the last [`WALK_MESSAGES_MAX`] messages; weights count messages of the window only. A
//!   weight matters by differences between siblings, and what lies before the window is the same for them.
//! * Weights are exact when computed, for all messages at once with one bit set of the window each (512 KiB),
//!   and are computed again when tips are asked for and at least [`WEIGHTS_AGE_MAX`] messages have come
//!   since. Messages newer than the last computation weigh 1.
//! * A tip in the newer half of the window that names only messages before the window is reached by no walk.
//! * A walk never looks at an edge twice: at most two edges a message of the window.

use alloc::vec;
use alloc::vec::Vec;

use crate::dag::DagWindow;
use crate::ids::MessageId;
use crate::random::RandomSource;

/// Messages of the window. Several times `lambda * h` at the rates at which walks are studied (up to some
/// 10,000 messages a second); one computation of all weights costs 2 x 2,048 x 32 word operations, tens of
/// microseconds.
pub const WALK_MESSAGES_MAX: usize = 2_048;

/// Messages after which weights are computed again.
pub const WEIGHTS_AGE_MAX: u64 = 64;

const WORDS: usize = WALK_MESSAGES_MAX / 64;

#[derive(Debug)]
pub(super) struct Walk {
    alpha: f64,
    window: DagWindow,
    /// By slot of the window.
    weights: Vec<u32>,
    /// By slot: the set of slots of all messages that build on it.
    futures: Vec<[u64; WORDS]>,
    /// Serial number up to which weights are computed.
    computed: u64,
}

impl Walk {
    pub(super) fn new(alpha: f64, seed: u64) -> Self {
        Self {
            // Also turns NaN into 0.
            alpha: alpha.max(0.0),
            window: DagWindow::new(WALK_MESSAGES_MAX, !seed),
            weights: vec![1; WALK_MESSAGES_MAX],
            futures: vec![[0; WORDS]; WALK_MESSAGES_MAX],
            computed: 0,
        }
    }

    pub(super) fn insert(&mut self, id: MessageId, parents: [MessageId; 2]) {
        let serial = self.window.next_serial();
        self.window.insert(id, parents);
        if self.window.next_serial() != serial {
            let slot = self.window.slot(serial);
            self.weights[slot] = 1;
        }
    }

    /// Computes weights again if they are too old.
    pub(super) fn refresh(&mut self) {
        if self.window.next_serial() - self.computed >= WEIGHTS_AGE_MAX {
            self.compute();
        }
    }

    fn compute(&mut self) {
        self.futures.iter_mut().for_each(|future| *future = [0; WORDS]);
        // Newest first: when a message is reached, all that build on it have been.
        for serial in (self.window.oldest_serial()..self.window.next_serial()).rev() {
            let slot = self.window.slot(serial);
            let mut future = self.futures[slot];
            self.weights[slot] = 1 + future.iter().map(|word| word.count_ones()).sum::<u32>();
            future[slot / 64] |= 1 << (slot % 64);
            for parent in self.window.parent_serials(serial) {
                let parent = &mut self.futures[self.window.slot(parent)];
                parent.iter_mut().zip(&future).for_each(|(word, more)| *word |= more);
            }
        }
        self.computed = self.window.next_serial();
    }

    fn weight(&self, serial: u64) -> f64 {
        f64::from(self.weights[self.window.slot(serial)])
    }

    /// One walk: the message at its end. `None` while the window is empty.
    pub(super) fn walk(&self, random: &mut impl RandomSource) -> Option<MessageId> {
        if self.window.is_empty() {
            return None;
        }
        let older_half = (self.window.len() as u64).div_ceil(2);
        let mut at = self.window.oldest_serial() + random.below(older_half);
        loop {
            let heaviest = self.window.approver_serials(at).map(|next| self.weight(next)).fold(0.0, f64::max);
            let mut chosen = None;
            let mut total = 0.0;
            // The last candidate that beats its share of the sum so far is a draw in proportion to the
            // shares.
            for next in self.window.approver_serials(at) {
                let share = exp_negative(self.alpha * (self.weight(next) - heaviest));
                total += share;
                if chosen.is_none() || random.unit() * total < share {
                    chosen = Some(next);
                }
            }
            match chosen {
                Some(next) => at = next,
                None => return Some(*self.window.id(at)),
            }
        }
    }
}

/// e^x for x <= 0, to 12 digits or more. `core` has none, and the same bits on every machine keep simulations
/// repeatable.
fn exp_negative(x: f64) -> f64 {
    // Below this the result is smaller than any share that matters (and NaN, from infinite alpha times 0,
    // counts as 0 difference).
    const LOWEST: f64 = -700.0;
    if x < LOWEST {
        return 0.0;
    }
    let x = x.min(0.0);
    // e^x = 2^k * e^r with |r| <= ln(2) / 2.
    let k = (x * core::f64::consts::LOG2_E - 0.5) as i32;
    let r = x - f64::from(k) * core::f64::consts::LN_2;
    // Taylor series by Horner's rule: the term after the last one is below 1e-16.
    let series = (1..=13).rev().fold(1.0, |sum, n| 1.0 + sum * r / f64::from(n));
    series * f64::from_bits(((1_023 + i64::from(k)) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::{DagView, cumulative_weight};
    use crate::random::SplitMix64;

    fn id(number: u64) -> MessageId {
        MessageId(crate::merkle::leaf_hash(&number.to_le_bytes()))
    }

    #[test]
    fn the_exponential_matches_the_standard_one() {
        for step in 0..70_000 {
            let x = -f64::from(step) / 100.0;
            let (got, want) = (exp_negative(x), x.exp());
            assert!((got - want).abs() <= 1e-12 * want, "exp({x}) = {got}, not {want}");
        }
        assert_eq!((exp_negative(0.0), exp_negative(-1e9), exp_negative(f64::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert_eq!(exp_negative(f64::NAN), 1.0);
    }

    #[test]
    fn weights_in_the_window_are_those_of_the_graph_query() {
        let mut random = SplitMix64::new(3);
        let mut walk = Walk::new(0.1, 1);
        // One and a half windows: slots are used again.
        let messages = WALK_MESSAGES_MAX as u64 * 3 / 2;
        for number in 1..=messages {
            let parents = [0, 1].map(|_| id(number - 1 - random.below(40).min(number - 1)));
            walk.insert(id(number), parents);
        }
        walk.compute();
        let oldest = messages - WALK_MESSAGES_MAX as u64 + 1;
        for number in [oldest, oldest + 1, oldest + 500, messages - 100, messages - 1, messages] {
            let twin = cumulative_weight(&walk.window, &id(number), u64::MAX).weight;
            let slot = walk.window.slot(number - 1);
            assert_eq!(u64::from(walk.weights[slot]), twin, "message {number}");
        }
    }

    #[test]
    fn a_walk_with_high_alpha_stays_on_the_heavy_branch_and_without_alpha_takes_both() {
        // Two branches on one message: one of 30 messages, the other of one.
        let branches = |alpha| {
            let mut walk = Walk::new(alpha, 1);
            walk.insert(id(1), [id(1_000), id(1_001)]);
            walk.insert(id(2), [id(1), id(1_000)]);
            (3..=32).for_each(|number| {
                walk.insert(id(number), [id(if number == 3 { 1 } else { number - 1 }), id(1_000)]);
            });
            walk.compute();
            let mut random = SplitMix64::new(1);
            let mut light = 0;
            for _ in 0..2_000 {
                let mut at_start = true;
                // Start every walk at the fork.
                let end =
                    walk.walk(&mut || if core::mem::take(&mut at_start) { 0 } else { random.next_u64() });
                light += u32::from(end == Some(id(2)));
                assert!(end == Some(id(2)) || end == Some(id(32)));
            }
            light
        };
        let (none, some, high) = (branches(0.0), branches(0.05), branches(10.0));
        assert!((900..1_100).contains(&none), "{none}");
        // e^(-0.05 * 29) / (1 + that) = 0.19.
        assert!((320..440).contains(&some), "{some}");
        assert_eq!(high, 0);
        assert_eq!(branches(f64::INFINITY), 0);
        assert!((900..1_100).contains(&branches(f64::NAN)));
    }

    #[test]
    fn a_walk_ends_where_nothing_names_the_message() {
        let mut random = SplitMix64::new(9);
        let mut walk = Walk::new(0.01, 1);
        assert_eq!(walk.walk(&mut random), None);
        for number in 1..=5_000u64 {
            let parents = [0, 1].map(|_| id(number - 1 - random.below(20).min(number - 1)));
            walk.insert(id(number), parents);
            walk.refresh();
            if number % 100 == 0 {
                let end = walk.walk(&mut random).unwrap();
                assert!(walk.window.approvers(&end).is_empty());
            }
        }
    }
}
