//! A file and its shared read-only map: the only unsafe code of this crate.
//!
//! Owns the mapping and the *published* mark. Invariants: the mark never falls and never passes the end of the file; bytes below the
//! mark are never written through this object; bytes at or above it are never read through the map. What is published, and when, is
//! left to the log.
//!
//! Unreadable media under a map is a SIGBUS, not an error: no mapped reader can offer better. Recovery and `verify-log` read through
//! the descriptor instead and get a named error.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{Mmap, MmapOptions};

use crate::disk::WriteError;

/// A mapped file of fixed length.
pub(crate) struct MappedFile {
    /// `None` for a file that is only read through its map.
    file: Option<File>,
    map: Mmap,
    published: AtomicU64,
}

impl MappedFile {
    /// Maps all of `file`, which must not be empty. `keep_descriptor` is needed for writes, syncs and positioned reads.
    ///
    /// # Errors
    /// `InvalidData` for an empty file; the operating system's.
    pub(crate) fn new(file: File, keep_descriptor: bool, published: u64) -> io::Result<Self> {
        let length = file.metadata()?.len();
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
        }
        let too_long = |_| io::Error::new(io::ErrorKind::FileTooLarge, "the file exceeds the address space");
        let length = usize::try_from(length).map_err(too_long)?;
        #[allow(unsafe_code, reason = "mapping a file is what this module is for")]
        // SAFETY: a map is sound while its bytes do not change under a reference to them and the file does not shrink.
        // (1) References are made by `published_bytes` alone and lie below the published mark. `write_at` refuses every write below
        //     the mark, and the mark never falls, so bytes under a reference stay as they are. Above the mark the kernel changes the
        //     mapped pages as the file is written, where no reference exists.
        // (2) Files of a log are created at their full, allocated length; nothing in this crate truncates a file, and a removed file
        //     lives until it is unmapped.
        // (3) Nobody else writes these files: one process has the data directory (`datadir` locks it), within it one `LaneWriter` has
        //     the lane, and it writes to its active segment only, through the one object it opened or created for it. Objects that
        //     count a whole file as published are opened for segments that are sealed and for finished index files.
        let map = unsafe { MmapOptions::new().len(length).map(&file)? };
        let file = keep_descriptor.then_some(file);
        Ok(Self { file, map, published: AtomicU64::new(published.min(length as u64)) })
    }

    pub(crate) fn length(&self) -> u64 {
        self.map.len() as u64
    }

    fn descriptor(&self) -> io::Result<&File> {
        self.file
            .as_ref()
            .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "opened for its map only"))
    }

    /// Writes `parts` from `offset` on, in one system call unless the kernel takes less.
    pub(crate) fn write_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), WriteError> {
        let total = parts.iter().map(|part| part.len() as u64).sum::<u64>();
        let inside = offset.checked_add(total).is_some_and(|end| end <= self.length());
        if !inside || offset < self.published.load(Ordering::Acquire) {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "write outside the unpublished bytes");
            return Err(WriteError { written: 0, source });
        }
        let file = self.descriptor().map_err(|source| WriteError { written: 0, source })?;
        let mut vectors: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut vectors = &mut vectors[..];
        let mut written = 0;
        while written < total {
            match rustix::io::pwritev(file, vectors, offset + written) {
                Ok(0) => return Err(WriteError { written, source: io::ErrorKind::WriteZero.into() }),
                Ok(count) => {
                    written += count as u64;
                    IoSlice::advance_slices(&mut vectors, count);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(WriteError { written, source: errno.into() }),
            }
        }
        Ok(())
    }

    pub(crate) fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.descriptor()?.read_exact_at(out, offset)
    }

    pub(crate) fn sync_data(&self) -> io::Result<()> {
        self.descriptor()?.sync_data()
    }

    pub(crate) fn publish(&self, end: u64) {
        self.published.fetch_max(end.min(self.length()), Ordering::AcqRel);
    }

    /// The published bytes `offset .. offset + length`, or `None`.
    pub(crate) fn published_bytes(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let end = offset.checked_add(length as u64)?;
        if end > self.published.load(Ordering::Acquire) {
            return None;
        }
        // The mark is at most the map's length, so both fit.
        self.map.get(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
    }
}

impl std::fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MappedFile({} bytes)", self.length())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_published_bytes_are_handed_out_and_they_can_not_be_written_again() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8_192).unwrap();
        let mapped = MappedFile::new(file, true, 0).unwrap();
        mapped.write_at(100, &[b"first ", b"second"]).unwrap();
        assert_eq!(mapped.published_bytes(100, 12), None);
        mapped.publish(112);
        assert_eq!(mapped.published_bytes(100, 12), Some(&b"first second"[..]));
        assert_eq!(mapped.published_bytes(100, 13), None);
        assert_eq!(mapped.write_at(111, &[b"x"]).unwrap_err().source.kind(), io::ErrorKind::InvalidInput);
        assert_eq!(mapped.write_at(8_191, &[b"xx"]).unwrap_err().source.kind(), io::ErrorKind::InvalidInput);
        mapped.write_at(112, &[b"third"]).unwrap();
        mapped.publish(50);
        assert_eq!(mapped.published_bytes(100, 12), Some(&b"first second"[..]), "the mark never falls");
        mapped.publish(u64::MAX);
        assert_eq!(mapped.published_bytes(112, 5), Some(&b"third"[..]));
        assert_eq!(mapped.published_bytes(8_191, 2), None);
        assert_eq!(mapped.published_bytes(u64::MAX, 2), None);
    }

    #[test]
    fn an_empty_file_is_refused() {
        assert!(MappedFile::new(tempfile::tempfile().unwrap(), true, 0).is_err());
    }
}
