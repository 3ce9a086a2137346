//! The DAG, asked about: parents, approvers, past cone, cumulative weight.
//!
//! Owns the queries over any [`DagView`] and [`DagWindow`], a bounded view of the last messages in memory.
//! Invariants: every query takes a limit and visits no more messages than that, and says whether it was cut;
//! order is breadth first and the same in every run. These queries are for inspection: nothing on the way of
//! a message walks the graph (design, section 4).

use alloc::collections::{BTreeSet, VecDeque};
use alloc::vec::Vec;

use crate::ids::MessageId;
use crate::index::SlotIndex;

/// What a graph of messages can be asked.
pub trait DagView {
    /// The two parents of a message; `None` for a message that this view does not hold, the genesis roots
    /// included.
    fn parents(&self, id: &MessageId) -> Option<[MessageId; 2]>;

    /// Messages of this view that name `id` as a parent; none for an id that nothing here names.
    fn approvers(&self, id: &MessageId) -> Vec<MessageId>;
}

/// The messages that one message builds on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PastCone {
    /// Messages in the cone that the view holds, the nearest first, without the message itself.
    pub ids: Vec<MessageId>,
    /// Parents that the view does not hold: genesis roots, and what is older than the view.
    pub beyond: Vec<MessageId>,
    /// Whether the limit was reached before the end of the cone.
    pub is_cut: bool,
}

/// How much was built on one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CumulativeWeight {
    /// The message itself and all that builds on it, directly or not (own weight 1 each; Popov, "The Tangle",
    /// section 2).
    pub weight: u64,
    /// Whether the limit was reached: the weight is then a lower bound.
    pub is_cut: bool,
}

/// The past cone of `id`, at most `limit` messages of it. `None` when the view does not hold `id`.
pub fn past_cone<D: DagView + ?Sized>(view: &D, id: &MessageId, limit: usize) -> Option<PastCone> {
    let mut cone = PastCone::default();
    let mut seen = BTreeSet::from([*id]);
    let mut queue: VecDeque<MessageId> = view.parents(id)?.into();
    while let Some(next) = queue.pop_front() {
        if !seen.insert(next) {
            continue;
        }
        match view.parents(&next) {
            None => cone.beyond.push(next),
            Some(_) if cone.ids.len() == limit => {
                cone.is_cut = true;
                break;
            }
            Some(parents) => {
                cone.ids.push(next);
                queue.extend(parents);
            }
        }
    }
    Some(cone)
}

/// The cumulative weight of `id` in this view, counted up to `limit`.
pub fn cumulative_weight<D: DagView + ?Sized>(view: &D, id: &MessageId, limit: u64) -> CumulativeWeight {
    let mut seen = BTreeSet::from([*id]);
    let mut queue = VecDeque::from([*id]);
    while let Some(next) = queue.pop_front() {
        for approver in view.approvers(&next) {
            if seen.contains(&approver) {
                continue;
            }
            if seen.len() as u64 >= limit {
                return CumulativeWeight { weight: seen.len() as u64, is_cut: true };
            }
            seen.insert(approver);
            queue.push_back(approver);
        }
    }
    CumulativeWeight { weight: seen.len() as u64, is_cut: false }
}

/// No number: the end of a list, or a parent outside the window.
const NONE: u64 = u64::MAX;

/// Messages of one window, at most.
pub const WINDOW_MESSAGES_MAX: usize = 1 << 24;

#[derive(Debug)]
struct Node {
    id: MessageId,
    parents: [MessageId; 2],
    /// Serial numbers of the parents, [`NONE`] where one was not in the window.
    parent_serials: [u64; 2],
    /// First edge that leads here: twice the approver's serial number, plus which parent of it this is.
    first_edge: u64,
    /// Next edge to the same parent, for each of the two edges that leave here.
    next_edges: [u64; 2],
}

/// The last messages, first in, first out, with their edges both ways. Messages have serial numbers in the
/// order of entering; a message is linked to those of its parents that are in the window when it enters.
///
/// Memory: 144 bytes a message plus 16 to 32 in the index.
#[derive(Debug)]
pub struct DagWindow {
    index: SlotIndex,
    /// The message with serial number s is at s modulo capacity.
    ring: Vec<Node>,
    next_serial: u64,
    capacity: usize,
}

impl DagWindow {
    /// A window of the last `capacity` messages (cut to 1..=[`WINDOW_MESSAGES_MAX`]). `seed` is any number
    /// not known outside the process.
    #[must_use]
    pub fn new(capacity: usize, seed: u64) -> Self {
        let capacity = capacity.clamp(1, WINDOW_MESSAGES_MAX);
        Self { index: SlotIndex::new(capacity, seed), ring: Vec::new(), next_serial: 0, capacity }
    }

    /// Messages in the window.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Serial number of the oldest message in the window.
    pub(crate) fn oldest_serial(&self) -> u64 {
        self.next_serial - self.ring.len() as u64
    }

    /// Serial number of the next message.
    pub(crate) const fn next_serial(&self) -> u64 {
        self.next_serial
    }

    /// Where the message with this serial number lies in arrays that go with the window.
    pub(crate) const fn slot(&self, serial: u64) -> usize {
        (serial % self.capacity as u64) as usize
    }

    /// The message with this serial number, which must be in the window.
    pub(crate) fn id(&self, serial: u64) -> &MessageId {
        &self.ring[self.slot(serial)].id
    }

    /// Serial number of a message, if it is in the window.
    fn find(&self, id: &MessageId) -> Option<u64> {
        let slot = self.index.find(self.index.hash(&id.0), |slot| self.ring[slot as usize].id == *id)?;
        let oldest = self.oldest_serial();
        let back = (slot as usize + self.capacity - self.slot(oldest)) % self.capacity;
        Some(oldest + back as u64)
    }

    /// Serial numbers of the parents that are in the window, of the message with this serial number.
    pub(crate) fn parent_serials(&self, serial: u64) -> impl Iterator<Item = u64> + use<> {
        let oldest = self.oldest_serial();
        let parents = self.ring[self.slot(serial)].parent_serials;
        parents.into_iter().filter(move |parent| *parent != NONE && *parent >= oldest)
    }

    /// Serial numbers of the messages that name this one, newest first.
    pub(crate) fn approver_serials(&self, serial: u64) -> impl Iterator<Item = u64> + '_ {
        let mut edge = self.ring[self.slot(serial)].first_edge;
        core::iter::from_fn(move || {
            if edge == NONE {
                return None;
            }
            let approver = edge / 2;
            edge = self.ring[self.slot(approver)].next_edges[(edge % 2) as usize];
            Some(approver)
        })
    }

    /// Enters a message, after its parents. Nothing happens when it is in the window already.
    pub fn insert(&mut self, id: MessageId, parents: [MessageId; 2]) {
        if self.find(&id).is_some() {
            return;
        }
        let serial = self.next_serial;
        let slot = self.slot(serial);
        if self.ring.len() == self.capacity {
            let oldest = self.ring[slot].id;
            self.index.remove(self.index.hash(&oldest.0), slot as u32);
        }
        let mut parent_serials = parents.map(|parent| self.find(&parent).unwrap_or(NONE));
        if parent_serials[0] == parent_serials[1] {
            parent_serials[1] = NONE;
        }
        let mut next_edges = [NONE; 2];
        for (which, parent) in parent_serials.into_iter().enumerate().filter(|(_, parent)| *parent != NONE) {
            let parent = self.slot(parent);
            let first_edge = &mut self.ring[parent].first_edge;
            next_edges[which] = core::mem::replace(first_edge, 2 * serial + which as u64);
        }
        // Edges to the message that leaves are kept by its approvers and no longer reachable; its own led to
        // older ones, gone before.
        let node = Node { id, parents, parent_serials, first_edge: NONE, next_edges };
        if self.ring.len() < self.capacity {
            self.ring.push(node);
        } else {
            self.ring[slot] = node;
        }
        self.index.insert(self.index.hash(&id.0), slot as u32);
        self.next_serial += 1;
    }
}

impl DagView for DagWindow {
    fn parents(&self, id: &MessageId) -> Option<[MessageId; 2]> {
        self.find(id).map(|serial| self.ring[self.slot(serial)].parents)
    }

    fn approvers(&self, id: &MessageId) -> Vec<MessageId> {
        let Some(serial) = self.find(id) else { return Vec::new() };
        self.approver_serials(serial).map(|approver| *self.id(approver)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{RandomSource, SplitMix64};

    fn id(number: u64) -> MessageId {
        MessageId(crate::merkle::leaf_hash(&number.to_le_bytes()))
    }

    /// A window with edges given as (message, parents); numbers from 1,000 on stand for the roots.
    fn window(capacity: usize, edges: &[(u64, [u64; 2])]) -> DagWindow {
        let mut window = DagWindow::new(capacity, 1);
        for (message, parents) in edges {
            window.insert(id(*message), parents.map(id));
        }
        window
    }

    /// ```text
    /// roots <- 1 <- 3 <- 5
    ///       <- 2 <- 4 <-
    /// ```
    const DIAMOND: [(u64, [u64; 2]); 5] =
        [(1, [1_000, 1_001]), (2, [1_000, 1_001]), (3, [1, 1_000]), (4, [2, 1]), (5, [3, 4])];

    #[test]
    fn the_past_cone_is_all_that_a_message_builds_on() {
        let window = window(10, &DIAMOND);
        let cone = past_cone(&window, &id(5), 100).unwrap();
        assert_eq!(cone.ids, [3, 4, 1, 2].map(id));
        assert_eq!(cone.beyond, [1_000, 1_001].map(id));
        assert!(!cone.is_cut);
        assert_eq!(past_cone(&window, &id(1), 100).unwrap().ids, []);
        assert_eq!(past_cone(&window, &id(77), 100), None);
    }

    #[test]
    fn approvers_name_a_message_directly_and_the_weight_counts_all_that_builds_on_it() {
        let window = window(10, &DIAMOND);
        assert_eq!(window.approvers(&id(1)), [4, 3].map(id));
        assert_eq!(window.approvers(&id(5)), []);
        assert_eq!(cumulative_weight(&window, &id(1), 100), CumulativeWeight { weight: 4, is_cut: false });
        assert_eq!(cumulative_weight(&window, &id(2), 100), CumulativeWeight { weight: 3, is_cut: false });
        assert_eq!(cumulative_weight(&window, &id(5), 100), CumulativeWeight { weight: 1, is_cut: false });
    }

    #[test]
    fn queries_stop_at_their_limit_and_say_so() {
        let chain: Vec<_> = (1..=500).map(|n| (n, [n - 1, 1_000])).collect();
        let window = window(1_000, &chain);
        let cone = past_cone(&window, &id(500), 100).unwrap();
        assert_eq!((cone.ids.len(), cone.is_cut), (100, true));
        let cone = past_cone(&window, &id(101), 100).unwrap();
        assert_eq!((cone.ids.len(), cone.is_cut), (100, false));
        assert_eq!(cumulative_weight(&window, &id(1), 100), CumulativeWeight { weight: 100, is_cut: true });
        assert_eq!(
            cumulative_weight(&window, &id(401), 100),
            CumulativeWeight { weight: 100, is_cut: false }
        );
    }

    #[test]
    fn a_full_window_forgets_the_oldest_with_its_edges() {
        let chain: Vec<_> = (1..=50).map(|n: u64| (n, [n - 1, n.saturating_sub(2)])).collect();
        let window = window(10, &chain);
        assert_eq!((window.len(), window.ring.len()), (10, 10));
        assert_eq!(window.parents(&id(40)), None);
        assert_eq!(
            window.parents(&id(41)),
            Some([40, 39].map(id)),
            "parents are named even when they are gone"
        );
        assert_eq!(window.approvers(&id(40)), [], "what the window does not hold has no approvers in it");
        assert_eq!(window.approvers(&id(45)), [47, 46].map(id));
        assert_eq!(past_cone(&window, &id(50), 100).unwrap().beyond, [40, 39].map(id));
    }

    #[test]
    fn a_message_entered_twice_or_with_equal_parents_counts_once() {
        let mut window = window(10, &DIAMOND);
        window.insert(id(5), [3, 4].map(id));
        assert_eq!(window.approvers(&id(3)), [5].map(id));
        window.insert(id(6), [5, 5].map(id));
        assert_eq!(window.approvers(&id(5)), [6].map(id));
    }

    #[test]
    fn edges_agree_with_a_list_of_all_messages_on_random_graphs() {
        for capacity in [1, 2, 17, 64] {
            let mut random = SplitMix64::new(capacity as u64);
            let mut window = DagWindow::new(capacity, 5);
            let mut all: Vec<(MessageId, [MessageId; 2])> = Vec::new();
            let mut edges = 0;
            for number in 0..600u64 {
                let parents = [0, 1].map(|_| id(number.wrapping_sub(1 + random.below(2 * capacity as u64))));
                window.insert(id(number), parents);
                all.push((id(number), parents));
                let held = &all[all.len().saturating_sub(capacity)..];
                for (id, _) in held {
                    let twin: Vec<_> = held
                        .iter()
                        .rev()
                        .filter(|(_, parents)| parents.contains(id))
                        .map(|(id, _)| *id)
                        .collect();
                    assert_eq!(window.approvers(id), twin);
                    edges += twin.len();
                }
            }
            assert!(capacity == 1 || edges > 200, "{edges} edges");
        }
    }
}
