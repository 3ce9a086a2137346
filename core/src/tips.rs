//! Tips: messages that nothing names yet, handed out as parents for new ones.
//!
//! Owns the bounded pool of tips and the three selections. Invariants: at most `tips_max` tips in all and
//! [`TIPS_PER_ISSUER_MAX`] of one issuer, the oldest leaving first; a selection never holds two equal ids;
//! with no tips it holds the genesis roots, so that two parents can always be had. A tip that leaves loses
//! nothing: confirmation does not depend on being named (design, section 4). Which messages may be handed out
//! (final ones, or those of the own lane) is the caller's: it enters no others.
//!
//! * [`TipSelection::Default`]: the recent witness, when there is one, then issuers drawn uniformly and of
//!   each one of its tips drawn uniformly. A flood by few issuers fills few draws, whatever its rate.
//! * [`TipSelection::Urts`]: uniform over tips (Popov, "The Tangle", section 3): steady state at `L0 = k *
//!   lambda * h / (k - 1)` tips for k parents, lambda messages a second and h seconds from choosing a parent
//!   to being entered.
//! * [`TipSelection::Mcmc`]: random walks towards the tips, weighted by cumulative weight (section 4.1 of the
//!   same paper), in a window of [`WALK_MESSAGES_MAX`] messages.
//!
//! Memory: 100 bytes a tip and 85 an issuer with tips at most, below 1 MiB with the default limit; MCMC adds
//! 1 MiB.

mod walk;

use alloc::vec::Vec;

use crate::ids::{DeviceKey, MessageId, Place};
use crate::index::SlotIndex;
use crate::random::RandomSource;
use walk::Walk;
pub use walk::{WALK_MESSAGES_MAX, WEIGHTS_AGE_MAX};

/// Default of `tips_max`: ten times the tips of a steady state with 100,000 messages a second and 2 ms from
/// choice to entry, and below 1 MiB in all.
pub const TIPS_DEFAULT: usize = 4_096;

/// Limit of `tips_max`.
pub const TIPS_MAX: usize = 65_536;

/// Tips kept of one issuer: enough for a gateway's batch to be named by its next one, few enough that one
/// flood is one 64th of the pool.
pub const TIPS_PER_ISSUER_MAX: u32 = 64;

/// Draws that may hit what is chosen already, per tip asked for, before a selection makes do with fewer.
const TRIES_PER_TIP: usize = 4;

const NONE: u32 = u32::MAX;

/// How tips are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum TipSelection {
    /// One recent witness, when there is one, then uniform over issuers, then uniform over the issuer's tips.
    #[default]
    Default,
    /// Uniform over tips.
    Urts,
    /// Weighted random walks.
    Mcmc {
        /// How strongly a walk prefers heavy messages: 0 is a plain random walk. Negative values and NaN
        /// count as 0.
        alpha: f64,
    },
}

/// A message to name as a parent, with where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tip {
    /// The message.
    pub id: MessageId,
    /// Its place.
    pub place: Place,
}

#[derive(Debug)]
struct Entry {
    tip: Tip,
    issuer: u32,
    /// Index in `TipPool::live`.
    at: u32,
    /// Neighbours among the issuer's tips.
    by_issuer: Links,
    /// Neighbours among all tips.
    by_age: Links,
}

#[derive(Clone, Copy, Debug)]
struct Links {
    older: u32,
    newer: u32,
}

/// Ends of a list.
#[derive(Clone, Copy, Debug)]
struct Ends {
    oldest: u32,
    newest: u32,
}

impl Ends {
    const EMPTY: Self = Self { oldest: NONE, newest: NONE };

    /// Appends slot `new`: links that it gets. `links` gives the links of a slot.
    fn append(&mut self, entries: &mut [Entry], new: u32, links: fn(&mut Entry) -> &mut Links) {
        *links(&mut entries[new as usize]) = Links { older: self.newest, newer: NONE };
        match self.newest {
            NONE => self.oldest = new,
            newest => links(&mut entries[newest as usize]).newer = new,
        }
        self.newest = new;
    }

    /// Takes slot `old` out.
    fn unlink(&mut self, entries: &mut [Entry], old: u32, links: fn(&mut Entry) -> &mut Links) {
        let Links { older, newer } = *links(&mut entries[old as usize]);
        match older {
            NONE => self.oldest = newer,
            older => links(&mut entries[older as usize]).newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => links(&mut entries[newer as usize]).older = older,
        }
    }
}

#[derive(Debug)]
struct Issuer {
    key: DeviceKey,
    /// Index in `TipPool::live_issuers`.
    at: u32,
    tips: u32,
    ends: Ends,
}

/// The bounded pool of tips.
#[derive(Debug)]
pub struct TipPool {
    selection: TipSelection,
    roots: [MessageId; 2],
    witness: Option<Tip>,
    tips_max: usize,
    by_id: SlotIndex,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Slots of all tips, in no order: what uniform draws are made from.
    live: Vec<u32>,
    ends: Ends,
    by_key: SlotIndex,
    issuers: Vec<Issuer>,
    free_issuers: Vec<u32>,
    live_issuers: Vec<u32>,
    walk: Option<Walk>,
}

/// Exchanges two slots of a list of live slots and tells each owner its new index.
fn swap(live: &mut [u32], a: usize, b: usize, mut set_at: impl FnMut(u32, u32)) {
    live.swap(a, b);
    set_at(live[a], a as u32);
    set_at(live[b], b as u32);
}

impl TipPool {
    /// An empty pool of at most `tips_max` tips (cut to 2..=[`TIPS_MAX`]) above the genesis `roots`. `seed`
    /// is any number not known outside the process.
    #[must_use]
    pub fn new(selection: TipSelection, roots: [MessageId; 2], tips_max: usize, seed: u64) -> Self {
        let tips_max = tips_max.clamp(2, TIPS_MAX);
        let walk = match selection {
            TipSelection::Mcmc { alpha } => Some(Walk::new(alpha, seed)),
            TipSelection::Default | TipSelection::Urts => None,
        };
        Self {
            selection,
            roots,
            witness: None,
            tips_max,
            by_id: SlotIndex::new(tips_max, seed),
            entries: Vec::with_capacity(tips_max),
            free: Vec::new(),
            live: Vec::with_capacity(tips_max),
            ends: Ends::EMPTY,
            by_key: SlotIndex::new(tips_max, seed.rotate_left(32)),
            issuers: Vec::new(),
            free_issuers: Vec::new(),
            live_issuers: Vec::new(),
            walk,
        }
    }

    /// Tips in the pool.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Issuers with tips in the pool.
    #[must_use]
    pub fn issuers(&self) -> usize {
        self.live_issuers.len()
    }

    /// Whether a message is in the pool.
    #[must_use]
    pub fn contains(&self, id: &MessageId) -> bool {
        self.find(id).is_some()
    }

    fn find(&self, id: &MessageId) -> Option<u32> {
        self.by_id.find(self.by_id.hash(&id.0), |slot| self.entries[slot as usize].tip.id == *id)
    }

    /// Enters a message, after its parents, which stop being tips. Once per message, in the order of the log,
    /// also to fill the pool after a start; a message that is in the pool stays where it is.
    pub fn insert(&mut self, id: MessageId, issuer: &DeviceKey, place: Place, parents: &[MessageId]) {
        parents.iter().for_each(|parent| self.approve(parent));
        if let (Some(walk), [left, right]) = (&mut self.walk, parents) {
            walk.insert(id, [*left, *right]);
        }
        if self.contains(&id) {
            return;
        }
        if self.live.len() == self.tips_max {
            self.remove(self.ends.oldest);
        }
        let issuer_slot = self.issuer(issuer);
        if self.issuers[issuer_slot as usize].tips == TIPS_PER_ISSUER_MAX {
            self.remove(self.issuers[issuer_slot as usize].ends.oldest);
        }
        let links = Links { older: NONE, newer: NONE };
        let at = self.live.len() as u32;
        let entry =
            Entry { tip: Tip { id, place }, issuer: issuer_slot, at, by_issuer: links, by_age: links };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[slot as usize] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                self.entries.len() as u32 - 1
            }
        };
        self.live.push(slot);
        self.by_id.insert(self.by_id.hash(&id.0), slot);
        self.ends.append(&mut self.entries, slot, |entry| &mut entry.by_age);
        let issuer = &mut self.issuers[issuer_slot as usize];
        issuer.tips += 1;
        issuer.ends.append(&mut self.entries, slot, |entry| &mut entry.by_issuer);
    }

    /// A message is named by another one: it is no tip any more. Nothing happens when it is not in the pool.
    pub fn approve(&mut self, id: &MessageId) {
        if let Some(slot) = self.find(id) {
            self.remove(slot);
        }
    }

    /// Sets the recent witness that the default selection hands out first.
    pub fn set_witness(&mut self, id: MessageId, place: Place) {
        self.witness = Some(Tip { id, place });
    }

    /// Slot of an issuer, new if it has no tips.
    fn issuer(&mut self, key: &DeviceKey) -> u32 {
        let hash = self.by_key.hash(&key.0);
        if let Some(slot) = self.by_key.find(hash, |slot| self.issuers[slot as usize].key == *key) {
            return slot;
        }
        let issuer = Issuer { key: *key, at: self.live_issuers.len() as u32, tips: 0, ends: Ends::EMPTY };
        let slot = match self.free_issuers.pop() {
            Some(slot) => {
                self.issuers[slot as usize] = issuer;
                slot
            }
            None => {
                self.issuers.push(issuer);
                self.issuers.len() as u32 - 1
            }
        };
        self.live_issuers.push(slot);
        self.by_key.insert(hash, slot);
        slot
    }

    fn remove(&mut self, slot: u32) {
        let Entry { tip: Tip { id, .. }, issuer: issuer_slot, at, .. } = self.entries[slot as usize];
        self.by_id.remove(self.by_id.hash(&id.0), slot);
        self.ends.unlink(&mut self.entries, slot, |entry| &mut entry.by_age);
        let last = self.live.len() - 1;
        swap(&mut self.live, at as usize, last, |slot, at| self.entries[slot as usize].at = at);
        self.live.pop();
        self.free.push(slot);
        let issuer = &mut self.issuers[issuer_slot as usize];
        issuer.ends.unlink(&mut self.entries, slot, |entry| &mut entry.by_issuer);
        issuer.tips -= 1;
        if issuer.tips == 0 {
            let (key, at, last) = (issuer.key, issuer.at as usize, self.live_issuers.len() - 1);
            self.by_key.remove(self.by_key.hash(&key.0), issuer_slot);
            swap(&mut self.live_issuers, at, last, |slot, at| self.issuers[slot as usize].at = at);
            self.live_issuers.pop();
            self.free_issuers.push(issuer_slot);
        }
    }

    /// Chooses up to `count` tips, all different; fewer when the pool has fewer, but at least two (or
    /// `count`, if that is less), made up with the genesis roots.
    pub fn select(&mut self, count: usize, random: &mut impl RandomSource) -> Vec<Tip> {
        let mut chosen = Vec::with_capacity(count.min(self.tips_max + 2));
        self.select_into(count, random, &mut chosen);
        chosen
    }

    /// Like [`select`](Self::select), into `chosen`, which is emptied first.
    pub fn select_into(&mut self, count: usize, random: &mut impl RandomSource, chosen: &mut Vec<Tip>) {
        chosen.clear();
        match self.selection {
            TipSelection::Default => {
                chosen.extend(self.witness.filter(|_| count > 0));
                self.draw_by_issuer(count, random, chosen);
            }
            TipSelection::Urts => self.draw_uniform(count, random, chosen),
            TipSelection::Mcmc { .. } => self.draw_by_walk(count, random, chosen),
        }
        for (id, index) in self.roots.into_iter().zip(0..) {
            if chosen.len() < count.min(2) {
                push_new(chosen, Tip { id, place: Place::root(index) });
            }
        }
    }

    /// Draws tips without replacement, by moving those drawn to the front of the list.
    fn draw_uniform(&mut self, count: usize, random: &mut impl RandomSource, chosen: &mut Vec<Tip>) {
        for drawn in 0..self.live.len() {
            if chosen.len() >= count {
                break;
            }
            let other = drawn + random.below((self.live.len() - drawn) as u64) as usize;
            swap(&mut self.live, drawn, other, |slot, at| self.entries[slot as usize].at = at);
            push_new(chosen, self.entries[self.live[drawn] as usize].tip);
        }
    }

    /// Draws one tip each from issuers drawn without replacement; then, if there are fewer issuers than
    /// wanted, with replacement.
    fn draw_by_issuer(&mut self, count: usize, random: &mut impl RandomSource, chosen: &mut Vec<Tip>) {
        let issuers = self.live_issuers.len();
        for drawn in 0..issuers {
            if chosen.len() >= count {
                return;
            }
            let other = drawn + random.below((issuers - drawn) as u64) as usize;
            swap(&mut self.live_issuers, drawn, other, |slot, at| self.issuers[slot as usize].at = at);
            push_new(chosen, self.draw_of_issuer(self.live_issuers[drawn], random));
        }
        for _ in 0..TRIES_PER_TIP * count.min(self.live.len()) {
            if chosen.len() >= count.min(self.live.len()) {
                return;
            }
            let drawn = random.below(issuers as u64) as usize;
            push_new(chosen, self.draw_of_issuer(self.live_issuers[drawn], random));
        }
    }

    /// Draws one tip of an issuer: at most [`TIPS_PER_ISSUER_MAX`] steps along its list.
    fn draw_of_issuer(&self, issuer: u32, random: &mut impl RandomSource) -> Tip {
        let issuer = &self.issuers[issuer as usize];
        let mut slot = issuer.ends.newest;
        if issuer.tips > 1 {
            for _ in 0..random.below(u64::from(issuer.tips)) {
                slot = self.entries[slot as usize].by_issuer.older;
            }
        }
        self.entries[slot as usize].tip
    }

    /// Walks to tips; makes up with uniform ones what walks do not find.
    fn draw_by_walk(&mut self, count: usize, random: &mut impl RandomSource, chosen: &mut Vec<Tip>) {
        if let Some(mut walk) = self.walk.take() {
            walk.refresh();
            for _ in 0..TRIES_PER_TIP * count.min(self.live.len()) {
                if chosen.len() >= count {
                    break;
                }
                let slot = walk.walk(random).and_then(|id| self.find(&id));
                if let Some(slot) = slot {
                    push_new(chosen, self.entries[slot as usize].tip);
                }
            }
            self.walk = Some(walk);
        }
        self.draw_uniform(count, random, chosen);
    }
}

/// Adds a tip unless it is there: selections are short.
fn push_new(chosen: &mut Vec<Tip>, tip: Tip) {
    if chosen.iter().all(|other| other.id != tip.id) {
        chosen.push(tip);
    }
}

#[cfg(test)]
#[path = "tips_tests.rs"]
mod tests;
