//! One small record that is replaced whole, durably, many times: a file of two slots that are written in turn.
//!
//! Owns the file. Invariants: after a crash at any point the record is the last one whose [`SlotFile::write`] had returned, or the
//! one that was being written; what [`SlotFile::open`] hands out is durable when it returns; after the first failed write or sync
//! nothing is written any more. What the record says is for the caller.
//!
//! Why two slots and not a new file each time: a record that fits is one positioned write and one `fdatasync`, without a change of
//! names, so that a record ten times a second costs the disk what a small append costs. A record that does not fit any more is
//! written to a larger file, which then takes the name.
//!
//! The file has two halves of equal length, a multiple of 512 bytes; each begins with
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic "WEFTSLT1" |
//! | 8 | 8 | generation: 1 and rising; the highest one that is whole counts |
//! | 16 | 8 | length N of the record |
//! | 24 | 32 | checksum: BLAKE3 derive_key("weft 2026-11 slot v1", bytes[0..24] and the record) |
//! | 56 | N | the record |

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Access, Disk, DiskFile};
use crate::error::{LogError, Poison};
use crate::state::TEMPORARY_SUFFIX;

const MAGIC: [u8; 8] = *b"WEFTSLT1";
const CONTEXT: &str = "weft 2026-11 slot v1";
const HEAD_BYTES: usize = 56;
const CHECKED_BYTES: usize = 24;
/// Smallest slot: a record of a small committee with some growth fits without a new file.
const SLOT_BYTES_MIN: u64 = 16 << 10;
/// Longest record.
pub const RECORD_BYTES_MAX: u64 = 1 << 30;

/// The file.
#[derive(Debug)]
pub struct SlotFile {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Option<Arc<dyn DiskFile>>,
    generation: u64,
    poison: Option<Arc<Poison>>,
    buffer: Vec<u8>,
}

impl SlotFile {
    /// Opens the file `name` in `dir`, which exists, and tells the record in it; none if nothing was ever written.
    ///
    /// # Errors
    /// [`LogError::Damaged`] if there is a file and no whole record in it; else the operating system's.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, name: &str) -> Result<(Self, Option<Vec<u8>>), LogError> {
        let path = dir.join(name);
        let names = disk.list(dir).map_err(LogError::io("list", dir))?;
        let temporary = temporary(&path);
        if names.iter().any(|found| dir.join(found) == temporary) {
            disk.remove(&temporary).map_err(LogError::io("remove", &temporary))?;
        }
        // A name that an interrupted call left may not be durable yet.
        disk.sync_dir(dir).map_err(LogError::io("sync", dir))?;
        let mut slots = Self { disk, path, file: None, generation: 0, poison: None, buffer: Vec::new() };
        if !names.iter().any(|found| found == name) {
            return Ok((slots, None));
        }
        let path = &slots.path;
        let file = slots.disk.open(path, Access::ReadWrite).map_err(LogError::io("open", path))?;
        let mut newest: Option<(u64, Vec<u8>)> = None;
        for half in 0..2 {
            let found = read(&*file, half * (file.length() / 2)).map_err(LogError::io("read", path))?;
            if let Some(found) = found.filter(|found| newest.as_ref().is_none_or(|newest| found.0 > newest.0))
            {
                newest = Some(found);
            }
        }
        let Some((generation, record)) = newest else {
            return Err(LogError::damaged(path, 0, "neither slot holds a whole record"));
        };
        (slots.file, slots.generation) = (Some(file), generation);
        // It may have been read from the page cache alone, and after a failed sync the kernel does not write such pages again.
        slots.write(&record)?;
        Ok((slots, Some(record)))
    }

    /// Puts `record` in the place of the last one. It is durable when this returns.
    ///
    /// # Errors
    /// [`LogError::StorageFull`] if a larger file is needed and there is no room for it: nothing has changed, and the same record may be
    /// written later. [`LogError::Poisoned`] after any failed write or sync, now or before; [`LogError::Config`] for a record that is too
    /// long.
    pub fn write(&mut self, record: &[u8]) -> Result<(), LogError> {
        if let Some(poison) = &self.poison {
            return Err(LogError::Poisoned(Arc::clone(poison)));
        }
        let length = record.len() as u64;
        if length > RECORD_BYTES_MAX {
            return Err(LogError::Config { name: "record", got: length, min: 0, max: RECORD_BYTES_MAX });
        }
        let generation = self.generation + 1;
        let mut head = [0; CHECKED_BYTES];
        head[..8].copy_from_slice(&MAGIC);
        head[8..16].copy_from_slice(&generation.to_le_bytes());
        head[16..].copy_from_slice(&length.to_le_bytes());
        self.buffer.clear();
        self.buffer.extend_from_slice(&head);
        self.buffer.extend_from_slice(&checksum(&head, record));
        self.buffer.extend_from_slice(record);
        let needed = self.buffer.len() as u64;
        let written = match &self.file {
            Some(file) if file.length() / 2 >= needed => {
                let at = (generation % 2) * (file.length() / 2);
                write(&**file, &self.path, at, &self.buffer)
            }
            _ => self.replace(needed).map(|file| self.file = Some(file)),
        };
        match written {
            Ok(()) => {
                self.generation = generation;
                Ok(())
            }
            Err(("create", path, source)) if source.kind() == std::io::ErrorKind::StorageFull => {
                let needed_bytes = 2 * half_for(needed);
                Err(LogError::StorageFull { path, free_bytes: 0, needed_bytes })
            }
            Err((operation, path, source)) => {
                let poison = Arc::new(Poison { operation, path, source });
                self.poison = Some(Arc::clone(&poison));
                Err(LogError::Poisoned(poison))
            }
        }
    }

    /// Writes the buffer to a new file with room for `needed` bytes in each half, and gives it the name.
    fn replace(&self, needed: u64) -> Result<Arc<dyn DiskFile>, Failed> {
        let half = half_for(needed);
        let path = temporary(&self.path);
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let file = self.disk.create(&path, 2 * half).map_err(|source| ("create", path.clone(), source))?;
        let generation = self.generation + 1;
        write(&*file, &path, (generation % 2) * half, &self.buffer)?;
        self.disk.rename(&path, &self.path).map_err(|source| ("rename", path.clone(), source))?;
        self.disk.sync_dir(dir).map_err(|source| ("sync", dir.to_path_buf(), source))?;
        Ok(file)
    }
}

/// Length of a half in which `needed` bytes fit.
fn half_for(needed: u64) -> u64 {
    needed.next_power_of_two().max(SLOT_BYTES_MIN)
}

/// What failed, on which file, how.
type Failed = (&'static str, PathBuf, std::io::Error);

fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(TEMPORARY_SUFFIX);
    name.into()
}

fn write(file: &dyn DiskFile, path: &Path, at: u64, bytes: &[u8]) -> Result<(), Failed> {
    file.write_at(at, &[bytes]).map_err(|error| ("write", path.to_path_buf(), error.source))?;
    file.sync_data().map_err(|source| ("sync", path.to_path_buf(), source))
}

fn checksum(head: &[u8], record: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(head).update(record);
    *hasher.finalize().as_bytes()
}

/// Generation and record of the slot at `at`; `None` if it is not whole.
fn read(file: &dyn DiskFile, at: u64) -> std::io::Result<Option<(u64, Vec<u8>)>> {
    let half = file.length() / 2;
    let mut head = [0; HEAD_BYTES];
    if half < HEAD_BYTES as u64 {
        return Ok(None);
    }
    file.read_at(at, &mut head)?;
    let (checked, sum) = head.split_at(CHECKED_BYTES);
    let number = |at: usize| checked[at..].first_chunk().copied().map_or(0, u64::from_le_bytes);
    let (generation, length) = (number(8), number(16));
    if checked[..8] != MAGIC || length > half - HEAD_BYTES as u64 {
        return Ok(None);
    }
    let mut record = vec![0; length as usize];
    file.read_at(at + HEAD_BYTES as u64, &mut record)?;
    Ok((checksum(checked, &record) == sum).then_some((generation, record)))
}
