//! Reading a segment file record by record, and telling a torn tail from damage.
//!
//! Owns what counts as the next record: an intact frame that continues the chain, with a batch behind it that is what the frame and the
//! batch's own header say. Invariants: every record handed out is intact, chained and sound (structure, ids, and the root of the lane's
//! tree); nothing is ever skipped. What to do with the end is left to [`recovery`](crate::recovery) and [`verify`](crate::verify).
//!
//! Everything is read through the descriptor, so unreadable media give an error.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use weft_core::hash::Domain;
use weft_core::lane::{BATCH_BYTES_MAX, BatchView, HEADER_BYTES, SEAL_BYTES};
use weft_core::{BatchHasher, LaneId, LaneTree, MessageId, NetworkId};

use crate::disk::{Access, Disk, DiskFile, SECTOR_BYTES};
use crate::error::{Damage, LogError};
use crate::segment::{
    Checksum, FRAME_BYTES, FRAME_MAGIC, FormatError, Frame, SEGMENT_HEADER_BYTES, SegmentHeader, record_bytes,
};

/// Bytes read at a time when the rest of a segment is looked through. A multiple of a sector.
const TAIL_CHUNK_BYTES: usize = 1 << 20;

/// Why no further record follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// Not even a frame fits.
    Full,
    /// The bytes where a frame would be are zeros.
    Empty,
    /// A mark: the log was closed or opened here, and all before it is durable.
    Mark,
    /// Bytes that are no whole record.
    Broken(String),
}

impl EndReason {
    /// What stands at the end, in words.
    pub(crate) fn describe(&self) -> &str {
        match self {
            Self::Full => "no room",
            Self::Empty => "zeros",
            Self::Mark => "a mark",
            Self::Broken(what) => what,
        }
    }
}

/// One record of a scan.
pub(crate) struct Record<'a> {
    pub(crate) offset: u64,
    pub(crate) frame: Frame,
    pub(crate) batch: BatchView<'a>,
    pub(crate) ids: &'a [MessageId],
}

/// What lies beyond the last record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    /// The highest claim of durability in intact frames, and the offset of that frame.
    pub(crate) claim: Option<(u64, u64)>,
    /// End of the last sector that is not zero.
    pub(crate) used_end: Option<u64>,
}

/// A segment being read.
pub(crate) struct Scanner {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) header: SegmentHeader,
    /// Where the next record would start.
    pub(crate) offset: u64,
    /// Checksum of the last record, or of the header.
    pub(crate) chain: Checksum,
    /// The lane's tree after the last record.
    pub(crate) tree: LaneTree,
    /// Size of the lane that intact frames so far, or the existence of this segment, claim durable.
    pub(crate) proven: u64,
    hasher: &'static dyn BatchHasher,
    buffer: Vec<u8>,
    ids: Vec<MessageId>,
}

impl Scanner {
    /// Opens the segment that `path` names and checks its header. `first` is the position that its name stands for.
    pub(crate) fn open(
        disk: &dyn Disk,
        path: &Path,
        access: Access,
        (network, lane, first): (NetworkId, LaneId, u64),
        hasher: &'static dyn BatchHasher,
    ) -> Result<Self, LogError> {
        let file = disk.open(path, access).map_err(|source| match source.kind() {
            std::io::ErrorKind::InvalidData => LogError::damaged(path, 0, "the segment is empty"),
            _ => LogError::io("open", path)(source),
        })?;
        let mut bytes = vec![0; SEGMENT_HEADER_BYTES];
        if file.length() < bytes.len() as u64 {
            return Err(LogError::damaged(path, 0, "the segment is shorter than its header"));
        }
        file.read_at(0, &mut bytes).map_err(LogError::io("read", path))?;
        let damaged = |error: FormatError| LogError::damaged(path, 0, format!("segment header: {error}"));
        let (header, chain) = SegmentHeader::decode(&bytes).map_err(damaged)?;
        let path = path.to_path_buf();
        if header.network != network {
            return Err(LogError::AnotherNetwork { path, got: header.network, expected: network });
        }
        if header.lane != lane {
            return Err(LogError::AnotherLane { path, got: header.lane, expected: lane });
        }
        if header.first() != first {
            let what = format!("the header says first position {}, the name {first}", header.first());
            return Err(LogError::damaged(&path, 24, what));
        }
        if header.length_bytes != file.length() {
            let what =
                format!("the file has {} bytes, its header says {}", file.length(), header.length_bytes);
            return Err(LogError::damaged(&path, 32, what));
        }
        let tree = header.tree.clone();
        Ok(Self {
            path,
            file,
            offset: SEGMENT_HEADER_BYTES as u64,
            chain,
            tree,
            proven: header.first(),
            header,
            hasher,
            buffer: Vec::new(),
            ids: Vec::new(),
        })
    }

    /// Size of the lane after the last record.
    pub(crate) fn size(&self) -> u64 {
        self.tree.size()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), LogError> {
        self.file.read_at(offset, out).map_err(LogError::io("read", &self.path))
    }

    /// The next record, or why there is none; then [`Scanner::offset`] is where it would be.
    ///
    /// # Errors
    /// `Io`, or `Unsound` for a record that is intact and yet holds no sound batch.
    pub(crate) fn next(&mut self) -> Result<Result<Record<'_>, EndReason>, LogError> {
        let room = self.file.length().saturating_sub(self.offset);
        if room < FRAME_BYTES as u64 {
            return Ok(Err(EndReason::Full));
        }
        let mut bytes = [0; FRAME_BYTES];
        self.read(self.offset, &mut bytes)?;
        let broken = |what: String| Ok(Err(EndReason::Broken(what)));
        let (frame, checksum) = match Frame::decode(&bytes, &self.header.salt) {
            Ok(decoded) => decoded,
            Err(_) if bytes.iter().all(|byte| *byte == 0) => return Ok(Err(EndReason::Empty)),
            Err(error) => return broken(format!("record frame: {error}")),
        };
        if frame.previous != self.chain || frame.first != self.size() {
            return broken(format!("a record of position {} that does not continue the log", frame.first));
        }
        self.proven = self.proven.max(frame.durable);
        if frame.is_mark() {
            return Ok(Err(EndReason::Mark));
        }
        if frame.length_bytes > BATCH_BYTES_MAX as u64 || record_bytes(frame.length_bytes) > room {
            return self.unsound(format!("a record of {} bytes where {room} are left", frame.length_bytes));
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(frame.length_bytes as usize, 0);
        let read = self.read(self.offset + FRAME_BYTES as u64, &mut buffer);
        self.buffer = buffer;
        read?;
        match self.check_batch(&frame) {
            Ok(()) => {}
            Err(EndOrUnsound::End(what)) => return broken(what),
            Err(EndOrUnsound::Unsound(what)) => return self.unsound(what),
        }
        let offset = self.offset;
        self.offset += record_bytes(frame.length_bytes);
        self.chain = checksum;
        // `check_batch` has parsed the same bytes.
        let batch = match BatchView::parse(&self.buffer) {
            Ok(batch) => batch,
            Err(error) => return self.unsound(error.to_string()),
        };
        Ok(Ok(Record { offset, frame, batch, ids: &self.ids }))
    }

    fn unsound<T>(&self, what: String) -> Result<T, LogError> {
        Err(LogError::Unsound(Damage { path: self.path.clone(), offset: self.offset, what }))
    }

    /// Checks the batch in the buffer against its frame and the tree; extends the tree.
    fn check_batch(&mut self, frame: &Frame) -> Result<(), EndOrUnsound> {
        let torn = |what: &str| EndOrUnsound::End(what.to_owned());
        let too_short = || EndOrUnsound::Unsound("a record shorter than a batch can be".to_owned());
        let bytes = &self.buffer[..];
        let header = bytes.get(..HEADER_BYTES).ok_or_else(too_short)?;
        let seal =
            bytes.len().checked_sub(SEAL_BYTES).and_then(|at| bytes.get(at..)).ok_or_else(too_short)?;
        if Frame::content_of(&self.header.salt, header, seal) != frame.content {
            return Err(torn("a record whose batch header or seal is not what was written"));
        }
        // From here on header and seal are what was written: only the body may be torn, anything else is unsound.
        let unsound = |what: String| EndOrUnsound::Unsound(what);
        let parsed =
            weft_core::lane::BatchHeader::parse(header).map_err(|error| unsound(error.to_string()))?;
        let fits = parsed.batch_bytes() == bytes.len()
            && parsed.network() == self.header.network
            && parsed.lane() == self.header.lane
            && parsed.count() == frame.count
            && parsed.first() == frame.first;
        if !fits {
            return Err(unsound("a batch header that contradicts its record".to_owned()));
        }
        let body = &bytes[HEADER_BYTES..bytes.len() - SEAL_BYTES];
        if Domain::BATCH_BODY.hash(body) != *parsed.body_hash() {
            return Err(torn("a record whose batch body is not what was written"));
        }
        let batch = BatchView::parse(bytes).map_err(|error| unsound(error.to_string()))?;
        self.ids = batch.ids_by(self.hasher);
        let mut tree = self.tree.clone();
        batch.append_to(&mut tree, &self.ids, self.hasher, |_| {});
        if tree.root() != *batch.root() {
            return Err(unsound("a batch whose root is not that of the lane's tree".to_owned()));
        }
        self.tree = tree;
        Ok(())
    }

    /// Looks through everything from [`Scanner::offset`] on.
    pub(crate) fn tail(&self) -> Result<Tail, LogError> {
        let mut tail = Tail::default();
        let mut at = self.offset;
        let mut chunk = vec![0; TAIL_CHUNK_BYTES];
        while at < self.file.length() {
            let count = (self.file.length() - at).min(TAIL_CHUNK_BYTES as u64) as usize;
            let chunk = &mut chunk[..count];
            self.read(at, chunk)?;
            for (i, sector) in chunk.chunks(SECTOR_BYTES).enumerate() {
                if *sector == [0; SECTOR_BYTES][..sector.len()] {
                    continue;
                }
                let offset = at + (i * SECTOR_BYTES) as u64;
                tail.used_end = Some(offset + sector.len() as u64);
                if !sector.starts_with(&FRAME_MAGIC) {
                    continue;
                }
                let Ok((frame, _)) = Frame::decode(sector, &self.header.salt) else { continue };
                if tail.claim.is_none_or(|(claim, _)| frame.durable > claim) {
                    tail.claim = Some((frame.durable, offset));
                }
            }
            at += count as u64;
        }
        Ok(tail)
    }

    /// Fails if what lies beyond the end shows that more was durable once.
    pub(crate) fn check_tail(&self, tail: &Tail, reason: &EndReason) -> Result<(), LogError> {
        let Some((claim, by)) = tail.claim.filter(|(claim, _)| *claim > self.size()) else { return Ok(()) };
        let found = reason.describe();
        let what = format!(
            "the log ends here at size {}, but the record at byte {by} says that {claim} was durable; found {found}",
            self.size()
        );
        Err(LogError::damaged(&self.path, self.offset, what))
    }
}

enum EndOrUnsound {
    End(String),
    Unsound(String),
}
