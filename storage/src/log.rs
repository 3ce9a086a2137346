//! The log of one lane: opening it, appending to it, making it durable.
//!
//! Owns the order of writes. Invariants: a record is written after all earlier ones, in one positioned write; the active segment is
//! synced and the new header is durable before the new segment's name is; after the first failed write or sync nothing is written or
//! acknowledged any more. What an opened directory holds is [`recovery`](crate::recovery)'s business, look-ups are
//! [`reader`](crate::reader)'s.
//!
//! One [`LaneWriter`] appends; any number of [`Syncer`]s make durable what was appended before they were called, so one `fdatasync` serves
//! all appends since the last one while further appends go on; any number of [`LogReader`]s read what is written.

use std::path::Path;
use std::sync::Arc;

use weft_core::lane::build::SealedBatch;
use weft_core::lane::{BatchView, HEADER_BYTES, SEAL_BYTES};
use weft_core::merkle::Hash;
use weft_core::{BatchHasher, LaneId, LaneTree, MessageId, NetworkId, OneByOne};

use crate::disk::{Disk, DiskFile};
use crate::error::LogError;
use crate::housekeeping::{Housekeeper, Job};
use crate::index::{MemoryIndex, RecordStart, SegmentIndex};
use crate::reader::LogReader;
use crate::recovery::{Context, Recovered, add_to_index, list_segments, mark, put_mark, tidy};
use crate::segment::{
    Checksum, FRAME_BYTES, Frame, RECORD_ALIGN_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, record_bytes,
    segment_name,
};
use crate::state::{Active, Segment, Shared, lock};

/// Smallest segment: its header and a few small batches. For tests; a production segment holds seconds of traffic.
pub const SEGMENT_BYTES_MIN: u64 = 8_192;
/// Largest segment: positions in it must fit 32 bits even if all messages are the shortest.
pub const SEGMENT_BYTES_MAX: u64 = 64 << 30;
/// Default segment: at 250 MB/s one a second, at an idle node's rate one a week; a million messages, whose index takes 0.1 s to build.
pub const SEGMENT_BYTES_DEFAULT: u64 = 256 << 20;
/// Default reserve of free space that no segment is created into: room for indexes, logs and the operator.
pub const FREE_BYTES_MIN_DEFAULT: u64 = 256 << 20;

/// Settings of a log.
#[derive(Clone, Copy, Debug)]
pub struct LogConfig {
    /// Length of a new segment, a multiple of 4,096; a batch that is longer gets a segment of its own length.
    pub segment_bytes: u64,
    /// Free space that must be left after a segment is created; else the append that needs it fails with `StorageFull`.
    pub free_bytes_min: u64,
    /// Whether a thread builds index files and prepares segments; if not, the append that fills a segment does it.
    pub background: bool,
    /// Hashes the messages and trees of batches that are read and checked.
    pub hasher: &'static dyn BatchHasher,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            free_bytes_min: FREE_BYTES_MIN_DEFAULT,
            background: true,
            hasher: &OneByOne,
        }
    }
}

impl LogConfig {
    fn check(&self) -> Result<(), LogError> {
        let (name, got) = ("segment_bytes", self.segment_bytes);
        let aligned = got.is_multiple_of(SEGMENT_HEADER_BYTES as u64);
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&got) || !aligned {
            return Err(LogError::Config { name, got, min: SEGMENT_BYTES_MIN, max: SEGMENT_BYTES_MAX });
        }
        Ok(())
    }
}

/// An open log.
#[derive(Debug)]
pub struct LaneLog {
    /// Appends. There is one.
    pub writer: LaneWriter,
    /// Makes durable; clone it for other threads.
    pub syncer: Syncer,
    /// Reads; clone it for other threads.
    pub reader: LogReader,
}

impl LaneLog {
    /// Opens the log of `lane` in the directory `dir`, or begins one if there is none. The caller sees to it that no other process or
    /// log has the directory ([`DataDir`](crate::datadir::DataDir) locks it).
    ///
    /// `verify_last` says whether a batch's seal is signed by this node; it is asked about the last batch, so that a log under a wrong key
    /// is noticed before anything is written to it.
    ///
    /// # Errors
    /// [`LogError::Damaged`] or [`LogError::Unsound`] for a log that can not be trusted, the other variants for what they say.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        network: NetworkId,
        lane: LaneId,
        config: LogConfig,
        verify_last: &dyn Fn(&BatchView<'_>) -> bool,
    ) -> Result<(Self, Recovered), LogError> {
        config.check()?;
        disk.create_dir_all(dir).map_err(LogError::io("create", dir))?;
        tidy(&*disk, dir)?;
        let mut firsts = list_segments(&*disk, dir)?;
        if firsts.is_empty() {
            begin(&*disk, dir, network, lane, config)?;
            firsts.push(0);
        }
        let random = disk.random_bytes().map_err(LogError::io("get random bytes for", dir))?;
        let session = random.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let hasher = config.hasher;
        let opened =
            Context { disk: &*disk, dir, network, lane, session, hasher, verify_last }.open(&firsts)?;
        let recovered = opened.recovered;
        let Some(segment) = opened.segments.last().cloned() else {
            return Err(LogError::damaged(dir, 0, "no segment"));
        };
        let active = Active { path: segment.path.as_path().into(), file: Arc::clone(&segment.file) };
        let identity = (network, lane);
        let shared = Shared::new(disk, dir, identity, config, opened.segments, active, recovered.size);
        *lock(&shared.index_error) = opened.index_error;
        let shared = Arc::new(shared);
        let writer = LaneWriter {
            housekeeper: Housekeeper::start(&shared)?,
            shared: Arc::clone(&shared),
            segment,
            salt: opened.header.salt,
            offset: opened.offset,
            chain: opened.chain,
            previous: opened.header.previous,
            session: opened.session,
            tree: recovered.tree.clone(),
            spare_wanted: true,
        };
        writer.housekeeper.submit(&shared, Job::Cover);
        let syncer = Syncer { shared: Arc::clone(&shared) };
        Ok((Self { writer, syncer, reader: LogReader::new(shared) }, recovered))
    }
}

/// Creates the first segment of a lane.
fn begin(
    disk: &dyn Disk,
    dir: &Path,
    network: NetworkId,
    lane: LaneId,
    config: LogConfig,
) -> Result<(), LogError> {
    let free_bytes = disk.free_bytes(dir).map_err(LogError::io("ask for free space in", dir))?;
    let needed_bytes = config.segment_bytes.saturating_add(config.free_bytes_min);
    if free_bytes < needed_bytes {
        return Err(LogError::StorageFull { path: dir.to_path_buf(), free_bytes, needed_bytes });
    }
    let spare = dir.join(crate::state::SPARE_NAME);
    let file = disk.create(&spare, config.segment_bytes).map_err(LogError::io("create", &spare))?;
    let header = SegmentHeader {
        network,
        lane,
        length_bytes: file.length(),
        salt: disk.random_bytes().map_err(LogError::io("get random bytes for", dir))?,
        previous: [0; 32],
        tree: LaneTree::new(),
    };
    place_segment(disk, dir, &*file, &header).map_err(|(operation, path, source)| LogError::Io {
        operation,
        path,
        source,
    })?;
    Ok(())
}

/// Puts the file prepared under the spare's name in place as the segment of `header`, durably; tells its path and its checksum.
fn place_segment(
    disk: &dyn Disk,
    dir: &Path,
    file: &dyn DiskFile,
    header: &SegmentHeader,
) -> Result<(std::path::PathBuf, Checksum), (&'static str, std::path::PathBuf, std::io::Error)> {
    let spare = dir.join(crate::state::SPARE_NAME);
    let path = dir.join(segment_name(header.first()));
    let bytes = header.encode();
    file.write_at(0, &[&bytes[..]]).map_err(|error| ("write", spare.clone(), error.source))?;
    file.sync_data().map_err(|error| ("sync", spare.clone(), error))?;
    disk.rename(&spare, &path).map_err(|error| ("rename", spare.clone(), error))?;
    disk.sync_dir(dir).map_err(|error| ("sync", dir.to_path_buf(), error))?;
    let checksum = bytes.last_chunk().copied().unwrap_or_default();
    Ok((path, checksum))
}

/// Appends batches to the log of one lane.
pub struct LaneWriter {
    // Before `shared`: dropping it waits for its thread.
    housekeeper: Housekeeper,
    pub(crate) shared: Arc<Shared>,
    pub(crate) segment: Arc<Segment>,
    pub(crate) salt: [u8; 32],
    /// Where the next record goes in the active segment.
    pub(crate) offset: u64,
    /// Checksum of the last record, or of the segment header.
    pub(crate) chain: Checksum,
    /// Checksum of the last record before the active segment.
    pub(crate) previous: Checksum,
    pub(crate) session: u64,
    /// The lane's tree after the last batch.
    pub(crate) tree: LaneTree,
    /// No spare has been asked for since the last segment was begun.
    pub(crate) spare_wanted: bool,
}

impl LaneWriter {
    /// Writes `batch` to the log and tells the lane's size with it. `after` is the lane's tree with the batch, as sealing it left it.
    ///
    /// When this returns the batch can be read, and survives the end of the process; it survives the machine's once a [`Syncer::sync`]
    /// that began later has returned.
    ///
    /// # Errors
    /// [`LogError::StorageFull`] if a new segment is needed and there is no room: nothing was written, and the same batch may be
    /// appended later. [`LogError::WrongBatch`] for a batch that does not continue the log. [`LogError::Poisoned`] after any failed
    /// write or sync, now or before.
    pub fn append(&mut self, batch: &SealedBatch, after: &LaneTree) -> Result<u64, LogError> {
        let fields = (batch.network(), batch.lane(), batch.first(), batch.count(), *batch.root());
        self.append_bytes(batch.bytes(), fields, batch.ids(), after)
    }

    /// Like [`LaneWriter::append`], for a batch of another node: its bytes go into the log as they are. `ids` are those of its messages.
    ///
    /// # Errors
    /// As for [`LaneWriter::append`].
    pub fn append_view(
        &mut self,
        batch: &BatchView<'_>,
        ids: &[MessageId],
        after: &LaneTree,
    ) -> Result<u64, LogError> {
        let fields = (batch.network(), batch.lane(), batch.first(), batch.count(), *batch.root());
        self.append_bytes(batch.bytes(), fields, ids, after)
    }

    fn append_bytes(
        &mut self,
        bytes: &[u8],
        fields: (NetworkId, LaneId, u64, u32, Hash),
        ids: &[MessageId],
        after: &LaneTree,
    ) -> Result<u64, LogError> {
        self.shared.check()?;
        self.check_batch(fields, ids, after)?;
        let (_, _, first, count, _) = fields;
        let size = first + u64::from(count) + 1;
        let length_bytes = bytes.len() as u64;
        if self.offset + record_bytes(length_bytes) > self.segment.file.length() {
            self.roll(record_bytes(length_bytes))?;
        }
        let (header, seal) = (bytes.get(..HEADER_BYTES), bytes.len().checked_sub(SEAL_BYTES));
        let (Some(header), Some(seal)) = (header, seal.and_then(|at| bytes.get(at..))) else {
            return Err(LogError::WrongBatch {
                name: "length",
                got: length_bytes,
                expected: HEADER_BYTES as u64,
            });
        };
        let frame = Frame {
            count,
            length_bytes,
            first,
            durable: self.shared.durable(),
            session: self.session,
            content: Frame::content_of(&self.salt, header, seal),
            previous: self.chain,
        };
        let frame = frame.encode(&self.salt);
        if let Err(error) = self.segment.file.write_at(self.offset, &[&frame, bytes]) {
            if error.written == 0 && error.source.kind() == std::io::ErrorKind::StorageFull {
                // A file system that does not honour allocations. Nothing was written, and whatever is written there later is chained.
                let path = self.segment.path.clone();
                return Err(LogError::StorageFull { path, free_bytes: 0, needed_bytes: length_bytes });
            }
            return Err(self.shared.fail_write(&self.segment.path, error));
        }
        self.segment.file.publish(self.offset + FRAME_BYTES as u64 + length_bytes);
        if let SegmentIndex::Memory(index) = &self.segment.index {
            let position = (first - self.segment.first) as u32;
            let sector = (self.offset / RECORD_ALIGN_BYTES) as u32;
            add_to_index(index, RecordStart { position, sector }, ids);
        }
        self.offset += record_bytes(length_bytes);
        self.chain = frame.last_chunk().copied().unwrap_or_default();
        self.tree.clone_from(after);
        self.shared.publish_written(size);
        if self.spare_wanted && self.offset > self.segment.file.length() / 2 {
            self.spare_wanted = false;
            // The messages of half a segment, and their share of what follows.
            let (messages, _) = self.segment.index.counts();
            let expected = usize::try_from(2 * messages).unwrap_or(0);
            self.housekeeper.submit(&self.shared, Job::Spare(expected));
        }
        Ok(size)
    }

    fn check_batch(
        &self,
        (network, lane, first, count, root): (NetworkId, LaneId, u64, u32, Hash),
        ids: &[MessageId],
        after: &LaneTree,
    ) -> Result<(), LogError> {
        let wrong = |name, got: u64, expected: u64| {
            if got == expected { Ok(()) } else { Err(LogError::WrongBatch { name, got, expected }) }
        };
        let number = |id: NetworkId| u64::from(u32::from_be_bytes(id.0));
        wrong("network", number(network), number(self.shared.network))?;
        wrong("lane", u64::from(lane.0), u64::from(self.shared.lane.0))?;
        wrong("first position", first, self.tree.size())?;
        wrong("ids", ids.len() as u64, u64::from(count))?;
        wrong("tree size", after.size(), first + u64::from(count) + 1)?;
        wrong("root (1: equal to the tree's)", u64::from(after.root() == root), 1)
    }

    /// Goes on to a new segment with room for `needed_bytes`.
    fn roll(&mut self, needed_bytes: u64) -> Result<(), LogError> {
        let shared = Arc::clone(&self.shared);
        // Held until the spare has its new name: nobody else may create one meanwhile.
        let mut spare = lock(&shared.spare);
        let page = SEGMENT_HEADER_BYTES as u64;
        let length = shared.config.segment_bytes.max((page + needed_bytes).next_multiple_of(page));
        let file = match spare.take() {
            Some(file) if file.length() >= length => file,
            // None, or one too small for this batch, which is replaced.
            _ => shared.create_spare(length)?,
        };
        let salt = shared.disk.random_bytes();
        let salt = salt.map_err(LogError::io("get random bytes for", &shared.dir));
        let salt = match (salt, shared.sync()) {
            (Ok(salt), Ok(_)) => salt,
            (Err(error), _) | (_, Err(error)) => {
                *spare = Some(file);
                return Err(error);
            }
        };
        // A segment without records is replaced: only a batch longer than a whole segment comes here then.
        let empty = self.segment.first == self.tree.size();
        let previous = if empty { self.previous } else { self.chain };
        let header = SegmentHeader {
            network: shared.network,
            lane: shared.lane,
            length_bytes: file.length(),
            salt,
            previous,
            tree: self.tree.clone(),
        };
        let placed = place_segment(&*shared.disk, &shared.dir, &*file, &header);
        let (path, chain) =
            placed.map_err(|(operation, path, source)| shared.fail(operation, &path, source))?;
        drop(spare);
        let (messages, _) = self.segment.index.counts();
        let expected = usize::try_from(messages).unwrap_or(0);
        let prepared = lock(&shared.spare_index).take();
        // One for far fewer than there were just now, or none: it would grow while messages wait.
        let memory = prepared.filter(|index| index.capacity() >= expected / 2);
        let memory = memory.unwrap_or_else(|| MemoryIndex::prepared(expected));
        let index = SegmentIndex::Memory(std::sync::RwLock::new(memory));
        let segment = Arc::new(Segment { path, first: header.first(), file, index });
        shared.activate(Arc::clone(&segment));
        let sealed = std::mem::replace(&mut self.segment, segment);
        let last = std::mem::replace(&mut self.chain, chain);
        self.previous = previous;
        self.salt = salt;
        self.offset = SEGMENT_HEADER_BYTES as u64;
        self.spare_wanted = true;
        if !empty {
            self.housekeeper.submit(&shared, Job::Seal(sealed, header.first(), last));
        }
        Ok(())
    }

    /// Reads what this writer writes.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::new(Arc::clone(&self.shared))
    }

    /// The lane's size.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.tree.size()
    }

    /// The lane's tree at its size.
    #[must_use]
    pub const fn tree(&self) -> &LaneTree {
        &self.tree
    }

    /// Makes everything durable, says so in the log, and tells the durable size. A writer that is dropped instead loses nothing that was
    /// durable; but damage to the last batches would then look like a torn tail to the next opening.
    ///
    /// # Errors
    /// [`LogError::Poisoned`].
    pub fn close(self) -> Result<u64, LogError> {
        let size = self.shared.sync()?;
        if size > 0 {
            let mark = mark(size, self.session, self.chain);
            let (file, path) = (&*self.segment.file, &self.segment.path);
            put_mark(file, path, self.offset, &mark, &self.salt).map_err(|error| match error {
                LogError::Io { operation, path, source } => self.shared.fail(operation, &path, source),
                other => other,
            })?;
        }
        Ok(size)
    }
}

impl std::fmt::Debug for LaneWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneWriter")
            .field("lane", &self.shared.lane)
            .field("size", &self.size())
            .field("segment", &self.segment.path)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

/// Makes durable what a [`LaneWriter`] has appended. Cheap to clone; each clone may work on a thread of its own.
#[derive(Clone)]
pub struct Syncer {
    shared: Arc<Shared>,
}

impl Syncer {
    /// Makes everything appended before the call durable, and tells the lane's durable size. Returns at once if there is nothing to do.
    ///
    /// # Errors
    /// [`LogError::Poisoned`]: a sync has failed, now or before, and nothing more will be acknowledged.
    pub fn sync(&self) -> Result<u64, LogError> {
        self.shared.sync()
    }
}

impl std::fmt::Debug for Syncer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Syncer").field("durable", &self.shared.durable()).finish_non_exhaustive()
    }
}
