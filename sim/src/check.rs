//! The invariants of a run, judged after every step, and those of its end.
//!
//! Owns what all honest nodes together have said so far. The names I1 to I11 and L1 to L6 are those of
//! `docs/confirmation.md`. Invariant: the checks use what nodes did and stored, not the machine's own tallies, where the
//! two could be wrong together: final operations and ledger are computed once more from the lanes, by other code.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use weft_core::confirm::{Effect, Operation, Weights};
use weft_core::merkle::Hash;
use weft_core::{DeviceKey, LaneId};

use crate::accounts::SUPPLY;
use crate::batch::Stored;
use crate::node::{Message, Node};

/// What must not happen has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// A violation, as a result.
fn broken<T>(invariant: &'static str, what: impl Into<String>) -> Result<T, Violation> {
    Err(Violation { invariant, what: what.into() })
}

/// An account and one of its sequences.
pub type Sequence = (DeviceKey, u64);

/// What honest nodes have said so far.
#[derive(Debug, Default)]
pub struct Check {
    /// Lanes that honest nodes write, never closed, ended or blamed.
    honest_lanes: BTreeSet<usize>,
    /// Root of each certified batch, by lane and first position.
    certified: BTreeMap<(usize, u64), Hash>,
    accepted: BTreeMap<Sequence, BTreeSet<[u8; 32]>>,
    settled: BTreeMap<Sequence, BTreeSet<[u8; 32]>>,
    /// Batches and witnesses that have left honest nodes.
    batches: BTreeMap<(usize, u64), Hash>,
    witnesses: BTreeMap<(u16, u64), weft_core::MessageId>,
    /// Operations in batches that have left honest nodes.
    handed_in: BTreeSet<Sequence>,
    /// Per node: certified and final sizes seen, per lane.
    seen: BTreeMap<usize, Vec<(u64, u64)>>,
    /// Forks of liars' lanes that nodes have proven, copies changed, lanes ended.
    pub forks: u64,
    /// Copies changed.
    pub switches: u64,
    /// Lanes that an ill-formed batch has ended, at one node.
    pub ended: u64,
    /// Validators that stopped stating.
    pub silenced: u64,
}

impl Check {
    /// Nothing said yet; lanes of `honest` nodes are never to be blamed.
    #[must_use]
    pub fn new(honest: BTreeSet<usize>) -> Self {
        Self { honest_lanes: honest, ..Self::default() }
    }

    /// A node was started anew: what it has not stated may shrink.
    pub fn restarted(&mut self, node: usize) {
        self.seen.remove(&node);
    }

    /// Judges what a node did in one step.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn step(&mut self, node: &mut Node) -> Result<(), Violation> {
        for effect in std::mem::take(&mut node.effects) {
            self.effect(node, &effect)?;
        }
        for message in std::mem::take(&mut node.left) {
            self.left(node, &message)?;
        }
        // I5: watermarks in order.
        for lane in 0..node.store.len() {
            let marks = node.machine.watermarks(LaneId(lane as u16)).ok_or_else(|| Violation {
                invariant: "I5",
                what: format!("lane {lane} is gone at {}", node.id),
            })?;
            let ordered = marks.final_size <= marks.certified
                && marks.certified <= marks.applied
                && marks.applied <= marks.held;
            if !ordered {
                return broken("I5", format!("watermarks of lane {lane} at {}: {marks:?}", node.id));
            }
        }
        Ok(())
    }

    fn effect(&mut self, node: &Node, effect: &Effect) -> Result<(), Violation> {
        let id = node.id;
        match effect {
            Effect::Certified { lane, size } => {
                let lane = usize::from(lane.0);
                let lanes = node.store.len();
                let seen = self.seen.entry(id).or_insert_with(|| vec![(0, 0); lanes]);
                let from = std::mem::replace(&mut seen[lane].0, *size);
                self.certify(id, lane, &node.store[lane], from, *size)
            }
            Effect::Final { lane, size } => {
                let lane = usize::from(lane.0);
                let lanes = node.store.len();
                let seen = self.seen.entry(id).or_insert_with(|| vec![(0, 0); lanes]);
                let from = std::mem::replace(&mut seen[lane].1, *size);
                if *size < from {
                    return broken(
                        "I5",
                        format!("final of lane {lane} shrank from {from} to {size} at {id}"),
                    );
                }
                self.certify(id, lane, &node.store[lane], from, *size)
            }
            Effect::Accepted { operation, .. } => Self::one(&mut self.accepted, operation, "accepted"),
            Effect::Settled { operation, .. } => Self::one(&mut self.settled, operation, "final"),
            Effect::Entered(_) => money(node),
            Effect::Forked { held, .. } => {
                self.forks += 1;
                self.blame(usize::from(held.lane().0), "forked", id)
            }
            Effect::Ended(batch) => {
                self.ended += 1;
                self.blame(usize::from(batch.lane().0), "ended", id)
            }
            Effect::Equivocated { validator, .. } => self.blame(usize::from(*validator), "two witnesses", id),
            Effect::Switched { lane, .. } => {
                self.switches += 1;
                self.blame(usize::from(lane.0), "copy changed", id)
            }
            Effect::Silenced { number } => {
                self.silenced += 1;
                let honest = self.honest_lanes.contains(&id);
                if honest {
                    return broken("I1", format!("validator {id} does not remember its witness {number}"));
                }
                Ok(())
            }
            // I3: what is cut lies on the disk.
            Effect::State(witness) => {
                let missing =
                    witness.cut.iter().find(|claim| !node.disk.has(claim.lane, claim.size, &claim.root));
                match missing {
                    Some(claim) => broken(
                        "I3",
                        format!("{id} cuts lane {} at {}, not on its disk", claim.lane, claim.size),
                    ),
                    None => Ok(()),
                }
            }
            Effect::CheckForm(_) | Effect::Persist(_) | Effect::Followed { .. } => Ok(()),
        }
    }

    /// I2: all certified prefixes of all honest nodes, at all times, are prefixes of one history.
    fn certify(
        &mut self,
        node: usize,
        lane: usize,
        store: &[Rc<Stored>],
        from: u64,
        to: u64,
    ) -> Result<(), Violation> {
        let start = store.partition_point(|stored| stored.digest.first() < from.min(to));
        for stored in store[start..].iter().take_while(|stored| stored.digest.size() <= to) {
            let root = *stored.digest.root();
            let first = *self.certified.entry((lane, stored.digest.first())).or_insert(root);
            if first != root {
                return broken("I2", format!("two certified histories of lane {lane}, seen at {node}"));
            }
        }
        if end_of(store, to).is_none() {
            return broken("I2", format!("lane {lane} certified to {to}, no end of a batch held at {node}"));
        }
        Ok(())
    }

    /// I7: one payload per sequence.
    fn one(
        table: &mut BTreeMap<Sequence, BTreeSet<[u8; 32]>>,
        operation: &Operation,
        level: &str,
    ) -> Result<(), Violation> {
        let hashes = table.entry((operation.account, operation.sequence)).or_default();
        hashes.insert(operation.hash.0);
        if hashes.len() > 1 {
            return broken(
                "I7",
                format!("conflicting {level}: sequence {} of {}", operation.sequence, operation.account),
            );
        }
        Ok(())
    }

    /// I11: no honest lane is blamed.
    fn blame(&self, lane: usize, how: &str, node: usize) -> Result<(), Violation> {
        if self.honest_lanes.contains(&lane) {
            return broken("I11", format!("honest lane {lane}: {how}, at {node}"));
        }
        Ok(())
    }

    /// I1: what leaves a node.
    fn left(&mut self, node: &Node, message: &Message) -> Result<(), Violation> {
        match message {
            Message::Batch(stored) => {
                let (lane, root) = (usize::from(stored.digest.lane().0), *stored.digest.root());
                if lane != node.id {
                    return Ok(());
                }
                let first = *self.batches.entry((lane, stored.digest.first())).or_insert(root);
                if first != root && self.honest_lanes.contains(&lane) {
                    return broken(
                        "I1",
                        format!("node {lane} signed two batches at {}", stored.digest.first()),
                    );
                }
            }
            Message::Witness(message) => {
                let key = (message.validator, message.witness.number);
                let first = *self.witnesses.entry(key).or_insert(message.id);
                if first != message.id && self.honest_lanes.contains(&node.id) {
                    return broken("I1", format!("validator {} signed two witnesses {}", key.0, key.1));
                }
            }
            Message::Several(_) | Message::Pull { .. } => (),
        }
        Ok(())
    }

    /// Operations that honest nodes have taken and made durable.
    pub fn handed_in(&self) -> impl Iterator<Item = &Sequence> {
        self.handed_in.iter()
    }

    /// Hash that is settled for a sequence anywhere.
    pub fn settled(&self) -> impl Iterator<Item = (&Sequence, &BTreeSet<[u8; 32]>)> {
        self.settled.iter()
    }
}

/// The batch of a store that ends at `size`.
fn end_of(store: &[Rc<Stored>], size: u64) -> Option<&Rc<Stored>> {
    let at = store.binary_search_by_key(&size, |stored| stored.digest.size()).ok()?;
    store.get(at)
}

/// I8: money is conserved.
fn money(node: &Node) -> Result<(), Violation> {
    let sum: u64 = node.machine.ledger().accounts().map(|(_, account)| account.balance).sum();
    if sum != SUPPLY {
        return broken("I8", format!("{sum} units of {SUPPLY} at {}", node.id));
    }
    Ok(())
}

/// I6: the final operations, computed once more from the lanes below final: what any auditor does. Positions by lane.
#[must_use]
pub fn settled_below(node: &Node, weights: &Weights) -> BTreeSet<(usize, u64)> {
    let validators = weights.len();
    let finals: Vec<u64> = (0..node.store.len())
        .map(|lane| node.machine.watermarks(LaneId(lane as u16)).map_or(0, |marks| marks.final_size))
        .collect();
    let mut accepting: BTreeMap<(usize, u64), u64> = BTreeMap::new();
    for validator in 0..validators {
        let own = node.store[validator].iter().filter(|stored| stored.digest.size() <= finals[validator]);
        let witnesses: Vec<_> = own.filter_map(|stored| stored.digest.witness()).collect();
        for (lane, limit) in finals.iter().enumerate() {
            let (mut rejected, mut covered) = (BTreeSet::new(), 0);
            for placed in &witnesses {
                let rejects =
                    placed.witness.rejects.iter().filter(|rejects| usize::from(rejects.lane.0) == lane);
                rejected.extend(rejects.flat_map(|rejects| rejects.positions.iter().copied()));
                let claims = placed.witness.cut.iter().chain(&placed.witness.cut_again);
                for claim in claims.filter(|claim| usize::from(claim.lane.0) == lane) {
                    let fits = end_of(&node.store[lane], claim.size)
                        .is_some_and(|stored| *stored.digest.root() == claim.root);
                    if claim.size <= covered || claim.size > *limit || !fits {
                        continue;
                    }
                    for stored in node.store[lane].iter().filter(|stored| stored.digest.size() <= claim.size)
                    {
                        for placed in stored.digest.operations() {
                            if placed.position >= covered && !rejected.contains(&placed.position) {
                                *accepting.entry((lane, placed.position)).or_default() +=
                                    weights.of(validator);
                            }
                        }
                    }
                    covered = claim.size;
                }
            }
        }
    }
    accepting.retain(|_, weight| weights.is_quorum(*weight));
    accepting.into_keys().collect()
}

/// I6: the ledger, computed once more: balance and next sequence per account.
#[must_use]
pub fn ledger_below(
    node: &Node,
    settled: &BTreeSet<(usize, u64)>,
    start: &[weft_core::Balance],
) -> BTreeMap<DeviceKey, (u64, u64)> {
    let mut accounts: BTreeMap<DeviceKey, (u64, u64)> =
        start.iter().map(|balance| (balance.account, (balance.amount, 0))).collect();
    let operations: Vec<Operation> = settled
        .iter()
        .filter_map(|(lane, position)| {
            let store = &node.store[*lane];
            let stored = store.get(store.partition_point(|stored| stored.digest.size() <= *position))?;
            let placed = stored.digest.operations().iter().find(|placed| placed.position == *position)?;
            Some(placed.operation)
        })
        .collect();
    loop {
        let next = operations.iter().find(|operation| {
            accounts
                .get(&operation.account)
                .is_some_and(|(balance, next)| *next == operation.sequence && *balance >= operation.amount)
        });
        let Some(operation) = next else { return accounts };
        if let Some((balance, next)) = accounts.get_mut(&operation.account) {
            *balance -= operation.amount;
            *next += 1;
        }
        accounts.entry(operation.to).or_insert((0, 0)).0 += operation.amount;
    }
}

/// I6 at one node.
///
/// # Errors
/// What differs.
pub fn recomputed(node: &Node, weights: &Weights, start: &[weft_core::Balance]) -> Result<(), Violation> {
    let settled = settled_below(node, weights);
    let again = ledger_below(node, &settled, start);
    let own: BTreeMap<DeviceKey, (u64, u64)> = node
        .machine
        .ledger()
        .accounts()
        .map(|(key, account)| (*key, (account.balance, account.next)))
        .collect();
    if own != again {
        return broken("I6", format!("ledger at {} is {own:?}, from the lanes {again:?}", node.id));
    }
    Ok(())
}
