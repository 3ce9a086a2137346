//! An honest node: the shell around the state machine, as the product's node will be one.
//!
//! Owns the stores of lanes and chains, the disk, and the order in which things become durable and leave. Invariants:
//! nothing leaves before it is durable; after a crash there is exactly what the last finished sync wrote; the machine
//! is given only what passed [`BatchDigest::read`](weft_core::confirm::BatchDigest::read) and signatures that verify.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use weft_core::confirm::{BatchDigest, Effect, Input, Machine, Operation, Setup, Votes, Witness, check_form};
use weft_core::merkle::Hash;
use weft_core::{LaneId, LaneTree, Limits, MessageId, PayloadKind, Place, RandomSource, SplitMix64};

use crate::batch::{Ledger, Sealed, Stored, WitnessMessage};
use crate::keys::{Key, verify};
use crate::weak::Weak;

/// Batches that one answer carries of a lane, and witnesses of a chain.
const ANSWER_BATCHES_MAX: usize = 8;
const ANSWER_WITNESSES_MAX: usize = 24;

/// What travels between nodes.
#[derive(Clone, Debug)]
pub enum Message {
    /// A batch.
    Batch(Rc<Stored>),
    /// A witness, ahead of its lane.
    Witness(Rc<WitnessMessage>),
    /// An answer: in order, as on one stream.
    Several(Vec<Message>),
    /// What the asker has: ends per lane, numbers per chain.
    Pull {
        /// Ends of batches per lane.
        locators: Vec<Vec<(u64, Hash)>>,
        /// Last number followed per validator.
        followed: Vec<u64>,
    },
}

/// What a node wants of the world.
#[derive(Clone, Debug)]
pub enum Action {
    /// To one node.
    Send(usize, Message),
    /// To all.
    Broadcast(Message),
    /// The disk is asked to sync.
    Sync,
    /// The verifier is asked for a verdict, and says this later.
    Verdict(Input),
}

/// What all nodes of a run know.
#[derive(Clone, Debug)]
pub struct Common {
    /// Network and signature scheme.
    pub ledger: Ledger,
    /// Limits of the genesis.
    pub limits: Limits,
    /// The genesis roots.
    pub roots: [MessageId; 2],
    /// Keys of all nodes, by lane.
    pub keys: Vec<Key>,
}

/// What a disk holds.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// Batches per lane.
    pub store: Vec<Vec<Rc<Stored>>>,
    /// The validator's votes.
    pub votes: Option<Votes>,
    /// Where each lane is proven to have been signed two ways.
    pub forks: Vec<Option<u64>>,
}

impl Disk {
    /// Whether the disk has this prefix of a lane.
    #[must_use]
    pub fn has(&self, lane: LaneId, size: u64, root: &Hash) -> bool {
        let batches = &self.store[usize::from(lane.0)];
        let at = batches.binary_search_by_key(&size, |stored| stored.digest.size());
        at.is_ok_and(|at| batches[at].digest.root() == root)
    }
}

/// An honest node.
#[derive(Debug)]
pub struct Node {
    /// Its lane's number.
    pub id: usize,
    /// Confirmation.
    pub machine: Machine<Weak>,
    /// Whether it runs.
    pub up: bool,
    /// How often it has crashed: what was under way before is void.
    pub life: u64,
    /// Batches per lane, as in the machine's copies and below.
    pub store: Vec<Vec<Rc<Stored>>>,
    /// Witnesses followed, per validator.
    pub chains: Vec<Vec<Rc<WitnessMessage>>>,
    /// What the last finished sync wrote.
    pub disk: Disk,
    setup: Setup,
    common: Rc<Common>,
    witnesses: BTreeMap<MessageId, Rc<WitnessMessage>>,
    others: BTreeMap<Hash, Rc<Stored>>,
    syncing: Option<Syncing>,
    dirty: bool,
    /// The store is being read from the disk: nothing is written meanwhile.
    loading: bool,
    /// Inputs that wait until the effects of the one before are done, in order.
    inputs: VecDeque<Input>,
    busy: bool,
    outbox: Vec<Message>,
    votes: Option<Votes>,
    forks: Vec<Option<u64>>,
    mine: BTreeSet<Operation2>,
    sequence: u64,
    /// What the machine has done since the world last looked. Acceptances that may rest on votes which a crash could still take
    /// back come when those are durable.
    pub effects: Vec<Effect>,
    accepted: Vec<Effect>,
    /// What the node wants of the world.
    pub actions: Vec<Action>,
    /// Witnesses that have left with the last sync.
    pub left: Vec<Message>,
}

/// A sync under way: what the disk will have, what leaves then, and what is shown then.
type Syncing = (Disk, Vec<Message>, Vec<Effect>);

/// An operation by what identifies it.
type Operation2 = (weft_core::DeviceKey, u64, [u8; 32]);

impl Node {
    /// Node `id` at the start of the ledger.
    #[must_use]
    pub fn new(id: usize, setup: Setup, common: Rc<Common>, rules: Weak) -> Self {
        let (lanes, validators) = (setup.lanes, setup.weights.len());
        Self {
            id,
            machine: Machine::with_rules(setup.clone(), rules),
            up: true,
            life: 0,
            store: vec![Vec::new(); lanes],
            chains: vec![Vec::new(); validators],
            disk: Disk { store: vec![Vec::new(); lanes], votes: None, forks: vec![None; lanes] },
            setup,
            common,
            witnesses: BTreeMap::new(),
            others: BTreeMap::new(),
            syncing: None,
            dirty: false,
            loading: false,
            inputs: VecDeque::new(),
            busy: false,
            outbox: Vec::new(),
            votes: None,
            forks: vec![None; lanes],
            mine: BTreeSet::new(),
            sequence: 0,
            effects: Vec::new(),
            accepted: Vec::new(),
            actions: Vec::new(),
            left: Vec::new(),
        }
    }

    /// This node's lane.
    #[must_use]
    pub fn lane(&self) -> LaneId {
        LaneId(self.id as u16)
    }

    fn key(&self) -> Key {
        self.common.keys[self.id]
    }

    // ---------- faults

    /// The node dies; a sync under way may have finished.
    pub fn crash(&mut self, synced: bool) {
        if let Some((disk, ..)) = self.syncing.take().filter(|_| synced) {
            self.disk = disk;
        }
        self.up = false;
        self.life += 1;
        self.dirty = false;
        self.outbox.clear();
        self.actions.clear();
        self.effects.clear();
        self.accepted.clear();
        self.mine.clear();
    }

    /// The node starts from its disk.
    pub fn restart(&mut self, rules: Weak, now_us: u64, random: &mut SplitMix64) {
        self.up = true;
        self.store.clone_from(&self.disk.store);
        self.votes.clone_from(&self.disk.votes);
        self.forks.clone_from(&self.disk.forks);
        self.machine = match &self.disk.votes {
            Some(votes) => {
                // The record goes through its bytes, as on a real disk.
                let votes = Votes::decode(&votes.encode()).expect("the record was encoded here");
                Machine::restore(self.setup.clone(), rules, &votes)
            }
            None => Machine::with_rules(self.setup.clone(), rules),
        };
        self.chains.iter_mut().for_each(Vec::clear);
        self.witnesses.clear();
        self.others.clear();
        self.loading = true;
        for (lane, fork) in self.forks.clone().into_iter().enumerate() {
            if let Some(at) = fork {
                self.input(now_us, Input::Forked { lane: LaneId(lane as u16), at }, random);
            }
        }
        for lane in 0..self.store.len() {
            for stored in std::mem::take(&mut self.store[lane]) {
                self.take_batch(&stored, now_us, random);
            }
            self.report_durable(lane, now_us, random);
        }
        self.loading = false;
    }

    // ---------- inputs

    /// A message from the network.
    pub fn receive(&mut self, from: usize, message: Message, now_us: u64, random: &mut SplitMix64) {
        match message {
            Message::Batch(stored) => self.take_batch(&stored, now_us, random),
            Message::Witness(message) => {
                self.witnesses.insert(message.id, Rc::clone(&message));
                let witness = Arc::clone(&message.witness);
                let input = Input::Witness { validator: message.validator, id: message.id, witness };
                self.input(now_us, input, random);
            }
            Message::Several(messages) => {
                for message in messages {
                    self.receive(from, message, now_us, random);
                }
            }
            Message::Pull { locators, followed } => self.answer(from, &locators, &followed),
        }
    }

    fn remember(&mut self, stored: &Rc<Stored>) {
        if let Some(message) = stored.witness() {
            self.witnesses.entry(message.id).or_insert(message);
        }
    }

    fn take_batch(&mut self, stored: &Rc<Stored>, now_us: u64, random: &mut SplitMix64) {
        self.remember(stored);
        self.others.insert(*stored.digest.root(), Rc::clone(stored));
        self.input(now_us, Input::Batch(Arc::clone(&stored.digest)), random);
    }

    /// One input to the machine, and everything that follows from it here. What the node tells its machine while it
    /// acts on effects waits until all of them are done.
    pub fn input(&mut self, now_us: u64, input: Input, random: &mut SplitMix64) {
        self.inputs.push_back(input);
        if self.busy {
            return;
        }
        self.busy = true;
        while let Some(input) = self.inputs.pop_front() {
            let batch = match &input {
                Input::Batch(digest) => Some(Arc::clone(digest)),
                _ => None,
            };
            let mut effects = Vec::new();
            self.machine.handle(now_us, input, &mut effects);
            if let Some(digest) = batch {
                self.keep(&digest);
            }
            let is_acceptance = |effect: &&Effect| matches!(effect, Effect::Accepted { .. });
            self.accepted.extend(effects.iter().filter(is_acceptance).cloned());
            self.effects.extend(effects.iter().filter(|effect| !is_acceptance(effect)).cloned());
            for effect in effects {
                self.act(effect, now_us, random);
            }
        }
        self.busy = false;
        if !self.dirty && self.syncing.is_none() {
            self.effects.append(&mut self.accepted);
        }
        if self.dirty && self.syncing.is_none() && !self.loading {
            let (votes, forks) = (self.votes.clone(), self.forks.clone());
            let disk = Disk { store: self.store.clone(), votes, forks };
            let accepted = std::mem::take(&mut self.accepted);
            self.syncing = Some((disk, std::mem::take(&mut self.outbox), accepted));
            self.dirty = false;
            self.actions.push(Action::Sync);
        }
    }

    /// Stores a batch that the machine has appended to its copy.
    fn keep(&mut self, digest: &Arc<BatchDigest>) {
        let lane = usize::from(digest.lane().0);
        if self.machine.root_at(digest.lane(), digest.size()) != Some(digest.root()) {
            return;
        }
        let (size, root) = end(&self.store[lane]);
        if size == digest.first()
            && root == *digest.before()
            && let Some(stored) = self.others.get(digest.root())
        {
            self.store[lane].push(Rc::clone(stored));
            self.dirty = true;
        }
    }

    fn act(&mut self, effect: Effect, now_us: u64, random: &mut SplitMix64) {
        match effect {
            Effect::CheckForm(digest) => {
                let well_formed = self.is_well_formed(&digest);
                let (lane, first, root) = (digest.lane(), digest.first(), *digest.root());
                let verdict = Input::Formed { lane, first, root, well_formed };
                if lane == self.lane() {
                    self.input(now_us, verdict, random);
                } else {
                    self.actions.push(Action::Verdict(verdict));
                }
            }
            Effect::Persist(votes) => {
                self.votes = Some(votes);
                self.dirty = true;
            }
            Effect::State(witness) => self.state(&witness, now_us, random),
            Effect::Switched { lane, from, batches } => {
                let store = &mut self.store[usize::from(lane.0)];
                let keep = store.partition_point(|stored| stored.digest.size() <= from);
                store.truncate(keep);
                for digest in batches {
                    let found = self.others.get(digest.root());
                    store.push(Rc::clone(found.expect("a side is made of batches that were received")));
                }
                self.dirty = true;
            }
            Effect::Followed { validator, number, id } => {
                let chain = &mut self.chains[usize::from(validator)];
                if chain.len() as u64 + 1 == number
                    && let Some(message) = self.witnesses.get(&id)
                {
                    chain.push(Rc::clone(message));
                }
            }
            Effect::Forked { held, other } => {
                self.forks[usize::from(held.lane().0)].get_or_insert(held.first());
                self.dirty = true;
                // Whoever holds one of the two learns of the fork from the other.
                for root in [held.root(), other.root()] {
                    if let Some(stored) = self.find(held.lane(), held.first(), root) {
                        self.actions.push(Action::Broadcast(Message::Batch(stored)));
                    }
                }
            }
            Effect::Ended(_)
            | Effect::Equivocated { .. }
            | Effect::Certified { .. }
            | Effect::Final { .. }
            | Effect::Accepted { .. }
            | Effect::Settled { .. }
            | Effect::Entered(_)
            | Effect::Silenced { .. } => (),
        }
    }

    fn find(&self, lane: LaneId, first: u64, root: &Hash) -> Option<Rc<Stored>> {
        let store = &self.store[usize::from(lane.0)];
        let held = store.get(store.partition_point(|stored| stored.digest.first() < first));
        held.filter(|stored| stored.digest.root() == root).or_else(|| self.others.get(root)).cloned()
    }

    /// The third gate.
    fn is_well_formed(&self, digest: &BatchDigest) -> bool {
        let Some(stored) = self.find(digest.lane(), digest.first(), digest.root()) else { return false };
        let view = stored.view();
        let scheme = self.common.ledger.scheme;
        let valid = |message: weft_core::MessageView<'_>| {
            verify(scheme, message.issuer(), &message.id().0, message.signature())
        };
        let verdicts: Vec<bool> = view.messages().map(|entry| valid(entry.message)).collect();
        check_form(&view, &self.common.limits, &verdicts, |place| self.id_at(place)).is_ok()
    }

    fn id_at(&self, place: Place) -> Option<MessageId> {
        if place.lane() == LaneId::ROOTS {
            return self.common.roots.get(place.position() as usize).copied();
        }
        let store = self.store.get(usize::from(place.lane().0))?;
        let stored = store.get(store.partition_point(|stored| stored.digest.size() <= place.position()))?;
        Some(stored.view().message_at(place.position())?.message.id())
    }

    /// Time has passed.
    pub fn tick(&mut self, now_us: u64, random: &mut SplitMix64) {
        self.input(now_us, Input::Tick, random);
    }

    /// The sync under way is done: what was durable with it may leave.
    pub fn synced(&mut self, now_us: u64, random: &mut SplitMix64) {
        let Some((disk, outbox, accepted)) = self.syncing.take() else { return };
        self.disk = disk;
        self.effects.extend(accepted);
        for lane in 0..self.store.len() {
            self.report_durable(lane, now_us, random);
        }
        self.left.extend(outbox.iter().cloned());
        self.actions.extend(outbox.into_iter().map(Action::Broadcast));
    }

    fn report_durable(&mut self, lane: usize, now_us: u64, random: &mut SplitMix64) {
        let Some(last) = self.disk.store[lane].last() else { return };
        // The copy may have changed since the sync began: then nothing is known to be durable of it.
        let at = self.disk.store[lane].len() - 1;
        if self.store[lane].get(at).is_some_and(|held| held.digest.root() == last.digest.root()) {
            let (lane, size) = (LaneId(lane as u16), last.digest.size());
            self.input(now_us, Input::Durable { lane, size }, random);
        }
    }

    // ---------- the own lane

    /// Two different parents: roots, or messages that are final here.
    fn parents(&self, random: &mut SplitMix64) -> [(Place, MessageId); 2] {
        let mut parents = [0, 1].map(|index| (Place::root(index), self.common.roots[usize::from(index)]));
        for parent in &mut parents {
            let lane = LaneId(random.below(self.store.len() as u64) as u16);
            let limit = self.machine.watermarks(lane).map_or(0, |marks| marks.final_size);
            if limit == 0 || random.below(3) == 0 {
                continue;
            }
            let place = Place::new(lane, random.below(limit));
            if let Some(id) = self.id_at(place) {
                *parent = (place, id);
            }
        }
        if parents[0].1 == parents[1].1 {
            parents[1] = (Place::root(0), self.common.roots[0]);
            if parents[0].1 == parents[1].1 {
                parents[1] = (Place::root(1), self.common.roots[1]);
            }
        }
        parents
    }

    fn append_batch(&mut self, messages: &[Sealed], now_us: u64, random: &mut SplitMix64) -> Rc<Stored> {
        let tree = self.store[self.id].last().map_or_else(LaneTree::new, |stored| stored.after.clone());
        let stored = self.common.ledger.seal(&self.key(), self.lane(), &tree, messages);
        self.outbox.push(Message::Batch(Rc::clone(&stored)));
        self.take_batch(&stored, now_us, random);
        stored
    }

    fn state(&mut self, witness: &Witness, now_us: u64, random: &mut SplitMix64) {
        let payload = witness.encode().expect("the machine makes witnesses that fit");
        let parents = self.parents(random);
        self.sequence += 1;
        let message =
            self.common.ledger.message(&self.key(), PayloadKind::WITNESS, &payload, parents, self.sequence);
        let stored = self.append_batch(&[message], now_us, random);
        if let Some(message) = stored.witness() {
            self.outbox.push(Message::Witness(message));
            self.dirty = true;
        }
    }

    /// Whether the whole own lane is applied: only then something is appended.
    fn is_settled(&self) -> bool {
        self.machine.watermarks(self.lane()).is_some_and(|marks| marks.applied == marks.held)
            && self.machine.watermarks(self.lane()).map(|marks| marks.held)
                == Some(end(&self.store[self.id]).0)
    }

    /// A device hands in a message that says nothing about money.
    pub fn append_data(&mut self, device: &Key, now_us: u64, random: &mut SplitMix64) {
        if !self.up || !self.is_settled() {
            return;
        }
        let parents = self.parents(random);
        self.sequence += 1;
        let payload = [0x5a; 24];
        let message =
            self.common.ledger.message(device, PayloadKind::DATA, &payload, parents, random.next_u64());
        self.append_batch(&[message], now_us, random);
    }

    /// A device hands in an operation, with fresh parents; whether this node has taken it.
    pub fn append_operation(
        &mut self,
        key: &Key,
        payload: &[u8],
        operation: impl FnOnce(MessageId) -> Operation,
        now_us: u64,
        random: &mut SplitMix64,
    ) -> bool {
        if !self.up || !self.is_settled() {
            return false;
        }
        let parents = self.parents(random);
        let message =
            self.common.ledger.message(key, PayloadKind::TRANSFER, payload, parents, random.next_u64());
        let id = weft_core::MessageView::parse(&message.bytes).expect("it was just written").id();
        let operation = operation(id);
        let known = (operation.account, operation.sequence, operation.hash.0);
        if !self.machine.may_append(&operation) || !self.mine.insert(known) {
            return false;
        }
        self.append_batch(&[message], now_us, random);
        true
    }

    /// Lets the operation be handed in again, as a device does that has not heard of it.
    pub fn forget(&mut self, operation: &Operation) {
        self.mine.remove(&(operation.account, operation.sequence, operation.hash.0));
    }

    // ---------- replication

    /// Asks another node for what it has more.
    pub fn pull(&mut self, from: usize) {
        let lanes = 0..self.store.len() as u16;
        let locators = lanes.map(|lane| self.machine.locator(LaneId(lane))).collect();
        let followed = (0..self.chains.len()).map(|validator| self.machine.followed(validator)).collect();
        self.actions.push(Action::Send(from, Message::Pull { locators, followed }));
    }

    /// Answers with what follows the highest end that both have, lane by lane, and with the chains.
    fn answer(&mut self, to: usize, locators: &[Vec<(u64, Hash)>], followed: &[u64]) {
        let mut answer = Vec::new();
        for (lane, ends) in locators.iter().enumerate() {
            let batches = following(&self.disk.store[lane], ends);
            answer.extend(batches.iter().cloned().map(Message::Batch));
        }
        for (chain, number) in self.chains.iter().zip(followed) {
            for message in chain.iter().skip(*number as usize).take(ANSWER_WITNESSES_MAX) {
                // Of the own chain only what is durable: the last one may not be.
                let own = usize::from(message.validator) == self.id;
                let durable = self.disk.votes.as_ref().map_or(0, |votes| votes.number);
                if !own || message.witness.number <= durable {
                    answer.push(Message::Witness(Rc::clone(message)));
                }
            }
        }
        if !answer.is_empty() {
            self.actions.push(Action::Send(to, Message::Several(answer)));
        }
    }
}

/// Size and root of a stored lane.
fn end(store: &[Rc<Stored>]) -> (u64, Hash) {
    store
        .last()
        .map_or((0, weft_core::merkle::EMPTY_ROOT), |stored| (stored.digest.size(), *stored.digest.root()))
}

/// What follows the highest of `ends` in `store`.
pub fn following<'a>(store: &'a [Rc<Stored>], ends: &[(u64, Hash)]) -> &'a [Rc<Stored>] {
    let shared = ends
        .iter()
        .filter_map(|(size, root)| {
            if *size == 0 {
                return Some(0);
            }
            let at = store.binary_search_by_key(size, |stored| stored.digest.size()).ok()?;
            (store[at].digest.root() == root).then_some(at + 1)
        })
        .max();
    let rest = shared.map_or(&[][..], |at| &store[at..]);
    &rest[..rest.len().min(ANSWER_BATCHES_MAX)]
}
