//! Who speaks when: the events of a run, numbered from 0, and the device, cycle and sequence number of each.
//!
//! Owns the mapping from an event to its device. Nothing is remembered per device: event `k` belongs to cycle `k div n`, in which a
//! permutation keyed by seed and cycle ([`feistel`](crate::feistel)) gives each of the `n` devices exactly one event. Its sequence number
//! is the run's base plus the cycle, so numbers rise by one per device, and an auditor who knows seed, `n` and base knows them all.
//!
//! The base is the wall clock in microseconds at the start of the run. A device gains at most one number per event of the whole run, and
//! no generator makes a million events a second for a single device, so a later run on the same ledger begins above everything that an
//! earlier one used, as long as the clock was not set back in between (the node then answers `replayed_sequence` or `stale_sequence`).

use std::num::NonZeroU64;

use crate::feistel::Permutation;

/// The devices of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Population {
    /// Names the population: device keys and orders come from it.
    pub seed: u64,
    /// How many devices there are: numbers `0 .. devices`.
    pub devices: NonZeroU64,
    /// Sequence number of every device in cycle 0.
    pub sequence_base: u64,
}

/// One event: which device speaks, for which time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Number of the device.
    pub device: u64,
    /// How often it has spoken before in this run.
    pub cycle: u64,
    /// Sequence number of its message.
    pub sequence: u64,
}

impl Population {
    /// A reader of the events of this population.
    #[must_use]
    pub fn walk(&self) -> Walk {
        Walk { population: *self, cycle: 0, order: Permutation::new(self.seed, 0, self.devices) }
    }
}

/// Reads events; keeps the permutation of the cycle it was asked for last (80 bytes).
#[derive(Clone, Debug)]
pub struct Walk {
    population: Population,
    cycle: u64,
    order: Permutation,
}

impl Walk {
    /// Event number `event`. Cheapest when asked in order: a new cycle costs a new permutation (a few dozen nanoseconds).
    pub fn event(&mut self, event: u64) -> Event {
        let Population { seed, devices, sequence_base } = self.population;
        let cycle = event / devices;
        if cycle != self.cycle {
            self.cycle = cycle;
            self.order = Permutation::new(seed, cycle, devices);
        }
        Event {
            device: self.order.apply(event % devices),
            cycle,
            sequence: sequence_base.wrapping_add(cycle),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn population(devices: u64) -> Population {
        Population { seed: 9, devices: NonZeroU64::new(devices).unwrap(), sequence_base: 1_000 }
    }

    #[test]
    fn every_device_speaks_once_a_cycle_with_rising_sequence() {
        let devices = 317;
        let mut walk = population(devices).walk();
        let mut spoken = vec![0; devices as usize];
        for event in 0..devices * 5 {
            let Event { device, cycle, sequence } = walk.event(event);
            assert_eq!(cycle, event / devices);
            assert_eq!(sequence, 1_000 + spoken[device as usize]);
            spoken[device as usize] += 1;
        }
        assert!(spoken.iter().all(|times| *times == 5));
    }

    #[test]
    fn events_may_be_asked_for_in_any_order() {
        let mut in_order = population(20).walk();
        let expected: Vec<Event> = (0..100).map(|event| in_order.event(event)).collect();
        let mut backwards = population(20).walk();
        for event in (0..100).rev() {
            assert_eq!(backwards.event(event), expected[event as usize]);
        }
    }

    #[test]
    fn twenty_billion_devices_need_no_memory() {
        let mut walk = population(20_000_000_000).walk();
        for event in [0, 1, 19_999_999_999, 20_000_000_000, 123_456_789_012] {
            assert!(walk.event(event).device < 20_000_000_000);
        }
        assert!(size_of::<Walk>() < 200);
    }
}
