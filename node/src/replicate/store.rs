//! The logs of the other nodes' lanes, for writing: appending authentic batches, and changing to another history.
//!
//! Owns their writers, and the batches of other histories ("sides") that are kept until one of them is the copy or forgotten. Invariants:
//! only a batch whose body hash, root over the tree before it, and seal are right gets into a log or a side, and it gets there as it came;
//! a log is one history; reading a segment again to look at a batch is done only for one that the lane's node has sealed, and where a
//! batch ends. Bounded: [`SIDE_BYTES_MAX`] a lane for sides, or one batch; the oldest makes room, and whoever holds it offers it again.
//! What a batch means is the machine's business, which keeps fewer sides than this module: a side that comes again is handed to it again.
//!
//! The machine may change to a history of which less is kept here than it has seen, since sides are bounded otherwise there. Then the log
//! *wants* the batches that are missing, by their roots, and takes nothing else at its end until it has them: it stays a prefix of the
//! machine's copy.
//!
//! A full disk is waited for: what has no room is not taken, and a lane that changes to another history changes once there is room.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use crossbeam::channel::Sender;
use weft_core::confirm::BatchDigest;
use weft_core::merkle::{EMPTY_ROOT, Hash};
use weft_core::{BatchError, BatchView, LaneId, LaneTree, NodeKey};
use weft_storage::{LaneLog, LaneWriter, LogError, LogReader, Syncer};

use crate::hasher::fastest;
use crate::health::{Full, Health, NoRoom, State};

/// Bytes of one lane's sides. One batch is kept whatever its length.
pub const SIDE_BYTES_MAX: usize = 64 << 20;

/// What one batch of a side costs beside its bytes and its digest: its tree, mostly.
const SIDE_OVERHEAD_BYTES: usize = 2_048;

/// How often a full disk is looked at.
pub const FULL_RETRY: Duration = Duration::from_millis(500);

/// What became of a batch.
#[derive(Debug)]
pub enum Taken {
    /// It is in the log now.
    Stored(Arc<BatchDigest>),
    /// It is of another history than the log, and kept, now or already.
    Side(Arc<BatchDigest>),
    /// It is in the log already: the lane's size after it, and its root there.
    Held(u64, Hash),
    /// Nothing that it could follow is here.
    Stray,
    /// There is no room on the disk for it now.
    Full(NoRoom),
    /// It is not what the lane's node signed, or not what its sender said it would be: whoever sent it is to blame.
    NotAuthentic(BatchError),
}

/// What an error that only says that there is no room says, in numbers.
pub fn no_room(error: &LogError) -> Option<NoRoom> {
    let cause = error.to_string();
    match error {
        LogError::StorageFull { free_bytes, needed_bytes, .. } => {
            Some(NoRoom { free_bytes: *free_bytes, needed_bytes: *needed_bytes, cause })
        }
        LogError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
            Some(NoRoom { free_bytes: 0, needed_bytes: 0, cause })
        }
        _ => None,
    }
}

struct Side {
    bytes: Bytes,
    digest: Arc<BatchDigest>,
    after: LaneTree,
}

impl Side {
    fn cost(&self) -> usize {
        self.bytes.len() + self.digest.held_bytes() + SIDE_OVERHEAD_BYTES
    }
}

/// One lane's log and sides.
struct LaneStore {
    writer: LaneWriter,
    sides: VecDeque<Side>,
    side_bytes: usize,
    /// What lies below is history: nothing parts from it any more.
    final_size: u64,
    /// The log is to change to a side and waits for room: nothing else goes into it, and no side goes.
    changing: bool,
    /// Sizes and roots of the batches that come next, where the machine has more than the log.
    wanted: VecDeque<(u64, Hash)>,
}

impl LaneStore {
    /// Keeps a side. The oldest ones make room; one batch is kept whatever its length.
    fn keep(&mut self, side: Side) {
        while self.side_bytes + side.cost() > SIDE_BYTES_MAX && self.drop_side(0) {}
        self.side_bytes += side.cost();
        self.sides.push_back(side);
    }

    fn drop_side(&mut self, at: usize) -> bool {
        let dropped = self.sides.remove(at);
        self.side_bytes -= dropped.as_ref().map_or(0, Side::cost);
        dropped.is_some()
    }

    /// Whether the batch that ends at `size` with this root may be the log's next one.
    fn wants(&self, size: u64, root: &Hash) -> bool {
        self.wanted.front().is_none_or(|wanted| *wanted == (size, *root))
    }

    fn find_side(&self, first: u64, root: &Hash) -> Option<usize> {
        self.sides.iter().position(|side| side.digest.first() == first && side.digest.root() == root)
    }
}

/// A lane as this module has it.
struct Slot {
    store: Mutex<LaneStore>,
    syncer: Syncer,
    reader: LogReader,
    key: NodeKey,
}

/// All lanes but the own one.
pub struct Stores {
    slots: Vec<Option<Slot>>,
    health: Arc<Health>,
    /// Wakes the sync.
    bell: Mutex<Option<Sender<()>>>,
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stores").field("lanes", &self.slots.len()).finish_non_exhaustive()
    }
}

impl Stores {
    /// The stores over the opened logs of all lanes but `own`, in order; `keys` are those of all nodes.
    pub fn new(own: LaneId, keys: &[NodeKey], others: Vec<LaneLog>, health: Arc<Health>) -> Self {
        let mut others = others.into_iter();
        let slot = |(index, key): (usize, &NodeKey)| {
            if index == usize::from(own.0) {
                return None;
            }
            let LaneLog { writer, syncer, reader } = others.next()?;
            let sides = VecDeque::new();
            let store = LaneStore {
                writer,
                sides,
                side_bytes: 0,
                final_size: 0,
                changing: false,
                wanted: VecDeque::new(),
            };
            Some(Slot { store: Mutex::new(store), syncer, reader, key: *key })
        };
        Self { slots: keys.iter().enumerate().map(slot).collect(), health, bell: Mutex::new(None) }
    }

    /// What wakes the sync, from now on; `None` at the end.
    pub fn set_bell(&self, bell: Option<Sender<()>>) {
        *self.bell.lock().unwrap_or_else(PoisonError::into_inner) = bell;
    }

    fn ring(&self) {
        if let Some(bell) = &*self.bell.lock().unwrap_or_else(PoisonError::into_inner) {
            // One that waits is enough.
            let _ = bell.try_send(());
        }
    }

    fn slot(&self, lane: LaneId) -> Option<&Slot> {
        self.slots.get(usize::from(lane.0))?.as_ref()
    }

    /// Lanes of other nodes.
    pub fn lanes(&self) -> impl Iterator<Item = (LaneId, &LogReader)> {
        self.slots.iter().flatten().map(|slot| (slot.reader.lane(), &slot.reader))
    }

    /// Takes a batch that came from somewhere: the first gate. `lane` is what it was said to belong to; `follows` the end that it follows
    /// by what its sender has said and shipped before.
    ///
    /// # Errors
    /// Those of the log.
    pub fn take(&self, lane: LaneId, bytes: &Bytes, follows: Option<(u64, Hash)>) -> Result<Taken, LogError> {
        let Some(slot) = self.slot(lane) else { return Ok(Taken::Stray) };
        let view = match BatchView::parse(bytes) {
            Ok(view) => view,
            Err(error) => return Ok(Taken::NotAuthentic(error)),
        };
        if view.lane() != lane || view.network() != slot.reader.network() {
            return Ok(Taken::NotAuthentic(BatchError::Lane { got: view.lane().0, limit: lane.0 }));
        }
        let mut store = slot.lock();
        let (first, size) = (view.first(), store.writer.size());
        if let Some((end, _)) = follows
            && first != end
        {
            return Ok(Taken::NotAuthentic(BatchError::First { got: first, limit: end }));
        }
        if let Some(held) = slot.reader.batch_at(first)?
            && held.first == first
            && held.view().is_ok_and(|held| held.root() == view.root())
        {
            return Ok(Taken::Held(view.size(), *view.root()));
        }
        let ids = view.ids_by(fastest());
        let read = |before: &LaneTree| {
            BatchDigest::read_with_ids(&view, &ids, before, fastest(), &slot.key, |key, text, signature| {
                weft_crypto::serial::verify_one(&key.0, text, signature)
            })
        };
        // Where it is known what a batch follows, another root than its own is its sender's doing.
        let said = |root: &Hash| follows.is_some_and(|(_, said)| said == *root);
        let could = |root: &Hash| follows.is_none_or(|(_, said)| said == *root);
        let mut refused = None;
        let next = first == size && store.wants(view.size(), view.root());
        if next && could(&store.writer.tree().root()) {
            match read(store.writer.tree()) {
                Ok(_) if store.changing => return Ok(Taken::Full(self.changing(lane))),
                Ok((digest, after)) => {
                    if let Err(error) = store.writer.append_view(&view, &ids, &after) {
                        return no_room(&error).map(Taken::Full).ok_or(error);
                    }
                    if let Some(side) = store.find_side(first, view.root()) {
                        store.drop_side(side);
                    }
                    store.wanted.pop_front();
                    return Ok(Taken::Stored(Arc::new(digest)));
                }
                Err(error) if said(&store.writer.tree().root()) => return Ok(Taken::NotAuthentic(error)),
                Err(error) => refused = Some(error),
            }
        }
        if let Some(side) = store.find_side(first, view.root()).and_then(|side| store.sides.get(side)) {
            return Ok(Taken::Side(Arc::clone(&side.digest)));
        }
        // Another history: it parts from the log beyond final, or goes on where a side ends. Looking costs reading a segment, so nobody
        // but the lane's node may ask for it, and only where a batch ends.
        if let Err(error) = slot.verify_seal(&view) {
            return Ok(Taken::NotAuthentic(error));
        }
        let parts = (first < size || (first == size && !next))
            && first >= store.final_size
            && slot.root_at(first)?.is_some_and(|root| could(&root));
        let fork = if parts { slot.reader.tree_at(first)? } else { None };
        let befores: Vec<LaneTree> = {
            let sides = store.sides.iter().map(|side| (&side.after, side.digest.root()));
            let sides = sides.filter(|(tree, root)| tree.size() == first && could(root));
            fork.iter().chain(sides.map(|(tree, _)| tree)).cloned().collect()
        };
        for before in &befores {
            match read(before) {
                Ok(_) if store.changing => return Ok(Taken::Full(self.changing(lane))),
                Ok((digest, after)) => {
                    let digest = Arc::new(digest);
                    store.keep(Side { bytes: bytes.clone(), digest: Arc::clone(&digest), after });
                    return Ok(Taken::Side(digest));
                }
                Err(error) if said(&before.root()) => return Ok(Taken::NotAuthentic(error)),
                Err(error) => refused = Some(error),
            }
        }
        Ok(match refused {
            // It may follow a history that is not here.
            Some(BatchError::Root | BatchError::First { .. }) | None => Taken::Stray,
            Some(error) => Taken::NotAuthentic(error),
        })
    }

    fn changing(&self, lane: LaneId) -> NoRoom {
        let cause = format!("the log of lane {lane} waits for room to change to another history");
        self.health.full_elsewhere().unwrap_or(NoRoom { free_bytes: 0, needed_bytes: 0, cause })
    }

    /// Whether two batches are two for one position of `lane`, both sealed by its node: whoever shows them proves something.
    pub fn is_proof(&self, lane: LaneId, batches: &[Bytes]) -> bool {
        let (Some(slot), [first, second]) = (self.slot(lane), batches) else { return false };
        let (Ok(first), Ok(second)) = (BatchView::parse(first), BatchView::parse(second)) else {
            return false;
        };
        let belongs = |view: &BatchView<'_>| view.lane() == lane && view.network() == slot.reader.network();
        belongs(&first)
            && belongs(&second)
            && first.first() == second.first()
            && first.root() != second.root()
            && slot.verify_seal(&first).is_ok()
            && slot.verify_seal(&second).is_ok()
    }

    /// Changes the log of `lane` to the history that the machine has changed to: cut at `from`, then these batches, as far as they are
    /// kept here; the others are wanted. What was cut is kept as a side no more; whoever has it may offer it again. Returns the log's
    /// size, all of it durable: nothing else may come for this lane that would have it synced. Waits while the disk is full, and calls
    /// `meanwhile` now and then: nothing may be said of the lane before its log is what the machine holds.
    ///
    /// # Errors
    /// Those of the log; that there is no room, of a node that only starts, or ends.
    pub fn switch(
        &self,
        lane: LaneId,
        from: u64,
        batches: &[Arc<BatchDigest>],
        mut meanwhile: impl FnMut(),
    ) -> Result<u64, LogError> {
        let Some(slot) = self.slot(lane) else { return Ok(0) };
        let mut rest = None;
        slot.lock().changing = true;
        let done = loop {
            match self.change(slot, from, batches, &mut rest) {
                Ok(size) => break Ok(size),
                Err(error) => match no_room(&error) {
                    Some(room) if self.waits_for_room() => {
                        self.health.found_full(Full::Change, room);
                        meanwhile();
                        std::thread::sleep(FULL_RETRY);
                    }
                    _ => break Err(error),
                },
            }
        };
        slot.lock().changing = false;
        self.health.found_room(Full::Change);
        self.ring();
        done
    }

    /// Whether a full disk is waited for: not by a node that starts, ends, or is of no use any more.
    fn waits_for_room(&self) -> bool {
        !matches!(self.health.state(), State::Starting | State::Stopping | State::Poisoned)
    }

    /// One attempt to change; what is left to be done is in `rest`, once the log is cut.
    fn change(
        &self,
        slot: &Slot,
        from: u64,
        batches: &[Arc<BatchDigest>],
        rest: &mut Option<usize>,
    ) -> Result<u64, LogError> {
        let mut store = slot.lock();
        if rest.is_none() {
            // It may end below: then what is missing up to there is wanted still.
            if store.writer.size() > from {
                store.writer.cut(from)?;
                store.wanted.clear();
            }
            store.wanted.retain(|wanted| wanted.0 <= from);
            store.wanted.extend(batches.iter().map(|digest| (digest.size(), *digest.root())));
            *rest = Some(0);
        }
        while let Some(next) = *rest
            && let Some(digest) = batches.get(next)
            && digest.first() == store.writer.size()
            && let Some(at) = store.find_side(digest.first(), digest.root())
            && let Some(side) = store.sides.get(at)
        {
            let (bytes, after) = (side.bytes.clone(), side.after.clone());
            let Ok(view) = BatchView::parse(&bytes) else { break };
            store.writer.append_view(&view, &view.ids_by(fastest()), &after)?;
            store.drop_side(at);
            store.wanted.pop_front();
            *rest = Some(next + 1);
        }
        slot.syncer.sync()
    }

    /// Lets go of sides that part from the lane below `final_size`, with all that follows them: they are history. `false` if the lane
    /// is being written just now, which may take as long as the disk does: then later.
    pub fn prune_sides(&self, lane: LaneId, final_size: u64) -> bool {
        let Some(slot) = self.slot(lane) else { return true };
        let Ok(mut store) = slot.store.try_lock() else { return false };
        store.final_size = store.final_size.max(final_size);
        let mut gone: BTreeSet<(u64, Hash)> = BTreeSet::new();
        // A batch comes after the one that it follows.
        store.sides.retain(|side| {
            let digest = &side.digest;
            let goes = digest.first() < final_size || gone.contains(&(digest.first(), *digest.before()));
            if goes {
                gone.insert((digest.size(), *digest.root()));
            }
            !goes
        });
        store.side_bytes = store.sides.iter().map(Side::cost).sum();
        true
    }

    /// Whether what follows this end can be taken: it is one of the log, or of a side. The machine may know more than lies here. While
    /// the log wants a batch that it once had as a side, only its own ends count: what follows a later side would come again and again,
    /// and what is wanted never.
    pub fn has_end(&self, lane: LaneId, size: u64, root: &Hash) -> bool {
        let Some(slot) = self.slot(lane) else { return false };
        slot.root_at(size).is_ok_and(|held| held.as_ref() == Some(root)) || {
            let store = slot.lock();
            let is_end = |side: &Side| side.digest.size() == size && side.digest.root() == root;
            store.wanted.is_empty() && store.sides.iter().any(is_end)
        }
    }

    /// The oldest sides of each lane that has some, at most so many of each.
    pub fn sides(&self, most: usize) -> Vec<(LaneId, Vec<Arc<BatchDigest>>)> {
        let sides = |slot: &Slot| {
            let store = slot.lock();
            let oldest =
                store.sides.iter().take(most).map(|side| Arc::clone(&side.digest)).collect::<Vec<_>>();
            (!oldest.is_empty()).then(|| (slot.reader.lane(), oldest))
        };
        self.slots.iter().flatten().filter_map(sides).collect()
    }

    /// The bytes of a batch in the log or a side.
    pub fn bytes_of(&self, digest: &BatchDigest) -> Option<Bytes> {
        let slot = self.slot(digest.lane())?;
        let held = slot.reader.batch_at(digest.first()).ok()?;
        if let Some(held) = held.filter(|held| held.view().is_ok_and(|view| view.root() == digest.root())) {
            return Some(Bytes::from_owner(held.bytes));
        }
        let store = slot.lock();
        let side = store.find_side(digest.first(), digest.root()).and_then(|side| store.sides.get(side));
        side.map(|side| side.bytes.clone())
    }

    /// Makes everything durable that is written; tells `done` what is durable of each lane that was behind, and of which history (how
    /// often the log had been cut).
    ///
    /// # Errors
    /// Those of the log: nothing more is durable then.
    pub fn sync(&self, mut done: impl FnMut(LaneId, u64, u64)) -> Result<(), LogError> {
        for slot in self.slots.iter().flatten() {
            let reader = &slot.reader;
            if reader.size() > reader.durable_size() {
                let cuts = reader.cuts();
                let size = slot.syncer.sync()?;
                done(reader.lane(), size, cuts);
            }
        }
        Ok(())
    }

    /// Closes all logs in order. Nothing is appended afterwards.
    pub fn close(self) {
        for slot in self.slots.into_iter().flatten() {
            let lane = slot.reader.lane();
            let store = slot.store.into_inner().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = store.writer.close() {
                tracing::warn!(%lane, %error, "the log of another node's lane could not be closed in order");
            }
        }
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, LaneStore> {
        // Every change is whole in the log before the lock is let go of.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verify_seal(&self, view: &BatchView<'_>) -> Result<(), BatchError> {
        view.verify_seal(&self.key, |key, text, signature| {
            weft_crypto::serial::verify_one(&key.0, text, signature)
        })
    }

    /// Root of the log at `size`, if a batch ends there.
    fn root_at(&self, size: u64) -> Result<Option<Hash>, LogError> {
        if size == 0 {
            return Ok(Some(EMPTY_ROOT));
        }
        let batch = self.reader.batch_ending_at(size)?;
        Ok(batch.and_then(|batch| batch.view().ok().map(|view| *view.root())))
    }
}

#[cfg(test)]
mod tests;
