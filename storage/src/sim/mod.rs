//! A simulated disk in memory, for tests and for the whole-cluster simulation.
//!
//! Owns the model behind [`disk`](crate::disk)'s assumptions: what a running process reads (the cache) is kept apart from what would
//! survive a power failure. [`crash`] turns one into the other, in every way that the assumptions allow.
//!
//! * Each 512-byte sector has a durable version and, after writes that no sync has covered, a list of newer ones. A crash keeps any.
//! * Names have a durable state and a list of changes that no directory sync has covered. A crash keeps any subset.
//! * A file whose first sync has not happened may be empty after a crash.
//! * A failed sync makes the newer versions *doubtful*: still read back, perhaps on the disk, and no later sync makes them durable.
//!   Only writing the sector again does.
//!
//! Everything is deterministic: operations are counted, faults are set by operation number, and random choices come from a seed. Files
//! are kept by sectors, so an empty 256 MiB segment costs nothing. Left out: reordering of a sync against other files' (each sync is a
//! barrier for its own file only, which is the weakest case), and unreadable sectors.

pub mod crash;
mod random;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Access, Disk, DiskFile, SECTOR_BYTES, Slice, WriteError};

pub use random::SimRandom;

type Sector = Arc<[u8; SECTOR_BYTES]>;
/// Sectors by number; a missing one holds zeros.
type Sectors = BTreeMap<u64, Sector>;
type Names = BTreeMap<PathBuf, Entry>;

/// What goes wrong at an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The operation fails with an input/output error. A failed write has written nothing; a failed sync leaves its writes doubtful.
    Failure,
    /// The operation fails for want of space, without effect.
    StorageFull,
    /// A write takes only its first `bytes` bytes and then fails; other operations fail.
    ShortWrite {
        /// Bytes taken.
        bytes: u64,
    },
    /// This operation and everything after it fails: the moment before a crash.
    PowerOff,
}

/// What an operation did, for tests that aim faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// A directory was made.
    MakeDir,
    /// A file was created.
    Create,
    /// Bytes were written.
    Write,
    /// A file was synced.
    Sync,
    /// A directory was synced.
    SyncDir,
    /// A file was renamed.
    Rename,
    /// A file was removed.
    Remove,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Directory,
    File(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Add(PathBuf, Entry),
    Rename(PathBuf, PathBuf, usize),
    Remove(PathBuf),
}

impl NameChange {
    /// The directory whose sync makes the change durable.
    fn directory(&self) -> Option<&Path> {
        let (Self::Add(path, _) | Self::Rename(_, path, _) | Self::Remove(path)) = self;
        path.parent()
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Self::Add(path, entry) => {
                names.insert(path.clone(), *entry);
            }
            Self::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), Entry::File(*inode));
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

/// A version of a sector that no sync has made durable.
#[derive(Clone, Debug)]
struct Version {
    bytes: Sector,
    /// A sync that covered it failed.
    doubtful: bool,
}

#[derive(Clone, Debug)]
struct Inode {
    length: u64,
    /// The length and allocation are durable.
    allocated: bool,
    cache: Sectors,
    durable: Sectors,
    pending: BTreeMap<u64, Vec<Version>>,
}

impl Inode {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let number = at / SECTOR_BYTES as u64;
            let start = (at % SECTOR_BYTES as u64) as usize;
            let count = rest.len().min(SECTOR_BYTES - start);
            let mut sector = self.cache.get(&number).map_or([0; SECTOR_BYTES], |sector| **sector);
            sector[start..start + count].copy_from_slice(&rest[..count]);
            let sector = Arc::new(sector);
            self.cache.insert(number, Arc::clone(&sector));
            self.pending.entry(number).or_default().push(Version { bytes: sector, doubtful: false });
            at += count as u64;
            rest = &rest[count..];
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) {
        let mut at = offset;
        let mut rest = out;
        while !rest.is_empty() {
            let start = (at % SECTOR_BYTES as u64) as usize;
            let count = rest.len().min(SECTOR_BYTES - start);
            let (now, later) = rest.split_at_mut(count);
            match self.cache.get(&(at / SECTOR_BYTES as u64)) {
                Some(sector) => now.copy_from_slice(&sector[start..start + count]),
                None => now.fill(0),
            }
            at += count as u64;
            rest = later;
        }
    }

    fn sync(&mut self) {
        self.allocated = true;
        let durable = &mut self.durable;
        self.pending.retain(|number, versions| match versions.last() {
            Some(last) if last.doubtful => true,
            Some(last) => {
                durable.insert(*number, Arc::clone(&last.bytes));
                false
            }
            None => false,
        });
    }

    fn fail_sync(&mut self) {
        for version in self.pending.values_mut().flatten() {
            version.doubtful = true;
        }
    }
}

#[derive(Clone, Debug)]
struct State {
    inodes: Vec<Inode>,
    live: Names,
    durable: Names,
    changes: Vec<NameChange>,
    capacity_bytes: u64,
    random: SimRandom,
    operations: Vec<(OperationKind, PathBuf)>,
    faults: BTreeMap<u64, Fault>,
    powered_off: bool,
    honest: bool,
}

fn failure(text: &'static str) -> io::Error {
    io::Error::other(text)
}

impl State {
    /// Counts an operation and tells the fault set for it.
    fn begin(&mut self, kind: OperationKind, path: &Path) -> io::Result<Option<Fault>> {
        let fault = self.faults.remove(&(self.operations.len() as u64));
        if fault == Some(Fault::PowerOff) {
            self.powered_off = true;
        }
        self.check_power()?;
        self.operations.push((kind, path.to_path_buf()));
        Ok(fault)
    }

    /// Like [`State::begin`], for operations without a partial effect.
    fn begin_whole(&mut self, kind: OperationKind, path: &Path) -> io::Result<()> {
        match self.begin(kind, path)? {
            None => Ok(()),
            Some(Fault::StorageFull) => Err(io::ErrorKind::StorageFull.into()),
            Some(_) => Err(failure("simulated input/output error")),
        }
    }

    fn check_power(&self) -> io::Result<()> {
        if self.powered_off { Err(failure("simulated power failure")) } else { Ok(()) }
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.live);
        self.changes.push(change);
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let root = parent.as_os_str().is_empty() || parent == Path::new("/");
        match self.live.get(parent) {
            _ if root => Ok(()),
            Some(Entry::Directory) => Ok(()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.live.get(path) {
            Some(Entry::File(inode)) => Ok(*inode),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn used_bytes(&self) -> u64 {
        let length = |entry: &Entry| match entry {
            Entry::File(inode) => self.inodes[*inode].length,
            Entry::Directory => 0,
        };
        self.live.values().map(length).sum()
    }
}

/// A simulated disk; clones share it.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// An empty disk of 1 TiB whose random bytes come from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::from_state(State {
            inodes: Vec::new(),
            live: Names::new(),
            durable: Names::new(),
            changes: Vec::new(),
            capacity_bytes: 1 << 40,
            random: SimRandom::new(seed),
            operations: Vec::new(),
            faults: BTreeMap::new(),
            powered_off: false,
            honest: true,
        })
    }

    fn from_state(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy that goes its own way; open files stay with the original.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::from_state(self.state().clone())
    }

    /// Sets the size of the disk; files count with their full length.
    pub fn set_capacity_bytes(&self, bytes: u64) {
        self.state().capacity_bytes = bytes;
    }

    /// Lets `operation` (counted from 0 over the life of the disk) fail.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.state().faults.insert(operation, fault);
    }

    /// Operations counted so far.
    #[must_use]
    pub fn operation_count(&self) -> u64 {
        self.state().operations.len() as u64
    }

    /// Operations so far, with the file or directory of each.
    #[must_use]
    pub fn operations(&self) -> Vec<(OperationKind, PathBuf)> {
        self.state().operations.clone()
    }

    /// Makes syncs return success without making anything durable, as some disks do: a canary for tests that must notice.
    pub fn lie_about_syncs(&self) {
        self.state().honest = false;
    }

    /// All bytes of a file as a process reads them.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        let inode = &state.inodes[state.file(path)?];
        let mut bytes = vec![0; usize::try_from(inode.length).map_err(io::Error::other)?];
        inode.read(0, &mut bytes);
        Ok(bytes)
    }

    /// Changes bytes of a file behind the back of whoever has it open, durably: damage of the media, or an attacker with the disk.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn tamper(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let number = state.file(path)?;
        let inode = &mut state.inodes[number];
        inode.write(offset, bytes);
        inode.sync();
        Ok(())
    }

    /// Flips bit `bit` of the byte at `offset`, as [`SimDisk::tamper`] does.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let mut byte = [0];
        {
            let state = self.state();
            state.inodes[state.file(path)?].read(offset, &mut byte);
        }
        self.tamper(path, offset, &[byte[0] ^ 1 << (bit & 7)])
    }
}

impl Disk for SimDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let Some(parent) = dir.parent() else { return Ok(()) };
        if self.state().live.contains_key(dir) {
            return self.sync_dir(parent);
        }
        self.create_dir_all(parent)?;
        {
            let mut state = self.state();
            state.begin_whole(OperationKind::MakeDir, dir)?;
            state.change(NameChange::Add(dir.to_path_buf(), Entry::Directory));
        }
        self.sync_dir(parent)
    }

    fn create(&self, path: &Path, bytes: u64) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.begin_whole(OperationKind::Create, path)?;
        state.check_parent(path)?;
        if state.live.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if state.used_bytes().saturating_add(bytes) > state.capacity_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode {
            length: bytes,
            allocated: false,
            cache: Sectors::new(),
            durable: Sectors::new(),
            pending: BTreeMap::new(),
        });
        state.change(NameChange::Add(path.to_path_buf(), Entry::File(inode)));
        drop(state);
        Ok(Arc::new(SimFile::new(self, path, inode, bytes, Access::ReadWrite)))
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        state.check_power()?;
        let inode = state.file(path)?;
        let length = state.inodes[inode].length;
        drop(state);
        if length == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is empty"));
        }
        Ok(Arc::new(SimFile::new(self, path, inode, length, access)))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin_whole(OperationKind::SyncDir, dir)?;
        if state.honest {
            let State { changes, durable, .. } = &mut *state;
            changes.retain(|change| {
                let covered = change.directory() == Some(dir);
                if covered {
                    change.apply(durable);
                }
                !covered
            });
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin_whole(OperationKind::Rename, from)?;
        let inode = state.file(from)?;
        if from.parent() != to.parent() {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        state.change(NameChange::Rename(from.to_path_buf(), to.to_path_buf(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin_whole(OperationKind::Remove, path)?;
        state.file(path)?;
        state.change(NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.check_power()?;
        if !matches!(state.live.get(dir), Some(Entry::Directory)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.live.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.state();
        state.check_power()?;
        Ok(state.capacity_bytes.saturating_sub(state.used_bytes()))
    }

    fn random_bytes(&self) -> io::Result<[u8; 32]> {
        let mut state = self.state();
        let mut bytes = [0; 32];
        for chunk in bytes.chunks_exact_mut(8) {
            chunk.copy_from_slice(&state.random.next_u64().to_le_bytes());
        }
        Ok(bytes)
    }
}

/// A file of a [`SimDisk`].
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    inode: usize,
    length: u64,
    access: Access,
    published: AtomicU64,
}

impl SimFile {
    fn new(disk: &SimDisk, path: &Path, inode: usize, length: u64, access: Access) -> Self {
        let published = if access == Access::Map { length } else { 0 };
        let published = AtomicU64::new(published);
        Self { disk: disk.clone(), path: path.to_path_buf(), inode, length, access, published }
    }

    fn is_inside(&self, offset: u64, length: u64) -> bool {
        offset.checked_add(length).is_some_and(|end| end <= self.length)
    }
}

impl DiskFile for SimFile {
    fn length(&self) -> u64 {
        self.length
    }

    fn write_at(&self, offset: u64, parts: &[&[u8]]) -> Result<(), WriteError> {
        let mut bytes = parts.concat();
        let refused = |source| WriteError { written: 0, source };
        let inside = self.is_inside(offset, bytes.len() as u64);
        if self.access != Access::ReadWrite || !inside || offset < self.published.load(Ordering::Acquire) {
            return Err(refused(io::ErrorKind::InvalidInput.into()));
        }
        let mut state = self.disk.state();
        let fault = state.begin(OperationKind::Write, &self.path).map_err(refused)?;
        match fault {
            None => {}
            Some(Fault::ShortWrite { bytes: taken }) => bytes.truncate(usize::try_from(taken).unwrap_or(0)),
            Some(Fault::StorageFull) => return Err(refused(io::ErrorKind::StorageFull.into())),
            Some(_) => return Err(refused(failure("simulated input/output error"))),
        }
        state.inodes[self.inode].write(offset, &bytes);
        if fault.is_some() {
            return Err(WriteError { written: bytes.len() as u64, source: failure("simulated short write") });
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if !self.is_inside(offset, out.len() as u64) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let state = self.disk.state();
        state.check_power()?;
        state.inodes[self.inode].read(offset, out);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let fault = state.begin(OperationKind::Sync, &self.path)?;
        let honest = state.honest;
        let inode = &mut state.inodes[self.inode];
        if fault.is_some() {
            inode.fail_sync();
            return Err(failure("simulated failure of a sync"));
        }
        if honest {
            inode.sync();
        }
        Ok(())
    }

    fn publish(&self, end: u64) {
        self.published.fetch_max(end.min(self.length), Ordering::AcqRel);
    }

    fn bytes(&self, offset: u64, length: usize) -> Option<Cow<'_, [u8]>> {
        let end = offset.checked_add(length as u64)?;
        if end > self.published.load(Ordering::Acquire) {
            return None;
        }
        let mut out = vec![0; length];
        self.disk.state().inodes[self.inode].read(offset, &mut out);
        Some(Cow::Owned(out))
    }

    fn slice(self: Arc<Self>, offset: u64, length: usize) -> Option<Slice> {
        Some(Slice::of_memory(self.bytes(offset, length)?.into_owned().into()))
    }
}

#[cfg(test)]
mod tests;
