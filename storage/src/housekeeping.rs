//! Work that must not sit in an append: building the index file of a sealed segment, covering it by a sieve, and allocating the next
//! segment.
//!
//! Owns the thread that does it, if there is one: a simulation and many tests do the same work inside the append instead, so that the
//! order of operations is fixed. Nothing here can harm the log: without the index file the segment keeps its index in memory and the
//! next opening builds it; without the spare the writer allocates a segment itself.
//!
//! An index is sorted and hashed for tens of milliseconds, and nobody waits for it: that is done at the lowest priority, or every
//! segment would end in a pause of the pipeline on a machine whose cores are all in use. The thread that does it holds no lock that
//! others need, since it may not get to run for long.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use crate::disk::{Access, Disk};
use crate::error::LogError;
use crate::index::{Covers, IndexError, IndexFile, MemoryIndex, RecordStart, SegmentIndex, file, read};
use crate::segment::{Checksum, segment_name};
use crate::state::{Segment, Shared, TEMPORARY_SUFFIX, lock};

/// "Niceness" of a thread that nobody waits for (setpriority(2)).
#[cfg(target_os = "linux")]
const LOWEST_PRIORITY: i32 = 19;

/// A task for the housekeeper.
pub(crate) enum Job {
    /// Build the index file of a sealed segment; its size and last checksum go into the file.
    Seal(Arc<Segment>, u64, Checksum),
    /// Cover the segments that were there when the log was opened.
    Cover,
    /// Allocate a segment ahead of need, and an index for so many messages: 16 to 32 bytes each, held from the middle of a segment to its
    /// end beside those of the active one.
    Spare(usize),
}

/// Does jobs, on a thread of its own or at once.
pub(crate) enum Housekeeper {
    Thread { jobs: Option<Sender<Job>>, thread: Option<JoinHandle<()>>, closing: Arc<AtomicBool> },
    Inline,
}

impl Housekeeper {
    /// Starts the thread if the log's configuration asks for one.
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Self, LogError> {
        if !shared.config.background {
            return Ok(Self::Inline);
        }
        let (jobs, todo) = channel();
        let weak: Weak<Shared> = Arc::downgrade(shared);
        let closing = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&closing);
        let thread = std::thread::Builder::new()
            .name(format!("weft-log-{}", shared.lane))
            .spawn(move || {
                while let Ok(job) = todo.recv() {
                    let Some(shared) = weak.upgrade() else { return };
                    run(&shared, &job, &stop);
                }
            })
            .map_err(LogError::io("start a thread for", &shared.dir))?;
        Ok(Self::Thread { jobs: Some(jobs), thread: Some(thread), closing })
    }

    /// Does `job` now or soon. A spare is only made by a thread: made at once it would save nothing.
    pub(crate) fn submit(&self, shared: &Shared, job: Job) {
        match (self, job) {
            // If the thread is gone the job is not done, which harms nothing.
            (Self::Thread { jobs, .. }, job) => {
                let _ = jobs.as_ref().map(|jobs| jobs.send(job));
            }
            (Self::Inline, Job::Spare(_)) => {}
            (Self::Inline, job) => run(shared, &job, &AtomicBool::new(false)),
        }
    }
}

impl Drop for Housekeeper {
    /// Waits for the jobs submitted, so that whoever opens the directory next finds nobody writing there; what is in memory only is
    /// given up.
    fn drop(&mut self) {
        if let Self::Thread { jobs, thread, closing } = self {
            closing.store(true, Ordering::Relaxed);
            drop(jobs.take());
            if let Some(thread) = thread.take() {
                // A panic there has been reported by the panic hook; the log does not depend on it.
                let _ = thread.join();
            }
        }
    }
}

fn run(shared: &Shared, job: &Job, closing: &AtomicBool) {
    match job {
        Job::Spare(ids_expected) => {
            let index = MemoryIndex::prepared(*ids_expected);
            *lock(&shared.spare_index) = Some(index);
            let mut spare = lock(&shared.spare);
            if spare.is_none() {
                // Without a spare the writer asks again, and then the error is told.
                *spare = shared.create_spare(shared.config.segment_bytes).ok();
            }
        }
        Job::Seal(segment, size, last) => {
            let sealed = seal(shared, segment, *size, *last).and_then(|()| cover(shared, closing));
            *lock(&shared.index_error) = sealed.err().map(|error| error.to_string());
        }
        Job::Cover => {
            if let Err(error) = cover(shared, closing) {
                *lock(&shared.index_error) = Some(error.to_string());
            }
        }
    }
}

/// Builds the index file of `segment` and lets readers use it.
fn seal(shared: &Shared, segment: &Arc<Segment>, size: u64, last: Checksum) -> Result<(), LogError> {
    let SegmentIndex::Memory(index) = &segment.index else { return Ok(()) };
    let covers = Covers { network: shared.network, lane: shared.lane, first: segment.first, size, last };
    let build = || {
        // Readers of a sealed segment only read, too: none waits for this lock.
        let bytes = {
            let index = read(index);
            let (entries, records) = index.contents();
            file::encode(&covers, entries, records)
        };
        shared.check_room(bytes.len() as u64)?;
        store(&*shared.disk, &shared.dir, &covers, &bytes)
    };
    let index = at_lowest_priority(shared, build)?;
    let sealed = open_sealed(&*shared.disk, &segment.path, segment.first, index)?;
    // One that was cut meanwhile has another in its place.
    shared.change_segments(|segments| segments.exchange(segment, sealed));
    Ok(())
}

/// Covers all sealed segments by sieves that are not covered yet.
fn cover(shared: &Shared, closing: &AtomicBool) -> Result<(), LogError> {
    while let Some(next) = shared.segments().next_to_cover().filter(|_| !closing.load(Ordering::Relaxed)) {
        at_lowest_priority(shared, || {
            next.fill();
            Ok(())
        })?;
        shared.change_segments(|segments| segments.cover(next));
    }
    Ok(())
}

/// Runs `work`: in the background on a thread of its own, at the lowest priority where threads have one. A thread may not raise its
/// priority again.
fn at_lowest_priority<T: Send>(
    shared: &Shared,
    work: impl FnOnce() -> Result<T, LogError> + Send,
) -> Result<T, LogError> {
    if !shared.config.background {
        return work();
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(format!("weft-index-{}", shared.lane));
        let thread = thread.spawn_scoped(scope, || {
            // Elsewhere this would be the priority of the whole process. If it is refused, the work is only less polite.
            #[cfg(target_os = "linux")]
            let _ = rustix::process::setpriority_process(None, LOWEST_PRIORITY);
            work()
        });
        let thread = thread.map_err(LogError::io("start a thread for", &shared.dir))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A sealed segment whose index is `index`.
pub(crate) fn open_sealed(
    disk: &dyn Disk,
    path: &Path,
    first: u64,
    index: IndexFile,
) -> Result<Segment, LogError> {
    let file = disk.open(path, Access::Map).map_err(LogError::io("map", path))?;
    Ok(Segment { path: path.to_path_buf(), first, file, index: SegmentIndex::File(index) })
}

/// Path of the index file of the segment that starts at `first`.
fn index_path(dir: &Path, first: u64) -> std::path::PathBuf {
    dir.join(segment_name(first)).with_extension("idx")
}

/// Opens the index file for `covers`, if it is there and intact.
pub(crate) fn open_index(disk: &dyn Disk, dir: &Path, covers: &Covers) -> Result<IndexFile, IndexError> {
    let file = disk.open(&index_path(dir, covers.first), Access::Map);
    IndexFile::open(file.map_err(|error| IndexError::Unreadable(error.to_string()))?, covers)
}

/// Builds the index file for `covers` and opens it.
pub(crate) fn build_index(
    disk: &dyn Disk,
    dir: &Path,
    covers: &Covers,
    entries: Vec<(u64, u32)>,
    records: &[RecordStart],
) -> Result<IndexFile, LogError> {
    store(disk, dir, covers, &file::encode(covers, entries, records))
}

/// Writes an index file and opens it. Its name need not be durable: it is built again if it vanishes.
fn store(disk: &dyn Disk, dir: &Path, covers: &Covers, bytes: &[u8]) -> Result<IndexFile, LogError> {
    let path = index_path(dir, covers.first);
    let mut temporary = path.clone().into_os_string();
    temporary.push(TEMPORARY_SUFFIX);
    let temporary = std::path::PathBuf::from(temporary);
    // Left over from an earlier attempt, if at all.
    let _ = disk.remove(&temporary);
    let file = disk.create(&temporary, bytes.len() as u64).map_err(LogError::io("create", &temporary))?;
    let written = file.write_at(0, &[bytes]).map_err(|error| error.source);
    written.and_then(|()| file.sync_data()).map_err(LogError::io("write", &temporary))?;
    drop(file);
    disk.rename(&temporary, &path).map_err(LogError::io("rename", &temporary))?;
    let refused = |error: IndexError| LogError::damaged(&path, 0, format!("the index just written: {error}"));
    open_index(disk, dir, covers).map_err(refused)
}
