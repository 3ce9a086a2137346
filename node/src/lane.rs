//! This node's lane as the sequencer sees it: what is known, what is open, and the log underneath.
//!
//! Owns the only copies of the lane's tree, the recent ids, the replay windows and the tips, and the batch being built. Invariant:
//! between two calls of [`Lane::append_open_batch`] the tables run ahead of the log by exactly the open batch. If an append fails,
//! [`Lane::rebuild`] makes them match the log again, from the log; the same code fills them at start.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::{Signer as _, SigningKey};
use weft_core::arena::{Arena, Verified, VerifiedMessage};
use weft_core::confirm::BatchDigest;
use weft_core::lane::build::BatchBuilder;
use weft_core::random::RandomSource as _;
use weft_core::recent::RecentIds;
use weft_core::replay::ReplayTable;
use weft_core::tips::{TipPool, TipSelection};
use weft_core::{
    BATCH_MESSAGES_MAX, DeviceKey, LaneId, LaneTree, MessageId, MessageView, NetworkId, NodeKey, Place,
    Reason, Rejection,
};
use weft_storage::{Disk as _, LaneWriter, LogError, LogReader, RealDisk, Subtrees};

use crate::confirm::Confirm;
use crate::hasher::fastest;
use crate::lanes::Lanes;
use crate::random::Random;

/// Entry bytes of one lane batch: large enough that sealing and signing are shared by thousands of small messages, small enough that
/// a batch of the longest messages is not 64 MiB in one write.
pub const BATCH_ENTRY_BYTES_MAX: usize = 4 << 20;

/// Messages of one final batch of another lane that may become tips: its newest. A batch is a moment's worth of messages, and tips are to
/// be as recent as they can be.
const TIPS_ELSEWHERE: usize = 32;

/// Messages whose entries are brought into the caches together: enough for their misses to overlap, few enough for all that they bring to
/// stay until it is used (about ten lines of 64 bytes each).
const AHEAD: usize = 32;

/// How the tables are sized.
#[derive(Clone, Copy, Debug)]
pub struct LaneConfig {
    /// Ids of the newest messages kept in memory.
    pub recent_ids_max: usize,
    /// Issuers whose sequences are remembered.
    pub replay_issuers_max: usize,
    /// Tips kept.
    pub tips_max: usize,
    /// How tips are chosen.
    pub tip_selection: TipSelection,
    /// Most messages of one batch, from the genesis.
    pub batch_messages_max: u32,
}

/// Why the open batch did not get into the log.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// There is no room. Nothing was written; later there may be.
    #[error("the disk is full: {free_bytes} bytes free, {watermark_bytes} needed")]
    Full {
        /// Free bytes.
        free_bytes: u64,
        /// Bytes that must be free before another segment is made.
        watermark_bytes: u64,
    },
    /// The log takes nothing more.
    #[error("{cause}")]
    Failed {
        /// What happened.
        cause: String,
    },
}

impl From<LogError> for AppendError {
    fn from(error: LogError) -> Self {
        match error {
            LogError::StorageFull { free_bytes, needed_bytes, .. } => {
                Self::Full { free_bytes, watermark_bytes: needed_bytes }
            }
            other => Self::Failed { cause: with_sources(&other) },
        }
    }
}

/// An error and what caused it, in one line.
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A batch that is in the log now, though not synced.
#[derive(Clone, Debug)]
pub struct Appended {
    /// Size of the lane after it.
    pub size: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Its messages, without witnesses.
    pub messages: u64,
    /// What confirmation needs to know of it.
    pub digest: Arc<BatchDigest>,
}

/// The lane.
#[derive(Debug)]
pub struct Lane {
    network: NetworkId,
    id: LaneId,
    roots: [MessageId; 2],
    key: SigningKey,
    public: NodeKey,
    config: LaneConfig,
    writer: LaneWriter,
    reader: LogReader,
    /// All logs, and how far they are final: where parents may lie.
    lanes: Lanes,
    confirm: Arc<Confirm>,
    tree: LaneTree,
    open: Option<BatchBuilder>,
    /// A sealed batch's buffers, to be used again.
    spare: Option<BatchBuilder>,
    recent: RecentIds,
    replay: ReplayTable,
    tips: TipPool,
    random: Random,
    /// Told of the roots that a batch completes.
    subtrees: Option<Arc<Subtrees>>,
    /// The directory of the log, to ask for free space.
    dir: PathBuf,
    /// Free bytes and bytes needed when the disk was last found full.
    full: (u64, u64),
}

impl Lane {
    /// The lane over its opened log; fills the tables from the newest messages.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn open(
        key: SigningKey,
        roots: [MessageId; 2],
        writer: LaneWriter,
        (lanes, confirm): (Lanes, Arc<Confirm>),
        dir: &Path,
        config: LaneConfig,
        mut random: Random,
    ) -> Result<Self, LogError> {
        let reader = writer.reader();
        let mut lane = Self {
            network: reader.network(),
            id: reader.lane(),
            roots,
            public: NodeKey::from(key.verifying_key().to_bytes()),
            key,
            config,
            tree: writer.tree().clone(),
            writer,
            reader,
            lanes,
            confirm,
            open: None,
            spare: None,
            recent: RecentIds::new(config.recent_ids_max, random.next_u64()),
            replay: ReplayTable::new(config.replay_issuers_max, random.next_u64()),
            tips: TipPool::new(config.tip_selection, roots, config.tips_max, random.next_u64()),
            random,
            subtrees: None,
            dir: dir.to_path_buf(),
            full: (0, 0),
        };
        lane.fill()?;
        Ok(lane)
    }

    /// Has `subtrees` told of the roots that each batch completes from now on: they are known while a batch is sealed, and cost
    /// half a microsecond a message to find again.
    pub fn tell_subtrees(&mut self, subtrees: Arc<Subtrees>) {
        self.subtrees = Some(subtrees);
    }

    /// Which lane it is.
    pub fn id(&self) -> LaneId {
        self.id
    }

    /// Size of the lane in the log.
    pub fn size(&self) -> u64 {
        self.writer.size()
    }

    /// Free bytes and the bytes needed, as of the last append that found the disk full.
    pub fn free_space(&self) -> (u64, u64) {
        self.full
    }

    /// Whether the disk that was found full has the room that was missing. Cheap: one question to the file system.
    pub fn has_room(&mut self) -> bool {
        let Ok(free) = RealDisk.free_bytes(&self.dir) else { return false };
        self.full.0 = free;
        free >= self.full.1
    }

    /// Fresh tips for an ack.
    pub fn tips(&mut self, count: usize) -> Vec<MessageId> {
        self.tips.select(count, &mut self.random).into_iter().map(|tip| tip.id).collect()
    }

    /// Brings into the caches what placing the messages of `arena` from index `from` on will read, for `AHEAD` of them, and tells the
    /// index after the last. The tables are larger than the caches: message by message, most of the sequencer's time would be spent
    /// waiting for main memory.
    pub fn touch(&self, arena: &Arena<Verified>, from: usize) -> usize {
        let end = arena.len().min(from + AHEAD);
        let mut ids = [MessageId::default(); 3 * AHEAD];
        let mut issuers = [DeviceKey::default(); AHEAD];
        let (own, parents) = ids.split_at_mut(AHEAD);
        let mut count = 0;
        let rows = (from..end).filter_map(|row| Some((arena.id(row)?, arena.get(row)?)));
        let columns = own.iter_mut().zip(parents.as_chunks_mut::<2>().0).zip(&mut issuers);
        for ((id, view), ((own, parents), issuer)) in rows.zip(columns) {
            (*own, *parents, *issuer) = (id, *view.parents(), *view.issuer());
            count += 1;
        }
        let (own, parents) = (&own[..count], &parents[..2 * count]);
        self.recent.touch(own.iter().chain(parents), count);
        self.replay.touch(issuers[..count].iter());
        self.reader.touch(own);
        end
    }

    /// Whether the message is new: not stored, and its issuer's sequence not used.
    ///
    /// # Errors
    /// `duplicate`, `replayed_sequence` or `stale_sequence`.
    pub fn check_new(&self, message: &VerifiedMessage<'_>) -> Result<(), Rejection> {
        let (id, view) = (message.id(), message.view());
        if let Some(place) = self.recent.get(&id) {
            return Err(Reason::Duplicate.with(place.0, 0));
        }
        let verdict = self.replay.check(view.issuer(), view.sequence());
        // The window cannot stand in for the log: after a start it knows the newest messages only, and an issuer may have been
        // evicted from it. A message that is stored must never be stored again.
        if let Some(place) = self.reader.find(&id) {
            return Err(Reason::Duplicate.with(place.0, 0));
        }
        verdict
    }

    /// Lets messages of another lane be tips: the newest of the batch at a place below final there.
    pub fn learn_elsewhere(&mut self, place: Place) {
        let Some(reader) = self.lanes.get(place.lane()) else { return };
        let Ok(Some(batch)) = reader.batch_at(place.position()) else { return };
        let Ok(view) = batch.view() else { return };
        let skip = (view.count() as usize).saturating_sub(TIPS_ELSEWHERE);
        for entry in view.messages().skip(skip) {
            let (message, id) = (entry.message, entry.message.id());
            let place = Place::new(place.lane(), entry.position);
            self.recent.insert(id, place);
            self.tips.insert(id, message.issuer(), place, message.parents());
        }
    }

    /// Where a message lies that may be named as a parent: in this lane, below final in another, or a genesis root.
    pub fn find(&self, id: &MessageId) -> Option<Place> {
        if let Some(place) = self.recent.get(id) {
            return Some(place);
        }
        if let Some(index) = self.roots.iter().position(|root| root == id) {
            return Some(Place::root(u8::from(index == 1)));
        }
        let found = self.reader.find(id);
        found.or_else(|| self.lanes.find_elsewhere(id, |lane| self.confirm.final_size(lane)))
    }

    /// Gives a message its place in the open batch, and tells it. The caller has checked that it is new and where its parents lie.
    ///
    /// # Errors
    /// `overloaded` if the batch is full: the caller flushes full batches, so this is a bug that costs one message its place.
    pub fn push(&mut self, message: &VerifiedMessage<'_>, parents: [Place; 2]) -> Result<Place, Rejection> {
        let config = &self.config;
        let open = self.open.get_or_insert_with(|| {
            self.spare
                .take()
                .unwrap_or_else(|| BatchBuilder::new(config.batch_messages_max, BATCH_ENTRY_BYTES_MAX))
        });
        let index = open.push(parents, message).map_err(|full| {
            Reason::Overloaded.with(u64::from(full.messages) + 1, u64::from(full.messages))
        })?;
        let place = Place::new(self.id, self.tree.size() + 1 + u64::from(index));
        self.learn(message.id(), &message.view(), place);
        Ok(place)
    }

    fn learn(&mut self, id: MessageId, view: &MessageView<'_>, place: Place) {
        self.recent.insert(id, place);
        self.replay.set(view.issuer(), view.sequence());
        self.tips.insert(id, view.issuer(), place, view.parents());
    }

    /// Gives a witness of this node its place, at the head of the open batch. Its parents are durable messages of this ledger.
    ///
    /// # Errors
    /// `unknown_parent` if they are not: then the witness was made for another log.
    pub fn push_witness(&mut self, bytes: &[u8]) -> Result<(), Rejection> {
        let message = VerifiedMessage::vouch(MessageView::parse(bytes)?);
        let [first, second] = message.view().parents();
        let place = |parent: &MessageId, which| self.find(parent).ok_or(Reason::UnknownParent.with(which, 0));
        let parents = [place(first, 0)?, place(second, 1)?];
        let place = self.push(&message, parents)?;
        self.tips.set_witness(message.id(), place);
        Ok(())
    }

    /// Whether the message is in the log.
    pub fn has(&self, id: &MessageId) -> bool {
        self.reader.find(id).is_some()
    }

    /// Whether the open batch must be appended before the longest message is sure to fit.
    pub fn batch_is_full(&self) -> bool {
        self.open.as_ref().is_some_and(|open| !open.has_room_for(weft_core::MESSAGE_BYTES_MAX))
    }

    /// Seals, signs and appends the open batch; `None` if there is none.
    ///
    /// # Errors
    /// [`AppendError`]. The tables then hold messages that the log does not: call [`Lane::rebuild`].
    pub fn append_open_batch(&mut self) -> Result<Option<Appended>, AppendError> {
        let Some(open) = self.open.take() else { return Ok(None) };
        let mut after = self.tree.clone();
        let key = &self.key;
        let sealed = open
            .seal_by(fastest(), &mut after, self.network, self.id, |text| key.sign(text).to_bytes())
            .map_err(|error| AppendError::Failed { cause: format!("a batch cannot be sealed: {error}") })?;
        let size = self.writer.append(&sealed, &after).inspect_err(|error| {
            if let LogError::StorageFull { free_bytes, needed_bytes, .. } = error {
                self.full = (*free_bytes, *needed_bytes);
            }
        })?;
        let before = std::mem::replace(&mut self.tree, after).root();
        let view = sealed.view().map_err(|error| AppendError::Failed {
            cause: format!("a sealed batch cannot be read: {error}"),
        })?;
        let digest = Arc::new(BatchDigest::vouched(&view, before, &self.public));
        let witnesses = u64::from(digest.witness().is_some());
        let appended = Appended {
            size,
            bytes: sealed.bytes().len() as u64,
            messages: u64::from(sealed.count()) - witnesses,
            digest,
        };
        if let Some(subtrees) = &self.subtrees
            && let Err(error) = subtrees.extend(sealed.first(), sealed.subtrees())
        {
            // Proofs find them in the log.
            tracing::warn!(%error, "the roots beside the lane cannot be written");
        }
        self.spare = Some(sealed.recycle());
        Ok(Some(appended))
    }

    /// Forgets everything that is not in the log.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn rebuild(&mut self) -> Result<(), LogError> {
        self.open = None;
        self.tree = self.writer.tree().clone();
        self.recent = RecentIds::new(self.config.recent_ids_max, self.random.next_u64());
        self.replay = ReplayTable::new(self.config.replay_issuers_max, self.random.next_u64());
        self.tips =
            TipPool::new(self.config.tip_selection, self.roots, self.config.tips_max, self.random.next_u64());
        self.fill()
    }

    /// Fills the tables from the newest messages of the log.
    fn fill(&mut self) -> Result<(), LogError> {
        let size = self.writer.size();
        let from = size.saturating_sub(self.config.recent_ids_max as u64);
        let reader = self.reader.clone();
        for batch in reader.batches_from(from) {
            let batch = batch?;
            let Ok(view) = batch.view() else { continue };
            for message in view.messages() {
                let place = Place::new(self.id, message.position);
                self.learn(message.message.id(), &message.message, place);
            }
        }
        Ok(())
    }

    /// Ends the lane's use of the log: everything durable, and a mark that says so.
    ///
    /// # Errors
    /// If the last sync or the mark fails.
    pub fn close(self) -> Result<u64, LogError> {
        self.writer.close()
    }
}

const _: () = assert!(BATCH_ENTRY_BYTES_MAX > weft_core::MESSAGE_BYTES_MAX && BATCH_MESSAGES_MAX <= 4_096);
