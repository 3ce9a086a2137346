//! What a crash may leave behind.
//!
//! Owns the list of *units* that survive or vanish independently of each other: every name change that no directory sync covered (2
//! outcomes), the allocation of every file that was never synced (2), every sector with versions that no sync made durable (as many
//! outcomes as versions, plus its durable one). A crash state is one outcome for each unit. Few units are enumerated, many are sampled.

use std::path::Path;

use super::{Entry, Names, SimDisk, SimRandom, State};

/// Outcomes for all units of one crash: 0 is "nothing new survived", the highest number "the newest survived".
pub type Outcome = Vec<u32>;

/// Crash states chosen by [`SimDisk::crash_outcomes`].
#[derive(Clone, Debug)]
pub struct Outcomes {
    /// The states, without repetition if `exhaustive`.
    pub outcomes: Vec<Outcome>,
    /// Whether these are all that there are.
    pub exhaustive: bool,
}

impl SimDisk {
    /// Number of outcomes of each unit, in the order that [`SimDisk::crash`] takes them.
    #[must_use]
    pub fn crash_units(&self) -> Vec<u32> {
        let state = self.state();
        let names = state.changes.iter().map(|_| 2);
        let files = state.inodes.iter().flat_map(|inode| {
            let allocation = (!inode.allocated).then_some(2);
            allocation.into_iter().chain(inode.pending.values().map(|versions| versions.len() as u32 + 1))
        });
        names.chain(files).collect()
    }

    /// The disk after a crash with `outcome`: outcomes missing at the end count as 0. Faults are cleared, operations count from 0, and
    /// files that were open belong to the old disk.
    #[must_use]
    pub fn crash(&self, outcome: &[u32]) -> Self {
        let mut state = self.state().clone();
        let mut outcome = outcome.iter().copied();
        let mut next = || outcome.next().unwrap_or(0);
        for change in std::mem::take(&mut state.changes) {
            if next() > 0 {
                change.apply(&mut state.durable);
            }
        }
        for inode in &mut state.inodes {
            let lost = !inode.allocated && next() == 0;
            for (number, versions) in std::mem::take(&mut inode.pending) {
                let survived = (next() as usize).checked_sub(1);
                if let Some(version) = survived.and_then(|i| versions.get(i)) {
                    inode.durable.insert(number, version.bytes.clone());
                }
            }
            if lost {
                inode.length = 0;
                inode.durable.clear();
            }
            inode.allocated = true;
            inode.cache = inode.durable.clone();
        }
        remove_orphans(&mut state.durable);
        Self::from_state(State {
            live: state.durable.clone(),
            operations: Vec::new(),
            faults: std::collections::BTreeMap::new(),
            powered_off: false,
            ..state
        })
    }

    /// Up to `limit` outcomes: all there are if they fit, else the extremes (nothing, everything, everything but one unit, one unit
    /// alone) and random ones.
    #[must_use]
    pub fn crash_outcomes(&self, limit: usize, random: &mut SimRandom) -> Outcomes {
        let units = self.crash_units();
        let count = units.iter().try_fold(1_usize, |count, unit| count.checked_mul(*unit as usize));
        if count.is_some_and(|count| count <= limit) {
            return Outcomes { outcomes: enumerate(&units), exhaustive: true };
        }
        let nothing = vec![0; units.len()];
        let everything: Outcome = units.iter().map(|unit| unit - 1).collect();
        let mut outcomes = vec![nothing.clone(), everything.clone()];
        for i in 0..units.len() {
            for (base, value) in [(&nothing, units[i] - 1), (&everything, 0)] {
                let mut outcome = base.clone();
                outcome[i] = value;
                outcomes.push(outcome);
            }
        }
        outcomes.truncate(limit);
        while outcomes.len() < limit {
            outcomes.push(random_outcome(&units, random));
        }
        Outcomes { outcomes, exhaustive: false }
    }

    /// The disk after a crash chosen at random.
    #[must_use]
    pub fn crash_at_random(&self, random: &mut SimRandom) -> Self {
        self.crash(&random_outcome(&self.crash_units(), random))
    }
}

/// All outcomes, counted up like a number whose digits have the radices `units`.
fn enumerate(units: &[u32]) -> Vec<Outcome> {
    let mut all = vec![vec![0; units.len()]];
    loop {
        let Some(last) = all.last() else { return all };
        let mut next = last.clone();
        let Some(digit) = (0..units.len()).find(|&i| next[i] + 1 < units[i]) else { return all };
        next[digit] += 1;
        next[..digit].fill(0);
        all.push(next);
    }
}

/// Outcomes of different temper: a disk that had written almost all, or almost nothing, or in order up to a point, is as likely as one
/// that tossed a coin for every sector.
fn random_outcome(units: &[u32], random: &mut SimRandom) -> Outcome {
    let temper = random.below(4);
    let cut = random.below(units.len() as u64 + 1) as usize;
    let outcome = |(i, unit): (usize, &u32)| {
        let any = random.below(u64::from(*unit)) as u32;
        match temper {
            0 => any,
            1 if random.one_in(8) => any,
            1 => unit - 1,
            2 if random.one_in(8) => any,
            2 => 0,
            _ if i < cut => unit - 1,
            _ => 0,
        }
    };
    units.iter().enumerate().map(outcome).collect()
}

/// Removes names whose directory did not survive.
fn remove_orphans(names: &mut Names) {
    let known = names.clone();
    let is_directory = |path: &Path| {
        path.as_os_str().is_empty() || path == Path::new("/") || known.get(path) == Some(&Entry::Directory)
    };
    names.retain(|path, _| path.ancestors().skip(1).all(is_directory));
}
