//! The disk as the log sees it: the seam where faults are injected.
//!
//! Owns the traits [`Disk`] and [`DiskFile`], and [`Slice`], a piece of a file that keeps its map alive. What the log may assume of
//! *any* disk stands here, and nothing else may be assumed:
//!
//! * A write is durable only after [`DiskFile::sync_data`] on its file has returned without error. Before that, any 512-byte sector
//!   of it may hold its old or its new bytes after a crash, in any combination and order.
//! * A sector that was not written keeps its bytes. A sector is replaced whole or not at all.
//! * A name (created, renamed, removed) is durable only after [`Disk::sync_dir`] on its directory.
//! * After a failed sync nothing is known about the writes it covered, and a later successful sync does not cover them: the kernel
//!   may have dropped them and marked its pages clean. Only writing them again, and a sync after that, makes them durable.
//!
//! Implementations: [`RealDisk`](crate::real::RealDisk) and, for tests and simulation, [`SimDisk`](crate::sim::SimDisk). What the
//! bytes mean is left to [`segment`](crate::segment) and `index`.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use crate::map::MappedFile;

/// The unit in which a crash may tear a write. Real disks have 512 or 4,096 bytes; the smaller one is the worse case.
pub const SECTOR_BYTES: usize = 512;

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Positioned reads, with errors for unreadable media: scans.
    Read,
    /// The active segment: reads, writes and the map.
    ReadWrite,
    /// A file that never changes again, read through its map alone; holds no file descriptor, so that thousands can be open.
    Map,
}

/// A file system that holds the data directory.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Creates `dir` and its missing ancestors, and makes their names durable; also the name of the lowest directory that exists: it may
    /// be what an interrupted call left.
    ///
    /// # Errors
    /// The operating system's.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Creates the file `path`, which must not exist, with all its `bytes` allocated: a later write inside them can not fail for want
    /// of space (on file systems that honour it). Reads as zeros. The name is not durable yet.
    ///
    /// # Errors
    /// The operating system's; `StorageFull` if there is no room, and then no file is left behind.
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file. For [`Access::Map`] all of it counts as published; otherwise nothing.
    ///
    /// # Errors
    /// The operating system's.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes the names in `dir` durable.
    ///
    /// # Errors
    /// The operating system's.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Renames a file within one directory, replacing `to`.
    ///
    /// # Errors
    /// The operating system's.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The operating system's.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Names of the files and directories in `dir`, sorted; those that are not UTF-8 are left out.
    ///
    /// # Errors
    /// The operating system's.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Bytes that an unprivileged process may still allocate on the file system of `dir`.
    ///
    /// # Errors
    /// The operating system's.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// 32 bytes that nobody can guess (the simulated disk derives them from its seed).
    ///
    /// # Errors
    /// The operating system's.
    fn random_bytes(&self) -> io::Result<[u8; 32]>;
}

/// A write that failed, and how much of it may have reached the file all the same.
#[derive(Debug)]
pub struct WriteError {
    /// Bytes known to have been taken by the kernel before the failure.
    pub written: u64,
    /// The failure.
    pub source: io::Error,
}

/// An open file of fixed length.
///
/// The *published* mark is what makes the map safe to read while the file grows: bytes below it are never written again through this
/// object, and only bytes below it are handed out.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Length in bytes; fixed when the file was created.
    fn length(&self) -> u64;

    /// Writes `parts` one after the other from `offset` on.
    ///
    /// # Errors
    /// The operating system's; `InvalidInput` for a range that is not wholly between the published mark and the end of the file.
    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), WriteError>;

    /// Fills `out` from `offset` on.
    ///
    /// # Errors
    /// The operating system's; `UnexpectedEof` past the end.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Makes all bytes written before the call, and the length, durable (`fdatasync`).
    ///
    /// # Errors
    /// The operating system's. After an error see the module's assumptions.
    fn sync_data(&self) -> io::Result<()>;

    /// Raises the published mark to `end` (it never falls): bytes below it will not be written again.
    fn publish(&self, end: u64);

    /// The published bytes `offset .. offset + length`, borrowed from the map where there is one; `None` if not all are published.
    fn bytes(&self, offset: u64, length: usize) -> Option<Cow<'_, [u8]>>;

    /// Like [`DiskFile::bytes`], but keeps the file alive by itself.
    fn slice(self: Arc<Self>, offset: u64, length: usize) -> Option<Slice>;
}

/// Published bytes of a file, and a share in what keeps them readable. Cheap to clone; `Send`, so that it can go to a socket uncopied.
#[derive(Clone)]
pub struct Slice {
    owner: Owner,
    range: Range<usize>,
}

#[derive(Clone)]
enum Owner {
    Map(Arc<MappedFile>),
    Memory(Arc<[u8]>),
}

impl Slice {
    /// A slice of published bytes of a map; `None` if not all are published.
    pub(crate) fn of_map(file: Arc<MappedFile>, offset: u64, length: usize) -> Option<Self> {
        file.published_bytes(offset, length)?;
        let start = usize::try_from(offset).ok()?;
        Some(Self { owner: Owner::Map(file), range: start..start + length })
    }

    /// A slice that owns a copy.
    pub(crate) fn of_memory(bytes: Arc<[u8]>) -> Self {
        let range = 0..bytes.len();
        Self { owner: Owner::Memory(bytes), range }
    }

    /// The part `range` of this slice; `None` if it is not inside.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.range.len() {
            return None;
        }
        let start = self.range.start;
        Some(Self { owner: self.owner.clone(), range: start + range.start..start + range.end })
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.owner {
            // Published when the slice was made, and the mark never falls: the fallback is never taken.
            Owner::Map(file) => {
                file.published_bytes(self.range.start as u64, self.range.len()).unwrap_or_default()
            }
            Owner::Memory(bytes) => &bytes[self.range.clone()],
        }
    }
}

impl AsRef<[u8]> for Slice {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.range.len())
    }
}

impl PartialEq for Slice {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Slice {}
