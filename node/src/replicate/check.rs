//! The third gate for the batches of other nodes: signatures and places, in batches as large as the lag.
//!
//! Owns the thread that checks. It takes what the machine has asked for, verifies all signatures together by the node's own engine, then
//! looks at each batch by itself ([`check_form`]). Lanes have their turns: each gets its share of what is verified together, so that one
//! that is millions of messages behind does not hold up the others, and one that is alone gets all of it.
//!
//! Invariants: a verdict is about the bytes in the log under the root that the machine asked about. A batch is called ill formed, which
//! ends another node's lane, only after the serial verifier has confirmed that a signature is not valid, and after the batch and what its
//! parents lie in have given their roots once more: damage to this node's disk is its own failure, by name, and proves nothing against
//! anybody. What cannot be read is such a failure too, unless a log was being cut: then the machine is asked whether it still wants to know.
//!
//! What is asked for is bounded by what the machine holds of each lane.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::channel::Receiver;
use weft_core::confirm::{BatchDigest, IllFormed, check_form};
use weft_core::{BatchView, LaneId, Limits, MessageId, Place};
use weft_crypto::{BatchVerifier, Columns, Messages};
use weft_storage::{Damage, LogError};

use super::store::Stores;
use crate::confirm::driver::Event;
use crate::confirm::events::EventSender;
use crate::hasher::fastest;
use crate::lanes::Lanes;
use crate::stats::Counters;

/// Messages that are verified together: the engine's gain from larger batches has ended long before, and the columns stay in the cache.
pub const ROWS_MAX: usize = 16_384;

/// Newest ids that are remembered of each lane, for parents: most are recent, and the log would have to hash them again.
const WINDOW_IDS: usize = 1 << 16;

/// The checker's parts.
pub struct Checker {
    /// Verifies.
    pub verifier: Arc<dyn BatchVerifier>,
    /// Threads that verify large batches.
    pub workers: usize,
    /// What the genesis allows.
    pub limits: Limits,
    /// The genesis roots.
    pub roots: [MessageId; 2],
    /// All logs.
    pub lanes: Lanes,
    /// Hashes ids.
    pub stores: Arc<Stores>,
    /// Takes the verdicts.
    pub events: EventSender,
    /// Statistics.
    pub counters: Arc<Counters>,
    /// How often any log was cut.
    pub cuts: Arc<AtomicU64>,
    /// Ids at the end of each lane.
    pub windows: Vec<Window>,
    /// Where each lane was found to end, and how often logs had been cut then.
    pub ended: Vec<Option<(u64, u64)>>,
}

/// A batch whose form the machine asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The batch.
    pub digest: Arc<BatchDigest>,
    /// How often logs had been cut when it was asked for.
    pub cuts: u64,
}

impl Asked {
    /// Its messages.
    fn rows(&self) -> usize {
        usize::try_from(self.digest.size() - self.digest.first()).unwrap_or(usize::MAX).saturating_sub(1)
    }
}

/// What is asked for, by lane.
#[derive(Debug, Default)]
struct Queues {
    lanes: BTreeMap<LaneId, VecDeque<Asked>>,
    /// Whose turn it is.
    turn: LaneId,
}

impl Queues {
    fn push(&mut self, asked: Asked) {
        self.lanes.entry(asked.digest.lane()).or_default().push_back(asked);
    }

    /// What is verified together next: of each lane its share of [`ROWS_MAX`] messages, the oldest first and one batch at least, and what
    /// other lanes leave of theirs.
    fn take(&mut self) -> Vec<Asked> {
        let mut taken = Vec::new();
        let mut rows = 0;
        while rows < ROWS_MAX && !self.lanes.is_empty() {
            let share = ((ROWS_MAX - rows) / self.lanes.len()).max(1);
            let order: Vec<LaneId> = self
                .lanes
                .range(self.turn..)
                .chain(self.lanes.range(..self.turn))
                .map(|lane| *lane.0)
                .collect();
            for lane in order {
                if rows >= ROWS_MAX {
                    self.turn = lane;
                    break;
                }
                let Some(queue) = self.lanes.get_mut(&lane) else { continue };
                let mut of_lane = 0;
                while of_lane < share
                    && let Some(asked) = queue.pop_front()
                {
                    of_lane += asked.rows().max(1);
                    taken.push(asked);
                }
                rows += of_lane;
                if queue.is_empty() {
                    self.lanes.remove(&lane);
                }
            }
        }
        taken
    }
}

impl std::fmt::Debug for Checker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checker").finish_non_exhaustive()
    }
}

/// The newest ids of one lane, as checked.
#[derive(Clone, Debug, Default)]
pub struct Window {
    first: u64,
    ids: VecDeque<Option<MessageId>>,
}

impl Window {
    fn get(&self, position: u64) -> Option<MessageId> {
        let index = usize::try_from(position.checked_sub(self.first)?).ok()?;
        self.ids.get(index).copied().flatten()
    }

    /// Takes a batch's ids. One that does not follow begins anew: the lane has changed to another history, or something was left out.
    fn push(&mut self, first: u64, ids: &[MessageId]) {
        if self.first + self.ids.len() as u64 != first {
            self.ids.clear();
            self.first = first;
        }
        self.ids.push_back(None);
        self.ids.extend(ids.iter().copied().map(Some));
        let over = self.ids.len().saturating_sub(WINDOW_IDS);
        self.ids.drain(..over);
        self.first += over as u64;
    }
}

/// A batch that is being checked.
struct Read {
    asked: Asked,
    bytes: weft_storage::disk::Slice,
    ids: Vec<MessageId>,
}

impl Checker {
    /// The checker's life: until nobody asks any more.
    pub fn run(mut self, asked: &Receiver<Asked>) {
        let mut queues = Queues::default();
        loop {
            if queues.lanes.is_empty() {
                let Ok(first) = asked.recv() else { return };
                queues.push(first);
            }
            asked.try_iter().for_each(|asked| queues.push(asked));
            let mut batches = Vec::new();
            for asked in queues.take() {
                match self.read(&asked) {
                    Ok((bytes, ids)) => batches.push(Read { asked, bytes, ids }),
                    Err(error) => {
                        if !self.failed(&asked, error) {
                            return;
                        }
                    }
                }
            }
            if !self.check(batches) {
                return;
            }
        }
    }

    /// What was to be checked, or what is needed for it, is not here as it was stored. `false` when there is nobody to tell.
    fn failed(&self, asked: &Asked, error: LogError) -> bool {
        let event = if self.cuts.load(Ordering::Acquire) == asked.cuts {
            tracing::error!(lane = %asked.digest.lane(), first = asked.digest.first(), %error, "a stored batch cannot be checked");
            Event::Damaged(error)
        } else {
            Event::Again(Arc::clone(&asked.digest))
        };
        self.events.send(event).is_ok()
    }

    /// The bytes that the machine asks about, and the ids in them.
    fn read(&self, asked: &Asked) -> Result<(weft_storage::disk::Slice, Vec<MessageId>), LogError> {
        let digest = &asked.digest;
        let damaged = |what: &str| damage(digest.lane(), digest.first(), what);
        let reader = self.lanes.get(digest.lane()).ok_or_else(|| damaged("there is no such lane"))?;
        let stored =
            reader.batch_at(digest.first())?.ok_or_else(|| damaged("the batch is not there any more"))?;
        let view = stored.view().map_err(|error| damaged(&error.to_string()))?;
        if view.root() != digest.root() {
            return Err(damaged("the batch has another root than when it was taken"));
        }
        let ids = view.ids_by(fastest());
        Ok((stored.bytes, ids))
    }

    fn check(&mut self, batches: Vec<Read>) -> bool {
        let rows = batches.iter().map(|batch| batch.ids.len()).sum();
        let views: Vec<Option<BatchView<'_>>> =
            batches.iter().map(|batch| BatchView::parse(&batch.bytes).ok()).collect();
        let mut keys = Vec::with_capacity(rows);
        let mut ids = Vec::with_capacity(rows);
        let mut signatures = Vec::with_capacity(rows);
        for (batch, view) in batches.iter().zip(&views) {
            for (entry, id) in view.iter().flat_map(BatchView::messages).zip(&batch.ids) {
                keys.push(entry.message.issuer().0);
                ids.push(id.0);
                signatures.push(*entry.message.signature());
            }
        }
        let mut verdicts = vec![false; keys.len()];
        self.verify(&keys, &ids, &signatures, &mut verdicts);
        Counters::add(&self.counters.replicated_signatures, keys.len() as u64);
        self.counters.replicated_checks.fetch_add(1, Ordering::Relaxed);
        let mut row = 0;
        for (batch, view) in batches.iter().zip(views) {
            let end = (row + batch.ids.len()).min(verdicts.len());
            let range = row..end;
            row = end;
            let digest = &batch.asked.digest;
            let verdicts = &mut verdicts[range.clone()];
            self.confirm_refused(&keys[range.clone()], &ids[range.clone()], &signatures[range], verdicts);
            let formed = match view {
                Some(view) => self.is_well_formed(&batch.asked, &view, verdicts),
                None => Err(damage(digest.lane(), digest.first(), "it cannot be read any more")),
            };
            let well_formed = match formed {
                Ok(well_formed) => well_formed,
                Err(error) => {
                    if !self.failed(&batch.asked, error) {
                        return false;
                    }
                    continue;
                }
            };
            if well_formed && let Some(window) = self.windows.get_mut(usize::from(digest.lane().0)) {
                window.push(digest.first(), &batch.ids);
            }
            let (lane, first, root) = (digest.lane(), digest.first(), *digest.root());
            if self.events.send(Event::Formed { lane, first, root, well_formed }).is_err() {
                return false;
            }
        }
        true
    }

    fn verify(&self, keys: &[[u8; 32]], ids: &[[u8; 32]], signatures: &[[u8; 64]], verdicts: &mut [bool]) {
        // A thread each is worth it from about a millisecond of work on.
        let share = keys.len().div_ceil(self.workers.max(1)).max(1_024);
        if keys.len() <= share {
            if !keys.is_empty() {
                let columns = Columns { keys, messages: Messages::Ids(ids), signatures };
                self.verifier.verify(&columns, verdicts);
            }
            return;
        }
        std::thread::scope(|scope| {
            let parts = keys.chunks(share).zip(ids.chunks(share)).zip(signatures.chunks(share));
            for (((keys, ids), signatures), verdicts) in parts.zip(verdicts.chunks_mut(share)) {
                let verifier = &self.verifier;
                scope.spawn(move || {
                    verifier.verify(&Columns { keys, messages: Messages::Ids(ids), signatures }, verdicts);
                });
            }
        });
    }

    /// What the engine refuses is asked of the serial verifier.
    fn confirm_refused(
        &self,
        keys: &[[u8; 32]],
        ids: &[[u8; 32]],
        signatures: &[[u8; 64]],
        verdicts: &mut [bool],
    ) {
        for (index, verdict) in verdicts.iter_mut().enumerate().filter(|(_, verdict)| !**verdict) {
            if weft_crypto::serial::verify_one(&keys[index], &ids[index], &signatures[index]) {
                tracing::error!(
                    verifier = self.verifier.name(),
                    "the verifier refused a signature that the serial one takes: a defect; the serial one is right"
                );
                *verdict = true;
            } else {
                // One is enough to end the lane.
                return;
            }
        }
    }

    /// The verdict on a batch.
    ///
    /// # Errors
    /// What was stored here is not as it was.
    fn is_well_formed(
        &mut self,
        asked: &Asked,
        view: &BatchView<'_>,
        verdicts: &[bool],
    ) -> Result<bool, LogError> {
        let failure = RefCell::new(None);
        let at = |place| {
            self.id_at(place, view.lane()).unwrap_or_else(|error| {
                failure.borrow_mut().get_or_insert(error);
                None
            })
        };
        let formed = check_form(view, &self.limits, verdicts, at);
        if let Some(error) = failure.into_inner() {
            return Err(error);
        }
        let Err(why) = formed else { return Ok(true) };
        let lane = usize::from(view.lane().0);
        // What follows a batch that ends its lane makes no difference, and looking closely costs reading a segment.
        let is_over = |(first, cuts): &(u64, u64)| *first < view.first() && *cuts == asked.cuts;
        if self.ended.get(lane).and_then(Option::as_ref).is_some_and(is_over) {
            return Ok(false);
        }
        self.check_stored(view.lane(), view.first())?;
        if let IllFormed::Place { place, .. } = why
            && self.lanes.get(place.lane()).is_some_and(|reader| place.position() < reader.size())
        {
            self.check_stored(place.lane(), place.position())?;
        }
        tracing::error!(lane = %view.lane(), first = view.first(), %why, "a batch is not well formed");
        if let Some(ended) = self.ended.get_mut(lane) {
            *ended = Some((view.first(), asked.cuts));
        }
        Ok(false)
    }

    /// Makes sure that the stored batch which `position` lies in gives the root that its node has signed.
    fn check_stored(&self, lane: LaneId, position: u64) -> Result<(), LogError> {
        let damaged = |what: &str| damage(lane, position, what);
        let reader = self.lanes.get(lane).ok_or_else(|| damaged("there is no such lane"))?;
        let stored = reader.batch_at(position)?.ok_or_else(|| damaged("the batch is not there any more"))?;
        let view = stored.view().map_err(|error| damaged(&error.to_string()))?;
        view.check_hashes().map_err(|error| damaged(&error.to_string()))?;
        let before =
            reader.tree_at(view.first())?.ok_or_else(|| damaged("what lies before it is not there"))?;
        let ids = view.ids_by(fastest());
        view.check_root_of(&before, &ids, fastest()).map_err(|error| damaged(&error.to_string()))?;
        Ok(())
    }

    /// The id of the message at a place in another lane, which is final, or in the lane `of` that is checked; `None` if no message lies
    /// there.
    fn id_at(&self, place: Place, of: LaneId) -> Result<Option<MessageId>, LogError> {
        if place.lane() == LaneId::ROOTS {
            let root = usize::try_from(place.position()).ok().and_then(|index| self.roots.get(index));
            return Ok(root.copied());
        }
        let lane = usize::from(place.lane().0);
        let (Some(window), Some(reader)) = (self.windows.get(lane), self.lanes.get(place.lane())) else {
            return Ok(None);
        };
        if let Some(id) = window.get(place.position()) {
            return Ok(Some(id));
        }
        let damaged = |what: &str| damage(place.lane(), place.position(), what);
        let stored = reader.message_at(place)?;
        // In the lane itself a batch may name what comes after it, or never.
        if stored.is_none() && place.lane() != of && place.position() >= reader.size() {
            return Err(damaged("a position that is final is not in the log"));
        }
        let view = stored.as_ref().map(|stored| stored.view().map_err(|error| damaged(&error.to_string())));
        Ok(view.transpose()?.map(|view| view.id()))
    }
}

/// Damage to this node's log of a lane.
fn damage(lane: LaneId, position: u64, what: &str) -> LogError {
    LogError::Damaged(Damage {
        path: std::path::PathBuf::from(format!("the log of lane {lane}")),
        offset: position,
        what: format!("at this position: {what}"),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "helpers of tests")]
mod tests {
    use std::path::Path;

    use crossbeam::channel::unbounded;
    use weft_core::PayloadKind;
    use weft_storage::{Disk, RealDisk, SimDisk};

    use super::*;
    use crate::confirm::events::{EventReceiver, events};
    use crate::testing::{Author, NETWORK, ROOT_PLACES, ROOTS, data, id, keys, message, signer};

    /// Says that every signature is valid, or asks the serial verifier.
    struct Verifier {
        trusts: bool,
    }

    impl BatchVerifier for Verifier {
        fn name(&self) -> &'static str {
            "test"
        }

        fn verify(&self, batch: &Columns<'_>, verdicts: &mut [bool]) {
            if self.trusts {
                verdicts.fill(true);
            } else {
                let Messages::Ids(ids) = batch.messages else { panic!("ids") };
                for (index, verdict) in verdicts.iter_mut().enumerate() {
                    *verdict = weft_crypto::serial::verify_one(
                        &batch.keys[index],
                        &ids[index],
                        &batch.signatures[index],
                    );
                }
            }
        }
    }

    /// Three lanes, the first one this node's, and the checker over their logs, which are in `dir`.
    fn bench(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        trusts: bool,
        fill: impl FnOnce(&mut [Author]),
    ) -> (Checker, EventReceiver) {
        let mut authors: Vec<Author> =
            (0..3).map(|lane| Author::new(disk.clone(), &dir.join(lane.to_string()), lane)).collect();
        fill(&mut authors);
        let mut readers: Vec<_> = authors.iter().map(|author| author.log.reader.clone()).collect();
        let lanes = Lanes::new(LaneId(0), readers.remove(0), readers.into_iter());
        let others = authors.into_iter().skip(1).map(|author| author.log).collect();
        let (sender, receiver) = events();
        let checker = Checker {
            verifier: Arc::new(Verifier { trusts }),
            workers: 1,
            limits: Limits {
                network: NETWORK,
                payload_bytes_max: 1_000,
                batch_messages_max: 4_096,
                clock_ahead_us_max: 0,
                clock_behind_us_max: 0,
            },
            roots: ROOTS,
            lanes,
            stores: Arc::new(Stores::new(LaneId(0), &keys(3), others, Arc::default())),
            events: sender,
            counters: Arc::default(),
            cuts: Arc::default(),
            windows: vec![Window::default(); 3],
            ended: vec![None; 3],
        };
        (checker, receiver)
    }

    fn ask(digest: &Arc<BatchDigest>) -> Asked {
        Asked { digest: digest.clone(), cuts: 0 }
    }

    /// Asks for these batches, in this order, and tells what comes of it.
    fn verdicts(checker: Checker, events: &EventReceiver, digests: &[Arc<BatchDigest>]) -> Vec<Event> {
        let (send, asked) = unbounded();
        digests.iter().for_each(|digest| send.send(ask(digest)).unwrap());
        drop(send);
        checker.run(&asked);
        events.try_iter().collect()
    }

    fn full_batch(author: &mut Author) -> Arc<BatchDigest> {
        let message = data(b"a");
        author.append(&vec![(&message[..], ROOT_PLACES); 4_096]).1
    }

    #[test]
    fn a_lane_that_is_millions_of_messages_behind_does_not_delay_the_batch_of_another() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let mut digests = Vec::new();
        let (checker, events) = bench(&disk, Path::new("/lanes"), true, |authors| {
            let backlog = full_batch(&mut authors[1]);
            // The same batch again and again costs what as many batches cost.
            digests.extend(vec![backlog; 60]);
            digests.push(authors[2].append_one(&data(b"b")));
        });
        let told = verdicts(checker, &events, &digests);
        assert_eq!(told.len(), 61);
        let of_two =
            |event: &Event| matches!(event, Event::Formed { lane: LaneId(2), well_formed: true, .. });
        let at = told.iter().position(of_two).unwrap();
        assert!(at <= ROWS_MAX / 4_096, "after {at} batches of the other lane, which had 60 before it");
    }

    #[test]
    fn lanes_have_their_turns_and_one_that_is_alone_gets_large_batches() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let rows = |taken: &[Asked]| taken.iter().map(Asked::rows).sum::<usize>();
        let mut many: Vec<Author> =
            (0..20).map(|lane| Author::new(disk.clone(), Path::new(&format!("/{lane}")), lane)).collect();
        let digests: Vec<_> = many.iter_mut().map(full_batch).collect();
        let mut queues = Queues::default();
        (0..1_000).for_each(|_| queues.push(ask(&digests[0])));
        assert_eq!(rows(&queues.take()), ROWS_MAX, "alone");
        digests.iter().for_each(|digest| queues.push(ask(digest)));
        // Twenty lanes of four thousand messages each: all are served within twenty batches and one round.
        let mut served = std::collections::BTreeSet::new();
        for _ in 0..=(20 * 4_096_usize).div_ceil(ROWS_MAX) {
            let taken = queues.take();
            assert!(rows(&taken) < ROWS_MAX + 4_096, "{}", rows(&taken));
            served.extend(taken.iter().map(|asked| asked.digest.lane()));
        }
        assert_eq!(served.len(), 20);
        assert_eq!(rows(&queues.take()), ROWS_MAX, "alone again");
    }

    /// Changes one bit of what the log of `lane` holds, at the first place where `bytes` lie.
    fn damage_at(dir: &Path, lane: u16, bytes: &[u8]) {
        use std::os::unix::fs::FileExt as _;
        for entry in std::fs::read_dir(dir.join(lane.to_string())).unwrap() {
            let path = entry.unwrap().path();
            let held = std::fs::read(&path).unwrap();
            if let Some(at) = held.windows(bytes.len()).position(|window| window == bytes) {
                let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all_at(&[held[at] ^ 1], at as u64).unwrap();
                return;
            }
        }
        panic!("not there");
    }

    const PARENT: &[u8] = b"the payload of the parent";
    const CHILD: &[u8] = b"the payload of the child";

    /// What is told of a batch of lane 1 that names a message of lane 2, after `harm` has been done to the directory of the logs; `lies`:
    /// the batch names another message than lies there.
    fn told(lies: bool, harm: impl FnOnce(&Path)) -> Event {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let mut digests = Vec::new();
        let (checker, events) = bench(&disk, dir.path(), false, |authors| {
            authors[2].append_one(&data(b"before it"));
            let parent = data(PARENT);
            authors[2].append_one(&parent);
            let named = if lies { id(&data(b"another")) } else { id(&parent) };
            let child = message(&signer(7), PayloadKind::DATA, [named, ROOTS[1]], CHILD);
            let places = [Place::new(LaneId(2), 3), Place::root(1)];
            digests.push(authors[1].append(&[(&child, places)]).1);
        });
        harm(dir.path());
        verdicts(checker, &events, &digests).pop().unwrap()
    }

    #[test]
    fn damage_to_the_own_disk_proves_nothing_against_the_node_of_a_lane() {
        let whole = told(false, |_| {});
        assert!(matches!(whole, Event::Formed { well_formed: true, .. }), "{whole:?}");
        for (lane, bytes) in [(2, PARENT), (1, CHILD)] {
            let damaged = told(false, |dir| damage_at(dir, lane, bytes));
            assert!(matches!(damaged, Event::Damaged(LogError::Damaged(_))), "lane {lane}: {damaged:?}");
        }
        // And what is wrong is wrong.
        let wrong = told(true, |_| {});
        assert!(matches!(wrong, Event::Formed { well_formed: false, .. }), "{wrong:?}");
    }

    #[test]
    fn a_batch_that_is_not_where_it_was_is_asked_for_again_only_if_its_log_was_cut() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        for cuts in [0, 1] {
            let mut digests = Vec::new();
            let (checker, events) = bench(&disk, Path::new(&format!("/{cuts}")), true, |authors| {
                authors[1].append_one(&data(b"a"));
                // Of another history of the lane.
                let mut other = Author::new(disk.clone(), Path::new(&format!("/{cuts}-other")), 1);
                digests.push(other.append_one(&data(b"b")));
            });
            checker.cuts.store(cuts, Ordering::Release);
            let told = verdicts(checker, &events, &digests).pop().unwrap();
            match cuts {
                0 => assert!(matches!(told, Event::Damaged(_)), "{told:?}"),
                _ => assert!(matches!(told, Event::Again(_)), "{told:?}"),
            }
        }
    }

    #[test]
    fn a_window_answers_for_the_newest_positions_of_one_history_only() {
        let id = |number: u8| MessageId([number; 32]);
        let mut window = Window::default();
        window.push(0, &[id(1), id(2)]);
        window.push(3, &[id(3)]);
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(|at| window.get(at)),
            [None, Some(id(1)), Some(id(2)), None, Some(id(3)), None]
        );
        window.push(3, &[id(9)]);
        assert_eq!([1, 4].map(|at| window.get(at)), [None, Some(id(9))], "the lane has changed");
        window.push(5, &vec![id(7); 2 * WINDOW_IDS]);
        assert_eq!(window.ids.len(), WINDOW_IDS);
        assert_eq!((window.get(4), window.get(5 + 2 * WINDOW_IDS as u64)), (None, Some(id(7))));
    }
}
