//! Roots of a lane's subtrees, kept beside the log, so that a proof does not hash the lane again.
//!
//! Owns the file `subtrees.bin` of a lane's directory and [`LaneHashes`], which answers for any hash of the tree
//! from it and from the log. Invariants: the file is a cache: what it holds is checked against the tree's own
//! frontier when it is opened, what does not fit is dropped, and the log gives it again; it is never synced, and
//! nothing that is acknowledged depends on it. Memory: 64 bytes for every 65,536 positions, a kilobyte a million;
//! on disk an eighth of a byte a position. Which proofs are made of it is left to `weft-core`.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `WEFTSUB1` |
//! | 8 | 4 | network |
//! | 12 | 2 | lane |
//! | 14 | 1 | level = 8: each root is over 256 positions |
//! | 15 | 17 | zeros |
//! | 32 | 32 n | the roots, in order |

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use weft_core::lane::BatchHeader;
use weft_core::merkle::{Hash, HashSource, SUBTREE_LEVEL, leaf_hash_32, node_hash};
use weft_core::{LaneId, LaneTree, NetworkId, Place};

use crate::error::LogError;
use crate::reader::LogReader;

/// Name of the file in a lane's directory.
pub const SUBTREES_NAME: &str = "subtrees.bin";

const MAGIC: [u8; 8] = *b"WEFTSUB1";
const HEADER_BYTES: usize = 32;
const HASH_BYTES: usize = 32;

/// Levels between the roots in the file and the lowest ones in memory: a group of 256 roots is one read of 8 KiB.
const GROUP_LEVELS: u32 = 8;
const GROUP: usize = 1 << GROUP_LEVELS;

/// Lowest level kept in memory.
const MEMORY_LEVEL: u32 = SUBTREE_LEVEL + GROUP_LEVELS;

/// The roots of one lane's subtrees. Shared by who extends it and who reads it.
#[derive(Debug)]
pub struct Subtrees {
    file: File,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Roots in the file.
    count: u64,
    /// The group of roots that is not full yet.
    group: LaneTree,
    /// `upper[i]` has the roots of level `MEMORY_LEVEL + i`.
    upper: Vec<Vec<Hash>>,
}

impl State {
    fn push(&mut self, root: Hash) {
        self.count += 1;
        self.group.push_leaf_hash(root);
        if self.group.size() < GROUP as u64 {
            return;
        }
        let mut hash = std::mem::take(&mut self.group).root();
        for level in 0.. {
            if self.upper.len() == level {
                self.upper.push(Vec::new());
            }
            let row = &mut self.upper[level];
            row.push(hash);
            match row[..] {
                [.., left, right] if row.len().is_multiple_of(2) => hash = node_hash(&left, &right),
                _ => return,
            }
        }
    }
}

impl Subtrees {
    /// Opens the file in `dir`, or makes it, and keeps of it what fits `tree`, the tree of the lane now: it is
    /// compared with the roots of the perfect subtrees that the tree itself holds.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open(dir: &Path, network: NetworkId, lane: LaneId, tree: &LaneTree) -> io::Result<Self> {
        let path = dir.join(SUBTREES_NAME);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&network.0);
        header[12..14].copy_from_slice(&lane.0.to_le_bytes());
        header[14] = SUBTREE_LEVEL as u8;
        let mut found = [0; HEADER_BYTES];
        let known = file.read_exact_at(&mut found, 0).is_ok() && found == header;
        if !known {
            file.set_len(0)?;
            file.write_all_at(&header, 0)?;
        }
        let subtrees = Self { file, state: RwLock::default() };
        let bytes = subtrees.file.metadata()?.len().saturating_sub(HEADER_BYTES as u64);
        let count = (bytes / HASH_BYTES as u64).min(tree.size() >> SUBTREE_LEVEL);
        subtrees.load(count)?;
        subtrees.keep_what_fits(tree)?;
        Ok(subtrees)
    }

    /// Makes the state from the first `count` roots of the file.
    fn load(&self, count: u64) -> io::Result<()> {
        let mut state = State::default();
        let mut roots = Vec::new();
        while state.count < count {
            let next = (count - state.count).min(GROUP as u64) as usize;
            self.read(state.count, next, &mut roots)?;
            roots.drain(..).for_each(|root| state.push(root));
        }
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        Ok(())
    }

    /// Drops the roots from the first perfect subtree of `tree` on that they do not lead to.
    fn keep_what_fits(&self, tree: &LaneTree) -> io::Result<()> {
        let levels = (0..u64::BITS).rev().filter(|level| tree.size() >> level & 1 == 1);
        let mut first = 0;
        for (level, peak) in levels.zip(tree.frontier()) {
            if level < SUBTREE_LEVEL {
                break;
            }
            // What the file does not reach is missing, not wrong.
            if self.subtree(level, first >> level).is_some_and(|root| root != peak) {
                return self.truncate(first);
            }
            first += 1 << level;
        }
        Ok(())
    }

    fn read(&self, first: u64, count: usize, out: &mut Vec<Hash>) -> io::Result<()> {
        let mut bytes = vec![0; count * HASH_BYTES];
        self.file.read_exact_at(&mut bytes, HEADER_BYTES as u64 + first * HASH_BYTES as u64)?;
        out.extend_from_slice(bytes.as_chunks::<HASH_BYTES>().0);
        Ok(())
    }

    /// Positions that the roots cover.
    #[must_use]
    pub fn covered(&self) -> u64 {
        self.state.read().unwrap_or_else(PoisonError::into_inner).count << SUBTREE_LEVEL
    }

    /// Takes the roots of the subtrees from the one that `position` lies in on. Roots that do not follow those that
    /// are here are left out: [`catch_up`](Self::catch_up) finds them in the log.
    ///
    /// # Errors
    /// The operating system's; nothing is taken then.
    pub fn extend(&self, position: u64, roots: &[Hash]) -> io::Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if roots.is_empty() || state.count != position >> SUBTREE_LEVEL {
            return Ok(());
        }
        self.file
            .write_all_at(roots.as_flattened(), HEADER_BYTES as u64 + state.count * HASH_BYTES as u64)?;
        roots.iter().for_each(|root| state.push(*root));
        Ok(())
    }

    /// Forgets everything that is not wholly below `size`: the lane has another history from there on.
    ///
    /// # Errors
    /// The operating system's.
    pub fn truncate(&self, size: u64) -> io::Result<()> {
        let count = size >> SUBTREE_LEVEL;
        if count < self.covered() >> SUBTREE_LEVEL { self.load(count) } else { Ok(()) }
    }

    /// Takes from the log what is missing up to `size`. Hashes each message once: a third of a microsecond each one by one,
    /// a tenth in vector lanes.
    ///
    /// # Errors
    /// If the log or the file fail.
    pub fn catch_up(&self, reader: &LogReader, size: u64) -> Result<(), CatchUpError> {
        let from = self.covered();
        if size >> SUBTREE_LEVEL <= from >> SUBTREE_LEVEL {
            return Ok(());
        }
        // Positions are counted from `from`, which is the start of a subtree: below their level all trees are alike.
        let mut tree = LaneTree::new();
        let mut roots = Vec::new();
        let hasher = reader.hasher();
        for batch in reader.batches_from(from) {
            let batch = batch?;
            let Ok(view) = batch.view() else { break };
            let ids = view.ids_by(hasher);
            let leaves = std::iter::once(view.header().hash()).chain(ids.iter().map(|id| id.0));
            // What is covered lies in the first batch only.
            let new: Vec<Hash> = leaves.skip(from.saturating_sub(batch.first) as usize).collect();
            tree.append(&new, hasher, |root| roots.push(root));
            let done = from + tree.size();
            if roots.len() >= GROUP || done >= size {
                let first = (done >> SUBTREE_LEVEL) - roots.len() as u64;
                self.extend(first << SUBTREE_LEVEL, &roots)?;
                roots.clear();
            }
            if done >= size {
                break;
            }
        }
        Ok(())
    }

    /// Root of the perfect subtree over the `1 << level` leaves from `index << level` on, if the roots here cover it.
    #[must_use]
    pub fn subtree(&self, level: u32, index: u64) -> Option<Hash> {
        let above = level.checked_sub(SUBTREE_LEVEL)?;
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = level.checked_sub(MEMORY_LEVEL) {
            return state.upper.get(row as usize)?.get(usize::try_from(index).ok()?).copied();
        }
        let (first, count) = (index.checked_shl(above)?, 1u64 << above);
        if first.checked_add(count)? > state.count {
            return None;
        }
        let mut roots = Vec::with_capacity(count as usize);
        self.read(first, count as usize, &mut roots).ok()?;
        let mut tree = LaneTree::new();
        roots.into_iter().for_each(|root| tree.push_leaf_hash(root));
        Some(tree.root())
    }
}

/// Why the roots could not be taken from the log.
#[derive(Debug, thiserror::Error)]
pub enum CatchUpError {
    /// The log cannot be read.
    #[error("{0}")]
    Log(#[from] LogError),
    /// The file cannot be written.
    #[error("{SUBTREES_NAME}: {0}")]
    File(#[from] io::Error),
}

/// All hashes of a lane's tree: large subtrees from [`Subtrees`], small ones and single leaves from the log.
pub struct LaneHashes<'a> {
    reader: &'a LogReader,
    subtrees: &'a Subtrees,
    error: RefCell<Option<LogError>>,
}

impl<'a> LaneHashes<'a> {
    /// The hashes of the lane that `reader` reads.
    #[must_use]
    pub fn new(reader: &'a LogReader, subtrees: &'a Subtrees) -> Self {
        Self { reader, subtrees, error: RefCell::default() }
    }

    /// Why the last hash that was not found could not be read, if that was it.
    pub fn take_error(&self) -> Option<LogError> {
        self.error.take()
    }

    fn leaf_data(&self, index: u64) -> Result<Option<Hash>, LogError> {
        let place = Place::new(self.reader.lane(), index);
        if let Some(message) = self.reader.message_at(place)? {
            return Ok(message.view().ok().map(|view| view.id().0));
        }
        // Not a message: the header of a batch, or not written yet.
        let batch = self.reader.batch_at(index)?.filter(|batch| batch.first == index);
        Ok(batch.and_then(|batch| BatchHeader::parse(&batch.bytes).ok().map(BatchHeader::hash)))
    }
}

impl std::fmt::Debug for LaneHashes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneHashes").field("lane", &self.reader.lane()).finish_non_exhaustive()
    }
}

impl HashSource for LaneHashes<'_> {
    fn leaf(&self, index: u64) -> Option<Hash> {
        match self.leaf_data(index) {
            Ok(data) => data.map(|data| leaf_hash_32(&data)),
            Err(error) => {
                *self.error.borrow_mut() = Some(error);
                None
            }
        }
    }

    fn subtree(&self, level: u32, index: u64) -> Option<Hash> {
        if let Some(root) = self.subtrees.subtree(level, index) {
            return Some(root);
        }
        // Never a whole lane: what is not covered is caught up first.
        if level > SUBTREE_LEVEL {
            return None;
        }
        let first = index.checked_shl(level)?;
        let mut tree = LaneTree::new();
        for leaf in first..first.checked_add(1 << level)? {
            tree.push_leaf_hash(self.leaf(leaf)?);
        }
        Some(tree.root())
    }
}
