//! The seam through which tests make a device fail: nothing else sets these.
//!
//! Each fault happens where the real one would be noticed: wrong bits in what is read back, a device destroyed between
//! submission and answer, a panic inside the driver's interface, a buffer that the driver does not give.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Faults to inject. The default injects none.
#[derive(Debug, Default)]
pub struct Faults {
    wrong_row: AtomicUsize,
    lose_in: AtomicUsize,
    panic_in: AtomicUsize,
    failing_allocations: AtomicUsize,
    poisoned: AtomicUsize,
    credulous: AtomicUsize,
}

impl Faults {
    /// From now on the verdict of row `row` of every batch comes back inverted (rows count canaries too).
    pub fn wrong_verdict_at(&self, row: usize) {
        self.wrong_row.store(row + 1, Ordering::Relaxed);
    }

    /// The device is destroyed right after the `batches`-th next submission (from 1).
    pub fn lose_device_in(&self, batches: usize) {
        self.lose_in.store(batches, Ordering::Relaxed);
    }

    /// The driver's interface panics at the `batches`-th next submission (from 1).
    pub fn panic_in(&self, batches: usize) {
        self.panic_in.store(batches, Ordering::Relaxed);
    }

    /// The next `count` attempts to allocate a device's buffers fail.
    pub fn fail_allocations(&self, count: usize) {
        self.failing_allocations.store(count, Ordering::Relaxed);
    }

    /// Before the next submission, the first `entries` resident entries get another x; the keys beside them stay.
    pub fn poison_residents(&self, entries: usize) {
        self.poisoned.store(entries, Ordering::Relaxed);
    }

    /// From now on every row is accepted and every equation holds.
    pub fn accept_everything(&self) {
        self.credulous.store(1, Ordering::Relaxed);
    }

    /// From now on the equation at this place of every batch holds, canaries' counted, and its rows are accepted.
    pub fn accept_equation(&self, place: usize) {
        self.credulous.store(place + 2, Ordering::Relaxed);
    }

    pub(crate) fn accepts(&self, place: usize) -> bool {
        match self.credulous.load(Ordering::Relaxed) {
            0 => false,
            1 => true,
            n => n == place + 2,
        }
    }

    pub(crate) fn accepts_all(&self) -> bool {
        self.credulous.load(Ordering::Relaxed) == 1
    }

    /// Entries to be poisoned now.
    pub(crate) fn poisoned(&self) -> usize {
        self.poisoned.swap(0, Ordering::Relaxed)
    }

    pub(crate) fn wrong_row(&self) -> Option<usize> {
        self.wrong_row.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Counts a submission; true for the one that loses the device.
    pub(crate) fn loses_now(&self) -> bool {
        count_down(&self.lose_in) == Some(0)
    }

    /// Counts a submission; panics at the one that was named.
    pub(crate) fn maybe_panic(&self) {
        assert!(count_down(&self.panic_in) != Some(0), "an injected fault");
    }

    /// Counts an allocation; true if it fails.
    pub(crate) fn allocation_fails(&self) -> bool {
        count_down(&self.failing_allocations).is_some()
    }
}

/// Takes one from a counter that is not zero; what remains.
fn count_down(counter: &AtomicUsize) -> Option<usize> {
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
        .ok()
        .map(|before| before - 1)
}
