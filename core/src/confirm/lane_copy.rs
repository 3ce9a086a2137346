//! A node's copy of one lane beyond final, other copies of it that were seen, and the lane's watermarks.
//!
//! Owns what is held of a lane in memory: the batches beyond final, in order; up to [`SIDES_MAX`] other histories
//! after a fork; the ends of final batches for as long as an operation below them is not settled, or the own cut has not come
//! so far. Invariants:
//! `final <= shown <= applied <= held`; entries are linked by their roots, so a root fixes everything before it; a
//! side parts from the copy at or beyond final. What makes watermarks move is left to [`count`](super::count), what
//! may be applied to [`machine`](super::machine).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::digest::BatchDigest;
use super::quorum::ValidatorSet;
use super::transfer::Operation;
use crate::merkle::{EMPTY_ROOT, Hash};

/// Batches of one lane beyond final that are held in memory, at most: with full batches 67 million messages. A node that is
/// further behind takes the rest from its own log as final moves, see [`Machine::has_room`](super::machine::Machine::has_room).
pub const HELD_BATCHES_MAX: usize = 16_384;

/// Memory of these batches, at most (one more batch may go beyond it): 4 MiB when they carry data only. What a liar puts into
/// them counts: a batch of operations takes up to 2 MiB, a witness that unfolds to many rejects up to 5 MiB. It has to hold the
/// 256 batches by which a cut may be ahead of final, full of operations: with less, all that is claimed of a lane could lie beyond
/// what is held of it, and final would not move.
pub const HELD_BYTES_MAX: usize = 512 << 20;

/// Other histories of one lane that are kept to count on. Each has at most [`HELD_BATCHES_MAX`] batches; the oldest
/// makes room for a new one, and whoever holds the history that gets certified offers it again.
pub const SIDES_MAX: usize = 4;

/// Where a batch stands at the third gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Not asked yet: its parents may not be final.
    Unknown,
    /// Asked.
    Asked,
    /// Well formed.
    Good,
    /// Ill formed: the lane ends before it.
    Bad,
}

/// A batch beyond final.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) batch: Arc<BatchDigest>,
    pub(crate) form: Form,
}

/// Another history of the lane, from where it parts.
#[derive(Clone, Debug)]
pub(crate) struct Side {
    /// Size at which it parts: the first position that differs.
    pub(crate) from: u64,
    pub(crate) batches: Vec<Arc<BatchDigest>>,
    /// Memory of the batches.
    bytes: usize,
}

impl Side {
    fn new(from: u64, batches: Vec<Arc<BatchDigest>>) -> Self {
        let bytes = batches.iter().map(|batch| batch.held_bytes()).sum();
        Self { from, batches, bytes }
    }

    fn push(&mut self, batch: Arc<BatchDigest>) {
        self.bytes += batch.held_bytes();
        self.batches.push(batch);
    }

    fn has_room(&self) -> bool {
        self.batches.len() < HELD_BATCHES_MAX && self.bytes < HELD_BYTES_MAX
    }

    pub(crate) fn size(&self) -> u64 {
        self.batches.last().map_or(self.from, |batch| batch.size())
    }

    pub(crate) fn root_at(&self, size: u64) -> Option<&Hash> {
        let at = self.batches.binary_search_by_key(&size, |batch| batch.size()).ok()?;
        Some(self.batches[at].root())
    }
}

/// The votes on one operation.
#[derive(Clone, Debug)]
pub(crate) struct OperationVotes {
    pub(crate) operation: Operation,
    /// Level 1: weight whose followed cuts cover it; of these without and with a reject.
    pub(crate) covered: u64,
    pub(crate) accepting: u64,
    pub(crate) rejecting: u64,
    /// Level 1 was reached. It stays.
    pub(crate) accepted: bool,
    /// Level 2: validators whose witnesses below final accept it, and reject it.
    pub(crate) final_accepting: ValidatorSet,
    pub(crate) final_accepting_weight: u64,
    pub(crate) final_rejecting: ValidatorSet,
    pub(crate) final_rejecting_weight: u64,
}

impl OperationVotes {
    fn new(operation: Operation) -> Self {
        Self {
            operation,
            covered: 0,
            accepting: 0,
            rejecting: 0,
            accepted: false,
            final_accepting: ValidatorSet::default(),
            final_accepting_weight: 0,
            final_rejecting: ValidatorSet::default(),
            final_rejecting_weight: 0,
        }
    }
}

/// What a new batch is to a lane's copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    /// It extends the copy.
    Next,
    /// It is held already.
    Held,
    /// It is the first of a new side, which parts at this size.
    Fork(u64),
    /// It extends side `.0`.
    Side(usize),
    /// It belongs to nothing that is here, or there is no room.
    Stray,
}

/// One lane.
#[derive(Clone, Debug)]
pub(crate) struct LaneCopy {
    pub(crate) final_size: u64,
    pub(crate) final_root: Hash,
    pub(crate) entries: VecDeque<Entry>,
    /// Memory of the entries.
    bytes: usize,
    pub(crate) applied: u64,
    /// Size that the shell reported durable.
    pub(crate) durable: u64,
    pub(crate) sides: Vec<Side>,
    /// Where the lane is known to part first. Such a lane is closed.
    pub(crate) fork: Option<u64>,
    /// Whether a proof of that was handed out.
    pub(crate) fork_told: bool,
    /// Where an ill-formed batch ends this copy.
    pub(crate) ended: Option<u64>,
    /// Ends of final batches, above the oldest operation that is not settled, and from the own cut on.
    ends: VecDeque<(u64, Hash)>,
    /// Operations that are not settled, by position.
    pub(crate) operations: BTreeMap<u64, OperationVotes>,
    /// Highest size that is certified by what is counted.
    pub(crate) certified: u64,
    /// Highest size that is certified and applied: what this node shows and states.
    pub(crate) shown: u64,
    /// Highest size that a quorum's certified cuts contain; final once it is applied.
    pub(crate) final_level: u64,
    /// Weights counted beyond these watermarks.
    pub(crate) ahead_cut: u64,
    pub(crate) ahead_third: u64,
    pub(crate) ahead_final: u64,
}

impl Default for LaneCopy {
    fn default() -> Self {
        Self {
            final_size: 0,
            final_root: EMPTY_ROOT,
            entries: VecDeque::new(),
            bytes: 0,
            applied: 0,
            durable: 0,
            sides: Vec::new(),
            fork: None,
            fork_told: false,
            ended: None,
            ends: VecDeque::new(),
            operations: BTreeMap::new(),
            certified: 0,
            shown: 0,
            final_level: 0,
            ahead_cut: 0,
            ahead_third: 0,
            ahead_final: 0,
        }
    }
}

impl LaneCopy {
    /// Size of the copy.
    pub(crate) fn held(&self) -> u64 {
        self.entries.back().map_or(self.final_size, |entry| entry.batch.size())
    }

    fn head_root(&self) -> &Hash {
        self.entries.back().map_or(&self.final_root, |entry| entry.batch.root())
    }

    /// Index of the entry that ends at or is the first to end beyond `size`.
    fn entry_beyond(&self, size: u64) -> usize {
        self.entries.partition_point(|entry| entry.batch.size() <= size)
    }

    /// The batch that starts at `size`.
    pub(crate) fn entry_at(&self, size: u64) -> Option<&Entry> {
        self.entries.get(self.entry_beyond(size)).filter(|entry| entry.batch.first() == size)
    }

    pub(crate) fn entry_at_mut(&mut self, size: u64) -> Option<&mut Entry> {
        let index = self.entry_beyond(size);
        self.entries.get_mut(index).filter(|entry| entry.batch.first() == size)
    }

    /// Root of the copy at `size`, if that is the end of a batch beyond final, or final itself.
    pub(crate) fn root_at(&self, size: u64) -> Option<&Hash> {
        if size == self.final_size {
            return Some(&self.final_root);
        }
        let at = self.entries.binary_search_by_key(&size, |entry| entry.batch.size()).ok()?;
        Some(self.entries[at].batch.root())
    }

    /// The entries that end in `(from, to]`.
    pub(crate) fn between(&self, from: u64, to: u64) -> impl Iterator<Item = &Entry> {
        let start = self.entry_beyond(from);
        self.entries.range(start..).take_while(move |entry| entry.batch.size() <= to)
    }

    /// The highest end of a batch that is at most `size` and at most `batches` beyond final.
    pub(crate) fn end_within(&self, size: u64, batches: usize) -> u64 {
        let index = self.entry_beyond(size).min(batches);
        index.checked_sub(1).map_or(self.final_size, |last| self.entries[last].batch.size())
    }

    /// Where a batch belongs.
    pub(crate) fn fit(&self, batch: &BatchDigest) -> Fit {
        let first = batch.first();
        if first == self.held() && batch.before() == self.head_root() {
            return if self.has_room() { Fit::Next } else { Fit::Stray };
        }
        if first < self.final_size {
            return Fit::Stray;
        }
        if self.root_at(first) == Some(batch.before()) {
            return match self.entry_at(first) {
                Some(entry) if entry.batch.root() == batch.root() => Fit::Held,
                Some(_) if self.sides.iter().any(|side| side.root_at(batch.size()) == Some(batch.root())) => {
                    Fit::Held
                }
                Some(_) => Fit::Fork(first),
                None => Fit::Stray,
            };
        }
        if self.sides.iter().any(|side| side.root_at(batch.size()) == Some(batch.root())) {
            return Fit::Held;
        }
        let before = batch.before();
        let found = self.sides.iter().position(|side| side.root_at(first) == Some(before));
        found.map_or(Fit::Stray, Fit::Side)
    }

    /// Whether another batch may be held.
    pub(crate) fn has_room(&self) -> bool {
        self.entries.len() < HELD_BATCHES_MAX && self.bytes < HELD_BYTES_MAX
    }

    /// Appends a batch that fits as [`Fit::Next`].
    pub(crate) fn append(&mut self, batch: Arc<BatchDigest>) {
        self.bytes += batch.held_bytes();
        for placed in batch.operations() {
            self.operations.insert(placed.position, OperationVotes::new(placed.operation));
        }
        self.entries.push_back(Entry { batch, form: Form::Unknown });
    }

    /// Adds a batch that fits as [`Fit::Fork`] or [`Fit::Side`]; the side that it lies on now.
    pub(crate) fn add_to_side(&mut self, batch: Arc<BatchDigest>, fit: Fit) -> Option<usize> {
        let mut side = match fit {
            Fit::Fork(from) => Side::new(from, Vec::new()),
            Fit::Side(index) => {
                let side = self.sides.get_mut(index)?;
                if side.size() == batch.first() {
                    if side.has_room() {
                        side.push(batch);
                    }
                    return Some(index);
                }
                // A fork of the fork: a side of its own, with what both share.
                let shared = side.batches.iter().take_while(|held| held.size() <= batch.first());
                Side::new(side.from, shared.cloned().collect())
            }
            _ => return None,
        };
        side.push(batch);
        if self.sides.len() == SIDES_MAX {
            self.sides.remove(0);
        }
        self.sides.push(side);
        Some(self.sides.len() - 1)
    }

    /// Puts side `index` in the place of the copy beyond where they part; that size, and the batches let go of.
    pub(crate) fn switch(&mut self, index: usize) -> (u64, Vec<Arc<BatchDigest>>) {
        let side = self.sides.swap_remove(index);
        let from = side.from;
        let keep = self.entry_beyond(from);
        let dropped: Vec<Arc<BatchDigest>> = self.entries.drain(keep..).map(|entry| entry.batch).collect();
        self.bytes -= dropped.iter().map(|batch| batch.held_bytes()).sum::<usize>();
        self.operations.split_off(&from);
        side.batches.into_iter().for_each(|batch| self.append(batch));
        // A side that parts from what was let go of has lost its beginning.
        self.sides.retain(|side| side.from <= from);
        self.rebase_sides();
        self.applied = self.applied.min(from);
        self.durable = self.durable.min(from);
        self.shown = self.shown.min(from);
        if self.ended.is_some_and(|ended| ended >= from) {
            self.ended = None;
        }
        (from, dropped)
    }

    /// After a change of the copy: what a side shares with it is no part of the side any more, and a side that only
    /// goes on where the copy ends is part of the copy. Otherwise the copy would seem to be certified beyond the
    /// place where they part, and would change for a history that it has already.
    fn rebase_sides(&mut self) {
        for mut side in core::mem::take(&mut self.sides) {
            let shared = side
                .batches
                .iter()
                .take_while(|batch| self.root_at(batch.size()) == Some(batch.root()))
                .count();
            if let Some(last) = shared.checked_sub(1).and_then(|last| side.batches.get(last)) {
                side.from = last.size();
            }
            side.batches.drain(..shared);
            if side.from == self.held() {
                side.batches.into_iter().for_each(|batch| self.append(batch));
            } else if !side.batches.is_empty() {
                self.sides.push(Side::new(side.from, side.batches));
            }
        }
    }

    /// Moves final over the first entry and hands it out.
    pub(crate) fn finalize_next(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.batch.held_bytes();
        (self.final_size, self.final_root) = (entry.batch.size(), *entry.batch.root());
        self.ends.push_back((self.final_size, self.final_root));
        let size = self.final_size;
        self.sides.retain(|side| side.from >= size);
        Some(entry)
    }

    /// Whether a reject of this position still matters: it lies beyond final, or its operation is not settled.
    pub(crate) fn may_be_rejected(&self, position: u64) -> bool {
        position >= self.final_size || self.operations.contains_key(&position)
    }

    /// Those of these positions, which rise, that may be rejected, rising. Below final it costs as much as they do or the operations that
    /// are not settled, whichever are fewer: a witness may name a hundred thousand positions and mean none.
    pub(crate) fn rejectable<'a>(
        &'a self,
        positions: &'a [u64],
    ) -> impl DoubleEndedIterator<Item = u64> + 'a {
        let (below, beyond) = positions.split_at(positions.partition_point(|at| *at < self.final_size));
        let few = below.len() <= self.operations.len();
        let (named, unsettled) = if few { (below, None) } else { (&[][..], below.first().zip(below.last())) };
        let named = named.iter().copied().filter(|at| self.operations.contains_key(at));
        let unsettled = unsettled.map(|(first, last)| self.operations.range(*first..=*last));
        let unsettled = unsettled.into_iter().flatten().map(|operation| *operation.0);
        let unsettled = unsettled.filter(|at| below.binary_search(at).is_ok());
        named.chain(unsettled).chain(beyond.iter().copied())
    }

    /// Root of the final prefix that ends at `size`; only for sizes above an operation that is not settled.
    pub(crate) fn final_root_at(&self, size: u64) -> Option<&Hash> {
        let at = self.ends.binary_search_by_key(&size, |end| end.0).ok()?;
        Some(&self.ends[at].1)
    }

    /// Root of the copy at `size`, below final as far as ends are kept.
    pub(crate) fn known_root(&self, size: u64) -> Option<&Hash> {
        self.root_at(size).or_else(|| self.final_root_at(size))
    }

    /// The highest end of a batch that is at most `limit` and at most `batches` beyond the end `from`.
    pub(crate) fn end_beyond(&self, from: u64, batches: usize, limit: u64) -> Option<(u64, Hash)> {
        let start = self.ends.partition_point(|end| end.0 <= from);
        let below = self.ends.partition_point(|end| end.0 <= limit).saturating_sub(start);
        let first = self.entry_beyond(from);
        let beyond = self.entry_beyond(limit).saturating_sub(first);
        let last = (below + beyond).min(batches).checked_sub(1)?;
        match last.checked_sub(below) {
            None => self.ends.get(start + last).copied(),
            Some(last) => {
                let batch = &self.entries.get(first + last)?.batch;
                Some((batch.size(), *batch.root()))
            }
        }
    }

    /// Ends below final that are kept beyond `from`.
    pub(crate) fn ends_beyond(&self, from: u64) -> usize {
        self.ends.len() - self.ends.partition_point(|end| end.0 <= from)
    }

    /// Lets go of ends that neither an operation nor the own cut, which reaches to `own`, needs.
    pub(crate) fn prune_ends(&mut self, own: u64) {
        let oldest = self.operations.keys().next().copied().unwrap_or(u64::MAX);
        while self.ends.front().is_some_and(|end| end.0 <= oldest && end.0 < own) {
            self.ends.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;

    use super::super::transfer::OperationHash;
    use super::*;
    use crate::ids::{DeviceKey, MessageId};
    use crate::random::{RandomSource as _, SplitMix64};

    #[test]
    fn what_may_be_rejected_of_many_positions_is_what_may_be_rejected_of_each() {
        let operation = Operation {
            account: DeviceKey([1; 32]),
            sequence: 0,
            hash: OperationHash([2; 32]),
            to: DeviceKey([3; 32]),
            amount: 1,
            message: MessageId([4; 32]),
        };
        let mut random = SplitMix64::new(7);
        for round in 0..2_000 {
            let mut some =
                |most: u64| -> BTreeSet<u64> { (0..random.below(most)).map(|_| random.below(200)).collect() };
            // Now the one is longer, now the other.
            let (operations, positions) = (some(60), some(60));
            let mut lane = LaneCopy { final_size: random.below(220), ..LaneCopy::default() };
            for at in operations {
                lane.operations.insert(at, OperationVotes::new(operation));
            }
            let positions: Vec<u64> = positions.into_iter().collect();
            let each: Vec<u64> = positions.iter().copied().filter(|at| lane.may_be_rejected(*at)).collect();
            assert_eq!(lane.rejectable(&positions).collect::<Vec<_>>(), each, "{round}");
            let back: Vec<u64> = lane.rejectable(&positions).rev().collect();
            assert_eq!(back, each.into_iter().rev().collect::<Vec<_>>(), "{round}, from the back");
        }
    }
}
