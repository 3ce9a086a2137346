//! The driver: one thread that gives the confirmation machine its inputs, in order, and does what it asks for, in order.
//!
//! Owns the votes on the disk and what is fed to the machine from the logs. Invariants: of what one input makes the machine ask for, the
//! votes are durable before anything else is done, so that nothing leaves, and no watermark is published, that rests on votes which a
//! crash could take back; the machine is given only batches that lie in a log here, in order. A batch that the machine has no room for
//! stays in the log and is fed later.
//!
//! Votes and the signing of witnesses are in `votes`, proofs of forks in `proofs`, what is asked of the checker in `forms`.
//!
//! The driver waits for the disk (votes) and for nobody else: its queue to the sequencer holds the one witness that can be under way. So
//! whoever waits for room in the driver's own queue waits for a disk at most.

mod forms;
mod proofs;
mod votes;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crossbeam::channel::{RecvTimeoutError, Sender};
use weft_core::confirm::{BatchDigest, Effect, Input, Machine, Witness};
use weft_core::merkle::Hash;
use weft_core::{DeviceSigner, ForkProof, LaneId, MessageId, NetworkId, NodeKey, Place, Reason};
use weft_net::AckLevel;
use weft_storage::{LogError, LogReader};

use super::acks::ConfirmAcks;
use super::events::EventReceiver;
use super::forks::ForkFile;
use super::record::RecordFile;
use super::{Confirm, Fault};
use crate::health::{Health, State};
use crate::history::History;
use crate::lane::with_sources;
use crate::random::Random;
use crate::replicate::{self, Link};
use crate::stats::Counters;

/// Events that wait for the driver: batches come at thousands a second, and a slow sync of the votes takes tens of milliseconds.
pub const EVENTS_QUEUED_MAX: usize = 1024;

/// Longest sleep: acks that have waited too long are looked for this often.
const SLEEP_MAX: Duration = Duration::from_millis(500);

/// How often a node that may state nothing looks whether it may.
const HELD_LOOK: Duration = Duration::from_millis(20);

/// How often a node without a vote writes down what it has verified.
const NOTE_EVERY: Duration = Duration::from_secs(2);

/// Batches of one lane that are fed from its log before another lane, events and the tick have their turn: a lane that is far behind must
/// not hold up the others. A batch takes up to a millisecond.
const FEED_BATCHES_MAX: usize = 8;

/// How long events are taken before the others have their turn, and how long lanes are fed: half of the default round, since a validator that
/// is behind in many lanes votes while it catches up.
const ROUND_MAX: Duration = Duration::from_millis(50);

/// How often votes that found no room on the disk are tried again.
const FULL_RETRY: Duration = Duration::from_millis(100);

/// What the driver is told.
#[derive(Debug)]
pub enum Event {
    /// A batch is in the log of its lane, written.
    Stored(Arc<BatchDigest>),
    /// An authentic batch of another history of its lane.
    Side(Arc<BatchDigest>),
    /// The verdict on a batch that was to be checked.
    Formed {
        /// The lane.
        lane: LaneId,
        /// Where the batch starts.
        first: u64,
        /// Its root.
        root: Hash,
        /// Whether it is well formed.
        well_formed: bool,
    },
    /// A witness, signed by its validator.
    Witness {
        /// Whose.
        validator: u16,
        /// Id of its message.
        id: MessageId,
        /// What it says.
        witness: Arc<Witness>,
    },
    /// A batch that was to be checked was not found in its log, which has been cut since it was asked for.
    Again(Arc<BatchDigest>),
    /// A lane was signed two ways: this proof holds.
    Proven(Box<ForkProof>),
    /// This node's own copy of a lane is damaged or cannot be read.
    Damaged(LogError),
    /// Look again: something that is published has moved, or more of a log is durable.
    Wake,
    /// End.
    Stop,
}

/// A witness that this node has signed, on its way into the own lane.
#[derive(Clone, Debug)]
pub struct OwnWitness {
    /// The message.
    pub bytes: Vec<u8>,
    /// Its id.
    pub id: MessageId,
}

/// One lane as the driver reads it.
#[derive(Debug)]
pub struct LaneSource {
    /// The log.
    pub reader: LogReader,
    /// Key of the lane's node.
    pub key: NodeKey,
}

/// What the driver is made of.
#[derive(Debug)]
pub struct Parts {
    /// Confirmation, shared with those who ask.
    pub confirm: Arc<Confirm>,
    /// Payments in the ledger, for those who ask.
    pub history: Arc<History>,
    /// Acks that wait for it.
    pub acks: Arc<ConfirmAcks>,
    /// The node's statistics.
    pub counters: Arc<Counters>,
    /// The node's health.
    pub health: Arc<Health>,
    /// By lane.
    pub lanes: Vec<LaneSource>,
    /// Votes on the disk.
    pub record: RecordFile,
    /// Proofs of forks on the disk.
    pub forks: ForkFile,
    /// Signs witnesses with the node's key.
    pub signer: DeviceSigner,
    /// The ledger.
    pub network: NetworkId,
    /// The genesis roots: parents where there are no tips.
    pub roots: [MessageId; 2],
    /// Durable tips, for the parents of witnesses.
    pub tips: Arc<Mutex<Vec<MessageId>>>,
    /// Chooses among them.
    pub random: Random,
    /// To the sequencer.
    pub witnesses: Sender<OwnWitness>,
    /// Sizes below which what lies in the logs was verified in an earlier life, by lane.
    pub verified: Vec<u64>,
    /// The other nodes, if there are any.
    pub link: Option<Link>,
    /// Newly final batches of other lanes, whose messages may become tips.
    pub tips_elsewhere: Sender<Place>,
}

/// The driver.
#[derive(Debug)]
pub struct Driver {
    parts: Parts,
    started: Instant,
    inputs: VecDeque<Input>,
    effects: Vec<Effect>,
    /// Lanes of which the log has more than the machine.
    behind: Vec<bool>,
    /// What was held and final of each lane when the machine last refused a batch of it.
    refused: Vec<Option<(u64, u64)>>,
    /// A lane had more than its share when lanes were last fed, or time was up.
    hungry: bool,
    /// Which lane is fed first.
    feed_next: usize,
    /// How long events are taken before a tick, and then lanes fed: [`ROUND_MAX`].
    round_max: Duration,
    /// Size of the own lane after the batch with the last own witness.
    stated: u64,
    /// Final sizes of lanes whose sides are to be let go of.
    prune: BTreeMap<LaneId, u64>,
    /// By lane, what is to be checked and is not in the log yet, in order.
    later: BTreeMap<LaneId, VecDeque<Arc<BatchDigest>>>,
    /// Something was given to the machine since the last tick.
    fresh: bool,
    /// The moment that the last tick without a result was due for: without news it says nothing new.
    ticked: Option<u64>,
    expired_at: Instant,
    /// A node without a vote writes down what it has verified, now and then: when it did, and the sum of its final sizes then.
    noted: (Instant, u64),
}

impl Driver {
    /// A driver at the start: [`Driver::replay`] first.
    pub fn new(parts: Parts) -> Self {
        let (behind, refused) = (vec![true; parts.lanes.len()], vec![None; parts.lanes.len()]);
        let now = Instant::now();
        Self {
            parts,
            started: now,
            inputs: VecDeque::new(),
            effects: Vec::new(),
            behind,
            refused,
            hungry: false,
            feed_next: 0,
            round_max: ROUND_MAX,
            stated: 0,
            prune: BTreeMap::new(),
            later: BTreeMap::new(),
            fresh: true,
            ticked: None,
            expired_at: now,
            noted: (now, 0),
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Gives the machine what the logs hold. After it confirmation is where it was before the restart, as far as the machine has room;
    /// the rest follows as final moves.
    ///
    /// # Errors
    /// If a log cannot be read.
    pub fn replay(&mut self) -> Result<(), LogError> {
        // Before the batches: of a closed lane no more is applied than is certified, or was stated.
        let forks: Vec<(LaneId, u64)> = self.parts.forks.forks().collect();
        for (lane, at) in forks {
            tracing::warn!(%lane, at, "a lane was signed two ways: proven before this start");
            self.parts.confirm.fault(lane, Fault::Forked);
            self.input(Input::Forked { lane, at })?;
        }
        if let Some(link) = &self.parts.link {
            for proof in self.parts.forks.proofs() {
                link.forks.insert(proof);
            }
        }
        // Lanes wait for each other's witnesses: one pass after the other, as long as there is any progress.
        let mut held = None;
        while held != Some(self.held_in_all()) {
            held = Some(self.held_in_all());
            self.feed()?;
        }
        self.tell_durable()?;
        self.publish();
        Ok(())
    }

    /// The driver's life: until it is stopped, or the log fails.
    pub fn run(mut self, events: &EventReceiver) {
        let cause = loop {
            let first = match events.recv_timeout(self.sleep()) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            match self.round(first, events) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => break with_sources(&error),
            }
        };
        tracing::error!(%cause, "confirmation cannot go on: nothing more is acknowledged");
        self.parts.health.set_state(State::Poisoned, Some(cause));
        self.parts.acks.close(Reason::LogFailed.with(0, 0), &self.parts.counters);
        // Those who report to it must not be held up.
        while !matches!(events.recv(), Some(Event::Stop) | None) {}
    }

    /// Everything that has happened, then a tick, then what follows for others. `false` at the end.
    fn round(&mut self, first: Option<Event>, events: &EventReceiver) -> Result<bool, LogError> {
        let began = Instant::now();
        for event in first.into_iter().chain(events.try_iter().take(EVENTS_QUEUED_MAX)) {
            match event {
                Event::Stored(digest) => self.stored(digest)?,
                Event::Side(digest) => self.input(Input::Batch(digest))?,
                Event::Formed { lane, first, root, well_formed } => {
                    self.input(Input::Formed { lane, first, root, well_formed })?;
                }
                Event::Witness { validator, id, witness } => {
                    self.input(Input::Witness { validator, id, witness })?;
                }
                Event::Again(digest) => {
                    let root = |machine: &Machine| machine.root_at(digest.lane(), digest.size()).copied();
                    if self.parts.confirm.ask(root) == Some(*digest.root()) {
                        self.ask_form(&digest);
                    }
                }
                Event::Proven(proof) => self.proven(*proof)?,
                Event::Damaged(error) => return Err(error),
                Event::Wake => {}
                Event::Stop => return Ok(false),
            }
            if began.elapsed() >= self.round_max {
                break;
            }
        }
        self.feed()?;
        self.tell_durable()?;
        self.tick()?;
        self.prune_sides();
        self.publish();
        self.note()?;
        let now = Instant::now();
        if now.duration_since(self.expired_at) >= SLEEP_MAX {
            self.expired_at = now;
            self.parts.acks.expire(now, &self.parts.counters);
        }
        Ok(true)
    }

    /// Whether nothing may be stated: other nodes may know more of this node's chain than it does itself, or do.
    fn is_held(&self) -> bool {
        !self.parts.health.has_joined() || self.parts.health.state() == State::Poisoned
    }

    /// How long nothing is to be done if nothing happens.
    fn sleep(&self) -> Duration {
        if self.hungry {
            return Duration::ZERO;
        }
        if self.is_held() {
            return HELD_LOOK;
        }
        let Some(next) = self.parts.confirm.ask(|machine| machine.next_tick_us()) else { return SLEEP_MAX };
        let now = self.now_us();
        if next > now {
            return Duration::from_micros(next - now).min(SLEEP_MAX);
        }
        if self.is_due(next, now) { Duration::ZERO } else { SLEEP_MAX }
    }

    /// Whether a tick may have a result. One that had none has none again before something has happened or its time has come. The record
    /// keeps one witness, so the next one is not made before that one is on the disk in its lane: a crash would leave a gap.
    fn is_due(&self, next: u64, now: u64) -> bool {
        let own = self.parts.lanes.get(usize::from(self.validator()));
        let is_kept = own.is_none_or(|own| own.reader.durable_size() >= self.stated);
        is_kept && next <= now && (self.fresh || self.ticked != Some(next))
    }

    fn tick(&mut self) -> Result<(), LogError> {
        let now = self.now_us();
        let Some(next) = self.parts.confirm.ask(|machine| machine.next_tick_us()) else { return Ok(()) };
        if self.is_held() || !self.is_due(next, now) {
            return Ok(());
        }
        self.input(Input::Tick)?;
        self.fresh = false;
        self.ticked = self.parts.confirm.ask(|machine| machine.next_tick_us()).filter(|next| *next <= now);
        Ok(())
    }

    /// A batch is in a log. The machine gets it now if it is its next one, else later from the log.
    fn stored(&mut self, digest: Arc<BatchDigest>) -> Result<(), LogError> {
        let index = usize::from(digest.lane().0);
        let Some(behind) = self.behind.get_mut(index) else { return Ok(()) };
        *behind = true;
        self.note_own(&digest);
        self.ask_later(digest.lane());
        let held = self.held(digest.lane());
        if digest.first() == held {
            let size = digest.size();
            self.input(Input::Batch(digest))?;
            let source = &self.parts.lanes[index];
            self.behind[index] = self.held(source.reader.lane()) != size || source.reader.size() != size;
        }
        Ok(())
    }

    /// Notes where the last own witness lies, before the machine hears of it: by then the next one must not be made before this one is
    /// durable. A batch may be fed from the log before its event comes.
    fn note_own(&mut self, digest: &BatchDigest) {
        if digest.lane() == self.parts.confirm.lane() && digest.witness().is_some() {
            self.stated = self.stated.max(digest.size());
        }
    }

    fn held_in_all(&self) -> u64 {
        self.parts.lanes.iter().map(|source| self.held(source.reader.lane())).sum()
    }

    fn held(&self, lane: LaneId) -> u64 {
        self.parts.confirm.ask(|machine| machine.watermarks(lane).map_or(0, |marks| marks.held))
    }

    /// Gives the machine what the logs have more than it, as far as it has room; of each lane its share.
    fn feed(&mut self) -> Result<(), LogError> {
        self.hungry = false;
        let (began, lanes) = (Instant::now(), self.behind.len());
        for turn in 0..lanes {
            let index = (self.feed_next + turn) % lanes;
            let mut fed = 0;
            while self.behind[index] && fed < FEED_BATCHES_MAX && self.feed_one(index)? {
                fed += 1;
            }
            self.hungry |= fed == FEED_BATCHES_MAX;
            if fed > 0 && began.elapsed() >= self.round_max {
                // The others come first next time.
                self.feed_next = (index + 1) % lanes;
                self.hungry = true;
                break;
            }
        }
        Ok(())
    }

    /// Feeds the next batch of a lane; whether there may be another one.
    fn feed_one(&mut self, index: usize) -> Result<bool, LogError> {
        let source = &self.parts.lanes[index];
        let lane = source.reader.lane();
        let held = self.held(lane);
        let final_size =
            self.parts.confirm.ask(|machine| machine.watermarks(lane).map_or(0, |marks| marks.final_size));
        if self.refused[index] == Some((held, final_size)) {
            return Ok(false);
        }
        let Some(batch) = source.reader.batch_at(held)? else {
            self.behind[index] = false;
            return Ok(false);
        };
        let Some(before) = self.parts.confirm.ask(|machine| machine.root_at(lane, held).copied()) else {
            return Ok(false);
        };
        let digest = {
            let view = batch.view().map_err(|error| {
                LogError::Damaged(weft_storage::Damage {
                    path: std::path::PathBuf::from(format!("the log of lane {lane}")),
                    offset: held,
                    what: error.to_string(),
                })
            })?;
            BatchDigest::vouched(&view, before, &source.key)
        };
        self.note_own(&digest);
        self.input(Input::Batch(Arc::new(digest)))?;
        let taken = self.held(lane) > held;
        // No room, or the lane has ended: again when final has moved.
        self.refused[index] = (!taken).then_some((held, final_size));
        Ok(taken)
    }

    /// Tells the machine what is durable of what it holds. It takes no more than that, so it is told again when it holds more.
    fn tell_durable(&mut self) -> Result<(), LogError> {
        let news = |source: &LaneSource, machine: &Machine| {
            let lane = source.reader.lane();
            let held = machine.watermarks(lane).map_or(0, |marks| marks.held);
            source.reader.durable_size().min(held) > machine.durable_size(lane)
        };
        let lanes = &self.parts.lanes;
        let lanes: Vec<usize> = self
            .parts
            .confirm
            .ask(|machine| (0..lanes.len()).filter(|index| news(&lanes[*index], machine)).collect());
        for index in lanes {
            // Read now: what follows from one lane's size may be that another lane's log is cut.
            let reader = &self.parts.lanes[index].reader;
            self.input(Input::Durable { lane: reader.lane(), size: reader.durable_size() })?;
        }
        Ok(())
    }

    /// Lets go of sides that are history, of each lane whose log is not being written just now.
    fn prune_sides(&mut self) {
        if let Some(link) = &self.parts.link {
            self.prune.retain(|lane, size| !link.stores.prune_sides(*lane, *size));
        }
    }

    /// One input to the machine and everything that follows from it here. What the driver tells the machine while it acts waits until
    /// all effects of the input before are done.
    fn input(&mut self, input: Input) -> Result<(), LogError> {
        self.fresh |= !matches!(input, Input::Tick);
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            let mut effects = std::mem::take(&mut self.effects);
            let now = self.now_us();
            self.parts.confirm.machine().handle(now, input, &mut effects);
            let done = self.act(&effects);
            effects.clear();
            self.effects = effects;
            done?;
        }
        Ok(())
    }

    /// Does what the machine asks for: votes first.
    fn act(&mut self, effects: &[Effect]) -> Result<(), LogError> {
        let votes = effects.iter().rev().find_map(|effect| match effect {
            Effect::Persist(votes) => Some(votes),
            _ => None,
        });
        let stated = effects.iter().find_map(|effect| match effect {
            Effect::State(witness) => Some(witness),
            _ => None,
        });
        let own = stated.map(|witness| self.sign(witness)).transpose()?;
        if let Some(votes) = votes {
            self.persist(votes, own.as_ref())?;
        }
        if let (Some(own), Some(witness)) = (own, stated) {
            Counters::add(&self.parts.confirm.counters.witnesses, 1);
            if let Some(link) = &self.parts.link {
                // It is durable, in the record; and so is all that it covers.
                let message = Bytes::copy_from_slice(&own.bytes);
                link.chains.came(self.validator(), own.id, message.clone());
                link.chains.followed(self.validator(), witness.number, own.id);
                if let Some(net) = link.net.get() {
                    net.broadcast_witness(&message);
                }
            }
            // The sequencer is gone only when the node ends.
            let _ = self.parts.witnesses.send(own);
        }
        for effect in effects {
            self.act_on(effect)?;
        }
        Ok(())
    }

    /// This node's number among the validators, if it is one: that of its lane.
    fn validator(&self) -> u16 {
        self.parts.confirm.lane().0
    }

    fn act_on(&mut self, effect: &Effect) -> Result<(), LogError> {
        let counters = &self.parts.confirm.counters;
        match effect {
            Effect::CheckForm(digest) => {
                let (lane, first, root) = (digest.lane(), digest.first(), *digest.root());
                let verified = self.parts.verified.get(usize::from(lane.0)).copied().unwrap_or(0);
                // Of the own lane this node has verified all before it was sealed.
                let known = lane == self.parts.confirm.lane() || digest.size() <= verified;
                if self.parts.link.is_some() && !known {
                    self.ask_form(digest);
                } else {
                    self.inputs.push_back(Input::Formed { lane, first, root, well_formed: true });
                }
            }
            Effect::Switched { lane, from, batches } => {
                tracing::warn!(%lane, from, batches = batches.len(), "a lane's copy changes to its certified history");
                let index = usize::from(lane.0);
                self.forget_later(*lane, *from);
                if let Some(verified) = self.parts.verified.get_mut(index) {
                    *verified = (*verified).min(*from);
                }
                if let (Some(behind), Some(refused)) =
                    (self.behind.get_mut(index), self.refused.get_mut(index))
                {
                    (*behind, *refused) = (true, None);
                }
                if let Some(link) = &self.parts.link {
                    // From here on what is read of the log may be of either history.
                    link.cuts.fetch_add(1, Ordering::AcqRel);
                    let expire = || self.parts.acks.expire(Instant::now(), &self.parts.counters);
                    let size = link.stores.switch(*lane, *from, batches, expire)?;
                    self.inputs.push_back(Input::Durable { lane: *lane, size });
                    if let Some(net) = link.net.get() {
                        net.lane_grew(*lane);
                    }
                }
            }
            Effect::Forked { held, other } => {
                Counters::add(&counters.forks, 1);
                tracing::error!(lane = %held.lane(), at = held.first(), "a lane was signed two ways");
                self.forked(held, other);
            }
            Effect::Ended(batch) => {
                Counters::add(&counters.ended, 1);
                tracing::error!(lane = %batch.lane(), at = batch.first(), "a lane ends before an ill-formed batch");
                self.parts.confirm.fault(batch.lane(), Fault::Ended);
                if let Some(link) = &self.parts.link {
                    replicate::ban(&link.net, batch.lane(), "it sealed a batch that is not well formed");
                }
            }
            Effect::Equivocated { validator, number } => {
                Counters::add(&counters.equivocations, 1);
                tracing::error!(validator, number, "a validator signed two witnesses with one number");
                self.parts.confirm.fault(LaneId(*validator), Fault::Equivocated);
                if let Some(link) = &self.parts.link {
                    replicate::ban(&link.net, LaneId(*validator), "it signed two witnesses with one number");
                }
            }
            Effect::Followed { validator, number, id } => {
                if let Some(link) = &self.parts.link {
                    link.chains.followed(*validator, *number, *id);
                }
            }
            Effect::Final { lane, size } if *lane != self.parts.confirm.lane() => {
                self.prune.insert(*lane, *size);
                // Tips are a service: what finds no room is left out.
                let _ = self.parts.tips_elsewhere.try_send(Place::new(*lane, size.saturating_sub(1)));
            }
            Effect::Silenced { number } => {
                self.parts.confirm.silenced.store(true, Ordering::Release);
                tracing::error!(
                    number,
                    "this validator's votes are older than its lane: it states nothing more, so nothing that needs its vote is \
                     confirmed; the file `votes` was lost or taken from a copy"
                );
            }
            Effect::Entered(operation) => self.parts.history.entered(operation),
            Effect::Settled { place, operation } => {
                Counters::add(&counters.operations_final, 1);
                self.parts.history.settled(operation, *place);
            }
            Effect::Persist(_)
            | Effect::State(_)
            | Effect::Certified { .. }
            | Effect::Final { .. }
            | Effect::Accepted { .. } => {}
        }
        Ok(())
    }

    /// Tells the rest of the node how far everything is. All votes are durable by now.
    fn publish(&mut self) {
        let confirm = &self.parts.confirm;
        let (marks, restoring) = confirm.ask(|machine| {
            let marks = |source: &LaneSource| machine.watermarks(source.reader.lane()).unwrap_or_default();
            (self.parts.lanes.iter().map(marks).collect::<Vec<_>>(), machine.is_restoring())
        });
        for (source, marks) in self.parts.lanes.iter().zip(&marks) {
            confirm.publish(source.reader.lane(), marks);
        }
        confirm.restoring.store(restoring, Ordering::Release);
        let own = confirm.marks(confirm.lane());
        self.parts.acks.reached(AckLevel::Certified, own.certified);
        self.parts.acks.reached(AckLevel::Final, own.final_size);
    }
}

impl Drop for Driver {
    /// However it ends, nobody waits for it any more.
    fn drop(&mut self) {
        self.parts.acks.close(Reason::ShuttingDown.with(0, 0), &self.parts.counters);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "helpers of tests")]
mod tests;
