//! What writer, syncer, readers and housekeeping of one log share.
//!
//! Owns the list of segments, the two watermarks and the poison. Invariants: `durable <= written`; a position below `written` can be read
//! by everybody; the list is replaced whole and never loses a segment, so a reader may go on with the list it has; the active segment
//! is the last of the list, and only its writer writes to it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Instant;

use weft_core::{LaneId, NetworkId};

use crate::disk::{Disk, DiskFile, WriteError};
use crate::error::{LogError, Poison};
use crate::index::{MemoryIndex, SegmentIndex, Segments};
use crate::log::LogConfig;

/// One segment as readers see it.
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    /// Size of the lane before it.
    pub(crate) first: u64,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) index: SegmentIndex,
}

/// The active segment as the syncer sees it.
#[derive(Clone)]
pub(crate) struct Active {
    pub(crate) path: Arc<Path>,
    pub(crate) file: Arc<dyn DiskFile>,
}

pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) network: NetworkId,
    pub(crate) lane: LaneId,
    pub(crate) config: LogConfig,
    segments: RwLock<Arc<Segments>>,
    active: Mutex<Active>,
    syncing: Mutex<()>,
    /// Size of the lane that is written and can be read.
    written: AtomicU64,
    /// Size of the lane that is durable.
    durable: AtomicU64,
    durable_at: Mutex<Instant>,
    /// How often the log was cut.
    cuts: AtomicU64,
    poison: OnceLock<Arc<Poison>>,
    /// A segment prepared ahead of need.
    pub(crate) spare: Mutex<Option<Arc<dyn DiskFile>>>,
    /// An empty index prepared for it.
    pub(crate) spare_index: Mutex<Option<MemoryIndex>>,
    /// Why the last index file could not be written, if it could not.
    pub(crate) index_error: Mutex<Option<String>>,
}

/// A lock whose data is always whole: holders only swap values.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: &Path,
        (network, lane): (NetworkId, LaneId),
        config: LogConfig,
        segments: Vec<Arc<Segment>>,
        active: Active,
        size: u64,
    ) -> Self {
        Self {
            disk,
            dir: dir.to_path_buf(),
            network,
            lane,
            config,
            segments: RwLock::new(Arc::new(Segments::new(segments))),
            active: Mutex::new(active),
            syncing: Mutex::new(()),
            written: AtomicU64::new(size),
            durable: AtomicU64::new(size),
            durable_at: Mutex::new(Instant::now()),
            cuts: AtomicU64::new(0),
            poison: OnceLock::new(),
            spare: Mutex::new(None),
            spare_index: Mutex::new(None),
            index_error: Mutex::new(None),
        }
    }

    pub(crate) fn segments(&self) -> Arc<Segments> {
        Arc::clone(&self.segments.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the list by what `change` makes of it.
    pub(crate) fn change_segments(&self, change: impl FnOnce(&mut Segments)) {
        let mut segments = self.segments.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut segments));
    }

    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    pub(crate) fn durable_at(&self) -> Instant {
        *lock(&self.durable_at)
    }

    /// Makes `size` readable. By the writer alone.
    pub(crate) fn publish_written(&self, size: u64) {
        self.written.store(size, Ordering::Release);
    }

    fn publish_durable(&self, size: u64) {
        self.durable.fetch_max(size, Ordering::AcqRel);
        *lock(&self.durable_at) = Instant::now();
    }

    /// Puts a new segment in the place of the active one. By the writer alone, when all that is written is durable. An active segment
    /// without records goes: the new one has its name.
    pub(crate) fn activate(&self, segment: Arc<Segment>) {
        *lock(&self.active) = Active { path: segment.path.as_path().into(), file: Arc::clone(&segment.file) };
        self.change_segments(|segments| {
            let at = segments.partition_point(|other| other.first < segment.first);
            segments.replace_from(at, segment);
        });
    }

    /// Puts `segment` in the place of the one at index `at` and all after it. By the writer alone, under [`Shared::lock_syncing`].
    pub(crate) fn replace_from(&self, at: usize, segment: Arc<Segment>) {
        *lock(&self.active) = Active { path: segment.path.as_path().into(), file: Arc::clone(&segment.file) };
        self.change_segments(|segments| segments.replace_from(at, segment));
    }

    /// Keeps syncs away while it lives.
    pub(crate) fn lock_syncing(&self) -> MutexGuard<'_, ()> {
        lock(&self.syncing)
    }

    /// The log was cut to `size`, or is about to be. By the writer alone, under [`Shared::lock_syncing`].
    pub(crate) fn reset_sizes(&self, size: u64) {
        self.cuts.fetch_add(1, Ordering::AcqRel);
        self.written.store(size, Ordering::Release);
        self.durable.store(size, Ordering::Release);
    }

    /// How often the log was cut.
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    pub(crate) fn poison(&self) -> Option<Arc<Poison>> {
        self.poison.get().cloned()
    }

    /// Fails if the log is closed for good.
    pub(crate) fn check(&self) -> Result<(), LogError> {
        self.poison().map_or(Ok(()), |poison| Err(LogError::Poisoned(poison)))
    }

    /// Closes the log for good; the first cause stays.
    pub(crate) fn fail(&self, operation: &'static str, path: &Path, source: std::io::Error) -> LogError {
        let poison = || Arc::new(Poison { operation, path: path.to_path_buf(), source });
        LogError::Poisoned(Arc::clone(self.poison.get_or_init(poison)))
    }

    /// Like [`Shared::fail`], for a write.
    pub(crate) fn fail_write(&self, path: &Path, error: WriteError) -> LogError {
        self.fail("write", path, error.source)
    }

    /// Makes everything written before the call durable and tells the durable size.
    ///
    /// One sync at a time: the kernel reports a failed write-back to one caller only, so a second sync that runs beside a failing one
    /// could return success for bytes that are lost. Callers that waited usually find their bytes durable and return at once.
    pub(crate) fn sync(&self) -> Result<u64, LogError> {
        let one_at_a_time = lock(&self.syncing);
        self.check()?;
        let (active, size) = {
            // The size is read while the active segment can not be replaced, so all of it lies in this segment or in sealed ones.
            let active = lock(&self.active);
            (Active::clone(&active), self.written())
        };
        if size > self.durable() {
            active.file.sync_data().map_err(|source| self.fail("sync", &active.path, source))?;
            self.publish_durable(size);
        }
        drop(one_at_a_time);
        Ok(self.durable())
    }

    /// Fails unless a file of `bytes` can be allocated with the reserve left over.
    pub(crate) fn check_room(&self, bytes: u64) -> Result<(), LogError> {
        let free_bytes =
            self.disk.free_bytes(&self.dir).map_err(LogError::io("ask for free space in", &self.dir))?;
        let needed_bytes = bytes.saturating_add(self.config.free_bytes_min);
        if free_bytes < needed_bytes {
            return Err(LogError::StorageFull { path: self.dir.clone(), free_bytes, needed_bytes });
        }
        Ok(())
    }

    /// Where a segment lies until it is put in place.
    pub(crate) fn spare_path(&self) -> PathBuf {
        self.dir.join(SPARE_NAME)
    }

    /// Creates a file for a segment, under the spare's name; nothing else may have that name.
    pub(crate) fn create_spare(&self, bytes: u64) -> Result<Arc<dyn DiskFile>, LogError> {
        self.check_room(bytes)?;
        let path = self.spare_path();
        let created = match self.disk.create(&path, bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                // Left over from an attempt that failed half-way.
                self.disk.remove(&path).map_err(LogError::io("remove", &path))?;
                self.disk.create(&path, bytes)
            }
            created => created,
        };
        created.map_err(|source| match source.kind() {
            std::io::ErrorKind::StorageFull => {
                LogError::StorageFull { path: self.dir.clone(), free_bytes: 0, needed_bytes: bytes }
            }
            _ => LogError::io("create", &path)(source),
        })
    }
}

/// Name of a segment that is prepared but not in use; removed when a log is opened.
pub(crate) const SPARE_NAME: &str = "spare";
/// End of the name of an index file that is not whole yet; removed when a log is opened.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";
