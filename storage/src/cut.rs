//! Cutting a lane's tail: what a node does when its copy of another node's lane changes to another history.
//!
//! Owns the order of operations. Invariants: after a crash at any point the log is what it was, or a shorter prefix of that which has at
//! least the size asked for; when [`LaneWriter::cut`] returns, it has exactly that size, durably, and goes on from there; what readers
//! have in their hands stays readable. The caller sees to it that nobody relies on what is cut.
//!
//! How: records of the segment that the new end lies in are copied, up to there, to a new file with a salt of its own, since frames
//! that stayed beyond the end would claim that more was durable once. Then the segments after it go, the last one first, each durably,
//! so that what is left is always a row without gaps; then the new file takes the name of the one that it replaces, in one step.

use std::sync::{Arc, RwLock};

use crate::disk::Access;
use crate::error::LogError;
use crate::index::{MemoryIndex, SegmentIndex};
use crate::log::LaneWriter;
use crate::recovery::{add_to_index, mark};
use crate::scan::Scanner;
use crate::segment::{
    FRAME_BYTES, Frame, RECORD_ALIGN_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader, record_bytes,
};
use crate::state::{Segment, TEMPORARY_SUFFIX, lock};

impl LaneWriter {
    /// Cuts the log to `size`, the end of a batch or 0. Nothing happens if that is its size already.
    ///
    /// # Errors
    /// [`LogError::WrongBatch`] if no batch ends there, and [`LogError::StorageFull`] or [`LogError::Io`] if the copy could not be made:
    /// then nothing has changed. [`LogError::Poisoned`] if it failed later, or the log was poisoned before.
    pub fn cut(&mut self, size: u64) -> Result<(), LogError> {
        let shared = Arc::clone(&self.shared);
        shared.check()?;
        if size == self.tree.size() {
            return Ok(());
        }
        let wrong = |got| LogError::WrongBatch { name: "end of a batch to cut at", got, expected: size };
        if size > self.tree.size() {
            return Err(wrong(self.tree.size()));
        }
        let segments = shared.segments();
        let at = segments.partition_point(|segment| segment.first < size).saturating_sub(1);
        let Some(old) = segments.get(at) else { return Err(wrong(0)) };
        shared.check_room(old.file.length())?;

        // The copy. It may be given up until the old file is touched.
        let identity = (shared.network, shared.lane, old.first);
        let mut scanner =
            Scanner::open(&*shared.disk, &old.path, Access::Read, identity, shared.config.hasher)?;
        let path = old.path.with_extension(TEMPORARY_SUFFIX.trim_start_matches('.'));
        let _ = shared.disk.remove(&path);
        let file = shared.disk.create(&path, old.file.length()).map_err(LogError::io("create", &path))?;
        let salt = shared.disk.random_bytes().map_err(LogError::io("get random bytes for", &shared.dir))?;
        let header = SegmentHeader { salt, ..scanner.header.clone() };
        let bytes = header.encode();
        let write = |offset, parts: &[&[u8]]| {
            file.write_at(offset, parts).map_err(|error| LogError::io("write", &path)(error.source))
        };
        write(0, &[&bytes[..]])?;
        let (mut chain, mut offset) =
            (bytes.last_chunk().copied().unwrap_or_default(), SEGMENT_HEADER_BYTES as u64);
        let memory = RwLock::new(MemoryIndex::new(0));
        while scanner.size() < size {
            let before = scanner.size();
            let Ok(record) = scanner.next()? else { return Err(wrong(before)) };
            let batch = record.batch.bytes();
            let frame = Frame {
                content: Frame::content_of(&salt, &batch[..HEADER], &batch[batch.len() - SEAL..]),
                // What the copy may claim of itself before its sync.
                durable: old.first,
                session: self.session,
                previous: chain,
                ..record.frame
            };
            let frame = frame.encode(&salt);
            write(offset, &[&frame, batch])?;
            let sector = (offset / RECORD_ALIGN_BYTES) as u32;
            let position = (record.batch.first() - old.first) as u32;
            add_to_index(&memory, crate::index::RecordStart { position, sector }, record.ids);
            offset += record_bytes(batch.len() as u64);
            chain = frame.last_chunk().copied().unwrap_or_default();
        }
        if scanner.size() != size {
            return Err(wrong(scanner.size()));
        }
        if offset + RECORD_ALIGN_BYTES <= file.length() && size > 0 {
            write(offset, &[&mark(size, self.session, chain).encode(&salt)])?;
        }
        file.sync_data().map_err(LogError::io("sync", &path))?;

        // No sync of the old tail runs beside this, and none reports it afterwards.
        let syncing = shared.lock_syncing();
        // Until the files are gone readers may still look: what they find below the new size is the same either way.
        shared.reset_sizes(size);
        for segment in segments.iter().skip(at + 1).rev() {
            let removed = shared.disk.remove(&segment.path);
            removed.map_err(|source| shared.fail("remove", &segment.path, source))?;
            let _ = shared.disk.remove(&segment.path.with_extension("idx"));
            shared.disk.sync_dir(&shared.dir).map_err(|source| shared.fail("sync", &shared.dir, source))?;
        }
        shared.disk.rename(&path, &old.path).map_err(|source| shared.fail("rename", &path, source))?;
        shared.disk.sync_dir(&shared.dir).map_err(|source| shared.fail("sync", &shared.dir, source))?;
        file.publish(offset);
        let index = SegmentIndex::Memory(memory);
        let segment = Arc::new(Segment { path: old.path.clone(), first: old.first, file, index });
        shared.replace_from(at, Arc::clone(&segment));
        drop(syncing);
        self.segment = segment;
        (self.salt, self.offset, self.chain) = (salt, offset, chain);
        self.previous = header.previous;
        self.tree = scanner.tree;
        self.spare_wanted = lock(&shared.spare).is_none();
        Ok(())
    }
}

const HEADER: usize = weft_core::lane::HEADER_BYTES;
const SEAL: usize = weft_core::lane::SEAL_BYTES;
const _: () = assert!(FRAME_BYTES as u64 <= RECORD_ALIGN_BYTES);
