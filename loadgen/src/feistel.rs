//! A keyed permutation of `0 .. n` for any `n`: in which order the devices of a population speak.
//!
//! Owns the permutation and its inverse. Event `k` of a run belongs to device `apply(k mod n)` of the permutation of cycle `k div n`, so
//! that every device speaks exactly once a cycle, in another order each cycle, and no state is kept per device. Not a cipher: it makes
//! orders that look random to a ledger, it hides nothing.
//!
//! The construction is the generalised Feistel network of Black and Rogaway (Ciphers with Arbitrary Finite Domains, CT-RSA 2002): an
//! index below `a * b >= n` is split into a pair below `(a, b)`; rounds add a keyed hash of one half to the other, modulo its size. With
//! `a = ceil(sqrt n)` and `b = ceil(n / a)` fewer than `a` of the `a * b` values lie outside; from those it walks on (the same
//! network is applied again) until it is back inside, which it must be, since it follows the cycle of a permutation that began inside.

use std::num::NonZeroU64;

use crate::mix::{below, mix};

/// Devices of one population, at most: keeps `a * b` and the sum of two halves far from overflow. 14,000 times the 20 billion devices
/// that the traffic profiles count.
pub const DEVICES_MAX: u64 = 1 << 48;

/// Rounds. Four give a pseudo-random permutation in theory with ideal round functions; two more make up for the short halves of small
/// populations.
const ROUNDS: usize = 6;

/// The permutation of one cycle.
#[derive(Clone, Debug)]
pub struct Permutation {
    n: u64,
    /// Sizes of the left and the right half.
    sizes: (u64, u64),
    keys: [u64; ROUNDS],
}

impl Permutation {
    /// The permutation of `0 .. n` for this key and cycle. `n` above [`DEVICES_MAX`] is taken as [`DEVICES_MAX`].
    #[must_use]
    pub fn new(key: u64, cycle: u64, n: NonZeroU64) -> Self {
        let n = n.get().min(DEVICES_MAX);
        let root = n.isqrt();
        let left = if root * root == n { root } else { root + 1 };
        let base = mix(key ^ mix(cycle));
        let keys = std::array::from_fn(|round| mix(base.wrapping_add(round as u64)));
        Self { n, sizes: (left, n.div_ceil(left)), keys }
    }

    /// Where index `index` goes.
    ///
    /// # Panics
    /// If `index` is not below `n`: the caller took it modulo something else.
    #[must_use]
    pub fn apply(&self, index: u64) -> u64 {
        assert!(index < self.n, "index {index} of a permutation of {}", self.n);
        let mut value = index;
        loop {
            value = self.network(value);
            if value < self.n {
                return value;
            }
        }
    }

    /// Which index goes to `value`: the inverse of [`Permutation::apply`].
    ///
    /// # Panics
    /// If `value` is not below `n`.
    #[must_use]
    pub fn invert(&self, value: u64) -> u64 {
        assert!(value < self.n, "value {value} of a permutation of {}", self.n);
        let mut index = value;
        loop {
            index = self.network_inverse(index);
            if index < self.n {
                return index;
            }
        }
    }

    fn network(&self, value: u64) -> u64 {
        let (a, b) = self.sizes;
        let (mut left, mut right) = (value / b, value % b);
        for keys in self.keys.chunks_exact(2) {
            left = add_modulo(left, below(mix(right ^ keys[0]), a), a);
            right = add_modulo(right, below(mix(left ^ keys[1]), b), b);
        }
        left * b + right
    }

    fn network_inverse(&self, value: u64) -> u64 {
        let (a, b) = self.sizes;
        let (mut left, mut right) = (value / b, value % b);
        for keys in self.keys.chunks_exact(2).rev() {
            right = add_modulo(right, b - below(mix(left ^ keys[1]), b), b);
            left = add_modulo(left, a - below(mix(right ^ keys[0]), a), a);
        }
        left * b + right
    }
}

/// `x + y` modulo `size`, for `x < size` and `y <= size`.
fn add_modulo(x: u64, y: u64, size: u64) -> u64 {
    let sum = x + y;
    if sum >= size { sum - size } else { sum }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn permutation(key: u64, cycle: u64, n: u64) -> Permutation {
        Permutation::new(key, cycle, NonZeroU64::new(n).unwrap())
    }

    #[test]
    fn every_size_up_to_600_is_hit_exactly_once_by_every_index() {
        for n in 1..=600 {
            for cycle in 0..3 {
                let order = permutation(7, cycle, n);
                let mut seen = vec![false; n as usize];
                for index in 0..n {
                    let value = order.apply(index);
                    assert!(!std::mem::replace(&mut seen[value as usize], true), "n {n}: {value} came twice");
                    assert_eq!(order.invert(value), index, "n {n}");
                }
            }
        }
    }

    #[test]
    fn sizes_beside_squares_and_powers_of_two_are_permuted_too() {
        for n in [4_095, 4_096, 4_097, 65_535, 65_536, 65_537, 99_856, 99_855, 99_857] {
            let order = permutation(1, 1, n);
            let mut seen = vec![false; n as usize];
            (0..n).for_each(|index| seen[order.apply(index) as usize] = true);
            assert!(seen.iter().all(|hit| *hit), "n {n}");
        }
    }

    #[test]
    fn another_cycle_or_key_gives_another_order() {
        let n = 10_000;
        let order = |key, cycle| -> Vec<u64> {
            let permutation = permutation(key, cycle, n);
            (0..n).map(|index| permutation.apply(index)).collect()
        };
        let orders = [order(1, 0), order(1, 1), order(1, 2), order(2, 0)];
        for (i, one) in orders.iter().enumerate() {
            for other in &orders[..i] {
                // Two random orders agree in one place on average; 20 would be a chance of about 1e-18.
                assert!(one.iter().zip(other).filter(|(x, y)| x == y).count() < 20);
            }
        }
    }

    /// Chi-square over 100 cells of where the first index of each cycle goes: an order with a favourite would not pass.
    #[test]
    fn the_first_device_of_a_cycle_is_spread_evenly() {
        const CELLS: u64 = 100;
        const CYCLES: u64 = 20_000;
        let mut counts = [0u64; CELLS as usize];
        for cycle in 0..CYCLES {
            counts[(permutation(3, cycle, 12_345).apply(0) * CELLS / 12_345) as usize] += 1;
        }
        let expected = (CYCLES / CELLS) as f64;
        let chi_square: f64 = counts.iter().map(|count| (*count as f64 - expected).powi(2) / expected).sum();
        // 99 degrees of freedom: 180 has a chance of about 1e-6, and the test is deterministic.
        assert!((40.0..180.0).contains(&chi_square), "chi-square {chi_square}");
    }

    proptest! {
        #[test]
        fn huge_populations_are_permuted_and_inverted(
            key: u64, cycle: u64, n in 1..=DEVICES_MAX, index: u64,
        ) {
            let order = permutation(key, cycle, n);
            let index = index % n;
            let value = order.apply(index);
            prop_assert!(value < n);
            prop_assert_eq!(order.invert(value), index);
        }
    }
}
