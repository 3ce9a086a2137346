//! Anti-replay windows: each issuer's sequence numbers are taken once.
//!
//! Owns one window of [`WINDOW`] sequences per issuer: the highest sequence taken and a bit for each of the
//! 64 up to it, as IPsec receivers keep it (RFC 4303, section 3.4.3 and appendix A2). Sequences may skip and
//! arrive out of order within the window. Invariants: a sequence is taken at most once while its issuer is in
//! the table; memory is fixed by the number of issuers. [`ReplayTable::check`] and [`ReplayTable::set`] are
//! apart so that a message refused for another reason does not burn its sequence. Signatures must be verified
//! before `set`: else anybody could move anybody's window.
//!
//! **Eviction.** When the table is full, a new issuer takes the slot of one that was not heard of since the
//! hand passed it last (CLOCK, a second chance for everyone; at most [`SWEEP_SLOTS_MAX`] slots are looked at,
//! so one insertion has bounded cost). The evicted issuer starts anew with whatever sequence comes next. What
//! could be replayed then is a message that this issuer has signed before, byte for byte in what the id
//! covers: it has the same id, and the id index over everything stored tells it as a duplicate. What is lost
//! is only that a *different* message of the device itself with an old sequence number is noticed.
//!
//! Memory: 64 bytes an issuer plus 16 to 32 in the index; a million issuers are 80 to 96 MB.

use alloc::vec::Vec;

use crate::ids::DeviceKey;
use crate::index::{SLOTS_MAX, SlotIndex};
use crate::reject::{Reason, Rejection};

/// Sequences that one window spans.
pub const WINDOW: u64 = 64;

/// Issuers of one table, at most.
pub const ISSUERS_MAX: usize = SLOTS_MAX;

/// Slots that one eviction looks at, at most: then it takes the one at the hand.
pub const SWEEP_SLOTS_MAX: usize = 64;

/// One cache line: a look-up in a table larger than the caches costs two misses, one here and one in the
/// index.
#[derive(Debug)]
#[repr(align(64))]
struct Window {
    issuer: DeviceKey,
    /// Highest sequence taken.
    top: u64,
    /// Bit i: sequence `top - i` was taken.
    taken: u64,
    /// Heard of since the hand passed.
    touched: bool,
}

const _: () = assert!(size_of::<Window>() == 64);

impl Window {
    fn check(&self, sequence: u64) -> Result<(), Rejection> {
        let Some(back) = self.top.checked_sub(sequence) else { return Ok(()) };
        if back >= WINDOW {
            return Err(Reason::StaleSequence.with(sequence, self.top - (WINDOW - 1)));
        }
        if self.taken >> back & 1 == 1 {
            return Err(Reason::ReplayedSequence.with(sequence, self.top));
        }
        Ok(())
    }

    fn set(&mut self, sequence: u64) {
        self.touched = true;
        match sequence.checked_sub(self.top) {
            Some(forward) => {
                self.taken = if forward < WINDOW { self.taken << forward | 1 } else { 1 };
                self.top = sequence;
            }
            None => {
                let back = self.top - sequence;
                if back < WINDOW {
                    self.taken |= 1 << back;
                }
            }
        }
    }
}

/// Windows of a bounded number of issuers.
#[derive(Debug)]
pub struct ReplayTable {
    index: SlotIndex,
    windows: Vec<Window>,
    capacity: usize,
    hand: usize,
    evictions: u64,
}

impl ReplayTable {
    /// A table for `issuers` issuers (cut to 1..=[`ISSUERS_MAX`]). `seed` is any number not known outside the
    /// process.
    #[must_use]
    pub fn new(issuers: usize, seed: u64) -> Self {
        let capacity = issuers.clamp(1, ISSUERS_MAX);
        Self {
            index: SlotIndex::new(capacity, seed),
            windows: Vec::with_capacity(capacity),
            capacity,
            hand: 0,
            evictions: 0,
        }
    }

    /// Issuers in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Issuers evicted so far: a measure of whether the table is large enough.
    #[must_use]
    pub const fn evictions(&self) -> u64 {
        self.evictions
    }

    fn find(&self, issuer: &DeviceKey) -> Option<u32> {
        self.index.find(self.index.hash(&issuer.0), |slot| self.windows[slot as usize].issuer == *issuer)
    }

    /// Brings into the caches what looking up `issuers` will read, so that the waiting for main memory overlaps. For some
    /// tens of issuers at a time. Changes no answer.
    pub fn touch<'a>(&self, issuers: impl Iterator<Item = &'a DeviceKey> + Clone) {
        let mut sum = 0;
        for issuer in issuers.clone() {
            sum ^= self.index.touch(self.index.hash(&issuer.0));
        }
        for issuer in issuers {
            if let Some(slot) = self.index.candidate(self.index.hash(&issuer.0)) {
                sum ^= self.windows[slot as usize].top;
            }
        }
        core::hint::black_box(sum);
    }

    /// The highest sequence taken from this issuer, if it is in the table.
    #[must_use]
    pub fn top(&self, issuer: &DeviceKey) -> Option<u64> {
        self.find(issuer).map(|slot| self.windows[slot as usize].top)
    }

    /// Whether `sequence` may be taken from this issuer. Changes nothing.
    ///
    /// # Errors
    /// `replayed_sequence` (limit: highest sequence taken) or `stale_sequence` (limit: lowest sequence of the
    /// window).
    pub fn check(&self, issuer: &DeviceKey, sequence: u64) -> Result<(), Rejection> {
        match self.find(issuer) {
            Some(slot) => self.windows[slot as usize].check(sequence),
            None => Ok(()),
        }
    }

    /// Takes `sequence` from this issuer, whatever [`check`](Self::check) says: also used to fill the table
    /// from the log after a start.
    pub fn set(&mut self, issuer: &DeviceKey, sequence: u64) {
        let hash = self.index.hash(&issuer.0);
        match self.index.find(hash, |slot| self.windows[slot as usize].issuer == *issuer) {
            Some(slot) => self.windows[slot as usize].set(sequence),
            None => self.enter(issuer, sequence),
        }
    }

    /// [`check`](Self::check), then [`set`](Self::set).
    ///
    /// # Errors
    /// Those of `check`; nothing is changed then.
    pub fn check_and_set(&mut self, issuer: &DeviceKey, sequence: u64) -> Result<(), Rejection> {
        let hash = self.index.hash(&issuer.0);
        match self.index.find(hash, |slot| self.windows[slot as usize].issuer == *issuer) {
            Some(slot) => {
                let window = &mut self.windows[slot as usize];
                window.check(sequence)?;
                window.set(sequence);
            }
            None => self.enter(issuer, sequence),
        }
        Ok(())
    }

    fn enter(&mut self, issuer: &DeviceKey, sequence: u64) {
        let hash = self.index.hash(&issuer.0);
        // A newcomer has no second chance yet: a flood of new issuers passes through without pushing out
        // those that stay.
        let window = Window { issuer: *issuer, top: sequence, taken: 1, touched: false };
        let slot = if self.windows.len() < self.capacity {
            self.windows.push(window);
            self.windows.len() - 1
        } else {
            let slot = self.victim();
            let evicted = core::mem::replace(&mut self.windows[slot], window);
            self.index.remove(self.index.hash(&evicted.issuer.0), slot as u32);
            self.evictions += 1;
            slot
        };
        self.index.insert(hash, slot as u32);
    }

    /// Moves the hand to the slot to be taken over.
    fn victim(&mut self) -> usize {
        for _ in 0..SWEEP_SLOTS_MAX {
            let slot = self.step();
            if !core::mem::take(&mut self.windows[slot].touched) {
                return slot;
            }
        }
        self.step()
    }

    fn step(&mut self) -> usize {
        let slot = self.hand;
        self.hand = if slot + 1 == self.capacity { 0 } else { slot + 1 };
        slot
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn key(number: u64) -> DeviceKey {
        DeviceKey(crate::merkle::leaf_hash(&number.to_le_bytes()))
    }

    #[test]
    fn a_sequence_is_taken_once() {
        let mut table = ReplayTable::new(4, 1);
        assert_eq!(table.check_and_set(&key(1), 5), Ok(()));
        assert_eq!(table.check_and_set(&key(1), 5), Err(Reason::ReplayedSequence.with(5, 5)));
        assert_eq!(table.check_and_set(&key(1), 9), Ok(()));
        assert_eq!(table.check_and_set(&key(1), 7), Ok(()));
        assert_eq!(table.check_and_set(&key(1), 7), Err(Reason::ReplayedSequence.with(7, 9)));
        assert_eq!(table.check_and_set(&key(2), 5), Ok(()), "another issuer has its own window");
    }

    #[test]
    fn a_sequence_below_the_window_is_stale_and_the_window_is_64_wide() {
        let mut table = ReplayTable::new(4, 1);
        table.set(&key(1), 1_000);
        assert_eq!(table.check(&key(1), 937), Ok(()));
        assert_eq!(table.check(&key(1), 936), Err(Reason::StaleSequence.with(936, 937)));
        assert_eq!(table.check(&key(1), 0), Err(Reason::StaleSequence.with(0, 937)));
        table.set(&key(1), 937);
        assert_eq!(table.check(&key(1), 937), Err(Reason::ReplayedSequence.with(937, 1_000)));
        table.set(&key(1), u64::MAX);
        assert_eq!(table.check(&key(1), u64::MAX), Err(Reason::ReplayedSequence.with(u64::MAX, u64::MAX)));
        assert_eq!(table.check(&key(1), u64::MAX - 63), Ok(()));
        assert_eq!(table.check(&key(1), 1_000), Err(Reason::StaleSequence.with(1_000, u64::MAX - 63)));
    }

    #[test]
    fn a_check_alone_burns_no_sequence() {
        let mut table = ReplayTable::new(4, 1);
        assert_eq!(table.check(&key(1), 5), Ok(()));
        assert_eq!(table.check(&key(1), 5), Ok(()));
        assert!(table.is_empty());
        table.set(&key(1), 5);
        assert_eq!(table.check(&key(1), 5), Err(Reason::ReplayedSequence.with(5, 5)));
    }

    #[test]
    fn a_full_table_stays_at_its_limit_and_lets_the_silent_go_first() {
        let mut table = ReplayTable::new(32, 1);
        for issuer in 0..32 {
            table.set(&key(issuer), 100);
        }
        // Issuers 0 to 15 go on sending while strangers pass through, each heard of once.
        for round in 0..200 {
            for issuer in 0..16 {
                assert_eq!(
                    table.check_and_set(&key(issuer), 101 + round),
                    Ok(()),
                    "issuer {issuer} was evicted"
                );
            }
            table.set(&key(1_000 + round), 1);
            assert_eq!(table.len(), 32);
        }
        for issuer in 0..16 {
            assert_eq!(table.top(&key(issuer)), Some(300));
            assert_eq!(table.check(&key(issuer), 100), Err(Reason::StaleSequence.with(100, 237)));
        }
        assert_eq!(table.evictions(), 200);
        assert!((16..32).all(|issuer| table.top(&key(issuer)).is_none()));
        assert_eq!(table.windows.capacity(), 32);
    }

    #[test]
    fn an_eviction_looks_at_a_bounded_number_of_slots() {
        let mut table = ReplayTable::new(1_000, 1);
        for _ in 0..2 {
            (0..1_000).for_each(|issuer| table.set(&key(issuer), 5));
        }
        table.set(&key(5_000), 1);
        // All had their second chance: the hand stopped after its limit and took that slot.
        assert_eq!(table.hand, SWEEP_SLOTS_MAX + 1);
        assert_eq!(table.top(&key(SWEEP_SLOTS_MAX as u64)), None);
        assert_eq!((table.len(), table.top(&key(5_000))), (1_000, Some(1)));
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set_of_all_sequences_taken(
            start in prop_oneof![Just(0u64), Just(1_000), Just(u64::MAX - 200)],
            steps in prop::collection::vec((0u64..200, any::<bool>()), 1..300),
        ) {
            let mut table = ReplayTable::new(2, 3);
            let mut twin = BTreeSet::new();
            for (step, far) in steps {
                let sequence = start + if far { step } else { step % 70 };
                let lowest = twin.last().map_or(0, |top: &u64| top.saturating_sub(WINDOW - 1));
                let expected = if sequence < lowest {
                    Err(Reason::StaleSequence)
                } else if twin.contains(&sequence) {
                    Err(Reason::ReplayedSequence)
                } else {
                    Ok(())
                };
                prop_assert_eq!(table.check(&key(7), sequence).map_err(|refused| refused.reason), expected);
                prop_assert_eq!(table.check_and_set(&key(7), sequence).map_err(|refused| refused.reason), expected);
                if expected.is_ok() {
                    twin.insert(sequence);
                }
            }
        }
    }
}
