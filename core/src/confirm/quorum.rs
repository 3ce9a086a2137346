//! Quorum arithmetic: weights, quorums, thirds, and the highest watermark that enough weight has reached.
//!
//! Owns the two thresholds of the design, section 4: of the committee's weight W less than W/3 is Byzantine; a
//! *quorum* is weight w with 3w > 2W, a *third* is w with 3w > W. Invariants: integers only (no rounding, no
//! division), and no overflow, since the genesis keeps W below 2^62. Two quorums share more than W/3, so they share
//! an honest validator; a third holds one.

use alloc::vec::Vec;

use super::rules::{Rule, Rules};

/// The weights of a committee, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    weights: Vec<u64>,
    total: u64,
}

impl Weights {
    /// The weights, whose sum is at most [`WEIGHT_SUM_MAX`](crate::genesis::WEIGHT_SUM_MAX), as in every valid
    /// genesis. A sum beyond 64 bits saturates, and then nothing is a quorum.
    #[must_use]
    pub fn new(weights: Vec<u64>) -> Self {
        let total = weights.iter().fold(0u64, |sum, weight| sum.saturating_add(*weight));
        Self { weights, total }
    }

    /// Validators.
    #[must_use]
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether there is no validator.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// Weight of validator `index`, 0 where there is none.
    #[must_use]
    pub fn of(&self, index: usize) -> u64 {
        self.weights.get(index).copied().unwrap_or(0)
    }

    /// Sum of all weights.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Whether `weight` is a quorum: 3w > 2W.
    #[must_use]
    pub fn is_quorum(&self, weight: u64) -> bool {
        3 * u128::from(weight) > 2 * u128::from(self.total)
    }

    /// Whether `weight` is a third: 3w > W.
    #[must_use]
    pub fn is_third(&self, weight: u64) -> bool {
        3 * u128::from(weight) > u128::from(self.total)
    }

    /// [`is_quorum`](Self::is_quorum) for cuts, under `rules`.
    pub(crate) fn certifies(&self, weight: u64, rules: &impl Rules) -> bool {
        if rules.weakens(Rule::Majority) {
            return 2 * u128::from(weight) >= u128::from(self.total);
        }
        self.is_quorum(weight)
    }

    /// [`is_third`](Self::is_third) for certified cuts, under `rules`.
    pub(crate) fn amplifies(&self, weight: u64, rules: &impl Rules) -> bool {
        if rules.weakens(Rule::NoAmplification) {
            return false;
        }
        if rules.weakens(Rule::AmplifyByOne) {
            return weight > 0;
        }
        self.is_third(weight)
    }

    /// The highest size that validators of weight `enough` have reached, where validator i has reached `sizes[i]`;
    /// 0 if all together are not enough. Sorts `scratch`: O(V log V), and called only when the answer moves.
    pub(crate) fn level(
        &self,
        sizes: impl Iterator<Item = u64>,
        scratch: &mut Vec<(u64, u64)>,
        enough: impl Fn(u64) -> bool,
    ) -> u64 {
        scratch.clear();
        scratch.extend(sizes.zip(self.weights.iter().copied()));
        scratch.sort_unstable_by(|left, right| right.cmp(left));
        let mut weight = 0;
        for (size, own) in scratch {
            weight += *own;
            if enough(weight) {
                return *size;
            }
        }
        0
    }
}

/// A set of validators, one bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ValidatorSet {
    words: Vec<u64>,
}

impl ValidatorSet {
    /// Adds validator `index`; whether it was not there yet.
    pub(crate) fn insert(&mut self, index: usize) -> bool {
        let (word, bit) = (index / 64, 1u64 << (index % 64));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        new
    }

    /// Whether validator `index` is there.
    pub(crate) fn contains(&self, index: usize) -> bool {
        self.words.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::super::rules::Strict;
    use super::*;

    #[test]
    fn quorum_and_third_are_strict_at_every_committee_size() {
        for (count, quorum, third) in
            [(1, 1, 1), (2, 2, 1), (3, 3, 2), (4, 3, 2), (6, 5, 3), (7, 5, 3), (10, 7, 4)]
        {
            let weights = Weights::new(vec![1; count]);
            for weight in 0..=count as u64 {
                assert_eq!(weights.is_quorum(weight), weight >= quorum, "{weight} of {count}");
                assert_eq!(weights.is_third(weight), weight >= third, "{weight} of {count}");
            }
        }
    }

    #[test]
    fn unequal_weights_count_and_the_largest_sum_does_not_overflow() {
        let weights = Weights::new(vec![5, 3, 3, 1]);
        assert!(!weights.is_quorum(8) && weights.is_quorum(9));
        assert!(!weights.is_third(4) && weights.is_third(5));
        let weights = Weights::new(vec![crate::genesis::WEIGHT_SUM_MAX]);
        assert!(weights.is_quorum(crate::genesis::WEIGHT_SUM_MAX) && !weights.is_quorum(1 << 60));
    }

    #[test]
    fn any_two_quorums_share_more_than_a_third_can_lie() {
        // Exhaustive over all pairs of subsets of small committees with unequal weights.
        for weights in [vec![1; 4], vec![5, 3, 3, 1], vec![1; 7], vec![2, 2, 1, 1, 1]] {
            let committee = Weights::new(weights.clone());
            let sum = |set: u32| (0..weights.len()).filter(|i| set >> i & 1 == 1).map(|i| weights[i]).sum();
            let quorums: Vec<u32> =
                (0..1 << weights.len()).filter(|set| committee.is_quorum(sum(*set))).collect();
            assert!(!quorums.is_empty());
            for left in &quorums {
                for right in &quorums {
                    assert!(committee.is_third(sum(left & right)), "{left:b} {right:b} of {weights:?}");
                }
            }
        }
    }

    #[test]
    fn a_level_is_the_highest_size_that_enough_weight_has_reached() {
        let weights = Weights::new(vec![1; 4]);
        let level = |sizes: [u64; 4], enough: fn(&Weights, u64) -> bool| {
            weights.level(sizes.into_iter(), &mut Vec::new(), |weight| enough(&weights, weight))
        };
        assert_eq!(level([9, 5, 7, 0], Weights::is_quorum), 5);
        assert_eq!(level([9, 5, 7, 0], Weights::is_third), 7);
        assert_eq!(level([9, 0, 0, 0], Weights::is_third), 0);
        assert!(weights.certifies(3, &Strict) && !weights.certifies(2, &Strict));
    }
}
