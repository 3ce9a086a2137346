//! The logs of the other nodes' lanes, for writing: appending authentic batches, and changing to another history.
//!
//! Owns their writers, and the batches of other histories ("sides") that are kept until one of them is the copy or forgotten. Invariants:
//! only a batch whose body hash, root over the tree before it, and seal are right gets into a log or a side, and it gets there as it came;
//! a log is one history. Bounded: [`SIDE_BYTES_MAX`] a lane for sides; what does not fit is not taken, and whoever holds it offers it
//! again. What a batch means is the machine's business; a batch may lie here that is not well formed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use weft_core::confirm::BatchDigest;
use weft_core::hash::Domain;
use weft_core::merkle::Hash;
use weft_core::{BatchError, BatchView, LaneId, LaneTree, MessageId, NodeKey};
use weft_crypto::simd::{Context, Hashes};
use weft_storage::{LaneLog, LaneWriter, LogError, LogReader, Syncer};

/// Bytes of one lane's sides.
pub const SIDE_BYTES_MAX: usize = 64 << 20;

/// What one batch of a side costs beside its bytes: its tree, mostly.
const SIDE_OVERHEAD_BYTES: usize = 2_048;

/// What became of a batch.
#[derive(Debug)]
pub enum Taken {
    /// It is in the log now.
    Stored(Arc<BatchDigest>),
    /// It is of another history than the log, and kept.
    Side(Arc<BatchDigest>),
    /// It is here already.
    Held,
    /// Nothing that it could follow is here, or there is no room for it: later perhaps.
    Stray,
    /// It is not what the lane's node signed, so this copy of it was damaged, on the way or on purpose.
    NotAuthentic(BatchError),
}

struct Side {
    bytes: Bytes,
    root: Hash,
    after: LaneTree,
}

/// One lane's log and sides.
struct LaneStore {
    writer: LaneWriter,
    sides: VecDeque<Side>,
    side_bytes: usize,
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
    hashes: Hashes,
    context: Context,
}

impl std::fmt::Debug for Stores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stores").field("lanes", &self.slots.len()).finish_non_exhaustive()
    }
}

impl Stores {
    /// The stores over the opened logs of all lanes but `own`, in order; `keys` are those of all nodes.
    pub fn new(own: LaneId, keys: &[NodeKey], others: Vec<LaneLog>) -> Self {
        let mut others = others.into_iter();
        let slot = |(index, key): (usize, &NodeKey)| {
            if index == usize::from(own.0) {
                return None;
            }
            let LaneLog { writer, syncer, reader } = others.next()?;
            let store = LaneStore { writer, sides: VecDeque::new(), side_bytes: 0 };
            Some(Slot { store: Mutex::new(store), syncer, reader, key: *key })
        };
        Self {
            slots: keys.iter().enumerate().map(slot).collect(),
            hashes: Hashes::detect(),
            context: Context::new(Domain::MESSAGE.context()),
        }
    }

    fn slot(&self, lane: LaneId) -> Option<&Slot> {
        self.slots.get(usize::from(lane.0))?.as_ref()
    }

    /// Lanes of other nodes.
    pub fn lanes(&self) -> impl Iterator<Item = (LaneId, &LogReader)> {
        self.slots.iter().flatten().map(|slot| (slot.reader.lane(), &slot.reader))
    }

    /// Ids of a batch's messages.
    pub fn ids(&self, view: &BatchView<'_>) -> Vec<MessageId> {
        let contents: Vec<&[u8]> = view.messages().map(|entry| entry.message.content()).collect();
        let mut ids = vec![[0; 32]; contents.len()];
        self.hashes.derive(&self.context, &contents, &mut ids);
        ids.into_iter().map(MessageId).collect()
    }

    /// Takes a batch that came from somewhere: the first gate. `lane` is what it was said to belong to.
    ///
    /// # Errors
    /// Those of the log.
    pub fn take(&self, lane: LaneId, bytes: &Bytes) -> Result<Taken, LogError> {
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
        if let Some(held) = slot.reader.batch_at(first)?
            && held.first == first
            && held.view().is_ok_and(|held| held.root() == view.root())
        {
            return Ok(Taken::Held);
        }
        if store.sides.iter().any(|side| side.root == *view.root()) {
            return Ok(Taken::Held);
        }
        let ids = self.ids(&view);
        let read = |before: &LaneTree| {
            BatchDigest::read_with_ids(
                &view,
                ids.iter().copied(),
                before,
                &slot.key,
                |key, text, signature| weft_crypto::serial::verify_one(&key.0, text, signature),
            )
        };
        let mut refused = None;
        if first == size {
            match read(store.writer.tree()) {
                Ok((digest, after)) => {
                    store.writer.append_view(&view, &ids, &after)?;
                    return Ok(Taken::Stored(Arc::new(digest)));
                }
                Err(error) => refused = Some(error),
            }
        }
        // Another history: it parts from the log, or goes on where a side ends. Looking costs reading a segment, so nobody but the lane's
        // node may ask for it.
        if let Err(error) = view.verify_seal(&slot.key, |key, text, signature| {
            weft_crypto::serial::verify_one(&key.0, text, signature)
        }) {
            return Ok(Taken::NotAuthentic(error));
        }
        let fork = if first < size { slot.reader.tree_at(first)? } else { None };
        let befores: Vec<LaneTree> = {
            let sides = store.sides.iter().map(|side| &side.after).filter(|tree| tree.size() == first);
            fork.iter().chain(sides).cloned().collect()
        };
        for before in &befores {
            match read(before) {
                Ok((digest, after)) => {
                    let cost = bytes.len() + SIDE_OVERHEAD_BYTES;
                    if store.side_bytes + cost > SIDE_BYTES_MAX {
                        return Ok(Taken::Stray);
                    }
                    store.side_bytes += cost;
                    store.sides.push_back(Side { bytes: bytes.clone(), root: *view.root(), after });
                    return Ok(Taken::Side(Arc::new(digest)));
                }
                Err(error) => refused = Some(error),
            }
        }
        Ok(match refused {
            // It may follow a history that is not here.
            Some(BatchError::Root | BatchError::First { .. }) | None => Taken::Stray,
            Some(error) => Taken::NotAuthentic(error),
        })
    }

    /// Changes the log of `lane` to the history that the machine has changed to: cut at `from`, then these batches, as far as they are
    /// kept here. What was cut is kept as a side no more; whoever has it may offer it again. Returns the log's size, all of it durable:
    /// nothing else may come for this lane that would have it synced.
    ///
    /// # Errors
    /// Those of the log.
    pub fn switch(&self, lane: LaneId, from: u64, batches: &[Arc<BatchDigest>]) -> Result<u64, LogError> {
        let Some(slot) = self.slot(lane) else { return Ok(0) };
        let mut store = slot.lock();
        store.writer.cut(from)?;
        for digest in batches {
            let found = store.sides.iter().position(|side| side.root == *digest.root());
            let Some(side) = found.and_then(|found| store.sides.remove(found)) else { break };
            store.side_bytes -= side.bytes.len() + SIDE_OVERHEAD_BYTES;
            let Ok(view) = BatchView::parse(&side.bytes) else { break };
            let ids = self.ids(&view);
            store.writer.append_view(&view, &ids, &side.after)?;
        }
        slot.syncer.sync()
    }

    /// Lets go of sides that part from the lane below `final_size`: they are history. `false` if the lane is being written just now,
    /// which may take as long as the disk does: then later.
    pub fn prune_sides(&self, lane: LaneId, final_size: u64) -> bool {
        let Some(slot) = self.slot(lane) else { return true };
        let Ok(mut store) = slot.store.try_lock() else { return false };
        store.sides.retain(|side| side.after.size() > final_size);
        store.side_bytes = store.sides.iter().map(|side| side.bytes.len() + SIDE_OVERHEAD_BYTES).sum();
        true
    }

    /// The bytes of a batch in the log or a side.
    pub fn bytes_of(&self, digest: &BatchDigest) -> Option<Bytes> {
        let slot = self.slot(digest.lane())?;
        let held = slot.reader.batch_at(digest.first()).ok()?;
        if let Some(held) = held.filter(|held| held.view().is_ok_and(|view| view.root() == digest.root())) {
            return Some(Bytes::from_owner(held.bytes));
        }
        let store = slot.lock();
        store.sides.iter().find(|side| side.root == *digest.root()).map(|side| side.bytes.clone())
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
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use weft_core::{BatchBuilder, DeviceSigner, Draft, NetworkId, PayloadKind, Place, VerifiedMessage};
    use weft_storage::{LogConfig, SimDisk};

    use super::*;

    const NETWORK: NetworkId = NetworkId([7; 4]);
    const LANE: LaneId = LaneId(1);

    /// Makes batches of lane 1, honestly or not.
    struct Author {
        signer: DeviceSigner,
        tree: LaneTree,
    }

    impl Author {
        fn new() -> Self {
            Self { signer: DeviceSigner::from_seed([5; 32]), tree: LaneTree::new() }
        }

        /// A batch of one message that follows `self.tree`.
        fn batch(&mut self, payload: &[u8]) -> Bytes {
            let parents = [MessageId([1; 32]), MessageId([2; 32])];
            let draft = Draft {
                network: NETWORK,
                issued_at_us: 1,
                sequence: 1,
                parents,
                kind: PayloadKind::DATA,
                payload,
            };
            let bytes = draft.sign(&self.signer).unwrap();
            let view = weft_core::MessageView::parse(&bytes).unwrap();
            let mut builder = BatchBuilder::new(1, 10_000);
            builder.push([Place::root(0), Place::root(1)], &VerifiedMessage::vouch(view)).unwrap();
            let signer = &self.signer;
            let sealed = builder.seal(&mut self.tree, NETWORK, LANE, |text| signer.sign_bytes(text)).unwrap();
            Bytes::copy_from_slice(sealed.bytes())
        }
    }

    fn stores() -> (Stores, LogReader) {
        let author = Author::new();
        let config = LogConfig { segment_bytes: 65_536, free_bytes_min: 0, background: false };
        let (log, _) =
            LaneLog::open(Arc::new(SimDisk::new(1)), Path::new("/lanes/1"), NETWORK, LANE, config, &|_| true)
                .unwrap();
        let reader = log.reader.clone();
        let own = NodeKey::from([9; 32]);
        (Stores::new(LaneId(0), &[own, author.signer.public()], vec![log]), reader)
    }

    fn root(batch: &Bytes) -> Hash {
        *BatchView::parse(batch).unwrap().root()
    }

    #[test]
    fn a_lane_that_was_signed_two_ways_is_kept_both_ways_and_its_log_changes_to_the_other_one() {
        let (stores, reader) = stores();
        let mut author = Author::new();
        let shared = author.batch(b"shared");
        let mut liar = Author { signer: DeviceSigner::from_seed([5; 32]), tree: author.tree.clone() };
        let here = [author.batch(b"here 1"), author.batch(b"here 2")];
        let there = [liar.batch(b"there 1"), liar.batch(b"there 2"), liar.batch(b"there 3")];
        assert!(matches!(stores.take(LANE, &here[0]).unwrap(), Taken::Stray), "what it follows is not here");
        for batch in [&shared, &here[0], &here[1]] {
            assert!(matches!(stores.take(LANE, batch).unwrap(), Taken::Stored(_)));
            assert!(matches!(stores.take(LANE, batch).unwrap(), Taken::Held));
        }
        assert!(matches!(stores.take(LANE, &there[1]).unwrap(), Taken::Stray), "its beginning is missing");
        let mut side = Vec::new();
        for batch in &there[..2] {
            let Taken::Side(digest) = stores.take(LANE, batch).unwrap() else { panic!("another history") };
            assert_eq!(stores.bytes_of(&digest).as_ref(), Some(batch));
            side.push(digest);
            assert!(matches!(stores.take(LANE, batch).unwrap(), Taken::Held));
        }
        let from = BatchView::parse(&shared).unwrap().size();
        assert_eq!(stores.switch(LANE, from, &side).unwrap(), liar.tree.size() - 2);
        assert_eq!(
            (reader.size(), reader.durable_size(), reader.cuts()),
            (liar.tree.size() - 2, reader.size(), 1)
        );
        let last = reader.batch_at(reader.size() - 1).unwrap().unwrap();
        assert_eq!(*last.view().unwrap().root(), root(&there[1]));
        assert!(matches!(stores.take(LANE, &there[2]).unwrap(), Taken::Stored(_)), "it goes on from there");
        assert!(matches!(stores.take(LANE, &here[0]).unwrap(), Taken::Side(_)), "the former one is a side");
        let mut synced = Vec::new();
        stores.sync(|lane, size, cuts| synced.push((lane, size, cuts))).unwrap();
        assert_eq!(synced, [(LANE, liar.tree.size(), 1)]);
        {
            let _writing = stores.slots[1].as_ref().unwrap().lock();
            assert!(
                !stores.prune_sides(LANE, reader.size()),
                "whoever confirms does not wait for the disk of a lane"
            );
        }
        assert!(stores.prune_sides(LANE, reader.size()));
        assert!(matches!(stores.take(LANE, &here[0]).unwrap(), Taken::Side(_)), "let go of, so new");
    }

    #[test]
    fn a_batch_that_was_changed_on_the_way_is_not_authentic_and_nothing_is_stored() {
        let (stores, reader) = stores();
        let mut author = Author::new();
        let batch = author.batch(b"payload");
        let mut refused = 0;
        for byte in 0..batch.len() {
            let mut changed = batch.to_vec();
            changed[byte] ^= 1;
            match stores.take(LANE, &Bytes::from(changed)).unwrap() {
                Taken::NotAuthentic(_) => refused += 1,
                // Another position or root: it might follow a history that is not here.
                Taken::Stray => {}
                other => panic!("byte {byte}: {other:?}"),
            }
        }
        assert!(refused > batch.len() / 2, "{refused}");
        let mut stranger = Author { signer: DeviceSigner::from_seed([6; 32]), tree: LaneTree::new() };
        let forged = stranger.batch(b"payload");
        assert!(matches!(stores.take(LANE, &forged).unwrap(), Taken::NotAuthentic(BatchError::Seal)));
        assert_eq!(reader.size(), 0);
        assert!(matches!(stores.take(LaneId(0), &batch).unwrap(), Taken::Stray), "the own lane is not here");
        assert!(matches!(stores.take(LANE, &batch).unwrap(), Taken::Stored(_)));
    }

    #[test]
    fn what_sides_take_is_bounded() {
        let (stores, _) = stores();
        let mut author = Author::new();
        let batch = author.batch(b"held");
        assert!(matches!(stores.take(LANE, &batch).unwrap(), Taken::Stored(_)));
        stores.slots[1].as_ref().unwrap().store.lock().unwrap().side_bytes = SIDE_BYTES_MAX;
        let mut liar = Author::new();
        assert!(matches!(stores.take(LANE, &liar.batch(b"other")).unwrap(), Taken::Stray));
    }
}
