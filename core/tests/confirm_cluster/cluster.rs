//! A cluster whose tests say who gets what and when: batches and witnesses travel only when a test moves them.
//!
//! Signatures are zeros and always valid here; the simulator and the node's tests have real ones.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use weft_core::confirm::{
    BatchDigest, Claim, Effect, Input, Machine, Operation, OperationHash, Rule, Rules, Setup, Transfer,
    Votes, Watermarks, Weights, Witness,
};
use weft_core::{
    Balance, BatchBuilder, BatchView, DeviceKey, Draft, LaneId, LaneTree, MessageId, MessageView, NetworkId,
    PayloadKind, Place, VerifiedMessage,
};

/// What accounts 1 to 4 have at the start.
pub(crate) const START: u64 = 10;
const NETWORK: NetworkId = NetworkId([1; 4]);

/// All rules but one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weak(Option<Rule>);

impl Rules for Weak {
    fn weakens(&self, rule: Rule) -> bool {
        self.0 == Some(rule)
    }
}

/// A payment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pay {
    /// Who pays.
    pub(crate) from: u8,
    /// With which sequence.
    pub(crate) sequence: u64,
    /// Whom.
    pub(crate) to: u8,
    /// How much.
    pub(crate) amount: u64,
}

/// Key of an account.
pub(crate) fn account(number: u8) -> DeviceKey {
    DeviceKey([100 + number; 32])
}

fn node_key(lane: usize) -> DeviceKey {
    DeviceKey([lane as u8 + 1; 32])
}

/// A batch and the tree after it.
pub(crate) struct Sealed {
    pub(crate) digest: Arc<BatchDigest>,
    pub(crate) after: LaneTree,
}

/// A claim of a batch's end.
pub(crate) fn claim(batch: &Rc<Sealed>) -> Claim {
    Claim { lane: batch.digest.lane(), size: batch.digest.size(), root: *batch.digest.root() }
}

pub(crate) struct Cluster {
    pub(crate) machines: Vec<Machine<Weak>>,
    /// Batches that a node holds of each lane, in the order in which its copy has them.
    stores: Vec<Vec<Vec<Rc<Sealed>>>>,
    known: BTreeMap<[u8; 32], Rc<Sealed>>,
    /// Witnesses that each validator has made.
    pub(crate) chains: Vec<Vec<(MessageId, Arc<Witness>)>>,
    seen: Vec<Vec<Effect>>,
    votes: Vec<Option<Votes>>,
    told: BTreeMap<(usize, usize), (u64, MessageId)>,
    setup: Vec<Setup>,
    weaken: Option<Rule>,
    validators: usize,
    lying: Vec<usize>,
    nonce: u64,
    now_us: u64,
}

impl Cluster {
    pub(crate) fn new(validators: usize, ingest: usize, lying: &[usize], weaken: Option<Rule>) -> Self {
        let lanes = validators + ingest;
        let balances: Vec<Balance> =
            (1..=4).map(|number| Balance { account: account(number), amount: START }).collect();
        let setup: Vec<Setup> = (0..lanes)
            .map(|lane| Setup {
                weights: Weights::new(vec![1; validators]),
                lanes,
                lane: Some(LaneId(lane as u16)),
                balances: balances.clone(),
                round_us: 0,
            })
            .collect();
        let machine = |setup: &Setup| Machine::with_rules(setup.clone(), Weak(weaken));
        Self {
            machines: setup.iter().map(machine).collect(),
            stores: vec![vec![Vec::new(); lanes]; lanes],
            known: BTreeMap::new(),
            chains: vec![Vec::new(); validators],
            seen: vec![Vec::new(); lanes],
            votes: vec![None; lanes],
            told: BTreeMap::new(),
            setup,
            weaken,
            validators,
            lying: lying.to_vec(),
            nonce: 0,
            now_us: 0,
        }
    }

    pub(crate) fn marks(&self, node: usize, lane: usize) -> Watermarks {
        self.machines[node].watermarks(LaneId(lane as u16)).unwrap()
    }

    /// What a node holds of a lane that matters: up to the last batch with data or a witness that covers data.
    pub(crate) fn held(&self, node: usize, lane: usize) -> u64 {
        let store = &self.stores[node][lane];
        store.iter().rfind(|sealed| sealed.digest.is_material()).map_or(0, |sealed| sealed.digest.size())
    }

    /// Everything that a node's machine has asked for or said.
    pub(crate) fn effects(&self, node: usize) -> &[Effect] {
        &self.seen[node]
    }

    /// Payloads of an account's sequence that a node has seen accepted.
    pub(crate) fn accepted(&self, node: usize, from: u8, sequence: u64) -> usize {
        let hashes: std::collections::BTreeSet<[u8; 32]> = self.seen[node]
            .iter()
            .filter_map(|effect| match effect {
                Effect::Accepted { operation, .. } | Effect::Settled { operation, .. } => Some(operation),
                _ => None,
            })
            .filter(|operation| operation.account == account(from) && operation.sequence == sequence)
            .map(|operation| operation.hash.0)
            .collect();
        hashes.len()
    }

    // ---------- batches

    fn seal(
        &mut self,
        lane: usize,
        before: &LaneTree,
        issuer: DeviceKey,
        kind: PayloadKind,
        payload: &[u8],
        place: Place,
    ) -> Rc<Sealed> {
        self.seal_all(lane, before, &[(issuer, kind, payload.to_vec())], place)
    }

    fn seal_all(
        &mut self,
        lane: usize,
        before: &LaneTree,
        messages: &[(DeviceKey, PayloadKind, Vec<u8>)],
        place: Place,
    ) -> Rc<Sealed> {
        let mut builder = BatchBuilder::new(messages.len() as u32, 2 << 20);
        for (issuer, kind, payload) in messages {
            self.nonce += 1;
            let draft = Draft {
                network: NETWORK,
                issued_at_us: self.nonce,
                sequence: self.nonce,
                parents: [MessageId([1; 32]), MessageId([2; 32])],
                kind: *kind,
                payload,
            };
            let mut bytes = Vec::new();
            draft.write_content(issuer, &mut bytes).unwrap();
            Draft::finish(&mut bytes, &[0; 64]);
            let message = VerifiedMessage::vouch(MessageView::parse(&bytes).unwrap());
            builder.push([Place::root(0), place], &message).unwrap();
        }
        let mut tree = before.clone();
        let sealed = builder.seal(&mut tree, NETWORK, LaneId(lane as u16), |_| [0; 64]).unwrap();
        let bytes = sealed.bytes().to_vec();
        let view = BatchView::parse(&bytes).unwrap();
        let (digest, after) = BatchDigest::read(&view, before, &node_key(lane), |_, _, _| true).unwrap();
        let sealed = Rc::new(Sealed { digest: Arc::new(digest), after });
        self.known.insert(*sealed.digest.root(), Rc::clone(&sealed));
        sealed
    }

    /// A liar's batch of payments, whether they may be made or not.
    pub(crate) fn payments(
        &mut self,
        lane: usize,
        after: Option<&Rc<Sealed>>,
        count: u64,
        pay: impl Fn(u64) -> Pay,
    ) -> Rc<Sealed> {
        let messages: Vec<_> = (0..count)
            .map(|index| {
                let Pay { from, sequence, to, amount } = pay(index);
                let transfer = Transfer { account_sequence: sequence, to: account(to), amount, memo: b"" };
                (account(from), PayloadKind::TRANSFER, transfer.encode().unwrap())
            })
            .collect();
        let tree = after.map_or_else(LaneTree::new, |sealed| sealed.after.clone());
        self.seal_all(lane, &tree, &messages, Place::root(1))
    }

    /// A lying validator's batch with its witness, which names its predecessor by the test's number alone; the lane
    /// goes on from the batch made here before.
    pub(crate) fn witness_batch(&mut self, lane: usize, number: u64, witness: Witness) -> Rc<Sealed> {
        let predecessor = MessageId([if number == 1 { 0 } else { 0xdd }; 32]);
        let payload = Witness { number, predecessor, ..witness }.encode().unwrap();
        let ours = self.known.values().filter(|sealed| usize::from(sealed.digest.lane().0) == lane);
        let last = ours.max_by_key(|sealed| sealed.digest.size());
        let tree = last.map_or_else(LaneTree::new, |sealed| sealed.after.clone());
        self.seal(lane, &tree, node_key(lane), PayloadKind::WITNESS, &payload, Place::root(1))
    }

    /// A liar's batch of data after these.
    pub(crate) fn batch(&mut self, lane: usize, after: &[&Rc<Sealed>], payload: &[u8]) -> Rc<Sealed> {
        let tree = after.last().map_or_else(LaneTree::new, |sealed| sealed.after.clone());
        self.seal(lane, &tree, account(50), PayloadKind::DATA, payload, Place::root(1))
    }

    fn append(&mut self, node: usize, issuer: DeviceKey, kind: PayloadKind, payload: &[u8], place: Place) {
        let tree = self.stores[node][node].last().map_or_else(LaneTree::new, |sealed| sealed.after.clone());
        let sealed = self.seal(node, &tree, issuer, kind, payload, place);
        self.give(node, &sealed);
    }

    /// An honest node takes a message of data.
    pub(crate) fn data(&mut self, node: usize) {
        self.append(node, account(50), PayloadKind::DATA, b"data", Place::root(1));
    }

    /// The same, naming the last message of another lane that may be cited here, if there is one.
    pub(crate) fn data_citing(&mut self, node: usize, lane: usize) {
        let limit = self.marks(node, lane).final_size;
        let place = match limit {
            0 => Place::root(1),
            limit => Place::new(LaneId(lane as u16), limit - 1),
        };
        self.append(node, account(50), PayloadKind::DATA, b"data", place);
    }

    /// An honest node takes a payment, if it may.
    pub(crate) fn pay(&mut self, node: usize, pay: Pay) -> bool {
        let transfer =
            Transfer { account_sequence: pay.sequence, to: account(pay.to), amount: pay.amount, memo: b"" };
        let payload = transfer.encode().unwrap();
        let operation = Operation {
            account: account(pay.from),
            sequence: pay.sequence,
            hash: OperationHash::of(&payload),
            to: account(pay.to),
            amount: pay.amount,
            message: MessageId([0; 32]),
        };
        let may = self.machines[node].may_append(&operation);
        if may {
            self.append(node, account(pay.from), PayloadKind::TRANSFER, &payload, Place::root(1));
        }
        may
    }

    // ---------- moving things

    pub(crate) fn give(&mut self, node: usize, batch: &Rc<Sealed>) {
        self.input(node, Input::Batch(Arc::clone(&batch.digest)));
    }

    pub(crate) fn tick(&mut self, node: usize) {
        self.now_us += 1;
        self.input(node, Input::Tick);
    }

    fn input(&mut self, node: usize, input: Input) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let batch = match &input {
                Input::Batch(digest) => Some(Arc::clone(digest)),
                _ => None,
            };
            let mut effects = Vec::new();
            self.machines[node].handle(self.now_us, input, &mut effects);
            if let Some(digest) = batch {
                let store = &mut self.stores[node][usize::from(digest.lane().0)];
                let end = store.last().map_or(0, |sealed| sealed.digest.size());
                let held = self.machines[node].root_at(digest.lane(), digest.size()) == Some(digest.root());
                if held && end == digest.first() {
                    store.push(Rc::clone(&self.known[digest.root()]));
                    inputs.push_back(Input::Durable { lane: digest.lane(), size: digest.size() });
                }
            }
            for effect in effects {
                match &effect {
                    Effect::CheckForm(digest) => inputs.push_back(Input::Formed {
                        lane: digest.lane(),
                        first: digest.first(),
                        root: *digest.root(),
                        well_formed: true,
                    }),
                    Effect::Persist(votes) => self.votes[node] = Some(votes.clone()),
                    Effect::State(witness) => {
                        let payload = witness.encode().unwrap();
                        let tree = self.stores[node][node]
                            .last()
                            .map_or_else(LaneTree::new, |last| last.after.clone());
                        let kind = PayloadKind::WITNESS;
                        let sealed = self.seal(node, &tree, node_key(node), kind, &payload, Place::root(1));
                        let placed = sealed.digest.witness().unwrap();
                        self.chains[node].push((placed.id, Arc::clone(&placed.witness)));
                        inputs.push_back(Input::Batch(Arc::clone(&sealed.digest)));
                    }
                    Effect::Switched { lane, from, batches } => {
                        let store = &mut self.stores[node][usize::from(lane.0)];
                        store.retain(|sealed| sealed.digest.size() <= *from);
                        store.extend(batches.iter().map(|digest| Rc::clone(&self.known[digest.root()])));
                        if let Some(last) = store.last() {
                            inputs.push_back(Input::Durable { lane: *lane, size: last.digest.size() });
                        }
                    }
                    _ => (),
                }
                self.seen[node].push(effect);
            }
        }
    }

    /// A node gets what another one has followed of that one's own chain.
    pub(crate) fn send_chain(&mut self, validator: usize, to: usize) {
        self.send_chain_of(validator, validator, to);
    }

    /// A node gets a validator's chain from whoever has it; honest validators' chains only.
    pub(crate) fn send_chain_of(&mut self, validator: usize, from: usize, to: usize) {
        let known = self.machines[from].followed(validator) as usize;
        for (id, witness) in self.chains[validator].clone().into_iter().take(known) {
            self.input(to, Input::Witness { validator: validator as u16, id, witness });
        }
    }

    /// A lying validator's next witness for one node.
    pub(crate) fn lie(&mut self, validator: usize, to: usize, witness: Witness) {
        let number = self.told.get(&(validator, to)).map_or(0, |told| told.0) + 1;
        self.lie_number(validator, to, number, witness);
    }

    /// The same, with a number of the test's choice.
    pub(crate) fn lie_number(&mut self, validator: usize, to: usize, number: u64, witness: Witness) {
        self.nonce += 1;
        let mut id = [0xee; 32];
        id[..8].copy_from_slice(&self.nonce.to_le_bytes());
        let predecessor = self.told.get(&(validator, to)).map_or(MessageId([0; 32]), |told| told.1);
        let predecessor = if number == 1 { MessageId([0; 32]) } else { predecessor };
        self.told.insert((validator, to), (number, MessageId(id)));
        let witness = Arc::new(Witness { number, predecessor, ..witness });
        self.input(to, Input::Witness { validator: validator as u16, id: MessageId(id), witness });
    }

    /// A node gets what another one holds of a lane, from where they part.
    pub(crate) fn pull_lane(&mut self, to: usize, from: usize, lane: usize) {
        for batch in self.stores[from][lane].clone() {
            self.give(to, &batch);
        }
    }

    /// These nodes give each other everything they have.
    pub(crate) fn pull_all(&mut self, nodes: &[usize]) {
        for to in nodes.iter().copied() {
            for from in nodes.iter().copied().filter(|from| *from != to) {
                for lane in 0..self.machines.len() {
                    self.pull_lane(to, from, lane);
                }
                if from < self.validators {
                    self.send_chain(from, to);
                }
            }
        }
    }

    /// Rounds in which these nodes give each other everything and then state what they have to.
    pub(crate) fn exchange_honest(&mut self, nodes: &[usize], rounds: usize) {
        for _ in 0..rounds {
            self.pull_all(nodes);
            nodes.iter().for_each(|node| self.tick(*node));
        }
        self.pull_all(nodes);
    }

    /// The same, all honest nodes.
    pub(crate) fn exchange(&mut self, rounds: usize) {
        let honest: Vec<usize> = (0..self.machines.len()).filter(|node| !self.lying.contains(node)).collect();
        self.exchange_honest(&honest, rounds);
    }

    /// Exchanges until `node` sees account `number` paid; the others have not seen the last round.
    pub(crate) fn exchange_until_paid(&mut self, node: usize, number: u8) {
        let validators: Vec<usize> = (0..self.validators).collect();
        for _ in 0..20 {
            for to in 0..self.machines.len() {
                for from in validators.clone() {
                    for lane in 0..self.machines.len() {
                        if self.machines[to].ledger().account(&account(number)).is_none() && to == node {
                            self.pull_lane(to, from, lane);
                        }
                    }
                    if to == node {
                        self.send_chain(from, to);
                    }
                }
            }
            if self.machines[node].ledger().account(&account(number)).is_some() {
                return;
            }
            self.pull_all(&validators);
            let paid = |machine: &Machine<Weak>| machine.ledger().account(&account(number)).is_some();
            if !self.machines[..self.validators].iter().any(paid) {
                validators.iter().for_each(|validator| self.tick(*validator));
            }
        }
    }

    // ---------- restarts

    /// The node is started from its votes and its stored lanes.
    pub(crate) fn restart(&mut self, node: usize) {
        let votes = self.votes[node].clone().unwrap_or_default();
        let votes = Votes::decode(&votes.encode()).unwrap();
        self.machines[node] = Machine::restore(self.setup[node].clone(), Weak(self.weaken), &votes);
        self.load(node);
    }

    /// The same by a node that has written down that `lane` was signed two ways from `at` on.
    pub(crate) fn restart_knowing(&mut self, node: usize, lane: usize, at: u64) {
        let votes = self.votes[node].clone().unwrap_or_default();
        let votes = Votes::decode(&votes.encode()).unwrap();
        self.machines[node] = Machine::restore(self.setup[node].clone(), Weak(self.weaken), &votes);
        self.input(node, Input::Forked { lane: LaneId(lane as u16), at });
        self.load(node);
    }

    /// The node is started with nothing but its place in the committee.
    pub(crate) fn forget(&mut self, node: usize) {
        self.machines[node] = Machine::with_rules(self.setup[node].clone(), Weak(self.weaken));
        self.stores[node].iter_mut().for_each(Vec::clear);
    }

    fn load(&mut self, node: usize) {
        for lane in 0..self.machines.len() {
            for batch in std::mem::take(&mut self.stores[node][lane]) {
                self.give(node, &batch);
            }
        }
    }
}
