//! One run: virtual time, the network, faults, and the course of events.
//!
//! Owns the queue of events and the two phases. In the *storm* messages are late, lost, damaged and reordered, the
//! network parts, nodes crash, clocks run unevenly, liars lie, accounts spend twice. Then the faults end (liars go on
//! in half of the runs, for a while), and everything that honest lanes hold has to become final everywhere. Invariant:
//! all randomness comes from one generator, all containers are ordered, so one seed gives one run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::rc::Rc;

use weft_core::confirm::{Effect, Input, Rule, Setup};
use weft_core::genesis::IngestNode;
use weft_core::{BatchView, Genesis, LaneId, LaneTree, RandomSource, SplitMix64, Validator};

use crate::accounts::{Accounts, Who};
use crate::batch::{Ledger, Stored};
use crate::check::{Check, Violation, recomputed};
use crate::keys::{Key, Scheme};
use crate::liar::Liars;
use crate::node::{Action, Common, Disk, Message, Node};
use crate::weak::Weak;

/// How long the storm lasts, microseconds of virtual time.
const STORM_US: u64 = 2_500_000;
/// How long liars go on after it, in runs in which they do.
const LIARS_GO_ON_US: u64 = 800_000;
/// After the storm everything must be final within this time.
const CALM_US_MAX: u64 = 20_000_000;
/// One seed in so many signs with Ed25519; the others with hashes that stand for it.
const REAL_SIGNATURES_EVERY: u64 = 64;

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Validators; an honest ingest node and a lying one come on top.
    pub validators: usize,
    /// Validators that lie; the bound is `(validators - 1) / 3`.
    pub liars: usize,
    /// Whether weights are drawn by chance, and how many validators lie too, with as much weight as the bound allows.
    pub weights: bool,
    /// The rule that does not hold, for a canary.
    pub weaken: Option<Rule>,
    /// Whether faults are as usual, or only liars and the network's delay.
    pub crashes: bool,
    /// Whether every effect is printed to standard error, with virtual time and node.
    pub trace: bool,
}

impl Options {
    /// All faults at the bound.
    #[must_use]
    pub fn bound(validators: usize) -> Self {
        Self {
            validators,
            liars: validators.saturating_sub(1) / 3,
            weights: false,
            weaken: None,
            crashes: true,
            trace: false,
        }
    }
}

/// What a run did, to show that it was not vacuous.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events handled.
    pub events: u64,
    /// Restarts of honest nodes.
    pub restarts: u64,
    /// Forks proven at honest nodes.
    pub forks: u64,
    /// Copies changed.
    pub switches: u64,
    /// Lanes ended for an ill-formed batch.
    pub ended: u64,
    /// Validators silenced after an old backup.
    pub silenced: u64,
    /// Operations of the honest accounts A and P in the ledger.
    pub honest_operations: u64,
    /// Operations of the equivocator in the ledger.
    pub equivocator_operations: u64,
    /// Runs in which the equivocator stopped itself.
    pub equivocator_stuck: u64,
    /// Batches final, at one node, all lanes.
    pub final_batches: u64,
    /// Of these in liars' lanes.
    pub final_liar_batches: u64,
    /// Virtual time from the end of the storm to everything final, microseconds.
    pub calm_us: u64,
    /// Hash over the final state, to compare two runs of one seed.
    pub digest: u64,
}

impl Stats {
    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.restarts += other.restarts;
        self.forks += other.forks;
        self.switches += other.switches;
        self.ended += other.ended;
        self.silenced += other.silenced;
        self.honest_operations += other.honest_operations;
        self.equivocator_operations += other.equivocator_operations;
        self.equivocator_stuck += other.equivocator_stuck;
        self.final_batches += other.final_batches;
        self.final_liar_batches += other.final_liar_batches;
        self.calm_us = self.calm_us.max(other.calm_us);
        self.digest ^= other.digest;
    }
}

/// How a run ended.
pub type Outcome = Result<Stats, Violation>;

#[derive(Clone, Debug)]
enum Event {
    Deliver { to: usize, from: usize, message: Message },
    Tick { node: usize, life: u64 },
    Pull { node: usize },
    Synced { node: usize, life: u64 },
    Verdict { node: usize, life: u64, input: Input },
    Crash { node: usize },
    Restart { node: usize },
    Client,
    Lie,
    Backup { node: usize },
}

struct World {
    options: Options,
    weights: Vec<u64>,
    seed: u64,
    random: SplitMix64,
    now_us: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    next_event: u64,
    nodes: Vec<Option<Node>>,
    liars: Liars,
    accounts: Accounts,
    common: Rc<Common>,
    check: Check,
    stats: Stats,
    /// Nodes on one side of the partition, and when it heals.
    partition: (BTreeSet<usize>, u64),
    /// A node that is slow: its messages take this much longer, microseconds.
    slow: (usize, u64),
    /// The validator that is restored from an old backup, if one is.
    restored: Option<usize>,
    backup: Option<Disk>,
    loss_percent: u64,
    storm: bool,
    lying: bool,
}

/// Runs one seed.
///
/// # Errors
/// The first violation.
pub fn run(seed: u64, options: Options) -> Outcome {
    let mut world = World::new(seed, options);
    world.storm()?;
    world.calm()
}

impl World {
    fn new(seed: u64, mut options: Options) -> Self {
        let mut random = SplitMix64::new(seed ^ 0x5eed_0000_0000_0000);
        let mut weights = vec![1; options.validators];
        if options.weights {
            (weights, options.liars) = draw_weights(options.validators, &mut random);
        }
        let scheme = if seed.is_multiple_of(REAL_SIGNATURES_EVERY) { Scheme::Ed25519 } else { Scheme::Hash };
        let (validators, lanes) = (options.validators, options.validators + 2);
        let keys: Vec<Key> = (0..lanes as u64).map(|number| Key::new(scheme, seed, number)).collect();
        let accounts = Accounts::new(scheme, seed);
        let name = String::new;
        let validator =
            |(key, weight): (&Key, &u64)| Validator { key: key.public(), weight: *weight, name: name() };
        let ingest = |key: &Key| IngestNode { key: key.public(), name: name() };
        let genesis = Genesis {
            committee: keys[..validators].iter().zip(&weights).map(validator).collect(),
            ingest: keys[validators..].iter().map(ingest).collect(),
            balances: accounts.balances(),
            ..Genesis::single("simulation", seed, keys[0].public())
        };
        let id = genesis.id().expect("the genesis of the simulation is valid");
        let limits = genesis.limits().expect("the genesis of the simulation is valid");
        let ledger = Ledger { network: id.network(), scheme };
        let common = Rc::new(Common { ledger, limits, roots: id.roots(), keys });
        // One of the faults may be a validator that means well and is restored from an old backup: it takes a liar's
        // place. Only where that is not noticed (a canary) does it come on top of the liars.
        let first_liar = validators - options.liars;
        let unnoticed = options.weaken == Some(Rule::Amnesia);
        let restored = match options.liars {
            0 => None,
            _ if unnoticed => first_liar.checked_sub(1),
            _ => (seed % 5 == 4).then_some(first_liar),
        };
        let lying: Vec<usize> =
            (first_liar..validators).filter(|lane| Some(*lane) != restored).chain([lanes - 1]).collect();
        let liars = Liars::new(lying.clone(), validators, Rc::clone(&common));
        let nodes: Vec<Option<Node>> = (0..lanes)
            .map(|lane| {
                let setup = Setup::new(&genesis, Some(&common.keys[lane].public()));
                let rules = Weak::new(rule_at(options, lane, restored), seed.wrapping_add(lane as u64));
                (!lying.contains(&lane)).then(|| Node::new(lane, setup, Rc::clone(&common), rules))
            })
            .collect();
        let honest = (0..lanes).filter(|lane| !lying.contains(lane) && Some(*lane) != restored).collect();
        let slow = (random.below(lanes as u64 * 2) as usize, 20_000 + random.below(400_000));
        let loss_percent = [0, 2, 10, 30][random.below(4) as usize];
        Self {
            options,
            weights,
            seed,
            random,
            now_us: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            nodes,
            liars,
            accounts,
            common,
            check: Check::new(honest),
            stats: Stats::default(),
            partition: (BTreeSet::new(), 0),
            slow,
            restored,
            backup: None,
            loss_percent,
            storm: true,
            lying: true,
        }
    }

    fn lanes(&self) -> usize {
        self.nodes.len()
    }

    /// Nodes whose word counts: honest, and not restored from an old backup.
    fn honest(&self) -> Vec<usize> {
        (0..self.lanes()).filter(|node| self.nodes[*node].is_some() && Some(*node) != self.restored).collect()
    }

    fn after(&mut self, delay_us: u64, event: Event) {
        let number = self.next_event;
        self.next_event += 1;
        self.queue.push(Reverse((self.now_us + delay_us, number)));
        self.events.insert(number, event);
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.below(100) < percent
    }

    // ---------- the course of a run

    fn storm(&mut self) -> Result<(), Violation> {
        for node in 0..self.lanes() {
            if self.nodes[node].is_none() {
                continue;
            }
            let (tick, pull) = (self.random.below(100_000), self.random.below(150_000));
            self.after(tick, Event::Tick { node, life: 0 });
            self.after(pull, Event::Pull { node });
            if self.options.crashes && self.chance(60) {
                let at = self.random.below(STORM_US);
                self.after(at, Event::Crash { node });
            }
        }
        if let Some(node) = self.restored {
            let at = self.random.below(STORM_US / 2);
            self.after(at, Event::Backup { node });
        }
        self.after(1_000, Event::Client);
        self.after(1_000, Event::Lie);
        self.until(STORM_US)
    }

    fn until(&mut self, end_us: u64) -> Result<(), Violation> {
        while let Some(Reverse((time, number))) = self.queue.peek().copied() {
            if time > end_us {
                break;
            }
            self.queue.pop();
            self.now_us = time;
            if let Some(event) = self.events.remove(&number) {
                self.stats.events += 1;
                self.step(event)?;
            }
        }
        self.now_us = end_us;
        Ok(())
    }

    fn calm(&mut self) -> Outcome {
        self.storm = false;
        self.partition = (BTreeSet::new(), 0);
        self.slow.1 = 0;
        for node in 0..self.lanes() {
            if self.nodes[node].as_ref().is_some_and(|node| !node.up) {
                self.step(Event::Restart { node })?;
            }
        }
        let begin = self.now_us;
        // What is final anywhere now has to be final everywhere in the end.
        let marks = self.final_sizes();
        if self.seed % 2 == 1 {
            self.until(begin + LIARS_GO_ON_US)?;
        }
        self.lying = false;
        // An honest account that has money and hands in its next operation gets it through.
        self.until(self.now_us + 600_000)?;
        let honest = self.honest();
        let gate = honest[honest.len() - 1];
        for _ in 0..3 {
            if self.hand_in(gate, Who::A, false) {
                break;
            }
            self.until(self.now_us + 200_000)?;
        }
        self.flush(gate)?;
        // All that matters of an honest lane: its last witnesses, which cover witnesses only, need not become final.
        let matters = |node: &Node, lane: usize| {
            let last = node.store[lane].iter().rfind(|stored| stored.digest.is_material());
            last.map_or(0, |stored| stored.digest.size())
        };
        let lengths: Vec<u64> = (0..self.lanes())
            .map(|lane| match &self.nodes[lane] {
                Some(node) if Some(lane) != self.restored => matters(node, lane),
                _ => 0,
            })
            .collect();
        let deadline = self.now_us + CALM_US_MAX;
        let mut missing = self.missing(&lengths, &marks);
        while missing.is_some() && self.now_us < deadline {
            self.until(self.now_us + 200_000)?;
            missing = self.missing(&lengths, &marks);
        }
        if let Some(what) = missing {
            return Err(what);
        }
        self.stats.calm_us = self.now_us - begin;
        self.end()
    }

    fn final_sizes(&self) -> Vec<u64> {
        let mut sizes = vec![0; self.lanes()];
        for node in self.honest().into_iter().filter_map(|node| self.nodes[node].as_ref()) {
            for (lane, size) in sizes.iter_mut().enumerate() {
                let marks = node.machine.watermarks(LaneId(lane as u16));
                *size = marks.map_or(0, |marks| marks.final_size).max(*size);
            }
        }
        sizes
    }

    /// L1 to L5: what is not final yet.
    fn missing(&self, lengths: &[u64], marks: &[u64]) -> Option<Violation> {
        let violation = |invariant, what: String| Some(Violation { invariant, what });
        for id in self.honest() {
            let node = self.nodes[id].as_ref()?;
            for lane in 0..self.lanes() {
                let size = node.machine.watermarks(LaneId(lane as u16)).map_or(0, |marks| marks.final_size);
                if size < lengths[lane] {
                    return violation(
                        "L1",
                        format!("honest lane {lane} final to {size} of {} at {id}", lengths[lane]),
                    );
                }
                if size < marks[lane] {
                    return violation(
                        "L2",
                        format!("lane {lane} final to {size} at {id}, was to {}", marks[lane]),
                    );
                }
            }
            for (account, sequence) in self.check.handed_in() {
                let next = node.machine.ledger().account(account);
                let honest = self.accounts.is_honest(account);
                if honest && next.is_none_or(|next| next.next <= *sequence) {
                    return violation(
                        "L3",
                        format!("operation {sequence} of {account} not in the ledger of {id}"),
                    );
                }
            }
        }
        None
    }

    /// I6: what is final follows from the lanes alone.
    fn end(&mut self) -> Outcome {
        let weights = weft_core::confirm::Weights::new(self.weights.clone());
        let honest = self.honest();
        for id in &honest {
            let Some(node) = &self.nodes[*id] else { continue };
            recomputed(node, &weights, &self.accounts.balances())?;
        }
        self.count();
        Ok(self.stats)
    }

    fn count(&mut self) {
        let honest = self.honest();
        let lying = self.liars.lanes.clone();
        if let Some(node) = honest.first().and_then(|id| self.nodes[*id].as_ref()) {
            let next =
                |key: &Key| node.machine.ledger().account(&key.public()).map_or(0, |account| account.next);
            self.stats.honest_operations = next(&self.accounts.a) + next(&self.accounts.p);
            self.stats.equivocator_operations = next(&self.accounts.e);
            for (lane, store) in node.store.iter().enumerate() {
                let limit = node.machine.watermarks(LaneId(lane as u16)).map_or(0, |marks| marks.final_size);
                let batches = store.iter().filter(|stored| stored.digest.size() <= limit).count() as u64;
                self.stats.final_batches += batches;
                self.stats.final_liar_batches += if lying.contains(&lane) { batches } else { 0 };
                let root = store.iter().rfind(|stored| stored.digest.size() <= limit);
                let mut word = [0; 8];
                word.copy_from_slice(&root.map_or([0; 32], |stored| *stored.digest.root())[..8]);
                self.stats.digest ^= u64::from_le_bytes(word).rotate_left(lane as u32);
            }
            let stuck = node.machine.ledger().locks().any(|lock| lock.account == self.accounts.e.public());
            self.stats.equivocator_stuck = u64::from(stuck);
        }
        self.stats.forks = self.check.forks;
        self.stats.switches = self.check.switches;
        self.stats.ended = self.check.ended;
        self.stats.silenced = self.check.silenced;
    }

    // ---------- one step

    fn step(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Deliver { to, from, message } => return self.deliver(to, from, message),
            Event::Tick { node, life } => {
                let again = self.random.below(40_000) + 5_000;
                if self.with(node, life, |node, now, random| node.tick(now, random)) {
                    self.after(again, Event::Tick { node, life });
                }
                return self.flush(node);
            }
            Event::Pull { node } => {
                let again = if self.storm { 60_000 } else { 40_000 } + self.random.below(90_000);
                self.after(again, Event::Pull { node });
                let from = self.random.below(self.lanes() as u64) as usize;
                if from != node
                    && self.nodes[node].as_ref().is_some_and(|node| node.up)
                    && let Some(node) = &mut self.nodes[node]
                {
                    node.pull(from);
                }
                return self.flush(node);
            }
            Event::Synced { node, life } => {
                self.with(node, life, |node, now, random| node.synced(now, random));
                return self.flush(node);
            }
            Event::Verdict { node, life, input } => {
                self.with(node, life, |node, now, random| node.input(now, input, random));
                return self.flush(node);
            }
            // What was planned for the storm does not happen after it.
            Event::Crash { .. } | Event::Backup { .. } if !self.storm => (),
            Event::Crash { node } => {
                let synced = self.chance(50);
                if let Some(node) = self.nodes[node].as_mut().filter(|node| node.up) {
                    node.crash(synced);
                }
                let down = 20_000 + self.random.below(600_000);
                self.after(down, Event::Restart { node });
                if self.storm && self.chance(40) {
                    let again = down + self.random.below(1_000_000);
                    self.after(again, Event::Crash { node });
                }
            }
            Event::Restart { node } => {
                if self.nodes[node].as_ref().is_some_and(|node| !node.up) {
                    self.restart(node);
                    return self.flush(node);
                }
            }
            Event::Backup { node } => {
                // Now the backup is made; later the node gets it in place of its disk.
                match self.backup.take() {
                    None => {
                        self.backup = self.nodes[node].as_ref().map(|node| node.disk.clone());
                        let later = 200_000 + self.random.below(STORM_US / 2);
                        self.after(later, Event::Backup { node });
                    }
                    Some(backup) => {
                        if let Some(node) = &mut self.nodes[node] {
                            if node.up {
                                node.crash(false);
                            }
                            node.disk = backup;
                        }
                        self.after(10_000, Event::Restart { node });
                    }
                }
            }
            Event::Client => {
                if self.storm {
                    let again = 4_000 + self.random.below(30_000);
                    self.after(again, Event::Client);
                    return self.client();
                }
            }
            Event::Lie => {
                if self.lying {
                    let again = 2_000 + self.random.below(20_000);
                    self.after(again, Event::Lie);
                    self.lie();
                }
            }
        }
        Ok(())
    }

    /// Runs something at a node, unless it has crashed since it was planned.
    fn with(&mut self, node: usize, life: u64, what: impl FnOnce(&mut Node, u64, &mut SplitMix64)) -> bool {
        let now = self.now_us;
        match self.nodes[node].as_mut().filter(|node| node.up && node.life == life) {
            Some(node) => {
                what(node, now, &mut self.random);
                true
            }
            None => false,
        }
    }

    fn restart(&mut self, id: usize) {
        let rules = Weak::new(rule_at(self.options, id, self.restored), self.random.next_u64());
        let now = self.now_us;
        let Some(node) = &mut self.nodes[id] else { return };
        node.restart(rules, now, &mut self.random);
        let life = node.life;
        self.stats.restarts += 1;
        self.check.restarted(id);
        let tick = self.random.below(50_000);
        self.after(tick, Event::Tick { node: id, life });
    }

    /// Judges what a node did, and does what it asks for.
    fn flush(&mut self, id: usize) -> Result<(), Violation> {
        let Some(node) = &mut self.nodes[id] else { return Ok(()) };
        if self.options.trace {
            for effect in &node.effects {
                eprintln!("{:>9} us, node {id}, life {}: {effect:?}", self.now_us, node.life);
            }
        }
        // P spends what it received as soon as a node has heard of it, others or not.
        let p = self.accounts.p.public();
        let paid = |effect: &Effect| matches!(effect, Effect::Entered(operation) if operation.to == p);
        let spend = node.effects.iter().any(paid);
        self.check.step(node)?;
        let (actions, life) = (std::mem::take(&mut node.actions), node.life);
        for action in actions {
            match action {
                Action::Send(to, message) => self.send(id, to, message),
                Action::Broadcast(message) => {
                    for to in 0..self.lanes() {
                        if to != id {
                            self.send(id, to, message.clone());
                        }
                    }
                }
                Action::Sync => {
                    let delay = 500 + self.random.below(if self.storm { 30_000 } else { 5_000 });
                    self.after(delay, Event::Synced { node: id, life });
                }
                Action::Verdict(input) => {
                    let delay = self.random.below(6_000);
                    self.after(delay, Event::Verdict { node: id, life, input });
                }
            }
        }
        if spend && self.storm && self.chance(70) && self.hand_in(id, Who::P, false) {
            return self.flush(id);
        }
        Ok(())
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let mut delay = 500 + self.random.below(if self.storm { 40_000 } else { 15_000 });
        if self.storm {
            if self.chance(self.loss_percent) {
                return;
            }
            if self.chance(3) {
                delay += self.random.below(400_000);
            }
            if self.now_us > self.partition.1 && self.random.below(2_000) == 0 {
                let some = (0..self.lanes()).filter(|_| self.random.below(2) == 0).collect();
                self.partition = (some, self.now_us + 200_000 + self.random.below(700_000));
            }
            let (side, heals) = (&self.partition.0, self.partition.1);
            if self.now_us < heals && side.contains(&from) != side.contains(&to) {
                return;
            }
        }
        if self.slow.0 == from || self.slow.0 == to {
            delay += self.slow.1;
        }
        self.after(delay, Event::Deliver { to, from, message });
    }

    fn deliver(&mut self, to: usize, from: usize, message: Message) -> Result<(), Violation> {
        if self.nodes[to].is_none() {
            // A liar that is asked answers with what suits it.
            if let (Message::Pull { locators, .. }, true) = (&message, self.lying) {
                let batches = self.liars.answer(locators, &mut self.random);
                let answer = batches.into_iter().map(Message::Batch).collect();
                self.send(to, from, Message::Several(answer));
            }
            return Ok(());
        }
        if self.storm
            && self.random.below(500) == 0
            && let Message::Batch(stored) = &message
        {
            return self.damage(stored);
        }
        let now = self.now_us;
        let Some(node) = self.nodes[to].as_mut().filter(|node| node.up) else { return Ok(()) };
        node.receive(from, message, now, &mut self.random);
        self.flush(to)
    }

    /// A batch is damaged on the way: the first gate has to notice, and nothing is said against its lane.
    fn damage(&mut self, stored: &Stored) -> Result<(), Violation> {
        let mut bytes = stored.bytes.clone();
        let at = self.random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << self.random.below(8);
        let lane = usize::from(stored.digest.lane().0);
        let Some(node) = self.nodes.iter().flatten().next() else { return Ok(()) };
        let before = node.store[lane].iter().rfind(|held| held.digest.root() == stored.digest.before());
        let tree = before.map_or_else(LaneTree::new, |before| before.after.clone());
        let (scheme, key) = (self.common.ledger.scheme, self.common.keys[lane].public());
        let read = BatchView::parse(&bytes).ok().is_some_and(|view| {
            weft_core::confirm::BatchDigest::read(&view, &tree, &key, |key, text, signature| {
                crate::keys::verify(scheme, key, text, signature)
            })
            .is_ok()
        });
        if read {
            return Err(Violation {
                invariant: "I9",
                what: format!("a batch with bit {at} flipped is authentic"),
            });
        }
        Ok(())
    }

    // ---------- devices and liars

    /// One operation of an account at one node; whether it was taken.
    fn hand_in(&mut self, id: usize, who: Who, choice: bool) -> bool {
        let now = self.now_us;
        let accounts = self.accounts;
        let Some(node) = &mut self.nodes[id] else { return false };
        let key = accounts.key(who);
        let Some(account) = node.machine.ledger().account(&key.public()) else { return false };
        let sequence = account.next;
        let payload = accounts.payload(who, sequence, choice);
        if self.random.below(6) == 0 {
            // The device has not heard of it and hands it in once more.
            let id = weft_core::MessageId([0; 32]);
            node.forget(&accounts.operation(who, &payload, id));
        }
        let operation = |id| accounts.operation(who, &payload, id);
        node.append_operation(key, &payload, operation, now, &mut self.random)
    }

    fn client(&mut self) -> Result<(), Violation> {
        let running: Vec<usize> =
            (0..self.lanes()).filter(|node| self.nodes[*node].as_ref().is_some_and(|node| node.up)).collect();
        let Some(id) = running.get(self.random.below(running.len() as u64) as usize).copied() else {
            return Ok(());
        };
        match self.random.below(10) {
            0..3 => {
                // Signed again with fresh parents, by up to three gateways at once.
                for _ in 0..=self.random.below(3) {
                    let id = running[self.random.below(running.len() as u64) as usize];
                    self.hand_in(id, Who::A, false);
                    self.flush(id)?;
                }
            }
            3..6 => {
                let choice = self.chance(50);
                self.hand_in(id, Who::E, choice);
            }
            6 | 7 => {
                self.hand_in(id, Who::P, false);
            }
            _ => {
                let (now, device) = (self.now_us, self.accounts.q);
                if let Some(node) = &mut self.nodes[id] {
                    node.append_data(&device, now, &mut self.random);
                }
            }
        }
        self.flush(id)
    }

    fn lie(&mut self) {
        let live: Vec<&Node> = self.nodes.iter().flatten().filter(|node| node.up).collect();
        if live.is_empty() {
            return;
        }
        let victim = live[self.random.below(live.len() as u64) as usize];
        let to = victim.id;
        let lanes = self.liars.lanes.clone();
        match self.random.below(10) {
            0..3 => self.liars.extend(victim, &live, &self.accounts, &mut self.random),
            3..7 => {
                let batches = self.liars.push_for(victim, &mut self.random);
                for stored in batches {
                    let from = usize::from(stored.digest.lane().0);
                    self.send(from, to, Message::Batch(stored));
                }
            }
            _ => {
                let mut told = Vec::new();
                for validator in lanes.into_iter().filter(|lane| *lane < self.options.validators) {
                    let message = self.liars.witness_for(validator, to, &live, &mut self.random);
                    told.extend(message.map(|message| (validator, message)));
                }
                for (validator, message) in told {
                    self.send(validator, to, Message::Witness(message));
                }
            }
        }
    }
}

/// Weights of validators, liars last, and how many of these there are: up to half of the validators, or one of all, with the
/// most weight b that a committee of weight W bears, 3b < W.
fn draw_weights(validators: usize, random: &mut SplitMix64) -> (Vec<u64>, usize) {
    let liars = if validators < 2 { 0 } else { 1 + random.below(validators as u64 / 2) as usize };
    // Large weights beside small ones, now and then near the largest sum that a genesis may have.
    let scale = [1, 1, 1_000, 1 << 50][random.below(4) as usize];
    let mut weights: Vec<u64> =
        (liars..validators).map(|_| scale * (2 + random.below(20)) + random.below(3)).collect();
    let honest: u64 = weights.iter().sum();
    let mut left = (honest - 1) / 2;
    for place in (0..liars as u64).rev() {
        let own = if place == 0 { left } else { 1 + random.below((left - place).max(1)) };
        let own = own.clamp(1, left.saturating_sub(place).max(1));
        weights.push(own);
        left = left.saturating_sub(own);
    }
    // So few honest units that each liar cannot have one of its own: fewer liars.
    let liar_weight: u64 = weights[validators - liars..].iter().sum();
    if 2 * liar_weight >= honest {
        (vec![1; validators], validators.saturating_sub(1) / 3)
    } else {
        (weights, liars)
    }
}

/// The rule that does not hold at this node: memory is lost at one validator only.
fn rule_at(options: Options, lane: usize, restored: Option<usize>) -> Option<Rule> {
    options.weaken.filter(|rule| match rule {
        Rule::LoseLocks => lane + 1 == options.validators - options.liars,
        Rule::Amnesia => Some(lane) == restored,
        _ => true,
    })
}
