//! Byzantine nodes: they see every node's state, sign what they like, and tell each node something else.
//!
//! Owns the liars' lanes (up to three histories each), their chains of witnesses (one per recipient), and what they
//! do in one step. Invariant: a liar signs with its own key only; everything it sends is authentic (what is not is
//! dropped at the first gate, which the network's damaged batches test).

use std::collections::BTreeMap;
use std::rc::Rc;

use weft_core::confirm::{Claim, Rejects, Witness};
use weft_core::{LaneId, LaneTree, MessageId, PayloadKind, Place, RandomSource, SplitMix64};

use crate::accounts::{Accounts, Who};
use crate::batch::{Sealed, Stored, WitnessMessage};
use crate::node::{Common, Node, following};

/// Histories of one lane.
const HISTORIES_MAX: usize = 3;

/// A chain of witnesses that some recipient is told.
#[derive(Clone, Debug, Default)]
struct Told {
    number: u64,
    last: MessageId,
}

/// All liars of a run.
#[derive(Debug)]
pub struct Liars {
    /// Their lanes; those below the number of validators vote.
    pub lanes: Vec<usize>,
    validators: usize,
    histories: BTreeMap<usize, Vec<Vec<Rc<Stored>>>>,
    told: BTreeMap<(usize, usize), Told>,
    common: Rc<Common>,
    sequence: u64,
}

impl Liars {
    /// Liars that own these lanes.
    #[must_use]
    pub fn new(lanes: Vec<usize>, validators: usize, common: Rc<Common>) -> Self {
        let histories = lanes.iter().map(|lane| (*lane, vec![Vec::new()])).collect();
        Self { lanes, validators, histories, told: BTreeMap::new(), common, sequence: 0 }
    }

    /// A random history of one of their lanes.
    fn history(&self, lane: usize, random: &mut SplitMix64) -> &[Rc<Stored>] {
        let histories = &self.histories[&lane];
        &histories[random.below(histories.len() as u64) as usize]
    }

    fn pick<T: Copy>(items: &[T], random: &mut SplitMix64) -> Option<T> {
        items.get(random.below(items.len() as u64) as usize).copied()
    }

    /// Batches that follow an asker's ends, from a random history of each lane.
    pub fn answer(&self, locators: &[Vec<(u64, [u8; 32])>], random: &mut SplitMix64) -> Vec<Rc<Stored>> {
        let mut batches = Vec::new();
        for lane in &self.lanes {
            if random.below(3) > 0 {
                let ends = locators.get(*lane).map_or(&[][..], Vec::as_slice);
                batches.extend(following(self.history(*lane, random), ends).iter().cloned());
            }
        }
        batches
    }

    /// A witness that says what suits a liar, about what `node` and others hold.
    fn lie(
        &self,
        nodes: &[&Node],
        own: Option<&[Rc<Stored>]>,
        me: usize,
        random: &mut SplitMix64,
    ) -> Witness {
        let mut witness = Witness { covers_data: random.below(2) == 0, ..Witness::default() };
        let certifies = random.below(10) < 6;
        for lane in 0..self.common.keys.len() {
            if random.below(5) == 0 {
                continue;
            }
            let id = LaneId(lane as u16);
            let history: &[Rc<Stored>] = match own {
                Some(own) if lane == me => own,
                _ if self.lanes.contains(&lane) && random.below(2) == 0 => self.history(lane, random),
                _ => match Self::pick(nodes, random) {
                    Some(node) => &node.store[lane],
                    None => continue,
                },
            };
            let Some(last) = history.len().checked_sub(1) else { continue };
            let at = |random: &mut SplitMix64, newest: u64| {
                let at =
                    if random.below(10) < newest { last } else { random.below(last as u64 + 1) as usize };
                &history[at].digest
            };
            let cut = at(random, 7);
            let root = if random.below(20) == 0 { [7; 32] } else { *cut.root() };
            let size = if random.below(50) == 0 { 1 << 30 } else { cut.size() };
            witness.cut.push(Claim { lane: id, size, root });
            if certifies {
                let certified = at(random, 8);
                witness.certified.push(Claim { lane: id, size: certified.size(), root: *certified.root() });
            }
            if random.below(5) == 0 {
                let again = at(random, 0);
                let claim = Claim { lane: id, size: again.size(), root: *again.root() };
                let list =
                    if random.below(2) == 0 { &mut witness.cut_again } else { &mut witness.certified_again };
                list.push(claim);
            }
            let positions: Vec<u64> = history
                .iter()
                .flat_map(|stored| stored.digest.operations())
                .map(|placed| placed.position)
                .filter(|position| *position < size && random.below(7) == 0)
                .collect();
            if !positions.is_empty() {
                witness.rejects.push(Rejects { lane: id, positions });
            }
        }
        witness
    }

    /// A lying validator's next witness for one recipient.
    pub fn witness_for(
        &mut self,
        validator: usize,
        recipient: usize,
        nodes: &[&Node],
        random: &mut SplitMix64,
    ) -> Option<Rc<WitnessMessage>> {
        let mut witness = self.lie(nodes, None, validator, random);
        let told = self.told.get(&(validator, recipient)).cloned().unwrap_or_default();
        (witness.number, witness.predecessor) = (told.number + 1, told.last);
        let (number, message) = (witness.number, self.witness_message(validator, &witness, random)?);
        let view = weft_core::MessageView::parse(&message.bytes).ok()?;
        let told = Told { number, last: view.id() };
        self.told.insert((validator, recipient), told.clone());
        let witness = std::sync::Arc::new(witness);
        Some(Rc::new(WitnessMessage {
            validator: validator as u16,
            id: told.last,
            witness,
            bytes: message.bytes,
        }))
    }

    fn roots(&self) -> [(Place, MessageId); 2] {
        [0, 1].map(|index| (Place::root(index), self.common.roots[usize::from(index)]))
    }

    fn witness_message(
        &mut self,
        validator: usize,
        witness: &Witness,
        random: &mut SplitMix64,
    ) -> Option<Sealed> {
        let payload = witness.encode().ok()?;
        let key = self.common.keys[validator];
        let kind = PayloadKind::WITNESS;
        Some(self.common.ledger.message(&key, kind, &payload, self.roots(), random.next_u64()))
    }

    /// Parents somewhere below, at, or a little beyond what is final at a node; now and then at no such place.
    fn parents(&self, node: &Node, lane: usize, random: &mut SplitMix64) -> [(Place, MessageId); 2] {
        let mut parents = self.roots();
        let cited = LaneId(random.below(self.common.keys.len() as u64) as u16);
        if usize::from(cited.0) == lane || random.below(3) == 0 {
            return parents;
        }
        let store = &node.store[usize::from(cited.0)];
        let limit = node.machine.watermarks(cited).map_or(0, |marks| marks.final_size);
        let beyond = random.below(30) == 0;
        let Some(stored) = store.iter().rfind(|stored| beyond || stored.digest.size() <= limit) else {
            return parents;
        };
        if let Some(entry) = stored.view().message(0) {
            parents[1] = (Place::new(cited, entry.position), entry.message.id());
            if random.below(60) == 0 {
                parents[1].0 = Place::new(cited, entry.position + 1);
            }
        }
        parents
    }

    /// Extends a random history of a random lane, or parts from it first.
    pub fn extend(&mut self, node: &Node, nodes: &[&Node], accounts: &Accounts, random: &mut SplitMix64) {
        let Some(lane) = Self::pick(&self.lanes, random) else { return };
        let histories = self.histories.get_mut(&lane).expect("every liar's lane has histories");
        let mut at = random.below(histories.len() as u64) as usize;
        if histories.len() < HISTORIES_MAX && !histories[at].is_empty() && random.below(10) < 3 {
            let keep = random.below(histories[at].len() as u64) as usize;
            let shared = histories[at][..keep].to_vec();
            histories.push(shared);
            at = histories.len() - 1;
        }
        let history = histories[at].clone();
        let key = self.common.keys[lane];
        let mut messages = Vec::new();
        if lane < self.validators && random.below(10) < 6 {
            let mut witness = self.lie(nodes, Some(&history), lane, random);
            let last = history.iter().rev().find_map(|stored| stored.witness());
            let (number, id) = last.map_or((0, MessageId([0; 32])), |last| (last.witness.number, last.id));
            (witness.number, witness.predecessor) = (number + 1, id);
            messages.extend(self.witness_message(lane, &witness, random));
        } else {
            for _ in 0..random.below(3) {
                let who = [Who::A, Who::E, Who::E, Who::E, Who::P][random.below(5) as usize];
                let next = node.machine.ledger().account(&accounts.key(who).public());
                let mut sequence = next.map_or(0, |account| account.next);
                if random.below(10) == 0 {
                    sequence = if random.below(2) == 0 { sequence + 1 } else { sequence.saturating_sub(1) };
                }
                let payload = accounts.payload(who, sequence, random.below(2) == 0);
                let parents = self.parents(node, lane, random);
                let kind = PayloadKind::TRANSFER;
                let nonce = random.next_u64();
                messages.push(self.common.ledger.message(accounts.key(who), kind, &payload, parents, nonce));
            }
        }
        if messages.is_empty() {
            let (parents, nonce) = (self.parents(node, lane, random), random.next_u64());
            let kind = PayloadKind(200 + random.below(3) as u8);
            messages.push(self.common.ledger.message(&key, kind, b"data", parents, nonce));
        }
        if random.below(80) == 0 {
            // A message that its device never signed.
            if let Some(byte) = messages[0].bytes.last_mut() {
                *byte ^= 1;
            }
        }
        self.sequence += 1;
        let tree = history.last().map_or_else(LaneTree::new, |stored| stored.after.clone());
        let stored = self.common.ledger.seal(&key, LaneId(lane as u16), &tree, &messages);
        if let Some(histories) = self.histories.get_mut(&lane) {
            histories[at].push(stored);
        }
    }

    /// What a liar pushes to one node: the end of a random history, as far as the node does not have it.
    pub fn push_for(&self, node: &Node, random: &mut SplitMix64) -> Vec<Rc<Stored>> {
        let Some(lane) = Self::pick(&self.lanes, random) else { return Vec::new() };
        let ends = node.machine.locator(LaneId(lane as u16));
        let batches = following(self.history(lane, random), &ends);
        batches.iter().take(1 + random.below(3) as usize).cloned().collect()
    }
}
