//! The newest tips a generator has heard of, and the choice of two parents among them.
//!
//! Owns one slot shared by all connections (which write it when an ack brings tips) and all generator threads (which copy it once a
//! batch). Invariant: the tips in the slot differ from each other, and there are at most [`TIPS_MAX`]; until the first ones arrive the
//! slot holds the two roots of the genesis, so two different parents can always be drawn.

use std::sync::{Mutex, PoisonError};

use weft_core::MessageId;

use crate::mix::{below, mix};

/// Tips kept, at most (2 KiB). A node hands out far fewer; a hostile one cannot make the slot larger.
pub const TIPS_MAX: usize = 64;

/// The shared slot.
#[derive(Debug)]
pub struct TipSlot {
    tips: Mutex<Vec<MessageId>>,
}

impl TipSlot {
    /// A slot that holds the two genesis roots.
    #[must_use]
    pub fn new(roots: [MessageId; 2]) -> Self {
        Self { tips: Mutex::new(roots.to_vec()) }
    }

    /// Replaces the tips by `fresh`. Fewer than two different ones are too few to choose from and change nothing.
    pub fn offer(&self, fresh: impl IntoIterator<Item = MessageId>) {
        let mut tips: Vec<MessageId> = fresh.into_iter().take(TIPS_MAX).collect();
        tips.sort_unstable();
        tips.dedup();
        if tips.len() >= 2 {
            *self.tips.lock().unwrap_or_else(PoisonError::into_inner) = tips;
        }
    }

    /// Copies the tips into `out`, replacing what it held: at least two, all different.
    pub fn copy_to(&self, out: &mut Vec<MessageId>) {
        out.clear();
        out.extend_from_slice(&self.tips.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Draws two different parents from `tips` by 64 mixed bits.
///
/// # Panics
/// If there are fewer than two tips; a [`TipSlot`] always holds two.
#[must_use]
pub fn choose_parents(tips: &[MessageId], bits: u64) -> [MessageId; 2] {
    let count = tips.len() as u64;
    let first = below(bits, count);
    let second = below(mix(bits), count - 1);
    // The second is drawn from the others: those at or above the first move up by one.
    let second = second + u64::from(second >= first);
    [tips[first as usize], tips[second as usize]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: impl IntoIterator<Item = u8>) -> Vec<MessageId> {
        numbers.into_iter().map(|number| MessageId([number; 32])).collect()
    }

    #[test]
    fn the_slot_begins_with_the_roots_and_keeps_the_newest_tips() {
        let slot = TipSlot::new([MessageId([1; 32]), MessageId([2; 32])]);
        let mut tips = Vec::new();
        slot.copy_to(&mut tips);
        assert_eq!(tips, ids([1, 2]));
        slot.offer(ids([5, 4, 5, 6]));
        slot.copy_to(&mut tips);
        assert_eq!(tips, ids([4, 5, 6]));
    }

    #[test]
    fn tips_that_leave_no_choice_of_two_are_not_taken() {
        let slot = TipSlot::new([MessageId([1; 32]), MessageId([2; 32])]);
        slot.offer(ids([]));
        slot.offer(ids([9, 9, 9]));
        let mut tips = Vec::new();
        slot.copy_to(&mut tips);
        assert_eq!(tips, ids([1, 2]));
    }

    #[test]
    fn a_flood_of_tips_is_cut() {
        let slot = TipSlot::new([MessageId([1; 32]), MessageId([2; 32])]);
        slot.offer(ids(0..=255));
        let mut tips = Vec::new();
        slot.copy_to(&mut tips);
        assert_eq!(tips.len(), TIPS_MAX);
    }

    #[test]
    fn parents_always_differ_and_every_pair_is_drawn() {
        for count in 2..=5u8 {
            let tips = ids(0..count);
            let mut pairs = std::collections::BTreeSet::new();
            for draw in 0..2_000 {
                let [first, second] = choose_parents(&tips, mix(draw));
                assert_ne!(first, second);
                pairs.insert((first, second));
            }
            assert_eq!(pairs.len(), usize::from(count) * usize::from(count - 1));
        }
    }
}
