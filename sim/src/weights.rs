//! Unequal weights for a run, with as much lying weight as the rules bear.
//!
//! Owns how they are drawn. Invariant: liars are the last ones, and three times their weight is below the weight of all.

use weft_core::{RandomSource, SplitMix64};

/// Weights of validators, liars last, and how many of these there are: up to half of the validators, or one of all, with the
/// most weight b that a committee of weight W bears, 3b < W.
pub fn draw_weights(validators: usize, random: &mut SplitMix64) -> (Vec<u64>, usize) {
    let liars = if validators < 2 { 0 } else { 1 + random.below(validators as u64 / 2) as usize };
    // Large weights beside small ones, now and then near the largest sum that a genesis may have.
    let scale = [1, 1, 1_000, 1 << 50][random.below(4) as usize];
    let mut weights: Vec<u64> =
        (liars..validators).map(|_| scale * (2 + random.below(20)) + random.below(3)).collect();
    let honest: u64 = weights.iter().sum();
    let mut left = (honest - 1) / 2;
    for place in (0..liars as u64).rev() {
        let own = if place == 0 { left } else { 1 + random.below((left - place).max(1)) };
        let own = own.clamp(1, left.saturating_sub(place).max(1));
        weights.push(own);
        left = left.saturating_sub(own);
    }
    // So few honest units that each liar cannot have one of its own: fewer liars.
    let liar_weight: u64 = weights[validators - liars..].iter().sum();
    if 2 * liar_weight >= honest {
        (vec![1; validators], validators.saturating_sub(1) / 3)
    } else {
        (weights, liars)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn liars_have_less_than_a_third_and_often_just_less() {
        let mut random = SplitMix64::new(7);
        let mut tight = 0;
        for run in 0..2_000 {
            let validators = 2 + run % 9;
            let (weights, liars) = draw_weights(validators, &mut random);
            assert!(weights.len() == validators && weights.iter().all(|weight| *weight > 0));
            let (all, lying) =
                (weights.iter().sum::<u64>(), weights[validators - liars..].iter().sum::<u64>());
            assert!(3 * lying < all, "{lying} of {all}");
            tight += usize::from(3 * (lying + 1) >= all);
        }
        assert!(tight > 1_000, "{tight}");
    }
}
