//! Opening a lane's log: what is there, what is kept, what is cut.
//!
//! Owns the decision about the tail. Invariants: what opening reports is durable when it returns; nothing that was acknowledged durable
//! is ever cut; opening twice, or being interrupted anywhere and opening again, gives the same log.
//!
//! # Segments before the last
//!
//! A segment's name is made durable only after everything before it is, so all segments but the last are complete. Their headers are
//! chained by checksum. Their records are not read again, unless the index file is missing and must be built.
//!
//! # The last segment
//!
//! It is read record by record up to the first place where no whole record continues the chain. There the log ends, at size X. Two
//! causes are possible: the crash caught writes that no sync had covered (then the rest is cut), or something damaged data that had been
//! acknowledged (then cutting would lose it in silence). They are told apart by the *claims*: every frame states how much of the lane was
//! known durable when it was written, and it lies in one sector, so it is intact or it is not there. All frames beyond X are looked for,
//! at every sector, whether they continue the chain or not:
//!
//! * A claim above X proves that a sync had succeeded for data that is no longer there: damage. The log refuses to open.
//! * Otherwise all that was acknowledged, as far as any intact frame knows, lies below X: the tail is cut.
//!
//! Why no claim is wrong: a frame's checksum is keyed with the segment's secret salt, so no message that someone sent looks like one; and
//! a frame left over from before an earlier cut claims at most the size of that cut, since a frame claiming more would have stopped it.
//!
//! What this can not tell apart: damage to the records that the last successful sync covered, when no frame that was written after that
//! sync survives. No record and no mark follows there, and zeros or half a batch look like a write that never happened. A mark follows
//! after every opening and every orderly close, so this leaves the last sync before a crash. A disk that acknowledges syncs it has not
//! done is caught as damage where a later record shows it, else not at all. A directory restored from an older copy is sound and short:
//! only others who hold more of the lane can tell.
//!
//! # Making the tail durable
//!
//! What lies between the highest claim and X was read, perhaps from the page cache alone: after a failed sync the kernel keeps such
//! pages, marks them clean, and no later sync writes them. So these records are written again, byte for byte, and synced; so are zeros
//! over the cut tail; then a mark.

use std::path::Path;
use std::sync::{Arc, RwLock};

use weft_core::lane::BatchView;
use weft_core::{BatchHasher, LaneId, LaneTree, MessageId, NetworkId};

use crate::disk::{Access, Disk, DiskFile, Slice};
use crate::error::{Damage, LogError};
use crate::housekeeping::{build_index, open_index, open_sealed};
use crate::index::{Covers, MemoryIndex, RecordStart, SegmentIndex, prefix_of};
use crate::scan::{EndReason, Record, Scanner};
use crate::segment::{
    Checksum, FRAME_BYTES, Frame, RECORD_ALIGN_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, record_bytes,
    segment_first, segment_name,
};
use crate::state::{SPARE_NAME, Segment, TEMPORARY_SUFFIX};

/// Bytes rewritten at a time.
const REWRITE_BYTES: u64 = 1 << 20;

/// What was found when a log was opened.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Size of the lane; all of it is durable.
    pub size: u64,
    /// The lane's tree at that size.
    pub tree: LaneTree,
    /// Segments.
    pub segments: u64,
    /// Batches in all segments.
    pub batches: u64,
    /// Messages in all segments.
    pub messages: u64,
    /// What was cut off the end, if anything was.
    pub cut: Option<Cut>,
    /// Bytes at the end that were written again because no sync was known to have covered them.
    pub rewritten_bytes: u64,
    /// Index files that were missing or damaged and were built again.
    pub indexes_built: u64,
}

/// A torn tail that was cut off. Nothing in it had been acknowledged as durable, as far as the log can know (see the module).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment.
    pub path: std::path::PathBuf,
    /// Where the log ends now.
    pub offset: u64,
    /// Bytes from there to the last one that was not zero.
    pub bytes: u64,
    /// What stood there.
    pub found: String,
}

/// Everything needed to go on with a log.
pub(crate) struct Opened {
    pub(crate) recovered: Recovered,
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) header: SegmentHeader,
    pub(crate) offset: u64,
    pub(crate) chain: Checksum,
    pub(crate) session: u64,
    pub(crate) index_error: Option<String>,
}

/// What opening needs to know beside the disk.
pub(crate) struct Context<'a> {
    pub(crate) disk: &'a dyn Disk,
    pub(crate) dir: &'a Path,
    pub(crate) network: NetworkId,
    pub(crate) lane: LaneId,
    pub(crate) session: u64,
    pub(crate) hasher: &'static dyn BatchHasher,
    pub(crate) verify_last: &'a dyn Fn(&BatchView<'_>) -> bool,
}

/// First positions of the segments in `dir`, rising.
pub(crate) fn list_segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<u64>, LogError> {
    let names = disk.list(dir).map_err(LogError::io("list", dir))?;
    Ok(names.iter().filter_map(|name| segment_first(name)).collect())
}

/// Removes what an interrupted opening, roll or index build left behind, and makes the names that stay durable.
pub(crate) fn tidy(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    for name in disk.list(dir).map_err(LogError::io("list", dir))? {
        if name == SPARE_NAME || name.ends_with(TEMPORARY_SUFFIX) {
            let path = dir.join(name);
            disk.remove(&path).map_err(LogError::io("remove", &path))?;
        }
    }
    disk.sync_dir(dir).map_err(LogError::io("sync", dir))
}

impl Context<'_> {
    /// Opens the segments `firsts`, of which there is at least one. Not more than two files are open for scanning at a time.
    pub(crate) fn open(&self, firsts: &[u64]) -> Result<Opened, LogError> {
        let (Some((&first, rest)), Some(&last)) = (firsts.split_first(), firsts.last()) else {
            return Err(LogError::damaged(self.dir, 0, "no segment"));
        };
        let access = |first| if first == last { Access::ReadWrite } else { Access::Read };
        let mut scanner = self.scanner(first, access(first))?;
        if first != 0 {
            let what = format!("the log begins at position {first}: a segment before it is missing");
            return Err(LogError::damaged(&scanner.path, 24, what));
        }
        if scanner.header.previous != [0; 32] {
            return Err(LogError::damaged(&scanner.path, 72, "the first segment names one before it"));
        }
        let mut segments = Vec::with_capacity(firsts.len());
        let mut indexes_built = 0;
        let mut index_error = None;
        for &first in rest {
            let next = self.scanner(first, access(first))?;
            let covers = Covers {
                network: self.network,
                lane: self.lane,
                first: scanner.header.first(),
                size: next.header.first(),
                last: next.header.previous,
            };
            // An index that fits shows that the segment ends where the next one begins, with the record that the next one names.
            let segment = match open_index(self.disk, self.dir, &covers) {
                Ok(index) => open_sealed(self.disk, &scanner.path, covers.first, index)?,
                Err(_) => {
                    indexes_built += 1;
                    self.rebuild(scanner, &covers, &mut index_error)?
                }
            };
            segments.push(Arc::new(segment));
            scanner = next;
        }
        let mut opened = self.open_last(scanner, segments)?;
        opened.recovered.indexes_built = indexes_built;
        opened.index_error = index_error;
        Ok(opened)
    }

    fn scanner(&self, first: u64, access: Access) -> Result<Scanner, LogError> {
        let path = self.dir.join(segment_name(first));
        Scanner::open(self.disk, &path, access, (self.network, self.lane, first), self.hasher)
    }

    /// Reads a sealed segment whole and builds its index.
    fn rebuild(
        &self,
        mut scanner: Scanner,
        covers: &Covers,
        index_error: &mut Option<String>,
    ) -> Result<Segment, LogError> {
        let mut memory = MemoryIndex::new(0);
        let mut entries = Vec::new();
        let mut records = Vec::new();
        let reason = loop {
            match scanner.next()? {
                Ok(record) => {
                    let start = record.start(covers.first);
                    let positions = start.position + 1..;
                    entries.extend(record.ids.iter().zip(positions).map(|(id, at)| (prefix_of(id), at)));
                    memory.add(start, record.ids);
                    records.push(start);
                }
                Err(reason) => break reason,
            }
        };
        if scanner.size() != covers.size || scanner.chain != covers.last {
            let what = format!(
                "the segment ends here at size {} ({}), but the next one begins at {}",
                scanner.size(),
                reason.describe(),
                covers.size
            );
            return Err(LogError::damaged(&scanner.path, scanner.offset, what));
        }
        match build_index(self.disk, self.dir, covers, entries, &records) {
            Ok(index) => open_sealed(self.disk, &scanner.path, covers.first, index),
            Err(error) => {
                // For want of space, most likely: the memory index serves until the next opening.
                *index_error = Some(error.to_string());
                let path = scanner.path;
                let file = self.disk.open(&path, Access::Map).map_err(LogError::io("map", &path))?;
                let index = SegmentIndex::Memory(RwLock::new(memory));
                Ok(Segment { path, first: covers.first, file, index })
            }
        }
    }

    /// Reads the last segment, cuts its tail and makes it durable.
    fn open_last(&self, mut scanner: Scanner, mut segments: Vec<Arc<Segment>>) -> Result<Opened, LogError> {
        let first = scanner.header.first();
        let mut memory = MemoryIndex::new(ids_expected(scanner.file.length()));
        // Ends of the records, to find where proof of durability ends.
        let mut ends = vec![(first, SEGMENT_HEADER_BYTES as u64)];
        let mut last = None;
        let reason = loop {
            match scanner.next()? {
                Ok(record) => {
                    memory.add(record.start(first), record.ids);
                    ends.push((record.frame.size(), record.offset + record_bytes(record.frame.length_bytes)));
                    last = Some((record.offset, record.frame.length_bytes));
                }
                Err(reason) => break reason,
            }
        };
        self.check_last(&scanner, last, segments.last())?;
        let tail = scanner.tail()?;
        scanner.check_tail(&tail, &reason)?;
        let end = scanner.offset;
        let clean_end = if reason == EndReason::Mark { Some(end + RECORD_ALIGN_BYTES) } else { None };
        let mut cut = None;
        if tail.used_end != clean_end {
            let used_end = tail.used_end.unwrap_or(end);
            self.write_zeros(&scanner, end, used_end)?;
            let found = match &reason {
                EndReason::Broken(what) => what.clone(),
                _ => "bytes beyond the end".to_owned(),
            };
            cut = Some(Cut { path: scanner.path.clone(), offset: end, bytes: used_end - end, found });
        }
        let proven_end =
            ends.iter().rev().find(|(size, _)| *size <= scanner.proven).map_or(0, |(_, end)| *end);
        let rewritten_bytes = end - proven_end.max(SEGMENT_HEADER_BYTES as u64);
        self.rewrite(&scanner, end - rewritten_bytes, end)?;
        if cut.is_some() || rewritten_bytes > 0 {
            scanner.file.sync_data().map_err(LogError::io("sync", &scanner.path))?;
        }
        if (cut.is_some() || reason != EndReason::Mark) && scanner.size() > 0 {
            self.write_mark(&scanner)?;
        }
        scanner.file.publish(end);
        let Scanner { path, file, header, offset, chain, tree, .. } = scanner;
        let index = SegmentIndex::Memory(RwLock::new(memory));
        segments.push(Arc::new(Segment { path, first, file, index }));
        let (messages, batches) = segments
            .iter()
            .map(|segment| segment.index.counts())
            .fold((0, 0), |(messages, batches), (m, b)| (messages + m, batches + b));
        let recovered = Recovered {
            size: tree.size(),
            tree,
            segments: segments.len() as u64,
            batches,
            messages,
            cut,
            rewritten_bytes,
            indexes_built: 0,
        };
        Ok(Opened { recovered, segments, header, offset, chain, session: self.session, index_error: None })
    }

    /// Has the seal of the log's last batch checked: that of the record in the last segment, or the last one before it.
    fn check_last(
        &self,
        scanner: &Scanner,
        record: Option<(u64, u64)>,
        before: Option<&Arc<Segment>>,
    ) -> Result<(), LogError> {
        let (path, offset, bytes) = match (record, before) {
            (Some((offset, length_bytes)), _) => {
                let mut bytes = vec![0; length_bytes as usize];
                let read = scanner.file.read_at(offset + FRAME_BYTES as u64, &mut bytes);
                read.map_err(LogError::io("read", &scanner.path))?;
                (&scanner.path, offset, Slice::of_memory(bytes.into()))
            }
            (None, Some(segment)) => match segment.index.record_at(u32::MAX) {
                Some(start) => {
                    let offset = u64::from(start.sector) * RECORD_ALIGN_BYTES;
                    (&segment.path, offset, segment.batch(start)?.bytes)
                }
                None => return Ok(()),
            },
            (None, None) => return Ok(()),
        };
        let unsound = |what: String| LogError::Unsound(Damage { path: path.clone(), offset, what });
        let batch = BatchView::parse(&bytes).map_err(|error| unsound(error.to_string()))?;
        if (self.verify_last)(&batch) {
            return Ok(());
        }
        Err(unsound("the last batch is not signed by this node's key".to_owned()))
    }

    fn write_zeros(&self, scanner: &Scanner, from: u64, to: u64) -> Result<(), LogError> {
        let zeros = vec![0; REWRITE_BYTES.min(to - from) as usize];
        let mut at = from;
        while at < to {
            let count = (to - at).min(zeros.len() as u64);
            write(&*scanner.file, &scanner.path, at, &zeros[..count as usize])?;
            at += count;
        }
        Ok(())
    }

    fn rewrite(&self, scanner: &Scanner, from: u64, to: u64) -> Result<(), LogError> {
        let mut at = from;
        let mut buffer = Vec::new();
        while at < to {
            buffer.resize((to - at).min(REWRITE_BYTES) as usize, 0);
            scanner.file.read_at(at, &mut buffer).map_err(LogError::io("read", &scanner.path))?;
            write(&*scanner.file, &scanner.path, at, &buffer)?;
            at += buffer.len() as u64;
        }
        Ok(())
    }

    fn write_mark(&self, scanner: &Scanner) -> Result<(), LogError> {
        let mark = mark(scanner.size(), self.session, scanner.chain);
        put_mark(&*scanner.file, &scanner.path, scanner.offset, &mark, &scanner.header.salt)
    }
}

impl Record<'_> {
    /// Where the record lies, relative to its segment. A segment is too short for either number to overflow.
    fn start(&self, segment_first: u64) -> RecordStart {
        RecordStart {
            position: (self.frame.first - segment_first) as u32,
            sector: (self.offset / RECORD_ALIGN_BYTES) as u32,
        }
    }
}

/// A mark that says that all of the lane up to `size` is durable.
pub(crate) fn mark(size: u64, session: u64, chain: Checksum) -> Frame {
    Frame {
        count: 0,
        length_bytes: 0,
        first: size,
        durable: size,
        session,
        content: [0; 24],
        previous: chain,
    }
}

/// Writes a mark at `offset` and syncs it, if there is room.
pub(crate) fn put_mark(
    file: &dyn DiskFile,
    path: &Path,
    offset: u64,
    mark: &Frame,
    salt: &[u8; 32],
) -> Result<(), LogError> {
    if offset + RECORD_ALIGN_BYTES > file.length() {
        return Ok(());
    }
    write(file, path, offset, &mark.encode(salt))?;
    file.sync_data().map_err(LogError::io("sync", path))
}

fn write(file: &dyn DiskFile, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), LogError> {
    file.write_at(offset, &[bytes]).map_err(|error| LogError::io("write", path)(error.source))
}

/// Ids that a segment of `segment_bytes` is expected to hold, so that its table need not grow in an append; the table takes memory only
/// as it fills.
fn ids_expected(segment_bytes: u64) -> usize {
    usize::try_from(segment_bytes / 512).unwrap_or(0)
}

/// Ids of a batch as the index takes them.
pub(crate) fn add_to_index(index: &RwLock<MemoryIndex>, start: RecordStart, ids: &[MessageId]) {
    index.write().unwrap_or_else(std::sync::PoisonError::into_inner).add(start, ids);
}
